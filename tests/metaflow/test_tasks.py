"""Opening tasks and loading artifacts: Metaflow's rules with fewer requests, and errors that say what is wrong."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metaflow.datastore.datastore_set import TaskDataStoreSet
from metaflow.datastore.exceptions import DataException, UnpicklableArtifactException

from mfstore.metaflow import process_state as process_state_module
from mfstore.metaflow.extension import LocalStorage
from mfstore.metaflow.packed.store import packed_store
from mfstore.metaflow.process_state import forget_process_state, process_state
from mfstore.metaflow.roots.attempts import attempts_of, readable
from mfstore.metaflow.roots.packed_keys import bundle_of
from mfstore.metaflow.stock import content_store
from mfstore.testing import NetworkFault
from mfstore.testing.actions import access_denied
from tests.rigs.metaflow_stores import local_place, s3_place


@pytest.fixture(params=["stock", "packed"])
def profile(request, monkeypatch, tmp_path):
    monkeypatch.setattr(process_state_module, "from_conf", lambda name: request.param)
    monkeypatch.setenv("MFSTORE_CACHE", str(tmp_path / "cache"))
    forget_process_state()
    yield request.param
    forget_process_state()


@pytest.fixture
def s3(profile, monkeypatch, radosgw):
    with s3_place(radosgw, monkeypatch) as found:
        yield found


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.server)])
def place(request, profile, tmp_path):
    return local_place(tmp_path) if request.param == "local" else request.getfixturevalue("s3")


def save(flow, pathspec, artifacts, attempt=0, done=True):
    run, step, task = pathspec.split("/")
    store = flow.get_task_datastore(run, step, task, attempt=attempt, mode="w")
    store.init_task()
    store.save_metadata({"task_begin": {}})
    store.save_artifacts(iter(artifacts.items()), len_hint=len(artifacts))
    if done:
        store.done()
    return store


def another_host():
    process_state().tiny_blobs.clear()
    shutil.rmtree(process_state().knobs.cache, ignore_errors=True)


# ---- which attempt -----------------------------------------------------------------------------

marks = st.dictionaries(
    st.tuples(st.sampled_from(["1", "2", "10"]), st.integers(0, 5)),
    st.sets(st.sampled_from(["attempt.json", "DONE.lock", "data.json", "task_begin"]), min_size=1),
    max_size=8,
)


@settings(deadline=None, max_examples=150)
@given(marks, st.one_of(st.none(), st.integers(0, 6)), st.booleans(), st.booleans(), st.booleans())
def test_the_attempts_chosen_are_those_metaflow_chooses(found, attempt, allow_not_done, include_prior, by_pathspec):
    from metaflow.datastore.flow_datastore import FlowDataStore

    listing = [(f"F/r/s/{task}/{number}.{name}", "e", 0.0) for (task, number), names in found.items() for name in names]
    with tempfile.TemporaryDirectory() as root:
        for path, _, _ in listing:
            os.makedirs(f"{root}/{os.path.dirname(path)}", exist_ok=True)
            Path(root, path).write_text('{"objects": {}, "info": {}}')
        os.makedirs(f"{root}/F/r/s", exist_ok=True)
        flow = FlowDataStore("F", storage_impl=LocalStorage, ds_root=root)
        asked = {"pathspecs": [f"r/s/{task}" for task in ("10", "1", "2")]} if by_pathspec else {"run_id": "r"}
        chosen = []
        flow.get_task_datastore = lambda run, step, task, number, *rest: chosen.append((f"F/r/s/{task}", number))
        flow.get_task_datastores(**asked, attempt=attempt, allow_not_done=allow_not_done, include_prior=include_prior)
    tasks = attempts_of(listing)
    among = range(6)
    if attempt is not None and attempt <= 5:
        among = range(attempt + 1) if include_prior else range(attempt, attempt + 1)
    wanted = dict.fromkeys(tasks, among)
    assert sorted(readable(tasks, wanted, allow_not_done, include_prior)) == sorted(chosen)


@pytest.mark.parametrize(
    ("attempts", "readable_as"),
    [
        ([], None),
        ([(0, True)], 0),
        ([(0, False)], None),
        ([(0, True), (1, True)], 1),
        ([(0, True), (1, False)], None),  # never an older attempt once a newer one began
    ],
)
def test_an_attempt_is_read_only_when_it_is_the_latest_and_done(s3, attempts, readable_as):
    flow = s3.flow()
    for number, done in attempts:
        save(flow, "1/a/7", {"x": number}, number, done)
    if readable_as is None:
        with pytest.raises(DataException, match=r"Flow/1/a/7.*(not end well|has been started)"):
            s3.flow().get_task_datastore("1", "a", "7")
        assert s3.flow().get_task_datastores(pathspecs=["1/a/7"]) == []
        return
    s3.proxy.clear()
    store = s3.flow().get_task_datastore("1", "a", "7")
    assert (store.attempt, store["x"]) == (readable_as, readable_as)
    (many,) = s3.flow().get_task_datastores(pathspecs=["1/a/7"])
    assert (many.attempt, many["x"]) == (readable_as, readable_as)
    if len(attempts) == 2:
        (older,) = s3.flow().get_task_datastores(pathspecs=["1/a/7/0"])
        assert older["x"] == 0


def test_opening_takes_a_listing_and_what_is_not_cached(s3):
    save(s3.flow(), "1/a/7", {"x": 1})
    s3.proxy.clear()
    assert s3.flow().get_task_datastore("1", "a", "7")["x"] == 1
    assert len(s3.proxy.requests()) == 1, "this host wrote data.json and the tiny blob"
    another_host()
    s3.proxy.clear()
    store = s3.flow().get_task_datastore("1", "a", "7")
    assert [r.method for r in s3.proxy.requests()] == ["GET", "GET"]
    assert store["x"] == 1
    s3.proxy.clear()
    assert s3.flow().get_task_datastore("1", "a", "7")["x"] == 1
    assert "data.json" not in str([r.path for r in s3.proxy.requests()]), "and now knows it"
    save(s3.flow(), "1/a/7", {"x": 2}, attempt=1)
    assert s3.flow().get_task_datastore("1", "a", "7")["x"] == 2, "and asks whether they are still the latest"


def test_a_listing_that_is_refused_is_no_empty_run(s3):
    save(s3.flow(), "1/a/7", {"x": 1})
    s3.proxy.faults = [NetworkFault(action=access_denied(), method="GET")]
    with pytest.raises(DataException, match="AccessDenied"):
        s3.flow().get_task_datastore("1", "a", "7")
    with pytest.raises(DataException, match="AccessDenied"):
        s3.flow().get_task_datastores(run_id="1")


def test_done_comes_last(s3):
    save(s3.flow(), "1/a/7", {"x": os.urandom(3000), "y": np.arange(300_000)})
    names = [r.path.rpartition("/")[2] for r in s3.proxy.requests("PUT")]
    assert (
        "0.attempt.json" in names
    )  # and before data.json, whatever else is on its way with it: test_metaflow_marks.py
    assert names[-2:] == ["0.data.json", "0.DONE.lock"], "after data.json, and that after all blobs"


def test_a_join_of_a_thousand_inputs(s3):
    """18 000 requests in stock Metaflow."""
    flow = s3.flow()
    one = save(flow, "1/a/0", {"x": 0})
    keys = {}
    for number in range(1000):
        save_one = flow.get_task_datastore("1", "a", str(number), attempt=0, mode="w")
        save_one._objects.update(one._objects)
        save_one._info.update(one._info)
        keys[number] = save_one
    values = {number: f"value {number} ".encode() * 40 for number in range(1000)}
    for number, store in keys.items():
        store.init_task()
        store.save_artifacts(iter([("x", values[number])]))
        store.done()
    another_host()
    s3.proxy.clear()
    stores = TaskDataStoreSet(
        s3.flow(), "1", pathspecs=[f"1/a/{number}" for number in range(1000)], allow_not_done=True
    )
    found = [store["x"] for store in stores]
    assert found == [values[number] for number in range(1000)]
    assert len(s3.proxy.requests()) <= 2100


# ---- artifacts ---------------------------------------------------------------------------------

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


def test_artifacts_come_back(place):
    save(place.flow(), "1/a/7", VALUES)
    another_host()
    store = place.flow().get_task_datastore("1", "a", "7")
    assert equal(dict(store.load_artifacts([*VALUES])), VALUES)
    assert equal({name: store[name] for name in VALUES}, VALUES)
    assert store.is_none("none")
    assert not store.is_none("number")
    store["array"][0] = 5  # one's own
    sizes = dict(store.get_artifact_sizes([*VALUES]))
    assert sizes["array"] > 1_600_000
    assert sizes["none"] < 20


def test_equal_content_has_equal_keys_in_different_tasks(place):
    first = save(place.flow(), "1/a/7", VALUES)
    second = save(place.flow(), "1/a/8", {"other": 1, **VALUES})
    assert all(first._objects[name] == second._objects[name] for name in VALUES)


def test_stock_reads_the_default_profile_and_names_what_it_cannot_read_of_the_other(place, profile):
    save(place.flow(), "1/a/7", VALUES)
    store = place.flow(stock=True).get_task_datastore("1", "a", "7")
    original = type(store).load_artifacts.__wrapped__
    if profile == "stock":
        assert equal(dict(original(store, [*VALUES])), VALUES)
        return
    for name in VALUES:
        with pytest.raises(DataException, match=f"{name}.*mfstore-1.*mfstore"):
            list(original(store, [name]))


def test_what_only_the_clients_metadata_says_is_enough(place):
    """Metaflow's client has name, key and encoding from the metadata service."""
    store = save(place.flow(), "1/a/7", VALUES)
    for name, value in VALUES.items():
        data = {
            "objects": {name: store._objects[name]},
            "info": {name: {"size": 0, "type": None, "encoding": store._info[name]["encoding"]}},
        }
        found = place.flow().get_task_datastore("1", "a", "7", data_metadata=data)[name]
        assert np.array_equal(found, value) if name == "array" else found == value


