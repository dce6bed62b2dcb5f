"""The engine on aiobotocore: its session and client prepare and sign each request, aiohttp carries it.

It is what the native engine is compared with: endpoints, serialisation and signatures are none of ours. aiobotocore's
client is given an HTTP session of ours, which is where bodies land, and which follows no redirection.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mfstore._core.descriptor import pipe
from mfstore.host.interrupts import uninterrupted
from mfstore.s3.calls import CANCELLED, Call, FileRange, Reply
from mfstore.s3.engines.event_loop import LoopThread
from mfstore.s3.engines.exchange import Exchange
from mfstore.s3.engines.interface import Channel, Engine
from mfstore.s3.engines.pace import Pace

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane

SECONDS_TO_END = 2.0
"""How long ``close`` waits for the loop's thread."""


class AioEngine(Engine):
    """See the module. ``control`` is asked for aiobotocore's client.

    Raises what ``ControlPlane.aio_client`` raises when first used: Unsupported without aiobotocore.
    """

    name = "aiobotocore"

    def __init__(self, control: ControlPlane, max_bandwidth: float | None = None) -> None:
        self.control = control
        self.pace = Pace(max_bandwidth) if max_bandwidth else None
        self._thread: LoopThread | None = None
        self._end: weakref.finalize[..., AioEngine] | None = None
        self._lock = (os.getpid(), threading.RLock())

    def channel(self) -> Channel:
        """A new channel."""
        self.thread()
        return AioChannel(self)

    def thread(self) -> LoopThread:
        """The loop of this process, started if need be."""
        thread = self._thread
        if thread is not None and thread.pid == os.getpid():
            return thread
        return uninterrupted(self._started)

    def _started(self) -> LoopThread:
        if self._lock[0] != os.getpid():
            self._lock = (os.getpid(), threading.RLock())
        with self._lock[1]:
            thread = self._thread
            if thread is not None and thread.pid != os.getpid():
                # The parent's, which lives on: were it collected here, its connections would be taken out of the
                # selector that both processes share.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(thread))
                thread = None
            if thread is None:
                thread = self._thread = LoopThread(self.control)
                self._end = weakref.finalize(self, thread.end)
                self._end.atexit = False
            return thread

    def close(self) -> None:
        """End the thread; what is under way ends as cancelled. Using the engine again starts a new one."""
        thread, self._thread = self._thread, None
        if thread is None or thread.pid != os.getpid() or self._end is None:
            return
        self._end()  # once, after which nothing holds the thread
        thread.join(SECONDS_TO_END)


class AioChannel(Channel):
    """The calls of one bulk operation: those under way, and the replies that wait for ``poll``.

    The loop's thread takes its lock, and waits for nobody who might wait for the loop: what callers do often is done
    without it, in steps that are each one of a dict's or a deque's own, and the rest where no signal handler comes in.
    """

    def __init__(self, engine: AioEngine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._exchanges: dict[Call, Exchange] = {}
        self._done: deque[Reply] = deque()
        self._told = False
        """Whether ``poll`` has been woken since it last looked."""
        self._reader, self._writer = pipe()
        self._waiter = select.poll()
        self._waiter.register(self._reader, select.POLLIN)
        self._closed = False

    def submit(self, calls: Sequence[Call]) -> None:
        """See ``Channel``. ValueError when the channel is closed."""
        if self._closed:
            raise ValueError("the channel is closed")
        self._engine.control.credentials()  # fails here, in words, rather than in each reply
        thread = self._engine.thread()
        exchanges = {call: Exchange(call, self._tell, self._ended, self._engine.pace) for call in calls}
        self._exchanges.update(exchanges)
        thread.start(list(exchanges.values()))

    def poll(self, timeout: float) -> list[Reply]:
        """See ``Channel``."""
        if not self._done:
            self._waiter.poll(max(0.0, timeout) * 1000)
            if self._done and self._exchanges:
                time.sleep(0.0005)  # others are about to end as well: one turn for all
        # In this order: who tells of another reply between two of these steps wakes the next poll, or is seen below.
        if not self._closed:
            with contextlib.suppress(BlockingIOError):
                os.read(self._reader.fd, 64)
        self._told = False
        done: list[Reply] = []
        with contextlib.suppress(IndexError):
            while True:
                done.append(self._done.popleft())
        return done

    def resume(
        self, call: Call, target: memoryview | FileRange, stop: int | None = None, skip: int = 0
    ) -> None:  # fmt: skip
        """See ``Channel``."""
        exchange = self._exchanges.get(call)
        if exchange is None or not exchange.announced:
            return  # failed or was cancelled meanwhile: its reply is on the way
        thread = self._engine.thread()
        if uninterrupted(exchange.land_in, target, stop, skip):
            thread.flow(exchange)

    def cancel(self, call: Call) -> None:
        """See ``Channel``."""
        exchange = self._exchanges.get(call)
        if exchange is not None:
            uninterrupted(self._drop, exchange)
            self._engine.thread().halt([exchange])

    def flowing(self) -> int:
        """See ``Channel``."""
        return sum(exchange.flowed for exchange in [*self._exchanges.values()])

    def fileno(self) -> int:
        """See ``Channel``."""
        return self._reader.fd

    def close(self) -> None:
        """See ``Channel``."""
        uninterrupted(self._close)

    def _close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            exchanges = list(self._exchanges.values())
        for exchange in exchanges:
            self._drop(exchange)
        if exchanges:
            self._engine.thread().halt(exchanges)
        with self._lock:
            self._reader.close()
            self._writer.close()

    def _tell(self, reply: Reply) -> None:
        """Put a reply where ``poll`` finds it."""
        with self._lock:
            if self._closed:
                return
            self._done.append(reply)
            if not self._told:
                self._told = True
                with contextlib.suppress(BlockingIOError):
                    os.write(self._writer.fd, b"\0")

    def _ended(self, exchange: Exchange) -> None:
        """An exchange is over: its reply, unless it was cancelled and has one."""
        if exchange.end():
            with self._lock:
                self._exchanges.pop(exchange.call, None)
            exchange.reply.finished = time.monotonic()
            self._tell(exchange.reply)

    def _drop(self, exchange: Exchange) -> None:
        if exchange.end():
            with self._lock:
                self._exchanges.pop(exchange.call, None)
            self._tell(Reply(exchange.call, failure=CANCELLED, finished=time.monotonic()))
