"""What the storage did not give, gave in two ways, or this mfstore does not know: not damage, and nothing that anybody
may touch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from mfstore.errors import CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.maintenance.verification import REFUSALS

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

Decoded = TypeVar("Decoded")


class Unread:
    """Objects of which nothing is known, or not at the first read. Any thread may add one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.unreadable: dict[str, MfstoreError] = {}
        """Objects the storage did not give."""
        self.unknown: dict[str, MfstoreError] = {}
        """Objects of a version unknown to this mfstore, or damaged to look so."""
        self.unsteady: set[str] = set()
        """Objects that seemed damaged when they were read, and were whole when they were read again."""

    def add(self, path: str, error: MfstoreError) -> None:
        """Note why an object could not be read. Raises the error when too many could not be."""
        with self._lock:
            if isinstance(error, Unsupported):
                self.unknown[path] = error
                return
            self.unreadable[path] = error
            if len(self.unreadable) >= REFUSALS:
                raise error

    def add_unsteady(self, path: str) -> None:
        """An object that seemed damaged was whole when it was read again: nothing is wrong with what is stored, and
        something with this machine or the way to the storage."""
        with self._lock:
            self.unsteady.add(path)

    def decode(self, backend: Backend, path: str, data: bytes, decode: Callable[[bytes], Decoded]) -> Decoded:
        """As ``decode_read``, and noted when only the first read was bad."""
        try:
            return decode(data)
        except MfstoreError:
            found = decode(backend.read_again(path))
        self.add_unsteady(path)
        return found

    def kind_of(self, path: str, error: MfstoreError) -> str:
        """The kind of finding that an error is. One that says nothing about the object is noted."""
        if isinstance(error, NotFound):
            return "missing"
        if isinstance(error, CorruptObject):
            return "damaged"
        self.add(path, error)
        return "unknown" if isinstance(error, Unsupported) else "unreadable"

    def __contains__(self, path: str) -> bool:
        return path in self.unreadable or path in self.unknown
