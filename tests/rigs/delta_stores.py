"""Stores that hold deltas, made of what was stored whole: so they are there whatever a writer chooses."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mfstore._core.chunk import cut
from mfstore._core.codec import DELTAS, DIFFERENCE, PREFIX
from mfstore.format import recipes
from mfstore.format.digests import digest_function
from mfstore.format.packs import PackBuilder, pack_path
from mfstore.format.recipes import INLINE, BaseChunk, Piece, Placement, placed_chunks, recipe_path
from tests.rigs.damage import wrapped
from tests.rigs.deltas import CODEC, chunk_bytes, recipe_of
from tests.rigs.group_stores import store_in_groups
from tests.rigs.stored import forget_packs


def pieces_of(old, first, size):
    """Pieces of the base chunks ``old`` from number ``first`` on, round and round, until they are ``size`` bytes."""
    pieces = []
    while size:
        length = min(size, old[first % len(old)][0].usize)
        pieces.append(Piece(first % len(old), 0, length))
        first, size = first + 1, size - length
    return tuple(pieces)


def store_as_deltas(backend, key, base, codec=PREFIX, width=0, inline=False):
    """Replace the recipe of ``key`` by one whose chunks are deltas against the chunks that ``base`` has in packs; those
    that both have stay as they are. What only the replaced recipe needed goes: packs, and what the index says of them.
    """
    recipe, older = recipe_of(backend, key), recipe_of(backend, base)
    digest = digest_function(recipe.algorithm)
    whole = [
        number for number, (_, at) in enumerate(placed_chunks(older)) if at.pack != INLINE and at.codec not in DELTAS
    ]
    old = [placed_chunks(older)[number] for number in whole]
    contents = [chunk_bytes(backend, older, number) for number in whole]
    shared = {chunk.id: at for chunk, at in old}
    packs, bases, placements, in_recipe = {}, {}, [], []
    builder = PackBuilder(recipe.algorithm)
    deltas = {}
    for number, (chunk, _) in enumerate(placed_chunks(recipe)):
        if chunk.id in shared:
            here = shared[chunk.id]
            placements.append(here._replace(pack=packs.setdefault(older.packs[here.pack], len(packs))))
            continue
        if chunk.id not in deltas:
            pieces = pieces_of(old, number, chunk.usize)
            base_bytes = b"".join(contents[n][start : start + length] for n, start, length in pieces)
            data = CODEC.encode_delta(chunk_bytes(backend, recipe, number), base_bytes, codec, width, 1)
            own = tuple(piece._replace(chunk=bases.setdefault(old[piece.chunk][0].id, len(bases))) for piece in pieces)
            deltas[chunk.id] = Placement(INLINE, sum(map(len, in_recipe)), len(data), codec, width, own)
            if inline:
                in_recipe.append(data)
            else:
                deltas[chunk.id] = deltas[chunk.id]._replace(pack=-1, offset=builder.length)
                builder.add(memoryview(data), [(chunk.id, len(data), chunk.usize)], codec, width, True)
        placements.append(deltas[chunk.id])
    if builder.entries:
        name, parts = builder.close(digest)
        backend.put(pack_path(name), parts)
        number = packs.setdefault(bytes.fromhex(name), len(packs))
        placements = [at._replace(pack=number) if at.pack == -1 else at for at in placements]
    places = {chunk.id: (chunk, at) for chunk, at in old}
    table = []
    for chunk_id in bases:
        chunk, at = places[chunk_id]
        pack = packs.setdefault(older.packs[at.pack], len(packs))
        table.append(BaseChunk(chunk.id, pack, at.offset, at.csize, chunk.usize, at.codec, at.width))
    parts = recipes.encode(
        recipe.algorithm, recipe.content, recipe.about, list(packs), placements, in_recipe, CODEC, table
    )
    backend.put(recipe_path(key), parts)
    forget_packs(backend, set(recipe.packs) - set(packs) - set(older.packs), recipe.algorithm)


@dataclass
class Versions:
    """A store with an artifact of several chunks and a later version of it that is stored as deltas."""

    backend: Any
    old: str
    """Key of the version whose chunks are bases."""
    new: str
    """Key of the version that is stored as deltas."""
    values: dict[str, Any]
    """What each key stands for."""

    base_pack: str
    """Where the bases lie."""
    delta_pack: str
    """Where the deltas lie; empty: in the recipe."""


def versions(backend, codec=PREFIX, inline=False, grouped=False, size=160_000):
    """An array, and the same with a number changed in each chunk; the later one as deltas, and the earlier one in
    groups if it is ``grouped``."""
    old = np.random.default_rng(3).random(size)
    new = old.copy()
    # At its start, where nothing decides cuts.
    new[[end // 8 for end in (0, *cut(old.tobytes(), 8, 0, True)[:-1])]] += 1.0
    store = wrapped(backend)
    keys = [store.put(old), store.put(new)]
    store.refs["new"] = keys[1]
    if grouped:
        store_in_groups(backend, keys[0])
    store_as_deltas(backend, keys[1], keys[0], codec, 8 if codec == DIFFERENCE else 0, inline)
    (bases,) = recipe_of(backend, keys[0]).packs
    own = set(recipe_of(backend, keys[1]).packs) - {bases}
    paths = [pack_path(bases.hex()), *(pack_path(name.hex()) for name in own), ""][:2]
    return Versions(backend, *keys, dict(zip(keys, [old, new], strict=True)), *paths)


KINDS = {
    "prefix": {}, "difference": {"codec": DIFFERENCE}, "inline": {"inline": True},
    "grouped": {"codec": DIFFERENCE, "grouped": True},
}  # fmt: skip
"""Ways in which deltas are stored, as arguments of ``versions``."""
