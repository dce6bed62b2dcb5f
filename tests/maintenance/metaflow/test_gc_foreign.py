"""What garbage collection of a Metaflow root takes for runs, and what it names and leaves alone."""

import contextlib
import os
import shutil
import time
from pathlib import Path

import pytest

import mfstore
from mfstore import errors
from mfstore.cli import main
from mfstore.maintenance.metaflow.collecting.amounts import RootAmount
from mfstore.maintenance.metaflow.collecting.plan import plan_metaflow_gc
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.migrate import migrate_metaflow
from mfstore.maintenance.metaflow.migrating.changes import MigrationOptions
from mfstore.maintenance.metaflow.packed_store import open_packed_store
from mfstore.metaflow.roots import layout
from tests.rigs.metaflow_trees import files, opened, run_meta, task

DAY = 86400.0
LAST = RunPolicy(last=1, grace=0.0)
FOREIGN = [
    "shared/models/v1/resnet/weights.bin",
    "models/v1/weights/fold0/model.bin",
    "raw/2024/events/part/0001.parquet",
    "raw/2024/events/part/0.data.json",
    "conda_env/envs/aliases/generic/env",
    "models/v1/weights/_meta/info.json",
    "models/v1/_meta/_self.json",
    "Flow/0/start/1/notes.txt",
    "Flow/0/start/1/0.checkpoint",
    "Flow/0/start/8/0.task_stdout.log",
    "data/Flow/README",
    "mf.cards/Flow/runs/0/notes.txt",
]
"""Nobody's task wrote these, wherever they lie."""


