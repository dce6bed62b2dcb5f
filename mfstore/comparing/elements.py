"""Which elements of two arrays differ. Not a number is not changed where it stays; neither is what is missing."""

from __future__ import annotations

from typing import Any


def unequal(left: Any, right: Any) -> Any:
    """Of two arrays of numpy of one type and shape: where they differ. Other types than numbers, dates and texts are
    compared by their bytes."""
    kind = left.dtype.kind
    if kind == "c":  # which is not a number as soon as one of its parts is none
        return unequal(left.real, right.real) | unequal(left.imag, right.imag)
    if kind == "f":
        return (left != right) & ~((left != left) & (right != right))
    if kind in "Mm":
        return left.view("i8") != right.view("i8")
    if kind in "biuSU":
        return left != right
    import numpy as np

    size = left.dtype.itemsize
    raw = [np.ascontiguousarray(one).view("u1").reshape(*left.shape, size) for one in (left, right)]
    return (raw[0] != raw[1]).any(axis=-1)


def as_single(bits: Any) -> Any:
    """The numbers of bfloat16, given by their bits: the upper half of a float32."""
    return (bits.astype("u4") << 16).view("f4")


def as_half(bits: Any) -> Any:
    """The numbers of float8_e5m2, given by their bits: the upper half of a float16."""
    return (bits.astype("u2") << 8).view("f2")


def one_zero(bits: Any) -> Any:
    """Bits of float8_e4m3fn, which is equal if they are: there are two zeros and two that are not a number."""
    import numpy as np

    without_sign = bits & 0x7F
    return np.where((without_sign == 0) | (without_sign == 0x7F), without_sign, bits)


def unequal_objects(left: Any, right: Any) -> Any:
    """Of two arrays of pandas, numpy or Arrow of one type and length: where they differ, as an array of numpy."""
    import numpy as np

    left, right = _flat(left), _flat(right)
    if type(left) is np.ndarray and left.dtype == right.dtype and not left.dtype.hasobject:
        return unequal(left, right)
    if hasattr(left, "asi8") and hasattr(right, "asi8"):  # of pandas: dates
        return np.asarray(left.asi8) != np.asarray(right.asi8)
    codes = _codes(left, right)
    if codes is not None:
        return codes[0] != codes[1]
    arrow = _as_arrow(left), _as_arrow(right)
    if arrow[0] is not None and arrow[1] is not None and arrow[0].type == arrow[1].type:
        return _unequal_arrow(*arrow)
    return _one_by_one(np.asarray(left, object), np.asarray(right, object))


def _flat(array: Any) -> Any:
    """Blocks of pandas have one row for a column."""
    return array[0] if getattr(array, "ndim", 1) == 2 else array


def _codes(left: Any, right: Any) -> tuple[Any, Any] | None:
    """The codes of categories, where both have the same ones."""
    ours, theirs = getattr(left, "categories", None), getattr(right, "categories", None)
    if ours is None or theirs is None or not hasattr(left, "codes") or not ours.equals(theirs):
        return None
    return left.codes, right.codes


def _as_arrow(array: Any) -> Any:
    """It as one array of Arrow, which compares a hundred times as fast as Python; None for what is none."""
    if type(array).__module__.startswith("pyarrow."):
        return array.combine_chunks() if hasattr(array, "combine_chunks") else array
    if not hasattr(array, "__arrow_array__"):
        return None
    try:
        import pyarrow

        made = pyarrow.array(array)
        return made.combine_chunks() if isinstance(made, pyarrow.ChunkedArray) else made
    except (ImportError, ValueError, TypeError, NotImplementedError):
        return None


def _unequal_arrow(left: Any, right: Any) -> Any:
    import numpy as np
    import pyarrow
    import pyarrow.compute as pc

    try:
        differ = pc.fill_null(pc.not_equal(left, right), False)
    except (pyarrow.ArrowNotImplementedError, pyarrow.ArrowInvalid):
        return _one_by_one(left.to_pylist(), right.to_pylist())
    if pyarrow.types.is_floating(left.type):
        both = pc.and_(pc.fill_null(pc.is_nan(left), False), pc.fill_null(pc.is_nan(right), False))
        differ = pc.and_(differ, pc.invert(both))
    differ = pc.or_(differ, pc.xor(pc.is_null(left), pc.is_null(right)))
    return np.asarray(differ.to_numpy(zero_copy_only=False), bool)


def _one_by_one(left: Any, right: Any) -> Any:
    import numpy as np

    return np.fromiter((not _equal(a, b) for a, b in zip(left, right, strict=True)), bool, len(left))


def _equal(a: Any, b: Any) -> bool:
    try:
        return a is b or bool(a == b) or bool(a != a and b != b)
    except (TypeError, ValueError):  # pandas' NA, and arrays, are neither true nor false
        return bool(repr(a) == repr(b))
