# cython: language_level=3
"""Descriptors that have an owner from the instant they exist; and where files lie, as far as the system says.

Ctrl-C comes between two steps of the interpreter. One that comes after ``os.open`` has returned a number, and before
the ``try`` that would close it, leaves the file open for ever. Here no step lies in between.
"""

from cpython.exc cimport PyErr_CheckSignals

import errno
import os
import sys


cdef extern from "unistd.h" nogil:
    int c_close "close"(int fd)


cdef extern from "files/plain.h" nogil:
    int mf_open_plain(int directory, const char *path, int flags, unsigned int mode)
    bint mf_opens_plainly()


cdef extern from "<errno.h>" nogil:
    int c_errno "errno"


OPENS_PLAINLY = mf_opens_plainly()
"""Whether ``Descriptor.plain`` works on this system: Linux since 5.6."""


cdef extern from *:
    """
    #if defined(__APPLE__)
    #include <sys/param.h>
    #include <sys/mount.h>
    /* 1: on another machine, or what is behind it is not known; 0: on this one; -1: it cannot be told. */
    static int mf_elsewhere(const char *path) {
        struct statfs found;
        if (statfs(path, &found) != 0) return -1;
        return (found.f_flags & MNT_LOCAL) == 0;
    }
    #else
    static int mf_elsewhere(const char *path) { (void) path; return -1; }
    #endif
    """
    int mf_elsewhere(const char *path) nogil


cdef class Descriptor:
    """An open descriptor, which this object owns: closed by ``close``, at the end of a ``with`` (which gives its
    number), or when nobody has the object any more.

    ``Descriptor(path, flags, mode, dir_fd=...)`` is ``os.open``, with its errors. ``fd`` is -1 once it is closed.
    """

    cdef readonly int fd

    def __cinit__(self):
        self.fd = -1

    def __init__(self, path, int flags, int mode=0o666, *, dir_fd=None):
        self.close()
        self.fd = os.open(path, flags, mode, dir_fd=dir_fd)

    @staticmethod
    def plain(path, int flags, int mode=0o666, *, int dir_fd):
        """As ``Descriptor(path, flags, mode, dir_fd=dir_fd)``, by a path below that directory, no step of which may be
        a link: else it fails, with ELOOP, or EXDEV where the path leads out. Only where ``OPENS_PLAINLY``."""
        cdef Descriptor opened = Descriptor.__new__(Descriptor)
        cdef bytes name = os.fsencode(path)
        cdef const char *start = name
        cdef unsigned int permissions = mode if flags & os.O_CREAT else 0
        cdef int failed
        sys.audit("open", path, None, flags)
        while True:
            with nogil:
                opened.fd = mf_open_plain(dir_fd, start, flags, permissions)
                failed = c_errno
            if opened.fd >= 0:
                return opened
            if failed != errno.EINTR:
                raise OSError(failed, os.strerror(failed), path)
            PyErr_CheckSignals()

    def fileno(self):
        return self.fd

    def close(self):
        """Close it, once. OSError when the file system says that what was written is lost; it is closed then too."""
        cdef int fd = self.fd
        self.fd = -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self):
        return self.fd

    def __exit__(self, *exception):
        self.close()

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)


def pipe():
    """The two ends of a pipe, to read from and to write to, neither of which blocks."""
    cdef Descriptor reader = Descriptor.__new__(Descriptor), writer = Descriptor.__new__(Descriptor)
    reader.fd, writer.fd = os.pipe()
    os.set_blocking(reader.fd, False)
    os.set_blocking(writer.fd, False)
    return reader, writer


def elsewhere(path):
    """Whether a directory lies on a file system of another machine, by the flags of its mount on macOS; None where the
    system has none or there is no such directory."""
    cdef bytes name = os.fsencode(path)
    cdef const char *start = name
    cdef int answer
    with nogil:
        answer = mf_elsewhere(start)
    return None if answer < 0 else answer == 1
