"""Metaflow's Client on S3: what it is expected to ask next is read ahead."""

import random
import types

import pytest
from metaflow import Step, Task
from metaflow.client import core, filecache
from metaflow.datastore.exceptions import DataException
from metaflow.datastore.flow_datastore import FlowDataStore
from metaflow.metadata_provider import MetaDatum
from metaflow.metaflow_environment import MetaflowEnvironment
from metaflow.plugins import METADATA_PROVIDERS
from metaflow.plugins.datastores.local_storage import LocalStorage

from mfstore.format import recipes
from mfstore.format.recipes import recipe_path
from mfstore.metaflow.extension import S3Storage
from mfstore.metaflow.hooks import client_reads
from mfstore.metaflow.hooks.client_reads import FIRST_ITEMS, ClientReads
from mfstore.metaflow.packed import bucket
from mfstore.metaflow.packed.store import load_parts_ahead
from mfstore.metaflow.process_state import process_state
from tests.rigs.metaflow_stores import another_host

TASKS = 50
READS_AHEAD = pytest.mark.skipif(
    not hasattr(FlowDataStore, "set_metadata_cache"), reason="before 2.19 nothing tells Metaflow's Client from a flow"
)


class Run:
    """A run in S3 whose metadata is in a directory, and the Client that reads it."""

    def __init__(self, rig, provider):
        self.rig = rig
        self.provider = provider
        environment = MetaflowEnvironment(None)
        self.metadata = provider(environment, types.SimpleNamespace(name="Flow"), None, None)
        self.flow = FlowDataStore("Flow", environment, self.metadata, storage_impl=S3Storage, ds_root=rig.root)
        self.id = self.metadata.new_run_id()

    def task(self, artifacts, *, step="work", attempts=1):
        number = self.metadata.new_task_id(self.id, step)
        for attempt in range(attempts):
            task = self.flow.get_task_datastore(self.id, step, number, attempt=attempt, mode="w")
            task.init_task()
            self.tell(step, number, "attempt", attempt)
            # Of a single artifact the Client's metadata in a directory make something else than of several.
            task.save_artifacts(iter({"n": attempt, **artifacts(attempt)}.items()), 2)
            task.done()
            self.tell(step, number, "attempt-done", attempt)
        return f"Flow/{self.id}/{step}/{number}"

    def tell(self, step, number, what, attempt):
        datum = MetaDatum(what, str(attempt), what, [f"attempt_id:{attempt}"])
        self.metadata.register_metadata(self.id, step, number, [datum])

    def tasks(self, step="work"):
        return [*Step(f"Flow/{self.id}/{step}")]

    def read_elsewhere(self):
        """From now on by somebody who has read nothing."""
        another_host()
        self.rig.proxy.clear()

    def requests(self):
        return len(self.rig.proxy.requests())

    def received(self):
        return sum(exchange.response_bytes for exchange in self.rig.proxy.log)

    def waits(self, asks):
        """What each ask gives, and how many of them asked S3 for anything."""
        values, waited = [], 0
        for ask in asks:
            before = self.requests()
            values.append(ask())
            waited += self.requests() > before
        return values, waited


