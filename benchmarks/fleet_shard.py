"""One part of a fleet's collection, planned by an inventory: ``python -m benchmarks.fleet_shard build/fleet.json
--runs 50000``.

The bucket is synthetic (``synthetic_bucket``), with twenty objects a run, or with ``--shape typical`` 150; its
inventory is in Parquet. A process of its own plans the flows of one part: at first, when every attempt's files are
read, and again, when they are remembered, as on every later day. CPU and memory are that process's own. ``--others``
are runs of other parts, of which the inventory tells as well: what they cost is what each part pays for the whole.
"""

import argparse
import hashlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gc_daily import environment, measured
from benchmarks.synthetic_bucket import DAY, SHAPES, Bucket, Server

MINE = 4
"""Flows of the part."""
ROWS = 500_000
"""In a file of the inventory."""
PLAN = """
import pickle, sys
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.sharded_gc import plan_shard
flows = sys.argv[1].split(",")
root = Root("s3://bucket/mf")
plan, needed = plan_shard(
    root, RunPolicy(age=float(sys.argv[2]), grace=0.0), flows, metadata="none",
    inventory="s3://bucket/inv/manifest.json", execute=True,
)
root.close()
print(len(plan.runs), len(plan.condemn), len(pickle.dumps((plan, needed))))
"""
SCHEMA = (
    "message s3.inventory { required binary bucket (UTF8); required binary key (UTF8); optional int64 size; "
    "optional int64 last_modified_date (TIMESTAMP_MILLIS); optional binary e_tag (UTF8); }"
)


def write_inventory(bucket, others):
    """Of what is in the bucket, and of runs that are nowhere else."""
    import pyarrow
    from pyarrow import parquet

    def rows():
        for key in bucket.keys:
            size, etag, moment = bucket.told[key]
            yield key, size, int(moment * 1000), etag
        for number in range(others):
            for file in range(20):
                yield f"mf/Other{number % 60:02}/argo-{number:08}/train/2/0.{file}", 1000, 0, "0" * 32

    def put(rows):
        keys, sizes, moments, etags = zip(*rows, strict=True)
        made = io.BytesIO()
        columns = {
            "bucket": ["bucket"] * len(keys), "key": keys, "size": sizes,
            "last_modified_date": pyarrow.array(moments, pyarrow.timestamp("ms")), "e_tag": etags,
        }  # fmt: skip
        parquet.write_table(pyarrow.table(columns), made)
        data = made.getvalue()
        key = f"inv/data/{len(files)}.parquet"
        bucket.put(key, data)
        files.append({"key": key, "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()})

    files, part, count = [], [], 0
    for row in rows():
        part.append(row)
        count += 1
        if len(part) == ROWS:
            put(part)
            part = []
    if part:
        put(part)
    document = {
        "sourceBucket": "bucket", "creationTimestamp": str(int(time.time() * 1000)), "fileFormat": "Parquet",
        "fileSchema": SCHEMA, "files": files,
    }  # fmt: skip
    bucket.put("inv/manifest.json", json.dumps(document).encode())
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", help="where the rows go, as JSON")
    parser.add_argument("--runs", type=int, default=50_000)
    parser.add_argument("--others", type=int, default=0, help="runs of other parts, of twenty objects each")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="small")
    chosen = parser.parse_args()
    bucket = Bucket(MINE, chosen.shape)
    start = time.time()
    bucket.add_runs(range(chosen.runs), lambda number: start - (1 + 100 * (1 - number / chosen.runs)) * DAY)
    mine = len(bucket.keys)
    listed = write_inventory(bucket, chosen.others)
    server = Server(bucket)
    flows = ",".join(f"Flow{number:03}" for number in range(MINE))
    print(f"a part of {mine} objects ({chosen.runs} runs), by an inventory of {listed}")
    taken = []
    with tempfile.TemporaryDirectory() as home:
        for what in ("first", "again"):
            command = [sys.executable, "-c", PLAN, flows, str(100 * DAY)]
            row = measured(bucket, command, environment(server.url, home), f"{home}/log") | {"what": what}
            runs, condemned, size = map(int, Path(home, "log").read_text().split()[-3:])
            taken.append(row | {"runs": runs, "condemned": condemned, "pickled": size})
            each = row["cpu"] / mine * 1e6
            print(f"{what}: {row['all']} requests, {row['cpu']:.1f} s of CPU ({each:.2f} µs an object), ", end="")
            print(f"{row['memory'] >> 20} MiB; {runs} runs, {condemned} to condemn, {size >> 10} KiB handed on")
    Path(chosen.path).parent.mkdir(parents=True, exist_ok=True)
    Path(chosen.path).write_text(json.dumps({"objects": mine, "listed": listed, "rows": taken}, indent=1))


if __name__ == "__main__":
    main()
