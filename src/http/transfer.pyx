# cython: language_level=3, boundscheck=False, wraparound=False
"""The native S3 engine: calls become the C engine's requests, its completions replies. One crossing per batch."""

import os
from collections.abc import Mapping

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport errno as c_errno
from libc.stdint cimport UINT16_MAX, int64_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp
from posix.unistd cimport getpid

cimport cython
from loaded cimport linked, mf_function

from engine cimport (
    MF_AZURE, MF_CRC32C, MF_CRC_KINDS, MF_CRC_TEXT, MF_DELETE, MF_GET, MF_GOOGLE, MF_GOOGLE_HEAD, MF_HEAD, MF_NO_CRC,
    MF_OTHER, MF_PART, MF_PUT, MF_S3, mf_channel, mf_channel_drain, mf_channel_fileno, mf_channel_free, mf_channel_new,
    mf_channel_take, mf_channel_wait, mf_config, mf_crc_encode, mf_crc_names, mf_crc_update, mf_creds, mf_dialect,
    mf_engine, mf_engine_free, mf_engine_new, mf_engine_stop, mf_engine_submit, mf_event, mf_google_stored,
    mf_google_upload_head, mf_header, mf_next_id, mf_now_ns, mf_operation, mf_part, mf_route, mf_target, mf_text,
    mf_xfer, mf_xfer_cancel, mf_xfer_flowed, mf_xfer_resume,
)


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    str PyUnicode_DecodeUTF8(const char *at, Py_ssize_t n, const char *errors)


cdef extern from "curl/curl.h" nogil:
    ctypedef struct curl_version_info_data:
        const char *version
    const char *LIBCURL_VERSION
    int CURLVERSION_NOW
    curl_version_info_data *curl_version_info(int version)


cdef extern from "openssl/crypto.h" nogil:
    const char *OPENSSL_VERSION_STR
    int OPENSSL_VERSION_STRING
    const char *OpenSSL_version(int what)


cdef extern from "openssl/ssl.h" nogil:
    void TLS_client_method()


# What a reply says of a failure, in the order of enum mf_failure.
cdef tuple failures = (
    None, "connect", "dns", "tls", "proxy", "reset", "truncated", "first-byte", "stall", "overflow", "protocol", "disk",
    "cancelled", "internal", "whole",
)
FAILURES = failures
cdef tuple CHECKSUMS = tuple([mf_crc_names[kind].decode("ascii") for kind in range(MF_CRC_KINDS)])
OPERATIONS = {
    "GetObject": MF_GET, "HeadObject": MF_HEAD, "PutObject": MF_PUT, "UploadPart": MF_PART, "DeleteObject": MF_DELETE,
}
DIALECTS = {"s3": MF_S3, "az": MF_AZURE, "gs": MF_GOOGLE}
cdef int SIGNALS_MS = 50  # between two looks at pending signals


def libraries():
    """What this is linked with: each library's version, the version of the headers it was built with, and the file that
    it was loaded from."""
    openssl = OpenSSL_version(OPENSSL_VERSION_STRING).decode()
    built = OPENSSL_VERSION_STR.decode()
    curl = curl_version_info(CURLVERSION_NOW).version.decode()
    return {
        "libcurl": linked(curl, LIBCURL_VERSION.decode(), <mf_function> curl_version_info),
        "libcrypto": linked(openssl, built, <mf_function> OpenSSL_version),
        "libssl": linked(openssl, built, <mf_function> TLS_client_method),
    }


cdef mf_text text_of(bytes value):
    cdef mf_text text
    text.at = PyBytes_AS_STRING(value)
    text.n = len(value)
    return text


cdef bytes header_value(str value):
    """``value`` as it is sent. ValueError for what could end the header, or what S3 would not store as it is."""
    cdef bytes raw = value.strip(" \t").encode("ascii")
    cdef unsigned char c
    for c in raw:
        if c < 32 and c != 9 or c == 127:
            raise ValueError(f"a control character in a header: {value!r}")
    return raw


@cython.final
cdef class WireCredentials:
    """``Credentials`` as the C engine wants them."""

    cdef mf_creds c
    cdef tuple keep

    def __cinit__(self, credentials):
        self.keep = (
            header_value(credentials.access_key), credentials.secret_key.encode(),
            header_value(credentials.token or ""),
        )
        self.c.id = mf_next_id()
        self.c.access_key = text_of(self.keep[0])
        self.c.secret_key = text_of(self.keep[1])
        self.c.token = text_of(self.keep[2])


