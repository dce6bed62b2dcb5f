"""The engine on botocore and aiohttp, against a server that misbehaves to order."""

import errno
import gc
import itertools
import os
import select
import socket
import ssl
import threading
import time
import zlib

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("botocore")

from mfstore.errors import AccessDenied, Unsupported
from mfstore.s3 import calls as words
from mfstore.s3.calls import SHORT_BODY, Call, FileRange, Options
from mfstore.s3.engines import aiobotocore, aiohttp
from mfstore.s3.engines.aiobotocore import AioChannel, AioEngine
from mfstore.s3.engines.aiohttp import HttpSession
from tests.rigs.control_planes import control_plane
from tests.rigs.descriptors import open_files
from tests.rigs.interrupts import Interrupt
from tests.rigs.s3_wire import Wire, respond, then_close, then_reset, then_wait

DATA = bytes(range(256)) * 16
BIG = os.urandom(3 * SHORT_BODY + 17)


@pytest.fixture
def wire(s3_env):
    with Wire() as wire:
        yield wire


@pytest.fixture
def engine(wire):
    engine = AioEngine(control_plane(endpoint_url=wire.url, region="us-east-1"))
    yield engine
    engine.close()


@pytest.fixture
def channel(engine):
    channel = engine.channel()
    yield channel
    channel.close()


def wait(channel, count=1, timeout=60):
    replies, end = [], time.monotonic() + timeout
    while len(replies) < count and time.monotonic() < end:
        replies += channel.poll(0.2)
    assert len(replies) == count, replies
    return replies


def run(channel, call):
    channel.submit([call])
    return wait(channel)[0]


def get(key="k", **fields):
    return Call("GetObject", "b", key, **fields)


def test_whole_object(wire, channel):
    wire.answers["/b/k"] = respond(200, DATA, ETag='"e"', x_amz_meta_A="ü", X_AMZ_META_A="second")
    reply = run(channel, get())
    assert (reply.status, reply.failure, reply.data, reply.received) == (200, None, DATA, len(DATA))
    assert reply.headers["etag"] == '"e"' and reply.headers["x-amz-meta-a"] == "ü"
    assert 0 < reply.submitted <= reply.first_byte <= reply.finished
    method, path, headers, _ = wire.requests[0]
    assert (method, path) == ("GET", "/b/k") and headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
    assert headers["x-amz-checksum-mode"] == "ENABLED" and headers["accept-encoding"] == "identity"
    assert not reply.reused and run(channel, get()).reused and not run(channel, get(fresh=True)).reused


@pytest.mark.parametrize("key", ["a b", "ü/+%", "..", "a//b/./c", "x?y#z", "~-_."])
def test_keys_arrive_as_they_are(wire, channel, key):
    reply = run(channel, get(key))
    assert reply.status == 404
    from urllib.parse import unquote

    assert unquote(wire.requests[0][1]) == "/b/" + key


def test_range_into_memory_and_checksum(wire, channel):
    wire.answers["/b/k"] = respond(206, DATA[5:100], Content_Range=f"bytes 5-99/{len(DATA)}")
    target = bytearray(95)
    reply = run(channel, get(start=5, stop=100, if_match='"e"', target=memoryview(target), checksum="CRC32"))
    assert bytes(target) == DATA[5:100] and reply.received == 95 and reply.data is None
    assert reply.checksum == ("CRC32", zlib.crc32(DATA[5:100]))
    assert wire.requests[0][2]["range"] == "bytes=5-99" and wire.requests[0][2]["if-match"] == '"e"'
    run(channel, get(start=-7))
    assert wire.requests[1][2]["range"] == "bytes=-7"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("start", "stop"), [(0, 9), (5, 300_000), (SHORT_BODY + 5, None), (len(BIG) - 5, len(BIG))])
