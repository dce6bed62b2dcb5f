"""What the steps of a fleet do, one after the other in one process: the same as the command without a fleet."""

from dataclasses import replace

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore.fleet.request import Request, decode, encode
from mfstore.fleet.shards import cut_root
from mfstore.fleet.work import Done, cut, finish, work
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.holdings import list_root
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.verify import verify_metaflow
from mfstore.maintenance.report import untold
from mfstore.maintenance.verification import VerifyOptions
from tests.rigs.metaflow_trees import blobs_of, files, task

DAY = 86400.0
POLICY = RunPolicy(last=1, grace=0.0)


@pytest.fixture
def root(tmp_path):
    """Three flows of three runs."""
    for flow in ("One", "Two", "Three"):
        for run in range(3):
            task(tmp_path, flow, f"{run}", "end", 1, {"x": [flow, run], "shared": flow}, age=(9 - run) * DAY)
    return tmp_path


def done(request, failing=()):
    """All parts, but those of these numbers."""
    request = decode(encode(request))
    found = []
    for shard in cut(request):
        if shard.number in failing:
            found.append(Done(shard, None, "killed"))
            continue
        result, listed = work(request, shard)
        found.append(Done(shard, result, holdings=lambda listed=listed: listed))
    return finish(request, found)


def test_a_request_comes_back_from_its_text():
    policy = RunPolicy(1, 2.5, ("release*",), ("A/*",), ("A", "B"), max_drop=0.3, group_by=("flow", "user"))
    request = Request("gc", "s3://b/mf", True, policy=policy, execute=True, wait=5.0)
    assert decode(encode(request)) == request
    for text in ("", "{}", "[]", '{"action": "gc", "url": "x", "is_root": true, "from_tomorrow": 1}'):
        with pytest.raises(errors.InvalidKey):
            decode(text)


@pytest.mark.parametrize(
    "change",
    [
        {"shards": 0},
        {"shards": 257},
        {"is_root": False},
        {"policy": None},
        {"policy": RunPolicy()},
        {"policy": replace(POLICY, group_by=("user",))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_no_fleet_can_do_is_told_before_anything_is_asked(change):
    with pytest.raises(errors.InvalidKey):
        replace(Request("gc", "s3://nowhere/mf", True, policy=POLICY), **change).check()


@pytest.mark.parametrize("count", [1, 3, 16, 256])
def test_every_flow_is_in_one_part(count):
    flows = [f"Flow{number}" for number in range(40)]
    parts = cut_root(flows, count)
    assert len(parts) == min(count, 40) and [part.number for part in parts] == [*range(1, len(parts) + 1)]
    assert sorted(flow for part in parts for flow in part.flows) == sorted(flows)
    assert max(len(part.flows) for part in parts) - min(len(part.flows) for part in parts) <= 1


def test_a_place_without_flows_is_told(tmp_path):
    with pytest.raises(errors.MfstoreError):
        cut(Request("du", str(tmp_path / "nothing"), True))
    with pytest.raises(errors.NotAStore):
        cut(Request("du", str(tmp_path), True))


def test_runs_go_as_by_one_collection(root):
    request = Request("gc", str(root), True, policy=POLICY, execute=True, shards=2, metadata="none")
    planned = done(replace(request, execute=False))
    assert planned.result is None and len(planned.found.condemn) == 6
    assert done(request).result.condemned == 6
    outcome = done(request)
    assert sorted(outcome.result.removed) == sorted(
        f"{flow}/{run}" for flow in ("One", "Two", "Three") for run in (0, 1)
    )
    assert not outcome.failed and {name.split("/")[1] for name in files(root) if "/end/" in name} == {"2"}
    assert len(blobs_of(root, "One")) == 2


def test_a_part_that_fails_is_left_alone_and_named(root):
    request = Request("gc", str(root), True, policy=POLICY, execute=True, shards=3, metadata="none")
    done(request)
    failed = cut(request)[1]
    outcome = done(request, failing=[2])
    assert outcome.failed == {str(failed): "killed"} and str(failed) == f"part 2 of 3 ({failed.flows[0]})"
    assert len(outcome.result.removed) == 4 and not [
        run for run in outcome.result.removed if run.startswith(failed.flows)
    ]
    assert len(blobs_of(root, failed.flows[0])) == 4
    with pytest.raises(errors.Refused, match="killed"):
        done(request, failing=[1, 2, 3])


def test_a_root_verified_in_parts_is_the_root_verified_whole(root):
    (damaged,) = [path for path in (root / "Two" / "data").rglob("*") if path.is_file() and "_meta" not in path.name][
        :1
    ]
    damaged.write_bytes(b"damage")
    opened = Root(str(root))
    whole, _ = verify_metaflow(opened, VerifyOptions("full"))
    opened.close()
    outcome = done(Request("verify", str(root), True, level="full", shards=2))
    assert replace(outcome.found, seconds=0, oldest=None) == replace(whole, seconds=0, oldest=None)
    assert not outcome.found.clean and len(outcome.found.damage) == 1
    assert not done(Request("verify", str(root), True, level="full", shards=2), failing=[1]).found.complete


def test_what_a_root_holds_is_what_its_parts_hold(root):
    opened = Root(str(root))
    holdings = list_root(opened, untold)
    opened.close()
    outcome = done(Request("du", str(root), True, shards=3))
    assert outcome.found.rows == holdings.usage() and outcome.found.runs == {"One": 3, "Two": 3, "Three": 3}
    assert "One" in repr(outcome.found)


@pytest.fixture
def store(tmp_path):
    with mfstore.open(str(tmp_path / "store"), fsync="none") as store:
        for number in range(6):
            values = np.random.default_rng(number).integers(1 << 60, size=60_000)
            store.put(values, f"ref/{number % 2}")
        yield store


def test_a_store_verified_in_parts_is_read_whole(store):
    whole = store.verify("full")
    found = done(Request("verify", store.url, False, level="full", shards=7)).found
    assert found.clean and found.packs_checked == whole.packs_checked > 0 and found.checked == whole.checked
    assert found.objects == whole.objects
    assert len(cut(Request("verify", store.url, False, level="headers", shards=7))) == 1
    assert done(Request("verify", store.url, False, level="headers")).found.clean


def test_what_a_store_holds_is_what_its_parts_hold(store):
    stats = store.stats()
    found = done(Request("du", store.url, False, shards=5)).found
    assert found.stored == stats.stored
    assert {kind: taken for kind, (_, taken) in found.rows[""].items()} == stats.by_kind
    assert found.rows[""]["packs"][0] == stats.packs and found.rows[""]["refs"][0] == stats.refs == 2
    assert "packs" in repr(found)
