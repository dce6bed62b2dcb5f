"""Months, as usage is told by them."""

from __future__ import annotations

import time


def month_of(moment: float) -> str | None:
    """The month of a time in seconds since the epoch, in UTC: ``2026-11``. None for one that no calendar has."""
    try:
        date = time.gmtime(moment)
    except (OverflowError, ValueError, OSError):
        return None
    return f"{date.tm_year:04}-{date.tm_mon:02}"
