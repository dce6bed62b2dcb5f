# cython: language_level=3, boundscheck=False, wraparound=False
"""Dedup lookup: batches of chunk ids against sorted tables."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t


cdef extern from "table/lookup.h" nogil:
    size_t MF_ID, MF_ABSENT
    void mf_table_find(const uint8_t *table, size_t n, size_t stride, const uint8_t *ids, size_t m, size_t *found)
    int mf_table_sorted(const uint8_t *table, size_t n, size_t stride)


def find(const uint8_t[::1] table, size_t stride, const uint8_t[::1] ids):
    """Positions of ``ids`` (32 bytes each, back to back) in ``table``: a list, -1 where absent.

    ``table`` holds entries of ``stride`` bytes that begin with an id, ascending. ValueError when a
    length is not a multiple of its entry size.
    """
    cdef size_t n, m, i
    cdef size_t *found
    if stride < MF_ID or table.shape[0] % stride or ids.shape[0] % MF_ID:
        raise ValueError("table or ids are not a whole number of entries")
    n = table.shape[0] // stride
    m = ids.shape[0] // MF_ID
    if m == 0 or n == 0:
        return [-1] * m
    found = <size_t *> PyMem_Malloc(m * sizeof(size_t))
    if found == NULL:
        raise MemoryError()
    try:
        with nogil:
            mf_table_find(&table[0], n, stride, &ids[0], m, found)
        return [-1 if found[i] == MF_ABSENT else found[i] for i in range(m)]
    finally:
        PyMem_Free(found)


def is_sorted(const uint8_t[::1] table, size_t stride):
    """Whether the ids of ``table`` ascend strictly."""
    cdef int answer = 1
    if stride < MF_ID or table.shape[0] % stride:
        raise ValueError("table is not a whole number of entries")
    if table.shape[0]:
        with nogil:
            answer = mf_table_sorted(&table[0], table.shape[0] // stride, stride)
    return bool(answer)
