"""Migration of a Metaflow root: what is changed, what is left, and what happens when it is stopped."""

import errno
import json
import os
import shutil
import sys
import types
from itertools import count
from pathlib import Path

import pytest

import mfstore
from mfstore import errors
from mfstore._core.codec import GROUP
from mfstore.backends import local
from mfstore.backends.local import LocalBackend
from mfstore.cli import main
from mfstore.maintenance.metaflow import migrate as migrate_module
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.collecting.state import StateFile
from mfstore.metaflow.roots import layout
from mfstore.testing import FaultyBackend
from tests.rigs.group_stores import lines
from tests.rigs.metaflow_trees import blob, blobs_of, files, task
from tests.rigs.migration import (
    DAY,
    LARGE,
    build,
    collect,
    documents,
    forms,
    load_all,
    migrate,
    record,
    records,
    task_as_stock,
    whole,
)
from tests.rigs.stored import entries_of_pack


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "mf"
    build(root)
    return root


# ---- to the packed profile, and back ----------------------------------------------------


def test_a_plan_changes_nothing(tree):
    before = files(tree)
    plan = migrate(tree, "packed", execute=False)
    assert files(tree) == before and not (tree / "mf.store").exists() and not (tree / "mf.maintenance").exists()
    (share,) = plan.flows
    assert (share.flow, share.runs, share.attempts, share.artifacts, share.already) == ("Flow", 1, 4, 6, 0)
    assert 0 < share.bytes < sum(before.values()) and plan.changes and not plan.left and not plan.unrecorded
    assert not migrate(tree, "stock", execute=False).changes


def test_there_and_back(tree):
    before, values, told = documents(tree), load_all(tree), records(tree)
    plan, result = migrate(tree, "packed")
    assert (result.attempts, result.artifacts, result.failures) == (4, 6, []) and plan.changes
    packed = documents(tree)
    assert {info["encoding"].partition("/")[0] for found in packed.values() for info in found["info"].values()} == {
        "mfstore-1"
    }
    assert load_all(tree) == values
    # Equal content has one key, and what a task inherits lies in the bundle of the task that made it.
    infos = [found["info"]["rows"] for found in packed.values()]
    assert all(info == infos[0] for info in infos)
    assert {found["objects"]["tiny"] for found in packed.values()} == {
        packed["Flow/1/start/1/0.data.json"]["objects"]["tiny"]
    }
    for path, found in records(tree).items():
        task_path, name = path.split("/_meta/")
        number, _, artifact = name.removesuffix(".json").partition("_artifact_")
        assert found["sha"] == packed[f"{task_path}/{number}.data.json"]["objects"][artifact]
        assert found["content_type"].startswith("mfstore-1") and found["tags"] == ["kept"]
    # All else that the document says is as before.
    assert all({**found, "mfstore": None, "objects": None, "info": None} ==
               {**before[path], "mfstore": None, "objects": None, "info": None} for path, found in packed.items())  # fmt: skip
    once = files(tree)
    plan, result = migrate(tree, "packed")
    assert not plan.changes and not result.attempts and not result.records and files(tree) == once
    assert documents(tree) == packed
    _, result = migrate(tree, "stock")
    assert (result.attempts, result.artifacts, result.failures) == (4, 6, [])
    assert load_all(tree) == values and records(tree) == told
    assert forms(tree) == {path: {**found, "mfstore": None} for path, found in before.items()}
    assert whole(tree) == ()


def test_what_lies_in_groups_comes_back(tmp_path):
    """And what is damaged of it is told."""
    root = tmp_path / "mf"
    task_as_stock(root, "Flow", "1", "start", 1, {"text": lines(1).decode(), "more": lines(2).decode()}, age=DAY)
    before, values = blobs_of(root, "Flow"), load_all(root)
    _, result = migrate(root, "packed")
    shutil.rmtree(root / "Flow" / "data")
    assert (result.artifacts, result.failures) == (2, []) and load_all(root) == values and whole(root) == ()
    (pack,) = (root / "mf.store" / "packs").glob("*/*")
    whole_pack = pack.read_bytes()
    entries = entries_of_pack(LocalBackend(str(root / "mf.store")), f"packs/{pack.parent.name}/{pack.name}")
    groups = {entry.offset for entry in entries if entry.codec == GROUP}
    assert len(groups) == 2
    pack.write_bytes(whole_pack[: max(groups)] + b"\0" + whole_pack[max(groups) + 1 :])
    (finding,) = mfstore.open(root / "mf.store").verify("full").findings
    (bundle,) = {info["encoding"].partition("/")[2] for info in next(iter(documents(root).values()))["info"].values()}
    assert finding.object == f"packs/{pack.parent.name}/{pack.name}" and finding.keys == (bundle,)
    pack.write_bytes(whole_pack)
    _, result = migrate(root, "stock")
    assert not result.failures and load_all(root) == values and blobs_of(root, "Flow") == before


