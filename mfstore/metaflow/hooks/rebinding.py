"""All that is rebound in Metaflow's own modules and classes, and for which releases that was written.

A method is rebound only if it takes the arguments that it takes in one of these releases, and its class has the
attributes that are used. What of it would not work alone is rebound together or not at all. What is not stays
Metaflow's own, and a note says so: storages work without the content-addressed store, and both without the rest.

Each process of a flow imports this module. So what is rebound for buckets alone is imported when it is called there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from importlib import import_module
from inspect import CO_VARARGS, CO_VARKEYWORDS
from typing import Any

from metaflow.datastore import flow_datastore
from metaflow.version import metaflow_version

from mfstore.host.forks import IMPORTING
from mfstore.metaflow.process_state import process_state
from mfstore.metaflow.stock.content_store import ContentStore
from mfstore.records import NamedTuple

OLDEST, NEWEST = (2, 14), (2, 19)
"""The first and the last minor release of Metaflow that mfstore was tried with."""
TESTED = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"

BLOBS = "storing blobs"
OPENING = "opening tasks"
ARTIFACTS = "saving and loading artifacts"
MARKS = "writing marks"
CACHE = "caching for the Client"
FOREACH = "finding the item of a foreach"


class ReboundMethod(NamedTuple):
    """One method of one of Metaflow's classes."""

    owner: str
    """The class, by its full name."""
    name: str
    parameters: tuple[tuple[str, ...], ...]
    """What it takes: in 2.19, and in earlier releases if that was something else. Empty: releases before had none."""
    uses: tuple[str, ...]
    """Attributes of the class, or of its instances, that the replacement uses."""
    what: str
    """What stays Metaflow's own if it does not fit. All methods with the same are rebound, or none of them."""
    replace: Callable[[Any], Any] | None = None
    """From the original to what takes its place; None: it is one of what ``ContentStore`` overrides."""

    def fits(self) -> bool:
        """Whether the method of the installed Metaflow is as it was written for; also once it was replaced."""
        owner = self.found_owner()
        method: Any = getattr(owner, self.name, None)
        if method is None:
            return owner is not None and () in self.parameters
        return _parameters(method) in self.parameters and _has(owner, method, self.uses)

    def found_owner(self) -> Any:
        """The class, None where it is gone."""
        module, _, name = self.owner.rpartition(".")
        try:
            return getattr(import_module(module), name, None)
        except ImportError:
            return None


