import pytest

from mfstore.filesystem import StoreFileSystem


@pytest.fixture
def fs(tmp_path):
    fs = StoreFileSystem(tmp_path / "store", fsync="none", skip_instance_cache=True)
    yield fs
    fs.store.close()


@pytest.fixture
def url(tmp_path):
    """The root of a store, for libraries that open URLs."""
    yield f"mfstore://{tmp_path}/store!/"
    StoreFileSystem.clear_instance_cache()
