# cython: language_level=3, boundscheck=False, wraparound=False
"""Reads what this core's pickler writes, as CPython's unpickler does, in less time and memory.

CPython's remembers whatever a pickle memoizes until the end, and the canonical pickle memoizes nearly everything. Here
the pickle is looked through first (``scan``): what it does not refer to again is not remembered, and what it does no
longer than to the last time. The texts and arguments that an object is made of are freed once it is made, so that the
next ones lie in the same memory, and a class that copies what it is given takes no memory twice.

Pickles with other opcodes are told before anything is made of them: they are left to CPython.
"""

from pickle import UnpicklingError

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.datetime cimport PyDateTime_CAPI, PyDateTimeAPI, import_datetime
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset


cdef extern from "memory/little_endian.h" nogil:
    uint32_t mf_load_32(const uint8_t *data)
    uint64_t mf_load_64(const uint8_t *data)


cdef extern from "memory/utf8.h" nogil:
    int mf_utf8_measure(const uint8_t *data, size_t n, size_t *characters, uint32_t *largest)
    void mf_utf8_decode(const uint8_t *data, size_t n, void *to, int width)


cdef extern from "pickle/scan.h" nogil:
    ctypedef enum mf_pickle_found:
        MF_PICKLE_GOES_ON
        MF_PICKLE_CUT
        MF_PICKLE_ENDS
        MF_PICKLE_OTHER
        MF_PICKLE_NO_MEMORY

    ctypedef struct mf_pickle_scan:
        uint32_t *counts
        size_t room
        uint64_t memo

    mf_pickle_found mf_scan_pickle(mf_pickle_scan *scan, const uint8_t *data, size_t n)


# By pointers, so that each reference is given away and taken as this file says, and none is counted in between.
cdef extern from "Python.h":
    PyObject *Py_None
    PyObject *Py_True
    PyObject *Py_False
    PyObject *PyBytes_FromStringAndSize(const char *data, Py_ssize_t n) except NULL
    PyObject *PyByteArray_FromStringAndSize(const char *data, Py_ssize_t n) except NULL
    PyObject *PyDict_New() except NULL
    PyObject *PyFloat_FromDouble(double value) except NULL
    PyObject *PyFrozenSet_New(PyObject *items) except NULL
    PyObject *PyList_New(Py_ssize_t n) except NULL
    PyObject *PyLong_FromLong(long value) except NULL
    PyObject *PyLong_FromLongLong(long long value) except NULL
    PyObject *PyObject_Call(PyObject *function, PyObject *args, PyObject *kwargs) except NULL
    PyObject *PyObject_Vectorcall(PyObject *function, PyObject **args, size_t n, PyObject *names) except NULL
    PyObject *PySet_New(PyObject *items) except NULL
    PyObject *PyTuple_New(Py_ssize_t n) except NULL
    PyObject *PyUnicode_DecodeUTF8(const char *data, Py_ssize_t n, const char *errors) except NULL
    PyObject *PyUnicode_FromOrdinal(int character) except NULL
    PyObject *PyUnicode_New(Py_ssize_t n, uint32_t largest) except NULL
    bint PyByteArray_CheckExact(PyObject *value)
    bint PyBytes_CheckExact(PyObject *value)
    bint PyDict_Check(PyObject *value)
    bint PyDict_CheckExact(PyObject *value)
    bint PyList_CheckExact(PyObject *value)
    bint PyLong_CheckExact(PyObject *value)
    bint PySet_Check(PyObject *value)
    bint PyTuple_Check(PyObject *value)
    bint PyTuple_CheckExact(PyObject *value)
    bint PyType_Check(PyObject *value)
    bint PyUnicode_CheckExact(PyObject *value)
    char *PyBytes_AS_STRING(PyObject *value)
    Py_ssize_t PyBytes_GET_SIZE(PyObject *value)
    Py_ssize_t PyByteArray_GET_SIZE(PyObject *value)
    Py_ssize_t PyDict_GET_SIZE(PyObject *value)
    Py_ssize_t PyList_GET_SIZE(PyObject *value)
    Py_ssize_t PyTuple_GET_SIZE(PyObject *value)
    PyObject *PyTuple_GET_ITEM(PyObject *value, Py_ssize_t at)
    PyObject *PyList_GET_ITEM(PyObject *value, Py_ssize_t at)
    void PyList_SET_ITEM(PyObject *value, Py_ssize_t at, PyObject *item)
    void PyTuple_SET_ITEM(PyObject *value, Py_ssize_t at, PyObject *item)
    void *PyUnicode_DATA(PyObject *value)
    int PyUnicode_KIND(PyObject *value)
    int PyDict_Next(PyObject *mapping, Py_ssize_t *position, PyObject **key, PyObject **value)
    int PyDict_SetItem(PyObject *mapping, PyObject *key, PyObject *value) except -1
    int PyList_Append(PyObject *value, PyObject *item) except -1
    int PyList_SetSlice(PyObject *value, Py_ssize_t low, Py_ssize_t high, PyObject *items) except -1
    int PyObject_GenericSetAttr(PyObject *value, PyObject *name, PyObject *attribute) except -1
    int PyObject_SetAttr(PyObject *value, PyObject *name, PyObject *attribute) except -1
    int PyObject_SetItem(PyObject *value, PyObject *key, PyObject *item) except -1
    int PySet_Add(PyObject *value, PyObject *item) except -1
    long PyLong_AsLong(PyObject *value) except? -1
    void PyUnicode_InternInPlace(PyObject **value)
    int PyErr_CheckSignals() except -1
    void PyObject_GC_UnTrack(PyObject *value)
    void Py_INCREF(PyObject *value)
    void Py_DECREF(PyObject *value)
    PyTypeObject *Py_TYPE(PyObject *value)
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    Py_ssize_t PY_SSIZE_T_MAX


