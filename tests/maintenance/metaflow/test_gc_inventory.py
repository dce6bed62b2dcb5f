"""By an S3 Inventory the plan is the one by a listing, and what happened since the inventory keeps what it needs; on a
simulated S3."""

import errno
import io
import json
import os
import tempfile
import time

import pytest

from mfstore import errors
from mfstore.maintenance.metaflow import inventory as inventories
from mfstore.maintenance.metaflow.collecting.plan import plan_metaflow_gc
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.inventory import OLDEST, decode_manifest
from tests.rigs import simulated_roots
from tests.rigs.simulated_roots import SimulatedRoot

DAY = 86400.0
KEEP = RunPolicy(age=25 * DAY, grace=0.0)


@pytest.fixture
def rig():
    rig = SimulatedRoot()
    for flow in ("Flow", "Größe"):
        for run in range(6):
            rig.run(flow, f"argo {run}+x%", age=(30 - 2 * run) * DAY)
    rig.put("data/Flow/" + "ab" * 20, b"included", 30 * DAY)
    for key in ("strange/file", "data", "mf.cards"):
        rig.put(key, b"x", 30 * DAY)
    return rig


def plan_of(rig, monkeypatch, policy=KEEP, **more):
    with rig.opened(monkeypatch) as root, rig.counted() as asked:
        return plan_metaflow_gc(root, policy, metadata="none", **more), asked


def collect(rig, monkeypatch, policy=KEEP, **more):
    with rig.opened(monkeypatch) as root:
        return collect_metaflow(root, policy, metadata="none", **more)


def differing(plan, other):
    return [
        name for name in plan.__slots__
        if name not in ("now", "as_of", "liveness") and getattr(plan, name) != getattr(other, name)
    ]  # fmt: skip


@pytest.mark.parametrize("versions", [False, True], ids=["", "with versions"])
@pytest.mark.parametrize("form", ["CSV", "Parquet"])
@pytest.mark.parametrize("flows", [(), ("Gr*",)], ids=["all flows", "one flow"])
def test_the_plan_is_the_one_by_a_listing(rig, monkeypatch, form, versions, flows):
    policy = RunPolicy(age=25 * DAY, grace=0.0, flows=flows)
    manifest = rig.inventory(form, versions=versions)
    collect(rig, monkeypatch, policy)
    listed, _ = plan_of(rig, monkeypatch, policy)
    assert listed.remove and listed.blobs and listed.as_of is None
    found, asked = plan_of(rig, monkeypatch, policy, inventory=f"s3://b/{manifest}")
    assert differing(found, listed) == []
    assert found.as_of == pytest.approx(time.time(), abs=300)
    assert asked["ListObjectsV2"] <= 5  # of what collections themselves wrote


def test_a_root_that_is_a_whole_bucket(rig, monkeypatch):
    """Keys that begin with a dot are nobody's there, too."""
    rig.put(".hidden", b"x", DAY)
    rig.put("strange/.hidden", b"x", DAY)
    for of_keys in (rig.world.objects, rig.world.modified):
        for key in [*of_keys]:
            of_keys[key.removeprefix("mf/")] = of_keys.pop(key)
    monkeypatch.setattr(simulated_roots, "URL", "s3://b")
    plan, _ = plan_of(rig, monkeypatch, inventory=f"s3://b/{rig.inventory()}")
    assert plan.runs and {name: amount.objects for name, amount in plan.foreign.items()} == {
        "data": 1, "mf.cards": 1, "strange": 1
    }  # fmt: skip


def test_what_is_removed_by_it_is_what_the_plan_says(rig, monkeypatch):
    url = f"s3://b/{rig.inventory()}"
    collect(rig, monkeypatch, inventory=url)
    expected, _ = plan_of(rig, monkeypatch)
    _, done = collect(rig, monkeypatch, inventory=url)
    assert done.removed == tuple(entry.name for entry in expected.remove) and not done.held
    assert done.deleted == expected.freed
    assert not [key for run in done.removed for key in rig.under(f"{run}/")]
    # By the same inventory once more: they are gone, and not removed again.
    assert collect(rig, monkeypatch, inventory=url)[1].removed == ()
    assert not plan_of(rig, monkeypatch)[0].remove
    assert plan_of(rig, monkeypatch)[0].unreferred.objects == 0


