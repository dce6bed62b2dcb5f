"""A root planned in parts is the root planned whole, and what carries the parts out does what a collection of the whole
does; on a simulated S3."""

import copy
import json
import pickle
from dataclasses import replace

import pytest

from mfstore import errors
from mfstore.maintenance.metaflow.collecting.merging import merged
from mfstore.maintenance.metaflow.collecting.plan import plan_metaflow_gc
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.collecting.run_table import RunTable, SomeRuns
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.sharded_gc import PlannedShard, collect_shards, plan_shard
from tests.rigs.simulated_roots import SimulatedRoot

DAY = 86400.0
UNORDERED = tuple | frozenset | RunTable | SomeRuns
KEEP = RunPolicy(last=2, grace=0.0, pinned=("Alpha/argo-x0", "Gone/*"))
FLOWS = ("Alpha", "Beta", "Gamma", "Größe")
PARTS = (("Alpha", "Größe"), ("Beta",), ("Gamma", "Nobody"))


@pytest.fixture
def rig():
    rig = SimulatedRoot()
    for number, flow in enumerate(FLOWS):
        for run in range(4 + number):
            rig.run(flow, f"argo-x{run}", age=(30 - 2 * run) * DAY, well=run != 3)
    rig.run("Gamma", "argo-running", age=0.0, ended=False)
    return rig


def in_parts(rig, monkeypatch, policy=KEEP, parts=PARTS, execute=True, **more):
    """What machines of a fleet plan: as it reaches the one that carries it out."""
    planned = []
    for flows in parts:
        with rig.opened(monkeypatch) as root:
            plan, holdings = pickle.loads(
                pickle.dumps(plan_shard(root, policy, flows, metadata="none", execute=execute, **more))
            )
        planned.append(PlannedShard(plan, lambda holdings=holdings: holdings))
    return planned


def carried_out(rig, monkeypatch, planned, policy=KEEP, failed=(), **more):
    with rig.opened(monkeypatch) as root:
        return collect_shards(root, policy, planned, failed, metadata="none", **more)


def whole(rig, monkeypatch, policy=KEEP):
    with rig.opened(monkeypatch) as root:
        return collect_metaflow(root, policy, metadata="none")


def stored(rig):
    """What lies there, but for what collections write down."""
    return {key: data for key, data in rig.world.objects.items() if "/mf.maintenance/" not in key}


def without_memory(plan):
    return {
        name: sorted(value, key=repr) if isinstance(value := getattr(plan, name), UNORDERED) else value
        for name in plan.__slots__ if name not in ("now", "liveness")
    }  # fmt: skip


def test_the_parts_together_are_the_plan_of_the_whole(rig, monkeypatch):
    whole(rig, monkeypatch)
    with rig.opened(monkeypatch) as root:
        expected = plan_metaflow_gc(root, KEEP, metadata="none")
    before = dict(rig.world.objects)
    planned = in_parts(rig, monkeypatch, execute=False)
    assert rig.world.objects == before
    found = merged([shard.plan for shard in planned], KEEP, False)
    assert without_memory(found) == without_memory(expected)
    assert expected.remove and expected.blobs and expected.busy and expected.unmatched == ("Gone/*",)
    assert found.refusal == expected.refusal


def test_what_is_done_is_what_a_collection_of_the_whole_does(rig, monkeypatch):
    other = copy.deepcopy(rig)
    for _ in range(2):
        plan, done = carried_out(rig, monkeypatch, in_parts(rig, monkeypatch))
        expected_plan, expected = whole(other, monkeypatch)
        assert set(plan.condemn) == set(expected_plan.condemn)
        assert (set(done.removed), done.deleted, done.held) == (
            set(expected.removed), expected.deleted, expected.held
        )  # fmt: skip
        assert stored(rig).keys() == stored(other).keys()
    assert done.removed and done.deleted.objects


def test_a_part_may_be_planned_again_beside_its_execution(rig, monkeypatch):
    planned = in_parts(rig, monkeypatch)
    again = in_parts(rig, monkeypatch)
    carried_out(rig, monkeypatch, planned)
    carried_out(rig, monkeypatch, in_parts(rig, monkeypatch))
    left = stored(rig)
    _, done = carried_out(rig, monkeypatch, again)  # by what was planned before the others
    assert done.deleted.objects == 0 and stored(rig) == left


