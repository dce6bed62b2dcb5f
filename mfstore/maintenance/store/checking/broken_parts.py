"""What of a recipe is not whole where the recipe says: its chunks, and the bases that its deltas need. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from mfstore.format.packs import entry_of
from mfstore.format.recipes import INLINE, Recipe, placed_chunks
from mfstore.maintenance.store.checking.pack_state import PlacedChunk, bases_in_packs

if TYPE_CHECKING:
    from mfstore.format.packs import PackEntry


class BrokenBase(NamedTuple):
    """A base chunk that is not whole where a recipe says."""

    base: PlacedChunk
    needed_by: tuple[PlacedChunk, ...]
    """The chunks of the recipe whose deltas need it."""


@dataclass(frozen=True, slots=True)
class BrokenParts:
    """What of a recipe cannot be read where the recipe says."""

    inline: tuple[PlacedChunk, ...] = ()
    """Chunks that lie in the recipe and are not whole."""
    placed: tuple[PlacedChunk, ...] = ()
    """Chunks in packs, deltas among them, that are not whole."""
    undecodable: tuple[PlacedChunk, ...] = ()
    """Chunks whose delta and bases are whole, and which these do not give."""
    bases: tuple[BrokenBase, ...] = ()

    def chunks(self) -> Iterator[PlacedChunk]:
        """Those chunks for which nothing but another copy of the chunk helps."""
        return chain(self.inline, self.placed, self.undecodable)

    def ids(self) -> set[bytes]:
        """Every chunk and base chunk of which another copy helps."""
        found = {one.entry.id for one in self.chunks()}
        for base, needed_by in self.bases:
            found.add(base.entry.id)
            found.update(one.entry.id for one in needed_by)
        return found

    def lost(self, has_copy: Callable[[PlacedChunk], bool]) -> bool:
        """Whether some chunk cannot be read, or not made from its delta, with the copies there are."""
        return not all(map(has_copy, self.chunks())) or any(
            base_is_lost(broken, has_copy) for broken in self.bases
        )  # fmt: skip


def base_is_lost(broken: BrokenBase, has_copy: Callable[[PlacedChunk], bool]) -> bool:
    """Whether a base that is not whole costs a chunk: neither the base has another copy nor that chunk."""
    return not has_copy(broken.base) and not all(map(has_copy, broken.needed_by))


def broken_parts(
    recipe: Recipe,
    bad_inline: Collection[int],
    undecodable: Collection[int],
    holds: Callable[[bytes, PackEntry], bool],
) -> BrokenParts:
    """What of a recipe is not whole. ``bad_inline`` and ``undecodable`` are numbers of chunks; ``holds(pack, entry)``
    tells whether a pack holds a chunk as far as is known."""
    inline, placed, misfits = [], [], []
    broken_bases = {base.number: base for base in bases_in_packs(recipe) if not holds(base.pack, base.entry)}
    needed_by: dict[int, list[PlacedChunk]] = {number: [] for number in broken_bases}
    for number, (chunk, placement) in enumerate(placed_chunks(recipe)):
        lies_here = placement.pack == INLINE
        pack = b"" if lies_here else recipe.packs[placement.pack]
        one = PlacedChunk(number, pack, entry_of(chunk, placement))
        if lies_here and number in bad_inline:
            inline.append(one)
        elif not lies_here and not holds(pack, one.entry):
            placed.append(one)
        elif number in undecodable:
            misfits.append(one)
        for base in dict.fromkeys(piece.chunk for piece in placement.pieces):
            if base in needed_by:
                needed_by[base].append(one)
    bases = tuple(BrokenBase(base, tuple(needed_by[number])) for number, base in broken_bases.items())
    return BrokenParts(tuple(inline), tuple(placed), tuple(misfits), bases)
