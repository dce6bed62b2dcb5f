"""Arrays of Arrow as the pickler writes them: what a slice shows, and nothing that was noted when it was read.

Arrow pickles a slice with all of the memory that it is cut from, and says how many values are missing only where
somebody has asked before. Ten rows of a table would take what the table takes, and a question would change a key.
"""

from __future__ import annotations

from copyreg import dispatch_table
from importlib import import_module
from struct import Struct
from typing import Any

from mfstore.records import NamedTuple

WASTE = 16
"""An array that cannot be cut without a copy is copied if it has this part of its bytes more in its memory."""


class _Data(NamedTuple):
    """What Arrow pickles of an array, and of each array within it."""

    kind: Any
    length: int
    missing: int
    """Values that are missing; -1 where nobody has counted them."""
    offset: int
    """Items before the first one."""
    buffers: list[Any]
    children: list[Any]
    dictionary: Any


class ArrowArrays:
    """The reducer of arrays of ``lib``, which is ``pyarrow.lib``, and of their subclasses.

    Numbers and texts of a slice are written from where they lie; of its bits, and of where its texts and lists begin, a
    copy is made. Unions, views and arrays of runs are copied whole if much of their memory is not theirs.
    """

    def __init__(self, lib: Any) -> None:
        self._lib = lib
        self._ways = lib.Array.__reduce__, lib.Array.__reduce_ex__
        # A look into this module takes a fifth of a microsecond.
        self._extension = lib.BaseExtensionType
        self._struct, self._fixed_list, self._bool = lib.Type_STRUCT, lib.Type_FIXED_SIZE_LIST, lib.Type_BOOL
        short, long = (lib.int32(), Struct("=i")), (lib.int64(), Struct("=q"))
        self._starts = dict.fromkeys([lib.Type_STRING, lib.Type_BINARY, lib.Type_LIST, lib.Type_MAP], short)
        self._starts |= dict.fromkeys([lib.Type_LARGE_STRING, lib.Type_LARGE_BINARY, lib.Type_LARGE_LIST], long)

    def __call__(self, array: Any) -> Any:
        """As ``__reduce__``, or NotImplemented for a class that says itself how it is pickled, and for a release of
        Arrow that says more than is known here."""
        kind = type(array)
        if (kind.__reduce__, kind.__reduce_ex__) != self._ways or kind in dispatch_table:
            return NotImplemented
        build, (data,) = array.__reduce__()
        if len(data) != len(_Data._fields):
            return NotImplemented
        if self._is_whole(*data):
            return build, (data,)
        cut = self._cut(data, 0, len(array))
        if cut is None:
            if array.offset or array.get_total_buffer_size() - array.nbytes > array.nbytes // WASTE:
                _, (data,) = self._lib.concat_arrays([array]).__reduce__()
            cut = self._counted(data)
        return build, (cut,)

    def _is_whole(
        self, kind: Any, length: int, missing: int, _: int, buffers: list[Any], children: list[Any], words: Any
    ) -> bool:
        """Whether these are texts, and there is nothing to cut: found in 1 us where cutting takes 5, which is much for
        a column of a small frame."""
        if missing or children or words is not None or buffers[0] is not None or not length:
            return False
        if (found := self._starts.get(kind.id)) is None:
            return False
        starts, texts = buffers[1:]
        one = found[1]
        end = length * one.size
        return bool(
            starts.size == end + one.size
            and one.unpack_from(starts) == (0,)
            and one.unpack_from(starts, end) == (texts.size,)
        )

    def _cut(self, data: tuple[Any, ...], start: int, length: int) -> tuple[Any, ...] | None:
        """Items ``start`` to ``start + length`` as Arrow pickles an array, or None for a layout that is not cut."""
        whole = _Data(*data)
        stored = whole.kind
        while isinstance(stored, self._extension):
            stored = stored.storage_type
        sort, at = stored.id, whole.offset + start
        parts: list[Any] = []
        inner = []
        if sort in self._starts:
            starts, first, last = self._begin(whole.buffers[1], *self._starts[sort], at, length)
            parts = [starts, *[_part(buffer, first, last - first) for buffer in whole.buffers[2:]]]
            inner = [self._cut(child, first, last - first) for child in whole.children]
        elif sort == self._struct:
            inner = [self._cut(child, at, length) for child in whole.children]
        elif sort == self._fixed_list:
            inner = [self._cut(whole.children[0], at * stored.list_size, length * stored.list_size)]
        elif sort == self._bool:
            parts = [self._bits(whole.buffers[1], at, length)]
        elif whole.children or (width := _width(stored)) is None:
            return None
        else:
            parts = [_part(whole.buffers[1], at * width, length * width)]
        words = whole.dictionary
        if words is not None:
            words = self._cut(words, 0, words[1])
            inner.append(words)
        if None in inner:
            return None
        valid, missing = self._valid(whole, start, at, length)
        children = inner if whole.dictionary is None else inner[:-1]
        return whole.kind, length, missing, 0, [valid, *parts], children, words

    def _counted(self, data: tuple[Any, ...]) -> tuple[Any, ...]:
        """All of it, in which values that are missing have been counted."""
        whole = _Data(*data)
        missing, children, words = whole.missing, list(map(self._counted, whole.children)), whole.dictionary
        if missing < 0:
            _, missing = self._valid(whole, 0, whole.offset, whole.length)
        words = None if words is None else self._counted(words)
        return whole.kind, whole.length, missing, whole.offset, whole.buffers, children, words

    def _valid(self, whole: _Data, start: int, at: int, length: int) -> tuple[Any, int]:
        """The bits that say which values are there, None if all are, and how many are not."""
        bits = whole.buffers[0]
        if bits is None:
            return None, 0
        bits, missing = self._bits(bits, at, length), whole.missing
        if missing < 0 or start or length != whole.length:
            there = self._lib.Array.from_buffers(self._lib.bool_(), length, [None, bits], 0)
            missing = length - there.true_count
        return (bits, missing) if missing else (None, 0)

    def _bits(self, bits: Any, at: int, length: int) -> Any:
        """``length`` bits from ``at`` on, and zeros after them."""
        if at % 8 == 0:
            whole = _part(bits, at // 8, (length + 7) // 8)
            if length % 8 == 0 or memoryview(whole)[-1] >> length % 8 == 0:
                return whole
        there = self._lib.Array.from_buffers(self._lib.bool_(), length, [None, bits], 0, at)
        return _part(self._lib.concat_arrays([there]).buffers()[1], 0, (length + 7) // 8)

    def _begin(self, buffer: Any, kind: Any, one: Struct, at: int, length: int) -> tuple[Any, int, int]:
        """Where each of ``length`` texts or lists begins and the last one ends, counted from the first one; and where
        the first one begins, and the last one ends."""
        width = one.size
        if not length:
            return self._lib.py_buffer(bytes(width)), 0, 0
        (first,), (last,) = one.unpack_from(buffer, at * width), one.unpack_from(buffer, (at + length) * width)
        if not first:
            return _part(buffer, at * width, (length + 1) * width), first, last
        starts = self._lib.Array.from_buffers(kind, length + 1, [None, buffer], 0, at)
        counted = import_module("pyarrow.compute").subtract(starts, starts[0])
        return _part(counted.buffers()[1], 0, (length + 1) * width), first, last


def _width(kind: Any) -> int | None:
    """Bytes of a value, None if that is no number."""
    try:
        bits: int = kind.bit_width
    except ValueError:
        return None
    return None if bits % 8 else bits // 8


def _part(buffer: Any, start: int, size: int) -> Any:
    return buffer if buffer is None or (start == 0 and buffer.size == size) else buffer.slice(start, size)
