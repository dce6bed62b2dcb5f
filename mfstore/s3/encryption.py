"""How what is stored in S3 is encrypted there, as parameters of the requests that write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mfstore.settings import EncryptionKnobs

ALGORITHM, KEY = "ServerSideEncryption", "SSEKMSKeyId"
PARAMETERS = (ALGORITHM, KEY, "BucketKeyEnabled")
"""botocore's names of what the knobs say, in their order."""
OF_CUSTOMERS = "SSECustomer"
"""What the names of parameters begin with that send a key of the caller's own along."""


def parameters_of(knobs: EncryptionKnobs) -> dict[str, Any]:
    """The parameters that say it: none where the bucket decides."""
    return {name: value for name, value in zip(PARAMETERS, knobs, strict=True) if value is not None}


def with_default(given: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """``given``, parameters of a request that writes, and what ``default`` says besides; of encryption only where they
    say nothing of it. Who asks for KMS and names no key means the default's, if that has one."""
    if not any(name in PARAMETERS or name.startswith(OF_CUSTOMERS) for name in given):
        return {**default, **given}
    left = {name: value for name, value in default.items() if name not in PARAMETERS}
    if "kms" in str(given.get(ALGORITHM)) and KEY not in given and KEY in default:
        left[KEY] = default[KEY]
    return {**left, **given}
