"""The dedup index: immutable fragments that say which pack holds a chunk (docs/format.md, "Index fragment").

Only deduplication reads it. Losing it, or reading an old one, costs bytes and never data: a hit is checked before
it is trusted, and recipes carry their own placements.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mfstore._core import table
from mfstore._core.codec import CHUNK_LIMIT
from mfstore._core.memory import xxh3
from mfstore.errors import CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.packs import Entry, PackName
from mfstore.recipes import Placement

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.hashing import Digest

VERSION = 1
MAGIC = b"MFSI"
HEADER = struct.Struct("<4sBBBxIIQ32xQ")
ENTRY = struct.Struct("<32sIIQIBB2x")
PREFIX = "index/"
FAN_IN = 16
"""Fragments of one size class are merged when there are this many, so a store of n chunks has O(log n) of them."""


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
        return Placement(number, self.offset, self.csize, self.codec, self.width)


@dataclass(frozen=True, slots=True)
class Fragment:
    """A decoded fragment: sorted entries and the packs they refer to."""

    key: str
    packs: tuple[PackName, ...]
    entries: memoryview

    def __len__(self) -> int:
        return len(self.entries) // ENTRY.size

    def location(self, position: int) -> Location | None:
        """The location in entry ``position``, or None when the entry makes no sense: then it is a miss."""
        _, pack, csize, offset, usize, codec, width = ENTRY.unpack_from(self.entries, position * ENTRY.size)
        if pack >= len(self.packs) or csize > CHUNK_LIMIT or usize > CHUNK_LIMIT:
            return None
        return Location(self.packs[pack], offset, csize, usize, codec, width)


def encode_fragment(packs: Sequence[tuple[bytes, Sequence[Entry]]], algorithm: int) -> bytes:
    """A fragment listing the chunks of ``packs``: ``(name, entries)`` each."""
    rows = {
        entry.id: ENTRY.pack(entry.id, number, entry.csize, entry.offset, entry.usize, entry.codec, entry.width)
        for number, (_, entries) in enumerate(packs)
        for entry in entries
    }
    return _seal([name for name, _ in packs], [rows[key] for key in sorted(rows)], algorithm)


def merge_fragments(fragments: Sequence[Fragment], algorithm: int) -> bytes:
    """One fragment with the entries of several; where they disagree the last one wins."""
    numbers: dict[bytes, int] = {}
    rows: dict[bytes, bytes] = {}
    for fragment in fragments:
        for fields in ENTRY.iter_unpack(fragment.entries):
            if fields[1] >= len(fragment.packs):
                continue  # a miss, as in `location`
            number = numbers.setdefault(fragment.packs[fields[1]].value, len(numbers))
            rows[fields[0]] = ENTRY.pack(fields[0], number, *fields[2:])
    return _seal(list(numbers), [rows[key] for key in sorted(rows)], algorithm)


def without_packs(fragment: Fragment, packs: Collection[bytes], algorithm: int) -> bytes | None:
    """The fragment without the entries of ``packs``; None when nothing is left."""
    kept: dict[int, int] = {}
    for number, name in enumerate(fragment.packs):
        if name.value not in packs:
            kept[number] = len(kept)
    rows = [
        ENTRY.pack(fields[0], kept[fields[1]], *fields[2:])
        for fields in ENTRY.iter_unpack(fragment.entries)
        if fields[1] in kept
    ]
    return _seal([fragment.packs[number].value for number in kept], rows, algorithm) if rows else None


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


def plan_compaction(fragments: Sequence[Fragment]) -> list[Fragment]:
    """The fragments to merge now: those of the smallest size class that has FAN_IN, or none."""
    classes: dict[int, list[Fragment]] = {}
    for fragment in fragments:
        classes.setdefault(max(len(fragment), 1).bit_length() // 4, []).append(fragment)
    full = [number for number in sorted(classes) if len(classes[number]) >= FAN_IN]
    return classes[full[0]] if full else []


class ChunkIndex:
    """The fragments of one store, read when first needed."""

    def __init__(self, backend: Backend, digest: Digest, algorithm: int) -> None:
        self._backend = backend
        self._digest = digest
        self._algorithm = algorithm
        self._fragments: list[Fragment] | None = None
        self._lock = threading.Lock()

    def find(self, ids: Sequence[bytes]) -> dict[bytes, Location]:
        """Where chunks lie, for those that are known. Newer fragments win."""
        found: dict[bytes, Location] = {}
        missing = list(ids)
        for fragment in reversed(self._load()):
            if not missing:
                break
            positions = table.find(fragment.entries, ENTRY.size, b"".join(missing))
            for chunk_id, position in zip(missing, positions, strict=True):
                place = fragment.location(position) if position >= 0 else None
                if place is not None:
                    found[chunk_id] = place
            missing = [chunk_id for chunk_id in missing if chunk_id not in found]
        return found

    def find_all(self, chunk_id: bytes, reload: bool) -> list[Location]:
        """Every place a chunk is listed at, for when one of them failed; ``reload`` reads the fragments anew."""
        if reload:
            self.forget()
        places = []
        for fragment in reversed(self._load()):
            position = table.find(fragment.entries, ENTRY.size, chunk_id)[0]
            place = fragment.location(position) if position >= 0 else None
            if place is not None:
                places.append(place)
        return places

    def forget(self) -> None:
        """Read the fragments anew when they are next needed."""
        with self._lock:
            self._fragments = None

    def make_fragment(self, packs: Sequence[tuple[bytes, Sequence[Entry]]]) -> tuple[str, bytes]:
        """Key and bytes of the fragment for newly written packs."""
        data = encode_fragment(packs, self._algorithm)
        return PREFIX + self._digest(data).hex(), data

    def add(self, key: str, data: bytes) -> None:
        """Use a fragment that was just stored."""
        fragment = decode_fragment(data, key)
        with self._lock:
            if self._fragments is not None:
                self._fragments = [*(f for f in self._fragments if f.key != key), fragment]

    def compact(self) -> None:
        """Merge small fragments when there are many: the merged one is stored before the others are deleted.

        Best effort: without the right to delete, or when another process was faster, nothing is lost.
        """
        small = plan_compaction(self._load())
        if not small:
            return
        data = merge_fragments(small, self._algorithm)
        key = PREFIX + self._digest(data).hex()
        try:
            self._backend.put(key, [data])
            gone = {fragment.key for fragment in small} - {key}
            self._backend.delete_many(sorted(gone))
        except MfstoreError:
            return
        with self._lock:
            if self._fragments is not None:
                kept = [f for f in self._fragments if f.key not in gone and f.key != key]
                self._fragments = [decode_fragment(data, key), *kept]

    def _load(self) -> list[Fragment]:
        with self._lock:
            if self._fragments is None:
                infos = sorted(self._backend.list(PREFIX), key=lambda info: info.modified)
                self._fragments = list(self._read(info.key for info in infos))
            return self._fragments

    def _read(self, keys: Iterable[str]) -> Iterable[Fragment]:
        for key, data in self._backend.get_many(keys):
            try:
                if isinstance(data, NotFound):
                    continue  # merged away by another process since it was listed
                if isinstance(data, MfstoreError):
                    raise data
                yield decode_fragment(data, key)
            except (CorruptObject, Unsupported):
                continue  # costs dedup only; verify reports it
