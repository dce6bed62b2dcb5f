"""What an engine is asked and what it answers: values that every floor of the S3 side passes on.

A ``Call`` names one S3 operation and where its bytes come from or go; a ``Reply`` is what came of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mfstore.records import dataclass, field

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.errors import MfstoreError

SHORT_BODY = 1 << 20
"""A body of up to this many bytes, for which the call names no target, arrives in ``Reply.data``. A longer one is first
announced (``Reply.announced``), so that the scheduler can choose its final place and split it."""
LONGEST_REPLY = 256 << 20
"""A reply that is no object, so that nobody could be told of it, ends within so many bytes: a page of a listing has at
most some 4 MiB."""
FIRST_BYTE_SECONDS = 30.0
STALL_SECONDS = 20.0
"""S3 answers 99.9 % of requests within 0.2 s and a few PUTs after 5 s; a connection that is silent for longer is
dead."""
STALL_BYTES = 1 << 10
"""Fewer bytes of an object, or of an upload, within the stall time-out count as none: a server or a middlebox that
drips bytes must not hold a call for ever. 256 connections that share a line of 1 Mbit/s still get 9 times as many."""
# Why a call got no usable response: Reply.failure. None of them says that the request had no effect.
CONNECT = "connect"  # refused, unreachable, or no connection within the connect time-out
DNS = "dns"
TLS = "tls"  # certificate or handshake refused: never retried, never downgraded
PROXY = "proxy"
RESET = "reset"  # the connection broke, before or inside the response
TRUNCATED = "truncated"  # the body ended before its Content-Length
FIRST_BYTE = "first-byte"  # no response within the first-byte time-out
STALL = "stall"  # not STALL_BYTES within the stall time-out
OVERFLOW = "overflow"  # more bytes than the target holds
PROTOCOL = "protocol"  # not HTTP
DISK = "disk"  # reading or writing the local file failed: Reply.errno
CANCELLED = "cancelled"
INTERNAL = "internal"
WHOLE = "whole"  # the whole object came for a range with a target, and without ``Call.cut``


class Options(dict[str, Any]):
    """Further parameters of an operation, by their botocore names (``SSECustomerKey``, ``RequestPayer``, …).

    Compared by identity, so that an engine can keep what it derived from them: make one per bulk operation, not per
    call, and do not change it.
    """

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


NO_OPTIONS = Options()
MOST_SHARED = 1000
"""Different options that are remembered."""


def shared_options(chosen: Mapping[str, Any], known: dict[Any, Options]) -> Options:
    """The same ``Options`` for equal parameters, as far as ``known`` goes: those of the operations before."""
    if not chosen:
        return NO_OPTIONS
    name = ("", *sorted((name, repr(value)) for name, value in chosen.items()))
    if name not in known:
        if len(known) >= MOST_SHARED:
            known.clear()
        known[name] = Options(chosen)
    return known[name]


@dataclass(slots=True, frozen=True)
class FileRange:
    """Part of an open file. The descriptor stays its owner's, who keeps it open until the reply is there."""

    fd: int
    offset: int
    length: int


