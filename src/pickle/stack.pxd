# cython: language_level=3
"""Recursion that ends before the stack does, whatever the recursion limit is set to."""

from libc.stdint cimport uintptr_t


cdef extern from "pickle/stack.h":
    uintptr_t mf_stack_floor()
    uintptr_t mf_stack_first_look()
    uintptr_t mf_stack_here()


cdef extern from *:
    """
    /* What CPython returns on error is not zero, and 1 in fact: a check for -1 alone sees no error. */
    static inline int mf_enter_recursion(const char *where) { return Py_EnterRecursiveCall(where) ? -1 : 0; }
    """
    int mf_enter_recursion(const char *where) except -1


cdef extern from "Python.h":
    void Py_LeaveRecursiveCall()


cdef inline uintptr_t look_further(const char *what) except? 0:
    """The address below which a recursion may not go; RecursionError when it is there already."""
    cdef uintptr_t floor = mf_stack_floor()
    if mf_stack_here() < floor:
        raise RecursionError(f"{what.decode()} is nested too deeply for the stack of this thread")
    # Of a stack that is nobody's nothing is known: the recursion limit alone bounds it.
    return floor if floor else 1
