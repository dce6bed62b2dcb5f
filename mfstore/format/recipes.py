"""Recipes: what an artifact or a bundle is made of, and where it lies.

The *content* section is what the key is the digest of: it names chunks by their digests and knows nothing of
packs or codecs. The rest of a recipe (types, placements, inline chunks) may differ between two stores, or before and
after a repack, under one key (docs/format.md, "Artifacts and segments", "Content section", "Recipe", "Deltas").
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import starmap

from mfstore._core import literal as literals
from mfstore._core.codec import (
    CHUNK_LIMIT,
    DELTAS,
    DIFFERENCE,
    GROUP,
    GROUP_LIMIT,
    LZ4,
    NONE,
    PCODEC,
    PLANES,
    ZSTD,
    Codec,
)
from mfstore._core.memory import xxh3
from mfstore.errors import CorruptObject, Unsupported
from mfstore.format.about import About, decode_about
from mfstore.format.digests import DIGESTS, digest_function
from mfstore.records import NamedTuple, dataclass, field

VERSION = 1
MAGIC = b"MFSR"
HEADER = struct.Struct("<4sBBBBIIIIQQQQQ")
CONTENT = struct.Struct("<4sBBHI")
CONTENT_MAGIC = b"MFSC"
ARTIFACT = struct.Struct("<HBBIIQ")
SEGMENT = struct.Struct("<QQQIBBH")
CHUNK = struct.Struct("<32sI")
PLACEMENT = struct.Struct("<IBBHQII")
BASE_CHUNK = struct.Struct("<32sIIQII")
"""Of the last number the lowest byte is the codec, the rest the width, as in a trailer."""
PIECE = struct.Struct("<III")

PICKLE = 1
"""Encoding: the body with its segments spliced in is a pickle (protocol 5)."""
RAW = 2
"""Encoding: the body is the artifact, byte for byte."""
TREE = 3
"""Encoding: the body is the manifest of a tree, and the segments before it are what its files hold."""
NONCE = 8
"""Bytes of it."""
COMPRESSED = 1
"""Header flag: the tables are one zstd frame."""
BASES = 2
"""Header flag: some chunks are deltas; base chunks and pieces follow the placements."""
LITERAL = 1
"""Artifact flag: the body itself is in the content section."""
ONE = 1
"""Content kind: one artifact, without a name."""
BUNDLE = 2
"""Content kind: named artifacts, ascending by the UTF-8 bytes of their names."""
WHOLE = frozenset((NONE, LZ4, ZSTD, PLANES, PCODEC, GROUP))
"""Codecs that need nothing but the encoded bytes."""
INLINE = 0xFFFFFFFF
"""Pack number of a chunk that lies in the recipe itself."""

LITERAL_LIMIT = 1 << 10
"""A body up to this size without segments is a literal: one digest covers all of them. Part of the format."""
INLINE_LIMIT = 64 << 10
"""A single artifact up to this size lies in its recipe: one object instead of three. Not for bundles, whose
artifacts dedup against those of the next task by lying in packs."""
BASE_LIMIT = 4 * CHUNK_LIMIT
"""Most bytes of the base chunks of one delta, uncompressed and each counted once: whoever reads a delta holds as much,
and few bytes could name thousands of the longest chunks. A base is at most a fourth of it."""
BLOCK = 4 << 10
"""Tables without placements, of literals, that are shorter than this are not compressed: hardly a file takes less room
than 4 KiB, and of one small artifact it would be a fifth of the CPU of its save and its load."""
TABLES_LIMIT = 1 << 31
"""Longest tables a reader accepts, uncompressed: 35 TiB of data."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One large payload of an artifact."""

    kind: int
    """What it loads as: ``pickler.BUFFER``, ``BYTES``, ``TEXT`` or ``BYTEARRAY``."""
    at: int
    """Where in the body it belongs: this many body bytes come before it."""
    length: int
    """Bytes."""
    itemsize: int
    """Bytes per element; 1 for opaque bytes, 0 for elements of unknown size."""
    row: int
    """Bytes per row of an array of two dimensions or more, else 0."""
    chunks: int
    """How many chunks it was cut into."""


class ChunkRef(NamedTuple):
    """A chunk as content: its id and its length in bytes."""

    id: bytes
    usize: int


new_chunk = partial(tuple.__new__, ChunkRef)
"""From one tuple: a save makes one per chunk, in half of the time of calling the class."""


