"""A mixed workload, measured: operations of several kinds at once, on a pool of objects that exist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mfstore.bench.measure import Meter, Row, Usage, slices, spread, tail
from mfstore.bench.mixes import CLOSED_THREADS, MIXED, OPEN_THREADS, Mix, draws, schedule
from mfstore.bench.movers import Mover
from mfstore.bench.pace import Event, Loop, pace, responses
from mfstore.bench.pool import Pool
from mfstore.bench.recording import Traffic
from mfstore.bench.results import Cell
from mfstore.errors import BackendError

if TYPE_CHECKING:
    from mfstore.bench.plan import Step


class MixedWork:
    """Operations on the objects of one scenario. ``data`` gives the bytes of an object, by number, and ``same`` says
    whether bytes are those."""

    def __init__(
        self, mover: Mover, pool: Pool, key: Callable[[int], str], data: Callable[[int], bytes],
        same: Callable[[int, Any], bool],
    ) -> None:  # fmt: skip
        self._mover = mover
        self._pool = pool
        self._key, self._data, self._same = key, data, same

    def __call__(self, operation: str, number: int) -> Event:
        """Carry out one. A delete that finds every object being read stores one instead, and is a put."""
        taken = self._pool.take() if operation == "delete" else None
        if operation in ("get", "head"):
            row = self._read(operation)
        elif taken is None:
            operation, row = "put", self._put()
        else:
            row = self._mover.one("delete", self._key(taken))
            if row.error is None:
                self._pool.deleted(taken)
        return Event(operation, row._replace(number=number))

    def _read(self, operation: str) -> Row:
        number = self._pool.read()
        try:
            return self._mover.one(operation, self._key(number), check=lambda _, found: self._same(number, found))
        finally:
            self._pool.left(number)

    def _put(self) -> Row:
        number = self._pool.new()
        row = self._mover.one("put", self._key(number), self._data(number))
        if row.error is None:
            self._pool.stored(number)
        return row


def carry_out(
    mix: Mix, work: MixedWork, *, threads: int | None, seed: int, phase: float, seconds: float,
    each: Callable[[Event], None],
) -> tuple[list[Event], float, Usage]:  # fmt: skip
    """What was done of a mix, when it began, and what this process used meanwhile."""
    times = None if mix.rate is None else schedule(mix, seed, phase)
    threads = threads or (CLOSED_THREADS if times is None else OPEN_THREADS)
    meter = Meter()
    loop = Loop(draws(mix, seed), mix.total, work, threads=threads, seconds=mix.seconds or seconds, times=times)
    events: list[Event] = []
    with closing(loop.events()) as found:
        for event in found:
            events.append(event)
            each(event)
    usage = meter.read()
    return [*events, *loop.left()], loop.begin, usage


def cells_of(
    step: Step,
    mix: Mix,
    engine: str,
    events: Sequence[Event],
    begin: float,
    usage: Usage,
    traffic: Traffic,
    late: float = 0.0,
) -> list[tuple[Cell, list[Row]]]:
    """A cell for each operation of a mix, and one for all, with their rows. BackendError when none succeeded.
    ``late``: of several machines, how many seconds the last one began after the first."""
    rows = [row for _, row in events]
    if rows and all(row.error is not None for row in rows):
        raise BackendError(f"every operation failed: {rows[0].error}")
    names = dict.fromkeys([name for name, _ in mix.shares] + [name for name, _ in events])
    by_name = {name: [row for operation, row in events if operation == name] for name in names}
    cells = [(_cell(step, name, engine, found, begin, usage), found) for name, found in by_name.items()]
    whole = replace(
        _cell(step, MIXED, engine, rows, begin, usage), wanted=mix.total, requests=dict(traffic.requests),
        throttled=traffic.throttled, failures=traffic.failures, retries=traffic.retries,
    )  # fmt: skip
    if mix.rate is not None and mix.seconds is not None:
        whole = replace(whole, pace=pace(mix.rate, mix.arrivals, begin + mix.seconds + late, rows))
    return [*cells, (whole, rows)]


def _cell(step: Step, operation: str, engine: str, rows: list[Row], begin: float, usage: Usage) -> Cell:
    good = [row for row in rows if row.error is None]
    return Cell(
        step.scenario, step.number, operation, engine, len(good), len(rows) - len(good), len(rows),
        sum(row.size for row in good), usage, sum(row.verified for row in good),
        sum(max(row.attempts - 1, 0) for row in rows), 0, 0, {}, None, responses(rows),
        spread([row.first_byte for row in good if row.first_byte is not None]),
        slices(rows, begin, begin + usage.wall), tail(good, begin),
        tuple(dict.fromkeys(row.error for row in rows if row.error is not None))[:3],
    )  # fmt: skip
