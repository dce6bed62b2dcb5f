"""One item of a bulk operation as a state machine: which calls it needs, what their replies mean. No network here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from mfstore.errors import BackendError, InvalidKey, MfstoreError
from mfstore.s3.aws.errors import ENDPOINT_HINT, retryable_code
from mfstore.s3.calls import NO_OPTIONS, Call, Options, Plain, Reply
from mfstore.s3.transfers.outcomes import Outcome
from mfstore.s3.urls import bucket_url, is_url, scheme_of, split_url

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane
    from mfstore.s3.aws.routes import Credentials

NO_CALLS: tuple[Call, ...] = ()
ODD_ANSWERS = 3
"""After so many answers that are not S3's, another will not be: what sends them is no accident of the network."""


class Retry(Exception):
    """A job's answer to a reply that is well-formed and wrong: ask again. ``error`` is raised when tries run out, or
    when ``tries`` were answered like this."""

    def __init__(self, error: MfstoreError, tries: int | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.tries = tries


class Restart(Exception):
    """The whole job has to begin anew: what it gathered belongs to another version, or is damaged. ``error`` is
    raised when it restarted too often."""

    def __init__(self, error: MfstoreError) -> None:
        super().__init__(str(error))
        self.error = error


class Try:
    """What the scheduler remembers about a call from one try to the next: ``Call.tag``."""

    __slots__ = (
        "attempts",
        "bad",
        "credentials",
        "drips",
        "flows",
        "free",
        "hedge",
        "job",
        "moved",
        "odd",
        "part",
        "refreshed",
        "sent",
        "skewed",
        "started",
        "wrong",
    )

    def __init__(self, job: Job, part: Any = None) -> None:
        self.job = job
        self.part = part
        self.attempts = 0
        self.started = 0.0
        """When the first try was sent."""
        self.sent = 0.0
        """When this one was."""
        self.flows = 0.0
        """Of a long body: since when it may come; 0.0 when it waits to be told where it goes."""
        self.free = self.refreshed = self.skewed = False
        self.moved = 0
        self.bad = 0
        self.drips = 0
        self.odd = 0
        """How often the answer was one to ask again for (``Retry``)."""
        self.hedge: Call | None = None
        self.wrong: Retry | None = None
        self.credentials: Credentials | None = None


class Job:
    """One item. The scheduler calls ``begin`` once, ``on_reply`` for every good reply (and ``announced`` for announced
    ones), and after a failure ``cleanup``; the job is over when ``outcome`` is set and none of its calls is in
    flight."""

    pages = 0
    """Of a listing: bytes its next page may take."""
    several = False
    """Whether it has outcomes to ``take`` besides the last."""

    __slots__ = (
        "attempts",
        "bucket",
        "calls",
        "error",
        "first_byte",
        "index",
        "item",
        "key",
        "options",
        "outcome",
        "restarting",
        "restarts",
        "started",
        "weight",
    )

    def __init__(self, index: int, item: Any, bucket: str, key: str, options: Options = NO_OPTIONS) -> None:
        self.index = index
        self.item = item
        self.bucket = bucket
        self.key = key
        self.options = options
        self.weight = 0
        """Bytes of memory reserved for it."""
        self.calls = 0
        """How many of its calls are waiting or in flight."""
        self.error: MfstoreError | None = None
        self.outcome: Outcome | None = None
        self.attempts = 0
        self.restarts = 0
        self.restarting = False
        """It failed, and begins anew when the last of its calls is over."""
        self.started = 0.0
        self.first_byte = 0.0

    @property
    def has_place(self) -> bool:
        """Whether the memory or the file is there in which its result comes to lie, or it needs none."""
        return True

    def begin(self) -> Sequence[Call]:
        """The first calls."""
        raise NotImplementedError

    def on_reply(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        """A good reply: further calls. Raises ``Retry`` to have the call repeated, MfstoreError to fail."""
        raise NotImplementedError

    def again(self, call: Call, reply: Reply) -> Call:
        """The call to make after a try failed; a fresh object."""
        return renewed(call)

    def rescued(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call] | None:
        """A reply that is an error in general: further calls if it is none for this job, else None."""
        return None

    def cleanup(self) -> Sequence[Call]:
        """After ``error`` was set and no call is in flight: calls that undo what was begun. Their replies do not
        matter."""
        return NO_CALLS

    def forget(self) -> None:
        """Before a restart, when none of its calls is in flight: drop what was gathered."""

    def abandon(self) -> None:
        """The operation ends before the job does: let go of files."""

    def take(self) -> Sequence[Outcome]:
        """Outcomes to hand out before the last, ``outcome``. Asked only where there are ``several``."""
        return ()

    def fail(self, error: MfstoreError) -> None:
        """End with a failure."""
        self.abandon()
        error.where(key=self.key, backend=bucket_url(self.bucket))
        self.outcome = self._outcome(error=error)

    def _outcome(self, **fields: Any) -> Outcome:
        return Outcome(
            self.index, self.item, self.bucket, self.key, attempts=self.attempts, first_byte=self.first_byte,
            seconds=monotonic() - self.started if self.started else 0.0, **fields,
        )  # fmt: skip


class RefusedJob(Job):
    """Of an item that names no object, or cannot be sent: fails without a call, in its turn."""

    __slots__ = ("_reason",)

    def __init__(self, index: int, item: Any, reason: MfstoreError) -> None:
        super().__init__(index, item, "", item if isinstance(item, str) else f"{item!r:.80}")
        self._reason = reason

    def begin(self) -> Sequence[Call]:
        raise self._reason

    def fail(self, error: MfstoreError) -> None:
        self.outcome = self._outcome(error=error.where(key=self.key))


def job_of(index: int, item: Any, make: Callable[[int, Any], Job]) -> Job:
    """The job of an item; of one that names nothing, or of which none can be made, one that fails."""
    try:
        return make(index, item)
    except Exception as error:
        return RefusedJob(index, _name_in(item), unforeseen(error))


def jobs_of(items: Iterable[Any], make: Callable[[int, Any], Job]) -> Iterator[Job]:
    """A job for each item, as ``job_of`` makes them."""
    for index, item in enumerate(items):
        yield job_of(index, item, make)


class PlainJobs(Iterator[Job]):
    """As ``jobs_of``, of items of which most are ``plain`` requests: an engine that can makes these without their jobs,
    as long as all goes well."""

    __slots__ = ("_make", "_plain", "items", "left")

    def __init__(self, plain: Plain, items: Iterable[Any], make: Callable[[int, Any], Job]) -> None:
        self._plain = plain
        self.items = enumerate(items)
        self.left: tuple[int, Any] | None = None
        """Taken from ``items`` and not begun: the next."""
        self._make = make

    def __next__(self) -> Job:
        left, self.left = self.left, None
        return self.job(*(left if left is not None else next(self.items)))

    @property
    def operation(self) -> str:
        """What its plain requests ask for."""
        return self._plain.operation

    @property
    def sends(self) -> bool:
        """Whether its plain requests send what the items are."""
        return self._plain.operation == "PutObject"

    def shared(self) -> Plain | None:
        """What plain items share; None where the first names no bucket, and nobody else does."""
        known = self._plain.bucket
        if known is not None:
            return self._plain if known and known.isascii() else None
        if self.left is None:
            self.left = next(self.items, None)
        item = self.left[1] if self.left is not None else None
        text = item[0] if isinstance(item, tuple) and item else item
        if not isinstance(text, str) or not is_url(text, None) or not text.isascii():
            return None
        try:
            bucket, _ = split_url(text)
        except InvalidKey:
            return None
        return replace(self._plain, bucket=bucket, bare=False)

    def job(self, index: int, item: Any) -> Job:
        """The job of an item."""
        return job_of(index, item, self._make)


def _name_in(item: Any) -> Any:
    """What an item that was refused is called by: its key, as of one that was not."""
    if isinstance(item, (tuple, list)) and item and isinstance(item[0], str):
        return item[0] if len(item) == 2 else item
    return getattr(item, "key", item)


def unforeseen(error: Exception) -> MfstoreError:
    """What one item's exception of any class is in its outcome."""
    if isinstance(error, MfstoreError):
        return error
    found = MfstoreError(f"this item failed: {type(error).__name__}: {error}", hint="Its cause is the exception itself")
    found.__cause__ = error
    return found


def check_key(key: str) -> None:
    """InvalidKey for what is no key of an object in S3."""
    if not key:
        raise InvalidKey("an object needs a key", found=repr(key))
    if len(key.encode("utf-8", "surrogatepass")) > 1024:
        raise InvalidKey("keys have at most 1024 bytes", key=key[:80] + "…")
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidKey("keys are Unicode; this one holds half a surrogate pair", key=ascii(key)) from None


def renewed(call: Call, **changes: Any) -> Call:
    """The same call for another try, on a new connection."""
    fields: dict[str, Any] = {name: getattr(call, name) for name in Call.__slots__}
    fields.update(fresh=True)
    fields.update(changes)
    return Call(**fields)


def parsed(call: Call, reply: Reply, control: ControlPlane) -> dict[str, Any]:
    """What a reply says by botocore's names. An error inside a 200 is as good as one with a status of its own: raises
    ``Retry`` for those that pass, and for what is no answer of S3's."""
    if not (reply.data or b"").strip():
        raise Retry(BackendError("the service answered with nothing, and so did not say what it did"))
    try:
        return control.parse(call, reply)
    except MfstoreError as error:
        if error.service_code is None:
            raise Retry(error, ODD_ANSWERS) from None
        if retryable_code(error.service_code):
            raise Retry(error) from None
        raise


def etag_of(headers: Mapping[str, str]) -> str | None:
    """The ETag without quotes; None when the service sent none (radosgw's completed uploads)."""
    return headers.get("etag", "").strip('"') or None


def from_service(headers: Mapping[str, str]) -> bool:
    """Whether an answer has a header that only S3 and what speaks its protocol send."""
    return any(name.startswith("x-amz-") for name in headers)


def refuse_page(headers: Mapping[str, str]) -> None:
    """Raises ``Retry`` for a page that somebody on the way has put in the place of an answer: it has no ETag."""
    if headers.get("content-type", "").startswith("text/html") and not from_service(headers):
        error = BackendError("what answers is no S3 service: it sends a web page", hint=ENDPOINT_HINT)
        raise Retry(error, ODD_ANSWERS)


def length_of(reply: Reply) -> int:
    """The length of an object, by the answer to a HEAD. BackendError when it does not say."""
    if "etag" not in reply.headers:
        refuse_page(reply.headers)
    text = reply.headers.get("content-length", "")
    if not text.isdecimal():
        raise BackendError("the service does not say how long the object is", found=text or None)
    return int(text)


class MultipartJob(Job):
    """A job that may open a multipart upload: ``_upload`` is its id, empty while there is nothing to give up."""

    __slots__ = ("_upload",)

    def __init__(self, index: int, item: Any, bucket: str, key: str, options: Options = NO_OPTIONS) -> None:
        super().__init__(index, item, bucket, key, options)
        self._upload = ""

    def _opened(self, call: Call, reply: Reply, control: ControlPlane) -> None:
        """The upload has been opened. Raises ``Retry`` when the answer does not say under which id."""
        upload = parsed(call, reply, control).get("UploadId")
        if not upload:
            raise Retry(BackendError("the service did not name the upload it began"), ODD_ANSWERS)
        self._upload = str(upload)

    @staticmethod
    def etag_of_parts(etags: Sequence[str]) -> str | None:
        """The ETag S3 gives an object made of parts with these, if they are MD5 digests."""
        try:
            joined = b"".join([bytes.fromhex(etag.strip('"')) for etag in etags])
        except ValueError:
            return None
        return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(etags)}"

    @property
    def open(self) -> bool:
        """Whether there is an upload to give up."""
        return bool(self._upload)

    def cleanup(self) -> Sequence[Call]:
        upload, self._upload = self._upload, ""
        if not upload:
            return NO_CALLS
        return (
            Call(
                "AbortMultipartUpload", self.bucket, self.key, self.options, {"UploadId": upload}, first_byte=10.0,
                stall=10.0, tag=Try(self),
            ),
        )  # fmt: skip


def left_open(call: Call, error: MfstoreError) -> str:
    """What is said of an upload that could not be given up."""
    upload = (call.params or {}).get("UploadId")
    if scheme_of(call.bucket) != "s3":  # the upload's name may be what allows to add to it
        return f"The upload of {call.key} could not be given up: {error}. It ends by itself after a week"
    return (
        f"The multipart upload {upload} of {call.key} could not be given up: {error}. Its parts are kept, and paid "
        "for, until AbortMultipartUpload or the bucket's lifecycle rule removes them"
    )