def test_back_when_the_blobs_are_gone(tree):
    values = load_all(tree)
    migrate(tree, "packed")
    shutil.rmtree(tree / "Flow/data")
    assert load_all(tree) == values
    _, result = migrate(tree, "stock")
    assert not result.failures and load_all(tree) == values and whole(tree) == ()
    shutil.rmtree(tree / "mf.store")
    assert load_all(tree) == values


def test_the_keys_are_those_that_a_task_of_that_profile_gives(tree, monkeypatch):
    from metaflow.datastore.flow_datastore import FlowDataStore

    from mfstore.metaflow.extension import LocalStorage
    from mfstore.metaflow.process_state import process_state

    migrate(tree, "packed")
    found = documents(tree)["Flow/1/start/1/0.data.json"]
    monkeypatch.setattr(process_state(), "knobs", process_state().knobs._replace(profile="packed"))
    store = FlowDataStore("Flow", storage_impl=LocalStorage, ds_root=str(tree))
    task_store = store.get_task_datastore("9", "start", "1", attempt=0, mode="w")
    task_store.init_task()
    task_store.save_artifacts([("rows", LARGE), ("tiny", 7), ("none", None)])
    assert task_store._objects == found["objects"] and task_store._info == found["info"]


def test_only_what_was_asked_for(tree):
    build(tree, "Other", "5")
    build(tree, "Flow", "2")
    migrate(tree, "packed", flows=("Fl*",), runs=("*/2",))
    kinds = {path.rsplit("/", 3)[0]: found["info"]["tiny"]["encoding"] for path, found in documents(tree).items()}
    assert kinds == {"Flow/1": "pickle-v4", "Flow/2": "mfstore-1", "Other/5": "pickle-v4"}


def test_each_flow_has_keys_of_its_own(tree):
    """Flows share chunks; what one flow's blobs became says nothing of another's."""
    build(tree, "Other", "5")
    values = load_all(tree)
    migrate(tree, "packed")
    migrate(tree, "stock", flows=("Flow",))
    assert load_all(tree) == values and blobs_of(tree, "Other")


def test_what_the_packed_store_takes_is_shown(tree, capsys):
    main(["du", "--metaflow", str(tree), "--json"])
    assert "packed" not in capsys.readouterr().out
    migrate(tree, "packed")
    files = [path.stat().st_size for path in (tree / "mf.store").rglob("*") if path.is_file() and path.name[0] != "."]
    main(["du", "--metaflow", str(tree), "--json"])
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert shown == {"flow": None, "packed": {"objects": len(files), "bytes": sum(files)}}
    main(["du", "--metaflow", str(tree)])
    assert "the packed profile's store, for all flows" in capsys.readouterr().out


@pytest.mark.parametrize("limit", ["ATTEMPTS_TOGETHER", "BYTES_TOGETHER"])
def test_small_windows_give_the_same(tree, tmp_path, monkeypatch, limit):
    shutil.copytree(tree, tmp_path / "other")
    migrate(tree, "packed")
    monkeypatch.setattr(migrate_module, limit, 1)
    migrate(tmp_path / "other", "packed")
    assert documents(tmp_path / "other") == documents(tree)


# ---- what is left, and what fails -------------------------------------------------------


def test_the_former_name_of_the_packed_profile(tree, capsys):
    assert run_cli("migrate", "--metaflow", str(tree), "--to", "native", "--json") == 0
    assert json.loads(capsys.readouterr().out)["to"] == "packed"


