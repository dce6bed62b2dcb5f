"""Index fragments: immutable sorted lists that say which pack holds a chunk (docs/format.md, "Index fragment")."""

from __future__ import annotations

import re
import struct
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mfstore._core import table
from mfstore._core.codec import CHUNK_LIMIT, DELTAS, GROUP, GROUP_LIMIT
from mfstore._core.memory import xxh3
from mfstore.errors import CorruptObject, Unsupported
from mfstore.format.packs import PackEntry, PackName
from mfstore.format.recipes import Placement, new_placement
from mfstore.format.tree import BITS, mark
from mfstore.records import NamedTuple, dataclass

if TYPE_CHECKING:
    from typing_extensions import Buffer

VERSION = 1
MAGIC = b"MFSI"
HEADER = struct.Struct("<4sBBBxIIQ32xQ")
ENTRY = struct.Struct("<32sIIQII")
"""Of the last number the lowest byte is the codec, the rest the width, as in a trailer."""
PREFIX = "index/"
MERGED = b"MFSI\0merged"
"""What takes the place of a fragment whose chunks are listed elsewhere, by who may not delete it."""
_KEY = re.compile(r"index/(-[0-9a-f]{8}-)?([0-9a-f]{64})")


class Location(NamedTuple):
    """Where an encoded chunk lies."""

    pack: PackName
    offset: int
    csize: int
    usize: int
    codec: int
    width: int

    def placement(self, number: int = 0) -> Placement:
        """This place as a recipe states it, with the pack's number there."""
        _, offset, csize, _, codec, width = self
        return new_placement((number, offset, csize, codec, width, ()))


new_location = partial(tuple.__new__, Location)
"""From one tuple: a save makes one per chunk, in half of the time of calling the class."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """A decoded fragment: sorted entries and the packs they refer to."""

    key: str
    packs: tuple[PackName, ...]
    entries: memoryview

    def __len__(self) -> int:
        return len(self.entries) // ENTRY.size

    def marks(self) -> Iterator[bytes]:
        """Its entries as the index's tree has them."""
        for fields in ENTRY.iter_unpack(self.entries):
            if fields[1] < len(self.packs):
                yield mark(fields[0], self.packs[fields[1]].value)

    def marks_in(self, bucket: int) -> Iterator[bytes]:
        """Those of one bucket of the tree's root."""
        first, last = self._begin_of(bucket), self._begin_of(bucket + 1)
        return Fragment("", self.packs, self.entries[first * ENTRY.size : last * ENTRY.size]).marks()

    def _begin_of(self, bucket: int) -> int:
        """Number of the first entry that is in that bucket or one behind it."""
        return bisect_left(range(len(self)), bucket, key=lambda n: self.entries[n * ENTRY.size] >> 8 - BITS)

    def location(self, position: int) -> Location | None:
        """The location in entry ``position``, or None when the entry makes no sense: then it is a miss."""
        _, pack, csize, offset, usize, form = ENTRY.unpack_from(self.entries, position * ENTRY.size)
        codec, width = form & 0xFF, form >> 8
        if pack >= len(self.packs) or csize > CHUNK_LIMIT or usize > CHUNK_LIMIT:
            return None
        if codec == GROUP and width + usize > GROUP_LIMIT:
            return None
        return new_location((self.packs[pack], offset, csize, usize, codec, width))


class FragmentRow(NamedTuple):
    """One entry of a fragment."""

    id: bytes
    pack: int
    """Its number in the fragment."""
    csize: int
    offset: int
    usize: int
    codec: int
    width: int


_new_row = partial(tuple.__new__, FragmentRow)


def decode_rows(entries: Buffer) -> Iterator[FragmentRow]:
    """The entries of a fragment."""
    for chunk_id, pack, csize, offset, usize, form in ENTRY.iter_unpack(entries):
        yield _new_row((chunk_id, pack, csize, offset, usize, form & 0xFF, form >> 8))


def fragment_key(digest: bytes, seconds: float) -> str:
    """Key of a fragment that is stored now: the newest sorts first, so that the first page of a listing has it."""
    return f"{PREFIX}-{0xFFFFFFFF - int(seconds) & 0xFFFFFFFF:08x}-{digest.hex()}"


