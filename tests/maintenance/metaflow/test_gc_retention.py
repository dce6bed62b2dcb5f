"""Policies on roots as they lie there: how runs ended, in which order they began, and what is told of all that."""

import json
import os
import random
import time
from pathlib import Path

import jsonschema
import pytest

from mfstore import errors
from mfstore.cli import main
from mfstore.maintenance.metaflow.collecting.beginnings import time_of_attempt
from mfstore.maintenance.metaflow.collecting.facts import RunFacts
from mfstore.maintenance.metaflow.collecting.listed_runs import listed_runs
from mfstore.maintenance.metaflow.collecting.plan import plan_metaflow_gc
from mfstore.maintenance.metaflow.collecting.planned import plan_notes
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.collecting.records import FileRecords
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.holdings import list_root
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.report import untold
from tests.rigs.metaflow_trees import files, run_meta, task

DAY = 86400.0
SCHEMAS = Path(__file__).parents[3] / "docs" / "schema"


def a_run(root, flow, run, days, state="successful", tags=None, **artifacts):
    """A run of so many days ago that ended so; ``tags``: it has local metadata."""
    age = days * DAY
    if tags is not None:
        run_meta(root, flow, run, tags, age=age)
    task(root, flow, run, "_parameters", 1, {"run": run}, age=age)
    task(root, flow, run, "start", 2, {"run": run, **artifacts}, age=age - 60)
    if state != "unfinished":
        task(root, flow, run, "end", 3, {"_success": state == "successful", "_task_ok": True}, age=age - 120)


def use(root, work, **policy):
    place = Root(str(root))
    try:
        return work(place, RunPolicy(**{"grace": 0.0, **policy}))
    finally:
        place.close()


def plan(root, **policy):
    return use(root, plan_metaflow_gc, **policy)


def kept(root, **policy):
    return {run for _, run in plan(root, **policy).kept}


def test_how_runs_ended_is_told_by_their_end(tmp_path):
    for days, state in ((1, "failed"), (2, "unfinished"), (3, "successful"), (4, "successful")):
        a_run(tmp_path, "Flow", f"r{days}", days, state)
    found = {entry.run: entry for entry in plan(tmp_path, last=1).runs}
    assert {run: entry.state for run, entry in found.items()} == {
        "r1": "failed", "r2": "unfinished", "r3": "successful", "r4": "successful",
    }  # fmt: skip
    assert found["r3"].ended - found["r3"].began == pytest.approx(120, abs=30)
    assert kept(tmp_path, last=1) == {"r1", "r2", "r3"}
    assert kept(tmp_path, last_successful=1) == {"r3"}


@pytest.mark.parametrize("kind", ["argo", "sfn", "number"])
def test_a_copy_with_new_times_is_judged_like_the_original(tmp_path, kind):
    """All objects of a bucket are as old as its copy, in any order: runs say themselves when they began."""
    names = {"argo": "argo-flow-{}", "sfn": "sfn-{}", "number": "{}"}
    order = [f"{n:05d}" for n in range(12)]
    random.Random(5).shuffle(order)
    for days, name in enumerate(order, 1):
        a_run(tmp_path, "Flow", names[kind].format(name), days)
    policies = ({"last": 4, "deployed": False}, {"age": 5.5 * DAY}, {"weekly": 2}, {"last_successful": 3, "daily": 5})
    before = [kept(tmp_path, **policy) for policy in policies]
    assert [len(found) for found in before[:2]] == [4, 5]
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    random.Random(6).shuffle(paths)
    for number, path in enumerate(paths):
        os.utime(path, (time.time() - 3600 - number,) * 2)
    assert [kept(tmp_path, **policy) for policy in policies] == before
    for number, path in enumerate(reversed(paths)):
        os.utime(path, (time.time() - 3600 - number,) * 2)
    assert [kept(tmp_path, **policy) for policy in policies] == before


def test_no_run_passes_for_younger_than_its_files(tmp_path):
    """A task that writes a time to come into its own attempt pushes no other run out."""
    for days in (1, 2, 3):
        a_run(tmp_path, "Flow", f"r{days}", days)
    path = tmp_path / "Flow/r3/_parameters/1/0.attempt.json"
    for told in (time.time() + 900 * DAY, 1e308, float("inf"), -1.0, 0.0, "soon", None):
        moment = path.stat().st_mtime
        path.write_text(json.dumps({"time": told}))
        os.utime(path, (moment, moment))
        assert kept(tmp_path, last=2) == {"r1", "r2"}, told


