"""The reader of HTTP responses beside h11 and llhttp (by httptools): the same bytes, the same verdict and the same
message, but for a list that says why."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

h11 = pytest.importorskip("h11")
httptools = pytest.importorskip("httptools")
pytest.importorskip("mfstore._core.transfer")

from tests.rigs.responses import CLOSE, read  # noqa: E402
from tests.rigs.soak import lasting  # noqa: E402


class Seen(NamedTuple):
    verdict: str
    """"complete", "incomplete", or why it is refused, in the reader's own words."""
    message: tuple = ()
    """Status, headers, body, what comes behind it, whether the connection may be used again."""


def by_mfstore(stream):
    found = read(stream)
    rest = None if found.framing == CLOSE else (found.rest, found.keep)
    return Seen(
        found.verdict,
        (found.status, plain(line.split(b":", 1) for line in found.fields.split(b"\r\n")[:-1]), found.body, rest),
    )


def plain(fields):
    """Without Content-Length, of which h11 gives one where there are several, and codings as h11 spells them."""
    found = [(name.lower(), value.strip(b" \t")) for name, value in fields]
    codings = [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in found]
    return [field for field in codings if field[0] != b"content-length"]


def by_h11(stream):
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "s3")]))
    connection.send(h11.EndOfMessage())
    status, fields, body, ended = 0, [], b"", False
    try:
        if stream:
            connection.receive_data(stream)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if not status or {b"content-length", b"transfer-encoding"} & dict(fields).keys():
                    return Seen("incomplete")
                connection.receive_data(b"")
                ended = True
            elif isinstance(event, h11.Response):
                status, fields = event.status_code, [(bytes(name), bytes(value)) for name, value in event.headers]
            elif isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    return Seen("101")
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                rest = None if ended else (connection.trailing_data[0], connection.their_state is h11.DONE)
                return Seen("complete", (status, plain(fields), body, rest))
    except h11.RemoteProtocolError as error:
        return Seen(str(error).split(":")[0])


class Landing:
    def __init__(self):
        self.parser = httptools.HttpResponseParser(self)
        self.fields, self.body, self.length, self.keep, self.done = [], b"", 0, False, False

    def on_header(self, name, value):
        self.fields.append((name, value))

    def on_headers_complete(self):
        self.length = len(self.fields)

    def on_body(self, data):
        self.body += data

    def on_message_complete(self):
        self.done, self.keep = True, self.parser.should_keep_alive()


def by_llhttp(stream):
    landing = Landing()
    for i in range(len(stream)):
        try:
            landing.parser.feed_data(stream[i : i + 1])
        except httptools.HttpParserUpgrade:
            return Seen("101")
        except httptools.HttpParserError as error:
            return Seen(str(error).split(":")[0])
        if landing.done:
            status = landing.parser.get_status_code()
            if status >= 200:
                fields = plain(landing.fields[: landing.length])
                return Seen("complete", (status, fields, landing.body, (stream[i + 1 :], bool(landing.keep))))
            landing.__init__()
    return Seen("incomplete")


PEERS = {"h11": by_h11, "llhttp": by_llhttp}

# ---- where they differ, and why ----

LF = "a line of the headers does not end with CR LF"
CODING = "a Transfer-Encoding other than chunked"
OK, LONG, CHUNKS = b"HTTP/1.1 200 OK\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"

