"""Packs: one stored object holding many chunks, described by its trailer (docs/format.md, "Pack")."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, islice, pairwise, repeat
from types import MappingProxyType
from typing import TYPE_CHECKING

from mfstore._core.codec import CHUNK_LIMIT, DELTAS, GROUP, GROUP_LIMIT
from mfstore._core.memory import xxh3
from mfstore.errors import CorruptObject, Unsupported
from mfstore.records import NamedTuple, dataclass

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.format.digests import Digest
    from mfstore.format.recipes import BaseChunk, ChunkRef, Placement

VERSION = 1
VERSION_WITH_PIECES = 2
"""Of the footer, where the trailer tells what deltas are made against. mfstore 0.1.0 refuses it by name; it would take
the longer trailer for a damaged one."""
HEADER = struct.Struct("<4sBBBx56x")
MAGIC = b"MFSP"
END_BYTES = 64 << 10
"""Bytes read from the end of a pack: the trailer of 1100 chunks, some 80 MB. A pack is closed at 64 MiB by default."""
ENTRY = struct.Struct("<32sQIIII")
"""Of the last number but one the lowest byte is the codec, the rest the width. The last: how many pieces it has."""
PIECE = struct.Struct("<32sII")
MOST_PIECES = 0xFFFF
"""Of one delta: a recipe states their number in two bytes."""
FOOTER = struct.Struct("<4sBBBxIIQ16sQQQ")
END_MAGIC = b"MFSE"
PAGE = 4096
"""Raw runs start at a multiple of this so that they can be mapped."""
ALIGN_FROM = 1 << 20
"""A raw run of this size or more is aligned, wasting at most 0.4 %; a smaller one loads by copy."""


class PackEntry(NamedTuple):
    """One chunk in a pack."""

    id: bytes
    offset: int
    csize: int
    usize: int
    codec: int
    width: int
    """Of shuffle; of a chunk in a group, where in the uncompressed group it starts."""


class PackPiece(NamedTuple):
    """Bytes of another chunk, wherever that lies, in the base of a delta."""

    id: bytes
    start: int
    length: int


Pieces = tuple[PackPiece, ...]
NO_PIECES: Mapping[int, Pieces] = MappingProxyType({})


def encode_entry(entry: tuple[bytes, int, int, int, int, int], pieces: int = 0) -> bytes:
    """A ``PackEntry`` as a trailer states it, with the number of its pieces there."""
    chunk_id, offset, csize, usize, codec, width = entry
    return ENTRY.pack(chunk_id, offset, csize, usize, codec | width << 8, pieces)


def decode_entries(entries: Buffer) -> Iterator[PackEntry]:
    """The chunks that a trailer lists, as they are there."""
    for chunk_id, offset, csize, usize, form, _ in ENTRY.iter_unpack(entries):
        yield _new_entry((chunk_id, offset, csize, usize, form & 0xFF, form >> 8))


_new_entry = partial(tuple.__new__, PackEntry)
"""From one tuple: a save makes one per chunk, in half of the time of calling the class."""


def entry_of(chunk: ChunkRef, at: Placement) -> PackEntry:
    """A chunk and where it lies, as the trailer of its pack states it."""
    return PackEntry(chunk.id, at.offset, at.csize, chunk.usize, at.codec, at.width)


def entry_of_base(base: BaseChunk) -> PackEntry:
    """A base chunk as the trailer of its pack states it."""
    return PackEntry(base.id, base.offset, base.csize, base.usize, base.codec, base.width)


@dataclass(slots=True)
class PackName:
    """The name of a pack that may still be open: ``value`` is set when it is closed."""

    value: bytes = b""


class PackBuilder:
    """Collects encoded chunks and lays them out. Pure: nothing is written here.

    Parts may be views of the caller's own memory (raw chunks); they are only referenced.
    """

    def __init__(self, algorithm: int) -> None:
        self.name = PackName()
        self.length = HEADER.size
        self.held = 0
        """Bytes of memory the pack keeps alive that is not the caller's own."""
        self.entries: list[PackEntry] = []
        self.pieces: dict[int, Pieces] = {}
        """Of deltas whose base others are to be told: by where they lie."""
        self._algorithm = algorithm
        self.borrowed = 0
        """Bytes of parts that are the caller's own memory."""
        self._borrowed: list[int] = []
        self._parts: list[Buffer] = [HEADER.pack(MAGIC, VERSION, 0, algorithm)]

    def align(self) -> None:
        """Start the next chunk at a page boundary."""
        gap = -self.length % PAGE
        if gap:
            self._parts.append(bytes(gap))
            self.length += gap

    def add(
        self, run: bytes | memoryview, entries: list[tuple[bytes, int, int]], codec: int, width: int, held: bool
    ) -> None:
        """Append the chunks of ``run``, back to back: ``(id, csize, usize)`` each."""
        ids, csizes, usizes = zip(*entries, strict=True)
        offsets = accumulate(csizes, initial=self.length)
        self.entries += map(_new_entry, zip(ids, offsets, csizes, usizes, repeat(codec), repeat(width)))
        if held:
            self.held += len(run)
        else:
            self.borrowed += len(run)
            self._borrowed.append(len(self._parts))
        self._parts.append(run)
        self.length += sum(csizes)

    def add_group(self, encoded: bytes | memoryview, chunks: Iterable[tuple[bytes, int, int]]) -> int:
        """Append an encoded group and list chunks of it, each ``(id, start in the group, usize)``. Where it lies."""
        at, csize = self.length, len(encoded)
        self.held += csize
        self._parts.append(encoded)
        self.length += csize
        for chunk in chunks:
            self.list_chunk(at, csize, chunk)
        return at

    def list_chunk(self, at: int, csize: int, chunk: tuple[bytes, int, int]) -> None:
        """List a chunk of the group that lies there."""
        chunk_id, start, usize = chunk
        self.entries.append(_new_entry((chunk_id, at, csize, usize, GROUP, start)))

    def own(self) -> None:
        """Copy the parts that are the caller's memory, which is about to change."""
        for number in self._borrowed:
            self._parts[number] = bytes(self._parts[number])
        self._borrowed.clear()
        self.held += self.borrowed
        self.borrowed = 0

    def close(self, digest: Digest) -> tuple[str, list[Buffer]]:
        """The pack's name (hex) and its parts. The name is the digest of the trailer: same name, same layout."""
        trailer = encode_trailer(self.entries, self.pieces)
        self.name.value = digest(trailer)
        nonce = os.urandom(16)
        count, pieces = len(self.entries), sum(map(len, self.pieces.values()))
        footer = encode_footer(count, self._algorithm, self.length, nonce, trailer, pieces)
        return self.name.value.hex(), [*self._parts, trailer, footer]


