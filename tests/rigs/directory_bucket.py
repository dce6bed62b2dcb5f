"""Directory buckets (S3 Express): a service that gives sessions and checks every signature by botocore's own signer.

It is reached as an HTTP proxy, under the names that botocore gives such buckets.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from mfstore.s3 import BulkClient
from tests.rigs.raw_server import Connection, Request, Server

BUCKET = "data--euw1-az1--x-s3"
REGION = "eu-west-1"
ACCOUNT = Credentials("ACCOUNT", "secret of the account")
TIME = "%Y%m%dT%H%M%SZ"


def etag_of(data: bytes) -> str:
    """S3's are no digests there."""
    return f"e{hashlib.sha256(data).hexdigest()[:30]}"


class Refused(Exception):
    """A status and S3's code for it."""


class DirectoryBuckets:
    """The service. ``lifetime``: seconds that a session lasts; ``ahead``: of its clock before ours, in seconds.
    ``planned``: refusals that the next questions for a session meet."""

    def __init__(self, lifetime: float = 300.0, ahead: float = 0.0) -> None:
        self.lifetime = lifetime
        self.ahead = ahead
        self.planned: list[Refused] = []
        self.accounts = [ACCOUNT]
        """Whose keys are good for a session and for copies."""
        self.sessions_needed = True
        """Else the account signs everything."""
        self.expired: set[str] = set()
        """Their key ids that have expired."""
        self.objects: dict[str, bytes] = {}
        self.sessions: dict[str, tuple[str, Credentials, datetime]] = {}
        self.signed_by: list[tuple[str, str]] = []
        """What was asked, and who signed it: "account" or a session's token."""
        self._numbers = itertools.count(1)
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._metadata: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        self._server = Server(self._answer)

    def __enter__(self) -> DirectoryBuckets:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.close()

    def client(self, **more: Any) -> BulkClient:
        config = Config(proxies={"http": self.origin})
        keys = {"aws_access_key_id": ACCOUNT.access_key, "aws_secret_access_key": ACCOUNT.secret_key}
        if "session" in more:
            keys = {}
        return BulkClient(BUCKET, **{"region_name": REGION, "use_ssl": False, "config": config, **keys, **more})

    @property
    def origin(self) -> str:
        """Of the proxy."""
        return self._server.origin

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def end_sessions(self) -> None:
        """From now on the service knows none of those that it gave."""
        for token, (bucket, keys, _) in self.sessions.items():
            self.sessions[token] = bucket, keys, self.now

    def asked(self, operation: str) -> int:
        """How often."""
        return sum(what == operation for what, _ in self.signed_by)

    # ---- a request ----------------------------------------------------------------------

    def _answer(self, connection: Connection, request: Request) -> None:
        date = f"Date: {format_datetime(self.now, usegmt=True)}"
        with self._lock:
            try:
                headers, body = self._done(request)
                status = "206 Partial Content" if any("Content-Range" in line for line in headers) else "200 OK"
            except Refused as refused:
                code, name = refused.args
                headers, status, body = [], f"{code} Refused", f"<Error><Code>{name}</Code></Error>".encode()
        length = [] if any("Content-Length" in line for line in headers) else [f"Content-Length: {len(body)}"]
        connection.reply(status, [date, *length, *headers], b"" if request.method == "HEAD" else body)

    def _done(self, request: Request) -> tuple[list[str], bytes]:
        url = urlsplit(request.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        bucket, _, zone = url.netloc.partition(".")
        assert zone == "s3express-euw1-az1.eu-west-1.amazonaws.com" and request.headers["host"] == url.netloc
        key = unquote(url.path[1:])
        session = "session" in query
        by_account = session or not self.sessions_needed or "x-amz-copy-source" in request.headers
        operation = f"{request.method} session" if session else f"{request.method} {'object' if key else 'bucket'}"
        self._check(request, bucket, by_account)
        self.signed_by.append((operation, request.headers.get("x-amz-s3session-token", "account")))
        if bucket != BUCKET:
            raise Refused(404, "NoSuchBucket")
        if session:
            return [], self._session(bucket)
        assert "content-md5" not in request.headers
        return getattr(self, f"_{request.method.lower()}")(key, query, request)  # type: ignore[no-any-return]

    def _check(self, request: Request, bucket: str, by_account: bool) -> None:
        """The signature, the session and the digest of the body."""
        stated = request.headers.get("authorization", "")
        if not stated.startswith("AWS4-HMAC-SHA256 Credential="):
            raise Refused(403, "AccessDenied")
        scope, names, _ = stated.removeprefix("AWS4-HMAC-SHA256 Credential=").split(", ")
        access_key, *_, service, _ = scope.split("/")
        names = names.removeprefix("SignedHeaders=").split(";")
        sent = datetime.strptime(request.headers["x-amz-date"], TIME).replace(tzinfo=UTC)
        if abs(sent - self.now) > timedelta(minutes=15):
            raise Refused(403, "RequestTimeTooSkewed")
        if by_account:
            keys = next((one for one in self.accounts if one.access_key == access_key), Credentials("", ""))
            if access_key in self.expired:
                raise Refused(400, "ExpiredToken")
            assert "x-amz-s3session-token" not in request.headers
        else:
            token = request.headers.get("x-amz-s3session-token", "")
            assert "x-amz-s3session-token" in names and "x-amz-security-token" not in request.headers
            whose, keys, ends = self.sessions.get(token, ("", Credentials("", ""), self.now))
            if whose != bucket:
                raise Refused(403, "InvalidToken")
            if self.now >= ends:
                raise Refused(400, "ExpiredToken")
        if access_key != keys.access_key:
            raise Refused(403, "InvalidAccessKeyId")
        assert service == "s3express"
        signed = AWSRequest(request.method, request.path, {name: request.headers[name] for name in names})
        signed.context["timestamp"] = request.headers["x-amz-date"]
        signer = S3SigV4Auth(keys, service, REGION)
        expected = signer.signature(signer.string_to_sign(signed, signer.canonical_request(signed)), signed)
        if not stated.endswith(f"Signature={expected}"):
            raise Refused(403, "SignatureDoesNotMatch")
        digest = request.headers["x-amz-content-sha256"]
        if digest not in ("UNSIGNED-PAYLOAD", hashlib.sha256(request.body).hexdigest()):
            raise Refused(400, "XAmzContentSHA256Mismatch")

    def _session(self, bucket: str) -> bytes:
        if self.planned:
            raise self.planned.pop(0)
        number = next(self._numbers)
        keys = Credentials(f"SESSION{number}", f"secret {number}", f"token{number}")
        ends = self.now + timedelta(seconds=self.lifetime)
        self.sessions[f"token{number}"] = bucket, keys, ends
        return (
            '<CreateSessionResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Credentials>'
            f"<SessionToken>token{number}</SessionToken><SecretAccessKey>{keys.secret_key}</SecretAccessKey>"
            f"<AccessKeyId>{keys.access_key}</AccessKeyId><Expiration>{ends:%Y-%m-%dT%H:%M:%SZ}</Expiration>"
            "</Credentials></CreateSessionResult>"
        ).encode()

    def damage(self, key: str, data: bytes) -> None:
        """Have an object be other than was put."""
        self.objects[key] = data
        self._metadata.pop(key, None)

    # ---- operations ---------------------------------------------------------------------

    def _get(self, key: str, query: dict[str, str], request: Request) -> tuple[list[str], bytes]:
        if "list-type" in query:
            if not f"/{query.get('prefix', '')}".endswith("/") or "start-after" in query:
                raise Refused(400, "InvalidRequest")
            rows = "".join(
                f"<Contents><Key>{escape(name)}</Key><Size>{len(data)}</Size><ETag>{etag_of(data)}</ETag>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for name, data in reversed(self.objects.items())
                if name.startswith(query.get("prefix", ""))
            )
            return [], f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()
        if key not in self.objects:
            raise Refused(404, "NoSuchKey")
        data = self.objects[key]
        if "range" in request.headers:
            first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
            start = int(first) if first else max(len(data) - int(last), 0)
            if start >= len(data):
                raise Refused(416, "InvalidRange")
            part = data[start : int(last) + 1 if first and last else None]
            return [f"Content-Range: bytes {start}-{start + len(part) - 1}/{len(data)}", *self._said(key)], part
        return self._said(key), data

    def _said(self, key: str) -> list[str]:
        return [f'ETag: "{etag_of(self.objects[key])}"', *self._metadata.get(key, ())]

    def _head(self, key: str, query: dict[str, str], request: Request) -> tuple[list[str], bytes]:
        if key not in self.objects:
            raise Refused(404, "NoSuchKey")
        return [f"Content-Length: {len(self.objects[key])}", *self._said(key)], b""

    def _put(self, key: str, query: dict[str, str], request: Request) -> tuple[list[str], bytes]:
        source = request.headers.get("x-amz-copy-source")
        if source is not None:
            original = unquote(source).removeprefix(f"{BUCKET}/")
            self.objects[key] = self.objects[original]
            self._metadata[key] = self._metadata.get(original, [])
            return [], b"<CopyObjectResult><ETag>e</ETag></CopyObjectResult>"
        there = self.objects.get(key)
        if "if-none-match" in request.headers and there is not None:
            raise Refused(412, "PreconditionFailed")
        if "if-match" in request.headers and (
            there is None or etag_of(there) != request.headers["if-match"].strip('"')
        ):
            raise Refused(412, "PreconditionFailed")
        if "uploadId" in query:
            self._uploads[query["uploadId"]][int(query["partNumber"])] = request.body
        else:
            self.objects[key] = request.body
            said = request.headers.items()
            self._metadata[key] = [f"{name}: {value}" for name, value in said if name.startswith("x-amz-meta-")]
        return [f'ETag: "{etag_of(request.body)}"'], b""

    def _delete(self, key: str, query: dict[str, str], request: Request) -> tuple[list[str], bytes]:
        self.objects.pop(key, None)
        return [], b""

    def _post(self, key: str, query: dict[str, str], request: Request) -> tuple[list[str], bytes]:
        if "delete" in query:
            assert any(name.startswith("x-amz-checksum-") for name in request.headers)
            for node in ElementTree.fromstring(request.body).iter():
                if node.tag.endswith("Key"):
                    self.objects.pop(node.text or "", None)
            return [], b"<DeleteResult></DeleteResult>"
        if "uploads" in query:
            number = f"upload{next(self._numbers)}"
            self._uploads[number] = {}
            return (
                [],
                f"<InitiateMultipartUploadResult><UploadId>{number}</UploadId></InitiateMultipartUploadResult>".encode(),
            )
        parts = self._uploads.pop(query["uploadId"])
        self.objects[key] = b"".join(parts[number] for number in sorted(parts))
        return [], b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