def test_the_whole_for_a_range(wire, channel, chunked, start, stop):
    wire.answers["/b/k"] = respond(200, BIG)
    if chunked:
        head = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"
        wire.answers["/b/k"] = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BIG), BIG)
    wanted = BIG[start:stop]
    room = bytearray(len(wanted) + 1)
    asked = {"start": start, "stop": stop, "checksum": "CRC32", "target": memoryview(room)[:-1]}
    reply = run(channel, get(**asked))
    assert (reply.failure, reply.status, reply.received, room) == (words.WHOLE, 200, 0, bytes(len(room)))
    reply = run(channel, get(cut=True, **asked))
    assert (reply.failure, reply.received, room) == (None, len(wanted), wanted + b"\0")
    assert reply.checksum == ("CRC32", zlib.crc32(wanted))


def test_checksum_named_by_the_response(wire, channel):
    wire.answers["/b/k"] = respond(200, DATA, x_amz_checksum_crc32="AAAAAA==")
    assert run(channel, get()).checksum == ("CRC32", zlib.crc32(DATA))
    wire.answers["/b/k"] = respond(200, DATA, x_amz_checksum_crc32="AAAAAA==-3")
    assert run(channel, get()).checksum is None


def test_into_a_file(wire, channel, tmp_path):
    wire.answers["/b/k"] = respond(200, BIG)
    with open(tmp_path / "f", "w+b") as file:
        reply = run(channel, get(target=FileRange(file.fileno(), 10, len(BIG))))
        assert reply.failure is None and reply.received == len(BIG)
    assert (tmp_path / "f").read_bytes() == bytes(10) + BIG


def test_disk_failure(wire, channel):
    wire.answers["/b/k"] = respond(200, DATA)
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        reply = run(channel, get(target=FileRange(fd, 0, len(DATA))))
    finally:
        os.close(fd)
    assert (reply.failure, reply.errno) == (words.DISK, errno.ENOSPC)


@pytest.mark.parametrize("chunked", [False, True])
def test_announced_then_resumed(wire, channel, chunked):
    answer = respond(200, BIG, x_amz_checksum_crc32="AAAAAA==")
    if chunked:
        head = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\nx-amz-checksum-crc32: AAAAAA==\r\n\r\n"
        answer = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BIG), BIG)
    wire.answers["/b/k"] = answer
    for stop in (None, 1000, SHORT_BODY + 200_000):
        call = get()
        told = run(channel, call)
        assert told.announced and told.status == 200
        assert channel.poll(0.05) == []
        target = bytearray(len(BIG) if stop is None else stop)
        channel.resume(call, memoryview(target), stop)
        (reply,) = wait(channel)
        assert not reply.announced and reply.failure is None, reply.message
        assert bytes(target) == BIG[:stop] and reply.received == len(target) and reply.data is None
        assert reply.checksum == ("CRC32", zlib.crc32(target))


@pytest.mark.parametrize("skip", [1, SHORT_BODY, 2 * SHORT_BODY, len(BIG) - 1])
def test_announced_then_resumed_from_within(wire, channel, skip):
    wire.answers["/b/k"] = respond(200, BIG, x_amz_checksum_crc32="AAAAAA==")
    for stop in (None, 1):
        call = get()
        assert run(channel, call).announced
        wanted = BIG[skip:][:stop]
        target = bytearray(len(wanted))
        channel.resume(call, memoryview(target), stop, skip)
        (reply,) = wait(channel)
        assert (reply.failure, reply.received, target) == (None, len(wanted), wanted)
        assert reply.checksum == ("CRC32", zlib.crc32(wanted))


def test_announced_then_cancelled(wire, channel):
    wire.answers["/b/k"] = respond(200, BIG)
    call = get()
    assert run(channel, call).announced
    channel.cancel(call)
    assert [reply.failure for reply in wait(channel)] == [words.CANCELLED]
    assert channel.poll(0.1) == []


