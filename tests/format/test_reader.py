"""The reader that docs/format.md shows reads what mfstore stores."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest

import mfstore
from tests import ROOT


@pytest.fixture(scope="module")
def reader():
    text = (ROOT / "docs" / "format.md").read_text().split("\n## A reader\n", 1)[1]
    names = {}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], names)
    return names


random = np.random.default_rng(5)
ARTIFACTS = {
    "few": {"depth": 5},
    "frame": pd.DataFrame({"number": np.arange(30_000), "text": [f"row {n % 700}" for n in range(30_000)]}),
    "noise": random.normal(size=40_000),
    "raw": random.bytes(200_000),
    "steps": np.arange(40_000) // 3,
    "text": "what is said once more, " * 9_000,
    "words": [f"{n * n % 9973} of many" for n in range(60_000)],
}


@pytest.mark.parametrize(
    ("compress", "codecs"),
    [
        ("fast", {"raw", "lz4", "lz4+shuffle"}),
        ("balanced", {"raw", "zstd", "zstd+shuffle", "planes", "group"}),
        (False, {"raw"}),
    ],
)
def test_the_reader_reads_a_store(reader, tmp_path, compress, codecs):
    with mfstore.open(tmp_path / "store", compress=compress) as store:
        run, one = store.save(ARTIFACTS), store.put_bytes(ARTIFACTS["raw"])
        assert codecs == set(store.stat(run).codecs)
    found = reader["read"](tmp_path / "store", run)
    assert reader["read"](tmp_path / "store", one) == {"": ARTIFACTS["raw"]}
    assert found.keys() == ARTIFACTS.keys()
    for name, expected in ARTIFACTS.items():
        got = pickle.loads(found[name])
        assert np.array_equal(got, expected) if isinstance(expected, (np.ndarray, pd.DataFrame)) else got == expected