def test_damage_is_named_and_the_rest_goes_on(tree, capsys):
    values = load_all(tree)
    key = documents(tree)["Flow/1/end/3/0.data.json"]["objects"]["text"]
    gone = documents(tree)["Flow/1/work/2/1.data.json"]["objects"]["own"]
    Path(tree, layout.blob_path("Flow", key)).write_bytes(b"not what it was")
    Path(tree, layout.blob_path("Flow", gone)).unlink()
    (tree / "Flow/1/work/2/0.data.json").write_text("{")
    code = run_cli("migrate", "--metaflow", str(tree), "--to", "packed", "--json")
    plan = json.loads(capsys.readouterr().out)
    assert code == 0 and plan["executed"] is None
    assert {(entry["kind"], entry["what"]) for entry in plan["left"]} == {
        ("missing", "Flow/1/work/2/1 own"), ("unreadable", "Flow/1/work/2/0")
    }  # fmt: skip
    code = run_cli("migrate", "--metaflow", str(tree), "--to", "packed", "--execute", "--json")
    done = json.loads(capsys.readouterr().out)["executed"]
    assert code == 3 and done["failed"] == {"damaged": 1, "missing": 1, "unreadable": 1} and done["attempts"] == 3
    (damaged,) = [failure for failure in done["failures"] if failure["kind"] == "damaged"]
    assert (damaged["task"], damaged["artifact"], damaged["key"]) == ("Flow/1/end/3/0", "text", key)
    found = documents_but(tree, "Flow/1/work/2/0.data.json")
    encodings = {
        (path, name): info["encoding"] for path, document in found.items() for name, info in document["info"].items()
    }
    stayed = {("Flow/1/end/3/0.data.json", "text"), ("Flow/1/work/2/1.data.json", "own")}
    assert {place for place, kind in encodings.items() if kind == "pickle-v4"} == stayed
    (tree / "Flow/1/work/2/0.data.json").unlink()
    # When it is whole again the rest follows.
    blob(tree, "Flow", values["Flow/1/end/3/0.data.json"]["text"])
    blob(tree, "Flow", LARGE[::2])
    assert run_cli("migrate", "--metaflow", str(tree), "--to", "packed", "--execute") == 3  # no data.json
    out = capsys.readouterr()
    assert "migrated 2 tasks: 2 artifacts" in out.out and "Flow/1/work/2/0: it is marked done" in out.err


def documents_but(root, path):
    (root / path).rename(root / "aside")
    found = documents(root)
    (root / "aside").rename(root / path)
    return found


