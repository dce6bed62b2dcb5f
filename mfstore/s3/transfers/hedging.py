"""When a request is late enough to be asked a second time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

HEDGE_SHARE = 0.05
HEDGE_FLOOR = 0.2
"""The last 5 % of small requests are asked for twice when they take longer than three times the 95th percentile, and
at least 0.2 s: S3 answers 1 in 1000 requests after more than 118 ms, a second connection usually at once."""


@dataclass(slots=True)
class Latencies:
    """The last few hundred durations of small calls."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=200))

    def slow(self) -> float:
        """What counts as slow; infinite without evidence."""
        if len(self.recent) < 20:
            return float("inf")
        ordered = sorted(self.recent)
        return max(HEDGE_FLOOR, 3 * ordered[int(len(ordered) * 0.95)])