def test_what_a_run_since_then_refers_to_stays(rig, monkeypatch):
    collect(rig, monkeypatch)
    url = f"s3://b/{rig.inventory(age=DAY)}"
    rig.run("Flow", "argo 0+x%", age=0.0, steps=[])
    # A new run took over what only dropped runs referred to.
    old = json.loads(rig.world.objects["mf/Flow/argo 0+x%/train/2/0.data.json"])["objects"]
    rig.run("Flow", "new", age=60.0)
    path = "mf/Flow/new/train/2/0.data.json"
    document = json.loads(rig.world.objects[path])
    document["objects"]["taken"] = old["own0"]
    rig.world.objects[path] = json.dumps(document).encode()
    _, done = collect(rig, monkeypatch, inventory=url)
    assert {name for name in done.removed if name.startswith("Flow/")} == {
        "Flow/argo 0+x%",
        "Flow/argo 1+x%",
        "Flow/argo 2+x%",
    }
    kept = {key.rpartition("/")[2] for key in rig.under("Flow/data/")}
    assert old["own0"] in kept and old["own1"] not in kept


def test_what_a_file_that_was_written_again_since_then_refers_to_stays(rig, monkeypatch):
    """What is remembered of it is what the inventory has."""
    collect(rig, monkeypatch)
    url = f"s3://b/{rig.inventory(age=DAY)}"
    old = json.loads(rig.world.objects["mf/Flow/argo 0+x%/train/2/0.data.json"])["objects"]
    path = "mf/Flow/argo 5+x%/train/2/0.data.json"
    document = json.loads(rig.world.objects[path])
    document["objects"]["taken"] = old["own0"]
    rig.world.objects[path] = json.dumps(document).encode()
    _, done = collect(rig, monkeypatch, inventory=url)
    assert "Flow/argo 0+x%" in done.removed
    kept = {key.rpartition("/")[2] for key in rig.under("Flow/data/")}
    assert old["own0"] in kept and old["own1"] not in kept


def test_a_run_that_is_gone_since_then_holds_nothing(rig, monkeypatch):
    """Though its policy would keep it: somebody removed it."""
    collect(rig, monkeypatch)
    url = f"s3://b/{rig.inventory(age=DAY)}"
    for key in rig.under("Flow/argo 5+x%/"):
        del rig.world.objects[f"mf/{key}"]
    rig.forget()
    plan, done = collect(rig, monkeypatch, inventory=url)
    assert "Flow/argo 0+x%" in done.removed and not done.held and not plan.unreadable


def test_a_run_that_was_written_to_since_then_holds_its_flow(rig, monkeypatch):
    collect(rig, monkeypatch)
    url = f"s3://b/{rig.inventory(age=DAY)}"
    rig.put("Flow/argo 0+x%/train/2/1.attempt.json", b"{}", 60.0)
    rig.put("Flow/argo 0+x%/train/2/1.DONE.lock", b"", 60.0)
    _, done = collect(rig, monkeypatch, inventory=url)
    assert done.removed and all(name.startswith("Größe/") for name in done.removed) and "Flow" in done.held


@pytest.mark.parametrize(("resumed", "goes"), [(0, False), (5, True)], ids=["what was to go", "what stays"])
def test_a_run_that_was_resumed_since_then_holds_its_flow(rig, monkeypatch, resumed, goes):
    """The newer run shows its cards."""
    for run in range(6):
        rig.put(f"mf.cards/Flow/runs/argo {run}+x%/steps/train/tasks/2/cards/default-x.html", b"a card", 25 * DAY)
    collect(rig, monkeypatch)
    url = f"s3://b/{rig.inventory(age=DAY)}"
    taken = rig.world.objects[f"mf/Flow/argo {resumed}+x%/train/2/0.data.json"]
    rig.put("Flow/new/_parameters/0/_resume_leader", b"", 60.0)
    for name, data in (("attempt.json", b'{"time": 1}'), ("data.json", taken), ("DONE.lock", b"")):
        rig.put(f"Flow/new/train/2/0.{name}", data, 60.0)
    _, done = collect(rig, monkeypatch, inventory=url)
    assert {name.split("/")[0] for name in done.removed} == ({"Flow", "Größe"} if goes else {"Größe"})
    assert goes or "was resumed since" in done.held["Flow"]
    assert len(rig.under("mf.cards/Flow/")) == (3 if goes else 6)


