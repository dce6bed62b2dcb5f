"""Proxies that make tunnels: HTTP's CONNECT, also under TLS, and SOCKS 4, 4a and 5."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass, field


class Refused(Exception):
    """The client was told so."""


@dataclass
class Tunnel:
    """What one client asked for."""

    host: str
    port: int
    user: str = ""
    head: bytes = b""
    """CONNECT's, with all its headers."""


@dataclass
class Proxy:
    """Takes any name for a name of this machine. ``answer``: what is said to CONNECT instead of making the tunnel;
    ``interim``: what is said before it is made."""

    scheme: str
    tls: ssl.SSLContext | None = None
    answer: bytes | None = None
    interim: bytes = b""
    refuses: bool = False
    """What SOCKS is asked for."""
    tunnels: list[Tunnel] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exception: object) -> None:
        for each in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()

    def url(self, user: str = "") -> str:
        return f"{self.scheme}://{user}127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                self._run(self._serve, client)

    def _run(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self.tls is not None:
                client = self.tls.wrap_socket(client, server_side=True)
                self._sockets.append(client)
            tunnel = self._connect(client) if self.scheme.startswith("http") else self._socks(client)
            upstream = socket.create_connection(("127.0.0.1", tunnel.port))
            self._sockets.append(upstream)
            self._established(client)
            self._run(self._pump, upstream, client)
            self._pump(client, upstream)
        except (OSError, Refused):
            with contextlib.suppress(OSError):
                client.close()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(target, socket.SHUT_RDWR)

    def _connect(self, client: socket.socket) -> Tunnel:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += exactly(client, 1)
        method, place, version = head.split(b"\r\n")[0].decode().split(" ")
        assert method == "CONNECT" and version in ("HTTP/1.0", "HTTP/1.1")  # the former is http.client's
        host, _, port = place.rpartition(":")
        self.tunnels.append(Tunnel(host, int(port), head=head))
        if self.answer is not None:
            client.sendall(self.answer)
            raise Refused
        return self.tunnels[-1]

    def _socks(self, client: socket.socket) -> Tunnel:
        if exactly(client, 1) == b"\x04":
            _, *port = exactly(client, 3)
            address, user, host = exactly(client, 4), terminated(client), ""
            if address[:3] == b"\0\0\0":
                host = terminated(client)
            tunnel = Tunnel(host or socket.inet_ntoa(address), int.from_bytes(bytes(port), "big"), user)
            refusal = b"\0\x5b" + bytes(6)
        else:
            methods, user = exactly(client, exactly(client, 1)[0]), ""
            if 2 in methods:
                client.sendall(b"\x05\x02")
                exactly(client, 1)
                user = exactly(client, exactly(client, 1)[0]).decode()
                user += ":" + exactly(client, exactly(client, 1)[0]).decode()
                client.sendall(b"\x01\0")
            else:
                client.sendall(b"\x05\0")
            kind = exactly(client, 4)[3]
            if kind == 3:
                host = exactly(client, exactly(client, 1)[0]).decode()
            else:
                family = socket.AF_INET if kind == 1 else socket.AF_INET6
                host = socket.inet_ntop(family, exactly(client, 4 if kind == 1 else 16))
            tunnel = Tunnel(host, int.from_bytes(exactly(client, 2), "big"), user)
            refusal = b"\x05\x02\0\x01" + bytes(6)
        self.tunnels.append(tunnel)
        if self.refuses:
            client.sendall(refusal)
            raise Refused
        return tunnel

    def _established(self, client: socket.socket) -> None:
        match self.scheme.rstrip("ah"):
            case "socks4":
                client.sendall(b"\0\x5a" + bytes(6))
            case "socks5":
                client.sendall(b"\x05\0\0\x01" + bytes(6))
            case _:
                client.sendall(self.interim + b"HTTP/1.1 200 Connection established\r\nVia: a proxy\r\n\r\n")


def exactly(client: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        more = client.recv(n - len(data))
        if not more:
            raise Refused
        data += more
    return data


def terminated(client: socket.socket) -> str:
    """Up to a NUL."""
    data = b""
    while not data.endswith(b"\0"):
        data += exactly(client, 1)
    return data[:-1].decode()
