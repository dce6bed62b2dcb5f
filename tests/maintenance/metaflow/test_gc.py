"""What garbage collection of a Metaflow root keeps, whatever happens to it and to others."""

import contextlib
import hashlib
import json
import os
import pickle
import time
from itertools import count
from pathlib import Path

import pytest

from mfstore import errors
from mfstore.backends.local import LocalBackend
from mfstore.backends.s3.backend import S3Backend
from mfstore.cli import main
from mfstore.maintenance.metaflow.collecting import removal, state
from mfstore.maintenance.metaflow.collecting.amounts import RootAmount
from mfstore.maintenance.metaflow.collecting.decision import decide_runs, deployed
from mfstore.maintenance.metaflow.collecting.facts import RunFacts, origin
from mfstore.maintenance.metaflow.collecting.plan import plan_metaflow_gc
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.collecting.result import MetaflowGcResult
from mfstore.maintenance.metaflow.collecting.run_table import RunTable
from mfstore.maintenance.metaflow.collecting.set_aside import FOLDER
from mfstore.maintenance.metaflow.collecting.state import (
    LISTS,
    STATE_PATH,
    RootGcState,
    decode_state,
    encode_state,
    list_path,
)
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.packed_store import open_packed_store
from mfstore.testing import FaultyBackend
from tests.backends.test_s3 import options
from tests.rigs.metaflow_trees import blob, blobs_of, files, opened, run_meta, task, upload, whole

DAY = 86400.0
LAST = RunPolicy(last=1, grace=0.0)


def old(path, days):
    os.utime(path, (time.time() - days * DAY,) * 2)


def make_run(root, flow, run, days, artifacts, *, code=None, tags=(), done=True):
    run_meta(root, flow, run, tags, age=days * DAY)
    return task(
        root,
        flow,
        run,
        "start",
        1,
        {"run": run, "shared": "s" * 500, **artifacts},
        code=code,
        done=done,
        age=days * DAY,
    )


