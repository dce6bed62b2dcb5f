"""A backend of which whole objects are read once, however many questions are asked of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from mfstore.errors import MfstoreError
from mfstore.maintenance.spill import Spill

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

IN_MEMORY = 64 << 20
"""Bytes of objects that are kept in memory; the others are in a temporary file."""


class ReadOnce:
    """Another backend, which is asked for the whole of an object once: recipes tell of each group of bytes who holds
    it, and each way of grouping reads all of them. What could not be read is asked for again."""

    def __init__(self) -> None:
        self._backend: Any = None
        self._kept: dict[str, bytes | int] = {}
        self._room = IN_MEMORY
        self._spill = Spill()

    def over(self, backend: Backend) -> Backend:
        """The backend, as it is read through this: at one time one, each of the same objects."""
        self._backend = backend
        return cast("Backend", self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def get_many(self, keys: Sequence[str]) -> Iterator[tuple[str, bytes | MfstoreError]]:
        """As of the backend."""
        keys = list(keys)
        wanted = [key for key in dict.fromkeys(keys) if key not in self._kept]
        failed: dict[str, MfstoreError] = {}
        for key, data in self._backend.get_many(wanted) if wanted else ():
            if isinstance(data, MfstoreError):
                failed[key] = data
            else:
                self._keep(key, data)
        for key in keys:
            yield key, failed[key] if key in failed else self._found(key)

    def _keep(self, key: str, data: bytes) -> None:
        if len(data) <= self._room:
            self._room -= len(data)
            self._kept[key] = data
        else:
            self._kept[key] = self._spill.put(bytes(data))

    def _found(self, key: str) -> bytes:
        kept = self._kept[key]
        return kept if isinstance(kept, bytes) else self._spill.get(kept)


def read_once(backend: Backend) -> Backend:
    """The backend, each of whose objects is asked for once."""
    return ReadOnce().over(backend)