@cython.final
cdef class WireRoute:
    """A ``Route`` as the C engine wants it. ``operation``: one of ``OPERATIONS``, or 0.

    ``credentials`` sign its requests, in place of those of ``Channel.submit``. ``whole``: it is one request, with key
    and all headers, which the control plane has signed; ``crc`` is then the checksum of its body, if one was computed.
    """

    cdef mf_route c
    cdef list keep
    cdef bint own
    cdef WireCredentials credentials
    cdef object crc
    cdef bytes boundary, kind, tail  # of an upload that describes itself

    def __cinit__(self, route, int operation, bint http_proxy, WireCredentials credentials=None, bint whole=False,
                  crc=None, int dialect=0):
        cdef str origin = route.origin.rstrip("/"), scheme, host
        scheme, _, host = origin.partition("://")
        usual = ":443" if scheme == "https" else ":80"
        self.keep = []
        self.c.id = mf_next_id()
        self.c.operation = <mf_operation> operation
        self.c.dialect = <mf_dialect> dialect
        self.c.sign_payload = route.sign_payload
        self.c.method = self.text(route.method).at
        self.c.origin = self.text(origin).at
        self.c.host = self.text(host.removesuffix(usual)).at
        self.c.match_header = self.text(route.match_header).at
        self.c.path = self.text(route.path)
        self.c.query = self.text(route.query)
        self.c.region = self.text(route.region)
        self.c.service = self.text(route.service)
        self.c.absolute = http_proxy and scheme == "http"
        self.c.whole = whole
        if route.related is not None:
            self.boundary, self.kind = header_value(route.related[0]), header_value(route.related[1])
            self.tail = b"\r\n--" + self.boundary + b"--\r\n"
        self.own = whole or credentials is not None
        self.credentials = credentials
        self.crc = crc
        # Neither is signed by botocore, or may be signed: proxies change the one, the other says what is so anyway.
        unsigned = ("user-agent", "host")
        if whole:
            unsigned = ("content-length", "transfer-encoding", "expect")
        headers = [
            (name, value) for name, value in route.headers
            if name not in unsigned and (whole or (name, value) != ("accept-encoding", "identity"))
        ]
        self.c.headers = <mf_header *> PyMem_Malloc((len(headers) + 1) * sizeof(mf_header))
        if self.c.headers == NULL:
            raise MemoryError()
        for name, value in headers:
            self.c.headers[self.c.headers_n].name = self.text(name)
            self.c.headers[self.c.headers_n].value = self.text(value)
            self.c.headers_n += 1

    cdef mf_text text(self, str value):
        cdef bytes raw = header_value(value)
        self.keep.append(raw)
        return text_of(raw)

    def __dealloc__(self):
        PyMem_Free(self.c.headers)


cdef enum:
    LINES = 24  # lines of headers that are found without the mapping
    UNSEEN = -1
    ODD = -2


cdef struct Line:
    uint16_t name, name_stop, value, stop


cdef inline bint blank(char c) noexcept nogil:
    return c == b" " or c == b"\t"


cdef inline char lower(char c) noexcept nogil:
    return c + 32 if b"A" <= c <= b"Z" else c


@cython.final
@cython.no_gc
cdef class Headers:
    """The headers of a response, from its header lines: a mapping of lower-case names to values.

    The mapping is made when first looked at as a whole. Single names are looked for among the lines: a small GET asks
    for seven, which takes 1.7 us instead of 6.
    """

    cdef bytes raw
    cdef dict made
    cdef Line[LINES] lines
    cdef int lines_n

    def __cinit__(self, bytes raw=b""):
        self.raw = raw
        self.lines_n = UNSEEN

    cdef void split(self) noexcept:
        """Find the lines; ODD when they are many or long, or one is folded: those only the mapping understands."""
        cdef const char *at = PyBytes_AS_STRING(self.raw)
        cdef Py_ssize_t n = len(self.raw), i = 0, stop
        cdef Line *line
        self.lines_n = ODD
        if n > UINT16_MAX:
            return
        cdef int count = 0
        while i < n:
            if blank(at[i]) or count == LINES:
                return
            line = &self.lines[count]
            line.name = i
            while i < n and at[i] != b":" and not (at[i] == b"\r" and i + 1 < n and at[i + 1] == b"\n"):
                i += 1
            if i == n or at[i] != b":":
                i += 2
                continue
            stop = i
            while stop > line.name and blank(at[stop - 1]):
                stop -= 1
            line.name_stop = stop
            i += 1
            while i < n and blank(at[i]):
                i += 1
            line.value = i
            while i < n and not (at[i] == b"\r" and i + 1 < n and at[i + 1] == b"\n"):
                i += 1
            stop = i
            while stop > line.value and blank(at[stop - 1]):
                stop -= 1
            line.stop = stop
            i += 2
            count += 1
        self.lines_n = count

    cdef object find(self, name, default):
        cdef const char *at = PyBytes_AS_STRING(self.raw)
        cdef const char *wanted
        cdef Py_ssize_t n
        cdef int number, i
        cdef Line line
        if self.lines_n == UNSEEN:
            self.split()
        if self.lines_n == ODD or type(name) is not str or not (<str> name).isascii():
            return self.whole().get(name, default)
        wanted = PyUnicode_AsUTF8AndSize(name, &n)
        for number in range(self.lines_n):
            line = self.lines[number]
            if line.name_stop - line.name != n:
                continue
            i = 0
            while i < n and lower(at[line.name + i]) == wanted[i]:
                i += 1
            if i == n:
                return PyUnicode_DecodeUTF8(at + line.value, line.stop - line.value, "surrogateescape")
        return default

    cdef dict whole(self):
        cdef dict made
        if self.made is None:
            made = {}
            last = None
            for line in self.raw.decode("utf-8", "surrogateescape").split("\r\n"):
                if line[:1] in (" ", "\t"):
                    if last is not None:
                        made[last] += " " + line.strip(" \t")
                    continue
                name, colon, value = line.partition(":")
                if colon:
                    last = name.strip(" \t").lower()
                    if last in made:
                        last = None
                    else:
                        made[last] = value.strip(" \t")
            self.made = made
        return self.made

    def __getitem__(self, name):
        found = self.find(name, None)
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name):
        return self.find(name, None) is not None

    def get(self, name, default=None):
        return self.find(name, default)

    def __iter__(self):
        return iter(self.whole())

    def __len__(self):
        return len(self.whole())

    def keys(self):
        return self.whole().keys()

    def values(self):
        return self.whole().values()

    def items(self):
        return self.whole().items()

    def __eq__(self, other):
        return self.whole() == ((<Headers> other).whole() if isinstance(other, Headers) else other)

    __hash__ = None

    def __repr__(self):
        return repr(self.whole())

    def __reduce__(self):
        return dict, (self.whole(),)

Mapping.register(Headers)


