"""From rows (one per object or bundle) to numbers. Pure, but for the clocks of the process.

Quantiles interpolate linearly between the two nearest rows (type 7 of Hyndman and Fan, 1996, numpy's default). One that
fewer than one row would lie beyond is not given: p99.9 needs 1000 rows. Quantiles are always of rows, never of other
quantiles or averages.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from math import floor
from pathlib import Path
from time import perf_counter, thread_time
from typing import NamedTuple

from mfstore.host.control_group import ControlGroup, GroupCounts, control_group

NEVER_HELD = GroupCounts()
STEADY = 0.10
"""Thirds of a measurement whose rates all lie within so much of their mean are called steady."""


class Row(NamedTuple):
    """One object or bundle that was moved."""

    number: int
    """Of the object."""
    start: float
    """Seconds on the clock of ``time.monotonic``."""
    seconds: float
    """From its first try to its end."""
    first_byte: float | None
    """Seconds from its last try to the first byte of the answer; None where nobody knows."""
    size: int
    """Bytes moved."""
    attempts: int
    verified: int
    """Bytes that were compared with what they have to be."""
    error: str | None
    scheduled: float | None = None
    """Of an open loop: when it should have begun, on the same clock as ``start``."""

    @property
    def end(self) -> float:
        """On the same clock as ``start``."""
        return self.start + self.seconds

    @property
    def response(self) -> float:
        """Seconds from when it should have begun to its end; in a closed loop, from when it began."""
        return self.end - (self.start if self.scheduled is None else self.scheduled)


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution, in seconds. None: too few rows."""

    count: int
    p50: float | None
    p90: float | None
    p99: float | None
    p999: float | None
    max: float | None
    curve: tuple[float, ...]
    """The quantiles 0, 1, …, 100 per cent, for plots."""


@dataclass(frozen=True, slots=True)
class Slices:
    """Throughput over time: bytes and objects of each slice of the run, the last, incomplete one left out."""

    seconds: float
    """Of one slice: 1, or 0.1 when the run is shorter than 3 s."""
    bytes: tuple[float, ...]
    """Per second. Of an object, the bytes are taken to be spread evenly between its start and its end."""
    objects: tuple[float, ...]
    """Per second, by their ends."""


@dataclass(frozen=True, slots=True)
class Tail:
    """How long the last ones took beyond the rest."""

    first_done: float
    """Seconds until there was nothing left to start and the first connection became idle."""
    last_done: float
    """Seconds until the last object."""

    @property
    def share(self) -> float:
        """Of the whole time, how much was spent waiting for the last ones."""
        return (self.last_done - self.first_done) / self.last_done if self.last_done > 0 else 0.0


@dataclass(frozen=True, slots=True)
class InFlight:
    """How many requests (S3), or else objects, were under way at once."""

    mean: float
    """Of the measured time until there was nothing left to start."""
    most: int
    slices: tuple[float, ...]
    """The mean of each slice of the run."""


