"""1 000 small artifacts of one task, saved and loaded; Metaflow's share includes its pickling, as ours does.

The floor is a file for each in one directory, written and read by Python's own ``open``; the system's floor has its
calls alone, and when it writes, those of mfstore: a file in one of 256 directories, under a name of its own first, then
renamed.
"""

import hashlib
import os
import pickle
import shutil
import tempfile
from pathlib import Path

import joblib
import pytest

import mfstore
from mfstore.demo.metaflow_peer import StockMetaflow

COUNT = 1000


@pytest.fixture(scope="module")
def artifacts():
    return {f"artifact_{n}": {"index": n, "name": f"artifact {n}", "values": [n * 0.5] * 20} for n in range(COUNT)}


@pytest.fixture(scope="module")
def every_place():
    """What has been made, deleted at the end alone: ext4 looks at each inode that was freed in the last minutes before
    it takes another one, so that whoever writes files after others were deleted pays for that, up to 0.7 ms a file."""
    made = []
    yield made
    for path in made:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def place(every_place):
    """A new directory for each round, in place of that which deletes the one before."""

    def new():
        every_place.append(Path(tempfile.mkdtemp(prefix="mfstore-bench-")))
        return every_place[-1]

    return new


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

    def test_system_floor(self, measure, place, artifacts):
        measure(lambda root: write_by_calls(str(root), artifacts), lambda: (place(),))

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


def write_by_calls(root, artifacts):
    names = []
    for number in range(256):
        os.mkdir(f"{root}/{number:02x}")
    for obj in artifacts.values():
        data = pickle.dumps(obj, 5)
        name = hashlib.sha256(data).hexdigest()
        directory = f"{root}/{name[:2]}"
        fd = os.open(f"{directory}/.{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, data)
        os.close(fd)
        names.append((f"{directory}/.{name}", f"{directory}/{name}"))
    for old, new in names:
        os.rename(old, new)


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
