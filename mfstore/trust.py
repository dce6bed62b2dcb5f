"""Whose signatures count, and what the signatures of a key are worth.

What is signed is a key, which is the digest of all that is loaded under it. Signatures are verified with public keys
alone, without asking anybody.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfstore.errors import CorruptObject, InvalidKey, MfstoreError, NotFound, NotSigned, Unsupported, WrongArgument
from mfstore.format.signatures import Signature, decode_signature, fingerprint, signature_path, signed_key, statement
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.format.digests import Key

LEAST_RSA = 2048
LARGEST_KEY = 64 << 10
"""Bytes of a file with a key that are read."""
SHOWN = 3
"""Signers that an error tells of."""


def cryptography() -> Any:
    """The package's module of how keys are written. Unsupported when it is not installed."""
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise Unsupported("signatures need the cryptography package", hint="pip install 'mfstore[sign]'") from error
    return serialization


def read_key(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file with a key. NotFound, OSError."""
    try:
        with Path(path).expanduser().open("rb") as file:
            return file.read(LARGEST_KEY)
    except FileNotFoundError:
        raise NotFound("no file with a key", key=os.fspath(path)) from None


def der_of(public: Any) -> bytes:
    """A public key as it is stored, and as its fingerprint is of."""
    serialization = cryptography()
    return bytes(public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def way_of(public: Any, verifying: bool = True) -> tuple[Any, ...]:
    """What besides the message a kind of key signs with: the key says it, and never the signature. InvalidKey for a
    kind that is not taken."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    if isinstance(public, ed25519.Ed25519PublicKey):
        return ()
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name == "secp256r1":
        return (ec.ECDSA(hashes.SHA256()),)
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= LEAST_RSA:
        # Signed with a salt as long as the digest, as KMS does; whichever it has is taken.
        salt = padding.PSS.AUTO if verifying else hashes.SHA256().digest_size
        return padding.PSS(padding.MGF1(hashes.SHA256()), salt), hashes.SHA256()
    raise InvalidKey(
        "not a kind of key that signs here", found=type(public).__name__,
        expected=f"Ed25519, ECDSA with P-256, or RSA of {LEAST_RSA} bits or more",
    )  # fmt: skip


def public_keys(trusted: Iterable[Any] | str | os.PathLike[str] | bytes) -> tuple[bytes, ...]:
    """The public keys, as DER, that somebody trusts: files in PEM, texts in PEM, or public keys of the cryptography
    package. InvalidKey for what is none, and where there is none at all."""
    given = [trusted] if isinstance(trusted, (str, bytes, os.PathLike)) or hasattr(trusted, "verify") else [*trusted]
    if not given:
        raise InvalidKey("trusted names no public key", hint="Leave it out to load what nobody has signed")
    return tuple(dict.fromkeys(map(_public_key, given)))


def _public_key(given: Any) -> bytes:
    serialization = cryptography()
    public = given
    if isinstance(given, (str, bytes, os.PathLike)):
        text = given if isinstance(given, (str, bytes)) else os.fspath(given)
        data = text.encode() if isinstance(text, str) else text
        if b"-----BEGIN" not in data:
            data = read_key(os.fsdecode(data))
        try:
            public = serialization.load_pem_public_key(data)
        except ValueError as error:
            raise InvalidKey("no public key in PEM", found=f"{given!r:.80}", hint=str(error)) from None
    elif not hasattr(given, "verify"):
        raise WrongArgument("trusted are public keys: files or texts in PEM", found=f"{given!r:.80}")
    way_of(public)
    return der_of(public)


@cache
def loaded(der: bytes) -> Any:
    """A public key. ValueError or cryptography's own errors for what is none."""
    return cryptography().load_der_public_key(der)


def is_signed_by(signature: Signature, algorithm: str, key: str) -> bool:
    """Whether it is the signature of this key by the public key that it names."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        public = loaded(signature.public_key)
        public.verify(signature.signature, statement(algorithm, key, signature.time), *way_of(public))
    except (InvalidSignature, UnsupportedAlgorithm, InvalidKey, ValueError, TypeError):
        return False
    return True


class KeySignatures(NamedTuple):
    """What the signatures of one key say."""

    trusted: tuple[str, ...] = ()
    """Fingerprints of those who are trusted and have signed it."""
    unknown: tuple[str, ...] = ()
    """Of those who have signed it and are not trusted."""
    bad: tuple[str, ...] = ()
    """Of those in whose place lies what is no signature of it."""


def judged(
    key: str, stored: Iterable[tuple[str, Any]], algorithm: str, trusted: Sequence[bytes]
) -> KeySignatures:  # fmt: skip
    """What signatures of a key, each given by its path and its bytes or the error of reading them, are worth. What is
    gone by now is nothing; AccessDenied and what else says nothing about it is raised."""
    good: list[str] = []
    unknown: list[str] = []
    bad: list[str] = []
    names = {fingerprint(one) for one in trusted}
    for path, data in stored:
        place = signed_key(path)
        if place is None or place[0] != key or isinstance(data, NotFound):
            continue
        if isinstance(data, MfstoreError) and not isinstance(data, CorruptObject):
            raise data
        try:
            if isinstance(data, CorruptObject):
                raise data
            signature = decode_signature(bytes(data), path)
        except (CorruptObject, Unsupported):
            bad.append(place[1])
            continue
        if fingerprint(signature.public_key) != place[1] or not is_signed_by(signature, algorithm, key):
            bad.append(place[1])
        else:
            (good if place[1] in names else unknown).append(place[1])
    return KeySignatures(tuple(good), tuple(unknown), tuple(bad))


class Trust:
    """Whose signatures count, and which keys were found signed: a key stays signed."""

    def __init__(self, public: Sequence[bytes]) -> None:
        self._public = public
        self._signed: set[str] = set()

    def refusals(self, backend: Backend, algorithm: str, keys: Iterable[Key]) -> dict[Key, MfstoreError]:
        """Why keys are not to be loaded, in their order: NotSigned of those that nobody of these has signed,
        AccessDenied and the like where that cannot be told. What is not known of all of them is asked for together."""
        left = [key for key in dict.fromkeys(keys) if key not in self._signed]
        paths = [signature_path(key, fingerprint(public)) for key in left for public in self._public]
        stored: dict[str, list[tuple[str, Any]]] = {}
        for path, data in backend.get_many(paths) if paths else ():
            stored.setdefault(path.split("/")[2], []).append((path, data))
        refused: dict[Key, MfstoreError] = {}
        for key in left:
            try:
                found = judged(key, stored.get(key, ()), algorithm, self._public)
            except MfstoreError as error:
                refused[key] = error
                continue
            if found.trusted:
                self._signed.add(key)
            else:
                refused[key] = _refusal(backend, key, found)
        return refused


def _refusal(backend: Backend, key: Key, found: KeySignatures) -> NotSigned:
    if found.bad:
        what = f"what lies there as the signature of {_shown(found.bad)} is not one of this key"
    else:
        what = "nobody who is trusted has signed this key"
    return NotSigned(
        what, key=key, backend=backend.url,
        hint="Whoever knows that it is right signs it: mfstore sign KEY --key FILE",
    )  # fmt: skip


def _shown(names: Sequence[str]) -> str:
    return ", ".join(name[:16] for name in names[:SHOWN])