def test_what_an_inventory_left_out_stays_and_keeps(rig, monkeypatch):
    """S3 does not promise that an inventory has all objects."""
    collect(rig, monkeypatch)
    needed = json.loads(rig.world.objects["mf/Flow/argo 5+x%/train/2/0.data.json"])["objects"]
    path = "mf/Flow/argo 0+x%/train/2/0.data.json"
    document = json.loads(rig.world.objects[path])
    document["objects"]["same"] = needed["own0"]
    rig.world.objects[path] = json.dumps(document).encode()
    out = [key for key in rig.world.objects if key.startswith("mf/Flow/argo 5+x%/")]
    _, done = collect(rig, monkeypatch, inventory=f"s3://b/{rig.inventory(leave_out=out)}")
    assert "Flow/argo 0+x%" in done.removed
    assert needed["own0"] in {key.rpartition("/")[2] for key in rig.under("Flow/data/")}


@pytest.mark.parametrize("how", ["older", "before a file was written again", "without its tags"])
def test_an_inventory_that_is_not_true_lets_no_more_go(rig, monkeypatch, how):
    """Whatever it says of a run: before that goes, its files are listed."""
    policy, metadata = (RunPolicy(last=1, grace=0.0), "local") if "tags" in how else (KEEP, "none")
    run, place = "argo 4+x%", f"mf/Flow/argo {4}+x%/"
    document = {"flow_id": "Flow", "run_number": run, "tags": ["ttl:900d"], "system_tags": [], "ts_epoch": 1.7e12}
    rig.put(f"Flow/{run}/_meta/_self.json", json.dumps(document).encode(), 22 * DAY)
    with monkeypatch.context() as patched:
        if "tags" not in how:
            day = rig.world._day
            patched.setattr(rig.world, "_day", lambda key: "2020-01-01T00:00:00.000Z" if place in key else day(key))
        forged = f"s3://b/{rig.inventory(leave_out=[f'{place}_meta/_self.json'] if 'tags' in how else [])}"
    if "again" in how:
        for key in rig.under(place.removeprefix("mf/")):
            rig.world.modified[f"mf/{key}"] = 1577836800.0 + 3.0 * key.endswith("train/2/0.data.json")
    for _ in range(2):
        with rig.opened(monkeypatch) as root:
            plan, done = collect_metaflow(root, policy, metadata=metadata, inventory=forged)
    assert f"Flow/{run}" in {entry.name for entry in plan.remove}
    assert "not as the inventory has it" in done.held["Flow"] and rig.under(f"Flow/{run}/")
    assert done.removed and all(name.startswith("Größe/") for name in done.removed)


def test_the_packed_store_is_left_alone(rig, monkeypatch):
    rig.put("mf.store/mfstore.json", b"{}", DAY)
    _, done = collect(rig, monkeypatch, inventory=f"s3://b/{rig.inventory()}")
    assert "newest runs" in done.store_left


def test_the_newest_of_a_folder_is_taken(rig, monkeypatch):
    rig.inventory(age=3 * DAY)
    newest = rig.inventory(age=DAY)
    rig.world.objects["inv/b/all/2099-01-01T00-00Z/manifest.checksum"] = b"its manifest is on its way"
    rig.world.objects["inv/b/all/hive/dt=2099-01-01-00-00/symlink.txt"] = b""
    plan, _ = plan_of(rig, monkeypatch, inventory="s3://b/inv/b/all/")
    assert plan.as_of * 1000 == int(json.loads(rig.world.objects[newest])["creationTimestamp"])
    with pytest.raises(errors.NotFound, match="no inventory"):
        plan_of(rig, monkeypatch, inventory="s3://b/inv")


