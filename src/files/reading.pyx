# cython: language_level=3
"""Small files read whole, many at once without the GIL."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc


cdef extern from "Python.h":
    bytes PyUnicode_EncodeFSDefault(object text)
    int PySys_Audit(const char *event, const char *format, ...) except -1


cdef extern from "files/whole.h" nogil:
    int MF_WHOLE_OTHER
    cdef struct mf_whole:
        int status
        size_t start
        size_t length
    size_t mf_read_whole(
        const char *const *paths, size_t count, int flags, size_t longest, char *into, size_t room, mf_whole *out
    )


OTHER = MF_WHOLE_OTHER
"""What stands for a file that is longer than ``longest``, or that is no regular one."""

cdef size_t ROOM = 1 << 18
"""Bytes of files that are read before they become objects, unless one may be longer: they are still in the cache."""


def read_whole(list paths, int flags, size_t longest):
    """The bytes of each file, in order, opened with ``flags``; a number where there are none: what errno was, or
    ``OTHER``. ``longest``: bytes of the longest that is read."""
    cdef size_t count = len(paths), done = 0, handled = 0, number
    cdef size_t room = max(ROOM, longest + 1)
    cdef list names = [PyUnicode_EncodeFSDefault(path) for path in paths]
    cdef list found = []
    cdef bytes name
    cdef const char **starts = <const char **> PyMem_Malloc(count * sizeof(char *) + 1)
    cdef mf_whole *out = <mf_whole *> PyMem_Malloc(count * sizeof(mf_whole) + 1)
    cdef char *into = <char *> PyMem_Malloc(room)
    try:
        if starts is NULL or out is NULL or into is NULL:
            raise MemoryError
        for number in range(count):
            name = names[number]
            if b"\0" in name:
                raise ValueError("embedded null byte")
            starts[number] = PyBytes_AS_STRING(name)
            PySys_Audit("open", "OOi", <void *> paths[number], <void *> None, flags)
        while done < count:
            with nogil:
                handled = mf_read_whole(starts + done, count - done, flags, longest, into, room, out)
            for number in range(handled):
                if out[number].status:
                    found.append(out[number].status)
                else:
                    found.append(PyBytes_FromStringAndSize(into + out[number].start, out[number].length))
            done += handled
        return found
    finally:
        PyMem_Free(starts)
        PyMem_Free(out)
        PyMem_Free(into)
