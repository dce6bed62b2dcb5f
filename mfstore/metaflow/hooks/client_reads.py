"""What Metaflow's Client is expected to ask next, read ahead: it asks for one artifact at a time, a round trip each.

Two habits are expected to go on. Who asks a second task of a step for what another one was asked for goes through the
tasks of that step, and wants of each what the one before was asked for. Who asks a task for a second artifact goes
through its artifacts. Both go on in the order in which the Client itself gives tasks and artifacts.

Nothing is unpickled ahead. Blobs go where the Client keeps those that were asked for, a file each; bundles and what is
read of packs are held in memory. Which attempt of a task counts only its metadata tells. Of tasks that come the first
one is taken: what that does not have is read when it is asked for, as is all that could not be read ahead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any

from metaflow import metaflow_config
from metaflow.datastore.exceptions import DataException

from mfstore.host.forks import anew_in_children
from mfstore.metaflow.hooks.task_data import parsed_task_data
from mfstore.metaflow.roots.attempts import DATA
from mfstore.metaflow.roots.packed_keys import bundle_of, is_inline, is_packed

if TYPE_CHECKING:
    from mfstore.metaflow.stock.blob_storage import StoredBlob

FIRST_ITEMS = 8
"""Tasks, or artifacts of one task, that are read at first."""
GROWTH = 4
"""Each further time it is so many times as many, so that 500 take four times. Of what takes little that costs who stops
some requests; of what takes much, bytes are what limits it: where they do, it stays as many."""
MOST_ITEMS = 512
"""Which are worth far more than a round trip. Of tasks each takes a request to learn what it has, and memory."""
UNASKED_BYTES = 1 << 20
"""Bytes that may have been read and not asked for, however few were asked for. 1 MiB takes as long as a round trip of
20 ms at 50 MB/s: what is less is not worth to be waited for."""
AHEAD_BYTES = 64 << 20
"""Most bytes that may have been read and not asked for. What is beyond is worth its own request."""
STEPS = 16
"""Steps, of those that were asked about last, whose tasks are remembered. Who goes through more at a time has nothing
read ahead."""

Artifact = tuple[str, str]
"""A task, and a name in it."""


class _Stored:
    """What the ``data.json`` of a task says of one artifact."""

    __slots__ = ("info", "key", "name", "size")

    def __init__(self, name: str, key: str, info: Mapping[str, Any]) -> None:
        self.name = name
        self.key = key
        self.info = info
        self.size = int(info.get("size") or 0)


class ClientReads:
    """What is asked of the tasks of one flow datastore. Threads that share it wait for what one of them reads: most
    likely it is what they are about to ask for."""

    def __init__(self) -> None:
        self._steps: dict[tuple[str, str], _StepReads] = {}
        self.forked()
        anew_in_children(self)

    def forked(self) -> None:
        """A lock anew."""
        self._lock = Lock()

    def expect(self, task: Any, name: str) -> None:
        """An artifact is about to be loaded. Load more, if more will be asked for."""
        if is_inline(task._objects.get(name, "")):
            return
        step = task._run_id, task._step_name
        with self._lock:
            reads = self._steps.pop(step, None) or _StepReads()
            self._steps[step] = reads
            if len(self._steps) > STEPS:
                self._steps.pop(next(iter(self._steps)))
            reads.expect(task, name)


class _StepReads:
    """What is asked of the tasks of one step."""

    def __init__(self) -> None:
        self._task = ""
        """Asked last."""
        self._of_task: dict[str, None] = {}
        """What it was asked for."""
        self._of_others: dict[str, None] = {}
        """What the task before was asked for."""
        self._tasks: dict[str, int] | None = None
        """Where the Client has each task; None: nobody has looked."""
        self._names: dict[str, int] | None = None
        """Likewise each artifact of the task asked last."""
        self._known: dict[str, dict[str, _Stored]] = {}
        """What tasks have that were looked at."""
        self._settled: set[Artifact] = set()
        """What was asked for or read ahead, or was looked for and is not there."""
        self._unasked: dict[Artifact, int] = {}
        """Of what was read ahead and not asked for: its bytes."""
        self._asked_bytes = 0
        self._next_tasks = self._next_names = FIRST_ITEMS
        self._fails = False

    def expect(self, task: Any, name: str) -> None:
        """An artifact is about to be loaded."""
        number = task._task_id
        if number != self._task:
            self._known.pop(self._task, None)
            self._task, self._of_others, self._of_task = number, self._of_task, {}
            self._names = None
        goes_on, others = name in self._of_others, bool(self._of_task)
        self._of_task[name] = None
        asked = number, name
        if asked in self._settled:
            self._asked_bytes += self._unasked.pop(asked, 0)
            return
        self._settled.add(asked)
        if self._fails:
            return
        try:
            if goes_on and (first := self._place(task)) is not None:
                self._read_tasks(task, name, first)
            elif others:
                self._read_names(task, name)
        except Exception:
            # Whatever it is, it is met again by who needs what could not be read.
            self._fails = True

    def _place(self, task: Any) -> int | None:
        """Where the Client has the task; None for one that is newer than the look at them."""
        if self._tasks is None:
            self._tasks = _places(_tasks_of(task))
        return self._tasks.get(task._task_id)

    def _read_tasks(self, task: Any, name: str, first: int) -> None:
        """Read of the next tasks what the one before was asked for."""
        assert self._tasks is not None
        # Those of the time after this one too, which spares it a round trip.
        coming = [*islice(self._tasks, first, first + (1 + GROWTH) * self._next_tasks)]
        numbers = coming[: self._next_tasks]
        # Of this one what is asked for is settled, and not read yet.
        unknown = [one for one in coming if one == task._task_id or not self._is_settled(one)]
        unknown = [one for one in unknown if one not in self._known]
        if not {*numbers}.isdisjoint(unknown):
            self._look(task, unknown)
        expected = [(number, one) for number in numbers for one in self._of_others]
        if self._read(task, name, expected):
            self._next_tasks = min(GROWTH * self._next_tasks, MOST_ITEMS)
        for number in numbers:
            if self._is_settled(number):
                self._known.pop(number, None)

    def _is_settled(self, number: str) -> bool:
        """Whether nothing more is expected of a task."""
        return all((number, one) in self._settled for one in self._of_others)

    def _read_names(self, task: Any, name: str) -> None:
        """Read what the task will be asked for next."""
        number = task._task_id
        if self._names is None:
            self._names = _places(_names_of(task))
            self._next_names = FIRST_ITEMS
            self._look_well(task, name)
        first = self._names.get(name, len(self._names))
        names = islice(self._names, first, first + self._next_names)
        if self._read(task, name, [(number, one) for one in names]):
            self._next_names = min(GROWTH * self._next_names, MOST_ITEMS)

    def _look(self, task: Any, numbers: Sequence[str]) -> None:
        """Learn what tasks of the step have."""
        folder = task._path.rpartition("/")[0]
        paths = {f"{folder}/{number}/0.{DATA}": number for number in numbers}
        for path, stored in task._storage_impl.blobs.read([*paths]):
            self._known[paths[path]] = _artifacts(path, stored)

    def _look_well(self, task: Any, name: str) -> None:
        """Learn what a task has: by the attempt that has what the Client knows."""
        paths = [f"{task._path}/{attempt}.{DATA}" for attempt in range(metaflow_config.MAX_ATTEMPTS)]
        for path, stored in task._storage_impl.blobs.read(paths):
            found = _artifacts(path, stored)
            if name in found and found[name].key == task._objects[name]:
                self._known[task._task_id] = found

    def _read(self, task: Any, name: str, expected: Sequence[Artifact]) -> bool:
        """Read ``name`` of ``task`` and, as far as that is little enough, what is expected besides. True if that was
        all of it."""
        wanted: list[_Stored] = []
        all_fits = True
        asked = self._known.get(task._task_id, {}).get(name)
        if asked is not None and asked.key == task._objects[name]:
            wanted.append(asked)
            self._asked_bytes += asked.size
        left = min(max(UNASKED_BYTES, self._asked_bytes), AHEAD_BYTES) - sum(self._unasked.values())
        for artifact in expected:
            if artifact in self._settled:
                continue
            found = self._known.get(artifact[0], {}).get(artifact[1])
            if found is None or is_inline(found.key):
                self._settled.add(artifact)
            elif found.size <= left:
                left -= found.size
                wanted.append(found)
                self._settled.add(artifact)
                self._unasked[artifact] = found.size
            else:
                all_fits = False
        if len(wanted) > 1:
            _load_ahead(task, wanted)
        return all_fits


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


def _artifacts(path: str, stored: StoredBlob | None) -> dict[str, _Stored]:
    """What a ``data.json`` says of each artifact, by its name; nothing when it is not there."""
    document = {} if stored is None else parsed_task_data(path, stored.data)
    infos = document.get("info", {})
    return {name: _Stored(name, key, infos.get(name, {})) for name, key in document.get("objects", {}).items()}


def _tasks_of(task: Any) -> list[str]:
    """The tasks of a task's step, as the Client gives them."""
    from metaflow.client.core import Step

    return [one.id for one in Step(task._path.rpartition("/")[0], _namespace_check=False)]


def _names_of(task: Any) -> list[str]:
    """The artifacts of a task, as the Client gives them."""
    from metaflow.client.core import Task

    return [one.id for one in Task(task._path, _namespace_check=False)]


def _load_ahead(task: Any, wanted: Sequence[_Stored]) -> None:
    keys = [found.key for found in wanted if not is_packed(found.info)]
    bundles: dict[str, list[str]] = {}
    for found in wanted:
        bundle = bundle_of(found.info) if is_packed(found.info) else None
        if bundle is not None:
            bundles.setdefault(bundle, []).append(found.name)
    if keys:
        with suppress(DataException):
            for _ in task._ca_store.load_blobs(keys):
                pass  # it is in the Client's cache now
    if bundles:
        from mfstore.metaflow.packed.store import load_parts_ahead

        load_parts_ahead(task._storage_impl.url, bundles)