def test_a_mixed_store_and_switching_back(place, profile, monkeypatch):
    save(place.flow(), "1/a/7", VALUES)
    monkeypatch.setattr(process_state_module, "from_conf", lambda name: "stock" if profile == "packed" else "packed")
    forget_process_state()
    inputs = place.flow().get_task_datastore("1", "a", "7")
    store = place.flow().get_task_datastore("1", "b", "8", attempt=0, mode="w")
    store.init_task()
    store.clone(inputs)
    store.save_artifacts(iter([("more", np.ones(50_000))]))
    store.done()
    found = place.flow().get_task_datastore("1", "b", "8")
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


def test_an_unpicklable_artifact_is_named(place):
    with pytest.raises((UnpicklableArtifactException, DataException), match="broken"):
        save(place.flow(), "1/a/7", {"fine": 1, "broken": {"deep": [lambda: 1]}})


def test_errors_name_task_artifact_and_key(place, profile):
    value = random.Random(3).randbytes(5000)
    store = save(place.flow(), "1/a/7", {"x": value})
    key = store._objects["x"]
    if profile == "stock":
        place.delete(place.path_of(key))
    else:
        bundle = bundle_of(store._info["x"])
        place.delete(f"mf.store/recipes/{bundle[:2]}/{bundle}")
    another_host()
    with pytest.raises(DataException, match=r"Artifact x of task Flow/1/a/7: ") as caught:
        place.flow().get_task_datastore("1", "a", "7")["x"]
    assert (key if profile == "stock" else bundle) in str(caught.value)


