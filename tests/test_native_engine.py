"""The native engine against servers that answer what no good server would."""

from __future__ import annotations

import base64
import contextlib
import gc
import itertools
import os
import resource
import select
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mfstore._core.crc import update as crc
from mfstore.s3.engine import SMALL, Call, Channel, FileRange, Options, Reply
from mfstore.s3.native import NativeEngine
from mfstore.s3.routes import Credentials, Route, Transport
from tests.raw_server import Answer, Connection, Request, Server

METHODS = {
    "GetObject": "GET",
    "HeadObject": "HEAD",
    "PutObject": "PUT",
    "UploadPart": "PUT",
    "DeleteObject": "DELETE",
}
KEYS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None)


class Control:
    """Routes built by hand."""

    version = 0
    skew = 0.0

    def __init__(self, origin: str, **changes: object) -> None:
        self.origin = origin
        self.signer: Credentials | None = KEYS
        self.sign_payload = True
        self.query = ""
        self.headers: tuple[tuple[str, str], ...] = ()
        self.asked = 0
        for name, value in changes.items():
            setattr(self, name, value)

    def route(self, operation: str, bucket: str, options: Options) -> Route:
        self.asked += 1
        return self.made(METHODS[operation], f"/{bucket}/")

    def made(self, method: str, path: str, query: str = "") -> Route:
        query = query or self.query
        return Route(method, self.origin, path, query, self.headers, "us-east-1", "s3", self.sign_payload)

    def prepare(self, call: Call) -> tuple[Route, bytes]:
        params = dict(call.params or {})
        return self.made(params.get("method", "GET"), "/b", params.get("query", "list-type=2")), params.get("body", b"")

    def credentials(self) -> Credentials | None:
        return self.signer


class Rig:
    """A server, an engine for it, and one channel."""

    def __init__(self) -> None:
        self.servers: list[Server] = []
        self.engines: list[NativeEngine] = []

    def __call__(self, answer: Answer, *, transport: Transport | None = None, **changes: object) -> Channel:
        server = Server(answer)
        self.servers.append(server)
        return self.to(server.origin, transport=transport, **changes)

    def to(self, origin: str, *, transport: Transport | None = None, **changes: object) -> Channel:
        self.control = Control(origin, **changes)
        self.engine = NativeEngine(self.control, transport or Transport(verify=False))
        self.engines.append(self.engine)
        return self.engine.channel()

    @property
    def requests(self) -> list[Request]:
        return self.servers[-1].requests

    @property
    def server(self) -> Server:
        return self.servers[-1]


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    for engine in made.engines:
        engine.close()
    for server in made.servers:
        server.close()


def drain(channel: Channel, n: int, timeout: float = 20.0) -> list[Reply]:
    replies: list[Reply] = []
    end = time.monotonic() + timeout
    while len(replies) < n:
        assert time.monotonic() < end, f"{len(replies)} of {n} replies"
        replies += channel.poll(0.5)
    return replies


def ask(channel: Channel, call: Call) -> Reply:
    channel.submit([call])
    (reply,) = drain(channel, 1)
    assert reply.call is call
    return reply


def get(key: str = "k", **more: object) -> Call:
    return Call("GetObject", "b", key, **more)  # type: ignore[arg-type]


def body_of(data: bytes, *headers: str, status: str = "200 OK") -> Answer:
    def answer(connection: Connection, request: Request) -> None:
        connection.reply(status, [f"Content-Length: {len(data)}", *headers], data if request.method != "HEAD" else b"")

    return answer


def raw(data: bytes, *, close: bool = True) -> Answer:
    def answer(connection: Connection, request: Request) -> bool:
        connection.send(data)
        return not close

    return answer


