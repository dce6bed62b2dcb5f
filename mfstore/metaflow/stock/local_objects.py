"""Objects of a datastore root in a directory: ``<path>``, and ``<path>_meta`` for its metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from mfstore.backends.local import LocalBackend
from mfstore.errors import NotFound
from mfstore.metaflow.stock.blobs import TAIL
from mfstore.metaflow.stock.objects import META, Found, NewObject, Objects, parsed_metadata

if TYPE_CHECKING:
    from mfstore.metaflow.stock.objects import Metadata


class LocalObjects(Objects):
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

    def read(self, paths: Sequence[str]) -> Iterator[tuple[str, Found | None]]:
        backend = self._backend()
        for path in paths:
            try:
                data = backend.get(path)
            except NotFound:
                yield path, None
            else:
                yield path, Found(data, len(data), _metadata(backend, path))

    def tails(self, paths: Sequence[str]) -> list[Found | None]:
        backend = self._backend()
        return [_tail(backend, path) for path in paths]

    def put(self, objects: Iterable[NewObject]) -> list[NewObject]:
        backend = self._backend()
        with backend.batch() as batch:
            for new in objects:
                # The metadata first: who sees the object must see what it is.
                if new.metadata:
                    batch.put(new.path + META, [json.dumps(new.metadata).encode()])
                batch.put(new.path, new.parts)
            batch.commit()
        return []


def _tail(backend: LocalBackend, path: str) -> Found | None:
    try:
        size = backend.head(path).size
        start = max(0, size - TAIL)
        return Found(bytes(backend.get_range(path, start, size - start)), size, _metadata(backend, path))
    except NotFound:
        return None


def _metadata(backend: LocalBackend, path: str) -> Metadata:
    try:
        text = backend.get(path + META)
    except NotFound:
        return None
    return parsed_metadata(text)