def encode_trailer(entries: Sequence[PackEntry], pieces: Mapping[int, Pieces] = NO_PIECES) -> bytes:
    """What lies in a pack. ``pieces`` are those of deltas, by where these lie."""
    if not pieces:
        return b"".join(map(encode_entry, entries))
    owned = [pieces.get(entry.offset, ()) if entry.codec in DELTAS else () for entry in entries]
    rows = [encode_entry(entry, len(own)) for entry, own in zip(entries, owned, strict=True)]
    return b"".join([*rows, *(PIECE.pack(*piece) for own in owned for piece in own)])


def encode_footer(
    count: int, algorithm: int, trailer_at: int, nonce: bytes, trailer: bytes, pieces: int = 0
) -> bytes:  # fmt: skip
    """The last 64 bytes of a pack."""
    version = VERSION_WITH_PIECES if pieces else VERSION
    fields = (END_MAGIC, version, 0, algorithm, count, pieces, trailer_at, nonce, 0, xxh3(trailer))
    unsealed = FOOTER.pack(*fields, 0)
    return FOOTER.pack(*fields, xxh3(unsealed[:-8]))


def decode_footer(tail: bytes, size: int) -> tuple[int, int]:
    """``(trailer offset, number of chunks)`` from the last 64 bytes of a pack of ``size`` bytes."""
    if size < HEADER.size + FOOTER.size or len(tail) != FOOTER.size:
        raise CorruptObject("pack is too short", expected=f"at least {HEADER.size + FOOTER.size} bytes", found=size)
    at = size - FOOTER.size
    magic, version, _, _, count, pieces, trailer_at, _, _, _, seal = FOOTER.unpack(tail)
    if magic != END_MAGIC:
        raise CorruptObject("pack does not end in a footer", offset=at, expected=END_MAGIC, found=magic)
    if version not in (VERSION, VERSION_WITH_PIECES):
        raise Unsupported("pack version is unknown to this mfstore", expected=VERSION_WITH_PIECES, found=version)
    if seal != xxh3(tail[:-8]):
        raise CorruptObject(
            "pack footer is damaged", offset=at, expected=f"{seal:016x}", found=f"{xxh3(tail[:-8]):016x}"
        )
    if pieces and version == VERSION:
        raise CorruptObject("pack of version 1 tells pieces of deltas", offset=at, expected=0, found=pieces)
    length = count * ENTRY.size + pieces * PIECE.size
    if trailer_at + length != at:
        raise CorruptObject(
            "pack trailer has the wrong length", offset=trailer_at, expected=at - trailer_at, found=length
        )
    return trailer_at, count


