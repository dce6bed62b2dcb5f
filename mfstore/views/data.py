"""What symbols stand for: arrays, tables, containers; with names, shapes and sizes, and what an index means."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from mfstore._core.pickler import BYTEARRAY, TEXT
from mfstore.pickling.evaluation import PLAIN, within
from mfstore.pickling.symbols import EXTEND, SET, Made, Slot, Symbol, called
from mfstore.records import NamedTuple
from mfstore.views.arrays import array_of
from mfstore.views.arrow import arrow_array, arrow_table, chunked_array
from mfstore.views.columns import length_of
from mfstore.views.frames import frame_of, series_of
from mfstore.views.modules import module_attributes
from mfstore.views.polars_frames import polars_frame
from mfstore.views.tensors import (
    FROM_TYPE,
    OF_PARAMETERS,
    OF_TENSORS,
    PARAMETER,
    SPARSE,
    TENSOR,
    sparse_tensor,
    tensor_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

MAPPING = "mapping"
"""Named parts: a dict, or a subclass of one."""
SEQUENCE = "sequence"
"""Numbered parts: a list, a tuple, or a subclass of list."""
OBJECT = "object"
"""An object of a class, whose attributes are parts."""
TABLE = "table"
"""A frame or a table: indexing gives columns and rows."""
ARRAY = "array"
"""Something of which an index gives data: an array, a series, a tensor, bytes."""
VALUE = "value"
"""Anything else: it has no parts."""

_NAMES = {
    "numpy._core.numeric._frombuffer": "numpy.ndarray", "numpy.core.numeric._frombuffer": "numpy.ndarray",
    "numpy.zeros": "numpy.ndarray", "pyarrow.lib._reconstruct_table": "pyarrow.Table",
    "pyarrow.lib._reconstruct_record_batch": "pyarrow.RecordBatch", "pyarrow.lib.chunked_array": "pyarrow.ChunkedArray",
    "pyarrow.lib._restore_array": "pyarrow.Array", SPARSE: TENSOR,
    **dict.fromkeys(OF_TENSORS, TENSOR), **dict.fromkeys(OF_PARAMETERS, PARAMETER),
}  # fmt: skip
"""Types of what functions make."""
_OF_CLASS = {
    "numpy._core.multiarray._reconstruct": 0, "numpy.core.multiarray._reconstruct": 0, "copyreg._reconstructor": 0,
    "pandas.core.indexes.base._new_Index": 0, "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked": 0, FROM_TYPE: 1,
}  # fmt: skip
"""Functions that make an object of a class, and which of their arguments that is."""


def kind_of(node: Any) -> str:
    """Which of the kinds above a node is of."""
    if isinstance(node, dict):
        return MAPPING
    if isinstance(node, (list, tuple)):
        return SEQUENCE
    if isinstance(node, Slot):
        return VALUE if node.kind == TEXT else ARRAY
    if isinstance(node, (bytes, bytearray)):
        return ARRAY
    if type(node) is not Made:
        return VALUE
    if frame_of(node) is not None or arrow_table(node) is not None or polars_frame(node) is not None:
        return TABLE
    if shape_of(node) is not None:
        return ARRAY
    kinds = {step.kind for step in node.steps}
    if SET in kinds:
        return MAPPING
    if EXTEND in kinds:
        return SEQUENCE
    return OBJECT if attributes_of(node) else VALUE


def type_of(node: Any) -> str:
    """The type that a node would have, with its module; of what a function makes that is not known here, the name of
    the function."""
    if isinstance(node, Symbol):
        return node.full_name
    if isinstance(node, Slot):
        return {TEXT: "str", BYTEARRAY: "bytearray"}.get(node.kind, "bytes")
    if type(node) is not Made:
        return type(node).__name__
    name = called(node)
    at = _OF_CLASS.get(name, len(node.args))
    if at < len(node.args) and isinstance(kind := node.args[at], Symbol):
        return kind.full_name
    return _NAMES.get(name, name) or "object"


def shape_of(node: Any) -> tuple[int | None, ...] | None:
    """Lengths of the axes of an array or a table, as far as symbols tell them; None for what has none."""
    if isinstance(node, (bytes, bytearray)) or (isinstance(node, Slot) and node.kind != TEXT):
        return (len(node),)
    if (array := array_of(node)) is not None:
        return array.shape
    if (frame := frame_of(node)) is not None:
        width = length_of(frame.columns)
        return frame.length, width
    if (table := arrow_table(node)) is not None:
        return table.length, len(table.names)
    if polars_frame(node) is not None:
        return None, None
    if (tensor := tensor_of(node) or sparse_tensor(node)) is not None:
        return tensor.shape
    if (one := series_of(node) or chunked_array(node) or arrow_array(node)) is not None:
        return (one.length,)
    return None


def nbytes_of(node: Any) -> int:
    """Bytes that a node's arrays, texts and bytes take: those of segments, and small arrays as far as they are known to
    be such. What else is in it, like numbers and short texts, is not counted."""
    array = array_of(node)
    if array is not None and array.nbytes is not None:
        return array.nbytes
    tensor = tensor_of(node)
    if tensor is not None and tensor.nbytes is not None:
        return tensor.nbytes
    if (sparse := sparse_tensor(node)) is not None:
        return sum(map(nbytes_of, sparse.parts.values()))
    if isinstance(node, (bytes, bytearray)):
        return len(node)
    return sum(len(one) for one in within(node) if isinstance(one, (Slot, bytearray)))


def dtype_of(node: Any) -> Any:
    """The symbols of an array's type, None for what has none of its own."""
    found = array_of(node) or tensor_of(node)
    if found is not None:
        return found.dtype
    if (sparse := sparse_tensor(node)) is not None:
        return dtype_of(sparse.parts["values"])
    if (series := series_of(node)) is not None:
        array = array_of(series.values)
        return None if array is None else array.dtype
    if (arrow := arrow_array(node)) is not None:
        return arrow.kind
    if (chunked := chunked_array(node)) is not None and chunked.arrays:
        return chunked.arrays[0].kind
    return None


