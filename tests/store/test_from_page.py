"""What docs/from.md shows of mfstore, joblib and pickle is so: its examples are run."""

import doctest

from tests import ROOT

PAGE = ROOT / "docs" / "from.md"


def test_the_examples_of_the_page(tmp_path):
    found = doctest.testfile(
        str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
        globs={"folder": str(tmp_path)},
    )  # fmt: skip
    assert found.failed == 0 < found.attempted
