"""The blobs that a listing shows, of which there may be millions: each in a third of the memory that its entry takes,
and made again when it is asked for."""

from __future__ import annotations

import struct
from collections.abc import Iterator, MutableMapping

from mfstore.backends.base import ObjectInfo
from mfstore.maintenance.metaflow.listed_digests import restored, shortened
from mfstore.metaflow.roots.layout import blob_path

BlobName = tuple[str, str]
"""Flow and key of a blob or an IncludeFile."""
_ENTRY = struct.Struct("<qd16s")
"""Size, time and ETag."""


class BlobTable(MutableMapping[BlobName, ObjectInfo]):
    """Blobs by name; with a suffix, what lies beside each."""

    __slots__ = ("_flows", "_suffix")

    def __init__(self, suffix: str = "") -> None:
        self._suffix = suffix
        self._flows: dict[str, dict[bytes | str, bytes | ObjectInfo]] = {}
        """By flow, then by key: what is no digest, as names and ETags of some kinds, as it is."""

    @property
    def flows(self) -> set[str]:
        """Every flow that has any."""
        return {flow for flow, blobs in self._flows.items() if blobs}

    def __setitem__(self, name: BlobName, info: ObjectInfo) -> None:
        flow, key = name
        etag = shortened(info.etag)
        short = isinstance(etag, bytes) and len(etag) == 16 and info.key == self._path(flow, key)
        entry = _ENTRY.pack(info.size, info.modified, etag) if short else info
        self._flows.setdefault(flow, {})[shortened(key)] = entry

    def __getitem__(self, name: BlobName) -> ObjectInfo:
        flow, key = name
        entry = self._flows[flow][shortened(key)]
        if isinstance(entry, ObjectInfo):
            return entry
        size, modified, etag = _ENTRY.unpack(entry)
        return ObjectInfo(self._path(flow, key), size, modified, etag.hex())

    def __delitem__(self, name: BlobName) -> None:
        del self._flows[name[0]][shortened(name[1])]

    def __contains__(self, name: object) -> bool:
        assert isinstance(name, tuple)
        return shortened(name[1]) in self._flows.get(name[0], ())

    def __iter__(self) -> Iterator[BlobName]:
        for flow, blobs in self._flows.items():
            for key in blobs:
                yield flow, restored(key)

    def __len__(self) -> int:
        return sum(map(len, self._flows.values()))

    def _path(self, flow: str, key: str) -> str:
        return blob_path(flow, key) + self._suffix
