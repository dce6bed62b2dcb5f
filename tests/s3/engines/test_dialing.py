"""The native engine: how it comes to a connection, through proxies and TLS, and what is said when it does not."""

from __future__ import annotations

import _ssl
import base64
import contextlib
import ctypes
import os
import pty
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mfstore.s3.aws.routes import Transport
from mfstore.s3.calls import Call, Reply
from tests.rigs.native_engine import Rig, ask, body_of, drain, get
from tests.rigs.proxies import Proxy, Tunnel
from tests.rigs.raw_server import Connection, Request, Server
from tests.servers.base import Authority

LARGE = bytes(range(256)) * 8192


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def serve(rig: Rig, authority: Authority | None = None, data: bytes = b"hello") -> Server:
    server = Server(body_of(data), tls=authority and authority.server_context())
    rig.servers.append(server)
    return server


def port(server: Server) -> int:
    return int(server.listener.getsockname()[1])


def trusting(authority: Authority, **more: object) -> Transport:
    return Transport(ca_file=authority.ca_file, threads=1, **more)  # type: ignore[arg-type]


def is_whole(reply: Reply) -> bool:
    return reply.failure is None and reply.data == b"hello"


SCHEMES = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"]


class TestTunnels:
    @pytest.mark.parametrize(
        ("scheme", "secure"), [(scheme, True) for scheme in SCHEMES] + [(scheme, False) for scheme in SCHEMES[2:]]
    )
    def test_to_an_origin(self, rig: Rig, authority: Authority, scheme: str, secure: bool) -> None:
        """Also TLS within TLS. A name is the proxy's to look up, but with SOCKS 4 and 5 as libcurl knows them. For what
        HTTP proxies do for an http origin, which is no tunnel, see TestRelays."""
        server = serve(rig, authority if secure else None)
        context = authority.server_context() if scheme == "https" else None
        with Proxy(scheme, tls=context) as proxy:
            transport = trusting(authority, proxy=proxy.url())
            channel = rig.to(f"{'https' if secure else 'http'}://localhost:{port(server)}", transport=transport)
            assert [is_whole(ask(channel, get())) for _ in range(3)] == [True] * 3
            (tunnel,) = proxy.tunnels
            ours = (
                tunnel.host == "localhost" if not scheme.endswith(("4", "5")) else tunnel.host in ("127.0.0.1", "::1")
            )
            assert ours and tunnel.port == port(server)

    @pytest.mark.second
    @pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
    def test_large_bodies(self, rig: Rig, authority: Authority, scheme: str) -> None:
        server = serve(rig, authority, LARGE)
        context = authority.server_context() if scheme == "https" else None
        with Proxy(scheme, tls=context) as proxy:
            channel = rig.to(server.origin, transport=trusting(authority, proxy=proxy.url()))
            target = bytearray(len(LARGE))
            assert ask(channel, get(target=memoryview(target))).failure is None and target == LARGE
            assert ask(channel, Call("PutObject", "b", "k", body=[LARGE])).failure is None
            assert server.requests[-1].body == LARGE

    @pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
    def test_user_and_password(self, rig: Rig, authority: Authority, scheme: str) -> None:
        server = serve(rig, authority)
        context = authority.server_context() if scheme == "https" else None
        with Proxy(scheme, tls=context) as proxy:
            transport = trusting(authority, proxy=proxy.url("ann%40home:pass%20%3A%2Fword@"))
            assert is_whole(ask(rig.to(server.origin, transport=transport), get()))
            (tunnel,) = proxy.tunnels
            assert said(tunnel) == "ann@home:pass :/word"
        assert b"proxy-authorization" not in server.requests[0].head.lower()

    def test_nothing_of_the_request_is_shown_to_the_proxy(self, rig: Rig, authority: Authority) -> None:
        server = serve(rig, authority)
        with Proxy("http") as proxy:
            ask(rig.to(server.origin, transport=trusting(authority, proxy=proxy.url())), get())
            names = [line.partition(b":")[0].lower() for line in proxy.tunnels[0].head.split(b"\r\n")[1:-2]]
        assert b"host" in names and not {b"authorization", b"x-amz-date"} & set(names)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.0 403 Forbidden\r\n\r\n<html>",
            b"HTTP/1.1 200 OK\r\n",
            b"220 mail.example ESMTP\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" * 12_000,
            b"HTTP/1.1 200 OK\r\n\r\nX",
            b"X" * 300_000,
            b"",
        ],
        ids=["407", "403", "cut", "mail", "101", "100", "100-403", "interims", "more", "endless", "silent"],
    )
    def test_refused(self, rig: Rig, authority: Authority, scheme: str, answer: bytes) -> None:
        server = serve(rig, authority)
        context = authority.server_context() if scheme == "https" else None
        with Proxy(scheme, tls=context, answer=answer) as proxy:
            reply = ask(rig.to(server.origin, transport=trusting(authority, proxy=proxy.url())), get())
        assert reply.failure == "proxy" and not server.requests

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_interim_answers(self, rig: Rig, authority: Authority, scheme: str) -> None:
        server = serve(rig, authority)
        context = authority.server_context() if scheme == "https" else None
        interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        with Proxy(scheme, tls=context, interim=interim) as proxy:
            reply = ask(rig.to(server.origin, transport=trusting(authority, proxy=proxy.url())), get())
        assert reply.status == 200 and len(proxy.tunnels) == 1

    @pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443), ("socks5h", 1080)])
    def test_a_port_that_is_not_said(self, rig: Rig, authority: Authority, scheme: str, port: int) -> None:
        """Nothing connects to that address, and who tries is told the port."""
        reply = ask(rig.to("http://a:1", transport=trusting(authority, proxy=f"{scheme}://255.255.255.255")), get())
        assert reply.failure == "proxy"
        # As libcurl 7 and 8 say it. The 8.21 of wheels names of a proxy for SOCKS the address alone.
        said = [f"255.255.255.255{between}{port} " for between in (" port ", ":")]
        said += ["over proxy 255.255.255.255 "] if scheme == "socks5h" else []
        assert any(words in reply.message for words in said)

    @pytest.mark.parametrize("scheme", ["socks4", "socks5h"])
    def test_refused_by_socks(self, rig: Rig, authority: Authority, scheme: str) -> None:
        server = serve(rig, authority)
        with Proxy(scheme, refuses=True) as proxy:
            reply = ask(rig.to(server.origin, transport=trusting(authority, proxy=proxy.url())), get())
        assert reply.failure == "proxy" and not server.requests

    @pytest.mark.parametrize("place", ["http://", "http://[::1", "http://a:b:c", "ftp://127.0.0.1:1", "socks5://"])
    def test_no_proxy_at_all(self, rig: Rig, authority: Authority, place: str) -> None:
        assert ask(rig.to("http://localhost:1", transport=trusting(authority, proxy=place)), get()).failure == "proxy"

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_no_proxy_is_there(self, rig: Rig, authority: Authority, scheme: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            place = f"{scheme}://127.0.0.1:{free.getsockname()[1]}"
        for origin in "http://localhost:1", "https://localhost:1":
            reply = ask(rig.to(origin, transport=trusting(authority, proxy=place)), get())
            assert reply.failure == "proxy"
        reply = ask(rig.to(origin, transport=trusting(authority, proxy=f"{scheme}://no-such-host.invalid:80")), get())
        assert reply.failure in (["proxy"] if scheme.startswith("http") else ["proxy", "dns"])


def said(tunnel: Tunnel) -> str:
    """User and password."""
    for line in tunnel.head.split(b"\r\n"):
        if line.lower().startswith(b"proxy-authorization: basic "):
            return base64.b64decode(line.split()[-1]).decode()
    return tunnel.user


class TestRelays:
    """An http origin by way of an HTTP proxy: it sees the requests."""

    @pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
    def test_requests_name_the_origin(self, rig: Rig, authority: Authority, secure: bool) -> None:
        proxy = serve(rig, authority if secure else None)
        channel = rig.to("http://s3.example:81", transport=trusting(authority, proxy=proxy.origin))
        assert [is_whole(ask(channel, get())) for _ in range(2)] == [True] * 2
        first = proxy.requests[0].head
        assert first.startswith(b"GET http://s3.example:81/b/k HTTP/1.1\r\nHost: s3.example:81\r\n")
        assert b"proxy-authorization" not in first.lower() and len(proxy.connections) == 1

    @pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
    def test_user_and_password(self, rig: Rig, authority: Authority, secure: bool) -> None:
        proxy = serve(rig, authority if secure else None)
        place = proxy.origin.replace("://", "://ann%40home:pass%20%3Aword@")
        channel = rig.to("http://s3.example", transport=trusting(authority, proxy=place))
        assert is_whole(ask(channel, get())) and is_whole(ask(channel, get()))
        for request in proxy.requests:
            kind, _, text = request.headers["proxy-authorization"].partition(" ")
            assert (kind, base64.b64decode(text)) == ("Basic", b"ann@home:pass :word")


class TestTrust:
    @pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
    def test_names(self, rig: Rig, authority: Authority, name: str) -> None:
        server = serve(rig, authority)
        assert is_whole(ask(rig.to(f"https://{name}:{port(server)}", transport=trusting(authority)), get()))

    def test_the_server_is_told_which_name_is_meant(self, rig: Rig, authority: Authority) -> None:
        context, names = authority.server_context(), []
        context.sni_callback = lambda _, name, __: names.append(name)
        server = Server(body_of(b"hello"), tls=context)
        rig.servers.append(server)
        for name in "localhost", "127.0.0.1":
            assert is_whole(ask(rig.to(f"https://{name}:{port(server)}", transport=trusting(authority)), get()))
        assert names == ["localhost", None]

    def test_a_proxy_that_is_not_trusted(self, rig: Rig, authority: Authority, tmp_path: Path) -> None:
        other = Authority(tmp_path)
        server = serve(rig, authority)
        with Proxy("https", tls=other.server_context()) as proxy:
            reply = ask(rig.to(server.origin, transport=trusting(authority, proxy=proxy.url())), get())
            assert reply.failure == "tls" and not proxy.tunnels
            transport = trusting(authority, proxy=proxy.url(), proxy_ca_file=other.ca_file)
            assert is_whole(ask(rig.to(server.origin, transport=transport), get()))

    def test_an_origin_behind_a_trusted_proxy_that_is_not(self, rig: Rig, authority: Authority, tmp_path: Path) -> None:
        other = Authority(tmp_path)
        server = serve(rig, other)
        with Proxy("https", tls=authority.server_context()) as proxy:
            reply = ask(rig.to(server.origin, transport=trusting(authority, proxy=proxy.url())), get())
            assert reply.failure == "tls" and len(proxy.tunnels) == 1 and not server.requests

    @pytest.mark.parametrize("together", [True, False], ids=["one file", "two files"])
    def test_client_certificates(self, rig: Rig, authority: Authority, tmp_path: Path, together: bool) -> None:
        context = authority.server_context()
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.ca_file)
        server = Server(body_of(b"hello"), tls=context)
        rig.servers.append(server)
        assert ask(rig.to(server.origin, transport=trusting(authority)), get()).failure in ("tls", "reset")
        certificate, key = authority.cert_file, authority.key_file
        if together:
            certificate, key = str(tmp_path / "both.pem"), None
            Path(certificate).write_text(Path(authority.cert_file).read_text() + Path(authority.key_file).read_text())
        transport = trusting(authority, certificate=certificate, private_key=key)
        assert is_whole(ask(rig.to(server.origin, transport=transport), get()))
        transport = trusting(authority, certificate="/nonexistent")
        assert ask(rig.to(server.origin, transport=transport), get()).failure == "tls"

    def test_client_certificates_for_a_proxy(self, rig: Rig, authority: Authority, tmp_path: Path) -> None:
        """It gets its own, and the origin none."""
        theirs = Authority(tmp_path)
        context = theirs.server_context()
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(theirs.ca_file)
        server = serve(rig, authority)
        with Proxy("https", tls=context) as proxy:
            shown = {"proxy": proxy.url(), "proxy_ca_file": theirs.ca_file}
            assert ask(rig.to(server.origin, transport=trusting(authority, **shown)), get()).failure in ("tls", "proxy")
            shown |= {"proxy_certificate": theirs.cert_file, "proxy_private_key": theirs.key_file}
            assert is_whole(ask(rig.to(server.origin, transport=trusting(authority, **shown)), get()))

    @pytest.mark.skipif(sys.platform != "linux", reason="how a terminal becomes a session's")
    def test_a_key_under_a_password(self, rig: Rig, authority: Authority, tmp_path: Path) -> None:
        """Nobody is asked for it: at the terminal, all requests would wait for whoever answers."""
        key = tmp_path / "key.pem"
        command = ["openssl", "pkey", "-in", authority.key_file, "-aes128", "-passout", "pass:secret", "-out", str(key)]
        subprocess.run(command, check=True, capture_output=True)
        terminal, ours = pty.openpty()
        code = f"""
            import os
            from tests.s3.engines.test_dialing import *
            os.open({os.ttyname(ours)!r}, os.O_RDWR)
            transport = Transport(verify=False, certificate={authority.cert_file!r}, private_key={str(key)!r})
            reply = ask(Rig().to({serve(rig, authority).origin!r}, transport=transport), get())
            print(reply.failure, {str(key)!r} in reply.message)
        """
        try:
            answer = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(code)],
                capture_output=True,
                text=True,
                start_new_session=True,
                timeout=60,
            )
        finally:
            os.close(terminal)
            os.close(ours)
        assert (answer.stdout, answer.returncode) == ("tls True\n", 0), answer.stderr

    def test_a_ticket_in_two_records_while_a_body_is_sent(self, rig: Rig, authority: Authority) -> None:
        """Between the two TLS can write nothing: that is no end of the connection."""
        body = bytes(32 << 20)  # more than the network holds
        with LateTicket(authority, len(body)) as server:
            transport = trusting(authority, certificate=authority.cert_file, private_key=authority.key_file)
            channel = rig.to(f"https://127.0.0.1:{server.port}", transport=transport)
            reply = ask(channel, Call("PutObject", "b", "k", body=[body]))
        reply.call.body = None  # too long to be shown
        assert (reply.failure, reply.status, server.received) == (None, 200, len(body))

    def test_an_origin_that_speaks_no_tls(self, rig: Rig, authority: Authority) -> None:
        with Talker(b"HTTP/1.1 400 Bad Request\r\n\r\n") as talker:
            reply = ask(rig.to(f"https://{talker.place}", transport=trusting(authority)), get())
        assert reply.failure == "tls"


