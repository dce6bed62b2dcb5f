"""Putting one object: in one request or in parts, checked on arrival, nothing left over on failure."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from io import FileIO
from typing import TYPE_CHECKING, Any

from mfstore._core import crc
from mfstore.errors import BackendError, Conflict, InvalidRange, MfstoreError, NotFound, Unsupported
from mfstore.s3.aws.errors import said
from mfstore.s3.calls import DISK, NO_OPTIONS, Call, FileRange, Options, Reply
from mfstore.s3.service import S3, Service, service_of
from mfstore.s3.transfers.jobs import (
    NO_CALLS,
    ODD_ANSWERS,
    Job,
    MultipartJob,
    Restart,
    Retry,
    Try,
    etag_of,
    parsed,
    renewed,
)
from mfstore.s3.transfers.outcomes import Outcome

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.s3.aws.interface import ControlPlane

LONGEST_SINGLE_PUT = 32 << 20
"""Longest body sent in one request. A part costs as much as an object (12 times a GET), so few and large ones."""
LONGEST_ELSEWHERE = 64 << 20
"""The same in Azure and Google Cloud, where an upload in parts takes two requests more than its parts: 64 MiB to
Azurite take 0.94 of the CPU that obstore takes, and took 1.48 in four parts (`python -m benchmarks.clouds azure`)."""
READ_WHOLE = 64 << 10
"""Files that say to have at most so many bytes are read when their turn comes, to their end, whatever they said."""
LONGEST_COPIED = 1 << 20
"""Longest file of which one request of a service is made that describes the object in the same body: it is read into
memory for that."""
PART_BYTES = 16 << 20
ORDERED_PART = 64 << 20
"""Bytes per part where one follows the other: between two of them a request is waited for, which costs 50 ms of a
line that brings 64 MiB in half a second. A multiple of 256 KiB, which Google wants."""
MOST_PARTS = 10_000
LARGEST_PART = 5 << 30
LARGEST_OBJECT = MOST_PARTS * LARGEST_PART
"""Amazon S3 User Guide, "Amazon S3 multipart upload limits"."""
KEPT = "x-mfstore-kept"
"""In the words of S3, how many bytes of an upload the service has whose parts follow one another."""
ABSENT = ("NoSuchKey", "NoSuchBucket")
"""Codes of a 404 that is no loss of the upload: what it was to replace, or where it was to go, is not there."""
WRITE_ID = "mfstore-write"
"""Metadata that tells our own conditional write from somebody else's when a response was lost."""


def longest_single_put(service: Service) -> int:
    """Bytes of the longest body that a service is sent in one request."""
    return LONGEST_SINGLE_PUT if service is S3 else LONGEST_ELSEWHERE


def part_size(size: int) -> int:
    """Bytes per part of an object of ``size`` bytes: 16 MiB up to 1 GiB, then 32, 64, …: never more than MOST_PARTS
    parts. InvalidRange when there is no such size."""
    if size > LARGEST_OBJECT:
        raise InvalidRange("the object is larger than S3 takes", expected=f"at most {LARGEST_OBJECT} bytes", found=size)
    part = PART_BYTES if size <= 1 << 30 else 2 * PART_BYTES
    while part * MOST_PARTS < size:
        part *= 2
    return min(part, LARGEST_PART)


def slice_parts(parts: Sequence[memoryview], start: int, stop: int) -> list[memoryview]:
    """Bytes ``start`` to ``stop`` of ``parts`` joined, without copying them."""
    found, at = [], 0
    for part in parts:
        end = at + len(part)
        if end > start and at < stop:
            found.append(part[max(start - at, 0) : stop - at])
        at = end
    return found


