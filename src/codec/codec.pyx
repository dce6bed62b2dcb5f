# cython: language_level=3, boundscheck=False, wraparound=False
"""Chunk encoding and decoding, one call per run of chunks, without the GIL.

So too for deltas: chunks encoded as what differs from a *base*, bytes that the reader has.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t
from libc.string cimport memcpy
from loaded cimport linked, mf_function


cdef extern from "Python.h":
    ctypedef struct PyObject
    int _PyBytes_Resize(PyObject **value, Py_ssize_t n) except -1


cdef extern from "codec/status.h" nogil:
    enum:
        MF_OK, MF_NO_MEMORY, MF_UNKNOWN_CODEC, MF_BAD_WIDTH, MF_SHORT, MF_MALFORMED, MF_TOO_LONG,
        MF_BAD_BASE, MF_BAD_SEAL


cdef extern from "codec/search.h" nogil:
    enum:
        MF_QUICK, MF_FIVES, MF_FAR


cdef extern from "codec/group.h" nogil:
    size_t MF_GROUP_LIMIT
    ctypedef struct mf_group_part:
        size_t start, usize
        uint8_t *dst


cdef extern from "codec/compress.h" nogil:
    enum:
        MF_NONE, MF_LZ4, MF_ZSTD, MF_PLANES, MF_GROUP
    size_t MF_CHUNK_LIMIT
    ctypedef struct mf_codec_ctx:
        pass
    mf_codec_ctx *mf_codec_new()
    void mf_codec_free(mf_codec_ctx *ctx)
    int mf_encode(mf_codec_ctx *ctx, const uint8_t *src, size_t n, unsigned codec, unsigned width,
                  int level, uint8_t *dst, size_t cap, size_t *size)
    int mf_decode(mf_codec_ctx *ctx, const uint8_t *src, size_t csize, unsigned codec,
                  unsigned width, uint8_t *dst, size_t usize)
    int mf_encode_group(mf_codec_ctx *ctx, const uint8_t *src, const size_t *ends, size_t count, int level,
                        uint8_t *dst, size_t cap, size_t *sizes, size_t *size)
    int mf_decode_group(mf_codec_ctx *ctx, const uint8_t *src, size_t csize, const mf_group_part *parts, size_t count)


cdef extern from "codec/delta.h" nogil:
    enum:
        MF_PREFIX, MF_DIFFERENCE
    size_t mf_delta_bound(size_t n)
    int mf_delta_encode(mf_codec_ctx *ctx, const uint8_t *src, size_t n, const uint8_t *base, size_t base_size,
                        unsigned codec, unsigned width, int level, uint8_t *dst, size_t cap, size_t *size)
    int mf_delta_decode(mf_codec_ctx *ctx, const uint8_t *src, size_t csize, const uint8_t *base, size_t base_size,
                        unsigned codec, unsigned width, uint8_t *dst, size_t usize)
    int mf_delta_is_sealed(const uint8_t *src, size_t csize)


cdef extern from "codec/likeness.h" nogil:
    ctypedef struct mf_likeness:
        size_t telling, equal, found, plain, changed
    void mf_compare(const uint8_t *src, size_t n, const uint8_t *base, size_t base_size, unsigned width,
                    mf_likeness *likeness)


cdef extern from "lz4.h" nogil:
    const char *LZ4_VERSION_STRING
    const char *LZ4_versionString()


cdef extern from "zstd.h" nogil:
    const char *ZSTD_VERSION_STRING
    const char *ZSTD_versionString()


NONE = MF_NONE
LZ4 = MF_LZ4
ZSTD = MF_ZSTD
PREFIX = MF_PREFIX
DIFFERENCE = MF_DIFFERENCE
DELTAS = (PREFIX, DIFFERENCE)
PLANES = MF_PLANES
PCODEC = 6
"""pcodec, a package of Python that is needed only where this codec is used: no kernel knows it."""
PCODEC_TYPES = {1: "<u4", 2: "<u8", 3: "<i4", 4: "<i8", 5: "<f4", 6: "<f8", 7: "<u2", 8: "<i2", 9: "<f2"}
"""numpy's name of each number type, by pco's own number of it, which stands in the place of the shuffle width."""
CHUNK_LIMIT = MF_CHUNK_LIMIT
GROUP = MF_GROUP
"""Several chunks in one frame; where one starts in the uncompressed group stands in the place of the shuffle width."""
GROUP_LIMIT = MF_GROUP_LIMIT
QUICK = MF_QUICK
FIVES = MF_FIVES
FAR = MF_FAR
"""Levels between those of Zstandard, for what is long (codec/search.h)."""


cdef inline const uint8_t *start_of(const uint8_t[::1] view) noexcept:
    """A pointer, not &view[0]: a view may be empty."""
    return &view[0] if view.shape[0] else NULL


def libraries():
    """What this is linked with: each library's version, the version of the headers it was built with, and the file that
    it was loaded from."""
    lz4, zstd = LZ4_versionString().decode(), ZSTD_versionString().decode()
    return {
        "liblz4": linked(lz4, LZ4_VERSION_STRING.decode(), <mf_function> LZ4_versionString),
        "libzstd": linked(zstd, ZSTD_VERSION_STRING.decode(), <mf_function> ZSTD_versionString),
    }


def delta_seal_is_right(const uint8_t[::1] encoded):
    """Whether the encoded bytes of a delta end with their seal: nobody changed them, whatever its base is."""
    cdef const uint8_t *source = start_of(encoded)
    cdef size_t n = encoded.shape[0]
    cdef bint right
    with nogil:
        right = mf_delta_is_sealed(source, n)
    return right


def likeness(const uint8_t[::1] data, const uint8_t[::1] base, unsigned width):
    """How much of ``data`` its base has: ``(telling, equal, found, plain, changed)``, lengths in bytes (likeness.h)."""
    cdef const uint8_t *source = start_of(data)
    cdef const uint8_t *old = start_of(base)
    cdef size_t n = data.shape[0], base_size = base.shape[0]
    cdef mf_likeness found
    if width and width != 2 and width != 4 and width != 8:
        raise ValueError(f"shuffle width {width} is out of range")
    with nogil:
        mf_compare(source, n, old, base_size, width, &found)
    return found.telling, found.equal, found.found, found.plain, found.changed


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
            raise self.errors.CorruptObject("shuffle width out of range", offset=offset,
                                            expected="0" if codec == MF_PREFIX else "0, 2, 4 or 8", found=width)
        if status == MF_BAD_BASE:
            raise self.errors.CorruptObject(
                "base of a delta has the wrong length", offset=offset,
                expected=f"{usize} bytes" if codec == MF_DIFFERENCE else f"at most {CHUNK_LIMIT} bytes")
        if status == MF_BAD_SEAL:
            raise self.errors.CorruptObject("delta is damaged: it does not end with its seal", offset=offset)
        if status == MF_SHORT:
            raise self.errors.CorruptObject("chunk decodes to fewer bytes than its table says", offset=offset,
                                            expected=usize)
        raise self.errors.CorruptObject(f"chunk of {csize} bytes cannot be decoded", offset=offset,
                                        expected=f"{usize} bytes")

    def pcodec(self):
        """The package, and numpy, which it needs. Unsupported when it is not there."""
        try:
            import numpy
            from pcodec import ChunkConfig, standalone
        except ImportError:
            raise self.errors.Unsupported("pcodec is not installed: chunks are stored with it, or are to be",
                                          hint="pip install 'mfstore[pcodec]'") from None
        return numpy, ChunkConfig, standalone

    def encode_numbers(self, const uint8_t[::1] data, unsigned kind, int level):
        """``data`` as numbers of the type ``kind`` of PCODEC_TYPES; bytes behind the last number stay as they are."""
        numpy, config, standalone = self.pcodec()
        cdef size_t n = data.shape[0], length = n - n % (numpy.dtype(PCODEC_TYPES[kind]).itemsize)
        # Copied: numbers have to lie at multiples of their size.
        numbers = numpy.frombuffer(bytes(data[:length]), PCODEC_TYPES[kind])
        return standalone.simple_compress(numbers, config(compression_level=level)) + bytes(data[length:])

    cdef decode_numbers(self, const uint8_t[::1] encoded, unsigned kind, uint8_t[::1] target, size_t offset):
        """What ``encode_numbers`` gave; ``offset`` is for errors. Writes all of ``target`` or nothing."""
        cdef size_t n = target.shape[0], csize = encoded.shape[0], tail
        cdef const uint8_t[::1] plain
        if kind not in PCODEC_TYPES:
            raise self.errors.CorruptObject("number type out of range", offset=offset, expected="1 to 9", found=kind)
        numpy, _, standalone = self.pcodec()
        if n > MF_CHUNK_LIMIT or csize > MF_CHUNK_LIMIT:
            self.check(MF_MALFORMED, offset, csize, n, PCODEC, kind)
        tail = n % (numpy.dtype(PCODEC_TYPES[kind]).itemsize)
        if tail > csize:
            self.check(MF_MALFORMED, offset, csize, n, PCODEC, kind)
        numbers = numpy.empty(n // numpy.dtype(PCODEC_TYPES[kind]).itemsize, PCODEC_TYPES[kind])
        try:
            done = standalone.simple_decompress_into(bytes(encoded[:csize - tail]), numbers)
        except RuntimeError:
            self.check(MF_MALFORMED, offset, csize, n, PCODEC, kind)
        if not done.finished or done.n_processed != len(numbers):
            self.check(MF_SHORT, offset, csize, n, PCODEC, kind)
        plain = numbers.view("u1")
        if n > tail:
            memcpy(&target[0], &plain[0], n - tail)
        if tail:
            memcpy(&target[n - tail], &encoded[csize - tail], tail)

    cdef encode_each_as_numbers(self, const uint8_t[::1] data, ends, unsigned kind, int level, double keep):
        cdef size_t start = 0, end
        parts, sizes = [], []
        for end in ends:
            encoded = self.encode_numbers(data[start:end], kind, level)
            if len(encoded) > <size_t> ((end - start) * keep):
                encoded = b""
            parts.append(encoded)
            sizes.append(len(encoded))
            start = end
        return b"".join(parts), sizes

    def encode(self, const uint8_t[::1] data, ends, unsigned codec, unsigned width, int level, double keep):
        """Encode the chunks of ``data`` that end at ``ends``; returns ``(arena, sizes)``.

        ``arena`` is a bytes object with the encoded chunks back to back, and holds no memory beyond them; ``sizes`` are
        their lengths. A size of 0 means the chunk did not shrink below ``keep`` of its length and is to be
        stored as it is (it takes no room in the arena). ValueError when a chunk exceeds CHUNK_LIMIT.
        """
        cdef size_t n = len(ends), i, start = 0, used = 0, cap, size = 0, total = data.shape[0]
        cdef size_t *bounds
        cdef int status = MF_OK
        cdef PyObject *held
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
            if codec == PCODEC:
                return self.encode_each_as_numbers(data, ends, width, level, keep)
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
            if used < bounds[n - 1] / 2:
                # Little is copied sooner than memory is cut into pieces.
                return PyBytes_FromStringAndSize(<char *> out, used), [bounds[n + i] for i in range(n)]
            # Its only reference is given up, so that it is shortened where it is.
            held = <PyObject *> arena
            Py_INCREF(arena)
            arena = None
            _PyBytes_Resize(&held, used)
            arena = <bytes> held
            Py_DECREF(arena)
            return arena, [bounds[n + i] for i in range(n)]
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
        cdef unsigned pcodec = PCODEC
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
                if table[i].codec == pcodec:
                    self.decode_numbers(src[table[i].src:table[i].src + table[i].csize], table[i].width,
                                        dst[table[i].dst:table[i].dst + table[i].usize], table[i].src)
            source = start_of(src)
            target = &dst[0] if limit_dst else NULL
            with nogil:
                for i in range(n):
                    if table[i].codec == pcodec or (table[i].usize == 0 and table[i].csize == 0):
                        continue
                    status = mf_decode(self.ctx, source + table[i].src, table[i].csize, table[i].codec,
                                       table[i].width, target + table[i].dst, table[i].usize)
                    if status != MF_OK:
                        break
            if status != MF_OK:
                self.check(status, table[i].src, table[i].csize, table[i].usize, table[i].codec, table[i].width)
        finally:
            PyMem_Free(table)

    def decode_each(self, const uint8_t[::1] src, parts):
        """Decode chunks of ``src``, each into memory of its own: ``parts`` is a list of ``(offset, csize, codec, width,
        target)``. As ``decode``, whose errors it raises; each target is filled, up to the chunk that is malformed.
        """
        cdef size_t n = len(parts), i, limit = src.shape[0]
        cdef uint8_t[::1] target
        cdef uint8_t **targets
        cdef Job *table
        cdef int status = MF_OK
        cdef unsigned pcodec = PCODEC
        cdef const uint8_t *source = start_of(src)
        if n == 0:
            return
        table = <Job *> PyMem_Malloc(n * (sizeof(Job) + sizeof(uint8_t *)))
        if table == NULL:
            raise MemoryError()
        targets = <uint8_t **> (table + n)
        try:
            for i in range(n):
                # The caller's list keeps the memory alive.
                table[i].src, table[i].csize, table[i].codec, table[i].width, target = parts[i]
                if table[i].csize > limit or table[i].src > limit - table[i].csize:
                    raise self.errors.CorruptObject("chunk lies outside the bytes read", offset=table[i].src,
                                                    expected=f"at most {limit}", found=table[i].src + table[i].csize)
                table[i].usize = target.shape[0]
                targets[i] = &target[0] if table[i].usize else NULL
                if table[i].codec == pcodec:
                    self.decode_numbers(src[table[i].src:table[i].src + table[i].csize], table[i].width, target,
                                        table[i].src)
            with nogil:
                for i in range(n):
                    if table[i].codec == pcodec or (table[i].usize == 0 and table[i].csize == 0):
                        continue
                    status = mf_decode(self.ctx, source + table[i].src, table[i].csize, table[i].codec,
                                       table[i].width, targets[i], table[i].usize)
                    if status != MF_OK:
                        break
            if status != MF_OK:
                self.check(status, table[i].src, table[i].csize, table[i].usize, table[i].codec, table[i].width)
        finally:
            PyMem_Free(table)

    def encode_group(self, const uint8_t[::1] data, ends, int level, double keep):
        """The chunks of ``data`` that end at ``ends``, the last at its end, as one group: ``(encoded, sizes)``.

        ``sizes`` are what each chunk takes of it. ``encoded`` is empty when the group does not shrink to ``keep`` of
        its length; then sizes say nothing. ValueError when it exceeds GROUP_LIMIT.
        """
        cdef size_t n = len(ends), i, start = 0, size = 0, total = data.shape[0], cap = <size_t> (total * keep)
        cdef const uint8_t *source = start_of(data)
        cdef uint8_t *out
        cdef size_t *bounds
        cdef int status
        if total > MF_GROUP_LIMIT:
            raise ValueError(f"cannot encode a group of {total} bytes: the limit is {GROUP_LIMIT}")
        bounds = <size_t *> PyMem_Malloc(2 * n * sizeof(size_t) + 1)
        out = <uint8_t *> PyMem_Malloc(cap + 1)
        try:
            if bounds == NULL or out == NULL:
                raise MemoryError()
            for i in range(n):
                bounds[i] = ends[i]
                if bounds[i] <= start or bounds[i] > total:
                    raise ValueError("chunk ends must ascend within the data")
                start = bounds[i]
            if start != total or n == 0:
                raise ValueError("the last chunk of a group ends with its data")
            with nogil:
                status = mf_encode_group(self.ctx, source, bounds, n, level, out, cap, bounds + n, &size)
            self.check(status, 0, 0, total, MF_GROUP, 0)
            return PyBytes_FromStringAndSize(<char *> out, size), [bounds[n + i] for i in range(n)]
        finally:
            PyMem_Free(bounds)
            PyMem_Free(out)

    def decode_group(self, const uint8_t[::1] encoded, parts, size_t offset=0):
        """Decode parts of a group into memory: ``parts`` is a list of ``(start, target)``, ascending by start, and each
        writable target is filled with the bytes of the uncompressed group from there on.

        Once for all of them, and not behind the last; where they are the whole group and lie side by side as in it,
        straight into them. CorruptObject, with ``offset``, when the group is malformed or a part does not lie in it;
        targets are then partly written, and nothing outside them.
        """
        cdef size_t n = len(parts), i, csize = encoded.shape[0]
        cdef const uint8_t *source = start_of(encoded)
        cdef uint8_t[::1] target
        cdef mf_group_part *table
        cdef int status
        if n == 0:
            return
        table = <mf_group_part *> PyMem_Malloc(n * sizeof(mf_group_part))
        if table == NULL:
            raise MemoryError()
        try:
            for i in range(n):
                # The caller's list keeps the memory alive.
                table[i].start, target = parts[i]
                table[i].usize = target.shape[0]
                table[i].dst = &target[0] if table[i].usize else NULL
            with nogil:
                status = mf_decode_group(self.ctx, source, csize, table, n)
            self.check(status, offset, csize, table[n - 1].usize, MF_GROUP, 0)
        finally:
            PyMem_Free(table)

    def trial(self, const uint8_t[::1] sample, candidates, double most=0):
        """Encoded sizes of ``sample`` for each of ``candidates``, ``(codec, width, level)``, capped at its length. With
        ``most``, what takes more than so many times the first one is given up, and said to take its length."""
        cdef size_t n = sample.shape[0], size = 0, cap = n
        cdef const uint8_t *source = start_of(sample)
        cdef uint8_t *out
        cdef int status, level
        cdef unsigned codec, width
        sizes = []
        out = <uint8_t *> PyMem_Malloc(n + 1)
        if out == NULL:
            raise MemoryError()
        try:
            for codec, width, level in candidates:
                if codec == PCODEC:
                    sizes.append(min(n, len(self.encode_numbers(sample, width, level))))
                    continue
                with nogil:
                    status = mf_encode(self.ctx, source, n, codec, width, level, out, cap, &size)
                self.check(status, 0, 0, n, codec, width)
                if most and not sizes:
                    cap = min(n, <size_t> (most * (size or n)))
                sizes.append(size or n)
            return sizes
        finally:
            PyMem_Free(out)

    def encode_delta(self, const uint8_t[::1] data, const uint8_t[::1] base, unsigned codec, unsigned width, int level,
                     most=None):
        """``data`` as a delta on ``base``: its encoded bytes with their seal, longer than ``data`` if it does not pay.
        With ``most``, b"" when they are more than that, or nearly so: Zstandard gives up some bytes before.

        ``codec`` is PREFIX (then ``width`` is 0) or DIFFERENCE (then ``base`` is as long as ``data``). ValueError when
        they are not so, or when one exceeds CHUNK_LIMIT.
        """
        cdef size_t n = data.shape[0], base_size = base.shape[0], size = 0, cap = mf_delta_bound(n)
        cdef const uint8_t *source = start_of(data)
        cdef const uint8_t *old = start_of(base)
        cdef int status
        cdef uint8_t *out
        self.may_encode(n, base_size, codec, width)
        if most is not None:
            cap = min(cap, <size_t> most)
        out = <uint8_t *> PyMem_Malloc(cap + 1)
        if out == NULL:
            raise MemoryError()
        try:
            with nogil:
                status = mf_delta_encode(self.ctx, source, n, old, base_size, codec, width, level, out, cap, &size)
            self.check(status, 0, 0, n, codec, width)
            if size == 0 and most is None:
                raise ValueError(f"the delta of a chunk of {n} bytes exceeds {CHUNK_LIMIT}")
            return PyBytes_FromStringAndSize(<char *> out, size)
        finally:
            PyMem_Free(out)

    def decode_delta(self, const uint8_t[::1] encoded, const uint8_t[::1] base, unsigned codec, unsigned width,
                     uint8_t[::1] into):
        """Decode one delta on ``base``: writes all of ``into``, which overlaps neither, or raises CorruptObject.

        CorruptObject when the encoded bytes do not end with their seal, are malformed, or do not decode to exactly the
        length of ``into``; it is then partly written, and nothing outside it. A wrong base of the right length need
        not raise: the caller compares the id of the chunk.
        """
        cdef size_t n = encoded.shape[0], base_size = base.shape[0], usize = into.shape[0]
        cdef const uint8_t *source = start_of(encoded)
        cdef const uint8_t *old = start_of(base)
        cdef uint8_t *target = &into[0] if usize else NULL
        cdef int status
        with nogil:
            status = mf_delta_decode(self.ctx, source, n, old, base_size, codec, width, target, usize)
        self.check(status, 0, n, usize, codec, width)

    cdef int may_encode(self, size_t n, size_t base_size, unsigned codec, unsigned width) except -1:
        """ValueError for what the kernel would refuse: when encoding it is the caller's mistake and no damage."""
        if codec != MF_PREFIX and codec != MF_DIFFERENCE:
            raise ValueError(f"{codec} is no codec of deltas")
        if codec == MF_PREFIX and width:
            raise ValueError("PREFIX has no shuffle")
        if codec == MF_DIFFERENCE and base_size != n:
            raise ValueError(f"DIFFERENCE of {n} bytes needs a base of that length, not of {base_size}")
        if width and width != 2 and width != 4 and width != 8:
            raise ValueError(f"shuffle width {width} is out of range")
        if base_size > MF_CHUNK_LIMIT:
            raise ValueError(f"cannot encode on a base of {base_size} bytes: the limit is {CHUNK_LIMIT}")
        return 0
