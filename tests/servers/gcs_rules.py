"""What Google documents of Cloud Storage's requests and fake-gcs-server leaves out, as pure functions: which object a
request is about, under which conditions, and with which answer it is refused.

Where the documentation says too little, Google's own double of the service (googleapis/storage-testbench) decides: what
is absent is looked for before conditions are (404, not 412).
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlencode

from tests.servers.base import Answer

GRANULE = 256 << 10
"""Bytes that a resumable upload keeps are a multiple of this until the last chunk has come."""
CONDITIONS = (
    ("generation", "ifGenerationMatch", "x-goog-if-generation-match"),
    ("metageneration", "ifMetagenerationMatch", "x-goog-if-metageneration-match"),
    ("generation", "ifGenerationNotMatch", None),
    ("metageneration", "ifMetagenerationNotMatch", None),
)


@dataclass(frozen=True)
class Asked:
    """What a request asks for: ``what`` is "read", "insert", "start" or "chunk" or "cancel" of a resumable upload,
    "delete", "update" of what is said of an object, "change" (copies and compositions), or "other"."""

    what: str
    bucket: str = ""
    name: str | None = None
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    xml: bool = False
    media: bool = False
    """Whether a read is of the object's bytes."""
    listing: bool = False
    source: tuple[str, str] | None = None
    """Bucket and name of what is copied."""

    @classmethod
    def of(cls, method, path, query, headers):
        """By the head alone; of uploads the name may stand in the body."""
        asked = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
        common = {"query": asked, "headers": headers}
        if found := re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", path):
            steps = {"PUT": "chunk", "DELETE": "cancel"}
            start = "start" if asked.get("uploadType") == "resumable" else "insert"
            what = steps.get(method, start) if "upload_id" in asked else start
            return cls(what, unquote(found[1]), asked.get("name"), **common)
        if found := re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)(?:(/o)(?:/([^/]+))?(?:/(.+))?)?", path):
            bucket, name, more = unquote(found[1]), unquote(found[3]) if found[3] else None, found[4]
            media = path.startswith("/download") or asked.get("alt") == "media"
            if method in ("GET", "HEAD"):
                listing = name is None and found[2] is not None
                return cls("read", bucket, name, media=media, listing=listing, **common)
            if name is None:
                return cls("other", bucket, **common)
            if more and (into := re.fullmatch(r"(?:rewriteTo|copyTo)/b/([^/]+)/o/([^/]+)", more)):
                return cls("change", unquote(into[1]), unquote(into[2]), source=(bucket, name), **common)
            what = "delete" if method == "DELETE" else "update" if method in ("PATCH", "PUT") else "change"
            return cls(what, bucket, name, **common)
        if path.startswith(("/storage/", "/upload/", "/download/", "/batch/")) or path == "/":
            return cls("other", **common)
        bucket, _, name = unquote(path[1:]).partition("/")
        what = {"GET": "read", "HEAD": "read", "DELETE": "delete"}.get(method, "change")
        return cls(what, bucket, name or None, xml=True, media=bool(name), listing=not name, **common)

    def conditions(self):
        """``(attribute, whether it is to match, value)`` of each."""
        for attribute, parameter, header in CONDITIONS:
            value = self.headers.get(header) if self.xml else self.query.get(parameter)
            if value is not None:
                yield attribute, "Not" not in parameter, value

    def source_conditions(self):
        """Those on what is copied."""
        for attribute, parameter, _ in CONDITIONS:
            if (value := self.query.get(f"ifSource{parameter[2:]}")) is not None:
                yield attribute, "Not" not in parameter, value


def permissions(asked, exists):
    """What of IAM the request takes, as ``(permission, bucket, name)``; a listing's name is its prefix. ``exists`` says
    whether there is an object of that name: who may not list is not told that there is none."""
    place = (asked.bucket, asked.name)
    if asked.what == "read":
        if asked.listing:
            return [("storage.objects.list", asked.bucket, asked.query.get("prefix", ""))]
        if asked.name is None:
            return [("storage.buckets.get", asked.bucket, None)]
        needed = ["get"] if exists else ["get", "list"]
    elif asked.what in ("insert", "start", "change"):
        needed = ["create", "delete"] if exists else ["create"]
    else:
        needed = {"delete": ["delete"], "update": ["update"]}.get(asked.what, [])
    sources = [("storage.objects.get", *asked.source)] if asked.source else []
    return sources + [(f"storage.objects.{one}", *place) for one in needed]


def denied(asked, permission):
    """The answer to who may not."""
    text = f"The caller does not have {permission} access to it, or it does not exist."
    return error(asked, 403, "forbidden", text, "AccessDenied")


def unmet(conditions, current):
    """The status that a request under these conditions is refused with, or None. ``current`` is what is there: its
    generation and metageneration, or None."""
    for attribute, match, value in conditions:
        if attribute == "generation" and value == "0":
            if (current is None) != match:
                return 412 if match else 304
        elif current is None or (current[attribute] == value) != match:
            return 412 if match or current is None else 304
    return None