cdef extern from *:
    """
    /* Whether whoever asks holds the only reference. Without a GIL that is not told. */
    static inline int mf_is_mine(PyObject *value) {
    #ifdef Py_GIL_DISABLED
        (void) value;
        return 0;
    #else
        return Py_REFCNT(value) == 1;
    #endif
    }

    /* An attribute, or NULL without an error where there is none. */
    static inline int mf_find_attribute(PyObject *value, PyObject *name, PyObject **found) {
    #if PY_VERSION_HEX >= 0x030d0000
        return PyObject_GetOptionalAttr(value, name, found) < 0 ? -1 : 0;
    #else
        return _PyObject_LookupAttr(value, name, found) < 0 ? -1 : 0;
    #endif
    }

    /* A dict with room for so many items. */
    static inline PyObject *mf_roomy_dict(Py_ssize_t n) {
    #if PY_VERSION_HEX >= 0x030d0000
        (void) n;
        return PyDict_New();
    #else
        return _PyDict_NewPresized(n);
    #endif
    }

    /* Whether the attributes of an instance lie in a dict of its own that nothing of its class stands before. */
    static int mf_has_plain_dict(PyTypeObject *type, PyObject *dict_name) {
        PyObject *descriptor = _PyType_Lookup(type, dict_name);
        return type->tp_getattro == PyObject_GenericGetAttr && type->tp_dictoffset != 0 && descriptor != NULL
               && Py_TYPE(descriptor) == &PyGetSetDescr_Type;
    }

    /* Whether what is written to that dict by this name is what the attribute is set to. */
    static inline int mf_is_plain_name(PyTypeObject *type, PyObject *name) {
        PyObject *descriptor = _PyType_Lookup(type, name);
        return descriptor == NULL || Py_TYPE(descriptor)->tp_descr_set == NULL;
    }

    /* Whether such an instance has a dict and no subclass of it, or none yet: its constructor may have given it any.
     * The values of a new instance lie without a dict; to ask for it would make one. */
    static inline int mf_is_usual_dict(PyObject *value) {
        PyObject **place;
        PyObject *attributes;
    #if !defined(Py_GIL_DISABLED) && PY_VERSION_HEX < 0x030f0000
        if (PyType_HasFeature(Py_TYPE(value), Py_TPFLAGS_MANAGED_DICT)) {
            attributes = ((PyObject **) value)[-3];
            return attributes == NULL || ((uintptr_t) attributes & 1) || PyDict_CheckExact(attributes);
        }
    #endif
        place = _PyObject_GetDictPtr(value);
        attributes = place == NULL ? NULL : *place;
        return attributes == NULL || PyDict_CheckExact(attributes);
    }

    /* Whether no search for cycles need ever look into it. */
    static inline int mf_leads_nowhere(PyObject *value) {
        return !PyType_IS_GC(Py_TYPE(value)) || (PyTuple_CheckExact(value) && !PyObject_GC_IsTracked(value));
    }

    static inline int mf_is_new(PyTypeObject *type) { return type->tp_new != NULL; }
    static inline PyObject *mf_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
        return type->tp_new(type, args, kwargs);
    }
    static inline unsigned mf_version(PyTypeObject *type) { return (unsigned) type->tp_version_tag; }
    """
    bint mf_is_mine(PyObject *value)
    int mf_find_attribute(PyObject *value, PyObject *name, PyObject **found) except -1
    PyObject *mf_roomy_dict(Py_ssize_t n) except NULL
    bint mf_has_plain_dict(PyTypeObject *type, PyObject *dict_name)
    bint mf_is_plain_name(PyTypeObject *type, PyObject *name)
    bint mf_is_usual_dict(PyObject *value)
    bint mf_leads_nowhere(PyObject *value)
    bint mf_is_new(PyTypeObject *type)
    PyObject *mf_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) except NULL
    unsigned int mf_version(PyTypeObject *type)


# Opcodes (pickletools describes each).
cdef enum:
    STOP = 0x2e
    MARK = 0x28
    POP = 0x30
    POP_MARK = 0x31
    NONE = 0x4e
    NEWTRUE = 0x88
    NEWFALSE = 0x89
    BININT = 0x4a
    BININT1 = 0x4b
    BININT2 = 0x4d
    LONG1 = 0x8a
    LONG4 = 0x8b
    BINFLOAT = 0x47
    SHORT_BINUNICODE = 0x8c
    BINUNICODE = 0x58
    BINUNICODE8 = 0x8d
    SHORT_BINBYTES = 0x43
    BINBYTES = 0x42
    BINBYTES8 = 0x8e
    BYTEARRAY8 = 0x96
    NEXT_BUFFER = 0x97
    EMPTY_LIST = 0x5d
    APPEND = 0x61
    APPENDS = 0x65
    EMPTY_DICT = 0x7d
    SETITEM = 0x73
    SETITEMS = 0x75
    EMPTY_SET = 0x8f
    ADDITEMS = 0x90
    FROZENSET = 0x91
    EMPTY_TUPLE = 0x29
    TUPLE = 0x74
    TUPLE1 = 0x85
    TUPLE2 = 0x86
    TUPLE3 = 0x87
    REDUCE = 0x52
    BUILD = 0x62
    NEWOBJ = 0x81
    NEWOBJ_EX = 0x92
    STACK_GLOBAL = 0x93
    MEMOIZE = 0x94
    BINGET = 0x68
    LONG_BINGET = 0x6a

# Bytes of a pickle between two looks at what others want: signals, and threads that wait for the GIL. A MiB of numbers
# and short texts takes 15 ms.
cdef enum:
    TURN = 262144

# Up to so many items are appended one by one to a list that something else refers to: cheaper than a list of them.
cdef enum:
    FEW = 8

# Attributes of an instance, at most, that are set without a dict in between.
cdef enum:
    ATTRIBUTES = 64

# Texts of fewer bytes that are not ASCII are left to CPython, which knows those of one character that all share.
cdef enum:
    SHORT = 8

cdef str _setstate = "__setstate__"
cdef str _dict = "__dict__"
cdef str _extend = "extend"
cdef str _append = "append"
cdef str _add = "add"
cdef tuple _nothing = ()


cdef inline PyObject *shared(PyObject *value) noexcept:
    Py_INCREF(value)
    return value


