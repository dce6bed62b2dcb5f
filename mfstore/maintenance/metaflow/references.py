"""What the small files of a Metaflow root say: above all, which blobs and bundles each attempt refers to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mfstore.errors import CorruptObject, MfstoreError, NotFound
from mfstore.maintenance.metaflow.known_files import FILES_TOGETHER, KnownFiles, Listed, read_together
from mfstore.maintenance.metaflow.known_format import shard_of_flow
from mfstore.maintenance.metaflow.listed_tasks import info_of
from mfstore.maintenance.report import PhaseProgress
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.layout import References

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo
    from mfstore.maintenance.metaflow.holdings import Holdings
    from mfstore.maintenance.metaflow.listed_tasks import TaskName
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.report import PhaseCallback

Name = TypeVar("Name")


class ReferringFile(NamedTuple):
    """A file of an attempt that can refer to blobs."""

    task: TaskName
    attempt: int
    kind: str
    """Its name without the attempt."""
    found: References | MfstoreError
    """What it refers to, or why that is not known."""


def read_references(root: Root, holdings: Holdings, progress: PhaseCallback) -> Iterator[ReferringFile]:
    """What each of these files that were listed refers to. Files that are gone since an inventory refer to nothing."""
    flows = sorted(holdings.tasks.flows, key=shard_of_flow)  # what is remembered of them lies together
    wanted = (
        ((run + row[:2], row[2], row[3]), info_of(run, row))
        for flow in flows
        for run in zip(repeat(flow), holdings.tasks.runs_of(flow), strict=False)
        for row in holdings.tasks.rows(run)
        if row[3] in layout.REFERRING and row[2] is not None
    )
    done = 0
    for (name, attempt, kind), data in read_small(root, wanted):
        if done % FILES_TOGETHER == 0:
            progress(PhaseProgress("tasks", done, 0))
        done += 1
        if isinstance(data, NotFound) and holdings.as_of is not None:
            continue
        try:
            found = data if isinstance(data, MfstoreError) else layout.references(kind, data)
        except CorruptObject as error:
            found = error.where(key=f"{'/'.join(name)}/{attempt}.{kind}", backend=root.url)
        yield ReferringFile(name, attempt, kind, found)
    progress(PhaseProgress("tasks", done, done))


def read_small(root: Root, infos: Iterable[tuple[Name, ObjectInfo]]) -> Iterator[tuple[Name, bytes | MfstoreError]]:
    """Small files, each with what it was named by, in any order."""
    if root.known is not None:
        yield from root.known.read(infos)
        return
    for (name, _), data in read_together(root.backend, infos):
        yield name, data


@contextmanager
def remembering(root: Root, listed: Listed, *, writes: bool, trusted: bool = False) -> Iterator[None]:
    """Within this, small files below the root are read as far as they are not remembered. What was read anew is
    remembered at its end, with ``writes``, also when that is an error: then the next one reads less."""
    if not root.remote:
        yield
        return
    root.known = KnownFiles(root.backend, listed, writes=writes, trusted=trusted)
    try:
        yield
    except BaseException:
        with suppress(MfstoreError):
            root.known.save()
        raise
    else:
        root.known.save()
    finally:
        root.known = None
