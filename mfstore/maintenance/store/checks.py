"""What can be told of packs and recipes without reading more: the pure part of verify."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from mfstore._core import table
from mfstore._core.memory import xxh3
from mfstore.errors import CorruptObject, Unsupported
from mfstore.format.fragments import ENTRY as INDEX_ENTRY
from mfstore.format.fragments import Fragment, Location
from mfstore.format.packs import ENTRY, FOOTER, HEADER, MAGIC, VERSION, PackEntry
from mfstore.format.recipes import INLINE, ChunkRef, Placement, Recipe, placed_chunks


def fingerprint(entry: PackEntry) -> int:
    """64 bits of a chunk and its place, to compare millions of them in 8 bytes each. Whoever could forge one could
    write to the store anyway."""
    return xxh3(ENTRY.pack(*entry))


@dataclass(slots=True)
class PackState:
    """What is known of one pack."""

    size: int
    modified: float = 0.0
    prints: array[int] | None = None
    """Fingerprints of the chunks its trailer lists, sorted; None when it has no sound trailer, or nobody looked."""
    kind: str = ""
    """What is wrong with the pack as a whole: a kind of finding, or nothing."""
    detail: str = ""
    listed: bool = True
    """Whether the index lists all of its chunks."""
    checked: bool = False
    """Whether every chunk was compared with its digest."""
    placed: bool = False
    """Whether a recipe places a chunk here."""
    claimed: dict[int, PackEntry] = field(default_factory=dict)
    """Without a sound trailer: the chunks that recipes and index say are here."""
    bad: dict[int, PackEntry] = field(default_factory=dict)
    """Chunks that are not whole."""

    def holds(self, entry: PackEntry) -> bool:
        """Whether that chunk can be read there, as far as is known."""
        return self.has(fingerprint(entry), entry.offset + entry.csize)

    def has(self, mark: int, end: int) -> bool:
        """As ``holds``, for a chunk's fingerprint and the end of its place."""
        if end > self.size or (self.bad and mark in self.bad):
            return False
        if self.prints is not None:
            at = bisect_left(self.prints, mark)
            return at < len(self.prints) and self.prints[at] == mark
        return self.kind not in ("missing", "unreadable")


class Placed(NamedTuple):
    """A chunk as a recipe places it."""

    number: int
    """Of the chunk in the recipe."""
    pack: bytes
    entry: PackEntry


def placed_in_packs(recipe: Recipe) -> Iterator[Placed]:
    """The chunks of a recipe that lie in packs."""
    for number, (chunk, place) in enumerate(placed_chunks(recipe)):
        if place.pack != INLINE:
            yield Placed(number, recipe.packs[place.pack], entry_of(chunk, place))


def settle(recipe: Recipe, packs: Mapping[bytes, PackState]) -> bool:
    """Whether every chunk of a recipe that lies in packs lies where it says, as far as is known.

    Notes in the packs' states that they are used, and for those without a sound trailer what is said to be there. Once
    per chunk of a store, so it makes no objects for those that are well.
    """
    states = [packs.get(name) for name in recipe.packs]
    well = None not in states
    pack = ENTRY.pack
    chunks = chain.from_iterable(artifact.chunks for artifact in recipe.artifacts)
    for (chunk_id, usize), (number, offset, csize, codec, width) in zip(chunks, recipe.placements, strict=True):
        state = states[number] if number != INLINE else None
        if state is None:
            continue
        state.placed = True
        mark = xxh3(pack(chunk_id, offset, csize, usize, codec, width))
        if state.prints is None and state.kind == "damaged":
            state.claimed[mark] = PackEntry(chunk_id, offset, csize, usize, codec, width)
        well = state.has(mark, offset + csize) and well
    return well


def entry_of(chunk: ChunkRef, place: Placement | Location) -> PackEntry:
    """A chunk and its place as a pack's trailer states it."""
    return PackEntry(chunk.id, place.offset, place.csize, chunk.usize, place.codec, place.width)


def check_header(header: bytes) -> None:
    """CorruptObject, or Unsupported, when these are not the first bytes of a pack."""
    magic, version, flags, _ = HEADER.unpack(header)
    if magic != MAGIC:
        raise CorruptObject("pack does not begin with a header", offset=0, expected=MAGIC, found=magic)
    if version != VERSION or flags:
        raise Unsupported("pack version is unknown to this mfstore", expected=VERSION, found=version)


class Span(NamedTuple):
    """A range of a pack and the chunks in it."""

    start: int
    end: int
    entries: Sequence[PackEntry]


def plan_spans(entries: Iterable[PackEntry], limit: int) -> Iterator[Span]:
    """Ranges of up to ``limit`` bytes that together hold every chunk. Chunks with longer ones have their own."""
    current: list[PackEntry] = []
    start = end = 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        stop = max(end, entry.offset + entry.csize)
        if current and stop - start > limit:
            yield Span(start, end, current)
            current = []
        if not current:
            start, stop = entry.offset, entry.offset + entry.csize
        current.append(entry)
        end = stop
    if current:
        yield Span(start, end, current)


def shortest(fragments: Iterable[Fragment]) -> dict[bytes, int]:
    """How long each pack must be at least, by what the index says of it."""
    sizes: dict[bytes, int] = {}
    for fragment in fragments:
        ends = [0] * len(fragment.packs)
        counts = [0] * len(fragment.packs)
        for _, pack, csize, offset, *_ in INDEX_ENTRY.iter_unpack(fragment.entries):
            if pack < len(ends):
                ends[pack] = max(ends[pack], offset + csize)
                counts[pack] += 1
        for name, end, count in zip(fragment.packs, ends, counts, strict=True):
            # Behind the last chunk come a line of the trailer for each, and the footer.
            sizes[name.value] = max(sizes.get(name.value, 0), end + count * ENTRY.size + FOOTER.size)
    return sizes


def all_listed(fragments: Iterable[Fragment], ids: Sequence[bytes]) -> bool:
    """Whether each of these chunks is in the index."""
    missing = list(ids)
    for fragment in fragments:
        positions = table.find(fragment.entries, INDEX_ENTRY.size, b"".join(missing))
        missing = [chunk_id for chunk_id, at in zip(missing, positions, strict=True) if at < 0]
        if not missing:
            return True
    return not missing


def listed_places(fragments: Iterable[Fragment], chunk: ChunkRef) -> Iterator[tuple[bytes, PackEntry]]:
    """Every place of one chunk that the index knows: pack and entry."""
    for fragment in fragments:
        at = table.find(fragment.entries, INDEX_ENTRY.size, chunk.id)[0]
        place = fragment.location(at) if at >= 0 else None
        if place is not None and place.usize == chunk.usize:
            yield place.pack.value, entry_of(chunk, place)


def listed_in(fragments: Iterable[Fragment], packs: frozenset[bytes]) -> Iterator[tuple[bytes, PackEntry]]:
    """Every chunk that the index says lies in one of these packs."""
    for fragment in fragments:
        wanted = {number: name.value for number, name in enumerate(fragment.packs) if name.value in packs}
        if wanted:
            for chunk_id, pack, csize, offset, usize, codec, width in INDEX_ENTRY.iter_unpack(fragment.entries):
                if pack in wanted:
                    yield wanted[pack], PackEntry(chunk_id, offset, csize, usize, codec, width)
