"""Faults of the network and of the server behind it: which request one hits."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mfstore.testing.actions import Action
from mfstore.testing.exchange import Exchange, draw, identity


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFault:
    """An action, and the requests it happens to: all that match, unless ``nth`` and its like say otherwise.

    Only the first fault of a plan that wants a request gets it, and a fault does not count requests that others got:
    the plan ``[NetworkFault(action=a, nth=1), NetworkFault(action=b, nth=1)]`` gives the first request to a, the
    second to b. An action that happens to connections (``ResetConnect``, ``StallConnect``) counts connections, and the
    matchers do not apply.
    """

    action: Action
    """What happens: one of ``mfstore.testing.actions``."""
    method: str | None = None
    """``GET`` and so on."""
    path: str | None = None
    """A regular expression, searched for in the path."""
    query: str | None = None
    """A regular expression, searched for in the query string."""
    when: Callable[[Exchange], bool] | None = None
    """Asked with the request's head read, in the proxy's thread."""
    nth: int | None = None
    """Only the n-th match, counting from 1."""
    every: int | None = None
    """Every n-th match."""
    count: int | None = None
    """So many times, then never again."""
    probability: float | None = None
    """Drawn from the proxy's seed and from the request itself (method, key, range, and how often it was seen before),
    so that neither the order in which threads get to send nor a new bucket name changes which requests are hit."""
    during: float | None = None
    """Only within so many seconds of the first match."""

    def matches(self, exchange: Exchange) -> bool:
        """Whether the request is of the kind this is for."""
        return (
            (self.method is None or self.method == exchange.method)
            and (self.path is None or re.search(self.path, exchange.path) is not None)
            and (self.query is None or re.search(self.query, exchange.query) is not None)
            and self.action.applies(exchange)
            and (self.when is None or self.when(exchange))
        )


@dataclass(slots=True)
class _Count:
    matched: int = 0
    fired: int = 0
    since: float = 0.0
    seen: dict[str, int] = field(default_factory=dict)


class FaultPlan:
    """The faults of a proxy and how often each has matched. Threads may share it."""

    def __init__(self, faults: Iterable[NetworkFault], seed: int) -> None:
        self.faults = tuple(faults)
        self.seed = seed
        self._counts = [_Count() for _ in self.faults]
        self._lock = threading.Lock()
        self.records = any(fault.action.wants_record for fault in self.faults)

    def choose(self, exchange: Exchange | None) -> NetworkFault | None:
        """The fault for this request, or for a new connection if there is none yet."""
        with self._lock:
            for number, (fault, count) in enumerate(zip(self.faults, self._counts, strict=True)):
                if fault.action.connects != (exchange is None) or (exchange and not fault.matches(exchange)):
                    continue
                if self._fires(number, fault, count, exchange):
                    count.fired += 1
                    return fault
        return None

    def _fires(self, number: int, fault: NetworkFault, count: _Count, exchange: Exchange | None) -> bool:
        count.matched += 1
        count.since = count.since or time.monotonic()
        if (fault.nth and count.matched != fault.nth) or (fault.every and count.matched % fault.every):
            return False
        if fault.count is not None and count.fired >= fault.count:
            return False
        if fault.during is not None and time.monotonic() - count.since > fault.during:
            return False
        if fault.probability is None:
            return True
        same = identity(exchange) if exchange else ""
        count.seen[same] = turn = count.seen.get(same, 0) + 1
        return draw(self.seed, number, same, turn) < fault.probability
