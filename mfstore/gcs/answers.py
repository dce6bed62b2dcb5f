"""Answers of Google Cloud Storage in the words of S3, by which jobs read them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mfstore.errors import BackendError
from mfstore.gcs.errors import fault
from mfstore.s3.aws.errors import CLAIMS, ENDPOINT_HINT, disown
from mfstore.s3.aws.pages import Listed, Page
from mfstore.s3.calls import Call, Reply
from mfstore.s3.headers import TranslatedHeaders

REQUEST_ID = "x-guploader-uploadid"
NAMES = {
    "etag": "x-goog-generation",
    "x-amz-request-id": REQUEST_ID,
    "x-amz-version-id": "x-goog-generation",
    "x-amz-storage-class": "x-goog-storage-class",
}
"""Headers by S3's names, and what they are called here. What conditions take is the generation: an ETag may be of the
bytes alone."""
CHECKSUM = "x-amz-checksum-crc32c"
HASH = "x-goog-hash"
EXPIRES = "expires"
"""Of S3 an object's own; here of the answer, to whoever keeps it."""
METADATA, OUR_METADATA = "x-goog-meta-", "x-amz-meta-"
KEPT = "x-mfstore-kept"
"""Of a resumable upload that goes on: bytes that the service has (``transfers/uploads.py``)."""
WRITES = ("PutObject", "UploadPart")
DAYS_OF_SECONDS = 86400


class ObjectHeaders(TranslatedHeaders):
    """The headers of an answer about an object."""

    __slots__ = ("_said",)

    def __init__(self, said: Mapping[str, str]) -> None:
        super().__init__()
        self._said = said

    def get(self, name: str, default: Any = None) -> Any:
        """See ``TranslatedHeaders``."""
        said = self._said
        if (here := NAMES.get(name)) is not None:
            return said.get(here, default)
        if name == CHECKSUM:
            return _crc32c(said) or default
        if name == EXPIRES:
            return default
        if name.startswith(OUR_METADATA):
            return said.get(METADATA + name[len(OUR_METADATA) :], default)
        return said.get(name, default)

    def _all(self) -> dict[str, str]:
        made = {}
        for name, value in self._said.items():
            if name.startswith(METADATA):
                name = OUR_METADATA + name[len(METADATA) :]
            if name not in NAMES and name != EXPIRES:
                made[name] = value
        for name in (*NAMES, CHECKSUM):
            if (value := self.get(name)) is not None:
                made[name] = value
        return made


def _crc32c(said: Mapping[str, str]) -> str | None:
    """The checksum of the object as it is stored; None where other bytes came."""
    if said.get("x-goog-stored-content-encoding", "identity") != said.get("content-encoding", "identity"):
        return None
    for one in said.get(HASH, "").split(","):
        kind, _, value = one.strip().partition("=")
        if kind == "crc32c":
            return value
    return None


def translate(reply: Reply, google: bool = False) -> None:
    """Say a reply in the words of S3, before anybody looks at it. One that is not the service's is a failure; of
    ``google`` itself each answer names its request, of an emulator some do not."""
    call, status = reply.call, reply.status
    if reply.failure is not None and not status:
        return
    operation = call.operation
    if reply.failure is None and _is_foreign(reply, google):
        disown(reply)
        return
    if operation in ("GetObject", "HeadObject"):
        reply.headers = ObjectHeaders(reply.headers)
    elif 200 <= status < 300:
        _good(operation, reply)
    elif status == 308 and operation == "UploadPart":
        last = reply.headers.get("range", "").rpartition("-")[2]
        kept = str(int(last) + 1) if last.isdecimal() else "0"
        reply.status, reply.headers, reply.data = 200, {**_about(reply), KEPT: kept}, b""
    elif operation == "AbortMultipartUpload" and status in (404, 410, 499):
        reply.status, reply.data = 204, b""
    else:
        reply.headers = {**reply.headers, **_about(reply)}
    if not 200 <= reply.status < 300 and reply.failure is None:
        reply.fault = fault(reply)


def _is_foreign(reply: Reply, google: bool) -> bool:
    good = 200 <= reply.status < 300
    if REQUEST_ID not in reply.headers and google:
        return good or reply.status in CLAIMS
    if good and reply.call.operation in ("GetObject", "HeadObject"):
        return "x-goog-generation" not in reply.headers
    return good and reply.call.operation == "PutObject" and not (_document(reply) or {}).get("generation")


def plain_headers(operation: str, said: Mapping[str, str], etag: str | None) -> Mapping[str, str]:
    """The headers of the good answer to a plain request, whose object has the generation ``etag``."""
    if operation != "PutObject":
        return ObjectHeaders(said)
    names = (("x-amz-request-id", REQUEST_ID), ("date", "date"))
    found = {name: value for name, there in names if (value := said.get(there)) is not None}
    if etag is not None:
        found["etag"] = found["x-amz-version-id"] = etag
    return found


def _about(reply: Reply) -> dict[str, str]:
    """The request id, by S3's name, and the time."""
    said = reply.headers
    names = (("x-amz-request-id", REQUEST_ID), ("date", "date"))
    return {name: value for name, there in names if (value := said.get(there)) is not None}


def _good(operation: str, reply: Reply) -> None:
    about = _about(reply)
    if operation in WRITES:
        reply.headers = {**about, **_of_object(_document(reply) or {})}
    elif operation == "CreateMultipartUpload":
        upload = reply.headers.get("location", "")
        reply.headers, reply.data = about, json.dumps({"UploadId": upload}).encode()
    else:
        reply.headers = {**reply.headers, **about}


