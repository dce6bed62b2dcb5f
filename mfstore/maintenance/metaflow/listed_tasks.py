"""The tasks that a listing shows, of which there may be millions: beyond some, those of a run are kept as a few bytes a
file, and made again when they are asked for."""

from __future__ import annotations

import marshal
import zlib
from array import array
from collections.abc import Container, ItemsView, Iterator, MutableMapping
from itertools import islice
from typing import TYPE_CHECKING

from mfstore.backends.base import ObjectInfo
from mfstore.maintenance.metaflow.listed_digests import restored, shortened
from mfstore.metaflow.roots.layout import ParsedPath, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

TaskName = tuple[str, str, str, str]
"""Flow, run, step and task."""
Run = tuple[str, str]
OPEN_FILES = 300_000
"""Files that are kept as they are, 0.5 kB each. To make those of a run again takes as long as to list them did."""
OPEN_RUNS = 64
"""Of the runs that came last some stay open: a listing of many parts goes on with one or the other."""
_OfRun = dict[tuple[str, str], Task]
"""The tasks of a run, by step and task."""


class TaskTable(MutableMapping[TaskName, Task]):
    """Tasks by name, run by run in the order in which runs were first seen. A task that is taken out of it and changed
    is not changed in it."""

    __slots__ = ("_files", "_last", "_open", "_runs")

    def __init__(self) -> None:
        self._runs: dict[Run, _OfRun | bytes] = {}
        self._open: dict[Run, None] = {}
        self._files = 0
        """Of the runs that are open."""
        self._last: tuple[Run, _OfRun] = ("", ""), {}
        """The run that was made last, to be asked for its next task."""

    @property
    def runs(self) -> list[Run]:
        """Every run that has tasks."""
        return list(self._runs)

    def add(self, path: ParsedPath, info: ObjectInfo) -> None:
        """Count one file of a task."""
        tasks = self._opened((path.flow, path.run))
        task = tasks.get((path.step, path.task))
        if task is None:
            task = tasks[path.step, path.task] = Task()
        task.add(path, info)
        self._files += 1
        if self._files > OPEN_FILES:
            self._close()

    def _opened(self, run: Run) -> _OfRun:
        tasks = self._runs.get(run)
        if isinstance(tasks, dict):
            return tasks
        tasks = {} if tasks is None else decode_run(run, tasks)
        self._last = ("", ""), {}  # it may change from here on
        self._files += sum(len(task.files) for task in tasks.values())
        self._runs[run] = tasks
        self._open[run] = None
        return tasks

    def _close(self) -> None:
        for run in list(self._open)[:-OPEN_RUNS]:
            tasks = self._runs[run]
            assert isinstance(tasks, dict)
            self._runs[run] = encode_run(tasks)
            del self._open[run]
        self._files = sum(len(task.files) for run in self._open for task in self._tasks(run).values())

    def _tasks(self, run: Run) -> Mapping[tuple[str, str], Task]:
        tasks = self._runs[run]
        if isinstance(tasks, dict):
            return tasks
        last = self._last  # threads may ask
        if last[0] != run:
            last = self._last = run, decode_run(run, tasks)
        return last[1]

    def __getitem__(self, name: TaskName) -> Task:
        return self._tasks(name[:2])[name[2:]]

    def __setitem__(self, name: TaskName, task: Task) -> None:
        self._opened(name[:2])[name[2:]] = task

    def __delitem__(self, name: TaskName) -> None:
        if name[:2] not in self._runs:
            raise KeyError(name)
        tasks = self._opened(name[:2])
        del tasks[name[2:]]
        if not tasks:
            del self._runs[name[:2]], self._open[name[:2]]

    def __iter__(self) -> Iterator[TaskName]:
        for run in self._runs:
            for place in self._tasks(run):
                yield run + place

    def __len__(self) -> int:
        return sum(len(self._tasks(run)) for run in self._runs)

    def __bool__(self) -> bool:
        return bool(self._runs)

    def items(self) -> ItemsView[TaskName, Task]:
        """Every task with its name."""
        return _Items(self)

    def of_flows(self, flows: Container[str]) -> Iterator[tuple[TaskName, Task]]:
        """Every task of some flows with its name."""
        for run in self._runs:
            if run[0] in flows:
                for place, task in self._tasks(run).items():
                    yield run + place, task

    def _pairs(self) -> Iterator[tuple[TaskName, Task]]:
        for run in self._runs:
            for place, task in self._tasks(run).items():
                yield run + place, task


class _Items(ItemsView[TaskName, Task]):
    """As any mapping's, without a look for each name."""

    _mapping: TaskTable

    def __iter__(self) -> Iterator[tuple[TaskName, Task]]:
        return self._mapping._pairs()


def encode_run(tasks: Mapping[tuple[str, str], Task]) -> bytes:
    """The tasks of a run in few bytes, column by column."""
    places, counts, names = [], [], []
    sizes, moments = array("q"), array("d")
    etags: list[str | bytes] = []
    for place, task in tasks.items():
        places.append(place)
        counts.append(len(task.files))
        for name, info in task.files.items():
            names.append(name)
            sizes.append(info.size)
            moments.append(info.modified)
            etags.append(shortened(info.etag))
    return zlib.compress(marshal.dumps((places, counts, names, sizes.tobytes(), moments.tobytes(), etags)), 1)


def decode_run(run: Run, data: bytes) -> _OfRun:
    """The tasks in what ``encode_run`` made."""
    places, counts, names, size_bytes, moment_bytes, etags = marshal.loads(zlib.decompress(data))
    sizes, moments = array("q", size_bytes), array("d", moment_bytes)
    tasks: _OfRun = {}
    rows = zip(names, sizes, moments, etags, strict=True)
    for place, count in zip(places, counts, strict=True):
        task = tasks[place] = Task()
        files = task.files
        folder = "/".join((*run, *place))
        for name, size, moment, etag in islice(rows, count):
            attempt, file = name
            key = f"{folder}/{file}" if attempt is None else f"{folder}/{attempt}.{file}"
            files[name] = ObjectInfo(key, size, moment, restored(etag))
        task.count_marks()
    return tasks
