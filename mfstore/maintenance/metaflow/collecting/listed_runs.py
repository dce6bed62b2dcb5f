"""What a collection needs to know of each run that a listing shows, taken from its files in one pass: they are many,
and kept as bytes."""

from __future__ import annotations

import heapq
import marshal
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from mfstore.backends.base import ObjectInfo
from mfstore.maintenance.metaflow.collecting.liveness import OpenAttempt, Step, open_attempt
from mfstore.maintenance.metaflow.listed_files import run_order
from mfstore.metaflow.roots.attempts import DATA, DONE, PARAMETERS, RESUMED, STARTED
from mfstore.metaflow.roots.outcome import END_STEP

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.collecting.policy import Run
    from mfstore.maintenance.metaflow.holdings import Holdings
    from mfstore.maintenance.metaflow.listed_tasks import OfRun
    from mfstore.maintenance.metaflow.spill import Spill
    from mfstore.metaflow.roots.layout import Task

RUNS_TOGETHER = 20_000
"""Runs of which all is in memory at a time, one or two kilobytes each: of so many is read together how they ended."""
_FIRST_STEPS = {PARAMETERS: 0, "start": 1}


class LastTask(NamedTuple):
    """A task that may be the last of its run."""

    step: str
    ended: float
    data: ObjectInfo
    """Its ``data.json``."""


@dataclass(slots=True)
class ListedRun:
    """What a listing shows of one run: of files that tasks wrote besides blobs, of local metadata, and of cards."""

    tasks: int = 0
    files: int = 0
    size: int = 0
    """Bytes of them."""
    cards: int = 0
    """How many of the files are cards."""
    cards_size: int = 0
    earliest: float = float("inf")
    """The time of the earliest one of its tasks; where it has no tasks, of any."""
    touched: float = 0.0
    """The time of the latest."""
    open: tuple[OpenAttempt, ...] = ()
    """The attempts that may be running."""
    open_steps: frozenset[str] = frozenset()
    """The steps with an attempt that began and did not end."""
    resumed: bool = False
    """Whether it resumed another run."""
    first: ObjectInfo | None = None
    """What its first attempt wrote down when it began."""
    last: tuple[LastTask, ...] = ()
    """What may be its last task: that of the step ``end``, else one of each step, since any step may be the last one of
    its flow."""

    def add(self, info: ObjectInfo) -> None:
        """Count one that is of no task."""
        self.files += 1
        self.size += info.size
        self.touched = max(self.touched, info.modified)
        if not self.tasks:
            self.earliest = min(self.earliest, info.modified)


class ListedRuns:
    """All runs of a listing, flow by flow."""

    def __init__(self, spill: Spill | None = None) -> None:
        self._spill = spill
        self.took: dict[Step, float] = {}
        """How many seconds the longest attempt of each step took, of those that ended."""
        self.open: dict[Run, tuple[OpenAttempt, ...]] = {}
        """The attempts that may be running, of runs that have any."""
        self.open_steps: dict[Run, frozenset[str]] = {}
        """The steps with an attempt that began and did not end, of runs that have any."""
        self.resumed: set[Run] = set()
        """Those that resumed others."""
        self._blocks: list[int] = []
        self._last: list[tuple[Any, ...]] = []

    def add(self, run: Run, found: ListedRun) -> None:
        """Count a run."""
        if found.open:
            self.open[run] = found.open
        if found.open_steps:
            self.open_steps[run] = found.open_steps
        if found.resumed:
            self.resumed.add(run)
        self._last.append(_row(run, found))
        if len(self._last) >= RUNS_TOGETHER and self._spill is not None:
            self._blocks.append(self._spill.put(zlib.compress(marshal.dumps(self._last), 1)))
            self._last = []

    def parts(self) -> Iterator[dict[Run, ListedRun]]:
        """The runs, some after the others."""
        for number in self._blocks:
            assert self._spill is not None
            yield dict(map(self._made, marshal.loads(zlib.decompress(self._spill.get(number)))))
        yield dict(map(self._made, self._last))

    def _made(self, row: tuple[Any, ...]) -> tuple[Run, ListedRun]:
        run, amounts, first, last = row
        found = ListedRun(*amounts)
        found.open, found.open_steps = self.open.get(run, ()), self.open_steps.get(run, frozenset())
        found.resumed = run in self.resumed
        found.first = first and ObjectInfo(*first)
        found.last = tuple([LastTask(step, ended, ObjectInfo(*data)) for step, ended, data in last])
        return run, found

    @property
    def runs(self) -> Iterator[Run]:
        """The flow and name of each."""
        return chain.from_iterable(self.parts())


