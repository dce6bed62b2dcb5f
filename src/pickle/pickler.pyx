# cython: language_level=3, boundscheck=False, wraparound=False
"""Canonical protocol-5 pickler that hands every large payload to a sink, zero-copy.

The bytes written (body with the payloads spliced in) are an ordinary pickle that
``pickle.loads`` reads without mfstore. What differs from the standard pickler, each
difference legal in the protocol (PEP 3154, PEP 574):

* equal content gives equal bytes: strings, bytes, and values such as dtypes and timezones
  are memoised by value, sets and their subclasses are written in the order of their
  elements' own pickles, short tuples of atoms are never shared, buffers are always
  BYTEARRAY8 whether or not their memory happens to be read-only;
* no FRAME opcodes and batches of 65 536 items, so that an insertion near the head of a
  list does not shift framing through the rest of the stream (framing defeats
  content-defined chunking: one item inserted in 120 000 re-stored 99 %);
* payloads of 64 KiB and more go to ``sink.payload`` instead of the body;
* an object that cannot be pickled is reported with the path that leads to it.
"""

from copyreg import dispatch_table as _copyreg_table
from hashlib import sha256
from itertools import islice
from pickle import PickleBuffer, PicklingError
from types import FunctionType, GetSetDescriptorType
from weakref import getweakrefcount

from mfstore._core.graph import ContentOrder, counts_references, find_global, holds_addresses, is_plain
from mfstore._core.memory import AsciiView, LargeValue, encode_text

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.unicode cimport PyUnicode_AsEncodedString, PyUnicode_CheckExact
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memset

from memo cimport (
    PyObject_Hash, add_object, add_value, clear_table, keep_referenced, mf_object_slot, mf_objects,
    mf_value_slot, mf_values, object_slot, value_slot,
)
from stack cimport Py_LeaveRecursiveCall, look_further, mf_enter_recursion, mf_stack_first_look, mf_stack_here
from output cimport Output, as_int64, put1, put2, put_double, put_int, put_int64, put_integer, put_raw


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
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

LIST_PART = BATCH

# Tuples up to this length made of atoms are written again rather than shared by identity:
# the compiler merges equal constants, so identity there says nothing about content.
cdef enum:
    ATOM_TUPLE = 8

# Once this many objects are remembered, the graph is looked through; if it is plain (see is_plain), objects reached
# once are no longer remembered. Without this a list of 4 million dicts took 1.2 GB of memo.
cdef enum:
    PLAIN_CHECK = 262144

# Before a list or dict of this many items the memo is padded (by memoising the container again, one
# byte each) to a multiple of MEMO_ALIGN, so that the references inside it keep their numbers when something small
# changes ahead of it; to MEMO_FEW if there is next to nothing ahead, so that what is met first in it has a number below
# 256, to which a reference takes two bytes and not five. Measured on an object column of 336 776 strings: reordering
# the other columns re-stored all of its 1.6 MB before and one chunk after.
cdef enum:
    MEMO_ALIGN_FROM = 4096
    MEMO_ALIGN = 1024
    MEMO_FEW = 16

# Strings and bytes are forgotten when this many of each are remembered, except for those that were referred to, if they
# are no more than TEXT_KEPT: the keys of records stay, so that each takes two bytes and not five. 500 000 dicts of
# three keys and a name of their own took 21.3 MB where all were forgotten, and take 16.8. Values that are written once
# are all forgotten. 6 MB for a graph of any size, and the values. Part of what makes pickles canonical, so the numbers
# do not change.
cdef enum:
    TEXT_MEMO = 131072
    TEXT_KEPT = 65536

# Texts and bytes of this length are remembered as a LargeValue: it is hashed faster, without the GIL where that takes
# long, and can let go of what nobody else holds. Of shorter ones TEXT_MEMO are remembered, so at most 128 MiB.
cdef enum:
    LARGE = 1024

# Bytes of texts and bytes that nobody else holds (see Pickler.save_as) and that are remembered as they are. Of what is
# more only digests are, which takes a pass of BLAKE3: 0.3 ms a MiB. A single model of 8 MiB in bytes pays nothing.
cdef enum:
    ALONE_KEPT = 8 << 20

# Elements of sets that take more bytes by themselves are not ordered, so that ordering takes time in proportion.
cdef enum:
    ELEMENT = 16384

# Steps shown of each end of a path: the error of an object that is nested too deeply has thousands.
cdef enum:
    STEPS = 20

cdef object _atoms = frozenset([type(None), bool, int, float, str, bytes])

# What instances of a class are to the pickler (see Pickler.standing).
cdef enum:
    OBJECT = 0
    VALUE = 1
    ONCE = 2

# Classes that have no name to be found by.
cdef dict _singletons = {type(value): value for value in (None, NotImplemented, ...)}

# What sets and their subclasses are reduced by that do not say otherwise.
cdef object _set_reduces = (set.__reduce__, frozenset.__reduce__)

# Types whose own order is total.
cdef object _natural = frozenset([str, bytes, int])

# Sets of so few numbers are ordered without making objects.
cdef enum:
    FEW = 64

# Bit of a class's __flags__: it was made by a class statement.
cdef enum:
    MADE_BY_CLASS = 1 << 9

