"""The small files of attempts, read once: collections remember them below the root, so that a day with nothing new
reads a few objects in place of hundreds of thousands.

In S3 only: in a directory a file costs no request, and nothing that a listing tells proves what is in it.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

from mfstore.errors import AccessDenied, MfstoreError, OutOfSpace
from mfstore.maintenance.metaflow.known_format import (
    FRAME_BYTES,
    KNOWN,
    LONGEST,
    MAGIC,
    OBJECT_BYTES,
    KnownFile,
    KnownObject,
    decode_frame,
    decode_frames,
    encode_frame,
    shard_of,
    to_merge,
)

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo

FILES_TOGETHER = 1024
"""Small files asked for together."""
WANTED_TOGETHER = 100_000
"""Files that are looked for together in what is remembered, 0.6 kB each in memory."""
Name = TypeVar("Name")
Listed = Callable[[str], "ObjectInfo | None"]
"""What was listed under a path; None where it was not. Raises LookupError where nobody looked."""


@dataclass(slots=True)
class _Shard:
    """What is stored of one shard, and what is new."""

    objects: list[KnownObject] = field(default_factory=list)
    runs: dict[str, array[int]] = field(default_factory=dict)
    """Of the objects that were read, of which it is known how much of them is of use: the runs with files in each, by
    number."""
    fading: set[str] = field(default_factory=set)
    """Objects most of which is of no use any more."""
    files: list[KnownFile] = field(default_factory=list)
    """New ones, up to a frame."""
    raw: int = 0
    """Bytes of these."""
    frames: list[bytes] = field(default_factory=list)
    """New ones, up to an object."""
    packed: int = 0
    """Bytes of these."""


class KnownFiles:
    """What is remembered of the small files below a root, and will be."""

    def __init__(self, backend: Any, listed: Listed, *, writes: bool, trusted: bool = False) -> None:
        """``trusted``: what is remembered is believed where the ETag is no digest, too."""
        self._backend = backend
        self._listed = listed
        self._writes = writes
        self._trusted = trusted
        self._shards: dict[str, _Shard] = {}
        with suppress(AccessDenied):  # then all is read where it lies
            for info in backend.list(KNOWN):
                # Longer than any that was ever written: it is somebody else's.
                if info.size <= 2 * OBJECT_BYTES:
                    found = KnownObject(info.key, info.size)
                    self._shards.setdefault(found.shard, _Shard()).objects.append(found)

    def read(self, wanted: Iterable[tuple[Name, ObjectInfo]]) -> Iterator[tuple[Name, bytes | MfstoreError]]:
        """These files, each with what it was named by, in any order; of many that come run by run, some after the
        others."""
        rest = iter(wanted)
        while part := list(islice(rest, WANTED_TOGETHER)):
            yield from self._read(part)

    def _read(self, wanted: Iterable[tuple[Name, ObjectInfo]]) -> Iterator[tuple[Name, bytes | MfstoreError]]:
        by_shard: dict[str, dict[str, tuple[Name, ObjectInfo]]] = {}
        for name, info in wanted:
            by_shard.setdefault(shard_of(info.key), {})[info.key] = name, info
        for shard, files in by_shard.items():
            if shard in self._shards:
                yield from self._remembered(self._shards[shard], files)
            unknown = list(files.values())
            files.clear()
            for (name, info), data in read_together(self._backend, unknown):
                if not isinstance(data, MfstoreError):
                    self._remember(shard, KnownFile(info.key, info.etag, bytes(data)))
                yield name, data

    def _remembered(
        self, shard: _Shard, files: dict[str, tuple[Name, ObjectInfo]]
    ) -> Iterator[tuple[Name, bytes | MfstoreError]]:
        """Those of these files that are remembered; they are taken out."""
        fresh = chain(map(decode_frame, [*shard.frames]), [[*shard.files]])  # one at a time is decoded
        runs = {_run_of(path) for path in files}
        useful_keys = [found.key for found in shard.objects if not runs.isdisjoint(shard.runs.get(found.key, runs))]
        for key, frames in chain([("", fresh)], self._frames(useful_keys)):
            useful = useless = 0
            judged = key in shard.runs
            seen: dict[int, None] = {}
            for frame in frames:
                for file in frame:
                    if not judged:
                        seen[_run_of(file.path)] = None
                    named = files.get(file.path)
                    if named is not None and file.etag == named[1].etag and self._believed(file):
                        del files[file.path]
                        useful += len(file.data)
                        yield named[0], file.data
                    elif judged or (self._stays(file) and self._believed(file)):
                        useful += len(file.data)
                    else:
                        useless += len(file.data)
            if key and not judged:
                shard.runs[key] = array("q", seen)
            if useless >= useful and key and not judged:
                shard.fading.add(key)

    def _frames(self, keys: Iterable[str]) -> Iterator[tuple[str, Iterator[list[KnownFile]]]]:
        """The files in objects, by their keys. What cannot be read, or is damaged, is not among them: it is read anew
        where it lies."""
        for key, data in self._backend.get_many(list(keys)):
            if not isinstance(data, MfstoreError):
                yield key, _whole_frames(data)

    def _believed(self, file: KnownFile) -> bool:
        return self._trusted or file.proved

    def _stays(self, file: KnownFile) -> bool:
        """Whether a file can be of use again."""
        try:
            info = self._listed(file.path)
        except LookupError:
            return True
        return info is not None and info.etag == file.etag

    def _remember(self, shard: str, file: KnownFile) -> None:
        if len(file.data) <= LONGEST and self._believed(file):
            self._add(self._shards.setdefault(shard, _Shard()), file, shard)

    def _add(self, shard: _Shard, file: KnownFile, name: str) -> None:
        shard.files.append(file)
        shard.raw += len(file.data) + len(file.path)
        if shard.raw >= FRAME_BYTES:
            self._close_frame(shard)
            if shard.packed >= OBJECT_BYTES:
                self._put(shard, name)

    def _close_frame(self, shard: _Shard) -> None:
        if shard.files:
            shard.frames.append(encode_frame(shard.files))
            shard.packed += len(shard.frames[-1])
            shard.files, shard.raw = [], 0

    def _put(self, shard: _Shard, name: str) -> None:
        self._close_frame(shard)
        if shard.frames and self._writes:
            key = f"{KNOWN}{name}/{int(time.time() * 1e6):016x}-{os.urandom(4).hex()}"
            self._backend.put(key, [MAGIC, *shard.frames])
            shard.objects.append(KnownObject(key, len(MAGIC) + shard.packed))
        shard.frames, shard.packed = [], 0

    def save(self) -> None:
        """Write down what is new; of what is of no use any more, leave out what is about half of an object."""
        if not self._writes:
            return
        with suppress(AccessDenied, OutOfSpace):  # what is not remembered is read again
            for name, shard in self._shards.items():
                if shard.files or shard.frames or shard.fading:
                    self._save(name, shard)

    def _save(self, name: str, shard: _Shard) -> None:
        self._close_frame(shard)
        coming = KnownObject("", shard.packed)
        chosen = to_merge([*shard.objects, coming] if shard.packed else shard.objects) | shard.fading
        merged: list[str] = []
        written: set[str] = set()
        for key, frames in self._frames(chosen - {""}):
            merged.append(key)
            for file in chain.from_iterable(frames):
                if file.path not in written and self._stays(file) and self._believed(file):
                    written.add(file.path)
                    self._add(shard, file, name)
        self._put(shard, name)
        self._backend.delete_many(merged)


def _run_of(path: str) -> int:
    """A number for the run of a file: the same for all of its files, and seldom for others."""
    flow, _, rest = path.partition("/")
    return hash((flow, rest.partition("/")[0]))


def _whole_frames(data: bytes) -> Iterator[list[KnownFile]]:
    with suppress(ValueError):
        yield from decode_frames(data)


def read_together(
    backend: Any, wanted: Iterable[tuple[Name, ObjectInfo]]
) -> Iterator[tuple[tuple[Name, ObjectInfo], bytes | MfstoreError]]:
    """Small files, each with its name and what was listed of it."""
    rest = iter(wanted)
    while part := list(islice(rest, FILES_TOGETHER)):
        found = backend.get_many([info.key for _, info in part])
        for named, (_, data) in zip(part, found, strict=True):
            yield named, data