def _code(function: Any) -> Any:
    """The code of a function, of a replaced one that of the original; None if it has none."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return getattr(function, "__code__", None)


def _parameters(method: Any) -> tuple[str, ...] | None:
    """The names that a method takes, None if that cannot be said."""
    code = _code(method)
    if code is None or code.co_flags & (CO_VARARGS | CO_VARKEYWORDS):
        return None
    names: tuple[str, ...] = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return names


def _has(owner: Any, method: Any, names: Iterable[str]) -> bool:
    """Whether these are what instances are given when they are made, what the method itself uses, or what the class
    has."""
    made, used = (getattr(_code(one), "co_names", ()) for one in (owner.__init__, method))
    return all(name in made or name in used or hasattr(owner, name) for name in names)


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


def _in_bucket(module: str, name: str, elsewhere: Callable[[Any], object] | None = None) -> Callable[[Any], Any]:
    """What replaces a method with what ``name`` of a module of the hooks makes of it, for storages in a bucket. For
    others ``elsewhere`` gets what the method gives."""

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


def _of_task(name: str) -> Callable[[Any], Any]:
    """What replaces a method with what ``name`` of the hooks of tasks makes of it."""
    return lambda original: getattr(import_module("mfstore.metaflow.hooks.task_datastore"), name)(original)


def _rely_on_bundles(task: Any) -> None:
    from mfstore.metaflow.hooks.task_datastore import rely_on_bundles

    rely_on_bundles(task)


CONTENT = "metaflow.datastore.content_addressed_store.ContentAddressedStore"
FLOW = "metaflow.datastore.flow_datastore.FlowDataStore"
TASK = "metaflow.datastore.task_datastore.TaskDataStore"
OPENED_WITH = ("self", "run_id", "step_name", "task_id", "attempt", "data_metadata", "mode", "allow_not_done")
LISTED_WITH = ("self", "run_id", "steps", "pathspecs", "allow_not_done", "attempt", "include_prior", "mode")
SPIN = ("join_type", "orig_flow_datastore", "spin_artifacts")
OF_FLOW = ("flow_name", "datastore_root", "ca_store", "_storage_impl")
OF_TASK = (
    "TYPE", "_attempt", "_ca_store", "_info", "_is_done_set", "_mode", "_objects", "_parent", "_path", "_run_id",
    "_step_name", "_storage_impl",
)  # fmt: skip

METHODS = (
    ReboundMethod(CONTENT, "__init__", (("self", "prefix", "storage_impl"),), ("_prefix", "_storage_impl"), BLOBS),
    ReboundMethod(
        CONTENT,
        "save_blobs",
        (("self", "blob_iter", "raw", "len_hint", "is_transfer"), ("self", "blob_iter", "raw", "len_hint")),
        ("save_blobs_result",),
        BLOBS,
    ),
    ReboundMethod(
        CONTENT,
        "load_blobs",
        (("self", "keys", "force_raw", "is_transfer"), ("self", "keys", "force_raw")),
        ("_blob_cache",),
        BLOBS,
    ),
    ReboundMethod(
        FLOW,
        "get_task_datastore",
        ((*OPENED_WITH, *SPIN, "persist"), OPENED_WITH),
        OF_FLOW,
        OPENING,
        _in_bucket("flow_datastore", "get_task_datastore", _rely_on_bundles),
    ),
    ReboundMethod(
        FLOW,
        "get_task_datastores",
        ((*LISTED_WITH, *SPIN), LISTED_WITH),
        OF_FLOW,
        OPENING,
        _in_bucket("flow_datastore", "get_task_datastores"),
    ),
    ReboundMethod(TASK, "load_artifacts", (("self", "names"),), OF_TASK, ARTIFACTS, _of_task("load_artifacts")),
    ReboundMethod(
        TASK,
        "save_artifacts",
        (("self", "artifacts_iter", "len_hint"),),
        OF_TASK,
        ARTIFACTS,
        _of_task("save_artifacts"),
    ),
    ReboundMethod(TASK, "get", (("self", "name", "default"),), OF_TASK, ARTIFACTS, _of_task("get")),
    ReboundMethod(
        TASK,
        "transfer_artifacts",
        (("self", "other_datastore", "names"), ()),
        OF_TASK,
        ARTIFACTS,
        _of_task("transfer_artifacts"),
    ),
    ReboundMethod(
        TASK,
        "save_metadata",
        (("self", "contents", "allow_overwrite", "add_attempt"),),
        ("_is_done_set", "_storage_impl"),
        MARKS,
        _in_bucket("marks", "save_metadata"),
    ),
    ReboundMethod(
        "metaflow.client.filecache.FileCache",
        "create_file",
        (("self", "path", "value"),),
        ("_objects", "_total", "_index_objects", "_garbage_collect"),
        CACHE,
        _at_first_call("client_cache", "create_file"),
    ),
    ReboundMethod(
        "metaflow.flowspec.FlowSpec",
        "_find_input",
        (("self", "stack_index"),),
        ("_foreach_stack", "_cached_input", "_datastore"),
        FOREACH,
        _at_first_call("foreach", "find_input"),
    ),
)
RELY_ON_BLOBS = (OPENING, ARTIFACTS)
"""These use what only ``ContentStore`` has."""


def is_tested(version: str) -> bool:
    """Whether a release of Metaflow (``2.19.39``, ``2.19.39.1``) is of a line that mfstore was tried with."""
    numbers = [int(number) for number in version.split(".")[:2] if number.isdecimal()]
    return OLDEST <= tuple(numbers) <= NEWEST


def kept(methods: Sequence[ReboundMethod]) -> list[str]:
    """What of this stays Metaflow's own, in the order of the table."""
    found = {method.what for method in methods if not method.fits()}
    if BLOBS in found:
        found.update(RELY_ON_BLOBS)
    return [what for what in dict.fromkeys(method.what for method in methods) if what in found]


def install() -> None:
    """Have Metaflow use all this, from now on and in this process. Does nothing the second time; a thread that comes
    while another one is at it waits until all is rebound."""
    with IMPORTING:
        if _done:
            return
        left = kept(METHODS)
        _rebind(method for method in METHODS if method.what not in left)
        if BLOBS not in left:
            flow_datastore.ContentAddressedStore = ContentStore
        _done.append(True)
        if text := release_note(left):
            from mfstore.metaflow.hooks.notes import say

            say(text)


def release_note(left: Sequence[str]) -> str:
    """What is to be said of the installed Metaflow, of which ``left`` is kept; empty: nothing."""
    tested = "" if is_tested(metaflow_version) else TESTED
    if not left and not tested:
        return ""
    from mfstore.metaflow.hooks.notes import note

    return note(metaflow_version, tested, left, ARTIFACTS in left and process_state().knobs.profile == "packed")


_done: list[bool] = []


def _rebind(methods: Iterable[ReboundMethod]) -> None:
    for method in methods:
        owner = method.found_owner()
        original = getattr(owner, method.name, None)
        if method.replace is not None and original is not None:
            setattr(owner, method.name, method.replace(original))
