"""Rules of numpy: types, arrays and scalars.

A pickle of numpy's sets the state of a type, and numpy believes it: fields beyond the end of an item, or objects where
it says that there are none, are memory that is read as whatever it says. So types are made anew here, by numpy's public
constructor, from what the state says.
"""

from __future__ import annotations

import math
import re
from typing import Any

from mfstore.pickling.safe.plain import are, called, is_memory
from mfstore.pickling.safe.rules import NO_STATE, Given, Rule, check, growing, is_listed, value_of, whole

_TYPE = re.compile(r"[<>|=]?([biufcSUVMmO]\d{0,9})", re.ASCII)
_UNITS = frozenset(("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "generic"))
_OF_ML_DTYPES = (
    "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
    "float8_e5m2fnuz", "float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn", "int2", "int4", "uint2",
    "uint4",
)  # fmt: skip
"""Types of numbers that ml_dtypes registers with numpy. All their bytes are numbers."""
_ALIGNED = 0x80
MOST_EMPTY = 1 << 20
"""Items that have no bytes, or columns and values that take none."""
_SCALARS = (
    "bool", "bool_", "int8", "int16", "int32", "int64", "intc", "int_", "longlong", "uint8", "uint16", "uint32",
    "uint64", "uintc", "uint", "ulonglong", "float16", "float32", "float64", "longdouble", "float128", "complex64",
    "complex128", "clongdouble", "complex256", "str_", "bytes_", "datetime64", "timedelta64",
)  # fmt: skip


def _np() -> Any:
    import numpy

    return numpy


def dtype_of(given: Given) -> Any:
    """A type from its letter and size and its state."""
    np = _np()
    check(1 <= len(given.args) <= 3 and not given.keywords, "numpy.dtype", "wrong number of arguments")
    letter, *flags = given.args
    check(are((bool, int), flags), "numpy.dtype", "no flags")
    if letter is np.record:
        made = _dtype(np, "V", given.state)
        check(made.names is not None, "numpy.dtype", "a record without fields")
        return np.dtype((np.record, made))
    if isinstance(letter, type):
        check(letter.__module__ == "ml_dtypes" and letter.__name__ in _OF_ML_DTYPES, "numpy.dtype", "its type")
        return _of_ml_dtypes(np.dtype(letter), given.state)
    check(type(letter) is str and _TYPE.fullmatch(letter), "numpy.dtype", f"type {letter!r:.40}")
    return np.dtype(letter) if given.state is NO_STATE else _dtype(np, letter.lstrip("<>|="), given.state)


def _dtype(np: Any, letter: str, state: Any) -> Any:
    check(type(state) is tuple and 8 <= len(state) <= 9, "numpy.dtype", "its state")
    version, order, inner, names, fields, size, _alignment, flags, *more = state
    check(version in (3, 4) and order in ("<", ">", "|", "=") and type(flags) is int, "numpy.dtype", "its state")
    if inner is not None:
        check(type(inner) is tuple and len(inner) == 2 and isinstance(inner[0], np.dtype), "numpy.dtype", "its base")
        made = np.dtype((inner[0], _shape(inner[1], "numpy.dtype")))
    elif names is not None:
        made = _fields(np, names, fields, size, flags)
    elif letter[0] == "V":
        made = np.dtype(letter)
    else:
        made = np.dtype(letter)
        if letter[0] in "Mm" and more:
            made = _time(np, letter[0], more[0])
            more = [more[0][0]] if more[0] is not None else []
        if order in "<>":
            made = made.newbyteorder(order)
    check(size in (-1, made.itemsize), "numpy.dtype", "its size")
    if more and more[0]:
        check(type(more[0]) is dict, "numpy.dtype", "its metadata")
        made = np.dtype(made, metadata=more[0])
    return made


def _of_ml_dtypes(made: Any, state: Any) -> Any:
    """A type of ml_dtypes, which has one state alone: of numbers as this machine has them."""
    if state is not NO_STATE:
        check(type(state) is tuple and 8 <= len(state) <= 9 and state[0] in (3, 4), "numpy.dtype", "its state")
        check(state[1] == made.__reduce__()[2][1] and state[2:5] == (None, None, None), "numpy.dtype", "its state")
        check(state[5] in (-1, made.itemsize) and not state[8:], "numpy.dtype", "its state")
    return made


def _time(np: Any, letter: str, stated: Any) -> Any:
    """Dates and durations, whose unit is in their metadata."""
    if stated is None:
        return np.dtype(letter)
    check(type(stated) is tuple and len(stated) == 2 and type(stated[1]) is tuple, "numpy.dtype", "its unit")
    unit, count, divisor, *_ = stated[1]
    unit = unit.decode("ascii", "replace") if isinstance(unit, bytes) else unit
    check(unit in _UNITS and are(int, (count, divisor)) and divisor == 1, "numpy.dtype", "its unit")
    if unit == "generic":
        return np.dtype(letter)
    check(0 < count < 1 << 31, "numpy.dtype", "its unit")
    return np.dtype(f"{letter}8[{count}{unit}]")


def _fields(np: Any, names: Any, fields: Any, size: Any, flags: int) -> Any:
    """A type with fields. numpy refuses those that lie outside of it, and objects that overlap."""
    check(type(names) is tuple and type(fields) is dict and are(str, names), "numpy.dtype", "its fields")
    formats, offsets, titles = [], [], []
    for name in names:
        field = fields.get(name)
        check(type(field) is tuple and 2 <= len(field) <= 3, "numpy.dtype", "a field")
        check(isinstance(field[0], np.dtype) and type(field[1]) is int and field[1] >= 0, "numpy.dtype", "a field")
        formats.append(field[0])
        offsets.append(field[1])
        titles.append(field[2] if len(field) == 3 else None)
    check(type(size) is int and 0 <= size < 1 << 31, "numpy.dtype", "its size")
    stated: dict[str, Any] = {"names": list(names), "formats": formats, "offsets": offsets, "itemsize": size}
    if any(title is not None for title in titles):
        stated["titles"] = titles
    return np.dtype(stated, align=bool(flags & _ALIGNED))


def _shape(given: Any, name: str) -> tuple[int, ...]:
    shape = (given,) if type(given) is int else given
    check(type(shape) is tuple and are(int, shape) and len(shape) <= 64, name, "its shape")
    check(all(0 <= length < 1 << 62 for length in shape), name, "its shape")
    return tuple(shape)


def _holds_bytes(np: Any, dtype: Any, name: str) -> None:
    """Of other types the bytes are addresses."""
    check(isinstance(dtype, np.dtype) and not dtype.hasobject and dtype.kind != "T", name, "its type")


def _size_of(dtype: Any, shape: tuple[int, ...], size: int, name: str) -> None:
    """The bytes are those of such an array."""
    check(math.prod(shape) * dtype.itemsize == size, name, "its size is not that of its shape")
    check(dtype.itemsize or math.prod(shape) <= MOST_EMPTY, name, "its shape")


def _from_buffer(given: Given) -> Any:
    np = _np()
    name = "numpy.ndarray"
    data, dtype, shape, order = called(given, name, 4, 4)
    _holds_bytes(np, dtype, name)
    shape = _shape(shape, name)
    check(order in ("C", "F"), name, "its order")
    check(is_memory(data), name, "no bytes")
    _size_of(dtype, shape, memoryview(data).nbytes, name)
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _zeros(given: Given) -> Any:
    np = _np()
    shape, dtype = called(given, "numpy.zeros", 2, 2)
    shape = _shape(shape, "numpy.zeros")
    check(isinstance(dtype, np.dtype) and math.prod(shape) == 0, "numpy.zeros", "it is not empty")
    return np.zeros(shape, dtype)


def _array_kinds(np: Any) -> tuple[Any, ...]:
    return np.ndarray, np.recarray, np.memmap, np.ma.MaskedArray


def _reconstructed(given: Given) -> Any:
    """An empty array, which gets its state later."""
    np = _np()
    kind, shape, code = called(given, "numpy.ndarray", 3, 3)
    check(shape == (0,) and code in (b"b", "b"), "numpy.ndarray", "it is not empty")
    listed = isinstance(kind, type) and is_listed(kind, given) and issubclass(kind, np.ndarray)
    check(listed or any(kind is one for one in _array_kinds(np)), "numpy.ndarray", "its class")
    return np.ndarray.__new__(kind, (0,), "b")


def _fill_array(made: Any, state: Any) -> None:
    np = _np()
    made.__setstate__(_state(np, state, "numpy.ndarray"))


def _state(np: Any, state: Any, name: str) -> tuple[Any, ...]:
    """The state of an array, of which the bytes, or the items, are as many as its shape says."""
    check(type(state) is tuple and len(state) >= 5, name, "its state")
    version, shape, dtype, fortran, data, *more = state
    shape = _shape(shape, name)
    check(version == 1 and isinstance(dtype, np.dtype) and type(fortran) in (bool, int), name, "its state")
    if type(data) is list:
        check(dtype.hasobject or dtype.kind == "T", name, "items of a type that has bytes")
        check(math.prod(shape) == len(data), name, "its items are not as many as its shape says")
    else:
        check(isinstance(data, bytes), name, "no bytes")
        _holds_bytes(np, dtype, name)
        _size_of(dtype, shape, len(data), name)
    return (version, shape, dtype, fortran, data, *more)


def _masked(given: Given) -> Any:
    np = _np()
    name = "numpy.ma.MaskedArray"
    check(len(given.args) == 4 and given.state is not NO_STATE, name, "no state")
    kind, base, shape, code = given.args
    check(kind is np.ma.MaskedArray and base is np.ndarray and shape == (0,) and code in ("b", b"b"), name, "its class")
    state = _state(np, given.state, name)
    check(len(state) == 7 and isinstance(state[5], bytes), name, "no mask")
    mask = np.ma.make_mask_descr(state[2])
    _size_of(mask, state[1], len(state[5]), name)
    made = np.ma.MaskedArray.__new__(
        np.ma.MaskedArray, np.ndarray.__new__(np.ndarray, (0,), "b"), mask=np.zeros(0, "?")
    )
    made.__setstate__(state)
    return made


def _scalar(given: Given) -> Any:
    np = _np()
    dtype, data = called(given, "numpy scalar", 2, 2)
    _holds_bytes(np, dtype, "numpy scalar")
    check(isinstance(data, bytes) and len(data) == dtype.itemsize, "numpy scalar", "its bytes")
    rebuild: Any = np.int8(0).__reduce__()[0]
    return rebuild(dtype, data)


def _texts(given: Given) -> Any:
    np = _np()
    coerce, *missing = called(given, "numpy.dtypes.StringDType", 1, 2)
    check(are((bool, int), [coerce]), "numpy.dtypes.StringDType", "its arguments")
    return np.dtypes.StringDType(coerce=bool(coerce), **({"na_object": missing[0]} if missing else {}))


def _both(name: str) -> tuple[str, str]:
    """As numpy 2 and numpy 1 call it."""
    return f"numpy._core.{name}", f"numpy.core.{name}"


_CLASSES = {"numpy.ndarray": "ndarray", "numpy.rec.recarray": "recarray", "numpy.recarray": "recarray",
            "numpy.memmap": "memmap", "numpy.record": "record", "numpy.rec.record": "record",
            "numpy.ma.MaskedArray": "ma.MaskedArray", "numpy.ma.core.MaskedArray": "ma.MaskedArray"}  # fmt: skip
RULES: dict[str, Rule] = {
    "numpy.dtype": whole(dtype_of),
    "numpy.zeros": whole(_zeros),
    **dict.fromkeys(_both("numeric._frombuffer"), whole(_from_buffer)),
    **dict.fromkeys(_both("multiarray._reconstruct"), growing(_reconstructed, set_state=_fill_array)),
    **dict.fromkeys(_both("multiarray.scalar"), whole(_scalar)),
    **dict.fromkeys(_both("_internal._convert_to_stringdtype_kwargs"), whole(_texts)),
    "numpy.ma.core._mareconstruct": whole(_masked),
    **{name: Rule(value=value_of("numpy", found)) for name, found in _CLASSES.items()},
    **{f"numpy.{name}": Rule(value=value_of("numpy", name)) for name in _SCALARS},
    **{f"ml_dtypes.{name}": Rule(value=value_of("ml_dtypes", name)) for name in _OF_ML_DTYPES},
}
"""By name, with the module."""
