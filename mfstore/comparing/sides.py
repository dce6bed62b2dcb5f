"""What is told of the two sides of a difference: types, shapes, sizes, and short values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mfstore.comparing.columns import dtype_node
from mfstore.comparing.report import Side
from mfstore.comparing.tensors import text_of_one
from mfstore.errors import NotLoadable
from mfstore.pickling.evaluation import slots_of
from mfstore.pickling.symbols import Made, Slot, Symbol, called
from mfstore.views.arrays import array_of
from mfstore.views.data import (
    MAPPING,
    OBJECT,
    SEQUENCE,
    dtype_of,
    is_plain,
    kind_of,
    nbytes_of,
    shape_of,
    type_of,
)
from mfstore.views.frames import frame_of, series_of

if TYPE_CHECKING:
    from mfstore.comparing.columns import Column
    from mfstore.comparing.sameness import Place
    from mfstore.views.frames import FrameSymbols

LETTERS = 60
"""Longest values that are shown."""
SHOWN = ("numpy", "datetime", "decimal", "fractions", "uuid", "pathlib", "zoneinfo")
"""Modules of whose values the text is made: it says what they are, and costs nothing to make."""


class Sides:
    """Tells of parts, without reading their data. Types of elements are made once each."""

    def __init__(self) -> None:
        self._dtypes: dict[int, str] = {}
        self._kept: list[Any] = []
        """What is told apart by its ``id``, and so stays."""

    def side(self, place: Place) -> Side:
        """What is known of a part without reading its data."""
        node = place.node
        if isinstance(node, Made) and (frame := frame_of(node)) is not None:
            return Side(type_of(node), "", (frame.length, _width(place, frame)), nbytes_of(node))
        shape = shape_of(node)
        dtype = ""
        if shape is not None and isinstance(node, Made):
            series = series_of(node)
            values = node if series is None else series.values
            dtype = self._text(place, dtype_of(values) if dtype_of(values) is not None else dtype_node(values))
            dtype = dtype or self._masked(place, values)
        if isinstance(node, (list, tuple)):
            shape = (len(node),)
        if isinstance(node, (str, bytes, bytearray, Slot)):
            shape = None
        nbytes = len(node.encode("utf-8", "surrogatepass")) if isinstance(node, str) else nbytes_of(node)
        return Side(type_of(node), dtype, shape, nbytes, self._value(place))

    def _value(self, place: Place) -> str:
        node = place.node
        if is_plain(node) or (isinstance(node, (list, tuple, set, frozenset)) and all(map(is_plain, node))):
            if hasattr(node, "__len__") and len(node) > LETTERS:
                return ""
            text = repr(node)
        elif isinstance(node, Made) and called(node).partition(".")[0] in SHOWN and not (
            slots_of(node) or kind_of(node) in (MAPPING, SEQUENCE, OBJECT) or shape_of(node) is not None
        ):  # fmt: skip
            try:
                text = str(place.parts.objects([node])[0])
            except NotLoadable:
                return ""
        else:
            return text_of_one(node)
        return text if len(text) <= LETTERS else ""

    def name(self, place: Place, node: Any) -> str | int:
        """A name as it is told in a path."""
        if isinstance(node, str) or type(node) is int:
            return node
        if is_plain(node) or isinstance(node, (tuple, frozenset)):
            return repr(node)
        return self._value(place) or type_of(node)

    def dtype(self, place: Place, node: Any) -> Any:
        """A type of elements of numpy; None where that cannot be made here."""
        if node is None:
            return None
        try:
            return place.parts.objects([node])[0]
        except NotLoadable:
            return None

    def _text(self, place: Place, node: Any) -> str:
        if node is None:
            return ""
        if id(node) not in self._dtypes:
            if isinstance(node, Symbol) and node.module == "torch":
                made: Any = node.full_name  # as torch writes it, which takes seconds to import
            else:
                made = node if isinstance(node, str) else self.dtype(place, node)
            self._dtypes[id(node)] = "" if made is None else str(made)
            self._kept.append(node)
        return self._dtypes[id(node)]

    def column(self, place: Place, column: Column | None) -> Side:
        """As ``side``, of a column."""
        if column is None:
            return Side("column")
        node = column.place.node
        return Side(
            type_of(node), self._text(place, dtype_node(node) or dtype_of(node)) or self._masked(place, node),
            (column.length,), column.nbytes,
        )  # fmt: skip

    def _masked(self, place: Place, node: Any) -> str:
        """What pandas calls a column of numbers some of which may be missing."""
        state = node.state if isinstance(node, Made) else None
        if not isinstance(state, dict) or "_mask" not in state or (array := array_of(state.get("_data"))) is None:
            return ""
        name = self._text(place, array.dtype)
        return {"bool": "boolean"}.get(name) or name.replace("uint", "UInt").replace("int", "Int").replace(
            "float", "Float"
        )


def _width(place: Place, frame: FrameSymbols) -> int | None:
    """Columns of a frame; None where that cannot be told here."""
    try:
        places = place.parts.objects([block.args[1] for block in frame.blocks])
    except NotLoadable:
        return None
    return sum(
        len(range(place.start, place.stop, place.step or 1)) if isinstance(place, slice) else len(place)
        for place in places
    )  # fmt: skip
