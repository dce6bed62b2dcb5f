"""Listing the objects of a bucket, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mfstore.errors import BackendError, MfstoreError
from mfstore.s3.calls import NO_OPTIONS, Call, Options, Reply
from mfstore.s3.transfers.jobs import NO_CALLS, ODD_ANSWERS, Job, Retry, Try, length_of
from mfstore.s3.transfers.outcomes import ListingEntry, Outcome

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane
    from mfstore.s3.aws.pages import Page


class ListJob(Job):
    """List the objects under a prefix, page by page; each page is an outcome whose ``data`` is control's page. Objects
    whose size a page does not tell are asked for it. It ends with the page that reaches ``stop``, which may show keys
    from there on, or after ``most`` pages: the last one's ``next_token`` tells that there is more."""

    several = True

    __slots__ = (
        "_answer", "_delimiter", "_mark", "_most", "_out", "_page", "_sizes", "_start_after", "_stop", "_token",
        "_turns", "pages",
    )  # fmt: skip

    def __init__(
        self, index: int, item: Any, bucket: str, prefix: str, options: Options = NO_OPTIONS, *,
        delimiter: str | None = None,
        start_after: str | None = None, stop: str | None = None, page: int = 1000, most: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(index, item, bucket, prefix, options)
        self._delimiter = delimiter
        self._start_after = start_after
        self._stop = stop
        self._page = page
        self._most = most
        self.pages = 0
        self._token: str | None = None
        # Brent's way of finding circles: the token of one page is kept, and of a later one whenever as many pages have
        # come since. A set of all would grow with a listing that has no end.
        self._mark: str | None = None
        self._turns = 0
        self._answer: tuple[Page, Reply] | None = None
        """A page that waits for sizes, and its reply."""
        self._sizes: dict[str, int | None] = {}
        """By key: its size, None for an object that is gone by now."""
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
        if call.operation == "HeadObject":
            assert call.key is not None
            return self._sized(call.key, length_of(reply))
        try:
            page = control.page(call, reply)
        except MfstoreError as error:
            raise Retry(error, ODD_ANSWERS if error.service_code is None else None) from None
        prefix = self.key
        foreign = [found.key for found in page.objects if not found.key.startswith(prefix)]
        foreign += [found for found in page.prefixes if not found.startswith(prefix)]
        if foreign:
            found = BackendError("the service listed what was not asked for", expected=f"{prefix}…", found=foreign[0])
            raise Retry(found, ODD_ANSWERS)
        untold = [found.key for found in page.objects if found.size is None]
        if untold:
            self._answer, self._sizes = (page, reply), {}
            return [Call("HeadObject", self.bucket, key, tag=Try(self)) for key in untold]
        return self._turn(page, reply)

    def _sized(self, key: str, size: int | None) -> Sequence[Call]:
        """The size of an object whose entry did not tell it."""
        self._sizes[key] = size
        if self.calls > 1:
            return NO_CALLS
        assert self._answer is not None
        (page, reply), self._answer = self._answer, None
        sized = [
            found if found.size is not None else found._replace(size=self._sizes[found.key]) for found in page.objects
        ]
        return self._turn(replace(page, objects=tuple(one for one in sized if one.size is not None)), reply)

    def rescued(self, call: Call, reply: Reply, control: ControlPlane) -> Sequence[Call] | None:
        if call.operation != "HeadObject" or reply.status != 404:
            return None
        assert call.key is not None
        return self._sized(call.key, None)

    def _turn(self, page: Page, reply: Reply) -> Sequence[Call]:
        """A page is complete: hand it out, and ask for the next."""
        outcome = self._outcome(data=page, size=len(page.objects), headers=reply.headers)
        token = page.next_token
        if token is None or self._turns + 1 == self._most or self._reaches_stop(page):
            self.outcome = outcome
            return NO_CALLS
        if token == self._mark:
            raise BackendError("the service's listing goes round in circles", found=token[:80])
        self._turns += 1
        if self._turns & (self._turns - 1) == 0:
            self._mark = token
        self._token = token
        outcome.last = False
        self.pages = page.memory
        self._out.append(outcome)
        return self.begin()

    def _reaches_stop(self, page: Page) -> bool:
        return self._stop is not None and page.last >= self._stop

    def take(self) -> Sequence[Outcome]:
        out, self._out = self._out, []
        return out


def entries(outcome: Outcome) -> Iterator[ListingEntry]:
    """What a page of a listing says."""
    bucket, page = outcome.bucket, outcome.data
    for found in page.objects:
        modified = found.modified.timestamp() if found.modified is not None else None
        etag = found.etag.strip('"') if found.etag else None
        assert found.size is not None  # the job has asked for it
        yield ListingEntry(bucket, found.key, found.size, modified, etag, found.storage_class, False)
    for prefix in page.prefixes:
        yield ListingEntry(bucket, prefix, 0, None, None, None, True)
