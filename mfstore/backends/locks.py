"""Refusals to delete what a lock of the storage keeps. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mfstore.errors import AccessDenied, Locked

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectLock
    from mfstore.errors import MfstoreError

_WORDS = re.compile(r"object.?lock|retention|legal.?hold|\bworm\b|\blease\b|\bsnapshots\b", re.IGNORECASE)
"""S3 refuses with "Access Denied because object protected by object lock", radosgw with "forbidden by object lock"."""


def speaks_of_locks(error: MfstoreError) -> bool:
    """Whether a refusal says that it is because of a lock."""
    # Not the message: that also names the object and the right.
    return isinstance(error, AccessDenied) and _WORDS.search(error.reason) is not None


def words(lock: ObjectLock) -> str:
    """What a person is told of a lock."""
    parts = []
    if lock.mode:
        moment = "" if lock.until is None else f" until {datetime.fromtimestamp(lock.until, UTC):%Y-%m-%d %H:%M} UTC"
        parts.append(f"{lock.mode.lower()} retention{moment}")
    if lock.legal_hold:
        parts.append("legal hold")
    return " and ".join(parts) or "object lock"


def locked(locks: Mapping[str, str], changed: frozenset[str], backend: str) -> Locked:
    """The error for objects that a lock keeps; not raised."""
    key = next(iter(locks))
    error = Locked(f"the storage keeps it: {locks[key]}", key=key, backend=backend)
    error.locks, error.changed = dict(locks), changed
    return error
