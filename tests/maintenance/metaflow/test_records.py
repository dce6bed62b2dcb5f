"""What Metaflow's metadata, and the files of runs, tell of them."""

import contextlib
import json
import os
import time
from pathlib import Path

import pytest
from metaflow.plugins.datastores.serializers.pickle_serializer import PickleSerializer

from mfstore.errors import CorruptObject, NotFound
from mfstore.maintenance.metaflow.collecting.listed_runs import listed_runs
from mfstore.maintenance.metaflow.collecting.plan import plan_metaflow_gc
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.collecting.records import (
    FileRecords,
    LocalRecords,
    LocalRecordsElsewhere,
    RunRecord,
    merged,
    time_in_id,
)
from mfstore.maintenance.metaflow.holdings import list_root
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.report import untold
from mfstore.metaflow.packed.plain import plain_pickle
from mfstore.metaflow.roots.outcome import ended_well, leads_nowhere
from mfstore.metaflow.roots.packed_keys import inline_key
from mfstore.metaflow.stock.encoding import key_of
from tests.rigs.metaflow_trees import run_meta, task

FLOW = "Flow"


@contextlib.contextmanager
def listed(tree):
    root = Root(str(tree))
    try:
        yield root, list_root(root, untold)
    finally:
        root.close()


def by_files(tree, running=()):
    with listed(tree) as (root, holdings):
        source = FileRecords(root, next(listed_runs(holdings).parts()), running)
        records, _ = source.read([*holdings.runs, (FLOW, "never")], ())
        return {run: record for (_, run), record in records.items()}


def by_metadata(tree):
    with listed(tree) as (root, holdings):
        return {run: record for (_, run), record in LocalRecords(root, holdings.metadata).read(holdings.runs).items()}


def test_how_a_run_ended_is_told_by_its_last_task(tmp_path):
    end = {"_success": True, "_task_ok": True}
    task(tmp_path, FLOW, "well", "end", 2, end, age=500)
    task(tmp_path, FLOW, "badly", "end", 2, {**end, "_success": False}, age=400)
    task(tmp_path, FLOW, "half", "start", 1, end, age=300)
    task(tmp_path, FLOW, "odd", "end", 1, {"_success": "what else"}, age=200)
    task(tmp_path, FLOW, "again", "end", 1, end, age=100)
    task(tmp_path, FLOW, "again", "end", 1, end, attempt=1, done=False, age=50)  # its readers find nothing
    found = by_files(tmp_path, running={(FLOW, "again")})
    assert {run: record.state for run, record in found.items()} == {
        "well": "successful", "badly": "failed", "half": "unfinished", "odd": "unknown", "again": "running",
    }  # fmt: skip
    assert [found[run].ended is None for run in ("well", "badly", "odd", "half", "again")] == [False] * 3 + [True] * 2
    assert abs(time.time() - 500 - found["well"].ended) < 100


def test_the_last_step_may_have_any_name(tmp_path):
    """``@step(end=True)``, and flows of one step: their runs are no unfinished ones."""
    on, over = {"_success": True, "_transition": (["finish"], None)}, {"_success": True, "_transition": None}
    for run in ("well", "half", "badly", "damaged", "gone"):
        task(tmp_path, FLOW, run, "_parameters", 0, over, age=500)
        for number in range(3):
            task(tmp_path, FLOW, run, "begin", 1 + number, on, age=400)
    task(tmp_path, FLOW, "well", "finish", 4, over, age=300)
    task(tmp_path, FLOW, "badly", "finish", 4, {**over, "_success": False}, age=300)
    for run in ("damaged", "gone"):
        task(tmp_path, FLOW, run, "finish", 4, over, age=300)
    Path(tmp_path, FLOW, "damaged", "finish", "4", "0.data.json").write_text("{")
    with listed(tmp_path) as (root, holdings):
        Path(tmp_path, FLOW, "gone", "finish", "4", "0.data.json").unlink()
        records, _ = FileRecords(root, next(listed_runs(holdings).parts()), ()).read(holdings.runs, ())
    assert {run: (record.state, record.ended is not None) for (_, run), record in records.items()} == {
        "well": ("successful", True), "half": ("unfinished", False), "badly": ("failed", True),
        "damaged": ("unfinished", False), "gone": ("unfinished", False),
    }  # fmt: skip


