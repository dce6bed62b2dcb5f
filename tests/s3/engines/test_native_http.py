"""The native engine and what HTTP allows: answers that come early, in pieces, twice or not to the end, and peers that hang
up half."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from mfstore.s3.aws.routes import Transport
from mfstore.s3.calls import Call, FileRange
from tests.rigs.native_engine import Rig, ask, body_of, drain, get, raw
from tests.rigs.raw_server import Connection, Request, Server
from tests.s3.engines.test_native_connections import seconds, tasks

ONE = Transport(threads=1)
LONG = os.urandom(8 << 20)
"""More than what sockets hold on the way."""


def put(n: int = len(LONG), **more: object) -> Call:
    return Call("PutObject", "b", "k", body=[memoryview(LONG)[:n]], **more)  # type: ignore[arg-type]


class TestEarlyAnswers:
    @pytest.mark.parametrize("status", ["403 Forbidden", "503 Slow Down", "301 Moved"])
    @pytest.mark.parametrize("file", [False, True])
    def test_and_a_reset_behind_it(self, rig: Rig, tmp_path: Path, status: str, file: bool) -> None:
        """Closing with bytes unread makes the peer's kernel send a reset."""

        def answer(connection: Connection, request: Request) -> bool:
            connection.reply(status, ["Content-Length: 8"], b"<Error/>")
            return False

        channel = rig(answer, sign_payload=False)
        rig.server.read_bodies = False
        (tmp_path / "f").write_bytes(LONG)
        with open(tmp_path / "f", "rb") as opened:
            body = FileRange(opened.fileno(), 0, len(LONG)) if file else [LONG]
            reply = ask(channel, Call("PutObject", "b", "k", body=body))
        assert (reply.status, reply.failure, reply.data) == (int(status[:3]), None, b"<Error/>")

    def test_cut_by_a_reset(self, rig: Rig) -> None:
        """The status says enough."""

        def answer(connection: Connection, request: Request) -> bool:
            connection.reply("403 Forbidden", ["Content-Length: 1000"], b"<Error>")
            time.sleep(0.05)
            return False

        channel = rig(answer, sign_payload=False)
        rig.server.read_bodies = False
        reply = ask(channel, put())
        assert (reply.status, reply.failure, reply.data) == (403, None, b"<Error>")

    def test_ends_the_sending(self, rig: Rig) -> None:
        whole = 64 << 20
        got = []

        def answer(connection: Connection, request: Request) -> None:
            connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\n<Err")
            time.sleep(0.05)
            connection.socket.settimeout(0.3)
            got.append(len(connection.buffer))
            with contextlib.suppress(TimeoutError):
                while piece := connection.socket.recv(1 << 20):
                    got.append(len(piece))
            connection.send(b"or/>")

        channel = rig(answer, sign_payload=False)
        rig.server.read_bodies = False
        reply = ask(channel, Call("PutObject", "b", "k", body=[bytes(whole)]))
        assert (reply.status, reply.failure, reply.data) == (403, None, b"<Error/>")
        assert sum(got) < whole

    def test_the_connection_is_not_used_again(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> None:
            connection.reply("403 Forbidden", ["Content-Length: 0"])
            with contextlib.suppress(OSError):
                while len(connection.socket.recv(1 << 20)) > 0:
                    pass

        channel = rig(answer, transport=ONE, sign_payload=False)
        rig.server.read_bodies = False
        assert [ask(channel, put()).status for _ in range(2)] == [403, 403]
        assert len(rig.server.connections) == 2

    def test_a_good_one_counts_when_all_is_sent(self, rig: Rig) -> None:
        got = []

        def answer(connection: Connection, request: Request) -> None:
            connection.reply("200 OK", ["Content-Length: 0"])
            time.sleep(0.05)
            got.append(connection.read_body(int(request.headers["content-length"])))

        channel = rig(answer, transport=ONE, sign_payload=False)
        rig.server.read_bodies = False
        replies = [ask(channel, put()), ask(channel, put(5))]
        assert [(reply.status, reply.failure, reply.reused) for reply in replies] == [
            (200, None, False),
            (200, None, True),
        ]
        assert got[0] == LONG

    @pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc")
    def test_and_the_connection_then_idles(self, rig: Rig) -> None:
        """It was looked at for writing when the request ended, and a socket is always ready for that."""

        def answer(connection: Connection, request: Request) -> None:
            connection.reply("200 OK", ["Content-Length: 0"])
            time.sleep(0.05)
            connection.read_body(int(request.headers["content-length"]))

        channel = rig(answer, transport=ONE, sign_payload=False)
        rig.server.read_bodies = False
        others = tasks()
        assert ask(channel, put()).failure is None
        while not rig.server.connections[0].served:  # its thread is one of those that started
            time.sleep(0.01)
        started = tasks() - others
        before = seconds(started)
        time.sleep(0.3)
        assert seconds(started) - before < 0.02

    @pytest.mark.parametrize("more", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
    def test_a_good_one_of_who_does_not_take_the_rest(self, rig: Rig, more: bytes) -> None:
        def answer(connection: Connection, request: Request) -> bool:
            connection.reply("200 OK", ["Content-Length: 0"], more)
            time.sleep(0.05)
            return False

        channel = rig(answer, sign_payload=False)
        rig.server.read_bodies = False
        reply = ask(channel, put())
        assert (reply.status, reply.failure) == (200, "reset")

    def test_interim_ones_while_the_body_is_sent(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> None:
            for _ in range(3):
                connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                time.sleep(0.01)
            request.body = connection.read_body(int(request.headers["content-length"]))
            connection.reply("200 OK", ["Content-Length: 0"])

        channel = rig(answer, sign_payload=False)
        rig.server.read_bodies = False
        assert ask(channel, put()).failure is None and rig.requests[0].body == LONG

    def test_interim_ones_are_no_answer(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> bool:
            while not connection.closing.wait(0.02):
                connection.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            return False

        reply = ask(rig(answer), get(first_byte=0.3))
        assert (reply.failure, reply.status) == ("first-byte", 0)


class TestPieces:
    WHOLE = (
        b"\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nETag: e\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5;a=b\r\nhello\r\n1\r\n,\r\n0006\r\n world\r\n0\r\nTrailer: t\r\n\r\n"
    )

    def test_byte_by_byte(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> None:
            for byte in self.WHOLE:
                connection.send(bytes([byte]))
                time.sleep(0.0005)

        channel = rig(answer, transport=ONE)
        for reused in (False, True):
            reply = ask(channel, get())
            assert (reply.failure, reply.data, dict(reply.headers)) == (
                None,
                b"hello, world",
                {"etag": "e", "transfer-encoding": "chunked"},
            )
            assert reply.reused == reused

    def test_cut_in_two(self, rig: Rig) -> None:
        cuts = list(range(1, len(self.WHOLE), 3))

        def answer(connection: Connection, request: Request) -> None:
            cut = int(request.path.rpartition("/")[2])
            connection.send(self.WHOLE[:cut])
            time.sleep(0.001)
            connection.send(self.WHOLE[cut:])

        channel = rig(answer)
        channel.submit([get(str(cut)) for cut in cuts])
        replies = drain(channel, len(cuts))
        assert {(reply.failure, reply.data) for reply in replies} == {(None, b"hello, world")}

    def test_a_head_longer_than_what_is_received_at_once(self, rig: Rig) -> None:
        lines = [f"X-{number}: {'y' * 997}".encode() for number in range(200)]
        head = b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: 3", *lines, b"", b""])

        def answer(connection: Connection, request: Request) -> None:
            for at in range(0, len(head), 7001):
                connection.send(head[at : at + 7001])
                time.sleep(0.001)
            connection.send(b"abc")

        reply = ask(rig(answer), get())
        assert (reply.failure, reply.data, len(reply.headers)) == (None, b"abc", 201)

    @pytest.mark.parametrize("target", [False, True])
    @pytest.mark.parametrize("n", [1, 16 << 10, 300_000])
    def test_chunks_of_any_size_into_memory(self, rig: Rig, n: int, target: bool) -> None:
        data = LONG[: 1 << 20]

        def answer(connection: Connection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            pieces = [data[at : at + 1] for at in range(1000)] if n == 1 else []
            pieces += [data[at : at + max(n, 1000)] for at in range(1000 if n == 1 else 0, len(data), max(n, 1000))]
            connection.send(b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces), b"0\r\n\r\n")

        room = bytearray(len(data))
        reply = ask(rig(answer), get(target=memoryview(room) if target else None))
        assert reply.failure is None and (bytes(room) if target else reply.data) == data


class TestBehindTheBody:
    MORE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"

    @pytest.mark.parametrize("n", [5, 100_000])
    @pytest.mark.parametrize("target", [False, True])
    def test_is_no_answer(self, rig: Rig, n: int, target: bool) -> None:
        data = LONG[:n]

        def answer(connection: Connection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n, data, self.MORE)

        channel = rig(answer, transport=ONE)
        for _ in range(3):
            room = bytearray(n)
            reply = ask(channel, get(target=memoryview(room) if target else None))
            assert reply.failure is None and (bytes(room) if target else reply.data) == data
        assert len(rig.server.connections) == 3

    def test_without_body(self, rig: Rig) -> None:
        """A HEAD that is answered with a body, as some servers do."""
        channel = rig(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", close=False), transport=ONE)
        for _ in range(2):
            assert ask(channel, Call("HeadObject", "b", "k")).status == 200
        assert len(rig.server.connections) == 2


class TestEndsOfConnections:
    @pytest.mark.parametrize(
        "head",
        [
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n",
        ],
    )
    def test_said(self, rig: Rig, head: bytes) -> None:
        channel = rig(raw(head + b"ok", close=False), transport=ONE)
        replies = [ask(channel, get()) for _ in range(2)]
        assert [(reply.data, reply.reused) for reply in replies] == [(b"ok", False)] * 2
        assert len(rig.server.connections) == 2

    def test_kept_by_http_1_0(self, rig: Rig) -> None:
        head = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
        channel = rig(raw(head, close=False), transport=ONE)
        assert [ask(channel, get()).reused for _ in range(2)] == [False, True]

    def test_a_peer_that_has_ended_its_side(self, rig: Rig) -> None:
        """It reads on, and will never answer."""

        def answer(connection: Connection, request: Request) -> None:
            connection.reply("200 OK", ["Content-Length: 1"], b"x")
            connection.socket.shutdown(socket.SHUT_WR)

        channel = rig(answer, transport=ONE)
        assert [ask(channel, get()).data for _ in range(3)] == [b"x"] * 3
        assert len(rig.server.connections) == 3

    def test_a_peer_that_ends_its_side_instead_of_answering(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> None:
            connection.socket.shutdown(socket.SHUT_WR)

        channel = rig(answer, sign_payload=False)
        rig.server.read_bodies = False
        assert ask(channel, put()).failure == "reset"
        assert ask(channel, get()).failure == "reset"

    def test_within_the_headers(self, rig: Rig) -> None:
        reply = ask(rig(raw(b"HTTP/1.1 200 OK\r\nContent-Le")), get())
        assert (reply.failure, reply.status) == ("reset", 0)

    def test_within_a_chunk(self, rig: Rig) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for rest in (b"5\r\nabc", b"3\r\nabc\r\n", b"3\r\nabc\r\n0\r\n"):
            reply = ask(rig(raw(head + rest)), get())
            assert (reply.failure, reply.data) == ("truncated", b"abc")

    def test_once_more_is_on_a_new_connection(self, rig: Rig) -> None:
        """Not on another idle one, which may be as dead."""

        def answer(connection: Connection, request: Request) -> bool | None:
            if connection.served:
                return False
            if len(rig.requests) < 5:
                while len(rig.requests) < 4:  # so that there are four connections
                    time.sleep(0.001)
            connection.reply("200 OK", ["Content-Length: 1"], b"x")
            return None

        channel = rig(answer, transport=ONE)
        channel.submit([get() for _ in range(4)])
        drain(channel, 4)
        reply = ask(channel, get())
        assert (reply.failure, reply.reused) == (None, False)
        assert len(rig.server.connections) == 5 and len(rig.requests) == 6

    def test_tls_without_goodbye_is_cut(self, rig: Rig, tmp_path: Path) -> None:
        """Else whoever can cut a connection could shorten a body that only the end of the connection ends."""
        command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
        subprocess.run(command.split(), check=True, capture_output=True, cwd=tmp_path)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

        def answer(connection: Connection, request: Request) -> bool:
            connection.send(b"HTTP/1.1 200 OK\r\n\r\nto the end")
            if request.path.endswith("goodbye"):
                with contextlib.suppress(OSError):
                    connection.socket.unwrap()  # type: ignore[attr-defined]
            return False

        server = Server(answer, tls=context)
        rig.servers.append(server)
        channel = rig.to(server.origin)
        reply = ask(channel, get("goodbye"))
        assert (reply.failure, reply.data) == (None, b"to the end")
        assert ask(channel, get("cut")).failure == "reset"


class TestRequests:
    def test_the_head(self, rig: Rig) -> None:
        """Host first; names in order; nothing that was not asked for."""
        channel = rig(body_of(b""), headers=(("x-amz-a", "1"), ("x-amz-z", "")), signer=None)
        ask(channel, Call("PutObject", "b", "k", body=[b"abc"], metadata={"M": "v  w"}))
        host = rig.server.origin.removeprefix("http://")
        assert rig.requests[0].head.decode() == "\r\n".join(
            [
                "PUT /b/k HTTP/1.1",
                f"Host: {host}",
                rig.requests[0].head.decode().split("\r\n")[2],
                "Content-Length: 3",
                "x-amz-a: 1",
                "x-amz-meta-m: v  w",
                "x-amz-z: ",
            ]
        )
        assert rig.requests[0].headers["user-agent"].startswith("mfstore/")

    @pytest.mark.parametrize("user", ["me:p%40ss%3A", "me"])
    def test_a_proxy_that_asks_who(self, rig: Rig, user: str) -> None:
        rig(body_of(b"ok"))
        proxy = rig.server.origin.replace("//", f"//{user}@")
        channel = rig.to("http://example.invalid", transport=Transport(proxy=proxy))
        assert ask(channel, get()).data == b"ok"
        name, _, word = rig.requests[0].headers["proxy-authorization"].partition(" ")
        told = base64.b64decode(word).decode()
        assert (name, told) == ("Basic", "me:p@ss:" if ":" in user else "me:")

    def test_many_pieces(self, rig: Rig) -> None:
        """More than one call of the system takes, some of them empty."""
        pieces = [LONG[at : at + at % 97] for at in range(5000)]
        assert ask(rig(body_of(b"")), Call("PutObject", "b", "k", body=pieces, checksum="CRC32")).failure is None
        assert rig.requests[0].body == b"".join(pieces)


class TestTimeouts:
    @pytest.mark.second
    def test_who_was_stopped_reads_what_came_meanwhile(self, rig: Rig) -> None:
        """More connections than one look at the sockets tells of: the others' bytes are there too."""
        n, may = 140, threading.Event()

        def answer(connection: Connection, request: Request) -> None:
            may.wait()
            connection.reply("200 OK", ["Content-Length: 5"], b"hello")

        rig(answer)
        code = f"""
            from tests.s3.engines.test_native_http import *
            channel = Rig().to("{rig.server.origin}", transport=ONE)
            channel.submit([get(first_byte=4.0) for _ in range({n})])
            print({{(reply.failure, reply.data) for reply in drain(channel, {n})}})
        """
        client = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
        while len(rig.requests) < n and client.poll() is None:
            time.sleep(0.01)
        client.send_signal(signal.SIGSTOP)
        may.set()
        time.sleep(4.5)
        client.send_signal(signal.SIGCONT)
        assert client.communicate()[0] == "{(None, b'hello')}\n"
