"""The engine for whatever the native one cannot do: botocore prepares and signs each request, aiohttp carries it.

That is aiobotocore's stack, one floor down. Signing, endpoints, serialisation and every handler a user registered are
botocore's own, run call by call; HTTP, TLS and proxies are aiohttp's. aiobotocore's client is not in between: it would
parse and buffer bodies, and its HTTP session follows redirects to wherever a server points, session token and all.

The event loop runs in a thread of its own, so that no code of the user's can delay it, nor it them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import select
import threading
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from mfstore.s3 import calls as engine
from mfstore.s3.calls import SHORT_BODY, STALL_BYTES, Call, FileRange, Reply
from mfstore.s3.engines.aiohttp import ERROR_BYTES, open_session, read_headers, words
from mfstore.s3.engines.bodies import PIECE, Checksum, Dropped, Sink, Source, named
from mfstore.s3.engines.interface import Channel, Engine

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane
    from mfstore.s3.aws.routes import SignedRequest

TICK = 0.05  # seconds between looks at the time-outs
SIGNERS = 4  # threads that prepare and sign; one may be waiting for new credentials


class _Flight:
    """A call under way."""

    def __init__(self, call: Call, channel: _Channel) -> None:
        self.call = call
        self.channel = channel
        self.reply = Reply(call)
        self.lock = threading.Lock()
        self.over = False
        self.task: asyncio.Task[None] | None = None
        self.source = Source(call.body, self.lock)
        self.sink = Sink(call.target, self.lock)
        self.stop: int | None = None
        self.before = b""  # of an announced body: what had been read to see that it is long
        self.resumed: asyncio.Event | None = None
        self.deadline = float("inf")
        self.late = engine.STALL
        self.failed: tuple[str, str, int] | None = None
        self.sent = False
        self.trickled = 0  # bytes that came since the time-out began

    def wait(self, failure: str, seconds: float) -> None:
        """Fail with ``failure`` unless there is progress within ``seconds``."""
        self.late = failure
        self.deadline = time.monotonic() + seconds

    def came(self, count: int) -> None:
        """So many bytes of the body came: begin the stall time-out anew once they are enough. Of replies that are no
        object any will do: S3 sends a blank now and then while it puts an upload together or copies an object."""
        self.trickled += count
        if self.trickled >= STALL_BYTES or self.call.operation != "GetObject":
            self.trickled = 0
            self.wait(engine.STALL, self.call.stall)

    def rest(self) -> None:
        """No time-out for now."""
        self.deadline = float("inf")

    def end(self) -> bool:
        """Let go of the caller's memory and files. False if that had happened before."""
        with self.lock:
            if self.over:
                return False
            self.over = True
            self.source.drop()
            self.sink.drop()
            return True


class _Loop(asyncio.SelectorEventLoop):
    """One that knows its connections. A closed one waits until what was written has been taken or, with TLS, until the
    peer says goodbye: for ever, from a peer that takes nothing, and also beyond the end of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self._connections: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()
        self._closing: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        made = await super().create_connection(*args, **kwargs)
        self._connections.add(made[0])
        return made

    def abort_closing(self) -> None:
        """End the connections that were closing at the last call and still are."""
        closing = [connection for connection in self._open() if connection.is_closing()]
        for connection in closing:
            if connection in self._closing:
                connection.abort()
        self._closing = weakref.WeakSet(closing)

    def abort_all(self) -> None:
        """End all connections in the loop's next round."""
        for connection in self._open():
            connection.abort()

    def _open(self) -> list[asyncio.Transport]:
        """Those that hold a socket: others may not be aborted once more."""
        sockets = [(connection, connection.get_extra_info("socket")) for connection in self._connections]
        return [connection for connection, sock in sockets if sock is not None and sock.fileno() >= 0]


