"""Counts what a bulk client really sends: the requests by operation, their statuses, and how many are under way."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from mfstore.s3.calls import CANCELLED, Call, FileRange, Plain, Reply
from mfstore.s3.engines.interface import Adopt, Channel, Engine, Landed, Lane, Taken

if TYPE_CHECKING:
    from mfstore.s3.bulk.client import BulkClient

BIN_SECONDS = 0.01


@dataclass(slots=True)
class Flights:
    """How many requests were under way, over time."""

    begin: float = field(default_factory=monotonic)
    number: int = 0
    """Now."""
    most: int = 0
    bins: list[float] = field(default_factory=lambda: [0.0])
    """Of each ``BIN_SECONDS`` since ``begin``, the requests under way times the seconds they were."""
    _last: float = field(default_factory=monotonic)

    def change(self, by: int, now: float | None = None) -> None:
        """So many more, or fewer, are under way."""
        now = monotonic() if now is None else now
        at = self._last
        while at < now:
            slot = int((at - self.begin) / BIN_SECONDS + 1e-9)
            while len(self.bins) <= slot:
                self.bins.append(0.0)
            end = min(now, self.begin + (slot + 1) * BIN_SECONDS)
            self.bins[slot] += self.number * (end - at)
            at = end
        self._last = max(self._last, now)
        self.number += by
        self.most = max(self.most, self.number)

    def mean(self, begin: float, end: float) -> float:
        """Between two moments (time.monotonic()) before the last change, to the nearest bin."""
        first = max(round((begin - self.begin) / BIN_SECONDS), 0)
        last = max(round((end - self.begin) / BIN_SECONDS), 0)
        return sum(self.bins[first:last]) / ((last - first) * BIN_SECONDS) if last > first else 0.0


@dataclass(slots=True)
class Traffic:
    """Requests since the last ``clear``."""

    requests: Counter[str] = field(default_factory=Counter)
    """By botocore's name of the operation, each try counted."""
    retries: int = 0
    """Of them, tries after the first, and second requests for what was late."""
    throttled: int = 0
    """Answers 503 and 429."""
    failures: int = 0
    """Tries that brought another 5xx, or no answer."""
    flights: Flights = field(default_factory=Flights)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    """Operations of a mix are in several threads."""

    def clear(self) -> None:
        """Begin anew; what is under way stays so."""
        with self.lock:
            self.requests.clear()
            self.retries = self.throttled = self.failures = 0
            under_way = self.flights.number
            self.flights = Flights(number=under_way, most=under_way)

    def until_now(self) -> Traffic:
        """A copy that counts no further."""
        self.under_way(0)
        found = copy(self)
        found.requests = self.requests.copy()
        found.flights = copy(self.flights)
        found.flights.bins = [*self.flights.bins]
        return found

    def under_way(self, more: int) -> None:
        """So many more requests than before, or fewer."""
        with self.lock:
            self.flights.change(more)

    def count(self, operation: str, number: int) -> None:
        """So many requests went out."""
        with self.lock:
            self.requests[operation] += number

    def since(self, earlier: Traffic) -> Traffic:
        """What has come since a copy was made."""
        return Traffic(
            self.requests - earlier.requests, self.retries - earlier.retries, self.throttled - earlier.throttled,
            self.failures - earlier.failures, self.flights,
        )  # fmt: skip

    def sent(self, call: Call) -> None:
        """A request goes out."""
        # A hedge is a call of its own whose first try nobody counted; a control plane's question is nobody's.
        again = call.tag is not None and call.tag.attempts != 1
        with self.lock:
            self.requests[call.operation] += 1
            self.retries += again

    def came(self, reply: Reply) -> None:
        """The end of a request."""
        throttled = reply.status in (429, 503)
        failed = reply.status >= 500 or (reply.failure is not None and reply.failure != CANCELLED)
        if throttled or failed:
            with self.lock:
                self.throttled += throttled
                self.failures += failed and not throttled


def record(client: BulkClient, traffic: Traffic | None = None) -> Traffic:
    """Count all that ``client`` does from now on, in addition to what ``traffic`` has."""
    traffic = Traffic() if traffic is None else traffic
    client.transfers.engine = _Recorder(client.engine, traffic)
    return traffic


class _Recorder(Engine):
    def __init__(self, inner: Engine, traffic: Traffic) -> None:
        self.name = inner.name
        self.threads = inner.threads
        self._inner = inner
        self._traffic = traffic

    def channel(self) -> Channel:
        return _Recording(self._inner.channel(), self._traffic)

    def close(self) -> None:
        self._inner.close()


class _Recording(Channel):
    def __init__(self, inner: Channel, traffic: Traffic) -> None:
        self._inner = inner
        self._traffic = traffic
        self._lane: _RecordedLane | None = None
        self._open: set[int] = set()
        """Calls under way."""
        self._noted = 0

    def lane(self, plain: Plain, first_byte: float, stall: float, outcome: type, adopt: Adopt) -> Lane | None:
        found = self._inner.lane(plain, first_byte, stall, outcome, adopt)
        if found is None:
            return None
        self._lane = _RecordedLane(found, plain.operation, self)
        return self._lane

    def note(self) -> None:
        """Tell how many are under way now."""
        number = len(self._open) + (self._lane.flying if self._lane is not None else 0)
        if number != self._noted:
            self._traffic.under_way(number - self._noted)
            self._noted = number

    def count(self, operation: str, number: int) -> None:
        """So many plain requests went out."""
        self._traffic.count(operation, number)
        self.note()

    def submit(self, calls: Sequence[Call]) -> None:
        self._inner.submit(calls)
        for call in calls:
            self._traffic.sent(call)
            self._open.add(id(call))
        self.note()

    def poll(self, timeout: float) -> list[Reply]:
        replies = self._inner.poll(timeout)
        for reply in replies:
            if reply.announced:
                self._open.add(id(reply.call))  # it may have been a plain request until now
            else:
                self._open.discard(id(reply.call))
                self._traffic.came(reply)
        self.note()
        return replies

    def resume(
        self, call: Call, target: memoryview | FileRange, stop: int | None = None, skip: int = 0
    ) -> None:  # fmt: skip
        self._inner.resume(call, target, stop, skip)

    def cancel(self, call: Call) -> None:
        self._inner.cancel(call)

    def flowing(self) -> int:
        return self._inner.flowing()

    def fileno(self) -> int:
        return self._inner.fileno()

    def close(self) -> None:
        self._inner.close()
        self._open.clear()
        self._lane = None
        self.note()


class _RecordedLane(Lane):
    """Lets everything through, and has what it takes counted."""

    def __init__(self, inner: Lane, operation: str, channel: _Recording) -> None:
        self._inner = inner
        self._operation = operation
        self._channel = channel

    @property
    def flying(self) -> int:
        return self._inner.flying

    def oldest(self) -> int | None:
        return self._inner.oldest()

    def ready(self) -> bool:
        return self._inner.ready()

    def take(
        self, items: Iterator[tuple[int, Any]], first: tuple[int, Any] | None, most: int, memory: int, weight: int,
        alone: bool, now: float,
    ) -> Taken:  # fmt: skip
        taken = self._inner.take(items, first, most, memory, weight, alone, now)
        self._channel.count(self._operation, taken.count - len(taken.unsent))
        return taken

    def landed(self) -> Landed | None:
        return self._inner.landed()

    def adopt_late(self, before: float) -> None:
        self._inner.adopt_late(before)

    def end(self) -> None:
        self._inner.end()
