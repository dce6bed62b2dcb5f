"""Which bundle a step of a flow saved last: a hint for whoever saves the next one (docs/format.md, "Latest bundle")."""

from __future__ import annotations

from urllib.parse import quote

from mfstore.errors import InvalidKey
from mfstore.format.digests import Key

PREFIX = "latest/"
NAME_LIMIT = 240
"""Longest encoded name: file names end at 255 bytes."""


def latest_path(flow: str, step: str) -> str:
    """Where the hint of a step lies. Flows whose names begin with the same 240 encoded bytes share it."""
    return PREFIX + f"{quote(flow, safe='')}.{quote(step, safe='')}"[:NAME_LIMIT]


def encode_latest(bundle: str) -> bytes:
    """A hint as it is stored: the key of the bundle."""
    return bundle.encode()


def decode_latest(data: bytes) -> Key | None:
    """The bundle a stored hint names; None where it names none. It has no seal: with a digit changed it names what is
    not there."""
    try:
        return Key(data.decode("ascii"))
    except (InvalidKey, UnicodeDecodeError):
        return None
