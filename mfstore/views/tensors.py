"""Tensors of torch by their symbols: their shape, and parts of them, of which only the bytes are read."""

from __future__ import annotations

from math import prod
from typing import Any

from mfstore.pickling.symbols import Made, Slot, Step, called, item_of
from mfstore.records import NamedTuple

TENSOR = "torch.Tensor"
PARAMETER = "torch.nn.parameter.Parameter"
FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
"""What makes tensors with attributes, and those of subclasses."""
SPARSE = "torch._utils._rebuild_sparse_tensor"
OF_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
OF_TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_qtensor")
_V2, _V3, _QUANTISED = OF_TENSORS
_SIZES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1,
    "bool": 1, "complex128": 16, "complex64": 8, "complex32": 4, "uint16": 2, "uint32": 4, "uint64": 8, "qint8": 1,
    "quint8": 1, "qint32": 4, "float8_e4m3fn": 1, "float8_e4m3fnuz": 1, "float8_e5m2": 1, "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
}  # fmt: skip
_INDICES = {
    "torch.sparse_coo": ("indices",), "torch.sparse_csr": ("crow_indices", "col_indices"),
    "torch.sparse_bsr": ("crow_indices", "col_indices"), "torch.sparse_csc": ("ccol_indices", "row_indices"),
    "torch.sparse_bsc": ("ccol_indices", "row_indices"),
}  # fmt: skip
"""What torch calls the indices of each layout."""


class TensorSymbols(NamedTuple):
    """A tensor as a part of its storage."""

    node: Made
    """All of it, with what makes a parameter, or a subclass, of it."""
    inner: Made
    """What rebuilds it from its storage."""
    storage: Any
    offset: int
    """Elements of the storage before its first one."""
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """Elements."""

    @property
    def dtype(self) -> Any:
        """Its type, as a symbol, and None where nothing says it."""
        return self.inner.args[6] if called(self.inner) == _V3 else _typed(self.storage).get("dtype")

    @property
    def itemsize(self) -> int | None:
        """Bytes of an element, None where symbols do not tell."""
        return _SIZES.get(getattr(self.dtype, "name", ""))

    @property
    def nbytes(self) -> int | None:
        """Bytes of its elements."""
        return None if self.itemsize is None else self.itemsize * prod(self.shape)

    @property
    def data(self) -> Slot | bytearray | bytes | None:
        """The bytes of its storage; None of one of another form, as on a device."""
        untyped = _typed(self.storage).get("wrap_storage")
        if type(untyped) is not Made or called(untyped.function) != "operator.methodcaller" or not untyped.args:
            return None
        (flat,) = untyped.args
        data = flat.args[0] if type(flat) is Made and len(flat.args) == 1 else None
        return data if isinstance(data, (Slot, bytearray, bytes)) else None

    @property
    def requires_grad(self) -> Any:
        """Whether torch computes its gradients."""
        if called(self.node) in OF_PARAMETERS:
            return self.node.args[1]
        return self.inner.args[5 if called(self.inner) == _QUANTISED else 4]

    @property
    def meaning(self) -> Any:
        """What its elements mean beside their type: the scale of quantised ones, and whether they are to be conjugated,
        or negated."""
        if called(self.inner) == _QUANTISED:
            return self.inner.args[4]
        at = 7 if called(self.inner) == _V3 else 6
        return (self.inner.args[at] if len(self.inner.args) > at else None) or {}

    @property
    def attributes(self) -> list[Any]:
        """The states that hold attributes of its own."""
        return _attributes(self.node)

    def span(self, start: int, stop: int) -> tuple[int, int] | None:
        """Bytes of the storage from the first to behind the last element of these indices of the first axis; None where
        there are none, or symbols do not tell. Of a tensor without axes all of it."""
        shape = (stop - start, *self.shape[1:]) if self.shape else ()
        if self.itemsize is None or any(size <= 0 for size in shape) or any(step < 0 for step in self.strides):
            return None
        first = self.offset + (start * self.strides[0] if shape else 0)
        last = first + sum((size - 1) * step for size, step in zip(shape, self.strides, strict=True))
        return first * self.itemsize, (last + 1) * self.itemsize

    def rows(self, start: int, stop: int) -> Made | None:
        """Indices ``start`` to before ``stop`` of its first axis: of its storage only what they lie in is read. Without
        its attributes, and no parameter, as torch cuts them out. None where only all of it can be made, as of a class
        that may cut otherwise."""
        if not self.shape or not self._is_cut_plainly:
            return None
        if start >= stop:
            one = self.rows(0, 1) if self.shape[0] else None
            return None if one is None else item_of(one, slice(0, 0))
        return self._part(start, stop, (stop - start, *self.shape[1:]))

    def alone(self) -> Made | None:
        """All of it, over what it shows of its storage. None where that is all of the storage."""
        span = self.span(0, self.shape[0] if self.shape else 1)
        if span is None or not isinstance(self.data, Slot) or span[1] - span[0] == len(self.data):
            return None
        inner = self._part(0, self.shape[0] if self.shape else 1, self.shape)
        return None if inner is None else _around(self.node, inner)

    @property
    def _is_cut_plainly(self) -> bool:
        if called(self.inner) == _QUANTISED and len(self.meaning) != 3 and self.meaning[-1] == 0:
            return False  # each row has a scale of its own
        kinds = [layer.args[1] for layer in _layers(self.node) if called(layer) == FROM_TYPE]
        return all(getattr(kind, "full_name", "") in (TENSOR, PARAMETER) for kind in kinds)

    def _part(self, start: int, stop: int, shape: tuple[int, ...]) -> Made | None:
        span, data = self.span(start, stop), self.data
        if span is None or data is None or span[1] > len(data) or self.itemsize is None:
            return None
        storage, offset = self.storage, span[0] // self.itemsize
        if isinstance(data, Slot):
            storage, offset = _with_slot(storage, data, data.part(*span)), 0
        return Made(self.inner.function, (storage, offset, shape, *self.inner.args[3:]))