@dataclass(frozen=True, slots=True)
class Steadiness:
    """Of a measurement that took as long as it was told to."""

    warm_up: float
    """Seconds before it, which are not in the figures."""
    thirds: tuple[float, ...]
    """Objects per second of each third of it; empty when too few objects ended to say."""

    @property
    def steady(self) -> bool:
        """Whether each third is within ``STEADY`` of their mean."""
        mean = sum(self.thirds) / len(self.thirds) if self.thirds else 0.0
        return mean > 0 and all(abs(rate - mean) <= STEADY * mean for rate in self.thirds)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The quantile of sorted values by linear interpolation."""
    position = share * (len(ordered) - 1)
    below = floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def spread(values: Sequence[float]) -> Spread:
    """The distribution of values."""
    ordered = sorted(values)

    def known(share: float) -> float | None:
        # A relative tolerance, for 1 - 0.9 is a little less than 0.1.
        enough = len(ordered) * (1 - share) > 1 - 1e-6 or (share <= 0.5 and ordered)
        return quantile(ordered, share) if enough else None

    return Spread(
        len(ordered), known(0.5), known(0.9), known(0.99), known(0.999), ordered[-1] if ordered else None,
        tuple(quantile(ordered, step / 100) for step in range(101)) if ordered else (),
    )  # fmt: skip


def slices(rows: Sequence[Row], begin: float, end: float) -> Slices:
    """Throughput over the time from ``begin`` to ``end``."""
    width = 1.0 if end - begin >= 3.0 else 0.1
    if not any(row.seconds for row in rows):
        return Slices(width, (), ())  # moved all at once, nobody knows when
    number = floor((end - begin) / width + 1e-9)
    moved, ended = [0.0] * number, [0] * number
    for row in rows:
        if row.error is not None:
            continue
        start, stop = max(row.start - begin, 0.0), max(row.end - begin, 0.0)
        if (last := floor(stop / width)) < number:
            ended[last] += 1
        if stop <= start:
            if last < number:
                moved[last] += row.size
            continue
        for slot in range(floor(start / width), min(floor(stop / width) + 1, number)):
            overlap = min(stop, (slot + 1) * width) - max(start, slot * width)
            moved[slot] += row.size * max(overlap, 0.0) / (stop - start)
    return Slices(width, tuple(found / width for found in moved), tuple(found / width for found in ended))


def tail(rows: Sequence[Row], begin: float) -> Tail:
    """When the last object had been started, the first end after that; and the last end."""
    if not rows:
        return Tail(0.0, 0.0)
    last_start = max(row.start for row in rows)
    last = max(row.end for row in rows)
    first = min((row.end for row in rows if row.end > last_start), default=last)
    return Tail(max(first - begin, 0.0), max(last - begin, 0.0))


FEWEST_ENDS = 12
"""Objects that have to end in a window for its thirds to say anything: four each."""


def thirds(rows: Sequence[Row], begin: float, end: float) -> tuple[float, ...]:
    """Objects per second of each third of the time from ``begin`` to ``end``, by their ends; empty for too few. A
    listing counts its entries."""
    good = [row for row in rows if row.error is None and begin <= row.end < end]
    if len(good) < FEWEST_ENDS:
        return ()
    width = (end - begin) / 3
    found = [0, 0, 0]
    for row in good:
        found[min(int((row.end - begin) / width), 2)] += 1
    return tuple(number / width for number in found)


def under_way(
    rows: Sequence[Row], begin: float, end: float, width: float, number: int
) -> tuple[float, int, list[float]]:
    """How many objects were under way: their mean from ``begin`` to ``end`` (by Little's law their rate times their
    time), the most at once, and the mean of each of so many slices."""
    parts, total = [0.0] * number, 0.0
    changes: list[tuple[float, int]] = []
    for row in rows:
        changes += ((row.start, 1), (row.end, -1))
        total += max(min(row.end, end) - max(row.start, begin), 0.0)
        start, stop = max(row.start - begin, 0.0), max(row.end - begin, 0.0)
        for slot in range(floor(start / width), min(floor(stop / width) + 1, number)):
            parts[slot] += max(min(stop, (slot + 1) * width) - max(start, slot * width), 0.0) / width
    most = max(accumulate(change for _, change in sorted(changes)), default=0)
    return total / (end - begin) if end > begin else 0.0, most, parts


@dataclass(frozen=True, slots=True)
class Usage:
    """What this process, and children it waited for, used meanwhile."""

    wall: float
    cpu: float
    """Seconds of all cores."""
    machine: float | None
    """Seconds in which the machine's cores did anything at all, this process or another; None where nobody knows. In
    hundredths."""
    rss: int
    """Most bytes of memory at once, since it began (Linux) or since the process did."""
    thread: float | None = None
    """Of ``cpu``, the seconds of the thread that measures: in S3 it is the one that runs the interpreter."""
    waited: float | None = None
    """Seconds, summed up over threads, in which this process could have run and had no CPU; None where the kernel does
    not say."""
    pressure: float | None = None
    """Seconds in which any program of the machine waited for a CPU; None where the kernel does not say."""
    group: GroupCounts = NEVER_HELD
    """How often the limits of the control group held it back."""

    def __add__(self, other: Usage) -> Usage:
        """Of both, one after the other."""
        return Usage(
            self.wall + other.wall, self.cpu + other.cpu, _sum(self.machine, other.machine), max(self.rss, other.rss),
            _sum(self.thread, other.thread), _sum(self.waited, other.waited), _sum(self.pressure, other.pressure),
            self.group + other.group,
        )  # fmt: skip


NOTHING_USED = Usage(0.0, 0.0, 0.0, 0, 0.0, 0.0, 0.0)


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


class Meter:
    """Measures usage from its making to ``read``, which the same thread calls."""

    def __init__(self) -> None:
        # Not Linux, or not allowed: then the peak is that of the whole process.
        with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        self._group = _own_group().counts()
        self._waited, self._pressure = _waited(), _pressure()
        self._begin = perf_counter()
        self._cpu, self._machine, self._thread = _cpu(), _machine(), thread_time()

    def read(self) -> Usage:
        """Up to now."""
        wall, cpu, thread = perf_counter() - self._begin, _cpu() - self._cpu, thread_time() - self._thread
        return Usage(
            wall, cpu, _since(_machine(), self._machine), _peak(), thread, _since(_waited(), self._waited),
            _since(_pressure(), self._pressure), _own_group().counts() - self._group,
        )  # fmt: skip


def _since(now: float | None, before: float | None) -> float | None:
    # Less than before: a thread has ended meanwhile, and its time is no longer told.
    return None if now is None or before is None else max(now - before, 0.0)


@cache
def _own_group() -> ControlGroup:
    return control_group()


def _waited() -> float | None:
    """Of all threads; in nanoseconds in the kernel, after what they ran. One that does not count tells noughts."""
    try:
        if Path("/proc/self/schedstat").read_text("ascii").startswith("0 "):
            return None
        return (
            sum(int(path.read_text("ascii").split()[1]) for path in Path("/proc/self/task").glob("*/schedstat")) / 1e9
        )
    except (OSError, ValueError, IndexError):
        return None


def _pressure() -> float | None:
    """ "Pressure stall information" of the kernel, in microseconds there."""
    try:
        first = Path("/proc/pressure/cpu").read_text("ascii").splitlines()[0]
        return int(first.rpartition("total=")[2]) / 1e6
    except (OSError, ValueError, IndexError):
        return None


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _machine() -> float | None:
    try:
        with open("/proc/stat") as file:
            # user nice system idle iowait irq softirq steal; guest time is within user
            ticks = [int(word) for word in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _peak() -> int:
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
