"""fsspec's own suite for file systems, as it is."""

import posixpath

import fsspec.tests.abstract as suite
import pytest

from mfstore.filesystem import StoreFileSystem

pytestmark = [
    pytest.mark.second,
    pytest.mark.filterwarnings("ignore:Class-scoped fixture"),  # of older releases of the suite
]


@pytest.fixture(scope="module")
def suite_fs(tmp_path_factory):
    fs = StoreFileSystem(tmp_path_factory.mktemp("store"), fsync="none", skip_instance_cache=True)
    yield fs
    fs.store.close()


class StoreFixtures(suite.AbstractFixtures):
    @pytest.fixture
    def fs(self, suite_fs):
        return suite_fs

    @pytest.fixture
    def fs_path(self):
        return "a/place"

    @pytest.fixture
    def fs_join(self):
        return posixpath.join

    @pytest.fixture
    def supports_empty_directories(self):
        return False


class TestCopy(StoreFixtures, suite.AbstractCopyTests):
    pass


class TestGet(StoreFixtures, suite.AbstractGetTests):
    pass


class TestPut(StoreFixtures, suite.AbstractPutTests):
    pass


class TestOpen(StoreFixtures, suite.AbstractOpenTests):
    pass


class TestPipe(StoreFixtures, suite.AbstractPipeTests):
    pass
