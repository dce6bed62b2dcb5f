"""One side of a proxied connection: a socket, plain or with TLS, and what was read from it but not yet used."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import ssl
import struct
import sys

READ_AT_ONCE = 1 << 18
SPLICE_FROM = 1 << 16  # below this a copy is cheaper than two system calls and a pipe
PIPE = 1 << 20
MAX_HEAD = 4 << 20
_SPLICE = sys.platform == "linux"
_SIOCOUTQ = 0x5411


class Broken(Exception):
    """This side of the connection is gone, in the middle of a message."""

    def __init__(self, wire: Wire, reset: bool) -> None:
        super().__init__("reset" if reset else "closed")
        self.wire = wire
        self.reset = reset


class Wire:
    """Plain TCP."""

    plain = True

    def __init__(self, sock: socket.socket) -> None:
        self.loop = asyncio.get_running_loop()
        self.sock = sock
        self.buffer = bytearray()
        self.closed = False
        self._pipe: tuple[int, int] | None = None
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # ---- bytes ----------------------------------------------------------------------------

    async def receive(self, limit: int = READ_AT_ONCE) -> bytes:
        """Some bytes, those read ahead first; none at the end of the stream."""
        if self.buffer:
            data = bytes(self.buffer[:limit])
            del self.buffer[:limit]
            return data
        try:
            return await self._receive(limit)
        except (OSError, ssl.SSLError) as error:
            raise Broken(self, reset=isinstance(error, ConnectionResetError)) from None

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """All of ``data``."""
        try:
            await self._send(data)
        except (OSError, ssl.SSLError):
            raise Broken(self, reset=True) from None

    async def _receive(self, limit: int) -> bytes:
        return await self.loop.sock_recv(self.sock, limit)

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def fill(self) -> bool:
        """Read more into ``buffer``; False at the end of the stream."""
        held, self.buffer = self.buffer, bytearray()
        try:
            data = await self.receive()
        finally:
            self.buffer = held
        self.buffer += data
        return bool(data)

    async def until(self, end: bytes) -> bytes:
        """Everything up to and including ``end``; nothing if the stream ends before its first byte."""
        looked = 0
        while (found := self.buffer.find(end, looked)) < 0:
            looked = max(0, len(self.buffer) - len(end) + 1)
            if len(self.buffer) > MAX_HEAD:
                raise Broken(self, reset=False)
            if not await self.fill():
                if self.buffer:
                    raise Broken(self, reset=False)
                return b""
        data = bytes(self.buffer[: found + len(end)])
        del self.buffer[: found + len(end)]
        return data

    async def move(self, target: Wire | None, count: int, pacer: Pacer | None = None) -> int:
        """Some of the next ``count`` bytes, to ``target`` or to nowhere; 0 at the end of the stream."""
        if _SPLICE and target is not None and self.plain and target.plain and count >= SPLICE_FROM and not self.buffer:
            return await self._splice(target, count, pacer)
        data = await self.receive(min(count, READ_AT_ONCE, pacer.chunk if pacer else READ_AT_ONCE))
        if pacer is not None:
            await pacer.take(len(data))
        if target is not None and data:
            await target.send(data)
        return len(data)

    async def _splice(self, target: Wire, count: int, pacer: Pacer | None) -> int:
        """As ``move``, with the bytes never leaving the kernel: socket, pipe, socket."""
        if self._pipe is None:
            self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # an unprivileged user's pipes may be limited
                fcntl.fcntl(self._pipe[1], fcntl.F_SETPIPE_SZ, PIPE)
        flags = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
        outlet, inlet = self._pipe
        count = min(count, pacer.chunk if pacer else PIPE)
        while True:
            try:
                moved = os.splice(self.sock.fileno(), inlet, count, flags=flags)
                break
            except BlockingIOError:
                await self.readable()
            except OSError as error:
                raise Broken(self, reset=isinstance(error, ConnectionResetError)) from None
        if pacer is not None:
            await pacer.take(moved)
        left = moved
        while left:
            try:
                left -= os.splice(outlet, target.sock.fileno(), left, flags=flags)
            except BlockingIOError:
                await target.writable()
            except OSError:
                raise Broken(target, reset=True) from None
        return moved

    # ---- waiting --------------------------------------------------------------------------

    async def readable(self) -> None:
        """Until the socket has bytes, or has ended."""
        ready = self.loop.create_future()
        self.loop.add_reader(self.sock, _set, ready)
        try:
            await ready
        finally:
            self.loop.remove_reader(self.sock)

    async def writable(self) -> None:
        """Until the socket takes bytes."""
        ready = self.loop.create_future()
        self.loop.add_writer(self.sock, _set, ready)
        try:
            await ready
        finally:
            self.loop.remove_writer(self.sock)

    async def gone(self) -> None:
        """Until the other side has ended its stream. What it sends meanwhile is kept, up to a limit."""
        with contextlib.suppress(OSError):
            while len(self.buffer) <= MAX_HEAD and self._take():
                await self.readable()

    def _take(self) -> bool:
        """Keep what can be read without waiting, so that a cancelled ``gone`` loses no byte; False at the end."""
        try:
            while data := self.sock.recv(READ_AT_ONCE):
                self.buffer += data
        except BlockingIOError:
            return True
        return False

    # ---- endings --------------------------------------------------------------------------

    async def flushed(self) -> None:
        """Until the other side's kernel has what was sent (for a second at most): a reset discards the rest."""
        for _ in range(500):
            try:
                if not struct.unpack("i", fcntl.ioctl(self.sock, _SIOCOUTQ, b"\0\0\0\0"))[0]:
                    return
            except OSError:
                return
            await asyncio.sleep(0.002)

    def reset(self) -> None:
        """End with a TCP reset."""
        if not self.closed:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    async def finish(self) -> None:
        """End the stream to the other side in good order, and give it a second to read what is on the way."""
        if self.closed:
            return
        with contextlib.suppress(OSError, ssl.SSLError):
            await self._goodbye()
            self.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError, Broken):
            async with asyncio.timeout(1):
                while await self.receive():
                    pass
        self.close()

    async def _goodbye(self) -> None:
        pass

    def close(self) -> None:
        """Give the descriptors back."""
        if self.closed:
            return
        self.closed = True
        self.sock.close()
        for fd in self._pipe or ():
            os.close(fd)


