"""The rows of one measurement as they come, with what it used. One that lasts as long as it is told to has a window:
what ends before it warms up, and what ends after it was only waited for; neither is in the figures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from time import monotonic

from mfstore.bench.measure import Meter, Row, Steadiness, Usage, thirds
from mfstore.bench.movers import Rows
from mfstore.bench.recording import Traffic

WARM_UP_SHARE, LONGEST_WARM_UP = 0.2, 10.0
"""Of a duration, and seconds: connections, the service's caches and mfstore's number of requests at once have settled
by then."""


@dataclass(frozen=True, slots=True)
class Lasting:
    """Seconds."""

    duration: float
    """Measured."""
    warm_up: float
    """Before that."""

    @property
    def whole(self) -> float:
        """After so many no more begins."""
        return self.warm_up + self.duration


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was measured."""

    rows: list[Row]
    begin: float
    """On the clock of ``time.monotonic``."""
    usage: Usage
    traffic: Traffic
    steadiness: Steadiness | None = None


def gather(rows: Rows, traffic: Traffic | None, lasting: Lasting | None, came: Callable[[], None]) -> Gathered:
    """Consume the rows, and call ``came`` for each. Where nothing ends within the window all of it counts, and nobody
    knows whether it was steady."""
    traffic = traffic or Traffic()
    traffic.clear()
    meter, begin = Meter(), monotonic()  # in this order no row ends after what the meter counts
    opens, closes = (begin + lasting.warm_up, begin + lasting.whole) if lasting is not None else (begin, begin)
    opened: tuple[Meter, float, Traffic] | None = None
    closed: tuple[Usage, Traffic] | None = None
    found: list[Row] = []
    # Closed at once when this is interrupted: no thread still writes when the scratch prefix is removed.
    with closing(rows):
        for row in rows:
            found.append(row)
            came()
            if lasting is None:
                continue
            if opened is None and row.end >= opens:
                opened = Meter(), monotonic(), traffic.until_now()
            if opened is not None and closed is None and row.end > closes:
                closed = opened[0].read(), traffic.until_now().since(opened[2])
    usage, sent = meter.read(), traffic.until_now()
    if opened is None:
        return Gathered(found, begin, usage, sent, None if lasting is None else Steadiness(0.0, ()))
    inner, since, before = opened
    used, moved = closed or (inner.read(), sent.since(before))
    within = [row for row in found if since < row.end <= since + used.wall]
    if not within:
        return Gathered(found, begin, usage, sent, Steadiness(0.0, ()))
    return Gathered(within, since, used, moved, Steadiness(since - begin, thirds(within, since, since + used.wall)))
