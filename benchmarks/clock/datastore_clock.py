"""The time a process spends inside calls of Metaflow's datastore, whoever implements it.

A call is one of what Metaflow's runtime, tasks and Client call: the methods of the flow and task datastores, of the
content-addressed store and of the storages, whichever classes are in use. Of calls within calls the outermost counts,
per thread. Pickling is part of saving an artifact, unpickling of loading it, on every side.
"""

import atexit
import functools
import inspect
import json
import os
import threading
import time
from pathlib import Path

STORAGE = ("is_file", "info_file", "size_file", "list_content", "save_bytes", "load_bytes")
SPECIAL = ("__init__", "__getitem__", "__iter__")


class Clock:
    """What the threads of this process add up to."""

    def __init__(self):
        self.seconds, self.calls = 0.0, 0
        self._thread, self._lock = threading.local(), threading.Lock()

    def inside(self, work):
        """``work()``, timed unless it is within another one that is."""
        if getattr(self._thread, "inside", False):
            return work()
        self._thread.inside, begin = True, time.perf_counter()
        try:
            return work()
        finally:
            self._thread.inside = False
            with self._lock:
                self.seconds += time.perf_counter() - begin
                self.calls += 1


CLOCK = Clock()


def timed(function):
    """The function; if it returns a generator, the time is that of producing the items."""

    @functools.wraps(function)
    def call(*args, **options):
        result = CLOCK.inside(lambda: function(*args, **options))
        return produced(result) if inspect.isgenerator(result) else result

    return call


def produced(generator):
    end = object()
    try:
        while (item := CLOCK.inside(lambda: next(generator, end))) is not end:
            yield item
    finally:
        generator.close()


def wrap(owner, names=None):
    for name, function in [*vars(owner).items()]:
        wanted = (
            name in names if names else not name.startswith("__") or name in ("__init__", "__getitem__", "__iter__")
        )
        if wanted and inspect.isfunction(function):
            setattr(owner, name, timed(function))


def install():
    """Measure from now on; at its end the process writes what it found to a file of its own."""
    from metaflow.datastore import datastore_set, flow_datastore, task_datastore
    from metaflow.plugins import DATASTORES

    if any(storage.__module__.startswith("mfstore.") for storage in DATASTORES):
        # Otherwise when the first storage is made: what would take the place of what is timed would not be.
        from mfstore.metaflow.hooks.rebinding import install as rebind

        rebind()
    owners = [flow_datastore.FlowDataStore, task_datastore.TaskDataStore, datastore_set.TaskDataStoreSet]
    for owner in (*owners, *flow_datastore.ContentAddressedStore.__mro__[:-1]):
        wrap(owner)
    for owner in {base for storage in DATASTORES if storage.TYPE in ("s3", "local") for base in storage.__mro__[:-1]}:
        wrap(owner, STORAGE)
    atexit.register(write)


def write():
    path = Path(os.environ["DATASTORE_CLOCK"], f"{os.getpid()}.json")
    path.write_text(json.dumps({"seconds": CLOCK.seconds, "calls": CLOCK.calls}))


def read(directory):
    """What all processes wrote: seconds, and calls."""
    found = [json.loads(path.read_text()) for path in Path(directory).glob("*.json")]
    return sum(one["seconds"] for one in found), sum(one["calls"] for one in found)