@cython.final
cdef class Engine:
    """The C engine of one process; another one in a forked child.

    ``reply`` makes what ``Channel.poll`` returns: its arguments are the fields of ``mfstore.s3.calls.Reply`` in their
    order. A target or body that is an instance of ``file_range`` lies in a file (``fd``, ``offset``, ``length``).
    ``max_bandwidth``: bytes per second, 0 for as fast as can be.
    """

    cdef mf_engine *c
    cdef mf_config config
    cdef int pid
    cdef list keep
    cdef object reply, file_range

    def __cinit__(self, transport, str ca_file, reply, file_range, double max_bandwidth):
        self.reply = reply
        self.file_range = file_range
        self.keep = [
            None if value is None else os.fsencode(value)
            for value in (
                ca_file, transport.certificate, transport.private_key, transport.proxy, transport.proxy_ca_file,
                transport.proxy_certificate, transport.proxy_private_key,
            )
        ]
        self.config.verify = transport.verify
        self.config.threads = transport.threads
        self.config.connect_timeout_ms = max(1, int(1000 * transport.connect_timeout))
        self.config.max_bandwidth = max_bandwidth
        self.config.ca_file = self.text(0)
        self.config.certificate = self.text(1)
        self.config.private_key = self.text(2)
        self.config.proxy = self.text(3)
        self.config.proxy_ca_file = self.text(4)
        self.config.proxy_certificate = self.text(5)
        self.config.proxy_private_key = self.text(6)

    cdef const char *text(self, size_t i):
        return NULL if self.keep[i] is None else PyBytes_AS_STRING(self.keep[i])

    cdef mf_engine *here(self) except NULL:
        if self.pid != getpid():
            # The parent's threads and connections are not ours to use, join or free: a thread may have held any lock.
            self.c = mf_engine_new(&self.config)
            if self.c == NULL:
                raise MemoryError()
            self.pid = getpid()
        return self.c

    def close(self):
        """End the threads, which fails what is under way as cancelled."""
        cdef mf_engine *c = self.c
        if c != NULL and self.pid == getpid():
            with nogil:
                mf_engine_stop(c)

    def __dealloc__(self):
        cdef mf_engine *c = self.c
        if c != NULL and self.pid == getpid():
            with nogil:
                mf_engine_stop(c)
            mf_engine_free(c)


cdef class Channel
cdef class Lane