def write(root, path, data=b"precious", age=100 * DAY):
    place = Path(root, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    os.utime(place, (time.time() - age,) * 2)


@pytest.fixture
def tree(tmp_path):
    """Three runs of one flow."""
    root = tmp_path / "bucket" / "metaflow"
    for number in range(3):
        run_meta(root, "Flow", str(number), age=(30 - number) * DAY)
        task(root, "Flow", str(number), "start", 1, {"own": number}, age=(30 - number) * DAY)
    return root


def collect(root, policy=LAST):
    with opened(root) as place:
        return collect_metaflow(place, policy, yes_really=True)


def everything(root):
    return {str(path.relative_to(root)) for path in Path(root).rglob("*")}


@pytest.mark.parametrize("policy", [LAST, RunPolicy(age=0.0, grace=0.0)], ids=["keep one", "keep none"])
def test_what_no_run_put_there_stays_and_is_named(tree, policy):
    for path in FOREIGN:
        write(tree, path)
    for _ in range(3 if policy is LAST else 2):
        plan, _ = collect(tree, policy)
        assert {entry.flow for entry in plan.runs} <= {"Flow"}
    assert set(FOREIGN) <= set(files(tree))
    assert not (tree / "Flow/0/start/1/0.data.json").exists()
    assert {"shared", "models", "raw", "conda_env", "mf.cards/Flow"} <= set(plan.foreign)
    assert plan.foreign["raw"] == RootAmount(2, 16)
    # All but one, which looks like a flow's local metadata, and makes no run.
    assert sum(amount.objects for amount in plan.foreign.values()) == len(FOREIGN) - 1


def test_foreign_files_are_told(tree, capsys):
    write(tree, "shared/model.bin")
    main(["gc", "--metaflow", str(tree), "--keep-last", "1"])
    out = capsys.readouterr().out
    assert "left alone: 8 B in 1 object that are not Metaflow's" in out and "shared: 8 B in 1 object" in out


@pytest.mark.parametrize("work", ["plan", "collect", "migrate"])
@pytest.mark.parametrize("beside", [(), ("models/v1/weights/fold0/model.bin",)], ids=["alone", "with foreign data"])
def test_a_root_one_level_too_high_is_refused_and_left_as_it_is(tree, work, beside):
    top = tree.parent
    for path in beside:
        write(top, path)
    before = everything(top)
    with pytest.raises(errors.NotAStore, match=r"metaflow below it looks like one") as caught, opened(top) as place:
        if work == "plan":
            plan_metaflow_gc(place, LAST)
        elif work == "collect":
            collect_metaflow(place, LAST, yes_really=True)
        else:
            migrate_metaflow(place, MigrationOptions("packed"))
    assert str(tree) in str(caught.value)
    assert everything(top) == before


def test_a_root_below_a_root_is_named_and_left_alone(tree, capsys):
    shutil.copytree(tree, tree / "dev")
    # A flow's metadata there lies where that of a run of the flow "dev" would.
    run_meta(tree / "dev", "Flow", ".", age=90 * DAY)
    before = {path for path in files(tree) if path.startswith("dev/")}
    for _ in range(3):
        plan, _ = collect(tree)
    assert plan.below == ("dev",) and {entry.flow for entry in plan.runs} == {"Flow"}
    assert before == {path for path in files(tree) if path.startswith("dev/")}
    main(["gc", "--metaflow", str(tree), "--keep-last", "1"])
    assert "dev looks like a datastore root of its own" in capsys.readouterr().out


def test_a_policy_that_is_refused_leaves_no_state_behind(tree):
    with pytest.raises(errors.Refused), opened(tree) as place:
        collect_metaflow(place, RunPolicy(age=0.0, grace=0.0))
    assert not [path for path in tree.rglob("gc*") if path.is_file()]


# ---- what a listing does not show -------------------------------------------------------


@pytest.mark.parametrize("link", ["Flow/0", "Flow/0/start", "Flow/2/start/1/0.data.json", "Other", "Flow/data/ab"])
@pytest.mark.parametrize("work", ["plan", "collect"])
def test_a_link_that_hides_runs_refuses_the_collection(tree, tmp_path, link, work):
    place = tree / link
    if place.exists():
        shutil.move(place, tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")  # one that leads nowhere now may be a disk that is not there
    before = everything(tree)
    with pytest.raises(errors.Refused, match=f"{link} is a symbolic link"), opened(tree) as root:
        if work == "plan":
            plan_metaflow_gc(root, LAST)
        else:
            collect_metaflow(root, LAST, yes_really=True)
    assert everything(tree) == before


def test_links_beside_the_flows_are_nobodys_business(tree, tmp_path):
    write(tree, "shared/file")
    (tree / "shared/link").symlink_to(tmp_path)
    (tree / "README").symlink_to(tree / "shared/file")
    os.symlink(tree, tmp_path / "root")
    assert collect(tmp_path / "root")[0].condemn


def test_pins_that_match_nothing_are_told(tree, capsys, tmp_path):
    (tmp_path / "live").write_text("Flow/1\nFlow/77\n")
    plan = ["gc", "--metaflow", str(tree), "--keep-last", "1", "--live", str(tmp_path / "live")]
    main([*plan, "--pin", "Flow/0*", "--pin", "Folw/*", "--grace", "0s"])
    out = capsys.readouterr().out
    assert "no run matches --pin Folw/*" in out and "no run matches --pin Flow/77" in out
    assert out.count("no run matches") == 2 and "2 pinned" in out
    store = mfstore.open(tmp_path / "store")
    store.refs["prod/model"] = store.put(1)
    main(["gc", "-s", str(tmp_path / "store"), "--keep-last", "1", "--pin", "prod/*", "--pin", "pord/*"])
    out = capsys.readouterr().out
    assert "no ref matches --pin pord/*" in out and out.count("no ref matches") == 1


def test_the_store_of_a_root_is_collected_only_with_it(tree, capsys):
    """Runs need what no ref there names."""
    with opened(tree) as place, open_packed_store(place, create=True) as store:
        store.refs["one"] = store.put("x" * 1000)
        needed = store.put("y" * 1000)
    info = {"packed": {"type": "x", "encoding": f"mfstore-1/{needed}"}}
    task(tree, "Flow", "2", "packed", 9, {}, infos=info, age=DAY)
    with mfstore.open(tree / "mf.store") as store:
        with pytest.raises(errors.Refused, match=f"mfstore gc --metaflow {tree} "):
            store.plan_gc(grace=0.0)
        assert store.verify("full").clean and store.stats().recipes == 2
    with pytest.raises(SystemExit) as ended:
        main(["gc", "-s", f"{tree}/mf.store/", "--grace", "0s", "--execute"])
    assert ended.value.code == 1 and "mfstore gc --metaflow" in capsys.readouterr().err
    main(["du", "-s", f"{tree}/mf.store"])
    for _ in range(3):
        _, done = collect(tree)
    assert done.store is not None and not done.store_left
    with mfstore.open(tree / "mf.store") as store:
        assert store.get(needed) == "y" * 1000 and store.get(store.refs["one"]) == "x" * 1000


@pytest.mark.parametrize("way", [".", "../mf.store/.", "../../link", "../../link/", "../../elsewhere/mf.store"])
def test_the_store_of_a_root_is_known_however_it_is_reached(tree, monkeypatch, way):
    with opened(tree) as place, open_packed_store(place, create=True) as store:
        needed = store.put("y" * 1000)
    (tree.parent / "link").symlink_to(tree / "mf.store")
    (tree.parent / "elsewhere").mkdir()
    (tree.parent / "elsewhere/mf.store").symlink_to(tree / "mf.store")
    monkeypatch.chdir(tree / "mf.store")
    with mfstore.open(way) as store:
        with pytest.raises(errors.Refused, match="mfstore gc --metaflow /"):
            store.plan_gc(grace=0.0)
        assert store.get(needed)


@pytest.mark.parametrize("command", ["verify", "repair", "quarantine", "du", "gc"])
def test_a_store_and_a_root_are_not_given_together(tree, tmp_path, command, capsys, monkeypatch):
    before = everything(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([command, "-s", str(tmp_path / "store"), "--metaflow", str(tree)])
    assert ended.value.code == 2 and "--metaflow name two places" in capsys.readouterr().err
    assert everything(tmp_path) == before
    monkeypatch.setenv("MFSTORE_STORE", str(tmp_path / "store"))  # gives way
    with contextlib.suppress(SystemExit):
        main([command, "--metaflow", str(tree), *(["--keep-last", "1"] if command == "gc" else [])])
    assert "two places" not in capsys.readouterr().err


# ---- names ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("F/1/start/1/0.attempt.json", "task"),
        ("F/1/start/1/5.runtime_stdout.log", "task"),
        ("Modèle/1/start/1/0.attempt.json", "task"),
        ("Über/1/start/1/0.data.json", "task"),
        ("Über/data/ab/" + "ab" * 20, "blob"),
        ("Über/1/étape/1/0.data.json", "other"),
        ("1F/1/start/1/0.data.json", "other"),
        ("F/1/start/1/0.task_stderr.log", "task"),
        ("F/1/start/1/0.stdout.log", "task"),
        ("F/argo-f-1/_parameters/0-params/_resume_done", "task"),
        ("F/1/start/1/0.local_metadata", "task"),
        ("F/1/start/1/0.local_metadata.bak", "other"),
        ("F/1/start/1/attempt.json", "other"),
        ("F/1/start/1/0._resume_done", "other"),
        ("F/1/start/1/00.attempt.json", "other"),
        ("F/1/start/1/_meta/0_artifact_x.json", "metadata"),
        ("F/1/start/1/_meta/sysmeta_origin-run-id_1.json", "metadata"),
        ("F/_meta/_self.json", "metadata"),
        ("F/_meta/notes.json", "other"),
        ("F/latest_run", "metadata"),
        ("F/conda_v2.cnd", "metadata"),
        ("F/notes", "other"),
        ("mf.cards/F/runs/1/steps/s/tasks/1/cards/default-ab12.html", "card"),
        ("mf.cards/F/runs/1/tasks/1/cards/default-ab12.html", "card"),
        ("mf.cards/F/runs/1/steps/s/tasks/1/runtime/default-ab12.data.json", "card"),
        ("mf.cards/F/runs/1/steps/s/tasks/1/cards/mine.txt", "other"),
    ],
)
def test_names_are_metaflows_or_nobodys(path, kind):
    assert layout.parse(path).kind == kind


def test_what_looks_like_a_root_below():
    key = "ab" + "0" * 38
    assert layout.root_below(f"metaflow/Flow/data/ab/{key}") == "metaflow"
    assert layout.root_below(f"team/prod/Flow/data/ab/{key}") == "team/prod"
    assert layout.root_below("x/Flow/1/start/1/0.attempt.json") == "x"
    for path in (f"metaflow/Flow/data/cd/{key}", "a/b/c/d/e/f", f"mf.store/Flow/data/ab/{key}", "x/Flow/1/s/1/0.data"):
        assert layout.root_below(path) is None
