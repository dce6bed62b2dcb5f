"""The control plane: what botocore knows (endpoints, options, credentials, configuration, models), for any engine.

botocore prepares one request of a kind; a handler stops it before it is sent, and what all its like share becomes a
``Route``. So every configuration that botocore understands works without this package knowing about it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from xml.etree import ElementTree

from mfstore.errors import BackendError, MfstoreError, Unsupported
from mfstore.s3.aws import errors
from mfstore.s3.aws.credentials import Keyring
from mfstore.s3.aws.pages import Page, page
from mfstore.s3.aws.prepared import SIGNATURES, SUM, Prepared, Signing, bytes_of, resign, route_of, text_of
from mfstore.s3.aws.routes import Credentials, Route, SignedRequest, Transport
from mfstore.s3.aws.sessions import Setup, collector_paused, handlers
from mfstore.s3.calls import NO_OPTIONS, Call, Options, Reply

PLAIN = ("GetObject", "HeadObject", "PutObject", "UploadPart", "DeleteObject")
"""Operations whose requests an engine makes from a route."""

PLACEHOLDER = "mfstore-key"
ROUTES = 256  # kept; a bulk operation uses a handful
BODY_BYTES = 64 << 20  # of a reply read as XML: a listing of 1000 keys has at most some 4 MiB
TOLD = 10_000  # redirected calls remembered: far more than are ever under way at once
REGION = re.compile(r"[a-z0-9-]{1,63}")
WRONG_REGION = ("PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed")


class _Desk:
    """What a control plane has in one process: the botocore client and all that is learned."""

    def __init__(self, setup: Setup) -> None:
        self.pid = os.getpid()
        self.lock = threading.RLock()
        with collector_paused():
            self.core = setup.core()
            self.config = setup.merged()
            self.client = setup.create(self.core, self.config)
        self.keyring = Keyring(setup, self.core)
        self.local = threading.local()
        self.routes: OrderedDict[tuple[str, str, Options, int], Route] = OrderedDict()
        self.regions: dict[str, str] = {}
        self.told: set[tuple[object, ...]] = set()
        self.asked: set[str] = set()


class BotocoreControlPlane:
    """S3 as one configuration sees it. Cheap to make: botocore is imported and asked when first needed.

    ``session`` is a boto3, botocore or aiobotocore session; ``client`` an existing boto3 client, whose credentials,
    configuration and endpoint are used. Further keyword arguments go to botocore's ``create_client``. Safe to use from
    several threads, in forked children, and pickles as its arguments (NotSerializable with a session or client object).
    """

    def __init__(
        self,
        session: Any = None,
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        config: Any = None,
        verify: bool | str | None = None,
        client: Any = None,
        expected_bucket_owner: str | None = None,
        request_payer: str | None = None,
        anonymous: bool = False,
        **client_options: Any,
    ) -> None:
        self._setup = Setup(
            session, endpoint_url, region, profile, config, verify, client, anonymous, dict(client_options)
        )
        self._always = {
            name: value
            for name, value in (("ExpectedBucketOwner", expected_bucket_owner), ("RequestPayer", request_payer))
            if value is not None
        }
        self._made: _Desk | None = None
        self._making = (os.getpid(), threading.Lock())
        self.version = 0
        """Grows when a bucket's region is learned: routes taken before are then out of date."""
        self.skew = 0.0
        """Seconds to add to this machine's clock for the server's."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (self._setup, self._always)

    # What to send ----------------------------------------------------------------------------------------------------

    def route(self, operation: str, bucket: str, options: Options = NO_OPTIONS) -> Route:
        """What the requests of one of the plain operations share. Raises AccessDenied without credentials, InvalidKey
        for parameters botocore refuses, Unsupported for what only the other engine can do."""
        desk = self._desk()
        key = operation, bucket, options, self.version
        with desk.lock:
            found = desk.routes.get(key)
            if found is not None:
                desk.routes.move_to_end(key)
                return found
        if operation not in PLAIN:
            raise Unsupported(f"{operation} has no route: it is prepared call by call")
        params = self._params(operation, bucket, PLACEHOLDER, options)
        for name in [name for name in params if name.startswith("Checksum") and name != "ChecksumMode"]:
            del params[name]
        if operation in ("PutObject", "UploadPart"):
            # With a checksum botocore leaves the body unsigned over TLS; the engine sends one that is better than MD5.
            params.update(Body=b"", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
        if operation == "UploadPart":
            params.update(PartNumber=1, UploadId="u")
        request, signing = self._capture(operation, params, "first")
        route = route_of(request, signing, plain=True)
        assert route.path.endswith(PLACEHOLDER), route.path
        query = route.query
        if operation == "UploadPart":
            query = "&".join(part for part in query.split("&") if part not in ("partNumber=1", "uploadId=u"))
        route = Route(
            *(route.method, route.origin, route.path.removesuffix(PLACEHOLDER), query),
            *(route.headers, route.region, route.service, route.sign_payload),
        )
        with desk.lock:
            desk.routes[key] = route
            while len(desk.routes) > ROUTES:
                desk.routes.popitem(last=False)
        return route

    def prepare(self, call: Call) -> tuple[Route, bytes]:
        """The request of any operation, whole but for the signature, and its body. Raises like ``route``."""
        request, signing = self._capture(call.operation, self._of(call, None), "first")
        return route_of(request, signing, plain=False), bytes_of(request.body)

    def signed(self, call: Call, body: Any = None, checksum: tuple[str, str] | None = None) -> SignedRequest:
        """The request of ``call`` prepared and signed by botocore, after all handlers a user registered; ``body`` is
        bytes or a seekable reader, ``checksum`` its algorithm and Base64 value. Raises like ``route``."""
        params = self._of(call, body)
        if checksum is not None:
            params["Checksum" + checksum[0]] = checksum[1]
        request, _ = self._capture(call.operation, params, "last")
        headers = tuple((name, text_of(value)) for name, value in request.headers.items())
        return SignedRequest(request.method, request.url, headers, request.body)

    # What came back --------------------------------------------------------------------------------------------------

    def parse(self, call: Call, reply: Reply) -> dict[str, Any]:
        """The output of an operation, by botocore's model and names. Raises the error that a body of 200 may hold, and
        BackendError for a body that is cut, too long or not XML."""
        from botocore.awsrequest import HeadersDict
        from botocore.parsers import create_parser

        model = self._desk().client.meta.service_model
        shape = model.operation_model(call.operation).output_shape
        body = _body(reply)
        xml = shape is not None and not _streams(shape) and body.strip()
        if xml:
            try:
                root = errors.tree(body)
            except (ElementTree.ParseError, ValueError, LookupError) as error:
                raise self.error(call, reply) from error
            if errors.bare(root.tag) == "Error":
                raise self.error(call, reply)
        answer = {"status_code": reply.status, "headers": HeadersDict(reply.headers), "body": body, "context": {}}
        protocol = getattr(model, "resolved_protocol", None) or model.metadata["protocol"]
        try:
            parsed: dict[str, Any] = create_parser(protocol).parse(answer, shape)
        except Exception as error:
            raise BackendError("the answer cannot be read", found=str(error)[:200]).where(
                key=call.key, backend=f"s3://{call.bucket}"
            ) from error
        if call.operation in ("ListObjects", "ListObjectsV2", "ListObjectVersions"):
            _decode(call.operation, parsed)
        return parsed

    def page(self, call: Call, reply: Reply) -> Page:
        """The page of a ListObjectsV2. Raises like ``parse``."""
        body = _body(reply)
        try:
            return page(body)
        except BackendError:
            if errors.fault(body).code:
                raise self.error(call, reply) from None
            raise

    def error(self, call: Call, reply: Reply) -> MfstoreError:
        """The error that a reply stands for; not raised. Its fields tell status, S3's code and the request id."""
        host = self._setup.endpoint_url or "S3"
        with contextlib.suppress(Exception):
            host = self._host(call)
        return errors.problem(call, reply, host)

    # Credentials, region, clock, connections -------------------------------------------------------------------------

    def credentials(self) -> Credentials | None:
        """What to sign with now, refreshed if due; None for anonymous requests. Raises AccessDenied when there are none
        or they cannot be refreshed, saying where they were looked for and what to do."""
        return self._desk().keyring.current()

    def expire(self, credentials: Credentials | None) -> bool:
        """The server called ``credentials`` expired or invalid: gets others if it can. False if there are none. Raises
        AccessDenied when the refresh fails."""
        return self._desk().keyring.expire(credentials)

    def redirect(self, call: Call, reply: Reply) -> bool:
        """Learn from a reply that the bucket is in another region: True if the call is worth sending again (once per
        call and region). Only a region's name is taken from the server, never a host."""
        if call.bucket.startswith("arn:") or reply.failure is not None:
            return False
        said = errors.fault(reply.data)
        head = reply.status == 400 and call.operation.startswith("Head")  # no body to say AuthorizationHeaderMalformed
        moved = reply.status in (301, 302, 307, 308)
        if not (head or moved or said.code in WRONG_REGION or said.code.startswith("IllegalLocationConstraint")):
            return False
        desk = self._desk()
        region = reply.headers.get("x-amz-bucket-region") or said.region or self._ask(desk, call.bucket)
        if not region or not REGION.fullmatch(region):
            return False
        with desk.lock:
            known = desk.regions.get(call.bucket)
            if known is None and region == desk.client.meta.region_name:
                return False
            # Many calls may be under way with the old region: each is told once.
            mark = (
                call.bucket,
                region,
                call.operation,
                call.key,
                call.start,
                call.part,
                call.upload,
                repr(call.params),
            )
            if mark in desk.told:
                return False
            if len(desk.told) >= TOLD:
                desk.told.clear()
            desk.told.add(mark)
            if known != region:
                desk.regions[call.bucket] = region
                self.version += 1
            return True

    def learn_skew(self, reply: Reply) -> bool:
        """Set the clock by a reply that said RequestTimeTooSkewed: True if that changed something."""
        if errors.fault(reply.data).code not in ("RequestTimeTooSkewed", "RequestExpired", ""):
            return False
        try:
            there = parsedate_to_datetime(reply.headers.get("date", ""))
        except (TypeError, ValueError):
            return False
        if there.tzinfo is None:
            there = there.replace(tzinfo=UTC)
        skew = (there - datetime.now(UTC)).total_seconds()
        if abs(skew - self.skew) < 60:
            return False
        self.skew = skew
        return True

    def transport(self) -> Transport:
        """How to connect. Raises Unsupported when the CA bundle does not exist."""
        desk = self._desk()
        return self._setup.transport(desk.core, desk.config, desk.client.meta.endpoint_url)

    def unsupported(self, bucket: str | None = None) -> str | None:
        """Why the native engine cannot serve this configuration (or bucket), in words; None if it can."""
        desk = self._desk()
        version = desk.config.signature_version
        if isinstance(version, str) and version not in SIGNATURES:
            return f"signature version {version}"
        try:
            proxy = self.transport().proxy or ""
            for client in (desk.client, self._setup.client):
                for event, handler in handlers(client) if client is not None else ():
                    return f"a handler for {event}: {getattr(handler, '__qualname__', handler)}"
        except Unsupported as error:
            return error.message
        if not proxy.startswith(("http://", "https://")) and proxy:
            return f"a {proxy.partition(':')[0]} proxy"
        if desk.config.proxies_config:
            return "proxies_config"
        if bucket is not None:
            if bucket.endswith("--x-s3"):
                return "directory buckets (S3 Express)"
            if bucket.startswith("arn:") and bucket.endswith(".mrap"):
                return "multi-region access points (signature v4a)"
            if bucket.startswith("arn:") and ":s3-object-lambda:" in bucket:
                return "object lambda access points"
        return None

    # Inside ----------------------------------------------------------------------------------------------------------

    def _desk(self) -> _Desk:
        desk = self._made
        if desk is not None and desk.pid == os.getpid():
            return desk
        if self._making[0] != os.getpid():
            # After a fork: another thread may have held any of the locks.
            self._making = (os.getpid(), threading.Lock())
        with self._making[1]:
            desk = self._made
            if desk is None or desk.pid != os.getpid():
                try:
                    new = _Desk(self._setup)
                except ImportError as error:
                    raise Unsupported("S3 needs botocore", hint="pip install 'mfstore[s3]'") from error
                except Exception as error:
                    raise errors.local(error, self._setup.profile) from error
                if desk is not None:
                    new.regions.update(desk.regions)
                self._attach(new)
                self._made = desk = new
            return desk

    def _attach(self, desk: _Desk) -> None:
        events = desk.client.meta.events
        if self._setup.client is not None:
            for event, handler in handlers(self._setup.client):
                events.register(event, handler)
        slot = desk.local

        def first(request: Any, event_name: str, **_: Any) -> None:
            if getattr(slot, "mode", None) == "first":
                if event_name.endswith(".CreateSession"):
                    raise Unsupported("directory buckets need the aiobotocore engine")
                raise Prepared(request)

        def last(request: Any, event_name: str, **_: Any) -> None:
            if getattr(slot, "mode", None) == "last" and not event_name.endswith(".CreateSession"):
                raise Prepared(request)

        def place(builtins: dict[str, Any], params: Mapping[str, Any], **_: Any) -> None:
            region = desk.regions.get(str(params.get("Bucket")))
            if region is not None:
                builtins["AWS::Region"] = region

        def sign(request: Any, **given: Any) -> None:
            context = request.context.setdefault("signing", {})
            if given["operation_name"] == "DeleteObjects" and "Content-MD5" not in request.headers:
                # Servers older than S3's flexible checksums, and Swift, refuse a deletion without it.
                digest = hashlib.md5(bytes_of(request.body), usedforsecurity=False).digest()
                request.headers["Content-MD5"] = base64.b64encode(digest).decode()
            given_sum = next((name for name in request.headers if name.lower().startswith(SUM)), None)
            if given_sum is not None and "request_algorithm" not in request.context.get("checksum", {}):
                # Over TLS botocore leaves a body unsigned that has a checksum of its own making; ours is as good.
                algorithm = {"algorithm": given_sum[len(SUM) :].lower(), "in": "header", "name": given_sum}
                request.context.setdefault("checksum", {})["request_algorithm"] = algorithm
            if not self._setup.anonymous:
                context["request_credentials"] = desk.keyring.source()
            slot.signing = Signing(
                context.get("region") or given["region_name"],
                context.get("signing_name") or given["signing_name"],
                given["signature_version"],
                given["request_signer"],
            )

        def again(request: Any, **_: Any) -> None:
            if self.skew and not self._setup.anonymous and getattr(slot, "mode", None) == "last":
                resign(request, slot.signing, desk.keyring.source(), self.skew)

        events.register_first("before-send.s3", first)
        events.register_last("before-send.s3", last)
        events.register_last("before-endpoint-resolution.s3", place)
        events.register_first("before-sign.s3", sign)
        events.register_last("request-created.s3", again)

    @contextlib.contextmanager
    def _mode(self, desk: _Desk, mode: str | None) -> Iterator[None]:
        before = getattr(desk.local, "mode", None)
        desk.local.mode = mode
        try:
            yield
        finally:
            desk.local.mode = before

    def _capture(self, operation: str, params: dict[str, Any], mode: str) -> tuple[Any, Signing]:
        from botocore import xform_name

        desk = self._desk()
        method = getattr(desk.client, xform_name(operation), None)
        if method is None:
            raise Unsupported(f"{operation} is no operation of S3")
        try:
            with self._mode(desk, mode):
                method(**params)
        except Prepared as done:
            # botocore's frames keep the exception, which keeps them and their callers': what is got for the first batch
            # of calls would stay in memory until the collector of cycles comes by.
            done.__traceback__ = None
            return done.request, desk.local.signing
        except Exception as error:
            raise errors.local(error, self._setup.profile).where(
                key=params.get("Key") if params.get("Key") != PLACEHOLDER else None
            ) from error
        raise BackendError(f"botocore answered {operation} without sending it", hint="A before-call handler does that")

    def _params(self, operation: str, bucket: str, key: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
        """What the operation accepts of the options, and what every request of this client has."""
        try:
            shape = self._desk().client.meta.service_model.operation_model(operation).input_shape
        except Exception as error:  # botocore's OperationNotFoundError has no public base
            raise Unsupported(f"{operation} is no operation of S3") from error
        members = shape.members if shape is not None else {}
        params: dict[str, Any] = {"Bucket": bucket, "Key": key, **self._always}
        if operation in ("GetObject", "HeadObject"):
            params["ChecksumMode"] = "ENABLED"
        params.update(options)
        return {name: value for name, value in params.items() if name in members and value is not None}

    def _of(self, call: Call, body: Any) -> dict[str, Any]:
        operation = call.operation
        params = self._params(operation, call.bucket, call.key, call.options)
        if operation in ("PutObject", "UploadPart"):
            params = {name: value for name, value in params.items() if not name.startswith("Checksum")}
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
        if call.params is not None and operation not in PLAIN:
            params.update(call.params)
        return params

    def _ask(self, desk: _Desk, bucket: str) -> str | None:
        """The region by a HEAD on the bucket, which any region's endpoint answers; asked once."""
        with desk.lock:
            if bucket in desk.asked:
                return desk.regions.get(bucket)
            desk.asked.add(bucket)
        try:
            with self._mode(desk, None):
                answer = desk.client.head_bucket(**self._params("HeadBucket", bucket, None, {}))
        except Exception as error:
            answer = getattr(error, "response", None) or {}
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region: str | None = headers.get("x-amz-bucket-region")
        return region

    def _host(self, call: Call) -> str:
        if call.operation in PLAIN:
            return self.route(call.operation, call.bucket, call.options).origin
        return str(self._desk().client.meta.endpoint_url)


def _remake(setup: Setup, always: dict[str, str]) -> BotocoreControlPlane:
    control = BotocoreControlPlane()
    control._setup, control._always = setup, always
    return control


def _decode(operation: str, parsed: dict[str, Any]) -> None:
    from botocore import handlers

    decode = {
        "ListObjects": handlers.decode_list_object,
        "ListObjectsV2": handlers.decode_list_object_v2,
        "ListObjectVersions": handlers.decode_list_object_versions,
    }[operation]
    decode(parsed=parsed, context={"encoding_type_auto_set": True})


def _streams(shape: Any) -> bool:
    payload = shape.serialization.get("payload")
    return payload is not None and shape.members[payload].type_name in ("blob", "string")


def _body(reply: Reply) -> bytes:
    body = reply.data or b""
    if len(body) > BODY_BYTES:
        raise BackendError("the answer is too long", found=len(body))
    return body
