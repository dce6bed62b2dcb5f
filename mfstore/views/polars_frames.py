"""Frames of polars by their symbols: polars pickles one as a stream of Arrow, in which columns have their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

from mfstore._core.pickler import BYTES
from mfstore.records import NamedTuple
from mfstore.views.ipc import NotAStream, StreamLayout, read_layout
from mfstore.views.symbols import Made, Slot, call, called

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
        pieces: list[Any] = []
        for piece in layout.parts(sorted(set(positions))):
            if isinstance(piece, bytes):
                pieces.append(piece)
            elif isinstance(self.data, bytes):
                pieces.append(self.data[slice(*piece)])
            else:
                pieces.append(self.data.part(*piece))
        names = [layout.columns[at].name for at in positions]
        return call(__name__, "frame_of_pieces", pieces, names)


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
