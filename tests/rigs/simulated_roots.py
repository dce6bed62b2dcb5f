"""Datastore roots of stock Metaflow on a simulated S3, where requests are counted: runs with the files that Metaflow
writes of them there, as old as is asked for."""

import contextlib
import gzip
import hashlib
import json
import time
from collections import Counter

from mfstore.backends.s3.backend import S3Backend
from mfstore.maintenance.metaflow import root as roots
from mfstore.maintenance.metaflow.root import Root
from mfstore.metaflow.roots.outcome import FALSE_KEYS, TRUE_KEYS
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client

URL = "s3://b/mf"
STEPS = ("start", "train", "end")
LOGS = ("runtime", "task_stdout.log", "task_stderr.log", "runtime_stdout.log", "runtime_stderr.log")


class SimulatedRoot:
    """A root at ``URL``, while it is ``patched`` in."""

    def __init__(self):
        self.world = SimulatedS3(clock=time.time)

    def backend(self, url):
        world = self.world

        class Simulated(S3Backend):
            def make_client(self, options):
                return simulated_client(world)

        return Simulated(url)

    @contextlib.contextmanager
    def opened(self, monkeypatch):
        """The root, as maintenance has it."""
        with monkeypatch.context() as patched:
            patched.setattr(roots, "remote_backend", self.backend)
            found = Root(URL)
            try:
                yield found
            finally:
                found.close()

    @contextlib.contextmanager
    def counted(self):
        """How often each operation was asked for within this."""
        before = len(self.world.log)
        found = Counter()
        yield found
        found.update(operation for operation, _ in self.world.log[before:])

    def put(self, key, data, age):
        self.world.objects[f"mf/{key}"] = data
        self.world.modified[f"mf/{key}"] = float(int(time.time() - age))

    def blob(self, flow, value, age=0.0):
        data = json.dumps(value).encode()
        key = hashlib.sha1(data).hexdigest()
        if f"mf/{flow}/data/{key[:2]}/{key}" not in self.world.objects:
            self.put(f"{flow}/data/{key[:2]}/{key}", gzip.compress(data, 1, mtime=0), age)
        return key

    def run(self, flow, run, age=0.0, *, steps=STEPS, well=True, ended=True, own=2, logs=LOGS):
        """A run, each task of which has ``own`` artifacts of its own and two that all runs of the flow share."""
        for number, step in enumerate(steps):
            place = f"{flow}/{run}/{step}/{number + 1}/0."
            keys = {f"own{n}": self.blob(flow, [run, step, n], age) for n in range(own)}
            keys |= {name: self.blob(flow, [flow, name], age) for name in ("name", "shared")}
            keys["_task_ok"] = keys["_success"] = min(TRUE_KEYS if well else FALSE_KEYS)
            self.put(f"{place}attempt.json", b'{"time": 1}', age)
            self.put(f"{place}task_begin", json.dumps({"code_package_sha": None, "run": run}).encode(), age)
            if not ended and step == steps[-1]:
                return
            infos = {name: {"size": 4, "type": "<class 'list'>", "encoding": "gzip+pickle-v4"} for name in keys}
            document = {"datastore": "s3", "version": "1.0", "attempt": 0, "objects": keys, "info": infos}
            self.put(f"{place}data.json", json.dumps(document).encode(), age)
            for name in (*logs, "DONE.lock"):
                self.put(f"{place}{name}", b"", age)

    def forget(self):
        """What collections remember."""
        for key in [key for key in self.world.objects if key.startswith("mf/mf.maintenance/known/")]:
            del self.world.objects[key]

    def under(self, prefix):
        """Keys below the root that begin with this."""
        return sorted(key[3:] for key in self.world.objects if key.startswith(f"mf/{prefix}"))
