"""What a page tells of a datastore root of Metaflow, read from it: what there is by one listing, and the ``data.json``
of tasks in bulk. A step is told as a ref is, and its tasks as the values that it had."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import mfstore
from mfstore.display.amounts import count
from mfstore.errors import CorruptObject, MfstoreError
from mfstore.maintenance.metaflow.holdings import list_root
from mfstore.maintenance.metaflow.usage import dated, root_usage
from mfstore.maintenance.report import PhaseProgress, untold
from mfstore.maintenance.spill import Spill
from mfstore.metaflow.roots.attempts import DATA
from mfstore.page.contents import by_day
from mfstore.page.facts import Content, Entry, Facts, Value
from mfstore.page.read_once import ReadOnce, read_once
from mfstore.page.task_contents import task_content
from mfstore.page.troubles import Said, spaces_of

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.maintenance.metaflow.holdings import Holdings
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.report import PhaseCallback
    from mfstore.maintenance.usage import Usage
    from mfstore.metaflow.roots.layout import Task

SPACES = ("flow", "run", "step", "artifact")
"""By what it is told who holds how much."""
TASKS = 100
"""Tasks of a step that are told of one run: of a foreach there may be thousands."""
TOGETHER = 1024
"""Files that are asked for together."""
UNFINISHED = "not finished"


class ShownTask(NamedTuple):
    """A task, and the file that says what it stored."""

    run: str
    task: str
    path: str
    """Where that file is; empty: there is none, as it has not ended well."""
    attempt: int
    time: float
    """When it was written; of a task that has not ended well, when it began."""


def root_facts(
    root: Root, place: str, title: str, *, prefix: str, history: int, tell: PhaseCallback = untold
) -> Facts:  # fmt: skip
    """What lies below a root; ``place`` is what the caller calls it. ``history``: so many runs of each step.

    Raises:
        NotAStore: it is no root.
        AccessDenied, BackendError: it cannot be listed. Of a file that cannot be read it is told.
    """
    root = copy(root)  # the caller's asks anew
    root.backend = read_once(root.backend)
    said = Said(root.url, place, f"mfstore verify --metaflow {place}")
    holdings = list_root(root, tell, spill=Spill())
    steps = _steps(holdings, prefix, history)
    shown = {name: tasks.shown for name, tasks in steps.items()}
    contents = read_tasks(root.backend, shown, said, tell)
    entries = tuple(entry_of(name, shown[name], tasks.total) for name, tasks in steps.items())
    packed = ReadOnce()

    def usage(by: str) -> Usage:
        return root_usage(root, by, metadata="none", tell=tell, holdings=holdings, through=packed.over)

    spaces = spaces_of(SPACES, usage, said)
    amounts = (
        ("flows", len(holdings.flows), False), ("runs", len(holdings.runs), False),
        ("tasks", len(holdings.tasks), False), ("bytes stored", holdings.stored, True),
        *((("in the packed store", holdings.packed[1], True),) if holdings.packed[0] else ()),
    )  # fmt: skip
    return Facts(
        "root", place, title, time.time(), mfstore.__version__, amounts, entries, contents, spaces,
        by_day(dated(root, holdings)), (), said.troubles, tuple(_notes(entries, prefix)),
    )  # fmt: skip


class StepTasks:
    """The tasks of a step, which come run by run: those of the newest runs are kept, however many there are."""

    def __init__(self, runs: int) -> None:
        self._most = runs
        self._by_run: dict[str, list[ShownTask]] = {}
        self.total = 0
        """Tasks that came."""

    def add(self, task: ShownTask) -> None:
        """One more."""
        self.total += 1
        tasks = self._by_run.setdefault(task.run, [])
        tasks.append(task)
        if len(tasks) >= 2 * TASKS:
            tasks[:] = _newest(tasks)[:TASKS]
        if len(self._by_run) > 2 * self._most:
            self._by_run = self._newest_runs()

    @property
    def shown(self) -> list[ShownTask]:
        """Of the newest runs the newest tasks, together by their runs, the newest first."""
        return [task for tasks in self._newest_runs().values() for task in tasks]

    def _newest_runs(self) -> dict[str, list[ShownTask]]:
        runs = [(run, _newest(tasks)[:TASKS]) for run, tasks in self._by_run.items()]
        runs.sort(key=lambda run: -run[1][0].time)
        return dict(runs[: self._most])


def _newest(tasks: Sequence[ShownTask]) -> list[ShownTask]:
    return sorted(tasks, key=lambda task: -task.time)


def _steps(holdings: Holdings, prefix: str, history: int) -> dict[str, StepTasks]:
    """The tasks of each step, of all runs of its flow."""
    found: dict[str, StepTasks] = {}
    for (flow, run, step, name), task in holdings.tasks.items():
        called = f"{flow}/{step}"
        if called.startswith(prefix):
            tasks = found.setdefault(called, StepTasks(history))
            tasks.add(_shown(f"{flow}/{run}/{step}/{name}", run, name, task))
    return dict(sorted(found.items()))


def _shown(folder: str, run: str, name: str, task: Task) -> ShownTask:
    attempt = task.readable
    file = None if attempt is None else task.files.get((attempt, DATA))
    if attempt is None or file is None:
        began = max(info.modified for info in task.files.values())
        return ShownTask(run, name, "", task.latest or 0, began)
    return ShownTask(run, name, f"{folder}/{attempt}.{DATA}", attempt, file.modified)


def entry_of(name: str, tasks: Sequence[ShownTask], total: int) -> Entry:
    """A step with these of its tasks."""
    values = tuple(
        Value(f"{task.run}/{task.task}", key_of(name, task), task.time, "" if task.path else UNFINISHED)
        for task in tasks
    )
    return Entry(name, values, total)


def key_of(step: str, task: ShownTask) -> str:
    """What an attempt of a task is called: its pathspec, and of another than the first its number."""
    flow, _, name = step.partition("/")
    return f"{flow}/{task.run}/{name}/{task.task}" + (f", attempt {task.attempt}" if task.attempt else "")


def read_tasks(
    backend: Backend, shown: dict[str, list[ShownTask]], said: Said, tell: PhaseCallback = untold
) -> dict[str, Content]:
    """What these tasks stored."""
    found = {}
    rest = iter([(key_of(step, task), task.path) for step, tasks in shown.items() for task in tasks])
    done = 0
    while some := list(islice(rest, TOGETHER)):
        wanted = [path for _, path in some if path]
        read = dict(backend.get_many(wanted)) if wanted else {}
        for key, path in some:
            found[key] = _content(key, path, read.get(path), said)
        done += len(some)
        tell(PhaseProgress("tasks", done, 0))
    return found


def _content(key: str, path: str, data: bytes | MfstoreError | None, said: Said) -> Content:
    if data is None:
        return Content("task")
    try:
        if isinstance(data, MfstoreError):
            raise data
        return task_content(data)
    except CorruptObject as error:
        return Content("task", trouble=said.add(f"task {key}", error.where(key=path)))
    except MfstoreError as error:
        return Content("task", trouble=said.add(f"task {key}", error))


def _notes(entries: Sequence[Entry], prefix: str) -> Iterator[str]:
    left = sum(entry.total - len(entry.values) for entry in entries)
    if left:
        yield (
            f"{count(left, 'task')} left out: of each step those of the last runs are here (--history shows more), "
            f"and of one run {TASKS:,}"
        )
    yield "Artifacts whose names begin with _ are Metaflow's own, and left out; sizes are those of pickles"
    if prefix:
        yield f"Only steps whose names begin with {prefix} are listed; bytes are those of the whole root"
