"""Which stored chunks an acknowledgement may rely on: those that this process knows to be whole, that the backend
vouches for, or that are read now."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from mfstore._core.codec import delta_seal_is_right
from mfstore._core.memory import FreshBytes
from mfstore.errors import AccessDenied, CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.packs import PackEntry, pack_path
from mfstore.format.recipes import DELTAS
from mfstore.loading.pack_layouts import PackLayouts
from mfstore.loading.reads import ChunkRead, PackRead, plan_reads

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.format.recipes import ChunkRef, Placement
    from mfstore.loading.pack_reader import PackReader
    from mfstore.loading.verified import VerifiedRanges

    FoundChunk = tuple[str, Placement, bytes]
    """Pack, place and id of a chunk that lies there whole."""

PROBED_TOGETHER = 64
"""Chunks checked at a time before a dedup hit is relied on; bounds the memory they are decoded into."""


class PlacedChunk(NamedTuple):
    """A chunk and where it is said to lie."""

    chunk: ChunkRef
    pack: str
    placement: Placement


class Reliance:
    """What of a store can be relied on. ``verified`` remembers it."""

    def __init__(self, reader: PackReader, verified: VerifiedRanges) -> None:
        self._reader = reader
        self._verified = verified
        self._layouts = PackLayouts(reader.backend, reader.digest)
        self._capabilities = reader.backend.capabilities

    def reliable(self, placed: Sequence[PlacedChunk]) -> set[bytes]:
        """The ids of those that an acknowledgement may rely on."""
        if self._capabilities.cheap_reads:
            return self.whole(placed)
        ends: dict[str, int] = {}
        for _, pack, placement in placed:
            ends[pack] = max(ends.get(pack, 0), placement.offset + placement.csize)
        # That a pack is whole does not say that this chunk lies there: index and recipes may be wrong.
        vouched = self._verified.vouched(ends)
        self._layouts.read({pack: self._verified.length(pack) for pack in vouched})
        listed, rest = set(), []
        for one in placed:
            if one.pack in vouched and self._layouts.holds(one.pack, entry_of(one)):
                listed.add(one.chunk.id)
            else:
                rest.append(one)
        whole = self.whole(rest)
        return whole | (listed - {one.chunk.id for one in rest})

    def written(self, pack: str, size: int, entries: Sequence[PackEntry]) -> None:
        """This process stored that pack, of so many bytes, with these chunks."""
        self._verified.written(pack, size)
        self._layouts.add(pack, entries)

    def whole(self, placed: Sequence[PlacedChunk]) -> set[bytes]:
        """The ids of those that are readable and whole at that place; of a delta, its own bytes, not its base.

        What this process wrote or verified there, in files that did not change since, is not read again. A chunk that
        is said to lie in several places is only among them when it lies in each.
        """
        good: set[FoundChunk] = set()
        doubtful = []
        for one in placed:
            if self._verified.has(one.pack, one.placement.offset, one.placement.csize, one.chunk.id):
                good.add((one.pack, one.placement, one.chunk.id))
            else:
                doubtful.append(one)
        reader = self._reader
        for start in range(0, len(doubtful), PROBED_TOGETHER):
            chunks = [
                ChunkRead(pack, placement, chunk, memoryview(FreshBytes(chunk.usize)))
                for chunk, pack, placement in doubtful[start : start + PROBED_TOGETHER]
            ]
            reads = plan_reads(chunks, self._capabilities.gap, self._capabilities.span)
            if reader.remote:
                found: list[FoundChunk] = []
                reader.read_remote(reads, partial(self._sift, found))
                good.update(found)
            else:
                good.update(*reader.workers.map(self._probe, reads, sum(chunk.chunk.usize for chunk in chunks)))
        bad = {one.chunk.id for one in placed if (one.pack, one.placement, one.chunk.id) not in good}
        return {chunk_id for _, _, chunk_id in good} - bad

    def contents(self, placed: Sequence[PlacedChunk]) -> dict[bytes, memoryview]:
        """The bytes of those that are readable and whole at that place, by id: read now, and compared."""
        reader = self._reader
        chunks = [
            ChunkRead(pack, placement, chunk, memoryview(FreshBytes(chunk.usize))) for chunk, pack, placement in placed
        ]
        reads = plan_reads(chunks, self._capabilities.gap, self._capabilities.span)
        good: list[FoundChunk] = []
        if reader.remote:
            reader.read_remote(reads, partial(self._sift, good))
        else:
            for found in reader.workers.map(self._probe, reads, sum(chunk.chunk.usize for chunk in chunks)):
                good += found
        whole = {chunk_id for _, _, chunk_id in good}
        return {chunk.chunk.id: chunk.target for chunk in chunks if chunk.chunk.id in whole}

    def _sift(self, good: list[FoundChunk], read: PackRead, data: Buffer | MfstoreError) -> None:
        """Add those chunks of an answered read that are whole."""
        if isinstance(data, MfstoreError):
            return
        for wanted in read.chunks:
            placement = wanted.placement
            try:
                if placement.codec in DELTAS:
                    at = placement.offset - read.start
                    self._check_delta(wanted, memoryview(data)[at : at + placement.csize])
                    good.append(self._noted(wanted))
                    continue
                if read.target is None:
                    self._reader.decode([wanted], read.start, data)
                self._reader.check(wanted.chunk, wanted.target, pack_path(wanted.pack), placement.offset)
            except (CorruptObject, Unsupported):
                self._failed(wanted)
                continue
            good.append(self._noted(wanted))

    def _probe(self, read: PackRead) -> list[FoundChunk]:
        """Which chunks of a read are whole."""
        good = []
        for wanted in read.chunks:
            placement = wanted.placement
            end = placement.offset + placement.csize
            try:
                if placement.codec in DELTAS:
                    path = pack_path(wanted.pack)
                    self._check_delta(wanted, self._reader.backend.get_range(path, placement.offset, placement.csize))
                else:
                    self._reader.read(wanted.pack, placement.offset, end, [wanted], True)
                good.append(self._noted(wanted))
            except (CorruptObject, Unsupported):
                self._failed(wanted)
            except (NotFound, AccessDenied):
                continue
        return good

    def _check_delta(self, wanted: ChunkRead, encoded: Buffer) -> None:
        """CorruptObject when these are not a delta's bytes as they were written."""
        if not delta_seal_is_right(encoded):
            raise CorruptObject(
                "delta is damaged: it does not end with its seal", key=pack_path(wanted.pack),
                backend=self._reader.backend.url, offset=wanted.placement.offset,
            )  # fmt: skip

    def _failed(self, wanted: ChunkRead) -> None:
        """A chunk is not whole there: damage, unless the pack never had it there."""
        pack, at, chunk = wanted.pack, wanted.placement, wanted.chunk
        if not self._layouts.knows(pack) or self._layouts.holds(pack, entry_of(PlacedChunk(chunk, pack, at))):
            self._verified.forget(pack)

    def _noted(self, wanted: ChunkRead) -> FoundChunk:
        self._verified.add(wanted.pack, [(wanted.placement.offset, wanted.placement.csize, wanted.chunk.id)])
        return wanted.pack, wanted.placement, wanted.chunk.id


def entry_of(placed: PlacedChunk) -> PackEntry:
    """A placed chunk as the trailer of its pack states it."""
    chunk, at = placed.chunk, placed.placement
    return PackEntry(chunk.id, at.offset, at.csize, chunk.usize, at.codec, at.width)