DIFFERENCES = [
    # Ours is stricter.
    ("h11", LF, "accepted", OK[:-2] + b"\n\r\n"),
    ("h11", "not trailers", "accepted", OK + CHUNKS + b"\r\n0\r\na: b\n\r\n"),
    # RFC 9112, 2.2 allows to accept it. No S3 sends it, and who reads a line differently sees another response.
    ("h11", "a header goes on in the next line", "accepted", OK + b"a: b\r\n c\r\n\r\n"),
    # RFC 9112, 5.2 wants it joined, and deprecates it. llhttp refuses it too.
    ("h11", "a control character in a header", "accepted", OK + b"a: \x01\r\n\r\n"),
    ("h11", "the line of a chunk's size does not end", "accepted", OK + CHUNKS + b"\r\n1;a\rb\r\nz\r\n0\r\n\r\n"),
    ("h11", "not a status line", "accepted", b"HTTP/1.1 200 O\x01K\r\n\r\n"),
    ("llhttp", "not a status line", "accepted", b"HTTP/1.1 200 O\x01K\r\n\r\n"),
    # RFC 9110, 5.5 and RFC 9112, 4: these are in neither.
    ("h11", "neither HTTP/1.0 nor HTTP/1.1", "accepted", b"HTTP/3.1 100 Continue\r\n\r\n" + OK + b"\r\n"),
    ("h11", "not a Content-Length", "accepted", OK + b"Content-Length: 9223372036854775808\r\n\r\n"),
    # More than any object's, and than the numbers that we count in.
    ("h11", CODING, "accepted", b"HTTP/1.0 200 OK\r\n" + CHUNKS + b"\r\n0\r\n\r\n"),
    ("llhttp", CODING, "accepted", b"HTTP/1.0 200 OK\r\n" + CHUNKS + b"\r\n0\r\n\r\n"),
    # RFC 9112, 6.1: such a message is faulty. And no coding but chunked was asked for.
    ("llhttp", "what came is not HTTP", "accepted", b"\r\n" * 5 + OK + LONG + b"\r\nhello"),
    # A few blank lines behind a body are a known fault of servers, many are none.
    ("h11", "keep", "keep", b"HTTP/1.1 204 No Content\r\n" + LONG + b"\r\n"),
    ("llhttp", "keep", "keep", b"HTTP/1.1 204 No Content\r\n" + LONG + b"\r\n"),
    # It has no body and says that it has one: one that comes all the same would be the next response.
    # Ours understands more.
    ("h11", "accepted", "no response line received", b"\r\n" + OK + LONG + b"\r\nhello"),
    # See above.
    ("h11", "accepted", "illegal header line", OK + b"\xc3\xa4: b\r\n\r\n"),
    ("llhttp", "accepted", "Invalid header token", OK + b"\xc3\xa4: b\r\n\r\n"),
    # Services give names of user metadata back as somebody stored them.
    ("h11", "accepted", "conflicting Content-Length headers", OK + LONG + b"Content-Length: 05\r\n\r\nhello"),
    ("llhttp", "accepted", "Duplicate Content-Length", OK + LONG + LONG + b"\r\nhello"),
    ("llhttp", "accepted", "Invalid character in Content-Length", OK + b"Content-Length: 5, 5\r\n\r\nhello"),
    # RFC 9110, 8.6: the same number several times, as two servers on the way write it, is that number.
    ("llhttp", "accepted", "Content-Length can't be present with Transfer-Encoding", OK + CHUNKS + LONG + b"\r\n0\r\n\r\n"),
    ("llhttp", "accepted", "Transfer-Encoding can't be present with Content-Length", OK + LONG + CHUNKS + b"\r\n0\r\n\r\n"),
    # RFC 9112, 6.3: the chunks tell. The connection is not used again.
    ("h11", "accepted", "illegal chunk header", OK + CHUNKS + b"\r\n0 ;a\r\n\r\n"),
    ("llhttp", "accepted", "Invalid character in chunk size", OK + CHUNKS + b"\r\n0 \r\n\r\n"),
    ("llhttp", "accepted", "Invalid character in chunk extensions", OK + CHUNKS + b"\r\n0;\r\n\r\n"),
    ("llhttp", "accepted", "Invalid character in chunk extensions name", OK + CHUNKS + b"\r\n0;a b\r\n\r\n"),
    # RFC 9112, 7.1.1 allows blanks before an extension, old servers fill the line up with them, and what an extension
    # says is nothing to us.
]  # fmt: skip
"""Which peer, our verdict, the peer's, and an example. Below each group, why."""


def accepted(seen):
    return "accepted" if seen.verdict in ("complete", "incomplete") else seen.verdict


