"""Digests of a listing, as names and ETags are: in half of their memory."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 32
_TEXT = b"\xff" * (_LONGEST + 1)
"""Begins what is no digest. No digest is that long."""


def shortened(text: str) -> bytes | str:
    """The bytes of a digest in hexadecimal; anything else as it is."""
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        return text
    return digest if digest.hex() == text else text


def restored(short: bytes | str) -> str:
    """What ``shortened`` was given."""
    return short if isinstance(short, str) else short.hex()


def packed_key(key: str) -> bytes:
    """The key of a blob as bytes, which have an order: of a digest its own."""
    short = shortened(key)
    if isinstance(short, bytes) and len(short) <= _LONGEST:
        return short
    return _TEXT + key.encode("utf-8", "surrogatepass")


def unpacked_key(packed: bytes) -> str:
    """What ``packed_key`` was given."""
    return packed[len(_TEXT) :].decode("utf-8", "surrogatepass") if packed.startswith(_TEXT) else packed.hex()


def packed_by_flow(names: Iterable[tuple[str, str]]) -> dict[str, dict[bytes, tuple[str, str]]]:
    """Flows and keys of blobs, by flow, and by packed key."""
    found: dict[str, dict[bytes, tuple[str, str]]] = {}
    for name in names:
        found.setdefault(name[0], {})[packed_key(name[1])] = name
    return found