@pytest.fixture
def run(profile, s3, tmp_path, monkeypatch):
    """On each profile."""
    monkeypatch.setattr(core, "filecache", None)
    monkeypatch.setattr(filecache, "CLIENT_CACHE_PATH", str(tmp_path / "client"))
    monkeypatch.setattr(LocalStorage, "datastore_root", str(tmp_path / ".metaflow"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".metaflow").mkdir()
    monkeypatch.setenv("USERNAME", "tester")
    provider = next(one for one in METADATA_PROVIDERS if one.TYPE == "local")
    monkeypatch.setattr(core, "current_metadata", provider)
    monkeypatch.setattr(core, "current_namespace", None)
    return Run(s3, provider)


def value(number, name="value"):
    return f"{name} {number} ".encode() * 300


@READS_AHEAD
def test_an_artifact_of_each_task(run):
    for number in range(TASKS):
        run.task(lambda _, number=number: {"value": value(number)})
    run.read_elsewhere()
    found, waited = run.waits([lambda task=task: task.data.value for task in run.tasks()])
    assert sorted(found) == sorted(map(value, range(TASKS)))
    # Alone, then 8, 16, and the rest; a data.json for each task, a blob or a recipe, and the store's description.
    assert waited <= 4
    assert run.requests() <= 2 * TASKS + 2


def test_what_was_read_ahead_is_decoded_once(run, monkeypatch):
    names = [f"name{number:02}" for number in range(TASKS)]
    several = run.task(lambda _: {name: value(name) for name in names}, step="several")
    for number in range(TASKS):
        run.task(lambda _, number=number: {"value": value(number)})
    run.read_elsewhere()
    decoded = []
    decode = recipes.decode
    monkeypatch.setattr(recipes, "decode", lambda data, codec, key: decoded.append(key) or decode(data, codec, key))
    assert sorted(task.data.value for task in run.tasks()) == sorted(map(value, range(TASKS)))
    assert len([one.data for one in Task(several)]) == TASKS + 1
    assert len(decoded) in (0, TASKS + 1)  # stock, packed


@READS_AHEAD
def test_every_artifact_of_a_task(run):
    names = [f"name{number:02}" for number in range(TASKS)]
    pathspec = run.task(lambda _: {name: value(name) for name in names})
    run.read_elsewhere()
    found, waited = run.waits([lambda one=one: (one.id, one.data) for one in Task(pathspec)])
    assert dict(found) == {"n": 0} | {name: value(name) for name in names}
    assert waited <= 5
    # An attempt each may be the one that counts.
    assert run.requests() <= TASKS + 6 + 1


@READS_AHEAD
def test_some_artifacts_of_each_task(run):
    for number in range(20):
        run.task(lambda _, number=number: {name: value(number, name) for name in "abcdefgh"})
    run.read_elsewhere()
    tasks = run.tasks()
    found, waited = run.waits([lambda task=task, name=name: task[name].data for task in tasks for name in "dbf"])
    assert sorted(found) == sorted(value(number, name) for number in range(20) for name in "dbf")
    assert waited <= 3 + 3
    # Of the first one what seemed to come next, of the others the three.
    assert run.requests() <= 20 * 4 + 2 * FIRST_ITEMS


def test_who_stops_has_had_little_more_read(run, monkeypatch):
    monkeypatch.setattr(client_reads, "UNASKED_BYTES", 10_000)
    monkeypatch.setattr(client_reads, "FIRST_ITEMS", 100)
    made = random.Random(3)
    for _ in range(TASKS // 2):
        run.task(lambda _: {"value": made.randbytes(4_000)})
    run.read_elsewhere()
    for asked in (1, 2, 3, 10):
        for task in run.tasks()[:asked]:
            task["value"].data  # noqa: B018
        of_artifacts = run.received() - sum(
            exchange.response_bytes for exchange in run.rig.proxy.log if exchange.path.endswith("data.json")
        )
        assert of_artifacts <= max(2 * 4_000 * asked, 4_000 * asked + 10_000) + 300 * 2 * asked + 2_000


def test_who_reads_much_of_few_tasks_learns_of_few_others(run, monkeypatch):
    monkeypatch.setattr(client_reads, "UNASKED_BYTES", 8 << 10)
    monkeypatch.setattr(client_reads, "AHEAD_BYTES", 8 << 10)
    for number in range(70):  # what is much lies between what is little
        run.task(lambda _, number=number: {"value": random.Random(number).randbytes(200 if number % 3 else 20_000)})
    run.read_elsewhere()
    asked = [len(task.data.value) for task in run.tasks()[:30]]
    assert sorted({*asked}) == [200, 20_000]
    looked = [exchange.path for exchange in run.rig.proxy.log if exchange.path.endswith("0.data.json")]
    assert len({*looked}) < 70  # not of all because they are asked often
    assert len(looked) <= len({*looked}) + 5  # of each once: what is slow to come is asked for again


@pytest.mark.parametrize("profile", ["packed"], indirect=True)
def test_what_was_read_with_others_is_not_read_again(run):
    made = random.Random(4)
    artifacts = {f"name{number:02}": made.randbytes(8_000) for number in range(80)}  # more than a recipe holds
    pathspec = run.task(lambda _: artifacts)
    members = {one.id: one for one in Task(pathspec)}
    bundle = members["name00"]._object["content_type"].partition("/")[2]
    run.read_elsewhere()
    for names in (["name03", "name09"], ["name05"], ["name06", "name08"]):
        load_parts_ahead(run.rig.root, {bundle: names})
    assert run.requests() == 2 and 7 * 8_000 < run.received() < 7 * 8_000 + 10_000  # the recipe, and a range
    assert members["name04"].data == artifacts["name04"]
    assert run.requests() <= 3  # the store's description


def test_an_artifact_here_and_there(run):
    first = run.task(lambda _: {name: value(name) for name in "abcdef"})
    second = run.task(lambda _: {name: value(name) for name in "abcdef"}, step="other")
    run.read_elsewhere()
    assert [Task(first)["a"].data, Task(second)["b"].data] == [value("a"), value("b")]
    assert run.requests() <= 3  # a blob each; or both recipes and the store's description
    assert Task(first)["a"].data == value("a")
    assert run.requests() <= 3


@READS_AHEAD
def test_tasks_that_were_tried_again(run):
    for number in range(12):
        run.task(lambda attempt, number=number: {"value": value(f"{number} {attempt}")}, attempts=1 + number % 3)
    run.read_elsewhere()
    found = [task.data.value for task in run.tasks()]
    assert sorted(found) == sorted(value(f"{number} {number % 3}") for number in range(12))
    for attempt in (0, 1):
        several = run.task(lambda attempt: {name: value(f"{name} {attempt}") for name in "abcdef"}, attempts=2)
        run.read_elsewhere()
        found, waited = run.waits([lambda one=one: (one.id, one.data) for one in Task(several, attempt=attempt)])
        assert dict(found) == {"n": attempt} | {name: value(f"{name} {attempt}") for name in "abcdef"}
        assert waited <= 2


def test_what_is_not_there_is_missed_by_who_asks_for_it(run):
    for number in range(12):
        run.task(lambda _, number=number: {"value": value(number)})
    tasks = run.tasks()
    lost = tasks[5]["value"]._object
    _, _, bundle = lost["content_type"].partition("/")
    run.rig.delete(f"mf.store/recipes/{bundle[:2]}/{bundle}" if bundle else run.rig.path_of(lost["sha"]))
    run.read_elsewhere()
    for number, task in enumerate(tasks):
        if number == 5:
            with pytest.raises(DataException, match=f"Artifact value of task Flow/{run.id}/work/{task.id}"):
                task.data.value  # noqa: B018
        else:
            assert task.data.value == value(int(task.id) - int(tasks[-1].id))


def test_where_nobody_knows_what_comes_next(run, monkeypatch):
    for number in range(5):
        run.task(lambda _, number=number: {name: value(number, name) for name in "ab"})
    tasks = run.tasks()

    def gone(*_):
        raise ConnectionError("no metadata")

    monkeypatch.setattr(client_reads, "_tasks_of", gone)
    monkeypatch.setattr(client_reads, "_names_of", gone)
    run.read_elsewhere()
    found = [task[name].data for task in tasks for name in "ab"]
    assert sorted(found) == sorted(value(number, name) for number in range(5) for name in "ab")


def test_flows_are_not_taken_for_the_client(run):
    run.task(lambda _: {name: value(name) for name in "abc"})
    run.read_elsewhere()
    flow = FlowDataStore("Flow", storage_impl=S3Storage, ds_root=run.rig.root)
    (task,) = flow.get_task_datastores(run_id=run.id)
    run.rig.proxy.clear()
    assert [task[name] for name in "abc"] == [value(name) for name in "abc"]
    assert not hasattr(flow, "mfstore_client_reads")


def test_steps_that_are_remembered_are_few(monkeypatch):
    monkeypatch.setattr(client_reads, "STEPS", 3)
    reads = ClientReads()
    for number in range(10):
        reads.expect(types.SimpleNamespace(_run_id="1", _step_name=str(number), _task_id="1", _objects={"a": "k"}), "a")
    assert list(reads._steps) == [("1", "7"), ("1", "8"), ("1", "9")]


def test_parts_are_held_until_they_are_too_much(monkeypatch):
    monkeypatch.setattr(bucket, "HELD_BYTES", 10)
    held = bucket.HeldRanges()
    held.add("a", 5, b"abcdef")
    assert bytes(held.find("a", 6, 3)) == b"bcd" and bytes(held.find("a", 5, 6)) == b"abcdef"
    for start, length in ((4, 2), (5, 7), (11, 1)):
        assert held.find("a", start, length) is None
    assert held.find("b", 5, 1) is None and held.whole("b") is None
    held.add("b", 0, b"xyz")
    assert held.whole("b") == b"xyz" and held.find("a", 5, 1) is not None
    held.add("a", 0, b"01")
    assert held.find("a", 5, 1) is None  # the oldest
    assert bytes(held.find("a", 0, 2)) == b"01" and held.whole("b") == b"xyz"
    held.add("c", 0, b"0123456789")
    assert held.whole("b") is None and held.find("a", 0, 2) is None and held.whole("c") == b"0123456789"
    monkeypatch.setattr(bucket, "HELD_SECONDS", 0.0)
    assert held.whole("c") is None and held.find("c", 0, 2) is None


@pytest.mark.parametrize("held", ["ahead", "held", "on this host"])
def test_what_was_read_badly_is_read_again_from_the_bucket(s3, held):
    url = f"{s3.root}/store"
    key = bucket.StoreInBucket(url, True).store.save({"a": [1, 2]})
    place, path = bucket.StoreInBucket(url, False), recipe_path(key)
    if held == "ahead":
        place.backend._ahead[path] = b"bad"
    elif held == "held":
        place.backend._held.add(path, 0, b"bad")
    else:
        process_state().host_cache.put(f"{place.backend.url}/{path}", b"bad")
    assert place.store.load(key) == {"a": [1, 2]}
    assert place.backend.get(path).endswith(place.backend.read_again(path, 3))
    assert bucket.StoreInBucket(url, False).store.load(key) == {"a": [1, 2]}
