"""What a cache on the host saves: ``python -m benchmarks.caching [MB] [DIRECTORY]``.

An artifact of so many MB (1000) is loaded from S3 (radosgw on this machine) without a cache, into an empty one, again
in a new process, and from a store in a directory beside the cache: seconds, CPU time of the process, and requests, in
one run. "mapped" is an array of random bytes, which is stored raw; "decoded" one of floats that are compressed. The
times are those of ``get``; "and used" those of ``get`` and of reading each byte once.
"""

import json
import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import numpy as np

import mfstore
from tests.servers.base import client_options
from tests.servers.radosgw import Radosgw

ROUNDS = 5
"""Of each load that changes nothing: the best counts."""
LOAD = """
import json, sys, time
import numpy, mfstore
url, key, options = json.loads(sys.argv[1])
with mfstore.open(url, **options) as store:
    before = store.metrics().s3
    began, cpu = time.perf_counter(), time.process_time()
    found = store.get(key)
    loaded = time.perf_counter() - began, time.process_time() - cpu
    found.sum()
    used = time.perf_counter() - began, time.process_time() - cpu
    after = store.metrics().s3
print(json.dumps([*loaded, *used, sum(after.requests.values()) - sum(before.requests.values()) if after else 0]))
"""


def load(url, key, **options):
    """Seconds and CPU seconds of the load, both with the use of each byte, and requests; in a new process."""
    arguments = [sys.executable, "-c", LOAD, json.dumps([url, key, options])]
    return json.loads(subprocess.run(arguments, check=True, stdout=subprocess.PIPE).stdout)


def main(megabytes=1000, directory=None):
    count = int(megabytes) * 1_000_000 // 8
    rng = np.random.default_rng(0)
    arrays = {
        "mapped": lambda: rng.integers(1 << 63, size=count),
        "decoded": lambda: np.cumsum(rng.integers(100, size=count)) / 64,
    }
    with tempfile.TemporaryDirectory(dir=directory) as place, Radosgw() as server:
        cache, local = Path(place, "cache"), Path(place, "store")
        url = f"s3://{server.create_bucket(f'caching-{uuid.uuid4().hex[:16]}')}/store"
        options = client_options(server)
        print(f"{'':34} {'seconds':>8} {'CPU':>8} {'and used':>9} {'CPU':>8} {'requests':>9}")
        for kind, make in arrays.items():
            array = make()
            with mfstore.open(url, **options) as far, mfstore.open(local) as near:
                key = far.put(array)
                assert near.put(array) == key
            del array
            rows = {
                "no cache": load(url, key, **options),
                "first": load(url, key, cache=str(cache), **options),
            }
            os.sync()  # what is still being written would be in the way of both
            for _ in range(ROUNDS):  # in turns, as other programs have their moments
                second, near = load(url, key, cache=str(cache), **options), load(str(local), key)
                rows["second"] = min(second, rows.get("second", second))
                rows["directory"] = min(near, rows.get("directory", near))
            for name, (seconds, cpu, used, used_cpu, requests) in rows.items():
                times = f"{seconds:8.3f} {cpu:8.3f} {used:9.3f} {used_cpu:8.3f}"
                print(f"{kind:8} {name:25} {times} {requests:9,}", flush=True)
            ratio = [one / other for one, other in zip(rows["second"], rows["directory"], strict=True) if other]
            print(f"{kind:8} {'second / directory':25} " + " ".join(f"{one:8.2f}" for one in ratio))


if __name__ == "__main__":
    main(*sys.argv[1:])