def test_a_damaged_data_json_is_named(s3):
    save(s3.flow(), "1/a/7", {"x": 1})
    s3.write("Flow/1/a/7/0.data.json", b'{"objects": ')
    with pytest.raises(DataException, match=r"Flow/1/a/7/0.data.json is damaged"):
        s3.flow().get_task_datastore("1", "a", "7")
    s3.delete("Flow/1/a/7/0.data.json")
    with pytest.raises(DataException, match=r"ended, but .*0.data.json does not exist"):
        s3.flow().get_task_datastore("1", "a", "7")


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


def test_a_store_that_was_removed_is_made_again(s3, profile):
    from tests.servers.base import boto_client

    save(s3.flow(), "1/a/7", {"x": os.urandom(5000)})
    client = boto_client(s3.server)
    for entry in client.list_objects_v2(Bucket=s3.bucket)["Contents"]:
        client.delete_object(Bucket=s3.bucket, Key=entry["Key"])
    cache = process_state().knobs.cache
    forget_process_state()  # another process of the same host
    assert process_state().knobs.cache == cache
    value = os.urandom(5000)
    save(s3.flow(), "2/a/7", {"x": value})
    another_host()
    forget_process_state()
    assert s3.flow().get_task_datastore("2", "a", "7")["x"] == value


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


