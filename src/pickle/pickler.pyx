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

import os
from copyreg import dispatch_table as _copyreg_table
from hashlib import sha256
from itertools import islice
from pickle import PickleBuffer, PicklingError
from types import FunctionType, GetSetDescriptorType, MethodDescriptorType
from weakref import getweakrefcount

from mfstore._core.graph import ContentOrder, counts_references, find_global, holds_addresses, is_from_all, is_plain
from mfstore._core.memory import AsciiView, LargeValue, encode_text

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_STRIDES, Py_buffer, PyBuffer_IsContiguous, PyBuffer_Release, PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.datetime cimport (
    datetime_tzinfo, import_datetime, time_tzinfo, timedelta_days, timedelta_microseconds, timedelta_seconds,
)
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.object cimport PyObject, PyTypeObject
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from memo cimport (
    PyObject_Hash, add_note, add_object, add_value, clear_objects, clear_values, drop_notes, keep_referenced,
    mf_notes, mf_object_slot, mf_objects, mf_value, mf_values, mf_values_first, mf_values_next, move_notes, object_slot,
    value_of,
)
from stack cimport Py_LeaveRecursiveCall, look_further, mf_enter_recursion, mf_stack_first_look, mf_stack_here
from output cimport (
    INT64, Output, mf_digit, mf_is_digit, put1, put2, put_int, put_int64, put_integer, put_raw, reserve, write_double,
    write_int64,
)


cdef extern from *:
    """
    /* Whether a value, which may stand for a text, is a text equal to this one. */
    static inline int mf_same_text(PyObject *value, PyObject *text) {
        return value == text
            || (PyUnicode_CheckExact(value) && PyUnicode_GET_LENGTH(value) == PyUnicode_GET_LENGTH(text)
                && PyUnicode_KIND(value) == PyUnicode_KIND(text)
                && memcmp(PyUnicode_DATA(value), PyUnicode_DATA(text),
                          (size_t) PyUnicode_GET_LENGTH(text) * PyUnicode_KIND(text)) == 0);
    }

    static inline Py_ssize_t mf_dict_size(PyObject *mapping) { return ((PyDictObject *) mapping)->ma_used; }

    static inline size_t mf_recent_place(const void *text, size_t places) {
        uintptr_t at = (uintptr_t) text >> 4;
        return (size_t) (at ^ at >> 7) & (places - 1);
    }

    /* The elements of a set of `most` or fewer in ascending order, and how many there are; 0 if there are more, or
     * anything but ints that 64 bits hold. */
    static Py_ssize_t mf_set_numbers(PyObject *set, int64_t *values, Py_ssize_t most) {
    #ifdef Py_GIL_DISABLED
        (void) set; (void) values; (void) most;
        return 0;
    #else
        const PySetObject *its = (const PySetObject *) set;
        Py_ssize_t count = 0;
        if (its->used > most)
            return 0;
        for (Py_ssize_t slot = 0; slot <= its->mask && count < its->used; slot++) {
            PyObject *key = its->table[slot].key;
            int overflow = 0;
            int64_t value;
            Py_ssize_t at = count;
            /* A hash is never -1: that is where an element was. */
            if (key == NULL || its->table[slot].hash == -1)
                continue;
            if (!PyLong_CheckExact(key))
                return 0;
            value = mf_as_int64(key, &overflow);
            if (overflow)
                return 0;
            for (; at > 0 && values[at - 1] > value; at--)
                values[at] = values[at - 1];
            values[at] = value;
            count++;
        }
        return count;
    #endif
    }

    /* As __reduce_ex__ of these classes in C says. */
    static PyObject *mf_date_state(PyObject *date) {
        return PyBytes_FromStringAndSize((const char *) ((PyDateTime_Date *) date)->data, _PyDateTime_DATE_DATASIZE);
    }

    static PyObject *mf_datetime_state(PyObject *when) {
        const char *data = (const char *) ((PyDateTime_DateTime *) when)->data;
        PyObject *state = PyBytes_FromStringAndSize(data, _PyDateTime_DATETIME_DATASIZE);
        if (state != NULL && PyDateTime_DATE_GET_FOLD(when))
            PyBytes_AS_STRING(state)[2] |= (char) 0x80;
        return state;
    }

    static PyObject *mf_time_state(PyObject *when) {
        const char *data = (const char *) ((PyDateTime_Time *) when)->data;
        PyObject *state = PyBytes_FromStringAndSize(data, _PyDateTime_TIME_DATASIZE);
        if (state != NULL && PyDateTime_TIME_GET_FOLD(when))
            PyBytes_AS_STRING(state)[0] |= (char) 0x80;
        return state;
    }
    """
    bint mf_same_text(PyObject *value, PyObject *text)
    Py_ssize_t mf_dict_size(dict mapping)
    size_t mf_recent_place(const void *text, size_t places)
    Py_ssize_t mf_set_numbers(PyObject *set, int64_t *values, Py_ssize_t most)
    bytes mf_date_state(object date)
    bytes mf_datetime_state(object when)
    bytes mf_time_state(object when)