class PartSummary(NamedTuple):
    """What is known of a part without reading its data."""

    name: Any
    type: str
    shape: tuple[int | None, ...] | None
    nbytes: int
    value: str
    """The value itself, as text, where it is a short one; else ""."""


class Entries(NamedTuple):
    """The parts of a container, in their order."""

    names: Sequence[Any]
    """Keys as they stand in the pickle, or numbers."""
    nodes: Sequence[Any]


def entries_of(node: Any) -> Entries:
    """The parts of what has parts; none of anything else."""
    kind = kind_of(node)
    if kind == MAPPING:
        items = list(node.items())
        return Entries([name for name, _ in items], [value for _, value in items])
    if kind == SEQUENCE:
        nodes = list(node) if isinstance(node, (list, tuple)) else node.appended()
        return Entries(range(len(nodes)), nodes)
    if kind == OBJECT:
        found = attributes_of(node)
        return Entries(list(found), list(found.values()))
    return Entries((), ())


def attributes_of(node: Made) -> dict[str, Any]:
    """What the state of an object gives it as attributes, as far as that is a dict, or the pair of pickle's; of a
    module of torch its parameters, buffers and modules too."""
    state = node.state
    slots = None
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    given = [module_attributes(part) for part in (state, slots) if isinstance(part, dict)]
    return {name: value for part in given for name, value in part.items() if type(name) is str}


def is_plain(node: Any) -> bool:
    """Whether a node is a value that needs nothing to be made."""
    return type(node) in PLAIN


def count_of(shape: tuple[int | None, ...]) -> int | None:
    """Items of a shape."""
    return None if None in shape else prod(shape)  # type: ignore[arg-type]
