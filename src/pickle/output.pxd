# cython: language_level=3
"""A growing byte buffer and the few shapes of pickle opcodes, inlined where they are used."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Realloc
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy


cdef extern from *:
    """
    /* Whether an int is one digit of Python's, and which value that is. */
    #if PY_VERSION_HEX >= 0x030C0000
    static inline int mf_is_digit(PyObject *value) { return PyUnstable_Long_IsCompact((PyLongObject *) value); }
    static inline int64_t mf_digit(PyObject *value) {
        return (int64_t) PyUnstable_Long_CompactValue((PyLongObject *) value);
    }
    #else
    static inline int mf_is_digit(PyObject *value) { return Py_SIZE(value) >= -1 && Py_SIZE(value) <= 1; }
    static inline int64_t mf_digit(PyObject *value) {
        return (int64_t) Py_SIZE(value) * ((PyLongObject *) value)->ob_digit[0];
    }
    #endif

    /* As PyLong_AsLongLongAndOverflow, without a call for one digit. */
    static inline int64_t mf_as_int64(PyObject *value, int *overflow) {
        return mf_is_digit(value) ? mf_digit(value) : PyLong_AsLongLongAndOverflow(value, overflow);
    }
    """
    bint mf_is_digit(PyObject *value)
    int64_t mf_digit(PyObject *value)
    int64_t mf_as_int64(object value, int *overflow) except? -1


# Bytes of an int that 64 bits hold, at most.
cdef enum:
    INT64 = 11


cdef struct Output:
    uint8_t *data  # PyMem_Malloc'ed, freed by the owner
    size_t used
    size_t cap


cdef inline int grow(Output *out, size_t want) except -1:
    cdef uint8_t *grown
    if want < out.cap * 2:
        want = out.cap * 2
    grown = <uint8_t *> PyMem_Realloc(out.data, want)
    if grown == NULL:
        raise MemoryError()
    out.data = grown
    out.cap = want
    return 0


cdef inline int reserve(Output *out, size_t more) except -1:
    cdef size_t want = out.used + more
    return 0 if want <= out.cap else grow(out, want)


cdef inline uint8_t *write_int(uint8_t *to, uint64_t value, int width) noexcept:
    """``width`` little-endian bytes; returns their end."""
    cdef int i
    for i in range(width):
        to[i] = <uint8_t> (value >> (8 * i))
    return to + width


cdef inline uint8_t *write_int64(uint8_t *to, int64_t value) noexcept:
    """An int that 64 bits hold, in the shortest opcode; returns its end, at most INT64 bytes on."""
    cdef int width = 5
    if 0 <= value < 256:
        to[0] = b'K'
        to[1] = <uint8_t> value
        return to + 2
    if 0 <= value < 65536:
        to[0] = b'M'
        return write_int(to + 1, <uint64_t> value, 2)
    if -2147483648 <= value <= 2147483647:
        to[0] = b'J'
        return write_int(to + 1, <uint64_t> value, 4)
    # LONG1: as many bytes as a signed number needs.
    while width < 8 and not -(<int64_t> 1 << (8 * width - 1)) <= value < <int64_t> 1 << (8 * width - 1):
        width += 1
    to[0] = 0x8a
    to[1] = <uint8_t> width
    return write_int(to + 2, <uint64_t> value, width)


# Bytes are written by a pointer of their own: through ``out`` the compiler must take each for one that may change it.

cdef inline int put1(Output *out, uint8_t op) except -1:
    reserve(out, 1)
    out.data[out.used] = op
    out.used += 1
    return 0


cdef inline int put2(Output *out, uint8_t op, uint8_t arg) except -1:
    cdef uint8_t *to
    reserve(out, 2)
    to = out.data + out.used
    out.used += 2
    to[0] = op
    to[1] = arg
    return 0


cdef inline int put_int(Output *out, uint8_t op, uint64_t value, int width) except -1:
    """An opcode and ``width`` little-endian bytes."""
    cdef uint8_t *to
    reserve(out, 1 + width)
    to = out.data + out.used
    out.used += 1 + width
    to[0] = op
    write_int(to + 1, value, width)
    return 0


cdef inline uint8_t *write_double(uint8_t *to, double value) noexcept:
    """BINFLOAT: big-endian, unlike every other number of a pickle; returns its end, 9 bytes on."""
    cdef uint64_t bits
    cdef int i
    memcpy(&bits, &value, 8)
    to[0] = b'G'
    for i in range(8):
        to[1 + i] = <uint8_t> (bits >> (56 - 8 * i))
    return to + 9


cdef inline int put_raw(Output *out, const uint8_t *data, size_t n) except -1:
    reserve(out, n)
    memcpy(out.data + out.used, data, n)
    out.used += n
    return 0


cdef inline int put_int64(Output *out, int64_t value) except -1:
    """An int that 64 bits hold, in the shortest opcode."""
    reserve(out, INT64)
    out.used = write_int64(out.data + out.used, value) - out.data
    return 0


cdef inline int put_integer(Output *out, object obj) except -1:
    """An int of any size, in the shortest opcode."""
    cdef int overflow = 0
    cdef int64_t value = mf_as_int64(obj, &overflow)
    if not overflow:
        return put_int64(out, value)
    cdef bytes data = obj.to_bytes((obj.bit_length() >> 3) + 1, "little", signed=True)
    if obj < 0 and len(data) > 1 and data[-1] == 0xff and data[-2] & 0x80:
        data = data[:-1]
    if len(data) < 256:
        put2(out, 0x8a, <uint8_t> len(data))
    else:
        put_int(out, 0x8b, len(data), 4)
    return put_raw(out, <const uint8_t *> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
