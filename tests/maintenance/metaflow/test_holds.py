"""Holds of runs: no policy lets them go, whenever they are set."""

import json
import shutil
import time
from pathlib import Path

import pytest

from mfstore import errors
from mfstore.cli import main
from mfstore.format.holds import Hold, encode_hold
from mfstore.holding import new_hold
from mfstore.maintenance.metaflow.collecting import removal
from mfstore.maintenance.metaflow.collecting.plan import plan_metaflow_gc
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.holds import FOLDER, hold_run, release_run, run_holds
from mfstore.maintenance.metaflow.root import Root
from tests.rigs.gc import Beside
from tests.rigs.metaflow_trees import files, run_meta, task

LAST = RunPolicy(last=1, grace=0.0)
DAY = 86400.0


def make_runs(tree):
    """Three runs of one flow, a day apart. Returns the keys of the first one."""
    keys = []
    for number in range(3):
        age = (30 - number) * DAY
        run_meta(tree, "Flow", str(number), age=age)
        keys.append(task(tree, "Flow", str(number), "start", 1, {"own": number}, age=age))
    return [*keys[0].values()]


def of_run(tree, keys):
    """The files of the first run, with its blobs."""
    return {name for name in files(tree) if name.startswith("Flow/0/") or any(key in name for key in keys)}


@pytest.fixture
def root(tmp_path):
    """Three runs."""
    make_runs(tmp_path)
    place = Root(str(tmp_path))
    yield place
    place.close()


def collect(root, **more):
    return collect_metaflow(root, LAST, **more)


def test_a_held_run_stays_until_it_is_released(root):
    hold = hold_run(root, "Flow/0", new_hold("case 7"))
    assert (hold.why, hold.until) == ("case 7", None) and abs(hold.when - time.time()) < 600
    assert run_holds(root, time.time()) == {"Flow/0": hold}
    collect(root)
    plan, result = collect(root)
    assert plan.kept["Flow", "0"] == str(hold) and "case 7" in str(hold) and hold.who in str(hold)
    assert result.removed == ("Flow/1",)
    release_run(root, "Flow/0")
    assert run_holds(root, time.time()) == {}
    collect(root)
    assert collect(root)[1].removed == ("Flow/0",)
    with pytest.raises(errors.NotFound, match="not held"):
        release_run(root, "Flow/0")
    with pytest.raises(errors.NotFound, match="no run Flow/0"):
        hold_run(root, "Flow/0", new_hold())


def test_one_that_cannot_be_read_holds(root):
    path = Path(root.backend.root, FOLDER, "Flow", "0.json")
    path.parent.mkdir(parents=True)
    for text in ("", "{", "[]", '{"version": 1}', '{"version": 2}', '{"version": 1, "who": 1, "when": [], "why": 1}'):
        path.write_text(text)
        assert plan_metaflow_gc(root, LAST).kept["Flow", "0"].startswith("held: its hold cannot be read"), text
    release_run(root, "Flow/0")
    assert not plan_metaflow_gc(root, LAST).kept.get(("Flow", "0"))


def test_holds_that_may_not_be_listed_stop_the_collection(root, monkeypatch):
    listed = root.backend.list

    def denied(prefix):
        if prefix.startswith(FOLDER):
            raise errors.AccessDenied("no")
        return listed(prefix)

    monkeypatch.setattr(root.backend, "list", denied)
    before = files(root.backend.root)
    with pytest.raises(errors.AccessDenied):
        collect(root)
    assert files(root.backend.root) == before


def test_a_hold_ends_when_it_says_and_no_shorter_one_ends_it_before(root):
    assert hold_run(root, "Flow/0", new_hold("long", 50 * DAY)).why == "long"
    assert hold_run(root, "Flow/0", new_hold("short", 5.0)).why == "long"
    assert hold_run(root, "Flow/0", new_hold("for good")).until is None
    assert hold_run(root, "Flow/0", new_hold("long", 50 * DAY)).why == "for good"
    release_run(root, "Flow/0")
    hold = hold_run(root, "Flow/0", new_hold("long", 50 * DAY))
    assert run_holds(root, hold.until - 1) and not run_holds(root, hold.until + 1)
    Path(root.backend.root, FOLDER, "Flow", "1.json").write_bytes(encode_hold(Hold("ada@host", 1.0, "undone", 2.0)))
    collect(root)
    assert {path.name for path in Path(root.backend.root, FOLDER, "Flow").iterdir()} == {"0.json"}, "it has ended"
    for lasting in (0, -1.0, float("nan")):
        with pytest.raises(errors.InvalidKey, match="lasts"):
            new_hold(lasting=lasting)


