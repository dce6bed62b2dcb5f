# cython: language_level=3, boundscheck=False, wraparound=False
"""Canonical protocol-5 pickler that hands every large payload to a sink, zero-copy.

The bytes written (body with the payloads spliced in) are an ordinary pickle that
``pickle.loads`` reads without mfstore. What differs from the standard pickler, each
difference legal in the protocol (PEP 3154, PEP 574):

* equal content gives equal bytes: strings and bytes are memoised by value, sets are
  written in a canonical order, short tuples of atoms are never shared, buffers are always
  BYTEARRAY8 whether or not their memory happens to be read-only;
* no FRAME opcodes and batches of 65 536 items, so that an insertion near the head of a
  list does not shift framing through the rest of the stream (framing defeats
  content-defined chunking: one item inserted in 120 000 re-stored 99 %);
* payloads of 64 KiB and more go to ``sink.payload`` instead of the body;
* an object that cannot be pickled is reported with the path that leads to it.
"""

import sys
from copyreg import dispatch_table as _copyreg_table
from pickle import PickleBuffer, PicklingError, whichmodule
from types import FunctionType

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.unicode cimport PyUnicode_AsEncodedString
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "Python.h":
    int Py_EnterRecursiveCall(const char *where) except -1
    void Py_LeaveRecursiveCall()
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1
    Py_ssize_t Py_REFCNT(object value)
    int PyDict_Next(object mapping, Py_ssize_t *position, PyObject **key, PyObject **value)


# Kinds of out-of-line payload; the numbers are stored (docs/format.md, "Segments").
BUFFER = 1
BYTES = 2
TEXT = 3
BYTEARRAY = 4

# A payload this large gets a segment of its own. 64 KiB is where CPython's pickler hands a
# payload to its file separately; below it the 32-byte segment entry plus a chunk cost more
# than copying the payload into the body (copy of 64 KiB: 3 us).
cdef enum:
    OUT_OF_LINE = 65536

# One MARK ... APPENDS per this many items: the unpickler's stack holds a batch (512 KiB of
# pointers), and each boundary is a place where an insertion shifts the stream.
cdef enum:
    BATCH = 65536

# Tuples up to this length made of atoms are written again rather than shared by identity:
# the compiler merges equal constants, so identity there says nothing about content.
cdef enum:
    ATOM_TUPLE = 8

# Before a list or dict of this many items the memo is padded (by memoising the container again, one
# byte each) to a multiple of MEMO_ALIGN, so that the references inside it keep their numbers when something small
# changes ahead of it. Measured on an object column of 336 776 strings: reordering the other columns re-stored all of
# its 1.6 MB before and one chunk after.
cdef enum:
    MEMO_ALIGN_FROM = 4096
    MEMO_ALIGN = 1024

# Strings and bytes are forgotten when this many are remembered: 13 MB for a graph of any size. Part of what makes
# pickles canonical, so the number does not change.
cdef enum:
    TEXT_MEMO = 131072

cdef object _atoms = frozenset([type(None), bool, int, float, str, bytes])


# Types whose own order is total.
cdef object _natural = frozenset([str, bytes, int])


class Reduced:
    """A node that pickles as ``func(*args)``; what reducers nest inside their results."""

    __slots__ = ("args", "func")

    def __init__(self, func, args):
        self.func = func
        self.args = args


class Payload:
    """Contiguous memory a reducer wants written as one writable buffer.

    ``data`` is any contiguous bytes-like object, not retained after ``dump`` returns unless the
    sink retains it; ``itemsize`` and ``row`` (bytes per row, 0 if there are no rows) tell the
    chunker its shape.
    """

    __slots__ = ("data", "itemsize", "row")

    def __init__(self, data, itemsize, row):
        self.data = data
        self.itemsize = itemsize
        self.row = row


class _Joined:
    """The sink of a nested pickler: keeps everything."""

    def __init__(self):
        self.parts = []

    def body(self, block):
        self.parts.append(block)

    def payload(self, kind, data, itemsize, row, at):
        self.parts.append(bytes(data))


