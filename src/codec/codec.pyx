# cython: language_level=3, boundscheck=False, wraparound=False
"""Chunk encoding and decoding, one call per run of chunks, without the GIL."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t


cdef extern from "codec/status.h" nogil:
    enum:
        MF_OK, MF_NO_MEMORY, MF_UNKNOWN_CODEC, MF_BAD_WIDTH, MF_SHORT, MF_MALFORMED, MF_TOO_LONG


cdef extern from "codec/compress.h" nogil:
    enum:
        MF_NONE, MF_LZ4, MF_ZSTD
    size_t MF_CHUNK_LIMIT
    ctypedef struct mf_codec_ctx:
        pass
    mf_codec_ctx *mf_codec_new()
    void mf_codec_free(mf_codec_ctx *ctx)
    int mf_encode(mf_codec_ctx *ctx, const uint8_t *src, size_t n, unsigned codec, unsigned width,
                  int level, uint8_t *dst, size_t cap, size_t *size)
    int mf_decode(mf_codec_ctx *ctx, const uint8_t *src, size_t csize, unsigned codec,
                  unsigned width, uint8_t *dst, size_t usize)


NONE = MF_NONE
LZ4 = MF_LZ4
ZSTD = MF_ZSTD
CHUNK_LIMIT = MF_CHUNK_LIMIT


cdef struct Job:
    size_t src, csize, dst, usize
    unsigned codec, width


cdef class Codec:
    """Compression contexts and scratch memory; use one per thread at a time.

    Memory is bounded by a few MiB: the scratch holds one chunk. ``errors`` has the exceptions to raise:
    ``CorruptObject`` for damaged chunks and ``Unsupported`` for those of a later version. Both are called with a
    message and the keywords ``offset`` (in the source), ``expected`` and ``found``.
    """

    cdef mf_codec_ctx *ctx
    cdef object errors

    def __cinit__(self, errors):
        self.errors = errors
        self.ctx = mf_codec_new()
        if self.ctx == NULL:
            raise MemoryError()

    def __dealloc__(self):
        mf_codec_free(self.ctx)

    cdef int check(self, int status, size_t offset, size_t csize, size_t usize, unsigned codec,
                   unsigned width) except -1:
        """The one place where a kernel's status becomes an exception."""
        if status == MF_OK:
            return 0
        if status == MF_NO_MEMORY:
            raise MemoryError()
        if status == MF_TOO_LONG:
            raise ValueError(f"cannot encode a chunk of {usize} bytes: the limit is {CHUNK_LIMIT}")
        if status == MF_UNKNOWN_CODEC:
            raise self.errors.Unsupported(f"chunk codec {codec} is unknown to this version of mfstore", offset=offset)
        if status == MF_BAD_WIDTH:
            raise self.errors.CorruptObject("shuffle width out of range", offset=offset, expected="0, 2, 4 or 8",
                                            found=width)
        if status == MF_SHORT:
            raise self.errors.CorruptObject("chunk decodes to fewer bytes than its table says", offset=offset,
                                            expected=usize)
        raise self.errors.CorruptObject(f"chunk of {csize} bytes cannot be decoded", offset=offset,
                                        expected=f"{usize} bytes")

    def encode(self, const uint8_t[::1] data, ends, unsigned codec, unsigned width, int level, double keep):
        """Encode the chunks of ``data`` that end at ``ends``; returns ``(arena, sizes)``.

        ``arena`` is a new bytes object with the encoded chunks back to back and ``sizes`` their
        lengths; a size of 0 means the chunk did not shrink below ``keep`` of its length and is to be
        stored as it is (it takes no room in the arena). ValueError when a chunk exceeds CHUNK_LIMIT.
        """
        cdef size_t n = len(ends), i, start = 0, used = 0, cap, size = 0, total = data.shape[0]
        cdef size_t *bounds
        cdef int status = MF_OK
        cdef bytes arena
        cdef uint8_t *out
        if n == 0:
            return b"", []
        bounds = <size_t *> PyMem_Malloc(2 * n * sizeof(size_t))
        if bounds == NULL:
            raise MemoryError()
        try:
            for i in range(n):
                bounds[i] = ends[i]
                if bounds[i] <= start or bounds[i] > total:
                    raise ValueError("chunk ends must ascend within the data")
                start = bounds[i]
            arena = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> (bounds[n - 1] * keep) + 1)
            out = <uint8_t *> PyBytes_AS_STRING(arena)
            start = 0
            with nogil:
                for i in range(n):
                    cap = <size_t> ((bounds[i] - start) * keep)
                    status = mf_encode(self.ctx, &data[start], bounds[i] - start, codec, width, level,
                                       out + used, cap, &size)
                    if status != MF_OK:
                        break
                    bounds[n + i] = size
                    used += size
                    start = bounds[i]
            self.check(status, start, 0, bounds[i] - start if status else 0, codec, width)
            return memoryview(arena)[:used], [bounds[n + i] for i in range(n)]
        finally:
            PyMem_Free(bounds)

    def decode(self, const uint8_t[::1] src, uint8_t[::1] dst, jobs):
        """Decode chunks of ``src`` into ``dst``, which must be writable.

        ``jobs`` is a list of ``(src_offset, csize, codec, width, dst_offset, usize)``. CorruptObject
        (with the offset in ``src``) when a chunk is malformed or not exactly ``usize`` bytes long;
        ``dst`` is then partly written. Never writes outside ``dst``.
        """
        cdef size_t n = len(jobs), i, limit_src = src.shape[0], limit_dst = dst.shape[0]
        cdef Job *table
        cdef int status = MF_OK
        cdef const uint8_t *source
        cdef uint8_t *target
        if n == 0:
            return
        table = <Job *> PyMem_Malloc(n * sizeof(Job))
        if table == NULL:
            raise MemoryError()
        try:
            for i in range(n):
                (table[i].src, table[i].csize, table[i].codec, table[i].width,
                 table[i].dst, table[i].usize) = jobs[i]
                if table[i].csize > limit_src or table[i].src > limit_src - table[i].csize:
                    raise self.errors.CorruptObject("chunk lies outside the bytes read", offset=table[i].src,
                                                    expected=f"at most {limit_src}",
                                                    found=table[i].src + table[i].csize)
                if table[i].usize > limit_dst or table[i].dst > limit_dst - table[i].usize:
                    raise ValueError("chunk does not fit its destination")
            # Pointers, not &view[0]: either view may be empty.
            source = &src[0] if limit_src else NULL
            target = &dst[0] if limit_dst else NULL
            with nogil:
                for i in range(n):
                    if table[i].usize == 0 and table[i].csize == 0:
                        continue
                    status = mf_decode(self.ctx, source + table[i].src, table[i].csize, table[i].codec,
                                       table[i].width, target + table[i].dst, table[i].usize)
                    if status != MF_OK:
                        break
            if status != MF_OK:
                self.check(status, table[i].src, table[i].csize, table[i].usize, table[i].codec, table[i].width)
        finally:
            PyMem_Free(table)

    def trial(self, const uint8_t[::1] sample, widths, int level):
        """Encoded sizes of ``sample``: a list of ``(codec, width, size)``, size capped at its length.

        LZ4 is tried plain and with each shuffle width; Zstandard on the best of those, and on every
        one of them when LZ4 gains nothing anywhere (it has no entropy stage, so a tie says nothing).
        """
        cdef size_t n = sample.shape[0], size = 0
        cdef uint8_t *out
        cdef int status
        cdef unsigned width
        if n == 0:
            return []
        results = []
        out = <uint8_t *> PyMem_Malloc(n)
        if out == NULL:
            raise MemoryError()
        try:
            for candidate in (0, *widths):
                width = candidate
                with nogil:
                    status = mf_encode(self.ctx, &sample[0], n, MF_LZ4, width, level, out, n, &size)
                self.check(status, 0, 0, n, MF_LZ4, width)
                results.append((MF_LZ4, candidate, size or n))
            best = min(results, key=lambda row: row[2])
            tied = best[2] >= 0.98 * n
            for _, candidate, _ in list(results) if tied else [best]:
                width = candidate
                with nogil:
                    status = mf_encode(self.ctx, &sample[0], n, MF_ZSTD, width, level, out, n, &size)
                self.check(status, 0, 0, n, MF_ZSTD, width)
                results.append((MF_ZSTD, candidate, size or n))
            return results
        finally:
            PyMem_Free(out)
