"""Deleting, copying, listing and asking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from mfstore.errors import BackendError, MfstoreError
from mfstore.s3.aws.errors import copied
from mfstore.s3.calls import NO_OPTIONS, Call, Options, Reply
from mfstore.s3.transfers.jobs import NO_CALLS, Job, MultipartJob, Retry, Try, parsed
from mfstore.s3.transfers.outcomes import Outcome
from mfstore.s3.transfers.retry import retryable_code
from mfstore.s3.transfers.uploads import part_size

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane

DELETES = 1000
"""Keys per DeleteObjects: the API's limit."""
ABSENT = ("NoSuchKey", "NotFound")
"""What a condition on an object that is not there is answered with."""
LARGEST_COPY = 5 << 30
"""Longest object CopyObject takes; longer ones are copied in parts."""


class DeleteJob(Job):
    """Delete up to DELETES objects of one bucket. Absent ones count as deleted, as for S3. One with an etag in
    ``match`` is deleted if that still is its etag, else Conflict."""

    __slots__ = ("_items", "_left", "_match", "_out")

    def __init__(
        self, bucket: str, items: Sequence[tuple[int, Any, str]], options: Options = NO_OPTIONS,
        match: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(items[0][0], items[0][1], bucket, items[0][2], options)
        self._match = match or {}
        self._items = items
        self._left = list(dict.fromkeys(key for _, _, key in items))
        self._out: list[Outcome] = []

    def begin(self) -> Sequence[Call]:
        return (self._call(),)

    def _call(self) -> Call:
        objects = [{"Key": key, "ETag": self._match[key]} if key in self._match else {"Key": key} for key in self._left]
        params = {"Delete": {"Objects": objects, "Quiet": True}}
        return Call("DeleteObjects", self.bucket, None, self.options, params, tag=Try(self))

    def on_reply(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        answer = parsed(call, reply, control)
        if b"DeleteResult" not in (reply.data or b"")[:1024]:
            # Quiet answers name failures only: one that names nothing must at least be one.
            raise Retry(BackendError("the service did not say what it deleted"))
        errors = {str(entry.get("Key")): entry for entry in answer.get("Errors", ())}
        for key in [key for key in errors if key in self._match and errors[key].get("Code") in ABSENT]:
            del errors[key]
        if not errors.keys() <= set(self._left):
            stray = next(entry for key, entry in errors.items() if key not in self._left)
            raise control.error(Call("DeleteObjects", self.bucket), _entry_reply(reply, stray))
        again = [key for key in self._left if key in errors and retryable_code(errors[key].get("Code"))]
        if again and call.tag.bad < 5:
            self._settle(control, {key: entry for key, entry in errors.items() if key not in again}, set(again), reply)
            self._left = again
            call.tag.bad += 1
            raise Retry(BackendError(f"{len(again)} keys could not be deleted", found=errors[again[0]].get("Code")))
        self._settle(control, errors, set(), reply)
        self.outcome = self._out.pop()
        return NO_CALLS

    def again(self, call: Call, reply: Reply) -> Call:
        fresh = self._call()
        fresh.tag = call.tag
        return fresh

    def _settle(self, control: ControlPlane, errors: Mapping[str, Any], later: set[str], reply: Reply) -> None:
        left = set(self._left)
        for index, item, key in self._items:
            if key in later or key not in left:
                continue
            entry = errors.get(key)
            error = None
            if entry is not None:
                error = control.error(Call("DeleteObject", self.bucket, key), _entry_reply(reply, entry))
            self._out.append(
                Outcome(index, item, self.bucket, key, error=error, headers=reply.headers, attempts=self.attempts)
            )

    def take(self) -> Sequence[Outcome]:
        out, self._out = self._out, []
        return out

    def fail(self, error: MfstoreError) -> None:
        left = set(self._left)
        for index, item, key in self._items:
            if key in left:
                own = copied(error).where(key=key, backend=f"s3://{self.bucket}")
                self._out.append(Outcome(index, item, self.bucket, key, error=own, attempts=self.attempts))
        self.outcome = self._out.pop()


def _entry_reply(reply: Reply, entry: Mapping[str, Any]) -> Reply:
    """What one key's failure inside a DeleteObjects answer would have been as an answer of its own."""
    code, message = escape(str(entry.get("Code"))), escape(str(entry.get("Message")))
    status = {"AccessDenied": 403, "NoSuchVersion": 404, "MethodNotAllowed": 405, "PreconditionFailed": 412}.get(
        code, 500
    )
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Reply(reply.call, status=status, headers=reply.headers, data=body.encode())


class AskJob(Job):
    """Ask something about a bucket; the outcome's ``data`` is the answer, by botocore's names."""

    __slots__ = ()

    def begin(self) -> Sequence[Call]:
        return (Call(self.key, self.bucket, None, self.options, tag=Try(self)),)

    def on_reply(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        self.outcome = self._outcome(data=control.parse(call, reply), headers=reply.headers)
        return NO_CALLS


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


class ListJob(Job):
    """List the objects under a prefix, page by page; each page is an outcome whose ``data`` is control's page."""

    __slots__ = ("_delimiter", "_out", "_page", "_seen", "_start_after", "_token", "pages")

    def __init__(
        self, index: int, item: Any, bucket: str, prefix: str, options: Options = NO_OPTIONS, *,
        delimiter: str | None = None,
        start_after: str | None = None, page: int = 1000,
    ) -> None:  # fmt: skip
        super().__init__(index, item, bucket, prefix, options)
        self._delimiter = delimiter
        self._start_after = start_after
        self._page = page
        self.pages = 0
        self._token: str | None = None
        self._seen: set[str] = set()
        self._out: list[Outcome] = []

    def begin(self) -> Sequence[Call]:
        params: dict[str, Any] = {"Prefix": self.key, "MaxKeys": self._page}
        if self._delimiter is not None:
            params["Delimiter"] = self._delimiter
        if self._start_after is not None:
            params["StartAfter"] = self._start_after
        if self._token is not None:
            params["ContinuationToken"] = self._token
        return (Call("ListObjectsV2", self.bucket, None, self.options, params, tag=Try(self)),)

    def on_reply(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        try:
            page = control.page(call, reply)
        except MfstoreError as error:
            raise Retry(error) from None
        outcome = self._outcome(data=page, size=len(page.objects), headers=reply.headers)
        if page.next_token is None:
            self.outcome = outcome
            return NO_CALLS
        if page.next_token in self._seen:
            raise BackendError("the service's listing goes round in circles", found=page.next_token[:80])
        self._seen.add(page.next_token)
        self._token = page.next_token
        outcome.last = False
        self.pages = page.memory
        self._out.append(outcome)
        return self.begin()

    def take(self) -> Sequence[Outcome]:
        out, self._out = self._out, []
        return out
