"""Frames and series of pandas by their symbols: some columns, some rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mfstore.pickling.symbols import STATE, Made, Step, call, called
from mfstore.records import NamedTuple
from mfstore.views.arrays import array_of, is_number
from mfstore.views.arrow import Edges
from mfstore.views.columns import block_part, length_of, narrowed

_FRAMES = ("pandas.DataFrame", "pandas.core.frame.DataFrame")
_SERIES = ("pandas.Series", "pandas.core.series.Series")
_MANAGERS = ("pandas.core.internals.managers.BlockManager", "pandas._libs.internals.BlockManager")
_SERIES_FORM = "0.14.1"
"""Under which key the state of a series has what it is made of."""


class FrameSymbols(NamedTuple):
    """A frame as its blocks: each has the values of some columns, one row for each."""

    node: Made
    blocks: tuple[Made, ...]
    columns: Any
    index: Any

    @property
    def length(self) -> int | None:
        """Rows, None where symbols do not tell."""
        lengths = [length_of(block.args[0]) for block in self.blocks]
        return next((length for length in [*lengths, length_of(self.index)] if length is not None), None)

    @property
    def is_strided(self) -> bool:
        """Whether columns lie in between each other, so that one of them costs what all of its block cost."""
        arrays = [array_of(block.args[0]) for block in self.blocks]
        return any(array is not None and array.order == "F" for array in arrays)

    def describe(self) -> tuple[str, ...]:
        """What to know of it before parts of it are loaded, in sentences."""
        if self.is_strided:
            return ("Its columns lie in between each other: one takes as much to load as all of its block.",)
        return ()

    def names_and_types(self) -> list[Any]:
        """The nodes that tell of columns: their names, and of each block its places and the type of its numbers."""
        return [
            self.columns,
            *[block.args[1] for block in self.blocks],
            *[array.dtype for block in self.blocks if (array := array_of(block.args[0])) is not None],
        ]

    def chosen(
        self, places: Sequence[Sequence[int]], positions: Sequence[int] | None, rows: tuple[int, int] | None,
        edges: Edges,
    ) -> Made:  # fmt: skip
        """The frame of the columns at these positions, and of these rows; None: all of them. ``places`` are the
        columns that each block has the values of."""
        columns, index = self.columns, self.index
        if positions is not None:
            columns = Made(call("operator", "methodcaller", "take", list(positions)), (columns,))
            blocks = self._blocks_of(places, positions, rows, edges)
        else:
            blocks = [
                Made(block.function, (block_part(block.args[0], None, rows, edges), *block.args[1:]))
                for block in self.blocks
            ]
        if rows is not None:
            index = narrowed(index, *rows, edges)
        manager = self.node.state["_mgr"]
        state = self.node.state | {"_mgr": Made(manager.function, (tuple(blocks), [columns, index]))}
        return Made(self.node.function, self.node.args, self.node.keywords, True, [Step(STATE, state)])

    def _blocks_of(
        self, places: Sequence[Sequence[int]], positions: Sequence[int], rows: tuple[int, int] | None, edges: Edges
    ) -> list[Made]:
        """Blocks of the columns at these positions: what lies side by side stays together."""
        where = {column: (number, row) for number, place in enumerate(places) for row, column in enumerate(place)}
        runs: list[_Run] = []
        for at, column in enumerate(positions):
            number, row = where[column]
            if runs and runs[-1].block == number and runs[-1].row + runs[-1].length == row:
                runs[-1] = runs[-1]._replace(length=runs[-1].length + 1)
            else:
                runs.append(_Run(number, row, at, 1))
        made = []
        for number, row, at, count in runs:
            values, _, *rest = self.blocks[number].args
            part = block_part(values, (row, row + count), rows, edges)
            made.append(Made(self.blocks[number].function, (part, slice(at, at + count, 1), *rest)))
        return made


class _Run(NamedTuple):
    """Columns that lie side by side in a block, and come side by side."""

    block: int
    row: int
    """The first one's, in the block."""
    at: int
    """The first one's position in what is made."""
    length: int


