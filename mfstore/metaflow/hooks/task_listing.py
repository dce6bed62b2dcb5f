"""Finding tasks in a bucket by listing them: one request for what stock Metaflow asks in four to eighteen.

S3 (since 2020), Azure and Google Cloud list what has been stored, so a listing knows as much as probing every name.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from metaflow.datastore.exceptions import DataException

from mfstore.metaflow.hooks.task_data import load_task_data
from mfstore.metaflow.roots.attempts import DATA, Attempts, attempts_of, readable
from mfstore.metaflow.stock.bucket_blobs import BucketBlobs
from mfstore.records import NamedTuple

NAMES_PER_LISTING = 1000
"""Names in a page of a listing, which is one request."""

ListedName = tuple[str, str, float]
"""Path below the root, ETag, and time in seconds since the epoch."""


class TaskQuery(NamedTuple):
    """Which attempts of which tasks of a flow are wanted."""

    flow: str
    run: str | None
    steps: Sequence[str] | None
    """Of ``run``; None: all of them."""
    pathspecs: Sequence[str] | None
    """``run/step/task``, perhaps with ``/attempt``; then ``run`` and ``steps`` do not count."""
    attempts: range
    """Where a pathspec does not say which."""
    allow_not_done: bool
    include_prior: bool


class FoundAttempt(NamedTuple):
    """An attempt to be read."""

    task: str
    """``flow/run/step/task``."""
    attempt: int | None
    data: Mapping[str, Any]
    """What its ``data.json`` says. Each its own: Metaflow adds to it."""


class TaskListing:
    """The tasks of one flow datastore of Metaflow's, whose files are ``blobs``."""

    def __init__(self, flow_datastore: Any, blobs: BucketBlobs) -> None:
        self._content_store = flow_datastore.ca_store
        self._full_uri = flow_datastore._storage_impl.full_uri
        self._root: str = flow_datastore._storage_impl.url.rstrip("/")
        self._blobs = blobs

    def find(self, task: str, attempt: int | None, allow_not_done: bool) -> FoundAttempt:
        """The attempt to read of one task, by the rules of TaskDataStore. DataException when there is none."""
        found = self._attempts_in([task]).get(task, Attempts())
        chosen = found.latest if attempt is None else attempt
        if chosen in found.done:
            return FoundAttempt(task, chosen, self._data({task: found}, [(task, chosen)])[task, chosen])
        beyond = attempt is not None and (found.latest is None or attempt > found.latest)
        if not beyond and (chosen is None or not allow_not_done):
            raise self._not_done(task, chosen)
        return FoundAttempt(task, chosen, _no_data())

    def find_many(self, query: TaskQuery) -> list[FoundAttempt]:
        """The attempts to read of many tasks, by the rules of FlowDataStore; tasks without one are left out."""
        if query.pathspecs:
            wanted = _wanted(query.flow, query.pathspecs, query.attempts)
            tasks = self._attempts_in([*wanted])
        else:
            run = f"{query.flow}/{query.run}"
            tasks = attempts_of(self._listed([f"{run}/{step}" for step in query.steps] if query.steps else [run]))
            wanted = dict.fromkeys(tasks, query.attempts)
        chosen = readable(tasks, wanted, query.allow_not_done, query.include_prior)
        data = self._data(tasks, [(task, number) for task, number in chosen if number in tasks[task].done])
        return [FoundAttempt(task, number, data.get((task, number)) or _no_data()) for task, number in chosen]

    def _attempts_in(self, tasks: Sequence[str]) -> dict[str, Attempts]:
        """The attempts of each of ``tasks``. Tasks of one step are listed together as long as that takes no more
        requests than one each."""
        steps: dict[str, list[str]] = defaultdict(list)
        for task in tasks:
            steps[task.rpartition("/")[0]].append(task)
        names: list[ListedName] = []
        single: list[str] = []
        for step, members in steps.items():
            most = len(members) * NAMES_PER_LISTING
            # Directory buckets list in no order, so that a listing cut short tells nothing.
            together = len(members) > 1 and not self._blobs.unordered
            listed = list(islice(self._listed([step]), most)) if together else []
            names += listed
            if not together or len(listed) == most:
                # The step has far more tasks than are wanted: those the listing did not come to are listed one by one.
                # In the order of Azure's hierarchical namespaces `t/` is before `t-1/`: who was not seen is asked, too.
                end = listed[-1][0].rpartition("/")[0] + "/" if listed else ""
                seen = {path.rpartition("/")[0] for path, _, _ in listed}
                single += [task for task in members if f"{task}/" >= end or task not in seen]
        if single:
            names += self._listed(single)
        found = attempts_of(names)
        return {task: found[task] for task in tasks if task in found}

    def _listed(self, folders: Sequence[str]) -> Iterator[ListedName]:
        for _, entry, path in self._blobs.list([f"{folder}/" for folder in folders]):
            yield path, (entry.etag or "").strip('"'), entry.modified or 0.0

    def _data(
        self, tasks: Mapping[str, Attempts], chosen: Iterable[tuple[str, int]]
    ) -> dict[tuple[str, int], dict[str, Any]]:
        """What the data.json of each chosen attempt says. DataException when a finished attempt has none."""
        paths = {(task, number): f"{task}/{number}.{DATA}" for task, number in chosen}
        listed = {
            path: tasks[task].data[number] for (task, number), path in paths.items() if number in tasks[task].data
        }
        loaded = load_task_data(self._blobs, self._root, {path: etag for path, (etag, _) in listed.items()})
        found = {}
        for (task, number), path in paths.items():
            if path not in loaded:
                raise DataException(f"Task {task} ended, but {self._full_uri(path)} does not exist")
            found[task, number] = loaded[path]
            if tasks[task].stored_its_own(task, number):
                keys = loaded[path].get("objects", {}).values()
                self._content_store.rely_on(keys, abs(time.time() - listed[path][1]))
        return found

    def _not_done(self, task: str, attempt: int | None) -> DataException:
        where = self._full_uri(task)
        if attempt is None:
            return DataException(f"No attempt of task {task} has been started: there is nothing below {where}/")
        return DataException(
            f"No completed attempts of task {task}: attempt {attempt}, the latest, started and did not end well "
            f"({where}/{attempt}.DONE.lock does not exist). It is still running, failed, or was killed: see its logs"
        )


def _no_data() -> dict[str, Any]:
    """What is known of an attempt that did not end."""
    return {"objects": {}, "info": {}}


def _wanted(flow: str, pathspecs: Sequence[str], attempts: range) -> dict[str, range]:
    """The tasks that pathspecs name, in their order, and which attempts of each."""
    wanted: dict[str, range] = {}
    for pathspec in pathspecs:
        parts = pathspec.strip("/").split("/")
        of_task = range(int(parts[3]), int(parts[3]) + 1) if len(parts) == 4 else attempts
        wanted["/".join((flow, *parts[:3]))] = of_task
    return wanted
