"""How much memory it takes to plan a collection of a root: ``python -m benchmarks.plan_memory small 120000``.

What is listed is made up run by run (``synthetic_bucket``), and so is what files say when they are read, so that no
server, and nothing of what is remembered, counts: what remains is what a plan holds. The process that is measured holds
nothing else; between two numbers of runs the difference is what a run takes.
"""

import argparse
import hashlib
import resource
import time
from collections import defaultdict
from types import SimpleNamespace

from benchmarks.synthetic_bucket import DAY, EMPTY, SHAPES, Bucket
from mfstore.backends.base import ObjectInfo
from mfstore.backends.memory import MemoryBackend
from mfstore.host.workers import Workers
from mfstore.maintenance.metaflow.collecting.plan import make_plan
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.holdings import Holdings
from mfstore.maintenance.report import untold
from mfstore.maintenance.spill import Spill

READ = ("attempt.json", "data.json", "task_begin")
"""Files that are not empty."""


class MadeUp(MemoryBackend):
    """Files of runs, made when they are read."""

    def __init__(self, bucket):
        super().__init__()
        self._bucket = bucket

    def get_many(self, keys):
        for key in keys:
            yield key, self._bucket.read(f"mf/{key}")


def listing(bucket, runs):
    """The objects of these runs, flow by flow, as S3 lists them."""
    for number in sorted(range(runs), key=lambda number: number % bucket.flows):
        flow, run = bucket.place(number)
        for task, step in enumerate(bucket.shape.steps):
            for kind in bucket.shape.kinds:
                key = f"{flow}/{run}/{step}/{task + 1}/0.{kind}"
                etag = hashlib.md5(key.encode()).hexdigest() if kind in READ else EMPTY[1]
                yield ObjectInfo(key, 1000, bucket.began[number], etag)
        for blob in bucket.own(number):
            yield ObjectInfo(f"{flow}/data/{blob[:2]}/{blob}", 5000, bucket.began[number], blob[:32])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("runs", type=int)
    parser.add_argument("--flows", type=int, default=4)
    chosen = parser.parse_args()
    bucket = Bucket(chosen.flows, chosen.shape)
    now = time.time()
    bucket.began = defaultdict(lambda: now - 50 * DAY)
    root = SimpleNamespace(url="memory:", remote=False, backend=MadeUp(bucket), known=None, workers=Workers(2))
    holdings = Holdings(spill=Spill())
    for info in listing(bucket, chosen.runs):
        holdings.add(info)
    holdings.settle()
    plan = make_plan(root, holdings, RunPolicy(age=100 * DAY, grace=0.0), {}, now, untold, "none")
    root.workers.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{len(plan.runs)} runs, {holdings.objects} objects: {peak} MiB")


if __name__ == "__main__":
    main()