# No cycle can go through one while it is of use, and the collector's visits were 8 % of a small request.
@cython.final
@cython.no_gc
@cython.freelist(128)
cdef class Pending:
    """One call, or one plain request, under way: what it needs stays alive by it, and it by the channel's C list."""

    cdef mf_xfer *xfer
    cdef object call, key, if_match, upload, body
    cdef WireRoute route
    cdef WireCredentials credentials
    cdef list keep
    cdef Py_buffer *views
    cdef Py_buffer target
    cdef size_t views_n
    cdef bint has_target
    # Of a plain request: until it is a call like others its lane.
    cdef Lane lane
    cdef object index, given, item, signed_by
    cdef int64_t weight
    cdef double sent
    cdef mf_part part
    cdef char[MF_CRC_TEXT] sum

    def __cinit__(self):
        self.xfer = <mf_xfer *> calloc(1, sizeof(mf_xfer))
        if self.xfer == NULL:
            raise MemoryError()

    def __dealloc__(self):
        self.release(True)

    cdef void release(self, bint whole):
        """Let go of buffers; with ``whole`` of the C side too. Not in a forked child: a thread may be writing."""
        cdef size_t i
        for i in range(self.views_n):
            PyBuffer_Release(&self.views[i])
        self.views_n = 0
        PyMem_Free(self.views)
        self.views = NULL
        if self.has_target:
            self.has_target = False
            PyBuffer_Release(&self.target)
        if self.xfer != NULL and whole:
            free(self.xfer.head)
            free(self.xfer.data)
            PyMem_Free(self.xfer.extra)
            if self.xfer.parts != &self.part:
                PyMem_Free(self.xfer.parts)
            free(self.xfer)
        self.xfer = NULL

    cdef mf_target target_of(self, target, file_range) except *:
        cdef mf_target landing
        if isinstance(target, file_range):
            landing.at = NULL
            landing.fd = target.fd
            landing.offset = target.offset
            landing.n = target.length
        else:
            PyObject_GetBuffer(target, &self.target, PyBUF_SIMPLE | PyBUF_WRITABLE)
            self.has_target = True
            landing.at = <uint8_t *> self.target.buf
            landing.fd = -1
            landing.offset = 0
            landing.n = self.target.len
        return landing

    cdef int take_parts(self, body) except -1:
        cdef size_t n = len(body)
        self.xfer.parts = <mf_part *> PyMem_Malloc((n + 1) * sizeof(mf_part))
        self.views = <Py_buffer *> PyMem_Malloc((n + 1) * sizeof(Py_buffer))
        if self.xfer.parts == NULL or self.views == NULL:
            raise MemoryError()
        for part in body:
            PyObject_GetBuffer(part, &self.views[self.views_n], PyBUF_SIMPLE)
            self.xfer.parts[self.views_n].at = <const uint8_t *> self.views[self.views_n].buf
            self.xfer.parts[self.views_n].n = self.views[self.views_n].len
            self.xfer.body_n += self.views[self.views_n].len
            self.views_n += 1
            if self.views_n == n:
                break
        self.xfer.parts_n = self.views_n
        self.xfer.has_body = 1
        return 0

    cdef void begin(self, WireRoute route, WireCredentials credentials, double skew, double first_byte, double stall):
        """What every request has."""
        cdef mf_xfer *x = self.xfer
        if route.own:
            credentials = route.credentials
        self.route = route
        self.credentials = credentials
        x.route = &route.c
        x.creds = &credentials.c if credentials is not None else NULL
        x.owner = <void *> self
        x.skew = skew
        x.crc_kind = MF_NO_CRC
        x.body_fd = -1
        x.stop = -1
        x.wanted_bytes = -1
        x.length = -1
        x.first_byte_ns = <uint64_t> (1e9 * first_byte)
        x.stall_ns = <uint64_t> (1e9 * stall)

    cdef int prepare(self, Engine engine, call, WireRoute route, WireCredentials credentials, double skew,
                     body) except -1:
        cdef mf_xfer *x = self.xfer
        cdef mf_operation operation = route.c.operation
        cdef bint whole = route.c.whole
        cdef Py_ssize_t n
        self.call = call
        self.begin(route, credentials, skew, call.first_byte, call.stall)
        x.fresh = call.fresh
        if operation == MF_OTHER:
            x.once = call.if_none_match or call.if_match is not None
            # A prepared request has its key in the path already. A body-less POST or PUT says Content-Length: 0.
            if body or route.c.method[0] == b"P":
                self.take_parts(body if isinstance(body, tuple) else (body,))
            return 0
        if call.key is not None and not whole:
            self.key = call.key
            x.key.at = PyUnicode_AsUTF8AndSize(self.key, &n)
            x.key.n = n
            x.has_key = 1
        if call.if_match is not None:
            self.if_match = header_value(call.if_match)
            x.if_match = text_of(self.if_match)
        if operation == MF_GET:
            start, stop = call.start, call.stop
            if start is not None or stop is not None:
                x.has_range = 1
                x.cut = call.cut
                x.start = start or 0
                x.stop = -1 if stop is None else stop
                if stop is not None and (x.start < 0 or x.stop <= x.start):
                    raise ValueError(f"no range: {start}, {stop}")
                if call.checksum is not None:
                    x.crc_kind = CHECKSUMS.index(call.checksum)
            if call.target is not None:
                x.target = self.target_of(call.target, engine.file_range)
                x.has_target = 1
        elif operation == MF_PUT or operation == MF_PART:
            if call.checksum is not None:
                x.crc_kind = CHECKSUMS.index(call.checksum)
            if route.crc is not None:
                x.has_crc = 1
                x.crc = route.crc
            self.body = call.body if body is None else body if isinstance(body, tuple) else (body,)
            if isinstance(self.body, engine.file_range):
                x.has_body = 1
                x.body_fd = self.body.fd
                x.body_offset = self.body.offset
                x.body_n = self.body.length
            else:
                self.take_parts(self.body or ())
            if whole:
                x.if_none_match = call.if_none_match
            elif operation == MF_PART:
                self.upload = call.upload
                x.upload.at = PyUnicode_AsUTF8AndSize(self.upload, &n)
                x.upload.n = n
                x.part = call.part
            else:
                x.if_none_match = call.if_none_match
                if call.metadata:
                    self.take_metadata(call.metadata)
        return 0

    cdef int take_metadata(self, metadata) except -1:
        cdef bytes name, value
        self.keep = []
        self.xfer.extra = <mf_header *> PyMem_Malloc(len(metadata) * sizeof(mf_header))
        if self.xfer.extra == NULL:
            raise MemoryError()
        for raw_name, raw_value in metadata.items():
            name = b"x-amz-meta-" + header_value(raw_name.lower())
            value = header_value(raw_value)
            if b":" in name or b" " in name:
                raise ValueError(f"not a metadata name: {raw_name!r}")
            self.keep.append(name)
            self.keep.append(value)
            self.xfer.extra[self.xfer.extra_n].name = text_of(name)
            self.xfer.extra[self.xfer.extra_n].value = text_of(value)
            self.xfer.extra_n += 1
        return 0

    cdef object reply(self, make, bint announced):
        cdef mf_xfer *x = self.xfer
        cdef Headers headers = Headers.__new__(Headers)
        data = checksum = None
        headers.raw = PyBytes_FromStringAndSize(x.head, x.head_n)
        if announced:
            return make(self.call, x.status, None, "", 0, headers, None, 0, None, True, False, 1e-9 * x.submitted_ns,
                        1e-9 * x.first_ns)
        if not x.has_target or x.status // 100 != 2:
            data = PyBytes_FromStringAndSize(<char *> x.data, x.data_n)
        if x.has_crc:
            checksum = (CHECKSUMS[x.crc_kind], x.crc)
        message = "" if x.failure == 0 else x.message.decode("utf-8", "replace")
        return make(self.call, x.status, failures[x.failure], message, x.error, headers, data, x.received, checksum,
                    False, bool(x.reused), 1e-9 * x.submitted_ns, 1e-9 * x.first_ns, 1e-9 * x.finished_ns)


# ---- plain requests: items become requests, and good replies outcomes, without a call, a reply or a job in between ---

cdef extern from "http/plain.h" nogil:
    ctypedef struct mf_plain "struct mf_plain":
        mf_text etag
        int64_t length
        int verified

    int mf_plain_reply(const mf_xfer *xfer, int verify, mf_plain *found)
    int mf_plain_key(const char *at, size_t n)


cdef extern from *:
    """
    #include "structmember.h"

    /* A slot of a class that has __slots__: where in its objects it lies, or 0 for none. */
    static Py_ssize_t mf_slot_of(PyObject *descriptor) {
        PyMemberDef *member;
        if (!PyObject_TypeCheck(descriptor, &PyMemberDescr_Type))
            return 0;
        member = ((PyMemberDescrObject *) descriptor)->d_member;
        return member->type == T_OBJECT_EX && !(member->flags & READONLY) ? member->offset : 0;
    }

    /* The value of a slot of an object that was just made; takes over the reference. */
    static void mf_fill(PyObject *made, Py_ssize_t slot, PyObject *value) {
        *(PyObject **) ((char *) made + slot) = value;
    }
    """
    Py_ssize_t mf_slot_of(object descriptor)
    void mf_fill(object made, Py_ssize_t slot, PyObject *value)


cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    const char *PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    object PyUnicode_Substring(object text, Py_ssize_t start, Py_ssize_t stop)
    str PyUnicode_DecodeASCII(const char *at, Py_ssize_t n, const char *errors)
    object PyType_GenericAlloc(type cls, Py_ssize_t n)
    int PyMemoryView_Check(object view)
    Py_buffer *PyMemoryView_GET_BUFFER(object view)


cdef enum Slot:
    INDEX, ITEM, BUCKET, KEY, DATA, PATH, SIZE, ETAG, ERROR, HEADERS, ATTEMPTS, SECONDS, FIRST_SECONDS, LAST, MEMORY
    SLOTS

cdef tuple slot_names = (
    "index", "item", "bucket", "key", "data", "path", "size", "etag", "error", "headers", "attempts", "seconds",
    "first_byte", "last", "memory",
)
cdef type outcome_class = None
cdef Py_ssize_t[15] slots


cdef int learn(cls) except -1:
    """Where the fields of an outcome lie. Its constructor takes a microsecond, which is a fifth of a small GET."""
    global outcome_class
    cdef int i
    for i in range(<int> SLOTS):
        slots[i] = mf_slot_of(cls.__dict__[slot_names[i]])
        if slots[i] == 0:
            raise TypeError(f"{cls.__qualname__}.{slot_names[i]} is no slot")
    if len([name for name in cls.__slots__ if name not in slot_names]) > 0:
        raise TypeError(f"{cls.__qualname__} has slots that nobody fills")
    outcome_class = cls
    return 0


cdef inline void fill(object made, int slot, object value):
    Py_INCREF(value)
    mf_fill(made, slots[slot], <PyObject *> value)


cdef enum:
    MOST_KEY = 1024  # bytes, in S3
    OUTCOME_BYTES = 2 << 10  # as in scheduler.py
    DESCRIBED_BYTES = 256 << 10  # of a body that is looked through here, where nothing else runs meanwhile

# Why Lane.take took no more.
NO_ROOM, ODD_ITEM, NO_MORE = range(3)


