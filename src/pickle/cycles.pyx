# cython: language_level=3
"""Python's search for cycles, held back while one call makes many objects that all stay."""

import gc
import os

cimport cython


cdef object _gate = object()
cdef int _calls = 0
cdef tuple _before = None
# What the thresholds were before the first call; None: they were left alone.

# Stands for the first threshold meanwhile, and is never reached. Not 0, which others may set for reasons of their own.
cdef enum:
    HELD = 0x7FFFFFFF


cdef hold_back():
    """By the first threshold. Whether the search is switched on is another matter, which others may decide
    meanwhile."""
    global _before
    _before = gc.get_threshold()
    if _before[0] == 0:
        _before = None
    else:
        gc.set_threshold(HELD)


cdef let_go_on():
    """As it was before, unless somebody has set thresholds meanwhile."""
    global _before
    before, _before = _before, None
    if before is not None and gc.get_threshold() == (HELD, *before[1:]):
        gc.set_threshold(*before)


def without_search(call, *args, **kwargs):
    """``call(*args, **kwargs)``, during which no thread of this process searches for cycles by itself. Calls may
    overlap and nest: the last one that ends lets the search go on, as it was when the first one began. What another
    thread says meanwhile holds: ``gc.disable``, ``gc.enable``, ``gc.set_threshold``, after which the search goes on at
    once.

    No signal handler runs between a step here and the next, so nothing that interrupts leaves the search held back.
    """
    global _calls
    with cython.critical_section(_gate):
        if _calls == 0:
            hold_back()
        _calls += 1
    try:
        return call(*args, **kwargs)
    finally:
        with cython.critical_section(_gate):
            # 0 in the child of a fork.
            if _calls:
                _calls -= 1
                if _calls == 0:
                    let_go_on()


def _forked():
    """The calls of the parent's threads do not end in a child."""
    global _calls
    if _calls:
        _calls = 0
        let_go_on()


os.register_at_fork(after_in_child=_forked)
