"""The dedup index: immutable fragments that say which pack holds a chunk (docs/format.md, "Index fragment").

Only deduplication reads it. Losing it, or reading an old one, costs bytes and never data: a hit is checked before
it is trusted, and recipes carry their own placements.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mfstore._core import table
from mfstore.errors import CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.fragments import (
    ENTRY,
    PREFIX,
    Fragment,
    Location,
    decode_fragment,
    encode_fragment,
    merge_fragments,
)
from mfstore.format.packs import PackEntry
from mfstore.host.forks import anew_in_children

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.format.digests import Digest

FAN_IN = 16
"""Fragments of one size class are merged when there are this many, so a store of n chunks has O(log n) of them."""


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
        self.forked()
        anew_in_children(self)

    def forked(self) -> None:
        """A lock anew, in a new child too. Reentrant, as all that a save passes: a signal handler may save while its
        own thread does, and finds each of them in a state in which it may be used."""
        self._lock = threading.RLock()

    def find(self, ids: Sequence[bytes]) -> dict[bytes, Location]:
        """Where chunks lie, for those that are known. Newer fragments win."""
        found: dict[bytes, Location] = {}
        missing = list(ids)
        for fragment in reversed(self._load()):
            if not missing:
                break
            positions = table.find(fragment.entries, ENTRY.size, b"".join(missing))
            for chunk_id, position in zip(missing, positions, strict=True):
                location = fragment.location(position) if position >= 0 else None
                if location is not None:
                    found[chunk_id] = location
            missing = [chunk_id for chunk_id in missing if chunk_id not in found]
        return found

    def find_all(self, chunk_id: bytes, reload: bool) -> list[Location]:
        """Every location a chunk is listed at, for when one of them failed; ``reload`` reads the fragments anew."""
        if reload:
            self.forget()
        locations = []
        for fragment in reversed(self._load()):
            position = table.find(fragment.entries, ENTRY.size, chunk_id)[0]
            location = fragment.location(position) if position >= 0 else None
            if location is not None:
                locations.append(location)
        return locations

    def forget(self) -> None:
        """Read the fragments anew when they are next needed."""
        with self._lock:
            self._fragments = None

    def make_fragment(self, packs: Sequence[tuple[bytes, Sequence[PackEntry]]]) -> tuple[str, bytes]:
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
                rest = [f for f in self._fragments if f.key not in gone and f.key != key]
                self._fragments = [decode_fragment(data, key), *rest]

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
