"""A datastore root of stock Metaflow, in a directory or in S3: what is there, and its blobs whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfstore.backends.base import ObjectInfo
from mfstore.errors import CorruptObject, MfstoreError, NotAStore, NotFound
from mfstore.host.workers import Workers
from mfstore.maintenance.reading import spread
from mfstore.maintenance.report import PhaseProgress
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.layout import STORE_FOLDER, References, Task
from mfstore.metaflow.stock import encoding
from mfstore.metaflow.stock.blob_storage import METADATA_SUFFIX, parsed_metadata
from mfstore.settings import resolve

if TYPE_CHECKING:
    from mfstore.maintenance.report import PhaseCallback
    from mfstore.store import Store

WINDOW = 1024
"""Small files asked for together."""
KINDS = ("blobs", "tasks", "metadata", "cards", "IncludeFiles", "S3(run=self)")
"""What a flow holds: its content-addressed store, files of tasks, local metadata and so on."""
TaskName = tuple[str, str, str, str]
"""Flow, run, step and task."""


@dataclass(frozen=True, slots=True)
class Read:
    """A blob as it is stored."""

    flow: str
    key: str
    data: bytes
    metadata: Any
    """What Metaflow stored with it; None when it has none."""


@dataclass(slots=True)
class Holdings:
    """What a listing shows of a root."""

    blobs: dict[tuple[str, str], ObjectInfo] = field(default_factory=dict)
    """By flow and key."""
    metas: dict[tuple[str, str], ObjectInfo] = field(default_factory=dict)
    """Blobs with a metadata file; only in directories."""
    tasks: dict[TaskName, Task] = field(default_factory=dict)
    metadata: list[tuple[layout.ParsedPath, ObjectInfo]] = field(default_factory=list)
    includes: dict[tuple[str, str], ObjectInfo] = field(default_factory=dict)
    cards: list[tuple[layout.ParsedPath, ObjectInfo]] = field(default_factory=list)
    user: list[tuple[layout.ParsedPath, ObjectInfo]] = field(default_factory=list)
    objects: int = 0
    stored: int = 0
    packed: tuple[int, int] = (0, 0)
    """Objects and bytes of the packed profile's store, which all flows share."""

    def add(self, info: ObjectInfo) -> None:
        """Count one object."""
        self.objects += 1
        self.stored += info.size
        place = layout.parse(info.key)
        if place.kind == "blob":
            self.blobs[place.flow, place.name] = info
        elif place.kind == "blob_meta":
            self.metas[place.flow, place.name] = info
        elif place.kind == "task":
            name = (place.flow, place.run, place.step, place.task)
            self.tasks.setdefault(name, Task()).add(place, info)
        elif place.kind == "include":
            self.includes[place.flow, place.name] = info
        elif place.kind == "metadata":
            self.metadata.append((place, info))
        elif place.kind == "card":
            self.cards.append((place, info))
        elif place.kind == "user":
            self.user.append((place, info))
        elif info.key.startswith(f"{STORE_FOLDER}/"):
            self.packed = self.packed[0] + 1, self.packed[1] + info.size

    @property
    def flows(self) -> list[str]:
        """Every flow that has blobs or tasks."""
        return sorted({flow for flow, _ in self.blobs} | {name[0] for name in self.tasks})

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
            for place, info in listed:
                count(place.flow, kind, [info])
        return dict(sorted(found.items()))

    @property
    def runs(self) -> set[tuple[str, str]]:
        """Every run that has tasks."""
        return {name[:2] for name in self.tasks}


