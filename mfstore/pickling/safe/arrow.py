"""Rules of Arrow: types, arrays and tables. Arrays are validated in full, as those of whoever may write."""

from __future__ import annotations

from typing import Any

from mfstore.pickling.safe.plain import are, called, is_memory
from mfstore.pickling.safe.rules import Given, Rule, check, whole

_MOST_BITS = 1 << 31
_MOST_CODES = 128
_DEEPEST = 100
_MOST_TYPES = 1 << 16
_UNIONS = ("union", "sparse_union", "dense_union")


def _pa() -> Any:
    import pyarrow

    return pyarrow


def is_type(value: Any) -> bool:
    """Whether it is a type of Arrow's own. Those of extensions have code of somebody's: theirs are refused before."""
    return isinstance(value, _pa().DataType)


def _is_simple(value: Any) -> bool:
    if type(value) is dict:
        return all(map(_is_simple, value)) and all(map(_is_simple, value.values()))
    if type(value) in (list, tuple):
        return all(map(_is_simple, value))
    return value is None or type(value) in (str, bytes, int, bool) or isinstance(value, (_pa().DataType, _pa().Field))


def _made_by(name: str) -> Rule:
    """Types, fields and schemas, which Arrow's own functions check."""

    def make(given: Given) -> Any:
        args = called(given, f"pyarrow.{name}", 0, 8)
        check(all(map(_is_simple, args)), f"pyarrow.{name}", "its arguments")
        if name in _UNIONS:
            check(len(args) < 2 or _are_codes(args), f"pyarrow.{name}", "its codes")
        if name == "binary":
            check(not args or args[0] == -1 or _is_length(args[0]), "pyarrow.binary", "its length")
        made = getattr(_pa().lib if hasattr(_pa().lib, name) else _pa(), name)(*args)
        if is_type(made):
            _check_nesting(made)
        return made

    return whole(make)


def _check_nesting(kind: Any) -> None:
    """Arrow goes through types by recursion, and through what they share again and again."""
    left, seen = [(kind, 0)], 0
    while left:
        one, depth = left.pop()
        seen += 1
        check(
            depth <= _DEEPEST and seen <= _MOST_TYPES, "a type of Arrow", "it is nested too deeply, or shares too much"
        )
        left += [(inner, depth + 1) for inner in _inner_types(one)]


def _inner_types(kind: Any) -> list[Any]:
    pa = _pa()
    if isinstance(kind, pa.BaseExtensionType):
        return [kind.storage_type]
    if pa.types.is_dictionary(kind):
        return [kind.index_type, kind.value_type]
    return [kind.field(number).type for number in range(kind.num_fields)]


def _are_codes(args: tuple[Any, ...]) -> bool:
    """Whether the codes of a union are one for each of its fields: Arrow writes to where they say."""
    fields, *_, codes = args
    if codes is None:
        return True
    counted = type(codes) in (list, tuple) and are(int, codes) and len({*codes}) == len(codes) == len(fields)
    return counted and all(0 <= code < _MOST_CODES for code in codes)


