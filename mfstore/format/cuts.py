"""Where to cut: fixed cuts that follow an array's shape, content-defined cuts for opaque bytes.

The rules are part of the format: they decide chunk ids and so keys (docs/format.md, "Cut rules").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfstore._core.chunk import CDC_MAX, cdc_cut
from mfstore._core.pickler import BUFFER

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

FIXED = 256 << 10
"""Cut size of array segments. 64 KiB dedups little more (adding a column: 8.2, not 8.5 %) for 4 times the entries."""
FIXED_LARGE = 1 << 20
"""Cut size of array segments above LARGE_SEGMENT: a 60-byte entry per MiB keeps a recipe under 0.01 % of its data."""
LARGE_SEGMENT = 256 << 20
ROW_MIN = 64 << 10
"""Cuts restart at each row of at least this many bytes: a pandas block holds one column per row."""
OPAQUE_WINDOW = 8 << 20
"""Opaque bytes are cut in windows of this size as they stream in."""


def fixed_cuts(length: int, row: int) -> list[int]:
    """End offsets of the chunks of an array segment of ``length`` bytes with rows of ``row`` bytes (0: none).

    A remainder under a quarter of the cut size joins the chunk before it.
    """
    size = FIXED if length <= LARGE_SEGMENT else FIXED_LARGE
    if not ROW_MIN <= row < length:
        return _run_cuts(length, size)
    whole = _run_cuts(row, size)
    rest = length % row
    ends = [start + end for start in range(0, length - rest, row) for end in whole]
    return ends + [length - rest + end for end in _run_cuts(rest, size)]


def _run_cuts(length: int, size: int) -> list[int]:
    if not length:
        return []
    ends = list(range(size, length, size))
    if ends and length - ends[-1] < size // 4:
        ends.pop()
    return [*ends, length]


def is_opaque(kind: int, itemsize: int, row: int) -> bool:
    """Whether a segment is cut by content: bytes, text, and one-dimensional buffers of single bytes."""
    return kind != BUFFER or (itemsize == 1 and row == 0)


class ContentCutter:
    """Cuts a stream of buffers by content and hands over whole chunks in large runs.

    ``emit(view, ends)`` gets contiguous memory and the end offsets of the chunks in it. The cuts depend only on
    the concatenated bytes, not on how they were split into buffers.
    """

    def __init__(self, emit: Callable[[memoryview, list[int]], None]) -> None:
        self._emit = emit
        self._tail = b""

    def feed(self, data: Buffer) -> None:
        """Take the next bytes. Memory is passed on where possible, so ``data`` must stay unchanged."""
        view = memoryview(data).cast("B")
        at = 0
        if self._tail:
            # Two maximal chunks of new bytes decide every cut that starts in the tail.
            head = memoryview(self._tail + view[: 2 * CDC_MAX])
            ends = cdc_cut(head, False)
            while len(ends) > 1 and ends[-2] >= len(self._tail):
                ends.pop()
            if not ends or ends[-1] < len(self._tail):
                done = ends[-1] if ends else 0
                if ends:
                    self._emit(head[:done], ends)
                self._tail = bytes(head[done:])
                return
            self._emit(head[: ends[-1]], ends)
            at = ends[-1] - len(self._tail)
        while at < len(view):
            window = view[at : at + OPAQUE_WINDOW]
            ends = cdc_cut(window, False)
            if not ends:
                break
            self._emit(window[: ends[-1]], ends)
            at += ends[-1]
        self._tail = bytes(view[at:])

    def finish(self) -> None:
        """No more bytes: cut what is left."""
        if self._tail:
            tail, self._tail = memoryview(self._tail), b""
            self._emit(tail, cdc_cut(tail, True))
