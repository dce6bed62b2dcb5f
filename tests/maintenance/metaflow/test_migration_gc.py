"""Migrated artifacts afterwards: what is collected of their former form, and who still finds them by it."""

import json
import pickle
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from mfstore.cli import main
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.migrate import migrate_metaflow
from mfstore.maintenance.metaflow.migrating.changes import MigrationOptions
from mfstore.maintenance.metaflow.root import Root
from tests.rigs.metaflow_trees import blob, blobs_of, task
from tests.rigs.migration import DAY, LARGE, age, build, collect, documents, forms, load_all, migrate, records, whole

PACKED = {"encoding": "mfstore-1/" + "b" * 64, "serializer_info": {"source": "mfstore"}}
STOCK = {"encoding": "pickle-v4"}


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "mf"
    build(root)
    return root


# ---- garbage collection afterwards ------------------------------------------------------


def test_what_was_left_behind_is_collected(tree):
    code = blob(tree, "Flow", b"a deployment that did not run yet" * 100, raw=True)
    used = blob(tree, "Flow", b"code of the run" * 100, raw=True)
    (tree / "Flow/1/start/1/0.task_begin").write_text(json.dumps({"code_package_sha": used}))
    age(tree, 2 * DAY)
    values = load_all(tree)
    left = blobs_of(tree, "Flow") - {code, used}
    migrate(tree, "packed")
    # Not before the grace period is over.
    plan, done = collect(tree, RunPolicy(age=1e9, grace=DAY))
    assert not done.deleted.objects and plan.later.objects == 2 * len(left) and left <= blobs_of(tree, "Flow")
    plan, done = collect(tree)
    assert plan.migrated == done.deleted and done.deleted.objects == 2 * len(left) and not done.removed
    assert blobs_of(tree, "Flow") == {code, used}
    assert load_all(tree) == values and whole(tree) == ()
    assert not collect(tree)[1].deleted.objects and load_all(tree) == values


def test_records_that_an_earlier_version_brought_up_to_date_are_seen(tree):
    """It did not write down that it had."""
    age(tree, 2 * DAY)
    migrate(tree, "packed")
    for path in tree.glob("Flow/1/*/*/*.data.json"):
        document = json.loads(path.read_text())
        assert document["mfstore"].pop("recorded")
        path.write_text(json.dumps(document))
    collect(tree)
    assert not blobs_of(tree, "Flow") and whole(tree) == ()


def without_records(root):
    """As where a metadata service has the metadata."""
    for path in Path(root).rglob("_meta/*_artifact_*.json"):
        path.unlink()


def repickled(root):
    """Have an artifact whose pickle comes out otherwise today: another library's version wrote it."""
    key = blob(root, "Flow", pickle.dumps(LARGE, protocol=2))
    for path in Path(root).glob("Flow/1/*/*/*.data.json"):
        document = json.loads(path.read_text())
        document["objects"]["rows"] = key
        path.write_text(json.dumps(document))
    return key


def test_what_a_metadata_service_names_stays(tree):
    """Its records cannot be rewritten, and clients without mfstore go by them: stock, packed and back is the same to the
    byte, whatever was collected between."""
    without_records(tree)
    first = repickled(tree)
    age(tree, 2 * DAY)
    before, values = forms(tree), load_all(tree)
    blobs = {path: path.read_bytes() for path in (tree / "Flow/data").rglob("*") if path.is_file()}
    migrate(tree, "packed")
    for _ in range(3):
        plan, done = collect(tree)
        assert not done.deleted.objects and not plan.migrated.objects
    assert first in blobs_of(tree, "Flow") and plan.former.objects == 2 * len({*before_keys(before)})
    result = migrate(tree, "stock")
    assert result[0].rekeyed == 0
    assert forms(tree) == before and load_all(tree) == values
    for path, data in blobs.items():
        assert path.read_bytes() == data
    # With its run it goes.
    build(tree, "Flow", "2", age=DAY)
    migrate(tree, "packed", runs=("Flow/1",))
    age(tree / "Flow/1", 10 * DAY)
    for _ in range(2):
        collect(tree, RunPolicy(last=1, grace=0.0))
    assert first not in blobs_of(tree, "Flow") and whole(tree) == ()


def before_keys(found):
    return [key for document in found.values() for key in document["objects"].values()]


