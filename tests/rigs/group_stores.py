"""Stores that hold groups, made of what was stored whole: so they are there whatever a writer chooses."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard

from mfstore._core.codec import GROUP
from mfstore.format import fragments, recipes
from mfstore.format.digests import digest_function
from mfstore.format.packs import PackBuilder, pack_path
from mfstore.format.recipes import INLINE, Placement, placed_chunks, recipe_path
from tests.rigs.damage import wrapped
from tests.rigs.deltas import CODEC, chunk_bytes, recipe_of
from tests.rigs.stored import forget_packs, part_of


def text(seed, size=700_000):
    """Bytes that shrink to a third, and that are cut into some ten chunks."""
    return np.random.default_rng(seed).integers(97, 105, size, dtype=np.uint8).tobytes()


def lines(seed, size=200_000):
    """Lines of text, of which a writer makes groups."""
    return "".join(f"line {n}: {n * n % (7907 + seed)}\n" for n in range(size // 13)).encode()[:size]


def frame(datas):
    """A group of chunks, by another implementation than the core's."""
    return zstandard.ZstdCompressor(level=3, write_content_size=True).compress(b"".join(datas))


def parted(items, size):
    """The items, so many at a time; the last ones are up to one more."""
    starts = range(0, max(len(items) - 1, 1), size)
    return [items[start : start + size if start != starts[-1] else None] for start in starts]


def store_in_groups(backend, key, size=4, inline=False):
    """Replace the recipe of ``key`` by one whose chunks lie in groups of ``size``, and forget the packs it had."""
    recipe = recipe_of(backend, key)
    digest = digest_function(recipe.algorithm)
    chunks = {}
    for number, (chunk, _) in enumerate(placed_chunks(recipe)):
        chunks.setdefault(chunk.id, (chunk, chunk_bytes(backend, recipe, number)))
    builder = PackBuilder(recipe.algorithm)
    places, in_recipe = {}, []
    for together in parted(list(chunks.values()), size):
        encoded = frame([data for _, data in together])
        offset = sum(map(len, in_recipe)) if inline else builder.length
        start, members = 0, []
        for chunk, data in together:
            places[chunk.id] = Placement(INLINE if inline else 0, offset, len(encoded), GROUP, start)
            members.append((chunk.id, start, chunk.usize))
            start += len(data)
        if inline:
            in_recipe.append(encoded)
        else:
            builder.add_group(encoded, members)
    packs = []
    if not inline:
        name, parts = builder.close(digest)
        backend.put(pack_path(name), parts)
        packs = [bytes.fromhex(name)]
        data = fragments.encode_fragment([(packs[0], builder.entries)], recipe.algorithm)
        backend.put(fragments.PREFIX + digest(data).hex(), [data])
    placements = [places[chunk.id] for chunk, _ in placed_chunks(recipe)]
    parts = recipes.encode(recipe.algorithm, recipe.content, recipe.about, packs, placements, in_recipe, CODEC)
    backend.put(recipe_path(key), parts)
    forget_packs(backend, set(recipe.packs) - set(packs), recipe.algorithm)


@dataclass
class Grouped:
    """A store with an artifact in groups, and artifacts that are each one of its chunks."""

    backend: Any
    key: str
    value: bytes
    pack: str
    """Where the groups lie; empty: in the recipe."""
    groups: list[list[int]]
    """The numbers of the chunks of each."""
    parts: list[str]
    """Keys of the artifacts that are one chunk, by its number."""

    def at(self, number):
        """Where a chunk is placed."""
        return recipe_of(self.backend, self.key).placements[number]

    def values(self):
        """What each key stands for."""
        ends = np.cumsum([chunk.usize for chunk, _ in placed_chunks(recipe_of(self.backend, self.key))])
        cut = [self.value[end - size : end] for end, size in zip(ends, np.diff(ends, prepend=0), strict=True)]
        return {self.key: self.value, **dict(zip(self.parts, cut, strict=True))}


def grouped(backend, inline=False, size=4, seed=1):
    """A text in groups; each of its chunks is an artifact too. Nothing is named by a ref."""
    value = text(seed)
    key = wrapped(backend).put_bytes(value)
    store_in_groups(backend, key, size, inline)
    recipe = recipe_of(backend, key)
    numbers = list(range(len(recipe.placements)))
    parts = [part_of(backend, recipe, [number]) for number in numbers]
    pack = "" if inline else pack_path(recipe.packs[0].hex())
    return Grouped(backend, key, value, pack, parted(numbers, size), parts)
