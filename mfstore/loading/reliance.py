"""Which stored chunks an acknowledgement may rely on: those that this process knows to be whole, that the backend
vouches for, or that are read now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING

from mfstore._core.codec import DELTAS, delta_seal_is_right
from mfstore._core.memory import FreshBytes
from mfstore.errors import AccessDenied, CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.packs import NO_PIECES, entry_of, pack_path, place_of, told_chunks
from mfstore.format.recipes import INLINE, placed_chunks
from mfstore.loading.deltas import Delta, DeltaWindow, base_parts, placed_base, plan_windows, scratch_of
from mfstore.loading.pack_layouts import PackEnd, PackLayouts
from mfstore.loading.reads import ChunkRead, PackRead, PlacedChunk, by_place, new_placed, plan_reads

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.format.packs import PackEntry, Pieces
    from mfstore.format.recipes import Placement, Recipe
    from mfstore.loading.pack_reader import PackReader
    from mfstore.loading.reads import BasePart
    from mfstore.loading.verified import VerifiedRanges

    FoundChunk = tuple[str, Placement, bytes, tuple[BasePart, ...]]
    """Pack, place, id and base of a chunk that lies there whole."""

PROBE_SPAN = 1 << 20
"""Bytes that are read at once to check them where reading is cheap: 16 chunks for one opening of the file, which costs
as much as hashing 10 KiB."""
NO_ENDS: Mapping[str, PackEnd] = MappingProxyType({})
PROBED_TOGETHER = 256
"""Chunks, some 18 MB, checked at a time before a dedup hit is relied on; bounds the memory they are decoded into."""


def placed_in_packs(recipe: Recipe) -> list[PlacedChunk]:
    """All that a recipe needs of packs: chunks, and the base chunks of deltas."""
    known: dict[int, PlacedChunk] = {}
    names = [pack.hex() for pack in recipe.packs]
    placed = [
        new_placed((chunk, names[at.pack], at, base_parts(recipe, number, known) if at.pieces else ()))
        for number, (chunk, at) in enumerate(placed_chunks(recipe)) if at.pack != INLINE
    ]  # fmt: skip
    return placed + [placed_base(recipe, number) for number in range(len(recipe.bases))]


class Reliance:
    """What of a store can be relied on. ``verified`` remembers it."""

    def __init__(self, reader: PackReader, verified: VerifiedRanges) -> None:
        self._reader = reader
        self._verified = verified
        self._layouts = PackLayouts(reader.backend, reader.digest, verified.seen)
        self._capabilities = reader.backend.capabilities

    def reliable(self, placed: Sequence[PlacedChunk]) -> set[bytes]:
        """The ids of those that an acknowledgement may rely on."""
        if self._capabilities.cheap_reads:
            return self.whole(placed, self._layouts.take_ends())
        ends: dict[str, int] = {}
        for one in placed:
            for _, pack, placement, _ in needed_of(one):
                ends[pack] = max(ends.get(pack, 0), placement.offset + placement.csize)
        # That a pack is whole does not say that this chunk lies there: index and recipes may be wrong. Its trailer
        # does. Who reads that is told at once whether the pack is whole.
        asked = {pack for pack in ends if not self._layouts.knows(pack)}
        self._layouts.read(asked)
        vouched = self._verified.vouched(ends, asked)
        listed, rest = set(), []
        for one in placed:
            if all(
                it.pack in vouched and self._layouts.holds(it.pack, entry_of(it.chunk, it.placement))
                for it in needed_of(one)
            ):
                listed.add(one.chunk.id)
            else:
                rest.append(one)
        whole = self.whole(rest)
        return whole | (listed - {one.chunk.id for one in rest})

    def written(
        self, pack: str, size: int, entries: Sequence[PackEntry], pieces: Mapping[int, Pieces] = NO_PIECES
    ) -> None:  # fmt: skip
        """This process stored that pack, of so many bytes, with these chunks and pieces of its deltas."""
        self._verified.written(pack, size)
        self._layouts.add(pack, entries, pieces)

    def whole(self, placed: Sequence[PlacedChunk], ends: Mapping[str, PackEnd] = NO_ENDS) -> set[bytes]:
        """The ids of those that are readable and whole at that place; of a delta without its base, its own bytes.

        What this process wrote or verified there, in files that did not change since, is not read again. A chunk that
        is said to lie in several places is only among them when it lies in each; a delta with its base when that is
        whole too. ``ends`` of packs have been read just now.
        """
        known: set[bytes] = set()
        doubtful: list[PlacedChunk] = []
        deltas: list[PlacedChunk] = []
        has = self._verified.has_now()
        for one in placed:
            chunk, pack, at, base = one
            if has(pack, place_of(at.offset, at.codec, at.width), at.csize, chunk.id) and (
                not base or all(_is_known(has, of) for of, _, _ in base)
            ):
                known.add(chunk.id)
            else:
                (deltas if base else doubtful).append(one)
        if len(known) == len(placed):
            return known
        good: set[FoundChunk] = set()
        for start in range(0, len(deltas), PROBED_TOGETHER):
            good.update(self._whole_deltas(deltas[start : start + PROBED_TOGETHER]))
        for start in range(0, len(doubtful), PROBED_TOGETHER):
            good.update(self._probe_all(_into_memory(doubtful[start : start + PROBED_TOGETHER]), ends))
        unknown = doubtful + deltas
        bad = {one.chunk.id for one in unknown if (one.pack, one.placement, one.chunk.id, one.base) not in good}
        return (known | {chunk_id for _, _, chunk_id, _ in good}) - bad

    def _whole_deltas(self, placed: Sequence[PlacedChunk]) -> list[FoundChunk]:
        """Those deltas that are whole, with their base chunks."""
        good = []
        planned = [Delta(read, one.base, b"", True) for read, one in zip(_into_memory(placed), placed, strict=True)]
        for deltas in plan_windows(planned):
            window = DeltaWindow(self._reader, self._verified, deltas)
            window.read_alone()
            failed = set(window.decode_all())
            for number, delta in enumerate(deltas):
                lost = window.lost_base(delta)
                if lost is None and number not in failed:
                    for base in window.bases(delta):
                        self._noted(base)
                    good.append(self._noted(delta.wanted, delta.base))
                    continue
                failure = window.decode(number) if lost is None else scratch_of(lost).failure
                if not isinstance(failure, (NotFound, AccessDenied)):
                    self._failed(delta.wanted if lost is None else lost)
        return good

    def layouts(self, packs: Sequence[str]) -> dict[str, Sequence[PackEntry]]:
        """What lies in these packs, as their trailers say; without those that are gone, damaged, or may not be read."""
        return self._layouts.entries(packs)

    def pieces(self, pack: str) -> Mapping[int, Pieces]:
        """What the deltas of a pack are against, by where they lie, as far as its trailer tells. After ``layouts``."""
        return self._layouts.pieces(pack)

    def trailers(self, packs: Sequence[str]) -> dict[str, Sequence[PackEntry]]:
        """As ``layouts``, without deltas whose base is known to recipes alone."""
        found: dict[str, Sequence[PackEntry]] = {}
        for pack, entries in self._layouts.entries(packs, keep=True).items():
            found[pack] = told_chunks(entries, self._layouts.pieces(pack))
        return found

    def contents(self, placed: Sequence[PlacedChunk]) -> dict[bytes, memoryview]:
        """The bytes of those that are readable and whole at that place, by id: read now, and compared."""
        chunks = _into_memory(placed)
        whole = {chunk_id for _, _, chunk_id, _ in self._probe_all(chunks)}
        return {chunk.chunk.id: chunk.target for chunk in chunks if chunk.chunk.id in whole}

    def _probe_all(self, chunks: list[ChunkRead], ends: Mapping[str, PackEnd] = NO_ENDS) -> list[FoundChunk]:
        """Read these; those that are whole."""
        reader = self._reader
        if reader.remote:
            reads = plan_reads(chunks, self._capabilities.gap, self._capabilities.span)
            good: list[FoundChunk] = []
            reader.read_remote(reads, partial(self._sift, good))
            return good
        reads = plan_reads(chunks, self._capabilities.gap, min(self._capabilities.span, PROBE_SPAN))
        probed = reader.workers.map(partial(self._probe, ends), reads, sum(chunk.chunk.usize for chunk in chunks))
        return list(chain.from_iterable(probed))

    def _sift(self, good: list[FoundChunk], read: PackRead, data: Buffer | MfstoreError) -> None:
        """Add those chunks of an answered read that are whole."""
        if isinstance(data, MfstoreError):
            return
        for together in by_place(read.chunks):
            placement = together[0].placement
            try:
                if placement.codec in DELTAS:
                    at = placement.offset - read.start
                    self._check_delta(together[0], memoryview(data)[at : at + placement.csize])
                    good.append(self._noted(together[0]))
                    continue
                if read.target is None:
                    self._reader.decode(together, read.start, data)
            except (CorruptObject, Unsupported):
                for wanted in together:
                    self._failed(wanted)
                continue
            good += self._compared(together)

    def _probe(self, ends: Mapping[str, PackEnd], read: PackRead) -> list[FoundChunk]:
        """Which chunks of a read are whole."""
        good: list[FoundChunk] = []
        data: Buffer | MfstoreError
        end = ends.get(read.pack)
        if end is not None and end.start <= read.start and read.end <= end.start + len(end.data):
            data = memoryview(end.data)[read.start - end.start : read.end - end.start]
        else:
            try:
                data = self._reader.backend.get_range(pack_path(read.pack), read.start, read.end - read.start)
            except CorruptObject:
                return self._probe_each(read)
            except (NotFound, AccessDenied):
                return good
        self._sift(good, read, data)
        return good

    def _probe_each(self, read: PackRead) -> list[FoundChunk]:
        """The same one by one, where they cannot be read together."""
        good = []
        for together in by_place(read.chunks):
            placement = together[0].placement
            end = placement.offset + placement.csize
            try:
                if placement.codec in DELTAS:
                    path = pack_path(read.pack)
                    encoded = self._reader.backend.get_range(path, placement.offset, placement.csize)
                    self._check_delta(together[0], encoded)
                    good.append(self._noted(together[0]))
                    continue
                self._reader.read(read.pack, placement.offset, end, together, False)
            except (CorruptObject, Unsupported):
                for wanted in together:
                    self._failed(wanted)
                continue
            except (NotFound, AccessDenied):
                continue
            good += self._compared(together)
        return good

    def _compared(self, chunks: Iterable[ChunkRead]) -> Iterator[FoundChunk]:
        """Those chunks, which have been read, that are what their digests say."""
        for wanted in chunks:
            try:
                self._reader.check(wanted.chunk, wanted.target, pack_path(wanted.pack), wanted.placement.offset)
            except CorruptObject:
                self._failed(wanted)
                continue
            yield self._noted(wanted)

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
        if not self._layouts.knows(pack) or self._layouts.holds(pack, entry_of(chunk, at)):
            self._verified.forget(pack)

    def _noted(self, wanted: ChunkRead, base: tuple[BasePart, ...] = ()) -> FoundChunk:
        at = wanted.placement
        self._verified.add(wanted.pack, [(place_of(at.offset, at.codec, at.width), at.csize, wanted.chunk.id)])
        return wanted.pack, wanted.placement, wanted.chunk.id, base


def _into_memory(placed: Iterable[PlacedChunk]) -> list[ChunkRead]:
    """Reads of these, each into memory of its own."""
    return [
        ChunkRead(pack, placement, chunk, memoryview(FreshBytes(chunk.usize))) for chunk, pack, placement, _ in placed
    ]


def _is_known(has: Callable[[str, int, int, bytes], bool], placed: PlacedChunk) -> bool:
    chunk, pack, at, _ = placed
    return has(pack, place_of(at.offset, at.codec, at.width), at.csize, chunk.id)


def needed_of(placed: PlacedChunk) -> Sequence[PlacedChunk]:
    """A chunk, and the base chunks that it needs."""
    return (placed, *(part.of for part in placed.base)) if placed.base else (placed,)
