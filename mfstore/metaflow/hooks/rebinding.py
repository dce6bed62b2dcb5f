"""All that is rebound in Metaflow's own modules and classes, and for which release that was written.

A method is rebound only if it takes the arguments that it takes in that release. Of another one it stays as it is: the
storages and the content-addressed store work without. What the replacements use of Metaflow besides are attributes of
its datastore classes, which tests/metaflow/hooks/test_rebinding.py looks for in the installed release.

Each process of a flow imports this module. So what is rebound for S3 alone is imported when it is called there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from inspect import CO_VARARGS, CO_VARKEYWORDS
from typing import Any

from metaflow.client.filecache import FileCache
from metaflow.datastore import flow_datastore
from metaflow.datastore.flow_datastore import FlowDataStore
from metaflow.datastore.task_datastore import TaskDataStore
from metaflow.flowspec import FlowSpec

from mfstore.host.forks import IMPORTING
from mfstore.metaflow.hooks.task_datastore import (
    get,
    load_artifacts,
    rely_on_bundles,
    save_artifacts,
    transfer_artifacts,
)
from mfstore.metaflow.stock.content_store import ContentStore
from mfstore.records import NamedTuple

RELEASE = "2.19"
"""Of Metaflow, whose methods these are."""


class ReboundMethod(NamedTuple):
    """One method of one of Metaflow's classes."""

    owner: type
    name: str
    parameters: tuple[str, ...]
    """What it takes in ``RELEASE``."""
    replace: Callable[[Any], Any]
    """From the original to what takes its place."""

    def fits(self) -> bool:
        """Whether the method of the installed Metaflow takes these parameters; also once it was replaced."""
        method: Any = getattr(self.owner, self.name, None)
        while hasattr(method, "__wrapped__"):
            method = method.__wrapped__
        code = getattr(method, "__code__", None)
        if code is None:
            return False  # gone, or no function
        count = code.co_argcount + code.co_kwonlyargcount
        return code.co_varnames[:count] == self.parameters and not code.co_flags & (CO_VARARGS | CO_VARKEYWORDS)


def _at_first_call(module: str, name: str) -> Callable[[Any], Any]:
    """What replaces a method with what ``name`` of a module of the hooks makes of it, which is imported when the method
    is called."""

    def replace(original: Any) -> Any:
        made: list[Any] = []

        @wraps(original)
        def method(self: Any, *args: Any, **named: Any) -> Any:
            if not made:
                made.append(getattr(import_module(f"mfstore.metaflow.hooks.{module}"), name)(original))
            return made[0](self, *args, **named)

        return method

    return replace


def _in_s3(module: str, name: str, elsewhere: Callable[[Any], object] | None = None) -> Callable[[Any], Any]:
    """What replaces a method with what ``name`` of a module of the hooks makes of it, for storages in S3. For others
    ``elsewhere`` gets what the method gives."""

    def replace(original: Any) -> Any:
        far = _at_first_call(module, name)(original)

        @wraps(original)
        def method(self: Any, *args: Any, **named: Any) -> Any:
            blobs = getattr(self._storage_impl, "blobs", None)
            if blobs is None or not blobs.remote:
                found = original(self, *args, **named)
                if blobs is not None and elsewhere is not None:
                    elsewhere(found)
                return found
            return far(self, *args, **named)

        return method

    return replace


METHODS = (
    ReboundMethod(
        FlowDataStore,
        "get_task_datastore",
        (
            "self", "run_id", "step_name", "task_id", "attempt", "data_metadata", "mode", "allow_not_done",
            "join_type", "orig_flow_datastore", "spin_artifacts", "persist",
        ),
        _in_s3("flow_datastore", "get_task_datastore", rely_on_bundles),
    ),
    ReboundMethod(
        FlowDataStore,
        "get_task_datastores",
        (
            "self", "run_id", "steps", "pathspecs", "allow_not_done", "attempt", "include_prior", "mode", "join_type",
            "orig_flow_datastore", "spin_artifacts",
        ),
        _in_s3("flow_datastore", "get_task_datastores"),
    ),
    ReboundMethod(TaskDataStore, "load_artifacts", ("self", "names"), load_artifacts),
    ReboundMethod(TaskDataStore, "save_artifacts", ("self", "artifacts_iter", "len_hint"), save_artifacts),
    ReboundMethod(TaskDataStore, "get", ("self", "name", "default"), get),
    ReboundMethod(
        TaskDataStore,
        "save_metadata",
        ("self", "contents", "allow_overwrite", "add_attempt"),
        _in_s3("marks", "save_metadata"),
    ),
    ReboundMethod(TaskDataStore, "transfer_artifacts", ("self", "other_datastore", "names"), transfer_artifacts),
    ReboundMethod(FileCache, "create_file", ("self", "path", "value"), _at_first_call("client_cache", "create_file")),
    ReboundMethod(FlowSpec, "_find_input", ("self", "stack_index"), _at_first_call("foreach", "find_input")),
)  # fmt: skip


def install() -> None:
    """Have Metaflow use all this, from now on and in this process. Does nothing the second time; a thread that comes
    while another one is at it waits until all is rebound."""
    with IMPORTING:
        if flow_datastore.ContentAddressedStore is ContentStore:
            return
        flow_datastore.ContentAddressedStore = ContentStore
        for method in METHODS:
            if method.fits():
                setattr(method.owner, method.name, method.replace(getattr(method.owner, method.name)))
