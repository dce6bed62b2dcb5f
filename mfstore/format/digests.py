"""Digests and the keys made of them: BLAKE3-256 (https://github.com/BLAKE3-team/BLAKE3-specs) or SHA-256 (FIPS 180-4).

A store fixes one algorithm when it is created; both give 32 bytes (docs/format.md, "Digests").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from mfstore.errors import InvalidKey, Unsupported

if TYPE_CHECKING:
    from typing_extensions import Buffer

    Digest = Callable[[Buffer], bytes]

BLAKE3 = 1
SHA256 = 2

NAMES = {"blake3": BLAKE3, "sha256": SHA256}
_DIGITS = frozenset("0123456789abcdef")


def name_of(algorithm: int) -> str:
    """The name of an algorithm, by its number."""
    return next(name for name, number in NAMES.items() if number == algorithm)


class Key(str):
    """64 lower-case hexadecimal digits. Equal keys mean equal content. InvalidKey for anything else."""

    __slots__ = ()

    def __new__(cls, text: str) -> Key:
        if isinstance(text, Key):
            return text
        if not isinstance(text, str) or len(text) != 64 or not _DIGITS.issuperset(text):
            raise InvalidKey("not a key", expected="64 lower-case hexadecimal digits", found=f"{text!r:.80}")
        return super().__new__(cls, text)

    def __getnewargs__(self) -> tuple[str]:
        return (str.__str__(self),)


def key_of(digest: bytes) -> Key:
    """The key that a digest, of 32 bytes, makes."""
    return str.__new__(Key, digest.hex())


def _blake3(data: Buffer) -> bytes:
    return blake3(data).digest()


def _sha256(data: Buffer) -> bytes:
    return hashlib.sha256(data).digest()


DIGESTS: dict[int, Digest] = {BLAKE3: _blake3, SHA256: _sha256}


def digest_function(algorithm: int) -> Digest:
    """The digest of one buffer, by algorithm number. Unsupported when the number is unknown."""
    try:
        return DIGESTS[algorithm]
    except KeyError:
        raise Unsupported("digest algorithm is unknown to this version of mfstore", found=algorithm) from None


class Hasher(Protocol):
    """A digest of bytes that come in blocks."""

    def update(self, data: Buffer, /) -> object:
        """The next bytes."""

    def digest(self) -> bytes:
        """The digest of all so far."""


def hasher(algorithm: int) -> Hasher:
    """A digest of bytes that come in blocks, by algorithm number. Unsupported when the number is unknown."""
    digest_function(algorithm)
    return blake3() if algorithm == BLAKE3 else hashlib.sha256()
