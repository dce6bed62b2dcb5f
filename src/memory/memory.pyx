# cython: language_level=3, boundscheck=False, wraparound=False
"""Memory that decoded bytes land in, checksums, and the one missing system call."""

import os

from blake3 import blake3

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.buffer cimport PyBUF_READ, PyBuffer_FillInfo
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport errno as c_errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy
from loaded cimport linked, mf_function


cdef extern from "Python.h":
    ctypedef struct PyObject
    Py_ssize_t Py_REFCNT(PyObject *o)
    int _PyBytes_Resize(PyObject **value, Py_ssize_t n) except -1
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    str PyUnicode_New(Py_ssize_t size, unsigned int largest)
    void *PyUnicode_DATA(object text)
    int PyUnicode_KIND(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    bytearray PyByteArray_FromStringAndSize(const char *data, Py_ssize_t size)
    char *PyByteArray_AS_STRING(object array)
    str PyUnicode_DecodeUTF8(const char *data, Py_ssize_t size, const char *errors)


cdef extern from "memory/utf8.h" nogil:
    size_t mf_utf8_length(const void *text, size_t n, int width)
    void mf_utf8_encode(const void *text, size_t n, int width, uint8_t *to)
    int mf_utf8_measure(const uint8_t *data, size_t n, size_t *characters, uint32_t *largest)
    void mf_utf8_decode(const uint8_t *data, size_t n, void *to, int width)


cdef extern from "xxhash.h" nogil:
    unsigned XXH_VERSION_NUMBER, XXH_versionNumber()
    uint64_t XXH3_64bits(const void *data, size_t n)


cdef extern from *:
    """
    #include <errno.h>
    #include <sys/mman.h>
    #include <unistd.h>
    #if defined(__linux__)
    int syncfs(int fd);
    static int mf_sync_file_system(int fd) { return syncfs(fd); }
    static int mf_huge(void *p, size_t n) { return madvise(p, n, MADV_HUGEPAGE); }
    #else
    static int mf_sync_file_system(int fd) { (void) fd; errno = ENOSYS; return -1; }
    static int mf_huge(void *p, size_t n) { (void) p; (void) n; return 0; }
    #endif
    static void *mf_map(int fd, size_t start, size_t n) {
        void *area = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, (off_t) start);
        return area == MAP_FAILED ? NULL : area;
    }
    """
    int mf_sync_file_system(int fd) nogil
    int mf_huge(void *p, size_t n) nogil
    void *mf_map(int fd, size_t start, size_t n) nogil
    int munmap(void *p, size_t n) nogil


cdef extern from *:
    """
    /* Whether list[i] is referenced by the list alone. Without a GIL another thread could be about to take it. */
    static int mf_unshared(PyObject *list, Py_ssize_t i) {
    #ifdef Py_GIL_DISABLED
        (void) list; (void) i;
        return 0;
    #else
        return Py_REFCNT(PyList_GET_ITEM(list, i)) == 1;
    #endif
    }
    /* As if it had been made with this length, which is at most that of its memory. */
    static void mf_renew_bytes(PyObject *bytes, Py_ssize_t n) {
        PyBytesObject *object = (PyBytesObject *) bytes;
        Py_SET_SIZE(object, n);
        object->ob_sval[n] = 0;
    #if defined(__GNUC__)
    #pragma GCC diagnostic push
    #pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    #endif
        object->ob_shash = -1;
    #if defined(__GNUC__)
    #pragma GCC diagnostic pop
    #endif
    }
    """
    bint mf_unshared(list held, Py_ssize_t i)
    void mf_renew_bytes(bytes value, Py_ssize_t n)


cdef size_t WITH_GIL = 64 << 10  # for less, letting another thread in does not pay

cdef enum:
    HUGE_PAGE = 2097152


cdef inline void in_huge_pages(void *area, size_t n) noexcept:
    """Ask for huge pages for ``n`` bytes that are about to be filled. Fresh pages dominate a large load: 256 MiB cost
    0.8 s in 4 KiB faults and 0.1 s in huge ones. Whole huge pages only, so nothing outside of the area is touched."""
    cdef uintptr_t start, end
    if n >= 4 * HUGE_PAGE:
        start = (<uintptr_t> area + HUGE_PAGE - 1) & ~(<uintptr_t> HUGE_PAGE - 1)
        end = (<uintptr_t> area + n) & ~(<uintptr_t> HUGE_PAGE - 1)
        mf_huge(<void *> start, end - start)


cdef class FreshBytes:
    """A bytes object that can be filled before anyone sees it.

    Supports the writable buffer protocol; ``value`` is the bytes object, to be taken only when it
    is filled. Owns its memory together with ``value``.
    """

    cdef readonly bytes value
    cdef int views

    def __cinit__(self, size_t n):
        self.value = PyBytes_FromStringAndSize(NULL, n)
        in_huge_pages(PyBytes_AS_STRING(self.value), n)

    def first(self, Py_ssize_t n):
        """The first ``n`` bytes, and no memory beyond them. It is this memory itself, which is given up (the rest goes
        back at once), unless there is a view of it or somebody has its value: then a copy."""
        cdef PyObject *held = <PyObject *> self.value
        if not 0 <= n <= len(self.value):
            raise ValueError(f"{n} bytes of {len(self.value)}")
        if self.views or Py_REFCNT(held) != 1:
            return self.value[:n]
        Py_INCREF(self.value)
        self.value = b""
        _PyBytes_Resize(&held, n)
        value = <bytes> held
        Py_DECREF(value)
        return value

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, PyBytes_AS_STRING(self.value), len(self.value), 0, flags)
        self.views += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.views -= 1


