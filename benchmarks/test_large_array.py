"""256 MiB of float32 noise: save and load, beside Metaflow's datastore, joblib and a plain write with one hash."""

import pickle

import joblib
import numpy as np
import pytest
from blake3 import blake3

import mfstore
from mfstore.demo.metaflow_peer import StockMetaflow

SIZE = 256 << 20


@pytest.fixture(scope="module")
def array():
    return np.random.default_rng(0).standard_normal(SIZE // 4, dtype=np.float32)


def plain_write(array, path):
    """What any store has to do at least: write the bytes, unsynced, and hash them once on one core."""
    data = memoryview(array).cast("B")
    with open(path, "wb", buffering=0) as file:
        for at in range(0, len(data), 1 << 20):
            file.write(data[at : at + (1 << 20)])
    return blake3(data).digest()


@pytest.mark.benchmark(group="save 256 MiB float32")
class TestSave:
    def test_metaflow(self, measure, place, array):
        save = lambda cas: cas.save_blobs(iter([pickle.dumps(array, 4)]))  # noqa: E731
        measure(save, lambda: (StockMetaflow(place()).content_store,), rounds=1)

    def test_joblib(self, measure, place, array):
        measure(lambda root: joblib.dump(array, root / "array"), lambda: (place(),))

    def test_plain_write_and_blake3(self, measure, place, array):
        measure(lambda root: plain_write(array, root / "array"), lambda: (place(),))

    def test_mfstore(self, measure, place, array):
        measure(lambda store: store.put(array), lambda: (mfstore.open(place(), fsync="none"),))

    def test_mfstore_fast(self, measure, place, array):
        """Floats as they are: a fifth more bytes, mapped when they are loaded."""
        measure(lambda store: store.put(array), lambda: (mfstore.open(place(), fsync="none", compress="fast"),))

    def test_mfstore_durable(self, measure, place, array):
        """The default: synced to the disk before it returns, which no other here does."""
        measure(lambda store: store.put(array), lambda: (mfstore.open(place()),))


@pytest.mark.benchmark(group="load 256 MiB float32")
class TestLoad:
    def test_metaflow(self, measure, place, array):
        cas = StockMetaflow(place()).content_store
        key = cas.save_blobs(iter([pickle.dumps(array, 4)]))[0].key
        load = lambda: [pickle.loads(blob) for _, blob in cas.load_blobs([key])]  # noqa: E731
        assert np.array_equal(measure(load, rounds=2)[0], array)

    def test_joblib(self, measure, place, array):
        path = place() / "array"
        joblib.dump(array, path)
        assert np.array_equal(measure(lambda: joblib.load(path)), array)

    def test_joblib_mmap(self, measure, place, array):
        path = place() / "array"
        joblib.dump(array, path)
        assert np.array_equal(measure(lambda: joblib.load(path, mmap_mode="c")), array)

    def test_mfstore(self, measure, place, array):
        """Every byte hashed: a new handle each round has verified nothing yet."""
        root = place()
        key = mfstore.open(root).put(array)
        assert np.array_equal(measure(lambda store: store.get(key), lambda: (mfstore.open(root),)), array)

    def test_mfstore_fast(self, measure, place, array):
        """As ``test_mfstore``, of what was stored with ``compress="fast"``."""
        root = place()
        key = mfstore.open(root, compress="fast").put(array)
        assert np.array_equal(measure(lambda store: store.get(key), lambda: (mfstore.open(root),)), array)

    def test_mfstore_unverified(self, measure, place, array):
        root = place()
        key = mfstore.open(root).put(array)
        load = lambda store: store.get(key, verify=False)  # noqa: E731
        assert np.array_equal(measure(load, lambda: (mfstore.open(root),)), array)
