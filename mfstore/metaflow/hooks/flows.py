"""What mfstore changes of Metaflow's ``FlowDataStore`` and ``TaskDataStore``: which store holds the blobs, how tasks
are opened on S3, and what errors name.

A release of Metaflow whose methods take other arguments keeps its own; the store and the storages work without these.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any

from metaflow import metaflow_config
from metaflow.datastore import flow_datastore
from metaflow.datastore.exceptions import DataException
from metaflow.datastore.task_datastore import TaskDataStore

from mfstore.metaflow.hooks.artifacts import get, load_artifacts, save_artifacts, transfer_artifacts
from mfstore.metaflow.hooks.failures import data_errors
from mfstore.metaflow.hooks.marks import save_metadata
from mfstore.metaflow.hooks.openings import attempts_below, attempts_in, load_data
from mfstore.metaflow.hooks.siblings import FEWEST, Siblings
from mfstore.metaflow.roots.attempts import DATA, Attempts, readable
from mfstore.metaflow.stock.content import ContentStore
from mfstore.metaflow.stock.s3_objects import S3Objects

FlowDataStore = flow_datastore.FlowDataStore
_ONE = (
    "self", "run_id", "step_name", "task_id", "attempt", "data_metadata", "mode", "allow_not_done", "join_type",
    "orig_flow_datastore", "spin_artifacts", "persist",
)  # fmt: skip
_MANY = (
    "self", "run_id", "steps", "pathspecs", "allow_not_done", "attempt", "include_prior", "mode", "join_type",
    "orig_flow_datastore", "spin_artifacts",
)  # fmt: skip


def install() -> None:
    """Have Metaflow use all this, from now on and in this process. Does nothing the second time."""
    if flow_datastore.ContentAddressedStore is ContentStore:
        return
    flow_datastore.ContentAddressedStore = ContentStore
    _replace(FlowDataStore, "get_task_datastore", _ONE, _open_one)
    _replace(FlowDataStore, "get_task_datastores", _MANY, _open_many)
    _replace(TaskDataStore, "load_artifacts", ("self", "names"), load_artifacts)
    _replace(TaskDataStore, "save_artifacts", ("self", "artifacts_iter", "len_hint"), save_artifacts)
    _replace(TaskDataStore, "get", ("self", "name", "default"), get)
    _replace(TaskDataStore, "save_metadata", ("self", "contents", "allow_overwrite", "add_attempt"), save_metadata)
    _replace(TaskDataStore, "transfer_artifacts", ("self", "other_datastore", "names"), transfer_artifacts)


def _replace(owner: type, name: str, parameters: Sequence[str], make: Callable[[Any], Any]) -> None:
    original = getattr(owner, name)
    if tuple(inspect.signature(original).parameters) == tuple(parameters):
        setattr(owner, name, make(original))


def _lists(store: Any) -> S3Objects | None:
    """The objects of a flow datastore whose tasks are opened by listing."""
    objects = getattr(store._storage_impl, "objects", None)
    return objects if isinstance(objects, S3Objects) else None


def _open_one(original: Any) -> Any:
    @wraps(original)
    def get_task_datastore(
        self: Any, run_id: str, step_name: str, task_id: str, attempt: int | None = None, data_metadata: Any = None,
        mode: str = "r", allow_not_done: bool = False, join_type: Any = None, orig_flow_datastore: Any = None,
        spin_artifacts: Any = None, persist: bool = True,
    ) -> Any:  # fmt: skip
        objects = _lists(self)
        if objects is not None and mode == "r" and data_metadata is None and orig_flow_datastore is None:
            cache = self._metadata_cache if attempt is not None and not allow_not_done else None
            # What the client's cache has, the original takes from there; what it has not, the original puts there.
            if cache is None or cache.load_metadata(run_id, step_name, task_id, attempt) is None:
                task = "/".join((self.flow_name, run_id, step_name, task_id))
                with data_errors():
                    attempt, data_metadata = _opened(self, objects, task, attempt, allow_not_done)
        return original(
            self, run_id, step_name, task_id, attempt, data_metadata, mode, allow_not_done, join_type,
            orig_flow_datastore, spin_artifacts, persist,
        )  # fmt: skip

    return get_task_datastore


def _opened(
    store: Any, objects: S3Objects, task: str, attempt: int | None, allow_not_done: bool
) -> tuple[int | None, Mapping[str, Any]]:
    """The attempt to read, and what its data.json says, by the rules of TaskDataStore."""
    found = attempts_in(objects, [task]).get(task, Attempts())
    chosen = found.latest if attempt is None else attempt
    if chosen in found.done:
        return chosen, _data(store, objects, {task: found}, [(task, chosen)])[task, chosen]
    beyond = attempt is not None and (found.latest is None or attempt > found.latest)
    if not beyond and (chosen is None or not allow_not_done):
        raise _not_done(store, task, chosen)
    return chosen, _nothing()


def _nothing() -> dict[str, Any]:
    """What is known of an attempt that did not end. Each task's own: Metaflow adds to it."""
    return {"objects": {}, "info": {}}


