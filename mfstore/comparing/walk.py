"""Two trees of symbols side by side: what was added, removed and changed, and what has to be read to know more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from mfstore.comparing.columns import (
    Column,
    Listed,
    Windows,
    column_of,
    data_of_array,
    index_name,
    is_range,
)
from mfstore.comparing.jobs import Task, run
from mfstore.comparing.lanes import Columns, Lane, Pair
from mfstore.comparing.report import ADDED, CHANGED, REMOVED, Difference, Side
from mfstore.comparing.sameness import Place, by_name, rest_of, same, same_plain
from mfstore.comparing.sides import Sides
from mfstore.comparing.stretches import Stretch
from mfstore.comparing.tensors import SparsePair, TensorPair, pair_of
from mfstore.errors import NotLoadable
from mfstore.pickling.symbols import Made, Slot
from mfstore.records import NamedTuple
from mfstore.views.arrays import ArraySymbols, array_of
from mfstore.views.arrow import ArrowSymbols, arrow_array, arrow_table, chunked_array
from mfstore.views.columns import length_of
from mfstore.views.data import (
    MAPPING,
    OBJECT,
    SEQUENCE,
    VALUE,
    entries_of,
    is_plain,
    kind_of,
    shape_of,
    type_of,
)
from mfstore.views.frames import FrameColumns, frame_of, series_of
from mfstore.views.parts import Opaque

if TYPE_CHECKING:
    from mfstore.views.frames import FrameSymbols
    from mfstore.views.parts import ArtifactParts

INDEX = "(index)"
"""What the index of a frame or a series is called in a path."""


class Whole(NamedTuple):
    """An artifact, before its symbols are read."""

    parts: ArtifactParts
    type: str
    """As its recipe tells it."""

    @property
    def content(self) -> Any:
        """What makes it the same as another one, whatever they are called."""
        return self.parts.artifact._replace(name="")


class Path(NamedTuple):
    """Where a part is: its name within what it is a part of."""

    above: Path | None
    name: str | int

    def names(self) -> tuple[str | int, ...]:
        """All of them, the outermost first."""
        found: list[str | int] = []
        path: Path | None = self
        while path is not None:
            found.append(path.name)
            path = path.above
        return tuple(reversed(found))


class _Found:
    """A difference, or what may be one and is not read yet."""

    def __init__(
        self, path: Path | None, change: str, old: Side | None, new: Side | None, task: Task | None = None,
        certain: bool = True, nbytes: int | None = None,
    ) -> None:  # fmt: skip
        self.path = path
        self.change = change
        self.old = old
        self.new = new
        self.task = task
        self.certain = certain
        """Whether it is one whatever the task finds."""
        self.nbytes = nbytes

    def entry(self) -> Difference | None:
        """The difference; None where there is none."""
        rows = None if self.task is None else self.task.rows
        nbytes = self.nbytes if self.task is None else self.task.nbytes
        if not self.certain and (nbytes if rows is None else rows) == 0:
            return None
        names = () if self.path is None else self.path.names()
        return Difference(names, self.change, self.old, self.new, rows, nbytes)


Work = tuple["Path | None", "Place | Whole | None", "Place | Whole | None"]


class Comparison:
    """Compares parts, and what is in them. ``loaded`` is called with the bytes that were loaded."""

    def __init__(self, loaded: Callable[[int], None]) -> None:
        self._loaded = loaded
        self.same = 0
        self._found: list[_Found] = []
        self._seen: set[tuple[int, int]] = set()
        self._sides = Sides()
        self._kept: list[Any] = []
        """What is told apart by its ``id``, and so stays."""

    def compare(self, work: Sequence[Work]) -> tuple[Difference, ...]:
        """What differs, in order. CorruptObject, and what else reading raises."""
        # A stack of its own: what is nested deeply does not run out of Python's.
        stack = list(reversed(work))
        while stack:
            stack += reversed(list(self._step(*stack.pop())))
        run([found.task for found in self._found if found.task is not None], self._loaded)
        entries = [found.entry() for found in self._found]
        self.same += sum(entry is None for entry in entries)
        return tuple(entry for entry in entries if entry is not None)

    def _step(self, path: Path | None, left: Place | Whole | None, right: Place | Whole | None) -> Iterator[Work]:
        if isinstance(left, Whole) and isinstance(right, Whole) and left.content == right.content:
            self.same += 1
            return
        sides = [one if one is None or isinstance(one, Place) else Place(one.parts, one.parts.root)
                 for one in (left, right)]  # fmt: skip
        opaque = [one for one in sides if one is not None and isinstance(one.node, Opaque)]
        if left is None or right is None or opaque:
            told = [self._told(place, one) for place, one in zip(sides, (left, right), strict=True)]
            change = ADDED if left is None else REMOVED if right is None else CHANGED
            only = told[0] or told[1] if change != CHANGED else None
            self._found.append(_Found(path, change, told[0], told[1], nbytes=only and only.nbytes))
            return
        assert sides[0] is not None and sides[1] is not None
        yield from self._pair(path, sides[0], sides[1])

    def _told(self, place: Place | None, given: Place | Whole | None) -> Side | None:
        if place is None:
            return None
        if isinstance(given, Whole) and isinstance(place.node, Opaque):
            return Side(given.type, nbytes=given.parts.artifact.size)
        return self._sides.side(place)

    def _pair(self, path: Path | None, left: Place, right: Place) -> Iterator[Work]:
        a, b = left.node, right.node
        if is_plain(a) and is_plain(b):
            if same_plain(a, b):
                self.same += 1
            elif type(a) is type(b) and isinstance(a, (str, bytes)):
                self._changed(path, left, right, Stretch(left, right))
            else:
                self._changed(path, left, right)
            return
        kind, other_kind = kind_of(a), kind_of(b)
        alike = type_of(a) == type_of(b)
        if alike and _is_empty(a):
            kind = other_kind
        if alike and _is_empty(b):
            other_kind = kind
        if not alike or kind != other_kind:
            if kind == other_kind and kind in (MAPPING, SEQUENCE):
                self._changed(path, left, right)
                yield from self._parts(path, left, right, kind)
            elif not same(left, right):
                self._changed(path, left, right)
            return
        if type_of(a) in ("str", "bytes", "bytearray"):
            if same(left, right):
                self.same += 1
            else:
                self._changed(path, left, right, Stretch(left, right), certain=False)
            return
        if isinstance(a, Made) and isinstance(b, Made):
            if (frame := frame_of(a)) is not None and (other := frame_of(b)) is not None:
                yield from self._frames(path, left, frame, right, other)
                return
            if arrow_table(a) is not None and arrow_table(b) is not None:
                yield from self._tables(path, left, right)
                return
            if shape_of(a) is not None and shape_of(b) is not None:
                yield from self._arrays(path, left, right)
                return
        if kind in (MAPPING, SEQUENCE, OBJECT):
            yield from self._parts(path, left, right, kind)
        elif same(left, right):
            self.same += 1
        else:
            yield from self._arguments(path, left, right)

    def _arguments(self, path: Path | None, left: Place, right: Place) -> Iterator[Work]:
        """What a function makes: where only things with parts differ, that it is made of, those are what differs."""
        pairs = _made_of(left, right)
        if pairs:
            for ours, theirs in pairs:
                yield path, ours, theirs
        else:
            self._changed(path, left, right)

    # ---- containers -------------------------------------------------------------------

    def _parts(self, path: Path | None, left: Place, right: Place, kind: str) -> Iterator[Work]:
        a, b = left.node, right.node
        if (id(a), id(b)) in self._seen:
            return
        self._seen.add((id(a), id(b)))
        self._kept += (a, b)
        if type(a) is Made and type(b) is Made and type_of(a) == type_of(b):
            rests = rest_of(a), rest_of(b)
            self._kept += rests
            if not same(left.of(rests[0]), right.of(rests[1])):
                self._changed(path, left, right)
        if kind == SEQUENCE:
            yield from self._items(path, left, right)
            return
        ours = by_name(left.parts, zip(*entries_of(a), strict=True))
        theirs = by_name(right.parts, zip(*entries_of(b), strict=True))
        if not ours and not theirs:
            self.same += 1
        for name, (shown, node) in ours.items():
            other = theirs.get(name)
            where = Path(path, self._sides.name(left, shown))
            yield where, left.of(node), None if other is None else right.of(other[1])
        for name, (shown, node) in theirs.items():
            if name not in ours:
                yield Path(path, self._sides.name(right, shown)), None, right.of(node)

    def _items(self, path: Path | None, left: Place, right: Place) -> Iterator[Work]:
        ours, theirs = list(entries_of(left.node).nodes), list(entries_of(right.node).nodes)
        if all(map(is_plain, ours)) and all(map(is_plain, theirs)):
            task = Listed(left, ours, right, theirs)
            if task.rows or len(ours) != len(theirs):
                self._changed(path, left, right, task)
            else:
                self.same += 1
            return
        first = last = 0
        shorter = min(len(ours), len(theirs))
        if len(ours) != len(theirs):
            while first < shorter and same(left.of(ours[first]), right.of(theirs[first])):
                first += 1
            while last < shorter - first and same(left.of(ours[-1 - last]), right.of(theirs[-1 - last])):
                last += 1
            self.same += first + last
        count = shorter - first - last
        for at in range(first, first + count):
            yield Path(path, at), left.of(ours[at]), right.of(theirs[at])
        for at in range(first + count, len(ours) - last):
            yield Path(path, at), left.of(ours[at]), None
        for at in range(first + count, len(theirs) - last):
            yield Path(path, at), None, right.of(theirs[at])

    # ---- data -------------------------------------------------------------------------

    def _arrays(self, path: Path | None, left: Place, right: Place) -> Iterator[Work]:
        if same(left, right):
            self.same += 1
            return
        a, b = left.node, right.node
        ours, theirs = self._sides.side(left), self._sides.side(right)
        if ours.dtype != theirs.dtype:
            self._found.append(_Found(path, CHANGED, ours, theirs, nbytes=theirs.nbytes))
            return
        if (pair := pair_of(left, right)) is not None:
            yield from self._tensors(path, pair, (ours, theirs))
            return
        series = series_of(a), series_of(b)
        if series[0] is not None and series[1] is not None:
            places = left.of(series[0].values), right.of(series[1].values)
            task = self._column_task(column_of(places[0]), column_of(places[1]))
            self._found.append(_Found(path, CHANGED, ours, theirs, task, ours.shape != theirs.shape or task is None))
            self._index(path, left.of(series[0].index), right.of(series[1].index))
            for name in ("_name", "attrs"):
                states = a.state.get(name), b.state.get(name)
                if not same(left.of(states[0]), right.of(states[1])):
                    yield Path(path, f"({name.strip('_')})"), left.of(states[0]), right.of(states[1])
            return
        task = self._array_task(left, right)
        certain = ours.shape != theirs.shape or task is None
        self._found.append(_Found(path, CHANGED, ours, theirs, task, certain))

    def _tensors(self, path: Path | None, pair: TensorPair | SparsePair, sides: tuple[Side, Side]) -> Iterator[Work]:
        changed_shape = sides[0].shape != sides[1].shape
        parts = list(pair.parts())
        if pair.is_told_apart:
            self._found.append(_Found(path, CHANGED, *sides))
        elif isinstance(pair, TensorPair) and (changed_shape or not pair.has_same_elements):
            task = pair.task()
            self._found.append(_Found(path, CHANGED, *sides, task, changed_shape or task is None))
        elif not parts:
            self.same += 1
        for name, left, right in parts:
            yield Path(path, f"({name})") if name else path, left, right

    def _array_task(self, left: Place, right: Place) -> Task | None:
        arrays = array_of(left.node), array_of(right.node)
        if arrays[0] is not None and arrays[1] is not None:
            return self._numpy_task(left, arrays[0], right, arrays[1])
        columns = column_of(left), column_of(right)
        if columns[0] is not None and columns[1] is not None and _is_arrow(left.node) and _is_arrow(right.node):
            return Windows(columns[0], columns[1])
        return None

    def _numpy_task(self, left: Place, ours: ArraySymbols, right: Place, theirs: ArraySymbols) -> Task | None:
        if ours.shape[1:] != theirs.shape[1:] or len(ours.shape) != len(theirs.shape):
            return None
        if isinstance(ours.items, list) and isinstance(theirs.items, list):
            width = prod(ours.shape[1:])
            return Listed(left, _in_rows(ours.items, width), right, _in_rows(theirs.items, width))
        dtype = self._sides.dtype(left, ours.dtype)
        data = data_of_array(ours), data_of_array(theirs)
        if dtype is None or dtype.itemsize == 0 or data[0] is None or data[1] is None:
            return None
        if "F" in (ours.order, theirs.order) and len(ours.shape) > 2:
            # Rows of these lie nowhere in one piece: compared as they lie, if both lie alike.
            if ours.order != theirs.order or ours.shape != theirs.shape:
                return None
            lanes = _flat_lane(left, data[0], dtype), _flat_lane(right, data[1], dtype)
            return Columns([Pair(*lanes)], dtype)
        if "F" in (ours.order, theirs.order) and len(ours.shape) == 2:
            pairs = [
                Pair(_strip(left, ours, data[0], at, dtype), _strip(right, theirs, data[1], at, dtype))
                for at in range(ours.shape[1])
            ]
            return Columns(pairs, dtype, joined=True) if pairs else None
        return Columns([Pair(_rows(left, ours, data[0], dtype), _rows(right, theirs, data[1], dtype))], dtype)

    def _column_task(self, left: Column | None, right: Column | None) -> Task | None:
        if left is None or right is None:
            return None
        ours, theirs = left.items, right.items
        if ours is not None and theirs is not None:
            return Listed(left.place, ours, right.place, theirs)
        arrays = left.array, right.array
        if arrays[0] is not None and arrays[1] is not None and ours is None and theirs is None:
            dtype = self._sides.dtype(left.place, arrays[0].dtype)
            lanes = None if dtype is None else (left.lane(dtype.itemsize), right.lane(dtype.itemsize))
            if lanes and lanes[0] is not None and lanes[1] is not None:
                return Columns([Pair(lanes[0], lanes[1])], dtype)
        return Windows(left, right)

    # ---- tables -----------------------------------------------------------------------

    def _frames(
        self, path: Path | None, left: Place, ours: FrameSymbols, right: Place, theirs: FrameSymbols
    ) -> Iterator[Work]:
        if same(left, right):
            self.same += 1
            return
        try:
            sides = [FrameColumns(frame, place.parts.objects) for frame, place in ((ours, left), (theirs, right))]
        except NotLoadable:  # pandas is missing here, or a class of the names
            self._changed(path, left, right)
            return
        columns = [
            _frame_columns(place, frame, made)
            for place, frame, made in zip((left, right), (ours, theirs), sides, strict=True)
        ]
        self._table(path, left, columns[0], right, columns[1])
        self._index(path, left.of(ours.index), right.of(theirs.index))
        attrs = left.node.state.get("attrs"), right.node.state.get("attrs")
        if not same(left.of(attrs[0]), right.of(attrs[1])):
            yield Path(path, "(attrs)"), left.of(attrs[0]), right.of(attrs[1])

    def _tables(self, path: Path | None, left: Place, right: Place) -> Iterator[Work]:
        if same(left, right):
            self.same += 1
            return
        columns = []
        for place in (left, right):
            table = arrow_table(place.node)
            assert table is not None
            names = _numbered(table.names)
            columns.append(
                {name: column_of(place.of(node)) for name, node in zip(names, table.columns, strict=True)}
            )  # fmt: skip
        self._table(path, left, columns[0], right, columns[1])
        yield from ()

    def _table(
        self, path: Path | None, left: Place, ours: dict[Any, Column | None], right: Place,
        theirs: dict[Any, Column | None],
    ) -> None:  # fmt: skip
        sides = self._sides.side(left), self._sides.side(right)
        lengths = [side.shape[0] if side.shape else None for side in sides]
        if lengths[0] != lengths[1]:
            more = abs(sides[0].nbytes - sides[1].nbytes) if len(ours) == len(theirs) else None
            self._found.append(_Found(path, CHANGED, *sides, nbytes=more))
        grouped: dict[Any, list[tuple[_Found, Columns]]] = {}
        for name, column in ours.items():
            where = Path(path, name[0] if name[1] == 0 else f"{name[0]}#{name[1] + 1}")
            told = self._sides.column(left, column)
            if name not in theirs:
                self._found.append(_Found(where, REMOVED, told, None, nbytes=told.nbytes))
                continue
            other = theirs[name]
            new = self._sides.column(right, other)
            if told.dtype != new.dtype or told.type != new.type or column is None or other is None:
                self._found.append(_Found(where, CHANGED, told, new, nbytes=new.nbytes))
                continue
            task = self._column_task(column, other)
            found = _Found(where, CHANGED, told, new, task, task is None)
            self._found.append(found)
            if isinstance(task, Columns) and task.strides is not None:
                grouped.setdefault(task.strides, []).append((found, task))
        for members in grouped.values():
            # What lies in between each other is read once for all of them.
            block = Columns([pair for _, task in members for pair in task.pairs], members[0][1].dtype)
            for number, (found, _) in enumerate(members):
                found.task = _OneOf(block, number)
        for name, column in theirs.items():
            if name not in ours:
                told = self._sides.column(right, column)
                where = Path(path, name[0] if name[1] == 0 else f"{name[0]}#{name[1] + 1}")
                self._found.append(_Found(where, ADDED, None, told, nbytes=told.nbytes))

    def _index(self, path: Path | None, left: Place, right: Place) -> None:
        if same(left, right):
            return
        where = Path(path, INDEX)
        names = index_name(left.node), index_name(right.node)
        if not same(left.of(names[0]), right.of(names[1])):
            self._changed(Path(where, "name"), left.of(names[0]), right.of(names[1]))
        ranges = [is_range(place.node) for place in (left, right)]
        if all(ranges):
            begins = [{**place.node.args[1], "stop": 0, "name": None} for place in (left, right)]
            if not same(left.of(begins[0]), right.of(begins[1])):
                self._changed(where, left, right)
            return
        columns = column_of(left), column_of(right)
        sides = self._sides.side(left), self._sides.side(right)
        if sides[0].type != sides[1].type or columns[0] is None or columns[1] is None:
            self._changed(where, left, right)
            return
        self._found.append(_Found(where, CHANGED, *sides, Windows(columns[0], columns[1]), False))

    def _changed(
        self, path: Path | None, left: Place, right: Place, task: Task | None = None, certain: bool = True
    ) -> None:
        self._found.append(_Found(path, CHANGED, self._sides.side(left), self._sides.side(right), task, certain))


class _OneOf:
    """One of the columns that are read together."""

    def __init__(self, block: Columns, number: int) -> None:
        self._block = block
        self._number = number

    def jobs(self) -> Any:
        """Those of all columns, once."""
        return self._block.jobs() if self._number == 0 else ()

    def more(self) -> Any:
        """As ``jobs``."""
        return self._block.more() if self._number == 0 else ()

    @property
    def rows(self) -> int | None:
        """Rows that changed."""
        return self._block.rows_of(self._number)

    @property
    def nbytes(self) -> int | None:
        """Bytes of what changed."""
        return self._block.bytes_of(self._number)


def _made_of(left: Place, right: Place) -> list[tuple[Place, Place]]:
    """The arguments that differ, if nothing else does and each has parts, or is data."""
    a, b = left.node, right.node
    if type(a) is not Made or type(b) is not Made or len(a.args) != len(b.args):
        return []
    ours, theirs = ((node.function, node.keywords, node.new, node.steps) for node in (a, b))
    if not same(left.of(ours), right.of(theirs)):
        return []
    pairs = [(left.of(mine), right.of(its)) for mine, its in zip(a.args, b.args, strict=True)]
    pairs = [pair for pair in pairs if not same(*pair)]
    return pairs if all(_has_parts(one.node) for pair in pairs for one in pair) else []


def _has_parts(node: Any) -> bool:
    return isinstance(node, (dict, list, Made)) and kind_of(node) != VALUE


def _is_empty(node: Any) -> bool:
    """Whether it may be a container of which symbols do not tell that it is one: there is nothing in it."""
    return isinstance(node, Made) and not node.steps and kind_of(node) == VALUE


def _is_arrow(node: Any) -> bool:
    return chunked_array(node) is not None or isinstance(arrow_array(node), ArrowSymbols)


def _in_rows(items: list[Any], width: int) -> list[Any]:
    """Objects of an array, those of a row together."""
    if width == 1:
        return items
    return [tuple(items[at : at + width]) for at in range(0, len(items), max(width, 1))]


def _numbered(names: Sequence[Any]) -> list[tuple[Any, int]]:
    """Names with a number, which tells those that are there several times apart."""
    counts: dict[Any, int] = {}
    found = []
    for name in names:
        shown = name if isinstance(name, str) or type(name) is int else repr(name)
        found.append((shown, counts.get(shown, 0)))
        counts[shown] = counts.get(shown, 0) + 1
    return found


def _frame_columns(place: Place, frame: FrameSymbols, made: FrameColumns) -> dict[Any, Column | None]:
    where = {column: (number, row) for number, rows in enumerate(made.places) for row, column in enumerate(rows)}
    found: dict[Any, Column | None] = {}
    for position, name in enumerate(_numbered(list(made.names))):
        number, row = where[position]
        values = place.of(frame.blocks[number].args[0])
        length = frame.length if (length := length_of(values.node)) is None else length
        found[name] = None if length is None else Column(values, row, length)
    return found


def _flat_lane(place: Place, data: Slot | bytes, dtype: Any) -> Lane:
    """All items of an array, in the order in which they lie."""
    size = dtype.itemsize
    return Lane(place.parts, data, 0, size, 0, size, len(data) // size)


def _rows(place: Place, array: ArraySymbols, data: Slot | bytes, dtype: Any) -> Lane:
    """The rows of an array in order "C"; the one item of an array without axes."""
    count = array.shape[0] if array.shape else 1
    width = len(data) // count if count else 0
    return Lane(place.parts, data, 0, width, 0, width, count if width else 0)


def _strip(place: Place, array: ArraySymbols, data: Slot | bytes, at: int, dtype: Any) -> Lane:
    """A column of an array of two axes."""
    (rows, width), size = array.shape, dtype.itemsize
    if array.order == "F":
        return Lane(place.parts, data, at * rows * size, size, 0, size, rows)
    return Lane(place.parts, data, 0, width * size, at * size, size, rows)
