"""Requests that a control plane prepares and signs one by one, for an engine that sends them as they are.

Of botocore that takes 0.7 ms each, and the body is read twice before it is sent: for its checksum, and where it is
signed. So for S3 it is done where a route will not do: for signatures that only botocore makes, and where a user's
handlers are to see each request. Azure and Google have most of their requests made so, which takes neither.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mfstore.records import NamedTuple
from mfstore.s3.aws.routes import BOTOCORE, Route, SignedRequest
from mfstore.s3.calls import DISK, Call, Reply
from mfstore.s3.engines.bodies import BodySource

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import Ask, RouteSource


class SignedCall(NamedTuple):
    """A request as it is sent."""

    route: Route
    """With the key in its path, and all headers."""
    body: bytes | tuple[Any, ...] | None
    """The control plane's; None: that of the call."""
    crc: int | None
    """The checksum of the call's body, if it names one."""


def sign(source: RouteSource, call: Call, ask: Ask) -> SignedCall:
    """Have the control plane prepare and sign ``call``. Raises as ``RouteSource.signed``, and the error that a file
    which cannot be read has in outcomes."""
    body, checksum = None, None
    try:
        if call.operation in ("PutObject", "UploadPart"):
            body = BodySource(call.body, threading.Lock())
            if call.checksum is not None:
                checksum = body.checksum(call.checksum)
        signed = source.signed(call, ask, body, checksum.header() if checksum else None)
    except Exception as error:
        if body is None or body.failure is None:
            raise
        reply = Reply(call, failure=DISK, message=str(body.failure), errno=body.failure.errno or 0)
        raise source.problem(call, reply) from error
    finally:
        if body is not None:
            body.drop()
    given = signed.body is None or signed.body is body
    crc = checksum.value if checksum else None
    return SignedCall(_route_of(signed), None if given else _bytes_of(signed.body), crc)


def _route_of(signed: SignedRequest) -> Route:
    url = urlsplit(signed.url)
    headers = tuple(sorted((name.lower(), value) for name, value in signed.headers))
    origin = f"{url.scheme}://{url.netloc}"
    return Route(signed.method, origin, url.path or "/", url.query, headers, "", "", False, BOTOCORE)


def _bytes_of(body: Any) -> bytes | tuple[Any, ...]:
    if isinstance(body, tuple):
        return body
    return bytes(body) if isinstance(body, bytes | bytearray) else body.read()
