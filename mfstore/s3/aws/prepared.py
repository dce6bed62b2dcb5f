"""Requests as botocore prepares them: taken out of its client before they are sent, made into routes, or signed.

Imports botocore.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from botocore import UNSIGNED, xform_name
from botocore.credentials import Credentials as StaticCredentials

from mfstore.errors import BackendError, InvalidKey, Unsupported
from mfstore.records import dataclass
from mfstore.s3.aws import botocore_internals as internals
from mfstore.s3.aws import errors
from mfstore.s3.aws.credentials import Keyring
from mfstore.s3.aws.regions import BucketRegions
from mfstore.s3.aws.routes import (
    BOTOCORE,
    KEYS,
    ROUTED,
    SESSION,
    SESSION_SIGNATURES,
    SIGNATURES,
    TOKEN_OF_SESSION,
    Credentials,
    Route,
    SignedRequest,
)
from mfstore.s3.aws.settings import ConnectionSettings
from mfstore.s3.calls import Call, Options, Reply
from mfstore.s3.headers import checked_metadata, header_value

PLACEHOLDER = "mfstore-key"
EMPTY_MD5 = "1B2M2Y8AsgTpgAmY7PhCfg=="
CHECKSUM_PREFIX = "x-amz-checksum-"
MADE_BY_SENDER = frozenset(
    (
        *("authorization", "content-length", "date", "expect", "host", "transfer-encoding", "user-agent"),
        *("x-amz-content-sha256", "x-amz-date", "x-amz-security-token", "x-amzn-trace-id", TOKEN_OF_SESSION),
    )
)
"""Headers of every request that whoever sends it makes anew."""
S3_EXPRESS = "s3express"
"""What directory buckets are signed for. They refuse Content-MD5."""
MADE_OF_BODY = frozenset(
    ("content-md5", "x-amz-decoded-content-length", "x-amz-sdk-checksum-algorithm", "x-amz-trailer")
)
"""Headers that depend on the body, and are no part of what several requests share."""
SAID_ELSEWHERE = {
    "Bucket": "The item does",
    "Key": "The item does",
    "Body": "The item does",
    "Range": "Ask for (key, start, length)",
    "ContentLength": "The data do",
    "ContentMD5": "checksum= of the client chooses what checks the data",
}
"""Parameters that are no options of a bulk call, with what says them."""
KNOWN_OPERATIONS = (
    *("GetObject", "HeadObject", "PutObject", "UploadPart", "DeleteObject", "ListObjectsV2", "DeleteObjects"),
    *("CopyObject", "UploadPartCopy", "CreateMultipartUpload", "CompleteMultipartUpload", "AbortMultipartUpload"),
    *("GetObjectTagging", "ListObjectVersions", "HeadBucket"),
)
"""What a bulk call's options may be meant for: each of its requests takes those that it knows."""


class _Captured(Exception):
    """Takes a prepared request out of botocore."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request


UNUSED_SESSION = Credentials("unused", "unused", "unused")
"""Signs a request of which only what is shared is used."""


class _Sessions:
    """What botocore asks for the keys of sessions."""

    def __init__(self, session: Callable[[str], Credentials]) -> None:
        self._session = session

    def get_credentials(self, bucket: str) -> StaticCredentials:
        """The keys of a bucket's session."""
        found = self._session(bucket)
        return StaticCredentials(found.access_key, found.secret_key, found.token)


@dataclass(frozen=True, slots=True)
class Signing:
    """How botocore was about to sign a request."""

    region: str
    service: str
    version: Any
    signer: Any


