"""mfstore du as a person and as a script use it."""

import csv
import io
import json

import numpy as np
import pytest

import mfstore as library
from mfstore.cli.du import OF_ROOTS, OF_STORES
from mfstore.maintenance.metaflow.usage import BY as OF_ROOT
from mfstore.maintenance.store.usage import BY as OF_STORE
from tests.rigs.command_line import mfstore
from tests.rigs.metaflow_trees import run_meta, task

RUN = "1700000000000000"


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(0)
    with library.open(tmp_path / "store", fsync="none") as found:
        shared = rng.random(50_000)
        found.save({"a": shared, "b": rng.random(30_000)}, ref="one")
        found.save({"a": shared, "c": rng.random(20_000)}, ref="two")
    return tmp_path / "store"


def test_groups_are_those_of_the_library():
    assert (OF_STORES, OF_ROOTS) == (OF_STORE, OF_ROOT)


def test_a_table_for_people(store):
    out = mfstore("du", "-s", store, "--by", "ref", "--price-gb-month", "100").stdout
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["one", "two"]
    assert "own, a month" in lines[0] and "a month: " in lines[-1] and "held by nobody" in lines[-1]
    out = mfstore("du", "-s", store, "--by", "ref", "--sort", "name", "--top", "1").stdout
    assert "one" in out and "two" not in out and "and 1 more" in out
    out = mfstore("du", "-s", store, "--by", "class", "--price-gb-month", "0.023", "--price-gb-month", "X=1").stdout
    assert "(no class)" in out and " a month: " in out
    assert "until then" in mfstore("du", "-s", store, "--by", "month").stdout


def test_json_and_csv_for_programs(store):
    found = json.loads(mfstore("du", "-s", store, "--by", "artifact", "--json", "--price-gb-month", "0.023").stdout)
    assert found["total"] == found["own"] + found["shared"] + found["unheld"]
    assert {group["name"] for group in found["groups"]} == {"a", "b", "c"}
    assert found["total_cost"] == pytest.approx(found["total"] / 2**30 * 0.023)
    rows = list(csv.DictReader(io.StringIO(mfstore("du", "-s", store, "--by", "artifact", "--csv").stdout)))
    assert {row["artifact"]: int(row["own"]) for row in rows} == {
        group["name"]: group["own"] for group in found["groups"]
    }


def test_below_a_root(tmp_path):
    root = tmp_path / "root"
    task(root, "Flow", RUN, "start", 1, {"x": ["x"] * 500})
    run_meta(root, "Flow", RUN, tags=["prod"])
    task(root, "Flow", RUN + "1", "start", 1, {"x": ["x"] * 500})
    done = mfstore("du", "--metaflow", root, "--by", "tag", "--metadata", "local")
    assert "prod" in done.stdout and "(unknown tag)" in done.stdout
    assert "of 1 of 2 runs nothing tells the tag" in done.stderr
    out = mfstore("du", "--metaflow", root, "--by", "run", "--flow", "F*").stdout
    assert f"Flow/{RUN}" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--csv",), "--csv: only with --by"),
        (("--by", "tag"), "--by tag: only for --metaflow"),
        (("--by", "ref", "--csv", "--json"), "two forms"),
        (("--by", "ref", "--flow", "F"), "only for --metaflow"),
        (("--metaflow", "x", "--by", "type"), "--by type: not for --metaflow"),
        (("--by", "colour"), "colour"),
        (("--by", "ref", "--price-gb-month", "GLACIER=1"), "prices of classes are for --by class"),
        (("--by", "class", "--price-gb-month", "GLACIER=cheap"), "is no price"),
        (("--by", "ref", "--price-gb-month", "-1"), "is no price"),
    ],
)
def test_wrong_usage(store, arguments, says):
    place = () if "--metaflow" in arguments else ("-s", store)
    assert says in mfstore("du", *place, *arguments, code=2).stderr
