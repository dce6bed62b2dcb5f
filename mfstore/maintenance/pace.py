"""How fast collections delete: a token bucket, whose tokens are objects."""

from __future__ import annotations

import time
from collections.abc import Callable

from mfstore.errors import InvalidKey

REMOTE_DELETIONS = 1000.0
"""Objects a second that are deleted in S3 unless the caller says otherwise. S3 takes 3500 writes a second below a part
of the key space, counts each object of a request that deletes many, and slows down whoever writes there: two thirds are
left to the tasks. One request a second deletes as many."""
BURST_SECONDS = 1.0
"""As much as this time allows may be deleted at once: no request of S3's deletes more than 1000."""


class DeletionPace:
    """At most so many deletions a second. None: as many as can be.

    Used by one thread. ``clock`` and ``sleep`` are in seconds.
    """

    def __init__(
        self, per_second: float | None, clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:  # fmt: skip
        check_pace(per_second)
        self._rate = per_second
        self._clock = clock
        self._sleep = sleep
        self._tokens = self._most = float(self.at_once(1 << 62))
        self._told = clock()

    def at_once(self, most: int) -> int:
        """How many objects one request may delete, at most ``most``: whoever waits for more would wait for so long that
        he is taken for dead, or has to look again."""
        return most if self._rate is None else max(1, min(most, int(self._rate * BURST_SECONDS)))

    def wait(self, objects: int) -> None:
        """Return once so many objects may be deleted: mostly at once, and after ``BURST_SECONDS`` at most if they are
        no more than ``at_once`` says."""
        if self._rate is None:
            return
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._told) * self._rate)
        self._told = now
        self._tokens -= objects
        if self._tokens < 0:
            self._sleep(-self._tokens / self._rate)


def pace_of(given: float | None, remote: bool) -> float | None:
    """The pace in force: what the caller gave, where 0 is without a limit; else S3's default, and none on a disk, which
    slows down its own writers alone."""
    if given is None:
        return REMOTE_DELETIONS if remote else None
    return given or None


def check_pace(per_second: float | None) -> None:
    """InvalidKey for what is no pace."""
    if per_second is not None and not 0 < per_second < float("inf"):
        raise InvalidKey("deletions per second are more than none", found=per_second, hint="0 is without a limit")
