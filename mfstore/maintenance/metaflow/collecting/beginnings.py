"""When runs began, where neither their id nor any metadata tells: by what their first attempt wrote down.

The times of objects tell it too, until somebody copies the bucket: then all runs seem to have begun on one day, in any
order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mfstore.errors import MfstoreError
from mfstore.maintenance.metaflow.references import read_small

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.collecting.listed_runs import ListedRun
    from mfstore.maintenance.metaflow.collecting.policy import Run
    from mfstore.maintenance.metaflow.root import Root

EARLIEST = 1420070400.0
"""2015: before there was Metaflow. A clock that said less was none."""


def read_beginnings(root: Root, listed: Mapping[Run, ListedRun], runs: Iterable[Run]) -> Mapping[Run, float]:
    """When each of these runs began, in seconds since the epoch, on the clock of the machine that ran its first
    attempt. One small file is read of each; runs of which it cannot be read are not among the result."""
    firsts = ((run, listed[run].first) for run in runs)
    wanted = ((run, info) for run, info in firsts if info is not None)
    found: dict[Run, float] = {}
    for run, data in read_small(root, wanted):
        moment = None if isinstance(data, MfstoreError) else time_of_attempt(data)
        if moment is not None:
            found[run] = moment
    return found


def time_of_attempt(data: bytes) -> float | None:
    """The time in ``attempt.json``; None when there is none that can be true."""
    try:
        moment = float(json.loads(data)["time"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return moment if EARLIEST <= moment < float("inf") else None
