"""Whether, when and how often to ask again. Pure: no clock, no randomness of its own, no I/O."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import TYPE_CHECKING

from mfstore.s3 import calls as engine

if TYPE_CHECKING:
    from mfstore.s3.calls import Reply


class Verdict(Enum):
    """What a reply calls for."""

    FINE = "fine"
    FREE = "free"
    """Try again at once, once, at no cost: a kept-alive connection had been closed by the server."""
    TRANSIENT = "transient"
    THROTTLED = "throttled"
    REFRESH = "refresh"
    """The credentials expired: get new ones, then again."""
    SKEWED = "skewed"
    """Our clock is wrong: learn the offset, then again."""
    MOVED = "moved"
    """The bucket is in another region: learn it, then again."""
    FATAL = "fatal"


_RETRIED_FAILURES = {
    engine.CONNECT, engine.DNS, engine.RESET, engine.TRUNCATED, engine.FIRST_BYTE, engine.STALL, engine.PROTOCOL,
    engine.PROXY,
}  # fmt: skip
_TRANSIENT_CODES = {
    "InternalError", "InternalServerError", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict",
    "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody", "UnknownError",
}  # fmt: skip
"""Among them what says that our bytes did not arrive as sent: sending them again may do. UnknownError is radosgw's
internal error, as when two requests delete one object."""
_THROTTLE_CODES = {
    "SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests",
    "RequestThrottled", "BandwidthLimitExceeded", "503 SlowDown",
}  # fmt: skip
_EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "RequestExpired"}
_MOVED_CODES = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IncorrectEndpoint",
    "Redirect",
}
_CODE = re.compile(rb"<Code>\s*([A-Za-z0-9 ]{1,64})\s*</Code>")


def service_code(reply: Reply) -> str | None:
    """The <Code> of an error body, if there is one."""
    if not reply.data:
        return None
    found = _CODE.search(reply.data[:8192])
    return found.group(1).decode("ascii") if found else None


def classify(reply: Reply) -> Verdict:
    """What to do about a reply. A 403 or 404 is an answer, not a failure to retry."""
    if reply.failure is not None:
        if reply.failure == engine.RESET and reply.reused and not reply.first_byte:
            return Verdict.FREE
        return Verdict.TRANSIENT if reply.failure in _RETRIED_FAILURES else Verdict.FATAL
    status = reply.status
    if 200 <= status < 300:
        return Verdict.FINE
    code = service_code(reply)
    if code in _EXPIRED_CODES:
        return Verdict.REFRESH
    if code == "RequestTimeTooSkewed":
        return Verdict.SKEWED
    if status in (301, 302, 307, 308) or code in _MOVED_CODES:
        return Verdict.MOVED
    if code in _THROTTLE_CODES or status in (429, 503):
        return Verdict.THROTTLED
    if status >= 500 and status != 501:
        return Verdict.TRANSIENT
    if code in _TRANSIENT_CODES or status == 408:
        return Verdict.TRANSIENT
    if status == 400 and reply.call.operation == "HeadObject":
        # The answer to a HEAD has no body, so no code: an expired token and a wrong region look like this.
        return Verdict.MOVED if "x-amz-bucket-region" in reply.headers else Verdict.REFRESH
    return Verdict.FATAL


def retryable_code(code: str | None) -> bool:
    """Whether an error inside a 200 answer is worth another try."""
    return code in _TRANSIENT_CODES or code in _THROTTLE_CODES


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
    first_byte: float = engine.FIRST_BYTE_SECONDS
    stall: float = engine.STALL_SECONDS
    """Time-outs of one try: engine.Call."""

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
        self._tokens = self.CAPACITY
        self._next = 0.0

    def succeeded(self) -> None:
        """A call went well."""
        if self._tokens < self.CAPACITY:
            self._tokens = min(self.CAPACITY, self._tokens + self.REFUND)

    def wait(self, now: float) -> float:
        """Take tokens for one retry: seconds it has to wait beyond its own delay."""
        if self._tokens >= self.COST:
            self._tokens -= self.COST
            return 0.0
        self._next = max(self._next, now) + 1.0 / self.RATE
        return self._next - now