@pytest.mark.second
@pytest.mark.parametrize("share", [0, 1, 50, 99.9])
@pytest.mark.parametrize("how", [then_close, then_reset])
def test_cut_bodies_never_pass(wire, channel, share, how):
    whole = respond(200, BIG)
    head = len(whole) - len(BIG)
    wire.answers["/b/k"] = how(whole[: head + int(len(BIG) * share / 100)])
    target = bytearray(len(BIG))
    reply = run(channel, get(target=memoryview(target)))
    assert reply.failure in ((words.TRUNCATED,) if how is then_close else (words.TRUNCATED, words.RESET))
    assert reply.received < len(BIG) and target[: reply.received] == BIG[: reply.received]


def test_small_body_cut(wire, channel):
    wire.answers["/b/k"] = then_close(respond(200, DATA, length=len(DATA) + 1))
    assert run(channel, get()).failure == words.TRUNCATED


def test_content_range_tells_the_length_too(wire, channel):
    head = b"HTTP/1.1 206 X\r\nConnection: close\r\nContent-Range: bytes 0-99/100\r\n\r\n"
    wire.answers["/b/k"] = then_close(head + b"x" * 40)
    reply = run(channel, get(start=0, stop=100, target=memoryview(bytearray(100))))
    assert (reply.failure, reply.received) == (words.TRUNCATED, 40)


def test_reset_before_any_byte(wire, channel):
    wire.answers["/b/k"] = then_reset()
    reply = run(channel, get())
    assert (reply.failure, reply.status) == (words.RESET, 0)
    assert len(wire.requests) == 1  # asking again is not the engine's


