"""Signatures of keys as they are stored, and the statement that is signed (docs/format.md, "Signatures")."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Any

from mfstore.errors import CorruptObject, Unsupported
from mfstore.records import dataclass

PREFIX = "signatures/"
VERSION = 1
LONGEST = 64 << 10
"""Bytes of a stored signature: more is none."""
_PATH = re.compile(r"signatures/([0-9a-f]{2})/(\1[0-9a-f]{62})/([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Signature:
    """That the owner of a key pair vouches for a key of a store."""

    public_key: bytes
    """Of the pair, as DER of a SubjectPublicKeyInfo."""
    signature: bytes
    """Of the ``statement``."""
    time: int
    """When, in seconds since the epoch, as the signer says. It is signed too."""
    who: str = ""
    """``user@host`` of the signer, for people: that is not signed."""


def statement(algorithm: str, key: str, time: int) -> bytes:
    """What is signed: that this is a key of mfstore's, by which digest, which one, and when. Nothing else that anybody
    signs begins so."""
    return f"mfstore signature {VERSION}\n{algorithm}\n{key}\n{time}\n".encode()


def fingerprint(public_key: bytes) -> str:
    """What a public key is called."""
    return sha256(public_key).hexdigest()


def signature_path(key: str, signer: str) -> str:
    """Where the signature of a key by a signer, given by the fingerprint, is."""
    return f"{PREFIX}{key[:2]}/{key}/{signer}"


def signed_key(path: str) -> tuple[str, str] | None:
    """The key, and the fingerprint of its signer, that a path is of; None where it is none of a signature."""
    match = _PATH.fullmatch(path)
    return None if match is None else (match[2], match[3])


def encode_signature(signature: Signature) -> bytes:
    """A signature as it is stored."""
    document = {
        "version": VERSION, "public_key": b64encode(signature.public_key).decode(),
        "signature": b64encode(signature.signature).decode(), "time": signature.time, "who": signature.who,
    }  # fmt: skip
    return json.dumps(document).encode()


def decode_signature(data: bytes, path: str) -> Signature:
    """The signature in stored bytes. CorruptObject when they are none, Unsupported for another version."""
    if len(data) > LONGEST:
        raise CorruptObject("not the JSON of a signature", key=path, found=f"{len(data)} bytes")
    try:
        document: Any = json.loads(data)
        if document["version"] != VERSION:
            raise Unsupported("a signature of another version of mfstore", key=path, found=document["version"])
        return Signature(
            b64decode(document["public_key"], validate=True), b64decode(document["signature"], validate=True),
            int(document["time"]), str(document["who"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise CorruptObject("not the JSON of a signature", key=path) from None