def sends_short_records(context: ssl.SSLContext) -> bool:
    """Have it send no record of more than 512 bytes: a session ticket, in which the client's certificate is, takes two.
    False where this Python does not let that be said, which its ssl module has no words for."""
    libssl = ctypes.CDLL(_ssl.__file__)
    if not hasattr(libssl, "SSL_CTX_ctrl"):  # it is a part of Python's own program
        return False
    libssl.SSL_CTX_ctrl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    libssl.SSL_CTX_ctrl.restype = ctypes.c_long
    of_openssl = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    return bool(libssl.SSL_CTX_ctrl(of_openssl, 52, 512, None))  # SSL_CTRL_SET_MAX_SEND_FRAGMENT


class LateTicket:
    """A server of one PUT. It holds its session tickets back until the body has begun to come, sends the first record
    of one, and the rest when the client has long had that."""

    def __init__(self, authority: Authority, length: int) -> None:
        context = authority.server_context()
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.ca_file)
        if not sends_short_records(context):
            pytest.skip("Python's ssl lets nobody set the length of records")
        self.length, self.received = length, 0
        self.sent, self.coming = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.coming, self.sent, server_side=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def __enter__(self) -> LateTicket:
        return self

    def __exit__(self, *exception: object) -> None:
        self.listener.close()
        self.thread.join()

    def serve(self) -> None:
        client, _ = self.listener.accept()
        with client, contextlib.suppress(OSError):
            while True:
                try:
                    self.tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    client.sendall(self.sent.read())
                    self.coming.write(client.recv(1 << 16))
            tickets = self.sent.read()
            first = 5 + int.from_bytes(tickets[3:5], "big")
            assert first == 5 + 512 + 17 < len(tickets)
            head = b""
            while b"\r\n\r\n" not in head:
                head += self.read(client)
            self.received = len(head.partition(b"\r\n\r\n")[2])
            client.sendall(tickets[:first])
            client.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                while self.received < self.length and (some := self.read(client)):
                    self.received += len(some)
            assert self.received < self.length
            client.settimeout(60)
            client.sendall(tickets[first:])
            while self.received < self.length and (some := self.read(client)):
                self.received += len(some)
            self.tls.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            client.sendall(self.sent.read())

    def read(self, client: socket.socket) -> bytes:
        """Some of what the client sends; nothing at its end."""
        while True:
            try:
                return self.tls.read(1 << 20)
            except ssl.SSLWantReadError:
                some = client.recv(1 << 18)
                if not some:
                    return b""
                self.coming.write(some)


