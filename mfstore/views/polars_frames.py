"""Frames of polars by their symbols: polars pickles one as a stream of Arrow, in which columns have their places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from io import BytesIO
from typing import Any

from mfstore._core.pickler import BYTES
from mfstore.pickling.symbols import Made, Slot, call, called, item_of
from mfstore.records import NamedTuple
from mfstore.views.arrow import Edges
from mfstore.views.ipc import NotAStream, StreamLayout, read_layout
from mfstore.views.ipc_rows import first_row, rows_of

_FRAMES = ("polars.dataframe.frame.DataFrame", "polars.DataFrame")


class PolarsSymbols(NamedTuple):
    """A frame as the stream that it is made of."""

    node: Made
    data: Slot | bytes

    def describe(self) -> tuple[str, ...]:
        """As of frames of pandas."""
        return ()

    def layout(self, read: Callable[[Slot], bytes]) -> StreamLayout | None:
        """Where what is, for which a little of the stream is read; None where it is no stream that is known here."""
        data = self.data
        try:
            if isinstance(data, bytes):
                return read_layout(lambda start, end: data[start:end], len(data))
            return read_layout(lambda start, end: read(data.part(start, end)), len(data))
        except NotAStream:
            return None

    def chosen(self, layout: StreamLayout, positions: Sequence[int]) -> Made:
        """The frame of the columns at these positions."""
        return self._made(layout, positions, layout.parts(sorted(set(positions))))

    def rows(self, layout: StreamLayout, positions: Sequence[int], start: int, stop: int, edges: Edges) -> Made:
        """The frame of these columns and rows. Of most rows of a batch, and of types of which rows cannot be told, all
        of the batch is read: that takes fewer requests."""
        kept, before = layout.between(start, stop)
        start, stop = start - before, stop - before
        if 2 * (stop - start) < kept.rows:
            with suppress(NotAStream):
                pieces = rows_of(kept, sorted(set(positions)), start, stop, partial(self._known, edges))
                first = first_row(start)
                return item_of(self._made(layout, positions, pieces), slice(start - first, stop - first))
        return item_of(self.chosen(kept, positions), slice(start, stop))

    def _known(self, edges: Edges, start: int, stop: int) -> bytes:
        return self.data[start:stop] if isinstance(self.data, bytes) else edges.bytes_of(self.data.part(start, stop))

    def _made(self, layout: StreamLayout, positions: Sequence[int], pieces: Iterable[bytes | tuple[int, int]]) -> Made:
        parts: list[Any] = []
        for piece in pieces:
            if isinstance(piece, bytes):
                parts.append(piece)
            elif isinstance(self.data, bytes):
                parts.append(self.data[slice(*piece)])
            else:
                parts.append(self.data.part(*piece))
        return call(__name__, "frame_of_pieces", parts, [layout.columns[at].name for at in positions])


def polars_frame(node: Any) -> PolarsSymbols | None:
    """What a frame of polars is made of; None for what is none."""
    if called(node) not in _FRAMES or not node.new:
        return None
    data = node.state
    if isinstance(data, bytes) or (isinstance(data, Slot) and data.kind == BYTES):
        return PolarsSymbols(node, data)
    return None


def frame_of_pieces(pieces: Sequence[bytes], names: Sequence[str]) -> Any:
    """The frame of these columns, of a stream in pieces that has no others."""
    import polars

    if not names:
        return polars.DataFrame()
    return polars.read_ipc_stream(BytesIO(b"".join(pieces)), columns=list(dict.fromkeys(names))).select(names)
