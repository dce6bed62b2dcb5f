"""Runs a plan in a target's scratch prefix, step by step."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import count, cycle, groupby
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from mfstore.bench.measure import NOTHING_USED, InFlight, Meter, Row, Slices, Steadiness, slices, spread, tail, thirds
from mfstore.bench.measure import under_way as objects_under_way
from mfstore.bench.mixed import MixedWork, carry_out, cells_of
from mfstore.bench.mixes import MIXED
from mfstore.bench.movers import DIFFERS, Item, Mover, Rows
from mfstore.bench.payloads import bundle, contents
from mfstore.bench.plan import BenchPlan, Step, most_bundles, most_keys, warm_objects
from mfstore.bench.pool import Pool
from mfstore.bench.recording import Traffic
from mfstore.bench.results import Cell
from mfstore.bench.scenarios import ARTIFACTS, Scenario
from mfstore.bench.window import Gathered, Lasting, gather
from mfstore.errors import BackendError

if TYPE_CHECKING:
    from mfstore.bench.targets import Target

Keep = Callable[[Cell, "list[Row]", float], None]
"""Called with the raw rows of each cell and the time it began."""
StepProgress = Callable[[Step, int], None]
"""Called with a step and the objects finished since the last call; once with 0 when it begins."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Of a run."""

    seed: int = 0
    seconds: float = 10.0
    """After so many an operation starts no more objects."""
    lasting: Lasting | None = None
    """Each operation goes on for so long, instead of until its objects are through."""
    client: int = 0
    """Which of several machines this is, from 0."""
    clients: int = 1
    gate: Callable[[Step], None] | None = None
    """Called before each measured step: where there are several machines, returns when all begin."""

    @property
    def own_seed(self) -> int:
        """Of this machine alone: no two store, draw or wait alike."""
        return self.seed + self.client * 1_000_003

    @property
    def limit(self) -> float:
        """Seconds after which an operation starts no more."""
        return self.seconds if self.lasting is None else self.lasting.whole


def execute(
    target: Target, plan: BenchPlan, settings: RunSettings, keep: Keep, progress: StepProgress
) -> Iterator[Cell]:
    """Run the plan as often as it says; yields what each measured step brought, when its scenario has ended.
    The target must have been checked, and has to be removed afterwards, whatever happens here."""
    for _ in range(plan.repeat):
        for _, found in groupby(plan.steps, key=lambda step: step.number):
            yield from _scenario(target, list(found), settings, keep, progress)


def _scenario(
    target: Target, steps: list[Step], settings: RunSettings, keep: Keep, progress: StepProgress
) -> Iterator[Cell]:
    if steps[0].scenario.mix is not None:
        with target.mover(steps[0].scenario, settings.seed) as (mover, traffic):
            work = _Mixed(steps[0].scenario, steps[0].number, settings, mover, traffic, progress, keep, target)
            yield from [cell for step in steps for cell in work.cells(step)]
        return
    with opened(target, steps[0], settings, keep, progress) as run:
        cells = [cell for step in steps if (cell := run(step)) is not None]
    yield from _read_back(cells)


@contextmanager
def opened(
    target: Target, first: Step, settings: RunSettings, keep: Keep, progress: StepProgress
) -> Iterator[Callable[[Step], Cell | None]]:
    """What runs the steps of one scenario, in their order; it returns None for those not measured."""
    scenario, number = first.scenario, first.number
    if scenario.layer == ARTIFACTS:
        with target.store(scenario, number) as (reopen, traffic):
            yield _Artifacts(scenario, settings, reopen, traffic, progress, keep).run
    else:
        with target.mover(scenario, settings.seed) as (mover, traffic):
            yield _Objects(scenario, number, settings, mover, traffic, progress, keep, target).run


def _read_back(cells: list[Cell]) -> Iterator[Cell]:
    """A put is verified by what was read of it."""
    read = {cell.operation: cell.verified for cell in cells}
    for cell in cells:
        if cell.operation in ("put", "save"):
            other = "get" if cell.operation == "put" else "load"
            cell = replace(cell, verified=min(read.get(other, 0), cell.bytes))
        yield cell


