"""Without a fault the proxy changes nothing; with some, the right requests are hit."""

import contextlib
import os
import re
import socket
import threading
import time

import pytest

from mfstore.testing import Exchange, FaultProxy
from mfstore.testing.actions import (
    FlipResponse,
    Stall,
    Status,
)
from mfstore.testing.exchange import identity
from tests.rigs.fault_upstream import DATA, Handler, body, connected, fault, fetch, get, raw

# ---- nothing changes -------------------------------------------------------------------------


def through(port, data):
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(data)
        parts = []
        while part := sock.recv(1 << 16):
            parts.append(part)
    return re.sub(rb"Date: [^\r]*", b"", b"".join(parts))


@pytest.mark.parametrize("options", [{}, {"latency": 0.02}, {"bandwidth": 50e6}])
@pytest.mark.parametrize(
    "request_",
    [
        get("/b/k?a=b&c", "Connection: close", "x-odd:   spaced", "X-Twice: 1", "x-twice: 2"),
        get("/b/k", "Range: bytes=10-99999", "Connection: close"),
        get("/chunked/k", "Connection: close"),
        get("/raw"),
        get("/status/204", "Connection: close"),
        get("/status/304", "Connection: close"),
        b"HEAD" + get("/b/k", "Connection: close")[3:],
        b"HEAD" + get("/chunked/k", "Connection: close")[3:],
        get("/a") + get("/chunked/b") + b"HEAD" + get("/c")[3:] + get("/status/304") + get("/d", "Connection: close"),
        b"PUT /p HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + DATA + get("/p", "Connection: close"),
        b"PUT /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        + get("/p", "Connection: close"),
    ],
    ids=[
        "get",
        "range",
        "chunked",
        "until close",
        "204",
        "304",
        "head",
        "head chunked",
        "pipelined",
        "put",
        "put chunked",
    ],
)
def test_without_faults_every_byte_is_the_servers(upstream, options, request_):
    with FaultProxy(upstream.url, **options) as proxy:
        assert through(proxy.port, request_) == through(upstream.server_port, request_)
    seen = upstream.seen
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]


@pytest.mark.slow
@pytest.mark.parametrize("bandwidth", [None, 400e6])
def test_large_bodies_both_ways(upstream, bandwidth):
    data = os.urandom(50 << 20)
    with FaultProxy(upstream.url, bandwidth=bandwidth) as proxy, connected(proxy) as connection:
        for _ in range(2):
            connection.request("PUT", "/large", data)
            assert connection.getresponse().read() == b""
            assert upstream.objects["/large"] == data
            connection.request("GET", "/large")
            assert connection.getresponse().read() == data
        assert proxy.connections == 1
        sent, got = proxy.log[:2]
        assert (sent.request_bytes, got.response_bytes) == (len(data), len(data))


def test_expect_continue(proxy, upstream):
    with socket.create_connection(("127.0.0.1", proxy.port), 20) as sock:
        sock.sendall(b"PUT /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 100")
        sock.sendall(b"abcde")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    assert upstream.objects["/p"] == b"abcde"


def test_an_answer_during_the_upload_arrives(proxy):
    with socket.create_connection(("127.0.0.1", proxy.port), 20) as sock:
        sock.sendall(b"PUT /refused HTTP/1.1\r\nContent-Length: 10000000\r\n\r\n" + bytes(1000))
        assert sock.recv(1000).startswith(b"HTTP/1.1 403")
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1000):
            pass


def test_the_end_of_the_idle_server_is_passed_on(proxy, upstream):
    upstream.RequestHandlerClass = type("Impatient", (Handler,), {"timeout": 0.1})
    answer, how = raw(proxy, get())
    assert (body(answer), how) == (DATA, "end")


def test_no_server(proxy, upstream):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        with FaultProxy(f"http://127.0.0.1:{holder.getsockname()[1]}") as proxy:
            assert raw(proxy, get()) == (b"", "reset")
            assert proxy.log[0].status is None


def test_the_log(proxy):
    with connected(proxy) as connection:
        for method, path in (("GET", "/b/k%20%C3%BC?x=1&y"), ("HEAD", "/b/other")):
            connection.request(method, path, headers={"X-Some": "Thing"})
            connection.getresponse().read()
    fetch(proxy, "/chunked/k")
    first, second, _ = proxy.log
    assert (first.method, first.path, first.query) == ("GET", "/b/k%20%C3%BC", "x=1&y")
    assert first.headers["x-some"] == "Thing"
    assert (first.status, first.upstream_status, first.fault) == (200, 200, None)
    assert [entry.response_bytes for entry in proxy.log] == [len(DATA), 0, len(DATA)]
    assert [(entry.connection, entry.turn) for entry in proxy.log] == [(1, 1), (1, 2), (2, 1)]
    assert first.started <= first.finished <= second.started
    assert proxy.requests("GET", "^/b/") == [first]
    assert proxy.requests(query="x=1") == [first]
    assert proxy.connections == 2
    proxy.clear()
    assert proxy.requests() == []


