"""1 000 small artifacts of one task, saved and loaded; Metaflow's share includes its pickling, as ours does.

The floor is a file for each in one directory, written and read by Python's own ``open``; the system's floor is read by
its calls alone.
"""

import os
import pickle

import joblib
import pytest

import mfstore
from mfstore.demo.metaflow_peer import StockMetaflow

COUNT = 1000


@pytest.fixture(scope="module")
def artifacts():
    return {f"artifact_{n}": {"index": n, "name": f"artifact {n}", "values": [n * 0.5] * 20} for n in range(COUNT)}


@pytest.mark.benchmark(group="save 1000 small artifacts")
class TestSave:
    def test_metaflow(self, measure, place, artifacts):
        save = lambda cas: cas.save_blobs(pickle.dumps(obj, 4) for obj in artifacts.values())  # noqa: E731
        measure(save, lambda: (StockMetaflow(place()).content_store,))

    def test_joblib(self, measure, place, artifacts):
        save = lambda root: [joblib.dump(obj, root / name) for name, obj in artifacts.items()]  # noqa: E731
        measure(save, lambda: (place(),))

    def test_floor(self, measure, place, artifacts):
        measure(lambda root: write_each(root, artifacts), lambda: (place(),))

    def test_mfstore(self, measure, place, artifacts):
        measure(lambda store: store.save(artifacts), lambda: (ready(place(), "none"),), rounds=20)

    def test_mfstore_durable(self, measure, place, artifacts):
        measure(lambda store: store.save(artifacts), lambda: (ready(place(), "batch"),), rounds=20)

    def test_mfstore_put_many(self, measure, place, artifacts):
        """One key each instead of one for the bundle: one object each, too."""
        objs = list(artifacts.values())
        measure(lambda store: store.put_many(objs), lambda: (ready(place(), "none"),))


@pytest.mark.benchmark(group="load 1000 small artifacts")
class TestLoad:
    def test_metaflow(self, measure, place, artifacts):
        cas = StockMetaflow(place()).content_store
        keys = [result.key for result in cas.save_blobs(pickle.dumps(obj, 4) for obj in artifacts.values())]
        loaded = measure(lambda: [pickle.loads(blob) for _, blob in cas.load_blobs(keys)])
        assert len(loaded) == COUNT

    def test_joblib(self, measure, place, artifacts):
        root = place()
        for name, obj in artifacts.items():
            joblib.dump(obj, root / name)
        loaded = measure(lambda: {name: joblib.load(root / name) for name in artifacts})
        assert loaded == artifacts

    def test_floor(self, measure, place, artifacts):
        root = place()
        write_each(root, artifacts)
        assert measure(lambda: [read_one(root / name) for name in artifacts]) == list(artifacts.values())

    def test_system_floor(self, measure, place, artifacts):
        root = place()
        write_each(root, artifacts)
        paths = [str(root / name) for name in artifacts]
        assert measure(lambda: [read_by_calls(path) for path in paths]) == list(artifacts.values())

    def test_mfstore(self, measure, place, artifacts):
        root = place()
        key = mfstore.open(root).save(artifacts)
        assert measure(lambda store: store.load(key), lambda: (mfstore.open(root),), rounds=20) == artifacts

    def test_mfstore_get_many(self, measure, place, artifacts):
        root = place()
        keys = mfstore.open(root).put_many(artifacts.values())
        loaded = measure(lambda store: [obj for _, obj in store.get_many(keys)], lambda: (mfstore.open(root),))
        assert loaded == list(artifacts.values())


def write_each(root, artifacts):
    for name, obj in artifacts.items():
        with open(root / name, "wb") as file:
            file.write(pickle.dumps(obj, 5))


def read_one(path):
    with open(path, "rb") as file:
        return pickle.loads(file.read())


def read_by_calls(path):
    fd = os.open(path, os.O_RDONLY)
    data = os.read(fd, 1 << 14)
    os.close(fd)
    return pickle.loads(data)


def ready(root, fsync):
    """A store that exists, as in the middle of a run."""
    store = mfstore.open(root, fsync=fsync)
    store.put(None)
    return store
