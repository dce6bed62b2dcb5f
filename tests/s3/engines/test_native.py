"""The native engine: bodies, announcements, puts and failures, against servers that answer what no good server
would."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import pickle
import socket
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from mfstore._core import transfer
from mfstore._core.crc import update as crc
from mfstore.s3 import calls
from mfstore.s3.aws.routes import Transport
from mfstore.s3.calls import SHORT_BODY, Call, FileRange, Reply
from mfstore.s3.engines.interface import Channel
from tests.rigs.native_engine import Rig, ask, body_of, drain, get, raw
from tests.rigs.raw_server import Answer, Connection, Request


def test_every_word_for_a_failure_is_the_interfaces() -> None:
    words = {value for name, value in vars(calls).items() if name.isupper() and isinstance(value, str)}
    assert words
    assert set(transfer.FAILURES) == words | {None}


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
        assert reply.data == b"abc" and isinstance(reply.headers, Mapping)
        assert pickle.loads(pickle.dumps(reply.headers)) == reply.headers

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

    @pytest.mark.parametrize("n", [SHORT_BODY + 1, 100])
    def test_overflow(self, rig: Rig, n: int) -> None:
        target = bytearray(b"\0" * 60)
        reply = ask(rig(body_of(b"x" * n)), get(target=memoryview(target)[:50]))
        assert reply.failure == "overflow"
        assert target[50:] == b"\0" * 10

    @pytest.mark.parametrize("cut", [False, True])
    @pytest.mark.parametrize("chunks", [False, True])
    @pytest.mark.parametrize(("start", "stop"), [(0, 9), (5, 300_000), (900_000, 900_007), (999_995, None)])
    def test_the_whole_for_a_range(self, rig: Rig, cut: bool, chunks: bool, start: int, stop: int | None) -> None:
        data = bytes(range(250)) * 4000
        whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf4240\r\n" + data + b"\r\n0\r\n\r\n"
        channel = rig(raw(whole) if chunks else body_of(data))
        wanted = data[start:stop]
        room = bytearray(len(wanted) + 1)
        reply = ask(
            channel, get(start=start, stop=stop, cut=cut, checksum="CRC32C", target=memoryview(room)[: len(wanted)])
        )
        if cut:
            assert (reply.failure, reply.received, room) == (None, len(wanted), wanted + b"\0")
            assert reply.checksum == ("CRC32C", crc("CRC32C", wanted))
        else:
            assert (reply.failure, reply.status, reply.received, room) == ("whole", 200, 0, bytes(len(room)))
        assert ask(channel, Call("HeadObject", "b", "k")).status == 200

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
        data = b"<x/>" * (SHORT_BODY // 2)
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

    def test_announced_before_the_connection_was_waited_for(self, rig: Rig) -> None:
        """On a connection that served before, the answer may be there when the engine first looks, and be paused at
        once. With the engine on one processor this happens every few requests; the bytes that come meanwhile are no
        litter on an idle connection."""
        channel = rig(body_of(self.DATA, 'ETag: "e"'))
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})  # before the engine has threads
        try:
            for _ in range(60):
                call = get()
                assert ask(channel, call).announced
                time.sleep(0.003)  # for the socket to become readable while nobody reads it
                target = bytearray(len(self.DATA))
                channel.resume(call, memoryview(target))
                (final,) = drain(channel, 1)
                assert (final.failure, final.received, target == self.DATA) == (None, len(self.DATA), True)
        finally:
            os.sched_setaffinity(0, allowed)
        assert len(rig.server.connections) == 1

    def test_into_file(self, rig: Rig, tmp_path: Path) -> None:
        channel, call, _ = self.announced(rig)
        with open(tmp_path / "f", "w+b") as file:
            channel.resume(call, FileRange(file.fileno(), 0, len(self.DATA)))
            assert drain(channel, 1)[0].failure is None
        assert (tmp_path / "f").read_bytes() == self.DATA

    @pytest.mark.parametrize("stop", [1, 1000, SHORT_BODY, len(DATA) - 1, len(DATA)])
    def test_partly(self, rig: Rig, stop: int) -> None:
        channel, call, _ = self.announced(rig)
        target = bytearray(stop)
        channel.resume(call, memoryview(target), stop)
        (final,) = drain(channel, 1)
        assert (final.failure, final.received, target) == (None, stop, self.DATA[:stop])
        assert ask(channel, Call("HeadObject", "b", "k")).status == 200

    @pytest.mark.parametrize("skip", [1, SHORT_BODY - 1, SHORT_BODY, 3_000_000, len(DATA) - 1])
    @pytest.mark.parametrize("stop", [None, 1])
    def test_from_within(self, rig: Rig, skip: int, stop: int | None) -> None:
        value = base64.b64encode(zlib.crc32(self.DATA).to_bytes(4, "big")).decode()
        channel, call, _ = self.announced(rig, body_of(self.DATA, f"x-amz-checksum-crc32: {value}"))
        wanted = self.DATA[skip:][:stop]
        target = bytearray(len(wanted))
        channel.resume(call, memoryview(target), stop, skip)
        (final,) = drain(channel, 1)
        assert (final.failure, final.received, target) == (None, len(wanted), wanted)
        assert final.checksum == ("CRC32", zlib.crc32(wanted))

    def test_checksum_of_part(self, rig: Rig) -> None:
        value = base64.b64encode(zlib.crc32(self.DATA).to_bytes(4, "big")).decode()
        for stop in (None, 777_777):
            channel, call, _ = self.announced(rig, body_of(self.DATA, f"x-amz-checksum-crc32: {value}"))
            target = bytearray(stop or len(self.DATA))
            channel.resume(call, memoryview(target), stop)
            assert drain(channel, 1)[0].checksum == ("CRC32", zlib.crc32(target))

    @pytest.mark.parametrize("stop", [None, 100, SHORT_BODY + 5])
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
            connection.hold(3)

        begun = time.monotonic()
        reply = ask(rig(answer), get(stall=0.3))
        assert (reply.failure, reply.received) == ("stall", 3) and time.monotonic() - begun < 15

    def test_stall_of_an_upload(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> None:
            connection.hold(3)

        channel = rig(answer)
        rig.server.read_bodies = False
        assert ask(channel, Call("PutObject", "b", "k", body=[bytes(50 << 20)], stall=0.3)).failure == "stall"

    @pytest.mark.parametrize("operation", ["GetObject", "PutObject"])
    def test_first_byte(self, rig: Rig, operation: str) -> None:
        def answer(connection: Connection, request: Request) -> None:
            connection.hold(3)

        body = [b"x" * 200_000] if operation == "PutObject" else None
        begun = time.monotonic()
        reply = ask(rig(answer), Call(operation, "b", "k", body=body, first_byte=0.3))
        assert (reply.failure, reply.status) == ("first-byte", 0) and 0.25 < time.monotonic() - begun < 15

    def test_refused(self, rig: Rig) -> None:
        with socket.socket() as bound:  # and not listening: nobody else gets the port
            bound.bind(("127.0.0.1", 0))
            reply = ask(rig.to(f"http://127.0.0.1:{bound.getsockname()[1]}"), get())
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
            assert time.monotonic() - begun < 15
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

    @pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
    def test_a_proxy_that_was_decided_on_is_used_whatever_the_environment_says(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv(name, "*")
        rig(body_of(b"hi"))
        proxied = rig.to("http://example.invalid", transport=Transport(proxy=rig.server.origin))
        assert ask(proxied, get()).data == b"hi"

    def test_proxy_refuses_tunnel(self, rig: Rig) -> None:
        rig(body_of(b"", status="407 Proxy Authentication Required"))
        proxied = rig.to("https://example.invalid", transport=Transport(proxy=rig.server.origin))
        assert ask(proxied, get()).failure == "proxy"
