"""Files of runs that are of no task: they come run by run, whether they are in memory or in a temporary file."""

import random

import pytest

from mfstore.backends.base import ObjectInfo
from mfstore.maintenance.metaflow import listed_files
from mfstore.maintenance.metaflow.listed_files import RunFiles, run_order
from mfstore.maintenance.spill import Spill
from mfstore.metaflow.roots import layout

RUNS = ("a", "a-1", "a\0", "a\0b", "a\0\xff", "b", "ä", "\udc80")


@pytest.mark.parametrize("most", [1, 1000], ids=["spilled", "in memory"])
def test_files_come_run_by_run(monkeypatch, most):
    monkeypatch.setattr(listed_files, "OPEN_FILES", most)
    generator = random.Random(1)
    found, model = RunFiles("card", Spill()), {}
    for number in range(120):
        flow, run = generator.choice(["A", "B"]), generator.choice(RUNS)
        key = f"mf.cards/{flow}/runs/{run}/steps/s/tasks/{generator.randrange(4)}/cards/c.html"
        info = ObjectInfo(key, number, number / 4, generator.choice([generator.randbytes(16).hex(), "x-1"]))
        path = layout.parse(key)
        assert (path.kind, path.flow, path.run) == ("card", flow, run)
        found.add(path, info)
        model.setdefault((flow, run), {})[key] = info  # the later one of those that were listed twice
    for flow in "AB":
        assert [run for run, _ in found.of_flow(flow)] == sorted(
            (run for name, run in model if name == flow), key=run_order
        )
        assert all({info.key: info for info in infos} == model[flow, run] for run, infos in found.of_flow(flow))
    assert len([*found]) == sum(map(len, model.values())) and found and found.flows == {"A", "B"}
    some = {("A", "a"), ("B", "a\0"), ("C", "a")}
    assert sorted(found.of_runs(some), key=str) == sorted(
        ((run, info) for run in some for info in model.get(run, {}).values()), key=str
    )
    assert [*found.of_flows(["C"])] == [] == [*found.of_flow("C")] and not RunFiles("card")