cdef class Pickler:
    """``Pickler(sink, reducers).dump(obj)`` writes one object.

    ``sink.body(bytes)`` receives the body in blocks, in order; ``sink.payload(kind, data,
    itemsize, row, at)`` each large payload, where ``at`` is the body length so far. Payload
    memory is the object's own: the sink must be done with it, or hold a reference, on return.
    Instances of ``values`` (a tuple of classes) are immutable values: written in full each time and never shared, because
    whether two equal ones are one object says nothing about content. ``reducers`` maps an exact type to ``callable(obj)`` giving ``NotImplemented`` (pickle it the
    usual way), a ``Reduced`` node, or the tuple or string of ``__reduce__``.
    After a failure, ``path()`` says where in the object it happened.
    """

    cdef object sink, reducers, values, ordering
    cdef dict memo, text_memo, bytes_memo
    cdef list alive, trace
    cdef uint8_t *buf
    cdef size_t used, cap, block
    cdef uint64_t flushed
    cdef uint32_t memo_size

    def __cinit__(self, sink, reducers=None, tuple values=(), size_t block=1 << 20, ordering=frozenset()):
        self.sink = sink
        self.values = values
        self.ordering = ordering
        self.reducers = {} if reducers is None else reducers
        self.memo = {}
        self.text_memo = {}
        self.bytes_memo = {}
        self.alive = []
        self.trace = []
        self.memo_size = 0
        self.flushed = 0
        self.used = 0
        self.block = block
        self.cap = 512
        self.buf = <uint8_t *> PyMem_Malloc(self.cap)
        if self.buf == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_Free(self.buf)

    def dump(self, obj):
        """Write ``obj``; returns the length of the body in bytes."""
        self.put2(0x80, 5)
        self.save(obj)
        self.put1(b'.')
        self.flush()
        return self.flushed

    def path(self):
        """Where the last failure happened, e.g. ``.steps[0]['callback']``."""
        return "".join(reversed(self.trace))

    # ---- output -------------------------------------------------------------------

    cdef int reserve(self, size_t more) except -1:
        cdef size_t want = self.used + more
        cdef uint8_t *grown
        if want <= self.cap:
            return 0
        if want < self.cap * 2:
            want = self.cap * 2
        grown = <uint8_t *> PyMem_Realloc(self.buf, want)
        if grown == NULL:
            raise MemoryError()
        self.buf = grown
        self.cap = want
        return 0

    cdef int put1(self, uint8_t op) except -1:
        self.reserve(1)
        self.buf[self.used] = op
        self.used += 1
        return 0

    cdef int put2(self, uint8_t op, uint8_t arg) except -1:
        self.reserve(2)
        self.buf[self.used] = op
        self.buf[self.used + 1] = arg
        self.used += 2
        return 0

    cdef int put_int(self, uint8_t op, uint64_t value, int width) except -1:
        cdef int i
        self.reserve(1 + width)
        self.buf[self.used] = op
        for i in range(width):
            self.buf[self.used + 1 + i] = <uint8_t> (value >> (8 * i))
        self.used += 1 + width
        return 0

    cdef int put_raw(self, const uint8_t *data, size_t n) except -1:
        self.reserve(n)
        memcpy(self.buf + self.used, data, n)
        self.used += n
        if self.used >= self.block:
            self.flush()
        return 0

    cdef int flush(self) except -1:
        if self.used:
            block = PyBytes_FromStringAndSize(<char *> self.buf, self.used)
            self.flushed += self.used
            self.used = 0
            self.sink.body(block)
        return 0

    cdef int payload(self, uint8_t op, int kind, object data, size_t n, itemsize, row) except -1:
        self.put_int(op, n, 8)
        self.sink.payload(kind, data, itemsize, row, self.flushed + self.used)
        return 0

    # ---- memo ---------------------------------------------------------------------

    cdef int memoize(self, object obj) except -1:
        # Two references are the caller's variable and at most one container, so no other path leads here and
        # nothing need be remembered: a graph of millions of dicts costs no memo. The opcode is written all the same,
        # so that the bytes do not depend on reference counts.
        if Py_REFCNT(obj) > 2:
            self.remember(obj, self.memo_size)
        self.memo_size += 1
        return self.put1(0x94)

    cdef int remember(self, object obj, uint32_t index) except -1:
        self.memo[<size_t> <void *> obj] = index
        self.alive.append(obj)
        return 0

    cdef int remember_value(self, dict memo, object value) except -1:
        if len(memo) >= TEXT_MEMO:
            memo.clear()
        memo[value] = self.memo_size
        self.memo_size += 1
        return self.put1(0x94)

    cdef int align_memo(self, Py_ssize_t items) except -1:
        if items >= MEMO_ALIGN_FROM:
            while self.memo_size % MEMO_ALIGN:
                self.memo_size += 1
                self.put1(0x94)
        return 0

    cdef int get_memo(self, uint32_t index) except -1:
        if index < 256:
            return self.put2(b'h', <uint8_t> index)
        return self.put_int(b'j', index, 4)

    # ---- dispatch -----------------------------------------------------------------

    cdef int save(self, object obj) except -1:
        cdef object kind
        cdef object known
        if obj is None:
            return self.put1(b'N')
        kind = type(obj)
        if kind is str:
            return self.save_str(obj)
        if kind is int:
            return self.save_int(obj)
        if kind is float:
            return self.save_float(obj)
        if kind is bool:
            return self.put1(0x88 if obj else 0x89)
        if kind is bytes:
            return self.save_bytes(obj)
        known = self.memo.get(<size_t> <void *> obj)
        if known is not None:
            return self.get_memo(known)
        if self.used >= self.block:
            self.flush()
        Py_EnterRecursiveCall(b" while pickling an object")
        try:
            if kind is tuple:
                return self.save_tuple(obj)
            if kind is list:
                self.put1(b']')
                self.memoize(obj)
                self.align_memo(len(obj))
                return self.append_items(obj, True)
            if kind is dict:
                self.put1(b'}')
                self.memoize(obj)
                self.align_memo(len(obj))
                return self.set_dict(obj, 1)
            return self.save_other(obj, kind)
        finally:
            Py_LeaveRecursiveCall()

    cdef int save_other(self, object obj, object kind) except -1:
        cdef object reduced, reducer
        if kind is set:
            self.put1(0x8f)
            self.memoize(obj)
            items = self.set_order(obj)
            for start in range(0, len(items), BATCH):
                self.put1(b'(')
                self.save_each(items[start:start + BATCH])
                self.put1(0x90)
            return 0
        if kind is frozenset:
            self.put1(b'(')
            self.save_each(self.set_order(obj))
            known = self.memo.get(<size_t> <void *> obj)
            if known is not None:
                self.put1(b'1')
                return self.get_memo(known)
            self.put1(0x91)
            return self.memoize(obj)
        if kind is bytearray:
            return self.save_bytearray(obj)
        if kind is PickleBuffer:
            return self.save_picklebuffer(obj)
        if kind is Payload:
            return self.save_buffer(obj, obj.data, obj.itemsize, obj.row)
        if kind is Reduced:
            self.save(obj.func)
            self.save(obj.args)
            self.put1(b'R')
            return self.memoize(obj)

        reducer = self.reducers.get(kind)
        if reducer is not None:
            reduced = reducer(obj)
            if reduced is not NotImplemented:
                if type(reduced) is Reduced:
                    self.save(reduced)
                    # The node itself was memoised last; the object stands for it from now on.
                    return self.remember(obj, self.memo_size - 1)
                return self.save_reduced(obj, reduced)
        reducer = _copyreg_table.get(kind)
        if reducer is not None:
            return self.save_reduced(obj, reducer(obj))
        if isinstance(obj, type):
            if obj in (type(None), type(NotImplemented), type(...)):
                value = {type(None): None, type(NotImplemented): NotImplemented, type(...): ...}
                return self.save_reduce(type, (value[obj],), None, None, None, None, obj)
            return self.save_global(obj, None)
        if kind is FunctionType:
            return self.save_global(obj, None)
        return self.save_reduced(obj, getattr(obj, "__reduce_ex__")(5))

    cdef int save_reduced(self, object obj, object reduced) except -1:
        if isinstance(reduced, str):
            return self.save_global(obj, reduced)
        if not isinstance(reduced, tuple):
            raise PicklingError(f"__reduce__ of {_name(type(obj))} must return a string or a tuple")
        n = len(reduced)
        if not 2 <= n <= 6:
            raise PicklingError(f"__reduce__ of {_name(type(obj))} must return 2 to 6 elements, not {n}")
        full = reduced + (None,) * (6 - n)
        return self.save_reduce(full[0], full[1], full[2], full[3], full[4], full[5], obj)

    # ---- atoms --------------------------------------------------------------------

    cdef int save_int(self, object obj) except -1:
        cdef int overflow = 0
        cdef long long value = PyLong_AsLongLongAndOverflow(obj, &overflow)
        if not overflow:
            if 0 <= value < 256:
                return self.put2(b'K', <uint8_t> value)
            if 0 <= value < 65536:
                return self.put_int(b'M', <uint64_t> value, 2)
            if -2147483648 <= value <= 2147483647:
                return self.put_int(b'J', <uint64_t> value, 4)
        data = obj.to_bytes((obj.bit_length() >> 3) + 1, "little", signed=True)
        if obj < 0 and len(data) > 1 and data[-1] == 0xff and data[-2] & 0x80:
            data = data[:-1]
        if len(data) < 256:
            self.put2(0x8a, <uint8_t> len(data))
        else:
            self.put_int(0x8b, len(data), 4)
        return self.put_raw(<const uint8_t *> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef int save_float(self, object obj) except -1:
        cdef double value = obj
        cdef uint64_t bits
        cdef int i
        memcpy(&bits, &value, 8)
        self.reserve(9)
        self.buf[self.used] = b'G'
        for i in range(8):
            self.buf[self.used + 1 + i] = <uint8_t> (bits >> (56 - 8 * i))
        self.used += 9
        return 0

    cdef int save_str(self, str obj) except -1:
        cdef Py_ssize_t n
        cdef const char *data
        known = self.text_memo.get(obj)
        if known is not None:
            return self.get_memo(known)
        encoded = None
        try:
            data = PyUnicode_AsUTF8AndSize(obj, &n)
        except UnicodeEncodeError:
            encoded = PyUnicode_AsEncodedString(obj, b"utf-8", b"surrogatepass")
            data = PyBytes_AS_STRING(encoded)
            n = PyBytes_GET_SIZE(encoded)
        if n >= OUT_OF_LINE:
            if encoded is None:
                encoded = PyBytes_FromStringAndSize(data, n)
            self.payload(0x8d, 3, encoded, n, 1, 0)
        else:
            if n < 256:
                self.put2(0x8c, <uint8_t> n)
            else:
                self.put_int(b'X', n, 4)
            self.put_raw(<const uint8_t *> data, n)
        return self.remember_value(self.text_memo, obj)

    cdef int save_bytes(self, bytes obj) except -1:
        cdef Py_ssize_t n = PyBytes_GET_SIZE(obj)
        known = self.bytes_memo.get(obj)
        if known is not None:
            return self.get_memo(known)
        if n >= OUT_OF_LINE:
            self.payload(0x8e, 2, obj, n, 1, 0)
        else:
            if n < 256:
                self.put2(b'C', <uint8_t> n)
            else:
                self.put_int(b'B', n, 4)
            self.put_raw(<const uint8_t *> PyBytes_AS_STRING(obj), n)
        return self.remember_value(self.bytes_memo, obj)

    cdef int save_bytearray(self, bytearray obj) except -1:
        cdef size_t n = len(obj)
        if n >= OUT_OF_LINE:
            self.payload(0x96, 4, obj, n, 1, 0)
        else:
            self.put_int(0x96, n, 8)
            self.put_raw(<const uint8_t *> <char *> obj, n)
        return self.memoize(obj)

    cdef int save_picklebuffer(self, object obj) except -1:
        view = memoryview(obj)
        if not view.contiguous:
            raise PicklingError("PickleBuffer can not be pickled when pointing to a non-contiguous buffer")
        itemsize = view.itemsize
        row = 0
        if view.ndim > 1 and view.nbytes:
            row = view.nbytes // (view.shape[0] if view.c_contiguous else view.shape[view.ndim - 1])
        return self.save_buffer(obj, obj.raw(), itemsize, row)

    cdef int save_buffer(self, object obj, object data, itemsize, row) except -1:
        cdef const uint8_t[::1] flat = data
        cdef size_t n = flat.shape[0]
        if n >= OUT_OF_LINE:
            self.payload(0x96, 1, data, n, itemsize, row)
        else:
            self.put_int(0x96, n, 8)
            if n:
                self.put_raw(&flat[0], n)
        return self.memoize(obj)

    # ---- containers ---------------------------------------------------------------

    cdef int save_each(self, object items) except -1:
        for item in items:
            try:
                self.save(item)
            except BaseException:
                self.trace.append("{...}")
                raise
        return 0

    cdef int save_tuple(self, tuple obj) except -1:
        cdef Py_ssize_t n = len(obj)
        cdef Py_ssize_t i
        cdef bint plain = n <= ATOM_TUPLE
        # A tuple is memoised after its items, so an item may be reached again through the tuple itself: this list is
        # the further reference that makes `memoize` remember each of them.
        cdef list pinned = list(obj)
        if n == 0:
            return self.put1(b')')
        if n > 3:
            self.put1(b'(')
        for i in range(n):
            item = pinned[i]
            if plain and type(item) not in _atoms:
                plain = False
            try:
                self.save(item)
            except BaseException:
                self.trace.append(f"[{i}]")
                raise
        if not plain:
            known = self.memo.get(<size_t> <void *> obj)
            if known is not None:
                # Recursive tuple: saving its items saved it. Drop the items, use that one.
                if n > 3:
                    self.put1(b'1')
                else:
                    for i in range(n):
                        self.put1(b'0')
                return self.get_memo(known)
        self.put1(<uint8_t> (0x84 + n) if n <= 3 else <uint8_t> b't')
        if plain:
            return 0
        return self.memoize(obj)

    cdef int append_items(self, object items, bint indexed) except -1:
        cdef Py_ssize_t total = 0, in_batch = 0
        cdef object first = None
        cdef bint pending = False
        # A batch of one is written APPEND, without a MARK; so the first item of a batch waits
        # until the second one is seen.
        for item in items:
            if in_batch == 0 and not pending:
                first = item
                pending = True
                continue
            if pending:
                self.put1(b'(')
                self.save_at(first, total)
                total += 1
                pending = False
                in_batch = 1
            self.save_at(item, total)
            total += 1
            in_batch += 1
            if in_batch == BATCH:
                self.put1(b'e')
                in_batch = 0
        if pending:
            self.save_at(first, total)
            self.put1(b'a')
        elif in_batch:
            self.put1(b'e')
        return 0

    cdef int save_at(self, object item, Py_ssize_t index) except -1:
        try:
            return self.save(item)
        except BaseException:
            self.trace.append(f"[{index}]")
            raise

    cdef int set_items(self, object items, int style) except -1:
        """``style`` 1: a dict, steps are ``['k']``; 2: the state of an object, steps are ``.k``."""
        cdef Py_ssize_t in_batch = 0
        cdef bint pending = False
        cdef object first_key = None, first_value = None
        for key, value in items:
            if in_batch == 0 and not pending:
                first_key = key
                first_value = value
                pending = True
                continue
            if pending:
                self.put1(b'(')
                self.save_pair(first_key, first_value, style)
                pending = False
                in_batch = 1
            self.save_pair(key, value, style)
            in_batch += 1
            if in_batch == BATCH:
                self.put1(b'u')
                in_batch = 0
        if pending:
            self.save_pair(first_key, first_value, style)
            self.put1(b's')
        elif in_batch:
            self.put1(b'u')
        return 0

    cdef int set_dict(self, dict obj, int style) except -1:
        """As ``set_items`` of an exact dict, holding one reference to each value and no more (see ``memoize``)."""
        cdef Py_ssize_t position = 0, in_batch = 0, size = len(obj)
        cdef PyObject *key_at
        cdef PyObject *value_at
        cdef object key, value
        if size == 0:
            return 0
        if size > 1:
            self.put1(b'(')
        while PyDict_Next(obj, &position, &key_at, &value_at):
            key = <object> key_at
            value = <object> value_at
            if in_batch == BATCH:
                self.put1(b'u')
                self.put1(b'(')
                in_batch = 0
            self.save_pair(key, value, style)
            in_batch += 1
            if len(obj) != size:
                raise RuntimeError("dictionary changed size during iteration")
        return self.put1(b'u' if size > 1 else b's')

    cdef int save_pair(self, object key, object value, int style) except -1:
        try:
            self.save(key)
            self.save(value)
            return 0
        except BaseException:
            self.trace.append(f".{key}" if style == 2 and type(key) is str else f"[{key!r:.80}]")
            raise

    cdef object set_order(self, object items):
        """Elements of a set in an order that does not depend on hash seeds or history: by their own pickles."""
        cdef object kinds = set(map(type, items))
        if len(kinds) == 1 and kinds <= _natural:
            return sorted(items)
        if <size_t> <void *> items in self.ordering:
            return []  # a set that holds itself, seen while ordering it: any stand-in will do
        nested = self.ordering | {<size_t> <void *> items}
        keyed = []
        for item in items:
            sink = _Joined()
            Pickler(sink, self.reducers, self.values, ordering=nested).dump(item)
            keyed.append((b"".join(sink.parts), item))
        keyed.sort(key=_first)
        return [item for _, item in keyed]

    # ---- objects ------------------------------------------------------------------

    cdef int save_reduce(self, func, args, state, listitems, dictitems, state_setter, obj) except -1:
        if not isinstance(args, tuple):
            raise PicklingError(f"args from __reduce__ of {_name(type(obj))} must be a tuple")
        if not callable(func):
            raise PicklingError(f"func from __reduce__ of {_name(type(obj))} must be callable")
        func_name = getattr(func, "__name__", "")
        try:
            if func_name == "__newobj_ex__":
                cls, new_args, kwargs = args
                self.check_new(cls, obj, func_name)
                self.save(cls)
                self.save(new_args)
                self.save(kwargs)
                self.put1(0x92)
            elif func_name == "__newobj__":
                cls = args[0]
                self.check_new(cls, obj, func_name)
                self.save(cls)
                self.save(args[1:])
                self.put1(0x81)
            else:
                self.save(func)
                self.save(args)
                self.put1(b'R')
        except BaseException:
            # The index is into the arguments of the reconstructor, not into the object.
            if self.trace:
                self.trace.append(f".<{_name(type(obj))}.__reduce__>")
            raise
        known = self.memo.get(<size_t> <void *> obj)
        if known is not None:
            # Recursive: pickling the arguments pickled the object.
            self.put1(b'0')
            self.get_memo(known)
        elif isinstance(obj, self.values):
            self.memo_size += 1
            self.put1(0x94)
        else:
            self.memoize(obj)
        if listitems is not None:
            self.append_items(listitems, True)
        if dictitems is not None:
            self.set_items(dictitems, 1)
        if state is not None:
            if state_setter is None:
                self.save_state(state)
                self.put1(b'b')
            else:
                self.save(state_setter)
                self.save(obj)
                self.save(state)
                self.put1(0x86)
                self.put1(b'R')
                self.put1(b'0')
        return 0

    cdef int save_state(self, object state) except -1:
        # A plain instance dict is written here, so that a failure inside reads `.attribute`.
        if type(state) is dict and (<size_t> <void *> state) not in self.memo:
            self.put1(b'}')
            self.memoize(state)
            return self.set_dict(state, 2)
        return self.save(state)

    cdef int check_new(self, cls, obj, name) except -1:
        if not hasattr(cls, "__new__"):
            raise PicklingError(f"first argument of {name}() must be a class")
        if cls is not obj.__class__:
            raise PicklingError(f"first argument of {name}() is not the class of the object")
        return 0

    cdef int save_global(self, object obj, object name) except -1:
        if name is None:
            name = getattr(obj, "__qualname__", None)
            if name is None:
                name = obj.__name__
        module = whichmodule(obj, name)
        try:
            __import__(module, level=0)
            found = sys.modules[module]
            for part in name.split("."):
                if part == "<locals>":
                    raise AttributeError("it is defined inside a function")
                found = getattr(found, part)
        except (ImportError, KeyError, AttributeError) as error:
            raise PicklingError(f"Can't pickle {obj!r:.200}: it's not found as {module}.{name} ({error})") from None
        if found is not obj:
            raise PicklingError(f"Can't pickle {obj!r:.200}: it's not the same object as {module}.{name}")
        self.save(module)
        self.save(name)
        self.put1(0x93)
        return self.memoize(obj)


def _first(pair):
    return pair[0]


cdef str _name(object cls):
    return f"{cls.__module__}.{cls.__qualname__}"
