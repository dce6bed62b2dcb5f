# cython: language_level=3
"""New files written and renamed, many at once without the GIL."""

from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.mem cimport PyMem_Free, PyMem_Malloc

import os


cdef extern from "Python.h":
    bytes PyUnicode_EncodeFSDefault(object text)
    int PySys_Audit(const char *event, const char *format, ...) except -1


cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len


cdef extern from "files/fresh.h" nogil:
    int MF_FRESH_LENGTH
    cdef struct mf_fresh:
        const char *path
        size_t parts
        size_t length
    size_t mf_write_fresh(
        int directory, bint plain, const mf_fresh *files, size_t count, iovec *parts, unsigned int mode, int *failed,
        size_t *found,
    )
    size_t mf_rename_each(
        int directory, const char *const *old, const char *const *new, size_t count, int *failed
    )


cdef int FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class WrongLengthError(Exception):
    """A file has not the length of what was written to it: ``path``, and the bytes that were ``expected`` and found."""

    def __init__(self, path, expected, found):
        super().__init__(path, expected, found)
        self.path, self.expected, self.found = path, expected, found


cdef bytes _name(object path):
    cdef bytes name = PyUnicode_EncodeFSDefault(path)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    return name


def write_fresh(int directory, list paths, list contents, bint plain):
    """Create a file at each of ``paths`` below an open directory, made of the buffers in ``contents``; where there is
    one already that is an error. ``plain``: no step of a path may be a link, as of ``Descriptor.plain``. OSError names
    the first that failed, WrongLengthError that which is not as long as what was written; those after it are not there.
    """
    cdef size_t count = len(paths), total = sum(map(len, contents)), number, done = 0, at = 0, held = 0, found = 0
    cdef int failed = 0
    cdef list names = [_name(path) for path in paths]
    cdef mf_fresh *files = <mf_fresh *> PyMem_Malloc(count * sizeof(mf_fresh) + 1)
    cdef iovec *parts = <iovec *> PyMem_Malloc(total * sizeof(iovec) + 1)
    cdef Py_buffer *views = <Py_buffer *> PyMem_Malloc(total * sizeof(Py_buffer) + 1)
    try:
        if files is NULL or parts is NULL or views is NULL:
            raise MemoryError
        for number in range(count):
            files[number].path = PyBytes_AS_STRING(names[number])
            files[number].parts = files[number].length = 0
            for part in contents[number]:
                if held == total:
                    raise RuntimeError("the contents have changed meanwhile")
                PyObject_GetBuffer(part, &views[held], PyBUF_SIMPLE)
                parts[held].iov_base = views[held].buf
                parts[held].iov_len = <size_t> views[held].len
                files[number].parts += 1
                files[number].length += <size_t> views[held].len
                held += 1
            PySys_Audit("open", "OOi", <void *> paths[number], <void *> None, FLAGS)
        with nogil:
            done = mf_write_fresh(directory, plain, files, count, parts, 0o666, &failed, &found)
        if done < count:
            if failed == MF_FRESH_LENGTH:
                raise WrongLengthError(paths[done], files[done].length, found)
            raise OSError(failed, os.strerror(failed), paths[done])
    finally:
        for at in range(held):
            PyBuffer_Release(&views[at])
        PyMem_Free(files)
        PyMem_Free(parts)
        PyMem_Free(views)


def rename_each(int directory, list olds, list news):
    """``os.rename`` of each of ``olds`` to that of ``news`` in its place, in order, both below an open directory.
    OSError names the first that failed; those before it are renamed, and no others."""
    cdef size_t count = len(olds), number, done
    cdef int failed = 0
    cdef list names = [_name(path) for path in olds], targets = [_name(path) for path in news]
    if <size_t> len(targets) != count:
        raise ValueError("each file needs one new name")
    cdef const char **starts = <const char **> PyMem_Malloc(2 * count * sizeof(char *) + 1)
    try:
        if starts is NULL:
            raise MemoryError
        for number in range(count):
            starts[number] = PyBytes_AS_STRING(names[number])
            starts[count + number] = PyBytes_AS_STRING(targets[number])
            PySys_Audit("os.rename", "OOii", <void *> olds[number], <void *> news[number], directory, directory)
        with nogil:
            done = mf_rename_each(directory, starts, starts + count, count, &failed)
        if done < count:
            raise OSError(failed, os.strerror(failed), olds[done], None, news[done])
    finally:
        PyMem_Free(starts)
