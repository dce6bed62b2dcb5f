"""An HTTP server that answers exactly the bytes a test wants, when it wants."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    head: bytes
    body: bytes = b""


Answer = Callable[["Connection", Request], "bool | None"]


@dataclass
class Connection:
    """One client's connection. Answers return False to have it closed."""

    socket: socket.socket
    number: int
    served: int = 0
    buffer: bytes = b""
    closing: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def reply(self, status: str, headers: list[str], body: bytes = b"") -> None:
        self.send("\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode(), body)

    def hold(self, seconds: float) -> None:
        """Do nothing, but for longer than the server is there."""
        self.closing.wait(seconds)

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def read_head(self) -> bytes | None:
        while b"\r\n\r\n" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                return None
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head

    def read_body(self, n: int) -> bytes:
        parts, have = [self.buffer[:n]], len(self.buffer[:n])
        self.buffer = self.buffer[n:]
        while have < n:
            data = self.socket.recv(1 << 20)
            if not data:
                break
            if have + len(data) > n:
                self.buffer = data[n - have :]
                data = data[: n - have]
            parts.append(data)
            have += len(data)
        return b"".join(parts)


@dataclass
class Server:
    answer: Answer
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0), backlog=2048))
    requests: list[Request] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    read_bodies: bool = True
    tls: object = None
    closing: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._serving: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def origin(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.listener.getsockname()[1]}"

    def close(self) -> None:
        """End every connection, and return when no thread is left."""
        self.closing.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # closing alone wakes nobody who waits in accept, nor in recv
        self._accepting.join()
        self.listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection.socket, socket.SHUT_RDWR)
        for thread in self._serving:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(client, len(self.connections), closing=self.closing)
            self.connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._serving.append(thread)
            thread.start()

    def _serve(self, connection: Connection) -> None:
        try:
            if self.tls is not None:
                wrap = self.tls.wrap_socket  # type: ignore[attr-defined]
                connection.socket = wrap(connection.socket, server_side=True, do_handshake_on_connect=False)
                connection.socket.do_handshake()  # type: ignore[attr-defined]
            while (head := connection.read_head()) is not None:
                first, *lines = head.decode("latin-1").split("\r\n")
                method, path, _ = first.split(" ")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                request = Request(method, path, headers, head)
                if self.read_bodies:
                    request.body = connection.read_body(int(headers.get("content-length", "0")))
                self.requests.append(request)
                if self.answer(connection, request) is False:
                    break
                connection.served += 1
        except (OSError, ValueError):
            pass
        finally:
            with contextlib.suppress(OSError):
                connection.socket.close()
            connection.closed.set()
