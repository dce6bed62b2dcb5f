"""Arrays and tables of Arrow by their symbols: columns, and rows of which only the bytes are read.

Where the texts of some rows lie is told by where they begin, which is itself stored. So rows are planned twice: what a
plan needs to know first is noted as ``Edges``, read together, and then the plan is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

from mfstore.pickling.symbols import Made, Slot, call, called, item_of
from mfstore.records import NamedTuple

_BEGINS = {
    kind: Struct("<i" if kind in ("string", "binary", "utf8") else "<q")
    for kind in ("string", "utf8", "binary", "large_string", "large_utf8", "large_binary")
}
"""Types that begin their texts somewhere, by their aliases, with the integers that say where."""
_WIDTHS = {
    "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8, "halffloat": 2,
    "float": 4, "double": 8, "float16": 2, "float32": 4, "float64": 8, "date32": 4, "date64": 8, "date32[day]": 4,
    "date64[ms]": 8,
}  # fmt: skip
_OF_EIGHT = ("timestamp", "duration", "time64")


class Edges:
    """Bytes that a plan needs to know. What is not known yet is noted in ``wanted``."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, int, int], bytes] = {}
        self.wanted: list[Slot] = []

    def bytes_of(self, slot: Slot) -> bytes:
        """The bytes there, or zeros, where the plan has to be made again."""
        found = self.known.get((slot.number, slot.start, slot.end))
        if found is None:
            self.wanted.append(slot)
            return bytes(len(slot))
        return found


def planned(plan: Callable[[Edges], Any], read: Callable[[Sequence[Slot]], dict[int, Any]]) -> Any:
    """What a plan gives once it knows all that it wants to."""
    edges = Edges()
    while True:
        node = plan(edges)
        wanted, edges.wanted = edges.wanted, []
        if not wanted:
            return node
        found = read(wanted)
        for slot in wanted:
            edges.known[slot.number, slot.start, slot.end] = bytes(found[id(slot)])


