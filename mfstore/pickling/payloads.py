"""What a reducer hands to the pickler when an array does not lie in one piece."""

from __future__ import annotations

from typing import Any


class Strided:
    """An array that does not lie in one piece, read a part at a time: in the order of its indices (C order).

    ``nbytes`` is its length; nothing is copied until ``read``.
    """

    __slots__ = ("_flat", "_itemsize", "nbytes")

    def __init__(self, array: Any) -> None:
        self._flat = array.flat
        self._itemsize = array.dtype.itemsize
        self.nbytes: int = array.nbytes

    def read(self, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end``, a copy."""
        first = start // self._itemsize
        part: bytes = self._flat[first : -(-end // self._itemsize)].tobytes()
        return part[start - first * self._itemsize :][: end - start]
