"""Which paths of a directory are not stored: patterns as of a shell. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fnmatch import translate

from mfstore.errors import InvalidKey

Excludes = Callable[[str, bool], bool]
"""Whether a path, below the directory that is stored, is not; and whether it is one of a directory."""


def excludes(patterns: str | Iterable[str]) -> Excludes:
    """What the patterns leave out. One without a slash is compared with names, wherever they are, and one with a slash
    with the path from the top, in which ``**`` stands for any number of directories. A slash at the end: directories
    alone. InvalidKey for what can be no pattern."""
    found = [_matcher(pattern) for pattern in ([patterns] if isinstance(patterns, str) else patterns)]

    def excluded(path: str, is_directory: bool) -> bool:
        return any((is_directory or not only) and match(path) is not None for match, only in found)

    return excluded


def _matcher(pattern: str) -> tuple[Callable[[str], object], bool]:
    if not isinstance(pattern, str) or not pattern.strip("/") or "\0" in pattern:
        raise InvalidKey("exclude takes patterns, such as '*.pyc' or 'build/'", found=f"{pattern!r:.80}")
    body = pattern.rstrip("/")
    parts = body.removeprefix("./").strip("/").split("/")
    if "/" not in body:
        parts = ["**", *parts]
    text = "".join("(?:[^/]+/)*" if part == "**" else _part(part) + "/" for part in parts)
    # All that lies below is left out with its directory.
    text = text.removesuffix("/") if parts[-1] != "**" else text + "[^/]+"
    return re.compile(text + r"\Z", re.DOTALL).match, pattern.endswith("/")


def _part(pattern: str) -> str:
    """One name of a path: what fnmatch makes of it, without its end, and no slash matches."""
    text = translate(pattern).removeprefix("(?s:")[: -len(r")\Z")]  # \z from Python 3.14 on
    return f"(?!/)(?:{_without_slashes(text)})"


def _without_slashes(text: str) -> str:
    """``*``, ``?`` and ``[!a]`` of fnmatch's expression match no slash."""
    found, at, inside = [], 0, 0  # of a set in brackets: where it may end at the earliest
    while at < len(text):
        char = text[at]
        if char == "\\":
            found.append(text[at : at + 2])
            at += 2
            continue
        if inside:
            found.append(char)
            inside = 0 if char == "]" and at >= inside else inside
        elif char == "[":
            found.append("(?!/)[")
            inside = at + 2 + (text[at + 1] == "^")
        else:
            found.append("[^/]" if char == "." else char)
        at += 1
    return "".join(found)
