"""Calls as requests of Google Cloud Storage. Pure.

Objects are read by the XML API (``GET /bucket/key``), which has the key as it is in its path, so that the engine makes
these by itself. All else goes by the JSON API, as from Google's own libraries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from mfstore._core import crc
from mfstore.errors import InvalidKey, Unsupported
from mfstore.s3.aws.routes import KEYS, Route, SignedRequest
from mfstore.s3.calls import Call, Options
from mfstore.s3.urls import bucket_url

Headers = Sequence[tuple[str, str]]

MATCH_HEADER = "x-goog-if-generation-match"
AS_STORED = ("accept-encoding", "gzip")
"""Without this, what is stored with ``Content-Encoding: gzip`` is decompressed on its way: other bytes than those that
were put, of another length, and of no range."""
OBJECT_FIELDS = "name,generation,size,updated,crc32c,md5Hash,storageClass,metadata"
PLAIN_FIELDS = "generation,crc32c"
"""What is read of the answer to a plain upload, in C."""
LISTED_FIELDS = "items(name,size,updated,generation,storageClass),prefixes,nextPageToken"
BUCKET_FIELDS = {
    "GetBucketLifecycleConfiguration": "lifecycle",
    "GetBucketVersioning": "versioning",
    "GetObjectLockConfiguration": "retentionPolicy,objectRetention,defaultEventBasedHold",
}
LOCK_FIELDS = "temporaryHold,eventBasedHold,retentionExpirationTime,retention"
DESCRIBED = {
    "CacheControl": "cacheControl",
    "ContentDisposition": "contentDisposition",
    "ContentEncoding": "contentEncoding",
    "ContentLanguage": "contentLanguage",
    "ContentType": "contentType",
    "StorageClass": "storageClass",
}
"""Parameters, and what an object's description calls them."""
WITHOUT_EFFECT = ("ChecksumAlgorithm", "ChecksumType", "MaxKeys", "EncodingType")
"""Parameters that say what is so anyway."""
OF_COPIES = ("CopySource", "CopySourceIfMatch", "MetadataDirective", "RewriteToken")
OF_WRITES = (*DESCRIBED, "ServerSideEncryption", "SSEKMSKeyId", "Metadata", *OF_COPIES, *WITHOUT_EFFECT)
OF_LISTINGS = ("Prefix", "Delimiter", "StartAfter", "ContinuationToken", "MaxKeys")


def read_route(operation: str, origin: str, bucket: str, options: Options, access: Headers) -> Route:
    """What all reads of a bucket share. Unsupported for an option that reads do not have here."""
    query = {}
    for name, value in options.items():
        if name == "VersionId":
            query["generation"] = generation(str(value))
        elif name not in OF_WRITES:  # those a write may have whose object is looked at
            raise _unknown(name, operation, bucket)
    headers = tuple(sorted((AS_STORED, *access)))
    method = "HEAD" if operation == "HeadObject" else "GET"
    return Route(
        method, origin, f"/{quote(bucket, safe='')}/", urlencode(query), headers, "", "", False, KEYS,
        match_header=MATCH_HEADER,
    )  # fmt: skip


def plain_put_route(origin: str, bucket: str, options: Options, access: Headers, boundary: str) -> Route | None:
    """What all uploads have in common that say nothing of their objects but the name, the type of all, and the checksum
    of each. None for options that say more."""
    if any(name != "ContentType" for name in options):
        return None
    kind = str(options.get("ContentType", "application/octet-stream"))
    headers = tuple(sorted((*access, ("content-type", f'multipart/related; boundary="{boundary}"'))))
    return Route(
        "POST", origin, f"/upload/storage/v1/b/{_name(bucket)}/o",
        urlencode({"uploadType": "multipart", "fields": PLAIN_FIELDS}), headers, "", "", False, KEYS,
        match_header=MATCH_HEADER, related=(boundary, kind),
    )  # fmt: skip


def request_of(
    call: Call, origin: str, access: Headers, checksum: str | None = None, body: bytes | None = None, boundary: str = ""
) -> SignedRequest:  # fmt: skip
    """The request of a call that is no read. ``checksum``: CRC32C of what the call sends, in Base64. ``body``: what it
    sends, where that is not the call's own memory. ``boundary``: what occurs nowhere in it. Unsupported for what only
    S3 has."""
    make = _MAKERS.get(call.operation)
    if make is None:
        raise Unsupported(
            f"{call.operation} is for S3: Google Cloud Storage has nothing like it", backend=bucket_url(call.bucket)
        )
    if call.operation == "PutObject":
        return _put(call, origin, access, checksum, body, boundary)
    if call.operation == "UploadPart":
        return _part(call, access, checksum)
    return make(call, origin, access)


# Single operations ----------------------------------------------------------------------------------------------------


