"""Copying an object inside the service: in one request or in parts, with all that was said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from mfstore.errors import AccessDenied, BackendError, MfstoreError
from mfstore.s3.calls import NO_OPTIONS, Call, Options, Reply
from mfstore.s3.transfers.jobs import NO_CALLS, ODD_ANSWERS, MultipartJob, Retry, Try, etag_of, length_of, parsed
from mfstore.s3.transfers.uploads import MOST_PARTS, part_size
from mfstore.s3.urls import scheme_of

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane

LARGEST_COPY = 5 << 30
"""Longest object CopyObject takes; longer ones are copied in parts."""
COPIED_PART = 1 << 30
"""Bytes copied by one request of several: none passes through this machine, so few are enough."""
DESCRIBED = {
    "cache-control": "CacheControl",
    "content-disposition": "ContentDisposition",
    "content-encoding": "ContentEncoding",
    "content-language": "ContentLanguage",
    "content-type": "ContentType",
    "expires": "Expires",
}
"""Headers of an object, and the parameters by which an upload gives them. CopyObject keeps them by itself."""
ENCRYPTION, KMS_KEY = "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"
LEAST = "AES256"
"""The encryption that every object has. Said to another bucket, it would undo a better one that this has by default."""
ENCRYPTED = {
    ENCRYPTION: "ServerSideEncryption",
    KMS_KEY: "SSEKMSKeyId",
    "x-amz-server-side-encryption-bucket-key-enabled": "BucketKeyEnabled",
}
PLACED = {"x-amz-storage-class": "StorageClass", "x-amz-website-redirect-location": "WebsiteRedirectLocation"}
"""As DESCRIBED, but a copy of any kind has to be told, or it gets what its bucket has by default."""
OF_THEIR_BUCKETS = ("STANDARD", "EXPRESS_ONEZONE", "OUTPOSTS", "SNOW")
"""Storage classes that an object has by its bucket, and not by its own."""
ARCHIVED = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes of which nothing can be read without restoring it first. A copy, which takes that as well, is to be
read: it gets what its bucket has by default, as from CopyObject and `aws s3 cp`."""
TAGS_HINT = (
    "Allow s3:GetObjectTagging, or say what tags the copy is to have: "
    "options={'TaggingDirective': 'REPLACE', 'Tagging': ''}"
)
KEY_HINT = (
    "{before}The copy is to have the original's encryption, with the key {key}: allow kms:GenerateDataKey with it, or "
    "say another (a key of the region of the copy), as options={{'ServerSideEncryption': 'aws:kms', 'SSEKMSKeyId': …}}"
)


def told(headers: Mapping[str, str], names: Mapping[str, str]) -> dict[str, Any]:
    """What the headers of an object say, as parameters of an operation that makes one."""
    said: dict[str, Any] = {name: headers[header] for header, name in names.items() if headers.get(header)}
    if said.get("StorageClass") in (*OF_THEIR_BUCKETS, *ARCHIVED):
        del said["StorageClass"]
    if "BucketKeyEnabled" in said:
        said["BucketKeyEnabled"] = said["BucketKeyEnabled"].lower() == "true"
    if "Expires" in said:
        try:
            said["Expires"] = parsedate_to_datetime(said["Expires"])
        except (ValueError, TypeError):
            del said["Expires"]  # not a date, which is all that may be sent
    return said


def metadata_of(headers: Mapping[str, str]) -> dict[str, str]:
    """The user metadata of an object."""
    return {name[11:]: value for name, value in headers.items() if name.startswith("x-amz-meta-")}


def put_again(headers: Mapping[str, str]) -> dict[str, Any]:
    """Parameters, besides user metadata, with which an object is to be put to be as it was."""
    return told(headers, {**DESCRIBED, **ENCRYPTED, **PLACED})


