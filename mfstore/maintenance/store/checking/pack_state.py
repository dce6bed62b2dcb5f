"""What is known of packs, and what that says of the chunks that recipes place there: the pure part of verify."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from mfstore._core.memory import xxh3
from mfstore.format.packs import PackEntry, encode_entry, entry_of, entry_of_base, fingerprint
from mfstore.format.recipes import INLINE, Recipe, placed_chunks
from mfstore.maintenance.store.groups import by_place


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
    used: bool = False
    """Whether a recipe places a chunk here, or has a base chunk here."""
    claimed: dict[int, PackEntry] = field(default_factory=dict)
    """Without a sound trailer: the chunks that recipes and index say are here, by fingerprint."""
    bad: dict[int, PackEntry] = field(default_factory=dict)
    """Chunks that are not whole, by fingerprint."""

    @property
    def absent(self) -> bool:
        """Whether the storage did not give it: nothing can be read there."""
        return self.kind in ("missing", "unreadable")

    def holds(self, entry: PackEntry) -> bool:
        """Whether that chunk can be read there, as far as is known."""
        return self.has(fingerprint(entry), entry.offset + entry.csize)

    def has(self, fp: int, end: int) -> bool:
        """As ``holds``, for a chunk's fingerprint and the offset at which it ends."""
        if end > self.size or (self.bad and fp in self.bad):
            return False
        if self.prints is not None:
            return self.lists(fp)
        return not self.absent

    def lists(self, fp: int) -> bool:
        """Whether its trailer lists the chunk of that fingerprint."""
        if self.prints is None:
            return False
        at = bisect_left(self.prints, fp)
        return at < len(self.prints) and self.prints[at] == fp


class PlacedChunk(NamedTuple):
    """A chunk, or a base chunk, as a recipe places it."""

    number: int
    """Of the chunk, or of the base chunk, in the recipe."""
    pack: bytes
    entry: PackEntry


def placed_in_packs(recipe: Recipe) -> Iterator[PlacedChunk]:
    """The chunks of a recipe that lie in packs."""
    for number, (chunk, placement) in enumerate(placed_chunks(recipe)):
        if placement.pack != INLINE:
            yield PlacedChunk(number, recipe.packs[placement.pack], entry_of(chunk, placement))


def bases_in_packs(recipe: Recipe) -> Iterator[PlacedChunk]:
    """The base chunks of a recipe, all of which lie in packs."""
    for number, base in enumerate(recipe.bases):
        yield PlacedChunk(number, recipe.packs[base.pack], entry_of_base(base))


def match_placements(recipe: Recipe, packs: Mapping[bytes, PackState]) -> bool:
    """Whether every chunk and base chunk of a recipe that lies in packs lies where it says, as far as is known.

    Notes in the packs' states that they are used, and for those without a sound trailer what is said to be there. Once
    per chunk of a store, so it makes no objects for those that are well.
    """
    states = [packs.get(name) for name in recipe.packs]
    well = None not in states
    chunks = chain.from_iterable(artifact.chunks for artifact in recipe.artifacts)
    for (chunk_id, usize), (number, offset, csize, codec, width, _) in zip(chunks, recipe.placements, strict=True):
        state = states[number] if number != INLINE else None
        if state is None:
            continue
        state.used = True
        fp = xxh3(encode_entry((chunk_id, offset, csize, usize, codec, width)))
        if state.prints is None and state.kind == "damaged":
            state.claimed[fp] = PackEntry(chunk_id, offset, csize, usize, codec, width)
        well = state.has(fp, offset + csize) and well
    for base in recipe.bases:
        state = states[base.pack]
        if state is None:
            continue
        state.used = True
        entry = entry_of_base(base)
        if state.prints is None and state.kind == "damaged":
            state.claimed[fingerprint(entry)] = entry
        well = state.holds(entry) and well
    return well


class Span(NamedTuple):
    """A range of a pack and the chunks in it."""

    start: int
    end: int
    entries: Sequence[PackEntry]


def plan_spans(entries: Iterable[PackEntry], limit: int) -> Iterator[Span]:
    """Ranges of up to ``limit`` bytes that together hold every chunk, those of a group in one. Chunks with longer ones
    have their own."""
    current: list[PackEntry] = []
    start = end = 0
    for together in by_place(entries):
        first, last = together[0].offset, together[0].offset + together[0].csize
        if current and max(end, last) - start > limit:
            yield Span(start, end, current)
            current = []
        if not current:
            start = end = first
        current += together
        end = max(end, last)
    if current:
        yield Span(start, end, current)
