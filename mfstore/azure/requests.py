"""From a call, by S3's names, to the request of Azure's Blob service that does it. Pure.

Put Blob, Put Block, Put Block List, Get Blob and so on: https://learn.microsoft.com/rest/api/storageservices.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from mfstore.azure.credentials import Authorization
from mfstore.azure.settings import Account
from mfstore.azure.urls import check_key
from mfstore.errors import InvalidKey, Unsupported
from mfstore.s3.aws.routes import BOTOCORE, KEYS, Route, SignedRequest
from mfstore.s3.calls import Call, Options

VERSION = "2026-02-06"
"""Of the protocol (x-ms-version). The first in which a listing may begin in the middle (startFrom)."""
SHARED = ("GetObject", "HeadObject")
"""Operations whose requests have nothing of their own but the key, a range and an etag."""
LISTED = 5000
"""Blobs on a page, at most. Who asks for a thousand, S3's most, means as many as there may be."""
PROPERTIES = {
    "CacheControl": "x-ms-blob-cache-control",
    "ContentDisposition": "x-ms-blob-content-disposition",
    "ContentEncoding": "x-ms-blob-content-encoding",
    "ContentLanguage": "x-ms-blob-content-language",
    "ContentType": "x-ms-blob-content-type",
}
TIERS = ("Hot", "Cool", "Cold", "Archive")
OTHERS = ("StorageClass", "MetadataDirective", "TaggingDirective")
WRITES = ("PutObject", "CompleteMultipartUpload", "CopyObject")
"""What makes a blob, and may say something of it."""
CONFIGURATIONS = {
    "GetBucketLifecycleConfiguration": "the lifecycle rules of an account are not told to those who read its data",
    "GetObjectLockConfiguration": "the immutability policy of a container is not told to those who read its data",
    "GetObjectTagging": "tags of blobs are not served",
    "GetObjectRetention": "a blob tells its retention when it is asked for its properties",
    "DeleteObjects": "each blob is deleted by a request of its own",
}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def shared_route(operation: str, options: Options, container: str, account: Account, who: Authorization) -> Route:
    """What all requests of GetObject or HeadObject have in common."""
    check_options(operation, options)
    headers = tuple(sorted((("x-ms-version", VERSION), *who.headers)))
    method = "GET" if operation == "GetObject" else "HEAD"
    path = f"{account.root}/{quote(container, safe='$')}/"
    return Route(method, account.origin, path, who.query, headers, "", "", False, signer=KEYS)


def plain_put_route(options: Options, container: str, account: Account, who: Authorization) -> Route:
    """What all Put Blob requests have in common that say nothing of a blob but what ``options`` do."""
    check_options("PutObject", options)
    said = {"x-ms-blob-type": "BlockBlob", "x-ms-version": VERSION, **_described(options)}
    headers = tuple(sorted((*said.items(), *who.headers)))
    path = f"{account.root}/{quote(container, safe='$')}/"
    return Route("PUT", account.origin, path, who.query, headers, "", "", False, signer=KEYS)


def own_route(method: str, account: Account) -> Route:
    """That each request of an operation is its own."""
    return Route(method, account.origin, account.root + "/", "", (), "", "", False, signer=BOTOCORE)


def request(
    call: Call, account: Account, who: Authorization, checksum: tuple[str, str] | None = None
) -> SignedRequest:  # fmt: skip
    """The request of a call that is no ``SHARED`` one; its body is None where it is the call's own. InvalidKey for a
    key or metadata that Azure does not take, Unsupported for an operation or a parameter that it does not have."""
    check_account(call.bucket, account)
    check_options(call.operation, call.options)
    make = _MAKERS.get(call.operation)
    if make is None:
        what = CONFIGURATIONS.get(call.operation, f"Azure has no {call.operation}")
        raise Unsupported(what)
    if call.key is not None:
        check_key(call.key)
    method, query, headers, made = make(call, account, who)
    if checksum is not None:
        if checksum[0] != "CRC64NVME":
            raise Unsupported(f"Azure checks no {checksum[0]}", hint="It checks CRC64NVME")
        # The same polynomial, the other way round: Azure writes the lowest byte first.
        headers["x-ms-content-crc64"] = base64.b64encode(base64.b64decode(checksum[1])[::-1]).decode()
    if call.if_match is not None and "if-match" not in headers:
        headers["if-match"] = quoted(call.if_match)
    if call.if_none_match:
        headers["if-none-match"] = "*"
    headers["x-ms-version"] = VERSION
    url = blob_url(account, call.bucket, call.key)
    asked = "&".join(part for part in (*_encoded(query), who.query) if part)
    url = f"{url}?{asked}" if asked else url
    return SignedRequest(method, url, (*headers.items(), *who.headers), made)


