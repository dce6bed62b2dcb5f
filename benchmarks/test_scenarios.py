"""The scenarios of ``mfstore bench``, each operation a benchmark: ``pytest benchmarks/test_scenarios.py --url
s3://bucket/prefix --profile quick``, or with MFSTORE_BENCH_URL. Without a URL, on a temporary directory."""

from dataclasses import replace

import pytest

from mfstore.bench.plan import plan
from mfstore.bench.run import RunSettings, opened, removed_at_the_end
from mfstore.bench.scenarios import Overrides, adapted, profile
from mfstore.bench.targets import open_target


def pytest_generate_tests(metafunc):
    url = metafunc.config.getoption("url") or ""
    chosen = adapted(profile(metafunc.config.getoption("profile")), Overrides(), cloud=url.startswith("s3://"))
    found = [
        replace(scenario, operations=(operation,))
        for scenario in chosen.scenarios()
        for operation in scenario.operations
    ]
    metafunc.parametrize("scenario", found, ids=[f"{found.operations[0]} {found.name}" for found in found])


class Clock:
    """Goes on by what was measured: warming up and making the data take no time."""

    now = 0.0

    def __call__(self):
        return self.now


CLOCK = Clock()


@pytest.mark.benchmark(timer=CLOCK)
def test_scenario(benchmark, request, tmp_path, scenario):
    """One round, of the scenario's own time; what each object took is in ``extra_info``."""
    settings = RunSettings(seconds=profile(request.config.getoption("profile")).seconds)
    target = open_target(request.config.getoption("url") or str(tmp_path))

    def timed(run, step):
        cell = run(step)
        CLOCK.now += cell.seconds
        return cell

    with removed_at_the_end(target, print):
        target.check()
        steps = plan([scenario]).steps
        with opened(target, steps[0], settings, lambda *_: None, lambda *_: None) as run:
            for step in steps:
                if step.measured:
                    cell = benchmark.pedantic(timed, args=(run, step), rounds=1)
                else:
                    run(step)
    assert cell.failed == 0
    if cell.operation in ("get", "load"):
        assert cell.verified == cell.bytes
    benchmark.group = cell.operation
    benchmark.extra_info.update(
        objects_per_second=cell.objects_per_second, bytes_per_second=cell.bytes_per_second, p50=cell.latency.p50,
        p99=cell.latency.p99, cpu=cell.usage.cpu, requests=dict(cell.requests), engine=cell.engine,
    )  # fmt: skip
