# cython: language_level=3, boundscheck=False, wraparound=False
"""Content-defined cut points of opaque data."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t


cdef extern from "chunk/fastcdc.h" nogil:
    size_t MF_CDC_MIN, MF_CDC_NORMAL, MF_CDC_MAX
    size_t mf_cdc_cut(const uint8_t *data, size_t n, int last, size_t *ends)
    size_t mf_cdc_bound(size_t n)


CDC_MIN = MF_CDC_MIN
CDC_NORMAL = MF_CDC_NORMAL
CDC_MAX = MF_CDC_MAX


def cdc_cut(const uint8_t[::1] data, bint last):
    """End offsets of the FastCDC chunks of ``data``, ascending.

    With ``last`` false, the bytes after the final offset (fewer than ``CDC_MAX``) are not cut
    yet: pass them again in front of what follows. With ``last`` true the final offset is
    ``len(data)``. The data is read without the GIL and must not change meanwhile.
    """
    cdef size_t n = data.shape[0], count, i
    cdef size_t *ends
    if n == 0:
        return []
    ends = <size_t *> PyMem_Malloc(mf_cdc_bound(n) * sizeof(size_t))
    if ends == NULL:
        raise MemoryError()
    try:
        with nogil:
            count = mf_cdc_cut(&data[0], n, last, ends)
        return [ends[i] for i in range(count)]
    finally:
        PyMem_Free(ends)
