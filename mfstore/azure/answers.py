"""What Azure answers, in the words of S3 that jobs look for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from mfstore.azure.requests import new_upload
from mfstore.errors import BackendError
from mfstore.s3.aws.errors import ENDPOINT_HINT, Fault, bare, tree
from mfstore.s3.aws.pages import NAMED_WITHIN, Listed, Page
from mfstore.s3.calls import Call, Reply

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


class Headers(Mapping[str, str]):
    """The headers of an answer of Azure, with what S3 would have said besides, by the names that it has there. Single
    names are looked up among Azure's: a small GET asks for few, and the whole is made when somebody wants it."""

    __slots__ = ("_made", "_raw", "_said")

    def __init__(self, raw: Mapping[str, str], said: Mapping[str, str]) -> None:
        self._raw = raw
        self._said = said
        self._made: dict[str, str] | None = None

    def get(self, name: str, default: Any = None) -> Any:
        """See ``Mapping``."""
        if name.startswith("x-amz-"):
            return self._whole().get(name, default) if name != "x-amz-request-id" else self._raw.get(REQUEST, default)
        if self._said and name in self._said:
            return self._said[name]
        return self._raw.get(name, default)

    def __getitem__(self, name: str) -> str:
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found  # type: ignore[no-any-return]

    def __contains__(self, name: object) -> bool:
        return self.get(name) is not None  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

    def __repr__(self) -> str:
        return repr(self._whole())

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self._whole(),)

    def _whole(self) -> dict[str, str]:
        if self._made is None:
            self._made = {**in_words_of_s3(self._raw), **self._said}
        return self._made


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
    """Say a reply in the words of S3. One that is not of Azure stays as it is: a proxy's."""
    raw = reply.headers
    request = raw.get(REQUEST)
    if request is None:
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


def page(call: Call, body: bytes) -> Page:
    """The page of a listing. BackendError when it is none, or is not whole."""
    try:
        root = tree(body)
        if bare(root.tag) != "EnumerationResults":
            raise ValueError(f"<{bare(root.tag)}> in place of a listing")
        return _page(root, str((call.params or {}).get("StartAfter") or ""))
    except (ElementTree.ParseError, ValueError, LookupError, OverflowError) as error:
        if b"EnumerationResults" not in body[:NAMED_WITHIN]:
            raise BackendError(
                "what answers is no Blob service of Azure: its listing is none", found=str(error)[:200],
                hint=ENDPOINT_HINT,
            ) from error  # fmt: skip
        raise BackendError("the listing cannot be read", found=str(error)[:200]) from error


def _page(root: ElementTree.Element, after: str) -> Page:
    objects: list[Listed] = []
    prefixes: list[str] = []
    for node in root.find("Blobs") or ():
        if node.tag == "BlobPrefix":
            prefixes.append(_name(node))
        elif node.tag == "Blob" and (found := _listed(node)) is not None and found.key != after:
            # startFrom shows the key itself, and S3 what is after it.
            objects.append(found)
    return Page(tuple(objects), tuple(prefixes), root.findtext("NextMarker") or None)


def _listed(node: ElementTree.Element) -> Listed | None:
    """A blob; None for the directory of an account with a hierarchical namespace, and for what is no blob any more."""
    key = _name(node)
    said: dict[str, str] = {}
    for child in node.find("Properties") or ():
        said[child.tag] = child.text or ""
    size = int(said.get("Content-Length") or 0)
    if size < 0:
        raise ValueError("a negative size")
    if said.get("ResourceType") == "directory" or (not size and _is_folder(node)):
        return None
    if node.findtext("Deleted") == "true" or node.findtext("Snapshot"):
        return None
    tier = said.get("AccessTier") if said.get("AccessTierInferred") != "true" else None
    return Listed(key, size, _time(said.get("Last-Modified", "")), said.get("Etag"), tier)


def _is_folder(node: ElementTree.Element) -> bool:
    metadata = node.find("Metadata")
    return metadata is not None and any(
        child.tag.lower() == "hdi_isfolder" and (child.text or "").lower() == "true" for child in metadata
    )


def _name(node: ElementTree.Element) -> str:
    found = node.find("Name")
    if found is None or not found.text:
        raise ValueError("an entry without a name")
    # What XML cannot hold comes percent-encoded.
    return unquote(found.text) if found.get("Encoded") == "true" else found.text


def _time(text: str) -> datetime | None:
    with suppress(ValueError, TypeError):
        return parsedate_to_datetime(text)
    return None


def said_code(headers: Mapping[str, str], body: bytes | None) -> str:
    """Azure's code for what went wrong, which is in a header also where there is no body; else that of the body."""
    code = headers.get("x-ms-error-code", "")
    if not code and body and b"<Code>" in body:
        code = body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode("ascii", "replace")
    return code[:100]
