"""Arrays and scalars of numpy as the pickler writes them: one buffer each, of content and nothing else.

A buffer is the array's own memory wherever that is possible. What is no content is not written: the gaps of an array
that does not lie in one piece, and the padding inside of its items.
"""

from __future__ import annotations

import math
import sys
from functools import lru_cache, partial
from itertools import islice
from types import FunctionType
from typing import TYPE_CHECKING, Any

from mfstore._core.pickler import LIST_PART, Arrays, Items, Payload, Reduced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from mfstore.safetensors.files import ArrayInFile

COPY = 16 << 20
"""Arrays with gaps up to this size are copied whole: twice as fast as by parts, and within any memory budget."""
LINE = 4096
"""Padding is cleared by whole lines of about this many bytes: item by item it takes ten times as long."""
LIST_PICKLE = 2
"""Flag of a dtype that numpy pickles item by item. Others, as bfloat16 of ml_dtypes, are their bytes to it too."""
LONG_DOUBLES = 13, 16
"""Numbers of numpy's types of long doubles. Their letters, g and G, are those of other packages' types too."""
X87_MANTISSA = 63
X87_BYTES = 10
"""A long double of x87 takes 80 bits of the 12 or 16 bytes that it lies in."""


def array_reducers(np: Any, ma: Any) -> dict[type, Callable[[Any], Any]]:
    """What the pickler is given for the classes of numpy, and of numpy.ma if that is imported."""
    from_buffer = _from_buffer(np)
    from_list = np.empty(1, object).__reduce_ex__(5)[0]
    reducers: dict[type, Callable[[Any], Any]] = {np.ndarray: partial(_reduce_array, np, from_buffer, from_list)}
    for kind in (np.recarray, np.memmap, *([ma.MaskedArray] if hasattr(ma, "MaskedArray") else [])):
        reducers[kind] = partial(_reduce_subclass, np)
    for kind in (np.void, np.record, np.longdouble, np.clongdouble):
        reducers[kind] = partial(_reduce_scalar, np)
    return reducers


def flat_arrays(found: object) -> Callable[..., Any] | None:
    """If ``found`` rebuilds the arrays of pickles from ``(buffer, dtype, shape, order)``, what makes those of one
    dimension from ``(buffer, dtype)``."""
    np: Any = sys.modules.get("numpy")
    # Of nothing but a function: what else may be found has code of its own to say what its name is.
    if type(found) is not FunctionType or found.__name__ != "_frombuffer" or np is None:
        return None
    return np.frombuffer if found is np.empty(1).__reduce_ex__(5)[0] else None


def short_arrays(np: Any) -> Arrays:
    """The arrays that are written in a short way: small ones of numbers, in a twentieth of the instructions that their
    reducer takes. Most arrays inside of frames and models are such."""
    return Arrays(np.ndarray, _from_buffer(np), _is_plain)


def _from_buffer(np: Any) -> Any:
    return np.empty(1).__reduce_ex__(5)[0]


def _is_plain(dtype: Any) -> bool:
    """Whether it is one of numbers without padding."""
    return dtype.kind in "biufc" and dtype.num not in LONG_DOUBLES


def without_metadata(dtype: Any) -> bool:
    """Whether nobody has noted anything in this dtype or one within it. Metadata are objects, which may be changed: two
    that are equal stay two."""
    if dtype.metadata is not None:
        return False
    if dtype.subdtype is not None:
        return without_metadata(dtype.base)
    return dtype.names is None or all(without_metadata(field) for field, *_ in dtype.fields.values())


