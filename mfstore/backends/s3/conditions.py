"""Whether a service that speaks S3 keeps the conditions of a write or a deletion, and how it wants them written.

Of the services there are, some compare an ETag only without its quotes (radosgw 16), some answer "not implemented"
(Swift), and some ignore conditions without a word and overwrite (rclone). Only trying tells, on an object nobody else
uses.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mfstore.errors import Conflict, MfstoreError, Unsupported
from mfstore.s3.bulk.items import PutItem

if TYPE_CHECKING:
    from mfstore.s3.bulk.client import BulkClient

Form = Callable[[str], str]
_known: dict[tuple[str | None, str, str], Form] = {}
"""What was found out in this process, by endpoint, bucket and kind: handles of one bucket need not ask again."""
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

    def __init__(self, client: BulkClient, endpoint: str | None, bucket: str, prefix: str) -> None:
        self._client = client
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

    def _learned(self, kind: str, find: Callable[[str], Form]) -> Form:
        key = (*self._service, kind)
        if key not in _known:
            # Hidden: names that begin with a dot are not objects of a store.
            scratch = f"{self._prefix}.mfstore-probe-{uuid.uuid4().hex}"
            try:
                _known[key] = find(scratch)
            except Unsupported as error:
                raise error.where(hint=HINT) from None
            finally:
                # What stays behind is hidden and a few bytes; failing to remove it must not hide the answer.
                try:
                    self._client.delete_many([scratch])
                except MfstoreError:
                    pass
        return _known[key]

    def _try_new(self, scratch: str) -> Form:
        self._client.put_many([PutItem(scratch, b"probe")])
        if self._done([PutItem(scratch, b"probe", if_none_match=True)]) != [False]:
            raise Unsupported("the service ignores If-None-Match: it would overwrite what others wrote")
        return bare

    def _try_match(self, scratch: str) -> Form:
        etag = self._client.put_many([PutItem(scratch, b"probe")])[0].etag
        if etag is None:
            raise Unsupported("the service gives no ETags, so that changes cannot be noticed")

        def over(value: str) -> PutItem:
            return PutItem(scratch, b"probe", if_match=value)

        # The same bytes each time: their ETag stays.
        answers = self._done([over(quoted(WRONG)), over(bare(WRONG)), over(quoted(etag))])
        if answers[:2] != [False, False]:
            raise Unsupported("the service ignores If-Match: it would overwrite what others wrote")
        if answers[2]:
            return quoted
        if self._done([over(bare(etag))]) == [True]:
            return bare
        raise Unsupported("the service finds that no ETag matches its own")

    def _try_delete(self, scratch: str) -> Form:
        etag = self._client.put_many([PutItem(scratch, b"probe")])[0].etag
        for form in (quoted, bare):
            refused = self._client.delete_many([scratch], on_error="return", if_match={scratch: form(WRONG)})[0].error
            there = self._client.head_many([scratch], on_error="return").wait()[0].error is None
            if not isinstance(refused, Conflict) or not there or etag is None:
                raise Unsupported("the service does not heed the etag of a deletion")
            done = self._client.delete_many([scratch], on_error="return", if_match={scratch: form(etag)})[0]
            if done.error is None:
                return form
        raise Unsupported("the service finds that no ETag matches its own")

    def _done(self, items: Iterable[PutItem]) -> list[bool]:
        """Whether each write was done. A refusal for another reason than its condition is raised."""
        answers = []
        for outcome in self._client.put_many(items, on_error="return"):
            if outcome.error is not None and not isinstance(outcome.error, Conflict):
                raise outcome.error
            answers.append(outcome.error is None)
        return answers