@cython.final
cdef class Lane:
    """See mfstore.s3.engines.interface.Lane. Here the caller brings routes and credentials.

    ``outcome``: the class of outcomes. ``adopt`` makes the call of a plain request that needs one: its arguments are
    the item's number, the item, the memory reserved for it, when it was sent, and by which credentials. ``said``: None
    where replies are in S3's words; else makes an outcome's headers, of those that came and the etag.
    """

    cdef PyObject *held  # the channel, which whoever has the lane keeps: requests under way hold their lane
    cdef object adopt, bucket, said
    cdef str url
    cdef mf_operation operation
    cdef bint verify, targets, bare, ended
    cdef int crc_kind
    cdef int64_t longest
    cdef readonly Py_ssize_t flying
    cdef list outcomes, durations
    cdef double now, seconds, finished
    cdef int64_t moved, verified, memory, sizes

    def __cinit__(self, Channel channel, outcome, adopt, int operation, bucket, bint bare, bint verify,
                  checksum, bint targets, int64_t longest, str scheme="s3", said=None):
        if outcome is not outcome_class:
            learn(outcome)
        self.held = <PyObject *> channel
        self.adopt = adopt
        self.operation = <mf_operation> operation
        if not bucket.isascii():
            raise ValueError("a bucket's name is ASCII")
        self.bucket = bucket
        self.url = f"{scheme}://{bucket}/"
        self.said = said
        self.bare = bare
        self.verify = verify
        self.crc_kind = MF_NO_CRC if checksum is None else CHECKSUMS.index(checksum)
        self.targets = targets
        self.longest = longest
        self.clear()

    cdef inline Channel channel(self):
        return <Channel> self.held

    cdef void clear(self):
        self.outcomes = []
        self.durations = []
        self.seconds = self.finished = 0.0
        self.moved = self.verified = self.memory = self.sizes = 0

    # ---- items -------------------------------------------------------------------------

    cdef bint set_key(self, Pending pending, text) except -1:
        """Whether it is a key of this bucket, or its URL, of which nobody needs another look."""
        cdef Py_ssize_t n, begin = 0
        cdef const char *at
        if type(text) is not str or not PyUnicode_IS_COMPACT_ASCII(text):
            return False
        n = PyUnicode_GET_LENGTH(text)
        at = PyUnicode_DATA(text)
        if n >= 5 and memcmp(at, PyUnicode_DATA(self.url), 5) == 0:
            begin = PyUnicode_GET_LENGTH(self.url)
            if n <= begin or memcmp(at, PyUnicode_DATA(self.url), begin) != 0:
                return False
            text = PyUnicode_Substring(text, begin, n)
            at = PyUnicode_DATA(text)
            n -= begin
        elif not self.bare:
            return False
        if n == 0 or n > MOST_KEY or (self.said is not None and not mf_plain_key(at, n)):
            return False
        pending.key = text
        pending.xfer.key.at = at
        pending.xfer.key.n = n
        pending.xfer.has_key = 1
        return True

    cdef bint set_range(self, Pending pending, start, length):
        """Whether it is a range that has bytes: some from a byte on, all from there, or the last ones."""
        cdef mf_xfer *x = pending.xfer
        if type(start) is not int or not -(1 << 62) < start < 1 << 62:
            return False
        x.start = start
        if length is None:
            if self.targets:
                return False
        elif x.start < 0:
            return False
        elif type(length) is not int or not 0 < length < 1 << 62:
            return False
        else:
            x.stop = x.start + <int64_t> length
        x.has_range = 1
        return True

    cdef bint set_target(self, Pending pending, target):
        """Whether it is as many bytes as the range has."""
        cdef mf_xfer *x = pending.xfer
        cdef Py_buffer *view
        if not PyMemoryView_Check(target) or x.stop - x.start > self.longest:
            return False
        view = PyMemoryView_GET_BUFFER(target)
        if view.readonly or view.ndim != 1 or view.itemsize != 1 or view.len != x.stop - x.start:
            return False
        try:
            PyObject_GetBuffer(target, &pending.target, PyBUF_SIMPLE | PyBUF_WRITABLE)
        except (BufferError, ValueError):
            return False
        pending.has_target = True
        pending.body = target
        x.target.at = <uint8_t *> pending.target.buf
        x.target.fd = -1
        x.target.n = pending.target.len
        x.has_target = 1
        x.cut = 1
        return True

    cdef bint set_body(self, Pending pending, data) except -1:
        """Whether it is bytes or text that are sent in one request."""
        cdef mf_xfer *x = pending.xfer
        if type(data) is str:
            try:
                data = (<str> data).encode("utf-8")
            except UnicodeEncodeError:
                return False
        if type(data) is not bytes or len(<bytes> data) > self.longest:
            return False
        pending.body = data
        pending.part.at = <const uint8_t *> PyBytes_AS_STRING(data)
        pending.part.n = x.body_n = len(<bytes> data)
        x.parts = &pending.part
        x.parts_n = 1 if x.body_n else 0
        x.has_body = 1
        if pending.route.boundary is not None:
            return self.describe(pending, <bytes> data)
        x.crc_kind = self.crc_kind
        return True

    cdef bint describe(self, Pending pending, bytes data) except -1:
        """Whether the bytes can be sent between their description and an end."""
        cdef mf_xfer *x = pending.xfer
        cdef WireRoute route = pending.route
        cdef char[MF_GOOGLE_HEAD] head
        cdef const char *sum = NULL
        cdef size_t n
        if len(data) > DESCRIBED_BYTES or route.boundary in data:
            return False
        if self.crc_kind == MF_CRC32C:
            mf_crc_encode(MF_CRC32C, mf_crc_update(MF_CRC32C, 0, pending.part.at, pending.part.n), pending.sum)
            sum = pending.sum
        elif self.crc_kind != MF_NO_CRC:
            return False
        n = mf_google_upload_head(head, text_of(route.boundary), x.key, text_of(route.kind), sum)
        if n == 0:
            return False
        pending.keep = [PyBytes_FromStringAndSize(head, n)]
        x.parts = <mf_part *> PyMem_Malloc(3 * sizeof(mf_part))
        if x.parts == NULL:
            raise MemoryError()
        x.parts[0].at = <const uint8_t *> PyBytes_AS_STRING(pending.keep[0])
        x.parts[0].n = n
        x.parts[1] = pending.part
        x.parts[2].at = <const uint8_t *> PyBytes_AS_STRING(route.tail)
        x.parts[2].n = len(route.tail)
        x.parts_n = 3
        x.body_n = n + pending.part.n + len(route.tail)
        x.has_key = 0
        return True

    cdef bint read(self, Pending pending, item) except -1:
        """Whether the item is one plain request, which ``pending`` then is."""
        cdef tuple given
        cdef Py_ssize_t n
        pending.item = item
        if self.operation == MF_HEAD or type(item) is str:
            return self.operation != MF_PUT and not self.targets and self.set_key(pending, item)
        if type(item) is not tuple:
            return False
        given = <tuple> item
        n = len(given)
        if self.operation == MF_PUT:
            if n != 2:
                return False
            pending.item = given[0]
            return self.set_key(pending, given[0]) and self.set_body(pending, given[1])
        if n != (4 if self.targets else 3) or not self.set_key(pending, given[0]):
            return False
        if not self.set_range(pending, given[1], given[2]):
            return False
        return not self.targets or self.set_target(pending, given[3])

    def take(self, items, left, Py_ssize_t most, int64_t memory, Py_ssize_t weight, bint alone, double now,
             WireRoute route, WireCredentials credentials, signed_by, double skew, double first_byte, double stall):
        """Start up to ``most`` of ``left``, if it is not None, and ``items``: pairs of a number and an item.

        Returns how many were started, the memory they take, why no more (``NO_ROOM``, ``ODD_ITEM`` or ``NO_MORE``), the
        pair that was looked at last and not started, or None, and of those that could not be started the calls."""
        cdef list pendings = []
        cdef Pending pending
        cdef int64_t taken = 0, own
        cdef int why = NO_ROOM, code
        cdef Py_ssize_t i, n = 0
        cdef object pair
        cdef object advance = iter(items)
        while n < most:
            if left is not None:
                pair, left = left, None
            else:
                pair = next(advance, None)
                if pair is None:
                    why = NO_MORE
                    break
            pending = Pending()
            pending.begin(route, credentials, skew, first_byte, stall)
            if not self.read(pending, (<tuple> pair)[1]):
                why, left = ODD_ITEM, pair
                break
            own = weight
            if self.operation == MF_PUT and pending.xfer.body_n:
                own = pending.xfer.body_n
            elif self.targets:
                own = 1
            if not alone and own > memory - taken:
                left = pair
                break
            alone = False
            taken += own
            pending.index = (<tuple> pair)[0]
            pending.given = (<tuple> pair)[1]
            pending.weight = own
            pending.sent = now
            pending.signed_by = signed_by
            pending.lane = self
            pendings.append(pending)
            n += 1
        if not n:
            return 0, 0, why, left, ()
        code = self.channel().start(pendings)
        if code:
            calls = [self.call_of(pending) for pending in pendings]
            return n, taken, why, left, calls
        self.flying += n
        return n, taken, why, left, ()

    cdef object call_of(self, Pending pending):
        return self.adopt(pending.index, pending.given, pending.weight, pending.sent, pending.signed_by)

    # ---- replies -----------------------------------------------------------------------

    cdef bint land(self, Pending pending) except -1:
        """Whether the reply is the good one: then its outcome is there."""
        cdef mf_xfer *x = pending.xfer
        cdef mf_plain found
        cdef object outcome, data = None, size, key, etag = None, headers
        cdef int64_t memory = OUTCOME_BYTES
        cdef double seconds
        if self.ended:
            return False
        if pending.route.boundary is not None:
            found.verified = 0
            if not mf_google_stored(x, NULL if self.crc_kind == MF_NO_CRC else pending.sum, &found.etag):
                return False
        elif not mf_plain_reply(x, self.verify, &found):
            return False
        if found.etag.n:
            etag = PyUnicode_DecodeASCII(found.etag.at, found.etag.n, NULL)
        if self.operation == MF_PUT:
            size = len(<bytes> pending.body)
        elif self.operation == MF_HEAD:
            size = found.length
        else:
            size = x.received
            memory = max(memory, <int64_t> x.received)
            data = pending.body if self.targets else PyBytes_FromStringAndSize(<char *> x.data, x.data_n)
            if found.verified:
                self.verified += x.received
        if self.targets:
            # Nobody asked for more than the bytes.
            headers, etag = {}, None
        else:
            headers = Headers.__new__(Headers)
            (<Headers> headers).raw = PyBytes_FromStringAndSize(x.head, x.head_n)
            if self.said is not None:
                headers = self.said(headers, etag)
        outcome = PyType_GenericAlloc(outcome_class, 0)
        fill(outcome, INDEX, pending.index)
        fill(outcome, ITEM, pending.item)
        fill(outcome, BUCKET, self.bucket)
        fill(outcome, KEY, pending.key)
        fill(outcome, DATA, data)
        fill(outcome, PATH, None)
        fill(outcome, SIZE, size)
        fill(outcome, ETAG, etag)
        fill(outcome, ERROR, None)
        fill(outcome, HEADERS, headers)
        fill(outcome, ATTEMPTS, 1)
        fill(outcome, SECONDS, self.now - pending.sent)
        fill(outcome, FIRST_SECONDS, 1e-9 * (x.first_ns - x.submitted_ns))
        fill(outcome, LAST, True)
        fill(outcome, MEMORY, memory)
        seconds = 1e-9 * (x.finished_ns - x.submitted_ns)
        self.outcomes.append(outcome)
        self.durations.append(seconds)
        self.seconds += seconds
        self.finished = max(self.finished, 1e-9 * x.finished_ns)
        self.moved += x.received
        self.sizes += size
        self.memory += memory - pending.weight
        self.flying -= 1
        return True

    cdef bint hand_over(self, Pending pending) except -1:
        """Make a plain request a call like others. False when the lane has ended: nobody waits for it."""
        self.flying -= 1
        pending.lane = None
        if self.ended:
            return False
        pending.call = self.call_of(pending)
        self.channel().live[id(pending.call)] = pending
        return True

    def landed(self):
        """See mfstore.s3.engines.interface.Landed: its fields, or None for nothing."""
        if not self.outcomes:
            return None
        found = (
            self.outcomes, self.durations, self.finished, self.sizes, self.moved, self.verified, self.memory
        )
        self.clear()
        return found

    def oldest(self):
        """The least number of an item whose request is under way; None without any."""
        cdef mf_xfer *x = self.channel().own
        cdef Pending pending
        cdef object found = None
        while x != NULL:
            pending = <Pending> x.owner
            if pending.lane is self and (found is None or pending.index < found):
                found = pending.index
            x = x.own_next
        return found

    def hand_over_late(self, double before):
        """Make each request under way that was sent before then a call like others."""
        cdef mf_xfer *x = self.channel().own
        cdef Pending pending
        cdef list found = []
        while x != NULL:
            pending = <Pending> x.owner
            if pending.lane is self and pending.sent < before:
                found.append(pending)
            x = x.own_next
        for pending in found:
            self.hand_over(pending)

    def end(self):
        """Cancel all. Nothing more comes of it, but ``flying`` goes to 0 by polling the channel."""
        cdef mf_xfer *x = self.channel().own
        cdef mf_engine *engine
        self.ended = True
        self.adopt = None
        self.clear()
        if self.channel().c == NULL or self.channel().pid != getpid():
            return
        engine = self.channel().engine.here()
        while x != NULL:
            if (<Pending> x.owner).lane is self:
                mf_xfer_cancel(engine, x)
            x = x.own_next


