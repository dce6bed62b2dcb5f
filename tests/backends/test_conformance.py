"""Our backends pass the conformance suite they are shipped with."""

from pathlib import Path

from mfstore.backends.base import Backend
from mfstore.backends.local import LocalBackend
from mfstore.backends.memory import MemoryBackend
from mfstore.testing import BackendTests, FaultyBackend


class TestMemory(BackendTests):
    def make_backend(self, tmp_path):
        return MemoryBackend(f"memory://{tmp_path}")


class LocalTests(BackendTests):
    fsync = "batch"

    def make_backend(self, tmp_path):
        return LocalBackend(str(tmp_path / "store"), fsync=self.fsync)

    def raw_set(self, backend, key, data):
        # Through a second file, so that the two can be told apart even within one clock tick.
        path = Path(backend.root, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(".raw")
        new.write_bytes(data)
        new.replace(path)

    def raw_get(self, backend, key):
        return Path(backend.root, key).read_bytes()


class TestLocalBatch(LocalTests):
    pass


class TestLocalAlways(LocalTests):
    fsync = "always"


class TestLocalNone(LocalTests):
    fsync = "none"


class TestFaultyWithoutFaults(BackendTests):
    def make_backend(self, tmp_path):
        return FaultyBackend(LocalBackend(str(tmp_path / "store")))


def test_the_contract_is_seven_methods():
    assert len(Backend.__abstractmethods__) <= 7
