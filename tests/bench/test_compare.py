"""Two results side by side: real ones of the same place, and changes made up here."""

import copy
import gzip
import itertools
import json
import random
from math import exp
from pathlib import Path

import pytest

from mfstore.bench.compare import compare
from mfstore.bench.intervals import interval, ratio_interval, t_quantile
from mfstore.bench.report import comparison
from mfstore.s3.urls import on_loopback
from tests.rigs import command_line

RECORDED = sorted(Path(__file__).parent.glob("recorded/*.json.gz"))
"""Results of ``mfstore bench`` in one directory, one after the other, on a machine with two cores that others used."""


def recorded(path):
    return json.loads(gzip.decompress(path.read_bytes()))


def cell(name="get 100 x 1 MiB", rate=200.0, rates=(), slices=(), machine=10.0, cpu=10.0, wall=10.0, **usage):
    repeats = None
    if rates:
        known = interval(rates)
        repeats = {"rates": list(rates), "mean": known.mean if known else None}
    return {
        "name": name, "engine": "native", "objects_per_second": rate, "objects": 100, "repeats": repeats,
        "slices": {"bytes": list(slices), "objects": []}, "latency": {"p50": 1 / rate, "p99": None},
        "usage": {"cpu": cpu, "machine": machine, "wall": wall, **usage},
    }  # fmt: skip


HOST = {
    "cpu": "EPYC", "cores": 4, "memory": 1 << 34, "kernel": "Linux 6.1", "cgroup": {"cpus": None, "memory": None},
    "libraries": {"libcurl": "8.5.0"},
}  # fmt: skip


def document(*cells, host=None, **run):
    about = {"url": "s3://b", "kind": "s3", "version": "1", "cpus": 4, "seed": 0, "host": {**HOST, **(host or {})}}
    return {"run": {**about, **run}, "cells": list(cells)}


def words(before, after):
    return [change.word for change in compare(before, after).changes]


def around(mean, spread, number, seed=0):
    drawn = random.Random(seed)
    return [mean * exp(drawn.gauss(0, spread)) for _ in range(number)]


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ({"rates": around(200, 0.03, 10)}, {"rates": around(100, 0.03, 10, 1)}, "slower"),
        ({"rates": around(100, 0.03, 10)}, {"rates": around(200, 0.03, 10, 1)}, "faster"),
        ({"rates": around(200, 0.03, 10)}, {"rates": around(190, 0.001, 10, 1)}, "same"),
        ({"rates": around(200, 0.8, 5)}, {"rates": around(100, 0.8, 5, 1)}, "same"),
        ({"slices": around(200, 0.05, 60)}, {"rate": 100.0, "slices": around(100, 0.05, 60, 1)}, "slower"),
        ({"slices": around(200, 0.9, 6)}, {"rate": 100.0, "slices": around(100, 0.9, 6, 1)}, "same"),
        ({"slices": [200.0] * 3}, {"rate": 100.0, "slices": [100.0] * 3}, "unsure"),
        ({"slices": [200.0] * 9}, {"rate": 100.0, "slices": [100.0] * 9}, "slower"),
        ({"slices": [200.0] * 9}, {"rate": 100.0, "slices": [0.0] * 9}, "unsure"),
        ({"rates": [200.0]}, {"rate": 100.0, "rates": [100.0]}, "unsure"),
        ({"rates": [200.0, 0.0, 210.0]}, {"rate": 100.0, "rates": [100.0, 0.0]}, "unsure"),
        ({}, {"rate": 195.0}, "same"),
        ({}, {"rate": 20.0}, "unsure"),
    ],
)
def test_a_difference_is_one_only_beyond_the_noise(old, new, word):
    assert words(document(cell(**old)), document(cell(**new))) == [word]


