"""What is rebound of Metaflow's ``FlowDataStore``: how the tasks of a flow are opened in a bucket.

Each function here takes the original method and gives what takes its place.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

from metaflow import metaflow_config
from metaflow.datastore.exceptions import DataException

from mfstore.metaflow.errors import data_errors

if TYPE_CHECKING:
    from mfstore.metaflow.hooks.task_listing import TaskListing


def get_task_datastore(original: Any) -> Any:
    """``FlowDataStore.get_task_datastore`` that finds the attempt, and what it has, by listing the task."""
    signature = inspect.signature(original)

    @wraps(original)
    def get_task_datastore(*args: Any, **named: Any) -> Any:
        if named.get("data_metadata") is not None:
            return original(*args, **named)  # as the Client does for each artifact: binding takes longer than all else
        call = signature.bind(*args, **named)
        call.apply_defaults()
        given = call.arguments
        flow = given["self"]
        listing = _listing(flow)
        reads = given["mode"] == "r" and given["data_metadata"] is None and given.get("orig_flow_datastore") is None
        if listing is not None and reads and not _is_cached(flow, given):
            task = "/".join((flow.flow_name, given["run_id"], given["step_name"], given["task_id"]))
            try:
                with data_errors():
                    found = listing.find(task, given["attempt"], given["allow_not_done"])
            except DataException as error:
                from mfstore.metaflow.hooks.removed_runs import told_of_removal

                raise told_of_removal(flow._storage_impl, f"{flow.flow_name}/{given['run_id']}", error) from error
            given["attempt"], given["data_metadata"] = found.attempt, found.data
        return original(*call.args, **call.kwargs)

    return get_task_datastore


def _is_cached(flow: Any, given: Mapping[str, Any]) -> bool:
    """Whether the client's cache has it: then the original takes it from there. What the cache has not, the original
    puts there."""
    if getattr(flow, "_metadata_cache", None) is None or given["attempt"] is None or given["allow_not_done"]:
        return False
    task = given["run_id"], given["step_name"], given["task_id"], given["attempt"]
    return flow._metadata_cache.load_metadata(*task) is not None


def get_task_datastores(original: Any) -> Any:
    """``FlowDataStore.get_task_datastores`` that lists the tasks of a step together."""
    signature = inspect.signature(original)

    @wraps(original)
    def get_task_datastores(*args: Any, **named: Any) -> Any:
        call = signature.bind(*args, **named)
        call.apply_defaults()
        given = call.arguments
        flow = given["self"]
        listing = _listing(flow)
        if listing is None:
            return original(*call.args, **call.kwargs)
        from mfstore.metaflow.hooks.joins import FEWEST_INPUTS, JoinInputs
        from mfstore.metaflow.hooks.task_listing import TaskQuery

        attempts = _attempts(given["attempt"], given["include_prior"])
        query = TaskQuery(
            flow.flow_name, given["run_id"], given["steps"], given["pathspecs"], attempts, given["allow_not_done"],
            given["include_prior"],
        )  # fmt: skip
        with data_errors():
            found = listing.find_many(query)
        as_given = ("mode", "allow_not_done", "join_type", "orig_flow_datastore", "spin_artifacts")
        options = {name: given[name] for name in as_given if name in given}
        opened = [flow.get_task_datastore(*one.task.split("/")[1:4], one.attempt, one.data, **options) for one in found]
        if len(opened) >= FEWEST_INPUTS:
            inputs = JoinInputs(opened)
            for task in opened:
                task.mfstore_join_inputs = inputs
        return opened

    return get_task_datastores


def _attempts(attempt: int | None, include_prior: bool) -> range:
    every = metaflow_config.MAX_ATTEMPTS
    if attempt is None or attempt >= every:
        return range(every)
    return range(attempt + 1) if include_prior else range(attempt, attempt + 1)


def _listing(flow: Any) -> TaskListing | None:
    """The tasks of a flow datastore in which they are found by listing."""
    blobs = getattr(flow._storage_impl, "blobs", None)
    if blobs is None or not blobs.remote:
        return None
    # Local flows need not import what a bucket takes.
    from mfstore.metaflow.hooks.task_listing import TaskListing
    from mfstore.metaflow.stock.bucket_blobs import BucketBlobs

    return TaskListing(flow, blobs) if isinstance(blobs, BucketBlobs) else None
