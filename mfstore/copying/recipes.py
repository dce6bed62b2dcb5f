"""Recipes of the source as the destination gets them: the same content and description, and where chunks lie there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from mfstore.format import recipes
from mfstore.format.recipes import INLINE, BaseChunk, Piece, Placement, Recipe, placed_chunks

if TYPE_CHECKING:
    from mfstore._core.codec import Codec
    from mfstore.format.fragments import Location
    from mfstore.saving.counterparts import BasePiece


def rewritten(
    recipe: Recipe, located: Mapping[bytes, Location], pieces: Mapping[bytes, tuple[BasePiece, ...]],
    wholes: Mapping[bytes, Location], lost: Collection[int], codec: Codec,
) -> tuple[list[bytes | memoryview], list[bytes]]:  # fmt: skip
    """The recipe as parts of a stored object, with a nonce of its own, and the packs that it names.

    Args:
        recipe: As it is at the source.
        located: Where chunks lie at the destination.
        pieces: Of those that are deltas there, what they are against.
        wholes: Where chunks lie that deltas in recipes are against.
        lost: Chunks of its inline region, by number, that are not whole there: they are located too.
        codec: Of this thread.
    """
    packs: dict[bytes, int] = {}
    bases: dict[bytes, int] = {}
    stated: list[BaseChunk] = []

    def base(chunk_id: bytes, at: Location) -> int:
        number = bases.setdefault(chunk_id, len(bases))
        if number == len(stated):
            pack = packs.setdefault(at.pack.value, len(packs))
            stated.append(BaseChunk(chunk_id, pack, at.offset, at.csize, at.usize, at.codec, at.width))
        return number

    placements: list[Placement] = []
    for number, (chunk, at) in enumerate(placed_chunks(recipe)):
        if at.pack == INLINE and number not in lost:
            own = [(recipe.bases[piece.chunk].id, piece) for piece in at.pieces]
            parts = tuple(Piece(base(of, wholes[of]), piece.start, piece.length) for of, piece in own)
            placements.append(at._replace(pieces=parts))
            continue
        there = located[chunk.id]
        name = packs.setdefault(there.pack.value, len(packs))
        parts = tuple(Piece(base(piece.id, piece.at), piece.start, piece.length) for piece in pieces.get(chunk.id, ()))
        placements.append(there.placement(name)._replace(pieces=parts))
    inline: memoryview | bytes = recipe.inline
    if lost:
        placements, inline = _without_lost(placements, memoryview(recipe.inline))
    encoded = recipes.encode(
        recipe.algorithm, recipe.content, recipe.about, list(packs), placements, [inline], codec, stated
    )
    return encoded, list(packs)


def _without_lost(placements: list[Placement], inline: memoryview) -> tuple[list[Placement], bytes]:
    """The inline region with what is still placed there alone: bytes that are not what they should be do not go on."""
    moved: dict[tuple[int, int], int] = {}
    kept: list[memoryview] = []
    length = 0
    for number, at in enumerate(placements):
        if at.pack != INLINE:
            continue
        place = at.offset, at.csize
        if place not in moved:
            moved[place] = length
            kept.append(inline[at.offset : at.offset + at.csize])
            length += at.csize
        placements[number] = at._replace(offset=moved[place])
    return placements, b"".join(kept)
