"""One call as the aiobotocore engine carries it out: prepared and signed by aiobotocore, sent by aiohttp, its body
brought where it belongs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from mfstore.errors import MfstoreError
from mfstore.s3 import calls
from mfstore.s3.aws.errors import ERROR_BYTES
from mfstore.s3.calls import Call, FileRange, Reply
from mfstore.s3.engines.aiohttp import HttpSession, failure_of, read_headers
from mfstore.s3.engines.bodies import (
    COPIED_BYTES,
    BodyDropped,
    BodySink,
    BodySource,
    Checksum,
    checksum_of_whole,
)

if TYPE_CHECKING:
    from mfstore.s3.aws.aio_client import AioClient
    from mfstore.s3.engines.pace import Pace

_running: ContextVar[weakref.ref[Exchange]] = ContextVar("_running")
"""Of the task that carries out an exchange. Connections that the task makes keep its context as long as they live."""


def sending(request: Any, operation: str) -> None:
    """aiobotocore is about to send a request: if it is its exchange's own, it is said so in the request, where the HTTP
    session finds it. Others are aiobotocore's, for a session with a directory bucket."""
    exchange = _running.get()()
    if exchange is not None and exchange.call.operation == operation:
        request.exchange = exchange


class Exchange:
    """A call under way. It holds the caller's memory and files until ``end``.

    ``tell`` is given the reply that announces a long body; ``ended`` this exchange when its reply is complete. Both are
    called in the loop's thread.
    """

    def __init__(
        self, call: Call, tell: Callable[[Reply], None], ended: Callable[[Exchange], None], pace: Pace | None = None
    ) -> None:  # fmt: skip
        self.call = call
        self.reply = Reply(call)
        self.over = False
        """Whether its memory and files are the caller's again."""
        self.task: asyncio.Task[None] | None = None
        """What runs it; set in the loop's thread."""
        self.announced = False
        """Whether the body waits, or waited, for ``land_in``."""
        self.flowed = 0
        """Bytes of its body that have gone, or come to a target."""
        self._tell = tell
        self._ended = ended
        self._pace = pace
        self._lock = threading.Lock()
        self._source = BodySource(call.body, self._lock)
        self._sink = BodySink(call.target, self._lock)
        self._stop: int | None = None
        self._skip = 0  # bytes of the body that the sink is not for, before those it is for
        self._passed = 0  # of them have passed
        self._begun = b""  # of an announced body: what had been read to see that it is long
        self._resumed: asyncio.Event | None = None
        self._deadline = float("inf")
        self._failure_when_late = calls.STALL
        self._failed: tuple[str, str, int] | None = None
        self._sent = False
        self._answered = False
        """Whether all of the reply is there."""
        self._trickled = 0  # bytes that came since the time-out began

    # Time-outs -------------------------------------------------------------------------------------------------------

    def check(self, now: float, held_up: float) -> None:
        """Give up if it is late by now. ``held_up``: seconds for which this process, and not the server, did nothing.
        In the loop's thread."""
        if held_up:
            self._deadline += held_up
        elif now > self._deadline and self.task is not None and self._failed is None:
            self._failed = self._failure_when_late, "", 0
            self.task.cancel()

    def _wait(self, failure: str, seconds: float) -> None:
        """Fail with ``failure`` unless there is progress within ``seconds``."""
        self._failure_when_late = failure
        self._deadline = time.monotonic() + seconds

    def _rest(self) -> None:
        """No time-out for now."""
        self._deadline = float("inf")

    def _came(self, count: int) -> None:
        """So many bytes of the body came: begin the stall time-out anew once they are enough. Of replies to what is no
        question any will do: S3 sends a blank now and then while it puts an upload together or copies an object."""
        self._trickled += count
        if self._trickled >= calls.STALL_BYTES or not self.call.operation.startswith(("Get", "List")):
            self._trickled = 0
            self._wait(calls.STALL, self.call.stall)

    async def _paced(self, size: int) -> None:
        """``size`` bytes came, or are to be sent: wait for their time, which is no delay of the server's."""
        if self._pace is not None:
            left = self._deadline - time.monotonic()
            self._rest()
            await self._pace.moved(size)
            self._deadline = time.monotonic() + left

    def headers_sent(self) -> None:
        """The request's headers are on their way."""
        if self._sent:
            self._wait(calls.FIRST_BYTE, self.call.first_byte)
        else:
            self._wait(calls.STALL, self.call.stall)

    # Who holds the body ----------------------------------------------------------------------------------------------

    def end(self) -> bool:
        """Let go of the caller's memory and files. False if that had happened before. From any thread."""
        with self._lock:
            if self.over:
                return False
            self.over = True
            self._source.drop()
            self._sink.drop()
            return True

    def land_in(self, target: memoryview | FileRange, stop: int | None, skip: int) -> bool:
        """Where an announced body goes, and how much of it after what; ``flow`` has to follow. False if the
        exchange is over. From any thread."""
        with self._lock:
            if self.over:
                return False
            grown = self._sink.grown
            self._begun, self._skip = bytes(grown[skip:]), skip
            self._passed = min(skip, len(grown))
            self._sink = BodySink(target, self._lock)
            self._stop = stop
            return True

    def flow(self) -> None:
        """Start an announced body flowing, after what had been read of it; in the loop's thread."""
        try:
            limit = self._stop if self._stop is not None else self._sink.room
            if self._begun:
                long = limit is not None and len(self._begun) > limit
                self._begun = self._begun[:limit]
                self._sink.write(self._begun)
                if long and self._stop is None:
                    self._failed = calls.OVERFLOW, f"more than {limit} bytes", 0
        except BodyDropped:
            return
        except OSError as error:
            self._failed = calls.DISK, str(error), error.errno or 0
        if self._failed is not None and self.task is not None:
            self.task.cancel()
        elif self._resumed is not None:
            self._resumed.set()

    # From signature to reply; in the loop's thread -------------------------------------------------------------------

    async def run(self, opened: Awaitable[AioClient]) -> None:
        """Carry the call out. Whatever happens is told in ``reply``; ``finish`` has to follow."""
        reply, call = self.reply, self.call
        _running.set(weakref.ref(self))
        try:
            client = await opened
            if call.operation not in ("PutObject", "UploadPart"):
                await client.call(call)
            else:
                checksum = await asyncio.get_running_loop().run_in_executor(None, self._checksum)
                await client.call(call, self._source, checksum)
        except (Exception, asyncio.CancelledError) as error:
            # What aiobotocore says of an answer that is there is not asked for.
            if not self._answered:
                self._fail(error)
        else:
            if not self._answered:
                reply.failure, reply.message = calls.INTERNAL, "aiobotocore answered without sending the request"
        finally:
            self._rest()

    def _fail(self, error: BaseException) -> None:
        reply, unread = self.reply, self._source.failure
        if self._failed is not None:
            reply.failure, reply.message, reply.errno = self._failed
        elif unread is not None:
            reply.failure, reply.message, reply.errno = calls.DISK, str(unread), unread.errno or 0
        elif isinstance(error, asyncio.CancelledError | BodyDropped):
            reply.failure = calls.CANCELLED
        else:
            reply.failure, reply.message, reply.errno = failure_of(error, reply.status != 0)
            reply.error = error if isinstance(error, MfstoreError) else None

    def _checksum(self) -> tuple[str, str] | None:
        """That of the body, if one is wanted. In another thread than the loop's: all of it is read."""
        if self.call.checksum is None:
            return None
        checksum = self._source.checksum(self.call.checksum)
        self.reply.checksum = checksum.pair()
        return checksum.header()

    async def send(self, request: Any, http: HttpSession) -> tuple[int, dict[str, str], bytes]:
        """Send what aiobotocore has prepared and signed, and bring the answer where it belongs. Returns what
        aiobotocore is to see of it: status, headers, and the body if it has landed nowhere."""
        try:
            await self._send(request, http)
        except (Exception, asyncio.CancelledError) as error:
            self._fail(error)
            self._failed = self.reply.failure or calls.INTERNAL, self.reply.message, self.reply.errno
            raise
        self._answered = True
        return self.reply.status, dict(self.reply.headers), self.reply.data or b""

    def finish(self) -> None:
        """Hand the reply over."""
        if self.reply.data is None and not self.reply.announced:
            self.reply.received = self._sink.received
        self._ended(self)

    async def _send(self, request: Any, http: HttpSession) -> None:
        call, reply = self.call, self.reply
        headers = [
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in ("expect", "transfer-encoding")
        ]
        headers.append(("Accept-Encoding", "identity"))
        data: Any = None
        self._sent = True
        if isinstance(request.body, BodySource):
            if self._source.length:
                data, self._sent = self._pieces(), False
        elif request.body is not None:
            data = request.body if isinstance(request.body, bytes | bytearray) else request.body.read()
        reply.submitted = time.monotonic()
        self._wait(calls.CONNECT, http.connect_timeout + call.first_byte)
        response = await http.request(request.method, request.url, headers, data, self)
        whole = False
        try:
            reply.first_byte = time.monotonic()
            reply.status, reply.headers = response.status, read_headers(response.raw_headers)
            self._wait(calls.STALL, call.stall)
            whole = await self._land(response, request.method)
        finally:
            if whole:
                response.release()
            else:
                response.close()

    async def _pieces(self) -> AsyncIterator[bytes]:
        source = self._source
        source.seek(0)
        self.flowed = 0
        while piece := source.read(COPIED_BYTES):
            await self._paced(len(piece))
            self._wait(calls.STALL, self.call.stall)
            yield piece
            self.flowed += len(piece)
        self._sent = True
        self._wait(calls.FIRST_BYTE, self.call.first_byte)

    async def _land(self, response: Any, method: str) -> bool:
        """Bring the body where it belongs. True if the connection is good for another call."""
        call, reply = self.call, self.reply
        size = reply.length
        if not 200 <= reply.status < 300:
            with contextlib.suppress(Exception):  # what the status says counts; the words may be cut
                while self._sink.received < ERROR_BYTES and (chunk := await response.content.readany()):
                    self._sink.grown += chunk
                    self._sink.received += len(chunk)
            reply.data = bytes(self._sink.grown[:ERROR_BYTES])
            reply.received = len(reply.data)
            return bool(response.content.at_eof())
        if method == "HEAD" or reply.status == 204:
            reply.data = b""
            return True
        ranged = call.start is not None or call.stop is not None
        algorithm = call.checksum if ranged else checksum_of_whole(reply.headers)
        checksum = Checksum(algorithm) if algorithm and call.operation == "GetObject" else None
        if call.target is None:
            limit = calls.SHORT_BODY if call.operation == "GetObject" else calls.LONGEST_REPLY
            if (size is None or size <= limit) and await self._read(response, limit, None):
                self._note(checksum, self._sink.grown)
                return self._whole(size)
            if call.operation != "GetObject":
                self._failed = calls.OVERFLOW, "the reply does not end", 0
                raise BodyDropped
            await self._announce()
        elif ranged and reply.status == 200 and size != 0 and "content-range" not in reply.headers:
            self._cut_out()
        sink = self._sink
        room = self._stop if self._stop is not None else sink.room
        assert room is not None
        limit = room
        if size is not None and size - self._skip > limit and self._stop is None:
            self._failed = calls.OVERFLOW, f"{size} bytes for {limit}", 0
            raise BodyDropped
        if checksum is not None:
            checksum.update(self._begun)
        try:
            ended = await self._read(response, limit, checksum)
        finally:
            # Also of a body that breaks: it is continued where it broke, and so is its checksum.
            self._note(checksum, b"")
        if not ended:
            if self._stop is not None:
                return False
            self._failed = calls.OVERFLOW, f"more than {limit} bytes", 0
            raise BodyDropped
        return self._whole(size)

    def _cut_out(self) -> None:
        """The service has ignored the range. Without leave to cut it out, nothing is written to the target."""
        call = self.call
        if not call.cut or (call.start or 0) < 0:
            self._failed = calls.WHOLE, "the whole object came for a range of it", 0
            raise BodyDropped
        self._skip = call.start or 0
        self._stop = None if call.stop is None else call.stop - self._skip

    async def _announce(self) -> None:
        """Hand the decision to the scheduler and wait for it."""
        self._rest()
        self._resumed = asyncio.Event()
        self.announced = True
        reply = self.reply
        told = Reply(self.call, reply.status, headers=reply.headers, announced=True)
        told.reused, told.submitted, told.first_byte = reply.reused, reply.submitted, reply.first_byte
        self._tell(told)
        await self._resumed.wait()
        self._wait(calls.STALL, self.call.stall)

    async def _read(self, response: Any, limit: int, checksum: Checksum | None) -> bool:
        """Read until the end (True) or until there is more than ``limit`` bytes (False)."""
        sink, content = self._sink, response.content
        while chunk := await content.readany():
            self._came(len(chunk))
            await self._paced(len(chunk))
            if self._passed < self._skip:
                passed = min(self._skip - self._passed, len(chunk))
                self._passed += passed
                chunk = chunk[passed:]
            over = sink.received + len(chunk) > limit
            if over and sink.room is not None:
                chunk = chunk[: limit - sink.received]
            if checksum is not None:
                checksum.update(chunk)
            sink.write(chunk)
            if sink.room is not None:
                self.flowed = sink.received
            if over:
                return False
        return True

    def _note(self, checksum: Checksum | None, rest: bytes | bytearray) -> None:
        if checksum is not None:
            checksum.update(rest)
            self.reply.checksum = checksum.pair()

    def _whole(self, size: int | None) -> bool:
        """Check the count and complete the reply. A body that ended early is never passed off as whole."""
        reply, sink = self.reply, self._sink
        came = self._passed + sink.received
        if size is not None and came < size and (self._stop is None or sink.received < self._stop):
            self._failed = calls.TRUNCATED, f"{came} of {size} bytes", 0
            raise BodyDropped
        if sink.room is None:
            reply.data = bytes(sink.grown)
        reply.received = sink.received
        return True
