"""A server that answers as told, byte by byte: for what no well-behaved server does."""

import asyncio
import contextlib
import socket
import struct
import threading


class Wire:
    """``answers`` maps a path to what to do: bytes to send, or a coroutine function (reader, writer, request)."""

    def __init__(self, tls=None):
        self.answers = {}
        self.requests = []
        self.connections = 0
        self._tls = tls
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc):
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    @property
    def url(self):
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def _main(self):
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self._tasks = set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, *lines = head.decode("latin-1").rstrip().split("\r\n")
                method, path, _ = line.split(" ", 2)
                headers = {name.lower(): value for name, value in (part.split(": ", 1) for part in lines)}
                body = b""
                answer = self.answers.get(path.partition("?")[0], respond(404))
                if not getattr(answer, "unread", False):
                    body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = method, path, headers, body
                self.requests.append(request)
                if isinstance(answer, list):
                    answer = answer.pop(0) if len(answer) > 1 else answer[0]
                if callable(answer):
                    await answer(reader, writer, request)
                else:
                    writer.write(answer)
                    await writer.drain()
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await writer.wait_closed()


def respond(status=200, body=b"", length=None, **headers):
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def then_close(data):
    async def answer(reader, writer, request):
        writer.write(data)
        await writer.drain()
        writer.close()

    return answer


def then_reset(data=b""):
    async def answer(reader, writer, request):
        if data:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0.1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return answer


def then_wait(data=b""):
    async def answer(reader, writer, request):
        if data:
            writer.write(data)
            await writer.drain()
        await asyncio.sleep(60)

    return answer


def error_body(code, message="words", **more):
    """An S3 error as XML."""
    extra = "".join(f"<{name}>{value}</{name}>" for name, value in more.items())
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{extra}</Error>".encode()
