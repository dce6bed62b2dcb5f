"""What one small save reads of the index of a large store: ``python -m benchmarks.index.run build/bench-index.json``.

The stores are synthetic: a store with a hundred artifacts, in an index that is as large as that of 10 GB to 100 TB. Its
nodes are made of random marks when they are first asked for, before that is counted.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mfstore
from benchmarks.index.synthetic import Scale, SyntheticStore, scale_of
from mfstore.backends import open_backend
from mfstore.backends.base import Backend
from mfstore.format.fragments import PREFIX, decode_fragment, digest_in_key
from mfstore.settings import resolve

SIZES = {"10 GB": 10**10, "1 TB": 10**12, "10 TB": 10**13, "100 TB": 10**14}
PLANTED = 100
LENGTHS = {"local": 160_000, "s3": 480_000}
"""Bytes of an artifact. Far away what takes 256 KiB encoded lies in its recipe, and looks nothing up."""
PROBES = {"local": 6, "s3": 3}
"""Saves of each kind."""
WRITERS = 200
"""Saves, one after the other, whose part in merging is counted."""


KNOBS = resolve(fsync="none", threads=1, delta=False)._replace(cache="")
"""Without what other processes of the host have read."""


@dataclass
class Row:
    """What saves of one kind took: the most of each."""

    place: str
    store: str
    chunks: int
    kind: str
    """same: an array that is stored in another artifact; parts: halves of two that are; new."""
    requests: int
    """All that the save reads: objects, ranges of them and listings, and in S3 HEADs."""
    looks: int
    """In a directory: whether a file is there, of which nothing is read."""
    bytes: int
    cpu: float
    """Seconds of the process, the median."""
    found: float
    """Of the bytes that a complete index would find."""


def noise(seed: int, length: int) -> Any:
    """An array that nothing else resembles."""
    return np.random.default_rng(seed).random(length // 8)


def planted(place: str, number: int) -> dict[str, Any]:
    """An artifact that the store has."""
    length = LENGTHS[place]
    return {"a": noise(number, length), "b": noise(number + 500, length // 2), "n": number}


def probe(place: str, kind: str, number: int) -> tuple[Any, int]:
    """An artifact to save, and how much of it is stored."""
    length = LENGTHS[place]
    if kind == "same":
        return {"again": noise(number, length), "probe": number}, length
    if kind == "parts":
        halves = noise(number + 510, length // 2), noise(number + 530, length // 2)
        return {"one": halves[0], "two": halves[1], "probe": number}, length // 2 * 2
    return {"new": noise(10_000 + number, length), "probe": number}, 0


def store_over(backend: Backend) -> mfstore.Store:
    """As a new process opens it."""
    return mfstore.Store(backend.url, backend, KNOBS, create=True, algorithm="blake3")


def plant(place: str, inner: Backend) -> list[bytes]:
    """Fill a store; the marks of all chunks, which its index does not list any more."""
    store = store_over(inner)
    for number in range(PLANTED):
        store.put(planted(place, number))
    marks: list[bytes] = []
    for info in list(inner.list(PREFIX)):
        if digest_in_key(info.key) is not None:
            marks += decode_fragment(inner.get(info.key), info.key).marks()
            inner.delete(info.key)
    return marks


def measure(place: str, name: str, scale: Scale, backend: SyntheticStore) -> Iterator[Row]:
    """Saves of each kind, each by a new handle."""
    for kind in ("new", "same", "parts"):
        rows = []
        for number in range(PROBES[place]):
            value, there = probe(place, kind, number)
            store = store_over(backend)
            store.exists("0" * 64)
            backend.costs.clear()
            begun = time.process_time()
            store.put(value)
            cpu = time.process_time() - begun - backend.costs.making
            reads = backend.costs.reads
            asked = [operation for operation, _, _ in reads if operation not in ("got", "listed")]
            looks = asked.count("head") if place == "local" else 0
            rows.append(
                (
                    len(asked) - looks, looks, sum(size for _, _, size in reads), cpu,
                    store.session.duplicate / there if there else 1.0,
                )
            )  # fmt: skip
        columns = list(zip(*rows, strict=True))
        most = [int(max(column)) for column in columns[:3]]
        yield Row(
            place, name, scale.chunks, kind, *most, cpu=sorted(columns[3])[len(rows) // 2],
            found=sum(columns[4]) / len(rows),
        )  # fmt: skip


def merging(name: str, backend: SyntheticStore) -> dict[str, Any]:
    """What writers do for the index, beside their own packs and recipes."""
    requests, written, read = [], [], []
    for number in range(WRITERS):
        store = store_over(backend)
        backend.costs.clear()
        store.put({"new": noise(20_000 + number, LENGTHS["local"]), "writer": number})
        puts = [write for write in backend.costs.writes if PREFIX in write[1]]
        # The first is that of the root, to look for what is saved.
        gets = [read for read in backend.costs.reads if read[0] == "tagged"][1:]
        requests.append(len(puts) + len(gets))
        written.append(sum(size for _, _, size in puts))
        read.append(sum(size for _, _, size in gets))
    left = [info for info in backend.inner.list(PREFIX) if digest_in_key(info.key) is not None]
    return {
        "store": name, "most": max(requests), "mean": sum(requests) / WRITERS, "written": sum(written) / WRITERS,
        "read": sum(read) / WRITERS, "fragments": len(left),
    }  # fmt: skip


def child_memory(url: str) -> None:
    """In a process of its own: save what is stored there in part, and print the most memory there was, in KiB."""
    value, _ = probe("local", "parts", 3)
    store_over(open_backend(url, KNOBS)).put({"x": value, "y": 1})
    # Not what getrusage tells: that begins with the parent's.
    status = Path("/proc/self/status").read_text()
    print(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]


def memory(name: str) -> float:
    """MiB that a save in a store of that size takes more than one in an empty store: of each the least of three."""
    with tempfile.TemporaryDirectory(prefix="mfstore-bench-") as directory:
        inner = open_backend(f"{directory}/large", KNOBS)
        backend = SyntheticStore(inner, scale_of(SIZES[name]), 1, plant("local", inner))
        store_over(backend).put(probe("local", "parts", 3)[0])  # makes the nodes
        most = {}
        for place in ("large", "empty"):
            command = [sys.executable, "-m", "benchmarks.index.run", "--memory", f"{directory}/{place}"]
            runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(3)]
            most[place] = min(int(run.stdout) for run in runs)
    return round((most["large"] - most["empty"]) / 1024, 1)


@contextmanager
def places(s3: bool) -> Iterator[Iterator[tuple[str, Any]]]:
    """Where stores are made: a directory each, and prefixes of a bucket of radosgw."""
    with tempfile.TemporaryDirectory(prefix="mfstore-bench-") as directory:

        def local(number: int) -> Backend:
            return open_backend(f"{directory}/{number}", KNOBS)

        found: list[tuple[str, Any]] = [("local", local)]
        if not s3:
            yield iter(found)
            return
        from tests.servers.base import client_options
        from tests.servers.radosgw import Radosgw

        with Radosgw() as server:
            server.create_bucket("index")
            named = client_options(server)
            found.append(("s3", lambda number: open_backend(f"s3://index/{number}", KNOBS, **named)))
            yield iter(found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index.run", description=__doc__)
    parser.add_argument("output", type=Path, help="the JSON file that python -m benchmarks.report shows")
    parser.add_argument("--no-s3", action="store_true", help="without radosgw")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        child_memory(str(options.output))
        return
    rows: list[Row] = []
    merges = []
    with places(not options.no_s3) as found:
        for place, make in found:
            for number, (name, stored) in enumerate(SIZES.items()):
                inner = make(number)
                scale = scale_of(stored)
                backend = SyntheticStore(inner, scale, 1, plant(place, inner))
                for row in measure(place, name, scale, backend):
                    rows.append(row)
                    print(asdict(row), flush=True)
                if place == "local" and name != "100 TB":  # of whose nodes two hundred writers need 4 GB
                    merges.append(merging(name, backend))
                    print(merges[-1], flush=True)
    added = {name: memory(name) for name in SIZES}
    print(added)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    result = {"index": [asdict(row) for row in rows], "merging": merges, "memory": added}
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    os.environ["BOTO_DISABLE_CRT"] = "true"
    main()
