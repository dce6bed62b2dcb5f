"""The reader of HTTP responses: what it understands, and what it refuses by which name, in whatever pieces it comes."""

import ctypes

import pytest

from tests.rigs.responses import (
    CHUNKED,
    CLOSE,
    HEAD_MAX,
    LENGTH,
    MORE,
    NONE,
    Body,
    Response,
    chunked,
    head_of,
    library,
    read,
    read_body,
    read_head,
    words,
)

S3 = head_of(
    b"x-amz-id-2: 8bFW4mDqRkSTUVwXyZ0123456789=", b"x-amz-request-id: 4XJ6Z8RCRTHBN2SK",
    b"Date: Sun, 29 Nov 2026 22:49:26 GMT", b"Last-Modified: Sun, 29 Nov 2026 22:40:00 GMT",
    b'ETag: "b1946ac92492d2347c6235b4d2611184"', b"x-amz-meta-name: na\xc3\xafve\ttext", b"x-amz-meta-\xc3\xa4:",
    b"Content-Type: binary/octet-stream", b"content-LENGTH:5 ", b"Server: AmazonS3",
)  # fmt: skip


def test_a_response_of_s3():
    found = read(S3 + b"hello" + b"HTTP/1.1")
    assert found == Response("complete", 200, S3[17:-2], LENGTH, 5, True, b"hello", b"HTTP/1.1")


@pytest.mark.parametrize(
    ("stream", "framing", "length", "keep", "body", "rest"),
    [
        (head_of(b"Content-Length: 0"), LENGTH, 0, True, b"", b"abcd"),
        (head_of(b"Content-Length: 03, 3,3"), LENGTH, 3, True, b"abc", b"d"),
        (head_of(b"Content-Length: 3", b"content-length:\t3"), LENGTH, 3, True, b"abc", b"d"),
        (head_of(b"Content-Length: 3", b"Connection: close"), LENGTH, 3, False, b"abc", b"d"),
        (head_of(b"Content-Length: 3", b"Connection: x , Close,", b"Connection: keep-alive"), LENGTH, 3, False, b"abc", b"d"),
        (head_of(b"Content-Length: 3", b"Connection: closed, x close, keepalive"), LENGTH, 3, True, b"abc", b"d"),
        (head_of(b"Content-Length: 3", status=b"HTTP/1.0 200 OK"), LENGTH, 3, False, b"abc", b"d"),
        (head_of(b"Content-Length: 3", b"Connection: Keep-Alive", status=b"HTTP/1.0 200 OK"), LENGTH, 3, True, b"abc", b"d"),
        (head_of(b"Content-Length: 3", b"Connection: keep-alive, close", status=b"HTTP/1.0 200"), LENGTH, 3, False, b"abc", b"d"),
        (head_of(), CLOSE, -1, False, b"abcd", b""),
        (head_of(b"Connection: keep-alive", status=b"HTTP/1.0 200 "), CLOSE, -1, False, b"abcd", b""),
        (head_of(status=b"HTTP/1.1 204 No Content"), NONE, -1, True, b"", b"abcd"),
        (head_of(b"Content-Length: 0", status=b"HTTP/1.1 204"), NONE, 0, True, b"", b"abcd"),
        (head_of(b"Content-Length: 3", status=b"HTTP/1.1 204"), NONE, 3, False, b"", b"abcd"),
        (head_of(b"Transfer-Encoding: chunked", status=b"HTTP/1.1 204"), NONE, -1, False, b"", b"abcd"),
        (head_of(b"Content-Length: 9", status=b"HTTP/1.1 304 Not Modified"), NONE, 9, True, b"", b"abcd"),
        (head_of(b"Content-Length: 3", status=b"HTTP/1.1 205 \xe9"), LENGTH, 3, True, b"abc", b"d"),
        (b"\r\n" * 4 + head_of(b"Content-Length: 3"), LENGTH, 3, True, b"abc", b"d"),
        (b"HTTP/1.1 100 Continue\r\n\r\n\r\nHTTP/1.1 103\r\nConnection: close\r\nLink: a\r\n\r\n" + head_of(b"Content-Length: 3"),
         LENGTH, 3, True, b"abc", b"d"),
        (head_of(b"Upgrade: h2c", b"Content-Length: 3"), LENGTH, 3, True, b"abc", b"d"),
    ],
)  # fmt: skip
def test_where_a_body_ends(stream, framing, length, keep, body, rest):
    found = read(stream + b"abcd")
    assert found[0] == "complete" and found[3:] == (framing, length, keep, body, rest)


