"""Each fault does on the wire what it says."""

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import time

import pytest
import trustme

from mfstore.testing import FaultProxy
from mfstore.testing._wire import Pacer
from mfstore.testing.actions import (
    CloseAfter,
    CloseOnReuse,
    Duplicate,
    DuplicateHeader,
    EmptyBody,
    FlipRequest,
    FlipResponse,
    Headers,
    IgnoreRange,
    Informational,
    LoseResponse,
    Refuse,
    Reset,
    ResetConnect,
    ResetUpload,
    Slow,
    Stall,
    StallConnect,
    Status,
    Truncate,
    WrongLength,
    WrongObject,
    WrongRange,
    access_denied,
    azure_error,
    error_in_200,
    expired_token,
    google_error,
    gzip_label,
    redirect,
    request_timeout,
    slow_down,
    time_skewed,
    wrong_region,
)
from tests.rigs.fault_upstream import DATA, body, connected, fault, fetch, get, raw

# ---- what happens ------------------------------------------------------------------------------------


def test_reset_before_the_request_is_sent_on(proxy, upstream):
    proxy.faults = fault(Reset())
    assert raw(proxy, get()) == (b"", "reset")
    assert not upstream.seen
    assert proxy.log[0].status is None


@pytest.mark.parametrize("path", ["/b/k", "/chunked/k"])
@pytest.mark.parametrize("size", [0, 1, 150_000])
def test_reset_in_the_body(proxy, path, size):
    proxy.faults = fault(Reset(size=size))
    answer, how = raw(proxy, get(path))
    assert how == "reset"
    if path == "/b/k":
        assert body(answer) == DATA[:size]
    assert proxy.log[0].response_bytes == size
    assert proxy.log[0].finished is None


def test_truncate(proxy):
    proxy.faults = fault(Truncate(fraction=0.25))
    answer, how = raw(proxy, get())
    assert (body(answer), how) == (DATA[:50_000], "end")
    assert b"Content-Length: 200000" in answer