def _is_length(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST_BITS


def _buffer(given: Given) -> Any:
    (data,) = called(given, "pyarrow.Buffer", 1, 1)
    check(is_memory(data), "pyarrow.Buffer", "no bytes")
    return _pa().py_buffer(data)


def _restored(given: Given) -> Any:
    (data,) = called(given, "pyarrow.Array", 1, 1)
    made = _array(_pa(), data)
    made.validate(full=True)
    return made


def _array(pa: Any, data: Any) -> Any:
    """An array from what Arrow pickles of one, which its own function would believe."""
    name = "pyarrow.Array"
    check(type(data) is tuple and len(data) == 7, name, "its parts")
    kind, length, missing, offset, buffers, children, words = data
    check(isinstance(kind, pa.DataType) and are(int, (length, missing, offset)), name, "its parts")
    check(length >= 0 and offset >= 0 and missing >= -1 and length + offset < _MOST_BITS << 24, name, "its length")
    check(
        type(buffers) is list and buffers and all(one is None or isinstance(one, pa.Buffer) for one in buffers),
        name,
        "buffers",
    )
    check(type(children) is list, name, "its parts")
    if isinstance(kind, pa.BaseExtensionType):
        storage = _array(pa, (kind.storage_type, *data[1:]))
        return pa.ExtensionArray.from_storage(kind, storage)
    if pa.types.is_dictionary(kind):
        check(words is not None and not children, name, "no dictionary")
        numbers = pa.Array.from_buffers(kind.index_type, length, buffers, missing, offset)
        numbers.validate(full=True)
        values = _array(pa, words)
        check(values.type == kind.value_type, name, "its dictionary")
        return pa.DictionaryArray.from_arrays(numbers, values, ordered=kind.ordered, safe=True)
    check(words is None, name, "a dictionary")
    if not length:
        # Arrow does not look at where nothing begins, and reads it.
        missing, offset, buffers = 0, 0, _of_nothing(pa, kind, buffers)
    inner = [_array(pa, child) for child in children]
    check([one.type for one in inner] == _inner_types(kind), name, "its parts")
    _check_layout(pa, kind, length + offset, buffers, inner)
    made = pa.Array.from_buffers(kind, length, buffers, missing, offset, inner or None)
    made.validate()
    if missing and not pa.types.is_union(kind) and _widths(pa, kind):
        # Arrow reads views of values that are missing, too.
        pa.Array.from_buffers(kind, length, [None, *buffers[1:]], 0, offset).validate(full=True)
    return made


def _of_nothing(pa: Any, kind: Any, buffers: list[Any]) -> list[Any]:
    """The buffers of an array that has no items."""
    types = pa.types
    begins = (
        types.is_list, types.is_large_list, types.is_map, types.is_string, types.is_large_string, types.is_binary,
        types.is_large_binary,
    )  # fmt: skip
    if any(is_one(kind) for is_one in begins):
        return [None, pa.py_buffer(bytes(16)), *buffers[2:]]
    return [None, *(pa.py_buffer(b"") if one is None else one for one in buffers[1:])]


def _widths(pa: Any, kind: Any) -> list[int]:
    """Bytes for each item of a union or of views in the buffers that Arrow takes to be there."""
    if pa.types.is_union(kind):
        return [1] if kind.mode == "sparse" else [1, 4]
    # As of pyarrow 16.
    views = getattr(pa.types, "is_string_view", None), getattr(pa.types, "is_binary_view", None)
    return [16] if any(is_one is not None and is_one(kind) for is_one in views) else []


def _check_layout(pa: Any, kind: Any, end: int, buffers: list[Any], inner: list[Any]) -> None:
    """What Arrow relies on before it validates, or does not validate: the buffers of unions and views, and where the
    items of lists of one length begin."""
    name = "pyarrow.Array"
    if widths := _widths(pa, kind):
        check(all(one is not None for one in buffers[1:]), name, "its buffers")
        check(not pa.types.is_union(kind) or buffers[0] is None, name, "its buffers")
        check(len(buffers) > len(widths), name, "its buffers")
        fit = all(one.size >= end * width for one, width in zip(buffers[1:], widths, strict=False))
        check(fit, name, "its length")
    elif pa.types.is_fixed_size_list(kind):
        check(end * kind.list_size <= len(inner[0]), name, "its length")


def _chunked(given: Given) -> Any:
    pa = _pa()
    chunks, kind = called(given, "pyarrow.ChunkedArray", 2, 2)
    check(
        type(chunks) is list and all(isinstance(one, pa.Array) for one in chunks), "pyarrow.ChunkedArray", "no arrays"
    )
    check(isinstance(kind, pa.DataType), "pyarrow.ChunkedArray", "no type")
    return pa.chunked_array(chunks, kind)


def _table(given: Given) -> Any:
    pa = _pa()
    columns, schema = called(given, "pyarrow.Table", 2, 2)
    check(type(columns) is list and isinstance(schema, pa.Schema), "pyarrow.Table", "its columns")
    check(all(isinstance(one, (pa.Array, pa.ChunkedArray)) for one in columns), "pyarrow.Table", "its columns")
    made = pa.Table.from_arrays(columns, schema=schema)
    made.validate()
    return made


def _batch(given: Given) -> Any:
    pa = _pa()
    columns, schema = called(given, "pyarrow.RecordBatch", 2, 2)
    check(type(columns) is list and isinstance(schema, pa.Schema), "pyarrow.RecordBatch", "its columns")
    check(all(isinstance(one, pa.Array) for one in columns), "pyarrow.RecordBatch", "its columns")
    made = pa.RecordBatch.from_arrays(columns, schema=schema)
    made.validate()
    return made


def _scalar(given: Given) -> Any:
    value, kind = called(given, "pyarrow.Scalar", 2, 2)
    check(is_type(kind), "pyarrow.Scalar", "no type")
    return _pa().scalar(value, kind)


_FUNCTIONS = (
    "type_for_alias", "field", "schema", "timestamp", "time32", "time64", "duration", "decimal32", "decimal64",
    "decimal128", "decimal256", "binary", "list_", "large_list", "list_view", "large_list_view", "map_", "struct",
    "dictionary", "union", "sparse_union", "dense_union", "run_end_encoded", "uuid", "bool8", "fixed_shape_tensor",
)  # fmt: skip
RULES: dict[str, Rule] = {
    **{f"pyarrow.lib.{name}": _made_by(name) for name in _FUNCTIONS},
    "pyarrow.lib.py_buffer": whole(_buffer),
    "pyarrow.lib._restore_array": whole(_restored),
    "pyarrow.lib.chunked_array": whole(_chunked),
    "pyarrow.lib._reconstruct_table": whole(_table),
    "pyarrow.lib._reconstruct_record_batch": whole(_batch),
    "pyarrow.lib.scalar": whole(_scalar),
}
"""By name, with the module."""