class CopyJob(MultipartJob):
    """Copy an object inside the service. One request, or, beyond what one takes, parts in parallel.
    Where a request has copied part of the object, others follow that go on where it ended.

    The copy has the original's headers, metadata, tags, encryption and storage class, but for what ``options`` say; not
    a class that would have to be restored first, as the original was.
    Onto itself it makes the object young again.
    """

    __slots__ = ("_asked", "_etags", "_headers", "_match", "_source", "size")

    def __init__(
        self, index: int, item: Any, source: tuple[str, str], bucket: str, key: str, options: Options = NO_OPTIONS
    ) -> None:
        super().__init__(index, item, bucket, key, options)
        self._source = source
        self._etags: dict[int, str] = {}
        self._headers: Mapping[str, str] = {}
        self._match: dict[str, str] = {}
        self._asked = False
        """Whether the last question is for the original's tags."""
        self.size = 0

    def begin(self) -> Sequence[Call]:
        # The size decides how to copy, and tells a missing source from a missing destination bucket.
        return (self._ask("HeadObject", None),)

    def _ask(self, operation: str, part: Any) -> Call:
        # In S3 they may hold the key that a look takes. Elsewhere they are about the copy alone.
        options = self.options if scheme_of(self.bucket) == "s3" else NO_OPTIONS
        return Call(operation, self._source[0], self._source[1], options, tag=Try(self, part))

    def on_reply(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        match call.operation:
            case "HeadObject":
                return self._looked(reply, control) if call.tag.part is None else self._recognised(call, reply)
            case "CopyObject":
                said = parsed(call, reply, control)
                if said.get("RewriteToken"):
                    return (self._call("CopyObject", {**(call.params or {}), "RewriteToken": said["RewriteToken"]}),)
                answer = said.get("CopyObjectResult") or {}
                if not answer.get("ETag"):
                    raise Retry(BackendError("the service did not say whether it copied the object"))
                self._done(str(answer["ETag"]), reply)
            case "GetObjectTagging":
                self._asked = False
                tags = parsed(call, reply, control).get("TagSet") or ()
                return (self._create({"Tagging": urlencode([(tag["Key"], tag["Value"]) for tag in tags])}),)
            case "CreateMultipartUpload":
                self._opened(call, reply, control)
                return self._parts()
            case "UploadPartCopy":
                assert call.params is not None
                etag = (parsed(call, reply, control).get("CopyPartResult") or {}).get("ETag")
                if not etag:
                    raise Retry(BackendError("the service did not name the part it copied"), ODD_ANSWERS)
                self._etags[call.params["PartNumber"]] = str(etag)
                if self.calls > 1:
                    return NO_CALLS
                parts = [{"PartNumber": number, "ETag": self._etags[number]} for number in sorted(self._etags)]
                params = {"UploadId": self._upload, "MultipartUpload": {"Parts": parts}}
                return (self._call("CompleteMultipartUpload", params),)
            case "CompleteMultipartUpload":
                self._done(str(parsed(call, reply, control).get("ETag") or ""), reply)
                self._upload = ""
        return NO_CALLS

    def _looked(self, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        headers = self._headers = reply.headers
        self.size = length_of(reply)
        if headers.get("etag"):
            self._match["CopySourceIfMatch"] = headers["etag"]
        largest = control.service.largest_copy or LARGEST_COPY
        if self.size > largest and not control.service.copies_whole:
            tagged = headers.get("x-amz-tagging-count", "0") != "0"
            if tagged and self.options.get("TaggingDirective") != "REPLACE":
                self._asked = True
                return (self._ask("GetObjectTagging", None),)
            return (self._create({}),)
        said = self._said(PLACED)
        same = self._source == (self.bucket, self.key) and not control.service.copies_whole
        if same and "MetadataDirective" not in self.options:
            # S3 refuses a copy onto itself unless something is said anew.
            said |= {"MetadataDirective": "REPLACE", "Metadata": metadata_of(headers), **self._said(DESCRIBED)}
        return (self._call("CopyObject", {"CopySource": self._copied, **self._match, **said}),)

    @property
    def _copied(self) -> dict[str, str]:
        return {"Bucket": self._source[0], "Key": self._source[1]}

    def _said(self, names: Mapping[str, str]) -> dict[str, Any]:
        """What the original says that the options do not, of these ``names`` and of its encryption, which is one."""
        own = self._source[0] == self.bucket or self._headers.get(ENCRYPTION) != LEAST
        if own and not any(name in self.options for name in (*ENCRYPTED.values(), "SSECustomerAlgorithm")):
            names = {**names, **ENCRYPTED}
        return {name: value for name, value in told(self._headers, names).items() if name not in self.options}

    def _create(self, tagging: Mapping[str, str]) -> Call:
        """Begin an upload of what the original says of itself. An upload keeps nothing by itself."""
        params = {**self._said(PLACED), **tagging}
        if self.options.get("MetadataDirective") != "REPLACE":
            params |= {**self._said(DESCRIBED), "Metadata": metadata_of(self._headers)}
        return self._call("CreateMultipartUpload", params)

    def _parts(self) -> Sequence[Call]:
        step = max(part_size(self.size), COPIED_PART if self.size < MOST_PARTS * COPIED_PART else 0)
        return [
            self._call(
                "UploadPartCopy",
                {
                    "CopySource": self._copied, **self._match, "PartNumber": number, "UploadId": self._upload,
                    "CopySourceRange": f"bytes={start}-{min(start + step, self.size) - 1}",
                },
            )
            for number, start in enumerate(range(0, self.size, step), 1)
        ]  # fmt: skip

    def _call(self, operation: str, params: Mapping[str, Any]) -> Call:
        # The service may take minutes to copy 5 GiB; it answers when it is done.
        return Call(
            operation, self.bucket, self.key, self.options, params, first_byte=300.0, stall=300.0, tag=Try(self)
        )

    def _done(self, etag: str, reply: Reply) -> None:
        self.outcome = self._outcome(size=self.size, etag=etag.strip('"') or None, headers=reply.headers)

    # ---- answers that were lost, or refuse -------------------------------------------------

    def rescued(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call] | None:
        if call.operation == "CompleteMultipartUpload" and reply.status == 404 and call.tag.attempts > 1:
            # An earlier try may have succeeded and its answer been lost: look whether what is there now is ours.
            lost = Try(self, control.problem(call, reply))
            return (Call("HeadObject", self.bucket, self.key, self.options, tag=lost),)
        if call.operation == "HeadObject" and call.tag.part is not None and reply.status == 404:
            raise call.tag.part
        return None

    def _recognised(self, call: Call, reply: Reply) -> Sequence[Call]:
        etag = etag_of(reply.headers)
        if etag is None or etag != self.etag_of_parts([self._etags[number] for number in sorted(self._etags)]):
            raise call.tag.part
        self._upload = ""
        self._done(etag, reply)
        return NO_CALLS

    def fail(self, error: MfstoreError) -> None:
        if isinstance(error, AccessDenied) and self._asked:
            error.hint = TAGS_HINT
        elif error.status in (400, 403) and "SSEKMSKeyId" in self._said({}):
            error.hint = KEY_HINT.format(key=self._headers[KMS_KEY], before=f"{error.hint}. " if error.hint else "")
        super().fail(error)