# ---- channels ---------------------------------------------------------------------------------

# Its memory must be whole when it is deallocated, for requests may be under way.
@cython.final
@cython.no_gc_clear
cdef class Channel:
    """See mfstore.s3.engines.interface.Channel. Here the caller brings routes and credentials."""

    cdef Engine engine
    cdef mf_channel *c
    cdef mf_xfer *own
    cdef dict live
    cdef int pid

    def __cinit__(self, Engine engine):
        self.engine = engine
        self.live = {}

    cdef mf_channel *here(self) except NULL:
        if self.pid != getpid():
            self.forget()
            self.c = mf_channel_new()
            if self.c == NULL:
                raise OSError(c_errno, os.strerror(c_errno))
            self.pid = getpid()
        return self.c

    cdef void drop(self, mf_xfer *x, bint whole):
        """The C list's hold on a call, when it has ended."""
        cdef Pending pending = <Pending> x.owner
        if x.own_prev != NULL:
            x.own_prev.own_next = x.own_next
        else:
            self.own = x.own_next
        if x.own_next != NULL:
            x.own_next.own_prev = x.own_prev
        pending.release(whole)
        Py_DECREF(pending)

    cdef void forget(self):
        """In a forked child: what was under way is the parent's."""
        while self.own != NULL:
            self.drop(self.own, False)
        self.live = {}
        self.c = NULL

    def submit(self, list calls, list routes, WireCredentials credentials, double skew, list bodies):
        """``calls`` by ``routes`` (of the same length); ``bodies`` None, or per call those of prepared requests."""
        cdef Pending pending
        cdef list pendings = []
        cdef size_t i
        cdef int code
        for i in range(<size_t> len(calls)):
            pending = Pending()
            pending.prepare(self.engine, calls[i], routes[i], credentials, skew, None if bodies is None else bodies[i])
            pendings.append(pending)
        code = self.start(pendings)
        if code:
            raise OSError(code, os.strerror(code))

    cdef int start(self, list pendings) except -1:
        """Hand them to the engine: 0, or errno and none was."""
        cdef mf_channel *c = self.here()
        cdef mf_engine *engine = self.engine.here()
        cdef size_t n = len(pendings), i
        cdef int code
        cdef Pending pending
        cdef mf_xfer **xfers
        if not n:
            return 0
        xfers = <mf_xfer **> PyMem_Malloc(n * sizeof(mf_xfer *))
        if xfers == NULL:
            raise MemoryError()
        for i in range(n):
            pending = <Pending> pendings[i]
            xfers[i] = pending.xfer
        # The worker may end the call before we come back: everything is on the books before.
        for i in range(n):
            pending = <Pending> pendings[i]
            if pending.lane is None:
                self.live[id(pending.call)] = pending
            Py_INCREF(pending)
            pending.xfer.own_next = self.own
            if self.own != NULL:
                self.own.own_prev = pending.xfer
            self.own = pending.xfer
        with nogil:
            code = mf_engine_submit(engine, c, xfers, n)
        PyMem_Free(xfers)
        if code:
            for i in range(n):
                pending = <Pending> pendings[i]
                if pending.lane is None:
                    self.live.pop(id(pending.call), None)
                self.drop(pending.xfer, True)
        return code

    def poll(self, double timeout):
        """Replies; waits up to ``timeout`` seconds for the first."""
        cdef mf_channel *c = self.here()
        cdef mf_event *event
        cdef uint64_t now = mf_now_ns(), deadline
        cdef int slice_ms
        timeout = min(max(timeout, 0.0), 1e9)
        deadline = now + <uint64_t> (timeout * 1e9)
        while True:
            event = mf_channel_take(c)
            if event != NULL:
                return self.collect(event)
            now = mf_now_ns()
            if now >= deadline:
                return []
            slice_ms = <int> min(<uint64_t> SIGNALS_MS, (deadline - now + 999999) // 1000000)
            with nogil:
                mf_channel_wait(c, slice_ms)
            PyErr_CheckSignals()

    cdef list collect(self, mf_event *event):
        cdef list replies = []
        cdef mf_event *following
        cdef mf_xfer *x
        cdef Pending pending
        cdef Lane lane
        cdef double now = 1e-9 * mf_now_ns()
        while event != NULL:
            following = event.next
            x = event.xfer
            pending = <Pending> x.owner
            lane = pending.lane
            if lane is not None:
                lane.now = now
                if not event.announced and lane.land(pending):
                    self.drop(x, True)
                    event = following
                    continue
                if lane.ended and event.announced:
                    event = following  # it is cancelled already
                    continue
                if not lane.hand_over(pending):
                    self.drop(x, True)
                    event = following
                    continue
            replies.append(pending.reply(self.engine.reply, event.announced))
            if not event.announced:
                self.live.pop(id(pending.call), None)
                self.drop(x, True)
            event = following
        return replies

    def resume(self, call, target, stop, skip):
        """See mfstore.s3.engines.interface.Channel."""
        cdef Pending pending = self.live.get(id(call))
        cdef mf_target landing
        cdef mf_engine *engine
        cdef int64_t wanted = -1 if stop is None else stop, before = skip
        if pending is None or self.pid != getpid():
            return
        if pending.has_target:
            raise ValueError("resumed twice")
        landing = pending.target_of(target, self.engine.file_range)
        engine = self.engine.here()
        with nogil:
            mf_xfer_resume(engine, pending.xfer, landing, wanted, before)

    def cancel(self, call):
        """See mfstore.s3.engines.interface.Channel."""
        cdef Pending pending = self.live.get(id(call))
        cdef mf_engine *engine
        if pending is None or self.pid != getpid():
            return
        engine = self.engine.here()
        with nogil:
            mf_xfer_cancel(engine, pending.xfer)

    def flowing(self):
        """See mfstore.s3.engines.interface.Channel. The list changes, and its requests are freed, under the GIL alone,
        which this does not let go of."""
        cdef mf_xfer *x = self.own
        cdef uint64_t flowing = 0
        if self.pid != getpid():
            return 0
        while x != NULL:
            flowing += mf_xfer_flowed(x)
            x = x.own_next
        return flowing

    def fileno(self):
        """Readable while ``poll(0)`` would return something."""
        return mf_channel_fileno(self.here())

    def close(self):
        """Cancel everything and wait until no buffer is used any more. The channel can be used again."""
        self.end()

    cdef void end(self):
        cdef mf_xfer *x
        cdef mf_engine *engine
        cdef mf_channel *c = self.c
        if c == NULL:
            return
        if self.pid != getpid():
            self.forget()
            return
        engine = self.engine.c
        x = self.own
        with nogil:
            while x != NULL:
                mf_xfer_cancel(engine, x)
                x = x.own_next
            mf_channel_drain(c)
            mf_channel_free(c)
        self.c = NULL
        self.pid = 0
        while self.own != NULL:
            self.drop(self.own, True)
        self.live = {}

    def __dealloc__(self):
        self.end()
