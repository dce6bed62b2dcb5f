"""Tensors of torch by their symbols: their shape, and rows of them where a row lies in one piece."""

from __future__ import annotations

from math import prod
from typing import Any

from mfstore.records import NamedTuple
from mfstore.views.evaluation import slots_of
from mfstore.views.symbols import Made, Slot, Step, called

_REBUILD = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_SIZES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1,
    "bool": 1, "complex64": 8, "complex128": 16,
}  # fmt: skip


class TensorSymbols(NamedTuple):
    """A tensor as a part of its storage."""

    node: Made
    storage: Any
    offset: int
    """Elements of the storage before its first one."""
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """Elements."""

    @property
    def dtype(self) -> Any:
        """Its type, as a symbol, and None where the storage does not say it."""
        partial = self.storage.function if type(self.storage) is Made else None
        state = partial.state if type(partial) is Made else None
        if not (isinstance(state, tuple) and len(state) == 4 and isinstance(state[2], dict)):
            return None
        return state[2].get("dtype")

    @property
    def itemsize(self) -> int | None:
        """Bytes of an element, None where symbols do not tell."""
        return _SIZES.get(getattr(self.dtype, "name", ""))

    @property
    def nbytes(self) -> int | None:
        """Bytes of its elements."""
        return None if self.itemsize is None else self.itemsize * prod(self.shape)

    def rows(self, start: int, stop: int) -> Made | None:
        """Indices ``start`` to before ``stop`` of its first axis, of which only the bytes are read. None where rows do
        not lie in one piece each, one after the other."""
        slots, size = slots_of(self.storage), self.itemsize
        if len(slots) != 1 or size is None or start >= stop or not self._is_contiguous():
            return None
        row = self.strides[0]
        first = self.offset + start * row
        part = slots[0].part(first * size, (first + (stop - start) * row) * size)
        storage = _with_slot(self.storage, slots[0], part)
        _, _, _, strides, *rest = self.node.args
        return Made(self.node.function, (storage, 0, (stop - start, *self.shape[1:]), strides, *rest))

    def _is_contiguous(self) -> bool:
        step = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if stride != step:
                return False
            step *= size
        return bool(self.shape) and step > 0


def tensor_of(node: Any) -> TensorSymbols | None:
    """What a tensor, or a parameter, is made of; None for what is none, or one with attributes of its own."""
    if called(node) == _PARAMETER and node.args:
        return tensor_of(node.args[0])
    if called(node) != _REBUILD or len(node.args) < 4 or node.steps:
        return None
    storage, offset, shape, strides = node.args[:4]
    if not (isinstance(shape, tuple) and isinstance(strides, tuple) and isinstance(offset, int)):
        return None
    return TensorSymbols(node, storage, offset, shape, strides)


def _with_slot(node: Any, old: Slot, new: Slot) -> Any:
    """A node with another slot in it."""
    if node is old:
        return new
    if type(node) is Made:
        made = Made(
            _with_slot(node.function, old, new), _with_slot(node.args, old, new),
            _with_slot(node.keywords, old, new), node.new,
        )  # fmt: skip
        made.steps = [Step(step.kind, _with_slot(step.value, old, new)) for step in node.steps]
        return made
    if isinstance(node, tuple):
        return tuple(_with_slot(item, old, new) for item in node)
    if isinstance(node, dict):
        return {name: _with_slot(item, old, new) for name, item in node.items()}
    return node
