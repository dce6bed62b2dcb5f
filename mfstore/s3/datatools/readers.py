"""Objects as files to read: fetched in ranges, and ahead of the reader."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from mfstore.errors import Conflict, InvalidRange, MfstoreError
from mfstore.s3.datatools.exceptions import converted, metaflow_errors
from mfstore.s3.transfers.outcomes import Outcome

if TYPE_CHECKING:
    from mfstore.s3.bulk.client import BulkClient

FIRST_FETCH, LARGEST_FETCH = 256 << 10, 8 << 20
"""Bytes fetched at first, and at most, at a time: doubled as long as reading goes on in order."""
FETCHES_AHEAD = 4
"""Fetches under way while the program does something else."""


class ObjectReader(io.RawIOBase):
    """The raw file behind ``S3.open_read``: a window of the object, and in sequential reading the next ones. What goes
    wrong is raised as Metaflow's users know it."""

    def __init__(self, client: BulkClient, url: str, name: str) -> None:
        super().__init__()
        self.name = name
        self.mode = "rb"
        self._client = client
        self._url = url
        self._at = self._start = 0
        self._step = FIRST_FETCH
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: deque[tuple[int, int, Future[Outcome]]] = deque()
        self._process = os.getpid()
        self._size = -1
        self._etag: str | None = None
        self._data = self._first()

    def _first(self) -> Any:
        """Size, version and first bytes, in one request unless the object is empty."""
        try:
            outcome = only(self._client.get_many([(self._url, 0, FIRST_FETCH)]))
        except MfstoreError as error:
            if not isinstance(error, InvalidRange):
                raise
            outcome = only(self._client.head_many([self._url]))
            outcome.data = b""
        self._etag = outcome.etag
        self._size = outcome.object_size if outcome.object_size is not None else outcome.size
        return outcome.data

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As for any file. Asks S3 for nothing."""
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if at < 0:
            raise ValueError(f"negative seek position {at}")
        self._at = at
        return at

    @metaflow_errors()
    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as there is data at hand, after waiting for some. Errors as ``S3.get``; Conflict when
        the object was replaced since it was opened."""
        self._checkClosed()
        if self._at >= self._size:
            return 0
        if not self._start <= self._at < self._start + len(self._data):
            self._turn()
        view = memoryview(buffer).cast("B")
        offset = self._at - self._start
        count = min(len(view), len(self._data) - offset)
        view[:count] = memoryview(self._data)[offset : offset + count]
        self._at += count
        return count

    @metaflow_errors()
    def readall(self) -> bytes:
        """All the rest, in parallel."""
        self._checkClosed()
        if self._at >= self._size:
            return b""
        self._drop()
        begun = self._at - self._start
        known = bytes(self._data[begun:]) if 0 <= begun < len(self._data) else b""
        at = self._at + len(known)
        rest: bytes = self._fetch(at, self._size - at).data if at < self._size else b""
        self._at = self._size
        return known + rest if known else rest

    def _turn(self) -> None:
        """Bring the window to where reading goes on."""
        if self._process != os.getpid():
            # A forked child has none of the threads that would fetch what its parent asked for.
            self._process, self._pool = os.getpid(), None
            self._ahead.clear()
        sequential = self._at == self._start + len(self._data)
        if sequential and self._ahead and self._ahead[0][0] == self._at:
            outcome = self._ahead.popleft()[2].result()
        else:
            self._drop()
            if not sequential:
                self._step = FIRST_FETCH
            outcome = self._fetch(self._at, min(self._step, self._size - self._at))
        self._start, self._data = self._at, outcome.data
        if sequential:
            self._look_ahead()

    def _look_ahead(self) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(FETCHES_AHEAD, "mfstore-read")
        while len(self._ahead) < FETCHES_AHEAD:
            at = self._ahead[-1][0] + self._ahead[-1][1] if self._ahead else self._start + len(self._data)
            if at >= self._size:
                return
            self._step = min(2 * self._step, LARGEST_FETCH)
            length = min(self._step, self._size - at)
            self._ahead.append((at, length, self._pool.submit(self._fetch, at, length)))

    def _fetch(self, start: int, length: int) -> Outcome:
        try:
            outcome = only(self._client.get_many([(self._url, start, length)]))
            if outcome.etag != self._etag or outcome.size != length:
                raise Conflict(
                    "the object was replaced while it was read", key=self._url, hint="Open it again for the new one"
                )
        except InvalidRange as error:
            raise converted(Conflict("the object was replaced by a shorter one", key=self._url)) from error
        except Conflict as error:
            raise converted(error) from None
        return outcome

    def _drop(self) -> None:
        for _, _, future in self._ahead:
            future.cancel()
        self._ahead.clear()

    def close(self) -> None:
        """Stop reading ahead."""
        if not self.closed:
            self._drop()
            if self._pool is not None:
                self._pool.shutdown(wait=True, cancel_futures=True)
            self._data = b""
        super().close()


def only(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of a bulk operation on one item."""
    (outcome,) = outcomes
    return outcome