def decode_trailer(trailer: bytes, footer: bytes, trailer_at: int) -> Iterator[PackEntry]:
    """The chunks of a pack, from its trailer. No two lie in the same bytes, of the pack or of their group: few could
    list gigabytes to decode."""
    _, _, _, _, count, pieces, _, _, _, expected, _ = FOOTER.unpack(footer)
    if xxh3(trailer) != expected:
        raise CorruptObject(
            "pack trailer is damaged", offset=trailer_at, expected=f"{expected:016x}", found=f"{xxh3(trailer):016x}"
        )
    length = count * ENTRY.size + pieces * PIECE.size
    if len(trailer) != length:
        raise CorruptObject("pack trailer has the wrong length", offset=trailer_at, expected=length, found=len(trailer))
    places: list[tuple[int, int, int, int]] = []
    for entry in decode_entries(memoryview(trailer)[: count * ENTRY.size]):
        grouped = entry.codec == GROUP
        if grouped and entry.width + entry.usize > GROUP_LIMIT:
            raise CorruptObject(
                "chunk lies outside its group",
                offset=entry.offset,
                expected=f"end at most {GROUP_LIMIT}",
                found=entry.width + entry.usize,
            )
        place = entry.offset, entry.offset + entry.csize
        places.append((*place, entry.width, entry.width + entry.usize) if grouped else (*place, 0, CHUNK_LIMIT))
        if max(entry.usize, entry.csize) > CHUNK_LIMIT or entry.offset + entry.csize > trailer_at:
            raise CorruptObject(
                "chunk lies outside its pack",
                offset=entry.offset,
                expected=f"end at most {trailer_at}",
                found=entry.offset + entry.csize,
            )
        yield entry
    places.sort()  # most are in order already
    for before, after in pairwise([(0, HEADER.size, 0, CHUNK_LIMIT), *places]):
        start, end = after[0], before[1]
        # Of one group, one after the other in it: what is in none takes all of its place.
        if start < end and not (before[:2] == after[:2] and before[3] <= after[2]):
            raise CorruptObject(
                "chunks of a pack lie in the same bytes", offset=start, expected=f"at least {end}", found=start
            )


def entries_of(digest: Digest, name: bytes, trailer: bytes, footer: bytes, at: int) -> list[PackEntry]:
    """The chunks that a trailer lists. CorruptObject when it is not the one of that pack."""
    entries = list(decode_trailer(trailer, footer, at))
    decode_pieces(trailer, footer)
    if digest(trailer) != name:
        raise CorruptObject("pack is not the one its name says", offset=at)
    return entries


def decode_pieces(trailer: bytes, footer: bytes) -> Mapping[int, Pieces]:
    """What the deltas of a pack are against that its trailer tells it of, by where they lie."""
    count, total = FOOTER.unpack(footer)[4:6]
    if not total:
        return NO_PIECES
    view, at = memoryview(trailer), count * ENTRY.size
    rows = (PackPiece(*row) for row in PIECE.iter_unpack(view[at:]))
    found: dict[int, Pieces] = {}
    for _, offset, _, _, form, own in ENTRY.iter_unpack(view[:at]):
        if not own:
            continue
        pieces = tuple(islice(rows, own))
        length = sum(piece.length for piece in pieces)
        total -= own
        is_base = len(pieces) == own <= MOST_PIECES and length <= CHUNK_LIMIT and all(map(_is_part, pieces))
        if form & 0xFF not in DELTAS or not is_base:
            raise CorruptObject("pack tells pieces that make no base", offset=offset, found=own)
        found[offset] = pieces
    if total:
        raise CorruptObject("pack tells pieces of no chunk", offset=at, found=total)
    return found


def told_chunks(entries: Iterable[PackEntry], pieces: Mapping[int, Pieces]) -> list[PackEntry]:
    """The chunks of a pack, without deltas whose base is known to recipes alone."""
    return [entry for entry in entries if entry.codec not in DELTAS or entry.offset in pieces]


def _is_part(piece: PackPiece) -> bool:
    return 0 < piece.length <= CHUNK_LIMIT - piece.start


def place_of(offset: int, codec: int, width: int) -> int:
    """One number for where in a pack a chunk lies: its offset; those of a group have the same, so also where in the
    group it starts."""
    return offset << 24 | width if codec == GROUP else offset


def fingerprint(entry: PackEntry) -> int:
    """64 bits of a chunk and where it lies, to compare millions of them in 8 bytes each. Whoever could forge one could
    write to the store anyway."""
    return xxh3(encode_entry(entry))


def pack_path(name: str) -> str:
    """Where a pack of this name (hex) is stored."""
    return f"packs/{name[:2]}/{name}"
