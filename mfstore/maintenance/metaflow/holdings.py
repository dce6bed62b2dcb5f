"""What is below a Metaflow root, by listing alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import InitVar, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from mfstore.backends.base import ObjectInfo
from mfstore.backends.ranges import KeyRange, without
from mfstore.errors import NotAStore, NotFound, Refused
from mfstore.maintenance.metaflow.inventory import Inventory
from mfstore.maintenance.metaflow.listed_blobs import BlobTable
from mfstore.maintenance.metaflow.listed_files import RunFiles
from mfstore.maintenance.metaflow.listed_tasks import Row, TaskTable
from mfstore.maintenance.report import PhaseProgress
from mfstore.maintenance.spill import Spill
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.layout import MAINTENANCE_FOLDER
from mfstore.metaflow.roots.packed_keys import STORE_FOLDER

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.report import PhaseCallback

KINDS = ("blobs", "tasks", "metadata", "cards", "IncludeFiles", "S3(run=self)")
"""What a flow holds: its content-addressed store, files of tasks, local metadata and so on."""
Amount = tuple[int, int]
"""Number and bytes of objects."""
TOLD_EVERY = 10_000
"""Objects listed between two words about it."""


_OF_FLOWS = ("data", "mf.cards")
"""Folders with a folder for each flow."""
_BESIDE = (f"{MAINTENANCE_FOLDER}/", f"{STORE_FOLDER}/", "conda/")
"""What Metaflow and mfstore keep beside the flows."""


@dataclass(slots=True)
class Holdings:
    """What a listing shows of a root, or of some flows of it."""

    only: frozenset[str] | None = None
    """The flows that were looked at; None: all."""
    as_of: float | None = None
    """The time of the inventory that told this, in seconds since the epoch; None: a listing did."""
    spill: InitVar[Spill | None] = None
    """Where what is too much for memory is kept; None: nothing is."""
    blobs: BlobTable = field(init=False)
    metas: BlobTable = field(init=False)
    """Metadata files of blobs; only in directories."""
    tasks: TaskTable = field(init=False)
    metadata: RunFiles = field(init=False)
    """Local metadata."""
    includes: BlobTable = field(init=False)
    cards: RunFiles = field(init=False)
    user: RunFiles = field(init=False)
    """What runs stored by ``S3(run=self)``."""
    objects: int = 0
    stored: int = 0
    """Bytes of all objects."""
    packed: Amount = (0, 0)
    """Of the packed profile's store, which all flows share."""
    foreign: dict[str, Amount] = field(default_factory=dict)
    """What is not Metaflow's, by folder: two levels of it."""
    below: dict[str, int] = field(default_factory=dict)
    """Folders that look like datastore roots of their own, with the number of objects that say so."""

    def __post_init__(self, spill: Spill | None) -> None:
        self.blobs = BlobTable("", spill)
        self.metas = BlobTable("_meta", spill)
        self.includes = BlobTable("", spill, layout.include_path)
        self.tasks = TaskTable(spill)
        self.metadata, self.cards, self.user = (RunFiles(kind, spill) for kind in ("metadata", "card", "user"))

    def add(self, info: ObjectInfo) -> None:
        """Count one object."""
        self.add_all([info])

    def _add(self, info: ObjectInfo) -> None:
        path = layout.parse(info.key)
        if path.kind == "blob":
            self.blobs[path.flow, path.name] = info
        elif path.kind == "blob_meta":
            self.metas[path.flow, path.name] = info
        elif path.kind == "task":
            self.tasks.add(path, info)
        elif path.kind == "include":
            self.includes[path.flow, path.name] = info
        elif path.kind == "metadata":
            self.metadata.add(path, info)
        elif path.kind == "card":
            self.cards.add(path, info)
        elif path.kind == "user":
            self.user.add(path, info)
        elif info.key.startswith(f"{STORE_FOLDER}/"):
            self.packed = self.packed[0] + 1, self.packed[1] + info.size
        elif not info.key.startswith(_BESIDE):
            self._leave(info)

    def add_all(self, infos: Iterable[ObjectInfo], told: Callable[[int], None] = lambda objects: None) -> None:
        """Count these objects. ``told`` is called now and then with how many there are. As fast as may be: what is in
        one folder comes together, and most of it are files of tasks, and blobs."""
        folder, task, store = "", None, None
        rows: list[Row] = []
        for info in infos:
            key, size, modified, etag = info
            place, _, name = key.rpartition("/")
            if place != folder:
                if rows and task is not None:
                    self.tasks.add_rows(task[:2], rows)
                folder, task, store, rows = place, layout.task_of(place), layout.blobs_of(place), []
            file = layout.TASK_FILES.get(name) if task is not None else None
            if task is not None and file is not None:
                rows.append((task[2], task[3], *file, size, modified, etag))
            elif store is None or name[:2] != store[1] or not self.blobs.add_digest(store[0], name, info):
                self._add(info)
            self.objects += 1
            self.stored += size
            if self.objects % TOLD_EVERY == 0:
                told(self.objects)
        if rows and task is not None:
            self.tasks.add_rows(task[:2], rows)

    def settle(self) -> None:
        """After the last object: folders without any attempt's mark are nobody's tasks."""
        for info in self.tasks.take_unmarked():
            self._leave(info)

    def _leave(self, info: ObjectInfo) -> None:
        folder = "/".join(info.key.split("/")[:-1][:2]) or info.key
        objects, size = self.foreign.get(folder, (0, 0))
        self.foreign[folder] = objects + 1, size + info.size
        below = layout.root_below(info.key)
        if below is not None:
            self.below[below] = self.below.get(below, 0) + 1

    def foreign_folders(self) -> dict[str, Amount]:
        """What is not Metaflow's, by the highest folder that holds nothing else."""
        flows = {*self.flows}
        found: dict[str, Amount] = {}
        for folder, (objects, size) in sorted(self.foreign.items()):
            top = folder.partition("/")[0]
            name = folder if top in flows or top in ("data", "mf.cards") else top
            before = found.get(name, (0, 0))
            found[name] = before[0] + objects, before[1] + size
        return found

    def find(self, path: str) -> ObjectInfo | None:
        """What was listed under the path of a task's file. LookupError where nobody looked."""
        flow = path.partition("/")[0]
        if self.only is not None and flow not in self.only:
            raise LookupError(flow)
        return self.tasks.find(layout.parse(path))

    @property
    def flows(self) -> list[str]:
        """Every flow that has blobs or tasks."""
        return sorted(self.blobs.flows.union(self.tasks.flows))

    @property
    def runs(self) -> set[tuple[str, str]]:
        """Every run that has tasks."""
        return set(self.tasks.runs)

    def usage(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Number and bytes of the objects of each flow, by kind."""
        found: dict[str, dict[str, tuple[int, int]]] = {}

        def count(flow: str, kind: str, infos: Iterable[ObjectInfo]) -> None:
            parts = found.setdefault(flow, dict.fromkeys(KINDS, (0, 0)))
            for info in infos:
                parts[kind] = parts[kind][0] + 1, parts[kind][1] + info.size

        for infos, kind in ((self.blobs, "blobs"), (self.metas, "blobs"), (self.includes, "IncludeFiles")):
            for (flow, _), info in infos.items():
                count(flow, kind, [info])
        for name, task in self.tasks.items():
            count(name[0], "tasks", task.files.values())
        for listed, kind in ((self.metadata, "metadata"), (self.cards, "cards"), (self.user, "S3(run=self)")):
            for path, info in listed:
                count(path.flow, kind, [info])
        return dict(sorted(found.items()))


def list_root(
    root: Root, progress: PhaseCallback, flows: Sequence[str] = (), inventory: str | None = None,
    spill: Spill | None = None,
) -> Holdings:  # fmt: skip
    """Everything below the root, or what is stored of the flows that match one of these patterns, if any does; as it
    is, or as an S3 Inventory told it, by its URL. What is too much for memory is kept in ``spill``, if it is given.

    NotAStore when it is no root of Metaflow, perhaps because one lies below it; NotFound when nothing is there. Of an
    inventory as ``Inventory`` and its methods.
    """
    only: list[str] = []
    if inventory is None and flows:
        tops = filter(layout.is_flow, top_folders(root))
        only = [name for name in tops if any(fnmatchcase(name, pattern) for pattern in flows)]
    found = _listed(root, progress, only or (flows if inventory else ()), inventory, spill)
    if not found.blobs and not found.tasks and not found.packed[0]:
        _complain(root, found)
    return found


def list_flows(
    root: Root, flows: Sequence[str], progress: PhaseCallback, inventory: str | None = None, spill: Spill | None = None
) -> Holdings:
    """What is stored of these flows, as ``list_root``; of those that are gone, nothing."""
    found = _listed(root, progress, flows, inventory, spill) if flows else Holdings()
    found.only = frozenset(flows)
    return found


def _listed(
    root: Root, progress: PhaseCallback, flows: Sequence[str], inventory: str | None, spill: Spill | None
) -> Holdings:
    """What a listing tells of these flows, or an inventory of those that match; of all, where none are given."""
    with ExitStack() as stack:
        found = Holdings(spill=spill)
        if inventory is not None:
            source = stack.enter_context(closing(Inventory(root, inventory)))
            source.check_age(time.time())
            found.as_of = source.moment
            infos = _inventory_of(source, found, flows)
        else:
            found.only = frozenset(flows) if flows else None
            infos = _listing_of(root, flows) if flows else _listing(root)
        found.add_all(infos, lambda objects: progress(PhaseProgress("listing", objects, 0)))
    found.settle()
    progress(PhaseProgress("listing", found.objects, found.objects))
    return found


def _listing(root: Root) -> Iterator[ObjectInfo]:
    if root.remote:
        return root.backend.list_ranges(without("", [f"{MAINTENANCE_FOLDER}/"]))  # type: ignore[no-any-return]
    return root.backend.list("")  # type: ignore[no-any-return]


def _inventory_of(source: Inventory, found: Holdings, flows: Sequence[str]) -> Iterator[ObjectInfo]:
    """What an inventory has of the flows that match one of these patterns; of all, where there are none."""
    wanted: dict[str, bool] = {}
    named = () if any({*"*?["} & {*flow} for flow in flows) else flows
    top, taken = MAINTENANCE_FOLDER, False
    for info in source.objects(named):
        first, _, rest = info.key.partition("/")
        if first != top or first in _OF_FLOWS:
            top = first
            flow = rest.partition("/")[0] if flows and first in _OF_FLOWS else first
            if flow not in wanted:
                wanted[flow] = not flows or (layout.is_flow(flow) and any(fnmatchcase(flow, one) for one in flows))
            taken = wanted[flow] and first != MAINTENANCE_FOLDER
        if taken:
            yield info
    if flows:
        found.only = frozenset(flow for flow, is_wanted in wanted.items() if is_wanted)


def top_folders(root: Root) -> list[str]:
    """The names of the folders directly below the root."""
    if root.remote:
        return [folder.rstrip("/") for folder in root.backend.folders([""])]
    top = Path(root.backend.root)
    return sorted(entry.name for entry in top.iterdir() if entry.is_dir()) if top.is_dir() else []


def _listing_of(root: Root, flows: Iterable[str]) -> Iterator[ObjectInfo]:
    prefixes = [f"{place}{flow}/" for flow in flows for place in ("", "data/", "mf.cards/")]
    if root.remote:
        return root.backend.list_ranges([KeyRange(prefix) for prefix in prefixes])  # type: ignore[no-any-return]
    return root.backend.list_many(prefixes)  # type: ignore[no-any-return]


def refuse_links(root: Root, found: Holdings) -> None:
    """Refused when a symbolic link in a directory hides what would have to be known: listings follow none, so runs
    behind one are not seen, and what they refer to would seem to be garbage."""
    if root.remote:
        return
    top = Path(root.backend.root)
    flows = {*found.flows}
    with os.scandir(top) as entries:
        tops = sorted(entries, key=lambda entry: entry.name)
    for entry in tops:
        if entry.name.startswith(".") or not layout.is_flow(entry.name):
            continue
        if entry.is_symlink():
            links = iter(() if entry.is_file() else (entry.path,))
        else:
            links = _links(entry.path) if entry.name in flows else iter(())
        for link in links:
            raise Refused(
                f"{Path(link).relative_to(top)} is a symbolic link: what lies behind it is not seen",
                backend=root.url,
                hint="Nothing was changed. Put what it leads to in its place, or a mount, or move it out of the root",
            )


def _links(directory: str) -> Iterator[str]:
    try:
        with os.scandir(directory) as entries:
            found = [*entries]
    except FileNotFoundError:
        return
    for entry in found:
        if entry.is_symlink():
            yield entry.path
        elif entry.is_dir():
            yield from _links(entry.path)


def list_flow(root: Root, flow: str) -> Holdings:
    """The tasks of one flow, as they are now."""
    found = Holdings(spill=Spill())
    if root.remote:
        infos = root.backend.list_ranges(without(f"{flow}/", [f"{flow}/data/"]))
    else:
        infos = (info for info in root.backend.list(f"{flow}/") if not info.key.startswith(f"{flow}/data/"))
    found.add_all(infos)
    found.settle()
    return found


def _complain(root: Root, found: Holdings) -> None:
    if not found.objects and not root.remote and not Path(root.backend.root).is_dir():
        raise NotFound("no such directory", backend=root.url)
    if root.backend.exists_many(["mfstore.json"])[0]:
        raise NotAStore(
            "this is a store of mfstore, not a root of Metaflow", backend=root.url, hint="Give it as --store"
        )
    if found.below:
        top = root.url if root.remote else root.backend.root
        names = sorted(found.below, key=lambda name: (-found.below[name], name))
        raise NotAStore(
            f"not a datastore root of Metaflow, but {names[0]} below it looks like one"
            + (f" (and {len(names) - 1} more)" if names[1:] else ""),
            backend=root.url,
            hint=f"Give {' or '.join(f'{top}/{name}' for name in names[:3])}",
        )
    raise NotAStore(
        "not a datastore root of Metaflow: no flow with runs or artifacts is there",
        backend=root.url,
        hint="Give the directory or prefix that the flows lie in, such as .metaflow or s3://bucket/metaflow",
    )
