"""Columns compared: of a frame, a table, a series, an index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mfstore.comparing.elements import unequal_objects
from mfstore.comparing.jobs import BLOCK, Job
from mfstore.comparing.lanes import Lane
from mfstore.comparing.sameness import Place, token
from mfstore.pickling.evaluation import slots_of
from mfstore.pickling.symbols import Made, Slot, called
from mfstore.records import NamedTuple
from mfstore.views.arrays import ArraySymbols, array_of
from mfstore.views.arrow import Edges
from mfstore.views.columns import block_part, length_of, narrowed
from mfstore.views.data import nbytes_of

WINDOWS = 4
"""Windows that fill a batch: rows are left out by windows, and each window asks where its texts begin and end."""


class Column(NamedTuple):
    """The values of a column, which are those of a series or an array too."""

    place: Place
    row: int | None
    """Which row of the block they are; None of what has one axis."""
    length: int

    @property
    def array(self) -> ArraySymbols | None:
        """The array that they lie in; None for what is none."""
        return array_of(self.place.node)

    @property
    def nbytes(self) -> int:
        """Bytes of their data."""
        array = self.array
        total = nbytes_of(self.place.node)
        rows = array.shape[0] if self.row is not None and array is not None and array.shape else 1
        return total // max(rows, 1)

    @property
    def items(self) -> list[Any] | None:
        """The nodes of its objects, of an array of objects; else None."""
        array = self.array
        if array is None or not isinstance(array.items, list):
            return None
        if self.row is None or len(array.shape) == 1:
            return array.items
        return array.items[self.row * self.length : (self.row + 1) * self.length]

    def rows(self, low: int, high: int, edges: Edges) -> Any:
        """The node of these rows."""
        if self.row is None:
            return narrowed(self.place.node, low, high, edges)
        return block_part(self.place.node, (self.row, self.row + 1), (low, high), edges)

    def lane(self, itemsize: int) -> Lane | None:
        """Where they lie in data, None for what is no array of items of that size."""
        array = self.array
        data = None if array is None else data_of_array(array)
        if array is None or data is None or not itemsize:
            return None
        if self.row is None or len(array.shape) == 1:
            return Lane(self.place.parts, data, 0, itemsize, 0, itemsize, self.length)
        if array.order == "C":
            base = self.row * self.length * itemsize
            return Lane(self.place.parts, data, base, itemsize, 0, itemsize, self.length)
        width = array.shape[0] * itemsize
        return Lane(self.place.parts, data, 0, width, self.row * itemsize, itemsize, self.length)


def data_of_array(array: ArraySymbols) -> Slot | bytes | None:
    """The bytes of an array; None of one of objects."""
    if isinstance(array.items, Slot):
        return array.items
    if array.items is None:
        data = array.node.args[0] if array.node.args else b""
        return bytes(data) if isinstance(data, (bytes, bytearray)) else b""
    return None


class Windows:
    """Columns of any type, compared a window of rows at a time: those are loaded of both sides."""

    def __init__(self, left: Column, right: Column) -> None:
        self._sides = left, right
        self._count = min(left.length, right.length)
        self._front: list[tuple[int, int]] = []
        self._back: list[tuple[int, int]] = []
        self._changed = 0
        self.failed = False

    def jobs(self) -> Iterator[Job]:
        """All rows that both have."""
        return self._jobs(False)

    def more(self) -> Iterator[Job]:
        """As ``Columns.more``."""
        left, right = self._sides
        if self.failed or left.length == right.length or not self._changed:
            return iter(())
        return self._jobs(True)

    def _jobs(self, is_back: bool) -> Iterator[Job]:
        count = self._count
        row = max(sum(side.nbytes // max(side.length, 1) for side in self._sides), 1)
        step = max(BLOCK // WINDOWS // row, 1) if all(map(_is_divided, self._sides)) else max(count, 1)
        for low in range(0, count, step):
            yield self._job(low, min(low + step, count), is_back, row)

    def _job(self, low: int, high: int, is_back: bool, row: int) -> Job:
        def plan(edges: Edges, side: int) -> list[Any]:
            column = self._sides[side]
            more = column.length - self._count if is_back else 0
            return [column.rows(low + more, high + more, edges)]

        def take(ours: list[Any], theirs: list[Any]) -> None:
            differ = unequal_objects(ours[0], theirs[0])
            numbers = differ.nonzero()[0]
            if len(numbers):
                found = self._back if is_back else self._front
                found.append((low + int(numbers[0]), low + int(numbers[-1])))
                self._changed += 0 if is_back else len(numbers)

        left, right = self._sides
        return Job(left.place.parts, right.place.parts, plan, (high - low) * row, take, self._fail)

    def _fail(self) -> None:
        self.failed = True

    @property
    def rows(self) -> int | None:
        """Rows that changed."""
        if self.failed:
            return None
        if self._sides[0].length != self._sides[1].length and self._front:
            first = min(low for low, _ in self._front)
            last = max((high for _, high in self._back), default=-1)
            if first + self._count - 1 - last >= self._count:
                return 0
        return self._changed

    @property
    def nbytes(self) -> int | None:
        """Bytes of what changed, by the mean of a row, and of the rows that one side has more."""
        if self.failed:
            return None
        longer = max(self._sides, key=lambda side: side.length)
        more = abs(self._sides[0].length - self._sides[1].length)
        return -(-longer.nbytes * ((self.rows or 0) + more) // max(longer.length, 1))


def _is_divided(column: Column) -> bool:
    """Whether half of the rows need hardly more than half of the bytes."""
    if column.length < 2:
        return True
    half = column.rows(0, column.length // 2, Edges())
    return sum(map(len, slots_of(half))) <= column.nbytes * 3 // 4


class Listed:
    """Objects compared one by one, by their symbols: nothing is read."""

    def __init__(self, left: Place, ours: Sequence[Any], right: Place, theirs: Sequence[Any]) -> None:
        mine, its = ([token(place.parts, item) for item in items] for place, items in ((left, ours), (right, theirs)))
        self.rows: int | None = sum(a != b for a, b in zip(mine, its, strict=False))
        self.nbytes: int | None = None
        if self.rows and len(mine) != len(its):
            count = min(len(mine), len(its))
            first = next(at for at in range(count) if mine[at] != its[at])
            last = next((at for at in range(count) if mine[-1 - at] != its[-1 - at]), count)
            if first + last >= count:
                self.rows = 0
        if not self.rows and len(mine) == len(its):
            self.nbytes = 0

    def jobs(self) -> Iterator[Job]:
        """Nothing."""
        return iter(())

    def more(self) -> Iterator[Job]:
        """Nothing."""
        return iter(())


def column_of(place: Place, row: int | None = None) -> Column | None:
    """The column of a node; None for one whose length is not known."""
    length = length_of(place.node)
    return None if length is None else Column(place, row, length)


def dtype_node(node: Any) -> Any:
    """The node that says of what type a column's values are; None where none does."""
    if (array := array_of(node)) is not None:
        return array.dtype
    if type(node) is not Made:
        return None
    state = node.state
    if isinstance(state, dict):
        return state.get("_dtype")
    if isinstance(state, tuple):
        return next((part for part in state if "dtype" in called(part).lower()), None)
    return None


def index_name(node: Any) -> Any:
    """What an index of pandas is called; None for none."""
    return node.args[1].get("name") if _is_index(node) else None


def is_range(node: Any) -> bool:
    """Whether an index is a range of numbers."""
    return _is_index(node) and {"start", "stop"} <= node.args[1].keys()


def _is_index(node: Any) -> bool:
    return type(node) is Made and len(node.args) == 2 and isinstance(node.args[1], dict)