@pytest.mark.parametrize("value", [True, False])
def test_the_keys_of_both_profiles_are_known(value):
    stock = key_of(PickleSerializer.serialize(value)[0][0].value)
    for key in (stock, inline_key(plain_pickle(value))):
        assert ended_well(json.dumps({"objects": {"_success": key}}).encode()) is value


def test_the_key_of_none_is_known_in_both_profiles():
    stock = key_of(PickleSerializer.serialize(None)[0][0].value)
    for key in (stock, inline_key(plain_pickle(None))):
        assert leads_nowhere(json.dumps({"objects": {"_transition": key}}).encode())
        assert not leads_nowhere(json.dumps({"objects": {"_transition": f"{key}0", "_success": key}}).encode())


def test_an_end_that_cannot_be_read_is_no_failure(tmp_path):
    task(tmp_path, FLOW, "1", "end", 2, {"_success": True})
    Path(tmp_path, FLOW, "1", "end", "2", "0.data.json").write_text("{")
    assert by_files(tmp_path)["1"].state == "unknown"


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"objects": 3}', b"[" * 99999])
def test_what_is_no_data_json_has_no_outcome(data):
    with pytest.raises(CorruptObject, match="data.json"):
        ended_well(data)


def test_local_metadata_tells_tags_user_and_when_a_run_began(tmp_path):
    began = 1795439202.5
    run = str(int(began * 1e6))
    for name in (run, "named"):
        run_meta(tmp_path, FLOW, name, ["keep"], age=1000)
        task(tmp_path, FLOW, name, "start", 1, {})
    path = Path(tmp_path, FLOW, "named", "_meta", "_self.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "user_name": "ada"}))
    for name, text in (("damaged", "{"), ("lower", path.read_text()), ("untold", None)):
        task(tmp_path, FLOW, name, "start", 1, {})
        if text is not None:
            other = Path(tmp_path, FLOW, name, "_meta", "_self.json")
            other.parent.mkdir()
            other.write_text(text)
            os.utime(other, (5, 5))
    found = by_metadata(tmp_path)
    assert set(found) == {run, "named", "damaged"}
    assert found["damaged"].unread and found["damaged"].tags is None
    assert found[run].began == began, "tagged later, its document says when that was; the id does not change"
    assert abs(time.time() - 1000 - found["named"].began) < 100
    assert (found["named"].tags, found["named"].user, found["named"].source) == ({"keep"}, "ada", "local")
    assert found["named"].all_tags == {"keep", "user:me"}


def test_local_metadata_of_another_place(tmp_path):
    run_meta(tmp_path / "home" / ".metaflow", FLOW, "1", ["keep"])
    elsewhere = LocalRecordsElsewhere(str(tmp_path / "home"))
    assert {run: record.tags for run, record in elsewhere.read([(FLOW, "1"), (FLOW, "2")]).items()} == {
        (FLOW, "1"): {"keep"}
    }
    for place in ("home", "nowhere"):
        with pytest.raises(NotFound, match="recorded there"):
            LocalRecordsElsewhere(str(tmp_path / place)).read([(FLOW, "2")])


def test_a_run_with_a_record_that_cannot_be_read_stays(tmp_path):
    for run in ("1", "2", "3"):
        run_meta(tmp_path, FLOW, run, age=9000 - 1000 * int(run))
        task(tmp_path, FLOW, run, "start", 1, {}, age=9000 - 1000 * int(run))
    Path(tmp_path, FLOW, "1", "_meta", "_self.json").write_text("{")
    root = Root(str(tmp_path))
    plan = plan_metaflow_gc(root, RunPolicy(last=1, grace=0.0))
    root.close()
    assert plan.kept[FLOW, "1"] == "what is recorded of it cannot be read: not the metadata of a run"
    assert [entry.name for entry in plan.condemn] == ["Flow/2"]


def test_times_in_ids():
    assert time_in_id("1795439202500000") == 1795439202.5
    assert [time_in_id(run) for run in ("5321", "argo-flow-x7z", "sfn-1", "2795439202500000")] == [None] * 4


def test_metadata_is_asked_first_and_files_for_the_rest():
    files = RunRecord("files", 1.0, 2.0, "failed")
    told = RunRecord("service", 5.0, tags=frozenset({"a"}), user="ada", heartbeat=7.0)
    assert merged(told, files) == RunRecord("service", 5.0, 2.0, "failed", frozenset({"a"}), user="ada", heartbeat=7.0)
    assert merged(None, files) is files
    assert merged(told, None) is told
    assert merged(None, None) == RunRecord("files")
    assert RunRecord("files").all_tags is None