def test_inventories_that_are_refused(rig, monkeypatch):
    before = dict(rig.world.objects)
    for number, (more, match) in enumerate([
        ({"age": OLDEST + 60}, "10.0 days old"), ({"age": -DAY}, "days old"), ({"bucket": "other"}, "of another bucket"),
    ]):  # fmt: skip
        url = f"s3://b/{rig.inventory(**more)}"
        with pytest.raises(errors.Refused, match=match):
            collect(rig, monkeypatch, inventory=url)
        assert number < 3
    for url, kind in (("s3://b/no/manifest.json", errors.NotFound), ("manifest.json", errors.InvalidKey)):
        with pytest.raises(kind):
            plan_of(rig, monkeypatch, inventory=url)
    assert {key: data for key, data in rig.world.objects.items() if not key.startswith("inv/")} == before


@pytest.mark.parametrize("form", ["CSV", "Parquet"])
@pytest.mark.parametrize("how", ["another byte", "cut off", "gone", "not in the format"])
def test_a_damaged_inventory_is_told(rig, monkeypatch, form, how):
    manifest = rig.inventory(form)
    document = json.loads(rig.world.objects[manifest])
    file = document["files"][1]
    data = rig.world.objects.pop(file["key"])
    if how == "another byte":
        rig.world.objects[file["key"]] = data[:50] + bytes([data[50] ^ 1]) + data[51:]
    elif how == "cut off":
        rig.world.objects[file["key"]] = data[:-9]
    elif how == "not in the format":
        rig.world.objects[file["key"]] = bytes(100)
        file.update(size=100, MD5checksum="6d0bb00954ceb7fbee436bb55a8397a9")
        rig.world.objects[manifest] = json.dumps(document).encode()
    with pytest.raises((errors.CorruptObject, errors.NotFound, errors.InvalidRange)) as caught:
        plan_of(rig, monkeypatch, inventory=f"s3://b/{manifest}")
    assert caught.value.key == file["key"]


@pytest.mark.parametrize("form", ["CSV", "Parquet"])
@pytest.mark.parametrize(("call", "number"), [("write", errno.ENOSPC), ("seek", errno.EIO), ("read", errno.EIO)])
def test_a_disk_that_fails_is_not_the_inventory(rig, monkeypatch, form, call, number):
    """Nor is what it says of itself: the folder for temporary files is named, and what to do."""

    class Failing(io.BytesIO):
        pass

    def fail(*_):
        raise OSError(number, os.strerror(number))

    setattr(Failing, call, fail)
    monkeypatch.setattr(inventories.tempfile, "TemporaryFile", Failing)
    with pytest.raises(errors.OutOfSpace if number == errno.ENOSPC else errors.BackendError, match="TMPDIR") as caught:
        plan_of(rig, monkeypatch, inventory=f"s3://b/{rig.inventory(form)}")
    assert os.strerror(number) in str(caught.value) and tempfile.gettempdir() in caught.value.found


def test_manifests():
    good = {
        "sourceBucket": "b", "creationTimestamp": "1514944800000", "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size, LastModifiedDate, ETag", "files": [],
    }  # fmt: skip
    found = decode_manifest(json.dumps(good).encode())
    assert found.created == 1514944800 and found.columns == ("Bucket", "Key", "Size", "LastModifiedDate", "ETag")
    wrong = ({"files": [1]}, {"creationTimestamp": "x"}, {"creationTimestamp": float("inf")})
    for bad in (b"", b"[]", b"{}", b"[" * 100_000, *(json.dumps({**good, **field}).encode() for field in wrong)):
        with pytest.raises(errors.CorruptObject):
            decode_manifest(bad)
    with pytest.raises(errors.Unsupported, match="format"):
        decode_manifest(json.dumps({**good, "fileFormat": "ORC"}).encode())
    with pytest.raises(errors.Unsupported, match="no LastModifiedDate and no ETag"):
        decode_manifest(json.dumps({**good, "fileSchema": "Bucket, Key, Size"}).encode())


def test_without_pyarrow_csv_is_read(rig, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(errors.Unsupported, match="pyarrow"):
        inventories._parquet()
    assert plan_of(rig, monkeypatch, inventory=f"s3://b/{rig.inventory()}")[0].runs
