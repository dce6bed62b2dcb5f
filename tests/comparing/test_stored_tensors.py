"""Tensors that torch pickled, looked at where there is no torch."""

import sys

import pytest

import mfstore
from tests.comparing.test_diff import values
from tests.golden.tensors import COLUMNS, FOLDER, ROWS


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    return mfstore.open(FOLDER, create=False)


def test_views_tell_shapes(store):
    view = store.view("old")
    told = {part.name: (part.type, part.shape, part.nbytes) for part in view.summary()}
    whole = ROWS * COLUMNS
    assert told == {
        "plain": ("torch.Tensor", (ROWS, COLUMNS), 4 * whole), "across": ("torch.Tensor", (COLUMNS, ROWS), 4 * whole),
        "columns": ("torch.Tensor", (ROWS, 9), 36 * ROWS),
        "parameter": ("torch.nn.parameter.Parameter", (ROWS, COLUMNS), 4 * whole),
        "bfloat16": ("torch.Tensor", (ROWS, COLUMNS), 2 * whole), "float8": ("torch.Tensor", (ROWS, COLUMNS), whole),
        "step": ("torch.Tensor", (), 4), "quantised": ("torch.Tensor", (ROWS, COLUMNS), whole),
        "sparse": ("torch.Tensor", (ROWS, COLUMNS), 8 * (ROWS + 1) + 12 * 8),
        "module": ("torch.nn.modules.linear.Linear", None, 16),
    }  # fmt: skip
    assert view["module"].keys()[:2] == ["weight", "bias"] and view["module"]["weight"].shape == (2, 2)
    assert view["module"]["bias"].load() is None and view["module"]["in_features"].load() == 2
    with pytest.raises(mfstore.errors.NotLoadable, match="Install torch"):
        view["plain"][:2]


def test_differences_are_counted(store):
    found = store.diff("old", "new")
    assert {entry.where: (entry.rows, entry.nbytes) for entry in found} == {
        "plain": (2, 12), "across": (3, 12), "columns": (1, 8), "parameter": (2, 12),
        "parameter/(requires_grad)": (None, None), "bfloat16": (2, 6), "float8": (2, 3), "step": (1, 4),
        "quantised": (1, 2), "sparse/(crow_indices)": (33, 264), "sparse/(col_indices)": (0, 24),
        "sparse/(values)": (0, 12), "module/weight": (2, 16),
    }  # fmt: skip
    assert values(found)["step"] == ("1.0", "2.0") and found.entries[0].old.text == "torch.float32[40 x 30] 4.8 kB"
