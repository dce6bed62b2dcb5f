"""A page made of a place and written to a file: what ``mfstore.write_page`` and ``mfstore page`` do."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

from mfstore.errors import InvalidRange
from mfstore.loading.files import regular_target, write_file
from mfstore.maintenance.report import untold
from mfstore.opening import open_store
from mfstore.page.render import page
from mfstore.page.store_facts import Wanted, store_facts
from mfstore.progress import phases
from mfstore.store import Store

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mfstore.maintenance.report import PhaseCallback


def write_page(
    place: Store | str | os.PathLike[str], path: str | os.PathLike[str], *, prefix: str = "", history: int = 10,
    diff: bool = True, title: str | None = None, progress: bool | PhaseCallback | None = None,
) -> None:  # fmt: skip
    """Write one HTML file that shows a store in any browser, without a server or a network: refs with their history
    and notes, what each holds, what changed from one version to the next, who holds how many bytes, and growth.

    It is written whole or not at all. What cannot be read because it is damaged is told in the page. Nothing is
    unpickled that would run code, and neither credentials nor paths that the caller has not named are in it.

    Args:
        place: A store, or its path or URL.
        path: The file; one that is there is replaced.
        prefix: Only refs that begin so. Bytes are those of the whole store all the same.
        history: So many values of each ref, the newest.
        diff: Compare the newest value of refs that were set last inside with the one before it: their packs are read.
            Which artifacts of a bundle changed is told without.
        title: What the page is called; None: as the place is.
        progress: As of ``Store.verify``.

    Raises:
        NotFound: there is no store.
        AccessDenied, BackendError: it cannot be listed.
        InvalidRange: ``history`` is less than 1.
        OutOfSpace: no room for the file.
        OSError: it cannot be written.
    """
    if history < 1:
        raise InvalidRange("history is a number of values", expected="1 or more", found=history)
    target = regular_target(path)
    opened: AbstractContextManager[Store]
    if isinstance(place, Store):
        opened, name = nullcontext(place), place.url
    else:
        opened, name = open_store(place, create=False), os.fspath(place)
    with opened as store, phases(progress) as tell:
        wanted = Wanted(prefix, history, diff)
        facts = store_facts(store, name, title or name, wanted, tell or untold)
    write_file(target, [page(facts).encode()], name)
