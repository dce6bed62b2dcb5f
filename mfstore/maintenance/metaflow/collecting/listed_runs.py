"""What a collection needs to know of each run that a listing shows, taken from its files in one pass: they are many,
and kept as bytes."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from mfstore.backends.base import ObjectInfo
from mfstore.maintenance.metaflow.collecting.liveness import OpenAttempt, Step, open_attempt
from mfstore.maintenance.metaflow.listed_files import run_order
from mfstore.maintenance.metaflow.listed_tasks import info_of, made_of
from mfstore.metaflow.roots.attempts import DATA, DONE, PARAMETERS, RESUMED, STARTED
from mfstore.metaflow.roots.outcome import END_STEP

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.collecting.policy import Run
    from mfstore.maintenance.metaflow.holdings import Holdings
    from mfstore.maintenance.metaflow.listed_tasks import Row
    from mfstore.maintenance.spill import Spill

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
            self._blocks.append(self._spill.put_rows(self._last))
            self._last = []

    def parts(self) -> Iterator[dict[Run, ListedRun]]:
        """The runs, some after the others."""
        for number in self._blocks:
            assert self._spill is not None
            yield dict(map(self._made, self._spill.rows(number)))
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
                    listed = _of_tasks((flow, run), holdings.tasks.rows((flow, run)), found.took)
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


@dataclass(slots=True)
class _TaskFiles:
    """The files of a task that tell of its attempts, by these."""

    started: dict[int | None, Row] = field(default_factory=dict)
    done: dict[int | None, Row] = field(default_factory=dict)
    data: dict[int | None, Row] = field(default_factory=dict)


def _of_tasks(run: Run, rows: Sequence[Row], took: dict[Step, float]) -> ListedRun:
    """Without an object for each file and task: there may be a hundred in each of millions of runs."""
    times = [row[5] for row in rows]
    listed = ListedRun(
        files=len(rows), size=sum([row[4] for row in rows]), earliest=min(times), touched=max(0.0, *times)
    )
    tasks: dict[tuple[str, str], _TaskFiles] = {}
    place = "", ""
    for row in rows:
        if row[:2] != place:
            place = row[:2]
            task = tasks.setdefault(place, _TaskFiles())
        name = row[3]
        if name == STARTED:
            task.started[row[2]] = row
        elif name == DONE:
            task.done[row[2]] = row
        elif name == DATA:
            task.data[row[2]] = row
        elif name in RESUMED:
            listed.resumed = True
    listed.tasks = len(tasks)
    first: tuple[tuple[int, float], Row] | None = None
    last: dict[str, LastTask] = {}
    opened: list[OpenAttempt] = []
    open_steps: set[str] = set()
    for place, task in tasks.items():
        step = place[0]
        for attempt in task.done.keys() & task.started.keys():
            seconds = task.done[attempt][5] - task.started[attempt][5]
            took[run[0], step] = max(seconds, took.get((run[0], step), 0.0))
        if task.started:
            began = task.started[min(task.started, key=_attempt)]
            order = _FIRST_STEPS.get(step, 2), began[5]
            if first is None or order < first[0]:
                first = order, began
            if not task.done.keys() >= task.started.keys():
                open_steps.add(step)
            latest = max(task.started, key=_attempt)
            if latest not in task.done or latest not in task.data:
                whole = made_of(run, [row for row in rows if row[:2] == place])[place]
                if (open_one := open_attempt(*place, whole)) is not None:
                    opened.append(open_one)
            if latest in task.done and latest in task.data:
                _note_last(last, run, task.done[latest], task.data[latest])
    listed.open = tuple(opened)
    listed.open_steps = frozenset(open_steps)
    listed.first = None if first is None else info_of(run, first[1])
    listed.last = tuple(last.values())
    return listed


def _attempt(attempt: int | None) -> int:
    assert attempt is not None  # the files of a run that resumed another tell of none, and are others
    return attempt


def _note_last(last: dict[str, LastTask], run: Run, done: Row, data: Row) -> None:
    """Note the task whose readable attempt has these files."""
    step = done[0]
    if step == PARAMETERS or step in last or END_STEP in last:
        return
    if step == END_STEP:
        last.clear()
    last[step] = LastTask(step, done[5], info_of(run, data))
