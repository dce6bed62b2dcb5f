# cython: language_level=3, boundscheck=False, wraparound=False
"""Content-defined cut points."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t


cdef extern from "chunk/cuts.h" nogil:
    enum mf_cut_impl:
        MF_CUT_BEST, MF_CUT_BASE, MF_CUT_AVX2
    struct mf_segment:
        size_t itemsize
        size_t row
        size_t start
    size_t MF_CUT_MIN, MF_CUT_NORMAL, MF_CUT_MAX, MF_LONG_ROW
    int mf_cut_available(mf_cut_impl impl)
    size_t mf_cut(mf_cut_impl impl, mf_segment segment, const uint8_t *data, size_t n, int last, size_t *ends)
    size_t mf_cut_bound(size_t n)


CUT_MIN = MF_CUT_MIN
CUT_NORMAL = MF_CUT_NORMAL
CUT_MAX = MF_CUT_MAX
LONG_ROW = MF_LONG_ROW

cdef dict IMPLEMENTATIONS = {"best": MF_CUT_BEST, "base": MF_CUT_BASE, "avx2": MF_CUT_AVX2}


def implementations():
    """Names of the implementations that this processor has, for ``cut``; "best" chooses among the others."""
    return tuple(name for name, impl in IMPLEMENTATIONS.items() if mf_cut_available(<mf_cut_impl> <int> impl))


def cut(const uint8_t[::1] data, uint8_t itemsize, size_t row, bint last, size_t start=0, *, implementation="best"):
    """End offsets of the chunks of ``data``, ascending and relative to it (docs/format.md, "Cut rules").

    ``data`` is a segment, or what follows byte ``start`` of it, an offset that an earlier call gave as an end. With
    ``last`` false, the bytes after the final offset (fewer than ``CUT_MAX``) are not cut yet: pass them again in front
    of what follows. With ``last`` true the final offset is ``len(data)``. The data is read without the GIL and must
    not change meanwhile. However a segment is passed, its cuts are the same, and so they are with each
    ``implementation``.

    Args:
        itemsize: Bytes of an item; 0 if unknown. OverflowError for more than 255.
        row: Bytes of a row, 0 if there are none.
        implementation: One of ``implementations()``; ValueError if the processor lacks it.
    """
    cdef mf_cut_impl impl = <mf_cut_impl> <int> IMPLEMENTATIONS.get(implementation, -1)
    cdef mf_segment segment
    cdef size_t n = data.shape[0], count, i
    cdef size_t *ends
    if not mf_cut_available(impl):
        raise ValueError(f"no implementation {implementation!r} here: one of {', '.join(implementations())}")
    if n == 0:
        return []
    segment.itemsize, segment.row, segment.start = itemsize, row, start
    ends = <size_t *> PyMem_Malloc(mf_cut_bound(n) * sizeof(size_t))
    if ends == NULL:
        raise MemoryError()
    try:
        with nogil:
            count = mf_cut(impl, segment, &data[0], n, last, ends)
        return [ends[i] for i in range(count)]
    finally:
        PyMem_Free(ends)