def _row(run: Run, found: ListedRun) -> tuple[Any, ...]:
    amounts = (
        found.tasks, found.files, found.size, found.cards, found.cards_size, found.earliest, found.touched,
    )  # fmt: skip
    last = [(task.step, task.ended, tuple(task.data)) for task in found.last]
    return run, amounts, found.first and tuple(found.first), last


def listed_runs(holdings: Holdings) -> ListedRuns:
    """The runs of a listing."""
    found = ListedRuns(holdings.tasks.spill)
    for flow in sorted(holdings.metadata.flows.union(holdings.tasks.flows)):
        for run, group in groupby(_of_flow(holdings, flow), itemgetter(1)):
            listed: ListedRun | None = None
            for _, _, kind, infos in group:
                if kind == _TASKS:
                    listed = _of_tasks((flow, run), holdings.tasks.of_run((flow, run)), found.took)
                elif kind == _METADATA or listed is not None:  # cards alone are no run
                    listed = listed or ListedRun()
                    for info in infos:
                        listed.add(info)
                    if kind == _CARDS:
                        listed.cards += len(infos)
                        listed.cards_size += sum(info.size for info in infos)
            if listed is not None:
                found.add((flow, run), listed)
    return found


_TASKS, _METADATA, _CARDS = range(3)


def _of_flow(holdings: Holdings, flow: str) -> Iterator[tuple[bytes, str, int, list[ObjectInfo]]]:
    """What each run of a flow has, run by run: that it has tasks, its local metadata, its cards."""
    with_tasks = sorted(holdings.tasks.runs_of(flow), key=run_order)
    return heapq.merge(
        ((run_order(run), run, _TASKS, []) for run in with_tasks),
        ((run_order(run), run, _METADATA, infos) for run, infos in holdings.metadata.of_flow(flow) if run),
        ((run_order(run), run, _CARDS, infos) for run, infos in holdings.cards.of_flow(flow)),
        key=itemgetter(0),
    )


def _of_tasks(run: Run, tasks: OfRun, took: dict[Step, float]) -> ListedRun:
    listed = ListedRun(tasks=len(tasks))
    first: tuple[tuple[int, float], ObjectInfo] | None = None
    last: dict[str, LastTask] = {}
    opened: list[OpenAttempt] = []
    open_steps: set[str] = set()
    for (step, name), task in tasks.items():
        infos = task.files.values()
        times = [info.modified for info in infos]
        listed.files += len(times)
        listed.size += sum([info.size for info in infos])
        listed.earliest = min(listed.earliest, *times)
        listed.touched = max(listed.touched, *times)
        listed.resumed |= any((None, marker) in task.files for marker in RESUMED)
        for attempt in task.done & task.started.keys():
            seconds = task.files[attempt, DONE].modified - task.started[attempt]
            took[run[0], step] = max(seconds, took.get((run[0], step), 0.0))
        if task.started:
            began = task.files[min(task.started), STARTED]
            order = _FIRST_STEPS.get(step, 2), began.modified
            if first is None or order < first[0]:
                first = order, began
            if not task.done.issuperset(task.started):
                open_steps.add(step)
        if (open_one := open_attempt(step, name, task)) is not None:
            opened.append(open_one)
        _note_last(last, step, task)
    listed.open = tuple(opened)
    listed.open_steps = frozenset(open_steps)
    listed.first = None if first is None else first[1]
    listed.last = tuple(last.values())
    return listed


def _note_last(last: dict[str, LastTask], step: str, task: Task) -> None:
    if step == PARAMETERS or step in last or END_STEP in last:
        return
    readable = task.readable
    data = None if readable is None else task.files.get((readable, DATA))
    if data is not None:
        if step == END_STEP:
            last.clear()
        last[step] = LastTask(step, task.files[readable, DONE].modified, data)