def frame_of(node: Any) -> FrameSymbols | None:
    """What a frame is made of; None for what is none, or one of a subclass."""
    if called(node) not in _FRAMES or not node.new or not isinstance(state := node.state, dict):
        return None
    manager: Any = state.get("_mgr")
    if called(manager) not in _MANAGERS or len(manager.args) != 2:
        return None
    blocks, axes = manager.args
    if not isinstance(blocks, tuple) or not all(called(block).endswith("._unpickle_block") for block in blocks):
        return None
    return FrameSymbols(node, blocks, *axes) if len(axes) == 2 else None


class SeriesSymbols(NamedTuple):
    """A series as its values and its index."""

    node: Made
    values: Any
    index: Any

    @property
    def length(self) -> int | None:
        """Rows, None where symbols do not tell."""
        found = length_of(self.values)
        return length_of(self.index) if found is None else found

    def rows(self, start: int, stop: int, edges: Edges) -> Made:
        """Rows ``start`` to before ``stop``."""
        values, index = narrowed(self.values, start, stop, edges), narrowed(self.index, start, stop, edges)
        block = {"values": values, "mgr_locs": slice(0, stop - start, 1)}
        form = {_SERIES_FORM: {"axes": [index], "blocks": [block]}}
        manager = self.node.state["_mgr"]
        made = Made(manager.function, manager.args, new=True, steps=[Step(STATE, ([index], [values], [index], form))])
        state = self.node.state | {"_mgr": made}
        return Made(self.node.function, self.node.args, self.node.keywords, True, [Step(STATE, state)])


def series_of(node: Any) -> SeriesSymbols | None:
    """What a series is made of; None for what is none, or one of a subclass."""
    if called(node) not in _SERIES or not node.new or not isinstance(state := node.state, dict):
        return None
    manager: Any = state.get("_mgr")
    held = manager.state if called(manager).endswith(".SingleBlockManager") else None
    if not isinstance(held, tuple) or len(held) != 4 or _SERIES_FORM not in held[3]:
        return None
    made_of = held[3][_SERIES_FORM]
    return SeriesSymbols(node, made_of["blocks"][0]["values"], made_of["axes"][0])


class FrameColumns:
    """The names and places of a frame's columns, made when they are first asked for."""

    def __init__(self, frame: FrameSymbols, objects: Callable[[Sequence[Any]], list[Any]]) -> None:
        index, *places = objects([frame.columns, *[block.args[1] for block in frame.blocks]])
        self.names: Any = index
        """The index of pandas that names them."""
        self.places: list[list[int]] = [
            list(range(len(index))[place]) if isinstance(place, slice) else [int(at) for at in place]
            for place in places
        ]

    def positions(self, names: Sequence[Any]) -> list[int]:
        """Where the columns of these names are. KeyError, with what is not there."""
        return [at for name in names for at in self.of(name)]

    def of(self, name: Any) -> list[int]:
        """Where the columns of that name are: mostly one. KeyError where there is none."""
        from pandas.errors import InvalidIndexError

        try:
            place = self.names.get_loc(name)
        except InvalidIndexError:
            raise KeyError(name) from None
        if is_number(place):
            return [int(place)]
        every = range(len(self.names))
        return list(every[place]) if isinstance(place, slice) else [at for at in every if place[at]]


def rows_of_labels(labels: Any, rows: slice) -> slice:
    """Which rows a slice of labels takes, as pandas understands it. What pandas raises for one that it refuses."""
    import pandas as pd

    numbers = pd.Series(range(len(labels)), index=labels)[rows].to_numpy()
    if not len(numbers):
        return slice(0, 0)
    first, last = int(numbers[0]), int(numbers[-1])
    step = int(numbers[1]) - first if len(numbers) > 1 else 1
    end = last + (1 if step > 0 else -1)
    return slice(first, None if end < 0 else end, step)