class ArrowSymbols(NamedTuple):
    """An array of Arrow as what it is made of."""

    node: Made
    kind: Any
    length: int
    missing: int
    offset: int
    buffers: list[Any]
    children: list[Any]
    dictionary: Any

    @property
    def alias(self) -> str:
        """The name of the type, "" where it takes more than a name."""
        if called(self.kind) == "pyarrow.lib.type_for_alias" and self.kind.args:
            return str(self.kind.args[0])
        return ""

    @property
    def width(self) -> int | None:
        """Bytes of a value, None where values have no bytes of their own or their width is not told by symbols."""
        if called(self.kind).removeprefix("pyarrow.lib.") in _OF_EIGHT:
            return 8
        return _WIDTHS.get(self.alias)

    def rows(self, start: int, stop: int, edges: Edges) -> Made:
        """Items ``start`` to before ``stop``."""
        low, high = start + self.offset, stop + self.offset
        texts = _BEGINS.get(self.alias)
        width = self.width
        whole = item_of(self.node, slice(start, stop))
        if start >= stop or self.children or self.dictionary is not None or not (texts or width):
            return whole
        aligned = low - low % 8
        valid = _part(self.buffers[0], aligned // 8, -(-high // 8))
        if texts is not None:
            found = self._texts(texts, aligned, high, edges)
            if found is None:
                return whole
            buffers = [valid, *found]
        else:
            assert width is not None
            buffers = [valid, _part(self.buffers[1], aligned * width, high * width)]
        missing = -1 if valid is not None else 0
        made = Made(
            self.node.function, ((self.kind, high - aligned, missing, 0, buffers, self.children, self.dictionary),)
        )
        return made if low == aligned else item_of(made, slice(low - aligned, None))

    def _texts(self, one: Struct, first: int, last: int, edges: Edges) -> list[Any] | None:
        """Where the texts begin, counted from the first one, and the texts; None where both lie in the pickle."""
        begins, texts = (_slot(buffer) for buffer in self.buffers[1:])
        if begins is None or texts is None:
            return None
        size = one.size
        (low,) = one.unpack(edges.bytes_of(begins.part(first * size, (first + 1) * size)))
        (high,) = one.unpack(edges.bytes_of(begins.part(last * size, (last + 1) * size)))
        if not 0 <= low <= high <= len(texts):
            low = high = 0
        starts = _buffer(begins.part(first * size, (last + 1) * size))
        kind = call("numpy", "dtype", f"<i{size}")
        counted = call("operator", "sub", call("numpy", "frombuffer", starts, kind), low)
        return [
            call("pyarrow", "py_buffer", counted),
            call("pyarrow", "py_buffer", texts.part(low, high) if high > low else b""),
        ]


def arrow_array(node: Any) -> ArrowSymbols | None:
    """What an array of Arrow is made of; None for what is none."""
    if called(node) != "pyarrow.lib._restore_array" or len(node.args) != 1:
        return None
    data = node.args[0]
    return ArrowSymbols(node, *data) if isinstance(data, tuple) and len(data) == 7 else None


class ChunkedSymbols(NamedTuple):
    """A chunked array as its arrays."""

    node: Made
    arrays: list[ArrowSymbols]

    @property
    def length(self) -> int:
        """Items in all."""
        return sum(array.length for array in self.arrays)

    def rows(self, start: int, stop: int, edges: Edges) -> Made:
        """Items ``start`` to before ``stop``."""
        parts: list[Any] = []
        at = 0
        for array in self.arrays:
            low, high = max(start - at, 0), min(stop - at, array.length)
            if low < high:
                parts.append(array.node if high - low == array.length else array.rows(low, high, edges))
            at += array.length
        return Made(self.node.function, (parts, *self.node.args[1:]), self.node.keywords)


def chunked_array(node: Any) -> ChunkedSymbols | None:
    """What a chunked array is made of; None for what is none, or says no type of its own."""
    if called(node) != "pyarrow.lib.chunked_array" or len(node.args) != 2 or not isinstance(node.args[0], list):
        return None
    arrays = [arrow_array(array) for array in node.args[0]]
    return None if None in arrays else ChunkedSymbols(node, arrays)  # type: ignore[arg-type]


class TableSymbols(NamedTuple):
    """A table or a batch of Arrow as its columns."""

    node: Made
    names: list[str]
    columns: list[Any]

    @property
    def length(self) -> int | None:
        """Rows; None where there is no column to tell."""
        for column in self.columns:
            found = chunked_array(column) or arrow_array(column)
            if found is not None:
                return found.length
        return None

    def positions(self, names: Sequence[Any]) -> list[int]:
        """Where the columns of these names are. KeyError for one that is not there."""
        return [_position(self.names, name) for name in names]

    def describe(self) -> tuple[str, ...]:
        """As of frames."""
        return ()

    def chosen(self, positions: Sequence[int] | None, rows: tuple[int, int] | None, edges: Edges) -> Made:
        """The table of these columns and rows; None: all of them."""
        build, (columns, schema, *rest) = self.node.function, self.node.args
        fields = list(range(len(columns))) if positions is None else list(positions)
        taken = [columns[at] for at in fields]
        if rows is not None:
            taken = [narrowed_arrow(column, *rows, edges) for column in taken]
        if positions is not None:
            listed, *more = schema.args
            schema = Made(schema.function, ([listed[at] for at in fields], *more), schema.keywords)
        return Made(build, (taken, schema, *rest), self.node.keywords)


def _position(names: Sequence[Any], name: Any) -> int:
    if isinstance(name, int) and not isinstance(name, bool):
        return range(len(names))[name]
    found = [at for at, one in enumerate(names) if one == name]
    if len(found) != 1:
        raise KeyError(name)
    return found[0]


def arrow_table(node: Any) -> TableSymbols | None:
    """What a table or a batch of Arrow is made of; None for what is none."""
    if called(node) not in ("pyarrow.lib._reconstruct_table", "pyarrow.lib._reconstruct_record_batch"):
        return None
    columns, schema = node.args[:2]
    if called(schema) != "pyarrow.lib.schema" or not isinstance(columns, list):
        return None
    fields = schema.args[0]
    if not isinstance(fields, list) or not all(called(field) == "pyarrow.lib.field" for field in fields):
        return None
    return TableSymbols(node, [field.args[0] for field in fields], columns)


def narrowed_arrow(node: Any, start: int, stop: int, edges: Edges) -> Any:
    """Items ``start`` to before ``stop`` of an array or a chunked array."""
    found = chunked_array(node) or arrow_array(node)
    return item_of(node, slice(start, stop)) if found is None else found.rows(start, stop, edges)


def _slot(buffer: Any) -> Slot | None:
    """The slot that a buffer of Arrow is all of."""
    if called(buffer) == "pyarrow.lib.py_buffer" and isinstance(buffer.args[0], Slot):
        return buffer.args[0]
    return None


def _buffer(slot: Slot) -> Made:
    return call("pyarrow", "py_buffer", slot)


def _part(buffer: Any, start: int, end: int) -> Any:
    """Bytes of a buffer, as far as there are any."""
    if buffer is None:
        return None
    slot = _slot(buffer)
    if slot is None:
        return Made(call("operator", "methodcaller", "slice", start, end - start), (buffer,))
    end = min(end, len(slot))
    return _buffer(slot.part(start, end))