cdef class FreshText:
    """Memory for a text in UTF-8 (with surrogates passed), to be filled; then ``value`` is the text.

    A text that is ASCII is this memory itself; any other is decoded from it, and needs as much once more.
    """

    cdef str text
    cdef readonly Py_ssize_t size

    def __cinit__(self, Py_ssize_t n):
        self.text = PyUnicode_New(n, 127)
        self.size = n
        in_huge_pages(PyUnicode_DATA(self.text), n)

    @property
    def value(self):
        """The text. UnicodeDecodeError when what was filled in is none."""
        cdef const uint8_t *data = <const uint8_t *> PyUnicode_DATA(self.text)
        cdef size_t i = 0, n = self.size
        cdef uint64_t word, seen = 0
        with nogil:
            while i + 8 <= n:
                memcpy(&word, data + i, 8)
                seen |= word
                i += 8
            while i < n:
                seen |= data[i]
                i += 1
        if seen & <uint64_t> 0x8080808080808080:
            return self._decoded(data, n)
        return self.text

    cdef str _decoded(self, const uint8_t *data, size_t n):
        """As ``PyUnicode_DecodeUTF8`` has it, which would keep the GIL until it is done: 0.1 s for 100 MB."""
        cdef size_t count = 0
        cdef uint32_t largest = 0
        cdef int wrong, width
        cdef void *to
        with nogil:
            wrong = mf_utf8_measure(data, n, &count, &largest)
        if wrong:
            return PyUnicode_DecodeUTF8(<const char *> data, n, b"surrogatepass")  # which says where
        text = PyUnicode_New(count, largest)
        to, width = PyUnicode_DATA(text), PyUnicode_KIND(text)
        in_huge_pages(to, count * width)
        with nogil:
            mf_utf8_decode(data, n, to, width)
        return text

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, PyUnicode_DATA(self.text), self.size, 0, flags)

    def __releasebuffer__(self, Py_buffer *view):
        pass


def fresh_bytearray(size_t n):
    """A bytearray of any content, to be filled: ``bytearray(n)`` clears it first, and keeps the GIL meanwhile."""
    array = PyByteArray_FromStringAndSize(NULL, n)
    in_huge_pages(PyByteArray_AS_STRING(array), n)
    return array