class Root:
    """A root, opened; nothing in it is created."""

    def __init__(self, url: str) -> None:
        self.remote = url.startswith("s3://")
        self.backend = _remote(url) if self.remote else _local(url)
        self.url = self.backend.url
        self.workers = Workers(resolve().threads)
        self.alone = Workers(1)
        """What decodes a blob: it is on one of the workers' threads already."""

    def list(self, progress: PhaseCallback) -> Holdings:
        """Everything below the root. NotAStore when it is no root of Metaflow."""
        found = Holdings()
        for info in self._listed():
            found.add(info)
            if found.objects % 10_000 == 0:
                progress(PhaseProgress("listing", found.objects, 0))
        progress(PhaseProgress("listing", found.objects, found.objects))
        if not found.blobs and not found.tasks:
            self._complain(found.objects)
        return found

    def _listed(self) -> Iterator[ObjectInfo]:
        if not self.remote:
            yield from self.backend.list("")
            return
        # One listing for each run, and sixteen for the blobs of each flow, many at a time.
        tops = [folder for folder in self.backend.folders([""]) if folder != f"{layout.MAINTENANCE_FOLDER}/"]
        prefixes: list[str] = []
        for folder in self.backend.folders(tops):
            flow, _, name = folder.rstrip("/").rpartition("/")
            data = name == "data" and layout.is_flow(flow)
            prefixes += [folder + digit for digit in "0123456789abcdef"] if data else [folder]
        yield from self.backend.list_many(prefixes)

    def list_flow(self, flow: str) -> Holdings:
        """The tasks of one flow, as they are now."""
        found = Holdings()
        if self.remote:
            runs = [run for run in self.backend.folders([f"{flow}/"]) if run != f"{flow}/data/"]
            infos = self.backend.list_many(runs)
        else:
            infos = (info for info in self.backend.list(f"{flow}/") if not info.key.startswith(f"{flow}/data/"))
        for info in infos:
            found.add(info)
        return found

    def store(self, create: bool = False) -> Store:
        """The store of the packed profile below the root, there or not; its owner closes it."""
        return _remote_store(f"{self.url}/{STORE_FOLDER}", create) if self.remote else _local_store(self, create)

    def prune(self, folders: Iterable[str]) -> None:
        """Remove these folders where nothing is left in them. S3 has none."""
        if self.remote:
            return
        for folder in folders:
            for place, _, _ in os.walk(Path(self.backend.root, folder), topdown=False):
                with suppress(OSError):  # not empty: somebody put something there
                    Path(place).rmdir()

    def _complain(self, objects: int) -> None:
        backend = self.backend
        if not objects and not self.remote and not Path(backend.root).is_dir():
            raise NotFound("no such directory", backend=self.url)
        if backend.exists_many(["mfstore.json"])[0]:
            raise NotAStore(
                "this is a store of mfstore, not a root of Metaflow", backend=self.url, hint="Give it as --store"
            )
        raise NotAStore(
            "not a datastore root of Metaflow: no flow with runs or artifacts is there",
            backend=self.url,
            hint="Give the directory or prefix that the flows lie in, such as .metaflow or s3://bucket/metaflow",
        )

    # ---- reading ------------------------------------------------------------------------

    def read_blobs(
        self,
        names: Iterable[tuple[str, str]],
        metas: Container[tuple[str, str]],
        work: Callable[[tuple[str, str], Read | MfstoreError], None],
    ) -> None:
        """``work(flow and key, the blob or the error it met)`` on the workers' threads. ``metas`` are those with a
        metadata file."""

        def one(item: tuple[tuple[str, str], Read | MfstoreError | None]) -> None:
            name, given = item
            work(name, self._read(name, name in metas) if given is None else given)

        def weight(item: tuple[tuple[str, str], Read | MfstoreError | None]) -> int:
            return len(item[1].data) if isinstance(item[1], Read) else 0

        spread(self.workers, self._arrivals(names), one, weight, 16 * self.workers.threads)

    def _arrivals(
        self, names: Iterable[tuple[str, str]]
    ) -> Iterator[tuple[tuple[str, str], Read | MfstoreError | None]]:
        if not self.remote:
            yield from ((name, None) for name in names)
            return
        asked: list[tuple[str, str]] = []

        def paths() -> Iterator[str]:
            for name in names:
                asked.append(name)
                yield layout.blob_path(*name)

        for number, data, metadata in self.backend.get_described(paths()):
            name = asked[number]
            yield (
                name,
                data if isinstance(data, MfstoreError) else Read(name[0], name[1], data, _user_attributes(metadata)),
            )

    def _read(self, name: tuple[str, str], described: bool) -> Read | MfstoreError:
        path = layout.blob_path(*name)
        try:
            metadata = parsed_metadata(self.backend.get(path + METADATA_SUFFIX) if described else None)
            return Read(name[0], name[1], self.backend.get(path), metadata)
        except MfstoreError as error:
            return error

    def references(
        self, holdings: Holdings, progress: PhaseCallback
    ) -> Iterator[tuple[TaskName, int, str, References | MfstoreError]]:
        """What each file of an attempt that can refer to blobs refers to, or why that is not known: task, attempt and
        name of the file."""
        wanted = [
            ((name, attempt, kind), info)
            for name, task in holdings.tasks.items()
            for (attempt, kind), info in task.files.items()
            if kind in layout.REFERRING and attempt is not None
        ]
        for at in range(0, len(wanted), WINDOW):
            progress(PhaseProgress("tasks", at, len(wanted)))
            for (name, attempt, kind), data in self.small(wanted[at : at + WINDOW]):
                try:
                    found = data if isinstance(data, MfstoreError) else layout.references(kind, data)
                except CorruptObject as error:
                    found = error.where(key=f"{'/'.join(name)}/{attempt}.{kind}", backend=self.url)
                yield name, attempt, kind, found
        progress(PhaseProgress("tasks", len(wanted), len(wanted)))

    def small(self, infos: Sequence[tuple[Any, ObjectInfo]]) -> Iterator[tuple[Any, bytes | MfstoreError]]:
        """Small files, each with what it was named by."""
        found = self.backend.get_many([info.key for _, info in infos])
        for (name, _), (_, data) in zip(infos, found, strict=True):
            yield name, data

    def close(self) -> None:
        """End threads and connections."""
        self.workers.close()
        self.backend.close()


def blob_content(read: Read, workers: Workers) -> bytes:
    """What a blob holds, by its metadata. CorruptObject when it is damaged."""
    if isinstance(read.metadata, dict) and read.metadata.get("cas_raw"):
        return read.data
    return encoding.decode(read.data, workers)


def _user_attributes(metadata: Any) -> Any:
    from mfstore.s3.datatools.objects import ATTRIBUTES

    return parsed_metadata(metadata.get(ATTRIBUTES))


def _local(url: str) -> Any:
    from mfstore.backends.local import LocalBackend

    path = Path(url.removeprefix("file://"))
    # A project's directory stands for the root in it.
    inner = path / ".metaflow"
    return LocalBackend(str(inner if inner.is_dir() else path), fsync=resolve().fsync, sweep=False)


def _local_store(root: Root, create: bool) -> Store:
    from mfstore.store import open_store

    return open_store(f"{root.backend.root}/{STORE_FOLDER}", create=create)


def _remote_store(url: str, create: bool) -> Store:
    from mfstore.store import Store

    backend = _remote(url)
    return Store(backend.url, backend, resolve(), create=create, compress=True, algorithm="blake3")


def _remote(url: str) -> Any:
    from mfstore.backends.s3.backend import S3Backend
    from mfstore.s3.datatools.clients import client_arguments
    from mfstore.s3.datatools.settings import ClientSettings, settings

    found = settings()
    options = {**client_arguments(ClientSettings(found)), "memory": resolve().memory // 4}
    return S3Backend(url, encryption=found.encryption, **options)
