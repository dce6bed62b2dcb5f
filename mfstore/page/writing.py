"""A page made of a place and written to a file: what ``mfstore.write_page`` and ``mfstore page`` do."""

from __future__ import annotations

import os
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

from mfstore.errors import InvalidRange
from mfstore.loading.files import regular_target, write_file
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.report import untold
from mfstore.opening import open_store
from mfstore.page.render import page
from mfstore.page.root_facts import root_facts
from mfstore.page.store_facts import Wanted, store_facts
from mfstore.progress import phases
from mfstore.store import Store

if TYPE_CHECKING:
    from mfstore.maintenance.report import PhaseCallback
    from mfstore.page.facts import Facts


def write_page(
    place: Store | Root | str | os.PathLike[str], path: str | os.PathLike[str], *, metaflow: bool = False,
    prefix: str = "", history: int = 10, diff: bool = True, title: str | None = None,
    progress: bool | PhaseCallback | None = None,
) -> None:  # fmt: skip
    """Write one HTML file that shows a store in any browser, without a server or a network: refs with their history
    and notes, what each holds, what changed from one version to the next, who holds how many bytes, and growth. Or a
    datastore root of Metaflow: runs, steps, tasks and what these stored, in both profiles.

    It is written whole or not at all. What cannot be read because it is damaged is told in the page. Nothing is
    unpickled that would run code, and neither credentials nor paths that the caller has not named are in it.

    Args:
        place: A store, or its path or URL; with ``metaflow`` the directory or URL of a root.
        path: The file; one that is there is replaced.
        metaflow: Whether ``place`` is a root.
        prefix: Only refs that begin so; below a root steps, as ``TrainFlow/`` or ``TrainFlow/start``. Bytes are those
            of the whole place all the same.
        history: So many values of each ref, the newest; below a root so many runs of each step.
        diff: Compare the newest value of refs that were set last inside with the one before it: their packs are read.
            Which artifacts of a bundle, or of a task, changed is told without.
        title: What the page is called; None: as the place is.
        progress: As of ``Store.verify``.

    Raises:
        NotFound: there is no store, or nothing where the root should be.
        NotAStore: it is no root, or no store.
        AccessDenied, BackendError: it cannot be listed.
        InvalidRange: ``history`` is less than 1.
        OutOfSpace: no room for the file.
        OSError: it cannot be written.
    """
    if history < 1:
        raise InvalidRange("history is a number of values", expected="1 or more", found=history)
    target = regular_target(path)
    name = place.url if isinstance(place, Store) else place.given if isinstance(place, Root) else os.fspath(place)
    with phases(progress) as told:
        facts = _facts(place, name, title or name, metaflow, Wanted(prefix, history, diff), told or untold)
    write_file(target, [page(facts).encode()], name)


def _facts(
    place: Store | Root | str | os.PathLike[str], name: str, title: str, metaflow: bool, wanted: Wanted,
    tell: PhaseCallback,
) -> Facts:  # fmt: skip
    if isinstance(place, Store):
        return store_facts(place, name, title, wanted, tell)
    if isinstance(place, Root) or metaflow:
        with nullcontext(place) if isinstance(place, Root) else closing(Root(name)) as root:
            return root_facts(root, name, title, prefix=wanted.prefix, history=wanted.history, tell=tell)
    with open_store(place, create=False) as store:
        return store_facts(store, name, title, wanted, tell)
