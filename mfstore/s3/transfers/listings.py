"""Listing the objects of a bucket, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mfstore.errors import BackendError, MfstoreError
from mfstore.s3.calls import NO_OPTIONS, Call, Options, Reply
from mfstore.s3.transfers.jobs import NO_CALLS, ODD_ANSWERS, Job, Retry, Try
from mfstore.s3.transfers.outcomes import ListingEntry, Outcome

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane


class ListJob(Job):
    """List the objects under a prefix, page by page; each page is an outcome whose ``data`` is control's page."""

    several = True

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
            raise Retry(error, ODD_ANSWERS if error.service_code is None else None) from None
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


def entries(outcome: Outcome) -> Iterator[ListingEntry]:
    """What a page of a listing says."""
    bucket, page = outcome.bucket, outcome.data
    for found in page.objects:
        modified = found.modified.timestamp() if found.modified is not None else None
        etag = found.etag.strip('"') if found.etag else None
        yield ListingEntry(bucket, found.key, found.size, modified, etag, found.storage_class, False)
    for prefix in page.prefixes:
        yield ListingEntry(bucket, prefix, 0, None, None, None, True)
