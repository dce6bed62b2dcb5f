"""Copying an object inside the service: in one request or in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mfstore.errors import BackendError
from mfstore.s3.calls import NO_OPTIONS, Call, Options, Reply
from mfstore.s3.transfers.jobs import NO_CALLS, MultipartJob, Retry, Try, parsed
from mfstore.s3.transfers.uploads import part_size

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane

LARGEST_COPY = 5 << 30
"""Longest object CopyObject takes; longer ones are copied in parts."""


class CopyJob(MultipartJob):
    """Copy an object inside the service. One request, or, beyond LARGEST_COPY, parts in parallel."""

    __slots__ = ("_etags", "_match", "_source", "size")

    def __init__(
        self, index: int, item: Any, source: tuple[str, str], bucket: str, key: str, options: Options = NO_OPTIONS
    ) -> None:
        super().__init__(index, item, bucket, key, options)
        self._source = source
        self._etags: dict[int, str] = {}
        self._match: dict[str, str] = {}
        self.size = 0

    def begin(self) -> Sequence[Call]:
        # The size decides how to copy, and tells a missing source from a missing destination bucket.
        return (Call("HeadObject", self._source[0], self._source[1], self.options, tag=Try(self)),)

    def on_reply(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        source = {"Bucket": self._source[0], "Key": self._source[1]}
        match call.operation:
            case "HeadObject":
                self.size = int(reply.headers.get("content-length") or 0)
                if reply.headers.get("etag"):
                    self._match["CopySourceIfMatch"] = reply.headers["etag"]
                if self.size <= LARGEST_COPY:
                    return (self._call("CopyObject", {"CopySource": source, **self._match}),)
                start = {
                    "Metadata": {
                        name[11:]: value for name, value in reply.headers.items() if name.startswith("x-amz-meta-")
                    }
                }
                if reply.headers.get("content-type"):
                    start["ContentType"] = reply.headers["content-type"]  # type: ignore[assignment]
                return (self._call("CreateMultipartUpload", start),)
            case "CopyObject":
                answer = parsed(call, reply, control).get("CopyObjectResult") or {}
                if not answer.get("ETag"):
                    raise Retry(BackendError("the service did not say whether it copied the object"))
                self._done(str(answer["ETag"]), reply)
            case "CreateMultipartUpload":
                self._upload = parsed(call, reply, control)["UploadId"]
                step = max(part_size(self.size), 1 << 30 if self.size < 10_000 << 30 else 0)
                return [
                    self._call(
                        "UploadPartCopy",
                        {
                            "CopySource": source, **self._match, "PartNumber": number, "UploadId": self._upload,
                            "CopySourceRange": f"bytes={start}-{min(start + step, self.size) - 1}",
                        },
                    )
                    for number, start in enumerate(range(0, self.size, step), 1)
                ]  # fmt: skip
            case "UploadPartCopy":
                assert call.params is not None
                answer = parsed(call, reply, control).get("CopyPartResult") or {}
                self._etags[call.params["PartNumber"]] = str(answer.get("ETag"))
                if self.calls > 1:
                    return NO_CALLS
                parts = [{"PartNumber": number, "ETag": self._etags[number]} for number in sorted(self._etags)]
                return (
                    self._call(
                        "CompleteMultipartUpload", {"UploadId": self._upload, "MultipartUpload": {"Parts": parts}}
                    ),
                )
            case "CompleteMultipartUpload":
                self._done(str(parsed(call, reply, control).get("ETag") or ""), reply)
                self._upload = ""
        return NO_CALLS

    def _call(self, operation: str, params: Mapping[str, Any]) -> Call:
        # The service may take minutes to copy 5 GiB; it answers when it is done.
        return Call(
            operation, self.bucket, self.key, self.options, params, first_byte=300.0, stall=300.0, tag=Try(self)
        )

    def _done(self, etag: str, reply: Reply) -> None:
        self.outcome = self._outcome(size=self.size, etag=etag.strip('"') or None, headers=reply.headers)