@pytest.mark.parametrize(
    ("stream", "length", "keep"),
    [
        (head_of(b"Content-Length: 3"), 3, True),
        (head_of(b"Transfer-Encoding: chunked"), -1, True),
        (head_of(b"Transfer-Encoding: chunked", b"Content-Length: 3"), -1, False),
        (head_of(), -1, True),
        (head_of(b"Connection: close"), -1, False),
        (head_of(status=b"HTTP/1.0 404 Not Found"), -1, False),
        (head_of(b"Connection: keep-alive", status=b"HTTP/1.0 200 OK"), -1, True),
        (b"HTTP/1.1 100\r\n\r\n" + head_of(b"Content-Length: 3"), 3, True),
    ],
)
def test_the_answer_to_head_has_no_body(stream, length, keep):
    found = read(stream + b"abcd", is_head=True)
    assert found[0] == "complete" and found[3:] == (NONE, length, keep, b"", b"abcd")


@pytest.mark.parametrize(
    ("frames", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"3\r\nabc\r\n1;name=value; other=\"\xe9\"\r\nd\r\n000\r\n\r\n", b"abcd"),
        (b"003 \t\r\nabc\r\n1 ; x\r\nd\r\n0;\r\nETag: 1\r\nContent-Length: 9\r\nempty:\r\n\r\n", b"abcd"),
        (b"1a\r\nabcdefghijklmnopqrstuvwxyz\r\nA\r\n0123456789\r\n0\r\n\r\n", b"abcdefghijklmnopqrstuvwxyz0123456789"),
    ],
)  # fmt: skip
def test_chunked(frames, body):
    stream = chunked(frames, b"rest")
    assert read(stream)[3:] == (CHUNKED, -1, True, body, b"rest")
    assert read(stream)[0] == "complete"
    doubled = head_of(b"Content-Length: 4", b"Transfer-Encoding:  Chunked\t") + frames + b"rest"
    assert read(doubled)[3:] == (CHUNKED, -1, False, body, b"rest"), "two lengths: nothing behind it is trusted"


