"""Objects as files to write: a multipart upload that goes on as the data arrives."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mfstore.errors import Conflict, MfstoreError, NotFound, Unsupported
from mfstore.host.buffers import bytes_of
from mfstore.s3.bulk.items import PutItem
from mfstore.s3.datatools.exceptions import metaflow_errors
from mfstore.s3.datatools.readers import only
from mfstore.s3.transfers.jobs import Job
from mfstore.s3.transfers.outcomes import Outcome
from mfstore.s3.transfers.uploads import PART_BYTES, SingleCallJob, StreamedPutJob
from mfstore.s3.urls import split_url

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

    from mfstore.s3.bulk.client import BulkClient

PARTS_AHEAD = 4
"""Parts under way while the program does something else."""
EQUAL_PARTS = 5000
"""Parts of equal size, 80 GB of them, before they grow: some services want all but the last to be equal, and none
takes more than 10 000."""


class ObjectWriter(io.BufferedIOBase):
    """A file that becomes an object when it is closed, and nothing when a ``with`` block ends in an exception, when
    ``abort`` is called, or when it is forgotten. Parts are sent while the program goes on."""

    def __init__(
        self, client: BulkClient, url: str, name: str, *, overwrite: bool = True,
        metadata: Mapping[str, str] | None = None, options: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.name = name
        self.mode = "wb"
        self.stored: bool | None = None
        """After ``close``: whether the object was stored. False: it existed, and overwrite was False."""
        self._client = client
        self._url = url
        self._overwrite = overwrite
        self._metadata = metadata
        self._options = client.options_of_writes(options or {})
        self._buffer = bytearray()
        self._written = 0
        self._end: StreamedPutJob | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._sending: deque[Future[Outcome]] = deque()
        self._given = 0
        self._process = os.getpid()

    def writable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._written

    @metaflow_errors()
    def write(self, data: Buffer) -> int:
        """Take all of ``data``. Raises what went wrong with earlier parts; then nothing will be stored."""
        if self.closed:
            raise ValueError("write to a closed file")
        if self._process != os.getpid():
            raise Unsupported("this file was opened by another process, which stores it", key=self._url)
        with bytes_of(data) as view:
            size = len(view)
            at = 0
            while at < size:
                taken = min(size - at, self._part() - len(self._buffer))
                self._buffer += view[at : at + taken]
                at += taken
                if len(self._buffer) == self._part():
                    self._send()
        self._written += size
        return size

    def _part(self) -> int:
        return (
            PART_BYTES << max(0, (self._given - EQUAL_PARTS) // 500 + 1) if self._given >= EQUAL_PARTS else PART_BYTES
        )

    def _send(self) -> None:
        """Hand the buffer over as the next part."""
        try:
            if self._end is None:
                bucket, key = split_url(self._url)
                self._end = StreamedPutJob(self._url, bucket, key, self._options, self._metadata, not self._overwrite)
                self._end.begin_upload(_run(self._client, self._end.create()))
                self._pool = ThreadPoolExecutor(PARTS_AHEAD, "mfstore-write")
            assert self._pool is not None
            while len(self._sending) >= PARTS_AHEAD:
                self._end.add(self._sending.popleft().result())
            self._given += 1
            body, self._buffer = self._buffer, bytearray()
            # Threads that held on to this file would keep it from being forgotten.
            self._sending.append(self._pool.submit(_run, self._client, self._end.part(self._given, body)))
        except BaseException:
            self.abort()
            raise

    @metaflow_errors()
    def close(self) -> None:
        """Store the object. Errors as ``S3.put``; then nothing was stored, unless the error says that it is unknown. A
        forked child only lets go of it."""
        if self.closed or self._inherited():
            return
        try:
            self.stored = self._finish()
        except BaseException:
            self.abort()
            raise
        self._shut()

    def _finish(self) -> bool:
        if not self._overwrite and self._exists():
            self.abort()
            return False
        try:
            if self._end is None:
                item = PutItem(
                    self._url, [self._buffer], self._metadata, options=dict(self._options),
                    if_none_match=not self._overwrite,
                )  # fmt: skip
                only(self._client.put_many([item]))
                return True
            if self._buffer:
                self._send()
            while self._sending:
                self._end.add(self._sending.popleft().result())
            _run(self._client, self._end)
        except Conflict:
            if self._overwrite:
                raise
            self.abort()
            return False
        return True

    def _exists(self) -> bool:
        """Asked first because some services (radosgw) check no condition at the end of an upload in parts."""
        (outcome,) = self._client.head_many([self._url], on_error="return")
        if outcome.error is not None and not isinstance(outcome.error, NotFound):
            raise outcome.error
        return outcome.ok

    def abort(self) -> None:
        """Store nothing, and give back what was sent. The file is closed then."""
        if self.closed or self._inherited():
            return
        end, self._end = self._end, None
        self._stop()
        for call in end.cleanup() if end is not None else ():
            # What is left of an upload that cannot be given up now goes with the bucket's lifecycle rule.
            with suppress(MfstoreError):
                _run(self._client, SingleCallJob(call))
        self._shut()

    def _inherited(self) -> bool:
        """Whether this is a forked child's, to which the upload does not belong; it is closed then."""
        if self._process == os.getpid():
            return False
        super().close()
        return True

    def _stop(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                pool.shutdown(wait=True, cancel_futures=True)
            except RuntimeError:
                # Forgotten, and collected by one of its own threads.
                pool.shutdown(wait=False)

    def _shut(self) -> None:
        self._stop()
        self._buffer = bytearray()
        self._sending.clear()
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        # io's own would close the file, and so publish half an object.
        with suppress(Exception):
            self.abort()


def _run(client: BulkClient, job: Job) -> Outcome:
    return client.run("open", job)
