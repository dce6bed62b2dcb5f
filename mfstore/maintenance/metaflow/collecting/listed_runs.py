"""What a collection needs to know of each run that a listing shows, taken from its files in one pass: they are many,
and kept as bytes."""

from __future__ import annotations

import marshal
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mfstore.backends.base import ObjectInfo
from mfstore.maintenance.metaflow.collecting.liveness import OpenAttempt, Step, open_attempt
from mfstore.metaflow.roots.attempts import DATA, DONE, PARAMETERS, RESUMED, STARTED
from mfstore.metaflow.roots.outcome import END_STEP

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.collecting.policy import Run
    from mfstore.maintenance.metaflow.holdings import Holdings
    from mfstore.maintenance.metaflow.listed_tasks import OfRun, Packed
    from mfstore.maintenance.metaflow.spill import Spill
    from mfstore.metaflow.roots.layout import Task

IN_MEMORY = 10_000
"""Runs of which all is in memory."""
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
    told_by: Packed = b""
    """The small files that tell of it (``ListedRuns.first``, ``last``)."""
    resumed: bool = False
    """Whether it resumed another run."""

    def add(self, info: ObjectInfo) -> None:
        """Count one that is of no task."""
        self.files += 1
        self.size += info.size
        self.touched = max(self.touched, info.modified)
        if not self.tasks:
            self.earliest = min(self.earliest, info.modified)


@dataclass(slots=True)
class ListedRuns:
    """All runs."""

    spill: Spill | None = None
    runs: dict[Run, ListedRun] = field(default_factory=dict)
    took: dict[Step, float] = field(default_factory=dict)
    """How many seconds the longest attempt of each step took, of those that ended."""

    def add(self, run: Run, found: ListedRun, first: ObjectInfo | None, last: Collection[LastTask]) -> None:
        """Count a run that these files tell of: ``first`` and ``last``."""
        found.told_by = marshal.dumps((first and tuple(first), [(*task[:2], *task.data) for task in last]))
        if self.spill is not None and len(self.runs) >= IN_MEMORY:
            found.told_by = self.spill.put(found.told_by)
        self.runs[run] = found

    def first(self, run: Run) -> ObjectInfo | None:
        """What the first attempt of a run wrote down when it began."""
        first = self._told_by(run)[0]
        return first and ObjectInfo(*first)

    def last(self, run: Run) -> list[LastTask]:
        """What may be the last task of a run: that of the step ``end``, else one of each step, since any step may be
        the last one of its flow."""
        return [LastTask(step, ended, ObjectInfo(*data)) for step, ended, *data in self._told_by(run)[1]]

    def _told_by(self, run: Run) -> Any:
        packed = self.runs[run].told_by
        if isinstance(packed, int):
            assert self.spill is not None
            packed = self.spill.get(packed)
        return marshal.loads(packed) if packed else (None, ())


def listed_runs(holdings: Holdings) -> ListedRuns:
    """The runs of a listing."""
    found = ListedRuns(holdings.tasks.spill)
    for run in holdings.tasks.runs:
        _add_tasks(found, run, holdings.tasks.of_run(run))
    for path, info in holdings.metadata:
        if path.run:
            found.runs.setdefault((path.flow, path.run), ListedRun()).add(info)
    for path, info in holdings.cards:
        of_card = found.runs.get((path.flow, path.run))
        if of_card is not None:
            of_card.add(info)
            of_card.cards += 1
            of_card.cards_size += info.size
    return found


def _add_tasks(found: ListedRuns, run: Run, tasks: OfRun) -> None:
    took = found.took
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
    found.add(run, listed, None if first is None else first[1], last.values())


def _note_last(last: dict[str, LastTask], step: str, task: Task) -> None:
    if step == PARAMETERS or step in last or END_STEP in last:
        return
    readable = task.readable
    data = None if readable is None else task.files.get((readable, DATA))
    if data is not None:
        if step == END_STEP:
            last.clear()
        last[step] = LastTask(step, task.files[readable, DONE].modified, data)
