"""Thinning out by the calendar, as backups are: the last of each hour, day, week, month or year. Pure.

Hours and days are those of UTC and weeks begin on Monday, so that every machine decides the same.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Mapping

PERIODS = ("hourly", "daily", "weekly", "monthly", "yearly")
NOUNS = {"hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month", "yearly": "year"}
_DAY = 86400
_FIRST_MONDAY = 4
"""Days from the epoch, a Thursday."""


def period_of(kind: str, moment: float) -> Hashable:
    """Which hour, day, week, month or year a time in seconds since the epoch lies in. A time that no calendar has lies
    in a period of its own."""
    try:
        if kind == "hourly":
            return moment // 3600
        if kind == "daily":
            return moment // _DAY
        if kind == "weekly":
            return (moment // _DAY - _FIRST_MONDAY) // 7
        date = time.gmtime(moment)
        return (date.tm_year, date.tm_mon) if kind == "monthly" else date.tm_year
    except (OverflowError, ValueError, OSError):
        return repr(moment)


def last_of_periods(times: Iterable[float], wanted: Mapping[str, int | None]) -> dict[int, str]:
    """Which of these times, newest first, are the last of a period: by their number, the first kind that says so.

    Args:
        times: Seconds since the epoch, newest first.
        wanted: For each of ``PERIODS`` of how many of the latest ones that have a time; None: of none.
    """
    moments = list(times)
    found: dict[int, str] = {}
    for kind in PERIODS:
        left = wanted.get(kind) or 0
        before: Hashable = None
        for number, moment in enumerate(moments):
            if not left:
                break
            period = period_of(kind, moment)
            if period != before:
                before, left = period, left - 1
                found.setdefault(number, kind)
    return found
