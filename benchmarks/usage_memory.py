"""How much memory and CPU it takes to tell who holds what below a root: ``python -m benchmarks.usage_memory small run
100000``.

The root is made up as in ``plan_memory``; metadata is not asked.
"""

import argparse
import resource
import time
from collections import defaultdict
from types import SimpleNamespace

from benchmarks.plan_memory import MadeUp, listing
from benchmarks.synthetic_bucket import DAY, SHAPES, Bucket
from mfstore.host.workers import Workers
from mfstore.maintenance.metaflow import usage
from mfstore.maintenance.metaflow.holdings import Holdings
from mfstore.maintenance.spill import Spill


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("by", choices=usage.BY)
    parser.add_argument("runs", type=int)
    parser.add_argument("--flows", type=int, default=4)
    chosen = parser.parse_args()
    bucket = Bucket(chosen.flows, chosen.shape)
    now = time.time()
    bucket.began = defaultdict(lambda: now - 50 * DAY)
    root = SimpleNamespace(url="memory:", remote=False, backend=MadeUp(bucket), known=None, workers=Workers(2))
    holdings = Holdings(spill=Spill())
    holdings.add_all(listing(bucket, chosen.runs))
    holdings.settle()
    usage.list_root = lambda *_: holdings
    before = time.process_time()
    found = usage.root_usage(root, chosen.by, metadata="none")
    seconds = time.process_time() - before
    root.workers.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{chosen.runs} runs, {holdings.objects} objects, {len(found.groups)} groups: {seconds:.1f} s CPU, {peak} MiB"
    )


if __name__ == "__main__":
    main()
