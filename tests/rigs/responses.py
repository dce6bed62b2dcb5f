"""The native reader of HTTP responses, as a test asks it: by ctypes, for nothing in Python does."""

import ctypes
from typing import NamedTuple

from mfstore._core import transfer

MORE, HEAD_MAX = 1, 256 << 10
NONE, LENGTH, CHUNKED, CLOSE = range(4)


class Head(ctypes.Structure):
    _fields_ = (
        ("status", ctypes.c_int), ("minor", ctypes.c_int), ("n", ctypes.c_size_t), ("fields", ctypes.c_size_t),
        ("fields_n", ctypes.c_size_t), ("framing", ctypes.c_int), ("length", ctypes.c_int64), ("keep", ctypes.c_int),
        ("lines", ctypes.c_uint), ("blank", ctypes.c_uint), ("marks", ctypes.c_uint),
    )  # fmt: skip


class Body(ctypes.Structure):
    _fields_ = (
        ("framing", ctypes.c_int), ("left", ctypes.c_uint64), ("size", ctypes.c_uint64), ("state", ctypes.c_uint),
        ("overhead", ctypes.c_size_t),
    )  # fmt: skip


class Response(NamedTuple):
    verdict: str
    """"complete", "incomplete", or why it is refused."""
    status: int
    fields: bytes
    framing: int
    length: int
    keep: bool
    body: bytes
    rest: bytes


library = ctypes.CDLL(transfer.__file__)
library.mf_http_words.restype = ctypes.c_char_p
library.mf_body_straight.restype = ctypes.c_uint64


def words(code):
    return library.mf_http_words(code).decode()


def read_head(stream, ends, is_head):
    """The final head, and how many bytes came before its end; or a verdict."""
    head, begin, seen = Head(), 0, 0
    for end in ends:
        while True:
            piece = stream[begin:end]
            code = library.mf_head_read(
                piece, ctypes.c_size_t(len(piece)), ctypes.c_size_t(seen), is_head, ctypes.byref(head)
            )
            seen = len(piece)
            if code == MORE:
                break
            if code:
                return words(code), None, 0
            begin += head.n
            seen = 0
            if head.status >= 200:
                return "", head, begin
    return words(MORE), None, 0


def read_body(body, stream, at, ends):
    """The payload, the verdict, and where the body ends."""
    payload = b""
    start, size, taken = (ctypes.c_size_t() for _ in range(3))
    for end in (at, *(end for end in ends if end > at)):
        while True:
            piece = stream[at:end]
            code = library.mf_body_read(
                ctypes.byref(body), piece, ctypes.c_size_t(len(piece)), ctypes.byref(start), ctypes.byref(size),
                ctypes.byref(taken),
            )  # fmt: skip
            assert start.value + size.value == taken.value or not taken.value
            payload += piece[start.value : start.value + size.value]
            at += taken.value
            if code != MORE:
                return payload, code, at
            if at == end:
                break
    return payload, library.mf_body_ended(ctypes.byref(body)), at


def read(stream, *, cuts=(), is_head=False):
    """A response that comes in pieces, behind which the connection ends."""
    ends = (*sorted(cuts), len(stream))
    verdict, head, at = read_head(stream, ends, int(is_head))
    if head is None:
        return Response(verdict, 0, b"", NONE, -1, False, b"", b"")
    fields = stream[at - head.n :][head.fields : head.fields + head.fields_n]
    body = Body()
    library.mf_body_begin(ctypes.byref(body), ctypes.byref(head))
    payload, code, end = read_body(body, stream, at, ends)
    rest = stream[end:] if code == 0 else b""
    return Response(words(code), head.status, fields, head.framing, head.length, bool(head.keep), payload, rest)


def head_of(*lines, status=b"HTTP/1.1 200 OK"):
    return b"\r\n".join((status, *lines, b"", b""))


def chunked(*rest):
    return head_of(b"Transfer-Encoding: chunked") + b"".join(rest)
