"""What S3's Object Lock says of an object and of a bucket. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mfstore.backends.base import ObjectLock

MODE = "x-amz-object-lock-mode"
UNTIL = "x-amz-object-lock-retain-until-date"
LEGAL_HOLD = "x-amz-object-lock-legal-hold"


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