cdef PyObject *wide_text(const uint8_t *data, size_t n) except NULL:
    """A text that is not ASCII."""
    cdef size_t count = 0
    cdef uint32_t largest = 0
    cdef PyObject *made
    if n < SHORT or mf_utf8_measure(data, n, &count, &largest) < 0:
        return PyUnicode_DecodeUTF8(<const char *> data, n, b"surrogatepass")
    made = PyUnicode_New(count, largest)
    mf_utf8_decode(data, n, PyUnicode_DATA(made), PyUnicode_KIND(made))
    return made


cdef inline PyObject *text(const uint8_t *data, size_t n) except NULL:
    cdef uint64_t seen = 0
    cdef size_t at = 0
    cdef PyObject *made
    if n == 1 and data[0] < 0x80:
        return PyUnicode_FromOrdinal(data[0])
    while at + 8 <= n:
        seen |= mf_load_64(data + at)
        at += 8
    while at < n:
        seen |= data[at]
        at += 1
    if seen & <uint64_t> 0x8080808080808080:
        return wide_text(data, n)
    made = PyUnicode_New(n, 127)
    memcpy(PyUnicode_DATA(made), data, n)
    return made


cdef PyObject *integer(const uint8_t *data, size_t n) except NULL:
    """An integer of any length, the lowest byte first, the highest bit its sign."""
    cdef uint64_t value
    cdef size_t at
    if n > 8:
        found = int.from_bytes(data[:n], "little", signed=True)
        return shared(<PyObject *> found)
    value = <uint64_t> -1 if n and data[n - 1] & 0x80 else 0
    for at in range(n):
        value = value << 8 | data[n - 1 - at]
    return PyLong_FromLongLong(<int64_t> value)


cdef inline PyObject *number(const uint8_t *data) except NULL:
    """A float, the highest byte first."""
    cdef uint64_t bits = mf_load_64(data)
    cdef double value
    bits = (bits & <uint64_t> 0x00ff00ff00ff00ff) << 8 | (bits >> 8 & <uint64_t> 0x00ff00ff00ff00ff)
    bits = (bits & <uint64_t> 0x0000ffff0000ffff) << 16 | (bits >> 16 & <uint64_t> 0x0000ffff0000ffff)
    bits = bits << 32 | bits >> 32
    memcpy(&value, &bits, 8)
    return PyFloat_FromDouble(value)


cdef int underflow() except -1:
    raise UnpicklingError("unpickling stack underflow")


# What is remembered of a pickle that was looked through: the entries of the memo that are referred to and no others.
# So those of records with many texts between them lie together. mf_pickle_scan.counts has become the number of each,
# from 1 on.
cdef struct Entry:
    PyObject *value
    uint32_t left
    # How often it is still referred to.


# The last names of attributes, each at the place that its address says.
cdef enum:
    NAMES = 64

cdef struct Name:
    PyObject *name
    PyObject *interned


