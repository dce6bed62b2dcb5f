"""What docs/safe.md shows is so: its examples are run."""

import doctest

from tests import ROOT

PAGE = ROOT / "docs" / "safe.md"


def test_the_examples_of_the_page(tmp_path):
    found = doctest.testfile(
        str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
        globs={"folder": str(tmp_path / "store")},
    )  # fmt: skip
    assert found.failed == 0 < found.attempted
