"""A request that botocore has prepared: taken out of it before it is sent, made into a route, signed again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from mfstore.errors import Unsupported
from mfstore.s3.aws.routes import Route

SIGNATURES = ("v4", "s3v4")
SUM = "x-amz-checksum-"

# Of every request: made anew for each by whoever sends it.
DROPPED = frozenset(
    (
        *("authorization", "content-length", "date", "expect", "host", "transfer-encoding", "user-agent"),
        *("x-amz-content-sha256", "x-amz-date", "x-amz-security-token", "x-amzn-trace-id"),
    )
)
# Of a route: depends on the body.
DROPPED_PLAIN = frozenset(
    ("content-md5", "x-amz-decoded-content-length", "x-amz-sdk-checksum-algorithm", "x-amz-trailer")
)


class Prepared(Exception):
    """Takes a prepared request out of botocore."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request


@dataclass(frozen=True, slots=True)
class Signing:
    """How botocore was about to sign."""

    region: str
    service: str
    version: Any
    signer: Any


def route_of(request: Any, signing: Signing, plain: bool) -> Route:
    from botocore import UNSIGNED

    if signing.version is not UNSIGNED and signing.version not in SIGNATURES:
        raise Unsupported(f"signature version {signing.version} needs the aiobotocore engine")
    url = urlsplit(request.url)
    headers, signed_payload = [], False
    for name, value in request.headers.items():
        name, text = name.lower(), text_of(value)
        if name == "x-amz-content-sha256":
            signed_payload = len(text) == 64
        if name in DROPPED or name.startswith("amz-sdk-"):
            continue
        if plain and (name in DROPPED_PLAIN or (name.startswith(SUM) and name != "x-amz-checksum-mode")):
            continue
        if name == "content-encoding":
            text = ",".join(part for part in text.split(",") if part.strip() != "aws-chunked")
        if text:
            headers.append((name, text))
    pairs = (part.partition("=") for part in url.query.split("&") if part)
    query = "&".join(sorted(f"{name}={value}" for name, _, value in pairs))
    return Route(
        method=request.method,
        origin=f"{url.scheme}://{url.netloc}",
        path=url.path or "/",
        query=query,
        headers=tuple(sorted(headers)),
        region=signing.region,
        service=signing.service,
        sign_payload=signed_payload,
    )


def resign(request: Any, signing: Signing, credentials: Any, skew: float) -> None:
    """Sign again by a clock that differs from this machine's: botocore takes no other than that."""
    from botocore import UNSIGNED

    if signing.version is UNSIGNED:
        return
    auth = signing.signer.get_auth_instance(
        signing.service, signing.region, signing.version, request_credentials=credentials
    )
    modify = getattr(auth, "_modify_request_before_signing", None)
    if modify is None:
        return

    def shifted(request: Any) -> None:
        request.context["timestamp"] = (datetime.now(UTC) + timedelta(seconds=skew)).strftime("%Y%m%dT%H%M%SZ")
        modify(request)

    auth._modify_request_before_signing = shifted
    auth.add_auth(request)


def text_of(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def bytes_of(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    place = body.tell()
    data = body.read()
    body.seek(place)
    return bytes(data)
