"""A datastore root as processes of its own write and collect it, which may be killed at any moment.

python -m tests.rigs.live_root write|collect URL JOURNAL SEED

What was acknowledged goes into the journal, a line each: ``ended Flow/run``, ``held Flow/run``, ``removed Flow/run``;
and once ``began SEED SECONDS``, where the seed is when it was started. Times are those of production, hundreds of times
as fast.
"""

import json
import os
import random
import sys
import time
from contextlib import suppress
from unittest import mock

from mfstore import errors
from mfstore.holding import new_hold
from mfstore.maintenance.metaflow.collecting import liveness, set_aside, state
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.holds import hold_run
from mfstore.maintenance.metaflow.root import Root
from tests.rigs.clocked_roots import blob_key
from tests.rigs.stock_runs import STEPS, StockRun

FLOWS = tuple("ABCDEF")
SILENT = 15.0
"""Seconds for which an attempt without a sign of life is taken to be running, that of a killed process too."""
GRACE = 1.0
KEEP = RunPolicy(last=2, grace=GRACE, running=SILENT)


class LiveRoot:
    """What ``StockRun`` needs of a root, on any of mfstore's backends."""

    def __init__(self, root):
        self.root, self.backend, self.remote = root, root.backend, root.remote
        self.stored_by = {}

    @property
    def now(self):
        return time.time()

    here = now

    def write(self, path, data):
        if self.remote and "/data/" in path:
            self.backend.put_described(path, data, {"cas_raw": "true"})
        else:
            self.backend.put(path, [data])

    def read(self, path):
        with suppress(errors.NotFound):
            return self.backend.get(path)
        return None

    def there(self, path):
        return self.backend.exists_many([path])[0]

    def documents(self, name):
        """What each task of a run that ended refers to, by its step."""
        steps = enumerate(("_parameters", *STEPS))
        found = {step: self.read(f"{name}/{step}/{number}/0.data.json") for number, step in steps}
        return {step: json.loads(data) for step, data in found.items() if data is not None}

    def own_blobs(self, name):
        """Where the blobs of a run lie that no other run has."""
        flow, number = name.split("/")
        for step in range(len(STEPS)):
            key = blob_key(json.dumps([flow, number, step]).encode())
            yield f"{flow}/data/{key[:2]}/{key}"


class Journal:
    """Lines that survive whoever wrote them."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, *words):
        os.write(self._file, (" ".join(words) + "\n").encode())


def write(root, journal, rng):
    """Runs one after the other; some are held."""
    place = LiveRoot(root)
    while True:
        flow, number = rng.choice(FLOWS), f"{time.time_ns() // 1000}"
        values = [[[flow, number, step], rng.randrange(4)] for step in range(3)]
        code, include = (rng.choice([None, *(f"{what} {n}".encode() for n in range(4))]) for what in ("code", "file"))
        run = StockRun(place, flow, number, values, cards=rng.random() < 0.5, code=code, include=include)
        while run.alive and time.time() - run.last_sign < SILENT / 3:
            run.go_on(1)
            time.sleep(rng.random() / 100)
        if run.ended_well and time.time() - run.last_sign < SILENT / 3:
            for path in run.names:
                journal.note("named", run.name, path)
            journal.note("ended", run.name)
            if rng.random() < 0.1:
                with suppress(errors.Conflict, errors.NotFound):
                    hold_run(root, run.name, new_hold("a test"))
                    journal.note("held", run.name)


def collect(root, journal, rng):
    """Collections one after the other."""
    while True:
        with suppress(errors.Conflict, errors.NotAStore, errors.NotFound):
            for name in collected(root).removed:
                journal.note("removed", name)
        time.sleep(rng.random() * GRACE / 2)


def collected(root):
    """What one collection did."""
    with (
        mock.patch.object(liveness, "SILENCE", SILENT),
        mock.patch.object(state, "LEASE_SECONDS", 5.0),
        mock.patch.object(state, "RENEWED_EVERY", 1.0),
        mock.patch.object(set_aside, "WINDOW", SILENT),
        mock.patch.object(set_aside, "BEFORE_ATTEMPTS", SILENT),
        mock.patch.object(set_aside, "CLOCKS", 3.0),
    ):
        return collect_metaflow(root, KEEP, yes_really=True, deletes_per_second=0)[1]


def main(job, url, path, seed):
    root, journal = Root(url), Journal(path)
    journal.note("began", seed, f"{time.time() - float(seed)}")
    with suppress(KeyboardInterrupt):
        {"write": write, "collect": collect}[job](root, journal, random.Random(seed))


if __name__ == "__main__":
    main(*sys.argv[1:])
