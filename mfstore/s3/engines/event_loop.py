"""The event loop of the aiobotocore engine, in a thread of its own: no code of the user's can delay it, nor it them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from mfstore.s3.engines.aiohttp import HttpSession
from mfstore.s3.engines.exchange import Exchange, sending

if TYPE_CHECKING:
    from mfstore.s3.aws.aio_client import AioClient
    from mfstore.s3.aws.interface import ControlPlane

TICK_SECONDS = 0.05  # between looks at the time-outs
THREADS = 6  # they make checksums, and look names up; one may be waiting for new credentials


class _ConnectionLoop(asyncio.SelectorEventLoop):
    """One that knows its connections. A closed one waits until what was written has been taken or, with TLS, until the
    peer says goodbye: for ever, from a peer that takes nothing, and also beyond the end of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self._aside = _Threads()
        self._connections: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()
        self._closing: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        made = await super().create_connection(*args, **kwargs)
        self._connections.add(made[0])
        return made

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """``func`` in a thread of this loop's own, whatever ``executor`` is."""
        future = self.create_future()
        self._aside.run(self, future, func, args)
        return future

    def close(self) -> None:
        super().close()
        self._aside.end()

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


class _Threads:
    """What blocks, for a loop. Not the library's pools: a thread that a signal handler interrupted may hold a lock of
    all of them, and then the loop, for which the handler waits, would wait for that thread."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._started = 0
        self._idle: list[None] = []

    def run(self, loop: asyncio.AbstractEventLoop, future: Any, function: Callable[..., Any], args: Any) -> None:
        """Have ``future`` be what ``function`` returns or raises. In the loop's thread."""

        def settle(value: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)

        def task() -> None:
            value, error = None, None
            if not future.cancelled():
                try:
                    value = function(*args)
                except BaseException as raised:
                    error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, value, error)

        self._tasks.put(task)
        if self._started < THREADS and self._tasks.qsize() > len(self._idle):
            threading.Thread(target=_work, args=(self._tasks, self._idle), name="mfstore-s3-aside", daemon=True).start()
            self._started += 1

    def end(self) -> None:
        """What has not begun never does."""
        with contextlib.suppress(Empty):
            while True:
                self._tasks.get_nowait()
        for _ in range(self._started):
            self._tasks.put(None)


def _work(tasks: SimpleQueue[Callable[[], None] | None], idle: list[None]) -> None:
    while True:
        idle.append(None)
        task = tasks.get()
        idle.pop()
        if task is None:
            return
        task()
        del task  # holds the caller's memory


class LoopThread:
    """A thread that runs an event loop, aiobotocore's client, and the exchanges under way on its connections. Of one
    process: a forked child has neither the thread nor the right to use the connections.

    Raises what ``ControlPlane.aio_client`` raises.
    """

    def __init__(self, control: ControlPlane) -> None:
        self.pid = os.getpid()
        self._client = control.aio_client(HttpSession, sending)
        self._opening: asyncio.Task[AioClient] | None = None
        self._exchanges: set[Exchange] = set()
        self._leaving: asyncio.Task[None] | None = None
        self._loop = _ConnectionLoop()
        self._loop.set_exception_handler(lambda loop, context: None)  # what fails is told in a reply
        self._thread = threading.Thread(target=self._run, name="mfstore-s3-aio", daemon=True)
        self._thread.start()

    # From any thread -------------------------------------------------------------------------------------------------

    def start(self, exchanges: Sequence[Exchange]) -> None:
        """Carry the exchanges out. Raises RuntimeError when the loop has ended."""
        self._loop.call_soon_threadsafe(self._begin, exchanges)

    def flow(self, exchange: Exchange) -> None:
        """Let an announced body flow to where it was told to go. Raises RuntimeError when the loop has ended."""
        self._loop.call_soon_threadsafe(exchange.flow)

    def halt(self, exchanges: Sequence[Exchange]) -> None:
        """Cancel what runs the exchanges."""

        def halt() -> None:
            for exchange in exchanges:
                if exchange.task is not None:
                    exchange.task.cancel()

        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the tasks
            self._loop.call_soon_threadsafe(halt)

    def end(self) -> None:
        """Have the thread end. Takes no lock: the garbage collector, which calls it for an engine that nobody closed,
        may come in anywhere."""
        if self.pid == os.getpid():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._begin_to_leave)

    def join(self, seconds: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(seconds)

    # In the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        ticker = self._loop.create_task(self._tick())
        try:
            self._loop.run_forever()
        finally:
            ticker.cancel()
            self._loop.run_until_complete(asyncio.gather(ticker, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _tick(self) -> None:
        due = time.monotonic() + TICK_SECONDS
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            self._check(now, now - due)
            self._loop.abort_closing()
            due = now + TICK_SECONDS

    def _check(self, now: float, behind: float) -> None:
        """Fail the calls that are late. No frame that lives on may hold one: an engine goes with its last call."""
        held_up = behind if behind > 10 * TICK_SECONDS else 0.0
        for exchange in list(self._exchanges):
            exchange.check(now, held_up)

    def _begin(self, exchanges: Sequence[Exchange]) -> None:
        for exchange in exchanges:
            if not exchange.over:
                self._exchanges.add(exchange)
                exchange.task = self._loop.create_task(self._carry_out(exchange))

    async def _carry_out(self, exchange: Exchange) -> None:
        try:
            await exchange.run(self._opened())
        finally:
            self._exchanges.discard(exchange)
            exchange.finish()

    async def _opened(self) -> AioClient:
        """The client, made for the first exchange."""
        task = self._opening
        if task is None or (task.done() and task.exception() is not None):
            task = self._opening = self._loop.create_task(self._open())
        return await asyncio.shield(task)  # others wait for it as well

    async def _open(self) -> AioClient:
        await self._client.open()
        return self._client

    def _begin_to_leave(self) -> None:
        self._leaving = self._loop.create_task(self._leave())  # the loop itself keeps none alive

    async def _leave(self) -> None:
        """End all calls and connections."""
        try:
            tasks = [exchange.task for exchange in self._exchanges if exchange.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._opening is not None:
                await asyncio.gather(self._opening, return_exceptions=True)
            await self._client.close()
            self._loop.abort_all()
        finally:
            self._loop.call_soon(self._loop.stop)
