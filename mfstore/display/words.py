"""What may be shown of names, keys by their first digits, and notes in a line."""

from __future__ import annotations

import json
import re
from typing import Any

KEY_DIGITS = 10
"""Digits that a shortened key has. Eight are enough to be a name; ten keep one of a million keys apart from all others
but once in a million."""
LONGEST_NOTE = 160
_DIGESTS = re.compile(r"\b([0-9a-f]{16})[0-9a-f]{24,48}\b")


def printable(text: str) -> str:
    """Text as it may be shown: names in a store come from whoever wrote it, and could steer a terminal, or turn the
    direction of what follows. Of Unicode that is none, what is left over of bytes, the escape."""
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


def one_line(text: str) -> str:
    """The same without line breaks."""
    return printable(text).replace("\n", "\\n")


def short_key(key: str) -> str:
    """A key by its first digits, which name it wherever a key may be given."""
    return key[:KEY_DIGITS]


def short_keys(text: str) -> str:
    """Text in which keys and other digests are told by their first digits."""
    return _DIGESTS.sub(r"\1…", text)


def shortened(text: str, letters: int) -> str:
    """At most so many letters, with an ellipsis for what is left out."""
    return text if len(text) <= letters else text[: letters - 1] + "…"


def note_text(note: Any, letters: int = LONGEST_NOTE) -> str:
    """A note in one line, without the braces around it: ``auc 0.93, tags ["trial"]``."""
    if isinstance(note, dict):
        parts = [f"{name} {_plain(value)}" for name, value in note.items()]
        return shortened(", ".join(parts), letters)
    return shortened(_plain(note), letters)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(_rounded(value), ensure_ascii=False)


def _rounded(value: Any) -> Any:
    """The same with floats of few digits: 0.1 + 0.2 is 0.3 for people."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
