"""An object that is sent while it is made: its parts are under way while more of it is written."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mfstore._core.memory import fresh_bytearray
from mfstore.errors import Conflict, MfstoreError, NotFound, Unsupported
from mfstore.host.buffers import bytes_of
from mfstore.s3.bulk.items import PutItem
from mfstore.s3.transfers.jobs import Job
from mfstore.s3.transfers.outcomes import Outcome
from mfstore.s3.transfers.uploads import PART_BYTES, SingleCallJob, StreamedPutJob
from mfstore.s3.urls import split_url

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.s3.bulk.client import BulkClient

PARTS_AHEAD = 4
"""Parts under way while the program does something else."""
EQUAL_PARTS = 5000
"""Parts of equal size, 80 GB of them, before they grow: some services want all but the last to be equal, and none
takes more than 10 000."""
SMALL = 1 << 20
"""Bytes up to which memory grows with what is written. What is longer mostly fills a part."""
SHARED = 64 << 10
"""Bytes from which on what cannot change is not copied."""
SMALLEST_COPIED = 5 << 20
"""Bytes that a part has at least, but for the last."""
LARGEST_COPIED = 1 << 30
"""Bytes that are copied by one request: at most 5 GiB may be."""


class StreamedUpload:
    """An object that is there when ``finish`` has returned, and never if ``abort`` is called. What is smaller than a
    part is sent by ``finish`` alone. Of one thread at a time; of the process that made it.

    Args:
        client: Sends it.
        url: ``s3://bucket/key``.
        new: Only if there is no such object.
        metadata: User metadata.
        options: Further parameters, by botocore's names.
    """

    def __init__(
        self, client: BulkClient, url: str, *, new: bool = False, metadata: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.url = url
        self.written = 0
        """Bytes so far."""
        self.ended = False
        """Whether it was finished or given up."""
        self._client = client
        self._new = new
        self._metadata = metadata
        self._options = client.options_of_writes(options or {})
        self._pieces: list[memoryview] = []
        """What is written of the next part, but for what lies in ``_area`` from ``_from`` on."""
        self._area = bytearray()
        self._from = self._to = 0
        self._filled = 0
        """Bytes of the next part that are there."""
        self._free: list[bytearray] = []
        """Memory of parts that are sent: the kernel would have to clear what is fresh."""
        self._end: StreamedPutJob | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._sending: deque[tuple[Future[Outcome], bytearray]] = deque()
        self._given = 0
        self._process = os.getpid()

    @property
    def inherited(self) -> bool:
        """Whether this is a forked child's, to which the upload does not belong."""
        return self._process != os.getpid()

    def write(self, data: Buffer) -> int:
        """Take all of ``data``; returns how many bytes. Raises what went wrong with earlier parts; then nothing will
        be stored."""
        if self.inherited:
            raise Unsupported("this file was opened by another process, which stores it", key=self.url)
        with bytes_of(data) as view:
            size = len(view)
            at = 0
            while at < size:
                part = self._part()
                taken = min(size - at, part - self._filled)
                if type(data) is bytes and SHARED <= size <= part:
                    self._share(memoryview(data)[at : at + taken])
                else:
                    self._copy(view[at : at + taken], part)
                self._filled += taken
                at += taken
                if self._filled == part:
                    self._send()
        self.written += size
        return size

    def _share(self, data: memoryview) -> None:
        """Send ``data``, of an object that nobody can change, from where they are."""
        self._close_piece()
        self._pieces.append(data)

    def _copy(self, data: memoryview, part: int) -> None:
        """Put ``data`` behind what is there, in memory of our own: at first as much as is needed, and then for all of a
        part."""
        end = self._to + len(data)
        if end <= SMALL and len(self._area) == self._to:
            self._area += data
        else:
            if len(self._area) < part:
                whole = self._free.pop() if self._free else fresh_bytearray(part)
                whole[: self._to] = self._area
                self._area = whole
            self._area[self._to : end] = data
        self._to = end

    def _close_piece(self) -> None:
        """What was copied is a piece by itself, as something comes behind it that is not."""
        if self._to > self._from:
            if len(self._area) == self._to <= SMALL:  # it may have to grow, and can not while it is looked at
                self._pieces.append(memoryview(bytes(self._area)))
                self._area, self._from, self._to = bytearray(), 0, 0
            else:
                self._pieces.append(memoryview(self._area)[self._from : self._to])
                self._from = self._to

    def _body(self) -> list[memoryview]:
        """All pieces of the next part."""
        self._close_piece()
        return self._pieces

    def _renew(self) -> None:
        """Begin with the next part."""
        self._pieces, self._area = [], bytearray()
        self._from = self._to = self._filled = 0

    def go_on(self, size: int, etag: str) -> None:
        """Before anything is written: begin with the ``size`` bytes, 5 MiB or more, of the object that is there with
        this ETag. They are copied inside the service."""
        try:
            self._end = self._begin()
            count = -(-size // LARGEST_COPIED)
            bounds = [size * number // count for number in range(count + 1)]  # none is too small
            for start, stop in pairwise(bounds):
                self._given += 1
                self._end.add_copied(self._given, _run(self._client, self._end.copied(self._given, start, stop, etag)))
        except BaseException:
            self.abort()
            raise
        self.written = size

    def _part(self) -> int:
        grown = max(0, (self._given - EQUAL_PARTS) // 500 + 1) if self._given >= EQUAL_PARTS else 0
        return PART_BYTES << grown

    def _begin(self) -> StreamedPutJob:
        bucket, key = split_url(self.url)
        end = StreamedPutJob(self.url, bucket, key, self._options, self._metadata, self._new)
        end.begin_upload(_run(self._client, end.create()))
        self._pool = ThreadPoolExecutor(PARTS_AHEAD, "mfstore-write")
        return end

    def _send(self) -> None:
        """Hand the buffer over as the next part."""
        try:
            if self._end is None:
                self._end = self._begin()
            assert self._pool is not None
            while len(self._sending) >= PARTS_AHEAD:
                self._sent()
            self._given += 1
            area = self._area
            job = self._end.part(self._given, self._body())
            self._renew()
            # Threads that held on to this would keep it from being forgotten.
            self._sending.append((self._pool.submit(_run, self._client, job), area))
        except BaseException:
            self.abort()
            raise

    def _sent(self) -> None:
        """Wait for the oldest part that is under way."""
        assert self._end is not None
        future, area = self._sending.popleft()
        self._end.add(future.result())
        if len(area) == self._part():
            self._free.append(area)

    @property
    def whole(self) -> PutItem | None:
        """The object as one item to put; None when parts of it have been sent."""
        if self._end is not None:
            return None
        return PutItem(
            self.url, self._body(), self._metadata, options=dict(self._options), if_none_match=self._new
        )  # fmt: skip

    def send_rest(self) -> None:
        """Wait until all but an object smaller than a part is sent. It is not there before ``finish``."""
        if self._end is not None:
            if self._filled:
                self._send()
            while self._sending:
                self._sent()

    def finish(self) -> None:
        """Store the object. Conflict where it was to be new, and is not. After any error nothing was stored, unless the
        error says that it is unknown."""
        try:
            if self._new and self._exists():
                raise Conflict("the object exists", key=self.url)
            self.send_rest()
            if self._end is not None:
                _run(self._client, self._end)
            else:
                self._client.put_many([self.whole])
        except BaseException:
            self.abort()
            raise
        self._stop()

    def _exists(self) -> bool:
        """Asked first because some services (radosgw) check no condition at the end of an upload in parts."""
        (outcome,) = self._client.head_many([self.url], on_error="return")
        if outcome.error is not None and not isinstance(outcome.error, NotFound):
            raise outcome.error
        return outcome.ok

    def abort(self) -> None:
        """Store nothing, and give back what was sent."""
        end, self._end = self._end, None
        self._stop()
        for call in end.cleanup() if end is not None else ():
            # What is left of an upload that cannot be given up now goes with the bucket's lifecycle rule.
            with suppress(MfstoreError):
                _run(self._client, SingleCallJob(call))

    def _stop(self) -> None:
        self.ended = True
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                pool.shutdown(wait=True, cancel_futures=True)
            except RuntimeError:
                # Forgotten, and collected by one of its own threads.
                pool.shutdown(wait=False)
        self._renew()
        self._free.clear()
        self._sending.clear()


def _run(client: BulkClient, job: Job) -> Outcome:
    return client.run("open", job)