class Padding:
    """The bytes inside of an item that belong to no field: gaps that align fields, and the six bytes that x87 leaves of
    a long double. What lies there is chance, so it is written as zeros."""

    __slots__ = ("_line", "_np")

    def __init__(self, np: Any, content: Any) -> None:
        self._np = np
        self._line = np.tile(content, max(1, LINE // len(content)))

    def cleared(self, items: Buffer) -> Any:
        """A copy of whole items with zeros there, as an array of bytes."""
        raw = self._np.frombuffer(items, self._np.uint8)
        clear, line = self._np.empty_like(raw), self._line
        whole = len(raw) - len(raw) % len(line)
        shape = whole // len(line), len(line)
        self._np.bitwise_and(raw[:whole].reshape(shape), line, out=clear[:whole].reshape(shape))
        self._np.bitwise_and(raw[whole:], line[: len(raw) - whole], out=clear[whole:])
        return clear


def padding_of(np: Any, dtype: Any) -> Padding | None:
    """The padding inside of an item, or None if all of it is content."""
    # Only these can have any: most arrays go no further.
    return None if dtype.hasobject or (dtype.names is None and dtype.num not in LONG_DOUBLES) else _padding(np, dtype)


@lru_cache(64)
def _padding(np: Any, dtype: Any) -> Padding | None:
    content = _content(np, dtype)
    return None if content.all() else Padding(np, content)


def _content(np: Any, dtype: Any) -> Any:
    """255 for each byte of an item that is content, 0 for each that is padding."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return np.tile(_content(np, base), math.prod(shape))
    if dtype.names is not None:
        content = np.zeros(dtype.itemsize, np.uint8)
        for field, start, *_ in dtype.fields.values():
            # Fields may overlap: what is content of one is content.
            content[start : start + field.itemsize] |= _content(np, field)
        return content
    content = np.full(dtype.itemsize, 255, np.uint8)
    if dtype.num in LONG_DOUBLES and np.finfo(np.longdouble).nmant == X87_MANTISSA:
        numbers = content.reshape(-1, np.dtype(np.longdouble).itemsize)
        unused = slice(X87_BYTES, None) if dtype.isnative else slice(None, -X87_BYTES)
        numbers[:, unused] = 0
    return content


class Unread:
    """Bytes that are read a part at a time: ``read(start, end)`` gives a copy, of ``nbytes`` in all."""

    __slots__ = ("nbytes", "read")

    def __init__(self, nbytes: int, read: Callable[[int, int], Buffer]) -> None:
        self.nbytes = nbytes
        self.read = read


class Strided:
    """An array that is not written as it lies there: in the order of its indices (C order), and without what lies in
    its padding. Nothing is copied until ``read``."""

    __slots__ = ("_flat", "_itemsize", "_padding")

    def __init__(self, array: Any, padding: Padding | None) -> None:
        self._flat = array.flat
        self._itemsize = array.dtype.itemsize
        self._padding = padding

    def read(self, start: int, end: int) -> Buffer:
        """Bytes ``start`` to ``end``, a copy."""
        first = start // self._itemsize
        part = self._flat[first : -(-end // self._itemsize)].tobytes()
        if self._padding is not None:
            part = self._padding.cleared(part)
        return memoryview(part)[start - first * self._itemsize :][: end - start]


def _reduce_array(np: Any, from_buffer: Any, from_list: Any, array: Any) -> Any:
    """An array as numpy's own rebuild function over one buffer, for every dtype that has a fixed size.

    numpy does this only for types with a buffer format: datetime64 and timedelta64, types that other packages register
    (as bfloat16), and arrays that are not contiguous, would go through a copy and an in-band bytes object. A
    non-contiguous array is stored in C order, so that it has the key of an equal contiguous one.
    """
    dtype = array.dtype
    if dtype.flags & LIST_PICKLE:
        return _reduce_items(np, from_list, array)
    if dtype.hasobject or dtype.itemsize == 0 or dtype.kind == "T":
        return NotImplemented
    if array.size == 0:
        # numpy's own pickle of an empty array forgets the byte order of dates.
        return Reduced(np.zeros, (array.shape, dtype))
    flat, order = array, "C"
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        flat, order = array.T, "F"
    payload = _payload(_bytes_of(np, flat), dtype, flat.shape, flat.nbytes)
    return Reduced(from_buffer, (payload, dtype, array.shape, order))


def _payload(data: Any, dtype: Any, shape: tuple[int, ...], nbytes: int) -> Payload:
    row = nbytes // shape[0] if len(shape) > 1 else 0
    # complex numbers are pairs: their bytes vary together by component.
    return Payload(data, dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize, row)


def reduce_in_file(np: Any, array: ArrayInFile) -> Any:
    """An array of ``OUT_OF_LINE`` bytes or more, of a type without padding, that is read from its file as it is stored:
    as the same one in memory."""
    payload = _payload(Unread(array.nbytes, array.read), array.dtype, array.shape, array.nbytes)
    return Reduced(_from_buffer(np), (payload, array.dtype, array.shape, "C"))


def _reduce_items(np: Any, from_list: Any, array: Any) -> Any:
    """An array of objects, or of texts of any length, as numpy pickles it: by a list of its items. That is made a part
    at a time, since it takes as much memory as the array, and the texts in it several times as much."""
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    items = Items(array.size, _lists_of(array))
    return from_list, (np.ndarray, (0,), b"b"), (1, array.shape, array.dtype, fortran, items)


def _lists_of(array: Any) -> Iterator[list[Any]]:
    """Its items in the order of its indices."""
    if array.dtype.kind == "T":
        # One by one: in a copy of a part numpy loses texts that are long.
        items = iter(array.flat)
        while part := list(islice(items, LIST_PART)):
            yield part
        return
    # Without a copy, where it lies in the order of its indices.
    items = array.reshape(-1) if array.flags.c_contiguous else array.flat
    for start in range(0, array.size, LIST_PART):
        yield items[start : start + LIST_PART].tolist()


def _bytes_of(np: Any, array: Any) -> Any:
    """The bytes of an array: its memory if that is in one piece and all content. Else a copy, made at once when that is
    little, and otherwise as it is read."""
    padding = padding_of(np, array.dtype)
    whole = array.flags.c_contiguous
    if array.nbytes >= COPY and not (whole and padding is None):
        return Unread(array.nbytes, Strided(array, padding).read)
    raw = (array if whole else np.ascontiguousarray(array)).reshape(-1).view(np.uint8)
    return raw if padding is None else padding.cleared(raw)


def _reduce_subclass(np: Any, array: Any) -> Any:
    """A subclass of arrays as it pickles itself, without what lies in its padding."""
    padding = padding_of(np, array.dtype)
    if padding is None:
        return NotImplemented
    build, args, state = array.__reduce_ex__(5)
    version, shape, dtype, fortran, data, *rest = state
    return build, args, (version, shape, dtype, fortran, padding.cleared(data).tobytes(), *rest)


def _reduce_scalar(np: Any, scalar: Any) -> Any:
    """A scalar as numpy pickles it, without what lies in its padding."""
    padding = padding_of(np, scalar.dtype)
    if padding is None:
        return NotImplemented
    build, (dtype, data) = scalar.__reduce__()
    return build, (dtype, padding.cleared(data).tobytes())
