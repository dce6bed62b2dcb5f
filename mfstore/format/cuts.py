"""Where to cut: by content, one rule for all segments and bodies.

The rule is part of the format: it decides chunk ids and so keys (docs/format.md, "Cut rules"). It is computed in the
core; here is how what is long, or comes in pieces, passes through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mfstore._core.chunk import CUT_MAX, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    Emit = Callable[[memoryview, list[int]], None]
    """Gets contiguous memory and the end offsets of the chunks in it."""

WINDOW = 8 << 20
"""Bytes that are cut at a time where not all are there, or need not stay together. Of each window up to CUT_MAX bytes
at the end are looked at again with the next: a thirtieth."""


def cut_in_windows(
    read: Callable[[int, int], Buffer], length: int, itemsize: int, row: int
) -> Iterator[tuple[memoryview, list[int]]]:
    """A segment of ``length`` bytes, a window at a time: the bytes of whole chunks, and their ends in them.

    ``read(start, end)`` gives bytes of the segment. The cuts are those of the whole.
    """
    start = 0
    while start < length:
        end = min(start + WINDOW, length)
        window = memoryview(read(start, end)).cast("B")
        ends = cut(window, itemsize, row, end == length, start)
        yield window[: ends[-1]], ends
        start += ends[-1]


class ContentCutter:
    """Cuts a stream of buffers that has no items or rows, and hands over whole chunks in large runs.

    The cuts depend only on the concatenated bytes, not on how they were split into buffers.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._tail = b""

    def feed(self, *blocks: Buffer) -> None:
        """Take the next bytes. Several blocks are joined; the memory of one is passed on where possible, so
        that it must stay unchanged."""
        view = memoryview(blocks[0] if len(blocks) == 1 else self._take(blocks)).cast("B")
        at = 0
        if self._tail:
            # Two maximal chunks of new bytes decide every cut that starts in the tail.
            head = memoryview(self._tail + view[: 2 * CUT_MAX])
            ends = cut(head, 1, 0, False)
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
            # Not a window and a little: what is left over is encoded by itself.
            window = view[at:] if len(view) - at < WINDOW + WINDOW // 2 else view[at : at + WINDOW]
            ends = cut(window, 1, 0, False)
            if not ends:
                break
            self._emit(window[: ends[-1]], ends)
            at += ends[-1]
        self._tail = bytes(view[at:])

    def finish(self, *blocks: Buffer) -> None:
        """These are the last bytes: cut what is left."""
        if left := memoryview(self._take(blocks)):
            self._emit(left, cut(left, 1, 0, True))

    def _take(self, blocks: Sequence[Buffer]) -> bytes:
        """What is not cut yet and the next blocks."""
        joined = b"".join((self._tail, *blocks))
        self._tail = b""
        return joined
