"""Sessions with directory buckets that aiobotocore keeps by itself, and when they are to be replaced."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mfstore.records import dataclass

SECONDS_YOUNG = 5.0
"""A session that was refused is given up when it is older: many calls may be told the same."""


@dataclass(slots=True)
class _Kept:
    credentials: Any
    since: float
    """By time.monotonic(): when they were first given, or last given up."""


class KeptSessions:
    """The sessions that aiobotocore keeps, by bucket. One that the service ended early it would keep to the end. Safe
    to use from several threads."""

    def __init__(self, expire: Callable[[Any], None]) -> None:
        self._expire = expire
        self._kept: dict[str, _Kept] = {}

    def given(self, bucket: str, credentials: Any) -> None:
        """aiobotocore signs with these, which it refreshes when they have expired."""
        kept = self._kept.get(bucket)
        if kept is None or kept.credentials is not credentials:
            self._kept[bucket] = _Kept(credentials, time.monotonic())

    def refused(self, bucket: str) -> bool:
        """As ``BucketSessions.refused``."""
        kept, now = self._kept.get(bucket), time.monotonic()
        if kept is None:
            return False
        if now - kept.since >= SECONDS_YOUNG:
            if kept.credentials.refresh_needed(0):
                return False  # there has been no other since: it was the question for one that was refused
            kept.since = now
            self._expire(kept.credentials)
        return True