def test_records_that_lie_elsewhere_follow_too(tree, tmp_path):
    """That they did is written where a collection sees it, which does not see them."""
    before = before_keys(forms(tree))
    for path in [*tree.rglob("_meta/*_artifact_*.json")]:
        place = tmp_path / "elsewhere" / path.relative_to(tree)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    with closing(Root(str(tree))) as root, closing(Root(str(tmp_path / "elsewhere"))) as metadata:
        plan, result = migrate_metaflow(root, MigrationOptions("packed"), metadata=metadata)
    assert result.records and not plan.unrecorded
    _, done = collect(tree)
    assert done.deleted.objects == 2 * len({*before}) and not blobs_of(tree, "Flow")


def test_a_migration_tells_what_gets_another_key(tree, capsys):
    first = repickled(tree)
    migrate(tree, "packed")
    collect(tree)
    without_records(tree)
    plan = migrate(tree, "stock", execute=False)
    assert plan.rekeyed == sum(map(len, (found["objects"] for found in documents(tree).values())))
    with pytest.raises(SystemExit):
        main(["migrate", "--metaflow", str(tree), "--to", "stock"])
    assert f"{plan.rekeyed} artifacts of them were stock before and their blobs are gone" in capsys.readouterr().out
    migrate(tree, "stock")
    assert first not in blobs_of(tree, "Flow")


def test_what_others_need_of_it_stays(tree):
    """A clone of a resumed run, an attempt that failed, a flow that is running; and only the flows asked for."""
    first = documents(tree)["Flow/1/start/1/0.data.json"]
    clone = tree / "Flow/2/start/1"
    clone.mkdir(parents=True)
    for name, content in (("attempt.json", {}), ("data.json", first), ("DONE.lock", "")):
        (clone / f"0.{name}").write_text(json.dumps(content))
    values = load_all(tree)
    migrate(tree, "packed", runs=("Flow/1",))
    task(tree, "Flow", "3", "start", 1, {}, done=False)
    plan, done = collect(tree)
    assert not done.deleted.objects and done.held == {"Flow": "Flow/3/start/1 is running"} == plan.busy
    shutil.rmtree(tree / "Flow/3")
    _, done = collect(tree, RunPolicy(age=1e9, grace=0.0, flows=("Other",)))
    assert not done.deleted.objects
    _, done = collect(tree)
    assert done.deleted.objects and blobs_of(tree, "Flow") == {*first["objects"].values()}
    assert load_all(tree) == values and whole(tree) == ()


def test_a_migration_back_uses_what_was_left_and_collection_spares_it(tree):
    values, before = load_all(tree), forms(tree)
    migrate(tree, "packed")
    migrate(tree, "stock")
    assert not collect(tree)[1].deleted.objects
    assert forms(tree) == before and load_all(tree) == values


def test_left_blobs_go_with_their_run(tree):
    build(tree, "Flow", "2", age=DAY)
    migrate(tree, "packed", runs=("Flow/1",))
    age(tree / "Flow/1", 10 * DAY)
    policy = RunPolicy(last=1, grace=0.0)
    for _ in range(2):
        collect(tree, policy)
    needed = {key for found in documents(tree).values() for key in found["objects"].values()}
    assert {path.partition("/start")[0] for path in documents(tree) if "start" in path} == {"Flow/2"}
    assert blobs_of(tree, "Flow") == needed and whole(tree) == ()


def recipes(tree):
    return {path.name for path in (tree / "mf.store/recipes").rglob("*") if path.is_file()}


def test_what_nobody_needs_of_the_packed_store_is_collected(tree):
    build(tree, "Other", "5")
    migrate(tree, "packed")
    values = load_all(tree)
    all_of_it = recipes(tree)
    collect(tree)
    assert recipes(tree) == all_of_it  # all needed
    migrate(tree, "stock", flows=("Flow",))
    _, done = collect(tree)
    assert done.store.condemned.recipes == 0 and recipes(tree) == all_of_it  # flows share what is equal
    migrate(tree, "stock")
    _, done = collect(tree)
    assert done.store.condemned.recipes == len(all_of_it) and recipes(tree) == all_of_it
    _, done = collect(tree)
    assert done.store.deleted.recipes == len(all_of_it) and not recipes(tree)
    assert load_all(tree) == values and whole(tree) == ()


def test_the_packed_store_of_kept_runs_only(tree):
    build(tree, "Flow", "2", age=DAY)
    task(tree, "Flow", "2", "more", 9, {"only": LARGE[:200]}, age=DAY)
    task(tree, "Flow", "1", "more", 9, {"only": LARGE[:300]}, age=2 * DAY)
    migrate(tree, "packed")
    age(tree / "Flow/1", 9 * DAY)
    age(tree / "Flow/2", 5 * DAY)
    before = recipes(tree)
    policy = RunPolicy(last=1, grace=0.0)
    for _ in range(4):
        collect(tree, policy)
    assert len({path.split("/")[1] for path in documents(tree)}) == 1
    assert recipes(tree) < before and load_all(tree) and whole(tree) == ()