class TlsWire(Wire):
    """TLS over TCP, by memory buffers: the plain bytes have to come through here to be altered anyway."""

    plain = False

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_name: str | None) -> None:
        super().__init__(sock)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server_name is None, server_hostname=server_name)
        self._sending = asyncio.Lock()

    async def handshake(self) -> None:
        """Before anything else."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._more()
            except ssl.SSLError:
                await self._flush()  # the alert, which says why
                raise
            else:
                return await self._flush()

    async def _more(self) -> None:
        data = await self.loop.sock_recv(self.sock, READ_AT_ONCE)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    async def _flush(self) -> None:
        async with self._sending:  # two tasks' records must not interleave
            if data := self._out.read():
                await self.loop.sock_sendall(self.sock, data)

    def _take(self) -> bool:
        while True:
            try:
                if not (data := self._tls.read(READ_AT_ONCE)):
                    return False
                self.buffer += data
            except ssl.SSLWantReadError:
                try:
                    received = self.sock.recv(READ_AT_ONCE)
                except BlockingIOError:
                    return True
                if not received:
                    return False
                self._in.write(received)

    async def _receive(self, limit: int) -> bytes:
        parts: list[bytes] = []
        held = 0
        while held < limit:
            try:
                data = self._tls.read(limit - held)
            except ssl.SSLWantReadError:
                if parts:
                    break
                await self._flush()
                await self._more()
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                break
            if not data:
                break
            parts.append(data)
            held += len(data)
        return b"".join(parts)

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view[:READ_AT_ONCE]) :]
            await self._flush()

    async def _goodbye(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        await self._flush()


class Pacer:
    """Holds one direction of one connection to a number of bytes per second."""

    LATE = 0.05
    """A timer that fired this late is made up for; a source that had nothing to send is not."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.chunk = int(min(PIPE, max(1, rate * 0.008)))
        self._due = 0.0

    def start(self) -> None:
        """A new body: time spent idle is no credit."""
        self._due = max(self._due, asyncio.get_running_loop().time())

    async def take(self, count: int) -> None:
        """Until the last of ``count`` bytes would have left."""
        now = asyncio.get_running_loop().time()
        self._due = max(self._due, now - self.LATE) + count / self.rate
        if self._due - now > 0.0005:  # finer than timers are; the debt is kept
            await asyncio.sleep(self._due - now)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
