"""What the storage did not give, or this mfstore does not know: not damage, and nothing that anybody may touch."""

from __future__ import annotations

import threading

from mfstore.errors import CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.maintenance.verification import REFUSALS


class Unread:
    """Objects of which nothing is known. Any thread may add one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.unreadable: dict[str, MfstoreError] = {}
        """Objects the storage did not give."""
        self.unknown: dict[str, MfstoreError] = {}
        """Objects of a version unknown to this mfstore, or damaged to look so."""

    def add(self, path: str, error: MfstoreError) -> None:
        """Note why an object could not be read. Raises the error when too many could not be."""
        with self._lock:
            if isinstance(error, Unsupported):
                self.unknown[path] = error
                return
            self.unreadable[path] = error
            if len(self.unreadable) >= REFUSALS:
                raise error

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