@dataclass(slots=True)
class _Work:
    """What both layers share: measuring a stream of rows."""

    settings: RunSettings
    traffic: Traffic | None
    progress: StepProgress
    keep: Keep

    def wait_for_others(self, step: Step) -> None:
        """Until all machines begin this step."""
        if self.settings.gate is not None:
            self.settings.gate(step)

    def measured(self, step: Step, engine: str, rows: Rows, wanted: int, stored: int | None = None) -> Cell:
        """Consume the rows, and sum them up."""
        # To delete cannot be repeated.
        lasting = self.settings.lasting if step.operation != "delete" else None
        found = gather(rows, self.traffic, lasting, lambda: self.progress(step, 1))
        return self.summed(step, engine, found, wanted, stored)

    def summed(self, step: Step, engine: str, found: Gathered, wanted: int, stored: int | None) -> Cell:
        """The cell of rows that have been gathered."""
        rows, begin, usage, traffic = found.rows, found.begin, found.usage, found.traffic
        good = [row for row in rows if row.error is None]
        objects = sum(row.number + 1 for row in good) if step.operation == "list" else len(good)
        over_time, last = slices(rows, begin, begin + usage.wall), tail(good, begin)
        cell = Cell(
            step.scenario, step.number, step.operation, engine, objects, len(rows) - len(good),
            wanted if self.settings.lasting is None else objects + len(rows) - len(good),
            sum(row.size for row in good), usage, sum(row.verified for row in good), traffic.retries,
            traffic.throttled, traffic.failures, dict(traffic.requests), stored,
            # Of a DeleteObjects with many objects nobody knows how long each took.
            spread([row.seconds for row in good if row.seconds]),
            spread([row.first_byte for row in good if row.first_byte is not None]), over_time, last,
            tuple(dict.fromkeys(row.error for row in rows if row.error is not None))[:3],
            in_flight=None if step.scenario.layer == ARTIFACTS else _in_flight(found, over_time, last.first_done),
            steadiness=found.steadiness,
        )  # fmt: skip
        self.keep(cell, rows, begin)
        return cell


def _in_flight(found: Gathered, over_time: Slices, full: float) -> InFlight | None:
    """Requests where they are counted, or else objects; over the ``full`` time, in which there was more to start."""
    begin, flights = found.begin, found.traffic.flights
    width, number = over_time.seconds, len(over_time.bytes)
    end = begin + (full or found.usage.wall)
    if found.traffic.requests:
        parts = [flights.mean(begin + slot * width, begin + (slot + 1) * width) for slot in range(number)]
        return InFlight(flights.mean(begin, end), flights.most, tuple(parts))
    if not any(row.seconds for row in found.rows):
        return None
    mean, most, parts = objects_under_way(found.rows, begin, end, width, number)
    return InFlight(mean, most, tuple(parts))


