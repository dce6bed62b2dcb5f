"""Columns and indexes of pandas by their symbols: how long they are, and rows of them."""

from __future__ import annotations

from typing import Any

from mfstore.pickling.symbols import STATE, Made, Step, call, called, item_of
from mfstore.views.arrays import ArraySymbols, array_of
from mfstore.views.arrow import Edges, arrow_array, chunked_array, narrowed_arrow

_BACKED = "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked"
_OF_ARROW = ("_pa_array",)
_MASKED = ("_data", "_mask")
_NEW_INDEX = (
    "pandas.core.indexes.base._new_Index", "pandas.core.indexes.datetimes._new_DatetimeIndex",
    "pandas.core.indexes.interval._new_IntervalIndex", "pandas.core.indexes.period._new_PeriodIndex",
)  # fmt: skip


def length_of(node: Any) -> int | None:
    """How many items an array, a column or an index has along its last axis; None where symbols do not tell."""
    if (array := array_of(node)) is not None:
        return array.shape[-1] if array.shape else None
    if (arrow := chunked_array(node) or arrow_array(node)) is not None:
        return arrow.length
    if called(node) == _BACKED:
        backing = _backing(node)
        return None if backing is None else length_of(node.state[backing])
    if called(node) in _NEW_INDEX and len(node.args) == 2:
        return _length_of_index(*node.args)
    if type(node) is Made and isinstance(state := node.state, dict):
        parts = [state[name] for name in (*_OF_ARROW, *_MASKED) if name in state]
        return length_of(parts[0]) if parts else None
    return None


def _length_of_index(kind: Any, made_of: Any) -> int | None:
    if "start" in made_of and "stop" in made_of:
        return len(range(made_of["start"], made_of["stop"], made_of.get("step") or 1))
    if "codes" in made_of:
        return length_of(made_of["codes"][0]) if made_of["codes"] else None
    return length_of(made_of["data"] if "data" in made_of else made_of.get("left"))


def narrowed(node: Any, start: int, stop: int, edges: Edges) -> Any:
    """Items ``start`` to before ``stop`` along the last axis of an array, a column or an index: of the ones that are
    known here only the bytes of these are read, others are made whole and cut."""
    whole = length_of(node)
    if whole is not None and (start, stop) == (0, whole):
        return node
    if (array := array_of(node)) is not None:
        return _narrowed_array(array, start, stop)
    if chunked_array(node) is not None or arrow_array(node) is not None:
        return narrowed_arrow(node, start, stop, edges)
    if called(node) == _BACKED and (backing := _backing(node)) is not None:
        state = list(node.state)
        state[backing] = narrowed(state[backing], start, stop, edges)
        return Made(node.function, node.args, steps=[Step(STATE, tuple(state))])
    if called(node) in _NEW_INDEX and len(node.args) == 2 and "data" in node.args[1]:
        kind, made_of = node.args
        return Made(node.function, (kind, made_of | {"data": narrowed(made_of["data"], start, stop, edges)}))
    if type(node) is Made and node.new and isinstance(state := node.state, dict):
        for names in (_OF_ARROW, _MASKED):
            if all(length_of(state.get(name)) is not None for name in names):
                parts = {name: narrowed(state[name], start, stop, edges) for name in names}
                return Made(node.function, node.args, node.keywords, True, [Step(STATE, state | parts)])
    return item_of(node, (..., slice(start, stop)) if _is_table(node) else slice(start, stop))


def _narrowed_array(array: ArraySymbols, start: int, stop: int) -> Made:
    """As ``narrowed``. Of an array with several rows in order "C", each row by itself."""
    if len(array.shape) == 1 or array.order == "F":
        return array.rows(start, stop)
    rows, count = array.shape[0], array.shape[-1]
    if len(array.shape) > 2 or start >= stop or array.items is None:
        return item_of(array.node, (..., slice(start, stop)))
    flat = array._replace(shape=(rows * count,))
    parts = [flat.rows(row * count + start, row * count + stop) for row in range(rows)]
    joined = parts[0] if rows == 1 else call("numpy", "concatenate", parts)
    return Made(call("operator", "methodcaller", "reshape", (rows, stop - start)), (joined,))


def block_part(node: Any, columns: tuple[int, int] | None, rows: tuple[int, int] | None, edges: Edges) -> Any:
    """Of the values of a block, in which each row is a column of the frame: the ones of these columns, and of them
    these rows, each from the first to before the last."""
    is_strided = (array := _array_within(node)) is not None and array.order == "F"
    if is_strided and rows is not None:
        node = narrowed(node, *rows, edges)
    if columns is not None:
        node = _block_rows(node, *columns)
    return node if is_strided or rows is None else narrowed(node, *rows, edges)


def _block_rows(node: Any, first: int, last: int) -> Any:
    array = array_of(node)
    if array is not None and len(array.shape) == 2:
        if (first, last) == (0, array.shape[0]):
            return node
        if array.order == "C":
            return array.rows(first, last)
        # What lies between them is read too; a copy lets it go.
        return call("numpy", "array", item_of(node, slice(first, last)))
    if called(node) == _BACKED and (backing := _backing(node)) is not None and _is_table(node):
        state = list(node.state)
        state[backing] = _block_rows(state[backing], first, last)
        return Made(node.function, node.args, steps=[Step(STATE, tuple(state))])
    # Extension arrays have one axis, and a block of their own.
    return item_of(node, slice(first, last)) if _is_table(node) else node


def _is_table(node: Any) -> bool:
    """Whether an array, or that of a column, has two axes."""
    array = _array_within(node)
    return array is not None and len(array.shape) > 1


def _array_within(node: Any) -> ArraySymbols | None:
    """The array that this is, or that it is made of."""
    if called(node) == _BACKED and (backing := _backing(node)) is not None:
        node = node.state[backing]
    return array_of(node)


def _backing(node: Made) -> int | None:
    """Where the state of a column has the array that it is made of."""
    state = node.state
    if not isinstance(state, tuple):
        return None
    return next((at for at, part in enumerate(state) if array_of(part) is not None), None)
