"""Saving and loading a task's artifacts, in each profile and from one to the other."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest
from metaflow.datastore.exceptions import DataException, UnpicklableArtifactException

from mfstore.metaflow import process_state as process_state_module
from mfstore.metaflow.process_state import forget_process_state
from mfstore.metaflow.roots.packed_keys import bundle_of, is_packed
from mfstore.metaflow.stock import content_store
from mfstore.metaflow.stock.pickles import has_serializers
from mfstore.testing import NetworkFault
from mfstore.testing.actions import access_denied
from tests.rigs.metaflow_stores import another_host, save


@pytest.fixture
def s3(profile, s3):
    """On each profile."""
    return s3


@pytest.fixture
def datastore(profile, datastore):
    """On each profile."""
    return datastore


VALUES = {
    "none": None,
    "number": 17,
    "text": "word " * 300,
    "array": np.arange(200_000.0),
    "nested": {"a": [1, 2, {"b": b"c" * 2000}]},
}


def equal(one, other):
    return all(np.array_equal(one[name], other[name]) for name in ("array",)) and all(
        one[name] == other[name] for name in VALUES if name != "array"
    )


def test_artifacts_come_back(datastore):
    save(datastore.flow(), "1/a/7", VALUES)
    another_host()
    store = datastore.flow().get_task_datastore("1", "a", "7")
    assert equal(dict(store.load_artifacts([*VALUES])), VALUES)
    assert equal({name: store[name] for name in VALUES}, VALUES)
    assert store.is_none("none")
    assert not store.is_none("number")
    store["array"][0] = 5  # one's own
    sizes = dict(store.get_artifact_sizes([*VALUES]))
    assert sizes["array"] > 1_600_000
    assert sizes["none"] < 20


def test_equal_content_has_equal_keys_in_different_tasks(datastore):
    first = save(datastore.flow(), "1/a/7", VALUES)
    second = save(datastore.flow(), "1/a/8", {"other": 1, **VALUES})
    assert all(first._objects[name] == second._objects[name] for name in VALUES)


@pytest.mark.skipif(not has_serializers(), reason="a Metaflow that has serializers says it")
def test_stock_reads_the_default_profile_and_names_what_it_cannot_read_of_the_other(datastore, profile):
    save(datastore.flow(), "1/a/7", VALUES)
    store = datastore.flow(stock=True).get_task_datastore("1", "a", "7")
    original = type(store).load_artifacts.__wrapped__
    if profile == "stock":
        assert equal(dict(original(store, [*VALUES])), VALUES)
        return
    for name in VALUES:
        with pytest.raises(DataException, match=f"{name}.*mfstore-1.*mfstore"):
            list(original(store, [name]))


def test_what_only_the_clients_metadata_says_is_enough(datastore):
    """Metaflow's client has name, key and encoding from the metadata service."""
    store = save(datastore.flow(), "1/a/7", VALUES)
    for name, value in VALUES.items():
        data = {
            "objects": {name: store._objects[name]},
            "info": {name: {"size": 0, "type": None, "encoding": store._info[name]["encoding"]}},
        }
        found = datastore.flow().get_task_datastore("1", "a", "7", data_metadata=data)[name]
        assert np.array_equal(found, value) if name == "array" else found == value


def test_a_mixed_store_and_switching_back(datastore, profile, monkeypatch):
    save(datastore.flow(), "1/a/7", VALUES)
    monkeypatch.setattr(
        process_state_module, "from_conf", {"MFSTORE_PROFILE": "stock" if profile == "packed" else "packed"}.get
    )
    forget_process_state()
    inputs = datastore.flow().get_task_datastore("1", "a", "7")
    store = datastore.flow().get_task_datastore("1", "b", "8", attempt=0, mode="w")
    store.init_task()
    store.clone(inputs)
    store.save_artifacts(iter([("more", np.ones(50_000))]))
    store.done()
    found = datastore.flow().get_task_datastore("1", "b", "8")
    assert equal({name: found[name] for name in VALUES}, VALUES)
    assert found["more"].sum() == 50_000


def test_what_a_task_only_read_is_not_stored_again(s3):
    first = save(s3.flow(), "1/a/7", VALUES)
    s3.proxy.clear()
    inputs = s3.flow().get_task_datastore("1", "a", "7")
    store = s3.flow().get_task_datastore("1", "b", "8", attempt=0, mode="w")
    store._objects.update(inputs._objects)
    store._info.update(inputs._info)
    store._ca_store = inputs._ca_store  # a task has one flow datastore
    read = {name: inputs[name] for name in ("none", "number", "text", "nested")}
    s3.proxy.clear()
    store.save_artifacts(iter(read.items()), len_hint=len(read))
    assert not s3.proxy.requests("PUT")
    assert store._objects == first._objects


