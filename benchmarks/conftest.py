"""Peers side by side in one run: wall time by pytest-benchmark, CPU time of this process beside it."""

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import pytest


def pytest_addoption(parser):
    group = parser.getgroup("mfstore")
    group.addoption("--url", default=os.environ.get("MFSTORE_BENCH_URL"), help="where test_scenarios.py runs")
    group.addoption("--profile", default="quick", choices=["quick", "admin", "metaflow"], help="of test_scenarios.py")
    group.addoption("--splits", type=int, default=20, help="tasks of the foreach flow (200: minutes of CPU each run)")
    group.addoption("--array-mib", type=int, default=128, help="MiB of the array")
    group.addoption("--reads", type=int, default=500, help="artifacts that the Client reads")


@pytest.fixture(scope="session")
def splits(pytestconfig):
    return pytestconfig.getoption("splits")


@pytest.fixture(scope="session")
def array_mib(pytestconfig):
    return pytestconfig.getoption("array_mib")


@pytest.fixture(scope="session")
def reads(pytestconfig):
    return pytestconfig.getoption("reads")


@pytest.fixture
def place():
    """A new directory for each round, on the file system of the temporary directory (TMPDIR moves it)."""
    made = []

    def new():
        for path in made:
            shutil.rmtree(path, ignore_errors=True)
        made[:] = [Path(tempfile.mkdtemp(prefix="mfstore-bench-"))]
        return made[0]

    yield new
    for path in made:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def measure(benchmark):
    """``measure(work, setup, rounds)``: time ``work(*setup())``, one call a round; returns the last result."""

    def run(work, setup=lambda: (), rounds=5):
        cpu = []

        def timed(*args):
            begin = time.process_time()
            result = work(*args)
            cpu.append(time.process_time() - begin)
            return result

        result = benchmark.pedantic(
            timed, setup=lambda: (setup(), {}), rounds=rounds, warmup_rounds=1 if rounds > 1 else 0
        )
        benchmark.extra_info["cpu"] = statistics.median(cpu[-rounds:])
        return result

    return run
