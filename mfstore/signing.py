"""Keys are signed: with private keys in files, or in KMS, which they never leave."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mfstore import provenance
from mfstore.errors import AccessDenied, BackendError, InvalidKey, NotFound, Unsupported, WrongArgument
from mfstore.format.digests import Key
from mfstore.format.signatures import Signature, encode_signature, fingerprint, signature_path, statement
from mfstore.records import NamedTuple
from mfstore.trust import cryptography, der_of, is_signed_by, loaded, read_key, way_of

if TYPE_CHECKING:
    from mfstore.handle import Handle

_KMS_ARN = re.compile(r"arn:[a-z-]+:kms:([a-z0-9-]+):\d*:(key|alias)/\S+")


class Signed(NamedTuple):
    """What ``sign`` has stored."""

    key: Key
    signer: str
    """Fingerprint of the public key: the SHA-256 of its DER, in hexadecimal."""
    time: int
    """Seconds since the epoch."""


class Signer(NamedTuple):
    """Who signs."""

    public_key: bytes
    """As DER of a SubjectPublicKeyInfo."""
    sign: Callable[[bytes], bytes]


def sign(handle: Handle, found: Key, key: Any) -> Signed:
    """What ``Store.sign`` does."""
    signer = signer_of(key)
    handle.recipe(found)
    handle.require_write()
    now, algorithm = int(time.time()), handle.algorithm_name
    made = Signature(signer.public_key, signer.sign(statement(algorithm, found, now)), now, provenance.user())
    if not is_signed_by(made, algorithm, found):
        raise BackendError("what was signed does not verify with the public key", hint="Is it the key's own?")
    name = fingerprint(signer.public_key)
    handle.backend.put(signature_path(found, name), [encode_signature(made)])
    return Signed(found, name, now)


# ---- keys -------------------------------------------------------------------------------


def signer_of(key: Any) -> Signer:
    """Who signs with ``key``, as of ``sign``."""
    if isinstance(key, str) and key.startswith("arn:"):
        return _kms_signer(key)
    serialization = cryptography()
    if isinstance(key, (str, os.PathLike)):
        data = read_key(key)
        try:
            key = serialization.load_pem_private_key(data, None)
        except TypeError:
            raise InvalidKey(
                "the private key is encrypted", found=os.fspath(key),
                hint="Load it with cryptography and hand that over, or keep the key in KMS",
            ) from None  # fmt: skip
        except ValueError as error:
            raise InvalidKey("no private key in PEM", found=os.fspath(key), hint=str(error)) from None
    if not hasattr(key, "sign") or not hasattr(key, "public_key"):
        raise WrongArgument("key is a file in PEM, the ARN of a key of KMS, or a private key", found=f"{key!r:.80}")
    public = key.public_key()
    way = way_of(public, verifying=False)
    return Signer(der_of(public), lambda message: bytes(key.sign(message, *way)))


def _kms_signer(arn: str) -> Signer:
    """A key of KMS. Its public key is asked for once; each signature is a request."""
    match = _KMS_ARN.fullmatch(arn)
    if match is None:
        raise InvalidKey(
            "not the ARN of a key of KMS", found=arn, hint="Such as arn:aws:kms:eu-west-1:123456789012:key/…"
        )
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise Unsupported("keys of KMS need boto3", hint="pip install 'mfstore[s3,sign]'") from error
    kms = boto3.client("kms", region_name=match[1])

    def ask(operation: str, **given: Any) -> Mapping[str, Any]:
        try:
            return dict(getattr(kms, operation)(KeyId=arn, **given))
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            right = {"get_public_key": "kms:GetPublicKey", "sign": "kms:Sign"}[operation]
            if "AccessDenied" in code:
                raise AccessDenied(f"KMS refuses {right} on {arn}", service_code=code) from error
            if code in ("NotFoundException", "NotFound"):
                raise NotFound("no such key in KMS", key=arn, service_code=code) from error
            raise InvalidKey("KMS cannot sign with this key", found=arn, service_code=code, hint=str(error)) from error
        except BotoCoreError as error:
            raise BackendError(f"KMS was not reached: {error}") from error

    public = loaded(bytes(ask("get_public_key")["PublicKey"]))
    way_of(public)
    algorithm = _kms_algorithm(public)
    return Signer(
        der_of(public),
        lambda message: bytes(ask("sign", Message=message, MessageType="RAW", SigningAlgorithm=algorithm)["Signature"]),
    )


def _kms_algorithm(public: Any) -> str:
    """What KMS calls the way in which such a key signs here."""
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    if isinstance(public, ed25519.Ed25519PublicKey):
        return "ED25519_SHA_512"
    return "RSASSA_PSS_SHA_256" if isinstance(public, rsa.RSAPublicKey) else "ECDSA_SHA_256"
