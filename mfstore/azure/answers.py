"""What Azure answers, in the words of S3 that jobs look for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mfstore.azure.requests import new_upload
from mfstore.errors import BackendError
from mfstore.s3.aws.errors import CLAIMS, ENDPOINT_HINT, Fault, disown
from mfstore.s3.calls import Call, Reply
from mfstore.s3.headers import TranslatedHeaders

SAID = b"<Done/>"
"""In place of an empty body: Azure says in headers what it did, and jobs take an answer without a body for none."""
DONE = ("CreateMultipartUpload", "CompleteMultipartUpload", "CopyObject", "UploadPartCopy")
S3_CODES = {
    "BlobNotFound": "NoSuchKey",
    "ContainerNotFound": "NoSuchBucket",
    "ConditionNotMet": "PreconditionFailed",
    "BlobAlreadyExists": "PreconditionFailed",
    "InvalidBlockList": "NoSuchUpload",
    "ServerBusy": "SlowDown",
}
"""What jobs look at, which know S3's codes. Errors name Azure's."""
STATUSES = {"ResourceNotFound": 403, "InvalidBlockList": 404}
"""Other statuses than Azure's: it answers 404 to whoever may not know whether there is something, which is not to be
taken for "absent"; and an upload that is gone is 404 in S3."""
OURS = ("mfstore_", "metaflow_")
"""Metadata that was written with hyphens, which Azure does not have, begins so."""


REQUEST = "x-ms-request-id"


class Headers(TranslatedHeaders):
    """The headers of an answer of Azure, with what S3 would have said besides."""

    __slots__ = ("_raw", "_said")

    def __init__(self, raw: Mapping[str, str], said: Mapping[str, str]) -> None:
        super().__init__()
        self._raw = raw
        self._said = said

    def get(self, name: str, default: Any = None) -> Any:
        """See ``TranslatedHeaders``."""
        if name.startswith("x-amz-"):
            return self._whole().get(name, default) if name != "x-amz-request-id" else self._raw.get(REQUEST, default)
        if self._said and name in self._said:
            return self._said[name]
        return self._raw.get(name, default)

    def _all(self) -> dict[str, str]:
        return {**in_words_of_s3(self._raw), **self._said}


def in_words_of_s3(raw: Mapping[str, str]) -> dict[str, str]:
    """All headers of an answer, with those besides that S3 would have had."""
    found = dict(raw)
    for name, value in raw.items():
        if name.startswith("x-ms-meta-"):
            found["x-amz-meta-" + metadata_name(name[10:])] = value
        elif name == REQUEST:
            found["x-amz-request-id"] = value
        elif name == "x-ms-access-tier" and "x-ms-access-tier-inferred" not in raw and value != "Archive":
            # What is archived cannot be read; a copy of it is not to be like that.
            found["x-amz-storage-class"] = value
    return found


def translate(reply: Reply) -> None:
    """Say a reply in the words of S3. One that is not of Azure stays as it is, or is a failure: a proxy's."""
    raw = reply.headers
    request = raw.get(REQUEST)
    if request is None:
        if reply.failure is None and (200 <= reply.status < 300 or reply.status in CLAIMS):
            disown(reply)
        return
    said: dict[str, str] = {}
    operation = reply.call.operation
    if reply.status >= 300:
        code = raw.get("x-ms-error-code")
        if code is not None:
            reply.fault = Fault(S3_CODES.get(code, code), request_id=request)
            reply.status = STATUSES.get(code, reply.status)
    elif operation == "UploadPart":
        said = {"etag": f'"{reply.call.part}"'}  # a block has none, and a job wants one
    elif operation in DONE and not reply.data:
        reply.data = SAID
    reply.headers = Headers(raw, said)


def metadata_name(name: str) -> str:
    """The name of metadata as it was given: ours with hyphens, others as Azure has them."""
    return name.replace("_", "-") if name.startswith(OURS) else name


def output(call: Call, reply: Reply) -> dict[str, Any]:
    """What an operation answered, by botocore's names. BackendError for what is no answer of Azure's."""
    headers = reply.headers
    if "x-ms-request-id" not in headers:
        raise BackendError("what answers is no Blob service of Azure", hint=ENDPOINT_HINT)
    match call.operation:
        case "CreateMultipartUpload":
            return {"UploadId": new_upload(call.params or {})}
        case "CompleteMultipartUpload":
            return {"ETag": headers.get("etag")}
        case "CopyObject":
            return {"CopyObjectResult": {"ETag": headers.get("etag")}}
        case "UploadPartCopy":
            return {"CopyPartResult": {"ETag": f'"{(call.params or {})["PartNumber"]}"'}}
        case "GetBucketVersioning":
            return {"Status": "Enabled"} if b"<VersionId>" in (reply.data or b"") else {}
        case "GetAccountInformation":
            # Not said by versions of the service that know nothing of it.
            told = headers.get("x-ms-is-hns-enabled")
            return {} if told is None else {"HierarchicalNamespace": told.lower() == "true"}
    return {}


def said_code(headers: Mapping[str, str], body: bytes | None) -> str:
    """Azure's code for what went wrong, which is in a header also where there is no body; else that of the body."""
    code = headers.get("x-ms-error-code", "")
    if not code and body and b"<Code>" in body:
        code = body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode("ascii", "replace")
    return code[:100]
