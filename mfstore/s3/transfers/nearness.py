"""How many long bodies flow at once from a server that is near: mostly the first few connections fill what this machine
can take, and each more costs it CPU."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mfstore.records import dataclass, field

NEAR_SECONDS = 0.005
"""A server whose first byte comes within this is near. On loopback it takes 0.3 ms (2 to 40 on a busy machine), S3
takes 30 ms in its own region (scheduler.py). Where it takes longer, all is as if nothing had been measured."""
THREAD_BANDWIDTH = 0.625e9
"""Bytes per second to be filled for each thread that moves bytes: 10 Gbit/s for two, as is assumed of the network. One
takes 1 to 2 GB/s at most."""
MEASURED_BYTES = 4 << 20
"""Shorter bodies say little about a connection's rate. So much also may lie in the two ends' sockets of a body that had
to wait (Linux: ``tcp_wmem`` allows 4 MiB), and comes at once: it is not counted."""
SLOWED, SLOWED_BODIES = 4, 16
"""When so many bodies on end come at less than a quarter of the best rate, that is forgotten. To connections that share
what the machine takes, as many as the rule opens, this happens where that is less than a quarter of what is to be
filled."""


@dataclass(slots=True)
class Nearness:
    """What has been measured of the server of one bucket. Threads that share it may each lose what another measures,
    which is measured again."""

    threads: int = 2
    first_byte: float = math.inf
    """Seconds: the shortest so far."""
    rate: float = 0.0
    """Bytes per second of one connection: the best so far, 0 until a body has come."""
    _slower: int = 0
    _best_of_slower: float = 0.0

    def answered(self, seconds: float) -> None:
        """The first byte of an answer came after so long."""
        self.first_byte = min(self.first_byte, seconds)

    def brought(self, size: int, seconds: float) -> None:
        """One connection had ``size`` bytes under way for so long."""
        if size < MEASURED_BYTES:
            return
        rate = size / max(seconds, 1e-6)
        if rate * SLOWED >= self.rate:
            self.rate = max(self.rate, rate)
            self._slower, self._best_of_slower = 0, 0.0
            return
        self._slower += 1
        self._best_of_slower = max(self._best_of_slower, rate)
        if self._slower == SLOWED_BODIES:
            self.rate, self._slower, self._best_of_slower = self._best_of_slower, 0, 0.0

    def enough(self) -> int | None:
        """How many long bodies side by side are enough. None: as many as there may be, for it is not near."""
        if self.first_byte > NEAR_SECONDS:
            return None
        if not self.rate:
            return self.threads
        return max(self.threads, math.ceil(self.threads * THREAD_BANDWIDTH / self.rate))


@dataclass(slots=True)
class Nearby:
    """Of one client, by bucket: they may be in different places."""

    threads: int = 2
    known: dict[str, Nearness] = field(default_factory=dict)

    MOST = 1000
    """Buckets that are remembered."""

    def of(self, bucket: str) -> Nearness:
        """What is known of its server."""
        found = self.known.get(bucket)
        if found is None:
            if len(self.known) >= self.MOST:
                self.known.clear()
            found = self.known[bucket] = Nearness(self.threads)
        return found

    def enough(self, buckets: Iterable[str]) -> int | None:
        """``Nearness.enough`` for bodies from all of these together."""
        most = 0
        for bucket in set(buckets):
            enough = self.of(bucket).enough()
            if enough is None:
                return None
            most = max(most, enough)
        return most

    def measured(self, buckets: Iterable[str]) -> bool:
        """Whether the rates of all of them are known."""
        return all(self.of(bucket).rate for bucket in set(buckets))