@pytest.mark.skipif(not has_serializers(), reason="a Metaflow that has serializers says it")
def test_an_unpicklable_artifact_is_named(datastore):
    with pytest.raises((UnpicklableArtifactException, DataException), match="broken"):
        save(datastore.flow(), "1/a/7", {"fine": 1, "broken": {"deep": [lambda: 1]}})


def test_errors_name_task_artifact_and_key(datastore, profile):
    value = random.Random(3).randbytes(5000)
    store = save(datastore.flow(), "1/a/7", {"x": value})
    key = store._objects["x"]
    if profile == "stock":
        datastore.delete(datastore.path_of(key))
    else:
        bundle = bundle_of(store._info["x"])
        datastore.delete(f"mf.store/recipes/{bundle[:2]}/{bundle}")
    another_host()
    with pytest.raises(DataException, match=r"Artifact x of task Flow/1/a/7: ") as caught:
        datastore.flow().get_task_datastore("1", "a", "7")["x"]
    assert (key if profile == "stock" else bundle) in str(caught.value)


@pytest.mark.parametrize("what", ["refused", "missing"])
def test_get_and_is_none_hide_no_failure(s3, profile, what):
    """Metaflow asks them whether a foreach goes on."""
    value = random.Random(5).randbytes(5000)
    store = save(s3.flow(), "1/a/7", {"x": value, "n": None})
    another_host()
    opened = s3.flow().get_task_datastore("1", "a", "7")
    if what == "refused":
        s3.proxy.faults = [NetworkFault(action=access_denied(), method="GET", path="data/|mf.store")]
    elif profile == "stock":
        s3.delete(s3.path_of(store._objects["x"]))
    else:
        bundle = bundle_of(store._info["x"])
        s3.delete(f"mf.store/recipes/{bundle[:2]}/{bundle}")
    for ask in (lambda: opened.get("x", "default"), lambda: opened.is_none("x"), lambda: opened["x"]):
        with pytest.raises(DataException):
            ask()
    assert opened.get("absent", "default") == "default"
    assert opened.is_none("n")


def test_what_an_old_task_refers_to_is_not_taken_to_be_stored(s3, profile, monkeypatch):
    value = random.Random(6).randbytes(5000)
    save(s3.flow(), "1/a/7", {"x": value})
    for opened, saved, puts in (
        (content_store.RELIED_ON, content_store.RELIED_ON, 0),
        (-1.0, -1.0, 1),
        (content_store.RELIED_ON, -1.0, 1),
    ):
        monkeypatch.setattr(content_store, "RELIED_ON", opened)
        flow = s3.flow()
        inputs = flow.get_task_datastore("1", "a", "7")
        store = flow.get_task_datastore("1", "b", str(puts), attempt=0, mode="w")
        store.clone(inputs)
        s3.proxy.clear()
        monkeypatch.setattr(content_store, "RELIED_ON", saved)  # a task may run for days
        store.save_artifacts(iter([("x", value)]))
        assert bool(s3.proxy.requests(None, "data/|recipes/")) == bool(puts)
        assert store._objects["x"] == inputs._objects["x"]


@pytest.mark.parametrize("step", ["a", "_parameters"])
def test_what_a_resumed_run_took_over_is_not_taken_to_be_stored(s3, profile, step):
    """Its data.json is young, what that refers to is not, and may be gone."""
    from tests.servers.base import boto_client

    value = random.Random(7).randbytes(5000)
    flow = s3.flow()
    save(flow, f"1/{step}/7", {"x": value})
    origin = flow.get_task_datastore("1", step, "7")
    taken = flow.get_task_datastore("2", step, "7", attempt=0, mode="w")
    taken.init_task()
    taken.clone(origin)
    if step == "_parameters":
        taken.save_metadata({"_resume_leader": "me"}, add_attempt=False)
    taken.done()
    client = boto_client(s3.server)
    for entry in client.list_objects_v2(Bucket=s3.bucket)["Contents"]:
        if "/data/" in entry["Key"] or "/recipes/" in entry["Key"]:
            client.delete_object(Bucket=s3.bucket, Key=entry["Key"])
    later = s3.flow()
    inputs = later.get_task_datastore("2", step, "7")
    store = later.get_task_datastore("2", "b", "8", attempt=0, mode="w")
    store.init_task()
    store._objects.update(inputs._objects)
    store._info.update(inputs._info)
    store.save_artifacts(iter([("x", value)]))
    store.done()
    another_host()
    assert s3.flow().get_task_datastore("2", "b", "8")["x"] == value