def digest_in_key(key: str) -> bytes | None:
    """Digest of the fragment of that key; None for what is none. mfstore 0.1.0 wrote keys without the time."""
    match = _KEY.fullmatch(key)
    return bytes.fromhex(match[2]) if match is not None else None


def encode_fragment(
    packs: Sequence[tuple[bytes, Sequence[PackEntry]]], algorithm: int, deltas: bool = False
) -> bytes:  # fmt: skip
    """A fragment listing the chunks of ``packs``: ``(name, entries)`` each. ``deltas``: those too, because the trailers
    of their packs tell their bases; but of a chunk that is listed both ways the other."""
    rows: dict[bytes, bytes] = {}
    for number, (_, entries) in enumerate(packs):
        for chunk_id, offset, csize, usize, codec, width in entries:
            if codec in DELTAS and (not deltas or chunk_id in rows):
                continue
            rows[chunk_id] = ENTRY.pack(chunk_id, number, csize, offset, usize, codec | width << 8)
    return _seal([name for name, _ in packs], [rows[key] for key in sorted(rows)], algorithm)


def merge_fragments(fragments: Sequence[Fragment], algorithm: int) -> bytes:
    """One fragment with the entries of several; where they disagree the last one wins, but a delta never."""
    numbers: dict[bytes, int] = {}
    rows: dict[bytes, bytes] = {}
    for fragment in fragments:
        for fields in ENTRY.iter_unpack(fragment.entries):
            if fields[1] >= len(fragment.packs):
                continue  # a miss, as in `location`
            if fields[5] & 0xFF in DELTAS and fields[0] in rows:
                continue
            number = numbers.setdefault(fragment.packs[fields[1]].value, len(numbers))
            rows[fields[0]] = ENTRY.pack(fields[0], number, *fields[2:])
    return _seal(list(numbers), [rows[key] for key in sorted(rows)], algorithm)


def without_packs(fragment: Fragment, packs: Collection[bytes], algorithm: int) -> bytes | None:
    """The fragment without the entries of ``packs``; None when nothing is left."""
    renumbered: dict[int, int] = {}
    for number, name in enumerate(fragment.packs):
        if name.value not in packs:
            renumbered[number] = len(renumbered)
    rows = [
        ENTRY.pack(fields[0], renumbered[fields[1]], *fields[2:])
        for fields in ENTRY.iter_unpack(fragment.entries)
        if fields[1] in renumbered
    ]
    return _seal([fragment.packs[number].value for number in renumbered], rows, algorithm) if rows else None


def _seal(packs: Sequence[bytes], rows: Sequence[bytes], algorithm: int) -> bytes:
    payload = b"".join([*packs, *rows])
    fields = (MAGIC, VERSION, 0, algorithm, len(packs), 0, len(rows))
    return HEADER.pack(*fields, xxh3(HEADER.pack(*fields, 0)[:-8] + xxh3(payload).to_bytes(8, "little"))) + payload


def decode_fragment(data: bytes, key: str) -> Fragment:
    """Parse and check a fragment."""
    if len(data) < HEADER.size:
        raise CorruptObject("index fragment is too short", key=key, expected=HEADER.size, found=len(data))
    magic, version, _, _, n_packs, _, n_rows, seal = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise CorruptObject("not an index fragment", key=key, expected=MAGIC, found=magic)
    if version != VERSION:
        raise Unsupported("index version is unknown to this mfstore", key=key, found=version)
    expected = HEADER.size + 32 * n_packs + n_rows * ENTRY.size
    view = memoryview(data)
    if expected != len(data):
        raise CorruptObject("index fragment has the wrong length", key=key, expected=expected, found=len(data))
    if seal != xxh3(data[: HEADER.size - 8] + xxh3(view[HEADER.size :]).to_bytes(8, "little")):
        raise CorruptObject("index fragment is damaged: checksum differs", key=key, offset=HEADER.size)
    start = HEADER.size + 32 * n_packs
    packs = tuple(PackName(bytes(data[at : at + 32])) for at in range(HEADER.size, start, 32))
    if not table.is_sorted(view[start:], ENTRY.size):
        raise CorruptObject("index fragment is not sorted", key=key, offset=start)
    return Fragment(key, packs, view[start:])
