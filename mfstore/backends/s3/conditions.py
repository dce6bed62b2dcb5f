"""Whether a service that speaks S3 keeps the conditions of a write or a deletion, and how it wants them written.

Of the services there are, some compare an ETag only without its quotes (radosgw 16), some answer "not implemented"
(Swift), and some ignore conditions without a word and overwrite (rclone). Only trying tells, on an object nobody else
uses.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any, Literal

from mfstore.errors import Conflict, MfstoreError, Unsupported
from mfstore.s3.transfers.deletions import DeleteJob
from mfstore.s3.transfers.metadata import HeadJob
from mfstore.s3.transfers.uploads import PutJob, UploadSource

if TYPE_CHECKING:
    from mfstore.s3.calls import Options
    from mfstore.s3.transfers.jobs import Job
    from mfstore.s3.transfers.outcomes import Outcome
    from mfstore.s3.transfers.scheduler import Transfers

Form = Callable[[str], str]
_known: dict[tuple[str | None, str, str], Form | Unsupported] = {}
"""What was found out in this process, by endpoint, bucket and kind: handles of one bucket need not ask again. A service
that does not keep conditions will not learn it while this process runs, and each question is four requests."""
WRONG = "0" * 32
HINT = (
    "Refs and new stores need conditional writes. Use a service that has them, or open the store with "
    "single_writer=True if no two processes ever write to it at the same time"
)


def quoted(etag: str) -> str:
    """As RFC 9110 and AWS have it."""
    return f'"{etag}"'


def bare(etag: str) -> str:
    """As radosgw 16 compares it."""
    return etag


class Conditions:
    """What one bucket's service does about If-None-Match and If-Match. Asks when first needed."""

    def __init__(
        self, transfers: Transfers, checksum: str | None, options: Options, endpoint: str | None, bucket: str,
        prefix: str,
    ) -> None:  # fmt: skip
        self._transfers = transfers
        self._checksum = checksum
        self._options = options
        self._bucket = bucket
        self._service = endpoint, bucket
        self._prefix = prefix

    def of_new(self) -> Form:
        """Make sure that If-None-Match is kept. Unsupported when it is not."""
        return self._learned("new", self._try_new)

    def of_match(self) -> Form:
        """How If-Match is to be written. Unsupported when it is not kept, however written."""
        return self._learned("match", self._try_match)

    def of_delete(self) -> Form:
        """How the etag of a deletion is to be written. Unsupported when it is not heeded, however written."""
        return self._learned("delete", self._try_delete)

    def tried(self, kind: Literal["new", "match", "delete"], scratch: str) -> Form:
        """What ``of_new``, ``of_match`` and ``of_delete`` ask, asked on an object that is anybody's to overwrite. It
        stays, unless it was deleted, and nothing is remembered. Unsupported when the service does not keep it."""
        return {"new": self._try_new, "match": self._try_match, "delete": self._try_delete}[kind](scratch)

    def _learned(self, kind: str, find: Callable[[str], Form]) -> Form:
        key = (*self._service, kind)
        if key not in _known:
            # Hidden: names that begin with a dot are not objects of a store.
            scratch = f"{self._prefix}.mfstore-probe-{uuid.uuid4().hex}"
            try:
                _known[key] = find(scratch)
            except Unsupported as error:
                error.where(hint=HINT)
                _known[key] = copy(error)
                raise error from None
            finally:
                # What stays behind is hidden and a few bytes; failing to remove it must not hide the answer.
                try:
                    self._outcome(self._deletion(scratch))
                except MfstoreError:
                    pass
            from mfstore.host.logs import DEBUG, log

            log(DEBUG, "s3", "conditions of %s in s3://%s are kept", kind, self._bucket)
        found = _known[key]
        if isinstance(found, Unsupported):
            raise copy(found)
        return found

    def _try_new(self, scratch: str) -> Form:
        self._transfers.one(self._put(scratch))
        if self._done(self._put(scratch, if_none_match=True)) != [False]:
            raise Unsupported("the service ignores If-None-Match: it would overwrite what others wrote")
        return bare

    def _try_match(self, scratch: str) -> Form:
        etag = self._transfers.one(self._put(scratch)).etag
        if etag is None:
            raise Unsupported("the service gives no ETags, so that changes cannot be noticed")
        # The same bytes each time: their ETag stays.
        tried = [quoted(WRONG), bare(WRONG), quoted(etag)]
        answers = self._done(*(self._put(scratch, index, if_match=value) for index, value in enumerate(tried)))
        if answers[:2] != [False, False]:
            raise Unsupported("the service ignores If-Match: it would overwrite what others wrote")
        if answers[2]:
            return quoted
        if self._done(self._put(scratch, if_match=bare(etag))) == [True]:
            return bare
        raise Unsupported("the service finds that no ETag matches its own")

    def _try_delete(self, scratch: str) -> Form:
        etag = self._transfers.one(self._put(scratch)).etag
        for form in (quoted, bare):
            refused = self._outcome(self._deletion(scratch, form(WRONG))).error
            there = self._outcome(HeadJob(0, scratch, self._bucket, scratch)).error is None
            if not isinstance(refused, Conflict) or not there or etag is None:
                raise Unsupported("the service does not heed the etag of a deletion")
            if self._outcome(self._deletion(scratch, form(etag))).error is None:
                return form
        raise Unsupported("the service finds that no ETag matches its own")

    def _put(self, scratch: str, index: int = 0, **condition: Any) -> Job:
        source = UploadSource([b"probe"], None)
        return PutJob(
            index, scratch, self._bucket, scratch, self._options, source=source, checksum=self._checksum, **condition
        )

    def _deletion(self, scratch: str, match: str | None = None) -> Job:
        etags = {scratch: match} if match is not None else None
        return DeleteJob(self._bucket, [(0, scratch, scratch)], match=etags)

    def _outcome(self, job: Job) -> Outcome:
        (outcome,) = self._transfers.run(iter((job,)))
        return outcome

    def _done(self, *writes: Job) -> list[bool]:
        """Whether each write was done. A refusal for another reason than its condition is raised."""
        answers = []
        for outcome in list(self._transfers.run(iter(writes), ordered=True)):
            if outcome.error is not None and not isinstance(outcome.error, Conflict):
                raise outcome.error
            answers.append(outcome.error is None)
        return answers