def run_cli(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    return ended.value.code


def test_people_read_the_plan_and_the_result(tree, capsys):
    task(tree, "Flow", "2", "start", 1, {"x": 1}, done=False)
    shutil.rmtree(tree / "Flow/1/end/3/_meta")
    assert run_cli("migrate", "--metaflow", str(tree), "--to", "packed") == 0
    out = capsys.readouterr().out
    assert "left alone: 1 run that may be going on\n  Flow/2: one of its tasks is running" in out
    assert "1 task of these have no local metadata here" in out and "Nothing was changed. --execute does this." in out
    assert run_cli("migrate", "--metaflow", str(tree), "--to", "packed", "--execute") == 0
    assert "migrated 4 tasks: 6 artifacts" in capsys.readouterr().out
    assert run_cli("migrate", "--metaflow", str(tree), "--to", "packed", "--execute") == 0
    assert "There was nothing to do." in capsys.readouterr().out
    assert run_cli("migrate", "--metaflow", str(tree)) == 2
    assert run_cli("migrate", "--metaflow", str(tree / "nowhere"), "--to", "stock", "--execute") == 1


def test_a_class_that_is_not_at_hand(tree, monkeypatch):
    """Its artifacts stay as they are; from the packed profile everything comes back, as the pickle it is."""
    module = types.ModuleType("of_the_flow")
    exec("class Model:\n    def __init__(self): self.weights = list(range(300))", module.__dict__)
    monkeypatch.setitem(sys.modules, "of_the_flow", module)
    task(tree, "Flow", "1", "more", 4, {"model": module.Model(), "beside": LARGE[:77]}, age=DAY)
    task(tree, "Flow", "1", "same", 5, {"model": module.Model()}, age=DAY)
    record(tree)
    monkeypatch.delitem(sys.modules, "of_the_flow")
    _, result = migrate(tree, "packed")
    assert [(failure.kind, failure.task, failure.artifact) for failure in result.failures] == [
        ("unloadable", "Flow/1/more/4/0", "model"), ("damaged", "Flow/1/same/5/0", "model")
    ]  # fmt: skip
    assert "of_the_flow" in result.failures[0].why
    assert documents(tree)["Flow/1/more/4/0.data.json"]["info"]["beside"]["encoding"].startswith("mfstore-1")
    monkeypatch.setitem(sys.modules, "of_the_flow", module)
    assert not migrate(tree, "packed")[1].failures
    monkeypatch.delitem(sys.modules, "of_the_flow")
    shutil.rmtree(tree / "Flow/data")
    assert not migrate(tree, "stock")[1].failures
    shutil.rmtree(tree / "mf.store")
    monkeypatch.setitem(sys.modules, "of_the_flow", module)
    found = load_all(tree)
    assert found["Flow/1/more/4/0.data.json"]["model"].weights == list(range(300))
    assert found["Flow/1/same/5/0.data.json model"].weights == list(range(300)) and whole(tree) == ()


def test_what_pickles_in_one_way_only(tree, monkeypatch):
    """One artifact that mfstore cannot pickle leaves its task's others alone."""
    module = types.ModuleType("of_the_flow")
    exec("class Odd:\n    def __reduce_ex__(self, protocol):\n"
         "        if protocol > 4: raise TypeError('not by that protocol')\n        return (Odd, ())", module.__dict__)  # fmt: skip
    monkeypatch.setitem(sys.modules, "of_the_flow", module)
    task(tree, "Flow", "1", "more", 4, {"a": LARGE[:9], "odd": module.Odd(), "z": LARGE[:60]}, age=DAY)
    _, result = migrate(tree, "packed")
    assert [(failure.kind, failure.artifact) for failure in result.failures] == [("unloadable", "odd")]
    infos = documents(tree)["Flow/1/more/4/0.data.json"]["info"]
    assert [infos[name]["encoding"].partition("/")[0] for name in ("a", "odd", "z")] == [
        "mfstore-1",
        "pickle-v4",
        "mfstore-1",
    ]


def test_a_task_that_changed_meanwhile_is_left(tree, monkeypatch):
    original = migrate_module.Migrator.convert

    def meanwhile(self, conversion, job):
        original(self, conversion, job)
        path = tree / "Flow/1/end/3/0.data.json"
        if job.attempt.task[2] == "end":
            document = json.loads(path.read_text())
            path.write_text(json.dumps({**document, "note": "of somebody else"}))

    for to in ("packed", "stock"):
        with monkeypatch.context() as patch:
            patch.setattr(migrate_module.Migrator, "convert", meanwhile)
            _, result = migrate(tree, to)
        assert [(failure.kind, failure.task) for failure in result.failures] == [("changed", "Flow/1/end/3/0")]
        left = documents(tree)["Flow/1/end/3/0.data.json"]
        assert left["note"] == "of somebody else" and result.attempts == 3
        assert {info["encoding"].partition("/")[0] for info in left["info"].values()} == {
            "pickle-v4" if to == "packed" else "mfstore-1"
        }
        values = load_all(tree)
        _, result = migrate(tree, to)
        assert result.attempts == 1 and not result.failures and load_all(tree) == values


class Refusing(FaultyBackend):
    """May be read."""

    def _run(self, operation, key, work):
        if operation.startswith(("put", "delete")):
            raise errors.AccessDenied("refused", key=key)
        return super()._run(operation, key, work)


def test_without_the_right_to_write_nothing_changes(tree):
    before = documents(tree)
    assert migrate(tree, "packed", execute=False, backend=Refusing).changes
    with pytest.raises(errors.AccessDenied):
        migrate(tree, "packed", backend=Refusing)
    assert documents(tree) == before and not (tree / "mf.store").exists()


class ReadOnlyTasks(FaultyBackend):
    """What tasks stored may be read."""

    def _run(self, operation, key, work):
        if operation == "put_if" and key.startswith("Flow/"):
            raise errors.AccessDenied("refused", key=key)
        return super()._run(operation, key, work)


def test_a_data_json_that_may_not_be_replaced(tree):
    before, values = documents(tree), load_all(tree)
    _, result = migrate(tree, "packed", backend=ReadOnlyTasks)
    assert result.failed == {"storage": 4} and "refused" in result.failures[0].why
    assert documents(tree) == before and load_all(tree) == values


def test_a_storage_that_fails_and_fails_ends_it(tree, monkeypatch):
    monkeypatch.setattr(migrate_module, "STORAGE_FAILURES", 2)
    monkeypatch.setattr(migrate_module, "ATTEMPTS_TOGETHER", 2)
    with pytest.raises(errors.BackendError, match="failed 2 times, the last time: .*refused"):
        migrate(tree, "packed", backend=ReadOnlyTasks)


def test_it_keeps_collectors_out_and_is_kept_out(tree):
    from contextlib import closing

    from mfstore.maintenance.metaflow.root import Root

    with closing(Root(str(tree))) as place:
        StateFile(place.backend).begin(False)
        with pytest.raises(errors.Conflict, match="at work"):
            migrate(tree, "packed")
        assert migrate(tree, "packed", execute=False).changes
        assert migrate(tree, "packed", take_over=True)[1].attempts == 4
    collect(tree)


def test_a_run_that_is_being_removed_is_left(tree, monkeypatch):
    from mfstore.maintenance.metaflow.collecting import removal

    build(tree, "Flow", "2", age=DAY)
    policy = RunPolicy(last=1, grace=0.0)
    collect(tree, policy)
    with monkeypatch.context() as patch:
        patch.setattr(removal.Removal, "delete", lambda self, *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            collect(tree, policy)
    plan, result = migrate(tree, "packed")
    assert [(entry.kind, entry.what) for entry in plan.left] == [("removing", "Flow/1")] and result.attempts == 4
    assert collect(tree, policy)[1].removed == ("Flow/1",)
    assert load_all(tree)


# ---- stopped at any point ---------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


class System:
    """The operating system, up to the n-th call that changes something."""

    CHANGES = ("rename", "unlink", "mkdir")
    """Nobody sees what is written before it gets its name."""

    def __init__(self, n, after, failure):
        self.calls, self._n, self._after, self._failure = 0, n, after, failure

    def __getattr__(self, name):
        found = getattr(os, name)
        return self._counted(found) if name in self.CHANGES else found

    def _counted(self, call):
        def counted(*arguments, **options):
            self.calls += 1
            due = self.calls == self._n if isinstance(self._failure, OSError) else self.calls >= self._n
            if due and not (self._after and self.calls == self._n):
                raise self._failure
            result = call(*arguments, **options)
            if due:
                raise self._failure
            return result

        return counted


@pytest.mark.slow
@pytest.mark.parametrize("to", ["packed", "stock"])
@pytest.mark.parametrize(
    ("failure", "after", "first"),
    [(Killed(), False, 1), (Killed(), True, 3), (OSError(errno.EIO, "broken"), False, 2)],
    ids=["killed before", "killed after", "failed"],
)
def test_stopped_at_any_call_everything_can_be_read_and_the_next_finishes(
    tmp_path, monkeypatch, to, failure, after, first
):
    monkeypatch.setenv("MFSTORE_FSYNC", "none")  # syncing takes most of the time, and no machine is switched off here
    origin = tmp_path / "origin"
    build(origin)
    values = load_all(origin)
    if to == "stock":
        migrate(origin, "packed")
        shutil.rmtree(origin / "Flow/data")  # so that all of it is written again
        (origin / ".lock").unlink()
    monkeypatch.setattr(migrate_module, "ATTEMPTS_TOGETHER", 2)
    shutil.copytree(origin, tmp_path / "expected")
    migrate(tmp_path / "expected", to)
    expected, told = documents(tmp_path / "expected"), records(tmp_path / "expected")
    for n in count(first, 3):  # each in one of the three cases
        root = tmp_path / str(n)
        shutil.copytree(origin, root)
        system = System(n, after, failure)
        with monkeypatch.context() as patch:
            patch.setattr(local, "os", system)
            try:
                migrate(root, to)
            except (Killed, errors.BackendError):
                pass
        assert load_all(root) == values
        # A client without mfstore goes by the record alone.
        told_now = [
            found["sha"] for found in records(root).values() if not found["content_type"].startswith("mfstore-1")
        ]
        assert blobs_of(root, "Flow") >= {*told_now}
        _, result = migrate(root, to, take_over=True)
        assert not result.failures
        assert documents(root) == expected and records(root) == told
        assert load_all(root) == values and whole(root) == ()
        shutil.rmtree(root)
        if system.calls < n:
            break
    assert n > 30
