"""Arrays of numpy by their symbols: their shape, and rows of them, of which only the bytes are read."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from mfstore.pickling.symbols import STATE, Made, Slot, Step, call, called, item_of
from mfstore.records import NamedTuple

_FROM_BUFFER = ("numpy._core.numeric._frombuffer", "numpy.core.numeric._frombuffer")
_RECONSTRUCT = ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")


class ArraySymbols(NamedTuple):
    """An array as what it is made of."""

    node: Made
    dtype: Any
    shape: tuple[int, ...]
    order: str
    """"C" or "F"."""
    items: Slot | list[Any] | None
    """Its bytes as a slot, or its items (of an array of objects) as a list; None where they lie in the pickle, or there
    are none."""

    @property
    def nbytes(self) -> int | None:
        """Bytes of what it holds; None of objects."""
        if isinstance(self.items, list):
            return None
        if isinstance(self.items, Slot):
            return len(self.items)
        return 0 if self.data is None else len(self.data)

    @property
    def data(self) -> Slot | bytes | bytearray | None:
        """Its bytes, in its order, as a slot or as they lie in the pickle; None of objects, and if there are none."""
        if isinstance(self.items, Slot):
            return self.items
        data = self.node.args[0] if called(self.node) in _FROM_BUFFER else None
        return data if isinstance(data, (bytes, bytearray)) else None

    def rows(self, start: int, stop: int) -> Made:
        """Indices ``start`` to before ``stop`` of the axis that varies slowest: the first one, in order "F" the last.
        All that is read of them is their bytes."""
        axis = 0 if self.order == "C" else -1
        count = self.shape[axis]
        shape = (stop - start, *self.shape[1:]) if axis == 0 else (*self.shape[:-1], stop - start)
        if start >= stop:
            return call("numpy", "zeros", shape, self.dtype)
        if isinstance(self.items, Slot):
            row = len(self.items) // count
            part = self.items.part(start * row, stop * row)
            return Made(self.node.function, (part, self.dtype, shape, self.order))
        if isinstance(self.items, list):
            row = prod(self.shape) // count
            version, _, dtype, fortran, items = self.node.state
            state = version, shape, dtype, fortran, items[start * row : stop * row]
            return Made(self.node.function, self.node.args, steps=[Step(STATE, state)])
        index = slice(start, stop)
        return item_of(self.node, index if axis == 0 else (..., index))


def array_of(node: Any) -> ArraySymbols | None:
    """What an array of numpy is made of; None for what is none, or one of a subclass."""
    name = called(node)
    if name in _FROM_BUFFER and len(node.args) == 4:
        data, dtype, shape, order = node.args
        return ArraySymbols(node, dtype, _sizes(shape), str(order), data if isinstance(data, Slot) else None)
    if name == "numpy.zeros" and len(node.args) == 2:
        shape, dtype = node.args
        return ArraySymbols(node, dtype, _sizes(shape), "C", None)
    if name in _RECONSTRUCT and called_ndarray(node) and isinstance(state := node.state, tuple) and len(state) == 5:
        _, shape, dtype, fortran, items = state
        if isinstance(items, list):
            # numpy pickles objects row by row, also those of an array that lies in order "F".
            return ArraySymbols(node, dtype, _sizes(shape), "C", items)
        return ArraySymbols(node, dtype, _sizes(shape), "F" if fortran else "C", None)
    return None


def called_ndarray(node: Made) -> bool:
    """Whether a reconstruction is of a plain array."""
    return bool(node.args) and getattr(node.args[0], "full_name", "") == "numpy.ndarray"


def _sizes(shape: Any) -> tuple[int, ...]:
    return tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)


def split(index: Any, length: int) -> tuple[int, int, Any] | None:
    """Of an index of one axis: which part of the axis it lies in, and the same index within that; None where that is
    all of it, or cannot be told. IndexError for an integer that is out of range."""
    if is_number(index):
        at = index.__index__()
        if not -length <= at < length:
            raise IndexError(f"index {at} is out of range: there are {length}")
        at %= length
        return at, at + 1, 0
    if isinstance(index, slice):
        start, stop, step = index.indices(length)
        chosen = range(start, stop, step)
        if not chosen:
            return 0, 0, slice(None)
        low, high = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1])
        return low, high + 1, slice(None, None, step)
    return None


def indexed(array: ArraySymbols, index: Any) -> tuple[Any, Any]:
    """What ``array[index]`` is taken from, and by which index: of the axis that varies
    slowest only what the index lies in is made, else all of it."""
    axes: Sequence[Any] = index if isinstance(index, tuple) else (index,)
    at = 0 if array.order == "C" else len(array.shape) - 1
    if not array.shape or at >= len(axes) or any(not _is_basic(axis) for axis in axes[: at + 1]):
        return array.node, index
    found = split(axes[at], array.shape[at])
    assert found is not None
    start, stop, within = found
    left = (*axes[:at], within, *axes[at + 1 :])
    return array.rows(start, stop), left


def is_all(index: Any) -> bool:
    """Whether an index of an axis takes all of it as it is."""
    return isinstance(index, slice) and index in (slice(None), slice(None, None, 1))


def _is_basic(axis: Any) -> bool:
    """Whether an index stands for one axis."""
    return isinstance(axis, slice) or is_number(axis)


def is_number(index: Any) -> bool:
    """Whether an index is one integer; arrays of one, and truth values, are masks or choices to numpy."""
    return hasattr(index, "__index__") and type(index).__name__ not in ("bool", "bool_", "ndarray")
