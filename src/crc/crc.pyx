# cython: language_level=3, boundscheck=False, wraparound=False
"""The checksums that S3 stores with an object: CRC-64/NVME, CRC-32C and CRC-32."""

from binascii import a2b_base64

from libc.stdint cimport uint8_t, uint64_t


cdef extern from "crc/checksum.h" nogil:
    enum mf_crc_kind:
        MF_CRC_KINDS
    enum mf_crc_impl:
        MF_CRC_BEST, MF_CRC_TABLE, MF_CRC_CLMUL, MF_CRC_VCLMUL
    enum:
        MF_CRC_TEXT
    const char **mf_crc_names
    uint64_t mf_crc_update_by(mf_crc_impl impl, mf_crc_kind kind, uint64_t crc, const uint8_t *data, size_t n)
    int mf_crc_available(mf_crc_impl impl)
    uint64_t mf_crc_combine(mf_crc_kind kind, uint64_t crc_a, uint64_t crc_b, uint64_t length_b)
    size_t mf_crc_width(mf_crc_kind kind)
    size_t mf_crc_encode(mf_crc_kind kind, uint64_t crc, char *out)


cdef dict KINDS = {mf_crc_names[kind].decode("ascii"): kind for kind in range(MF_CRC_KINDS)}
cdef dict IMPLEMENTATIONS = {"best": MF_CRC_BEST, "table": MF_CRC_TABLE, "clmul": MF_CRC_CLMUL, "vclmul": MF_CRC_VCLMUL}

# 64 KiB take 1 to 4 us (32 by table): for less, letting another thread in and waiting for one's turn does not pay.
cdef size_t WITH_GIL = 64 << 10

NAMES = tuple(KINDS)


cdef mf_crc_kind kind_of(name) except *:
    kind = KINDS.get(name)
    if kind is None:
        raise ValueError(f"unknown checksum {name!r}: one of {', '.join(KINDS)}")
    return <mf_crc_kind> <int> kind


cdef uint64_t value_of(mf_crc_kind kind, value) except? 0:
    if value < 0 or value >> 8 * mf_crc_width(kind):
        raise ValueError(f"{value} is not a checksum of {mf_crc_width(kind)} bytes")
    return value


def implementations():
    """Names of the implementations that this processor has, for ``update``; "best" chooses among the others."""
    return tuple(name for name, impl in IMPLEMENTATIONS.items() if mf_crc_available(<mf_crc_impl> <int> impl))


def update(name, const uint8_t[::1] data, value=0, *, implementation="best"):
    """The checksum ``name`` of what came before, whose checksum is ``value``, followed by ``data``.

    More than 64 KiB are read without the GIL and must not change meanwhile. A named ``implementation`` is used whatever
    the length; ValueError if the processor lacks it.
    """
    cdef mf_crc_kind kind = kind_of(name)
    cdef mf_crc_impl impl = <mf_crc_impl> <int> IMPLEMENTATIONS.get(implementation, -1)
    cdef uint64_t crc = value_of(kind, value)
    cdef size_t n = data.shape[0]
    cdef const uint8_t *start = &data[0] if n else NULL
    if not mf_crc_available(impl):
        raise ValueError(f"no implementation {implementation!r} here: one of {', '.join(implementations())}")
    if n > WITH_GIL:
        with nogil:
            crc = mf_crc_update_by(impl, kind, crc, start, n)
    else:
        crc = mf_crc_update_by(impl, kind, crc, start, n)
    return crc


def combine(name, a, b, uint64_t length_b):
    """The checksum ``name`` of A followed by B, from the checksums of both and the length of B."""
    cdef mf_crc_kind kind = kind_of(name)
    return mf_crc_combine(kind, value_of(kind, a), value_of(kind, b), length_b)


def encode(name, value):
    """The checksum as the x-amz-checksum-* headers carry it: base64 of its big-endian bytes."""
    cdef mf_crc_kind kind = kind_of(name)
    cdef char[MF_CRC_TEXT] text
    cdef size_t length = mf_crc_encode(kind, value_of(kind, value), text)
    return text[:length].decode("ascii")


def decode(name, text):
    """The inverse of ``encode``. ValueError for anything else, such as the "…-3" of a composite checksum."""
    cdef mf_crc_kind kind = kind_of(name)
    data = a2b_base64(text, strict_mode=True)
    if len(data) != mf_crc_width(kind):
        raise ValueError(f"{text!r} is not a {name} checksum")
    return int.from_bytes(data, "big")