def test_parts_read_what_their_flows_need_and_no_more(rig, monkeypatch):
    with rig.counted() as first:
        in_parts(rig, monkeypatch)
    rig.forget()
    with rig.counted() as alone:
        in_parts(rig, monkeypatch, parts=[("Beta",)])
    assert alone["GetObject"] < first["GetObject"] / 2
    # What machines remember side by side is all remembered.
    with rig.counted() as once_more:
        in_parts(rig, monkeypatch)
        in_parts(rig, monkeypatch)
    with rig.counted() as daily:
        in_parts(rig, monkeypatch)
    assert daily["GetObject"] < first["GetObject"] / 4 < once_more["GetObject"]


def test_flows_of_a_part_that_failed_are_left_as_they_are(rig, monkeypatch):
    carried_out(rig, monkeypatch, in_parts(rig, monkeypatch))
    before = set(rig.under("Beta/"))
    planned = in_parts(rig, monkeypatch, parts=[PARTS[0], PARTS[2]])
    plan, done = carried_out(rig, monkeypatch, planned, failed=PARTS[1])
    assert done.removed and not [run for run in done.removed if run.startswith("Beta/")]
    assert set(rig.under("Beta/")) == before and plan.others
    # Their runs stay condemned, so the next collection removes them.
    assert [run for run in whole(rig, monkeypatch)[1].removed if run.startswith("Beta/")]


def test_runs_that_another_collection_kept_meanwhile_stay(rig, monkeypatch):
    whole(rig, monkeypatch)
    planned = in_parts(rig, monkeypatch)
    assert [run for shard in planned for run in shard.plan.remove if run.flow == "Beta"]
    whole(rig, monkeypatch, RunPolicy(last=2, grace=0.0, pinned=("Beta/*",), max_drop=1.0, flows=("Beta",)))
    before = set(rig.under("Beta/"))
    plan, done = carried_out(rig, monkeypatch, planned)
    assert set(rig.under("Beta/")) == before
    assert "another collection kept runs" in plan.held["Beta"] and "Beta" in done.held
    assert done.removed


def test_nobody_waits_for_a_flow_that_is_known_to_be_running(rig, monkeypatch):
    whole(rig, monkeypatch)
    planned = in_parts(rig, monkeypatch)
    before = set(rig.under("Beta/"))
    _, done = carried_out(rig, monkeypatch, planned, running={"Beta": "it collects", "Nobody": "x"})
    assert set(rig.under("Beta/")) == before and done.removed and done.held == {"Beta": "it collects"} | done.held
    assert "Nobody" not in done.held
    assert [run for run in whole(rig, monkeypatch)[1].removed if run.startswith("Beta/")]


def test_what_tasks_did_since_it_was_planned_keeps_what_they_need(rig, monkeypatch):
    whole(rig, monkeypatch)
    planned = in_parts(rig, monkeypatch)
    (doomed,) = [blob for shard in planned for blob in sorted(shard.plan.blobs) if blob[0] == "Beta"][:1]
    rig.run("Beta", "argo-new", age=0.0)
    changed = json.loads(rig.world.objects["mf/Beta/argo-new/start/1/0.data.json"])
    changed["objects"]["own0"] = doomed[1]
    rig.put("Beta/argo-new/start/1/0.data.json", json.dumps(changed).encode(), 0.0)
    _, done = carried_out(rig, monkeypatch, planned)
    assert rig.under(f"Beta/data/{doomed[1][:2]}/{doomed[1]}") and done.removed


def test_by_an_inventory_nothing_goes_that_was_written_to_since(rig, monkeypatch):
    carried_out(rig, monkeypatch, in_parts(rig, monkeypatch))
    rig.put("mf.store/mfstore.json", b"{}", DAY)
    url = f"s3://b/{rig.inventory(age=DAY)}"
    rig.put("Beta/argo-x0/train/2/1.attempt.json", b"{}", 60.0)
    rig.put("Beta/argo-x0/train/2/1.DONE.lock", b"", 60.0)
    planned = in_parts(rig, monkeypatch, inventory=url)
    plan, done = carried_out(rig, monkeypatch, planned)
    assert {name.split("/")[0] for name in done.removed} == {"Größe"}
    assert "not as the inventory has it" in done.held["Beta"]
    older = replace(planned[1].plan, as_of=plan.as_of - 60)
    assert merged([planned[0].plan, older, planned[2].plan], KEEP, False).as_of == older.as_of


def test_one_brake_is_for_all_parts(rig, monkeypatch):
    policy = RunPolicy(last=2, grace=0.0, max_drop=0.2)
    before = stored(rig)
    with pytest.raises(errors.Refused, match="max-drop 20%"):
        carried_out(rig, monkeypatch, in_parts(rig, monkeypatch, policy), policy)
    assert stored(rig) == before
    _, done = carried_out(rig, monkeypatch, in_parts(rig, monkeypatch, policy), policy, yes_really=True)
    assert done.condemned