@pytest.fixture
def tree(tmp_path):
    """Three runs of one flow, a day apart, and one of another."""
    root = tmp_path / "mf"
    for number in range(3):
        make_run(root, "Flow", str(number), 30 - number, {"own": number, "pair": number // 2})
    make_run(root, "Other", "0", 60, {"own": "other"})
    return root


def plan(root, policy=LAST):
    with opened(root) as place:
        return plan_metaflow_gc(place, policy)


def collect(root, policy=LAST, **more):
    with opened(root) as place:
        return collect_metaflow(place, policy, **more)


def names(entries):
    return {entry.name for entry in entries}


# ---- what is kept -----------------------------------------------------------------------


def facts(run, began=0.0, flow="Flow", touched=0.0, running=False, tags=None):
    return RunFacts(flow, run, began, touched, running, tags)


def test_policies():
    now = 100 * DAY
    runs = [facts(str(n), began=n * DAY, tags=frozenset({f"t{n}"})) for n in range(10)]
    runs += [facts("o", flow="Other")]

    def kept(**policy):
        return {run for _, run in decide_runs(RunTable(runs), RunPolicy(grace=0, **policy), now).kept}

    assert kept(last=2) == {"8", "9", "o"}
    assert kept(age=92.5 * DAY) == {"8", "9"}
    assert kept(last=0, tags=("t3", "t[45]")) == {"3", "4", "5", "o"}  # of the other nothing tells its tags
    assert kept(last=0, pinned=("Flow/1", "Oth*/*")) == {"1", "o"}
    assert kept(last=1, flows=("O*",)) == {str(n) for n in range(10)} | {"o"}
    assert decide_runs(RunTable([facts("1", running=True)]), RunPolicy(last=0, grace=0), now).kept == {
        ("Flow", "1"): "running"
    }
    assert decide_runs(RunTable([facts("1", touched=now - 5)]), RunPolicy(last=0, grace=9), now).kept
    assert not decide_runs(RunTable([facts("1", touched=now - 9)]), RunPolicy(last=0, grace=9), now).kept


@pytest.mark.parametrize(
    "policy", [RunPolicy(), RunPolicy(last=-1), RunPolicy(age=1.0, grace=-1), RunPolicy(last=1, pinned=("x",))]
)
def test_policies_that_say_nothing(policy):
    with pytest.raises(errors.InvalidKey):
        policy.check()


def test_deployments_are_told_by_the_ids_of_runs():
    assert [origin(run) for run in ("1795439202992678", "argo-flow-abc", "sfn-1-2", "2024-05")] == [
        "",
        "argo",
        "sfn",
        "",
    ]
    runs = [facts("1", 1.0), facts("2", 2.0), facts("argo-x", 0.5), facts("argo-y", 0.1)]
    assert deployed(runs) == {("Flow", "2"), ("Flow", "argo-x")}


def test_runs_go_in_two_phases_with_what_only_they_need(tree):
    keys = {n: json.loads((tree / f"Flow/{n}/start/1/0.data.json").read_text())["objects"] for n in range(3)}
    before = files(tree)
    found = plan(tree)
    assert names(found.condemn) == {"Flow/0", "Flow/1"} and not found.remove and not found.drops_everything
    assert found.shared.objects == 4  # "shared" and, of the second, nothing else; each with its metadata
    first, done = collect(tree)
    assert files(tree) == before and done.condemned == 2 and done.deleted.objects == 0
    second, done = collect(tree)
    assert set(done.removed) == {"Flow/0", "Flow/1"}
    assert blobs_of(tree, "Flow") == set(keys[2].values())
    assert blobs_of(tree, "Other") and whole(tree).findings == ()
    assert sum(before.values()) - sum(files(tree).values()) == done.deleted.bytes == second.freed.bytes
    assert first.later.bytes == done.deleted.bytes
    third, done = collect(tree)
    assert done == MetaflowGcResult(0, (), RootAmount(), {}) and not third.condemn


def test_the_grace_period_is_waited_for(tree):
    policy = RunPolicy(last=1, grace=DAY)
    collect(tree, policy)
    found, done = collect(tree, policy)
    assert not done.removed and set(found.waiting) == {("Flow", "0"), ("Flow", "1")}
    assert all(DAY - 60 < ready - time.time() <= DAY for ready in found.waiting.values())
    # What is kept after all is condemned no more.
    collect(tree, RunPolicy(last=1, grace=DAY, pinned=("Flow/0",)))
    found, done = collect(tree, LAST)
    assert done.removed == ("Flow/1",) and names(found.condemn) == {"Flow/0"}


def test_runs_of_today_stay(tree):
    make_run(tree, "Flow", "9", 0, {"own": 9})
    make_run(tree, "Flow", "8", 0.5, {"own": 8})
    found = plan(tree, RunPolicy(last=1, grace=DAY))
    assert found.kept["Flow", "8"] == "written to within the grace period"


def test_running_tasks_keep_their_run_and_hold_their_flow(tree):
    collect(tree)
    make_run(tree, "Flow", "3", 0.02, {}, done=False)
    before = files(tree)
    found, done = collect(tree)
    assert done.removed == () and done.held == {"Flow": "Flow/3/start/1 is running"} == found.busy
    assert files(tree) == before
    # It is not running any more when it failed, or is silent for much longer than its step takes.
    (tree / "Flow/3/start/1/0.runtime").write_text("{}")
    old(tree / "Flow/3/start/1/0.runtime", 0.02)
    found, done = collect(tree)
    assert set(done.removed) == {"Flow/0", "Flow/1", "Flow/2"} and not found.busy


def test_a_killed_attempt_holds_its_flow_for_an_hour(tree):
    collect(tree)
    make_run(tree, "Flow", "3", 55 / 1440, {}, done=False)
    assert collect(tree)[1].held == {"Flow": "Flow/3/start/1 is running"}
    for path in (tree / "Flow/3").rglob("*.*"):
        old(path, 65 / 1440)
    found, done = collect(tree)
    assert set(done.removed) == {"Flow/0", "Flow/1", "Flow/2"} and not found.busy


def test_a_crashed_attempt_that_began_long_ago_holds_nothing(tree):
    collect(tree)
    task(tree, "Flow", "2", "crashed", 7, {}, done=False, age=20 * DAY)
    found, done = collect(tree)
    assert done.removed and not found.held
    assert plan(tree, RunPolicy(last=1, grace=0.0, running=25 * DAY)).kept


def test_blobs_of_attempts_that_failed_or_are_not_read_stay_with_their_run(tree):
    shared = task(tree, "Flow", "2", "start", 1, {"early": "only of the first attempt"}, attempt=0, age=DAY)
    task(tree, "Flow", "2", "start", 1, {"late": 1}, attempt=1, age=DAY)
    make_run(tree, "Flow", "0", 30, {"early": "only of the first attempt"})
    collect(tree)
    collect(tree)
    assert set(shared.values()) <= blobs_of(tree, "Flow")


def test_code_packages_of_what_is_deployed_stay(tree):
    deployed_code = blob(tree, "Flow", b"deployed" * 100, raw=True)
    dropped_code = blob(tree, "Flow", b"forgotten" * 100, raw=True)
    make_run(tree, "Flow", "argo-flow-1", 90, {"n": 1}, code=dropped_code)
    make_run(tree, "Flow", "argo-flow-2", 80, {"n": 2}, code=deployed_code)
    orphan = blob(tree, "Flow", b"deployed, and did not run yet" * 100, raw=True)
    for _ in range(2):
        found, done = collect(tree)
    assert {"Flow/argo-flow-1", "Flow/argo-flow-2"} <= set(done.removed)
    assert {deployed_code, orphan} <= blobs_of(tree, "Flow") and dropped_code not in blobs_of(tree, "Flow")
    assert found.unreferred.objects == 2


def included(tree, flow, run, sha, days):
    """A run with an IncludeFile."""
    value = {"type": "uploader-v2", "url": f"s3://elsewhere/data/{flow}/{sha}"}
    make_run(tree, flow, run, days, {})
    infos = {"file": {"type": "<class 'metaflow.includefile.IncludedFile'>", "encoding": "pickle-v4"}}
    task(tree, flow, run, "_parameters", 0, {"file": value}, age=days * DAY, infos=infos)
    path = Path(tree, "data", flow, sha)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"included")


def test_include_files_go_with_the_last_run_that_names_them(tree):
    one, two = "ab" * 20, "cd" * 20
    included(tree, "Inc", "1", one, 9)
    included(tree, "Inc", "2", two, 8)
    included(tree, "Inc", "3", two, 7)
    for _ in range(2):
        collect(tree)
    assert sorted(path.name for path in Path(tree, "data", "Inc").iterdir()) == [two]
    # Who of the kept runs names which must be known.
    included(tree, "Inc", "4", one, 6)
    data = json.loads((tree / "Inc/4/_parameters/0/0.data.json").read_text())["objects"]["file"]
    (tree / "Inc/data" / data[:2] / data).write_bytes(b"")
    for _ in range(2):
        collect(tree)
    assert sorted(path.name for path in Path(tree, "data", "Inc").iterdir()) == [one, two]


def test_include_files_of_what_is_deployed_stay(tree):
    """A deployment's template names the file that was uploaded when it was made."""
    one, two, three = "ab" * 20, "cd" * 20, "ef" * 20
    included(tree, "Inc", "argo-inc-1", one, 90)
    included(tree, "Inc", "argo-inc-2", two, 80)
    included(tree, "Inc", "3", three, 7)
    for _ in range(2):
        _, done = collect(tree)
    assert {"Inc/argo-inc-1", "Inc/argo-inc-2"} <= set(done.removed)
    assert sorted(path.name for path in Path(tree, "data", "Inc").iterdir()) == [two, three]


def test_what_runs_stored_for_themselves_is_left_alone_and_told(tree):
    path = tree / "data/Flow/0/model.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 100)
    assert plan(tree).user == RootAmount(1, 100)
    for _ in range(2):
        collect(tree)
    assert path.exists()


def card(tree, run, step="start", old_layout=False):
    steps = "" if old_layout else f"steps/{step}/"
    path = tree / f"mf.cards/Flow/runs/{run}/{steps}tasks/1/cards/x.html"
    path.parent.mkdir(parents=True)
    path.write_text("card")
    old(path, 20)
    return path


def resume(tree, origin, run, days=20):
    """A run that took over the first task of another, as ``resume`` leaves it in S3: no metadata tells which."""
    began = json.dumps({"time": time.time() - days * DAY})
    taken_over = (tree / f"Flow/{origin}/start/1/0.data.json").read_text()
    for name, text in (("attempt.json", began), ("data.json", taken_over), ("DONE.lock", "")):
        path = tree / f"Flow/{run}/start/1/0.{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        old(path, days)
    marker = tree / f"Flow/{run}/_parameters/0/_resume_done"
    marker.parent.mkdir(parents=True)
    marker.write_text("true")
    old(marker, days)


def test_the_origin_of_a_resumed_run_is_told_by_what_it_took_over(tree):
    first, second = card(tree, "0"), card(tree, "1", old_layout=True)
    resume(tree, "1", "9")
    for _ in range(2):
        found, done = collect(tree)
    assert found.kept["Flow", "1"] == "9, which resumed it, shows its cards" and not found.spared
    assert set(done.removed) == {"Flow/0", "Flow/2"} and second.exists() and not first.exists()
    # With that run the cards go.
    make_run(tree, "Flow", "91", 1, {"own": 91})
    for _ in range(2):
        _, done = collect(tree)
    assert set(done.removed) == {"Flow/1", "Flow/9"} and not second.exists() and whole(tree).findings == ()


def test_runs_that_were_migrated_since_may_be_the_origin(tree):
    cards = [card(tree, "0"), card(tree, "1")]
    resume(tree, "1", "9")
    path = tree / "Flow/0/start/1/0.data.json"
    document = json.loads(path.read_text())
    document["mfstore"] = {"former": {"own": [{"key": "ab" * 20, "info": {}}]}, "recorded": True}
    path.write_text(json.dumps(document))
    old(path, 20)
    for _ in range(2):
        found, _ = collect(tree)
    assert found.kept["Flow", "0"] == "9, which resumed it or one like it, shows its cards"
    assert [path for path in cards if path.exists()] == cards


def test_cards_stay_where_it_cannot_be_told_which_run_was_resumed(tree):
    cards = [card(tree, "0"), card(tree, "1")]
    resume(tree, "1", "9")
    with opened(tree) as place:
        place.backend = Vanishing(place.backend, "Flow/0/start/1/0.data.json")
        found = plan_metaflow_gc(place, LAST)
    assert found.spared == {"Flow"} and {"Flow/0", "Flow/1", "Flow/2"} == names(found.condemn)
    assert all(path.exists() for path in cards)


def tell_origin(tree, run, origin, task):
    """Mark a run as one that resumed another, which the local metadata of a task names."""
    marker = tree / f"Flow/{run}/_parameters/0/_resume_done"
    told = tree / f"Flow/{run}/{task}/_meta/sysmeta_origin-run-id_1.json"
    for where, text in ((marker, "true"), (told, json.dumps({"value": origin}))):
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(text)
        old(where, 20)


def test_the_run_whose_cards_a_kept_run_shows_is_kept(tree):
    card(tree, "0")
    tell_origin(tree, "2", "0", "start/1")
    found = plan(tree)
    assert found.kept["Flow", "0"] == "2, which resumed it, shows its cards" and names(found.condemn) == {"Flow/1"}


def test_the_run_that_was_resumed_may_be_gone_but_for_its_cards(tree):
    left = card(tree, "gone")
    tell_origin(tree, "2", "gone", "_parameters/0")
    for _ in range(2):
        found, done = collect(tree)
    assert ("Flow", "gone") not in found.kept and set(done.removed) == {"Flow/0", "Flow/1"} and left.exists()


def test_bundles_that_kept_runs_need_are_told(tree):
    info = {"packed": {"type": "x", "encoding": "mfstore-1/" + "ab" * 32}}
    task(tree, "Flow", "2", "packed", 9, {}, infos=info, age=DAY)
    assert plan(tree).bundles == {"ab" * 32}


class Vanishing(FaultyBackend):
    """One object is gone when it is read, or fails otherwise."""

    def __init__(self, inner, key, error=errors.NotFound):
        super().__init__(inner)
        self.root = inner.root
        self.key = key
        self.error = error

    def get(self, key):
        if key == self.key or (self.key is None and key.endswith((".data.json", ".task_begin"))):
            raise self.error("no such object", key=key)
        return super().get(key)


# ---- what must not happen ---------------------------------------------------------------


def test_a_kept_run_that_cannot_be_read_holds_its_flow_and_no_other(tree):
    make_run(tree, "Other", "1", 3, {"own": 1})
    collect(tree)
    path = tree / "Flow/2/start/1/0.data.json"
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    before = {name for name in files(tree) if name.startswith("Flow/")}
    found, done = collect(tree)
    assert done.removed == ("Other/0",) and set(found.waiting) == {("Flow", "0"), ("Flow", "1")}
    assert set(found.unreadable) == {"Flow"} == set(done.held)
    assert "Flow/2/start/1/0.data.json cannot be read" in done.held["Flow"]
    assert {name for name in files(tree) if name.startswith("Flow/")} == before
    path.write_bytes(data)
    with opened(tree) as place:
        place.backend = Vanishing(place.backend, "Flow/2/start/1/0.data.json")
        assert "Flow/2/start/1/0.data.json cannot be read" in plan_metaflow_gc(place, LAST).held["Flow"]
    assert set(collect(tree)[1].removed) == {"Flow/0", "Flow/1"}


def test_what_all_flows_share_stays_while_a_kept_run_cannot_be_read(tree, capsys):
    """A parameter may be given the IncludeFile of another flow, by its URL; and bundles are of the root."""
    one, two = "ab" * 20, "cd" * 20
    included(tree, "Inc", "1", one, 9)
    included(tree, "Inc", "2", two, 8)
    task(tree, "Inc", "1", "packed", 9, {}, age=9 * DAY)
    with opened(tree) as place, open_packed_store(place, create=True) as store:
        bundle = store.put("content of a bundle")
    collect(tree)
    data = (tree / "Flow/2/start/1/0.data.json").read_bytes()
    (tree / "Flow/2/start/1/0.data.json").write_text("{")
    old(tree / "Flow/2/start/1/0.data.json", 5)
    found, done = collect(tree)
    assert "Inc/1" in done.removed and not found.includes and done.store is None
    assert done.store_left == "not all of what runs refer to is known"
    assert len([*Path(tree, "data", "Inc").iterdir()]) == 2
    with pytest.raises(SystemExit) as ended:
        main(["gc", "--metaflow", str(tree), "--keep-last", "1", "--grace", "0s"])
    shown = capsys.readouterr().out
    assert ended.value.code == 3 and "DAMAGED: Flow/2/start/1/0.data.json cannot be read" in shown
    assert "IncludeFiles and mf.store are left alone" in shown
    (tree / "Flow/2/start/1/0.data.json").write_bytes(data)
    collect(tree)
    collect(tree)
    with opened(tree) as place, open_packed_store(place) as store:
        assert bundle not in store


def test_a_collection_without_the_right_to_read_is_refused(tree):
    collect(tree)
    before = files(tree)
    with opened(tree) as place:
        place.backend = Vanishing(place.backend, None, errors.AccessDenied)
        with pytest.raises(errors.AccessDenied, match="Nothing was changed"):
            collect_metaflow(place, LAST)
    assert files(tree) == before


def test_a_dropped_run_that_cannot_be_read_costs_what_it_refers_to(tree):
    """Nobody knows then that it is garbage."""
    (tree / "Other/0/start/1/0.data.json").write_bytes(b"{")
    old(tree / "Other/0/start/1/0.data.json", 60)
    make_run(tree, "Other", "1", 3, {"own": 1})
    for _ in range(2):
        found, done = collect(tree)
    assert "Other/0" in done.removed and found.unknown == 1


def test_what_is_not_handed_out_now_leaves_no_garbage(tree):
    make_run(tree, "Other", "1", 3, {"own": 1})
    collect(tree)
    before = blobs_of(tree, "Flow")
    with opened(tree) as place:
        place.backend = Vanishing(place.backend, "Flow/0/start/1/0.data.json", errors.BackendError)
        found, done = collect_metaflow(place, LAST)
    assert done.removed == ("Other/0",) and set(found.waiting) == {("Flow", "0"), ("Flow", "1")}
    assert "Flow/0/start/1/0.data.json cannot be read: no such object" in done.held["Flow"]
    assert blobs_of(tree, "Flow") == before and {flow for flow, _ in found.blobs} == {"Other"}
    found, done = collect(tree)
    assert done.removed == ("Flow/0", "Flow/1") and not found.unreferred.objects


def test_a_policy_that_drops_everything_is_refused(tree):
    policy = RunPolicy(age=0.0, grace=0.0)
    assert plan(tree, policy).drops_everything
    before = files(tree)
    with pytest.raises(errors.Refused, match="every run.*yes-really"):
        collect(tree, policy)
    assert files(tree) == before
    for _ in range(2):
        collect(tree, policy, yes_really=True)
    assert not [path for path in files(tree) if "/data/" not in path and "_meta" not in path]


def test_a_state_that_is_written_again_meets_no_condition_of_before():
    """Where an etag is a digest of the bytes."""
    state = RootGcState({"Flow/1": 2.0}, ("Flow/2",), "somebody")
    first, second = encode_state(state), encode_state(state)
    assert first != second and decode_state(first) == decode_state(second) == state


def test_a_state_that_makes_no_sense_stops_it(tree):
    collect(tree)
    for text, error in (
        ("{", errors.CorruptObject),
        ('{"version": 9}', errors.Unsupported),
        ("[]", errors.CorruptObject),
        (
            json.dumps({"version": 1, "condemned": {"Flow/1": 10**400}, "removing": [], "owner": ""}),
            errors.CorruptObject,
        ),
    ):
        Path(tree, STATE_PATH).write_text(text)
        with pytest.raises(error):
            collect(tree)


# ---- what is read from the root lets nothing more go ------------------------------------


def plant(root, **fields):
    """The state as somebody with the right to write below the root could leave it."""
    document = {"version": 1, "owner": "", "condemned": {}, "removing": [], "blobs": [], **fields}
    Path(root, STATE_PATH).parent.mkdir(parents=True, exist_ok=True)
    Path(root, STATE_PATH).write_text(json.dumps(document))


RUNS = ["Flow/0", "Flow/1", "Flow/2", "Other/0"]


@pytest.mark.parametrize(
    "policy",
    [
        RunPolicy(last=1, grace=DAY),
        RunPolicy(last=0, grace=DAY, pinned=("*/*",)),
        RunPolicy(age=90 * DAY, grace=0.0),
        RunPolicy(last=1, grace=0.0, flows=("Flow",)),
    ],
    ids=["the grace period", "pins", "age", "flows"],
)
def test_a_state_that_somebody_planted_lets_nothing_more_go(tree, policy):
    """Every task has the right to write it."""
    waiting = blob(tree, "Flow", b"deployed, and did not run yet" * 100, raw=True)
    blobs = [path for path in files(tree) if "/data/" in path]
    plant(tree, removing=RUNS, condemned=dict.fromkeys(RUNS, 1.0), blobs=blobs)
    before = files(tree)
    found, done = collect(tree, policy)
    assert not found.remove and not done.removed and not done.deleted.objects
    assert files(tree) == before and waiting in blobs_of(tree, "Flow")


def plant_list(root, days, runs):
    """A list of condemned runs as it would be if it had been written so long ago."""
    path = Path(root, list_path(time.time() - days * DAY))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": 1, "runs": runs}))
    old(path, days)
    return path


def later(root, days):
    """So much time passes for the lists."""
    for path in sorted(Path(root, LISTS).iterdir()):
        moment = path.stat().st_mtime - days * DAY
        os.utime(path, (moment, moment))
        path.rename(Path(root, list_path(moment)))


def test_lists_that_somebody_planted_shorten_no_grace_period(tree):
    """Their times are the storage's, and what a collection leaves out is said by no list before it."""
    policy, everything = RunPolicy(last=1, grace=DAY), RunPolicy(age=0.0, grace=DAY)
    collect(tree, policy)
    later(tree, 2)
    (first,) = Path(tree, LISTS).iterdir()
    plant_list(tree, 0, RUNS)
    assert names(plan(tree, everything).remove) == {"Flow/0", "Flow/1"}
    plant_list(tree, 3, RUNS)  # long before the collection
    assert names(plan(tree, everything).remove) == {"Flow/0", "Flow/1"}
    (first.parent / "nonsense").write_text("{")
    old(first.parent / "nonsense", 4)
    assert names(plan(tree, everything).remove) == {"Flow/0", "Flow/1"}
    for text in (json.dumps({"version": 1, "runs": RUNS}), "{", "[]", '{"version": 2, "runs": ["Flow/0"]}'):
        first.write_text(text)  # written over the collection's own: its time is of now
        assert not plan(tree, everything).remove


def test_the_name_of_a_planted_list_shortens_not_even_a_minute(tree):
    path = Path(tree, list_path(time.time() - 50))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": 1, "runs": RUNS}))
    found = plan(tree, RunPolicy(age=0.0, grace=30.0))
    assert found.waiting and not found.remove


def test_condemned_runs_of_an_earlier_version_wait_anew(tree):
    """It wrote their times into the state, where anybody could."""
    plant(tree, condemned={"Flow/0": time.time() - 9 * DAY, "Flow/1": time.time() - 9 * DAY})
    policy = RunPolicy(last=1, grace=DAY)
    found, done = collect(tree, policy)
    assert names(found.condemn) == {"Flow/0", "Flow/1"} and not done.removed
    later(tree, 2)
    assert set(collect(tree, policy)[1].removed) == {"Flow/0", "Flow/1"}


def test_a_plan_that_takes_minutes_condemns_all_the_same(tree, monkeypatch):
    """The time in the name of a list is that of its writing, not that of the collection's begin."""
    policy = RunPolicy(last=1, grace=DAY)
    times = count(time.time() - 600, 600)
    monkeypatch.setattr(state, "written", lambda *_: next(times))  # begun ten minutes ago
    collect(tree, policy)
    monkeypatch.undo()
    assert set(plan(tree, policy).waiting) == {("Flow", "0"), ("Flow", "1")}


def test_collections_of_one_flow_each_do_not_hold_up_each_other(tree):
    make_run(tree, "Other", "1", 50, {"own": "newer"})
    policies = [RunPolicy(last=1, grace=DAY, flows=(flow,)) for flow in ("Flow", "Other")]
    for policy in policies:
        collect(tree, policy)
    later(tree, 2)
    removed = [collect(tree, policy)[1].removed for policy in policies]
    assert removed == [("Flow/0", "Flow/1"), ("Other/0",)]


@pytest.mark.parametrize("policy", [RunPolicy(last=1, grace=0.0, tags=("keep",)), LAST], ids=["tags", "last"])
def test_a_run_is_judged_alike_when_part_of_it_is_gone(tree, monkeypatch, policy):
    collect(tree, policy)

    def stopped(self, infos, at, of):
        raise errors.BackendError("stopped")

    prune = removal.Removal._delete_all
    stages = []

    def some(self, infos, at, of):
        stages.append(infos)
        return prune(self, infos, at, of) if len(stages) < 5 else stopped(self, infos, at, of)

    monkeypatch.setattr(removal.Removal, "_delete_all", some)
    with pytest.raises(errors.BackendError):
        collect(tree, policy)
    monkeypatch.undo()
    assert names(plan(tree, policy).remove) == {"Flow/0", "Flow/1"}


def test_a_service_that_asks_to_slow_down_ends_no_collection(tree, monkeypatch):
    collect(tree)
    answers, looks = iter([True, True]), []
    take, look_again = removal.take, removal.Removal.look_again

    def slow(root, infos, codes):
        if all("/data/" in info.key for info in infos) and next(answers, False):
            raise errors.BackendError("SlowDown", status=503)
        return take(root, infos, codes)

    def look(self, work):
        looks.append(work.flow)
        return look_again(self, work)

    monkeypatch.setattr(removal, "take", slow)
    monkeypatch.setattr(LocalBackend, "capabilities", LocalBackend.capabilities._replace(remote=True))
    monkeypatch.setattr(removal.Removal, "look_again", look)
    monkeypatch.setattr(removal.time, "sleep", lambda _: None)
    _, done = collect(tree)
    assert done.removed == ("Flow/0", "Flow/1") and len(looks) == 4
    assert whole(tree).findings == ()


def test_few_lists_are_kept(tree):
    policy = RunPolicy(last=1, grace=5 * DAY)
    for _ in range(12):
        collect(tree, policy)
        later(tree, 1)
    assert len(list(Path(tree, LISTS).iterdir())) == 6


def test_a_task_that_ends_between_the_looks_keeps_what_it_took_for_stored(tree, monkeypatch):
    """It found a blob of a dropped run in the store, and refers to it."""
    collect(tree)
    doomed = json.loads((tree / "Flow/0/start/1/0.data.json").read_text())["objects"]["own"]
    original = removal.Removal.run

    def late(self, *arguments):
        make_run(tree, "Flow", "7", 0, {"again": 0})
        return original(self, *arguments)

    monkeypatch.setattr(removal.Removal, "run", late)
    _, done = collect(tree)
    assert set(done.removed) == {"Flow/0", "Flow/1"}
    assert doomed in blobs_of(tree, "Flow") and whole(tree).findings == ()


def test_a_task_that_begins_between_the_looks_holds_its_flow(tree, monkeypatch):
    collect(tree)
    original = removal.Removal.run
    before = {}

    def late(self, *arguments):
        make_run(tree, "Flow", "7", 0, {}, done=False)
        before.update(files(tree))
        return original(self, *arguments)

    monkeypatch.setattr(removal.Removal, "run", late)
    _, done = collect(tree)
    assert done.removed == () and done.held == {"Flow": "Flow/7/start/1 is running"}
    assert files(tree) == before
    monkeypatch.undo()
    task(tree, "Flow", "7", "start", 1, {"x": 1})
    assert collect(tree, RunPolicy(last=2, grace=0.0))[1].removed


@pytest.mark.parametrize("flow", ["Flow", "Zeta"], ids=["the flow at work", "a later flow"])
def test_each_look_is_right_before_what_goes_because_of_it(tree, monkeypatch, flow):
    """Deleting takes long: a task that ends meanwhile keeps what it took for stored."""
    for number in range(3):
        make_run(tree, "Zeta", str(number), 30 - number, {"own": number})
    monkeypatch.setattr(removal, "REMOVED_TOGETHER", 2)
    collect(tree)
    take = removal.take
    taken = []

    def slow(root, infos, codes):
        answers = take(root, infos, codes)
        if not taken and any(info.key.startswith("Flow/data/") for info in infos):
            for value in ("0", "1"):  # of runs that go
                key = hashlib.sha1(pickle.dumps(value, protocol=4)).hexdigest()
                if key in blobs_of(tree, flow):
                    taken.append(key)
                    make_run(tree, flow, f"9{value}", 0, {"again": value})
        return answers

    monkeypatch.setattr(removal, "take", slow)
    _, done = collect(tree)
    assert {"Flow/0", "Flow/1", "Zeta/0", "Zeta/1"} == set(done.removed)
    assert taken and set(taken) <= blobs_of(tree, flow)
    assert whole(tree).findings == ()


def test_what_is_stored_again_after_the_look_stays(tree, monkeypatch):
    """And nothing that tasks share is deleted by a call that may be repeated."""
    collect(tree)
    key = json.loads((tree / "Flow/0/start/1/0.data.json").read_text())["objects"]["own"]
    path = tree / "Flow/data" / key[:2] / key
    look = removal.Removal.look_again

    def late(self, *arguments):
        why = look(self, *arguments)
        again = path.with_name(".again")
        again.write_bytes(path.read_bytes() if path.exists() else b"")
        again.replace(path)
        return why

    plainly = []
    delete_many = LocalBackend.delete_many
    monkeypatch.setattr(removal.Removal, "look_again", late)
    monkeypatch.setattr(LocalBackend, "delete_many", lambda self, keys: plainly.extend(keys) or delete_many(self, keys))
    _, done = collect(tree)
    assert set(done.removed) == {"Flow/0", "Flow/1"} and path.exists()
    assert plainly and not [name for name in plainly if "/data/" in name and not name.startswith(FOLDER)]


def test_a_dropped_run_that_is_written_to_again_holds_its_flow(tree, monkeypatch):
    collect(tree)
    original = removal.Removal.run

    def late(self, *arguments):
        task(tree, "Flow", "0", "more", 5, {"x": 1})
        return original(self, *arguments)

    monkeypatch.setattr(removal.Removal, "run", late)
    _, done = collect(tree)
    assert done.removed == () and "written to just now" in done.held["Flow"]


# ---- S3 ---------------------------------------------------------------------------------


def test_collection_in_s3(tree, s3_server, bucket, s3_env, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", s3_server.region)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.url)
    url = f"s3://{bucket}/some/metaflow"
    included(tree, "Flow", "1", "ab" * 20, 29)
    with contextlib.closing(S3Backend(url, **options(s3_server))) as backend:
        upload(tree, backend)
        time.sleep(1.1)  # runs are told apart by the service's clock, in seconds
        make_run(tree, "Flow", "3", 0, {"own": 3, "pair": 1})
        upload_only(tree, backend, "Flow/3/")
        found = plan(url)
        assert names(found.condemn) == {"Flow/0", "Flow/1", "Flow/2"}
        with pytest.raises(errors.InvalidKey):
            plan(url, RunPolicy())
        # Nothing below the root tells tags.
        assert not plan(url, RunPolicy(last=1, grace=0.0, tags=("x",))).condemn
        collect(url)
        _, done = collect(url)
        assert set(done.removed) == {"Flow/0", "Flow/1", "Flow/2"}
        left = {info.key for info in backend.list("") if not info.key.startswith("mf.maintenance/")}
        needed = json.loads((tree / "Flow/3/start/1/0.data.json").read_text())["objects"].values()
        assert {key.rpartition("/")[2] for key in left if key.startswith("Flow/data/")} == set(needed)
        assert not [key for key in left if key.startswith(("Flow/0/", "Flow/1/", "Flow/2/", "data/"))]
        assert whole(url).findings == ()


def upload_only(tree, backend, prefix):
    """The objects of one run, and the blobs that are not there yet."""
    for name in files(tree):
        if name.startswith((prefix, "Flow/data/")) and "_meta" not in name and not backend.exists_many([name])[0]:
            backend.put_described(
                name, (tree / name).read_bytes(), {"metaflow-user-attributes": '{"cas_raw": false, "cas_version": 1}'}
            )
