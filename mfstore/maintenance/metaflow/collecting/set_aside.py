"""What tasks share is set aside before it goes, and put back if a task took it for stored.

A task of stock Metaflow asks whether a blob is there, and writes down only at its end that it needs it. No look at a
flow tells what a task that begins right after it will find. So a copy stays until every attempt that may have found the
original has ended, or has been silent for as long as a policy allows; and what such an attempt names is put back.

IncludeFiles and code packages are asked for earlier: before anything below the root tells of the run. Their copies stay
for as long as a run may take from there to its first attempt, so at least until a later collection.

Nothing said there lets anything go: a copy is put back only where there is no original, and else deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mfstore.backends.base import ObjectInfo
from mfstore.errors import Conflict, MfstoreError, NotFound, OutOfSpace
from mfstore.maintenance.metaflow.collecting.amounts import RootAmount, total
from mfstore.maintenance.metaflow.collecting.liveness import Liveness
from mfstore.maintenance.metaflow.collecting.needs import read_new_includes, read_new_needs
from mfstore.maintenance.metaflow.holdings import Holdings, list_flow
from mfstore.maintenance.metaflow.listed_blobs import BlobName
from mfstore.maintenance.metaflow.listed_tasks import TaskName
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.layout import MAINTENANCE_FOLDER, Task

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.root import Root

FOLDER = f"{MAINTENANCE_FOLDER}/set-aside/"
"""Copies lie below it by the paths of their originals."""
EARLY = f"{FOLDER}before.attempts/"
"""Those of IncludeFiles and of code packages lie here. No flow has a dot in its name."""
WINDOW = 900.0
"""An original is deleted within so many seconds after its copy was made. What began later did not find it."""
BEFORE_ATTEMPTS = 3600.0
"""A run begins its first attempt within so many seconds after it found its IncludeFiles and its code package: the
environments of its steps are solved in between."""
CLOCKS = 60.0
"""Seconds by which times of objects that the storage gave about the same time may differ."""


def copy_aside(root: Root, infos: Collection[ObjectInfo], codes: Container[BlobName]) -> None:
    """Copy what is about to be deleted, if it is still there. In a directory ``take`` moves it instead. ``codes`` are
    the code packages among the blobs."""
    if root.remote:
        root.backend.copy_many([(info.key, _place(info, codes)) for info in infos])


def take(root: Root, infos: Collection[ObjectInfo], codes: Container[BlobName]) -> list[bool]:
    """Delete the objects that are as they were listed, of which a copy is left. True for each that is gone now."""
    if root.remote:
        return list(root.backend.delete_unchanged({info.key: info.etag for info in infos}))
    gone = []
    for info in infos:
        try:
            gone.append(root.backend.move_unchanged(info.key, _place(info, codes), info.etag))
        except NotFound:
            gone.append(True)
        except OutOfSpace:
            # Not even for a name: what goes makes room, and a full disk stops tasks as well.
            gone += root.backend.delete_unchanged({info.key: info.etag})
    return gone


def _place(info: ObjectInfo, codes: Container[BlobName]) -> str:
    """Where the copy of an object lies."""
    path = layout.parse(info.key)
    is_early = path.kind == "include" or (path.flow, path.name) in codes
    return (EARLY if is_early else FOLDER) + info.key


def _source(copy: ObjectInfo) -> str:
    """The path of the original of a copy."""
    return copy.key.removeprefix(EARLY).removeprefix(FOLDER)


@dataclass(slots=True)
class Settled:
    """What became of copies."""

    restored: list[str] = field(default_factory=list)
    """Paths of originals that were put back."""
    left: RootAmount = field(default_factory=RootAmount)
    """Copies that stay until a later collection: a task that may need them has not ended."""


def settle(root: Root, liveness: Liveness) -> Settled:
    """Put back what a task named since it was set aside, and delete the other copies that no task can name any more.

    ``liveness`` says of which attempts that may be. Only the collector that owns the state may do this.
    """
    settled = Settled()
    by_flow: dict[str, list[ObjectInfo]] = {}
    for info in root.backend.list(FOLDER):
        path = layout.parse(_source(info))
        if path.kind in ("blob", "blob_meta", "include"):
            by_flow.setdefault(path.flow, []).append(info)
    for flow, copies in sorted(by_flow.items()):
        _settle_flow(root, liveness, flow, copies, settled)
    return settled


def _settle_flow(root: Root, liveness: Liveness, flow: str, copies: list[ObjectInfo], settled: Settled) -> None:
    tasks = list_flow(root, flow).tasks
    found = read_new_needs(root, _files_since(tasks, min(info.modified for info in copies) - CLOCKS))
    if isinstance(found, MfstoreError):  # what a new task refers to cannot be read now
        settled.left += total(copies)
        return
    blobs, needs = found
    needed = [info for info in copies if _original(info) in blobs]
    # Before it is read which IncludeFiles a task names: what tells it may be among them.
    settled.restored += _restore(root, needed)
    included = [info for info in copies if layout.parse(_source(info)).kind == "include"]
    if included:
        names = read_new_includes(root, needs)
        included = [info for info in included if names is None or _original(info) in names]
        settled.restored += _restore(root, included)
    kept = {info.key for info in (*needed, *included)}
    began = [
        task.started[attempt] for name, task in tasks.items() if (attempt := liveness.running(name, task)) is not None
    ]
    earliest = min(began, default=float("inf"))
    rest = [info for info in copies if info.key not in kept]
    over = {info.key for info in rest if _is_over(info, earliest, liveness.now)}
    root.backend.delete_many([*over])
    settled.left += total(info for info in rest if info.key not in over)


def _is_over(copy: ObjectInfo, earliest: float, now: float) -> bool:
    """Whether no attempt can name that any more, of which the earliest that runs began then."""
    if copy.key.startswith(EARLY):
        return copy.modified + BEFORE_ATTEMPTS < min(earliest, now)
    return copy.modified + WINDOW < earliest


def _original(info: ObjectInfo) -> BlobName:
    """The flow and key of what a copy is of: a blob, and its metadata too, or an IncludeFile."""
    path = layout.parse(_source(info))
    return path.flow, path.name


def _files_since(tasks: Mapping[TaskName, Task], moment: float) -> Holdings:
    """The files of tasks that were written since then."""
    fresh = Holdings()
    for name, task in tasks.items():
        files = {file: info for file, info in task.files.items() if info.modified >= moment}
        if files:
            fresh.tasks.add_files(name, files)
    return fresh


def _restore(root: Root, copies: Iterable[ObjectInfo]) -> list[str]:
    """Put these back where nothing is stored by now; then the copy goes."""
    restored = []
    for info in copies:
        key = _source(info)
        if root.remote:
            if not root.backend.exists_many([key])[0]:
                root.backend.copy(info.key, key)  # with its metadata; what a task stores meanwhile is the same
                restored.append(key)
            root.backend.delete(info.key)
            continue
        try:
            if root.backend.move_unchanged(info.key, key, info.etag, replace=False):
                restored.append(key)
        except Conflict:
            root.backend.delete(info.key)
    return restored