def _put(
    call: Call, origin: str, access: Headers, checksum: str | None, body: bytes | None, boundary: str
) -> SignedRequest:  # fmt: skip
    described = _described(call, {**call.options, **(call.params or {})})
    if call.metadata:
        described["metadata"] = _metadata(call.metadata)
    if checksum is not None:
        described["crc32c"] = checksum
    kind = described.get("contentType", "application/octet-stream")
    head = (
        f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(described)}\r\n"
        f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n"
    )
    parts = (body,) if body is not None else tuple(call.body or ())  # type: ignore[arg-type]
    query = {"uploadType": "multipart", **_conditions(call), **_key_of_kms(call), "fields": OBJECT_FIELDS}
    return SignedRequest(
        "POST", f"{origin}/upload/storage/v1/b/{_name(call.bucket)}/o?{urlencode(query)}",
        (*access, ("content-type", f'multipart/related; boundary="{boundary}"')),
        (head.encode(), *parts, f"\r\n--{boundary}--\r\n".encode()),
    )  # fmt: skip


def _create(call: Call, origin: str, access: Headers) -> SignedRequest:
    params = dict(call.params or {})
    described = _described(call, {**call.options, **params})
    if metadata := params.get("Metadata"):
        described["metadata"] = _metadata(metadata)
    query = {"uploadType": "resumable", "name": call.key or "", **_conditions(call), **_key_of_kms(call)}
    return _json(
        "POST", f"{origin}/upload/storage/v1/b/{_name(call.bucket)}/o?{urlencode(query)}",
        (*access, ("x-upload-content-type", described.get("contentType", "application/octet-stream"))), described,
    )  # fmt: skip


def _part(call: Call, access: Headers, checksum: str | None) -> SignedRequest:
    """A chunk of a resumable upload, or the question how far it came. The upload's URL says who may add to it: it goes
    without credentials, which end sooner than it."""
    params = call.params or {}
    offset, total, length = params.get("Offset"), params.get("Total"), params.get("Length", 0)
    if offset is None:
        headers = [("content-range", f"bytes */{'*' if total is None else total}")]
        return SignedRequest("PUT", call.upload, tuple(headers), b"")
    headers = [("content-range", f"bytes {offset}-{offset + length - 1}/{'*' if total is None else total}")]
    before = params.get("Before")
    if total is not None and checksum is not None and before is not None:
        whole = crc.combine("CRC32C", before, crc.decode("CRC32C", checksum), length)
        headers.append(("x-goog-hash", f"crc32c={crc.encode('CRC32C', whole)}"))
    return SignedRequest("PUT", call.upload, tuple(headers), None)


def _abort(call: Call, origin: str, access: Headers) -> SignedRequest:
    return SignedRequest("DELETE", str((call.params or {}).get("UploadId", "")), (("content-length", "0"),), b"")


def _delete(call: Call, origin: str, access: Headers) -> SignedRequest:
    query = _conditions(call)
    for name, value in call.options.items():
        if name != "VersionId":
            raise _unknown(name, call.operation, call.bucket)
        query["generation"] = generation(str(value))
    return SignedRequest("DELETE", _with_query(_object(origin, call.bucket, call.key or ""), query), tuple(access), b"")


def _copy(call: Call, origin: str, access: Headers) -> SignedRequest:
    params = {**call.options, **(call.params or {})}
    source = params["CopySource"]
    query = {}
    if match := params.get("CopySourceIfMatch"):
        query["ifSourceGenerationMatch"] = generation(match)
    if version := source.get("VersionId"):
        query["sourceGeneration"] = generation(version)
    if token := params.get("RewriteToken"):
        query["rewriteToken"] = token
    if key := _key_of_kms(call):
        query["destinationKmsKeyName"] = key["kmsKeyName"]
    url = (
        f"{_object(origin, source['Bucket'], source['Key'])}/rewriteTo/b/{_name(call.bucket)}/o/{_name(call.key or '')}"
    )
    said = {name: value for name, value in params.items() if name not in (*OF_COPIES, "Metadata")}
    described = _described(call, said)
    described.pop("name")
    replaces = call.options.get("MetadataDirective") == "REPLACE"
    if not replaces and "StorageClass" in call.options:
        raise Unsupported(
            "StorageClass of a copy on Google Cloud Storage replaces all that the original says",
            hint='Say all of it: options={"MetadataDirective": "REPLACE", "StorageClass": …, "Metadata": …}',
        )
    if replaces:
        described["metadata"] = _metadata(params.get("Metadata") or {})
    else:  # the copy has all that the original says, also the copy of an object onto itself
        described = {}
    return _json("POST", _with_query(url, query), access, described)