def check_account(container: str, account: Account) -> None:
    """InvalidKey for a container that a URL has named in another account: there is one of its name in this one too."""
    named = getattr(container, "account", "")
    if named and named != account.name:
        raise InvalidKey(
            "the URL names another account than this client is for", expected=account.name, found=named,
            hint="Make a client for that account",
        )  # fmt: skip


def blob_url(account: Account, container: str, key: str | None) -> str:
    """The URL of a container or of a blob."""
    url = f"{account.origin}{account.root}/{quote(container, safe='$')}"
    return url if key is None else f"{url}/{quote(key, safe='/~')}"


def quoted(etag: str) -> str:
    """An etag as conditions want it."""
    return etag if etag.startswith(('"', "W/")) or etag == "*" else f'"{etag}"'


def _encoded(query: Mapping[str, str]) -> Iterable[str]:
    return (f"{name}={quote(value, safe='')}" for name, value in query.items())


_Made = tuple[str, dict[str, str], dict[str, str], "bytes | None"]


def _put(call: Call, account: Account, who: Authorization) -> _Made:
    said = {**_described(call.options), **metadata_headers(call.metadata)}
    return "PUT", {}, {"x-ms-blob-type": "BlockBlob", **said}, None


def _create(call: Call, account: Account, who: Authorization) -> _Made:
    # Blocks need no beginning. But whether they may be sent is better asked with one byte than with the first 16 MiB;
    # a block that is not named in the end is dropped.
    return "PUT", {"comp": "block", "blockid": block_id(uuid.uuid4().hex, 0)}, {}, b"\0"


def _part(call: Call, account: Account, who: Authorization) -> _Made:
    return "PUT", {"comp": "block", "blockid": block_id(call.upload, call.part)}, {}, None


def _copied_part(call: Call, account: Account, who: Authorization) -> _Made:
    said = dict(call.params or {})
    headers = {**_source(said, account, who), "x-ms-source-range": said["CopySourceRange"]}
    query = {"comp": "block", "blockid": block_id(said["UploadId"], said["PartNumber"])}
    return "PUT", query, headers, b""


def _complete(call: Call, account: Account, who: Authorization) -> _Made:
    said = call.params or {}
    upload = str(said["UploadId"])
    numbers = sorted(part["PartNumber"] for part in said["MultipartUpload"]["Parts"])
    # Latest, not Uncommitted: what was done already, and whose answer was lost, may be asked again.
    blocks = "".join(f"<Latest>{escape(block_id(upload, number))}</Latest>" for number in numbers)
    body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{blocks}</BlockList>'.encode()
    blob = said_of_upload(upload)
    headers = {**_described({**blob, **call.options}), **metadata_headers(blob.get("Metadata"))}
    return "PUT", {"comp": "blocklist"}, headers, body


def _abort(call: Call, account: Account, who: Authorization) -> _Made:
    # There is nothing to give up: blocks that no list names end by themselves. The job wants an answer.
    return "HEAD", {}, {}, b""


def _delete(call: Call, account: Account, who: Authorization) -> _Made:
    return "DELETE", {}, {}, b""


def _copy(call: Call, account: Account, who: Authorization) -> _Made:
    said = {**call.options, **(call.params or {})}
    source = said["CopySource"]
    onto_itself = (source["Bucket"], source["Key"]) == (call.bucket, call.key)
    for name in call.options:
        if name in PROPERTIES or (name == "StorageClass" and onto_itself):
            what = "a blob that is copied onto itself" if onto_itself else "a copy in Azure"
            raise Unsupported(f"{what} keeps its {name}", hint="Put it anew to say another")
    metadata = said.get("Metadata")
    headers = metadata_headers(metadata) if said.get("MetadataDirective") == "REPLACE" else {}
    if onto_itself:
        # Nothing is copied onto itself: its metadata is written again, by which it becomes young.
        if match := said.get("CopySourceIfMatch"):
            headers["if-match"] = quoted(match)
        return "PUT", {"comp": "metadata"}, headers, b""
    headers |= {**_source(said, account, who), "x-ms-requires-sync": "true", **_tier(said)}
    return "PUT", {}, headers, b""


def _source(said: Mapping[str, Any], account: Account, who: Authorization) -> dict[str, str]:
    """What a copy is made of, and who may read it."""
    source = said["CopySource"]
    check_account(source["Bucket"], account)
    url = blob_url(account, str(source["Bucket"]), str(source["Key"]))
    headers = {"x-ms-copy-source": f"{url}?{who.query}" if who.query else url}
    if (token := dict(who.headers).get("authorization")) is not None:
        headers["x-ms-copy-source-authorization"] = token
    if match := said.get("CopySourceIfMatch"):
        headers["x-ms-source-if-match"] = quoted(match)
    return headers


