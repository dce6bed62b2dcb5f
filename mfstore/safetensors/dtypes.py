"""The types of tensors in safetensors, and what numpy, ml_dtypes and torch call them."""

from __future__ import annotations

from typing import Any

from mfstore.errors import Unsupported
from mfstore.records import NamedTuple


class TensorType(NamedTuple):
    """A type of elements."""

    bits: int
    name: str
    """As numpy or ml_dtypes calls it, and torch; "" for what has no array of its own: several elements in a byte."""
    of_ml_dtypes: bool = False


TYPES = {
    "BOOL": TensorType(8, "bool"), "F4": TensorType(4, ""), "F6_E2M3": TensorType(6, ""), "F6_E3M2": TensorType(6, ""),
    "U8": TensorType(8, "uint8"), "I8": TensorType(8, "int8"), "F8_E5M2": TensorType(8, "float8_e5m2", True),
    "F8_E4M3": TensorType(8, "float8_e4m3fn", True), "F8_E8M0": TensorType(8, "float8_e8m0fnu", True),
    "F8_E4M3FNUZ": TensorType(8, "float8_e4m3fnuz", True), "F8_E5M2FNUZ": TensorType(8, "float8_e5m2fnuz", True),
    "I16": TensorType(16, "int16"), "U16": TensorType(16, "uint16"), "F16": TensorType(16, "float16"),
    "BF16": TensorType(16, "bfloat16", True), "I32": TensorType(32, "int32"), "U32": TensorType(32, "uint32"),
    "F32": TensorType(32, "float32"), "C64": TensorType(64, "complex64"), "F64": TensorType(64, "float64"),
    "I64": TensorType(64, "int64"), "U64": TensorType(64, "uint64"),
}  # fmt: skip
"""By their codes in headers, in the order of the safetensors package, which writes the last of them first."""
CODES = {kind.name: code for code, kind in TYPES.items() if kind.name}
"""Codes by the names of types."""
RANKS = {code: rank for rank, code in enumerate(TYPES)}


def numpy_dtype(code: str, name: str) -> Any:
    """The type of numpy that the tensor ``name`` has as an array. Unsupported for what has none here."""
    import numpy as np

    kind = TYPES[code]
    if not kind.name:
        raise Unsupported(
            f"the tensor {name!r:.80} is of type {code}, of which several elements lie in a byte: no array has such",
            hint="put_file stores the file as it is",
        )
    if not kind.of_ml_dtypes:
        return np.dtype(kind.name)
    try:
        import ml_dtypes
    except ImportError as error:
        raise Unsupported(
            f"the tensor {name!r:.80} is of type {code}, which numpy has with ml_dtypes alone",
            hint="pip install ml_dtypes",
        ) from error
    return np.dtype(getattr(ml_dtypes, kind.name))
