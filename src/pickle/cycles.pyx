# cython: language_level=3
"""Python's search for cycles, held back while one call makes many objects that all stay."""

import os

cimport cython


cdef extern from "Python.h":
    int PyGC_Disable()
    int PyGC_Enable()


cdef object _gate = object()
cdef int _calls = 0
cdef bint _was_on = False


def without_search(call, *args, **kwargs):
    """``call(*args, **kwargs)``, during which no thread of this process searches for cycles. Calls may overlap and
    nest: the last one that ends lets the search go on, if it was on when the first one began.

    No signal handler runs between a step here and the next, so nothing that interrupts leaves the search off.
    """
    global _calls, _was_on
    with cython.critical_section(_gate):
        if _calls == 0:
            _was_on = PyGC_Disable()
        _calls += 1
    try:
        return call(*args, **kwargs)
    finally:
        with cython.critical_section(_gate):
            # 0 in the child of a fork.
            if _calls:
                _calls -= 1
                if _calls == 0 and _was_on:
                    PyGC_Enable()


def _forked():
    """The calls of the parent's threads do not end in a child."""
    global _calls
    if _calls:
        _calls = 0
        if _was_on:
            PyGC_Enable()


os.register_at_fork(after_in_child=_forked)