def test_the_profile_may_change_before_a_merge(place, profile, monkeypatch):
    """Of two branches one has read an artifact, and so saves it again: both must have the same key."""
    save(place.flow(), "1/start/1", VALUES)
    monkeypatch.setattr(process_state_module, "from_conf", lambda name: "stock" if profile == "packed" else "packed")
    forget_process_state()
    flow = place.flow()
    inputs = flow.get_task_datastore("1", "start", "1")
    read = flow.get_task_datastore("1", "a", "2", attempt=0, mode="w")
    read._objects.update(inputs._objects)
    read._info.update(inputs._info)
    read.save_artifacts(iter([(name, inputs[name]) for name in VALUES]), len_hint=len(VALUES))
    assert read._objects == inputs._objects
    read.save_artifacts(iter([("number", 18)]))
    assert read._objects["number"] != inputs._objects["number"]


def test_what_no_input_has_is_missed_as_by_metaflow(s3):
    flow = s3.flow()
    for number in range(6):
        save(flow, f"1/a/{number}", {"x": number})
    for one in s3.flow().get_task_datastores(run_id="1"):
        with pytest.raises(KeyError):
            one["other"]


def test_inputs_read_row_by_row_are_fetched_once(s3):
    flow = s3.flow()
    for number in range(12):
        artifacts = {name: f"{name} {number}".encode() * 1000 for name in "abc"}
        save(flow, f"1/a/{number}", artifacts)
    another_host()
    inputs = s3.flow().get_task_datastores(pathspecs=[f"1/a/{number}" for number in range(12)])
    s3.proxy.clear()
    for number, one in enumerate(inputs):
        assert [one[name] for name in "abc"] == [f"{name} {number}".encode() * 1000 for name in "abc"]
    assert len(s3.proxy.requests()) <= 3 * 12 + 3


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


def test_the_clients_metadata_cache_is_filled_once(s3):
    class Cache(dict):
        stores = 0

        def load_metadata(self, *key):
            return self.get(key)

        def store_metadata(self, run, step, task, attempt, data):
            self.stores += 1
            self[run, step, task, attempt] = data

    save(s3.flow(), "1/a/7", {"x": 1})
    flow, cache = s3.flow(), Cache()
    flow.set_metadata_cache(cache)
    for _ in range(3):
        assert flow.get_task_datastore("1", "a", "7", attempt=0)["x"] == 1
    assert cache.stores == 1


def test_the_end_of_a_task_is_marked_with_its_data(s3):
    store = s3.flow().get_task_datastore("1", "a", "7", attempt=0, mode="w")
    store.init_task()
    store.save_metadata({"task_begin": {"n": 1}})
    store.save_artifacts(iter([("x", 1)]))
    assert s3.storage().is_file(["Flow/1/a/7/0.task_begin"]) == [True]
    s3.proxy.clear()
    store.save_metadata({"task_end": {}})
    assert not s3.proxy.requests()
    store.done()
    names = [r.path.rpartition("/")[2] for r in s3.proxy.requests("PUT")]
    assert sorted(names[:2]) == ["0.data.json", "0.task_end"]
    assert names[2:] == ["0.DONE.lock"]
    opened = s3.flow().get_task_datastore("1", "a", "7")
    assert opened.load_metadata(["task_begin", "task_end"]) == {"task_begin": {"n": 1}, "task_end": {}}


def test_the_packed_store_shares_the_storages_connections(s3, profile):
    if profile == "packed":
        save(s3.flow(), "1/a/7", {"x": os.urandom(3000)})
        storage = s3.storage()
        with storage.blobs.client() as (client, _):
            assert packed_store(storage.datastore_root, writing=True).backend.client.engine is client.engine


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


@pytest.mark.parametrize("kept_as", ["stock", "packed"])
def test_a_local_task_imports_nothing_of_s3(tmp_path, kept_as):
    environment = {**os.environ, "METAFLOW_MFSTORE_PROFILE": kept_as, "METAFLOW_USER": "u", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", LOCAL, str(tmp_path / "root")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("False False\n", "")