class _Objects(_Work):
    """The operations of one scenario on objects: each on what the first one, put, has stored."""

    def __init__(
        self, scenario: Scenario, number: int, settings: RunSettings, mover: Mover, traffic: Traffic | None,
        progress: StepProgress, keep: Keep, target: Target,
    ) -> None:  # fmt: skip
        super().__init__(settings, traffic, progress, keep)
        self._scenario = scenario
        self._mover = mover
        own = f"client-{settings.client}/" if settings.clients > 1 else ""
        self._prefix = f"{target.object_prefix}{number}/{own}"
        self._data = contents(scenario, settings.own_seed)
        self._digests = [[blake3(data).digest() for data in group] for group in self._data]
        self._places = [(group, number) for group, (_, count) in enumerate(scenario.sizes) for number in range(count)]
        self._keys = len(self._places) if settings.lasting is None else most_keys(scenario)
        """So many objects there are at most: then the first is stored again."""
        self._stored: list[int] = []
        """The numbers of the objects that are there."""
        self._begun = 0
        """So many were begun to be put: one that failed may be there all the same."""

    def run(self, step: Step) -> Cell | None:
        """One step; None if it was not to be measured."""
        operation = step.operation
        self.progress(step, 0)
        self._warm_up(operation, step.measured)
        rows = getattr(self, f"_{operation}")()
        warm = warm_objects(self._scenario)[0]
        there = len(self._stored)
        wanted = {"put": len(self._places), "list": there + warm, "delete": self._begun + warm}.get(operation, there)
        if not step.measured:
            _all(rows)
            return None
        self.wait_for_others(step)
        cell = self.measured(step, self._mover.engine, rows, wanted)
        if cell.failed and not cell.objects and self._mover.essential:
            raise BackendError(f"every {operation} failed: {cell.errors[0]}")
        return cell

    def _key(self, number: int) -> str:
        # Spread by their first letters, as services divide key ranges.
        return f"{self._prefix}{number % 256:02x}/{number}"

    def _place(self, number: int) -> tuple[int, int]:
        group, position = self._places[number % len(self._places)]
        return group, position % len(self._data[group])

    def _bytes(self, number: int) -> bytes:
        group, position = self._place(number)
        return self._data[group][position]

    def _same(self, number: int, found: Any) -> bool:
        group, position = self._place(number)
        return bool(blake3(found).digest() == self._digests[group][position])

    def _warm_keys(self) -> list[str]:
        return [f"{self._prefix}warm/{number}" for number in range(warm_objects(self._scenario)[0])]

    def _warm_up(self, operation: str, measured: bool) -> None:
        keys = self._warm_keys()
        if operation == "put":
            _, size = warm_objects(self._scenario)
            _all(self._mover.put((key, bytes(size)) for key in keys))
        elif operation == "get" and measured:
            _all(self._mover.get(keys, lambda _, __: True))
        elif operation == "head" and measured:
            _all(self._mover.head(keys))

    def _limited(self, items: Iterable[Any]) -> Iterator[Any]:
        deadline = monotonic() + self.settings.limit
        for item in items:
            if monotonic() > deadline:
                return
            yield item

    def _put(self) -> Rows:
        lasting = self.settings.lasting is not None

        def items() -> Iterator[tuple[str, bytes]]:
            for turn in count() if lasting else range(self._keys):
                number = turn % self._keys
                self._begun = max(self._begun, number + 1)
                yield self._key(number), self._bytes(number)

        for row in self._mover.put(self._limited(items())):
            if row.error is None and row.number < self._keys:
                self._stored.append(row.number)
            yield row

    def _wanted(self) -> Iterator[str]:
        """The keys of what is there: once, or again and again."""
        lasting = self.settings.lasting is not None and self._stored
        return self._limited(map(self._key, cycle(self._stored) if lasting else self._stored))

    def _get(self) -> Rows:
        self._stored.sort()

        def check(index: int, data: Any) -> bool:
            return self._same(self._stored[index % len(self._stored)], data)

        return self._mover.get(self._wanted(), check)

    def _head(self) -> Rows:
        return self._mover.head(self._wanted())

    def _list(self) -> Rows:
        if self.settings.lasting is None:
            return self._mover.list(self._prefix)
        return self._listings()

    def _listings(self) -> Rows:
        for _ in self._limited(count()):
            yield from self._mover.list(self._prefix)

    def _left_over(self) -> Iterable[int]:
        """The numbers of the objects that are there, or may be."""
        return range(self._begun)

    def _delete(self) -> Rows:
        # Whatever the time limit says.
        return self._mover.delete([*map(self._key, self._left_over()), *self._warm_keys()])


class _Mixed(_Objects):
    """A mix of operations, on what the first step has stored."""

    _pool: Pool | None = None

    def cells(self, step: Step) -> list[Cell]:
        """What a step brought; nothing if it was not to be measured."""
        mix = self._scenario.mix
        if not step.measured or mix is None:
            self.run(step)
            return []
        if len(self._stored) < len(self._places):
            raise BackendError(
                f"only {len(self._stored)} of {len(self._places)} objects of the pool could be stored",
                hint="A longer --seconds, or fewer objects: --count",
            )  # fmt: skip
        settings = self.settings
        mix = mix.part(settings.client, settings.clients)
        self.progress(step, 0)
        self._pool = Pool(self._stored, settings.own_seed)
        work = MixedWork(self._mover, self._pool, self._key, self._bytes, self._same)
        traffic = self.traffic or Traffic()
        self.wait_for_others(step)
        traffic.clear()
        events, begin, usage = carry_out(
            mix, work, threads=self._scenario.concurrency, seed=settings.own_seed,
            phase=settings.client / settings.clients, seconds=settings.seconds,
            each=lambda _: self.progress(step, 1),
        )  # fmt: skip
        found = cells_of(step, mix, self._mover.engine, events, begin, usage, traffic)
        for cell, rows in found:
            if cell.operation != MIXED:
                self.keep(cell, rows, begin)
        return [cell for cell, _ in found]

    def _left_over(self) -> Iterable[int]:
        return super()._left_over() if self._pool is None else self._pool.left_over()


