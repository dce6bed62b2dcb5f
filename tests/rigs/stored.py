"""What is stored, read and replaced by hand."""

import dataclasses

from mfstore.format import fragments, recipes
from mfstore.format.about import encode_about
from mfstore.format.digests import digest_function
from mfstore.format.packs import FOOTER, decode_footer, decode_pieces, entries_of, pack_path
from mfstore.format.recipes import INLINE, placed_chunks, recipe_path
from mfstore.format.tree import node_name
from tests.rigs.deltas import CODEC, recipe_of


def entries_of_pack(backend, path):
    """What a pack lists."""
    data = backend.get(path)
    footer = data[-FOOTER.size :]
    at, _ = decode_footer(footer, len(data))
    return entries_of(digest_function(1), bytes.fromhex(path[-64:]), data[at : -FOOTER.size], footer, at)


def pieces_of_pack(backend, path):
    """What the deltas of a pack are against, by the ids of their chunks, as far as its trailer tells."""
    data = backend.get(path)
    footer = data[-FOOTER.size :]
    at, _ = decode_footer(footer, len(data))
    told = decode_pieces(data[at : -FOOTER.size], footer)
    return {entry.id: told[entry.offset] for entry in entries_of_pack(backend, path) if entry.offset in told}


def stored_again(backend, key, **changed):
    """Store a recipe with other tables."""
    new = dataclasses.replace(recipe_of(backend, key), **changed)
    parts = recipes.encode(
        new.algorithm, new.content, new.about, new.packs, new.placements, [new.inline], CODEC, new.bases
    )
    backend.put(recipe_path(key), parts)


def part_of(backend, recipe, numbers):
    """Store a recipe of raw bytes that places these chunks of another as that does; its key."""
    placed = placed_chunks(recipe)
    used, placements, inline = {}, [], [b""]
    for number in numbers:
        at = placed[number][1]
        own = tuple(piece._replace(chunk=used.setdefault(piece.chunk, len(used))) for piece in at.pieces)
        if at.pack == INLINE:
            inline.append(bytes(recipe.inline)[at.offset : at.offset + at.csize])
            first = numbers.index(number)  # equal chunks share a place
            at = at._replace(offset=sum(map(len, inline[:-1]))) if first == len(placements) else placements[first]
        placements.append(at._replace(pieces=own))
    chunks = [placed[number][0] for number in numbers]
    body = recipes.Artifact("", recipes.RAW, sum(chunk.usize for chunk in chunks), None, (), chunks)
    content = recipes.encode_content(recipes.ONE, recipe.algorithm, [body])
    key = digest_function(recipe.algorithm)(content).hex()
    bases = [recipe.bases[number] for number in used]
    named = sorted({at.pack for at in (*placements, *bases)} - {INLINE})
    packs = [recipe.packs[number] for number in named]
    placements = [at if at.pack == INLINE else at._replace(pack=named.index(at.pack)) for at in placements]
    bases = [base._replace(pack=named.index(base.pack)) for base in bases]
    parts = recipes.encode(recipe.algorithm, content, encode_about(["bytes"]), packs, placements, inline, CODEC, bases)
    backend.put(recipe_path(key), parts)
    return key


def forget_packs(backend, gone, algorithm=1):
    """Delete packs, and what fragments of the index say of them. Marks in a tree become misses."""
    for info in list(backend.list(fragments.PREFIX)):
        if node_name(info.key) is not None:
            continue
        fragment = fragments.decode_fragment(backend.get(info.key), info.key)
        if gone & {name.value for name in fragment.packs}:
            left = fragments.without_packs(fragment, gone, algorithm)
            backend.delete(info.key)
            if left is not None:
                backend.put(fragments.PREFIX + digest_function(algorithm)(left).hex(), [left])
    for name in gone:
        backend.delete(pack_path(name.hex()))