class RequestPreparer:
    """A botocore client of our own. It prepares and signs requests, each of which is taken out of it before it is sent.

    Safe to use from several threads: how far a request is to go is noted for each thread.
    """

    def __init__(self, settings: ConnectionSettings, client: Any, keyring: Keyring, regions: BucketRegions) -> None:
        self._settings = settings
        self._client = client
        self._keyring = keyring
        self._regions = regions
        self._always = settings.every_request
        self._thread = threading.local()
        self._handled: dict[str, bool] = {}
        self._options: set[str] = set()
        events = client.meta.events
        if settings.client is not None:
            for event, handler in internals.user_handlers(settings.client, client.meta.service_model.operation_names):
                events.register(event, handler)
        events.register_first("before-send.s3", self._capture_first)
        events.register_last("before-send.s3", self._capture_last)
        events.register_last("before-endpoint-resolution.s3", self.set_region)
        events.register_first("before-sign.s3", self._before_sign)
        events.register_last("before-sign.s3", self._set_sessions)
        events.register_last("request-created.s3", self._after_sign)

    @property
    def endpoint(self) -> str:
        """Where requests go that name no bucket."""
        return str(self._client.meta.endpoint_url)

    def handlers(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """The handlers that the user registered with his session or client: (event, handler)."""
        return internals.user_handlers(self._client, self._client.meta.service_model.operation_names)

    def is_handled(self, operation: str) -> bool:
        """Whether the user registered handlers, with his session or client, that see the requests of an operation: then
        each is theirs to change."""
        found = self._handled.get(operation)
        if found is None:  # those of his client are with ours by now
            found = self._handled[operation] = any(internals.user_handlers(self._client, (operation,)))
        return found

    # What to send ----------------------------------------------------------------------------------------------------

    def route(self, operation: str, bucket: str, options: Options) -> Route:
        """What the requests of a ``ROUTED`` operation share. Raises as ``RouteSource.route``."""
        if operation not in ROUTED:
            raise Unsupported(f"{operation} has no route: it is prepared call by call")
        if self.is_handled(operation):
            return self._left_to_botocore()
        params = self._parameters(operation, bucket, PLACEHOLDER, options)
        if operation in ("PutObject", "UploadPart"):
            # With a checksum botocore leaves the body unsigned over TLS; the engine sends one that is better than MD5.
            params.update(Body=b"", ContentMD5=EMPTY_MD5)
        if operation == "UploadPart":
            params.update(PartNumber=1, UploadId="u")
        route = _route_of(*self._capture(operation, params, "first"), shared=True)
        assert route.path.endswith(PLACEHOLDER), route.path
        query = route.query
        if operation == "UploadPart":
            query = "&".join(part for part in query.split("&") if part not in ("partNumber=1", "uploadId=u"))
        return replace(route, path=route.path.removesuffix(PLACEHOLDER), query=query)

    def prepare(self, call: Call) -> tuple[Route, bytes]:
        """The request of any operation, whole but for the signature, and its body. Raises like ``route``."""
        if self.is_handled(call.operation):
            return self._left_to_botocore(), b""
        request, signing = self._capture(call.operation, self.parameters_of(call), "first")
        return _route_of(request, signing, shared=False), _bytes_of(request.body)

    def _left_to_botocore(self) -> Route:
        return Route("", self.endpoint, "", "", (), "", "", False, BOTOCORE)

    def signed(
        self, call: Call, body: Any, checksum: tuple[str, str] | None, skew: float,
        session: Callable[[str], Credentials],
    ) -> SignedRequest:  # fmt: skip
        """The request of a call, after all handlers that a user registered, signed by a clock that is ``skew`` seconds
        ahead of this machine's, and where that takes one by the keys of a bucket's ``session``. Raises like
        ``route``."""
        request, _ = self._capture(call.operation, self.parameters_of(call, body, checksum), "last", skew, session)
        headers = tuple((name, _text_of(value)) for name, value in request.headers.items())
        return SignedRequest(request.method, request.url, headers, request.body)

    def _parameters(self, operation: str, bucket: str, key: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
        """What the operation accepts of the options, and what every request of this client has."""
        try:
            shape = self._client.meta.service_model.operation_model(operation).input_shape
        except Exception as error:  # botocore's OperationNotFoundError has no public base
            raise Unsupported(f"{operation} is no operation of S3") from error
        members = shape.members if shape is not None else {}
        for name, value in options.items():
            self._check(name, value, members.get(name))
        params: dict[str, Any] = {"Bucket": bucket, "Key": key, **self._always}
        if operation in ("GetObject", "HeadObject"):
            params["ChecksumMode"] = "ENABLED"
        params.update(options)
        return {name: value for name, value in params.items() if name in members and value is not None}

    def _check(self, name: str, value: Any, shape: Any) -> None:
        """InvalidKey for an option that says what is said elsewhere, or what no operation takes or no header holds."""
        if name in SAID_ELSEWHERE:
            raise InvalidKey(f"options do not say {name}", hint=SAID_ELSEWHERE[name])
        if shape is None:
            if not self._options:
                for operation in KNOWN_OPERATIONS:
                    self._options.update(self._client.meta.service_model.operation_model(operation).input_shape.members)
            if name not in self._options:
                raise InvalidKey(f"{name} is no parameter of S3's operations", hint="Options have botocore's names")
            return
        where = shape.serialization.get("location")
        if where == "header" and isinstance(value, str):
            header_value(name, value, secret=bool(shape.metadata.get("sensitive")))
        elif where == "headers":
            checked_metadata(value)

    def parameters_of(
        self, call: Call, body: Any = None, checksum: tuple[str, str] | None = None
    ) -> dict[str, Any]:  # fmt: skip
        """A call as the arguments of the client's method. ``body`` and ``checksum``: see ``ControlPlane.signed``."""
        operation = call.operation
        params = self._parameters(operation, call.bucket, call.key, call.options)
        if operation in ("PutObject", "UploadPart"):
            params["Body"] = b"" if body is None else body
        if operation == "UploadPart":
            params.update(PartNumber=call.part, UploadId=call.upload)
        if call.start is not None or call.stop is not None:
            start = call.start or 0
            stop = "" if call.stop is None else call.stop - 1
            params["Range"] = f"bytes={start}" if start < 0 else f"bytes={start}-{stop}"
        if call.if_match is not None:
            params["IfMatch"] = call.if_match
        if call.if_none_match:
            params["IfNoneMatch"] = "*"
        if call.metadata is not None:
            params["Metadata"] = dict(call.metadata)
        if call.params is not None and operation not in ROUTED:
            params.update(call.params)
        if checksum is not None:
            params["Checksum" + checksum[0]] = checksum[1]
        return params

    def _capture(
        self, operation: str, params: dict[str, Any], mode: str, skew: float = 0.0,
        session: Callable[[str], Credentials] | None = None,
    ) -> tuple[Any, Signing]:  # fmt: skip
        """A request, ``mode`` "first" before and "last" after the user's handlers for "before-send"."""
        method = getattr(self._client, xform_name(operation), None)
        if method is None:
            raise Unsupported(f"{operation} is no operation of S3")
        around = getattr(self._thread, "signing", None)  # of a request that takes a session, which is now asked for
        try:
            with self._mode(mode, skew, session):
                method(**params)
        except _Captured as done:
            # botocore's frames keep the exception, which keeps them and their callers': what is got for the first batch
            # of calls would stay in memory until the collector of cycles comes by.
            done.__traceback__ = None
            found = done.request, self._thread.signing
            self._thread.signing = around
            return found
        except Exception as error:
            raise errors.local(error, self._settings.profile).where(
                key=params.get("Key") if params.get("Key") != PLACEHOLDER else None
            ) from error
        raise BackendError(f"botocore answered {operation} without sending it", hint="A before-call handler does that")

    @contextlib.contextmanager
    def _mode(
        self, mode: str, skew: float = 0.0, session: Callable[[str], Credentials] | None = None
    ) -> Iterator[None]:  # fmt: skip
        thread = self._thread
        before = getattr(thread, "mode", None), getattr(thread, "skew", 0.0), getattr(thread, "session", None)
        thread.mode, thread.skew, thread.session = mode, skew, session
        try:
            yield
        finally:
            thread.mode, thread.skew, thread.session = before

    # botocore's events, in their order -------------------------------------------------------------------------------

    def set_region(self, builtins: dict[str, Any], params: Mapping[str, Any], **_: Any) -> None:
        """A "before-endpoint-resolution" handler: send a bucket's requests to the region that was learned."""
        region = self._regions.of(str(params.get("Bucket")))
        if region is not None:
            builtins[internals.REGION_BUILTIN] = region

    def _before_sign(self, request: Any, **given: Any) -> None:
        complete(request, given["operation_name"])
        if not self._settings.anonymous:
            internals.sign_with(request, self._keyring.botocore_credentials())
        self._thread.signing = signing_of(request, given)

    def _set_sessions(self, request: Any, signature_version: Any, **_: Any) -> None:
        thread = self._thread
        if getattr(thread, "mode", None) == "first":
            internals.sign_in_session(request, signature_version, _Sessions(lambda _: UNUSED_SESSION))
        elif getattr(thread, "session", None) is not None:
            internals.sign_in_session(request, signature_version, _Sessions(thread.session))

    def _after_sign(self, request: Any, **_: Any) -> None:
        skew = getattr(self._thread, "skew", 0.0)
        if skew and not self._settings.anonymous:
            signing = self._thread.signing
            if signing.version is not UNSIGNED:
                scope = signing.region, signing.service, signing.version
                credentials = self._keyring.botocore_credentials()
                auth = internals.auth_of(request, signing.signer, scope, credentials)
                internals.sign_again(request, auth, scope, skew)

    def _capture_first(self, request: Any, **_: Any) -> None:
        if getattr(self._thread, "mode", None) == "first":
            raise _Captured(request)

    def _capture_last(self, request: Any, **_: Any) -> None:
        if getattr(self._thread, "mode", None) == "last":
            raise _Captured(request)

    # What came back --------------------------------------------------------------------------------------------------

    def has_xml_body(self, operation: str) -> bool:
        """Whether an operation is answered with XML."""
        return internals.has_xml_body(self._client.meta.service_model, operation)

    def output(self, operation: str, reply: Reply, body: bytes) -> dict[str, Any]:
        """A reply as the client's method would have returned it. Raises whatever botocore raises for what it cannot
        read."""
        model = self._client.meta.service_model
        return internals.parse_output(model, operation, reply.status, reply.headers, body)


def complete(request: Any, operation: str) -> None:
    """In a "before-sign" handler: what a request needs that botocore does not give it."""
    _, service = internals.signing_scope(request, "", "")
    if operation == "DeleteObjects" and service != S3_EXPRESS and "Content-MD5" not in request.headers:
        # Servers older than S3's flexible checksums, and Swift, refuse a deletion without it.
        digest = hashlib.md5(_bytes_of(request.body), usedforsecurity=False).digest()
        request.headers["Content-MD5"] = base64.b64encode(digest).decode()
    checksum = next((name for name in request.headers if name.lower().startswith(CHECKSUM_PREFIX)), None)
    if checksum is not None:
        # Over TLS botocore leaves a body unsigned that has a checksum of its own making; ours is as good.
        internals.trust_checksum(request, checksum, checksum[len(CHECKSUM_PREFIX) :].lower())


def signing_of(request: Any, given: Mapping[str, Any]) -> Signing:
    """In a "before-sign" handler that was ``given`` this besides: how botocore is about to sign."""
    region, service = internals.signing_scope(request, given["region_name"], given["signing_name"])
    return Signing(region, service, given["signature_version"], given["request_signer"])


def _route_of(request: Any, signing: Signing, shared: bool) -> Route:
    """A prepared request as a route; ``shared``: without what depends on the body."""
    if signing.version is UNSIGNED or signing.version in SIGNATURES:
        signer = KEYS
    else:
        signer = SESSION if signing.version in SESSION_SIGNATURES else BOTOCORE
    url = urlsplit(request.url)
    headers, signed_payload = [], False
    for name, value in request.headers.items():
        name, text = name.lower(), _text_of(value)
        if name == "x-amz-content-sha256":
            signed_payload = len(text) == 64
        if name in MADE_BY_SENDER or name.startswith("amz-sdk-"):
            continue
        if shared and (name in MADE_OF_BODY or (name.startswith(CHECKSUM_PREFIX) and name != "x-amz-checksum-mode")):
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
        signer=signer,
    )


def _text_of(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _bytes_of(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    position = body.tell()
    data = body.read()
    body.seek(position)
    return bytes(data)
