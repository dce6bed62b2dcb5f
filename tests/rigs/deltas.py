"""Stored artifacts made into deltas by hand, through the format alone: what a writer does when it finds that it pays."""

from typing import NamedTuple

from mfstore import errors
from mfstore._core.codec import DIFFERENCE, PREFIX, Codec
from mfstore.format import recipes
from mfstore.format.digests import BLAKE3, digest_function
from mfstore.format.fragments import encode_fragment
from mfstore.format.packs import PackBuilder, PackEntry, pack_path
from mfstore.format.recipes import INLINE, BaseChunk, Piece, Placement, placed_chunks, recipe_path

CODEC = Codec(errors)
DIGEST = digest_function(BLAKE3)


class DeltaPlaces(NamedTuple):
    """Where the parts of a recipe of deltas lie."""

    pack: str
    """Of the deltas; empty when they are inline."""
    offsets: list[int]
    """Of the deltas, in it."""
    bases: list[tuple[str, int]]
    """Pack and offset of each base chunk."""


def differences(data, base, width):
    """What codec 4 makes of a chunk before its bytes are shuffled, by docs/format.md."""
    if not width:
        return bytes(a ^ b for a, b in zip(data, base, strict=True))
    whole, bits = len(data) - len(data) % width, 8 * width
    out = b""
    for at in range(0, whole, width):
        new, old = (int.from_bytes(one[at : at + width], "little") for one in (data, base))
        d = (new - old) % 2**bits
        out += (2 * d if d < 2 ** (bits - 1) else 2 ** (bits + 1) - 1 - 2 * d).to_bytes(width, "little")
    return out + differences(data[whole:], base[whole:], 0)


