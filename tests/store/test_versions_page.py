"""What docs/versions.md shows is so: its examples are run."""

import doctest

from tests import ROOT

PAGE = ROOT / "docs" / "versions.md"


def test_the_examples_of_the_page(tmp_path):
    found = doctest.testfile(
        str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS,
        globs={"folder": str(tmp_path / "store"), "other_folder": str(tmp_path / "other")},
    )  # fmt: skip
    assert found.failed == 0 < found.attempted
