"""What a reply calls for: nothing more, another try of some kind, or an error. Pure."""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING

from mfstore.s3.calls import CONNECT, DNS, FIRST_BYTE, PROTOCOL, PROXY, RESET, STALL, TRUNCATED

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


PASSING = (Verdict.TRANSIENT, Verdict.THROTTLED, Verdict.FREE)
"""What the same call, made again later, may not meet."""

_RETRIED_FAILURES = {
    CONNECT, DNS, RESET, TRUNCATED, FIRST_BYTE, STALL, PROTOCOL,
    PROXY,
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
        if reply.failure == RESET and reply.reused and not reply.first_byte:
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
