"""A proxy in front of an S3 server, or of any HTTP/1.1 server, that delays, breaks and damages on demand.

::

    faults = [NetworkFault(action=Reset(fraction=0.5), method="GET", nth=3), NetworkFault(action=slow_down(), every=10)]
    with FaultProxy("http://127.0.0.1:9000", faults, latency=0.03) as proxy:
        store = mfstore.open("s3://bucket/store", endpoint_url=proxy.url)
        ...
        assert len(proxy.requests("PUT")) == 12

It forwards the bytes it is sent, the Host header among them, so that signatures stay valid if the server takes the
name that the client signed for.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import threading
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from mfstore.testing._flow import RECORD, Flow
from mfstore.testing._sign import Credentials
from mfstore.testing._wire import TlsWire, Wire
from mfstore.testing.exchange import Exchange
from mfstore.testing.network import FaultPlan, NetworkFault

BACKLOG = 1024


class FaultProxy:
    """Listens on a free port of 127.0.0.1, in a thread of its own, from ``with`` (or ``start``) to its end (``close``).

    Args:
        upstream_url: Where the server is, ``http://`` or ``https://``.
        faults: What goes wrong with which requests.
        seed: Of faults with a ``probability``: the same seed hits the same requests.
        latency: Seconds added to each request.
        bandwidth: Bytes per second, at most, of each connection in each direction.
        tls: A server's context, with which the proxy itself speaks https.
        connect_latency: Seconds added to each connection.
        upstream_tls: A client's context for an https server. Default: what the system trusts.
        credentials: Access key, secret key and region, only for ``WrongObject`` with a path and for ``IgnoreRange``.

    Raises:
        OSError: no port could be had; by ``start``.
    """

    def __init__(
        self,
        upstream_url: str,
        faults: Iterable[NetworkFault] = (),
        seed: int = 0,
        latency: float = 0.0,
        bandwidth: float | None = None,
        tls: ssl.SSLContext | None = None,
        *,
        connect_latency: float = 0.0,
        upstream_tls: ssl.SSLContext | None = None,
        credentials: tuple[str, str, str] | None = None,
    ) -> None:
        url = urlsplit(upstream_url)
        self.upstream_url = upstream_url
        self.seed = seed
        self.latency = latency
        self.connect_latency = connect_latency
        self.bandwidth = bandwidth
        self.credentials = Credentials(*credentials) if credentials else None
        self._log: list[Exchange] = []
        self.connections = 0
        """How many connections there have been."""
        self.plan = FaultPlan(faults, seed)
        self._tls = tls
        secure = url.scheme == "https"
        self.upstream = (url.hostname or "127.0.0.1", url.port or (443 if secure else 80))
        self.upstream_tls = (upstream_tls or ssl.create_default_context()) if secure else None
        self._records: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._flows: set[asyncio.Task[None]] = set()
        self._clients: set[Wire] = set()
        self._listener: socket.socket | None = None
        self._holder: socket.socket | None = None
        self._plugs: list[socket.socket] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.port = 0

    # ---- life ---------------------------------------------------------------------------

    def start(self) -> FaultProxy:
        """Listen."""
        # Bound but never listening: keeps the port ours, so that connections are refused while nothing listens on it.
        self._holder = self._bound(0)
        self.port = self._holder.getsockname()[1]
        self._listener = self._bound(self.port)
        self._listener.listen(BACKLOG)
        ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._main(ready),), name="FaultProxy", daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def close(self) -> None:
        """End all connections and give the port back."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None
        if self._holder is not None:
            self._holder.close()

    def __enter__(self) -> FaultProxy:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where clients are to connect."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    # ---- control, from any thread -----------------------------------------------------------

    @property
    def faults(self) -> tuple[NetworkFault, ...]:
        """The plan. Setting it starts all counts anew."""
        return self.plan.faults

    @faults.setter
    def faults(self, faults: Iterable[NetworkFault]) -> None:
        """Another plan."""
        self.plan = FaultPlan(faults, self.seed)

    @property
    def log(self) -> list[Exchange]:
        """Every request so far, in order of arrival."""
        # The client may have its last byte before the proxy has noted that it sent it.
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._call(self._let_finish)
        return list(self._log)

    def requests(self, method: str | None = None, path: str | None = None, query: str | None = None) -> list[Exchange]:
        """The logged requests of a method, and with a path and query that these regular expressions are found in."""
        return [
            entry
            for entry in self.log
            if (method is None or entry.method == method)
            and (path is None or re.search(path, entry.path))
            and (query is None or re.search(query, entry.query))
        ]

    def clear(self) -> None:
        """Forget the log."""
        self._log.clear()
        self.connections = 0

    def stop_listening(self) -> None:
        """Refuse new connections from now on. Those there are stay."""
        self._call(self._stop_listening)

    def stop_answering(self) -> None:
        """Neither accept nor refuse connections from now on, as if packets were lost (on Linux)."""
        self._call(self._stop_answering)

    def start_listening(self) -> None:
        """Accept connections again."""
        self._call(self._start_listening)

    def reset_connections(self) -> None:
        """Reset all connections there are."""
        self._call(self._reset_all)

    @property
    def open_connections(self) -> int:
        """How many connections there are."""
        return len(self._clients)

    # ---- in the loop's thread ---------------------------------------------------------------

    def _bound(self, port: int) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(("127.0.0.1", port))
        return sock

    def _call(self, work: Any) -> None:
        assert self._loop is not None, "not started"

        async def run() -> None:
            await work()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    async def _let_finish(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        if self._listener is not None:
            self._loop.add_reader(self._listener, self._accept)
        ready.set()
        await self._stop.wait()
        await self._stop_listening()
        flows = [*self._flows]
        for flow in flows:
            flow.cancel()
        await asyncio.gather(*flows, return_exceptions=True)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while self._listener is not None:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # no more, or out of descriptors
                return
            sock.setblocking(False)
            self.connections += 1
            wire = TlsWire(sock, self._tls, None) if self._tls else Wire(sock)
            task = loop.create_task(self._serve(wire, self.connections))
            self._flows.add(task)
            task.add_done_callback(self._flows.discard)
            # A task that is cancelled before its first step runs nothing of its own.
            task.add_done_callback(partial(_close, wire))

    async def _serve(self, wire: Wire, number: int) -> None:
        self._clients.add(wire)
        try:
            await Flow(self, wire, number).serve()
        finally:
            wire.close()
            self._clients.discard(wire)

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for sock in self._plugs:
            sock.close()
        self._plugs.clear()

    async def _start_listening(self) -> None:
        await self._stop_listening()
        self._listener = self._bound(self.port)
        self._listener.listen(BACKLOG)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def _stop_answering(self) -> None:
        # A full queue that nobody accepts from: the kernel drops what else comes in.
        await self._stop_listening()
        plug = self._bound(self.port)
        plug.listen(0)
        self._plugs.append(plug)
        for _ in range(3):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", self.port))
            self._plugs.append(sock)

    async def _reset_all(self) -> None:
        current = asyncio.current_task()
        for wire in list(self._clients):
            wire.reset()
        for flow in list(self._flows):
            if flow is not current:
                flow.cancel()

    def restart(self, seconds: float) -> None:
        """Internal, for a flow, which must not wait for its own end: refuse connections for so long."""

        async def again() -> None:
            await self._stop_listening()
            await self._reset_all()
            await asyncio.sleep(seconds)
            await self._start_listening()

        task = asyncio.get_running_loop().create_task(again())
        self._flows.add(task)
        task.add_done_callback(self._flows.discard)

    def note(self, exchange: Exchange) -> None:
        """Internal, for a flow: log a request that came."""
        self._log.append(exchange)

    def record(self, exchange: Exchange, data: bytes) -> None:
        """Internal, for a flow: remember a response."""
        self._records[exchange.method, exchange.path] = data
        self._records.move_to_end((exchange.method, exchange.path))
        while len(self._records) > 2 and sum(map(len, self._records.values())) > 4 * RECORD:
            self._records.popitem(last=False)

    def earlier(self, method: str, path: str) -> bytes | None:
        """Internal, for a flow: the latest response to a request of the same method for another path."""
        for (other_method, other_path), data in reversed(self._records.items()):
            if other_method == method and other_path != path:
                return data
        return None


def _close(wire: Wire, _: object) -> None:
    wire.close()
