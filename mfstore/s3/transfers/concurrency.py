"""How many calls to have in flight. Pure: told what happened and when."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_BYTE = 0.030
PER_BYTE = 0.020 / (1 << 20)
"""Seconds S3 takes to answer and per byte of one connection: 50 MB/s. Durner, Leis, Neumann, "Exploiting Cloud Object
Storage for High-Performance Analytics", VLDB 2023, measured on AWS; their source uses these constants."""
BANDWIDTH = 1.25e9
"""Bytes per second assumed of a network nobody described: 10 Gbit/s, what an ordinary cloud machine has or bursts
to."""
LOWEST, HIGHEST = 8, 256
"""5 500 GET/s is what one S3 prefix gives; at 45 ms each that is 250 in flight."""
STEP = 8
GAIN = 1.03
CUT = 0.7
"""Additive increase while goodput grows by more than 3 %, multiplicative decrease when the service says to slow
down."""


def formula(size: float, bandwidth: float = BANDWIDTH) -> int:
    """Calls of ``size`` bytes in flight that fill ``bandwidth``: N = B (L + s d) / s, between LOWEST and HIGHEST."""
    size = max(size, 1.0)
    return int(max(LOWEST, min(HIGHEST, bandwidth * (FIRST_BYTE + size * PER_BYTE) / size)))


@dataclass(slots=True)
class Limiter:
    """The number of calls that may be in flight, ``limit``. With ``fixed`` only throttling changes it."""

    size: float = 1 << 20
    """Mean bytes per call; follows what is seen."""
    bandwidth: float = BANDWIDTH
    fixed: int | None = None
    highest: int = HIGHEST
    limit: float = 0.0
    ceiling: float = 0.0
    throttled: int = 0
    _cut_at: float = -1.0
    _window_start: float = -1.0
    _window_bytes: int = 0
    _window_calls: int = 0
    _goodput: float = 0.0
    _latency: float = 0.1

    def __post_init__(self) -> None:
        self.ceiling = float(self.fixed or min(self.highest, formula(self.size, self.bandwidth)))
        self.limit = self.ceiling

    def succeeded(self, now: float, size: int, seconds: float) -> None:
        """A call moved ``size`` bytes in ``seconds``."""
        self._latency += 0.1 * (seconds - self._latency)
        if self.fixed is None:
            self.size += 0.05 * (size - self.size)
            self._window_bytes += size
            self._window_calls += 1
            if self._window_start < 0:
                self._window_start = now
            elif now - self._window_start >= 2 * self._latency and self._window_calls >= self.limit:
                self._judge(now)
        if self.limit < self.ceiling:
            self.limit = min(self.ceiling, self.limit + STEP / self.limit)

    def _judge(self, now: float) -> None:
        """End of a window of at least two round trips: is more in flight still bringing more?"""
        goodput = (self._window_bytes + self._window_calls) / (now - self._window_start)
        floor = float(min(self.highest, formula(self.size, self.bandwidth)))
        if goodput > self._goodput * GAIN:
            self.ceiling = min(float(self.highest), max(self.ceiling, floor) + STEP)
        else:
            self.ceiling = max(self.ceiling, floor)
        self._goodput = max(goodput, self._goodput * 0.98)
        self._window_start, self._window_bytes, self._window_calls = now, 0, 0

    def slow_down(self, now: float) -> None:
        """The service throttled a call. Calls sent before the last cut say nothing new, so one cut per round trip."""
        self.throttled += 1
        if now - self._cut_at > self._latency:
            self.limit = max(1.0, self.limit * CUT)
            self._cut_at = now
