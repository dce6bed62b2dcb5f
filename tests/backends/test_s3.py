"""Stores on S3: the contract, what requests an operation makes, and what happens when things go wrong."""

import json
import os
import pickle
import subprocess
import sys
import time
import uuid
from collections import Counter
from functools import cache

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore.backends.s3.backend import S3Backend
from mfstore.maintenance.clock import written
from mfstore.testing import BackendTests, NetworkFault
from mfstore.testing.actions import LoseResponse
from tests.rigs.soak import soaking
from tests.servers.base import boto_client, client_options

pytestmark = pytest.mark.server

BUCKET = f"stores-{uuid.uuid4().hex[:12]}"


def options(server, engine="native", **more):
    """What S3Backend needs to find a server."""
    return {**client_options(server), "engine": engine, **more}


@cache
def shared_boto(server):
    """Making one costs more than most tests; the bucket of the contract's tests is made with it."""
    server.create_bucket(BUCKET)
    return boto_client(server)


def keys_around(monkeypatch, server):
    """Pickled handles look for their keys where they are used."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)


class S3Tests(BackendTests):
    server_name = engine = ""

    @pytest.fixture(autouse=True)
    def running(self, request, monkeypatch):
        self.server = request.getfixturevalue(self.server_name)
        keys_around(monkeypatch, self.server)
        self.boto = shared_boto(self.server)

    def make_backend(self, tmp_path):
        return S3Backend(f"s3://{BUCKET}{tmp_path}/{self.engine}", **options(self.server, self.engine))

    def raw_set(self, backend, key, data):
        self.boto.put_object(Bucket=BUCKET, Key=backend.prefix + key, Body=data)

    def raw_get(self, backend, key):
        return self.boto.get_object(Bucket=BUCKET, Key=backend.prefix + key)["Body"].read()


class TestRadosgwNative(S3Tests):
    server_name, engine = "radosgw", "native"


if soaking():  # each of the two is tried with another

    @pytest.mark.fuzz
    class TestRadosgwAio(S3Tests):
        server_name, engine = "radosgw", "aiobotocore"


class TestMinistackNative(S3Tests):
    server_name, engine = "ministack", "native"


class TestMinistackAio(S3Tests):
    server_name, engine = "ministack", "aiobotocore"


# ---- what requests an operation makes --------------------------------------------------------------------------------


@pytest.fixture
def engine(s3_server):
    """One for each server: all pairs keep the contract above, and nothing below depends on which it is."""
    return {"radosgw": "native", "ministack": "aiobotocore"}[s3_server.name]


@pytest.fixture
def place(s3_server, bucket, engine):
    """A bucket and how to open stores in it."""
    return Place(s3_server, bucket, options(s3_server, engine))


class Place:
    def __init__(self, server, bucket, options):
        self.server, self.bucket, self.options = server, bucket, options
        self.url = f"s3://{bucket}/some/store"

    def open(self, proxy=None, **more):
        chosen = {**self.options, **more}
        if proxy is not None:
            chosen["endpoint_url"] = proxy.url
        return mfstore.open(self.url, **chosen)

    def boto(self):
        return shared_boto(self.server)

    def keys(self, kind):
        found = self.boto().list_objects_v2(Bucket=self.bucket, Prefix=f"some/store/{kind}/").get("Contents", ())
        return [entry["Key"] for entry in found]

    def change(self, key, change):
        """Rewrite an object behind the store's back."""
        boto = self.boto()
        data = bytearray(boto.get_object(Bucket=self.bucket, Key=key)["Body"].read())
        boto.put_object(Bucket=self.bucket, Key=key, Body=bytes(change(data)))


