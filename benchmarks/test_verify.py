"""Verify of every byte beside what this machine needs to read and hash the same files, in turns in one run."""

import os
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

import mfstore

SIZE = 512 << 20
BLOCK = 2 << 20
ROUNDS = 7


def ceiling(paths, threads):
    """Read every byte of the files and hash it, by as many threads, in blocks as long, each into the same memory."""
    memory = threading.local()

    def hashed(job):
        path, start = job
        if not hasattr(memory, "block"):
            memory.block = bytearray(BLOCK)
        fd = os.open(path, os.O_RDONLY)
        try:
            count = os.preadv(fd, [memory.block], start)
        finally:
            os.close(fd)
        return blake3(memoryview(memory.block)[:count]).digest()

    jobs = [(path, start) for path in paths for start in range(0, path.stat().st_size, BLOCK)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(hashed, jobs))


@pytest.mark.benchmark(group="verify every byte, and the machine's rate of reading and hashing")
@pytest.mark.parametrize("kind", ["noise", "compressible"])
def test_full_verify(benchmark, place, kind):
    root = place()
    rng = np.random.default_rng(0)
    with mfstore.open(root, fsync="none") as store:
        for _ in range(8):
            if kind == "noise":
                store.put(rng.integers(0, 2**63, SIZE // 8 // 8))
            else:
                store.put(rng.integers(0, 1000, SIZE // 8 // 8))
        paths = [path for path in Path(root, "packs").rglob("*") if path.is_file()]
        stored = sum(path.stat().st_size for path in paths)
        ours, raw, cpu = [], [], []

        def turn():
            begin, used = time.perf_counter(), time.process_time()
            ceiling(paths, store.knobs.threads)
            middle, used_then = time.perf_counter(), time.process_time()
            report = store.verify("full")
            assert report.clean and report.packs_checked == len(paths)
            raw.append(stored / (middle - begin) / 1e6)
            ours.append(stored / (time.perf_counter() - middle) / 1e6)
            cpu.append((used_then - used) / (time.process_time() - used_then))

        benchmark.pedantic(turn, rounds=ROUNDS, warmup_rounds=1)
    share = statistics.median(mine / its for mine, its in zip(ours[1:], raw[1:], strict=True))
    rates = f"verify {statistics.median(ours):.0f} MB/s, reading and hashing alone {statistics.median(raw):.0f} MB/s"
    of_cpu = statistics.median(cpu[1:])
    print(f"\n{kind}: {rates}, {100 * share:.0f} % (by CPU time {100 * of_cpu:.0f} %); {stored / 1e6:.0f} MB stored")
    benchmark.extra_info.update(
        verify=round(statistics.median(ours)), raw=round(statistics.median(raw)), share=share, cpu=of_cpu
    )