def test_too_much(wire, channel):
    wire.answers["/b/k"] = respond(200, DATA)
    target = bytearray(50)
    assert run(channel, get(target=memoryview(target)[:40])).failure == words.OVERFLOW
    assert target[40:] == bytes(10)
    wire.answers["/b/k"] = then_close(b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n" + DATA)
    assert run(channel, get(target=memoryview(target)[:40])).failure == words.OVERFLOW
    assert target[40:] == bytes(10) and target[:40] == DATA[:40]


def test_time_outs(wire, channel):
    wire.answers["/b/first"] = then_wait()
    wire.answers["/b/stall"] = then_wait(respond(200, DATA)[:-10])
    begin = time.monotonic()
    channel.submit([get("first", first_byte=0.3), get("stall", stall=0.3)])
    assert {reply.call.key: reply.failure for reply in wait(channel, 2)} == {
        "first": words.FIRST_BYTE,
        "stall": words.STALL,
    }
    assert 0.25 < time.monotonic() - begin < 15


def test_not_http(wire, channel):
    wire.answers["/b/k"] = then_close(b"SSH-2.0-x\r\n\r\n")
    assert run(channel, get()).failure == words.PROTOCOL


def test_refused_and_unknown_hosts(s3_env):
    for url, failure in (("http://127.0.0.1:1", words.CONNECT), ("http://host.invalid", words.DNS)):
        engine = AioEngine(control_plane(endpoint_url=url, region="us-east-1"))
        channel = engine.channel()
        reply = run(channel, get())
        assert (reply.failure, reply.status) == (failure, 0) and reply.message
        channel.close()
        engine.close()


def test_cancel_and_close_leave_the_memory_alone(wire, engine):
    wire.answers["/b/k"] = then_wait(respond(200, BIG)[: 1 << 20])
    target = bytearray(len(BIG))
    channel = engine.channel()
    one, two = get(target=memoryview(target)), get(target=memoryview(bytearray(len(BIG))))
    channel.submit([one, two])
    time.sleep(0.2)
    channel.cancel(one)
    assert [reply.failure for reply in wait(channel)] == [words.CANCELLED]
    begin = time.monotonic()
    channel.close()
    assert time.monotonic() - begin < 5
    before = bytes(target)
    time.sleep(0.1)
    assert target == before
    channel.close()


def all_loops():
    """The threads of this process's engines: also of those that fixtures of other files keep."""
    return {thread for thread in threading.enumerate() if thread.name == "mfstore-s3-aio"}


@pytest.fixture
def loops():
    """The threads of the engines that the test made."""
    before = all_loops()
    return lambda: all_loops() - before


def sockets(address):
    """Open sockets of this process with that address of their own."""

    def there(one):
        try:
            return one.fileno() >= 0 and one.getsockname() == address
        except OSError:  # the loop's thread has closed it in this moment
            return False

    return [thing for thing in gc.get_objects() if isinstance(thing, socket.socket) and there(thing)]


@pytest.mark.second
@pytest.mark.parametrize("closing", [False, True])
def test_a_server_that_takes_nothing_holds_no_connection(s3_env, closing, loops):
    """What was written and not taken is thrown away with the call, or else with the engine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        engine = AioEngine(
            control_plane(endpoint_url=f"http://127.0.0.1:{server.getsockname()[1]}", region="us-east-1")
        )
        channel = engine.channel()
        channel.submit([Call("PutObject", "b", "k", body=[bytes(64 << 20)], stall=60.0 if closing else 0.3)])
        accepted, address = server.accept()
        with accepted:
            accepted.recv(1)
            assert sockets(address) or not closing  # which may have stalled already
            if closing:
                channel.close()
                engine.close()
                assert not sockets(address)
            else:
                assert wait(channel)[0].failure == words.STALL
                end = time.monotonic() + 30
                while sockets(address) and time.monotonic() < end:
                    time.sleep(0.05)
                assert not sockets(address)
                while accepted.recv(1 << 20):
                    pass
                channel.close()
                engine.close()
    assert not loops()


def test_error_bodies_are_raw_and_cut(wire, channel):
    wire.answers["/b/k"] = respond(403, b"<Error><Code>AccessDenied</Code></Error>")
    reply = run(channel, get(target=memoryview(bytearray(5))))
    assert reply.status == 403 and reply.failure is None and reply.data.startswith(b"<Error>")
    wire.answers["/b/k"] = respond(500, b"x" * 200_000)
    assert len(run(channel, get()).data) == 64 << 10


def test_redirects_are_not_followed(wire, channel):
    with Wire() as foreign:
        wire.answers["/b/k"] = respond(307, b"", Location=foreign.url + "/b/k")
        assert run(channel, get()).status == 307
        assert foreign.connections == 0


@pytest.mark.parametrize("kind", ["parts", "file", "empty"])
def test_put(wire, channel, tmp_path, kind):
    wire.answers["/b/k"] = respond(200, ETag='"e"')
    (tmp_path / "f").write_bytes(b"12345" + BIG)
    with open(tmp_path / "f", "rb") as file:
        body = {
            "parts": [BIG[:10], memoryview(BIG)[10:100_000], bytearray(BIG[100_000:])],
            "file": FileRange(file.fileno(), 5, len(BIG)),
            "empty": None,
        }[kind]
        call = Call("PutObject", "b", "k", body=body, checksum="CRC32", metadata={"A": "1"}, if_none_match=True)
        call.options = Options(ServerSideEncryption="AES256")
        reply = run(channel, call)
    assert (reply.status, reply.failure) == (200, None), reply.message
    sent = b"" if kind == "empty" else BIG
    _, _, headers, got = wire.requests[0]
    assert got == sent and headers["content-length"] == str(len(sent))
    assert headers["x-amz-meta-a"] == "1" and headers["if-none-match"] == "*"
    assert headers["x-amz-server-side-encryption"] == "AES256"
    assert "transfer-encoding" not in headers and "x-amz-trailer" not in headers and "expect" not in headers
    assert reply.checksum == ("CRC32", zlib.crc32(sent)) and "x-amz-checksum-crc32" in headers


def test_upload_part_and_list(wire, channel):
    wire.answers["/b/k"] = respond(200)
    assert run(channel, Call("UploadPart", "b", "k", part=3, upload="u+/", body=[b"x"])).status == 200
    assert sorted(wire.requests[0][1].partition("?")[2].split("&")) == ["partNumber=3", "uploadId=u%2B%2F"]
    wire.answers["/b"] = respond(200, b"<ListBucketResult/>")
    reply = run(channel, Call("ListObjectsV2", "b", params={"Prefix": "p"}))
    assert reply.data == b"<ListBucketResult/>" and "prefix=p" in wire.requests[1][1]


def test_a_file_that_shrank(wire, channel, tmp_path):
    (tmp_path / "f").write_bytes(b"123")
    with open(tmp_path / "f", "rb") as file:
        reply = run(channel, Call("PutObject", "b", "k", body=FileRange(file.fileno(), 0, 10)))
    assert (reply.failure, reply.errno, reply.message) == (words.DISK, 0, "the file is shorter than it was")


def test_descriptor_tells_of_replies(wire, channel):
    wire.answers["/b/k"] = respond(200, DATA)
    channel.submit([get() for _ in range(200)])
    count = 0
    while count < 200:
        assert select.select([channel.fileno()], [], [], 10)[0]
        count += len(channel.poll(0))
    assert not select.select([channel.fileno()], [], [], 0)[0]


def test_failures_of_preparation(wire, engine, channel, monkeypatch):
    reply = run(channel, Call("PutObject", "b", "k", options=Options(SSEKMSKeyId=5), body=[b""]))
    assert reply.failure == words.INTERNAL and "SSEKMSKeyId" in reply.message
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    bare = AioEngine(control_plane(endpoint_url=wire.url, region="us-east-1"))
    with pytest.raises(AccessDenied, match="no AWS credentials"):
        bare.channel().submit([get()])
    bare.close()


def test_fork(wire, engine, channel):
    wire.answers["/b/k"] = respond(200, DATA)
    assert run(channel, get()).data == DATA
    pid = os.fork()
    if not pid:
        code = 1
        try:
            other = engine.channel()
            code = 0 if run(other, get()).data == DATA else 2
            other.close()
            engine.close()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert run(channel, get()).data == DATA


def test_close_and_use_again(wire, loops, engine):
    wire.answers["/b/k"] = respond(200, DATA)
    for _ in range(3):
        channel = engine.channel()
        assert run(channel, get()).data == DATA
        channel.close()
        engine.close()
    assert not loops()


@pytest.mark.second
def test_an_engine_that_nobody_closes_ends_with_its_last_user(wire, loops):
    wire.answers["/b/k"] = respond(200, DATA)
    channel = AioEngine(control_plane(endpoint_url=wire.url, region="us-east-1")).channel()
    gc.collect()
    assert run(channel, get()).data == DATA
    (thread,) = loops()
    del channel
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_tls(s3_env, tmp_path):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with Wire(tls) as wire:
        wire.answers["/b/k"] = respond(200, DATA)
        for verify, failure in ((str(tmp_path / "ca.pem"), None), (False, None), (None, words.TLS)):
            engine = AioEngine(control_plane(endpoint_url=wire.url, region="us-east-1", verify=verify))
            channel = engine.channel()
            assert run(channel, get()).failure == failure
            channel.close()
            engine.close()


def test_proxy(s3_env):
    with Wire() as proxy:
        proxy.answers["http://s3.example/b/k"] = respond(200, DATA)
        from botocore.config import Config

        config = Config(proxies={"http": f"http://u:p@127.0.0.1:{proxy.port}"}, s3={"addressing_style": "path"})
        engine = AioEngine(control_plane(endpoint_url="http://s3.example", region="us-east-1", config=config))
        channel = engine.channel()
        assert run(channel, get()).data == DATA
        assert proxy.requests[0][2]["proxy-authorization"].startswith("Basic ")
        channel.close()
        engine.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"proxies": {"http": "socks5://127.0.0.1:1"}}, "cannot use a socks5 proxy"),
        (
            {"proxies": {"http": "127.0.0.1:1"}, "proxies_config": {"proxy_ca_bundle": __file__}},
            "cannot use proxies_config",
        ),
    ],
)
def test_what_aiohttp_has_no_way_to_do_is_said(s3_env, options, words):
    from botocore.config import Config

    engine = AioEngine(control_plane(endpoint_url="http://s3.example", region="r", config=Config(**options)))
    with pytest.raises(Unsupported, match=words):
        engine.channel()


def test_the_client_is_aiobotocores(wire, channel):
    """Its session reads the configuration, its client sends, and nothing is asked for a second time."""
    wire.answers["/b/k"] = respond(503, b"<Error><Code>SlowDown</Code></Error>")
    assert run(channel, get()).status == 503
    wire.answers["/b/k"] = respond(301, x_amz_bucket_region="eu-west-3")
    assert run(channel, get()).status == 301
    assert [headers["user-agent"].split("/")[0] for _, _, headers, _ in wire.requests] == ["aiobotocore"] * 2


def test_requests_of_aiobotocores_own(wire, monkeypatch):
    """They are read whole, follow no redirection either, and end."""
    import asyncio
    from types import SimpleNamespace

    wire.answers["/session"] = respond(307, b"elsewhere", Location=wire.url + "/other")
    wire.answers["/never"] = then_wait()

    async def ask(path):
        async with HttpSession() as http:
            answer = await http.send(SimpleNamespace(method="GET", url=wire.url + path, headers={}, body=None))
            return answer.status_code, answer.headers["location"], await answer.content

    assert asyncio.run(ask("/session")) == (307, wire.url + "/other", b"elsewhere")
    monkeypatch.setattr(aiohttp, "OWN_SECONDS", 0.1)
    with pytest.raises(TimeoutError):
        asyncio.run(ask("/never"))
    assert "/other" not in [path for _, path, _, _ in wire.requests]


def test_the_connectors_arguments_are_heeded(wire):
    from aiobotocore.config import AioConfig
    from aiohttp.abc import AbstractResolver

    asked = []

    class Resolver(AbstractResolver):
        async def resolve(self, host, port=0, family=socket.AF_INET):
            asked.append(host)
            return [
                {"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            ]

        async def close(self):
            return

    config = AioConfig(connector_args={"resolver": Resolver()}, s3={"addressing_style": "path"})
    engine = AioEngine(
        control_plane(endpoint_url=f"http://somewhere.example:{wire.port}", region="us-east-1", config=config)
    )
    wire.answers["/b/k"] = respond(200, DATA)
    channel = engine.channel()
    assert run(channel, get()).data == DATA and asked == ["somewhere.example"]
    channel.close()
    engine.close()


def test_params_are_for_other_operations(wire, channel):
    """A scheduler may keep a note of its own in a plain call's params: no parameter of the request."""
    assert run(channel, Call("HeadObject", "b", "k", params={"error": "noted"})).status == 404


def test_aiohttp_asks_no_second_time():
    """Whether to ask again is the scheduler's. aiohttp has no public switch: a release without this one fails here."""
    import asyncio

    import aiohttp

    async def look():
        async with HttpSession(verify=False) as http:
            return [http._session(fresh)._retry_connection for fresh in (False, True)]

    assert asyncio.run(look()) == [False, False], f"aiohttp {aiohttp.__version__}: ClientSession._retry_connection"


def test_ctrl_c_anywhere_leaves_no_pipe_of_a_channel():
    engine = AioEngine(control_plane(region="us-east-1"))  # not used: no thread of it opens anything
    before = open_files()
    for n in itertools.count(1):
        with Interrupt(n, {aiobotocore.__file__}) as interrupt:
            AioChannel(engine).close()
        assert open_files() == before, interrupt.at
        if not interrupt.came:
            break
    assert n > 5


def test_a_channel_closes_what_it_can(monkeypatch):
    channel = AioChannel(AioEngine(control_plane(region="us-east-1")))
    ends, close = open_files(), os.close

    def failing(fd):
        close(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(os, "close", failing)
        channel.close()
    del channel
    assert len(ends) - len(open_files()) == 2