def _of_object(said: Mapping[str, Any]) -> dict[str, str]:
    """The headers that an object's description stands for."""
    found = {"etag": said.get("generation"), CHECKSUM: said.get("crc32c"), "x-amz-version-id": said.get("generation")}
    return {name: str(value) for name, value in found.items() if value}


def _document(reply: Reply) -> Any:
    try:
        found = json.loads(reply.data or b"")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


# What jobs ask besides ------------------------------------------------------------------------------------------------


def parse(call: Call, reply: Reply) -> dict[str, Any]:
    """The output of an operation by botocore's names. BackendError for what is no answer of the service."""
    if call.operation == "AbortMultipartUpload":  # which has nothing to say
        return {}
    said = _document(reply)
    if said is None:
        raise BackendError("the answer is not what Google Cloud Storage sends", hint=ENDPOINT_HINT)
    match call.operation:
        case "CreateMultipartUpload":
            return dict(said)
        case "CopyObject":
            if not said.get("done", True):
                return {"RewriteToken": said.get("rewriteToken")}
            made = said.get("resource") or {}
            return {"CopyObjectResult": {"ETag": made.get("generation")}}
        case "GetBucketLifecycleConfiguration":
            rules = (said.get("lifecycle") or {}).get("rule") or ()
            return {"Rules": [rule for number, found in enumerate(rules, 1) for rule in lifecycle_rule(found, number)]}
        case "GetBucketVersioning":
            return {"Status": "Enabled"} if (said.get("versioning") or {}).get("enabled") else {}
        case "GetObjectLockConfiguration":
            return _lock_configuration(said)
        case "GetObjectRetention":
            return dict(said)
    return dict(said)


def page(call: Call, reply: Reply) -> Page:
    """The page of a listing. BackendError for what is none."""
    said = _document(reply)
    if said is None or said.get("error"):
        raise BackendError("what answers is not Google Cloud Storage: its listing is none", hint=ENDPOINT_HINT)
    after = str((call.params or {}).get("StartAfter") or "")
    try:
        objects = tuple(
            Listed(
                one["name"], int(one["size"]), _moment(one.get("updated")), str(one["generation"]),
                one.get("storageClass"),
            )
            for one in said.get("items", ())
            if one["name"] != after  # where listings begin is listed here, and not by S3
        )  # fmt: skip
        prefixes = tuple(map(str, said.get("prefixes", ())))
    except (KeyError, TypeError, ValueError) as error:
        raise BackendError("the listing cannot be read", found=f"{type(error).__name__}: {error}"[:200]) from error
    return Page(objects, prefixes, said.get("nextPageToken") or None)


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


OF_VERSIONS = ("daysSinceNoncurrentTime", "noncurrentTimeBefore", "numNewerVersions")
"""Conditions that only versions meet which are not current."""
NARROWING = ("matchesStorageClass", "matchesSuffix")
"""Conditions that some objects of a store meet."""
OF_CUSTOM_TIMES = ("customTimeBefore", "daysSinceCustomTime")
"""Conditions that only objects meet which have a custom time. mfstore gives them none."""


def lifecycle_rule(rule: Mapping[str, Any], number: int) -> Sequence[dict[str, Any]]:
    """A rule as S3 words it: one for each prefix that it is for."""
    action, condition = rule.get("action") or {}, rule.get("condition") or {}
    made: dict[str, Any] = {"ID": f"number {number}", "Status": "Enabled"}
    kind = action.get("type")
    when: dict[str, Any] = {"Days": int(condition.get("age", 0))}
    if "age" not in condition and condition.get("createdBefore"):
        when = {"Date": condition["createdBefore"]}
    if kind == "AbortIncompleteMultipartUpload":
        made["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": when.get("Days")}
    elif condition.get("isLive") is False or any(name in condition for name in OF_VERSIONS):
        days = condition.get("daysSinceNoncurrentTime", condition.get("age", 0))
        made["NoncurrentVersionExpiration"] = {"NoncurrentDays": int(days)}
        if kept := condition.get("numNewerVersions"):
            made["NoncurrentVersionExpiration"]["NewerNoncurrentVersions"] = kept
        if any(name in condition for name in NARROWING):
            made["Status"] = "Disabled"  # not what removes them all
    elif kind == "Delete":
        made["Expiration"] = when
    elif kind == "SetStorageClass":
        made["Transitions"] = [{"StorageClass": action.get("storageClass"), **when}]
    prefixes = condition.get("matchesPrefix") or ("",)
    if any(name in condition for name in OF_CUSTOM_TIMES):
        made["Status"] = "Disabled"
    return [{**made, "Filter": {"Prefix": prefix}} for prefix in prefixes]


def _lock_configuration(said: Mapping[str, Any]) -> dict[str, Any]:
    policy = said.get("retentionPolicy") or {}
    seconds = int(policy.get("retentionPeriod") or 0)
    found: dict[str, Any] = {}
    if seconds:
        mode = "COMPLIANCE" if policy.get("isLocked") else "GOVERNANCE"
        days = -(-seconds // DAYS_OF_SECONDS)
        found = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": mode, "Days": days}}}
    elif said.get("defaultEventBasedHold") or (said.get("objectRetention") or {}).get("mode") == "Enabled":
        found = {"ObjectLockEnabled": "Enabled"}
    return {"ObjectLockConfiguration": found} if found else {}