def encode_text(str text):
    """A text in UTF-8, with surrogates passed. Other threads run meanwhile."""
    cdef const void *data = PyUnicode_DATA(text)
    cdef size_t n = PyUnicode_GET_LENGTH(text), length
    cdef int width = PyUnicode_KIND(text)
    cdef uint8_t *to
    with nogil:
        length = mf_utf8_length(data, n, width)
    encoded = PyBytes_FromStringAndSize(NULL, length)
    to = <uint8_t *> PyBytes_AS_STRING(encoded)
    with nogil:
        mf_utf8_encode(data, n, width, to)
    return encoded


# From so many bytes on a value is hashed and compared without the GIL: 0.1 ms.
cdef enum:
    LONG = 1 << 20


cdef class LargeValue:
    """A long text or bytes as a key of a dict: equal to another of equal content, and never to the object itself.

    Its own hash would keep the GIL while it is computed, 35 ms for 100 MB, and so would comparing it. After ``let_go``
    it holds a digest in place of the value.
    """

    cdef object value
    cdef bytes digest
    cdef const void *data
    cdef size_t n
    cdef Py_ssize_t hash
    cdef int width

    def __cinit__(self, value):
        self.value = value
        self.digest = None
        self.hash = -1
        if isinstance(value, str):
            self.width = PyUnicode_KIND(value)
            self.data, self.n = PyUnicode_DATA(value), PyUnicode_GET_LENGTH(value) * self.width
        else:
            self.width = 0
            self.data, self.n = PyBytes_AS_STRING(value), len(<bytes> value)

    def __hash__(self):
        cdef const void *data = self.data
        cdef size_t n = self.n
        cdef uint64_t found
        if self.hash == -1:
            if n < LONG:
                found = XXH3_64bits(data, n)
            else:
                with nogil:
                    found = XXH3_64bits(data, n)
            self.hash = <Py_ssize_t> (found >> 1)
        return self.hash

    def __eq__(self, other):
        if not isinstance(other, LargeValue):
            return False
        cdef LargeValue its = other
        cdef const void *data = self.data
        cdef const void *their = its.data
        cdef size_t n = self.n
        cdef int differ
        # Of equal texts also the widths are.
        if n != its.n or self.width != its.width:
            return False
        if self.value is None or its.value is None:
            return self.content() == its.content()
        if data == their:
            return True
        if n < LONG:
            return memcmp(data, their, n) == 0
        with nogil:
            differ = memcmp(data, their, n)
        return differ == 0

    def let_go(self):
        """Hold the value no longer. What is equal to this is found by a digest from now on."""
        hash(self)
        self.content()
        self.value = None
        self.data = NULL

    cdef bytes content(self):
        if self.digest is None:
            self.digest = blake3(PyMemoryView_FromMemory(<char *> self.data, self.n, PyBUF_READ)).digest()
        return self.digest


cdef class FreshBytesPool:
    """FreshBytes from the memory of earlier ones that nobody has any more.

    Memory that the kernel gives is cleared first, and a virtual machine's may have to be got from its host: 0.1 to 2 s
    of CPU for each GB, where receiving a GB takes 0.3. What is dropped stays here until it is used again, does not fit
    what is asked for next, or the pool ends; so ``limit`` bounds how much memory the pool knows of, dropped or not.
    """

    cdef list held, rooms
    cdef size_t limit, total

    def __cinit__(self, size_t limit):
        self.held, self.rooms, self.limit, self.total = [], [], limit, 0

    def take(self, size_t n):
        """``n`` bytes of any content."""
        cdef Py_ssize_t i = 0, fitting = -1
        cdef size_t room
        cdef FreshBytes fresh
        while i < len(self.held):
            room = self.rooms[i]
            if not mf_unshared(self.held, i):
                i += 1
            elif n > room or room - n > room >> 3:
                self._forget(i)
            else:
                fitting = i
                i += 1
        if fitting >= 0:
            fresh = FreshBytes.__new__(FreshBytes, 0)
            fresh.value = self.held[fitting]
            mf_renew_bytes(fresh.value, n)
            # The youngest is forgotten last.
            self.held.append(self.held.pop(fitting))
            self.rooms.append(self.rooms.pop(fitting))
            return fresh
        fresh = FreshBytes(n)
        self.held.append(fresh.value)
        self.rooms.append(n)
        self.total += n
        while self.total > self.limit + n:
            self._forget(0)
        return fresh

    cdef _forget(self, Py_ssize_t i):
        self.total -= <size_t> self.rooms.pop(i)
        self.held.pop(i)


