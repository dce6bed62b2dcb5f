"""The blobs that a listing shows, of which there may be millions: each in a third of the memory that its entry takes,
and made again when it is asked for; beyond some, in a temporary file."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, MutableMapping

from mfstore.backends.base import ObjectInfo
from mfstore.maintenance.metaflow.listed_digests import packed_by_flow, packed_key, restored, shortened, unpacked_key
from mfstore.maintenance.spill import KeyedRows, Spill
from mfstore.metaflow.roots.layout import blob_path

BlobName = tuple[str, str]
"""Flow and key of a blob or an IncludeFile."""
_ENTRY = struct.Struct("<qd16s")
"""Size, time and ETag."""
_SIZE = struct.Struct("<q")
SHA1_BYTES = 20
OPEN_BLOBS = 200_000
"""Blobs that are kept in memory, 0.2 kB each, where there is a temporary file for the others."""


class BlobTable(MutableMapping[BlobName, ObjectInfo]):
    """Blobs by name; with a suffix, what lies beside each; or what else has such names, at another ``place``. With
    ``spill`` those beyond some are kept there: then to ask for one takes as long as for all of its flow, and none can
    be taken out."""

    __slots__ = ("_place", "_rows", "_suffix")

    def __init__(
        self, suffix: str = "", spill: Spill | None = None, place: Callable[[str, str], str] = blob_path
    ) -> None:
        self._suffix = suffix
        self._place = place
        self._rows = KeyedRows(spill, OPEN_BLOBS)
        """With an ETag that is no digest, as it is."""

    @property
    def flows(self) -> set[str]:
        """Every flow that has any."""
        return self._rows.flows

    def __setitem__(self, name: BlobName, info: ObjectInfo) -> None:
        self._put(name[0], packed_key(name[1]), info)

    def _put(self, flow: str, key: bytes, info: ObjectInfo) -> None:
        _, size, modified, text = info
        etag = shortened(text)
        short = isinstance(etag, bytes) and len(etag) == 16
        blobs = self._rows.here(flow)
        before = len(blobs)
        blobs[key] = _ENTRY.pack(size, modified, etag) if short else (size, modified, text)
        self._rows.grew(len(blobs) - before)

    def add_digest(self, flow: str, key: str, info: ObjectInfo) -> bool:
        """Count a blob whose key is a SHA-1 in small letters. Otherwise nothing is done, and False."""
        packed = packed_key(key)
        if len(packed) != SHA1_BYTES:  # what is no digest is longer
            return False
        self._put(flow, packed, info)
        return True

    def sizes(self, flow: str) -> Iterator[tuple[bytes, int]]:
        """The bytes of each blob of a flow, by packed keys, in the order of these."""
        for key, entry in self._rows.latest_in_order(flow):
            yield key, entry[0] if isinstance(entry, tuple) else _SIZE.unpack_from(entry)[0]

    def entries(self, flow: str) -> Iterator[tuple[bytes, int, float]]:
        """The bytes and the time of each blob of a flow, as ``sizes``."""
        for key, entry in self._rows.latest_in_order(flow):
            size, modified, _ = entry if isinstance(entry, tuple) else _ENTRY.unpack(entry)
            yield key, size, modified

    def _info(self, flow: str, key: bytes, entry: bytes | tuple[int, float, str]) -> ObjectInfo:
        size, modified, etag = entry if isinstance(entry, tuple) else _ENTRY.unpack(entry)
        return ObjectInfo(self._place(flow, unpacked_key(key)) + self._suffix, size, modified, restored(etag))

    def some(self, names: Collection[BlobName]) -> dict[BlobName, ObjectInfo]:
        """Those of these blobs that there are."""
        found: dict[BlobName, ObjectInfo] = {}
        for flow, wanted in packed_by_flow(names).items():
            if self._rows.is_spilled(flow):
                entries = self._rows.latest_in_order(flow)
                found.update((wanted[key], self._info(flow, key, entry)) for key, entry in entries if key in wanted)
            else:
                blobs = self._rows.here(flow)
                found.update((name, self._info(flow, key, blobs[key])) for key, name in wanted.items() if key in blobs)
        return found

    def __getitem__(self, name: BlobName) -> ObjectInfo:
        return self.some([name])[name]

    def __delitem__(self, name: BlobName) -> None:
        del self._rows.here(name[0])[packed_key(name[1])]
        self._rows.grew(-1)

    def __contains__(self, name: object) -> bool:
        assert isinstance(name, tuple)
        return name in self.some([name])

    def __iter__(self) -> Iterator[BlobName]:
        for flow in sorted(self.flows):
            for key, _ in self._rows.latest_in_order(flow):
                yield flow, unpacked_key(key)

    def __len__(self) -> int:
        spilled = any(map(self._rows.is_spilled, self.flows))
        return sum(1 for _ in self) if spilled else self._rows.in_memory

    def __bool__(self) -> bool:
        return bool(self.flows)
