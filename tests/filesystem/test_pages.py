"""What docs/fsspec.md shows is so: its examples are run."""

import doctest

import pytest

from mfstore.filesystem import StoreFileSystem
from tests import ROOT


def test_the_examples_of_the_page(tmp_path):
    for library in ("duckdb", "polars", "pyarrow", "upath"):
        pytest.importorskip(library)
    sync = pytest.importorskip("zarr.core.sync")
    found = doctest.testfile(
        str(ROOT / "docs" / "fsspec.md"), module_relative=False, optionflags=doctest.ELLIPSIS,
        globs={"folder": str(tmp_path / "store")},
    )  # fmt: skip
    assert found.failed == 0 < found.attempted
    sync.cleanup_resources()  # its thread, which would go on until the process ends
    StoreFileSystem.clear_instance_cache()
