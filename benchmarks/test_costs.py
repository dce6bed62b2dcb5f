"""Costs that should not grow: memory with the size of an object, time with the number of artifacts, and the import."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import mfstore

PEAK = """
import sys, numpy as np, mfstore
def status(name):
    return int(open('/proc/self/status').read().split(name + ':')[1].split()[0]) * 1024
def reset():
    open('/proc/self/clear_refs', 'w').write('5')
root, kind, size = sys.argv[1], sys.argv[2], 2 << 30
store = mfstore.open(root, fsync='none')
if kind == 'noise':
    obj = np.random.default_rng(0).integers(0, 2**63, size // 8)
else:
    obj = np.repeat(np.arange(size // 8192.0), 1024)
reset(); before = status('VmRSS'); key = store.put(obj); print(status('VmHWM') - before)
del obj
reset(); before = status('VmRSS'); back = store.get(key); print(status('VmHWM') - before - size)
"""


@pytest.mark.benchmark(group="extra memory for 2 GiB")
@pytest.mark.parametrize("kind", ["noise", "compressible"])
def test_extra_memory(benchmark, place, kind):
    done = benchmark.pedantic(
        lambda: subprocess.run([sys.executable, "-c", PEAK, place(), kind], capture_output=True, text=True, check=True),
        rounds=1,
    )
    save, load = (int(line) / (1 << 20) for line in done.stdout.split())
    benchmark.extra_info.update(save_mib=round(save), load_mib=round(load))
    assert max(save, load) <= 256


PARTS = """
import ctypes, sys, numpy as np, mfstore
def status(name):
    return int(open('/proc/self/status').read().split(name + ':')[1].split()[0]) * 1024
def reset():
    ctypes.CDLL(None).malloc_trim(0)
    open('/proc/self/clear_refs', 'w').write('5')
root, kind, size = sys.argv[1], sys.argv[2], 12 << 20
noise = np.random.default_rng(0)
def numbers(count):
    return noise.integers(0, 2**63, count)
def frame(data):
    import pandas
    return pandas.DataFrame(data)
def polars(data):
    import polars
    return polars.DataFrame(data)
def slice_of_arrow(data):
    import pyarrow
    return pyarrow.array(data).slice(9, len(data) // 2)
def matrix(data):
    import scipy.sparse
    count = len(data)
    return scipy.sparse.csr_array((data * 1.0, np.arange(count) % 1000, np.arange(0, count + 1, 128)))
words = np.array([f'word {number}' for number in range(1000)], object)
make = {
    'strided arrays': lambda: numbers(size // 4)[::2],
    'arrays of objects': lambda: words[numbers(size // 8) % 1000],
    'masked arrays': lambda: np.ma.masked_array(numbers(size // 8), False),
    'frames of every other row': lambda: frame(numbers(size // 4).reshape(-1, 8)).iloc[::2],
    'frames of polars': lambda: polars({'a': numbers(size // 16), 'b': numbers(size // 16)}),
    'texts of polars': lambda: polars({'a': [noise.bytes(500).hex() for _ in range(size // 1000)]}),
    'slices of Arrow': lambda: slice_of_arrow(numbers(size // 4)),
    'sparse matrices': lambda: matrix(numbers(128 * (size // 2048))),
}[kind]
store = mfstore.open(root, fsync='none')
store.put([make(), noise.random(300_000)])
obj = [make() for _ in range(48)]
reset(); before = status('VmRSS'); key = store.put(obj); print(status('VmHWM') - before)
del obj
reset(); back = store.get(key); peak = status('VmHWM'); reset(); print(peak - status('VmRSS'))
"""
MANY_PARTS = (
    "strided arrays", "arrays of objects", "masked arrays", "frames of every other row", "frames of polars",
    "texts of polars", "slices of Arrow", "sparse matrices",
)  # fmt: skip


@pytest.mark.benchmark(group="extra memory for 48 parts of 12 MiB")
@pytest.mark.parametrize("kind", MANY_PARTS)
def test_extra_memory_of_many_parts(benchmark, place, kind):
    """What loading takes beyond is what is read ahead: texts and bytes of which a part is made."""
    done = benchmark.pedantic(
        lambda: subprocess.run(
            [sys.executable, "-c", PARTS, place(), kind], capture_output=True, text=True, check=True
        ),
        rounds=1,
    )
    save, load = (int(line) / (1 << 20) for line in done.stdout.split())
    benchmark.extra_info.update(save_mib=round(save), load_mib=round(load))
    assert save <= 256


@pytest.mark.benchmark(group="cost per artifact in one store")
def test_cost_per_artifact(benchmark, place):
    """CPU per put and get of a new small artifact when the store already holds that many."""
    root = place()
    costs = {}

    def fill():
        store = mfstore.open(root, fsync="none")
        count = 0
        for target in (100, 1000, 10_000, 100_000):
            store.put_many(f"filler {n}" for n in range(count, target))
            count = target
            fresh = mfstore.open(root, fsync="none")
            begin = time.process_time()
            keys = [fresh.put({"probe": n, "of": target}) for n in range(500)]
            middle = time.process_time()
            for key in keys:
                fresh.get(key)
            costs[target] = ((middle - begin) / 500 * 1e6, (time.process_time() - middle) / 500 * 1e6)

    benchmark.pedantic(fill, rounds=1)
    benchmark.extra_info.update({f"at_{n}": [round(put), round(get)] for n, (put, get) in costs.items()})


@pytest.mark.benchmark(group="import")
def test_import(benchmark):
    """Wall time of a new interpreter that imports mfstore, less one that imports nothing: best of ten each."""

    def best(code):
        times = []
        for _ in range(10):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(mfstore.__file__).parent.parent)
            times.append(time.perf_counter() - begin)
        return min(times)

    result = benchmark.pedantic(lambda: best("import mfstore") - best("pass"), rounds=1)
    benchmark.extra_info["ms"] = round(result * 1000)
    assert result < 0.1