REFUSED = {
    "what came is not HTTP": [
        b"x", b"\x15\x03\x03", b"\n", b"\rH", b"HTTQ", b" HTTP/1.1 200 OK\r\n", b"\r\n" * 5, b"http/1.1 200 OK\r\n\r\n",
    ],
    "neither HTTP/1.0 nor HTTP/1.1": [
        b"HTTP/2 200\r\n", b"HTTP/1.2 200 OK\r\n", b"HTTP/0.9 200 OK\r\n", b"HTTP/1.\r\n",
        b"HTTP/1x1 200 OK\r\n", b"HTTP/\r\n",
    ],
    "not a status line": [
        b"HTTP/1.1\r\n", b"HTTP/1.1 \r\n", b"HTTP/1.1 20\r\n", b"HTTP/1.1 2000\r\n", b"HTTP/1.1  200 OK\r\n", b"HTTP/1.1 099 x\r\n",
        b"HTTP/1.1 600 x\r\n", b"HTTP/1.1 2x0 x\r\n", b"HTTP/1.1 200\tOK\r\n", b"HTTP/1.1 200 O\x00K\r\n", b"HTTP/1.1 200 O\rK\r\n",
        b"HTTP/1.10 200 OK\r\n", b"HTTP/1.1\t200 OK\r\n",
    ],
    "an upgrade that was not asked for": [b"HTTP/1.1 101 Switching Protocols\r\n"],
    "a line of the headers does not end with CR LF": [
        b"HTTP/1.1 200 OK\n", b"HTTP/1.1 200 OK\r\na: b\n", b"HTTP/1.1 200 OK\r\na: b\r\n\n", b"\r\nHTTP/1.1 200 OK\n",
    ],
    "a header goes on in the next line": [b"HTTP/1.1 200 OK\r\na: b\r\n c\r\n", b"HTTP/1.1 200 OK\r\n\tc: d\r\n"],
    "not a header's name": [
        b"HTTP/1.1 200 OK\r\n" + line + b"\r\n"
        for line in (b"a", b":", b": b", b"a b: c", b"a : b", b"a\t: b", b"a\x00: b", b"(a): b", b"\r", b"a\rb: c")
    ],
    "a control character in a header": [
        b"HTTP/1.1 200 OK\r\nname: " + b"v" * before + bytes([control]) + b"v" * behind + b"\r\n"
        for control in (0, 1, 0x0D, 0x1B, 0x1F, 0x7F) for before in (0, 3, 7, 8, 20) for behind in (0, 9)
    ],
    "the headers do not end": [
        b"HTTP/1.1 200 " + b"x" * HEAD_MAX, head_of(b"a: " + b"b" * (HEAD_MAX - 17 - 3 - 3)) + b"rest",
        b"HTTP/1.1 200 OK\r\n" + (b"a: " + b"b" * 995 + b"\r\n") * 263,
    ],
    "too many headers": [head_of(*[b"a: b"] * 1001)],
    "not a Content-Length": [
        head_of(b"Content-Length:" + value)
        for value in (b"", b"-1", b"+1", b"0x10", b"1 2", b"1,", b",1", b"1;", b"1.0", b"\xb2", b"9223372036854775808", b"9" * 40)
    ],
    "several values of Content-Length": [head_of(b"Content-Length: 1", b"Content-Length: 2"), head_of(b"Content-Length: 1, 2")],
    "a Transfer-Encoding other than chunked": [
        *(head_of(b"Transfer-Encoding: " + value) for value in (b"gzip, chunked", b"identity", b"", b"chunked, chunked", b"xchunked", b"chunked;q=1")),
        head_of(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        head_of(b"Transfer-Encoding: chunked", status=b"HTTP/1.0 200 OK"),
    ],
    "not a chunk's size": [
        chunked(b"x"), chunked(b"\r\n"), chunked(b" 1\r\n"), chunked(b"-1\r\n"), chunked(b"1x\r\n"), chunked(b"0x1\r\n"),
        chunked(b"8000000000000000\r\n"), chunked(b"fffffffffffffffff"), chunked(b"1\na"), chunked(b"1 2\r\n"),
        chunked(b"1\r\na\r\n\r\n"),
    ],
    "the line of a chunk's size does not end": [
        chunked(b"1;a\n"), chunked(b"1;a\x00\r\n"), chunked(b"1\rx"), chunked(b"1;a\r\r\n"), chunked(b"1;" + b"a" * 4095), chunked(b"0" * 4097),
        chunked(b"1" + b" " * 4096),
    ],
    "a chunk does not end where its size says": [chunked(b"1\r\nab"), chunked(b"1\r\na\n"), chunked(b"1\r\na\r\r\n"), chunked(b"1\r\na0\r\n\r\n")],
    "not trailers": [
        chunked(b"0\r\n", line)
        for line in (b"\n", b"\r\r", b" a: b", b": b", b"a b", b"a\r\n", b"a: b\n", b"a: b\r\r", b"a: \x00", b"a:" + b"b" * 16383)
    ],
}  # fmt: skip


@pytest.mark.parametrize("verdict", REFUSED)
def test_what_is_refused(verdict):
    for stream in REFUSED[verdict]:
        assert read(stream).verdict == verdict, stream[:100]
        if len(stream) < 100:
            assert {
                read(stream, cuts=range(len(stream))),
                *(read(stream, cuts=(cut,)) for cut in range(len(stream))),
            } == {read(stream)}
            assert read(stream + b"\r\n\r\n" * 2).verdict == verdict, "whatever follows"


def test_every_refusal_is_tested():
    named = {words(code) for code in range(2, 50)} - {"unknown"}
    assert named == REFUSED.keys() and len(named) == 17


@pytest.mark.parametrize(
    "lines", [(b"a: b",) * 1000, (b"a: " + b"b" * (HEAD_MAX - 17 - 3 - 4),), (b"n%d: v" % 7,) * 999]
)
def test_heads_up_to_the_limits(lines):
    found = read(head_of(*lines), is_head=True)
    assert found.verdict == "complete" and found.fields == b"".join(line + b"\r\n" for line in lines)


def test_framing_up_to_the_limits():
    stream = chunked(b"1;" + b"a" * 4092 + b"\r\n", b"x\r\n", b"0\r\n", b"a:" + b"b" * 16378 + b"\r\n\r\n")
    assert read(stream) == read(stream, cuts=range(len(stream))) and read(stream)[0] == "complete"


@pytest.mark.parametrize(
    "stream",
    [
        S3 + b"hell",
        chunked(b"3\r\nab"),
        chunked(b"3\r\nabc\r\n"),
        chunked(b"0\r\n"),
        chunked(b"0\r\n\r"),
        S3[:-1],
        b"",
        b"\r",
    ],
)
def test_what_is_cut_is_incomplete(stream):
    assert read(stream).verdict == "incomplete"


def test_received_straight():
    """Payload that never passes through the parser counts alike."""
    for stream, sizes in (
        (S3, [5]),
        (head_of(), [2**64 - 1]),
        (chunked(b"3\r\n"), [3]),
        (chunked(), [0]),
        (head_of(b"Content-Length: 0"), [0]),
    ):
        verdict, head, at = read_head(stream, (len(stream),), 0)
        body = Body()
        library.mf_body_begin(ctypes.byref(body), ctypes.byref(head))
        read_body(body, stream, at, (len(stream),))
        straight = library.mf_body_straight(ctypes.byref(body))
        assert [straight] == sizes and not verdict
        if straight in (3, 5):
            assert library.mf_body_received(ctypes.byref(body), ctypes.c_size_t(2)) == MORE
            assert library.mf_body_ended(ctypes.byref(body)) == MORE
            last = library.mf_body_received(ctypes.byref(body), ctypes.c_size_t(straight - 2))
            assert last == (MORE if straight == 3 else 0) and library.mf_body_straight(ctypes.byref(body)) == 0