def test_the_profile_may_change_before_a_merge(datastore, profile, monkeypatch):
    """Of two branches one has read an artifact, and so saves it again: both must have the same key."""
    save(datastore.flow(), "1/start/1", VALUES)
    monkeypatch.setattr(
        process_state_module, "from_conf", {"MFSTORE_PROFILE": "stock" if profile == "packed" else "packed"}.get
    )
    forget_process_state()
    flow = datastore.flow()
    inputs = flow.get_task_datastore("1", "start", "1")
    read = flow.get_task_datastore("1", "a", "2", attempt=0, mode="w")
    read._objects.update(inputs._objects)
    read._info.update(inputs._info)
    read.save_artifacts(iter([(name, inputs[name]) for name in VALUES]), len_hint=len(VALUES))
    assert read._objects == inputs._objects
    read.save_artifacts(iter([("number", 18)]))
    assert read._objects["number"] != inputs._objects["number"]


def test_what_a_task_sets_itself_is_written_in_the_profile_of_now(datastore, monkeypatch, capsys, tmp_path):
    """A run of the packed profile is resumed in the default one: released Metaflow reads what its new tasks wrote."""
    monkeypatch.setattr(process_state_module, "from_conf", {"MFSTORE_PROFILE": "packed"}.get)
    forget_process_state()
    values = {"read": ["read"] * 200, "set": ["set"] * 200, "both": ["both"] * 200, "flag": True, "untouched": 5}
    save(datastore.flow(), "1/start/1", {**values, "_success": True, "_foreach_stack": []})
    monkeypatch.setattr(process_state_module, "from_conf", {"MFSTORE_PROFILE": "stock"}.get)
    forget_process_state()
    flow = datastore.flow()
    inputs = flow.get_task_datastore("1", "start", "1")
    task = flow.get_task_datastore("1", "a", "2", attempt=0, mode="w")
    task.init_task()
    task._objects.update(inputs._objects)
    task._info.update(inputs._info)
    read = {name: inputs[name] for name in ("read", "both", "_foreach_stack")}
    mine = {"set": ["set"] * 200, "both": ["both"] * 200, "flag": True, "_success": True, "new": 1}
    task.save_artifacts(iter({**read, **mine}.items()))
    task.save_artifacts(iter([("late", 2)]))
    task.done()
    took = {name for name, info in task._info.items() if is_packed(info)}
    assert took == {"read", "untouched"}
    err = capsys.readouterr().err
    assert err.count("takes over artifacts in the packed profile") == 1 and "read, untouched" in err
    stock = datastore.flow(stock=True).get_task_datastore("1", "a", "2")
    own = type(stock).load_artifacts.__wrapped__
    assert dict(own(stock, [*mine, "_foreach_stack"])) == {**mine, "_foreach_stack": []}
    assert {name: datastore.flow().get_task_datastore("1", "a", "2")[name] for name in values} == values


def test_the_client_asks_for_what_it_reads_alone(s3, profile):
    values = {f"x{number}": os.urandom(2000) for number in range(8)}
    stores = [save(s3.flow(), f"1/a/{number}", {"x": value}) for number, value in enumerate(values.values())]
    another_host()
    flow = s3.flow()
    s3.proxy.clear()
    for number, value in enumerate(values.values()):
        data = {
            "objects": {"x": stores[number]._objects["x"]},
            "info": {"x": {"size": 0, "type": None, "encoding": stores[number]._info["x"]["encoding"]}},
        }
        assert flow.get_task_datastore("1", "a", str(number), data_metadata=data)["x"] == value
    paths = [one.path for one in s3.proxy.requests()]
    assert not [path for path in paths if path.endswith("data.json")]
    assert len(paths) == len(values) + (profile == "packed"), "the store's description is read once"


LOCAL = """
import sys
from metaflow.datastore.flow_datastore import FlowDataStore
from mfstore.metaflow.extension import LocalStorage
flow = FlowDataStore("Flow", storage_impl=LocalStorage, ds_root=sys.argv[1])
task = flow.get_task_datastore("1", "a", "7", attempt=0, mode="w")
task.init_task()
task.save_artifacts(iter([("x", b"x" * 3000), ("y", 1)]))
task.done()
opened = flow.get_task_datastore("1", "a", "7")
assert (opened["x"], opened["y"]) == (b"x" * 3000, 1)
print("mfstore.s3.bulk.client" in sys.modules, "isal.igzip" in sys.modules)
"""


@pytest.mark.second
@pytest.mark.parametrize("kept_as", ["stock", "packed"])
def test_a_local_task_imports_nothing_of_s3(tmp_path, kept_as):
    environment = {**os.environ, "METAFLOW_MFSTORE_PROFILE": kept_as, "METAFLOW_USER": "u", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", LOCAL, str(tmp_path / "root")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("False False\n", "")