class _Artifacts(_Work):
    """Saves and loads of bundles."""

    def __init__(
        self, scenario: Scenario, settings: RunSettings, reopen: Callable[[], Any], traffic: Traffic | None,
        progress: StepProgress, keep: Keep,
    ) -> None:  # fmt: skip
        super().__init__(settings, traffic, progress, keep)
        self._scenario = scenario
        self._reopen = reopen
        self._keys: list[str] = []

    def run(self, step: Step) -> Cell | None:
        """One step; bundle 0 is saved before, to have what the others share with it."""
        self.progress(step, 0)
        work = self._save if step.operation == "save" else self._load
        return work(step)

    def _bundle(self, number: int) -> dict[str, bytes]:
        return bundle(self._scenario, self.settings.seed, number)

    def _save(self, step: Step) -> Cell | None:
        store = self._reopen()
        store.save(self._bundle(0))
        before = store.session.stored
        timer = _Timer(self, step)
        bundles = self._scenario.bundles if self.settings.lasting is None else most_bundles(self._scenario)
        for number in timer.rounds(range(1, bundles + 1)):
            artifacts = self._bundle(number)
            with timer.timed(number, sum(map(len, artifacts.values()))):
                self._keys.append(store.save(artifacts))
            if timer.warming_up:
                before = store.session.stored
        return timer.cell(store.session.stored - before)

    def _load(self, step: Step) -> Cell | None:
        timer = _Timer(self, step)
        saved = list(enumerate(self._keys, 1))
        for number, key in timer.rounds(saved if self.settings.lasting is None else cycle(saved)):
            store = self._reopen()  # a new handle has verified nothing yet
            loaded: dict[str, bytes] = {}
            with timer.timed(number, self._scenario.size):
                loaded = store.load(key)
            timer.verified(loaded == self._bundle(number))
        return timer.cell(None)


class _Timer:
    """Bundles are timed one by one: what is made between them costs nothing."""

    def __init__(self, work: _Artifacts, step: Step) -> None:
        self._work = work
        self._step = step
        self._rows: list[Row] = []
        self._usage = NOTHING_USED
        self._begin = monotonic()
        lasting = work.settings.lasting
        self._warm = self._begin + (lasting.warm_up if lasting is not None else 0.0)
        if work.traffic is not None:
            work.traffic.clear()

    @property
    def warming_up(self) -> bool:
        """Whether all that was done until now counts for nothing."""
        return not self._rows

    def rounds(self, bundles: Iterable[Item]) -> Iterator[Item]:
        """The bundles, as long as there is time."""
        deadline = self._begin + self._work.settings.limit
        for found in bundles:
            if monotonic() > deadline:
                return
            yield found

    @contextmanager
    def timed(self, number: int, size: int) -> Iterator[None]:
        """Time one bundle. Its row begins where the last one ended: the time between them does not count."""
        meter = Meter()
        yield
        usage = meter.read()
        self._work.progress(self._step, 1)
        if monotonic() < self._warm:
            if self._work.traffic is not None:
                self._work.traffic.clear()
            return
        start = self._begin + self._usage.wall
        self._rows.append(Row(number - 1, start, usage.wall, None, size, 1, 0, None))
        self._usage += usage

    def verified(self, equal: bool) -> None:
        """The last bundle was read back."""
        if self._rows:
            row = self._rows[-1]
            self._rows[-1] = row._replace(verified=row.size if equal else 0, error=None if equal else DIFFERS)

    def cell(self, stored: int | None) -> Cell | None:
        """The sum, if it was to be measured."""
        if not self._step.measured:
            return None
        begin, end, lasting = self._begin, self._begin + self._usage.wall, self._work.settings.lasting
        steadiness = Steadiness(lasting.warm_up, thirds(self._rows, begin, end + 1e-9)) if lasting is not None else None
        traffic = self._work.traffic.until_now() if self._work.traffic is not None else Traffic()
        found = Gathered(self._rows, begin, self._usage, traffic, steadiness)
        return self._work.summed(self._step, "store", found, self._step.scenario.bundles, stored)


def _all(rows: Rows) -> None:
    with closing(rows):
        for _ in rows:
            pass


@contextmanager
def removed_at_the_end(target: Target, say: Callable[[str], None]) -> Iterator[None]:
    """Remove the target's scratch prefix when the block ends, however it does: also by Ctrl-C, ``kill``, or a terminal
    that goes away. While it is being removed the first further Ctrl-C only says so."""
    asked = 0

    def patience(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise KeyboardInterrupt
        say(f"removing {target.scratch}; once more leaves it there")

    with ExitStack() as stack:
        for name in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(name) is signal.SIG_DFL:  # nohup, or a caller who has a use for it
                stack.callback(signal.signal, name, signal.signal(name, _interrupt))
        ended: BaseException | None = None
        try:
            yield
        except BaseException as error:
            ended = error
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(name) is not signal.SIG_IGN:
                stack.callback(signal.signal, name, signal.signal(name, patience))
        try:
            target.remove(cut_off=ended is not None)
        except BaseException as error:
            why = "" if isinstance(error, KeyboardInterrupt) else f" ({error})"
            say(f"could not remove all of {target.scratch}{why}: remove it by hand")
            if ended is None:
                raise
        if ended is not None:
            raise ended


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
