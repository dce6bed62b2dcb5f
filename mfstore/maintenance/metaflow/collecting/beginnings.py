"""When runs began, where neither their id nor any metadata tells: by what their first attempt wrote down.

The times of objects tell it too, until somebody copies the bucket: then all runs seem to have begun on one day, in any
order.
"""

from __future__ import annotations

import json

EARLIEST = 1420070400.0
"""2015: before there was Metaflow. A clock that said less was none."""


def time_of_attempt(data: bytes) -> float | None:
    """The time in ``attempt.json``; None when there is none that can be true."""
    try:
        moment = float(json.loads(data)["time"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return moment if EARLIEST <= moment < float("inf") else None
