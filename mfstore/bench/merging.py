"""What several machines measured at the same time, as one measurement. Pure.

Rates are of the time in which all of them were at work; quantiles are of the rows of all, never of quantiles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mfstore.bench.measure import Row, Usage, slices, spread, tail
from mfstore.bench.mixed import cells_of
from mfstore.bench.mixes import MIXED
from mfstore.bench.pace import Event
from mfstore.bench.plan import Step
from mfstore.bench.recording import Traffic
from mfstore.bench.results import Cell, ClientShare, Window
from mfstore.errors import BackendError


@dataclass(frozen=True, slots=True)
class Part:
    """What one machine did of one measured step. Times are of the clock of the day, which machines share as well as
    they are set."""

    client: str
    turn: int
    """How often the step had been done before."""
    number: int
    operation: str
    engine: str
    begin: float
    usage: Usage
    rows: list[Row]
    wanted: int
    verified: int
    retries: int
    throttled: int
    failures: int
    requests: dict[str, int]
    stored: int | None

    @property
    def end(self) -> float:
        """Of its measurement."""
        return self.begin + self.usage.wall


def merged(steps: Iterable[Step], parts: Sequence[Part], clients: Sequence[str]) -> list[tuple[Cell, list[Row], float]]:
    """The cells of all, with their rows and when they began. BackendError when a machine lacks a step that others
    have."""
    measured = {(step.number, step.operation): step for step in steps if step.measured}
    found: dict[tuple[int, int, str], list[Part]] = {}
    for part in parts:
        found.setdefault((part.turn, part.number, part.operation), []).append(part)
    cells: list[tuple[Cell, list[Row], float]] = []
    for (turn, number, operation), here in found.items():
        if operation == MIXED:
            inner = [part for part in parts if (part.turn, part.number) == (turn, number) and part.operation != MIXED]
            cells += _mix(measured[number, MIXED], here, inner, clients)
        elif (number, MIXED) not in measured:
            cells.append(_one(measured[number, operation], here, clients))
    return cells


def window_of(parts: Sequence[Part], rows: Iterable[Row], operation: str) -> Window | None:
    """What was done while all were at work; None when that was never: what takes milliseconds may be over on one
    machine before it begins on another. The rate is then of the time of all: too little, and never too much."""
    begin, end = max(part.begin for part in parts), min(part.end for part in parts)
    if end <= begin:
        return None
    objects, moved = 0, 0.0
    for row in rows:
        if row.error is not None:
            continue
        if begin < row.end <= end:
            objects += row.number + 1 if operation == "list" else 1
        if row.seconds:
            overlap = min(row.end, end) - max(row.start, begin)
            moved += row.size * max(overlap, 0.0) / row.seconds
    return Window(end - begin, objects, moved)


def _together(parts: Sequence[Part], clients: Sequence[str]) -> tuple[float, Usage, Traffic]:
    """When the first began, what they used, and what they sent."""
    missing = [name for name in clients if name not in {part.client for part in parts}]
    if missing or len(parts) != len(clients):
        raise BackendError(f"no {parts[0].operation} came from {', '.join(missing) or 'one client alone'}")
    begin = min(part.begin for part in parts)
    usage = replace(
        parts[0].usage, wall=max(part.end for part in parts) - begin, cpu=sum(part.usage.cpu for part in parts),
        machine=None, rss=max(part.usage.rss for part in parts),
    )  # fmt: skip
    requests = sum((Counter(part.requests) for part in parts), Counter[str]())
    return begin, usage, Traffic(
        requests, sum(part.retries for part in parts), sum(part.throttled for part in parts),
        sum(part.failures for part in parts),
    )  # fmt: skip


def _one(step: Step, parts: Sequence[Part], clients: Sequence[str]) -> tuple[Cell, list[Row], float]:
    begin, usage, traffic = _together(parts, clients)
    rows = [row for part in parts for row in part.rows]
    good = [row for row in rows if row.error is None]
    stored = [part.stored for part in parts if part.stored is not None]
    cell = Cell(
        step.scenario, step.number, step.operation, parts[0].engine,
        sum(row.number + 1 for row in good) if step.operation == "list" else len(good), len(rows) - len(good),
        sum(part.wanted for part in parts), sum(row.size for row in good), usage,
        sum(part.verified for part in parts), traffic.retries, traffic.throttled, traffic.failures,
        dict(traffic.requests), sum(stored) if stored else None, spread([row.seconds for row in good if row.seconds]),
        spread([row.first_byte for row in good if row.first_byte is not None]),
        slices(rows, begin, begin + usage.wall), tail(good, begin), _errors(parts),
        window=window_of(parts, rows, step.operation), clients=tuple(_share(part, part.rows) for part in parts),
    )  # fmt: skip
    return cell, rows, begin


def _mix(
    step: Step, wholes: Sequence[Part], inner: Sequence[Part], clients: Sequence[str]
) -> list[tuple[Cell, list[Row], float]]:
    begin, usage, traffic = _together(wholes, clients)
    mix = step.scenario.mix
    assert mix is not None, "a step of a mix"
    events = [Event(part.operation, row) for part in inner for row in part.rows]
    last = max(part.begin for part in wholes)  # who begins late is not late with its schedule
    found = []
    for cell, rows in cells_of(step, mix, wholes[0].engine, events, begin, usage, traffic, late=last - begin):
        shares = tuple(
            _share(whole, [row for part in inner if part.client == whole.client
                           and cell.operation in (MIXED, part.operation) for row in part.rows])
            for whole in wholes
        )  # fmt: skip
        window = window_of(wholes, rows, cell.operation)
        found.append((replace(cell, window=window, clients=shares, errors=_errors(inner)), rows, begin))
    return found


def _share(part: Part, rows: Sequence[Row]) -> ClientShare:
    good = [row for row in rows if row.error is None]
    times = spread([row.response for row in good if row.seconds])
    return ClientShare(
        part.client, part.usage.wall, len(good), len(rows) - len(good), sum(row.size for row in good), times.p50,
        times.p99,
    )  # fmt: skip


def _errors(parts: Sequence[Part]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"{part.client}: {row.error}" for part in parts for row in part.rows if row.error))[:3]
