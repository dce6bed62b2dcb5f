"""The headers of a response: looked up singly they say what the whole mapping says, and both what a plain reading
does."""

import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

transfer = pytest.importorskip("mfstore._core.transfer")

NAMES = ("etag", "content-length", "x-amz-meta-a", "x", "")
MARKS = ("\r\n", ":", " ", "\t", "\r", "\n", "é", "\x80")


def plain(raw):
    """As RFC 9112 section 5 has it: the first of a name counts, a line that begins with a blank continues the one
    before."""
    found, last = {}, None
    for line in raw.decode("utf-8", "surrogateescape").split("\r\n"):
        if line[:1] in (" ", "\t"):
            if last is not None:
                found[last] += " " + line.strip(" \t")
            continue
        name, colon, value = line.partition(":")
        if colon:
            last = name.strip(" \t").lower()
            if last in found:
                last = None
            else:
                found[last] = value.strip(" \t")
    return found


pieces = st.sampled_from((*NAMES, *MARKS, "ETag", "X-Amz-Meta-A", "CONTENT-LENGTH", '"a-1"', "4096"))


@given(st.lists(pieces, max_size=60).map("".join), st.sampled_from((*NAMES, "é", "ETag", "\udc80")))
@example("etag: 1\r\nETag: 2\r\n", "etag")
@example("etag: 1\r\n 2\r\n", "etag")
@example("etag: 1\r\nx: y\r\n\tz\r\n", "etag")
@example("etag", "etag")
@example(":", "")
def test_lookups_agree(text, name):
    raw = text.encode("utf-8", "surrogateescape")
    expected = plain(raw)
    headers = transfer.Headers(raw)
    assert headers.get(name) == expected.get(name) and headers.get(name, 7) == expected.get(name, 7)
    assert (name in headers) == (name in expected)
    if name in expected:
        assert headers[name] == expected[name]
    else:
        with pytest.raises(KeyError):
            headers[name]
    assert dict(headers) == expected and headers == expected and len(headers) == len(expected)
    assert headers.get(name) == expected.get(name)
    assert pickle.loads(pickle.dumps(headers)) == expected


@pytest.mark.parametrize(
    "raw", [b"".join(b"n%d: %d\r\n" % (n, n) for n in range(100)), b"n99: 99\r\nn1: " + b"1" * 70_000]
)
def test_many_and_long_lines(raw):
    headers = transfer.Headers(raw)
    assert headers.get("n99") == "99" and headers.get("n1") == plain(raw)["n1"] and headers.get("n100") is None
    assert headers.get(7) is None
