"""Tensors of torch compared: what differs beside their elements, and which rows of these."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from mfstore.comparing.elements import as_half, as_single, one_zero
from mfstore.comparing.lanes import Columns, Lane, Pair
from mfstore.comparing.sameness import Place, same
from mfstore.pickling.symbols import Slot
from mfstore.records import NamedTuple
from mfstore.views.tensors import SparseSymbols, TensorSymbols, sparse_tensor, tensor_of

_AS_BITS = {
    "bfloat16": ("u2", as_single), "float8_e5m2": ("u1", as_half), "float8_e4m3fn": ("u1", one_zero),
    "float8_e4m3fnuz": ("u1", None), "float8_e5m2fnuz": ("u1", None), "float8_e8m0fnu": ("u1", None),
    "qint8": ("i1", None), "quint8": ("u1", None), "qint32": ("i4", None), "complex32": ("f2", None),
}  # fmt: skip
"""Types that numpy has not: as which it reads them, and what makes numbers of that where equal ones have several forms.
The elements of complex32 are compared by their halves."""


class TensorPair(NamedTuple):
    """A tensor on both sides."""

    left: Place
    right: Place
    ours: TensorSymbols
    theirs: TensorSymbols

    def parts(self) -> Iterator[tuple[str, Place, Place]]:
        """What differs beside the elements and is told by itself: its name, "" of attributes, and both sides."""
        return _beside(self)

    @property
    def is_told_apart(self) -> bool:
        """Whether it is known, before elements are read, that the tensors differ: equal elements mean other numbers, or
        only one side has attributes."""
        ours, theirs = self.ours, self.theirs
        return len(ours.attributes) != len(theirs.attributes) or not (
            same(self.left.of(ours.meaning), self.right.of(theirs.meaning))
        )

    @property
    def has_same_elements(self) -> bool:
        """Whether symbols tell that all elements are the same."""
        ours, theirs = ((one.storage, one.offset, one.shape, one.strides) for one in (self.ours, self.theirs))
        return 0 in self.ours.shape or same(self.left.of(ours), self.right.of(theirs))

    def task(self) -> Columns | None:
        """Compares the elements; None where they lie in too different ways for that."""
        import numpy as np

        ours, theirs = self.ours, self.theirs
        name = getattr(ours.dtype, "name", "")
        data = _bytes_of(ours), _bytes_of(theirs)
        if ours.itemsize is None or data[0] is None or data[1] is None or ours.shape[1:] != theirs.shape[1:]:
            return None
        code, numbers = _AS_BITS.get(name, (name, None))
        pairs = []
        for at in _strips(ours, theirs):
            left, right = _lane(self.left, ours, data[0], at), _lane(self.right, theirs, data[1], at)
            if left is None or right is None:
                return None
            pairs.append(Pair(left, right))
        return Columns(pairs, np.dtype(code), joined=len(pairs) > 1, numbers=numbers) if pairs else None


class SparsePair(NamedTuple):
    """A sparse tensor on both sides."""

    left: Place
    right: Place
    ours: SparseSymbols
    theirs: SparseSymbols

    def parts(self) -> Iterator[tuple[str, Place, Place]]:
        """As of a tensor, and of the tensors that it is made of those that differ, by what torch calls them."""
        yield from _beside(self)
        if not self.is_told_apart:
            for name, part in self.ours.parts.items():
                if not same(self.left.of(part), self.right.of(self.theirs.parts[name])):
                    yield name, self.left.of(part), self.right.of(self.theirs.parts[name])

    @property
    def is_told_apart(self) -> bool:
        """As of a tensor, or whether they are too unlike to be compared part by part."""
        ours, theirs = self.ours, self.theirs
        return len(ours.attributes) != len(theirs.attributes) or (
            (ours.layout, ours.shape) != (theirs.layout, theirs.shape)
        )


def _beside(pair: TensorPair | SparsePair) -> Iterator[tuple[str, Place, Place]]:
    ours, theirs = pair.ours, pair.theirs
    if ours.requires_grad != theirs.requires_grad:
        yield "requires_grad", pair.left.of(ours.requires_grad), pair.right.of(theirs.requires_grad)
    for mine, its in zip(ours.attributes, theirs.attributes, strict=False):
        if not same(pair.left.of(mine), pair.right.of(its)):
            yield "", pair.left.of(mine), pair.right.of(its)


def pair_of(left: Place, right: Place) -> TensorPair | SparsePair | None:
    """A tensor, or a sparse one, that both sides have; None for anything else."""
    ours, theirs = tensor_of(left.node), tensor_of(right.node)
    if ours is not None and theirs is not None:
        return TensorPair(left, right, ours, theirs)
    mine, its = sparse_tensor(left.node), sparse_tensor(right.node)
    return None if mine is None or its is None else SparsePair(left, right, mine, its)


def text_of_one(node: Any) -> str:
    """The number of a tensor without axes, where it lies in the pickle; else ""."""
    tensor = tensor_of(node)
    if tensor is None or tensor.shape or tensor.meaning or not isinstance(tensor.data, (bytes, bytearray)):
        return ""
    span, name = tensor.span(0, 1), getattr(tensor.dtype, "name", "")
    if span is None or name in ("float8_e4m3fn", "complex32") or (name in _AS_BITS and _AS_BITS[name][1] is None):
        return ""
    import numpy as np

    code, numbers = _AS_BITS.get(name, (name, None))
    found = np.frombuffer(tensor.data, code, 1, span[0])
    return str((found if numbers is None else numbers(found))[0])


def _bytes_of(tensor: TensorSymbols) -> Slot | bytes | None:
    data = tensor.data
    span = tensor.span(0, tensor.shape[0] if tensor.shape else 1)
    if data is None or span is None or span[1] > len(data):
        return None
    return data if isinstance(data, Slot) else bytes(data)


def _strips(ours: TensorSymbols, theirs: TensorSymbols) -> list[int | None]:
    """Which columns are compared one by one; [None] where rows lie in one piece each and alike, none where nothing
    helps."""
    if _is_dense(ours) and _is_dense(theirs) and _order(ours) == _order(theirs):
        return [None]
    return list(range(ours.shape[1])) if len(ours.shape) == 2 else []


def _is_dense(tensor: TensorSymbols) -> bool:
    """Whether each row lies in one piece, and no two of them overlap."""
    width = 1
    for stride, size in sorted(_order(tensor).values()):
        if stride != width:
            return False
        width *= size
    return not tensor.shape or tensor.shape[0] == 1 or tensor.strides[0] >= width


def _order(tensor: TensorSymbols) -> dict[int, tuple[int, int]]:
    """How the elements of a row lie: stride and length of each axis that has several."""
    axes = zip(tensor.strides[1:], tensor.shape[1:], strict=True)
    return {number: (stride, size) for number, (stride, size) in enumerate(axes) if size > 1}


def _lane(place: Place, tensor: TensorSymbols, data: Slot | bytes, column: int | None) -> Lane | None:
    """Where the rows, or one item of each, lie."""
    size = tensor.itemsize
    assert size is not None
    count = tensor.shape[0] if tensor.shape else 1
    first = tensor.offset * size
    if column is None:
        width = prod(tensor.shape[1:]) * size
        stride = tensor.strides[0] * size if count > 1 else width
        return _within(Lane(place.parts, data, first, stride, 0, width, count), width)
    down, across = (stride * size for stride in tensor.strides)
    if down >= (row := (tensor.shape[1] - 1) * across + size):
        return _within(Lane(place.parts, data, first, down, column * across, size, count), row)
    if across >= (count - 1) * down + size and down > 0:
        return _within(Lane(place.parts, data, first + column * across, down, 0, size, count), size)
    return None


def _within(lane: Lane, used: int) -> Lane | None:
    """The lane, if what is ``used`` of its last row lies within the data too: what would be behind that need not."""
    return lane if lane.base + (lane.length - 1) * lane.stride + used <= len(lane.data) else None
