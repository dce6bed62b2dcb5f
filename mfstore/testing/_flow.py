"""One connection through the proxy, from accept to close, request by request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Mapping
from typing import NoReturn, Protocol

from mfstore.testing import _sign
from mfstore.testing._http import ENDLESS, Body, Head
from mfstore.testing._wire import Broken, Pacer, TlsWire, Wire
from mfstore.testing.exchange import Exchange, Fault, draw

RECORD = 8 << 20


class ChoosesFaults(Protocol):
    """Which fault hits a request, or a new connection."""

    @property
    def records(self) -> bool:
        """Whether some action needs the responses to earlier requests."""

    def choose(self, exchange: Exchange | None) -> Fault | None:
        """The fault for this request, or for a new connection if there is none yet."""


class Proxy(Protocol):
    """What a flow needs of the proxy that accepted its connection."""

    seed: int
    latency: float
    connect_latency: float
    bandwidth: float | None
    credentials: _sign.Credentials | None
    upstream: tuple[str, int]
    """Host and port of the server."""
    upstream_tls: ssl.SSLContext | None

    @property
    def plan(self) -> ChoosesFaults:
        """The faults."""

    def note(self, exchange: Exchange) -> None:
        """Log a request that came."""

    def record(self, exchange: Exchange, data: bytes) -> None:
        """Remember a response for ``earlier``."""

    def earlier(self, method: str, path: str) -> bytes | None:
        """The latest response to a request of the same method for another path."""

    def restart(self, seconds: float) -> None:
        """Reset all connections, and refuse new ones for so long."""


class Hangup(Exception):
    """The connection is over, or to be ended in good order."""


class Flow:
    """One request on its way through the proxy: what an ``Action`` can look at, change and do.

    ``request`` and ``response`` are heads, which it may edit; ``request_body`` and ``response_body`` can be given
    events at offsets (``at``). ``response`` is there only in ``Action.after``.
    """

    request: Head
    response: Head
    request_body: Body
    response_body: Body
    exchange: Exchange

    def __init__(self, proxy: Proxy, client: Wire, number: int) -> None:
        self.proxy = proxy
        self.client = client
        self.number = number
        self.turn = 0
        self.upstream: Wire | None = None
        self.answered = False
        self.closing = False
        self._down = Pacer(proxy.bandwidth) if proxy.bandwidth else None
        self._up = Pacer(proxy.bandwidth) if proxy.bandwidth else None

    # ---- for actions --------------------------------------------------------------------

    def reset(self) -> NoReturn:
        """Reset the client's connection."""
        self.client.reset()
        raise Hangup

    async def flush_and_reset(self) -> None:
        """Reset the client's connection once the client has what was sent so far."""
        await self.client.flushed()
        self.reset()

    async def finish(self, clean: bool = True) -> None:
        """End the connection in good order; with TLS, if not ``clean``, without saying so first."""
        if not clean:
            self.client.sock.shutdown(socket.SHUT_WR)
        raise Hangup

    async def stall(self, seconds: float | None) -> None:
        """Wait, but not for a client that has gone."""
        if self.request_is_in:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.client.gone()
                raise Hangup
        else:
            await asyncio.sleep(1e9 if seconds is None else seconds)

    async def send(self, data: bytes) -> None:
        """Send the client this instead of the response."""
        self.answered = True
        await self.client.send(data)

    async def noise(self, data: bytes) -> None:
        """Send the client this ahead of the response."""
        await self.client.send(data)

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes, consume: bool = True) -> None:
        """Send the client a response of the proxy's own."""
        if hasattr(self, "response_body"):
            await self.response_body.relay(None)
        elif consume:
            if "100-continue" in self.request.get("Expect").lower():
                await self.client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await self.request_body.relay(None)
        else:
            self.closing = True
        fields = {"Content-Length": str(len(body)), "x-amz-request-id": "FAULT", **headers}
        if body and "Content-Type" not in fields:
            fields["Content-Type"] = "application/xml"
        if self.closing:
            fields["Connection"] = "close"
        text = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        head = f"HTTP/1.1 {status} Fault\r\n{text}\r\n".encode("latin-1")
        self.exchange.status = status
        await self.send(head if self.exchange.method == "HEAD" or status in (204, 304) else head + body)

    async def collect(self) -> bytes:
        """The whole response, with a Content-Length."""
        data = await self.response_body.collect()
        if self.response_body.chunked:
            self.response.set("Transfer-Encoding", None)
            self.response.set("Content-Length", str(len(data)))
        return self.response.raw + data

    def draw(self) -> float:
        """A number in [0, 1) that depends on the seed and on the request's place among all."""
        return draw(self.proxy.seed, self.exchange.method, self.exchange.path, self.number, self.turn)

    def earlier(self) -> bytes | None:
        """The latest answer to a request of the same method for another path."""
        return self.proxy.earlier(self.exchange.method, self.exchange.path)

    def resign(self, path: str | None = None, drop: str | None = None) -> None:
        """Change the request, and sign it again; without credentials, only if the change is not signed."""
        _sign.change(self.request, self.proxy.credentials, path, drop)

    @property
    def request_is_in(self) -> bool:
        """Whether the client has sent all of its request, so that more can only be its end or its next request."""
        body = getattr(self, "request_body", None)
        return body is None or (body.passed == body.length and not body.chunked)

    # ---- the connection -------------------------------------------------------------------

    async def serve(self) -> None:
        """Until one side ends it."""
        try:
            await self._connected()
            while await self._exchange():
                pass
            await self.client.finish()
        except Hangup:
            await self.client.finish()
        except Broken as error:
            # What one side did, the other side sees.
            if error.reset or error.wire is self.client:
                self.client.reset()
            else:
                await self.client.finish()
        except (OSError, ssl.SSLError):
            self.client.reset()
        finally:
            self.client.close()
            if self.upstream is not None:
                self.upstream.close()

    async def _connected(self) -> None:
        if fault := self.proxy.plan.choose(None):
            await fault.action.before(self)
        if self.proxy.connect_latency:
            await asyncio.sleep(self.proxy.connect_latency)
        if isinstance(self.client, TlsWire):
            await self.client.handshake()

    async def _connect(self) -> Wire:
        """The connection to the server, which lives and dies with the client's."""
        if self.upstream is None:
            proxy = self.proxy
            sock = socket.socket(socket.AF_INET6 if ":" in proxy.upstream[0] else socket.AF_INET)
            sock.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(sock, proxy.upstream)
            except BaseException:
                sock.close()
                raise
            if proxy.upstream_tls is None:
                self.upstream = Wire(sock)
            else:
                self.upstream = tls = TlsWire(sock, proxy.upstream_tls, proxy.upstream[0])
                await tls.handshake()
        return self.upstream

    async def _next(self) -> bytes:
        """The next request's head; nothing if either side has ended the connection."""
        if self.upstream is None or self.client.buffer:
            return await self.client.until(b"\r\n\r\n")
        request = asyncio.ensure_future(self.client.until(b"\r\n\r\n"))
        gone = asyncio.ensure_future(self.upstream.gone())
        try:
            await asyncio.wait((request, gone), return_when=asyncio.FIRST_COMPLETED)
            return request.result() if request.done() else b""
        finally:
            await _cancel(request, gone)

    async def _exchange(self) -> bool:
        """One request and its response; whether there can be another on this connection."""
        try:
            raw = await self._next()
        except Broken as error:
            raise Hangup from error
        if not raw:
            return False
        self.turn += 1
        self.answered = False
        self.__dict__.pop("response_body", None)
        self.request = Head.parse(raw)
        self.request_body = Body.of_request(self.request, self.client)
        self.request_body.pacer = self._up
        self.exchange = exchange = self._entry()
        fault = exchange.fault = self.proxy.plan.choose(exchange)
        self.proxy.note(exchange)
        if self.proxy.latency:
            await asyncio.sleep(self.proxy.latency)
        try:
            if fault is not None:
                await fault.action.before(self)
            if not self.answered:
                await self._forward()
        finally:
            exchange.request_bytes = self.request_body.passed
            if hasattr(self, "response_body"):
                exchange.response_bytes = self.response_body.passed
        exchange.finished = time.monotonic()
        return not self.closing

    def _entry(self) -> Exchange:
        words = [*self.request.line.split(" "), "", ""]
        path, _, query = words[1].partition("?")
        headers: dict[str, str] = {}
        for name, value in self.request.fields:
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        return Exchange(words[0], path, query, headers, self.number, self.turn, time.monotonic())

    async def _forward(self) -> None:
        upstream = await self._connect()
        body = self.request_body
        if body.simple:
            await upstream.send(self.request.raw + await body.whole())
            await self._respond(upstream)
            return
        await upstream.send(self.request.raw)
        # The server may answer, with 100 Continue or an error, while the client is still sending.
        sending = asyncio.ensure_future(self._send_body(upstream))
        answer = asyncio.ensure_future(self._respond(upstream))
        try:
            await asyncio.wait((sending, answer), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            await answer
            if self.request.get("Expect") and not body.passed:
                self.closing = True  # refused before the body, which the client may now send or not
            if not self.closing:
                await sending
        finally:
            await _cancel(sending, answer)

    async def _send_body(self, upstream: Wire) -> None:
        try:
            await self.request_body.relay(upstream)
        except Broken as error:
            if error.wire is self.client:
                raise
            # The server does not want the rest, and has perhaps said why.
            self.closing = True

    async def _respond(self, upstream: Wire) -> None:
        exchange = self.exchange
        while True:
            raw = await upstream.until(b"\r\n\r\n")
            if not raw:
                raise Broken(upstream, reset=False)
            head = Head.parse(raw)
            if head.status >= 200 or head.status == 101:
                break
            await self.client.send(raw)
        self.response = head
        exchange.upstream_status = exchange.status = head.status
        if head.closes or self.request.closes:
            self.closing = True
        self.response_body = body = Body.of_response(head, exchange.method, upstream)
        body.pacer = self._down
        if body.until_close:
            self.closing = True
        if exchange.fault is not None:
            exchange.status = None
            await exchange.fault.action.after(self)
            exchange.status = exchange.status or self.response.status
        if self.answered:
            return
        recordable = exchange.fault is None or exchange.fault.action.wants_record
        if self.proxy.plan.records and recordable and (body.length or ENDLESS) <= RECORD and head.status in (200, 206):
            data = await self.collect()
            self.proxy.record(exchange, data)
            await self.client.send(data)
        elif body.simple:
            await self.client.send(head.raw + await body.whole())
        else:
            await self.client.send(head.raw)
            await body.relay(self.client)


async def _cancel(*tasks: asyncio.Future[bytes] | asyncio.Future[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
