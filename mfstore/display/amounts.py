"""Numbers as people say them: bytes, counts, durations, dates and ages."""

from __future__ import annotations

import time

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR
_AGES = (
    ("second", 1, 2 * MINUTE),
    ("minute", MINUTE, 2 * HOUR),
    ("hour", HOUR, 2 * DAY),
    ("day", DAY, 60 * DAY),
    ("month", 30.44 * DAY, 730 * DAY),
    ("year", 365.25 * DAY, float("inf")),
)
"""Each unit, how long it is, and below which age it is used: two of the next one, so that it is never off by half."""
JUST_NOW = 5
"""Seconds within which nobody counts: clocks of two machines differ by as much."""


def size(count: float) -> str:
    """Bytes, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < (999.5 if unit == "B" else 999.95) or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def count(number: int, noun: str, plural: str = "") -> str:
    """A number of things: ``1 ref``, ``12,000 refs``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def share(part: float) -> str:
    """A part of a whole, as ``30%``."""
    return f"{part:.0%}" if part >= 0.1 or not part else f"{100 * part:.2g}%"


def duration(seconds: float) -> str:
    """How long something takes: ``6.1 µs``, ``0.4 ms``, ``12.3 s``, ``2 min 5 s``, ``24 h``."""
    if 0 < seconds < 0.0001:
        return f"{seconds * 1e6:.1f} \N{MICRO SIGN}s"
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < HOUR:
        return _two(whole // MINUTE, "min", whole % MINUTE, "s")
    whole = round(seconds / MINUTE)
    if whole < 2 * 24 * 60:
        return _two(whole // 60, "h", whole % 60, "min")
    return f"{seconds / DAY:.0f} days"


def _two(first: int, unit: str, rest: int, smaller: str) -> str:
    return f"{first} {unit} {rest} {smaller}" if rest else f"{first} {unit}"


def date(moment: float) -> str:
    """A time in seconds since the epoch, to the minute, in local time."""
    return _told("%Y-%m-%d %H:%M", moment)


def time_of_day(moment: float) -> str:
    """The same to the second, as a name takes it: ``models/churn@2026-11-30 14:00:25``."""
    return _told("%Y-%m-%d %H:%M:%S", moment)


def exact_date(moment: float) -> str:
    """The same to the second, with the zone."""
    return _told("%Y-%m-%d %H:%M:%S %z", moment)


def age(moment: float, now: float | None = None) -> str:
    """How long ago a time was: ``just now``, ``5 minutes ago``, ``in 3 hours``.

    Args:
        moment: Seconds since the epoch.
        now: The same of the present; by default this machine's clock.
    """
    past = (time.time() if now is None else now) - moment
    if abs(past) < JUST_NOW:
        return "just now"
    for unit, length, below in _AGES:
        if abs(past) < below:
            number = count(int(abs(past) / length), unit)
            return f"{number} ago" if past > 0 else f"in {number}"
    return date(moment)  # not a number


def _told(form: str, moment: float) -> str:
    try:
        return time.strftime(form, time.localtime(moment))
    except (OverflowError, ValueError, OSError):
        return f"{moment} s"  # no year that a calendar has: what wrote it had no clock