# What a class or an instance says when it is not to be pickled as its class and its attributes.
cdef object _own_ways = frozenset([
    "__reduce_ex__", "__reduce__", "__getstate__", "__getnewargs__", "__getnewargs_ex__", "__getattr__",
    "__getattribute__", "__class__", "__slots__",
])


@cython.final
cdef class Reduced:
    """A node that pickles as ``func(*args)``; what reducers nest inside their results."""

    cdef readonly object func, args

    def __init__(self, func, tuple args):
        self.func = func
        self.args = args


@cython.final
cdef class Payload:
    """Contiguous memory a reducer wants written as one writable buffer.

    ``data`` is a contiguous bytes-like object, not retained after ``dump`` returns unless the sink retains it. Of
    OUT_OF_LINE bytes or more it may be an object with ``nbytes`` and ``read(start, end)`` instead, from which the sink
    takes one part after the other. ``itemsize`` and ``row`` (bytes per row, 0 if there are no rows) tell the chunker
    its shape.
    """

    cdef readonly object data, itemsize, row

    def __init__(self, data, itemsize, row):
        self.data = data
        self.itemsize = itemsize
        self.row = row


@cython.final
cdef class Items:
    """A node that pickles as the list of what is in ``parts``, lists of LIST_PART items each (the last one of what is
    left): ``length`` items in all."""

    cdef readonly Py_ssize_t length
    cdef readonly object parts

    def __init__(self, Py_ssize_t length, parts):
        self.length = length
        self.parts = parts


@cython.final
cdef class Kind:
    """What a pickler knows of a class, found out once for each."""

    cdef int standing
    # OBJECT, VALUE or ONCE.
    cdef object test
    # Says of which instances ONCE is so.
    cdef object reducer
    cdef bint of_attributes
    # Whether object.__reduce_ex__ would say of its instances: the class, and the attributes if there are any.
    cdef bint a_class
    # Whether its instances are classes.
    cdef bint may_have_attributes
    cdef bint counted
    # Whether all there is that leads to an instance is counted as a reference to it.

    def __cinit__(self):
        self.standing = OBJECT
        self.of_attributes = self.a_class = self.counted = False
        self.may_have_attributes = True


cdef bint is_of_attributes(object kind) except -1:
    """Whether ``kind`` and what it comes from leave pickling to object.__reduce_ex__, which makes four tuples and looks
    up ten names to say what is known: a third of what an instance of a dataclass takes."""
    cdef object base, parts
    if type(kind) is not type:
        return False
    for base in kind.__mro__:
        if base is object:
            continue
        parts = base.__dict__
        if not base.__flags__ & MADE_BY_CLASS or not _own_ways.isdisjoint(parts):
            return False
        if "__dict__" in parts and type(parts["__dict__"]) is not GetSetDescriptorType:
            return False
    return kind.__dictoffset__ != 0


@cython.final
cdef class Joined:
    """A sink that keeps everything; ``all`` is an ordinary pickle."""

    cdef list blocks, payloads

    def __cinit__(self):
        self.blocks = []
        self.payloads = []

    def body(self, bytes block):
        """Take the next block of the body."""
        self.blocks.append(block)

    def payload(self, kind, data, itemsize, row, at):
        """Take a payload that belongs after ``at`` bytes of the body."""
        self.payloads.append((at, bytes(data) if PyObject_CheckBuffer(data) else data.read(0, data.nbytes)))

    def all(self):
        """The payloads spliced into the body."""
        body = b"".join(self.blocks)
        parts, last = [], 0
        for at, data in self.payloads:
            parts += [body[last:at], data]
            last = at
        return b"".join([*parts, body[last:]])


@cython.final
cdef class Short:
    """A sink that takes ELEMENT bytes and no more."""

    cdef list blocks
    cdef size_t used

    def __cinit__(self):
        self.blocks = []
        self.used = 0

    def body(self, bytes block):
        """Take the next block of the body."""
        self.used += len(block)
        if self.used > ELEMENT:
            raise OverflowError("too long")
        self.blocks.append(block)

    def payload(self, kind, data, itemsize, row, at):
        """Take a payload: there is no room for one."""
        raise OverflowError("too long")

    def all(self):
        """What was taken."""
        return b"".join(self.blocks)


