"""fsspec's own tests of filesystems."""

import pytest
from fsspec.implementations.local import LocalFileSystem, make_path_posix
from fsspec.tests import abstract

from tests.rigs.soak import soaking


class Fixtures(abstract.AbstractFixtures):
    @pytest.fixture(autouse=True)
    def all_patterns_in_soaks(self, request):
        """One of eight otherwise: each of 96 makes four trees of objects."""
        number = request.node.name.rpartition("expected")[2].rstrip("]")
        if "glob_edge_cases" in request.node.name and int(number) % 8 and not soaking():
            pytest.skip("this pattern: in `make soak`")

    @pytest.fixture
    def fs(self, files):
        return files

    @pytest.fixture
    def fs_path(self, place):
        return place

    @pytest.fixture
    def supports_empty_directories(self):
        return False

    @pytest.fixture
    def local_fs(self):
        return LocalFileSystem(auto_mkdir=True)

    @pytest.fixture
    def local_path(self, tmp_path):
        return make_path_posix(str(tmp_path))


class TestCopy(abstract.AbstractCopyTests, Fixtures):
    pass


class TestGet(abstract.AbstractGetTests, Fixtures):
    pass


class TestPut(abstract.AbstractPutTests, Fixtures):
    pass


class TestOpen(abstract.AbstractOpenTests, Fixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, Fixtures):
    pass