cdef extern from "xxhash.h":
    uint64_t XXH3_64bits_withSeed(const void *data, size_t n, uint64_t seed)


cdef extern from "memory/utf8.h":
    size_t mf_utf8_length(const void *text, size_t n, int width)
    void mf_utf8_encode(const void *text, size_t n, int width, uint8_t *to)


cdef extern from "Python.h":
    PyTypeObject PyUnicode_Type, PyLong_Type, PyFloat_Type, PyBytes_Type
    PyTypeObject *Py_TYPE(PyObject *value)
    Py_ssize_t Py_REFCNT(object value)
    bint PyDict_CheckExact(PyObject *value)
    int PyDict_Next(object mapping, Py_ssize_t *position, PyObject **key, PyObject **value)
    PyObject *PyList_GET_ITEM(list items, Py_ssize_t index)
    Py_ssize_t PyList_GET_SIZE(list items)
    PyObject *PyTuple_GET_ITEM(tuple items, Py_ssize_t index)
    void Py_XDECREF(PyObject *value)
    PyObject *Py_None
    PyObject *Py_True
    PyObject *Py_False
    const void *PyUnicode_DATA(PyObject *text)
    int PyUnicode_KIND(PyObject *text)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject *text)
    bint PyUnicode_IS_ASCII(PyObject *text)


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

# One MARK ... APPENDS per this many items, a power of two: the unpickler's stack holds a batch (512 KiB of
# pointers), and each boundary is a place where an insertion shifts the stream.
cdef enum:
    BATCH = 65536

LIST_PART = BATCH

# Tuples up to this length made of atoms are written again rather than shared by identity:
# the compiler merges equal constants, so identity there says nothing about content.
cdef enum:
    ATOM_TUPLE = 8

# Once this many objects are noted (8 MiB of addresses and numbers), the graph is looked through; if it is plain (see
# is_plain), objects reached once are no longer noted. That reads the whole graph once more, so it is put off until the
# notes take as much memory as the table did that they are there to spare.
cdef enum:
    PLAIN_CHECK = 524288

# What has been met of the graph so far. As long as no code but Python's and ours has run, an object that one container
# refers to is not met again (see Pickler.memoize).
cdef enum:
    QUIET = 0
    PLAIN = 1
    FOREIGN = 2

# How an object was reached.
cdef enum:
    OURS = 1
    # Out of a container that a reducer has made, and that nobody else refers to.
    AGAIN = 2
    # Out of a tuple that has no number yet, and may be met again through its own items.

# The last texts that were referred to are found by their address: keys of records, mostly. A power of two.
cdef enum:
    RECENT = 128

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

# Nobody is to choose texts of one hash.
cdef uint64_t _seed = int.from_bytes(os.urandom(8), "little")

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

# Ways of Pickler.save_shortly.
cdef enum:
    DATETIME = 1
    DATE = 2
    TIME = 3
    TIMEDELTA = 4
    DECIMAL = 5
    ARRAY = 6

cdef object _short_ways = {
    ("datetime", "datetime"): DATETIME, ("datetime", "date"): DATE, ("datetime", "time"): TIME,
    ("datetime", "timedelta"): TIMEDELTA, ("decimal", "Decimal"): DECIMAL,
}


cdef int short_way_of(object kind) except -1:
    """Of the classes in C; those in Python, which take their place where these are missing, go the long way."""
    cdef int way = _short_ways.get((kind.__module__, kind.__qualname__), 0)
    if not way or type(kind.__dict__.get("__reduce__")) is not MethodDescriptorType:
        return 0
    if way != DECIMAL:
        import_datetime()
    return way


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

    cdef object kind
    cdef int64_t number
    # In the memo; -1: it has none yet.
    cdef int standing
    # OBJECT, VALUE or ONCE.
    cdef int short_way
    # How Pickler.save_shortly writes its instances; 0: not at all.
    cdef object test
    # Says of which instances ONCE is so.
    cdef object reducer, dispatched
    # The pickler's own, and what copyreg says.
    cdef bint quiet
    # Whether no code but Python's and ours runs when an instance is written.
    cdef bint of_attributes
    # Whether object.__reduce_ex__ would say of its instances: the class, and the attributes if there are any.
    cdef bint a_class
    # Whether its instances are classes.
    cdef bint may_have_attributes
    cdef bint counted
    # Whether all there is that leads to an instance is counted as a reference to it.

    def __cinit__(self, kind):
        self.kind = kind
        self.number = -1
        self.standing = OBJECT
        self.short_way = 0
        self.quiet = self.of_attributes = self.a_class = self.counted = False
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