def test_a_hold_set_after_the_plan_was_made_is_seen_before_anything_goes(root, monkeypatch):
    collect(root)
    before = files(root.backend.root)
    look_again = removal.Removal.look_again

    def looked(self, work):
        hold_run(root, "Flow/0", new_hold())
        return look_again(self, work)

    monkeypatch.setattr(removal.Removal, "look_again", looked)
    _, result = collect(root)
    assert result.removed == () and "Flow/0 is held" in result.held["Flow"]
    assert files(root.backend.root) == before
    monkeypatch.undo()
    assert collect(root)[1].removed == ("Flow/1",)


def test_who_holds_what_is_being_removed_is_told(root, monkeypatch):
    collect(root)

    def stopped(self, infos, at, of):
        with pytest.raises(errors.Conflict, match="begun to remove Flow/0"):
            hold_run(root, "Flow/0", new_hold())
        raise KeyboardInterrupt

    monkeypatch.setattr(removal.Removal, "_delete_all", stopped)
    with pytest.raises(KeyboardInterrupt):
        collect(root)
    monkeypatch.undo()
    plan, result = collect(root, take_over=True)
    assert plan.kept["Flow", "0"].startswith("held by") and result.removed == ("Flow/1",)


def test_a_hold_at_any_step_of_a_collection(tmp_path):
    outcomes = []
    for step in range(1, 1000):
        tree = tmp_path / str(step)
        own = make_runs(tree)
        place, other = Root(str(tree)), Root(str(tree))
        collect(place)

        def hold(other=other, tree=tree, own=own):
            try:
                hold_run(other, "Flow/0", new_hold())
            except (errors.Conflict, errors.NotFound):
                outcomes.append(None)
            else:
                outcomes.append(of_run(tree, own))

        inner, before = place.backend, len(outcomes)
        place.backend = Beside(inner, step, hold)
        place.backend.root = inner.root
        collect(place)
        place.backend = inner
        if len(outcomes) == before:
            break
        collect(place)
        if outcomes[-1] is not None:
            assert of_run(tree, own) == outcomes[-1], step
        for one in (place, other):
            one.close()
        shutil.rmtree(tree)
    assert outcomes[0] and outcomes[-1] is None and len(outcomes) > 30


@pytest.mark.parametrize(
    "name", ["Flow", "Flow/", "/1", "Flow/1/start", "Flow/data", "mf.cards/x", "a b.c/1", "Flow/.."]
)
def test_what_is_no_run(root, name):
    with pytest.raises(errors.InvalidKey, match="not a run"):
        hold_run(root, name, Hold("me", 1.0))


def test_the_commands(root, capsys):
    where = ["--metaflow", str(root.backend.root)]
    main(["hold", *where, "Flow/0", "Flow/1", "--why", "case 7", "--for", "90d"])
    out = capsys.readouterr().out.splitlines()
    assert [line.split(" is held by ")[0] for line in out] == ["Flow/0", "Flow/1"] and out[0].endswith(": case 7")
    main(["holds", *where, "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["run"], row["why"]) for row in rows] == [("Flow/0", "case 7"), ("Flow/1", "case 7")]
    assert rows[0]["until"] - rows[0]["when"] == 90 * DAY
    main(["hold", *where, "--release", "Flow/1"])
    assert capsys.readouterr().out == "Flow/1 is released\n"
    main(["gc", *where, "--keep-last", "1", "--grace", "0s"])
    assert "1 held" in capsys.readouterr().out
    main(["holds", *where])
    assert "Flow/0" in capsys.readouterr().out
    main(["hold", *where, "--release", "Flow/0"])
    main(["holds", *where])
    assert capsys.readouterr().out.endswith("Nothing is held.\n")
    with pytest.raises(SystemExit):
        main(["holds", "--metaflow", str(root.backend.root) + "-elsewhere"])
    assert "nothing is there" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["hold", *where, "--release", "Flow/0", "--why", "x"])
    assert stopped.value.code == 2