def _list(call: Call, origin: str, access: Headers) -> SignedRequest:
    params = {**call.options, **(call.params or {})}
    for name in params:
        if name not in (*OF_LISTINGS, *WITHOUT_EFFECT):
            raise _unknown(name, call.operation, call.bucket)
    said = {
        "prefix": params.get("Prefix"),
        "delimiter": params.get("Delimiter"),
        "startOffset": params.get("StartAfter"),
        "pageToken": params.get("ContinuationToken"),
        "maxResults": params.get("MaxKeys"),
    }
    query = {name: str(value) for name, value in said.items() if value not in (None, "")}
    url = f"{origin}/storage/v1/b/{_name(call.bucket)}/o"
    return SignedRequest("GET", _with_query(url, {**query, "fields": LISTED_FIELDS}), tuple(access), b"")


def _head_bucket(call: Call, origin: str, access: Headers) -> SignedRequest:
    """By a listing: who may use a bucket's objects need not be allowed to see the bucket itself."""
    url = f"{origin}/storage/v1/b/{_name(call.bucket)}/o?maxResults=1&fields=kind"
    return SignedRequest("GET", url, tuple(access), b"")


def _bucket(call: Call, origin: str, access: Headers) -> SignedRequest:
    query = {"fields": BUCKET_FIELDS[call.operation]}
    return SignedRequest("GET", _with_query(f"{origin}/storage/v1/b/{_name(call.bucket)}", query), tuple(access), b"")


def _locks(call: Call, origin: str, access: Headers) -> SignedRequest:
    url = _with_query(_object(origin, call.bucket, call.key or ""), {"fields": LOCK_FIELDS})
    return SignedRequest("GET", url, tuple(access), b"")


_MAKERS: Mapping[str, Callable[..., SignedRequest]] = {
    "PutObject": _put,
    "CreateMultipartUpload": _create,
    "UploadPart": _part,
    "AbortMultipartUpload": _abort,
    "DeleteObject": _delete,
    "CopyObject": _copy,
    "ListObjectsV2": _list,
    "HeadBucket": _head_bucket,
    "GetBucketLifecycleConfiguration": _bucket,
    "GetBucketVersioning": _bucket,
    "GetObjectLockConfiguration": _bucket,
    "GetObjectRetention": _locks,
}


# What they are made of ------------------------------------------------------------------------------------------------


def generation(text: str) -> str:
    """The generation that a condition names. InvalidKey for what is none."""
    found = text.strip('"')
    if not (found.isascii() and found.isdecimal() and int(found)):
        raise InvalidKey(
            "a condition of Google Cloud Storage names a generation", found=f"{text!a:.40}",
            hint="The etag of an outcome, a listing or ObjectInfo is one",
        )  # fmt: skip
    return found


def _conditions(call: Call) -> dict[str, str]:
    if call.if_none_match:
        return {"ifGenerationMatch": "0"}
    return {} if call.if_match is None else {"ifGenerationMatch": generation(call.if_match)}


def _key_of_kms(call: Call) -> dict[str, str]:
    key = {**call.options, **(call.params or {})}.get("SSEKMSKeyId")
    return {"kmsKeyName": str(key)} if key else {}


def _described(call: Call, params: Mapping[str, Any]) -> dict[str, Any]:
    """What an upload says of its object."""
    found: dict[str, Any] = {"name": call.key}
    for name, value in params.items():
        if name in DESCRIBED:
            found[DESCRIBED[name]] = value
        elif name == "ServerSideEncryption" and value == "aws:kms" and params.get("SSEKMSKeyId"):
            continue
        elif name == "Metadata" and name in call.options and call.operation != "CopyObject":
            raise Unsupported("Metadata is no option of an upload", hint="PutItem(key, data, metadata=…)")
        elif name not in ("SSEKMSKeyId", "Metadata", *WITHOUT_EFFECT):
            raise _unknown(name, call.operation, call.bucket)
    return found


def _metadata(given: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in given.items()}


def _unknown(name: str, operation: str, bucket: str) -> Unsupported:
    return Unsupported(f"{name} is no option of {operation} on Google Cloud Storage", backend=bucket_url(bucket))


def _name(text: str) -> str:
    return quote(text, safe="")


def _object(origin: str, bucket: str, key: str) -> str:
    return f"{origin}/storage/v1/b/{_name(bucket)}/o/{_name(key)}"


def _with_query(url: str, query: Mapping[str, str]) -> str:
    return f"{url}?{urlencode(query, quote_via=quote)}" if query else url


def _json(method: str, url: str, headers: Headers, document: Mapping[str, Any]) -> SignedRequest:
    if not document:
        return SignedRequest(method, url, tuple(headers), b"")
    said = ("content-type", "application/json; charset=UTF-8")
    return SignedRequest(method, url, (*headers, said), json.dumps(document).encode())
