"""Writes the store of tensors that are looked at without torch: ``python -m tests.golden.tensors``, with torch."""

import shutil
from pathlib import Path
from unittest.mock import patch

import mfstore

FOLDER = Path(__file__).parent / "tensors"
ROWS, COLUMNS = 40, 30


def models(torch):
    """Two that differ: see ``tests/comparing/test_stored_tensors.py``."""
    for changed in (False, True):
        whole = torch.arange(float(ROWS * COLUMNS)).reshape(ROWS, COLUMNS)
        if changed:
            whole[7, 3] = whole[7, 4] = whole[39, 29] = -1
        parameter = torch.nn.Parameter(whole, requires_grad=not changed)
        linear = torch.nn.Linear(2, 2)
        linear.weight, linear.bias = torch.nn.Parameter(torch.eye(2) + changed), None
        yield {
            "plain": whole, "across": whole.T, "columns": whole[:, :9], "parameter": parameter,
            "bfloat16": whole.bfloat16(), "float8": (whole + 1).to(torch.float8_e5m2), "step": torch.tensor(1.0 + changed),
            "quantised": torch.quantize_per_tensor(whole % 50, 0.5, 3, torch.qint8),
            "sparse": (whole * (whole < 9)).to_sparse_csr(), "module": linear,
        }  # fmt: skip


def write():
    import torch

    shutil.rmtree(FOLDER, ignore_errors=True)
    store = mfstore.open(FOLDER)
    with patch("mfstore.saving.describing.user", lambda: "golden@example"):
        for name, model in zip(("old", "new"), models(torch), strict=True):
            store.put(model, ref=name)
    for path in FOLDER.glob(".*"):
        path.unlink()


if __name__ == "__main__":
    write()