@dataclass(slots=True, eq=False)
class Call:
    """One request. Fields that do not apply to the operation stay as they are by default."""

    operation: str
    """botocore's name: GetObject, HeadObject, PutObject, UploadPart, ListObjectsV2, …"""
    bucket: str
    key: str | None = None
    options: Options = NO_OPTIONS
    params: Mapping[str, Any] | None = None
    """Parameters of this call alone, by botocore name, for operations other than the four named above."""
    start: int | None = None
    """GetObject: first byte wanted; None for the whole object. Negative: the last so many bytes, with ``stop`` None."""
    stop: int | None = None
    """GetObject: the byte after the last wanted; None for all from ``start``. A body that ends earlier than asked
    because the object does is no failure of the engine's: it reports ``received``."""
    if_match: str | None = None
    """GetObject, PutObject, CompleteMultipartUpload: an ETag as S3 sent it; sent as If-Match."""
    if_none_match: bool = False
    """PutObject, CompleteMultipartUpload: only if there is no such object (If-None-Match: *)."""
    metadata: Mapping[str, str] | None = None
    """PutObject: user metadata (the engine adds ``x-amz-meta-``)."""
    body: Sequence[Buffer] | FileRange | None = None
    """PutObject, UploadPart: what to send; the parts are sent one after the other. Not to be changed until the
    reply."""
    target: memoryview | FileRange | None = None
    """GetObject: where a successful body goes: writable bytes (exactly as many as wanted) or part of a file. Nobody may
    read or free it before the reply is there."""
    cut: bool = False
    """GetObject: where the whole object comes for a range (200 without Content-Range), the target gets the range, cut
    out as the body flows. What is before it is discarded, and what is after it not read. Otherwise it is the failure
    WHOLE, and nothing is written to the target."""
    part: int = 0
    """UploadPart: its number."""
    upload: str = ""
    """UploadPart: its upload id."""
    checksum: str | None = None
    """PutObject, UploadPart: compute and send "CRC64NVME", "CRC32C" or "CRC32" of the body. GetObject with a range:
    compute
    it over what arrives. GetObject of the whole: the engine computes what the response's checksum header names."""
    fresh: bool = False
    """Use a new connection and look the host up anew: for a second try."""
    first_byte: float = FIRST_BYTE_SECONDS
    """Seconds from the last byte sent to the first byte of the response."""
    stall: float = STALL_SECONDS
    """Seconds without progress (STALL_BYTES), in either direction, before the call fails."""
    tag: Any = None
    """The scheduler's own."""


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """What the plain requests of one operation share. Each is one call, of an item that says no more than which object,
    which range of it, or which bytes, and its good reply is its outcome. An engine that can makes requests of items and
    outcomes of good replies by itself (``Channel.lane``)."""

    operation: str
    """GetObject, HeadObject or PutObject."""
    bucket: str | None
    """Of all plain items. None: that of the first item's URL, which whoever opens the lane finds out."""
    options: Options = NO_OPTIONS
    verify: bool = True
    """GetObject of the whole: compare with the checksum that the service names."""
    checksum: str | None = None
    """PutObject: as of a ``Call``."""
    targets: bool = False
    """GetObject: items are (key, start, length, memory), not keys and (key, start, length)."""
    longest: int = 0
    """Bytes to send, or to receive into a target, beyond which an item is no plain request."""
    bare: bool = True
    """Whether items may be keys; URLs of the bucket may always be."""


@dataclass(slots=True, eq=False)
class Reply:
    """What came of a call."""

    call: Call
    status: int = 0
    """HTTP status; 0 without a response."""
    failure: str | None = None
    """One of the words above when the exchange did not end as HTTP wants it, else None."""
    message: str = ""
    """For people: the engine's words on the failure."""
    errno: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case; of a repeated header the first. Metadata names in lower case too."""
    data: bytes | None = None
    """The body, when the call has no target or the status is not 2xx (then cut at 64 KiB)."""
    received: int = 0
    """Body bytes that arrived in the target, or lie in ``data``."""
    checksum: tuple[str, int] | None = None
    """Algorithm and value over the ``received`` bytes, if one was computed."""
    announced: bool = False
    """Not the end: a 2xx body longer than SHORT_BODY for a call without target waits. Answer with ``Channel.resume`` or
    ``Channel.cancel``; another reply follows. ``headers`` has the length, ETag and checksum."""
    reused: bool = False
    """The connection had served before: a reset may only mean that it had grown old."""
    submitted: float = 0.0
    """time.monotonic() of these three; 0.0 when it never came to that."""
    first_byte: float = 0.0
    finished: float = 0.0
    error: MfstoreError | None = None
    """The failure "internal" as what is to be raised, where the engine knows."""
    fault: Any = None
    """What the body of an error says, once it was read: see aws/errors.py."""

    @property
    def length(self) -> int | None:
        """How long the body is by the headers; None when they do not say."""
        text = self.headers.get("content-length", "")
        if text.isdecimal():
            return int(text)
        first, _, last = self.headers.get("content-range", "").removeprefix("bytes ").partition("/")[0].partition("-")
        return int(last) - int(first) + 1 if first.isdecimal() and last.isdecimal() else None