class Talker:
    """Reads once from one client, says its piece, and closes: with a reset where it leaves bytes unread."""

    def __init__(self, text: bytes, reads: int = 1 << 16) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve, args=(text, reads))
        self.thread.start()

    def serve(self, text: bytes, reads: int) -> None:
        client, _ = self.listener.accept()
        with client:
            client.recv(reads)
            client.sendall(text)

    def __enter__(self) -> Talker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.thread.join()
        self.listener.close()


class TestSessions:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
    def test_taken_up_with_the_same_server(self, rig: Rig, authority: Authority, version: ssl.TLSVersion) -> None:
        reused = []

        def answer(connection: Connection, request: Request) -> None:
            reused.append(connection.socket.session_reused)  # type: ignore[attr-defined]
            connection.reply("200 OK", ["Content-Length: 5"], b"hello")

        context = authority.server_context()
        context.maximum_version = version
        server = Server(answer, tls=context)
        rig.servers.append(server)
        for name in "localhost", "127.0.0.1":
            channel = rig.to(f"https://{name}:{port(server)}", transport=trusting(authority))
            assert is_whole(ask(channel, get())) and is_whole(ask(channel, get(fresh=True)))
            rig.engine.close()
        assert reused == [False, True, False, True]

    def test_new_keys_while_it_idles(self, rig: Rig, authority: Authority) -> None:
        """The server asks for ours too: that is no answer to anything, and the connection serves on."""
        place = ["-accept", "127.0.0.1:0", "-cert", authority.cert_file, "-key", authority.key_file, "-tls1_3", "-crlf"]
        with subprocess.Popen(["openssl", "s_server", *place], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            assert server.stdin is not None and server.stdout is not None
            lines: Iterator[bytes] = iter(server.stdout.readline, b"")
            where = next(line for line in lines if line.startswith(b"ACCEPT")).split()[1].decode()
            channel = rig.to(f"https://{where}", transport=trusting(authority))
            try:
                for reused in False, True, True:
                    channel.submit([get()])
                    assert any(line == b"\r\n" for line in lines)  # the end of the request's head
                    server.stdin.write(b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello")
                    server.stdin.flush()
                    (reply,) = drain(channel, 1)
                    assert is_whole(reply) and reply.reused is reused
                    server.stdin.write(b"K\n")
                    server.stdin.flush()
                    time.sleep(0.1)  # it comes while the connection idles, or else before the next answer
            finally:
                server.kill()

    def test_not_by_who_trusts_others(self, rig: Rig, authority: Authority, tmp_path: Path) -> None:
        """Nor by who trusts the same file, which is another by now."""
        server, trusted = serve(rig, authority), tmp_path / "trusted.pem"
        trusted.write_bytes(Path(authority.ca_file).read_bytes())
        transport = Transport(ca_file=str(trusted))
        assert is_whole(ask(rig.to(server.origin, transport=transport), get()))
        other = Authority(tmp_path)
        assert ask(rig.to(server.origin, transport=trusting(other)), get()).failure == "tls"
        Path(other.ca_file).replace(trusted)
        assert ask(rig.to(server.origin, transport=transport), get()).failure == "tls"


@pytest.fixture
def mute() -> Iterator[str]:
    """Takes connections and says nothing on them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


class TestTimeouts:
    @pytest.mark.parametrize("where", ["origin", "http proxy", "https proxy", "socks proxy"])
    def test_who_accepts_and_says_nothing(self, rig: Rig, authority: Authority, mute: str, where: str) -> None:
        kind = {"http proxy": "http", "https proxy": "https", "socks proxy": "socks5"}.get(where)
        proxy = f"{kind}://{mute}" if kind else None
        transport = trusting(authority, proxy=proxy, connect_timeout=0.3)
        begun = time.monotonic()
        reply = ask(rig.to(f"https://{mute}", transport=transport), get())
        assert reply.failure == "connect" and time.monotonic() - begun >= 0.3

    @pytest.mark.parametrize("reads", [1, 1 << 16], ids=["reset", "closed"])
    def test_a_handshake_that_is_cut(self, rig: Rig, authority: Authority, reads: int) -> None:
        with Talker(b"", reads) as talker:
            reply = ask(rig.to(f"https://{talker.place}", transport=trusting(authority)), get())
        assert reply.failure == "reset"


def ended(connection: Connection, request: Request) -> bool:
    """A body that ends with the connection."""
    connection.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
    return False


class TestEnds:
    def test_a_tls_stream_that_was_cut_is_not_whole(self, rig: Rig, authority: Authority) -> None:
        server = Server(ended, tls=authority.server_context())
        rig.servers.append(server)
        reply = ask(rig.to(server.origin, transport=trusting(authority)), get())
        assert reply.failure in ("reset", "truncated")

    def test_a_tls_stream_that_ends_in_order_is(self, rig: Rig, authority: Authority) -> None:
        def goodbye(connection: Connection, request: Request) -> bool:
            ended(connection, request)
            connection.socket.unwrap()  # type: ignore[attr-defined]
            return False

        server = Server(goodbye, tls=authority.server_context())
        rig.servers.append(server)
        assert is_whole(ask(rig.to(server.origin, transport=trusting(authority)), get()))
