"""Rows of a batch of Arrow's streams: which bytes of its buffers they take, and what its metadata say then.

Rows begin at a multiple of eight, so that bits are cut between bytes, and so do those of the lists within. What tells
where others lie (bits of what is missing, where lists begin, views of texts) is known before this is planned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from struct import error
from typing import Any

from mfstore.views.ipc import (
    BATCH,
    BUFFERS,
    CONTINUED,
    LONG,
    PAIR,
    VIEWS,
    Column,
    Field,
    Message,
    NotAStream,
    StreamLayout,
)

Piece = bytes | tuple[int, int]
"""Bytes, or a range of the stream."""
Known = Callable[[int, int], bytes]
"""Gives bytes of the stream, from one place to another."""
_BITS, _LISTS, _STRUCT, _FIXED_LISTS = 6, 21, 13, 16
_NUMBERS = (2, 3, 7, 8, 9, 10, 15, 18)
SHORT_TEXT = 12
"""Longest text that lies within its view."""


def rows_of(layout: StreamLayout, chosen: Sequence[int], start: int, stop: int, known: Known) -> list[Piece]:
    """A stream of these rows and columns alone, as ``StreamLayout.parts`` gives it; up to seven rows more come before
    them (``first_row``). NotAStream for types of which rows cannot be told here."""
    try:
        return list(_pieces(layout, set(chosen), start, stop, known))
    except (error, IndexError, ValueError) as wrong:
        raise NotAStream(f"rows that cannot be told: {wrong}") from wrong


def first_row(start: int) -> int:
    """With which row of its batch a cut begins that has to have this one."""
    return start // 8 * 8


def _pieces(layout: StreamLayout, chosen: set[int], start: int, stop: int, known: Known) -> Iterator[Piece]:
    needed = {number for at in chosen for number in layout.columns[at].dictionaries}
    at = 0
    for message in layout.messages:
        if message.kind == BATCH:
            low, high = first_row(max(start - at, 0)), min(stop - at, message.rows)
            if low < high:
                yield from _batch(layout, message, chosen, low, high, known)
            at += message.rows
        elif message.dictionary < 0 or message.dictionary in needed:
            yield message.metadata
            if message.length:
                yield message.body, message.body + message.length
    yield CONTINUED + bytes(4)


def _batch(
    layout: StreamLayout, message: Message, chosen: set[int], start: int, stop: int, known: Known
) -> Iterator[Piece]:
    cut = _Cut(message, known)
    for number, column in enumerate(layout.columns):
        if number in chosen:
            cut.rows(column.field, start, stop)
        else:
            cut.skip(column)
    if len(cut.buffers) != message.buffer_count:
        raise NotAStream("a batch has more buffers than its columns need")
    metadata = bytearray(message.metadata)
    LONG.pack_into(metadata, message.rows_at, stop - start)
    for number, node in enumerate(cut.nodes):
        if node is not None:
            PAIR.pack_into(metadata, message.nodes + 16 * number, *node)
    at, body = 0, []
    for number, piece in enumerate(cut.buffers):
        length = len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
        PAIR.pack_into(metadata, message.buffers + 16 * number, at, length)
        body += [piece, bytes(-length % 64)] if length else []
        at += length + -length % 64
    LONG.pack_into(metadata, message.length_at, at)
    yield bytes(metadata)
    yield from body


class _Cut:
    """What is left of the fields and buffers of a batch, in their order."""

    def __init__(self, message: Message, known: Known) -> None:
        self.nodes: list[tuple[int, int] | None] = []
        """How long each field is, and how many values of it are missing; None: as it was."""
        self.buffers: list[Piece] = []
        self._message = message
        self._known = known
        self._places = iter(message.places())
        self._views = iter(message.views)

    def skip(self, column: Column) -> None:
        """Nobody reads this one."""
        for kind in column.kinds:
            self.nodes.append(None)
            for _ in range(BUFFERS[kind] + (next(self._views, 0) if kind in VIEWS else 0)):
                self._place()
                self.buffers.append(b"")

    def rows(self, field: Field, start: int, stop: int) -> None:
        """These rows of a field, and of what is within it."""
        import numpy as np

        # Memory is taken only for what a buffer was found to have.
        missing, bits = None, self._place()
        if bits[1] > bits[0]:
            piece = self._bytes(bits, start // 8, -(-stop // 8))
            missing = np.unpackbits(np.frombuffer(piece, "u1"), count=stop - start, bitorder="little") == 0
            self.buffers.append(piece)
        else:
            self.buffers.append(b"")
        self.nodes.append((stop - start, 0 if missing is None else int(missing.sum())))
        if field.kind in VIEWS:
            self._texts(start, stop, missing)
        elif field.kind == _LISTS:
            begins = np.frombuffer(self._bytes(self._place(), 8 * start, 8 * (stop + 1)), "<i8")
            low, high = int(begins[0]) // 8 * 8, int(begins[-1])
            if not 0 <= low <= high:
                raise NotAStream("a list ends before it begins")
            self.buffers.append((begins - low).tobytes())
            self.rows(field.children[0], low, high)
        elif field.kind == _STRUCT:
            for child in field.children:
                self.rows(child, start, stop)
        elif field.kind == _FIXED_LISTS and field.width:
            self.rows(field.children[0], start * field.width, stop * field.width)
        elif field.kind == _BITS:
            self.buffers.append(self._range(self._place(), start // 8, -(-stop // 8)))
        elif field.kind in _NUMBERS and field.width:
            self.buffers.append(self._range(self._place(), start * field.width, stop * field.width))
        else:
            raise NotAStream("a type of which rows are not told here")

    def _texts(self, start: int, stop: int, missing: Any) -> None:
        """Views: length, and then the text or its beginning, in which buffer it lies, and where."""
        import numpy as np

        views = np.frombuffer(self._bytes(self._place(), 16 * start, 16 * stop), "<i4").reshape(-1, 4).copy()
        if missing is not None:
            views[missing] = 0
        data: list[Piece] = []
        for number in range(next(self._views, 0)):
            place = self._place()
            rows = (views[:, 0] > SHORT_TEXT) & (views[:, 2] == number)
            if not rows.any():
                data.append(b"")
                continue
            begins, lengths = views[rows, 3].astype("i8"), views[rows, 0]
            low, high = int(begins.min()), int((begins + lengths).max())
            views[rows, 3] -= low
            data.append(self._range(place, low, high))
        self.buffers += [views.tobytes(), *data]

    def _place(self) -> tuple[int, int]:
        """Where in the stream the next buffer lies."""
        found = next(self._places, None)
        if found is None:
            raise NotAStream("a batch has fewer buffers than its columns need")
        return self._message.body + found[0], self._message.body + sum(found)

    def _range(self, place: tuple[int, int], start: int, stop: int) -> tuple[int, int]:
        begin, end = place[0] + start, place[0] + stop
        if not self._message.body <= place[0] <= begin <= end <= place[1] <= self._message.body + self._message.length:
            raise NotAStream("rows lie outside of their buffer")
        return begin, end

    def _bytes(self, place: tuple[int, int], start: int, stop: int) -> bytes:
        return self._known(*self._range(place, start, stop))
