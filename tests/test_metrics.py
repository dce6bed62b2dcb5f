"""What stores and clients say of what they did, against what was asked of the storage."""

import os
import stat
import threading
import time
from collections import Counter

import numpy as np
import pytest

import mfstore
from mfstore.backends.memory import MemoryBackend
from mfstore.backends.s3.backend import S3Backend
from mfstore.display.prometheus import Family, labelled, text_of
from mfstore.errors import CorruptObject, NotFound
from mfstore.s3.transfers.scheduler import ADDED_TOGETHER, Traffic, TransferCounts
from mfstore.settings import resolve
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client

text_string_to_metric_families = pytest.importorskip("prometheus_client.parser").text_string_to_metric_families


def values(text):
    """By name and labels, as Prometheus's own parser reads it; each metric told with a type and a help."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type in ("counter", "gauge")
        for sample in family.samples:
            key = sample.name, tuple(sorted((k, v) for k, v in sample.labels.items() if k != "store"))
            assert key not in found
            found[key] = sample.value
    return found


@pytest.fixture
def world():
    return SimulatedS3(clock=time.time)


@pytest.fixture
def far(world):
    class Simulated(S3Backend):
        def make_client(self, options):
            return simulated_client(world)

    with mfstore.Store("s3://b/store", Simulated("s3://b/store"), resolve(), create=True) as store:
        yield store


def test_of_a_directory(tmp_path):
    data = np.random.default_rng(0).random(50_000)
    with mfstore.open(tmp_path, fsync="none") as store:
        assert store.metrics().saves == store.metrics().loads == 0
        key = store.put(data)
        store.put({"again": data})
        store.get(key)
        assert len(list(store.get_many([key, store.put([1])]))) == 2
        store.get_bytes(store.put_bytes(b"x" * 5000))
        found = store.metrics()
        assert (found.saves, found.artifacts, found.loads, found.s3) == (4, 4, 4, None)
        assert found.saved > 2 * data.nbytes and data.nbytes <= found.duplicate < found.saved
        assert found.stored == store.session.stored > data.nbytes / 2
        assert found.loaded >= 2 * data.nbytes
        assert all(seconds > 0 for seconds in found.seconds.values())
        assert "4 saves" in repr(found) and "<table" in store.metrics()._repr_html_()
        told = values(found.prometheus())
        assert told["mfstore_operations_total", (("operation", "save"),)] == 4
        assert told["mfstore_stored_bytes_total", ()] == found.stored
        assert f'store="{store.backend.url}"' in found.prometheus()


def test_of_a_bucket_each_request_counts_once(far, world):
    rng = np.random.default_rng(1)
    keys = [far.put(rng.random(3000), f"r{number}") for number in range(5)]
    keys.append(far.put(rng.bytes(2_000_000)))
    for key in keys:
        far.get(key)
    with pytest.raises(NotFound):
        far.get("0" * 64)
    found = far.metrics().s3
    asked = Counter(operation for operation, _ in world.log)
    by_operation = Counter()
    for (operation, _), number in found.requests.items():
        by_operation[operation] += number
    assert by_operation == asked and found.begun == sum(asked.values())
    assert found.requests["GetObject", "404"] >= 1 and found.requests["PutObject", "ok"] >= 7
    assert 0 <= found.sent - sum(map(len, world.objects.values())) < 1000  # what was tried, and deleted
    assert found.received > 2_000_000
    told = values(far.metrics().prometheus())
    assert (
        told["mfstore_s3_requests_total", (("operation", "PutObject"), ("result", "ok"))]
        == (found.requests["PutObject", "ok"])
    )


def test_of_a_client(world):
    with simulated_client(world) as client:
        client.put_many({f"k{number}": b"x" * 100 for number in range(2 * ADDED_TOGETHER)})
        for number in range(2 * ADDED_TOGETHER):
            list(client.get_many([f"k{number}"]))
        rest = iter(client.get_many(["k0", "k1"]))
        next(rest)
        found = client.metrics()
        assert found.requests["PutObject", "ok"] == 2 * ADDED_TOGETHER
        assert found.sent == 100 * 2 * ADDED_TOGETHER
        assert found.requests["GetObject", "ok"] >= 2 * ADDED_TOGETHER + 1
        list(rest)
        assert client.metrics().requests["GetObject", "ok"] == 2 * ADDED_TOGETHER + 2
        assert client.metrics().received == 100 * (2 * ADDED_TOGETHER + 2)
        assert "GetObject" in repr(client.metrics())
        values(client.metrics().prometheus())


def test_nothing_is_lost_between_threads():
    traffic, many, threads = Traffic(), 500, 4

    def work():
        for _ in range(many):
            counts = TransferCounts()
            traffic.begun(counts)
            counts.requests, counts.answers = 2, {("GetObject", "ok"): 2}
            traffic.ended(counts)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        assert traffic.now().requests <= 2 * many * threads
    assert traffic.now().requests == 2 * many * threads
    assert traffic.now().answers == {("GetObject", "ok"): 2 * many * threads}


def test_retries_and_throttling_are_seen():
    world = SimulatedS3(plan={2: 503, 3: "reset"}, clock=time.time)
    with simulated_client(world) as client:
        client.put_many({"k": b"x"})
        assert len(list(client.get_many(["k"]))) == 1
        found = client.metrics()
        assert found.requests == {
            ("GetObject", "503"): 1, ("GetObject", "ok"): 1, ("GetObject", "reset"): 1, ("PutObject", "ok"): 1,
        }  # fmt: skip
        assert found.retries == 2 and found.throttled == 1


def test_damage_is_counted():
    backend = MemoryBackend()
    with mfstore.Store("mem:", backend, resolve(), create=True) as store:
        key = store.put(np.random.default_rng(2).random(50_000))
        (pack,) = [info.key for info in backend.list("packs/")]
        data = bytearray(backend.get(pack))
        data[len(data) // 2] ^= 1
        backend.put(pack, [bytes(data)])
    with mfstore.Store("mem:", backend, resolve(), create=True) as store:
        with pytest.raises(CorruptObject):
            store.get(key, verify=True)
        assert store.metrics().verify_failures >= 1


def test_a_file_is_whole_and_others_may_read_it(tmp_path, world):
    path = tmp_path / "mfstore.prom"
    with mfstore.open(tmp_path / "one", fsync="none") as one, mfstore.open(tmp_path / "two", fsync="none") as two:
        one.put([1])
        with simulated_client(world) as client:
            client.put_many({"k": b"x"})
            mfstore.write_metrics(path, one, two, client)
        first = path.stat().st_ino
        mfstore.write_metrics(path, one, two)
        assert path.stat().st_ino != first  # replaced
    text = path.read_text()
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len({*names})
    saves = {
        sample.labels["store"]: sample.value
        for family in families
        for sample in family.samples
        if sample.labels.get("operation") == "save"
    }
    assert sorted(saves.values()) == [0, 1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry for entry in os.listdir(tmp_path) if "prom" in entry] == ["mfstore.prom"]
    with pytest.raises(OSError):
        mfstore.write_metrics(tmp_path / "no" / "mfstore.prom")


def test_whatever_a_label_says_is_read_back():
    odd = 'a\\b"c\nd é'
    text = text_of(labelled([Family("x_total", "counter", "Odd\nhelp \\ x.", [({"a": odd}, 1.5)])], {"of": "y"}))
    (family,) = text_string_to_metric_families(text)
    (sample,) = family.samples
    assert sample.labels == {"of": "y", "a": odd} and sample.value == 1.5