def test_what_other_programs_took_is_allowed_for():
    quiet = {"machine": 12.0, "cpu": 10.0}
    shared = {"machine": 34.0, "cpu": 10.0}  # 60 % of four cores
    before = document(cell(rates=around(200, 0.02, 10), **quiet))
    assert words(before, document(cell(rates=around(100, 0.02, 10, 1), **quiet))) == ["slower"]
    assert words(before, document(cell(rates=around(100, 0.02, 10, 1), **shared))) == ["same"]
    assert words(before, document(cell(rates=around(50, 0.02, 10, 1), **shared))) == ["slower"]
    # What was faster although others were about is faster.
    assert words(before, document(cell(rates=around(300, 0.02, 10, 1), **shared))) == ["faster"]
    # They took nothing where nobody waited for a CPU. Far away only waiting of this process counts.
    for known in ({"pressure": 0.1}, {"pressure": 9.0, "waited": 0.1}):
        assert words(before, document(cell(rates=around(100, 0.02, 10, 1), **shared, **known))) == ["slower"]
    near = document(cell(rates=around(100, 0.02, 10, 1), **shared, pressure=9.0, waited=0.1), endpoint="http://[::1]")
    assert words(before, near) == ["same"]
    # Where nobody knows, nothing is allowed for.
    unknown = {"machine": None}
    first = document(cell(rates=around(200, 0.02, 10), **unknown))
    assert words(first, document(cell(rates=around(100, 0.02, 10, 1), **unknown))) == ["slower"]


def test_many_comparisons_share_one_confidence():
    """Of a hundred measurements of the same, in which nothing has changed, none is called different."""
    one, other = (
        document(*[cell(f"get {number}", rates=around(200, 0.2, 5, 1000 * run + number)) for number in range(100)])
        for run in (1, 2)
    )
    assert set(words(one, other)) == {"same"}
    alone = [words(document(a), document(b)) for a, b in zip(one["cells"], other["cells"], strict=True)]
    assert 0 < alone.count(["faster"]) + alone.count(["slower"]) <= 12


def test_what_does_not_succeed_any_more_is_slower():
    nothing = {**cell(rate=1.0), "objects_per_second": 0.0, "objects": 0, "latency": {"p50": None, "p99": None}}
    assert words(document(cell()), document(nothing)) == ["slower"]
    assert compare(document(cell()), document(nothing)).slower
    back = compare(document(nothing), document(cell()))
    assert (back.changes, back.only_before, back.only_after) == ((), (), ("get 100 x 1 MiB (native)",))
    assert compare(document(nothing), document(nothing)).changes == ()
    comparison(compare(document(cell()), document(nothing)))


def test_an_open_loop_is_slower_when_it_falls_behind():
    """Its rate is what it was asked for, within a few per cent, until more than that is late."""
    kept, behind = ({**cell(rate=rate), "pace": {"reached": reached}} for rate, reached in ((200, True), (195, False)))
    assert words(document(kept), document(behind)) == ["slower"]
    assert words(document(behind), document(kept)) == words(document(behind), document(behind)) == ["same"]
    once = {**kept, "repeats": {"rates": [200.0, 195.0, 200.0], "mean": 198.0, "missed": 1}}
    assert words(document(kept), document(once)) == ["slower"]


def test_what_else_was_different():
    old = document(cell(), seed=1)
    new = document(cell(), cell("put"), host={"cpu": "Xeon", "libraries": {"libcurl": "8.6.0"}}, version="2", seed=2)
    found = compare(old, new)
    assert set(found.warnings) == {"cpu: EPYC and Xeon", "libcurl: 8.5.0 and 8.6.0", "version: 1 and 2"}
    assert set(found.different) - set(found.warnings) == {"seed: 1 and 2"}
    assert (found.only_before, found.only_after) == ((), ("put (native)",))
    (_, columns, rows), lines = comparison(compare(old, new))
    assert all(len(row) == len(columns) for row in rows)
    assert "not the same: seed: 1 and 2" in lines and not any("Xeon" in line for line in lines)
    del old["run"]["host"]  # results of an older version
    assert compare(old, new).warnings == ("version: 1 and 2",)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_real_result_is_the_same_as_itself(path):
    found = compare(recorded(path), recorded(path))
    assert found.changes and {change.word for change in found.changes} == {"same"}
    assert (found.different, found.slower) == ((), False)