class TestBodies:
    def test_whole(self, rig: Rig) -> None:
        reply = ask(rig(body_of(b"hello", 'ETag: "x"', "X-Amz-Meta-Ä: v")), get())
        assert (reply.status, reply.failure, reply.data, reply.received) == (200, None, b"hello", 5)
        assert reply.headers["etag"] == '"x"'
        assert reply.submitted <= reply.first_byte <= reply.finished <= time.monotonic()
        assert not reply.announced and not reply.reused and reply.checksum is None

    def test_header_names_and_repetitions(self, rig: Rig) -> None:
        head = (
            b"HTTP/1.1 200 OK\r\ncOnTeNt-LENGTH:3\r\nX-One:  a  \r\nx-ONE: b\r\nX-Empty:\r\nX-Utf: \xc3\xa4\r\n\r\nabc"
        )
        reply = ask(rig(raw(head, close=False)), get())
        assert dict(reply.headers) == {"content-length": "3", "x-one": "a", "x-empty": "", "x-utf": "ä"}
        assert reply.headers.get("X-One") is None and "x-one" in reply.headers and len(reply.headers) == 4
        assert reply.data == b"abc"

    def test_into_memory(self, rig: Rig) -> None:
        data = os.urandom(5 << 20)
        target = bytearray(len(data))
        reply = ask(rig(body_of(data)), get(target=memoryview(target)))
        assert (reply.status, reply.failure, reply.received, reply.data) == (200, None, len(data), None)
        assert target == data
        assert reply.call.target is not None
        reply.call.target.release()  # type: ignore[union-attr]
        target.append(0)  # nobody else held it

    def test_into_file(self, rig: Rig, tmp_path: Path) -> None:
        data = os.urandom(3_000_000)
        with open(tmp_path / "f", "w+b") as file:
            file.write(b"head")
            file.flush()
            reply = ask(rig(body_of(data)), get(target=FileRange(file.fileno(), 4, len(data))))
            assert (reply.failure, reply.received) == (None, len(data))
        assert (tmp_path / "f").read_bytes() == b"head" + data

    def test_disk_full(self, rig: Rig) -> None:
        with open("/dev/full", "r+b", buffering=0) as file:
            reply = ask(rig(body_of(b"x" * 100)), get(target=FileRange(file.fileno(), 0, 100)))
        assert (reply.failure, reply.errno) == ("disk", 28)

    @pytest.mark.parametrize(
        ("start", "stop", "asked"),
        [(0, 10, "bytes=0-9"), (5, None, "bytes=5-"), (-7, None, "bytes=-7"), (None, 4, "bytes=0-3")],
    )
    def test_range(self, rig: Rig, start: int | None, stop: int | None, asked: str) -> None:
        channel = rig(body_of(b"0123456789", "Content-Range: bytes 0-9/20", status="206 Partial Content"))
        reply = ask(channel, get(start=start, stop=stop, if_match='"e"', checksum="CRC32C"))
        assert rig.requests[0].headers["range"] == asked
        assert rig.requests[0].headers["if-match"] == '"e"'
        assert reply.checksum == ("CRC32C", crc("CRC32C", b"0123456789"))

    def test_bad_range(self, rig: Rig) -> None:
        channel = rig(body_of(b""))
        with pytest.raises(ValueError):
            channel.submit([get(), get(start=4, stop=4)])
        assert channel.poll(0.05) == [] and rig.requests == []

    @pytest.mark.parametrize("n", [SMALL + 1, 100])
    def test_overflow(self, rig: Rig, n: int) -> None:
        target = bytearray(b"\0" * 60)
        reply = ask(rig(body_of(b"x" * n)), get(target=memoryview(target)[:50]))
        assert reply.failure == "overflow"
        assert target[50:] == b"\0" * 10

    def test_target_of_another_kind(self, rig: Rig) -> None:
        with pytest.raises((TypeError, BufferError)):
            rig(body_of(b"")).submit([get(target=b"read-only")])

    def test_chunked(self, rig: Rig) -> None:
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: e\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nEtag: trailer\r\n\r\n"
        reply = ask(rig(raw(data, close=False)), get())
        assert (reply.failure, reply.data, reply.headers["etag"]) == (None, b"abcde", "e")

    def test_until_close(self, rig: Rig) -> None:
        reply = ask(rig(raw(b"HTTP/1.0 200 OK\r\n\r\nto the end")), get())
        assert (reply.failure, reply.data) == (None, b"to the end")

    def test_interim(self, rig: Rig) -> None:
        data = b"HTTP/1.1 100 Continue\r\nX-No: 1\r\n\r\nHTTP/1.1 103 Hints\r\nX-No: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        reply = ask(rig(raw(data, close=False)), get())
        assert (reply.status, reply.data, dict(reply.headers)) == (200, b"ok", {"content-length": "2"})

    @pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
    def test_without_body(self, rig: Rig, status: str) -> None:
        reply = ask(rig(raw(f"HTTP/1.1 {status}\r\nETag: e\r\n\r\n".encode(), close=False)), get())
        assert (reply.status, reply.failure, reply.data) == (int(status[:3]), None, b"")

    def test_head(self, rig: Rig) -> None:
        channel = rig(body_of(b"x" * 5000))
        for _ in range(3):
            reply = ask(channel, Call("HeadObject", "b", "k"))
            assert (reply.status, reply.failure, reply.headers["content-length"], reply.data) == (
                200,
                None,
                "5000",
                b"",
            )
            assert ask(channel, get()).data == b"x" * 5000
        assert [request.method for request in rig.requests] == ["HEAD", "GET"] * 3

    def test_error_body(self, rig: Rig) -> None:
        target = bytearray(10)
        reply = ask(rig(body_of(b"<Error/>", status="404 Not Found")), get(target=memoryview(target)))
        assert (reply.status, reply.failure, reply.data, target) == (404, None, b"<Error/>", bytes(10))

    def test_long_error_body(self, rig: Rig) -> None:
        reply = ask(rig(body_of(b"e" * 300_000, status="500 Oh")), get())
        assert (reply.status, reply.failure, reply.data) == (500, None, b"e" * 65536)

    def test_redirects_are_answers(self, rig: Rig) -> None:
        reply = ask(rig(body_of(b"", "Location: http://127.0.0.1:1/", status="307 Temporary Redirect")), get())
        assert (reply.status, reply.failure, len(rig.requests)) == (307, None, 1)

    def test_long_list(self, rig: Rig) -> None:
        data = b"<x/>" * (SMALL // 2)
        reply = ask(rig(body_of(data)), Call("ListObjectsV2", "b", params={}))
        assert (reply.failure, reply.data) == (None, data)
        assert rig.requests[0].path == "/b?list-type=2"

    def test_deletion_and_post(self, rig: Rig) -> None:
        channel = rig(body_of(b""))
        ask(channel, Call("DeleteObject", "b", "k"))
        ask(channel, Call("CreateMultipartUpload", "b", params={"method": "POST", "query": "uploads="}))
        ask(channel, Call("DeleteObjects", "b", params={"method": "POST", "query": "delete=", "body": b"<Delete/>"}))
        first, second, third = rig.requests
        assert (first.method, first.path, first.body) == ("DELETE", "/b/k", b"")
        assert (second.method, second.path, second.headers["content-length"]) == ("POST", "/b?uploads=", "0")
        assert (third.method, third.body) == ("POST", b"<Delete/>")


class TestAnnouncements:
    DATA = bytes(range(256)) * 20_000

    def announced(self, rig: Rig, answer: Answer | None = None, **more: object) -> tuple[Channel, Call, Reply]:
        channel = rig(answer or body_of(self.DATA, 'ETag: "e"'))
        call = get(**more)
        reply = ask(channel, call)
        assert reply.announced and reply.failure is None and reply.data is None
        return channel, call, reply

    def test_resumed(self, rig: Rig) -> None:
        channel, call, reply = self.announced(rig)
        assert int(reply.headers["content-length"]) == len(self.DATA)
        target = bytearray(len(self.DATA))
        channel.resume(call, memoryview(target))
        (final,) = drain(channel, 1)
        assert (final.failure, final.received, final.data, target) == (None, len(self.DATA), None, self.DATA)
        assert final.headers == reply.headers

    def test_into_file(self, rig: Rig, tmp_path: Path) -> None:
        channel, call, _ = self.announced(rig)
        with open(tmp_path / "f", "w+b") as file:
            channel.resume(call, FileRange(file.fileno(), 0, len(self.DATA)))
            assert drain(channel, 1)[0].failure is None
        assert (tmp_path / "f").read_bytes() == self.DATA

    @pytest.mark.parametrize("stop", [1, 1000, SMALL, len(DATA) - 1, len(DATA)])
    def test_partly(self, rig: Rig, stop: int) -> None:
        channel, call, _ = self.announced(rig)
        target = bytearray(stop)
        channel.resume(call, memoryview(target), stop)
        (final,) = drain(channel, 1)
        assert (final.failure, final.received, target) == (None, stop, self.DATA[:stop])
        assert ask(channel, Call("HeadObject", "b", "k")).status == 200

    def test_checksum_of_part(self, rig: Rig) -> None:
        value = base64.b64encode(zlib.crc32(self.DATA).to_bytes(4, "big")).decode()
        for stop in (None, 777_777):
            channel, call, _ = self.announced(rig, body_of(self.DATA, f"x-amz-checksum-crc32: {value}"))
            target = bytearray(stop or len(self.DATA))
            channel.resume(call, memoryview(target), stop)
            assert drain(channel, 1)[0].checksum == ("CRC32", zlib.crc32(target))

    @pytest.mark.parametrize("stop", [None, 100, SMALL + 5])
    def test_chunked(self, rig: Rig, stop: int | None) -> None:
        def answer(connection: Connection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nx-amz-checksum-crc32: AAAAAA==\r\n\r\n")
            for at in range(0, len(self.DATA), 70_000):
                piece = self.DATA[at : at + 70_000]
                connection.send(b"%x\r\n" % len(piece), piece, b"\r\n")
            connection.send(b"0\r\n\r\n")

        channel, call, reply = self.announced(rig, answer)
        assert "content-length" not in reply.headers
        target = bytearray(stop or len(self.DATA))
        channel.resume(call, memoryview(target), stop)
        (final,) = drain(channel, 1)
        assert (final.failure, final.received, target) == (None, len(target), self.DATA[: len(target)])
        assert final.checksum == ("CRC32", zlib.crc32(target))

    def test_waits_without_stalling(self, rig: Rig) -> None:
        channel, call, _ = self.announced(rig, stall=0.2, first_byte=0.2)
        assert channel.poll(0.6) == []
        target = bytearray(len(self.DATA))
        channel.resume(call, memoryview(target))
        assert drain(channel, 1)[0].failure is None

    def test_cancelled(self, rig: Rig) -> None:
        channel, call, _ = self.announced(rig)
        channel.cancel(call)
        assert drain(channel, 1)[0].failure == "cancelled"

    def test_closed(self, rig: Rig) -> None:
        channel, _, _ = self.announced(rig)
        channel.close()

    def test_target_too_small(self, rig: Rig) -> None:
        channel, call, _ = self.announced(rig)
        channel.resume(call, memoryview(bytearray(100)))
        assert drain(channel, 1)[0].failure == "overflow"


class TestPuts:
    @pytest.mark.parametrize("n", [0, 1, 1000, 65536, 65537, 3_000_000])
    @pytest.mark.parametrize("pieces", [1, 3])
    def test_memory(self, rig: Rig, n: int, pieces: int) -> None:
        data = os.urandom(n)
        cuts = [n * i // pieces for i in range(pieces + 1)]
        body = [memoryview(data)[a:b] for a, b in itertools.pairwise(cuts)]
        channel = rig(body_of(b""))
        reply = ask(
            channel, Call("PutObject", "b", "k", body=body, checksum="CRC64NVME", metadata={"A": "1", "b": "2"})
        )
        assert (reply.status, reply.failure) == (200, None)
        (request,) = rig.requests
        value = crc("CRC64NVME", data)
        assert reply.checksum == ("CRC64NVME", value)
        assert request.body == data
        assert request.headers["content-length"] == str(n)
        assert request.headers["x-amz-checksum-crc64nvme"] == base64.b64encode(value.to_bytes(8, "big")).decode()
        assert request.headers["x-amz-sdk-checksum-algorithm"] == "CRC64NVME"
        assert request.headers["x-amz-meta-a"] == "1" and request.headers["x-amz-meta-b"] == "2"
        for unwanted in ("expect", "transfer-encoding", "accept", "content-type", "accept-encoding"):
            assert unwanted not in request.headers

    @pytest.mark.parametrize("n", [0, 100, 2_000_000])
    def test_file(self, rig: Rig, tmp_path: Path, n: int) -> None:
        data = os.urandom(n)
        (tmp_path / "f").write_bytes(b"head" + data + b"tail")
        with open(tmp_path / "f", "rb") as file:
            body = FileRange(file.fileno(), 4, n)
            reply = ask(
                rig(body_of(b"")), Call("UploadPart", "b", "k", body=body, part=3, upload="u+/=", checksum="CRC32")
            )
        assert reply.failure is None and reply.checksum == ("CRC32", zlib.crc32(data))
        assert rig.requests[0].body == data
        assert rig.requests[0].path == "/b/k?partNumber=3&uploadId=u%2B%2F%3D"

    @pytest.mark.parametrize("sign", [True, False])
    @pytest.mark.parametrize("n", [100, 2_000_000])
    def test_file_that_shrank(self, rig: Rig, tmp_path: Path, n: int, sign: bool) -> None:
        (tmp_path / "f").write_bytes(b"x" * (n // 2))
        with open(tmp_path / "f", "rb") as file:
            call = Call("PutObject", "b", "k", body=FileRange(file.fileno(), 0, n))
            assert ask(rig(body_of(b""), sign_payload=sign), call).failure == "disk"

    def test_query_among_others(self, rig: Rig) -> None:
        channel = rig(body_of(b""), query="a=1&q=2&x-id=UploadPart")
        ask(channel, Call("UploadPart", "b", "k", body=[b"x"], part=1, upload="u"))
        assert rig.requests[0].path == "/b/k?a=1&partNumber=1&q=2&uploadId=u&x-id=UploadPart"

    def test_early_answer(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> bool:
            connection.reply("403 Forbidden", ["Content-Length: 2", "Connection: close"], b"no")
            with contextlib.suppress(OSError):
                while connection.socket.recv(1 << 20):
                    pass
            return False

        channel = rig(answer)
        rig.server.read_bodies = False
        reply = ask(channel, Call("PutObject", "b", "k", body=[bytes(50 << 20)]))
        assert (reply.status, reply.data) == (403, b"no")

    def test_bad_metadata(self, rig: Rig) -> None:
        channel = rig(body_of(b""))
        for metadata in ({"a": "x\r\nEvil: 1"}, {"a\n": "x"}, {"a": "ä"}, {"a:b": "c"}):
            with pytest.raises(ValueError):
                channel.submit([Call("PutObject", "b", "k", body=[b""], metadata=metadata)])
        assert rig.requests == []

    def test_rewound_on_a_dead_connection(self, rig: Rig) -> None:
        """The server takes the second request and hangs up: once more on a new connection, from the beginning."""

        def answer(connection: Connection, request: Request) -> bool | None:
            if connection.number == 0 and connection.served == 1:
                return False
            connection.reply("200 OK", ["Content-Length: 0"])
            return None

        channel = rig(answer, transport=Transport(threads=1))
        data = os.urandom(1 << 20)
        assert ask(channel, get()).failure is None
        assert ask(channel, Call("PutObject", "b", "k", body=[data])).failure is None
        assert rig.requests[-1].body == data and len(rig.requests) == 3

    def test_conditional_not_repeated(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> bool | None:
            if connection.served == 1:
                return False
            connection.reply("200 OK", ["Content-Length: 0"])
            return None

        channel = rig(answer, transport=Transport(threads=1))
        assert ask(channel, get()).failure is None
        reply = ask(channel, Call("PutObject", "b", "k", body=[b"x"], if_none_match=True))
        assert (reply.failure, reply.reused) == ("reset", True)
        assert len(rig.requests) == 2 and rig.requests[1].headers["if-none-match"] == "*"


class TestFailures:
    def test_truncated(self, rig: Rig) -> None:
        reply = ask(rig(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")), get())
        assert (reply.failure, reply.status, reply.received) == ("truncated", 200, 3)

    @pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"])
    def test_reset(self, rig: Rig, sent: bytes) -> None:
        def answer(connection: Connection, request: Request) -> bool:
            connection.send(sent)
            time.sleep(0.05)
            connection.reset()
            return False

        assert ask(rig(answer), get()).failure == "reset"

    def test_hung_up(self, rig: Rig) -> None:
        assert ask(rig(raw(b"")), get()).failure == "reset"

    @pytest.mark.parametrize(
        "noise",
        [
            b"SSH-2.0-OpenSSH\r\n",
            b"\x16\x03\x01\x00\x02\x02(",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ],
    )
    def test_not_http(self, rig: Rig, noise: bytes) -> None:
        assert ask(rig(raw(noise)), get()).failure == "protocol"

    def test_endless_headers(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> bool:
            connection.send(b"HTTP/1.1 200 OK\r\n")
            for number in range(100_000):
                connection.send(b"X-%d: " % number + b"y" * 1000 + b"\r\n")
            return False

        assert ask(rig(answer), get()).failure == "protocol"

    def test_stall(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
            time.sleep(3)

        begun = time.monotonic()
        reply = ask(rig(answer), get(stall=0.3))
        assert (reply.failure, reply.received) == ("stall", 3) and time.monotonic() - begun < 2

    def test_stall_of_an_upload(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> None:
            time.sleep(3)

        channel = rig(answer)
        rig.server.read_bodies = False
        assert ask(channel, Call("PutObject", "b", "k", body=[bytes(50 << 20)], stall=0.3)).failure == "stall"

    @pytest.mark.parametrize("operation", ["GetObject", "PutObject"])
    def test_first_byte(self, rig: Rig, operation: str) -> None:
        def answer(connection: Connection, request: Request) -> None:
            time.sleep(3)

        body = [b"x" * 200_000] if operation == "PutObject" else None
        begun = time.monotonic()
        reply = ask(rig(answer), Call(operation, "b", "k", body=body, first_byte=0.3))
        assert (reply.failure, reply.status) == ("first-byte", 0) and 0.25 < time.monotonic() - begun < 2

    def test_refused(self, rig: Rig) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        reply = ask(rig.to(f"http://127.0.0.1:{port}"), get())
        assert reply.failure == "connect" and reply.message

    def test_connect_timeout(self, rig: Rig) -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            others = []
            for _ in range(4):  # fill the backlog: further SYNs are dropped
                other = socket.socket()
                other.setblocking(False)
                other.connect_ex(full.getsockname())
                others.append(other)
            channel = rig.to(f"http://127.0.0.1:{full.getsockname()[1]}", transport=Transport(connect_timeout=0.4))
            begun = time.monotonic()
            assert ask(channel, get()).failure == "connect"
            assert time.monotonic() - begun < 3
            for other in others:
                other.close()

    def test_no_such_host(self, rig: Rig) -> None:
        assert ask(rig.to("http://no-such-host.invalid"), get()).failure == "dns"

    def test_proxy(self, rig: Rig) -> None:
        channel = rig(body_of(b"ok"))
        proxied = rig.to("http://example.invalid", transport=Transport(proxy=rig.server.origin))
        assert ask(proxied, get("a b")).data == b"ok"
        assert rig.requests[0].head.startswith(
            b"GET http://example.invalid/b/a%20b HTTP/1.1\r\nHost: example.invalid\r\n"
        )
        del channel

    def test_proxy_refuses_tunnel(self, rig: Rig) -> None:
        rig(body_of(b"", status="407 Proxy Authentication Required"))
        proxied = rig.to("https://example.invalid", transport=Transport(proxy=rig.server.origin))
        assert ask(proxied, get()).failure == "proxy"


class TestConnections:
    def test_many_small(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> None:
            data = request.path.encode() * 50
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data), data)

        channel = rig(answer)
        calls = [get(f"k{number}") for number in range(1000)]
        channel.submit(calls)
        replies = drain(channel, 1000, 60)
        assert {id(reply.call) for reply in replies} == {id(call) for call in calls}
        for reply in replies:
            assert reply.failure is None and reply.data == f"/b/{reply.call.key}".encode() * 50
        assert rig.control.asked == 1

    def test_kept_alive(self, rig: Rig) -> None:
        channel = rig(body_of(b"x"), transport=Transport(threads=1))
        assert [ask(channel, get()).reused for _ in range(3)] == [False, True, True]
        assert ask(channel, get(fresh=True)).reused is False
        assert len(rig.server.connections) == 2

    def test_closed_while_idle(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> bool:
            connection.reply("200 OK", ["Content-Length: 1"], b"x")
            return False

        channel = rig(answer, transport=Transport(threads=1))
        for _ in range(3):
            reply = ask(channel, get())
            assert (reply.failure, reply.data, reply.reused) == (None, b"x", False)
            time.sleep(0.05)

    def test_idle_threads_cost_nothing(self, rig: Rig) -> None:
        channel = rig(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"))
        ask(channel, get())
        time.sleep(0.05)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.05

    def test_reset_on_reuse(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> bool | None:
            if connection.number == 0 and connection.served == 1:
                connection.reset()
                return False
            connection.reply("200 OK", ["Content-Length: 1"], b"x")
            return None

        channel = rig(answer, transport=Transport(threads=1))
        ask(channel, get())
        assert ask(channel, get()).data == b"x"

    def test_descriptor_of_the_channel(self, rig: Rig) -> None:
        channel = rig(body_of(b"x"))
        channel.submit([get(), get()])
        got = 0
        while got < 2:
            assert select.select([channel.fileno()], [], [], 5)[0]
            got += len(channel.poll(0))
        time.sleep(0.01)
        assert not select.select([channel.fileno()], [], [], 0)[0]

    def test_two_channels(self, rig: Rig) -> None:
        first = rig(body_of(b"x"))
        second = rig.engine.channel()
        calls = [get() for _ in range(50)]
        first.submit(calls[:25])
        second.submit(calls[25:])
        assert {id(r.call) for r in drain(second, 25)} == {id(c) for c in calls[25:]}
        assert {id(r.call) for r in drain(first, 25)} == {id(c) for c in calls[:25]}

    def test_engine_closed_and_used_again(self, rig: Rig) -> None:
        channel = rig(slow)
        channel.submit([get(), get()])
        time.sleep(0.05)
        rig.engine.close()
        assert [r.failure for r in drain(channel, 2)] == ["cancelled"] * 2
        channel.cancel(get())
        channel.close()
        assert ask(channel, Call("HeadObject", "b", "quick")).status == 200

    def test_no_descriptors_left(self, rig: Rig) -> None:
        before = len(os.listdir("/proc/self/fd"))
        server = Server(body_of(b"x"))
        engine = NativeEngine(Control(server.origin), Transport())
        channel = engine.channel()
        channel.submit([get() for _ in range(20)])
        drain(channel, 20)
        channel.close()
        engine.close()
        del channel, engine
        server.close()
        time.sleep(0.2)
        assert len(os.listdir("/proc/self/fd")) <= before + 1


def slow(connection: Connection, request: Request) -> None:
    if request.path.endswith("quick"):
        connection.reply("200 OK", ["Content-Length: 0"])
        return
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 1000)
    time.sleep(2)


class TestEnds:
    def test_cancel(self, rig: Rig) -> None:
        channel = rig(slow)
        calls = [get() for _ in range(5)]
        channel.submit(calls)
        time.sleep(0.1)
        begun = time.monotonic()
        channel.cancel(calls[2])
        (reply,) = drain(channel, 1)
        assert reply.call is calls[2] and reply.failure == "cancelled" and time.monotonic() - begun < 0.5
        channel.cancel(calls[2])
        for call in calls:
            channel.cancel(call)
        assert {r.failure for r in drain(channel, 4)} == {"cancelled"}

    def test_cancel_at_once(self, rig: Rig) -> None:
        channel = rig(slow)
        calls = [get() for _ in range(200)]
        channel.submit(calls)
        for call in calls:
            channel.cancel(call)
        assert {r.failure for r in drain(channel, 200)} == {"cancelled"}

    def test_close_frees_buffers(self, rig: Rig) -> None:
        channel = rig(slow)
        targets = [bytearray(100_000) for _ in range(20)]
        bodies = [bytearray(10 << 20)]
        channel.submit([get(target=memoryview(target)) for target in targets])
        channel.submit([Call("PutObject", "b", "k", body=bodies)])
        time.sleep(0.1)
        begun = time.monotonic()
        channel.close()
        assert time.monotonic() - begun < 0.5
        for target in targets:
            target.clear()
        bodies[0].clear()

    def test_forgotten_channel(self, rig: Rig) -> None:
        channel = rig(slow)
        target = bytearray(100_000)
        channel.submit([get(target=memoryview(target)), get()])
        loop: list[object] = [channel]
        loop.append(loop)
        del channel, loop
        gc.collect()
        target.clear()

    def test_ctrl_c(self) -> None:
        code = """
            import signal, sys, threading, time, os
            from tests.test_native_engine import *
            engine = NativeEngine(Control(Server(slow).origin), Transport())
            channel = engine.channel()
            channel.submit([get()])
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            begun = time.monotonic()
            try:
                while not channel.poll(10):
                    pass
            except KeyboardInterrupt:
                print("interrupted", time.monotonic() - begun < 0.8)
        """
        answer = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=30
        )
        assert (answer.stdout, answer.returncode) == ("interrupted True\n", 0), answer.stderr

    @pytest.mark.parametrize(
        "way", ["pass", "os._exit(0)", "sys.exit(0)", "channel.close()", "engine.close()", "del engine"]
    )
    def test_exit_with_live_threads(self, way: str) -> None:
        code = f"""
            import sys, os
            from tests.test_native_engine import *
            engine = NativeEngine(Control(Server(slow).origin), Transport())
            channel = engine.channel()
            channel.submit([get() for _ in range(50)] + [get(target=memoryview(bytearray(100000))) for _ in range(50)])
            channel.poll(0.1)
            {way}
        """
        answer = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=30
        )
        assert (answer.returncode, answer.stderr) == (0, "")

    def test_fork(self, rig: Rig) -> None:
        channel = rig(slow)
        target = bytearray(100_000)
        channel.submit([get(), get(target=memoryview(target))])
        ask(channel, Call("HeadObject", "b", "quick"))
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    signal.alarm(20)
                    assert channel.poll(0.05) == []
                    assert ask(channel, Call("HeadObject", "b", "quick")).status == 200
                    other = rig.engine.channel()
                    assert ask(other, Call("HeadObject", "b", "quick")).status == 200
                    channel.close()
                    rig.engine.close()
                    del channel, other
                    gc.collect()
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0
        assert len(drain(channel, 2)) == 2

    def test_fork_under_load(self, rig: Rig) -> None:
        channel = rig(body_of(b"x" * 1000))
        alive = [channel]
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                channel.submit([get() for _ in range(32)])
                drain(channel, 32)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            for _ in range(20):
                pid = os.fork()
                if pid == 0:
                    status = 1
                    try:
                        signal.alarm(20)
                        assert ask(rig.engine.channel(), get()).data == b"x" * 1000
                        status = 0
                    finally:
                        os._exit(status)
                assert os.waitpid(pid, 0)[1] == 0
        finally:
            stop.set()
            thread.join()
        del alive

    def test_no_leaks(self, rig: Rig) -> None:
        channel = rig(body_of(b"x" * 4000))

        def some(n: int) -> None:
            for _ in range(n // 50):
                channel.submit([get(metadata={"a": "b"}) for _ in range(25)])
                channel.submit([Call("PutObject", "b", "k", body=[b"y" * 500], metadata={"a": "b"}) for _ in range(25)])
                drain(channel, 50)
                rig.requests.clear()

        some(2000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        some(10_000)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4000


class TestSignatures:
    """The server's view of a request, signed once more by botocore, has the same signature."""

    def check(self, origin: str, request: Request, credentials: Credentials, payload: bytes | None) -> None:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials as BotoCredentials

        class Fixed(S3SigV4Auth):
            def _should_sha256_sign_payload(self, request: object) -> bool:
                return payload is not None

        authorization = request.headers["authorization"]
        signed = authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        assert set(request.headers) - set(signed) <= {"authorization", "user-agent", "content-length", "connection"}
        again = AWSRequest(
            request.method,
            origin + request.path,
            {
                name: request.headers[name]
                for name in signed
                if not name.startswith("x-amz-security") and name != "host"
            },
            payload,
        )
        timestamp = request.headers["x-amz-date"]
        again.context["timestamp"] = timestamp
        auth = Fixed(
            BotoCredentials(credentials.access_key, credentials.secret_key, credentials.token), "s3", "us-east-1"
        )
        if credentials.token:
            again.headers["X-Amz-Security-Token"] = credentials.token
        canonical = auth.canonical_request(again)
        signature = auth.signature(auth.string_to_sign(again, canonical), again)
        assert authorization.endswith("Signature=" + signature), canonical

    @pytest.mark.parametrize("key", ["k", "a b+c/ä~!*'()//./../x%20y?z=1&w#f", "日本/../..", "/", "//"])
    @pytest.mark.parametrize("token", [None, "IQoJb3JpZ2luX2VjE/+=="])
    def test_gets_and_puts(self, rig: Rig, key: str, token: str | None) -> None:
        keys = Credentials(KEYS.access_key, KEYS.secret_key, token)
        headers = (("x-amz-checksum-mode", "ENABLED"), ("x-amz-expected-bucket-owner", "111122223333"))
        channel = rig(body_of(b""), signer=keys, headers=headers)
        calls = [
            get(key),
            get(key, start=1, stop=5, if_match='"e"'),
            Call("HeadObject", "b", key),
            Call(
                "PutObject",
                "b",
                key,
                body=[b"abc", b"def"],
                checksum="CRC64NVME",
                metadata={"Z": "a  b", "a": "1", "m": ""},
            ),
            Call("UploadPart", "b", key, body=[b"abc", b"def"], part=7, upload="a/b=c"),
            Call("DeleteObject", "b", key),
        ]
        for call in calls:
            assert ask(channel, call).failure is None
            body = b"abcdef" if call.body else b""
            assert rig.requests[-1].body == body
            self.check(rig.server.origin, rig.requests[-1], keys, body)
        assert len(rig.requests) == len(calls)

    def test_unsigned_payload(self, rig: Rig) -> None:
        channel = rig(body_of(b""), sign_payload=False)
        ask(channel, Call("PutObject", "b", "k", body=[b"abc"]))
        assert rig.requests[0].headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"

    def test_anonymous(self, rig: Rig) -> None:
        channel = rig(body_of(b""), signer=None)
        ask(channel, get())
        assert set(rig.requests[0].headers) == {"host", "user-agent"}

    def test_new_credentials(self, rig: Rig) -> None:
        channel = rig(body_of(b""))
        ask(channel, get())
        rig.control.signer = Credentials("AKIDOTHER", "other", None)
        rig.control.skew = 86400.0 * 2
        ask(channel, get())
        first, second = (request.headers for request in rig.requests)
        assert "AKIDEXAMPLE" in first["authorization"] and "AKIDOTHER" in second["authorization"]
        assert first["x-amz-date"][:8] < second["x-amz-date"][:8]
        assert second["x-amz-date"][:8] in second["authorization"]

    def test_new_version(self, rig: Rig) -> None:
        channel = rig(body_of(b""))
        ask(channel, get())
        ask(channel, get())
        assert rig.control.asked == 1
        rig.control.version += 1
        ask(channel, get())
        assert rig.control.asked == 2


class TestChecksums:
    DATA = os.urandom(300_000)

    @pytest.mark.parametrize(
        ("headers", "algorithm"),
        [
            (["x-amz-checksum-crc64nvme: AAAAAAAAAAA=", "x-amz-checksum-type: FULL_OBJECT"], "CRC64NVME"),
            (["X-Amz-Checksum-Crc32c: AAAAAA=="], "CRC32C"),
            (["x-amz-checksum-crc32: AAAAAA=="], "CRC32"),
            (["x-amz-checksum-crc32: AAAAAA==-3"], None),
            (["x-amz-checksum-crc32: AAAAAA==", "x-amz-checksum-type: COMPOSITE"], None),
            (["x-amz-checksum-sha256: AAAAAA=="], None),
        ],
    )
    @pytest.mark.parametrize("into", [True, False])
    def test_whole(self, rig: Rig, headers: Sequence[str], algorithm: str | None, into: bool) -> None:
        target = memoryview(bytearray(len(self.DATA))) if into else None
        reply = ask(rig(body_of(self.DATA, *headers)), get(target=target))
        assert reply.checksum == (None if algorithm is None else (algorithm, crc(algorithm, self.DATA)))

    def test_none_for_errors(self, rig: Rig) -> None:
        assert ask(rig(body_of(b"no", status="404 No")), get(start=0, stop=5, checksum="CRC32")).checksum is None


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    command += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(command.split(), check=True, capture_output=True, cwd=path)
    return path


class TestTls:
    def server(self, rig: Rig, certificate: Path, answer: Callable[..., object]) -> Server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        server = Server(answer, tls=context)  # type: ignore[arg-type]
        rig.servers.append(server)
        return server

    def test_trusted(self, rig: Rig, certificate: Path) -> None:
        data = os.urandom(8 << 20)
        server = self.server(rig, certificate, body_of(data))
        channel = rig.to(server.origin, transport=Transport(ca_file=str(certificate / "cert.pem")))
        for _ in range(3):
            target = bytearray(len(data))
            reply = ask(channel, get(target=memoryview(target)))
            assert (reply.failure, reply.received, target) == (None, len(data), data)
        ask(channel, Call("PutObject", "b", "k", body=[data]))
        assert server.requests[-1].body == data

    def test_not_trusted(self, rig: Rig, certificate: Path) -> None:
        server = self.server(rig, certificate, body_of(b"x"))
        assert ask(rig.to(server.origin, transport=Transport()), get()).failure == "tls"
        assert ask(rig.to(server.origin, transport=Transport(verify=False)), get()).data == b"x"
        assert len(server.requests) == 1

    def test_wrong_bundle(self, rig: Rig, certificate: Path) -> None:
        server = self.server(rig, certificate, body_of(b"x"))
        assert ask(rig.to(server.origin, transport=Transport(ca_file="/nonexistent")), get()).failure == "tls"

    def test_announced_over_tls(self, rig: Rig, certificate: Path) -> None:
        data = os.urandom(4 << 20)
        channel = rig.to(self.server(rig, certificate, body_of(data)).origin)
        rig.engine.close()
        call = get()
        assert ask(channel, call).announced
        target = bytearray(len(data))
        channel.resume(call, memoryview(target))
        assert drain(channel, 1)[0].failure is None and target == data

    def test_handshake_cut(self, rig: Rig) -> None:
        for act in (lambda client: Connection(client, 0).reset(), lambda client: None):
            with self.listening(act) as port:
                reply = ask(rig.to(f"https://127.0.0.1:{port}"), get())
                assert reply.failure == "reset", reply.message

    def test_plain_server(self, rig: Rig) -> None:
        with self.listening(lambda client: client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
            assert ask(rig.to(f"https://127.0.0.1:{port}"), get()).failure == "tls"

    @contextlib.contextmanager
    def listening(self, act: Callable[[socket.socket], object]) -> Iterator[int]:
        def accept() -> None:
            client, _ = listener.accept()
            client.recv(100)
            act(client)
            client.close()

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=accept)
            thread.start()
            yield listener.getsockname()[1]
            thread.join()