cdef class Pickler:
    """``Pickler(sink, reducers).dump(obj)`` writes one object.

    ``sink.body(bytes)`` receives the body in blocks, in order; ``sink.payload(kind, data,
    itemsize, row, at)`` each large payload, where ``at`` is the body length so far. Payload
    memory is the object's own: the sink must be done with it, or hold a reference, on return.
    Instances of ``values`` (a tuple of classes) are immutable values: whether two equal ones are
    one object says nothing about content. They are written in full each time, those of ``once``
    the first time, and afterwards by reference. ``once`` maps some of these classes to None, or to
    ``callable(obj)`` that says of which instances this is so.
    ``reducers`` maps an exact type to ``callable(obj)`` giving ``NotImplemented`` (pickle it the
    usual way), a ``Reduced`` node, or the tuple or string of ``__reduce__``.
    ``counted`` are names of modules whose classes in C own what they refer to, by counted references. What nobody but
    the pickler refers to, because a reducer has made it, lives no longer than it takes to write it, if it is of these
    classes or of Python's own.
    After a failure, ``path()`` says where in the object it happened.
    """

    cdef object sink, reducers, values, root, order, last_type
    cdef Kind last_kind
    cdef bint plain
    cdef dict once, once_memo, once_ids, kinds
    cdef list once_alive, trace, alone
    cdef size_t alone_bytes
    cdef frozenset counted
    cdef mf_objects memo
    cdef mf_values text_memo, bytes_memo
    cdef Output out
    cdef size_t block
    cdef uint64_t flushed
    cdef uint32_t memo_size
    cdef uintptr_t floor

    def __cinit__(
        self, sink, reducers=None, tuple values=(), dict once=None, size_t block=1 << 20, order=None,
        frozenset counted=frozenset(),
    ):
        self.sink = sink
        self.values = values
        self.once = {} if once is None else once
        self.plain = False
        self.order = order
        self.reducers = {} if reducers is None else reducers
        memset(&self.memo, 0, sizeof(self.memo))
        memset(&self.text_memo, 0, sizeof(self.text_memo))
        memset(&self.bytes_memo, 0, sizeof(self.bytes_memo))
        self.once_memo = {}
        self.once_ids = {}
        self.kinds = {}
        self.last_type = None
        self.once_alive = []
        self.trace = []
        self.alone = []
        self.alone_bytes = 0
        self.counted = counted
        self.memo_size = 0
        self.flushed = 0
        self.block = block
        self.out.used = 0
        self.out.cap = 512
        self.out.data = <uint8_t *> PyMem_Malloc(self.out.cap)
        if self.out.data == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_Free(self.out.data)
        clear_table(&self.memo)
        clear_table(&self.text_memo)
        clear_table(&self.bytes_memo)

    def dump(self, obj):
        """Write ``obj``; returns the length of the body in bytes."""
        self.root = obj
        self.floor = mf_stack_first_look()
        put2(&self.out, 0x80, 5)
        self.save(obj)
        put1(&self.out, b'.')
        self.flush()
        return self.flushed

    def path(self):
        """Where the last failure happened, e.g. ``.steps[0]['callback']``. Of a long way its two ends."""
        steps = self.trace[::-1]
        if len(steps) > 2 * STEPS:
            steps[STEPS:-STEPS] = [f" ... {len(steps) - 2 * STEPS} more ... "]
        return "".join(steps)

    # ---- output -------------------------------------------------------------------

    cdef int put_raw(self, const uint8_t *data, size_t n) except -1:
        put_raw(&self.out, data, n)
        if self.out.used >= self.block:
            self.flush()
        return 0

    cdef int flush(self) except -1:
        if self.out.used:
            block = PyBytes_FromStringAndSize(<char *> self.out.data, self.out.used)
            self.flushed += self.out.used
            self.out.used = 0
            self.sink.body(block)
        return 0

    cdef int payload(self, uint8_t op, int kind, object data, size_t n, itemsize, row) except -1:
        put_int(&self.out, op, n, 8)
        self.sink.payload(kind, data, itemsize, row, self.flushed + self.out.used)
        return 0

    # ---- memo ---------------------------------------------------------------------

    cdef int memoize(self, object obj, bint ours) except -1:
        # In a plain graph two references are the caller's variable and at most one container, so no other path leads
        # here and nothing need be remembered. So it is in what is ours (see ``save_as``). The opcode is written all the
        # same: the bytes do not depend on counts.
        if not (self.plain or ours) or Py_REFCNT(obj) > 2:
            self.remember(obj, self.memo_size)
        self.memo_size += 1
        return put1(&self.out, 0x94)

    cdef int remember(self, object obj, uint32_t index) except -1:
        add_object(&self.memo, obj, index)
        if self.memo.used == PLAIN_CHECK:
            self.plain = is_plain(self.root)
        return 0

    cdef int complete(self, object obj, bint ours) except -1:
        """As ``memoize``, after all of it has been written. References that there are more of by now, as of a sink to a
        buffer, lead nobody here."""
        return self.count_memo() if ours else self.memoize(obj, 0)

    cdef int keep_alone(self, object value, size_t n) except -1:
        """Note a LargeValue of ``n`` bytes that nobody else holds: what comes is not to be many of these."""
        self.alone.append(value)
        self.alone_bytes += n
        if self.alone_bytes > ALONE_KEPT:
            for value in self.alone:
                value.let_go()
            self.alone.clear()
            self.alone_bytes = 0
        return 0

    cdef int remember_value(self, mf_values *memo, object value, uint64_t hash) except -1:
        if memo.used >= TEXT_MEMO:
            keep_referenced(memo, TEXT_KEPT)
        add_value(memo, value, hash, self.memo_size)
        self.memo_size += 1
        return put1(&self.out, 0x94)

    cdef int count_memo(self) except -1:
        """As ``memoize`` of what nothing else refers to."""
        self.memo_size += 1
        return put1(&self.out, 0x94)

    cdef int remember_once(self, object obj, bytes content) except -1:
        if len(self.once_memo) >= TEXT_MEMO:
            self.once_memo.clear()
            self.once_ids.clear()
            self.once_alive.clear()
        self.once_memo[content] = self.memo_size
        self.note_once(obj, self.memo_size)
        self.memo_size += 1
        return put1(&self.out, 0x94)

    cdef int note_once(self, object obj, uint32_t index) except -1:
        """Spares this object's own pickle the next time. The bytes do not depend on it, so it may be forgotten."""
        if len(self.once_alive) >= TEXT_MEMO:
            self.once_ids.clear()
            self.once_alive.clear()
        self.once_ids[<size_t> <void *> obj] = index
        self.once_alive.append(obj)
        return 0

    cdef int align_memo(self, Py_ssize_t items) except -1:
        if items >= MEMO_ALIGN_FROM:
            while self.memo_size % MEMO_ALIGN and self.memo_size != MEMO_FEW:
                self.memo_size += 1
                put1(&self.out, 0x94)
        return 0

    cdef int get_memo(self, uint32_t index) except -1:
        if index < 256:
            return put2(&self.out, b'h', <uint8_t> index)
        return put_int(&self.out, b'j', index, 4)

    # ---- dispatch -----------------------------------------------------------------

    cdef int save(self, object obj) except -1:
        return self.save_as(obj, 0)

    cdef int save_as(self, object obj, bint ours) except -1:
        """Write any object. ``ours``: it comes out of a container that a reducer has made and nobody else refers to. If
        that and the caller's variable are all that refers to it, nothing else leads here, so it need not be
        remembered, and may be freed with that container. How many references there are counts."""
        cdef int atom = self.save_atom(obj, ours)
        if atom:
            return 0
        return self.save_object(obj, ours)

    cdef int save_atom(self, object obj, bint ours) except -1:
        """Write an atom and return 1, or return 0. ``ours``: as of ``save_as``."""
        if obj is None:
            put1(&self.out, b'N')
        elif PyUnicode_CheckExact(obj):
            self.save_str(<str> obj, ours)
        elif PyLong_CheckExact(obj):
            put_integer(&self.out, obj)
        elif PyFloat_CheckExact(obj):
            put_double(&self.out, PyFloat_AS_DOUBLE(obj))
        elif obj is True or obj is False:
            put1(&self.out, 0x88 if obj is True else 0x89)
        elif PyBytes_CheckExact(obj):
            self.save_bytes(<bytes> obj, ours)
        else:
            return 0
        return 1

    cdef int save_object(self, object obj, bint ours) except -1:
        """Write what is no atom. ``ours``: as of ``save_as``."""
        cdef object kind = type(obj)
        cdef const mf_object_slot *known = object_slot(&self.memo, obj)
        if known != NULL:
            return self.get_memo(known.number)
        if self.out.used >= self.block:
            self.flush()
        mf_enter_recursion(b" while pickling an object")
        try:
            # The recursion limit may be set to anything, and what a level takes of the stack depends on the object.
            if mf_stack_here() < self.floor:
                self.floor = look_further(b"the object")
            ours = ours and Py_REFCNT(obj) <= 2
            if kind is tuple:
                return self.save_tuple(<tuple> obj, ours)
            if kind is list:
                put1(&self.out, b']')
                self.memoize(obj, ours)
                self.align_memo(len(obj))
                return self.append_items(<list> obj, ours)
            if kind is dict:
                put1(&self.out, b'}')
                self.memoize(obj, ours)
                self.align_memo(len(obj))
                return self.set_dict(<dict> obj, 1, ours)
            return self.save_other(obj, kind, ours and getweakrefcount(obj) == 0)
        finally:
            Py_LeaveRecursiveCall()

    cdef int save_other(self, object obj, object kind, bint ours) except -1:
        """``ours``: nobody else refers to it, if it is of a class of which that can be told."""
        cdef object reduced, reducer
        cdef bytes content = None
        cdef Kind its
        cdef const mf_object_slot *known
        if kind is set:
            put1(&self.out, 0x8f)
            self.memoize(obj, ours)
            if self.save_numbers(obj):
                return 0
            items = self.set_order(obj)
            for start in range(0, len(items), BATCH):
                put1(&self.out, b'(')
                self.save_each(items[start:start + BATCH])
                put1(&self.out, 0x90)
            return 0
        if kind is frozenset:
            put1(&self.out, b'(')
            self.save_each(self.set_order(obj))
            known = object_slot(&self.memo, obj)
            if known != NULL:
                put1(&self.out, b'1')
                return self.get_memo(known.number)
            put1(&self.out, 0x91)
            return self.memoize(obj, ours)
        if kind is bytearray:
            return self.save_bytearray(<bytearray> obj, ours)
        if kind is PickleBuffer:
            return self.save_picklebuffer(obj, ours)
        if kind is Payload:
            # A reducer's node: nobody else refers to it, and its memory need not outlive it.
            self.save_buffer((<Payload> obj).data, (<Payload> obj).itemsize, (<Payload> obj).row)
            return self.count_memo()
        if kind is Reduced:
            self.save((<Reduced> obj).func)
            self.save_arguments((<Reduced> obj).args, 1)
            put1(&self.out, b'R')
            return self.count_memo()
        if kind is Items:
            put1(&self.out, b']')
            self.count_memo()
            self.align_memo((<Items> obj).length)
            return self.append_parts((<Items> obj).parts, 1)

        its = self.kind_of(kind)
        ours = ours and its.counted
        if its.standing == ONCE and not (its.may_have_attributes and getattr(obj, "__dict__", None)):
            number = self.once_ids.get(<size_t> <void *> obj)
            if number is not None:
                return self.get_memo(number)
            if its.test is None or its.test(obj):
                # A digest, because the pickle of a dtype with many fields is long.
                content = sha256(self.value_pickle(obj)).digest()
                number = self.once_memo.get(content)
                if number is not None:
                    self.note_once(obj, number)
                    return self.get_memo(number)

        if its.reducer is not None:
            reduced = its.reducer(obj)
            if reduced is not NotImplemented:
                if type(reduced) is Reduced:
                    self.save(reduced)
                    # The node itself was memoised last; the object stands for it from now on.
                    return 0 if ours else self.remember(obj, self.memo_size - 1)
                return self.save_reduced(obj, reduced, content, ours)
        reducer = _copyreg_table.get(kind)
        if reducer is not None:
            return self.save_reduced(obj, reducer(obj), content, ours)
        if its.of_attributes and self.save_attributes(obj, kind, ours):
            return 0
        if its.a_class:
            if obj in _singletons:
                return self.save_reduce(type, (_singletons[obj],), None, None, None, None, obj, None, 0, 0)
            return self.save_global(obj, None)
        if kind is FunctionType:
            return self.save_global(obj, None)
        reduced = obj.__reduce_ex__(5)
        if isinstance(obj, (set, frozenset)) and kind.__reduce__ in _set_reduces and type(reduced) is tuple:
            # Their own way: the class, called with a list of the elements as they come.
            reduced = (reduced[0], (self.set_order(reduced[1][0]),), *reduced[2:])
        return self.save_reduced(obj, reduced, content, ours)

    cdef bint save_attributes(self, object obj, object kind, bint ours) except -1:
        """Write an instance as object.__reduce_ex__ would say, or return 0 because it has ways of its own."""
        cdef dict attributes = obj.__dict__
        if attributes and ("__reduce_ex__" in attributes or "__reduce__" in attributes or "__getstate__" in attributes):
            return 0
        try:
            self.save(kind)
            put2(&self.out, b')', 0x81)
        except BaseException:
            if self.trace:
                self.trace.append(f".<{_name(kind)}.__reduce__>")
            raise
        self.memoize(obj, ours)
        if attributes:
            self.save_state(attributes, ours)
            put1(&self.out, b'b')
        return 1

    cdef bint save_numbers(self, set obj) except -1:
        """Write the elements of a set of few numbers, or return 0 because it is none."""
        cdef int64_t values[FEW]
        cdef int64_t value
        cdef Py_ssize_t count = 0, at
        cdef int overflow = 0
        if not 0 < len(obj) <= FEW:
            return 0
        for item in obj:
            if not PyLong_CheckExact(item):
                return 0
            value = as_int64(item, &overflow)
            if overflow:
                return 0
            at = count
            while at > 0 and values[at - 1] > value:
                values[at] = values[at - 1]
                at -= 1
            values[at] = value
            count += 1
        put1(&self.out, b'(')
        for at in range(count):
            put_int64(&self.out, values[at])
        put1(&self.out, 0x90)
        return 1

    cdef int save_reduced(self, object obj, object reduced, bytes content, bint ours) except -1:
        if isinstance(reduced, str):
            return self.save_global(obj, reduced)
        if not isinstance(reduced, tuple):
            raise PicklingError(f"__reduce__ of {_name(type(obj))} must return a string or a tuple")
        n = len(reduced)
        # Its own code has run, and may have put it where others find it. A buffer is held by what is to be written.
        if ours and (getweakrefcount(obj) or (Py_REFCNT(obj) > 2 and not PyObject_CheckBuffer(obj))):
            ours = 0
        if not 2 <= n <= 6:
            raise PicklingError(f"__reduce__ of {_name(type(obj))} must return 2 to 6 elements, not {n}")
        return self.save_reduce(
            reduced[0], reduced[1], reduced[2] if n > 2 else None, reduced[3] if n > 3 else None,
            reduced[4] if n > 4 else None, reduced[5] if n > 5 else None, obj, content, Py_REFCNT(reduced) == 1,
            ours,
        )

    # ---- atoms --------------------------------------------------------------------

    cdef int save_str(self, str obj, bint ours) except -1:
        cdef Py_ssize_t n
        cdef const char *data
        cdef bint alone = ours and len(obj) >= LARGE and Py_REFCNT(obj) <= 2
        cdef object value = obj if len(obj) < LARGE else LargeValue(obj)
        cdef uint64_t hash = <uint64_t> PyObject_Hash(value)
        cdef mf_value_slot *known = value_slot(&self.text_memo, value, hash)
        if known != NULL:
            known.used_again = 1
            return self.get_memo(known.number)
        # A long text is passed on without a copy if it is ASCII; else it is encoded here, because asking for its UTF-8
        # would leave a copy of it inside the caller's string.
        encoded = None
        if len(obj) * 4 < OUT_OF_LINE or obj.isascii():
            try:
                data = PyUnicode_AsUTF8AndSize(obj, &n)
            except UnicodeEncodeError:
                encoded = PyUnicode_AsEncodedString(obj, b"utf-8", b"surrogatepass")
        else:
            encoded = encode_text(obj)
        if encoded is not None:
            data = PyBytes_AS_STRING(encoded)
            n = PyBytes_GET_SIZE(encoded)
        if n >= OUT_OF_LINE:
            self.payload(0x8d, 3, AsciiView(obj) if encoded is None else encoded, n, 1, 0)
        else:
            if n < 256:
                put2(&self.out, 0x8c, <uint8_t> n)
            else:
                put_int(&self.out, b'X', n, 4)
            self.put_raw(<const uint8_t *> data, n)
        self.remember_value(&self.text_memo, value, hash)
        return self.keep_alone(value, n) if alone else 0

    cdef int save_bytes(self, bytes obj, bint ours) except -1:
        cdef Py_ssize_t n = PyBytes_GET_SIZE(obj)
        cdef bint alone = ours and n >= LARGE and Py_REFCNT(obj) <= 2
        cdef object value = obj if n < LARGE else LargeValue(obj)
        cdef uint64_t hash = <uint64_t> PyObject_Hash(value)
        cdef mf_value_slot *known = value_slot(&self.bytes_memo, value, hash)
        if known != NULL:
            known.used_again = 1
            return self.get_memo(known.number)
        if n >= OUT_OF_LINE:
            self.payload(0x8e, 2, obj, n, 1, 0)
        else:
            if n < 256:
                put2(&self.out, b'C', <uint8_t> n)
            else:
                put_int(&self.out, b'B', n, 4)
            self.put_raw(<const uint8_t *> PyBytes_AS_STRING(obj), n)
        self.remember_value(&self.bytes_memo, value, hash)
        return self.keep_alone(value, n) if alone else 0

    cdef int save_bytearray(self, bytearray obj, bint ours) except -1:
        cdef size_t n = len(obj)
        if n >= OUT_OF_LINE:
            self.payload(0x96, 4, obj, n, 1, 0)
        else:
            put_int(&self.out, 0x96, n, 8)
            self.put_raw(<const uint8_t *> <char *> obj, n)
        return self.complete(obj, ours)

    cdef int save_picklebuffer(self, object obj, bint ours) except -1:
        view = memoryview(obj)
        if not view.contiguous:
            raise PicklingError("PickleBuffer can not be pickled when pointing to a non-contiguous buffer")
        if holds_addresses(view.format):
            raise PicklingError(f"a buffer with elements of format {view.format!r} holds addresses of this process")
        itemsize = view.itemsize
        row = 0
        if view.ndim > 1 and view.nbytes:
            row = view.nbytes // (view.shape[0] if view.c_contiguous else view.shape[view.ndim - 1])
        self.save_buffer(obj.raw(), itemsize, row)
        return self.complete(obj, ours)

    cdef int save_buffer(self, object data, itemsize, row) except -1:
        """Without a place in the memo."""
        cdef Py_buffer view
        cdef size_t n
        if not PyObject_CheckBuffer(data):
            n = data.nbytes
            return self.payload(0x96, 1, data, n, itemsize, row)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            n = view.len
            if n >= OUT_OF_LINE:
                self.payload(0x96, 1, data, n, itemsize, row)
            else:
                put_int(&self.out, 0x96, n, 8)
                self.put_raw(<const uint8_t *> view.buf, n)
        finally:
            PyBuffer_Release(&view)
        return 0

    # ---- containers ---------------------------------------------------------------

    cdef int save_each(self, object items) except -1:
        for item in items:
            try:
                self.save(item)
            except BaseException:
                self.trace.append("{...}")
                raise
        return 0

    cdef int save_arguments(self, tuple args, Py_ssize_t others) except -1:
        """As ``save``. Where nothing but ``others`` and the caller's variable refers to them, nothing ever will, so
        they are not remembered, and what is in them lives no longer than they."""
        if Py_REFCNT(args) > others + 1 or len(args) == 0:
            return self.save(args)
        if self.out.used >= self.block:
            self.flush()
        return self.save_tuple(args, 1)

    cdef int save_tuple(self, tuple obj, bint ours) except -1:
        """``ours``: nobody else refers to it."""
        cdef Py_ssize_t n = len(obj), i = 0
        cdef bint plain = n <= ATOM_TUPLE
        cdef list pinned
        cdef const mf_object_slot *known
        cdef object item
        if n == 0:
            return put1(&self.out, b')')
        if n > 3:
            put1(&self.out, b'(')
        try:
            while i < n and self.save_atom(obj[i], ours):
                i += 1
            if i < n:
                plain = 0
                # A tuple is memoised after its items, so an item may be reached again through the tuple itself: this
                # list is the further reference that makes `memoize` remember each of them.
                pinned = None if ours else list(obj)
                while i < n:
                    item = obj[i]
                    self.save_as(item, ours)
                    i += 1
        except BaseException:
            self.trace.append(f"[{i}]")
            raise
        if not plain and not ours:
            known = object_slot(&self.memo, obj)
            if known != NULL:
                # Recursive tuple: saving its items saved it. Drop the items, use that one.
                if n > 3:
                    put1(&self.out, b'1')
                else:
                    for i in range(n):
                        put1(&self.out, b'0')
                return self.get_memo(known.number)
        put1(&self.out, <uint8_t> (0x84 + n) if n <= 3 else <uint8_t> b't')
        if plain:
            return 0
        return self.count_memo() if ours else self.memoize(obj, 0)

    cdef int append_items(self, list items, bint ours) except -1:
        cdef Py_ssize_t index = 0, size = len(items)
        cdef object item
        if size > 1:
            put1(&self.out, b'(')
        try:
            while index < len(items):  # an item's __reduce__ may change the list
                if index and index % BATCH == 0:
                    put1(&self.out, b'e')
                    put1(&self.out, b'(')
                item = items[index]
                self.save_as(item, ours)
                index += 1
                if self.out.used >= self.block:
                    self.flush()
        except BaseException:
            self.trace.append(f"[{index}]")
            raise
        if index != size:
            raise RuntimeError("list changed size during iteration")
        if size:
            put1(&self.out, b'e' if size > 1 else b'a')
        return 0

    cdef int append_parts(self, object parts, bint ours) except -1:
        """As ``append_items`` of all that is in ``parts``, lists of BATCH items each but for the last one."""
        cdef Py_ssize_t index = 0
        cdef list part
        cdef object item
        try:
            for part in parts:
                if index:
                    put1(&self.out, b'e')
                if index or len(part) > 1:
                    put1(&self.out, b'(')
                for item in part:
                    self.save_as(item, ours)
                    index += 1
                    if self.out.used >= self.block:
                        self.flush()
        except BaseException:
            self.trace.append(f"[{index}]")
            raise
        if index:
            put1(&self.out, b'e' if index > 1 else b'a')
        return 0

    cdef int set_dict(self, dict obj, int style, bint ours) except -1:
        """``style`` 1: a dict, steps of a path are ``['k']``; 2: the state of an object, steps are ``.k``.

        Holds one reference to each value and no more (see ``memoize``).
        """
        cdef Py_ssize_t position = 0, done = 0, size = len(obj)
        cdef PyObject *key_at
        cdef PyObject *value_at
        cdef object key = None, value
        if size > 1:
            put1(&self.out, b'(')
        try:
            while len(obj) == size and PyDict_Next(obj, &position, &key_at, &value_at):
                key = <object> key_at
                value = <object> value_at
                if done and done % BATCH == 0:
                    put1(&self.out, b'u')
                    put1(&self.out, b'(')
                self.save_as(key, ours)
                self.save_as(value, ours)
                done += 1
                if self.out.used >= self.block:
                    self.flush()
        except BaseException:
            self.trace.append(step(key, style))
            raise
        if len(obj) != size:
            raise RuntimeError("dictionary changed size during iteration")
        if done != size:
            raise RuntimeError("dictionary changed during iteration")
        if size:
            put1(&self.out, b'u' if size > 1 else b's')
        return 0

    cdef int save_pair(self, object key, object value, int style) except -1:
        try:
            self.save(key)
            self.save(value)
            return 0
        except BaseException:
            self.trace.append(step(key, style))
            raise

    cdef Kind kind_of(self, object kind):
        """What is known of a class. Asked once for each."""
        cdef Kind its
        if kind is self.last_type:
            return self.last_kind
        known = self.kinds.get(kind)
        if known is None:
            its = Kind()
            if issubclass(kind, self.values):
                its.standing = VALUE
                for cls, test in self.once.items():
                    if issubclass(kind, cls):
                        its.standing = ONCE
                        its.test = test
            its.reducer = self.reducers.get(kind)
            its.a_class = issubclass(kind, type)
            its.counted = counts_references(kind, self.counted)
            its.may_have_attributes = any(["__dict__" in base.__dict__ for base in kind.__mro__])
            its.of_attributes = its.standing == OBJECT and is_of_attributes(kind)
            self.kinds[kind] = its
        else:
            its = <Kind> known
        self.last_type = kind
        self.last_kind = its
        return its

    cdef bint is_value(self, object obj) except -1:
        """An immutable value: two equal ones need not be one object. A subclass with attributes is not one."""
        cdef Kind its = self.kind_of(type(obj))
        return its.standing != OBJECT and not (its.may_have_attributes and getattr(obj, "__dict__", None))

    cdef object set_order(self, object items):
        """Elements of a set in an order that does not depend on hash seeds or history, where they have one."""
        cdef object kind = None, item
        for item in items:
            if kind is None:
                kind = type(item)
            elif type(item) is not kind:
                kind = None
                break
        if kind in _natural:
            return sorted(items)
        if self.order is None:
            self.order = ContentOrder(self.value_pickle, self.element_pickle)
        return self.order.sort(items)

    def value_pickle(self, item):
        """The pickle of one immutable value on its own, all values in it in full, or None for anything else."""
        if not self.is_value(item):
            return None
        joined = Joined()
        Pickler(joined, self.reducers, self.values).dump(item)
        return joined.all()

    def element_pickle(self, item, order):
        """The pickle of any object on its own, or None when it is long or cannot be made: what is wrong with it is told
        when it is its turn."""
        short = Short()
        try:
            Pickler(short, self.reducers, self.values, None, ELEMENT, order).dump(item)
            return short.all()
        except Exception:
            return None

    # ---- objects ------------------------------------------------------------------

    cdef int save_reduce(
        self, func, args, state, listitems, dictitems, state_setter, obj, bytes content, bint fresh, bint ours
    ) except -1:
        """``content``: of a value that is written once, the digest of its own pickle. ``fresh``: nobody else refers to
        the tuple that these came in; ``ours``: nor to ``obj``."""
        cdef const mf_object_slot *known
        if not isinstance(args, tuple):
            raise PicklingError(f"args from __reduce__ of {_name(type(obj))} must be a tuple")
        if not callable(func):
            raise PicklingError(f"func from __reduce__ of {_name(type(obj))} must be callable")
        # Of functions: to ask a class for its name takes longer than to write what it is called with.
        func_name = "" if type(func) is type else getattr(func, "__name__", "")
        try:
            if func_name == "__newobj_ex__":
                cls, new_args, kwargs = args
                self.check_new(cls, obj, func_name)
                self.save(cls)
                self.save(new_args)
                self.save(kwargs)
                put1(&self.out, 0x92)
            elif func_name == "__newobj__":
                cls = args[0]
                self.check_new(cls, obj, func_name)
                self.save(cls)
                self.save_arguments(args[1:], 0)
                put1(&self.out, 0x81)
            else:
                self.save(func)
                if fresh and type(args) is tuple:
                    # Cast, since a check of the type would hold one reference more.
                    self.save_arguments(<tuple> args, 1)
                else:
                    self.save(args)
                put1(&self.out, b'R')
        except BaseException:
            # The index is into the arguments of the reconstructor, not into the object.
            if self.trace:
                self.trace.append(f".<{_name(type(obj))}.__reduce__>")
            raise
        known = object_slot(&self.memo, obj)
        if known != NULL:
            # Recursive: pickling the arguments pickled the object.
            put1(&self.out, b'0')
            return self.get_memo(known.number)
        if content is not None:
            self.remember_once(obj, content)
        elif state_setter is None and self.is_value(obj):
            self.count_memo()
        elif state is None and listitems is None and dictitems is None:
            self.complete(obj, ours)
        else:
            # What sets the state is given the object, which is referred to for that.
            self.memoize(obj, ours and state_setter is None)
        if listitems is not None:
            self.append_parts(batches(listitems), 0)
        if dictitems is not None:
            for pairs in batches(dictitems):
                put1(&self.out, b'(')
                for key, value in pairs:
                    self.save_pair(key, value, 1)
                put1(&self.out, b'u')
        if state is not None:
            if state_setter is None:
                self.save_state(state, fresh)
                put1(&self.out, b'b')
            else:
                self.save(state_setter)
                self.save(obj)
                self.save(state)
                put1(&self.out, 0x86)
                put1(&self.out, b'R')
                put1(&self.out, b'0')
        return 0

    cdef int save_state(self, object state, bint ours) except -1:
        # A plain instance dict is written here, so that a failure inside reads `.attribute`.
        if type(state) is dict and object_slot(&self.memo, state) == NULL:
            ours = ours and Py_REFCNT(state) <= 2
            put1(&self.out, b'}')
            self.memoize(state, ours)
            return self.set_dict(<dict> state, 2, ours)
        return self.save_as(state, ours)

    cdef int check_new(self, cls, obj, name) except -1:
        if not isinstance(cls, type) and not hasattr(cls, "__new__"):
            raise PicklingError(f"first argument of {name}() must be a class")
        if cls is not obj.__class__:
            raise PicklingError(f"first argument of {name}() is not the class of the object")
        return 0

    cdef int save_global(self, object obj, object name) except -1:
        module, name = find_global(obj, name)
        self.save(module)
        self.save(name)
        put1(&self.out, 0x93)
        return self.memoize(obj, 0)


def batches(items):
    """What an iterator gives, in lists of BATCH."""
    items = iter(items)
    while part := list(islice(items, BATCH)):
        yield part


cdef str step(object key, int style):
    """A step of a path, of bounded length."""
    if style == 2 and type(key) is str:
        return f".{key[:80]}"
    return f"[{shown(key)}]"


cdef str shown(object key):
    """No code of the key's class runs, which might fail or go deeper still."""
    if type(key) is str or type(key) is bytes:
        return repr(key[:80])
    if type(key) in _atoms and (type(key) is not int or key.bit_length() < 256):
        return repr(key)
    if type(key) is tuple and len(key) < ATOM_TUPLE:
        return f"({', '.join(['(...)' if type(part) is tuple else shown(part) for part in key])})"
    return f"<{_name(type(key))}>"


cdef str _name(object cls):
    return f"{cls.__module__}.{cls.__qualname__}"