class UploadSource:
    """What to send: buffers in a row, or a file. A file is opened when its upload begins and closed with it."""

    __slots__ = ("_file", "_parts", "_path", "size")

    def __init__(self, parts: Sequence[Buffer] | None, path: str | None) -> None:
        self._path = path
        # A file object, which closes itself when Ctrl-C comes between its opening and whoever would close it.
        self._file: FileIO | None = None
        self._parts: list[memoryview] = []
        self.size = 0
        if parts is not None:
            self._parts = [view.cast("B") for part in parts if (view := memoryview(part)).nbytes]
            self.size = sum([len(part) for part in self._parts])

    def open(self) -> None:
        """Find out the size of a file. NotFound or BackendError naming it, Unsupported for what is no regular file."""
        if self._path is None or self._file is not None:
            return
        try:
            # Before it is opened: opening a FIFO waits for its writer.
            mode = os.stat(self._path).st_mode  # noqa: PTH116
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(mode):
                raise Unsupported(
                    "no regular file: what it holds is known only when it has been read", found=self._path,
                    hint="Nothing was sent: put what you read from it, or write that to S3.open_write()",
                )  # fmt: skip
            self._file = FileIO(self._path)
            self.size = os.fstat(self._file.fileno()).st_size
            if self.size <= READ_WHOLE:
                self._parts, self.size = self._read(self._file)
                self.close()
        except FileNotFoundError:
            raise NotFound("no such local file", found=self._path, hint="Nothing was sent: check the path") from None
        except (OSError, ValueError) as error:  # of a path that has a zero byte in it, the latter
            self.close()
            if isinstance(error, MfstoreError):
                raise
            raise self._unreadable(getattr(error, "strerror", None) or str(error)) from error

    def _read(self, file: FileIO) -> tuple[list[memoryview], int]:
        """All that a short file holds, and its length: those of /proc and /sys are longer or shorter than they say."""
        blocks = list(iter(partial(file.read, READ_WHOLE), b""))
        if any(block is None for block in blocks):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return [memoryview(block) for block in blocks], sum([len(block) for block in blocks])

    @property
    def in_file(self) -> bool:
        """Whether it is a file that is read while it is sent."""
        return self._file is not None

    def checksum(self, algorithm: str, start: int, stop: int) -> int:
        """That of some of its bytes."""
        value = 0
        if self._file is None:
            for part in slice_parts(self._parts, start, stop):
                value = crc.update(algorithm, part, value)
            return value
        while start < stop:
            block = os.pread(self._file.fileno(), min(stop - start, 1 << 20), start)
            if not block:
                raise self._unreadable("it is shorter than it was")
            value = crc.update(algorithm, block, value)
            start += len(block)
        return value

    def body(self, start: int, stop: int) -> Sequence[memoryview] | FileRange:
        """Its bytes ``start`` to ``stop``, for a call."""
        if self._file is not None:
            return FileRange(self._file.fileno(), start, stop - start)
        return self._parts if stop - start == self.size else slice_parts(self._parts, start, stop)

    def check(self, stored: str) -> None:
        """BackendError naming the file when it is not as long any more as what was sent. ``stored``: what is there of
        it."""
        if self._file is None:
            return
        now = os.fstat(self._file.fileno()).st_size
        if now != self.size:
            raise BackendError(
                "the local file changed its length while it was sent", expected=f"{self.size} bytes in {self._path}",
                found=f"{now} bytes", hint=f"{stored}. Put it again when it is complete",
            )  # fmt: skip

    def refused(self, reply: Reply) -> BackendError | None:
        """Of a call that failed because the file could not be read: the error that names it."""
        if self._file is None or reply.failure != DISK:
            return None
        return self._unreadable(os.strerror(reply.errno) if reply.errno else "it is shorter than it was")

    def _unreadable(self, why: str | None) -> BackendError:
        return BackendError(
            f"cannot read the local file: {why}", found=self._path, hint="Nothing was stored: check the file"
        )

    def close(self) -> None:
        """Close the file, if it is one."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # of a file that was only read nothing is lost
                file.close()


class PutJob(MultipartJob):
    """Store one object. ``if_none_match``: only if there is none; ``if_match``: only over that ETag.

    A conditional write carries a write id, so that a lost answer followed by "precondition failed" is told from a
    conflict.

    Where the service takes the parts of an upload one after the other, the last one makes the object. A part whose
    answer does not come is followed by the question how far the upload is, from where it goes on; an upload that the
    service has lost is begun anew.
    """

    __slots__ = (
        "_before",
        "_checksum",
        "_etags",
        "_id",
        "_match",
        "_metadata",
        "_new",
        "_part",
        "_source",
        "_whole",
    )

    def __init__(
        self, index: int, item: Any, bucket: str, key: str, options: Options = NO_OPTIONS, *, source: UploadSource,
        metadata: Mapping[str, str] | None = None, if_none_match: bool = False, if_match: str | None = None,
        checksum: str | None = "CRC64NVME",
    ) -> None:  # fmt: skip
        super().__init__(index, item, bucket, key, options)
        self._source = source
        self.weight = source.size
        self._new = if_none_match
        self._match = if_match
        self._id = uuid.uuid4().hex if if_none_match or if_match is not None else ""
        self._metadata = {**(metadata or {}), WRITE_ID: self._id} if self._id else metadata
        self._checksum = checksum
        self._part = 0
        self._etags: dict[int, tuple[str, int | None]] = {}
        self._whole = False
        self._before = 0, 0
        """Of an upload in order: how many bytes of it the service has, and their checksum."""

    def begin(self) -> Sequence[Call]:
        self._source.open()
        size = self._source.size
        # Most is short, and goes in one request everywhere: whose it is need not be looked up.
        if size <= min(LONGEST_COPIED, LONGEST_SINGLE_PUT) or self._in_one(size):
            return (
                Call(
                    "PutObject", self.bucket, self.key, self.options, if_match=self._match, if_none_match=self._new,
                    metadata=self._metadata, body=self._source.body(0, size), checksum=self._checksum, tag=Try(self),
                ),
            )  # fmt: skip
        self._part = part_size(size)
        params: dict[str, Any] = {}
        if self._metadata:
            params["Metadata"] = dict(self._metadata)
        if self._checksum is not None:
            params["ChecksumAlgorithm"] = self._checksum
            params["ChecksumType"] = "FULL_OBJECT"
        call = Call("CreateMultipartUpload", self.bucket, self.key, self.options, params, tag=Try(self))
        if service_of(self.bucket).ordered_parts:
            self._part = max(self._part, ORDERED_PART)
            call.if_match, call.if_none_match = self._match, self._new
        return (call,)

    def _in_one(self, size: int) -> bool:
        """Whether so many bytes go in one request."""
        service = service_of(self.bucket)
        if service.ordered_parts and self._source.in_file and size > LONGEST_COPIED:
            return False
        return size <= longest_single_put(service)

    def on_reply(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        match call.operation:
            case "PutObject":
                if "etag" not in reply.headers and (reply.data or b"").strip():
                    raise Retry(BackendError("the answer is not what S3 sends"), ODD_ANSWERS)
                self._sent()
                self.outcome = self._outcome(size=self._source.size, etag=etag_of(reply.headers), headers=reply.headers)
            case "CreateMultipartUpload":
                self._opened(call, reply, control)
                if control.service.ordered_parts:
                    return (self._next(),)
                # Services that do not know checksums of whole multipart objects would take ours for something else.
                self._whole = reply.headers.get("x-amz-checksum-type") == "FULL_OBJECT"
                size = self._source.size
                return [self._send(number, start) for number, start in enumerate(range(0, size, self._part), 1)]
            case "UploadPart":
                return (self._in_order if control.service.ordered_parts else self._part_done)(call, reply)
            case "CompleteMultipartUpload":
                return self._completed(call, reply, control)
            case "HeadObject":
                return self._recognised(call, reply)
        return NO_CALLS

    def _send(self, number: int, start: int) -> Call:
        stop = min(start + self._part, self._source.size)
        return Call(
            "UploadPart", self.bucket, self.key, self.options, body=self._source.body(start, stop), part=number,
            upload=self._upload, checksum=self._checksum, tag=Try(self),
        )  # fmt: skip

    def _part_done(self, call: Call, reply: Reply) -> Sequence[Call]:
        etag = reply.headers.get("etag")
        if not etag:
            raise Retry(BackendError("the service did not name the part it stored"))
        self._etags[call.part] = etag, reply.checksum[1] if reply.checksum else None
        if len(self._etags) * self._part < self._source.size:
            return NO_CALLS
        self._source.check("Nothing was stored")
        return (self._complete(),)

    # ---- parts one after the other --------------------------------------------------------

    def _next(self, tag: Try | None = None) -> Call:
        """The part that follows what the service has."""
        offset, before = self._before
        stop = min(offset + self._part, self._source.size)
        params = {"Offset": offset, "Length": stop - offset, "Before": before}
        if stop == self._source.size:
            self._source.check("Nothing was stored")
            params["Total"] = stop
        # Not to be sent twice unasked: "if_none_match" is what tells the engine, and no condition of a part.
        return Call(
            "UploadPart", self.bucket, self.key, self.options, params, body=self._source.body(offset, stop),
            upload=self._upload, checksum=self._checksum, if_none_match=True, tag=tag or Try(self),
        )  # fmt: skip

    def again(self, call: Call, reply: Reply) -> Call:
        if call.operation != "UploadPart" or "Offset" not in (call.params or {}):
            return renewed(call)
        return renewed(call, params={"Total": self._source.size}, body=(), checksum=None)

    def _in_order(self, call: Call, reply: Reply) -> Sequence[Call]:
        """A part has come, or the answer to how much has."""
        etag = etag_of(reply.headers)
        if etag is not None:
            self._upload = ""
            self._check_whole(reply)
            self._sent()
            return self._stored(etag, reply)
        there = reply.headers.get(KEPT, "")
        kept, (offset, before) = int(there) if there.isdecimal() else -1, self._before
        if not offset <= kept < self._source.size:
            raise Restart(BackendError("the service lost what was sent of the upload", expected=offset, found=there))
        if kept == offset:
            if "Offset" in (call.params or {}):
                raise Retry(BackendError("the service took nothing of what was sent"))
            return (self._next(call.tag),)  # one of its tries
        whole = reply.checksum is not None and kept == offset + (call.params or {}).get("Length", 0)
        if self._checksum is not None:
            value = reply.checksum[1] if whole and reply.checksum else None
            if value is None:
                value = self._source.checksum(self._checksum, offset, kept)
            before = crc.combine(self._checksum, before, value, kept - offset)
        self._before = kept, before
        return (self._next(),)

    def _check_whole(self, reply: Reply) -> None:
        """BackendError where what was made is not what was sent: for services that do not look at what the last part
        says of all."""
        told = reply.headers.get(f"x-amz-checksum-{self._checksum.lower()}") if self._checksum else None
        if self._checksum is None or not told:
            return
        (offset, before), size = self._before, self._source.size
        last = reply.checksum[1] if reply.checksum else self._source.checksum(self._checksum, offset, size)
        expected = crc.encode(self._checksum, crc.combine(self._checksum, before, last, size - offset))
        if told != expected:
            raise BackendError(
                "the object that was made is not what was sent", expected=expected, found=told,
                hint="Put it again, or delete it",
            )  # fmt: skip

    def forget(self) -> None:
        self._upload, self._before = "", (0, 0)
        self._etags.clear()

    # ---- an object of parts -----------------------------------------------------------------

    def _length(self, number: int) -> int:
        """Bytes of a part."""
        return min(self._part, self._source.size - (number - 1) * self._part)

    def _complete(self) -> Call:
        """Make an object of the parts."""
        parts, total = [], 0
        for number in sorted(self._etags):
            etag, value = self._etags[number]
            part = {"PartNumber": number, "ETag": etag}
            if self._checksum is not None and value is not None:
                total = crc.combine(self._checksum, total, value, self._length(number))
                part[f"Checksum{self._checksum}"] = crc.encode(self._checksum, value)
            parts.append(part)
        params: dict[str, Any] = {"UploadId": self._upload, "MultipartUpload": {"Parts": parts}}
        if self._whole and self._checksum is not None and all(value is not None for _, value in self._etags.values()):
            params[f"Checksum{self._checksum}"] = crc.encode(self._checksum, total)
            params["ChecksumType"] = "FULL_OBJECT"
        return Call(
            "CompleteMultipartUpload", self.bucket, self.key, self.options, params, if_match=self._match,
            if_none_match=self._new, first_byte=300.0, tag=Try(self),
        )  # fmt: skip

    def _completed(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        # Anything else than its result says nothing: the service answered before it knew, or it was not the service. If
        # it had completed, the next try learns that the upload is gone, and looks.
        answer = parsed(call, reply, control)
        self._source.close()
        self._upload = ""
        etag = str(answer.get("ETag") or "").strip('"') or None
        if etag or call.tag.attempts == 1:
            # Some versions of Ceph never name the object: that is not worth a request.
            return self._stored(etag, reply)
        # It had been completed before, and the answer was lost: newer versions say no more of it than that.
        return (Call("HeadObject", self.bucket, self.key, self.options, tag=Try(self)),)

    def _sent(self) -> None:
        """Nothing more has to be sent. BackendError when the file is not as long any more as what was."""
        self._source.check(f"What is stored are {self._source.size} bytes")
        self._source.close()

    # ---- answers that were lost ---------------------------------------------------------

    def rescued(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call] | None:
        if unreadable := self._source.refused(reply):
            raise unreadable
        lost = call.tag.attempts > 1 or self.restarts > 0
        conditional = reply.status in (404, 409, 412) and self._id
        if call.operation == "PutObject" and conditional and lost:
            return (self._look(call, reply, control),)
        if control.service.ordered_parts and call.operation in ("CreateMultipartUpload", "UploadPart"):
            if reply.status == 412 and self._id and lost:
                return (self._look(call, reply, control),)
            if call.operation == "UploadPart" and reply.status in (404, 410) and said(reply).code not in ABSENT:
                raise Restart(control.problem(call, reply))
        if call.operation == "CompleteMultipartUpload":
            if lost and (conditional or (reply.status == 404 and not control.service.drops_parts)):
                return (self._look(call, reply, control),)
            if reply.status == 404 and control.service.drops_parts:
                raise Restart(control.problem(call, reply))
        if call.operation == "HeadObject" and call.tag.part is None:
            return self._stored(None, reply)
        if call.operation == "HeadObject" and reply.status == 404:
            raise call.tag.part
        return None  # a look that fails in another way says nothing: it is repeated, or its error is the answer

    def _look(self, call: Call, reply: Reply, control: ControlPlane) -> Call:
        """An earlier try may have succeeded and its answer been lost: look whether what is there now is ours."""
        return Call("HeadObject", self.bucket, self.key, self.options, tag=Try(self, control.problem(call, reply)))

    def _recognised(self, call: Call, reply: Reply) -> Sequence[Call]:
        etag = etag_of(reply.headers)
        if self._id:
            ours = reply.headers.get(f"x-amz-meta-{WRITE_ID}") == self._id
        else:
            ours = etag is not None and etag == self.etag_of_parts(
                [self._etags[number][0] for number in sorted(self._etags)]
            )
        if not ours:
            if call.tag.part is not None:
                raise call.tag.part
            etag = None  # it has been replaced since
        self._upload = ""
        self._sent()
        return self._stored(etag, reply)

    def _stored(self, etag: str | None, reply: Reply) -> Sequence[Call]:
        self.outcome = self._outcome(size=self._source.size, etag=etag, headers=reply.headers)
        return NO_CALLS

    # ---- failure ------------------------------------------------------------------------

    def abandon(self) -> None:
        self._source.close()

    def fail(self, error: MfstoreError) -> None:
        if isinstance(error, Conflict):
            error.where(hint="Somebody else wrote it first: read it again")
        elif isinstance(error, BackendError) and (error.status is None or not 300 <= error.status < 500):
            # An answer that never came says nothing about what happened.
            error.where(hint="Whether it was stored is unknown; putting it again is safe")
        super().fail(error)


class SingleCallJob(Job):
    """One call; its outcome's ``data`` is the reply, or of an operation with XML what it says."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        super().__init__(0, call.key, call.bucket, call.key or "", call.options)
        self._call = call

    def begin(self) -> Sequence[Call]:
        self._call.tag = Try(self)
        return (self._call,)

    def on_reply(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        if call.operation == "UploadPart":
            if not reply.headers.get("etag"):
                raise Retry(BackendError("the service did not name the part it stored"))
            data: Any = reply
        elif call.operation == "CreateMultipartUpload":
            data = parsed(call, reply, control)
            if not data.get("UploadId"):
                raise Retry(BackendError("the service did not name the upload it began"), ODD_ANSWERS)
        else:
            data = control.parse(call, reply)
        self.outcome = self._outcome(data=data, headers=reply.headers)
        return NO_CALLS


class StreamedPutJob(PutJob):
    """An upload whose parts are jobs of their own, sent while the object is written: ``create``, each ``part``, then
    this job, which ends it. ``new``: only if there is no such object. What it knows of lost answers is PutJob's."""

    def __init__(
        self, item: str, bucket: str, key: str, options: Options, metadata: Mapping[str, str] | None, new: bool
    ) -> None:
        super().__init__(
            0, item, bucket, key, options, source=UploadSource([], None), metadata=metadata, if_none_match=new,
            checksum="CRC64NVME",
        )  # fmt: skip
        self._sizes: dict[int, int] = {}

    def create(self) -> Job:
        """The job that begins the upload."""
        params: dict[str, Any] = {"ChecksumAlgorithm": self._checksum, "ChecksumType": "FULL_OBJECT"}
        if self._metadata:
            params["Metadata"] = dict(self._metadata)
        return SingleCallJob(Call("CreateMultipartUpload", self.bucket, self.key, self.options, params))

    def begin_upload(self, outcome: Outcome) -> None:
        """What S3 said to that."""
        self._upload = outcome.data["UploadId"]
        self._whole = outcome.headers.get("x-amz-checksum-type") == "FULL_OBJECT"

    def _length(self, number: int) -> int:
        return self._sizes[number]

    def part(self, number: int, body: Sequence[Buffer]) -> Job:
        """The job that sends a part."""
        self._sizes[number] = sum(memoryview(piece).nbytes for piece in body)
        return SingleCallJob(
            Call(
                "UploadPart", self.bucket, self.key, self.options, body=body, part=number, upload=self._upload,
                checksum=self._checksum,
            )
        )  # fmt: skip

    def copied(self, number: int, start: int, stop: int, etag: str) -> Job:
        """The job by which a part is made, inside the service, of bytes of the object that is there."""
        self._sizes[number] = stop - start
        source = {"Bucket": self.bucket, "Key": self.key}
        params = {
            "CopySource": source, "CopySourceIfMatch": etag, "CopySourceRange": f"bytes={start}-{stop - 1}",
            "PartNumber": number, "UploadId": self._upload,
        }  # fmt: skip
        return SingleCallJob(
            Call("UploadPartCopy", self.bucket, self.key, self.options, params, first_byte=300.0, stall=300.0)
        )

    def add_copied(self, number: int, outcome: Outcome) -> None:
        """A part was made so."""
        etag = (outcome.data.get("CopyPartResult") or {}).get("ETag")
        if not etag:
            raise BackendError("the service did not name the part it copied", key=self.key)
        self._etags[number] = str(etag), None
        self._source.size += self._sizes[number]

    def add(self, outcome: Outcome) -> None:
        """A part was sent."""
        reply: Reply = outcome.data
        self._etags[reply.call.part] = reply.headers.get("etag", ""), reply.checksum[1] if reply.checksum else None
        self._source.size += self._sizes[reply.call.part]

    def begin(self) -> Sequence[Call]:
        return (self._complete(),)
