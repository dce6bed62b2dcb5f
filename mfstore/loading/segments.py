"""The memory that segments land in: fresh, or a map of the pack itself."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mfstore._core.memory import FreshBytes, FreshText, fresh_bytearray
from mfstore._core.pickler import BUFFER, BYTEARRAY, TEXT
from mfstore.errors import BackendError, CorruptObject, NotFound
from mfstore.format.packs import pack_path
from mfstore.loading.fetch import targets
from mfstore.loading.reads import raw_run
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.format.recipes import Artifact, ChunkRef, Recipe, Segment
    from mfstore.loading.cached import CachedReads
    from mfstore.loading.fetch import WantedChunk
    from mfstore.loading.pack_reader import PackReader
    from mfstore.loading.verified import VerifiedRanges

MAP_FROM = 1 << 20
"""Raw segments of this size or more are mapped; a smaller one is copied faster than a map's page faults."""
MAP_CHECK_BYTES = 8 << 20
"""Bytes of a map checked by one task."""


_FRESH: dict[int, Callable[[int], Any]] = {BYTEARRAY: fresh_bytearray, TEXT: FreshText}


class SegmentMemory(NamedTuple):
    """Memory of one segment and the chunks still to be fetched into it."""

    kind: int
    memory: Any
    wanted: Sequence[WantedChunk]

    def value(self, writable: bool) -> Any:
        """What the unpickler takes for it, once filled."""
        if self.kind == BUFFER:
            view = memoryview(self.memory)
            return view if writable else view.toreadonly()
        if self.kind == BYTEARRAY:
            return self.memory
        return self.memory.value


class SegmentLoader:
    """Makes memory for segments. ``verified`` remembers which maps were found whole; of a backend that cannot map,
    ``cached`` does, what it has."""

    def __init__(
        self, reader: PackReader, verified: VerifiedRanges, maps: bool | None = None, cached: CachedReads | None = None
    ) -> None:
        self._cached = cached
        self._maps = maps
        """Whether to map where a load does not say; None: where that is safe."""
        self._reader = reader
        self._verified = verified

    def prepare(
        self, recipe: Recipe, artifact: Artifact, first: int, verify: bool, maps: bool | None = None,
        only: Container[int] | None = None,
    ) -> Iterator[SegmentMemory]:  # fmt: skip
        """Memory for each segment of an artifact whose chunks start at ``first`` in the recipe, or for those whose
        numbers are in ``only``. What is mapped wants no more chunks, and is checked with ``verify``; ``maps`` tells
        whether anything is, None: as the store was opened."""
        number = first + artifact.body_chunks
        position = artifact.body_chunks
        for at, segment in enumerate(artifact.segments):
            if only is None or at in only:
                chunks = artifact.chunks[position : position + segment.chunks]
                yield self._memory(recipe, segment, number, chunks, verify, maps)
            number += segment.chunks
            position += segment.chunks

    def _memory(
        self, recipe: Recipe, segment: Segment, number: int, chunks: Sequence[ChunkRef], verify: bool,
        maps: bool | None,
    ) -> SegmentMemory:  # fmt: skip
        if segment.kind == BUFFER and segment.length >= MAP_FROM and self._may_map(maps):
            run = raw_run(recipe, number, segment.chunks)
            if run is not None:
                if self._cached is not None:
                    mapped = self._map_cached(self._cached, run[0], run[1], segment.length, chunks)
                else:
                    mapped = self._map(run[0], run[1], segment.length, chunks, verify)
                if mapped is not None:
                    return SegmentMemory(segment.kind, mapped, ())
        memory: Any = _FRESH.get(segment.kind, FreshBytes)(segment.length)
        return SegmentMemory(segment.kind, memory, tuple(targets(memory, number, chunks)))

    def _may_map(self, maps: bool | None) -> bool:
        backend = self._reader.backend
        wish = self._maps if maps is None else maps
        if self._cached is not None:
            return self._cached.cache.maps_safely() if wish is None else wish
        return backend.capabilities.map and (backend.maps_safely() if wish is None else wish)

    def _map(self, pack: str, start: int, length: int, chunks: Sequence[ChunkRef], verify: bool) -> Any:
        """A verified private map, or None when it does not hold what it should (reading will say why)."""
        path = pack_path(pack)
        try:
            mapped = self._reader.backend.map(path, start, length)
            if not verify and not (self._verified.met_damage and self._verified.is_damaged(pack, path)):
                return mapped
            tag = self._reader.digest(b"".join(chunk.id for chunk in chunks))
            if self._verified.has(pack, start, length, tag):
                return mapped
            self._check(mapped, path, start, length, chunks)
            self._verified.add(pack, [(start, length, tag)])
            return mapped
        except (CorruptObject, NotFound, BackendError):
            # Damaged, gone, or the kernel has no more maps to give: reading works or says why.
            return None

    def _map_cached(self, cached: CachedReads, pack: str, start: int, length: int, chunks: Sequence[ChunkRef]) -> Any:
        """As ``_map``, of the cache: compared whatever was asked for, and dropped when it differs."""
        found = cached.map(pack, start, length)
        if found is None:
            return None
        tag = self._reader.digest(b"".join(chunk.id for chunk in chunks))
        if not cached.was_compared(found, start, length, tag):
            try:
                self._check(found.memory, pack_path(pack), start, length, chunks)
            except CorruptObject:
                found.kept.drop()
                return None
            cached.compared(found, start, length, tag)
        cached.cache.count(1, 0, length)
        return found.memory

    def _check(self, mapped: Any, path: str, start: int, length: int, chunks: Sequence[ChunkRef]) -> None:
        """CorruptObject when a map is not these chunks."""
        view = memoryview(mapped)
        in_map, at = [], 0
        for chunk in chunks:
            in_map.append((start + at, chunk, view[at : at + chunk.usize]))
            at += chunk.usize
        step = max(1, MAP_CHECK_BYTES * len(chunks) // length)
        tasks = [in_map[number : number + step] for number in range(0, len(in_map), step)]

        def check(task: list[tuple[int, ChunkRef, memoryview]]) -> None:
            for offset, chunk, data in task:
                self._reader.check(chunk, data, path, offset)

        self._reader.workers.map(check, tasks, length)
