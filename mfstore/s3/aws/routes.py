"""Values the control plane hands to the data plane: where requests go, how they look, and with what they are signed."""

from __future__ import annotations

from typing import Any

from mfstore.records import dataclass, field

ROUTED = ("GetObject", "HeadObject", "PutObject", "UploadPart", "DeleteObject")
"""Operations whose requests an engine can make from a route."""
SIGNATURES = ("v4", "s3v4")
"""Signature versions, by botocore's names, that an engine can make from a route with ``credentials``."""
SESSION_SIGNATURES = ("v4-s3express",)
"""... with the credentials of a ``session``."""

KEYS = "keys"
SESSION = "session"
BOTOCORE = "botocore"
TOKEN_OF_SESSION = "x-amz-s3session-token"


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """What all requests of one operation on one bucket with the same options share.

    Learned from one request that botocore prepared and did not send. The engine adds the key, the call's own headers
    (range, If-Match, checksum, metadata) and the signature.
    """

    method: str
    origin: str
    """``https://bucket.s3.eu-west-1.amazonaws.com`` or ``http://127.0.0.1:7480``: scheme, host, and port if unusual."""
    path: str
    """What precedes the percent-encoded key: ``/`` or ``/bucket/``. Of a prepared request the whole path."""
    query: str = field(repr=False)
    """Percent-encoded and sorted as SigV4 wants it, without ``?``; empty for most. A signature of Azure's is in it."""
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    """Lower-case names, ascending; without host, authorization, x-amz-date, x-amz-content-sha256,
    x-amz-security-token, content-length and expect."""
    region: str
    service: str
    sign_payload: bool
    """Sign the SHA-256 of the body (what botocore does over plain HTTP); else the signature says UNSIGNED-PAYLOAD."""
    signer: str = KEYS
    """Who signs. KEYS: the engine, with ``RouteSource.credentials``. SESSION: the engine, with ``RouteSource.session``,
    whose token goes into the header TOKEN_OF_SESSION. BOTOCORE: each request is prepared and signed by the
    control plane (``RouteSource.signed``), which for S3 has botocore do it; of the route only the origin says something
    then, and that only for people."""
    match_header: str = "if-match"
    """The name of the header that says ``Call.if_match``."""
    related: tuple[str, str] | None = None
    """Boundary and content type of a plain PutObject of Google's: the name and the checksum go before the bytes, in
    JSON, as parts of one body (``multipart/related``), and not in the path and headers."""


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request as it is sent now: botocore's, after every handler that a user registered."""

    method: str
    url: str = field(repr=False)
    """Whole, percent-encoded. It may hold a signature, as headers may hold a token."""
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: Any = field(repr=False)
    """Bytes, buffers that are sent one after the other (a tuple), the reader that was given for it, or None: what the
    call has."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What requests are signed with, until something newer comes."""

    access_key: str
    secret_key: str
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Transport:
    """How connections are made."""

    verify: bool = True
    ca_file: str | None = None
    """PEM bundle to trust; None for the one botocore ships."""
    certificate: str | None = None
    """Client certificate and key, PEM."""
    private_key: str | None = None
    proxy: str | None = None
    """Proxy URL for this endpoint, from the environment or the client configuration; None for a direct connection."""
    proxy_ca_file: str | None = None
    """PEM bundle to trust for TLS to the proxy; None: as for the endpoint."""
    proxy_certificate: str | None = None
    """Client certificate and key for the proxy, PEM."""
    proxy_private_key: str | None = None
    connect_timeout: float = 5.0
    threads: int = 2
    """Transfer threads. Each moves 1 to 2 GB/s."""
