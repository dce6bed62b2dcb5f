# cython: language_level=3, boundscheck=False, wraparound=False
"""AWS Signature Version 4 for S3. The native engine signs in C by the same kernel, which is tested through these."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint8_t


cdef extern from "sigv4/signature.h" nogil:
    enum:
        MF_SHA256_HEX, MF_AMZ_DATE
    size_t MF_NO_ROOM
    struct mf_text:
        const char *at
        size_t n
    struct mf_sha256:
        pass
    struct mf_signing_key:
        pass
    struct mf_header:
        mf_text name, value
    struct mf_request:
        mf_text method, path, query
        const mf_header *headers
        size_t headers_n
        mf_text payload
    void mf_sha256_init(mf_sha256 *hash)
    void mf_sha256_update(mf_sha256 *hash, const void *data, size_t n)
    void mf_sha256_hex(mf_sha256 *hash, char *out)
    size_t mf_uri_encode(const char *text, size_t n, int keep_slash, char *out, size_t room)
    int mf_amz_date(int64_t seconds_since_1970, char *out)
    int mf_signing_key_derive(mf_signing_key *key, mf_text secret, const char *timestamp, mf_text region,
                              mf_text service)
    void mf_signing_key_forget(mf_signing_key *key)
    size_t mf_sigv4_authorization(const mf_signing_key *key, mf_text access_key, const char *timestamp,
                                  const mf_request *request, char *out, size_t room)


cdef size_t WITH_GIL = 64 << 10  # 40 us of hashing; for less, letting another thread in does not pay


cdef mf_text text_of(bytes value) noexcept:
    """Points into ``value``, which the caller keeps."""
    cdef mf_text text
    text.at = value
    text.n = len(value)
    return text


cdef str encoded(str text, int keep_slash):
    cdef bytes data = text.encode()
    cdef size_t room = 3 * <size_t> len(data), length
    cdef char *out = <char *> PyMem_Malloc(room)
    if out == NULL:
        raise MemoryError()
    try:
        length = mf_uri_encode(data, len(data), keep_slash, out, room)
        assert length != MF_NO_ROOM
        return out[:length].decode("ascii")
    finally:
        PyMem_Free(out)


def encode_key(str key):
    """The key as it stands in a request's path: percent-encoded once, slashes kept, nothing normalised."""
    return encoded(key, True)


def encode_query(pairs):
    """The pairs of str as a query string, percent-encoded and sorted as the signature wants it."""
    both = sorted((encoded(name, False), encoded(value, False)) for name, value in pairs)
    return "&".join([f"{name}={value}" for name, value in both])


def payload_hash(parts):
    """Hexadecimal SHA-256 of the parts, one after the other. Parts over 64 KiB are read without the GIL."""
    cdef mf_sha256 hash_
    cdef char[MF_SHA256_HEX] text
    cdef const uint8_t[::1] view
    cdef const uint8_t *start
    cdef size_t n
    mf_sha256_init(&hash_)
    for part in parts:
        view = part
        n = view.shape[0]
        start = &view[0] if n else NULL
        if n > WITH_GIL:
            with nogil:
                mf_sha256_update(&hash_, start, n)
        else:
            mf_sha256_update(&hash_, start, n)
    mf_sha256_hex(&hash_, text)
    return text[:MF_SHA256_HEX - 1].decode("ascii")


def amz_date(int64_t timestamp):
    """The value of x-amz-date for seconds since 1970. ValueError outside the years 1970 to 9999."""
    cdef char[MF_AMZ_DATE] text
    if not mf_amz_date(timestamp, text):
        raise ValueError(f"{timestamp} is outside the years 1970 to 9999")
    return text[:MF_AMZ_DATE - 1].decode("ascii")


def sign(str method, str path, str query, headers, str payload_hash, str access_key, str secret_key, str region,
         str service, int64_t timestamp):
    """The value of the Authorization header.

    ``path`` and ``query`` are encoded as they will be sent (``encode_key``, ``encode_query``), ``headers`` are pairs of
    name and value, in any order, with host, x-amz-date (``amz_date(timestamp)``), x-amz-content-sha256
    (``payload_hash``) and, if there is one, x-amz-security-token. ``payload_hash`` may be "UNSIGNED-PAYLOAD".
    ValueError when a name comes twice, or region, service or timestamp are impossible.
    """
    cdef bytes method_ = method.encode(), path_ = path.encode(), query_ = query.encode()
    cdef bytes payload_ = payload_hash.encode(), access = access_key.encode(), secret = secret_key.encode()
    cdef bytes region_ = region.encode(), service_ = service.encode(), stamp = amz_date(timestamp).encode()
    cdef list pairs = sorted([(name.lower().encode(), value.strip(" \t").encode()) for name, value in headers])
    cdef mf_signing_key key
    cdef mf_request request
    cdef mf_header *table = NULL
    cdef char *out = NULL
    cdef size_t room = 256 + <size_t> len(access), length, i, n = len(pairs)
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a header comes twice")
    if not mf_signing_key_derive(&key, text_of(secret), stamp, text_of(region_), text_of(service_)):
        raise ValueError(f"region {region!r} or service {service!r} is too long")
    try:
        for name, _ in pairs:
            room += <size_t> len(name) + 1
        table = <mf_header *> PyMem_Malloc(n * sizeof(mf_header))
        out = <char *> PyMem_Malloc(room)
        if table == NULL or out == NULL:
            raise MemoryError()
        for i in range(n):
            table[i].name = text_of(<bytes> (<tuple> pairs[i])[0])
            table[i].value = text_of(<bytes> (<tuple> pairs[i])[1])
        request.method, request.path, request.query = text_of(method_), text_of(path_), text_of(query_)
        request.headers, request.headers_n, request.payload = table, n, text_of(payload_)
        length = mf_sigv4_authorization(&key, text_of(access), stamp, &request, out, room)
        assert length
        return out[:length].decode()
    finally:
        mf_signing_key_forget(&key)
        PyMem_Free(table)
        PyMem_Free(out)
