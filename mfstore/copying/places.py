"""What of a source's packs is wanted, and with which reads it is fetched. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mfstore._core.codec import DELTAS
from mfstore.format.packs import PackEntry, entry_of, entry_of_base, place_of
from mfstore.format.recipes import INLINE, ChunkRef, placed_chunks
from mfstore.maintenance.store.groups import by_place
from mfstore.records import dataclass, field

if TYPE_CHECKING:
    from mfstore.format.digests import Key
    from mfstore.format.recipes import Placement, Recipe

WHOLE_FROM = 8 << 20
"""Bytes of chunks wanted of a pack from which on it may go as it is. Smaller packs go better together into one: each
is a request more to write, and one more to read for whoever loads from several."""
WHOLE_SHARE = 0.9
"""Share of a pack that must be wanted for that: at most a tenth of what travels is what nobody asked for. Either way
takes as many requests (``python -m benchmarks.copying --packs``); as it is the pack keeps the order that later saves
look for, and the name by which a copy that is run again finds it."""


class Place(NamedTuple):
    """Where in the source's packs an encoded chunk lies: those of one group lie in one place each."""

    pack: bytes
    at: int
    """As of ``place_of``."""


class Use(NamedTuple):
    """Who needs what lies in a place."""

    key: Key
    recipe: Recipe
    number: int
    """Of the chunk in the recipe; ``BASE`` of a base chunk."""
    chunk: ChunkRef


BASE = -1


def placement_of(use: Use) -> Placement:
    """How the recipe places the chunk."""
    return use.recipe.placements[use.number]


def bases_of(use: Use) -> set[bytes]:
    """The chunks that a delta is against."""
    return {use.recipe.bases[piece.chunk].id for piece in placement_of(use).pieces}


@dataclass(slots=True)
class Wanted:
    """What is to be fetched of one pack."""

    entries: dict[int, PackEntry] = field(default_factory=dict)
    """By ``place_of``."""

    @property
    def csize(self) -> int:
        """Encoded bytes, those of a group once."""
        return sum(together[0].csize for together in by_place(self.entries.values()))


class Fetch(NamedTuple):
    """One range of a pack, and the chunks in it: of each place those that are wanted."""

    pack: bytes
    start: int
    end: int
    places: Sequence[Sequence[PackEntry]]


@dataclass(slots=True)
class Needs:
    """What recipes need of the source's packs that the destination does not have."""

    packs: dict[bytes, Wanted] = field(default_factory=dict)
    uses: dict[Place, list[Use]] = field(default_factory=dict)
    deltas: list[Use] = field(default_factory=list)
    """Chunks that go as deltas: each in a pack once, and each in its recipe."""

    def want(self, pack: bytes, entry: PackEntry, use: Use) -> None:
        """Fetch this for that."""
        at = place_of(entry.offset, entry.codec, entry.width)
        self.packs.setdefault(pack, Wanted()).entries.setdefault(at, entry)
        self.uses.setdefault(Place(pack, at), []).append(use)

    def leave(self, use: Use) -> None:
        """Do not fetch a chunk from where its recipe says that it lies in a pack."""
        at = placement_of(use)
        self.packs[use.recipe.packs[at.pack]].entries.pop(place_of(at.offset, at.codec, at.width), None)


def needs_of(
    recipes: Iterable[tuple[Key, Recipe]], located: Container[bytes], wholes: Container[bytes]
) -> Needs:  # fmt: skip
    """What has to travel for these recipes. ``located`` are the chunks that the destination has, ``wholes`` those that
    it has not as deltas: what deltas are against must be among these."""
    needs = Needs()
    chunks: set[bytes] = set()
    bases: set[bytes] = set()
    for key, recipe in recipes:
        for number, (chunk, at) in enumerate(placed_chunks(recipe)):
            in_pack = at.pack != INLINE
            if in_pack and (chunk.id in located or chunk.id in chunks):
                continue
            use = Use(key, recipe, number, chunk)
            if at.pieces:
                needs.deltas.append(use)
                for base in {piece.chunk: recipe.bases[piece.chunk] for piece in at.pieces}.values():
                    if base.id not in wholes and base.id not in bases:
                        bases.add(base.id)
                        needs.want(
                            recipe.packs[base.pack], entry_of_base(base),
                            Use(key, recipe, BASE, ChunkRef(base.id, base.usize)),
                        )  # fmt: skip
            if in_pack:
                chunks.add(chunk.id)
                needs.want(recipe.packs[at.pack], entry_of(chunk, at), use)
    return needs


def ids_of(recipes: Iterable[tuple[Key, Recipe]]) -> tuple[set[bytes], set[bytes]]:
    """The chunks that recipes place in packs, and those that their deltas are against."""
    chunks: set[bytes] = set()
    bases: set[bytes] = set()
    for _, recipe in recipes:
        chunks.update(chunk.id for chunk, at in placed_chunks(recipe) if at.pack != INLINE)
        bases.update(base.id for base in recipe.bases)
    return chunks, bases


def goes_whole(wanted: Wanted, entries: Sequence[PackEntry]) -> bool:
    """Whether a pack that lists these chunks goes as it is. Not with deltas that are not wanted: what they are against,
    by which alone they can be checked, is not known."""
    size, in_pack = wanted.csize, sum(together[0].csize for together in by_place(entries))
    if size < WHOLE_FROM or size < WHOLE_SHARE * in_pack:
        return False
    deltas = (entry for entry in entries if entry.codec in DELTAS)
    return all(place_of(entry.offset, entry.codec, entry.width) in wanted.entries for entry in deltas)


def plan_fetches(pack: bytes, entries: Iterable[PackEntry], gap: int, span: int) -> Iterator[Fetch]:
    """Reads of a pack that bring these chunks: with up to ``gap`` bytes between them they are one, of up to ``span``
    bytes."""
    places: list[Sequence[PackEntry]] = []
    start = end = 0
    for together in by_place(entries):
        first = together[0]
        stop = first.offset + first.csize
        if places and (first.offset > end + gap or stop - start > span):
            yield Fetch(pack, start, end, places)
            places = []
        if not places:
            start = first.offset
        places.append(together)
        end = max(end, stop) if len(places) > 1 else stop
    if places:
        yield Fetch(pack, start, end, places)


def loads(fetches: Iterable[Fetch], limit: int) -> Iterator[list[Fetch]]:
    """Reads that are made together: of up to so many bytes."""
    some: list[Fetch] = []
    size = 0
    for fetch in fetches:
        if some and size + fetch.end - fetch.start > limit:
            yield some
            some, size = [], 0
        some.append(fetch)
        size += fetch.end - fetch.start
    if some:
        yield some
