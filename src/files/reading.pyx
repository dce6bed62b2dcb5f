# cython: language_level=3
"""Small files read whole, or looked for, many at once without the GIL."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.string cimport strlen


cdef extern from "Python.h":
    bytes PyUnicode_EncodeFSDefault(object text)
    bint PyUnicode_IS_ASCII(object text)
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    int PySys_Audit(const char *event, const char *format, ...) except -1


cdef extern from "files/whole.h" nogil:
    int MF_WHOLE_OTHER
    cdef struct mf_whole:
        int status
        size_t start
        size_t length
    int MF_HERE
    int mf_open_place(const char *path)
    size_t mf_read_whole(
        int place, const char *const *paths, size_t count, int flags, bint sealed, size_t longest, char *into,
        size_t room, mf_whole *out,
    )
    void mf_look(int place, const char *const *paths, size_t count, int *out)


cdef extern from "<unistd.h>" nogil:
    int close(int fd)


OTHER = MF_WHOLE_OTHER
"""What stands for a file that is longer than ``longest``, or that is no regular one."""

cdef size_t ROOM = 1 << 16
"""Bytes of files that are read before they become objects, unless one may be longer: they are still in the cache. The C
library takes more than 128 KiB from the system each time, which costs as much as two files."""


cdef const char **_starts(list paths, list names) except NULL:
    """Where each path begins in what ``names`` gets and has to keep. To be freed."""
    cdef size_t count = len(paths), number
    cdef const char **starts = <const char **> PyMem_Malloc(count * sizeof(char *) + 1)
    cdef Py_ssize_t length
    cdef object path
    if starts is NULL:
        raise MemoryError
    try:
        for number in range(count):
            path = paths[number]
            if isinstance(path, str) and PyUnicode_IS_ASCII(path):
                starts[number] = PyUnicode_AsUTF8AndSize(path, &length)  # the text's own memory
            else:
                path = PyUnicode_EncodeFSDefault(path)
                starts[number] = PyBytes_AS_STRING(path)
                length = len(path)
            names.append(path)
            if strlen(starts[number]) != <size_t> length:
                raise ValueError("embedded null byte")
    except BaseException:
        PyMem_Free(starts)
        raise
    return starts


cdef int _open_place(object root) except? -1:
    """The directory, to be closed; negative: what errno was, with a minus, or ``MF_HERE`` without a directory."""
    cdef bytes name
    cdef const char *start
    cdef int place
    if root is None:
        return MF_HERE
    name = PyUnicode_EncodeFSDefault(root)
    start = name
    PySys_Audit("open", "OOi", <void *> root, <void *> None, 0)
    with nogil:
        place = mf_open_place(start)
    return place


def read_whole(root, list paths, int flags, size_t longest, bint sealed=False):
    """The bytes of each file below the directory ``root``, in order, opened with ``flags``; a number where there are
    none: what errno was, or ``OTHER``. ``longest``: bytes of the longest that is read. ``root`` None: paths are whole
    ones. ``sealed``: who reads them can tell whether they are whole, and no file; so nothing is asked beforehand."""
    cdef size_t count = len(paths), done = 0, handled = 0, number
    cdef size_t room = max(ROOM, longest + 1)
    cdef list names = [], found = []
    cdef const char **starts = _starts(paths, names)
    cdef mf_whole *out = <mf_whole *> PyMem_Malloc(count * sizeof(mf_whole) + 1)
    cdef char *into = <char *> PyMem_Malloc(room)
    cdef int place = -1
    try:
        if out is NULL or into is NULL:
            raise MemoryError
        place = _open_place(root)
        if place < 0 and place != MF_HERE:
            return [-place] * count
        for number in range(count):
            PySys_Audit("open", "OOi", <void *> paths[number], <void *> None, flags)
        while done < count:
            with nogil:
                handled = mf_read_whole(place, starts + done, count - done, flags, sealed, longest, into, room, out)
            for number in range(handled):
                if out[number].status:
                    found.append(out[number].status)
                else:
                    found.append(PyBytes_FromStringAndSize(into + out[number].start, out[number].length))
            done += handled
        return found
    finally:
        if place >= 0:
            close(place)
        PyMem_Free(starts)
        PyMem_Free(out)
        PyMem_Free(into)


def look(root, list paths):
    """For each path below the directory ``root`` 0 where something is there, be it a link, or what errno was. ``root``
    None: paths are whole ones."""
    cdef size_t count = len(paths), number
    cdef list names = []
    cdef const char **starts = _starts(paths, names)
    cdef int *out = <int *> PyMem_Malloc(count * sizeof(int) + 1)
    cdef int place = -1
    try:
        if out is NULL:
            raise MemoryError
        place = _open_place(root)
        if place < 0 and place != MF_HERE:
            return [-place] * count
        with nogil:
            mf_look(place, starts, count, out)
        return [out[number] for number in range(count)]
    finally:
        if place >= 0:
            close(place)
        PyMem_Free(starts)
        PyMem_Free(out)
