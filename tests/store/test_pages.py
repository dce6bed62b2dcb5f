"""What pages show is so: their examples are run."""

import doctest

import pytest

from tests import ROOT

WRAPPED = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize(
    ("page", "flags", "folder"),
    [
        ("from", WRAPPED, ""),  # joblib and pickle write there too, beside stores
        ("export", WRAPPED, "store"),
        ("safe", WRAPPED, "store"),
        ("safetensors", WRAPPED, "store"),
        ("store", WRAPPED, "store"),
        ("trees", doctest.ELLIPSIS, "store"),
        ("versions", doctest.ELLIPSIS, "store"),
    ],
)
def test_the_examples_of_a_page(page, flags, folder, tmp_path):
    found = doctest.testfile(
        str(ROOT / "docs" / f"{page}.md"), module_relative=False, optionflags=flags,
        globs={"folder": str(tmp_path / folder), "other_folder": str(tmp_path / "other"), "out": str(tmp_path)},
    )  # fmt: skip
    assert found.failed == 0 < found.attempted