class _Room:
    """The loop, its thread and its connections, in one process."""

    def __init__(self, control: ControlPlane) -> None:
        self.pid = os.getpid()
        self.control = control
        self.transport = control.transport()
        self.flights: set[_Flight] = set()
        self.sessions: dict[bool, Any] = {}
        self.signers = ThreadPoolExecutor(SIGNERS, "mfstore-s3-sign")
        self.leaving: asyncio.Task[None] | None = None
        self.loop = _Loop()
        self.loop.set_exception_handler(lambda loop, context: None)  # what fails is told in a reply
        self.thread = threading.Thread(target=self._run, name="mfstore-s3-aio", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        ticker = self.loop.create_task(self._tick())
        try:
            self.loop.run_forever()
        finally:
            ticker.cancel()
            self.loop.run_until_complete(asyncio.gather(ticker, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
            self.signers.shutdown(wait=False, cancel_futures=True)

    async def _tick(self) -> None:
        due = time.monotonic() + TICK
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            self._look(now, now - due)
            self.loop.abort_closing()
            due = now + TICK

    def _look(self, now: float, behind: float) -> None:
        """Fail the calls that are late. No frame that lives on may hold one: an engine goes with its last call."""
        for flight in list(self.flights):
            if behind > 10 * TICK:
                flight.deadline += behind  # this process was held up, not the server
            elif now > flight.deadline and flight.task is not None and flight.failed is None:
                flight.failed = flight.late, "", 0
                flight.task.cancel()

    def session(self, fresh: bool) -> Any:
        """The connections; for ``fresh`` calls, none that served before. In the loop's thread."""
        found = self.sessions.get(fresh)
        if found is None:
            found = self.sessions[fresh] = open_session(self.transport, fresh)
        return found

    def start(self, flights: list[_Flight]) -> None:
        """In the loop's thread."""
        for flight in flights:
            if not flight.over:
                self.flights.add(flight)
                flight.task = self.loop.create_task(self.fly(flight))

    async def fly(self, flight: _Flight) -> None:
        """Carry out a call. Ends with its reply, whatever happens."""
        reply = flight.reply
        try:
            await self._exchange(flight)
        except (Exception, asyncio.CancelledError) as error:
            if flight.failed is not None:
                reply.failure, reply.message, reply.errno = flight.failed
            elif isinstance(error, asyncio.CancelledError | Dropped):
                reply.failure = engine.CANCELLED
            else:
                reply.failure, reply.message, reply.errno = words(error, reply.status != 0)
        finally:
            flight.rest()
            self.flights.discard(flight)
            if reply.data is None and not reply.announced:
                reply.received = flight.sink.received
            flight.channel.ended(flight)

    async def _exchange(self, flight: _Flight) -> None:
        from yarl import URL

        signed, checksum = await self.loop.run_in_executor(self.signers, self._sign, flight)
        call, reply = flight.call, flight.reply
        if checksum is not None:
            reply.checksum = checksum.pair()
        headers = [
            (name, value) for name, value in signed.headers if name.lower() not in ("expect", "transfer-encoding")
        ]
        headers.append(("Accept-Encoding", "identity"))
        data: Any = None
        flight.sent = True
        if isinstance(signed.body, Source):
            if flight.source.length:
                data, flight.sent = self._pieces(flight), False
        elif signed.body is not None:
            data = signed.body if isinstance(signed.body, bytes | bytearray) else signed.body.read()
        reply.submitted = time.monotonic()
        flight.wait(engine.CONNECT, self.transport.connect_timeout + call.first_byte)
        response = await self.session(call.fresh).request(
            signed.method,
            URL(signed.url, encoded=True),
            headers=headers,
            data=data,
            proxy=self.transport.proxy,
            allow_redirects=False,
            trace_request_ctx=flight,
        )
        whole = False
        try:
            reply.first_byte = time.monotonic()
            reply.status, reply.headers = response.status, read_headers(response.raw_headers)
            flight.wait(engine.STALL, call.stall)
            whole = await self._land(flight, response, signed.method)
        finally:
            if whole:
                response.release()
            else:
                response.close()

    def _sign(self, flight: _Flight) -> tuple[SignedRequest, Checksum | None]:
        call, checksum = flight.call, None
        if call.operation not in ("PutObject", "UploadPart"):
            return self.control.signed(call), None
        source = flight.source
        try:
            if call.checksum is not None:
                checksum = Checksum(call.checksum)
                while piece := source.read(PIECE):
                    checksum.update(piece)
                source.seek(0)
            return self.control.signed(call, source, checksum.header() if checksum else None), checksum
        except OSError as error:
            cause = error if error.errno is not None else error.__cause__
            if isinstance(cause, OSError) and cause.errno is not None:
                flight.failed = engine.DISK, str(cause), cause.errno
            raise

    async def _pieces(self, flight: _Flight) -> AsyncIterator[bytes]:
        source = flight.source
        source.seek(0)
        try:
            while piece := source.read(PIECE):
                flight.wait(engine.STALL, flight.call.stall)
                yield piece
        except OSError as error:
            flight.failed = engine.DISK, str(error), error.errno or 0
            raise
        flight.sent = True
        flight.wait(engine.FIRST_BYTE, flight.call.first_byte)

    async def _land(self, flight: _Flight, response: Any, method: str) -> bool:
        """Bring the body where it belongs. True if the connection is good for another call."""
        call, reply = flight.call, flight.reply
        size = reply.length
        if not 200 <= reply.status < 300:
            with contextlib.suppress(Exception):  # what the status says counts; the words may be cut
                while flight.sink.received < ERROR_BYTES and (chunk := await response.content.readany()):
                    flight.sink.grown += chunk
                    flight.sink.received += len(chunk)
            reply.data = bytes(flight.sink.grown[:ERROR_BYTES])
            reply.received = len(reply.data)
            return bool(response.content.at_eof())
        if method == "HEAD" or reply.status == 204:
            reply.data = b""
            return True
        algorithm = call.checksum if call.start is not None or call.stop is not None else named(reply.headers)
        checksum = Checksum(algorithm) if algorithm and call.operation == "GetObject" else None
        if call.target is None:
            if (size is not None and size > SHORT_BODY) or not await self._read(flight, response, SHORT_BODY, None):
                await self._announce(flight)
            else:
                _sum(reply, checksum, flight.sink.grown)
                return _whole(flight, size)
        sink = flight.sink
        limit = flight.stop if flight.stop is not None else sink.room
        assert limit is not None
        if size is not None and size > limit and flight.stop is None:
            flight.failed = engine.OVERFLOW, f"{size} bytes for {limit}", 0
            raise Dropped
        if checksum is not None:
            checksum.update(flight.before)
        try:
            ended = await self._read(flight, response, limit, checksum)
        finally:
            # Also of a body that breaks: it is continued where it broke, and so is its checksum.
            _sum(reply, checksum, b"")
        if not ended:
            if flight.stop is not None:
                return False
            flight.failed = engine.OVERFLOW, f"more than {limit} bytes", 0
            raise Dropped
        return _whole(flight, size)

    async def _announce(self, flight: _Flight) -> None:
        """Hand the decision to the scheduler and wait for it."""
        flight.rest()
        flight.resumed = asyncio.Event()
        told = Reply(flight.call, flight.reply.status, headers=flight.reply.headers, announced=True)
        told.reused, told.submitted, told.first_byte = (
            flight.reply.reused,
            flight.reply.submitted,
            flight.reply.first_byte,
        )
        flight.channel.tell(told)
        await flight.resumed.wait()
        flight.wait(engine.STALL, flight.call.stall)

    async def _read(self, flight: _Flight, response: Any, limit: int, checksum: Checksum | None) -> bool:
        """Read until the end (True) or until there is more than ``limit`` bytes (False)."""
        sink, content = flight.sink, response.content
        while chunk := await content.readany():
            flight.came(len(chunk))
            over = sink.received + len(chunk) > limit
            if over and sink.room is not None:
                chunk = chunk[: limit - sink.received]
            if checksum is not None:
                checksum.update(chunk)
            sink.write(chunk)
            if over:
                return False
        return True

    def end(self) -> None:
        """Have the thread end. Takes no lock: the garbage collector, which calls it for an engine that nobody closed,
        may come in anywhere."""
        if self.pid == os.getpid():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._begin_to_leave)

    def _begin_to_leave(self) -> None:
        self.leaving = self.loop.create_task(self._leave())  # the loop itself keeps none alive

    async def _leave(self) -> None:
        """End all calls and connections; in the loop's thread."""
        try:
            tasks = [flight.task for flight in self.flights if flight.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for session in self.sessions.values():
                await session.close()
            self.loop.abort_all()
        finally:
            self.loop.call_soon(self.loop.stop)


def _sum(reply: Reply, checksum: Checksum | None, rest: bytes | bytearray) -> None:
    if checksum is not None:
        checksum.update(rest)
        reply.checksum = checksum.pair()


def _whole(flight: _Flight, size: int | None) -> bool:
    """Check the count and finish the reply. A body that ended early is never passed off as whole."""
    reply, sink = flight.reply, flight.sink
    if size is not None and sink.received < size and (flight.stop is None or sink.received < flight.stop):
        flight.failed = engine.TRUNCATED, f"{sink.received} of {size} bytes", 0
        raise Dropped
    if sink.room is None:
        reply.data = bytes(sink.grown)
    reply.received = sink.received
    return True


class _Channel(Channel):
    def __init__(self, owner: AioEngine) -> None:
        self._owner = owner
        self._lock = threading.Lock()
        self._flights: dict[Call, _Flight] = {}
        self._done: list[Reply] = []
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._waiter = select.poll()
        self._waiter.register(self._reader, select.POLLIN)
        self._closed = False

    def submit(self, calls: Sequence[Call]) -> None:
        if self._closed:
            raise ValueError("the channel is closed")
        self._owner.control.credentials()  # fails here, in words, rather than in each reply
        room = self._owner.room()
        flights = [_Flight(call, self) for call in calls]
        with self._lock:
            self._flights.update((flight.call, flight) for flight in flights)
        room.loop.call_soon_threadsafe(room.start, flights)

    def poll(self, timeout: float) -> list[Reply]:
        if not self._done:
            self._waiter.poll(max(0.0, timeout) * 1000)
            if self._done and self._flights:
                time.sleep(0.0005)  # others are about to end as well: one turn for all
        with self._lock:
            done, self._done = self._done, []
            if done:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._reader, 64)
        return done

    def resume(self, call: Call, target: memoryview | FileRange, stop: int | None = None) -> None:
        with self._lock:
            flight = self._flights.get(call)
        if flight is None or flight.resumed is None:
            return  # failed or was cancelled meanwhile: its reply is on the way
        room = self._owner.room()
        with flight.lock:
            if flight.over:
                return
            flight.before = bytes(flight.sink.grown)
            flight.sink = Sink(target, flight.lock)
            flight.stop = stop
        room.loop.call_soon_threadsafe(_go_on, flight)

    def cancel(self, call: Call) -> None:
        with self._lock:
            flight = self._flights.get(call)
        if flight is not None:
            self._drop(flight)
            self._halt([flight])

    def fileno(self) -> int:
        return self._reader

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            flights = list(self._flights.values())
        for flight in flights:
            self._drop(flight)
        self._halt(flights)
        with self._lock:
            os.close(self._reader)
            os.close(self._writer)

    def tell(self, reply: Reply) -> None:
        """Put a reply where ``poll`` finds it."""
        with self._lock:
            if self._closed:
                return
            self._done.append(reply)
            if len(self._done) == 1:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._writer, b"\0")

    def ended(self, flight: _Flight) -> None:
        """A flight is over: its reply, unless it was cancelled and has one."""
        if flight.end():
            with self._lock:
                self._flights.pop(flight.call, None)
            flight.reply.finished = time.monotonic()
            self.tell(flight.reply)

    def _drop(self, flight: _Flight) -> None:
        if flight.end():
            with self._lock:
                self._flights.pop(flight.call, None)
            self.tell(Reply(flight.call, failure=engine.CANCELLED, finished=time.monotonic()))

    def _halt(self, flights: list[_Flight]) -> None:
        if not flights:
            return
        room = self._owner.room()

        def halt() -> None:
            for flight in flights:
                if flight.task is not None:
                    flight.task.cancel()

        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the tasks
            room.loop.call_soon_threadsafe(halt)


def _go_on(flight: _Flight) -> None:
    """Start an announced body flowing, after what had been read of it; in the loop's thread."""
    try:
        limit = flight.stop if flight.stop is not None else flight.sink.room
        if flight.before:
            long = limit is not None and len(flight.before) > limit
            flight.before = flight.before[:limit]
            flight.sink.write(flight.before)
            if long and flight.stop is None:
                flight.failed = engine.OVERFLOW, f"more than {limit} bytes", 0
    except Dropped:
        return
    except OSError as error:
        flight.failed = engine.DISK, str(error), error.errno or 0
    if flight.failed is not None and flight.task is not None:
        flight.task.cancel()
    elif flight.resumed is not None:
        flight.resumed.set()


class AioEngine(Engine):
    """See the module. ``control`` is asked for each call's signed request, and once for how to connect.

    Raises what ``ControlPlane.transport`` raises when first used, and Unsupported without aiohttp.
    """

    name = "aiobotocore"

    def __init__(self, control: ControlPlane) -> None:
        self.control = control
        self._room: _Room | None = None
        self._end: weakref.finalize[..., AioEngine] | None = None
        self._lock = (os.getpid(), threading.Lock())

    def channel(self) -> Channel:
        self.room()
        return _Channel(self)

    def room(self) -> _Room:
        """The loop of this process, started if need be."""
        room = self._room
        if room is not None and room.pid == os.getpid():
            return room
        if self._lock[0] != os.getpid():
            self._lock = (os.getpid(), threading.Lock())
        with self._lock[1]:
            room = self._room
            if room is not None and room.pid != os.getpid():
                # The parent's, which lives on: were it collected here, its connections would be taken out of the
                # selector that both processes share.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(room))
                room = None
            if room is None:
                room = self._room = _Room(self.control)
                self._end = weakref.finalize(self, room.end)
                self._end.atexit = False
            return room

    def close(self) -> None:
        room, self._room = self._room, None
        if room is None or room.pid != os.getpid() or self._end is None:
            return
        self._end()  # once, after which nothing holds the room
        room.thread.join(2.0)