def test_what_attempts_write_down():
    assert time_of_attempt(b'{"time": 1700000000.5}') == 1700000000.5
    for data in (b"", b"[]", b"{}", b'{"time": "x"}', b'{"time": 5}', b'{"time": NaN}', b'{"time": Infinity}', b"\xff"):
        assert time_of_attempt(data) is None


def test_runs_whose_id_or_metadata_tells_when_they_began_are_not_asked(tmp_path, monkeypatch):
    microseconds = str(int((time.time() - DAY) * 1e6))
    a_run(tmp_path, "Flow", microseconds, 1)
    a_run(tmp_path, "Flow", "told", 2, tags=())
    a_run(tmp_path, "Flow", "untold", 3)
    asked = []

    def counted(self, runs, undated):
        asked.extend(undated)
        return read(self, runs, undated)

    read = FileRecords.read
    monkeypatch.setattr(FileRecords, "read", counted)
    began = {entry.run: time.time() - entry.began for entry in plan(tmp_path, last=1).runs}
    assert asked == [("Flow", "untold")]
    assert began == {
        microseconds: pytest.approx(DAY, abs=60), "told": pytest.approx(2 * DAY, abs=60),
        "untold": pytest.approx(3 * DAY, abs=60),
    }  # fmt: skip


def test_the_first_attempt_of_a_run_is_that_of_its_parameters(tmp_path):
    a_run(tmp_path, "Flow", "r", 9)
    for path in tmp_path.rglob("*.json"):
        os.utime(path, (time.time() - 100 - (path.parent.parent.name == "end"),) * 2)  # as if the end came first
    place = Root(str(tmp_path))
    try:
        (listed,) = listed_runs(list_root(place, untold)).parts()
        (began,) = FileRecords(place, listed, ()).read((), [("Flow", "r")])[1].values()
    finally:
        place.close()
    assert time.time() - began == pytest.approx(9 * DAY, abs=60)


def test_tags_tell_branch_user_and_time_to_stay(tmp_path):
    tags = ("project:p", "project_branch:test.new", "ttl:3d")
    a_run(tmp_path, "Flow", "1", 2, tags=tags)
    a_run(tmp_path, "Flow", "2", 4, tags=tags)
    a_run(tmp_path, "Flow", "3", 5, tags=("ttl:whenever",))
    found = plan(tmp_path, age=365 * DAY)
    entries = {entry.run: entry for entry in found.runs}
    assert (entries["1"].branch, entries["1"].user) == ("test.new", "me")
    assert entries["1"].expires == pytest.approx(entries["1"].began + 3 * DAY)
    assert found.kept == {
        ("Flow", "1"): "its ttl is not over", ("Flow", "3"): "what its tag ttl says cannot be understood",
    }  # fmt: skip
    assert found.dropped == {("Flow", "2"): "its ttl is over"}
    assert "Flow/3 has the tag ttl:whenever, which is no duration: it stays" in repr(found)


def test_a_brake_on_how_much_goes_at_once(tmp_path, capsys):
    for days in range(1, 11):
        a_run(tmp_path, "Flow", f"r{days:02d}", days)
    before = files(tmp_path)
    with pytest.raises(
        errors.Refused, match=r"7 runs would be condemned at once, 70% of all: more than --max-drop 50%"
    ):
        use(tmp_path, collect_metaflow, last=3, max_drop=0.5)
    command = ["gc", "--metaflow", str(tmp_path), "--keep-last", "3", "--max-drop", "50%", "--grace", "0s"]
    main(command, standalone_mode=False)
    assert "--execute refuses it without --yes-really: 7 runs would be condemned" in capsys.readouterr().out
    with pytest.raises(SystemExit) as failed:
        main([*command, "--execute"], standalone_mode=False)
    assert failed.value.code == 1 and files(tmp_path) == before
    assert not list(tmp_path.glob("mf.maintenance/condemned/*"))
    for _ in range(2):  # said once: what is condemned already is no brake
        main([*command, "--execute", "--yes-really"], standalone_mode=False)
    assert kept(tmp_path, last=10) == {"r01", "r02", "r03"}
    use(tmp_path, collect_metaflow, last=2, max_drop=0.4)