def flipped(data):
    data[len(data) // 2] ^= 1
    return data


def counts(proxy):
    """Requests by method since the last call."""
    found = Counter(entry.method for entry in proxy.requests())
    proxy.clear()
    return dict(found)


SMALL = {f"artifact {number:02}": list(range(number * 50, number * 50 + 300)) for number in range(20)}


def test_few_requests_for_small_things(place, fault_proxy):
    proxy = fault_proxy()
    store = place.open(proxy)
    first = store.save({"the first": 1})
    # The store's description once, and whether the service keeps conditions.
    assert counts(proxy)["PUT"] <= 4
    key = store.save(SMALL)
    assert counts(proxy) == {"GET": 1, "PUT": 1}
    assert store.save(SMALL) == key
    assert counts(proxy) == {"GET": 1}
    other = place.open(proxy)
    assert counts(proxy) == {"GET": 1}
    assert other.load(key, ["artifact 03", "artifact 17"]) == {
        name: SMALL[name] for name in ("artifact 03", "artifact 17")
    }
    assert counts(proxy) == {"GET": 1}
    assert other.exists_many([key, first, "0" * 64]) == [True, True, False]
    assert counts(proxy) == {"HEAD": 3}
    store.refs["latest"] = first
    assert counts(proxy) == {"GET": 2, "PUT": 1}  # the recipe, and the ref
    store.refs["latest"] = key  # finds out how conditions on ETags are kept
    counts(proxy)
    store.refs["latest"] = first
    assert counts(proxy) == {"GET": 2, "PUT": 1}  # the recipe, and the ref
    assert other.refs["latest"] == first
    assert counts(proxy) == {"GET": 1}


def test_few_requests_for_versions_of_something_small(place, fault_proxy):
    proxy = fault_proxy()
    value = np.round(np.random.default_rng(1).normal(100, 10, 25_000), 2)
    first = key = place.open(proxy).put(value)
    for number, puts in enumerate((3, 1, 1)):
        store = place.open(proxy)
        value[number::9000] = number
        counts(proxy)
        key = store.put(value, base=key)
        done = counts(proxy)
        assert done["PUT"] == puts
        if puts == 1:
            # The base, its pack's trailer and chunks, and whether this is there.
            assert done == {"GET": 4, "PUT": 1}
        other = place.open(proxy)
        counts(proxy)
        np.testing.assert_array_equal(other.get(key), value)
        assert counts(proxy) == {"GET": 2}
    other.get(first)
    assert counts(proxy) == {"GET": 1}


def test_few_requests_for_a_large_array(place, fault_proxy):
    proxy = fault_proxy()
    array = np.random.default_rng(1).integers(0, 1 << 63, 8 << 20)
    store = place.open(proxy)
    store.put(0)
    counts(proxy)
    key = store.put(array)
    # The pack's parts, its index fragment, the recipe; POSTs begin and end the upload.
    assert counts(proxy) == {"GET": 2, "POST": 2, "PUT": 7}
    assert store.put(array) == key
    assert counts(proxy) == {"GET": 1}
    other = place.open(proxy)
    counts(proxy)
    assert other.put(array) == key
    # Recipe, listing, fragment, trailer of the pack, which is vouched for with it.
    assert counts(proxy) == {"GET": 4}
    np.testing.assert_array_equal(other.get(key), array)
    assert counts(proxy) == {"GET": 6}  # recipe, four spans, the body
    task = other.save({"same": array, "more": np.arange(100_000.0), "label": "x" * 2000})
    assert counts(proxy) == {"GET": 1, "PUT": 3}
    assert other.load(task, ["label"]) == {"label": "x" * 2000}
    assert counts(proxy) == {"GET": 2}
    assert len(other.get_bytes(key, 1 << 20, (1 << 20) + 100)) == 100
    assert counts(proxy) == {"GET": 2}


def test_few_requests_for_many_artifacts(place, unhedged, fault_proxy):
    proxy = fault_proxy()
    store = place.open(proxy)
    store.put(0)
    counts(proxy)
    small = store.put_many([{"number": number} for number in range(300)])
    assert counts(proxy) == {"GET": 300, "PUT": 300}
    assert [value["number"] for _, value in store.get_many(small)] == list(range(300))
    assert counts(proxy) == {"GET": 300}
    assert all(store.exists_many(small))
    assert counts(proxy) == {"HEAD": 300}
    arrays = [np.random.default_rng(number).random(50_000) for number in range(40)]
    larger = store.put_many(arrays)
    assert counts(proxy)["PUT"] == 42  # one pack, one fragment
    for (_, found), array in zip(place.open(proxy).get_many(larger), arrays, strict=True):
        np.testing.assert_array_equal(found, array)
    assert counts(proxy)["GET"] <= 1 + 40 + 2  # 16 MB of neighbours come in one or two reads


def test_compaction_is_not_paid_by_every_save(place, fault_proxy):
    proxy = fault_proxy()
    store = place.open(proxy)
    for number in range(20):
        store.save({"array": np.random.default_rng(number).random(50_000)})
    done = counts(proxy)
    assert done["PUT"] <= 3 * 20 + 1 + 3
    assert done["POST"] <= 2
    assert len(place.keys("index")) <= 5


def test_get_many_reports_each_and_loads_the_rest(place):
    store = place.open()
    arrays = [np.random.default_rng(number).random(50_000) for number in range(5)]
    keys = [store.put(array) for array in arrays]
    place.change(place.keys("packs")[0], flipped)
    asked = [keys[0], "0" * 64, *keys[1:]]
    found = dict(place.open().get_many(asked, on_error="return"))
    assert list(found) == asked
    assert isinstance(found["0" * 64], errors.NotFound)
    damaged = [key for key in keys if isinstance(found[key], errors.CorruptObject)]
    assert len(damaged) == 1
    for key, array in zip(keys, arrays, strict=True):
        if key not in damaged:
            np.testing.assert_array_equal(found[key], array)
    assert len(dict(place.open().get_many(asked, on_error="omit"))) == 4
    with pytest.raises(errors.MfstoreError):
        list(place.open().get_many(asked))


# ---- damage ----------------------------------------------------------------------------------------------------------

OBJECT = {"array": np.random.default_rng(0).random(200_000), "text": "words " * 60_000}


def same(found):
    np.testing.assert_array_equal(found["array"], OBJECT["array"])
    return found["text"] == OBJECT["text"]


def test_a_flipped_byte_is_found_and_repaired(place):
    key = place.open().put(OBJECT)
    place.change(place.keys("packs")[0], flipped)
    with pytest.raises(errors.CorruptObject):
        place.open().get(key)
    assert place.open().put(OBJECT) == key
    assert same(place.open().get(key))


def test_damage_under_intact_metadata_is_repaired_by_who_found_it(place):
    key = place.open().put(OBJECT)
    pack = place.keys("packs")[0]
    boto = place.boto()
    found = boto.get_object(Bucket=place.bucket, Key=pack)
    boto.put_object(
        Bucket=place.bucket, Key=pack, Body=bytes(flipped(bytearray(found["Body"].read()))), Metadata=found["Metadata"]
    )
    store = place.open()
    with pytest.raises(errors.CorruptObject):
        store.get(key)
    assert store.put(OBJECT) == key
    assert same(place.open().get(key))


@pytest.mark.parametrize("kind", ["packs", "recipes"])
@pytest.mark.parametrize("change", ["deleted", "truncated"])
def test_what_is_gone_or_cut_short_is_reported_and_repaired(place, kind, change):
    key = place.open().put(OBJECT)
    (victim,) = place.keys(kind)
    if change == "deleted":
        place.boto().delete_object(Bucket=place.bucket, Key=victim)
    else:
        place.change(victim, lambda data: data[: len(data) // 2])
    expected = errors.NotFound if (kind, change) == ("recipes", "deleted") else errors.CorruptObject
    with pytest.raises(expected):
        place.open().get(key)
    assert place.open().put(OBJECT) == key
    assert same(place.open().get(key))


def test_a_golden_store_copied_into_a_bucket_is_read_and_written(place):
    from tests.format.test_golden import HERE, STORES, objects
    from tests.format.test_golden import same as alike

    boto = place.boto()
    for path in STORES[-1].rglob("*"):
        name = path.relative_to(STORES[-1])
        if path.is_file() and not path.name.startswith("."):
            boto.upload_file(str(path), place.bucket, f"some/store/{name}")
    keys = json.loads((HERE / f"{STORES[-1].name.replace('store', 'keys')}.json").read_text())
    store = place.open()
    for name, value in objects().items():
        assert alike(store.get(keys[name]), value), name
    assert store.refs["golden/bundle"] == keys["(bundle)"]
    # Nobody vouches for these packs, so what is relied on is read.
    present = json.loads((HERE / "keys.json").read_text())
    for name, value in objects().items():
        assert store.put(value) == present[name]
        assert alike(store.get(present[name]), value), name


# ---- refusals, races and lost answers --------------------------------------------------------------------------------


def test_a_refusal_is_never_absence(place):
    key = place.open().put(OBJECT)
    stranger = {"aws_secret_access_key": "wrong" * 8}
    with pytest.raises(errors.AccessDenied):
        place.open(**stranger)
    backend = S3Backend(place.url, **{**place.options, **stranger})
    for work in (
        lambda: backend.exists_many([f"recipes/{key[:2]}/{key}"]),
        lambda: backend.head(f"recipes/{key[:2]}/{key}"),
        lambda: backend.get("recipes/00/absent"),
        lambda: list(backend.list("")),
        lambda: backend.put("refs/a", [b"1"]),
        lambda: backend.put_if("refs/a", b"1", None),
    ):
        with pytest.raises(errors.AccessDenied):
            work()
    assert all(isinstance(data, errors.AccessDenied) for _, data in backend.get_many(["mfstore.json", "refs/a"]))


def test_a_missing_bucket_is_named(place):
    with pytest.raises(errors.NotFound, match="bucket"):
        mfstore.open(f"s3://no-{place.bucket}/x", **place.options)


RACE = """
import json, sys, mfstore
url, options, key, value = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], sys.argv[4]
store = mfstore.open(url, **options)
sys.stdin.readline()
store.refs["turn"]
print("ready", flush=True)
sys.stdin.readline()
try:
    store.refs.set_if("turn", value, key)
    print("won", flush=True)
except mfstore.errors.Conflict:
    print("lost", flush=True)
"""


def test_two_processes_and_one_ref(place):
    store = place.open()
    start, *values = (store.put(number) for number in range(3))
    store.refs["turn"] = start
    command = [sys.executable, "-c", RACE, place.url, json.dumps(place.options), start]
    racers = [
        subprocess.Popen([*command, value], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for value in values
    ]
    for step in range(2):
        for racer in racers:
            racer.stdin.write("\n")
            racer.stdin.flush()
        if step == 0:
            assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 2
    answers = [racer.communicate(timeout=60)[0].strip() for racer in racers]
    assert sorted(answers) == ["lost", "won"]
    assert store.refs["turn"] == values[answers.index("won")]


def test_a_lost_answer_to_a_conditional_write_is_no_conflict(place, fault_proxy):
    proxy = fault_proxy()
    store = place.open(proxy)
    keys = [store.put(number) for number in range(4)]
    store.refs["a"] = keys[0]
    store.refs["a"] = keys[1]
    for value, name in ((keys[2], "a"), (keys[3], "new")):
        proxy.faults = [NetworkFault(action=LoseResponse(), method="PUT", path="refs", nth=1)]
        store.refs.set_if(name, value, keys[1] if name == "a" else None)
        assert store.refs[name] == value
    assert [entry.key for entry in store.refs.history("a")] == [keys[2], keys[1], keys[0]]


def test_somebody_elses_write_behind_a_lost_answer_is_a_conflict(place, fault_proxy):
    backend = S3Backend(place.url, **place.options)
    first = backend.put_if("refs/a", b"first", None)
    backend.put_if("refs/b", b"first", backend.put_if("refs/b", b"zero", None))
    proxy = fault_proxy()
    slow = S3Backend(place.url, **{**place.options, "endpoint_url": proxy.url})
    etag = slow.put_if("refs/c", b"x", None)
    slow.put_if("refs/c", b"y", etag)
    second = backend.put_if("refs/a", b"second", first)
    proxy.faults = [NetworkFault(action=LoseResponse(), method="PUT", path="refs", nth=1)]
    with pytest.raises(errors.Conflict):
        slow.put_if("refs/a", b"third", first)
    assert backend.get_tagged("refs/a") == (b"second", second)


def test_services_that_ignore_conditions_are_refused(place, fault_proxy):
    """As rclone does: writes whatever the condition."""
    backend = S3Backend(place.url, **place.options)

    class Careless(type(backend.client.engine.channel())):
        def submit(self, calls):
            for call in calls:
                call.if_match, call.if_none_match = None, False
            super().submit(calls)

    # A proxy's address, so that nothing is known about it yet.
    careless = S3Backend(place.url, **{**place.options, "endpoint_url": fault_proxy().url})
    engine = careless.client.engine
    engine.channel = lambda: Careless(engine)
    with pytest.raises(errors.Unsupported, match="overwrite"):
        careless.put_if("refs/a", b"1", None)
    with pytest.raises(errors.Unsupported, match="overwrite"):
        careless.put_if("refs/a", b"1", "0" * 32)
    assert list(backend.list("")) == []
    alone = S3Backend(place.url, single_writer=True, **place.options)
    etag = alone.put_if("refs/a", b"1", None)
    alone.put_if("refs/a", b"2", etag)
    with pytest.raises(errors.Conflict):
        alone.put_if("refs/a", b"3", etag)
    assert backend.get("refs/a") == b"2"


WRITER = """
import json, sys, numpy as np, mfstore
store = mfstore.open(sys.argv[1], **json.loads(sys.argv[2]))
for number in range(1000):
    print(store.save({"small": number, "array": np.random.default_rng(number).random(100_000)}), flush=True)
    print(store.put(np.random.default_rng(number).random(6_000_000)), flush=True)
"""


def test_killed_in_the_middle_of_a_save(place):
    command = [sys.executable, "-c", WRITER, place.url, json.dumps(place.options)]
    for acknowledged_before in (1, 2):
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        keys = [writer.stdout.readline().strip() for _ in range(acknowledged_before)]
        time.sleep(0.15)  # into the large save, or the small one after it
        writer.kill()
        keys += writer.communicate()[0].split()
        store = place.open()
        for number, key in enumerate(keys[:2]):
            found = store.get(key)
            size = 100_000 if number == 0 else 6_000_000
            np.testing.assert_array_equal(
                found["array"] if number == 0 else found, np.random.default_rng(0).random(size)
            )
        for key in store.keys():
            store.get(key)  # visible means whole


# ---- the handle ------------------------------------------------------------------------------------------------------


def test_handles_pickle_and_work_after_fork(place, monkeypatch):
    keys_around(monkeypatch, place.server)
    store = place.open()
    key = store.put(OBJECT)
    assert same(pickle.loads(pickle.dumps(store)).get(key))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if same(store.get(key)) and store.put([1, 2]) else 1
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get(store.put([1, 2])) == [1, 2]


def test_the_storages_clock_is_not_behind_its_listings(place):
    """A header tells whole seconds only."""
    backend = place.open().backend
    for number in range(12):
        backend.put(f"refs/{number}", [b"x"])
        backend.put("gc/clock", [b"x"])
        (before,) = (info.modified for info in backend.list(f"refs/{number}") if info.key == f"refs/{number}")
        assert before <= written(backend, "gc/clock")
        time.sleep(0.1)
    with pytest.raises(errors.NotFound, match="gc/nothing"):
        written(backend, "gc/nothing")


def test_memory_stays_bounded_by_small_budgets(place):
    store = place.open(memory=32 << 20)
    arrays = [np.arange(number, number + 2_000_000) for number in range(5)]
    key = store.save({f"a{number}": array for number, array in enumerate(arrays)})
    found = place.open(memory=32 << 20).load(key)
    for number, array in enumerate(arrays):
        np.testing.assert_array_equal(found[f"a{number}"], array)


def test_the_command_line(place, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from mfstore.cli import main

    for name, value in {
        "AWS_ENDPOINT_URL": place.server.url,
        "AWS_ACCESS_KEY_ID": place.server.access_key,
        "AWS_SECRET_ACCESS_KEY": place.server.secret_key,
        "AWS_DEFAULT_REGION": place.server.region,
        "MFSTORE_S3_ENGINE": place.options["engine"],
        "MFSTORE_STORE": place.url,
    }.items():
        monkeypatch.setenv(name, value)
    source, target = tmp_path / "model.bin", tmp_path / "copy.bin"
    source.write_bytes(os.urandom(300_000))
    for arguments in (
        ["put", str(source), "--ref", "models/one"],
        ["get", "models/one", "-o", str(target)],
        ["ls"],
        ["du"],
    ):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
    assert target.read_bytes() == source.read_bytes()
