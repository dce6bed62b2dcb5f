"""Digests of a listing, as names and ETags are: in half of their memory."""

from __future__ import annotations


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