@cython.final
cdef class Unpickler:
    """Reads one pickle of protocol 5, once.

    ``finder()`` gives, when it is first needed, what finds a global: ``callable(module, name)``. ``buffers`` gives what
    stands for each buffer that lies elsewhere (NEXT_BUFFER). ``rebuild`` says of a function that was found whether it
    is the one that rebuilds an array from ``(buffer, dtype, shape, order)``: then it returns what makes a flat one of
    ``(buffer, dtype)``, which is asked instead where the shape says no more. It returns None of any other.

    First ``looks_through`` or ``begins``, which say whether the pickle is to be read here; then ``load``.
    """

    cdef object finder, find, buffers, rebuild, pieces
    cdef const uint8_t *at
    cdef const uint8_t *limit
    # Where the next look at others is due.
    cdef const uint8_t *end
    cdef Py_buffer view
    cdef bint viewed, scanned, begun
    cdef uint8_t *joined
    # An argument that lies in several pieces.
    cdef size_t joined_room
    cdef PyObject **stack
    cdef size_t used, room, fence
    # Below the fence lies what is outside of the last mark.
    cdef size_t *marks
    cdef size_t marks_used, marks_room
    cdef Entry *memo
    cdef size_t memo_room
    cdef uint64_t memo_used
    cdef Name names[NAMES]
    cdef mf_pickle_scan scan
    cdef PyDateTime_CAPI *dates
    # NULL until something of datetime was found.
    cdef object rebuilds, makes_flat, flat_dtype
    cdef Py_ssize_t flat_item
    # Bytes of an item of flat_dtype, or 0 where an array is to be rebuilt as the pickle says.
    cdef object plain_kind
    cdef unsigned int plain_version
    # The class of instances whose attributes were last set, if they lie in a dict and nothing else.

    def __cinit__(self, finder, buffers=None, rebuild=None):
        self.finder = finder
        self.buffers = None if buffers is None else iter(buffers)
        self.rebuild = rebuild
        memset(&self.scan, 0, sizeof(self.scan))
        memset(self.names, 0, sizeof(self.names))

    def __dealloc__(self):
        cdef size_t at
        for at in range(self.used):
            Py_DECREF(self.stack[at])
        if self.memo != NULL:
            for at in range(self.memo_room):
                if self.memo[at].value != NULL:
                    Py_DECREF(self.memo[at].value)
        for at in range(NAMES):
            if self.names[at].name != NULL:
                Py_DECREF(self.names[at].name)
                Py_DECREF(self.names[at].interned)
        if self.viewed:
            PyBuffer_Release(&self.view)
        PyMem_Free(self.stack)
        PyMem_Free(self.marks)
        PyMem_Free(self.memo)
        PyMem_Free(self.joined)
        free(self.scan.counts)

    def looks_through(self, pieces):
        """Whether the pickle that is all of ``pieces``, each of which ends between opcodes, has those of this core's
        pickler alone. Afterwards ``load`` knows what it need not remember."""
        cdef Py_buffer view
        cdef mf_pickle_found found = MF_PICKLE_GOES_ON
        cdef size_t start = 2
        for piece in pieces:
            PyObject_GetBuffer(piece, &view, PyBUF_SIMPLE)
            try:
                if start and not is_protocol_5(<const uint8_t *> view.buf, view.len):
                    return False
                with nogil:
                    found = mf_scan_pickle(&self.scan, <const uint8_t *> view.buf + start, view.len - start)
            finally:
                PyBuffer_Release(&view)
            start = 0
            if found != MF_PICKLE_GOES_ON:
                break
        if found == MF_PICKLE_NO_MEMORY:
            raise MemoryError()
        if found != MF_PICKLE_ENDS:
            return False
        self.number_entries()
        return True

    def begins(self, piece):
        """Whether a pickle that begins with ``piece`` has the opcodes of this core's pickler so far."""
        cdef Py_buffer view
        cdef mf_pickle_scan scan
        cdef mf_pickle_found found = MF_PICKLE_OTHER
        memset(&scan, 0, sizeof(scan))
        PyObject_GetBuffer(piece, &view, PyBUF_SIMPLE)
        try:
            if is_protocol_5(<const uint8_t *> view.buf, view.len):
                with nogil:
                    found = mf_scan_pickle(&scan, <const uint8_t *> view.buf + 2, view.len - 2)
        finally:
            free(scan.counts)
            PyBuffer_Release(&view)
        if found == MF_PICKLE_NO_MEMORY:
            raise MemoryError()
        return found != MF_PICKLE_OTHER

    def load(self, pieces):
        """The object. UnpicklingError when the pickle is damaged, EOFError when it ends too soon; what else the classes
        in it raise. Of ``pieces`` none is held once it is read."""
        if self.begun:
            raise RuntimeError("an Unpickler reads one pickle")
        self.begun = True
        self.pieces = iter(pieces)
        try:
            self.take(2)
            return self.run()
        finally:
            # The traceback of an error holds this, in a cycle mostly. A view whose memory is still asked for when a
            # collection clears it can only complain.
            self.leave_piece()
            self.pieces = None

    # ---- input --------------------------------------------------------------------

    cdef int leave_piece(self) except -1:
        self.at = self.limit = self.end = NULL
        if self.viewed:
            self.viewed = False
            PyBuffer_Release(&self.view)
        return 0

    cdef bint next_piece(self) except -1:
        """Go on to the next piece, of what has been read to its end; 0: there is none."""
        self.leave_piece()
        for piece in self.pieces:
            PyObject_GetBuffer(piece, &self.view, PyBUF_SIMPLE)
            self.viewed = True
            if self.view.len == 0:
                self.viewed = False
                PyBuffer_Release(&self.view)
                continue
            self.at = <const uint8_t *> self.view.buf
            self.end = self.at + self.view.len
            self.limit = self.at + min(<size_t> self.view.len, <size_t> TURN)
            return 1
        return 0

    cdef int turn(self) except -1:
        """Let others have theirs: handlers of signals, and threads."""
        PyErr_CheckSignals()
        with nogil:
            pass
        return 0

    cdef int more(self) except -1:
        """Something to read the next opcode from. EOFError when there is nothing."""
        if self.at < self.end:
            self.turn()
            self.limit = self.at + min(<size_t> (self.end - self.at), <size_t> TURN)
        elif not self.next_piece():
            raise EOFError("Ran out of input")
        return 0

    cdef inline const uint8_t *take(self, uint64_t n) except NULL:
        """The next ``n`` bytes, which hold until more is taken."""
        cdef const uint8_t *here = self.at
        if n > <size_t> (self.limit - here):
            return self.take_further(n)
        self.at = here + n
        return here

    cdef const uint8_t *take_further(self, uint64_t n) except NULL:
        cdef const uint8_t *here = self.at
        cdef size_t have = self.end - here, part
        if here != NULL and n <= have:
            self.turn()
            self.at = here + n
            self.limit = self.at + min(<size_t> (self.end - self.at), <size_t> TURN)
            return here
        # No more room than there are bytes, whatever the pickle says.
        have = 0
        while True:
            part = min(n - have, <uint64_t> (self.end - self.at))
            if part:
                self.room_to_join(have + part)
                memcpy(self.joined + have, self.at, part)
                self.at += part
                have += part
            if have == n:
                self.limit = self.at + min(<size_t> (self.end - self.at), <size_t> TURN)
                return self.joined
            if not self.next_piece():
                raise UnpicklingError("pickle data was truncated")

    cdef int room_to_join(self, size_t n) except -1:
        cdef uint8_t *grown
        if n > self.joined_room or self.joined == NULL:
            grown = <uint8_t *> PyMem_Realloc(self.joined, n)
            if grown == NULL:
                raise MemoryError()
            self.joined = grown
            self.joined_room = n
        return 0

    cdef inline bint comes(self, uint8_t opcode) noexcept:
        return self.at != self.limit and self.at[0] == opcode

    # ---- stack --------------------------------------------------------------------

    cdef int more_room(self, PyObject *value) except -1:
        cdef size_t room = self.room * 2 if self.room else 256
        cdef PyObject **grown = <PyObject **> PyMem_Realloc(self.stack, room * sizeof(PyObject *))
        if grown == NULL:
            Py_DECREF(value)
            raise MemoryError()
        self.stack = grown
        self.room = room
        return 0

    cdef inline int push(self, PyObject *value) except -1:
        """Takes the caller's reference over."""
        if self.used == self.room:
            self.more_room(value)
        self.stack[self.used] = value
        self.used += 1
        return 0

    cdef inline int needs(self, size_t n) except -1:
        """There are ``n`` values within the last mark."""
        if self.used - self.fence < n:
            underflow()
        return 0

    cdef inline PyObject *pop(self) except NULL:
        """The caller's, from now on."""
        if self.used == self.fence:
            underflow()
        self.used -= 1
        return self.stack[self.used]

    cdef inline void drop_to(self, size_t used) noexcept:
        """Forget what lies above."""
        while self.used > used:
            self.used -= 1
            Py_DECREF(self.stack[self.used])

    cdef int mark(self) except -1:
        cdef size_t room
        cdef size_t *grown
        if self.marks_used == self.marks_room:
            room = self.marks_room * 2 if self.marks_room else 32
            grown = <size_t *> PyMem_Realloc(self.marks, room * sizeof(size_t))
            if grown == NULL:
                raise MemoryError()
            self.marks = grown
            self.marks_room = room
        self.marks[self.marks_used] = self.fence = self.used
        self.marks_used += 1
        return 0

    cdef inline size_t pop_mark(self) except? 0:
        """Where the last mark is. It is none any longer."""
        if self.marks_used == 0:
            raise UnpicklingError("could not find MARK")
        self.marks_used -= 1
        self.fence = self.marks[self.marks_used - 1] if self.marks_used else 0
        return self.marks[self.marks_used]

    cdef size_t container(self) except? 0:
        """Where the last mark is, below which lies what is to get the values above it."""
        cdef size_t first = self.pop_mark()
        if first <= self.fence:
            underflow()
        return first

    # ---- memo ---------------------------------------------------------------------

    cdef int number_entries(self) except -1:
        cdef size_t entry, wanted = 0
        for entry in range(self.scan.room):
            wanted += self.scan.counts[entry] != 0
        self.memo = <Entry *> PyMem_Calloc(wanted, sizeof(Entry))
        if self.memo == NULL:
            raise MemoryError()
        self.memo_room = wanted
        wanted = 0
        for entry in range(self.scan.room):
            if self.scan.counts[entry]:
                self.memo[wanted].left = self.scan.counts[entry]
                wanted += 1
                self.scan.counts[entry] = wanted
        self.scanned = True
        return 0

    cdef inline bint is_wanted(self) noexcept:
        """Whether the next entry of the memo will be referred to."""
        return not self.scanned or (self.memo_used < self.scan.room and self.scan.counts[self.memo_used] != 0)

    cdef inline int memoize(self) except -1:
        if self.used == self.fence:
            underflow()
        if self.is_wanted():
            self.remember(self.stack[self.used - 1])
        self.memo_used += 1
        return 0

    cdef int remember(self, PyObject *value) except -1:
        cdef size_t room
        cdef Entry *grown
        if self.scanned:
            self.memo[self.scan.counts[self.memo_used] - 1].value = shared(value)
            return 0
        if self.memo_used >= self.memo_room:
            room = self.memo_room * 2 if self.memo_room else 1024
            grown = <Entry *> PyMem_Realloc(self.memo, room * sizeof(Entry))
            if grown == NULL:
                raise MemoryError()
            memset(grown + self.memo_room, 0, (room - self.memo_room) * sizeof(Entry))
            self.memo = grown
            self.memo_room = room
        self.memo[self.memo_used].value = shared(value)
        return 0

    cdef inline int get(self, size_t entry) except -1:
        cdef Entry *known = NULL
        cdef PyObject *value
        if not self.scanned:
            if entry < self.memo_room:
                known = &self.memo[entry]
        elif entry < self.scan.room and self.scan.counts[entry]:
            known = &self.memo[self.scan.counts[entry] - 1]
        if known == NULL or known.value == NULL:
            raise UnpicklingError(f"Memo value not found at index {entry}")
        value = known.value
        if self.scanned:
            known.left -= 1
            if known.left == 0:
                # The memo's reference goes over.
                known.value = NULL
                return self.push(value)
        return self.push(shared(value))

    # ---- containers ---------------------------------------------------------------

    cdef PyObject *tuple_from(self, size_t first) except NULL:
        cdef size_t n = self.used - first, at
        cdef PyObject *made
        cdef bint leads_nowhere = True
        if n == 0:
            return shared(<PyObject *> _nothing)
        made = PyTuple_New(n)
        for at in range(n):
            PyTuple_SET_ITEM(made, at, self.stack[first + at])
            leads_nowhere = leads_nowhere and mf_leads_nowhere(self.stack[first + at])
        self.used = first
        if leads_nowhere:
            # The first search for cycles would do so, after it has gone through all of them.
            PyObject_GC_UnTrack(made)
        return made

    cdef PyObject *list_from(self, size_t first) except NULL:
        cdef size_t n = self.used - first, at
        cdef PyObject *made = PyList_New(n)
        for at in range(n):
            PyList_SET_ITEM(made, at, self.stack[first + at])
        self.used = first
        return made

    cdef int append_from(self, size_t first) except -1:
        """The values from ``first`` on, to the list below them."""
        cdef PyObject *target = self.stack[first - 1]
        cdef PyObject *items
        cdef Py_ssize_t size
        cdef size_t n = self.used - first, at
        if n == 0:
            return 0
        if not PyList_CheckExact(target):
            return self.append_to_other(first)
        if PyList_GET_SIZE(target) == 0 and mf_is_mine(target):
            # Nobody can tell another list of the right length from this one.
            items = self.list_from(first)
            self.stack[first - 1] = items
            Py_DECREF(target)
            return 0
        if n <= FEW:
            for at in range(n):
                PyList_Append(target, self.stack[first + at])
            self.drop_to(first)
            return 0
        # Room by a list of None: to append a list of the items would count two references more to each, which lie in no
        # cache any longer.
        items = PyList_New(n)
        for at in range(n):
            PyList_SET_ITEM(items, at, shared(Py_None))
        # Not sooner: to make a list may start a search for cycles, and that anybody's code.
        size = PyList_GET_SIZE(target)
        try:
            PyList_SetSlice(target, size, size, items)
        finally:
            Py_DECREF(items)
        for at in range(n):
            Py_DECREF(PyList_GET_ITEM(target, size + at))
            PyList_SET_ITEM(target, size + at, self.stack[first + at])
        self.used = first
        return 0

    cdef int append_to_other(self, size_t first) except -1:
        target = <object> self.stack[first - 1]
        items = pop_reference(self.list_from(first))
        extend = getattr(target, _extend, None)
        if extend is not None:
            extend(items)
            return 0
        append = getattr(target, _append)
        for item in items:
            append(item)
        return 0

    cdef int set_from(self, size_t first) except -1:
        """The keys and values from ``first`` on, in the dict below them."""
        cdef PyObject *target = self.stack[first - 1]
        cdef PyObject *roomy
        cdef size_t n = self.used - first, at = first
        if n == 0:
            return 0
        if n & 1:
            raise UnpicklingError("odd number of items for SETITEMS")
        if not PyDict_CheckExact(target):
            while at < self.used:
                PyObject_SetItem(target, self.stack[at], self.stack[at + 1])
                at += 2
            self.drop_to(first)
            return 0
        if PyDict_GET_SIZE(target) == 0 and mf_is_mine(target):
            if self.comes(BUILD) and first - 1 > self.fence and self.set_attributes(first):
                return 0
            if n > 2 * 5:
                # A dict has room for five, and otherwise grows by moving all of them.
                roomy = mf_roomy_dict(n // 2)
                self.stack[first - 1] = roomy
                Py_DECREF(target)
                target = roomy
        while at < self.used:
            PyDict_SetItem(target, self.stack[at], self.stack[at + 1])
            at += 2
        self.drop_to(first)
        return 0

    cdef int add_from(self, size_t first) except -1:
        """The values from ``first`` on, to the set below them."""
        cdef PyObject *target = self.stack[first - 1]
        cdef size_t at
        if self.used == first:
            return 0
        if PySet_Check(target):
            for at in range(first, self.used):
                PySet_Add(target, self.stack[at])
            self.drop_to(first)
            return 0
        add = getattr(<object> target, _add)
        for at in range(first, self.used):
            add(<object> self.stack[at])
        self.drop_to(first)
        return 0

    # ---- objects ------------------------------------------------------------------

    cdef int find_global(self) except -1:
        cdef object module, name
        self.needs(2)
        name = pop_reference(self.pop())
        module = pop_reference(self.pop())
        if type(name) is not str or type(module) is not str:
            raise UnpicklingError("STACK_GLOBAL requires str")
        if self.find is None:
            self.find = self.finder()
        found = self.find(module, name)
        if self.rebuild is not None:
            flat = self.rebuild(found)
            if flat is not None:
                self.rebuilds, self.makes_flat = found, flat
        if self.dates == NULL and module == "datetime":
            import_datetime()
            self.dates = PyDateTimeAPI
        return self.push(shared(<PyObject *> found))

    cdef int tuple_of(self, size_t first) except -1:
        """The values from ``first`` on as a tuple, or what is called with them if that follows at once."""
        cdef bint calls = False
        cdef PyObject *made
        if first > self.fence:
            if self.comes(REDUCE):
                self.at += 1
                calls = True
            elif self.limit - self.at >= 2 and self.at[0] == MEMOIZE and self.at[1] == REDUCE and not self.is_wanted():
                self.at += 2
                self.memo_used += 1
                calls = True
        if not calls:
            return self.push(self.tuple_from(first))
        made = self.called(self.stack[first - 1], &self.stack[first], self.used - first)
        self.drop_to(first - 1)
        return self.push(made)

    cdef int reduce(self) except -1:
        cdef PyObject *args
        cdef PyObject *made
        self.needs(2)
        args = self.stack[self.used - 1]
        if not PyTuple_Check(args):
            raise TypeError("argument list must be a tuple")
        made = PyObject_Call(self.stack[self.used - 2], args, NULL)
        self.drop_to(self.used - 2)
        return self.push(made)

    cdef PyObject *called(self, PyObject *function, PyObject **args, size_t n) except NULL:
        """What ``function`` returns, below which ``args`` lie."""
        cdef PyObject *made
        if function == <PyObject *> self.rebuilds:
            made = self.flat_array(args, n)
            if made != NULL:
                return made
        elif self.dates != NULL:
            made = self.date(function, args, n)
            if made != NULL:
                return made
        return PyObject_Vectorcall(function, args, n | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)

    cdef PyObject *flat_array(self, PyObject **args, size_t n) except? NULL:
        """An array of one dimension without asking for another shape, or NULL where it has several, or they do not
        fit."""
        cdef object shape, length
        if n != 4 or not PyByteArray_CheckExact(args[0]) or not PyTuple_CheckExact(args[2]):
            return NULL
        if PyTuple_GET_SIZE(args[2]) != 1 or not PyLong_CheckExact(PyTuple_GET_ITEM(args[2], 0)):
            return NULL
        if not PyUnicode_CheckExact(args[3]) or not (<object> args[3] == "C" or <object> args[3] == "F"):
            return NULL
        dtype = <object> args[1]
        if dtype is not self.flat_dtype:
            self.flat_item = 0 if dtype.hasobject or dtype.subdtype is not None else dtype.itemsize
            self.flat_dtype = dtype
        length = <object> PyTuple_GET_ITEM(args[2], 0)
        if self.flat_item == 0 or length <= 0 or length * self.flat_item != PyByteArray_GET_SIZE(args[0]):
            return NULL
        made = self.makes_flat(<object> args[0], dtype)
        return shared(<PyObject *> made)

    cdef PyObject *date(self, PyObject *function, PyObject **args, size_t n) except? NULL:
        """Of a class of datetime, what it would return of arguments as it pickles them; NULL for anything else."""
        cdef const uint8_t *state
        cdef long days, seconds, microseconds
        if function == <PyObject *> self.dates.DateTimeType:
            if n != 1 and n != 2 or not PyBytes_CheckExact(args[0]) or PyBytes_GET_SIZE(args[0]) != 10:
                return NULL
            state = <const uint8_t *> PyBytes_AS_STRING(args[0])
            if not is_date(state, state[2] & 0x7f) or state[4] > 23 or state[5] > 59 or state[6] > 59:
                return NULL
            microseconds = state[7] << 16 | state[8] << 8 | state[9]
            if microseconds > 999999:
                return NULL
            made = self.dates.DateTime_FromDateAndTimeAndFold(
                state[0] << 8 | state[1], state[2] & 0x7f, state[3], state[4], state[5], state[6], microseconds,
                <object> args[1] if n == 2 else None, state[2] >> 7, self.dates.DateTimeType,
            )
            return shared(<PyObject *> made)
        if function == <PyObject *> self.dates.DateType:
            if n != 1 or not PyBytes_CheckExact(args[0]) or PyBytes_GET_SIZE(args[0]) != 4:
                return NULL
            state = <const uint8_t *> PyBytes_AS_STRING(args[0])
            if not is_date(state, state[2]):
                return NULL
            made = self.dates.Date_FromDate(state[0] << 8 | state[1], state[2], state[3], self.dates.DateType)
            return shared(<PyObject *> made)
        if function == <PyObject *> self.dates.DeltaType:
            if n != 3 or not (PyLong_CheckExact(args[0]) and PyLong_CheckExact(args[1]) and PyLong_CheckExact(args[2])):
                return NULL
            try:
                days, seconds, microseconds = PyLong_AsLong(args[0]), PyLong_AsLong(args[1]), PyLong_AsLong(args[2])
            except OverflowError:
                return NULL
            if not (-999999999 <= days <= 999999999 and 0 <= seconds < 86400 and 0 <= microseconds < 1000000):
                return NULL
            made = self.dates.Delta_FromDelta(days, seconds, microseconds, 0, self.dates.DeltaType)
            return shared(<PyObject *> made)
        return NULL

    cdef int new(self, bint with_kwargs) except -1:
        """NEWOBJ and NEWOBJ_EX."""
        cdef size_t n = 3 if with_kwargs else 2, first
        cdef str name = "NEWOBJ_EX" if with_kwargs else "NEWOBJ"
        cdef PyObject *kwargs = NULL
        cdef PyObject *args
        cdef PyObject *kind
        cdef PyObject *made
        self.needs(n)
        first = self.used - n
        kind, args = self.stack[first], self.stack[first + 1]
        if with_kwargs:
            kwargs = self.stack[first + 2]
        if not PyType_Check(kind):
            raise UnpicklingError(f"{name} class argument must be a type, not {type(<object> kind).__name__}")
        if not mf_is_new(<PyTypeObject *> kind):
            raise UnpicklingError(f"{name} class argument {(<object> kind).__name__!r} doesn't have __new__")
        if not PyTuple_Check(args):
            raise UnpicklingError(f"{name} args argument must be a tuple, not {type(<object> args).__name__}")
        if kwargs != NULL and not PyDict_Check(kwargs):
            raise UnpicklingError(f"{name} kwargs argument must be a dict, not {type(<object> kwargs).__name__}")
        made = mf_new(<PyTypeObject *> kind, args, kwargs)
        self.drop_to(first)
        return self.push(made)

    cdef bint takes_attributes(self, PyObject *instance) except -1:
        """Whether what BUILD gives ``instance`` goes into its dict, and setting an attribute does the same."""
        cdef PyTypeObject *kind = Py_TYPE(instance)
        cdef PyObject *setstate = NULL
        mf_find_attribute(instance, <PyObject *> _setstate, &setstate)
        if setstate != NULL:
            Py_DECREF(setstate)
            return 0
        if <PyObject *> kind != <PyObject *> self.plain_kind or mf_version(kind) != self.plain_version:
            if not mf_has_plain_dict(kind, <PyObject *> _dict):
                return 0
            self.plain_kind = <object> <PyObject *> kind
            self.plain_version = mf_version(kind)
        return mf_is_usual_dict(instance)

    cdef bint set_attributes(self, size_t first) except -1:
        """BUILD, of a state that consists of the names and values from ``first`` on, in a dict below them that nothing
        else refers to. Returns 0, and has done nothing, where that takes the dict."""
        cdef PyObject *instance = self.stack[first - 2]
        cdef PyTypeObject *kind = Py_TYPE(instance)
        cdef size_t at
        if self.used - first > 2 * ATTRIBUTES or not self.takes_attributes(instance):
            return 0
        for at in range(first, self.used, 2):
            if not PyUnicode_CheckExact(self.stack[at]) or not mf_is_plain_name(kind, self.stack[at]):
                return 0
        self.at += 1
        for at in range(first, self.used, 2):
            self.intern(at)
            PyObject_GenericSetAttr(instance, self.stack[at], self.stack[at + 1])
        self.drop_to(first - 1)
        return 1

    cdef inline void intern(self, size_t at) noexcept:
        """The text at this place of the stack is that which all names of attributes are. Where there is an equal one
        already, it would be looked for with each instance."""
        cdef PyObject *name = self.stack[at]
        cdef Name *known = &self.names[(<uintptr_t> name >> 6) % NAMES]
        if known.name == name:
            self.stack[at] = shared(known.interned)
            Py_DECREF(name)
            return
        shared(name)
        PyUnicode_InternInPlace(&self.stack[at])
        if known.name != NULL:
            Py_DECREF(known.name)
            Py_DECREF(known.interned)
        known.name, known.interned = name, shared(self.stack[at])

    cdef int build(self) except -1:
        cdef bint with_slots
        cdef PyObject *setstate = NULL
        cdef PyObject *key
        cdef PyObject *value
        cdef Py_ssize_t position = 0
        self.needs(2)
        instance = <object> self.stack[self.used - 2]
        state = pop_reference(self.pop())
        with_slots = isinstance(state, tuple) and len(state) == 2
        mf_find_attribute(<PyObject *> instance, <PyObject *> _setstate, &setstate)
        if setstate != NULL:
            pop_reference(setstate)(state)
            return 0
        if with_slots:
            state, slots = state
        if state is not None:
            if not isinstance(state, dict):
                raise UnpicklingError("state is not a dictionary")
            attributes = instance.__dict__
            while PyDict_Next(<PyObject *> state, &position, &key, &value):
                set_interned(<PyObject *> attributes, shared(key), shared(value))
        if with_slots:
            if not isinstance(slots, dict):
                raise UnpicklingError("slot state is not a dictionary")
            position = 0
            while PyDict_Next(<PyObject *> slots, &position, &key, &value):
                name, attribute = <object> key, <object> value
                PyObject_SetAttr(<PyObject *> instance, <PyObject *> name, <PyObject *> attribute)
        return 0

    cdef int next_buffer(self) except -1:
        if self.buffers is None:
            raise UnpicklingError("the pickle refers to a buffer that lies elsewhere, and none was given")
        for buffer in self.buffers:
            return self.push(shared(<PyObject *> buffer))
        raise UnpicklingError("not enough out-of-band buffers")

    # ---- the loop -----------------------------------------------------------------

    cdef object run(self):
        cdef const uint8_t *data
        cdef uint8_t opcode
        cdef uint64_t n
        cdef size_t first
        while True:
            if self.at == self.limit:
                self.more()
            opcode = self.at[0]
            self.at += 1
            if opcode == MEMOIZE:
                self.memoize()
            elif opcode == SHORT_BINUNICODE:
                n = self.take(1)[0]
                self.push(text(self.take(n) if n else self.at, n))
            elif opcode == BINGET:
                self.get(self.take(1)[0])
            elif opcode == LONG_BINGET:
                self.get(mf_load_32(self.take(4)))
            elif opcode == BINFLOAT:
                self.push(number(self.take(8)))
            elif opcode == BININT1:
                self.push(PyLong_FromLong(self.take(1)[0]))
            elif opcode == BININT2:
                data = self.take(2)
                self.push(PyLong_FromLong(data[0] | data[1] << 8))
            elif opcode == BININT:
                self.push(PyLong_FromLong(<int32_t> mf_load_32(self.take(4))))
            elif opcode == LONG1:
                n = self.take(1)[0]
                self.push(integer(self.take(n) if n else self.at, n))
            elif opcode == NONE:
                self.push(shared(Py_None))
            elif opcode == NEWTRUE:
                self.push(shared(Py_True))
            elif opcode == NEWFALSE:
                self.push(shared(Py_False))
            elif opcode == MARK:
                self.mark()
            elif opcode == EMPTY_TUPLE:
                self.push(shared(<PyObject *> _nothing))
            elif opcode == TUPLE1:
                self.needs(1)
                self.tuple_of(self.used - 1)
            elif opcode == TUPLE2:
                self.needs(2)
                self.tuple_of(self.used - 2)
            elif opcode == TUPLE3:
                self.needs(3)
                self.tuple_of(self.used - 3)
            elif opcode == TUPLE:
                first = self.pop_mark()
                self.tuple_of(first)
            elif opcode == EMPTY_DICT:
                self.push(PyDict_New())
            elif opcode == SETITEMS:
                first = self.container()
                self.set_from(first)
            elif opcode == SETITEM:
                self.needs(3)
                self.set_from(self.used - 2)
            elif opcode == EMPTY_LIST:
                self.push(PyList_New(0))
            elif opcode == APPENDS:
                first = self.container()
                self.append_from(first)
            elif opcode == APPEND:
                self.needs(2)
                self.append_from(self.used - 1)
            elif opcode == EMPTY_SET:
                self.push(PySet_New(NULL))
            elif opcode == ADDITEMS:
                first = self.container()
                self.add_from(first)
            elif opcode == FROZENSET:
                first = self.pop_mark()
                items = pop_reference(self.tuple_from(first))
                self.push(PyFrozenSet_New(<PyObject *> items))
            elif opcode == NEWOBJ:
                self.new(False)
            elif opcode == NEWOBJ_EX:
                self.new(True)
            elif opcode == REDUCE:
                self.reduce()
            elif opcode == BUILD:
                self.build()
            elif opcode == STACK_GLOBAL:
                self.find_global()
            elif opcode == SHORT_BINBYTES:
                n = self.take(1)[0]
                self.push(PyBytes_FromStringAndSize(<const char *> (self.take(n) if n else self.at), n))
            elif opcode == BINBYTES or opcode == BINBYTES8 or opcode == BYTEARRAY8:
                n = self.length(4 if opcode == BINBYTES else 8)
                data = self.take(n) if n else self.at
                if opcode == BYTEARRAY8:
                    self.push(PyByteArray_FromStringAndSize(<const char *> data, n))
                else:
                    self.push(PyBytes_FromStringAndSize(<const char *> data, n))
            elif opcode == BINUNICODE or opcode == BINUNICODE8:
                n = self.length(4 if opcode == BINUNICODE else 8)
                self.push(text(self.take(n) if n else self.at, n))
            elif opcode == LONG4:
                n = self.length(4)
                if n > 0x7fffffff:
                    raise UnpicklingError("LONG pickle has negative byte count")
                self.push(integer(self.take(n) if n else self.at, n))
            elif opcode == NEXT_BUFFER:
                self.next_buffer()
            elif opcode == POP:
                if self.marks_used and self.marks[self.marks_used - 1] == self.used:
                    self.pop_mark()
                else:
                    self.needs(1)
                    self.drop_to(self.used - 1)
            elif opcode == POP_MARK:
                first = self.pop_mark()
                self.drop_to(first)
            elif opcode == STOP:
                return pop_reference(self.pop())
            else:
                raise UnpicklingError(f"invalid load key, '\\x{opcode:02x}'.")

    cdef uint64_t length(self, int width) except? 0:
        """Of what follows, in ``width`` bytes. UnpicklingError where it cannot be."""
        cdef const uint8_t *data = self.take(width)
        cdef uint64_t n = mf_load_32(data) if width == 4 else mf_load_64(data)
        if n > <uint64_t> PY_SSIZE_T_MAX:
            raise UnpicklingError("pickle data was truncated")
        return n


cdef inline bint is_protocol_5(const uint8_t *data, size_t n) noexcept:
    return n >= 2 and data[0] == 0x80 and data[1] == 5


cdef inline bint is_date(const uint8_t *state, int month) noexcept:
    """Whether these are a year, a month and a day of it. The last days of a month are left to who knows years."""
    return 0 < (state[0] << 8 | state[1]) <= 9999 and 0 < month <= 12 and 0 < state[3] <= (28 if month == 2 else 30)


cdef inline object pop_reference(PyObject *value):
    """``value``, a reference to which was the caller's."""
    found = <object> value
    Py_DECREF(value)
    return found


cdef int set_interned(PyObject *attributes, PyObject *key, PyObject *value) except -1:
    """An attribute, of references that are given away."""
    if PyUnicode_CheckExact(key):
        PyUnicode_InternInPlace(&key)
    name, attribute = pop_reference(key), pop_reference(value)
    return PyObject_SetItem(attributes, <PyObject *> name, <PyObject *> attribute)