def difference(peer, stream):
    """Our verdict and the peer's, or nothing."""
    ours, theirs = by_mfstore(stream), PEERS[peer](stream)
    if "incomplete" in (ours.verdict, theirs.verdict):
        # One says at once what the other says when the line ends.
        stream += b"\r\n" * 4
        ours, theirs = by_mfstore(stream), PEERS[peer](stream)
    if "accepted" not in (accepted(ours), accepted(theirs)):
        return None
    if accepted(ours) != accepted(theirs):
        return accepted(ours), accepted(theirs)
    if peer == "llhttp" and ours.verdict == "complete" and ours.message[3] is None:
        return None if theirs.verdict == "incomplete" else (ours.verdict, theirs.verdict)  # is not told of the end
    if ours.verdict == theirs.verdict == "complete" and ours.message != theirs.message:
        same_bytes = ours.message[:3] == theirs.message[:3] and ours.message[3][0] == theirs.message[3][0]
        return ("keep", "keep") if same_bytes else (ours.message, theirs.message)
    return None if ours.verdict == theirs.verdict else (ours.verdict, theirs.verdict)


@pytest.mark.parametrize(("peer", "ours", "theirs", "stream"), DIFFERENCES)
def test_known_differences(peer, ours, theirs, stream):
    assert difference(peer, stream) == (ours, theirs)


STATUS_LINES = [
    OK, OK, OK, b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 No Content\r\n", b"HTTP/1.1 304 Not Modified\r\n", b"HTTP/1.1 503\r\n",
    b"HTTP/1.1 404 \r\n", b"HTTP/1.1 206 \xe9\r\n", b"HTTP/1.1 205 x\r\n", b"HTTP/1.1 101 x\r\n",
]  # fmt: skip
FIELDS = [
    LONG, LONG, b"content-length:5\r\n", b"Content-Length: 0\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length: 5,6\r\n",
    b"Content-Length: 6\r\n", b"Content-Length: 05\r\n", b"Content-Length: +5\r\n", b"Content-Length:\t5 \r\n",
    b"Content-Length: 18446744073709551616\r\n", b"Content-Length:\r\n", CHUNKS, CHUNKS, b"transfer-encoding:\tChunked \r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Connection: close\r\n",
    b"Connection: keep-alive\r\n", b"Connection: x,close\r\n", b'ETag: "abc"\r\n', b"x-amz-meta-a: \xc3\xa9 \t b \r\n",
    b"empty:\r\n", b"a : b\r\n", b" folded\r\n", b"a\xe9: b\r\n", b"(a): b\r\n", b"na_me!#$%&'*+-.^`|~: v\r\n", b"Upgrade: h2c\r\n",
]  # fmt: skip
FRAMES = [
    b"5\r\nhello\r\n", b'1;x="y"\r\nz\r\n', b"05\r\nhello\r\n", b"A\r\n0123456789\r\n", b"1 \r\nz\r\n", b"1 ;q\r\nz\r\n",
    b"0\r\n\r\n", b"0\r\nName: v\r\n\r\n", b"00\r\n\r\n", b"0;e\r\nETag: 1\r\nb:2\r\n\r\n",
]  # fmt: skip
INTERIM = [b"", b"", b"", b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 x\r\nLink: a\r\n\r\n"]
BODIES = [b"hello", b"hello!", b"hell", b"", b"hello" + OK + b"\r\n"]


@st.composite
def streams(draw):
    fields = draw(st.lists(st.sampled_from(FIELDS), max_size=4))
    chunks = any(b"hunked" in field for field in fields)
    body = (
        b"".join(draw(st.lists(st.sampled_from(FRAMES), min_size=1, max_size=4)))
        if chunks
        else draw(st.sampled_from(BODIES))
    )
    head = draw(st.sampled_from(INTERIM)) + draw(st.sampled_from(STATUS_LINES)) + b"".join(fields) + b"\r\n"
    stream = bytearray(head + body)
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        i = draw(st.integers(0, len(stream)))
        stream[i : i + draw(st.integers(0, 1))] = draw(
            st.sampled_from([b"", *(bytes([c]) for c in b" \t\r\n:;,0Aa\0\x7f\x80")])
        )
    return bytes(stream)


@settings(max_examples=lasting(400))
@given(streams())
def test_no_other_difference(stream):
    known = {differing[:3] for differing in DIFFERENCES if differing[3].isascii() or not stream.isascii()}
    for peer in PEERS:
        found = difference(peer, stream)
        assert found is None or (peer, *found) in known, (peer, stream, found)
