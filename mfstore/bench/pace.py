"""Who begins when: closed and open loops of operations, and what became of a schedule.

In a closed loop a thread begins its next operation when the last one has ended. A service that stalls is then asked for
less, and the operations that would have met the stall are never counted: coordinated omission (Gil Tene). In an open
loop operations begin by a schedule. One that could not begin in time because all threads hung has waited, and its
response time counts from when it should have begun.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from queue import SimpleQueue
from time import monotonic
from typing import NamedTuple

from mfstore.bench.measure import Row, Spread, spread

AFTER = 1.0
"""Seconds after the end of a schedule in which what waits may still begin: a thread may be woken a little late."""
MISSED = 0.01
"""Of the operations of a schedule: when more of them wait at its end, or fail, the rate was not reached."""
NOT_BEGUN = "not begun: at its time no thread was free, nor until the end of the schedule"
FEW = 2
"""So many may wait at the end of any schedule: those whose time has only just come."""


class Event(NamedTuple):
    """One operation of a loop."""

    operation: str
    row: Row


Perform = Callable[[str, int], Event]
"""Carries out an operation, the n-th. It may have become another."""


class Clock:
    """Of the machine. Tests have another."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def now(self) -> float:
        """As ``time.monotonic``."""
        return monotonic()

    def sleep_until(self, when: float) -> None:
        """Returns then, or when ``stop`` is called."""
        if (wait := when - monotonic()) > 0:
            self._stopped.wait(wait)

    def stop(self) -> None:
        """Wake all who sleep, now and later."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopped.is_set()


class Loop:
    """Operations, carried out by up to ``threads`` threads. ``times``: of an open loop, when each begins, from the
    start of the loop. After ``seconds`` none begins any more."""

    def __init__(
        self, operations: Iterator[str], total: int, perform: Perform, *, threads: int, seconds: float,
        times: Sequence[float] | None = None, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self._perform = perform
        self._clock = clock or Clock()
        self._limit = threads
        self._open = times is not None
        self.begin = self._clock.now()
        self._until = self.begin + seconds + (AFTER if self._open else 0.0)
        self._turns = enumerate(zip(operations, repeat(None, total) if times is None else times, strict=False))
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._late: list[tuple[int, str, float | None]] = []
        self._found: SimpleQueue[Event | BaseException | None] = SimpleQueue()

    def events(self) -> Generator[Event, None, None]:
        """Carries them out: what was done, in the order of the ends. Closed early it begins no more, and waits for
        those under way."""
        try:
            for _ in range(1 if self._open else self._limit):
                self._start()
            left = 0
            while left < len(self._threads):
                found = self._found.get()
                if found is None:
                    left += 1
                elif isinstance(found, BaseException):
                    raise found
                else:
                    yield found
        finally:
            self._clock.stop()
            for thread in self._threads:
                if thread.is_alive():
                    thread.join()

    def serve(self, tell: Callable[[Event], None]) -> None:
        """What each thread does, until nothing is left to begin."""
        while not self._clock.stopped:
            with self._lock:
                found = next(self._turns, None)
                self._idle += 1
            if found is None:
                return
            number, (operation, offset) = found
            if offset is not None:
                self._clock.sleep_until(self.begin + offset)
            begin = self._clock.now()
            if begin > self._until or self._clock.stopped:
                self._late.append((number, operation, offset))
                return
            self._one_less_idle()
            done, row = self._perform(operation, number)
            if not row.seconds:  # of a DeleteObjects nobody else has a time
                row = row._replace(start=begin, seconds=self._clock.now() - begin)
            tell(Event(done, row if offset is None else row._replace(scheduled=self.begin + offset)))

    def left(self) -> list[Event]:
        """Of a schedule that has ended, the operations that never began: failures, that have waited until now."""
        now = self._clock.now()
        return [
            Event(operation, Row(number, now, 0.0, None, 0, 0, 0, NOT_BEGUN, self.begin + offset))
            for number, operation, offset in [*self._late, *((number, *rest) for number, rest in self._turns)]
            if offset is not None
        ]

    def _one_less_idle(self) -> None:
        """In an open loop somebody has to wait for the next one's time while this one is carried out."""
        with self._lock:
            self._idle -= 1
            alone = self._open and self._idle <= 0 and len(self._threads) < self._limit
            if alone and self._threads and not self._clock.stopped:
                self._start()

    def _start(self) -> None:
        def run() -> None:
            try:
                self.serve(self._found.put)
            except BaseException as error:
                self._found.put(error)
            finally:
                self._found.put(None)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()


@dataclass(frozen=True, slots=True)
class Pace:
    """What became of the schedule of an open loop."""

    rate: float
    """Operations per second, as asked."""
    arrivals: str
    scheduled: int
    done: int
    failed: int
    not_begun: int
    """Their time came, and no thread was free until the end."""
    waiting: int
    """Most operations at once whose time had come and that had not begun."""
    waiting_at_end: int
    """Of the schedule."""
    under_way: int
    """Most operations at once that had begun and not ended."""
    reached: bool
    lateness: Spread
    """Seconds from when operations should have begun to when they did: of this machine, while threads are free."""
    service: Spread
    """Seconds from when operations really began to their ends, beside ``Cell.latency``, from when they should have."""


def pace(rate: float, arrivals: str, end: float, rows: Sequence[Row]) -> Pace:
    """The figures of a schedule that ended at ``end``, on the clock of the rows: one for each operation of it, those
    that never began too."""
    begun = [row for row in rows if row.error != NOT_BEGUN]
    times = sorted(row.scheduled for row in rows if row.scheduled is not None)
    starts = sorted(row.start for row in begun)
    failed = sum(row.error is not None for row in begun)
    # An operation may begin before its time by the clock's last digit: never fewer than none.
    waiting_at_end = max(bisect_right(times, end) - bisect_right(starts, end), 0)
    return Pace(
        rate, arrivals, len(rows), len(begun) - failed, failed, len(rows) - len(begun), _most(times, starts),
        waiting_at_end, _most(starts, sorted(row.end for row in begun)),
        waiting_at_end + failed <= max(FEW, MISSED * len(rows)),
        spread([max(row.start - row.scheduled, 0.0) for row in begun if row.scheduled is not None]),
        spread([row.seconds for row in begun if row.error is None]),
    )  # fmt: skip


def responses(rows: Sequence[Row]) -> Spread:
    """How long operations took, from when they should have begun. One that never began counts with the time it waited:
    to leave it out would be to omit the worst."""
    return spread([row.response for row in rows if row.error is None or row.error == NOT_BEGUN])


def _most(come: Sequence[float], gone: Sequence[float]) -> int:
    """Most of what had come and not gone at once; both are sorted."""
    most = left = 0
    for here, when in enumerate(come, 1):
        while left < len(gone) and gone[left] <= when:
            left += 1
        most = max(most, here - left)
    return most