def unpacked(content, sparse, length, width):
    """The shuffled bytes that codec 4 packed, by docs/format.md: ``sparse`` says which planes lie as map and rest."""
    count, at, out = length // width, 0, b""
    for plane in range(width):
        if not sparse >> plane & 1:
            out, at = out + content[at : at + count], at + count
            continue
        there = [content[at + i // 8] >> i % 8 & 1 for i in range(count)]
        at += -(-count // 8)
        others = iter(content[at : at + sum(there)])
        out += bytes(next(others) if is_there else 0 for is_there in there)
        at += sum(there)
    return out + content[at:]


def recipe_of(backend, key):
    return recipes.decode(backend.get(recipe_path(key)), CODEC, bytes.fromhex(key))


def chunk_bytes(backend, recipe, number):
    """A chunk of a recipe that is no delta."""
    chunk, at = placed_chunks(recipe)[number]
    if at.pack == INLINE:
        stored = recipe.inline[at.offset : at.offset + at.csize]
    else:
        stored = backend.get_range(pack_path(recipe.packs[at.pack].hex()), at.offset, at.csize)
    out = bytearray(chunk.usize)
    CODEC.decode(stored, out, [(0, at.csize, at.codec, at.width, 0, chunk.usize)])
    return bytes(out)


def pieces_of(sizes, low, high):
    """The pieces of chunks of these sizes, one after the other, that are the bytes ``low`` to ``high`` of them all."""
    at, found = 0, []
    for number, size in enumerate(sizes):
        start, end = max(low - at, 0), min(high - at, size)
        if start < end:
            found.append(Piece(number, start, end - start))
        at += size
    return found


def as_deltas(backend, key, base_key, *, codec=PREFIX, width=0, inline=False, same_pack=False, copies=False):
    """Place the chunks of a key that another key does not have as deltas on the bytes of that one at the same place.

    Args:
        backend: Where both are stored, in packs but for bodies that lie in their recipes, and stay there.
        key: Its recipe is replaced.
        base_key: Its chunks become base chunks.
        codec: DIFFERENCE where the base is long enough for it, else PREFIX.
        width: Shuffle width of DIFFERENCE.
        inline: Whether the deltas lie in the recipe.
        same_pack: Whether the base chunks are copied into the pack of the deltas.
        copies: Whether the whole chunks stay where they are, and in the index.
    """
    old, new = recipe_of(backend, base_key), recipe_of(backend, key)
    older = placed_chunks(old)
    datas = [chunk_bytes(backend, old, number) for number in range(len(older))]
    there = {chunk.id: at for chunk, at in older}
    builder = PackBuilder(BLAKE3)
    packs = [*old.packs]
    bases, numbers, placements, arena, at = [], {}, [], bytes(new.inline), 0
    mine = INLINE if inline else len(packs)
    in_packs = [number for number, (_, place) in enumerate(older) if place.pack != INLINE]
    for number, (chunk, place) in enumerate(placed_chunks(new)):
        if place.pack == INLINE:
            placements.append(place)
            at += chunk.usize
            continue
        if chunk.id in there:
            placements.append(there[chunk.id])
            at += chunk.usize
            continue
        parts = [part for part in pieces_of(map(len, datas), at, at + chunk.usize) if part.chunk in in_packs]
        parts = parts or [Piece(in_packs[0], 0, len(datas[in_packs[0]]))]
        at += chunk.usize
        base = b"".join(datas[part.chunk][part.start : part.start + part.length] for part in parts)
        pieces = []
        for part in parts:
            chunk_id, place = older[part.chunk][0].id, older[part.chunk][1]
            if chunk_id not in numbers:
                numbers[chunk_id] = len(bases)
                bases.append(BaseChunk(chunk_id, *place[:3], len(datas[part.chunk]), *place[3:5]))
            pieces.append(part._replace(chunk=numbers[chunk_id]))
        kind = codec if codec == PREFIX or len(base) == chunk.usize else PREFIX
        shuffle = width if kind == DIFFERENCE else 0
        encoded = CODEC.encode_delta(chunk_bytes(backend, new, number), base, kind, shuffle, 1)
        offset = len(arena) if inline else builder.length
        placements.append(Placement(mine, offset, len(encoded), kind, shuffle, tuple(pieces)))
        if inline:
            arena += encoded
        else:
            builder.add(memoryview(encoded), [(chunk.id, len(encoded), chunk.usize)], kind, shuffle, True)
    if same_pack:
        for number, base in enumerate(bases):
            data = datas[[chunk.id for chunk, _ in older].index(base.id)]
            bases[number] = base._replace(pack=mine, offset=builder.length, csize=len(data), codec=0, width=0)
            builder.add(memoryview(data), [(base.id, len(data), len(data))], 0, 0, True)
    offsets = [place.offset for place in placements if place.pieces]
    name = ""
    if not inline:
        name, parts = builder.close(DIGEST)
        backend.put(pack_path(name), parts)
        packs.append(bytes.fromhex(name))
    stored = recipes.encode(BLAKE3, new.content, new.about, packs, placements, [arena], CODEC, bases)
    backend.put(recipe_path(key), [b"".join(stored)])
    if not copies:
        forget_unneeded(backend)
    return DeltaPlaces(name, offsets, [(packs[base.pack].hex(), base.offset) for base in bases])


def forget_unneeded(backend):
    """Remove packs that no recipe names, and the whole index."""
    keys = [info.key for info in backend.list("recipes/")]
    needed = {pack_path(name.hex()) for key in keys for name in recipe_of(backend, key[-64:]).packs}
    for info in [*backend.list("packs/"), *backend.list("index/")]:
        if info.key not in needed:
            backend.delete(info.key)


def list_base_copies(backend, key):
    """Store the base chunks of a key once more, raw and in another order, in a pack that the index lists."""
    recipe = recipe_of(backend, key)
    builder = PackBuilder(BLAKE3)
    for base in reversed(recipe.bases):
        data = bytearray(base.usize)
        pack = backend.get(pack_path(recipe.packs[base.pack].hex()))
        CODEC.decode(pack, data, [(base.offset, base.csize, base.codec, base.width, 0, base.usize)])
        builder.add(memoryview(bytes(data)), [(base.id, base.usize, base.usize)], 0, 0, True)
    name, parts = builder.close(DIGEST)
    backend.put(pack_path(name), parts)
    entries = [PackEntry(*entry) for entry in builder.entries]
    data = encode_fragment([(bytes.fromhex(name), entries)], BLAKE3)
    backend.put(f"index/{DIGEST(data).hex()}", [data])
    return name


def flip(backend, path, offset):
    """Damage one byte of a stored object."""
    data = bytearray(backend.get(path))
    data[offset] ^= 0xFF
    backend.put(path, [bytes(data)])