# ---- which requests --------------------------------------------------------------------------------


def statuses(proxy, requests):
    return [fetch(proxy, *request)[0] for request in requests]


@pytest.mark.parametrize(
    ("which", "hits"),
    [
        ({"nth": 3}, [3]),
        ({"every": 2}, [2, 4, 6, 8]),
        ({"count": 2}, [1, 2]),
        ({"path": "/[34]$"}, [3, 4]),
        ({"path": "/[34]$", "nth": 2}, [4]),
        ({"query": "^n=5"}, [5]),
        ({"method": "PUT"}, []),
        ({"when": lambda exchange: "7" in exchange.path}, [7]),
        ({"probability": 1.0}, [*range(1, 9)]),
        ({"probability": 0.0}, []),
        ({"during": 0.0}, []),
        ({"during": 1000}, [*range(1, 9)]),
    ],
)
def test_which(proxy, which, hits):
    proxy.faults = fault(Status(503), **which)
    got = statuses(proxy, [(f"/b/{n}?n={n}",) for n in range(1, 9)])
    assert [n for n, status in enumerate(got, 1) if status == 503] == hits
    assert [n for n, entry in enumerate(proxy.log, 1) if entry.fault] == hits


def test_a_fault_counts_what_the_ones_before_it_left(proxy):
    proxy.faults = fault(Status(500), nth=1) + fault(Status(503), nth=1)
    assert statuses(proxy, [("/b/k",)] * 3) == [500, 503, 200]


@pytest.mark.parametrize(
    ("one", "other", "same", "headers"),
    [
        ("/b/k?partNumber=1&uploadId=1", "/c/k?partNumber=1&uploadId=2", True, {}),
        ("/b/k?partNumber=1&uploadId=1", "/b/k?partNumber=2&uploadId=1", False, {}),
        ("/storage/v1/b/b/o/k", "/storage/v1/b/c/o/k", True, {}),
        ("/upload/storage/v1/b/b/o?upload_id=1", "/upload/storage/v1/b/c/o?upload_id=2", True, {}),
        ("/storage/v1/b/b/o/k", "/storage/v1/b/b/o/l", False, {}),
        (
            "/account/b/k?comp=block&blockid=1&sig=1",
            "/account/c/k?comp=block&blockid=2&sig=2",
            True,
            {"x-ms-version": "1"},
        ),
        ("/account/b/k", "/account/b/l", False, {"x-ms-version": "1"}),
    ],
)
def test_a_seed_hits_the_same_requests_in_another_bucket(one, other, same, headers):
    def of(target):
        path, _, query = target.partition("?")
        return identity(Exchange("PUT", path, query, {"host": "127.0.0.1", **headers}, 1, 1, 0.0))

    assert (of(one) == of(other)) == same


def test_the_same_seed_hits_the_same_requests_in_any_order_and_bucket(upstream):
    def hits(seed, bucket, keys):
        with FaultProxy(upstream.url, fault(Status(503), probability=0.5), seed=seed) as proxy:
            statuses(proxy, [(f"/{bucket}/{key}",) for key in keys] * 2)
            return sorted((entry.path.split("/")[2], entry.turn) for entry in proxy.log if entry.fault)

    keys = [*range(20)]
    first = hits(1, "one", keys)
    assert hits(1, "two", keys[::-1]) == first
    assert hits(2, "one", keys) != first
    assert 8 <= len(first) <= 32


@pytest.mark.second
def test_many_at_once(proxy, upstream):
    proxy.faults = fault(FlipResponse(), probability=0.2) + fault(Status(503), probability=0.2)
    failures = []

    def work(number):
        for turn in range(20):
            status, _, data = fetch(proxy, f"/b/{number}-{turn}")
            if status == 200 and len(data) != len(DATA):
                failures.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(proxy.log) == 320
    assert {entry.status for entry in proxy.log} == {200, 503}


def test_a_connection_that_ends_before_it_is_served_is_closed(proxy):
    async def accept_and_end():
        await proxy._stop_listening()
        proxy._listener = listener
        proxy._accept()
        proxy._listener = None
        await proxy._reset_all()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        with socket.create_connection(listener.getsockname()) as client:
            client.settimeout(10)
            proxy._call(accept_and_end)
            assert client.recv(1) == b""


def test_closing_ends_everything(upstream):
    before = threading.active_count()
    with FaultProxy(upstream.url, fault(Stall())) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), 20) as sock:
            sock.sendall(get())
            while not proxy.log:
                time.sleep(0.001)
            proxy.close()
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            fetch(proxy)
    assert threading.active_count() <= before + 1