cdef class AsciiView:
    """The characters of an ASCII string as read-only bytes, without a copy. Keeps the string alive.

    ValueError for any other string.
    """

    cdef str text

    def __cinit__(self, str text):
        if not text.isascii():
            raise ValueError("not an ASCII string")
        self.text = text

    def __getbuffer__(self, Py_buffer *view, int flags):
        cdef Py_ssize_t n
        cdef const char *data = PyUnicode_AsUTF8AndSize(self.text, &n)
        PyBuffer_FillInfo(view, self, <void *> data, n, 1, flags)

    def __releasebuffer__(self, Py_buffer *view):
        pass


# What a map's offset must be a multiple of: 4 KiB mostly, 16 KiB on Apple's processors, 64 KiB on some others.
cdef size_t mmap_page = os.sysconf("SC_PAGE_SIZE")


cdef class FileMap:
    """A private, writable, copy-on-write map of part of a file.

    Unlike the standard library's it keeps no descriptor, so a process may hold as many as it has memory for. Supports
    the writable buffer protocol and unmaps when the last view is gone. OSError when the kernel refuses.
    """

    cdef char *area
    cdef size_t size, gap

    def __cinit__(self, int fd, size_t start, size_t n):
        self.area = NULL
        self.gap = start % mmap_page
        self.size = n + self.gap
        if n == 0:
            return
        with nogil:
            self.area = <char *> mf_map(fd, start - self.gap, self.size)
        if self.area == NULL:
            raise OSError(c_errno, os.strerror(c_errno))

    def __dealloc__(self):
        if self.area != NULL:
            munmap(self.area, self.size)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.area + self.gap, self.size - self.gap, 0, flags)

    def __releasebuffer__(self, Py_buffer *view):
        pass


def libraries():
    """As of the codecs: version, that of the headers it was built with, file."""
    now, then = dotted(XXH_versionNumber()), dotted(XXH_VERSION_NUMBER)
    return {"libxxhash": linked(now, then, <mf_function> XXH_versionNumber)}


cdef str dotted(unsigned version):
    return f"{version // 10000}.{version // 100 % 100}.{version % 100}"


def xxh3(const uint8_t[::1] data):
    """XXH3 64-bit checksum (seed 0) of ``data``: detects damage, authenticates nothing."""
    cdef uint64_t value
    cdef size_t n = data.shape[0]
    cdef const uint8_t *start = &data[0] if n else NULL
    if n <= WITH_GIL:
        return XXH3_64bits(start, n)
    with nogil:
        value = XXH3_64bits(start, n)
    return value


def distance(const uint8_t[::1] whole, const uint8_t[::1] part):
    """How many bytes into ``whole`` its view ``part`` begins. ValueError when it does not lie within it."""
    cdef Py_ssize_t n = whole.shape[0], m = part.shape[0], at
    if n == 0 or m == 0:
        raise ValueError("an empty view lies nowhere")
    at = <Py_ssize_t> (<uintptr_t> &part[0] - <uintptr_t> &whole[0])
    if at < 0 or at + m > n:
        raise ValueError("not a view of that memory")
    return at


def sync_file_system(int fd):
    """Flush the file system that holds ``fd``, as syncfs(2). OSError when it fails or is missing."""
    cdef int answer
    cdef int code = 0
    with nogil:
        answer = mf_sync_file_system(fd)
        if answer != 0:
            code = c_errno
    if answer != 0:
        raise OSError(code, os.strerror(code))
