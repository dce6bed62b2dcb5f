"""A Metaflow root collected every day: ``python -m benchmarks.gc_daily build/gc-daily.json --runs 100000 --days 10``.

The root is synthetic (``synthetic_bucket``): each day a share of new runs comes, and as many grow too old. Each
collection is ``mfstore gc --metaflow --execute`` in a process of its own: requests are those that the server counted,
the memory is the most that the process took, CPU is the process's own. Beside it, what listing the bucket takes of
``aws s3 ls --recursive``, where that is installed.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.synthetic_bucket import DAY, Bucket, Server

SHARE = 0.01
"""Of the runs, that begin each day and grow too old each day."""
METER = """
import json, resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as told:
    json.dump([used.ru_utime + used.ru_stime, used.ru_maxrss * 1024], told)
sys.exit(code)
"""
"""Starts a command from a small process: Linux counts the memory of who starts one as the command's own, and here that
is the synthetic bucket's."""


def measured(bucket, command, env, log):
    """What a command took: requests by kind, seconds, CPU and the most memory."""
    bucket.asked.clear()
    began = time.monotonic()
    with open(log, "wb") as out, tempfile.NamedTemporaryFile("r") as usage:
        meter = [sys.executable, "-c", METER, usage.name, *command]
        code = subprocess.run(meter, env=env, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
        if code:
            raise SystemExit(f"{' '.join(command)} ended with {code}:\n{Path(log).read_text()[-3000:]}")
        cpu, memory = json.load(usage)
    return {
        "requests": dict(bucket.asked), "all": sum(bucket.asked.values()),
        "seconds": time.monotonic() - began, "cpu": cpu, "memory": memory,
    }  # fmt: skip


def environment(url, home):
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "METAFLOW_"))},
        "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1", "HOME": home,
        "AWS_ENDPOINT_URL_S3": url, "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", help="where the rows go, as JSON")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--flows", type=int, default=20)
    parser.add_argument("--no-aws", action="store_true", help="leave out aws s3 ls")
    chosen = parser.parse_args()
    bucket = Bucket(chosen.flows)
    daily = max(1, int(chosen.runs * SHARE))
    kept = chosen.runs // daily
    start = time.time()
    # The oldest began as many days ago as runs are kept, the youngest two days ago.
    bucket.add_runs(range(chosen.runs), lambda number: start - (2 + (chosen.runs - 1 - number) // daily) * DAY)
    server = Server(bucket)
    print(
        f"{chosen.runs} runs of {chosen.flows} flows, {len(bucket.keys)} objects; "
        f"{daily} new runs a day, kept {kept} days"
    )
    print(f"\n| | requests | {' | '.join(COLUMNS)} | memory | CPU | objects |\n|---|{'--:|' * 8}")
    rows = []
    Path(chosen.path).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        env = environment(server.url, home)
        command = [
            sys.executable, "-m", "mfstore", "gc", "--metaflow", "s3://bucket/mf", "--keep-age", f"{kept + 2}d",
            "--grace", "20h", "--metadata", "none", "--execute", "--max-deletes-per-second", "0",
        ]  # fmt: skip

        def take(what, command):
            row = measured(bucket, command, env, f"{home}/log") | {"what": what, "objects": len(bucket.keys)}
            rows.append(row)
            show(row)
            # Of a run of hours that is stopped, what there is.
            Path(chosen.path).write_text(
                json.dumps({"runs": chosen.runs, "flows": chosen.flows, "rows": rows}, indent=1)
            )

        take("first", command)
        bucket.offset += 60.0
        take("nothing new", command)
        for day in range(chosen.days):
            bucket.offset += DAY
            new = range(chosen.runs + day * daily, chosen.runs + (day + 1) * daily)
            bucket.add_runs(new, lambda _: bucket.now() - DAY)
            take(f"day {day + 1}", command)
        bucket.offset += 60.0
        take("nothing new", command)
        aws = shutil.which("aws")
        if aws and not chosen.no_aws:
            take("aws s3 ls", [aws, "s3", "ls", "--recursive", "s3://bucket/mf/"])
    mine = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"(the server took {mine} MiB)")


COLUMNS = ("list", "get", "put", "delete")


def show(row):
    kinds = " | ".join(str(row["requests"].get(kind, 0)) for kind in COLUMNS)
    print(
        f"| {row['what']} | {row['all']} | {kinds} | {row['memory'] >> 20} MiB | {row['cpu']:.1f} s | "
        f"{row['objects']} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