def _list(call: Call, account: Account, who: Authorization) -> _Made:
    said = call.params or {}
    query = {"restype": "container", "comp": "list", "include": "metadata"}
    if said.get("Prefix"):
        query["prefix"] = said["Prefix"]
    if said.get("Delimiter"):
        query["delimiter"] = said["Delimiter"]
    if said.get("StartAfter"):
        query["startFrom"] = said["StartAfter"]
    if said.get("ContinuationToken"):
        query["marker"] = said["ContinuationToken"]
    most = int(said.get("MaxKeys") or 1000)
    query["maxresults"] = str(LISTED if most >= 1000 else most)
    return "GET", query, {}, b""


def _versions(call: Call, account: Account, who: Authorization) -> _Made:
    # Of any one blob: whether it has a version tells whether they are kept.
    query = {"restype": "container", "comp": "list", "include": "versions", "maxresults": "1"}
    if (call.params or {}).get("Prefix"):
        query["prefix"] = (call.params or {})["Prefix"]
    return "GET", query, {}, b""


def _account(call: Call, account: Account, who: Authorization) -> _Made:
    return "GET", {"restype": "account", "comp": "properties"}, {}, b""


def _container(call: Call, account: Account, who: Authorization) -> _Made:
    return "HEAD", {"restype": "container"}, {}, b""


_MAKERS = {
    "PutObject": _put,
    "CreateMultipartUpload": _create,
    "UploadPart": _part,
    "UploadPartCopy": _copied_part,
    "CompleteMultipartUpload": _complete,
    "AbortMultipartUpload": _abort,
    "DeleteObject": _delete,
    "CopyObject": _copy,
    "ListObjectsV2": _list,
    "GetBucketVersioning": _versions,
    "GetAccountInformation": _account,
    "HeadBucket": _container,
}


# ---- uploads in blocks ---------------------------------------------------------------------


def new_upload(said: Mapping[str, Any]) -> str:
    """The id of a new upload: ours, since Azure has none. What was ``said`` of the blob has to be said to Azure at the
    end, so it travels in it."""
    kept = {name: said[name] for name in ("Metadata", "StorageClass", *PROPERTIES) if said.get(name)}
    text = base64.urlsafe_b64encode(json.dumps(kept).encode()).decode() if kept else ""
    return f"{uuid.uuid4().hex}.{text}"


def said_of_upload(upload: str) -> dict[str, Any]:
    """What was said of the blob when its upload began."""
    text = upload.partition(".")[2]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text)) if text else {}
    return found


def block_id(upload: str, number: int) -> str:
    """The id of a block: all of a blob have the same length."""
    return base64.b64encode(f"{upload[:32]}{number:06d}".encode()).decode()


# ---- what is said of a blob ----------------------------------------------------------------


def check_options(operation: str, options: Mapping[str, Any]) -> None:
    """Unsupported for the first parameter that Azure does not have."""
    for name, value in options.items():
        if name in PROPERTIES or name in OTHERS or value is None or (name, operation) == ("Metadata", "CopyObject"):
            continue
        hint = "Azure encrypts by itself, with the keys that the account is told" if "Encryption" in name else None
        raise Unsupported(f"{name} is a parameter of S3, which Azure does not have", hint=hint)
    _tier(options)


def _described(options: Mapping[str, Any]) -> dict[str, str]:
    found = {header: str(options[name]) for name, header in PROPERTIES.items() if options.get(name)}
    return {**found, **_tier(options)}


def _tier(options: Mapping[str, Any]) -> dict[str, str]:
    given = options.get("StorageClass")
    if given is None:
        return {}
    for tier in TIERS:
        if str(given).lower() == tier.lower():
            return {"x-ms-access-tier": tier}
    raise Unsupported("Azure has no such access tier", found=str(given), hint=f"One of {', '.join(TIERS)}")


def metadata_headers(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """User metadata as headers. In Azure its names are identifiers of C#: a hyphen becomes an underscore. InvalidKey
    for others."""
    found = {}
    for name, value in (metadata or {}).items():
        said = name.replace("-", "_")
        if not _IDENTIFIER.fullmatch(said):
            raise InvalidKey(
                "names of metadata in Azure are letters, digits and underscores (a hyphen becomes one)",
                found=repr(name),
            )
        if f"x-ms-meta-{said}" in found:
            raise InvalidKey("two names of metadata are one in Azure, which has no hyphens", found=repr(name))
        found[f"x-ms-meta-{said}"] = value
    return found