def kinds():
    by_kind = itertools.groupby(RECORDED, key=lambda path: path.name.split("-")[0])
    return [pytest.param(list(paths), id=kind) for kind, paths in by_kind]


@pytest.mark.parametrize("paths", kinds())
def test_real_runs_of_the_same_are_not_called_different(paths):
    assert len(paths) >= 3
    for one, other in itertools.combinations(map(recorded, paths), 2):
        told = words(one, other)
        assert "faster" not in told and "slower" not in told


@pytest.mark.parametrize("paths", kinds())
def test_a_real_run_at_a_fiftieth_is_called_slower(paths):
    """Also on a machine that others used: ten times is all that is allowed for them. Not where nobody knows."""
    before = recorded(paths[0])
    after = copy.deepcopy(before)
    for found in after["cells"]:
        found["objects_per_second"] /= 50
        for rates in (found["slices"]["bytes"], found["slices"]["objects"]):
            rates[:] = [rate / 50 for rate in rates]
        if found.get("repeats"):
            found["repeats"]["rates"] = [rate / 50 for rate in found["repeats"]["rates"]]
            found["repeats"]["mean"] /= 50
    told = words(before, after)
    assert not {"same", "faster"} & set(told)
    assert ("slower" in told) == (not paths[0].name.startswith("once"))


@pytest.mark.second
def test_the_exit_code_says_whether_something_is_slower(tmp_path):
    paths = tmp_path / "before.json", tmp_path / "after.json"
    for path, rate, version in zip(paths, (200, 100), ("1", "2"), strict=True):
        found = document(cell(rates=around(rate, 0.02, 5)), version=version)
        path.write_text(json.dumps({**found, "format": "mfstore-bench", "schema": 1}))
    done = command_line.mfstore("bench", "--compare", *paths, code=3)
    assert "0 faster, 1 slower, 0 same, 0 unsure" in done.stdout
    assert "warning   not the same" in done.stderr and "version: 1 and 2" in done.stderr
    assert "1 faster, 0 slower" in command_line.mfstore("bench", "--compare", *reversed(paths)).stdout
    told = json.loads(command_line.mfstore("bench", "--json", "--compare", *paths, code=3).stdout)
    assert (told["slower"], told["changes"][0]["word"]) == (True, "slower")


# ---- intervals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "freedom", "value"),
    [
        (0.975, 1, 12.70620), (0.975, 2, 4.302653), (0.975, 4, 2.776445), (0.975, 9, 2.262157),
        (0.975, 30, 2.042272), (0.975, 1000, 1.962339), (0.9995, 9, 4.780913), (0.5, 3, 0.0),
    ],
)  # fmt: skip
def test_quantiles_are_those_of_the_tables(share, freedom, value):
    assert t_quantile(share, freedom) == pytest.approx(value, rel=1e-5)


def test_intervals_hold_what_they_say():
    """Of 400 means of five lognormal rates, 95 per cent lie in their intervals; of ratios likewise."""
    held = ratios = 0
    for seed in range(400):
        rates, others = around(100, 0.3, 5, seed), around(200, 0.1, 8, seed + 10_000)
        found, ratio = interval(rates), ratio_interval(rates, others, 0.95)
        held += found.low <= 100 <= found.high
        ratios += ratio.low <= 2 <= ratio.high
        assert found.low <= found.mean <= found.high
    assert 365 <= held <= 395
    assert 365 <= ratios <= 395


def test_intervals_of_too_little():
    assert interval([5.0]) is interval([]) is interval([1.0, 0.0]) is None
    assert ratio_interval([1.0], [2.0, 3.0], 0.95) is ratio_interval([1.0, 0.0], [2.0, 3.0], 0.95) is None
    assert ratio_interval([2.0, 2.0], [3.0, 3.0], 0.95).low == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("endpoint", "near"),
    [
        ("http://127.0.0.1:9000", True), ("http://localhost", True), ("http://[::1]:80", True), (None, False),
        ("https://s3.eu-west-1.amazonaws.com", False),
    ],
)  # fmt: skip
def test_servers_on_this_machine(endpoint, near):
    assert on_loopback(endpoint) is near
