"""What S3's Object Lock says of an object: its headers, and refusals to delete. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mfstore.backends.base import ObjectLock
from mfstore.errors import AccessDenied, Locked

if TYPE_CHECKING:
    from mfstore.errors import MfstoreError

MODE = "x-amz-object-lock-mode"
UNTIL = "x-amz-object-lock-retain-until-date"
LEGAL_HOLD = "x-amz-object-lock-legal-hold"
_WORDS = re.compile(r"object.?lock|retention|legal.?hold|\bworm\b", re.IGNORECASE)
"""S3 refuses with "Access Denied because object protected by object lock", radosgw with "forbidden by object lock"."""


def lock_in(headers: Mapping[str, str]) -> ObjectLock:
    """The lock that the headers of an answer about an object tell."""
    return ObjectLock(headers.get(MODE, ""), _time(headers.get(UNTIL)), headers.get(LEGAL_HOLD, "").upper() == "ON")


def _time(text: str | None) -> float | None:
    # To the nanosecond where radosgw says it.
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", text or "")
    try:
        return datetime.fromisoformat(found[1]).replace(tzinfo=UTC).timestamp() if found else None
    except ValueError:
        return None


def default_retention(configuration: Mapping[str, Any]) -> str:
    """What the configuration of a bucket's Object Lock says: ``Enabled`` and the default retention, or nothing."""
    found = configuration.get("ObjectLockConfiguration") or {}
    if found.get("ObjectLockEnabled") != "Enabled":
        return ""
    rule = (found.get("Rule") or {}).get("DefaultRetention") or {}
    length = f"{rule['Days']} days" if rule.get("Days") else f"{rule['Years']} years" if rule.get("Years") else ""
    return f"{rule['Mode']} for {length}" if length and rule.get("Mode") else "Enabled"


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