class Piece(NamedTuple):
    """A part of the base of a delta: ``length`` bytes of a base chunk, by its number in the recipe, from ``start`` on
    in its uncompressed bytes."""

    chunk: int
    start: int
    length: int


class BaseChunk(NamedTuple):
    """A chunk that bases of deltas are made of, and where it lies: in a pack, and not as a delta."""

    id: bytes
    pack: int
    offset: int
    csize: int
    usize: int
    codec: int
    width: int


class Placement(NamedTuple):
    """Where an encoded chunk lies: pack number in the recipe (or INLINE), offset, length, codec and shuffle width. Of a
    chunk in a group, place and length are the group's, and the width is where in the uncompressed group it starts.

    Of a delta, ``pieces`` one after the other are its base; others have none.
    """

    pack: int
    offset: int
    csize: int
    codec: int
    width: int
    pieces: tuple[Piece, ...] = ()


new_placement = partial(tuple.__new__, Placement)
"""From one tuple of all fields, as ``new_chunk``."""


class Artifact(NamedTuple):
    """One artifact as content. ``chunks`` are those of the body, then those of each segment in order.

    A named tuple, not a dataclass: a bundle has thousands, and creating it is a third of decoding one.
    """

    name: str
    encoding: int
    body_length: int
    literal: bytes | None = None
    segments: tuple[Segment, ...] = ()
    chunks: Sequence[ChunkRef] = ()

    @property
    def size(self) -> int:
        """Bytes of the artifact's stream: body and segments."""
        if not self.segments:
            return self.body_length
        return self.body_length + sum(segment.length for segment in self.segments)

    @property
    def body_chunks(self) -> int:
        """How many of ``chunks`` make up the body."""
        return len(self.chunks) - sum(segment.chunks for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A decoded recipe. ``placements[i]`` belongs to the i-th chunk of all artifacts' chunks in order."""

    kind: int
    algorithm: int
    content: bytes
    artifacts: tuple[Artifact, ...]
    about: bytes = b""
    """The description as it is stored; who rewrites the recipe keeps it. Not part of the content."""
    packs: tuple[bytes, ...] = ()
    placements: Sequence[Placement] = ()
    bases: tuple[BaseChunk, ...] = ()
    """What the pieces of deltas are parts of."""
    inline: bytes | memoryview = field(default=b"", repr=False)
    stored: int = 0
    """Bytes of the recipe object itself."""

    @property
    def is_tree(self) -> bool:
        """Whether it is of a tree."""
        return self.kind == ONE and self.artifacts[0].encoding == TREE

    @property
    def described(self) -> About:
        """The description, decoded each time: who loads the artifacts does not need it. CorruptObject when it is
        none."""
        return decode_about(self.about, len(self.artifacts))


def placed_chunks(recipe: Recipe) -> list[tuple[ChunkRef, Placement]]:
    """Every chunk of a recipe with its placement, in order: the position is the chunk's number."""
    chunks = (chunk for artifact in recipe.artifacts for chunk in artifact.chunks)
    return list(zip(chunks, recipe.placements, strict=True))


def recipe_path(key: str) -> str:
    """Where the recipe of a key is stored."""
    return "recipes/" + key[:2] + "/" + key


def encode_content(kind: int, algorithm: int, artifacts: Sequence[Artifact]) -> bytes:
    """The content section: the bytes whose digest is the key."""
    parts: list[bytes] = [CONTENT.pack(CONTENT_MAGIC, kind, algorithm, 0, len(artifacts))]
    for artifact in artifacts:
        name = artifact.name.encode("utf-8", "surrogatepass")
        literal = artifact.literal
        if literal is not None:
            parts += (ARTIFACT.pack(len(name), artifact.encoding, LITERAL, 0, 0, len(literal)), name, literal)
            continue
        segments = artifact.segments
        parts += (
            ARTIFACT.pack(len(name), artifact.encoding, 0, len(segments), len(artifact.chunks), artifact.body_length),
            name,
        )
        parts += [SEGMENT.pack(s.at, s.length, s.row, s.chunks, s.kind, s.itemsize, 0) for s in segments]
        parts += starmap(CHUNK.pack, artifact.chunks)
    return b"".join(parts)


def literal_content(algorithm: int, encoding: int, literal: bytes) -> bytes:
    """The content section of one literal that has no name."""
    return literals.content_of(algorithm, encoding, literal)


def encode(
    algorithm: int,
    content: bytes,
    about: bytes,
    packs: Sequence[bytes],
    placements: Iterable[Placement],
    inline: Sequence[bytes | memoryview],
    codec: Codec,
    bases: Sequence[BaseChunk] = (),
) -> list[bytes | memoryview]:
    """A recipe as the parts of one stored object. A random nonce in it makes each storing a version of its own, so that
    a collector never takes a new one for the old one. ``packs`` has the packs of base chunks too, ``about`` is the
    description."""
    table, pieces = [], []
    for pack, offset, csize, form, width, own in placements:
        if form == GROUP:
            table.append(PLACEMENT.pack(pack, form, 0, len(own), offset, csize, width))
        else:
            table.append(PLACEMENT.pack(pack, form, width, len(own), offset, csize, 0))
        if own or form in DELTAS:
            if not (own and form in DELTAS and bases):
                raise ValueError("a delta is placed without its base, or a base with what is no delta")
            pieces += [PIECE.pack(*piece) for piece in own]
    older = [BASE_CHUNK.pack(b.id, b.pack, b.csize, b.offset, b.usize, b.codec | b.width << 8) for b in bases]
    tables = b"".join([content, about, *packs, *table, *older, *pieces])
    flags, stored = BASES if older else 0, tables
    if (BLOCK if not table else 256) <= len(tables) <= CHUNK_LIMIT:
        squeezed, sizes = codec.encode(tables, [len(tables)], ZSTD, 0, 1, 0.9)
        if sizes[0]:
            flags, stored = flags | COMPRESSED, bytes(squeezed)
    inline_length = sum(len(part) for part in inline)
    fields = (
        MAGIC, VERSION, flags, algorithm, 0, len(content), len(about), len(packs), len(table),
        inline_length, len(stored), len(tables), int.from_bytes(os.urandom(NONCE)),
    )  # fmt: skip
    unsealed = HEADER.pack(*fields, 0)
    return [HEADER.pack(*fields, _seal(unsealed, stored)), stored, *inline]


def encode_literal(algorithm: int, content: bytes, about: bytes, nonce: bytes) -> bytes | None:
    """As ``encode`` gives it, the recipe of one literal that has no name, in a twentieth of the time. ``nonce``:
    random bytes. None where tables are so long that they would be compressed."""
    if len(content) + len(about) >= BLOCK:
        return None
    return literals.recipe_of(algorithm, content, about, nonce)


def _seal(header: bytes, stored: bytes | memoryview) -> int:
    return xxh3(header[:-8] + xxh3(stored).to_bytes(8, "little"))


def decode(data: bytes, codec: Codec, expected_key: bytes | None = None) -> Recipe:
    """Parse and check a whole recipe object.

    Every length is checked before it is used. CorruptObject says what was expected and found at which offset; with
    ``expected_key`` the content section must have that digest. Unsupported for a newer version.
    """
    if len(data) < HEADER.size:
        raise CorruptObject("recipe is too short", offset=0, expected=f"at least {HEADER.size} bytes", found=len(data))
    (
        magic, version, flags, algorithm, _, content_length, about_length, n_packs, n_placements,
        inline_length, stored_length, tables_length, _, seal,
    ) = HEADER.unpack_from(data)  # fmt: skip
    if magic != MAGIC:
        raise CorruptObject("not a recipe", offset=0, expected=MAGIC, found=magic)
    if version != VERSION:
        raise Unsupported(
            "recipe version is unknown to this mfstore",
            expected=VERSION,
            found=version,
            hint="Upgrade mfstore to read it",
        )
    if HEADER.size + stored_length + inline_length != len(data):
        raise CorruptObject(
            "recipe has the wrong length",
            offset=0,
            expected=HEADER.size + stored_length + inline_length,
            found=len(data),
        )
    view = memoryview(data)
    stored = view[HEADER.size : HEADER.size + stored_length]
    if _seal(data[: HEADER.size], stored) != seal:
        raise CorruptObject("recipe is damaged: checksum of its tables differs", offset=HEADER.size)
    if flags & ~(COMPRESSED | BASES):
        raise Unsupported("recipe uses flags unknown to this mfstore", found=flags)
    claimed = content_length + about_length + n_packs * 32 + n_placements * PLACEMENT.size
    wrong = claimed >= tables_length if flags & BASES else claimed != tables_length
    if wrong or tables_length > TABLES_LIMIT:
        raise CorruptObject("recipe tables have the wrong length", offset=16, expected=claimed, found=tables_length)
    if flags & COMPRESSED:
        if tables_length > CHUNK_LIMIT:
            raise CorruptObject(
                "recipe tables claim too much", offset=48, expected=f"at most {CHUNK_LIMIT}", found=tables_length
            )
        unpacked = bytearray(tables_length)
        codec.decode(stored, unpacked, [(0, stored_length, ZSTD, 0, 0, tables_length)])
        tables = bytes(unpacked)
    else:
        tables = bytes(stored)
    if len(tables) != tables_length:
        raise CorruptObject("recipe tables have the wrong length", offset=48, expected=tables_length, found=len(tables))
    content = tables[:content_length]
    if expected_key is not None:
        found = digest_function(algorithm)(content)
        if found != expected_key:
            raise CorruptObject("recipe is not the one its key names", expected=expected_key.hex(), found=found.hex())
    kind, artifacts = decode_content(content)
    if sum(len(artifact.chunks) for artifact in artifacts) != n_placements:
        raise CorruptObject("recipe places another number of chunks than it names", found=n_placements)
    at = content_length + about_length
    about = tables[content_length:at]
    packs = tuple(tables[at + 32 * number : at + 32 * number + 32] for number in range(n_packs))
    at_placements = at + 32 * n_packs
    placed = memoryview(tables)[at_placements:claimed]
    bases: tuple[BaseChunk, ...] = ()
    if flags & BASES:
        placements = _decode_placements(placed, n_packs, inline_length, at_placements, True)
        counts = [fields[3] for fields in PLACEMENT.iter_unpack(placed)]
        bases, pieces = _decode_bases(memoryview(tables)[claimed:], sum(counts), claimed, n_packs)
        placements = _with_pieces(placements, counts, pieces, bases, artifacts, at_placements)
    else:
        placements = _decode_placements(placed, n_packs, inline_length, at_placements, False)
    _check_groups(placements, artifacts, at_placements)
    return Recipe(
        kind=kind,
        algorithm=algorithm,
        content=content,
        artifacts=artifacts,
        about=about,
        packs=packs,
        placements=placements,
        bases=bases,
        inline=view[HEADER.size + stored_length :],
        stored=len(data),
    )


literal_of = partial(literals.literal_of, PICKLE, DIGESTS)
"""``literal_of(data, key)``: the pickle of the usual small artifact, from its whole recipe: a literal in tables that
are not compressed. None of any other recipe, and of one that is not as it should be, of which ``decode`` tells.

Where the content section lies is believed without the seal: only the right bytes have the right digest."""


def _decode_placements(
    table: memoryview, n_packs: int, inline_length: int, at: int, deltas: bool
) -> list[Placement]:  # fmt: skip
    """The placements, still without pieces; ``at`` is where they begin in the tables, ``deltas`` whether any may be."""
    placements: list[Placement] = []
    for pack, codec, width, count, offset, csize, start in PLACEMENT.iter_unpack(table):
        if csize > CHUNK_LIMIT:
            raise CorruptObject("placement claims too much", expected=f"at most {CHUNK_LIMIT}", found=csize)
        if pack == INLINE:
            if offset + csize > inline_length:
                raise CorruptObject("inline chunk lies outside the recipe", offset=offset, expected=inline_length)
        elif pack >= n_packs:
            raise CorruptObject("placement names a pack the recipe does not list", expected=n_packs, found=pack)
        if (count or codec not in WHOLE) and not (deltas and codec in DELTAS):
            where = at + len(placements) * PLACEMENT.size
            if codec in DELTAS:
                raise CorruptObject("a chunk is a delta in a recipe without bases", offset=where, found=codec)
            if codec not in WHOLE:
                raise Unsupported(f"chunk codec {codec} is unknown to this version of mfstore", offset=where)
            raise CorruptObject("a chunk has a base and is no delta", offset=where, expected=0, found=count)
        if codec == GROUP:
            width = start
        placements.append(new_placement((pack, offset, csize, codec, width, ())))
    return placements


def _check_groups(placements: Sequence[Placement], artifacts: Sequence[Artifact], at: int) -> None:
    """Chunks of groups must lie in them; ``at`` is where the placements begin in the tables."""
    grouped = [number for number, placement in enumerate(placements) if placement[3] == GROUP]
    if not grouped:
        return
    sizes = [chunk.usize for artifact in artifacts for chunk in artifact.chunks]
    for number in grouped:
        end = placements[number].width + sizes[number]
        if end > GROUP_LIMIT:
            raise CorruptObject(
                "chunk lies outside its group", offset=at + number * PLACEMENT.size,
                expected=f"end at most {GROUP_LIMIT}", found=end,
            )  # fmt: skip


def _decode_bases(
    table: memoryview, n_pieces: int, at: int, n_packs: int
) -> tuple[tuple[BaseChunk, ...], list[Piece]]:  # fmt: skip
    """Base chunks, and the pieces of all deltas in order. ``at`` is where they begin in the tables."""
    length = len(table) - n_pieces * PIECE.size
    if length <= 0 or length % BASE_CHUNK.size:
        raise CorruptObject(
            "bases of deltas have the wrong length", offset=at,
            expected=f"{n_pieces} pieces of {PIECE.size} bytes, and base chunks of {BASE_CHUNK.size}",
            found=len(table),
        )  # fmt: skip
    bases: list[BaseChunk] = []
    for chunk_id, pack, csize, offset, usize, form in BASE_CHUNK.iter_unpack(table[:length]):
        codec, width = form & 0xFF, form >> 8
        where = at + len(bases) * BASE_CHUNK.size
        if pack >= n_packs:
            raise CorruptObject(
                "base chunk lies in a pack the recipe does not list", offset=where, expected=n_packs, found=pack
            )
        if not 0 < usize <= CHUNK_LIMIT or csize > CHUNK_LIMIT:
            raise CorruptObject(
                "base chunk claims too much or nothing", offset=where, expected=f"1 to {CHUNK_LIMIT}",
                found=(usize, csize),
            )  # fmt: skip
        if codec in DELTAS:
            raise CorruptObject("a base chunk is a delta itself", offset=where, found=codec)
        if codec not in WHOLE:
            raise Unsupported(f"chunk codec {codec} is unknown to this version of mfstore", offset=where)
        if codec == GROUP and width + usize > GROUP_LIMIT:
            raise CorruptObject(
                "base chunk lies outside its group", offset=where, expected=f"end at most {GROUP_LIMIT}",
                found=width + usize,
            )  # fmt: skip
        bases.append(BaseChunk(chunk_id, pack, offset, csize, usize, codec, width))
    if len({base.id for base in bases}) != len(bases):
        raise CorruptObject("recipe lists a base chunk twice", offset=at)
    at += length
    pieces: list[Piece] = []
    used = bytearray(len(bases))
    for number, start, size in PIECE.iter_unpack(table[length:]):
        where = at + len(pieces) * PIECE.size
        if number >= len(bases):
            raise CorruptObject(
                "a piece is of a base chunk the recipe does not list", offset=where, expected=len(bases), found=number
            )
        if not size or start + size > bases[number].usize:
            raise CorruptObject(
                "a piece lies outside its base chunk, or is empty", offset=where,
                expected=f"end at most {bases[number].usize}", found=(start, size),
            )  # fmt: skip
        used[number] = 1
        pieces.append(Piece(number, start, size))
    if 0 in used:
        raise CorruptObject(
            "a base chunk is of no use to any delta", offset=at - length + used.index(0) * BASE_CHUNK.size
        )
    return tuple(bases), pieces


def _with_pieces(
    placements: list[Placement],
    counts: Sequence[int],
    pieces: Sequence[Piece],
    bases: Sequence[BaseChunk],
    artifacts: Sequence[Artifact],
    at: int,
) -> list[Placement]:
    """The placements with the pieces of their bases, so many for each."""
    sizes = [chunk.usize for artifact in artifacts for chunk in artifact.chunks]
    taken = 0
    for number, (placement, count) in enumerate(zip(placements, counts, strict=True)):
        if placement.codec not in DELTAS:
            continue
        own = tuple(pieces[taken : taken + count])
        taken += count
        length = sum(piece.length for piece in own)
        where = at + number * PLACEMENT.size
        if not 0 < length <= CHUNK_LIMIT:
            raise CorruptObject(
                "the base of a delta is too long or nothing", offset=where, expected=f"1 to {CHUNK_LIMIT}", found=length
            )
        if placement.codec == DIFFERENCE and length != sizes[number]:
            raise CorruptObject(
                "the base of a DIFFERENCE has another length than the chunk", offset=where, expected=sizes[number],
                found=length,
            )  # fmt: skip
        needed = sum(bases[chunk].usize for chunk in {piece.chunk for piece in own})
        if needed > BASE_LIMIT:
            raise CorruptObject(
                "the base of a delta takes too many bytes of chunks", offset=where, expected=f"at most {BASE_LIMIT}",
                found=needed,
            )  # fmt: skip
        placements[number] = placement._replace(pieces=own)
    return placements


def decode_content(content: bytes) -> tuple[int, tuple[Artifact, ...]]:
    """Parse a content section: its kind and its artifacts."""
    try:
        magic, kind, _, _, count = CONTENT.unpack_from(content)
        if magic != CONTENT_MAGIC:
            raise CorruptObject("content section is damaged", offset=0, expected=CONTENT_MAGIC, found=magic)
        if kind not in (ONE, BUNDLE) or (kind == ONE and count != 1):
            raise Unsupported("content kind is unknown to this mfstore", found=kind)
        at = CONTENT.size
        artifacts = []
        for _ in range(count):
            artifact, at = _decode_artifact(content, at)
            artifacts.append(artifact)
    except struct.error as error:
        raise CorruptObject(f"content section is cut short: {error}") from None
    if kind == BUNDLE and any(artifact.encoding == TREE for artifact in artifacts):
        raise Unsupported("a bundle has a tree in it, which is unknown to this mfstore")
    names = [artifact.name for artifact in artifacts]
    if len(set(names)) != len(names):
        raise CorruptObject("bundle names an artifact twice")
    if at != len(content):
        raise CorruptObject("content section has the wrong length", expected=at, found=len(content))
    return kind, tuple(artifacts)


def _decode_artifact(content: bytes, at: int) -> tuple[Artifact, int]:
    name_length, encoding, flags, n_segments, n_chunks, body_length = ARTIFACT.unpack_from(content, at)
    start = at
    at += ARTIFACT.size
    try:
        name = content[at : at + name_length].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise CorruptObject("artifact name is not UTF-8", offset=at) from None
    at += name_length
    if encoding not in (PICKLE, RAW, TREE):
        raise Unsupported("artifact encoding is unknown to this mfstore", offset=start, found=encoding)
    if flags & LITERAL:
        literal = content[at : at + body_length]
        if len(literal) != body_length or n_segments or n_chunks:
            raise CorruptObject("literal is cut short", offset=at, expected=body_length, found=len(literal))
        return Artifact(name, encoding, body_length, literal), at + body_length
    if flags:
        raise Unsupported("artifact uses flags unknown to this mfstore", offset=start, found=flags)
    end = at + n_segments * SEGMENT.size + n_chunks * CHUNK.size
    if end > len(content):
        raise CorruptObject("artifact table is cut short", offset=at, expected=end, found=len(content))
    middle = at + n_segments * SEGMENT.size
    segments = tuple(
        Segment(kind, position, length, itemsize, row, chunks)
        for position, length, row, chunks, kind, itemsize, _ in SEGMENT.iter_unpack(content[at:middle])
    )
    chunks = list(map(new_chunk, CHUNK.iter_unpack(content[middle:end])))
    artifact = Artifact(name, encoding, body_length, None, segments, chunks)
    _check_lengths(artifact, start)
    return artifact, end


def _check_lengths(artifact: Artifact, at: int) -> None:
    """The chunks of the body and of each segment must add up to their lengths."""
    body = artifact.body_chunks
    position = 0
    if body < 0:
        raise CorruptObject("segments claim more chunks than there are", offset=at)
    for count, length in [(body, artifact.body_length), *((s.chunks, s.length) for s in artifact.segments)]:
        total = 0
        for chunk in artifact.chunks[position : position + count]:
            if not 0 < chunk.usize <= CHUNK_LIMIT:
                raise CorruptObject(
                    "chunk length out of range", offset=at, expected=f"1 to {CHUNK_LIMIT}", found=chunk.usize
                )
            total += chunk.usize
        if total != length:
            raise CorruptObject("chunks do not add up", offset=at, expected=length, found=total)
        position += count
    last = 0
    for segment in artifact.segments:
        if not last <= segment.at <= artifact.body_length:
            raise CorruptObject("segment lies outside the body", offset=at, found=segment.at)
        last = segment.at
