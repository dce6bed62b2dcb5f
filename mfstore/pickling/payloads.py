"""What reducers hand to the pickler besides ordinary objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Reduced:
    """A node that pickles as ``func(*args)``; what reducers nest inside their results."""

    __slots__ = ("args", "func")

    def __init__(self, func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.func = func
        self.args = args


class Payload:
    """Contiguous memory a reducer wants written as one writable buffer.

    ``data`` is any contiguous bytes-like object, not retained after ``dump`` returns unless the
    sink retains it; ``itemsize`` and ``row`` (bytes per row, 0 if there are no rows) tell the
    chunker its shape.
    """

    __slots__ = ("data", "itemsize", "row")

    def __init__(self, data: Buffer | Strided, itemsize: int, row: int) -> None:
        self.data = data
        self.itemsize = itemsize
        self.row = row


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


class Joined:
    """A sink that keeps everything; ``all`` is an ordinary pickle."""

    __slots__ = ("_body", "_payloads")

    def __init__(self) -> None:
        self._body: list[bytes] = []
        self._payloads: list[tuple[int, bytes]] = []

    def body(self, block: bytes) -> None:
        """Take the next block of the body."""
        self._body.append(block)

    def payload(self, kind: int, data: Buffer | Strided, itemsize: int, row: int, at: int) -> None:
        """Take a payload that belongs after ``at`` bytes of the body."""
        self._payloads.append((at, data.read(0, data.nbytes) if isinstance(data, Strided) else bytes(data)))

    def all(self) -> bytes:
        """The payloads spliced into the body."""
        body = b"".join(self._body)
        parts, last = [], 0
        for at, data in self._payloads:
            parts += [body[last:at], data]
            last = at
        return b"".join([*parts, body[last:]])