@pytest.mark.parametrize(
    "options",
    [("--keep-age", "90"), ("--keep-age", "90x"), ("--max-drop", "30"), ("--max-drop", "130%"), ("--keep-last", "0"),
     ("--keep-last", "1", "--group-by", "colour"), ("--keep-last", "1", "--series", "x"), ()],
)  # fmt: skip
def test_options_that_make_no_sense(tmp_path, options, capsys):
    a_run(tmp_path, "Flow", "1", 5)
    with pytest.raises(SystemExit) as failed:
        main(["gc", "--metaflow", str(tmp_path), *options], standalone_mode=False)
    assert failed.value.code in (1, 2)
    assert capsys.readouterr().err


@pytest.fixture
def all_kinds(tmp_path):
    """Runs of every fate: kept, waiting, to be removed and to be condemned."""
    for days, state in ((20, "successful"), (30, "failed"), (40, "successful")):
        a_run(tmp_path, "Flow", f"r{days}", days, state, tags=("a", "project_branch:prod", "user:ann"))
    a_run(tmp_path, "Other", "argo-other-x1", 50, "unfinished")
    task(tmp_path, "Other", "r9", "start", 1, {"x": 1}, done=False, age=60)
    use(tmp_path, collect_metaflow, last_successful=1)
    a_run(tmp_path, "Flow", "r50", 50, tags=("a", "project_branch:prod", "user:ann"))
    return tmp_path


def test_json_is_what_its_schema_says(all_kinds, capsys):
    schema = json.loads((SCHEMAS / "gc-metaflow.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    seen = set()
    for more in ((), ("--max-drop", "1%"), ("--execute",), ("--execute", "--keep-age", "10000d"), ("--execute",)):
        command = [
            "gc",
            "--metaflow",
            str(all_kinds),
            "--keep-last-successful",
            "1",
            "--grace",
            "0s",
            "--json",
            "--wait",
            "0s",
        ]
        main([*command, *more], standalone_mode=False)
        document = json.loads(capsys.readouterr().out)
        jsonschema.validate(document, schema)
        seen |= {entry["fate"] for entry in document["runs"]}
        assert {entry["run"] for entry in document["runs"] if entry["fate"] == "keep"} == set(document["keep"])
        removed = [entry["run"] for entry in document["runs"] if entry["fate"] == "remove"]
        assert sorted(removed) == sorted(document["remove"])
        assert bool(document["refusal"]) is ("--max-drop" in more)
    assert seen >= {"keep", "condemn", "remove"}
    document["runs"][0]["fate"] = "burn"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def test_the_plan_tells_the_policy_and_each_run(all_kinds, capsys):
    command = ["gc", "--metaflow", str(all_kinds), "--keep-last-successful", "1", "--keep-age", "25d", "--grace", "0s"]
    main(command, standalone_mode=False)
    short = capsys.readouterr().out
    assert "keep of each flow and branch the last 1 successful; runs that began within 25 days" in short
    assert "r30" not in short
    main([*command, "-l"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "Flow/r20" in line]
    assert line.split()[:3] == ["keep", "Flow/r20", "prod"] and "successful" in line
    (line,) = [line for line in lines if "Flow/r50" in line]
    assert line.startswith("condemn") and line.rstrip().endswith("began 50 days ago")


def test_what_is_not_known_and_what_matches_nothing_is_told(tmp_path):
    """A cron job whose configuration lost its metadata service would say nothing else of it."""
    for number, tags in enumerate((["a"], ["b"], None, None)):
        a_run(tmp_path, "Flow", f"r{number}", number + 1, tags=tags)
    notes = "\n".join(plan_notes(plan(tmp_path, last=1, flows=("Flow", "Flwo"))))
    assert "2 runs of those that go: nothing tells the tags" in notes
    assert "no flow with runs matches --flow Flwo" in notes and "--flow Flow" not in notes
    assert "nothing tells" not in "\n".join(plan_notes(plan(tmp_path, last=4)))


def test_cards(all_kinds):
    found = plan(all_kinds, last_successful=1)
    for text in (repr(found), found._repr_html_()):
        assert "keep of each flow and branch the last 1 successful" in text and "Flow" in text and "remove" in text
    assert len(repr(found).splitlines()) <= 12 and found._repr_html_().startswith('<div class="mfstore-card">')
    _, result = use(all_kinds, collect_metaflow, last_successful=1)
    assert "removed 2 runs" in repr(result) and "condemned 1 run" in repr(result)
    assert "removed 2 runs" in result._repr_html_()


def test_facts_say_what_they_are_by_themselves():
    assert RunFacts("F", "argo-x-1", 0.0, 0.0, False).origin == "argo"
    assert not RunFacts("F", "1", 0.0, 0.0, True).counts and RunFacts("F", "1", 0.0, 0.0, False).counts