class SparseSymbols(NamedTuple):
    """A sparse tensor as what it is made of."""

    node: Made
    """As of a tensor."""
    layout: str
    shape: tuple[int, ...]
    parts: dict[str, Any]
    """Its indices and values, each a tensor, by what torch calls them."""

    @property
    def requires_grad(self) -> Any:
        """As of a tensor. Of what is no parameter torch does not pickle it."""
        return self.node.args[1] if called(self.node) in OF_PARAMETERS else False

    @property
    def attributes(self) -> list[Any]:
        """As of a tensor."""
        return _attributes(self.node)


def tensor_of(node: Any) -> TensorSymbols | None:
    """What a tensor, or a parameter, is made of, also of a subclass; None for what is none, or not strided."""
    layers = _layers(node)
    inner = layers[-1] if layers else None
    if inner is None or called(inner) not in OF_TENSORS or len(inner.args) < (5 if called(inner) == _V2 else 7):
        return None
    storage, offset, shape, strides = inner.args[:4]
    if not (isinstance(shape, tuple) and isinstance(strides, tuple) and isinstance(offset, int)):
        return None
    return TensorSymbols(node, inner, storage, offset, shape, strides) if len(shape) == len(strides) else None


def sparse_tensor(node: Any) -> SparseSymbols | None:
    """What a sparse tensor is made of; None for what is none."""
    layers = _layers(node)
    if not layers or called(layers[-1]) != SPARSE:
        return None
    layout, data, *_ = *layers[-1].args, None, None
    name = layout.args[0] if type(layout) is Made and layout.args else None
    names = _INDICES.get(name) if isinstance(name, str) else None
    if names is None or not isinstance(data, tuple) or len(data) < len(names) + 2:
        return None
    size: Any = data[len(names) + 1]
    shape: Any = size.args[0] if called(size) == "torch.Size" and size.args else size
    if not isinstance(shape, tuple):
        return None
    return SparseSymbols(node, str(name), shape, dict(zip((*names, "values"), data, strict=False)))


def _layers(node: Any) -> list[Made]:
    """What makes a tensor: first what it is at last, as a parameter, or of a class and with attributes; then what that
    is made of."""
    found = []
    while type(node) is Made and not node.steps:
        found.append(node)
        name = called(node)
        if name in OF_PARAMETERS and len(node.args) > 2:
            node = node.args[0]
        elif name == FROM_TYPE and len(node.args) == 4 and isinstance(node.args[2], tuple):
            node = Made(node.args[0], node.args[2])
        else:
            return found
    return []


def _attributes(node: Any) -> list[Any]:
    return [layer.args[3] for layer in _layers(node)[:-1] if len(layer.args) > 3]


def _around(node: Made, inner: Made) -> Made:
    """As a tensor's ``node``, with another one in it."""
    name = called(node)
    if name in OF_PARAMETERS:
        return Made(node.function, (_around(node.args[0], inner), *node.args[1:]))
    if name == FROM_TYPE:
        made = _around(Made(node.args[0], node.args[2]), inner)
        return Made(node.function, (made.function, node.args[1], made.args, node.args[3]))
    return inner


def _typed(storage: Any) -> dict[str, Any]:
    """What a typed storage is made with."""
    partial = storage.function if type(storage) is Made else None
    state = partial.state if type(partial) is Made else None
    if not (isinstance(state, tuple) and len(state) == 4 and isinstance(state[2], dict)):
        return {}
    return state[2]


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
