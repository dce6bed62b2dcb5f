"""Bytes and texts as they are, and plain values as JSON."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from mfstore.exporting.formats import BYTES, JSON, TEXTS, content_of, unfit
from mfstore.exporting.streams import Content, blocks
from mfstore.pickling.symbols import Slot

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.views.view import View


def write_bytes(view: View, out: BinaryIO) -> None:
    """Bytes, as they are."""
    if content_of(view) != BYTES:
        raise unfit(view, BYTES, f"it is a {view.type}, and no bytes")
    for block in _blocks(view):
        out.write(block)


def write_text(view: View, out: BinaryIO) -> None:
    """A text, in UTF-8; bytes that are one."""
    if content_of(view) is None:
        raise unfit(view, TEXTS, f"it is a {view.type}, and no text")
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for block in _blocks(view):
            decoder.decode(block)
            out.write(block)
        decoder.decode(b"", True)
    except UnicodeError as error:
        raise unfit(view, TEXTS, f"no text in UTF-8: {error}") from None


def _blocks(view: View) -> Iterator[Buffer]:
    found = view.symbols()
    assert found is not None
    parts, node = found
    if isinstance(node, Slot):
        yield from blocks([Content(parts, node)])
    else:
        yield node.encode("utf-8", "surrogatepass") if isinstance(node, str) else node


def write_json(view: View, out: BinaryIO) -> None:
    """Plain values: None, truth values, numbers, texts, and lists and dicts of them."""
    found = view.load()
    try:
        _check(view, found, "")
        out.write(json.dumps(found, ensure_ascii=False, allow_nan=False).encode())
    except RecursionError:
        raise unfit(view, JSON, "it is nested without end, or too deep") from None
    except ValueError as error:
        raise unfit(view, JSON, str(error)) from None


def _check(view: View, value: Any, path: str) -> None:
    """What json would write as something else, or leave out, is refused."""
    if value is None or type(value) in (bool, int, float, str):
        return
    if isinstance(value, dict):
        for name, item in value.items():
            if type(name) is not str:
                raise unfit(view, JSON, f"the name {name!r:.40} in obj{path} is no text")
            _check(view, item, f"{path}[{name!r:.40}]")
    elif type(value) in (list, tuple):
        for number, item in enumerate(value):
            _check(view, item, f"{path}[{number}]")
    else:
        raise unfit(view, JSON, f"obj{path} is a {type(value).__name__}")
