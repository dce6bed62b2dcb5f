"""Deleting objects, many in one request."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from mfstore.errors import BackendError, MfstoreError
from mfstore.s3.aws.errors import copied, retryable_code, said
from mfstore.s3.calls import NO_OPTIONS, Call, Options, Reply
from mfstore.s3.headers import header_value
from mfstore.s3.transfers.jobs import NO_CALLS, ODD_ANSWERS, Job, RefusedJob, Retry, Try, parsed, unforeseen
from mfstore.s3.transfers.outcomes import Outcome
from mfstore.s3.urls import bucket_url

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane

KEYS_PER_DELETE = 1000
"""Keys per DeleteObjects: the API's limit."""
PATIENCE = 120.0
"""Seconds of silence that an answer about many keys may have. radosgw answers 200 at once and then deletes: on a busy
machine a thousand keys took it more than the 20 seconds of any other answer, and asking again makes it no faster."""
IN_XML = re.compile("[\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
"""Keys that can be told in XML (XML 1.0, production 2) and arrive as they were: a return would arrive as a line
feed."""
ABSENT_CODES = ("NoSuchKey", "NotFound")
"""What a condition on an object that is not there is answered with, in the words of S3."""


class DeleteJob(Job):
    """Delete up to KEYS_PER_DELETE objects of one bucket. Absent ones count as deleted, as for S3. One with an etag in
    ``match`` is deleted if that still is its etag, else Conflict. ``fresh`` requests do not reuse a connection: on one
    that the server has just closed they would be sent a second time, unseen."""

    several = True

    __slots__ = ("_fresh", "_items", "_left", "_match", "_out")

    def __init__(
        self, bucket: str, items: Sequence[tuple[int, Any, str]], options: Options = NO_OPTIONS,
        match: Mapping[str, str] | None = None, fresh: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(items[0][0], items[0][1], bucket, items[0][2], options)
        self._match = match or {}
        self._fresh = fresh
        self._items = items
        self._left = list(dict.fromkeys(key for _, _, key in items))
        self._out: list[Outcome] = []

    def begin(self) -> Sequence[Call]:
        return (self._call(),)

    def _call(self) -> Call:
        objects = [{"Key": key, "ETag": self._match[key]} if key in self._match else {"Key": key} for key in self._left]
        params = {"Delete": {"Objects": objects, "Quiet": True}}
        call = Call("DeleteObjects", self.bucket, None, self.options, params, fresh=self._fresh, tag=Try(self))
        if not self._fresh:  # such a one is not repeated, and ends when its operation's time does
            call.first_byte = call.stall = PATIENCE
        return call

    def on_reply(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        # Quiet answers name failures only: one that names nothing must at least be one, which ``parsed`` sees to.
        answer = parsed(call, reply, control)
        errors = {str(entry.get("Key")): entry for entry in answer.get("Errors", ())}
        for key in [key for key in errors if key in self._match and errors[key].get("Code") in ABSENT_CODES]:
            del errors[key]
        if not errors.keys() <= set(self._left):
            stray = next(entry for key, entry in errors.items() if key not in self._left)
            raise control.problem(Call("DeleteObjects", self.bucket), _entry_reply(reply, stray))
        again = [key for key in self._left if key in errors and retryable_code(errors[key].get("Code"))]
        if again and call.tag.bad < 5:
            self._end_keys(
                control, {key: entry for key, entry in errors.items() if key not in again}, set(again), reply
            )
            self._left = again
            call.tag.bad += 1
            raise Retry(BackendError(f"{len(again)} keys could not be deleted", found=errors[again[0]].get("Code")))
        self._end_keys(control, errors, set(), reply)
        self.outcome = self._out.pop()
        return NO_CALLS

    def again(self, call: Call, reply: Reply) -> Call:
        fresh = self._call()
        fresh.tag = call.tag
        return fresh

    def _end_keys(self, control: ControlPlane, errors: Mapping[str, Any], later: set[str], reply: Reply) -> None:
        left = set(self._left)
        for index, item, key in self._items:
            if key in later or key not in left:
                continue
            entry = errors.get(key)
            error = None
            if entry is not None:
                alone = Call("DeleteObject", self.bucket, key, self.options, if_match=self._match.get(key))
                error = control.problem(alone, _entry_reply(reply, entry))
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
                own = copied(error).where(key=key, backend=bucket_url(self.bucket))
                self._out.append(Outcome(index, item, self.bucket, key, error=own, attempts=self.attempts))
        self.outcome = self._out.pop()


class DeleteOneJob(Job):
    """Delete one object, by a request with its key in the URL: for keys that XML cannot hold, and services that know
    no other. Otherwise as DeleteJob."""

    __slots__ = ("_fresh", "_match")

    def __init__(
        self, index: int, item: Any, bucket: str, key: str, options: Options = NO_OPTIONS, match: str | None = None,
        fresh: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(index, item, bucket, key, options)
        self._match = match
        self._fresh = fresh

    def begin(self) -> Sequence[Call]:
        return (
            Call(
                "DeleteObject", self.bucket, self.key, self.options, if_match=self._match, fresh=self._fresh,
                tag=Try(self),
            ),
        )  # fmt: skip

    def on_reply(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call]:
        if call.tag.part is not None:
            raise call.tag.part
        if (reply.data or b"").strip():
            raise Retry(BackendError(f"the answer is not what {control.service.name} sends"), ODD_ANSWERS)
        self.outcome = self._outcome(headers=reply.headers)
        return NO_CALLS

    def rescued(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call] | None:
        if reply.status == 412 and call.tag.attempts > 1 and call.operation == "DeleteObject":
            # An earlier try may have succeeded and its answer been lost: of what is not there Azure may say that it is
            # not what the condition asks for.
            lost = Try(self, control.problem(call, reply))
            return (Call("HeadObject", self.bucket, self.key, self.options, tag=lost),)
        if reply.status != 404 or (call.operation == "DeleteObject" and said(reply).code not in ABSENT_CODES):
            return None
        self.outcome = self._outcome(headers=reply.headers)
        return NO_CALLS


def delete_jobs(
    items: Iterable[Any], locate: Callable[[Any], tuple[str, str]], options: Options = NO_OPTIONS,
    match: Mapping[str, str] | None = None, fresh: bool = False, together: int = KEYS_PER_DELETE,
) -> Iterator[Job]:  # fmt: skip
    """The jobs that delete all ``items``, with as many of a bucket in one as the service takes (``together``), and one
    for each key that XML cannot hold. ``locate`` tells bucket and key of an item, or refuses it."""
    groups: dict[str, list[tuple[int, Any, str]]] = {}
    for index, item in enumerate(items):
        try:
            bucket, key = locate(item)
            if match and key in match:
                header_value("if_match", match[key])
        except Exception as error:
            yield RefusedJob(index, item, unforeseen(error))
            continue
        if not together or not IN_XML.fullmatch(key):
            yield DeleteOneJob(index, item, bucket, key, options, (match or {}).get(key), fresh)
            continue
        group = groups.setdefault(bucket, [])
        group.append((index, item, key))
        if len(group) == together:
            yield DeleteJob(bucket, groups.pop(bucket), options, match, fresh)
    for bucket, group in groups.items():
        yield DeleteJob(bucket, group, options, match, fresh)


def _entry_reply(reply: Reply, entry: Mapping[str, Any]) -> Reply:
    """What one key's failure inside a DeleteObjects answer would have been as an answer of its own."""
    code, message = escape(str(entry.get("Code"))), escape(str(entry.get("Message") or ""))
    status = {"AccessDenied": 403, "NoSuchVersion": 404, "MethodNotAllowed": 405, "PreconditionFailed": 412}.get(
        code, 500
    )
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Reply(reply.call, status=status, headers=reply.headers, data=body.encode())