def test_the_packed_store_is_left_alone_when_not_all_is_known(tree, capsys):
    build(tree, "Flow", "2", age=DAY)
    migrate(tree, "packed")
    migrate(tree, "stock", runs=("Flow/2",))
    age(tree / "Flow/1", 9 * DAY)
    age(tree / "Flow/2", 5 * DAY)
    policy = RunPolicy(last=1, grace=0.0)
    collect(tree, policy)
    (tree / "Flow/1/start/1/0.data.json").write_text("{")
    age(tree / "Flow/1", 9 * DAY)
    before = recipes(tree)
    _, done = collect(tree, policy)
    assert done.store is None and "known" in done.store_left and recipes(tree) == before


def included(tree, run, sha):
    """A task with an IncludeFile, in the packed profile or to be brought there."""
    value = {"type": "uploader-v2", "url": f"s3://elsewhere/data/Flow/{sha}", "pad": "x" * 200}
    infos = {"file": {"type": "<class 'metaflow.includefile.IncludedFile'>", "encoding": "pickle-v4"}}
    task(tree, "Flow", run, "_parameters", 0, {"file": value}, age=2 * DAY, infos=infos)
    path = Path(tree, "data", "Flow", sha)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"included")
    return path


def test_include_files_that_packed_artifacts_name_stay(tree):
    build(tree, "Flow", "2", age=DAY)
    shared, old = included(tree, "1", "ab" * 20), included(tree, "1", "cd" * 20)
    included(tree, "2", "ab" * 20)
    # The type that data.json has is the class; these are told by hand.
    migrate(tree, "packed", runs=("Flow/2",))
    path = tree / "Flow/2/_parameters/0/0.data.json"
    document = json.loads(path.read_text())
    document["info"]["file"]["type"] = "<class 'metaflow.includefile.IncludedFile'>"
    path.write_text(json.dumps(document))
    age(tree / "Flow/1", 9 * DAY)
    age(tree / "Flow/2", 5 * DAY)
    policy = RunPolicy(last=1, grace=0.0)
    for _ in range(2):
        collect(tree, policy)
    assert shared.exists() and not old.exists()
    # Not known is not gone.
    shutil.rmtree(tree / "mf.store/recipes")
    build(tree, "Flow", "0", age=20 * DAY)
    last = included(tree, "0", "ef" * 20)
    age(tree / "Flow/0", 20 * DAY)
    for _ in range(2):
        collect(tree, policy)
    assert last.exists() and shared.exists()


# ---- who reads by what it was told before -----------------------------------------------


@pytest.mark.parametrize("to", ["packed", "stock"])
def test_who_knows_a_former_key_finds_the_artifact(tree, to):
    """A metadata service's records are not rewritten; and what they named has been collected since."""
    if to == "stock":
        migrate(tree, "packed")
    told, values = records(tree), load_all(tree)
    by_record = {path: value for path, value in values.items() if " " in path}
    before = documents(tree)
    migrate(tree, to)
    for _ in range(2):
        collect(tree)
    if to == "stock":
        shutil.rmtree(tree / "mf.store")
    for path, content in told.items():
        (tree / path).write_text(json.dumps(content))
    found = load_all(tree)
    assert {path: found[path] for path in by_record} == by_record
    # And one who read data.json before.
    from tests.rigs.migration import _open

    for path, document in before.items():
        flow, run, step, number, _ = path.split("/")
        assert (
            dict(_open(tree, flow, run, step, number, None, document).load_artifacts(document["objects"]))
            == values[path]
        )


def test_a_key_that_never_was_is_an_error(tree):
    from metaflow.datastore.exceptions import DataException

    from tests.rigs.migration import _open

    migrate(tree, "packed")
    known = {"objects": {"rows": "ab" * 20}, "info": {"rows": STOCK}}
    with pytest.raises(DataException, match=r"Artifact rows of task Flow/1/start/1: Nothing is stored at"):
        dict(_open(tree, "Flow", "1", "start", "1", None, known).load_artifacts(["rows"]))


def test_what_lies_in_a_key_is_an_ordinary_pickle(tree):
    migrate(tree, "packed")
    from mfstore.metaflow.roots.packed_keys import inline_pickle

    found = documents(tree)["Flow/1/start/1/0.data.json"]["objects"]["tiny"]
    assert pickle.loads(inline_pickle(found)) == 7
