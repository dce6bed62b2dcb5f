"""Blobs of a datastore root in a directory: ``<path>``, and ``<path>_meta`` for its metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from mfstore.backends.local import LocalBackend
from mfstore.errors import NotFound
from mfstore.metaflow.stock.blob_storage import METADATA_SUFFIX, BlobStorage, NewBlob, StoredBlob, parsed_metadata
from mfstore.metaflow.stock.encoding import GZIP_TRAILER_BYTES

if TYPE_CHECKING:
    from mfstore.metaflow.stock.blob_storage import Metadata


class LocalBlobs(BlobStorage):
    """``root`` tells the root now; ``fsync`` is the local backend's policy."""

    remote = False

    def __init__(self, root: Callable[[], str], fsync: str) -> None:
        self._root = root
        self._fsync = fsync
        self._made: tuple[str, LocalBackend] | None = None

    def _backend(self) -> LocalBackend:
        root = self._root()
        if self._made is None or self._made[0] != root:
            # Links to other disks are the owner's: the tree is not a store that strangers write to.
            self._made = root, LocalBackend(root, fsync=self._fsync, sweep=False, follow_links=True)
        return self._made[1]

    def read(self, paths: Sequence[str]) -> Iterator[tuple[str, StoredBlob | None]]:
        backend = self._backend()
        for path in paths:
            try:
                data = backend.get(path)
            except NotFound:
                yield path, None
            else:
                yield path, StoredBlob(data, len(data), _metadata(backend, path))

    def tails(self, paths: Sequence[str]) -> list[StoredBlob | None]:
        backend = self._backend()
        return [_tail(backend, path) for path in paths]

    def put(self, blobs: Iterable[NewBlob]) -> list[NewBlob]:
        backend = self._backend()
        with backend.batch() as batch:
            for new in blobs:
                # The metadata first: who sees the blob must see what it is.
                if new.metadata:
                    batch.put(new.path + METADATA_SUFFIX, [json.dumps(new.metadata).encode()])
                batch.put(new.path, new.parts)
            batch.commit()
        return []


def _tail(backend: LocalBackend, path: str) -> StoredBlob | None:
    try:
        size = backend.head(path).size
        start = max(0, size - GZIP_TRAILER_BYTES)
        return StoredBlob(bytes(backend.get_range(path, start, size - start)), size, _metadata(backend, path))
    except NotFound:
        return None


def _metadata(backend: LocalBackend, path: str) -> Metadata:
    try:
        text = backend.get(path + METADATA_SUFFIX)
    except NotFound:
        return None
    return parsed_metadata(text)
