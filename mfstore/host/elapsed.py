"""How long something took, when underestimating it would lose data."""

from __future__ import annotations

import time


def moment() -> tuple[float, float]:
    """Now, for ``since``."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)), time.time()


def since(then: tuple[float, float]) -> float:
    """Seconds since a moment. Counts the time a laptop slept and, as far as the wall clock tells, a virtual machine: a
    writer may only ever think too much time has passed."""
    now = moment()
    return max(now[0] - then[0], now[1] - then[1])