@pytest.mark.parametrize("clean", [True, False])
def test_truncate_under_tls(upstream, clean):
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    with FaultProxy(upstream.url, fault(Truncate(size=1000), nth=2), tls=server) as proxy:
        connection = http.client.HTTPSConnection("127.0.0.1", proxy.port, context=client)
        connection.request("GET", "/b/k")
        assert connection.getresponse().read() == DATA
        connection.request("GET", "/b/k")
        with pytest.raises(http.client.IncompleteRead):
            connection.getresponse().read()
        connection.close()
        proxy.faults = fault(Truncate(size=1000, clean=clean))
        with (
            socket.create_connection(("127.0.0.1", proxy.port), 20) as sock,
            client.wrap_socket(sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as tls,
            contextlib.nullcontext() if clean else pytest.raises(ssl.SSLEOFError),
        ):
            tls.sendall(get())
            while tls.recv(1 << 16):
                pass
        # a FaultProxy in front of a FaultProxy: TLS towards the server
        proxy.faults = ()
        with FaultProxy(proxy.url, upstream_tls=client) as outer, connected(outer) as connection:
            for _ in range(3):
                connection.request("GET", "/b/k")
                assert connection.getresponse().read() == DATA


def test_reset_upload(proxy, upstream):
    proxy.faults = fault(ResetUpload(size=70_000))
    put = b"PUT /p HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + DATA
    try:
        how = raw(proxy, put)[1]
    except OSError:  # the reset came while sending
        how = "reset"
    assert how == "reset"
    assert "/p" not in upstream.objects
    assert proxy.log[0].request_bytes == 70_000


def test_lost_response(proxy, upstream):
    proxy.faults = fault(LoseResponse(), count=1)
    with pytest.raises(ConnectionResetError):
        fetch(proxy, "/p", "PUT", b"effect")
    assert upstream.objects["/p"] == b"effect"
    assert (proxy.log[0].status, proxy.log[0].upstream_status) == (None, 200)
    assert fetch(proxy, "/p")[2] == b"effect"


@pytest.mark.parametrize(
    ("action", "bytes_seen"),
    [
        (Stall(where="request"), None),
        (Stall(where="response"), None),
        (Stall(where="body", size=0), 0),
        (Stall(where="body", size=70_000), 70_000),
        (StallConnect(), None),
    ],
)
def test_stall(proxy, upstream, action, bytes_seen):
    proxy.faults = fault(action)
    answer, how = raw(proxy, get(), timeout=0.3)
    assert how == "silence"
    assert (len(body(answer)) if answer else None) == bytes_seen
    assert len(upstream.seen) == (0 if getattr(action, "where", "request") == "request" else 1)


def test_after_a_stall_all_goes_on(proxy):
    proxy.faults = fault(Stall(0.05, where="request"), nth=1) + fault(Stall(0.05, where="body", fraction=0.5), nth=1)
    assert fetch(proxy)[2] == DATA
    assert fetch(proxy)[2] == DATA
    assert proxy.log[0].finished - proxy.log[0].started >= 0.05


def test_a_stalled_client_may_leave(proxy):
    proxy.faults = fault(Stall())
    raw(proxy, get(), timeout=0.1)
    deadline = time.monotonic() + 20
    while proxy.open_connections and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not proxy.open_connections


def test_slow(proxy, upstream):
    upstream.objects["/s"] = b"x" * 1020
    proxy.faults = fault(Slow(rate=100, size=1000))
    assert fetch(proxy, "/s")[2] == b"x" * 1020
    assert proxy.log[0].finished - proxy.log[0].started >= 0.19


def test_latency_and_bandwidth(upstream):
    with FaultProxy(upstream.url, latency=0.05, connect_latency=0.05, bandwidth=2e6) as proxy:
        begin = time.monotonic()
        assert fetch(proxy)[2] == DATA
        assert time.monotonic() - begin >= 0.05 + 0.05 + 0.1 - Pacer.LATE
        fetch(proxy, "/p", "PUT", DATA)
        assert proxy.log[1].finished - proxy.log[1].started >= 0.05 + 0.1 - Pacer.LATE


@pytest.mark.parametrize(
    ("action", "status", "code", "header"),
    [
        (Status(500, "InternalError"), 500, "InternalError", {}),
        (Status(502), 502, None, {}),
        (slow_down(x_amz_retry_after="1500", Retry_After="2"), 503, "SlowDown", {"x-amz-retry-after": "1500", "Retry-After": "2"}),
        (Status(409, "OperationAborted"), 409, "OperationAborted", {}),
        (Status(429, "TooManyRequests", {"Retry-After": "-1"}), 429, "TooManyRequests", {"Retry-After": "-1"}),
        (request_timeout(), 400, "RequestTimeout", {}),
        (error_in_200(), 200, "InternalError", {}),
        (azure_error(503, "ServerBusy", Retry_After="2"), 503, "ServerBusy", {"x-ms-error-code": "ServerBusy", "Retry-After": "2"}),
        (google_error(429, "rateLimitExceeded"), 429, None, {"x-guploader-uploadid": "FAULT"}),
        (redirect("eu-west-1"), 301, "PermanentRedirect", {"x-amz-bucket-region": "eu-west-1"}),
        (redirect(location="https://elsewhere.invalid/b", status=307), 307, "TemporaryRedirect", {"Location": "https://elsewhere.invalid/b"}),
        (wrong_region("eu-west-1"), 400, "AuthorizationHeaderMalformed", {"x-amz-bucket-region": "eu-west-1"}),
        (time_skewed(0.0), 403, "RequestTimeTooSkewed", {"Date": "Thu, 01 Jan 1970 00:00:00 GMT"}),
        (expired_token(), 400, "ExpiredToken", {}),
        (access_denied(), 403, "AccessDenied", {}),
        (Status(200, body=b"<Error>", headers={"X": "y"}), 200, None, {"X": "y"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
def test_answers_in_place_of_the_server(proxy, upstream, action, status, code, header, method):
    proxy.faults = fault(action, count=1)
    with connected(proxy) as connection:
        connection.request(method, "/b/k", DATA if method == "PUT" else None)
        response = connection.getresponse()
        data = response.read()
        assert response.status == status
        assert {name: response.headers[name] for name in header} == header
        if code and method != "HEAD":
            assert f"<Error><Code>{code}</Code>".encode() in data
        assert not upstream.seen
        connection.request("GET", "/b/k")  # the connection goes on
        assert connection.getresponse().read() == DATA
    assert proxy.connections == 1
    assert (proxy.log[0].status, proxy.log[0].upstream_status) == (status, None)


def test_an_error_of_googles_json_api(proxy):
    proxy.faults = fault(google_error(401, "authError"))
    error = json.loads(fetch(proxy)[2])["error"]
    assert (error["code"], error["errors"][0]["reason"]) == (401, "authError")


def test_an_answer_in_place_of_the_servers_own(proxy, upstream):
    proxy.faults = fault(error_in_200(forward=True))
    assert b"<Error>" in fetch(proxy, "/p", "PUT", b"effect")[2]
    assert upstream.objects["/p"] == b"effect"
    assert (proxy.log[0].status, proxy.log[0].upstream_status) == (200, 200)


def test_an_answer_before_the_upload(proxy, upstream):
    proxy.faults = fault(Status(503, consume=False))
    with socket.create_connection(("127.0.0.1", proxy.port), 20) as sock:
        sock.sendall(b"PUT /p HTTP/1.1\r\nContent-Length: 10000000\r\n\r\n")
        assert b"Connection: close" in sock.recv(1000)
    assert not upstream.seen


@pytest.mark.parametrize("path", ["/b/k", "/chunked/k"])
@pytest.mark.parametrize("size", [0, 66_666, 199_999, None])
def test_flipped_response(proxy, path, size):
    proxy.faults = fault(FlipResponse(size))
    if path == "/chunked/k" and size is None:
        size = 0  # the length is not known
    first, second = fetch(proxy, path)[2], fetch(proxy, path)[2]
    assert len(first) == len(DATA)
    changed = [at for at in range(len(DATA)) if first[at] != DATA[at]]
    assert len(changed) == 1
    assert size is None or changed == [size]
    assert size is None or first == second


def test_flipped_request(proxy, upstream):
    proxy.faults = fault(FlipRequest(1234))
    fetch(proxy, "/p", "PUT", DATA)
    got = upstream.objects["/p"]
    assert [at for at in range(len(DATA)) if got[at] != DATA[at]] == [1234]


def test_headers(proxy):
    proxy.faults = fault(Headers(set={"ETag": None, "Server": "other"}, add={"X-New": "1"}))
    _, headers, data = fetch(proxy)
    assert ("ETag" in headers, headers["Server"], headers["X-New"], data) == (False, "other", "1", DATA)
    proxy.faults = fault(DuplicateHeader("ETag", '"other"'))
    assert len(fetch(proxy)[1].get_all("ETag")) == 2
    proxy.faults = fault(gzip_label())
    _, headers, data = fetch(proxy)
    assert (headers["Content-Encoding"], data) == ("gzip", DATA)


def test_wrong_length(proxy):
    proxy.faults = fault(WrongLength(-10))
    assert fetch(proxy)[2] == DATA[:-10]
    proxy.faults = fault(WrongLength(10))
    answer, how = raw(proxy, get(), timeout=0.3)
    assert (body(answer), how) == (DATA, "silence")


@pytest.mark.parametrize("path", ["/b/k", "/chunked/k"])
def test_empty_body(proxy, path):
    proxy.faults = fault(EmptyBody(), count=1)
    with connected(proxy) as connection:
        for expected in (b"", DATA):
            connection.request("GET", path)
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, expected)


@pytest.mark.parametrize("path", ["/b/k", "/chunked/k"])
def test_duplicate(proxy, path):
    proxy.faults = fault(Duplicate())
    answer = raw(proxy, get(path, "Connection: close"))[0]
    assert len(answer) % 2 == 0
    assert answer[: len(answer) // 2] == answer[len(answer) // 2 :]
    assert body(answer[: len(answer) // 2]) == DATA


def test_wrong_object(proxy, upstream):
    upstream.objects |= {"/b/a": b"aaa", "/b/b": b"bbbb"}
    proxy.faults = fault(WrongObject(), path="/b/b")
    assert fetch(proxy, "/b/b")[2] == b"bbbb"
    assert fetch(proxy, "/b/a")[2] == b"aaa"
    assert fetch(proxy, "/b/b")[2] == b"aaa"
    proxy.faults = fault(WrongObject("/b/a"), path="/b/b")
    assert fetch(proxy, "/b/b")[2] == b"aaa"
    assert proxy.log[-1].path == "/b/b"


def test_ranges(proxy):
    wanted = {"Range": "bytes=10-19"}
    proxy.faults = fault(WrongRange(5))
    status, headers, data = fetch(proxy, headers=wanted)
    assert (status, headers["Content-Range"], data) == (206, "bytes 15-24/200000", DATA[10:20])
    proxy.faults = fault(IgnoreRange())
    status, headers, data = fetch(proxy, headers=wanted)
    assert (status, headers["Content-Range"], data) == (200, None, DATA)
    signed = "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host;range, Signature=0"
    status, headers, data = fetch(proxy, headers={**wanted, "Authorization": signed})
    assert (status, headers["Content-Range"], data) == (200, None, DATA[10:20])
    fetch(proxy)
    assert proxy.log[-1].fault is None


def test_informational(proxy):
    proxy.faults = fault(Informational((100, 103, 100)))
    answer = raw(proxy, get("/b/k", "Connection: close"))[0]
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"100", b"103", b"100", b"200"]
    assert answer.endswith(DATA)


@pytest.mark.parametrize("reset", [False, True])
def test_close_on_reuse(proxy, upstream, reset):
    proxy.faults = fault(CloseOnReuse(reset), count=1)
    with socket.create_connection(("127.0.0.1", proxy.port), 20) as sock:
        sock.sendall(get("/status/204"))
        assert sock.recv(1000)
        sock.sendall(get("/status/204"))
        if reset:
            with pytest.raises(ConnectionResetError):
                sock.recv(1000)
        else:
            assert sock.recv(1000) == b""
    assert len(upstream.seen) == 1


def test_close_after(proxy):
    proxy.faults = fault(CloseAfter())
    answer, how = raw(proxy, get() + get())
    assert how == "end"
    assert answer.count(b"Connection: close") == 1


def test_reset_connect(proxy):
    proxy.faults = fault(ResetConnect(), nth=2)
    assert fetch(proxy)[2] == DATA
    assert raw(proxy, get()) == (b"", "reset")
    assert fetch(proxy)[2] == DATA
    assert len(proxy.log) == 2


def test_refuse(proxy):
    proxy.faults = fault(Refuse(0.3), nth=2)
    with connected(proxy) as idle:
        idle.request("GET", "/b/k")
        idle.getresponse().read()
        assert raw(proxy, get()) == (b"", "reset")
        with pytest.raises(ConnectionError):
            idle.request("GET", "/b/k")
            idle.getresponse()
    with pytest.raises(ConnectionRefusedError):
        fetch(proxy)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            assert fetch(proxy)[2] == DATA
            return
        time.sleep(0.02)
    raise AssertionError("the proxy did not come back")


def test_listening_stops_and_starts(proxy):
    with connected(proxy) as old:
        old.request("GET", "/b/k")
        old.getresponse().read()
        proxy.stop_listening()
        with pytest.raises(ConnectionRefusedError):
            fetch(proxy)
        old.request("GET", "/b/k")
        assert old.getresponse().read() == DATA
        proxy.start_listening()
        assert fetch(proxy)[2] == DATA
        proxy.reset_connections()
        with pytest.raises(ConnectionError):
            old.request("GET", "/b/k")
            old.getresponse()


@pytest.mark.skipif(not hasattr(os, "splice"), reason="a full queue drops packets on Linux only")
def test_no_answer_to_connects(proxy):
    proxy.stop_answering()
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", proxy.port), 0.3)
    proxy.start_listening()
    assert fetch(proxy)[2] == DATA