@cython.final
cdef class Arrays:
    """What the pickler writes without a reducer, as that would say, as a call of ``build``: arrays of class ``kind``
    and of dtypes of which ``is_plain(dtype)``."""

    cdef readonly object kind, build, is_plain

    def __init__(self, kind, build, is_plain):
        self.kind = kind
        self.build = build
        self.is_plain = is_plain


cdef struct Recent:
    PyObject *text  # A reference, or NULL.
    uint32_t number


@cython.final
cdef class Pickler:
    """``Pickler(sink, reducers).dump(obj)`` writes one object.

    ``sink.body(bytes)`` receives the body in blocks, in order; ``sink.payload(kind, data,
    itemsize, row, at)`` each large payload, where ``at`` is the body length so far. Payload
    memory is the object's own: the sink must be done with it, or hold a reference, on return.
    Instances of ``values`` (a tuple of classes) are immutable values: whether two equal ones are
    one object says nothing about content. They are written in full each time, those of ``once``
    the first time, and afterwards by reference. ``once`` maps some of these classes to None, or to
    ``callable(obj)`` that says of which instances this is so.
    ``reducers.get(type)``, as of a mapping, is None or ``callable(obj)`` giving ``NotImplemented`` (pickle it the
    usual way), a ``Reduced`` node, or the tuple or string of ``__reduce__``.
    ``arrays`` says which arrays are written without their reducer.
    ``counted`` are names of modules whose classes in C own what they refer to, by counted references. What nobody but
    the pickler refers to, because a reducer has made it, lives no longer than it takes to write it, if it is of these
    classes or of Python's own.
    ``modules`` gets the module of each class and function that the pickle refers to; of those that the program itself
    defines with their names, as ``__main__:Model``.
    After a failure, ``path()`` says where in the object it happened.
    """

    cdef object sink, reducers, values, root, order, last_type, last_once, last_dtype
    cdef uint32_t last_once_number
    cdef bint last_dtype_is_plain
    cdef Arrays arrays
    cdef Kind last_kind
    cdef int phase
    # QUIET, PLAIN or FOREIGN.
    cdef dict once, once_memo, once_ids, kinds
    cdef list once_alive, trace, alone, modules
    cdef size_t alone_bytes
    cdef frozenset counted
    cdef mf_objects memo
    cdef mf_notes notes
    cdef mf_values text_memo, bytes_memo
    cdef Recent *recent
    # NULL until a text is referred to.
    cdef Output out
    cdef size_t block
    cdef uint64_t flushed
    cdef uint32_t memo_size
    cdef uintptr_t floor

    def __cinit__(
        self, sink, reducers=None, tuple values=(), dict once=None, size_t block=1 << 20, order=None,
        frozenset counted=frozenset(), Arrays arrays=None, list modules=None,
    ):
        self.sink = sink
        self.modules = modules
        self.values = values
        self.once = {} if once is None else once
        self.phase = QUIET
        self.order = order
        self.reducers = {} if reducers is None else reducers
        memset(&self.memo, 0, sizeof(self.memo))
        memset(&self.notes, 0, sizeof(self.notes))
        self.recent = NULL
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
        self.arrays = arrays
        self.last_once = self.last_dtype = None
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
        self.forget_recent()
        PyMem_Free(self.recent)
        drop_notes(&self.notes)
        clear_objects(&self.memo)
        clear_values(&self.text_memo)
        clear_values(&self.bytes_memo)

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

    cdef inline int memoize(self, object obj, int how) except -1:
        # Two references are the caller's variable and at most one container. While all that runs is Python's code and
        # ours, no other path leads here, and nothing need be remembered. So it is in what is ours (see ``save_as``).
        # Code of other classes may lead anywhere: what has been written until it runs is noted, and remembered then.
        # The opcode is written all the same: the bytes do not depend on counts.
        if Py_REFCNT(obj) > 2 or how & AGAIN or (self.phase == FOREIGN and not how & OURS):
            add_object(&self.memo, obj, self.memo_size)
        elif self.phase == QUIET and not how & OURS:
            self.note(obj, self.memo_size)
        return self.count_memo()

    cdef int note(self, object obj, uint32_t number) except -1:
        add_note(&self.notes, obj, number)
        if self.notes.used == PLAIN_CHECK:
            if is_plain(self.root):
                self.phase = PLAIN
                drop_notes(&self.notes)
            else:
                self.foreign()
        return 0

    cdef int foreign(self) except -1:
        """To be called before code of a class runs that may lead to what has been written."""
        if self.phase == QUIET:
            move_notes(&self.notes, &self.memo)
            self.phase = FOREIGN
        return 0

    cdef int complete(self, object obj, int how) except -1:
        """As ``memoize``, after all of it has been written. References that there are more of by now, as of a sink to a
        buffer, lead nobody here."""
        return self.count_memo() if how & OURS else self.memoize(obj, how)

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
            self.forget_recent()
            keep_referenced(memo, TEXT_KEPT)
        add_value(memo, value, hash, self.memo_size)
        self.memo_size += 1
        return put1(&self.out, 0x94)

    cdef void forget_recent(self) noexcept:
        cdef Py_ssize_t at
        if self.recent != NULL:
            for at in range(RECENT):
                Py_XDECREF(self.recent[at].text)
            memset(self.recent, 0, RECENT * sizeof(Recent))

    cdef int note_recent(self, PyObject *text, uint32_t number) except -1:
        """Of a text that is remembered and was referred to: until others are forgotten, nothing else is asked of it."""
        cdef Recent *place
        if self.recent == NULL:
            self.recent = <Recent *> PyMem_Malloc(RECENT * sizeof(Recent))
            if self.recent == NULL:
                raise MemoryError()
            memset(self.recent, 0, RECENT * sizeof(Recent))
        place = &self.recent[mf_recent_place(text, RECENT)]
        Py_INCREF(<object> text)
        Py_XDECREF(place.text)
        place.text = text
        place.number = number
        return 0

    cdef inline int count_memo(self) except -1:
        """As ``memoize`` of what nothing else refers to."""
        self.memo_size += 1
        return put1(&self.out, 0x94)

    cdef int remember_once(self, object obj, bytes content) except -1:
        if len(self.once_memo) >= TEXT_MEMO:
            self.once_memo.clear()
            self.once_ids.clear()
            self.once_alive.clear()
            self.last_once = None
        self.once_memo[content] = self.memo_size
        self.note_once(obj, self.memo_size)
        self.memo_size += 1
        return put1(&self.out, 0x94)

    cdef int note_once(self, object obj, uint32_t index) except -1:
        """Spares this object's own pickle the next time. The bytes do not depend on it, so it may be forgotten."""
        if len(self.once_alive) >= TEXT_MEMO:
            self.once_ids.clear()
            self.once_alive.clear()
            self.last_once = None
        self.once_ids[<size_t> <void *> obj] = index
        self.once_alive.append(obj)
        return 0

    cdef int save_once(self, object obj) except -1:
        """As ``save`` of a value that is written once, most often the same as the last one."""
        if obj is self.last_once:
            return self.get_memo(self.last_once_number)
        self.save(obj)
        number = self.once_ids.get(<size_t> <void *> obj)
        if number is not None:
            self.last_once = obj
            self.last_once_number = number
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

    cdef int save_as(self, object obj, int how) except -1:
        """Write any object. ``how``: OURS if it comes out of a container that a reducer has made and nobody else refers
        to. If that and the caller's variable are all that refers to it, nothing else leads here, so it need not be
        remembered, and may be freed with that container. AGAIN if it may be met again, whatever refers to it. How many
        references there are counts."""
        if self.save_atom(<PyObject *> obj, how):
            return 0
        return self.save_object(obj, how)

    cdef inline int save_item(self, PyObject *item, int how) except -1:
        """As ``save_as`` of what a container holds a reference to, and the caller none. Whoever is called may take it
        out of there."""
        cdef object obj
        if self.save_atom(item, how):
            return 0
        obj = <object> item
        return self.save_object(obj, how)

    cdef int save_atom(self, PyObject *obj, int how) except -1:
        """Write an atom and return 1, or return 0. Runs no code: the sink's turn is later. ``how``: as of
        ``save_as``."""
        cdef PyTypeObject *kind = Py_TYPE(obj)
        cdef uint8_t *to
        if kind == &PyUnicode_Type:
            self.save_text(obj, how)
            return 1
        reserve(&self.out, INT64)
        to = self.out.data + self.out.used
        if kind == &PyLong_Type:
            if mf_is_digit(obj):
                self.out.used = write_int64(to, mf_digit(obj)) - self.out.data
            else:
                self.save_integer(<object> obj)
        elif kind == &PyFloat_Type:
            self.out.used = write_double(to, PyFloat_AS_DOUBLE(<object> obj)) - self.out.data
        elif obj == Py_None:
            to[0] = b'N'
            self.out.used += 1
        elif obj == Py_True:
            to[0] = 0x88
            self.out.used += 1
        elif obj == Py_False:
            to[0] = 0x89
            self.out.used += 1
        elif kind == &PyBytes_Type:
            self.save_bytes(<bytes> obj, how)
        else:
            return 0
        return 1

    cdef int save_integer(self, object number) except -1:
        # Apart, since what it takes of the stack makes save_atom twice as long for all others. Held meanwhile: its
        # container may be all that does, and to make anything may start a search for cycles.
        cdef object held = number
        return put_integer(&self.out, held)

    cdef int save_object(self, object obj, int how) except -1:
        """Write what is no atom. ``how``: as of ``save_as``."""
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
            if how & OURS and Py_REFCNT(obj) > 2:
                how &= ~OURS
            if kind is tuple:
                return self.save_tuple(<tuple> obj, how)
            if kind is list:
                put1(&self.out, b']')
                self.memoize(obj, how)
                self.align_memo(PyList_GET_SIZE(<list> obj))
                return self.append_items(<list> obj, how & OURS)
            if kind is dict:
                put1(&self.out, b'}')
                self.memoize(obj, how)
                self.align_memo(len(<dict> obj))
                return self.set_dict(<dict> obj, 1, how & OURS)
            if how & OURS and getweakrefcount(obj):
                how &= ~OURS
            return self.save_other(obj, kind, how)
        finally:
            Py_LeaveRecursiveCall()

    cdef int save_other(self, object obj, object kind, int how) except -1:
        """``how`` is OURS: nobody else refers to it, if it is of a class of which that can be told."""
        cdef object reduced
        cdef bytes content = None
        cdef Kind its
        cdef const mf_object_slot *known
        if kind is set:
            put1(&self.out, 0x8f)
            self.memoize(obj, how)
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
            return self.memoize(obj, how)
        if kind is bytearray:
            return self.save_bytearray(<bytearray> obj, how)
        if kind is PickleBuffer:
            return self.save_picklebuffer(obj, how)
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
            return self.append_parts((<Items> obj).parts, OURS)

        its = self.kind_of(kind)
        if its.short_way == ARRAY:
            if self.save_array(obj, how):
                return 0
        elif its.short_way:
            return self.save_shortly(obj, its)
        if not its.quiet:
            self.foreign()
        if not its.counted:
            how &= ~OURS
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
                    return 0 if how & OURS else add_object(&self.memo, obj, self.memo_size - 1)
                return self.save_reduced(obj, reduced, content, how)
        if its.dispatched is not None:
            return self.save_reduced(obj, its.dispatched(obj), content, how)
        if its.of_attributes and self.save_attributes(obj, its, how):
            return 0
        if its.a_class:
            if obj in _singletons:
                return self.save_reduce(type, (_singletons[obj],), None, None, None, None, obj, None, 0, 0)
            return self.save_global(obj, None)
        if kind is FunctionType:
            return self.save_global(obj, None)
        if its.of_attributes:
            self.foreign()
        reduced = obj.__reduce_ex__(5)
        if isinstance(obj, (set, frozenset)) and kind.__reduce__ in _set_reduces and type(reduced) is tuple:
            # Their own way: the class, called with a list of the elements as they come.
            reduced = (reduced[0], (self.set_order(reduced[1][0]),), *reduced[2:])
        return self.save_reduced(obj, reduced, content, how)

    cdef bint save_attributes(self, object obj, Kind its, int how) except -1:
        """Write an instance as object.__reduce_ex__ would say, or return 0 because it has ways of its own."""
        cdef dict attributes = <dict> obj.__dict__
        if not PyDict_CheckExact(<PyObject *> attributes):
            return 0
        if attributes and ("__reduce_ex__" in attributes or "__reduce__" in attributes or "__getstate__" in attributes):
            return 0
        try:
            self.save_class(its)
            put2(&self.out, b')', 0x81)
        except BaseException:
            if self.trace:
                self.trace.append(f".<{_name(its.kind)}.__reduce__>")
            raise
        self.memoize(obj, how)
        if attributes:
            self.save_state(attributes, how & OURS)
            put1(&self.out, b'b')
        return 1

    cdef int save_class(self, Kind its) except -1:
        """Write the class itself."""
        cdef const mf_object_slot *known
        if its.number >= 0:
            return self.get_memo(<uint32_t> its.number)
        self.save(its.kind)
        known = object_slot(&self.memo, its.kind)
        if known != NULL:
            its.number = known.number
        return 0

    cdef int save_shortly(self, object obj, Kind its) except -1:
        """Write a value of a class of Python's own as its __reduce_ex__ would say, without making the tuples."""
        self.save_class(its)
        if its.short_way == DECIMAL:
            text = str(obj)
            self.save_text(<PyObject *> text, OURS)
            put1(&self.out, 0x85)
        elif its.short_way == TIMEDELTA:
            put_int64(&self.out, timedelta_days(obj))
            put_int64(&self.out, timedelta_seconds(obj))
            put_int64(&self.out, timedelta_microseconds(obj))
            put1(&self.out, 0x87)
        elif its.short_way == DATE:
            self.save_bytes(mf_date_state(obj), OURS)
            put1(&self.out, 0x85)
        else:
            self.save_bytes(mf_datetime_state(obj) if its.short_way == DATETIME else mf_time_state(obj), OURS)
            zone = datetime_tzinfo(obj) if its.short_way == DATETIME else time_tzinfo(obj)
            if zone is None:
                put1(&self.out, 0x85)
            else:
                try:
                    self.save_once(zone)
                except BaseException:
                    self.trace += ["[1]", f".<{_name(its.kind)}.__reduce__>"]
                    raise
                put2(&self.out, 0x86, 0x94)
                self.memo_size += 1
        put1(&self.out, b'R')
        return self.count_memo()

    cdef bint save_array(self, object obj, int how) except -1:
        """Write an array of numbers that lies in one piece and in the body, or return 0 because it is none."""
        cdef object dtype = obj.dtype
        cdef Py_buffer view
        cdef bint by_rows
        cdef Py_ssize_t at
        if dtype is not self.last_dtype:
            self.last_dtype_is_plain = self.arrays.is_plain(dtype)
            self.last_dtype = dtype
        if not self.last_dtype_is_plain:
            return 0
        PyObject_GetBuffer(obj, &view, PyBUF_STRIDES)
        try:
            by_rows = PyBuffer_IsContiguous(&view, b'C')
            if not (0 < view.len < OUT_OF_LINE and view.ndim <= ATOM_TUPLE):
                return 0
            if not by_rows and not PyBuffer_IsContiguous(&view, b'F'):
                return 0
            self.save(self.arrays.build)
            put1(&self.out, b'(')
            put_int(&self.out, 0x96, view.len, 8)
            self.put_raw(<const uint8_t *> view.buf, view.len)
            self.count_memo()
            self.save_once(dtype)
            if view.ndim > 3:
                put1(&self.out, b'(')
            for at in range(view.ndim):
                put_int64(&self.out, view.shape[at])
            put1(&self.out, b't' if view.ndim > 3 else <uint8_t> (0x84 + view.ndim) if view.ndim else b')')
        finally:
            PyBuffer_Release(&view)
        order = "C" if by_rows else "F"
        self.save_text(<PyObject *> order, 0)
        put2(&self.out, b't', 0x94)
        self.memo_size += 1
        put1(&self.out, b'R')
        self.memoize(obj, how)
        return 1

    cdef bint save_numbers(self, set obj) except -1:
        """Write the elements of a set of few numbers, or return 0 because it is none."""
        cdef int64_t values[FEW]
        cdef Py_ssize_t count = mf_set_numbers(<PyObject *> obj, values, FEW), at
        cdef uint8_t *end
        if count <= 0:
            return 0
        reserve(&self.out, 2 + INT64 * count)
        end = self.out.data + self.out.used
        end[0] = b'('
        end += 1
        for at in range(count):
            end = write_int64(end, values[at])
        end[0] = 0x90
        self.out.used = end + 1 - self.out.data
        return 1

    cdef int save_reduced(self, object obj, object reduced, bytes content, int how) except -1:
        if isinstance(reduced, str):
            return self.save_global(obj, reduced)
        if not isinstance(reduced, tuple):
            raise PicklingError(f"__reduce__ of {_name(type(obj))} must return a string or a tuple")
        n = len(reduced)
        # Its own code has run, and may have put it where others find it. A buffer is held by what is to be written.
        if how & OURS and (getweakrefcount(obj) or (Py_REFCNT(obj) > 2 and not PyObject_CheckBuffer(obj))):
            how &= ~OURS
        if not 2 <= n <= 6:
            raise PicklingError(f"__reduce__ of {_name(type(obj))} must return 2 to 6 elements, not {n}")
        return self.save_reduce(
            reduced[0], reduced[1], reduced[2] if n > 2 else None, reduced[3] if n > 3 else None,
            reduced[4] if n > 4 else None, reduced[5] if n > 5 else None, obj, content, Py_REFCNT(reduced) == 1,
            how,
        )

    # ---- atoms --------------------------------------------------------------------

    cdef int save_text(self, PyObject *obj, int how) except -1:
        cdef const Recent *place
        cdef size_t n
        cdef uint64_t hash
        cdef size_t at
        cdef mf_value *known
        cdef Py_ssize_t characters = PyUnicode_GET_LENGTH(obj)
        cdef uint8_t *to
        if self.recent != NULL:
            place = &self.recent[mf_recent_place(obj, RECENT)]
            if place.text == obj:
                return self.get_memo(place.number)
        if characters >= LARGE:
            return self.save_long_text(<str> obj, how)
        # Its own hash takes three times as many instructions, unless it has been asked for before.
        hash = XXH3_64bits_withSeed(PyUnicode_DATA(obj), characters * PyUnicode_KIND(obj), _seed)
        at = mf_values_first(hash)
        known = mf_values_next(&self.text_memo, hash, &at)
        while known != NULL and not mf_same_text(<PyObject *> known.key, obj):
            known = mf_values_next(&self.text_memo, hash, &at)
        if known != NULL:
            known.used_again = 1
            if Py_REFCNT(<object> obj) > 2:
                self.note_recent(obj, known.number)
            return self.get_memo(known.number)
        if PyUnicode_IS_ASCII(obj):
            n = characters
        else:
            n = mf_utf8_length(PyUnicode_DATA(obj), characters, PyUnicode_KIND(obj))
        reserve(&self.out, 5 + n)
        to = self.out.data + self.out.used
        if n < 256:
            to[0] = 0x8c
            to[1] = <uint8_t> n
            to += 2
        else:
            put_int(&self.out, b'X', n, 4)
            to += 5
            self.out.used -= 5
        if PyUnicode_IS_ASCII(obj):
            memcpy(to, PyUnicode_DATA(obj), n)
        else:
            mf_utf8_encode(PyUnicode_DATA(obj), characters, PyUnicode_KIND(obj), to)
        self.out.used = to + n - self.out.data
        return self.remember_value(&self.text_memo, <object> obj, hash)

    cdef int save_long_text(self, str obj, int how) except -1:
        cdef Py_ssize_t n
        cdef const char *data
        cdef bint alone = how & OURS and Py_REFCNT(obj) <= 2
        # Held from here on: its container may be all that does, and to make anything may start a search for cycles.
        cdef object value = obj
        cdef uint64_t hash
        cdef mf_value *known
        cdef bytes encoded = None
        value = LargeValue(value)
        hash = <uint64_t> PyObject_Hash(value)
        known = value_of(&self.text_memo, value, hash)
        if known != NULL:
            known.used_again = 1
            return self.get_memo(known.number)
        # A long text is passed on without a copy if it is ASCII; else it is encoded here, because asking for its UTF-8
        # would leave a copy of it inside the caller's string.
        if obj.isascii():
            data = <const char *> PyUnicode_DATA(<PyObject *> obj)
            n = len(obj)
        else:
            encoded = encode_text(obj)
            data = PyBytes_AS_STRING(encoded)
            n = PyBytes_GET_SIZE(encoded)
        if n >= OUT_OF_LINE:
            self.payload(0x8d, 3, AsciiView(obj) if encoded is None else encoded, n, 1, 0)
        else:
            put_int(&self.out, b'X', n, 4)
            put_raw(&self.out, <const uint8_t *> data, n)
        self.remember_value(&self.text_memo, value, hash)
        return self.keep_alone(value, n) if alone else 0

    cdef int save_bytes(self, bytes obj, int how) except -1:
        cdef Py_ssize_t n = PyBytes_GET_SIZE(obj)
        cdef bint alone = how & OURS and n >= LARGE and Py_REFCNT(obj) <= 2
        cdef object value = obj
        cdef uint64_t hash
        cdef mf_value *known
        if n < LARGE:
            hash = XXH3_64bits_withSeed(PyBytes_AS_STRING(obj), n, _seed)
        else:
            value = LargeValue(obj)
            hash = <uint64_t> PyObject_Hash(value)
        known = value_of(&self.bytes_memo, value, hash)
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
            put_raw(&self.out, <const uint8_t *> PyBytes_AS_STRING(obj), n)
        self.remember_value(&self.bytes_memo, value, hash)
        return self.keep_alone(value, n) if alone else 0

    cdef int save_bytearray(self, bytearray obj, int how) except -1:
        cdef size_t n = len(obj)
        if n >= OUT_OF_LINE:
            self.payload(0x96, 4, obj, n, 1, 0)
        else:
            put_int(&self.out, 0x96, n, 8)
            self.put_raw(<const uint8_t *> <char *> obj, n)
        return self.complete(obj, how)

    cdef int save_picklebuffer(self, object obj, int how) except -1:
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
        return self.complete(obj, how)

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
        return self.save_tuple(args, OURS)

    cdef int save_tuple(self, tuple obj, int how) except -1:
        """``how`` is OURS: nobody else refers to it."""
        cdef Py_ssize_t n = len(obj), i = 0
        cdef bint plain = n <= ATOM_TUPLE
        # It is memoised after its items: they may be reached again through it, if more leads to it than what led here.
        cdef bint again = not how & OURS and (how & AGAIN or Py_REFCNT(obj) > 2)
        cdef const mf_object_slot *known
        if n == 0:
            return put1(&self.out, b')')
        if n > 3:
            put1(&self.out, b'(')
        try:
            while i < n and self.save_atom(PyTuple_GET_ITEM(obj, i), how & OURS):
                i += 1
            if i < n:
                plain = 0
                while i < n:
                    self.save_item(PyTuple_GET_ITEM(obj, i), AGAIN if again else how & OURS)
                    i += 1
        except BaseException:
            self.trace.append(f"[{i}]")
            raise
        if not plain and (again or self.phase == FOREIGN) and not how & OURS:
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
        return 0 if plain else self.complete(obj, how)

    cdef int append_items(self, list items, int how) except -1:
        cdef Py_ssize_t index = 0, size = len(items)
        if size > 1:
            put1(&self.out, b'(')
        try:
            while index < PyList_GET_SIZE(items):  # an item's __reduce__ may change the list
                if index and index & (BATCH - 1) == 0:
                    put1(&self.out, b'e')
                    put1(&self.out, b'(')
                self.save_item(PyList_GET_ITEM(items, index), how)
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

    cdef int append_parts(self, object parts, int how) except -1:
        """As ``append_items`` of all that is in ``parts``, lists of BATCH items each but for the last one."""
        cdef Py_ssize_t index = 0, at
        cdef list part
        try:
            for part in parts:
                if index:
                    put1(&self.out, b'e')
                if index or len(part) > 1:
                    put1(&self.out, b'(')
                for at in range(len(part)):
                    self.save_item(PyList_GET_ITEM(part, at), how)
                    index += 1
                    if self.out.used >= self.block:
                        self.flush()
        except BaseException:
            self.trace.append(f"[{index}]")
            raise
        if index:
            put1(&self.out, b'e' if index > 1 else b'a')
        return 0

    cdef int set_dict(self, dict obj, int style, int how) except -1:
        """``style`` 1: a dict, steps of a path are ``['k']``; 2: the state of an object, steps are ``.k``.

        Holds one reference to each key and value and no more (see ``memoize``).
        """
        cdef Py_ssize_t position = 0, done = 0, size = mf_dict_size(obj)
        cdef PyObject *key_at
        cdef PyObject *value_at
        cdef object key = None, value
        if size > 1:
            put1(&self.out, b'(')
        try:
            while mf_dict_size(obj) == size and PyDict_Next(obj, &position, &key_at, &value_at):
                key = <object> key_at
                if done and done & (BATCH - 1) == 0:
                    put1(&self.out, b'u')
                    put1(&self.out, b'(')
                if is_brief(key_at):
                    self.save_atom(key_at, how)
                    self.save_item(value_at, how)
                else:
                    # While the key is written, others may take the value out of the dict.
                    value = <object> value_at
                    self.save_as(key, how)
                    self.save_as(value, how)
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
            its = Kind(kind)
            if issubclass(kind, self.values):
                its.standing = VALUE
                for cls, test in self.once.items():
                    if issubclass(kind, cls):
                        its.standing = ONCE
                        its.test = test
            its.reducer = self.reducers.get(kind)
            its.dispatched = _copyreg_table.get(kind)
            its.a_class = issubclass(kind, type)
            its.counted = counts_references(kind, self.counted)
            its.may_have_attributes = any(["__dict__" in base.__dict__ for base in kind.__mro__])
            its.of_attributes = its.standing == OBJECT and is_of_attributes(kind)
            if self.arrays is not None and kind is self.arrays.kind:
                its.short_way = ARRAY
            if its.dispatched is None:
                its.quiet = its.of_attributes or kind is type or kind is FunctionType or (
                    not kind.__flags__ & MADE_BY_CLASS and is_from_all(kind, self.counted))
                if its.reducer is None and its.standing == VALUE:
                    its.short_way = short_way_of(kind)
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
        self, func, args, state, listitems, dictitems, state_setter, obj, bytes content, bint fresh, int how
    ) except -1:
        """``content``: of a value that is written once, the digest of its own pickle. ``fresh``: nobody else refers to
        the tuple that these came in; ``how`` is OURS: nor to ``obj``."""
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
            self.complete(obj, how)
        else:
            # What sets the state is given the object, which is referred to for that.
            self.memoize(obj, how if state_setter is None else how & ~OURS)
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
                self.save_state(state, OURS if fresh else 0)
                put1(&self.out, b'b')
            else:
                self.save(state_setter)
                self.save(obj)
                self.save(state)
                put1(&self.out, 0x86)
                put1(&self.out, b'R')
                put1(&self.out, b'0')
        return 0

    cdef int save_state(self, object state, int how) except -1:
        # A plain instance dict is written here, so that a failure inside reads `.attribute`.
        if type(state) is dict and object_slot(&self.memo, state) == NULL:
            if how & OURS and Py_REFCNT(state) > 2:
                how = 0
            put1(&self.out, b'}')
            self.memoize(state, how)
            return self.set_dict(<dict> state, 2, how)
        return self.save_as(state, how)

    cdef int check_new(self, cls, obj, name) except -1:
        if not isinstance(cls, type) and not hasattr(cls, "__new__"):
            raise PicklingError(f"first argument of {name}() must be a class")
        if cls is not obj.__class__:
            raise PicklingError(f"first argument of {name}() is not the class of the object")
        return 0

    cdef int save_global(self, object obj, object name) except -1:
        module, name = find_global(obj, name)
        if self.modules is not None:
            self.modules.append(f"{module}:{name}" if module in _main else module)
        self.save(module)
        self.save(name)
        put1(&self.out, 0x93)
        return self.memoize(obj, 0)


cdef tuple _main = ("__main__", "__mp_main__")


cdef inline bint is_brief(PyObject *key) noexcept:
    """Whether it is an atom that is written while nobody else runs: no sink, and no search for cycles."""
    if Py_TYPE(key) == &PyUnicode_Type:
        return PyUnicode_GET_LENGTH(key) < LARGE
    return Py_TYPE(key) == &PyLong_Type and mf_is_digit(key)


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
