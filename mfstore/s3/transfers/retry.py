"""Whether, when and how often to ask again."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from mfstore.records import dataclass
from mfstore.s3.aws.errors import PASSING, Verdict
from mfstore.s3.calls import FIRST_BYTE_SECONDS, STALL, STALL_SECONDS

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import Ask, ControlPlane
    from mfstore.s3.calls import Call, Reply
    from mfstore.s3.transfers.jobs import Try

MOST_DRIPS = 3
DRIPPED_BYTES = 64 << 10
"""A server that answers, and of whose answer no more than so many bytes come before it stalls, is asked no more often:
what drips three times for as long as the stall time-out will do so for the three minutes that are left."""
MOST_MOVES = 3
"""How often a call follows its bucket to another region."""


def _http_date(text: str) -> datetime:
    return parsedate_to_datetime(text).replace(tzinfo=None)  # they are all in GMT, and not all say so


def asked_delay(reply: Reply, cap: float) -> float:
    """Seconds the server asks to wait, at most ``cap``; 0.0 if it does not, or asks for nonsense.

    ``x-amz-retry-after`` is in milliseconds; ``Retry-After`` in seconds, or a date (RFC 9110, 10.2.3). That counts from
    the reply's own date, so that a wrong clock on either side does no harm.
    """
    for name, unit in (("x-amz-retry-after", 0.001), ("retry-after", 1.0)):
        text = reply.headers.get(name, "")
        if text.isascii() and text.isdigit():
            return min(int(text[:20]) * unit, cap)  # int refuses thousands of digits
    try:
        asked = _http_date(reply.headers.get("retry-after", "")) - _http_date(reply.headers.get("date", ""))
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, asked.total_seconds()), cap)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to keep trying one call."""

    attempts: int = 10
    """Tries in all."""
    seconds: float = 180.0
    """No new try is started this long after the first one. Not a time-out: a try that makes progress may go on."""
    base: float = 0.05
    throttled_base: float = 0.5
    """The first delay is drawn from 0 to base. SlowDown means that the server is repartitioning: wait longer."""
    cap: float = 20.0
    first_byte: float = FIRST_BYTE_SECONDS
    stall: float = STALL_SECONDS
    """Time-outs of one try, in seconds: those of ``Call``."""

    def delay(self, verdict: Verdict, attempt: int, draw: Callable[[], float]) -> float:
        """Seconds before try ``attempt + 1``: full jitter (AWS Architecture Blog, "Exponential Backoff and Jitter")."""
        if verdict not in (Verdict.TRANSIENT, Verdict.THROTTLED):
            return 0.0
        base = self.throttled_base if verdict is Verdict.THROTTLED else self.base
        return draw() * min(self.cap, base * 2.0 ** min(attempt - 1, 30))


class RetryQuota:
    """Shared by all calls of a client: bounds how much retrying adds to a struggling service's load.

    Each retry takes tokens and each success gives some back. When there are none left a retry is not refused but
    waits for its turn, ``RATE`` a second: a bulk operation slows down instead of failing.
    """

    CAPACITY = 500.0
    COST = 5.0
    REFUND = 1.0
    RATE = 20.0

    def __init__(self) -> None:
        self.tokens = self.CAPACITY
        self._next = 0.0

    def succeeded(self, calls: int = 1) -> None:
        """So many calls went well. Need not be told while there are CAPACITY tokens."""
        self.tokens = min(self.CAPACITY, self.tokens + calls * self.REFUND)

    def wait(self, now: float) -> float:
        """Take tokens for one retry: seconds it has to wait beyond its own delay."""
        if self.tokens >= self.COST:
            self.tokens -= self.COST
            return 0.0
        self._next = max(self._next, now) + 1.0 / self.RATE
        return self._next - now


@dataclass(slots=True)
class Retries:
    """Whether and when a failed call of one operation is made again, by what its ``Try`` remembers."""

    control: ControlPlane
    policy: RetryPolicy
    quota: RetryQuota
    ask: Ask
    draw: Callable[[], float] = random.random

    def delay(self, state: Try, call: Call, reply: Reply, verdict: Verdict, now: float) -> float | None:
        """Seconds before the next try; None when another is hopeless. Learns from the reply what the next try needs:
        credentials, the clock, a region. Raises MfstoreError when new credentials cannot be had."""
        if verdict is Verdict.FREE and not state.free:
            state.free = True
        elif verdict is Verdict.REFRESH:
            if state.refreshed or not self.control.expire(state.credentials, call.bucket):
                return None
            state.refreshed = True
        elif verdict is Verdict.SKEWED:
            if state.skewed or not self.control.learn_skew(reply):
                return None
            state.skewed = True
        elif verdict is Verdict.MOVED:
            if state.moved >= MOST_MOVES or not self.control.redirect(call, reply, self.ask):
                return None
            state.moved += 1
        elif verdict in PASSING:
            if reply.failure == STALL and reply.first_byte and reply.received < DRIPPED_BYTES:
                state.drips += 1
                if state.drips == MOST_DRIPS:
                    return None
            # Not by now: the answer may have waited for a consumer who took his time.
            age = (reply.finished or now) - state.started
            if state.attempts >= self.policy.attempts or age >= self.policy.seconds:
                return None
            delay = self.policy.delay(verdict, state.attempts, self.draw)
            return max(delay, asked_delay(reply, self.policy.cap)) + self.quota.wait(now)
        else:
            return None
        return 0.0