def _not_done(store: Any, task: str, attempt: int | None) -> DataException:
    where = store._storage_impl.full_uri(task)
    if attempt is None:
        return DataException(f"No attempt of task {task} has been started: there is nothing below {where}/")
    return DataException(
        f"No completed attempts of task {task}: attempt {attempt}, the latest, started and did not end well "
        f"({where}/{attempt}.DONE.lock does not exist). It is still running, failed, or was killed: see its logs"
    )


def _open_many(original: Any) -> Any:
    @wraps(original)
    def get_task_datastores(
        self: Any, run_id: str | None = None, steps: Sequence[str] | None = None,
        pathspecs: Sequence[str] | None = None, allow_not_done: bool = False, attempt: int | None = None,
        include_prior: bool = False, mode: str = "r", join_type: Any = None, orig_flow_datastore: Any = None,
        spin_artifacts: Any = None,
    ) -> Any:  # fmt: skip
        objects = _lists(self)
        if objects is None:
            return original(
                self, run_id, steps, pathspecs, allow_not_done, attempt, include_prior, mode, join_type,
                orig_flow_datastore, spin_artifacts,
            )  # fmt: skip
        every = metaflow_config.MAX_ATTEMPTS
        among = range(every)
        if attempt is not None and attempt < every:
            among = range(attempt + 1) if include_prior else range(attempt, attempt + 1)
        with data_errors():
            if pathspecs:
                wanted = _wanted(self.flow_name, pathspecs, among)
                tasks = attempts_in(objects, [*wanted])
            else:
                folders = [f"{self.flow_name}/{run_id}/{step}" for step in steps] if steps else None
                tasks = attempts_below(objects, folders or [f"{self.flow_name}/{run_id}"])
                wanted = dict.fromkeys(tasks, among)
            chosen = readable(tasks, wanted, allow_not_done, include_prior)
            data = _data(self, objects, tasks, [(task, n) for task, n in chosen if n in tasks[task].done])
        opened = [
            self.get_task_datastore(
                *task.split("/")[1:4], number, data.get((task, number)) or _nothing(), mode, allow_not_done, join_type,
                orig_flow_datastore, spin_artifacts,
            )
            for task, number in chosen
        ]  # fmt: skip
        if len(opened) >= FEWEST:
            siblings = Siblings(opened)
            for one in opened:
                one.mfstore_siblings = siblings
        return opened

    return get_task_datastores


def _wanted(flow: str, pathspecs: Sequence[str], among: range) -> dict[str, range]:
    """The tasks that pathspecs (``run/step/task``, perhaps with ``/attempt``) name, in their order."""
    wanted: dict[str, range] = {}
    for pathspec in pathspecs:
        parts = pathspec.strip("/").split("/")
        attempts = range(int(parts[3]), int(parts[3]) + 1) if len(parts) == 4 else among
        wanted["/".join((flow, *parts[:3]))] = attempts
    return wanted


def _data(
    store: Any, objects: S3Objects, tasks: Mapping[str, Attempts], chosen: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], dict[str, Any]]:
    """What the data.json of each chosen attempt says. DataException when a finished attempt has none."""
    paths = {(task, number): f"{task}/{number}.{DATA}" for task, number in chosen}
    listed = {path: tasks[task].data[number] for (task, number), path in paths.items() if number in tasks[task].data}
    etags = {path: etag for path, (etag, _) in listed.items()}
    loaded = load_data(objects, store.datastore_root.rstrip("/"), etags)
    found = {}
    for (task, number), path in paths.items():
        if path not in loaded:
            raise DataException(f"Task {task} ended, but {store._storage_impl.full_uri(path)} does not exist")
        found[task, number] = loaded[path]
        if tasks[task].stored_its_own(task, number):
            store.ca_store.rely_on(loaded[path].get("objects", {}).values(), abs(time.time() - listed[path][1]))
    return found