def error(asked, status, reason, message, code=None):
    """An error as either API words it."""
    if status == 304:
        return Answer(304, {}, b"")
    if asked.xml:
        text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        return Answer(status, {"Content-Type": "application/xml; charset=UTF-8"}, text.encode())
    document = {
        "code": status,
        "message": message,
        "errors": [{"message": message, "domain": "global", "reason": reason}],
    }
    return Answer(status, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps({"error": document}).encode())


def unmet_condition(asked, status):
    """The answer to a request under a condition that does not hold."""
    message = "At least one of the pre-conditions you specified did not hold."
    return error(asked, status, "conditionNotMet", message, "PreconditionFailed")


def absent(asked, bucket_exists, where=None):
    """The answer to a request for what is not there."""
    bucket, name = where or (asked.bucket, asked.name)
    if bucket_exists and name is not None:
        text = "The specified key does not exist." if asked.xml else f"No such object: {bucket}/{name}"
        return error(asked, 404, "notFound", text, "NoSuchKey")
    return error(asked, 404, "notFound", "The specified bucket does not exist.", "NoSuchBucket")


def invalid(asked, message):
    """The answer to a request that makes no sense."""
    return error(asked, 400, "invalid", message, "InvalidArgument")


def described(headers, body):
    """Of a multipart upload's body: what it says of the object, and the object's bytes; None if it is none."""
    found = re.search(r'boundary="?([^";]+)"?', headers.get("content-type", ""))
    parts = re.split(rb"(?:^|\r\n)--" + re.escape(found[1].encode()) + rb"(?:--)?(?:\r\n|$)", body) if found else []
    if len(parts) != 4:
        return None
    (_, _, said), (_, _, data) = (part.partition(b"\r\n\r\n") for part in parts[1:3])
    return json.loads(said), data


def crc32c(data):
    """As Google writes it."""
    import google_crc32c

    return base64.b64encode(google_crc32c.value(bytes(data)).to_bytes(4, "big")).decode()


def mismatch(asked, said, data):
    """The refusal of bytes that are others than the checksums are of, which are in the object's description or in the
    request's head; or None."""
    hashes = dict(item.strip().split("=", 1) for item in asked.headers.get("x-goog-hash", "").split(",") if item)
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    for name, given, found in (
        ("CRC32C", said.get("crc32c") or hashes.get("crc32c"), crc32c(data)),
        ("MD5 hash", said.get("md5Hash") or hashes.get("md5"), md5),
    ):
        if given and given != found:
            return invalid(asked, f'Provided {name} "{given}" doesn\'t match calculated {name} "{found}".')
    return None


@dataclass
class Session:
    """A resumable upload."""

    asked: Asked
    """What it was started with: its conditions hold for the end."""
    said: dict[str, object]
    data: bytearray = field(default_factory=bytearray)
    finished: Answer | None = None

    def take(self, headers, body, whole=True):
        """Take a chunk: None if more is to come, "end", or what is wrong with it. ``whole`` says whether all of it
        came; else as much stays as is kept of a connection that broke."""
        span = headers.get("content-range", "")
        if not span:
            span = f"bytes {len(self.data)}-{len(self.data) + len(body) - 1}/{len(self.data) + len(body)}"
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", span)
        if not found:
            return "Invalid Content-Range."
        start, stop, total = found.groups()
        if start is not None:
            if int(start) > len(self.data):
                return f"Byte {start} comes after byte {len(self.data)}."
            if whole and len(body) != int(stop) + 1 - int(start):
                return "The body is not as long as Content-Range says."
            last = total != "*" and int(stop) + 1 == int(total)
            if whole and not last and len(body) % GRANULE:
                return f"The chunk's size must be a multiple of {GRANULE}."
            self.data += body[len(self.data) - int(start) :]
            if not whole:
                del self.data[len(self.data) // GRANULE * GRANULE :]
        return "end" if whole and total != "*" and len(self.data) == int(total) else None

    def progress(self):
        """The answer while more is to come."""
        kept = {"Range": f"bytes=0-{len(self.data) - 1}"} if self.data else {}
        return Answer(308, kept, b"")

    def whole(self):
        """The upload as one request: target, headers and body."""
        query = {"uploadType": "multipart"}
        boundary = "session-of-the-front"
        head = f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{json.dumps(self.said)}\r\n"
        kind = self.said.get("contentType") or self.asked.headers.get(
            "x-upload-content-type", "application/octet-stream"
        )
        head += f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n"
        target = f"/upload/storage/v1/b/{self.asked.bucket}/o?{urlencode(query)}"
        body = head.encode() + self.data + f"\r\n--{boundary}--\r\n".encode()
        return target, {"Content-Type": f"multipart/related; boundary={boundary}"}, body
