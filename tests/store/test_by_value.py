"""``put(pickler="cloudpickle")``: functions and classes as what they are."""

import subprocess
import sys

import numpy as np
import pytest

import mfstore
from mfstore import errors, provenance

DEFINED = """
import numpy as np
FACTOR = 3
class Model:
    def __init__(self, weights):
        self.weights = weights
    def predict(self, x):
        return twice(x) + self.weights.sum() * FACTOR
def twice(x):
    return 0 if x == 0 else 2 + twice(x - 1)
"""


@pytest.fixture
def program():
    """What a notebook defines."""
    names = {"__name__": "__main__"}
    exec(DEFINED, names)
    return names


@pytest.fixture
def store(tmp_path):
    return mfstore.open(tmp_path / "store", fsync="none")


def test_functions_and_classes_of_a_program(store, program, monkeypatch):
    monkeypatch.setattr(provenance, "_told", set())
    weights = np.ones(50_000)
    key = store.put(
        {"model": program["Model"](weights), "add": lambda x: x + weights[0], "data": weights}, pickler="cloudpickle"
    )
    stat = store.stat(key)
    assert stat.segments == 1 and stat.size < 450_000  # one array, out of the body, however many have it
    assert set(stat.libraries) == {"cloudpickle", "numpy"}
    script = (
        "import sys, mfstore\n"
        "found = mfstore.open(sys.argv[1]).get(sys.argv[2])\n"
        "assert found['model'].weights is found['data']\n"
        "print(found['model'].predict(4), found['add'](1))\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script, store.url, key], capture_output=True, text=True, check=True
    ).stdout
    assert shown == "150008.0 2.0\n"


def test_equal_functions_have_one_key(store, program):
    made = [store.put(program["twice"], pickler="cloudpickle") for _ in range(2)]
    assert made[0] == made[1] and store.get(made[0])(3) == 6
    assert store.put([1, np.arange(3)], pickler="cloudpickle") == store.put([1, np.arange(3)])
    assert store.put(np.sum, pickler="cloudpickle") == store.put(np.sum)


def test_without_it_a_lambda_is_refused_and_another_pickler_is_none(store, monkeypatch):
    with pytest.raises(errors.NotSerializable, match="pickler='cloudpickle'"):
        store.put(lambda: 1)
    with pytest.raises(errors.InvalidKey, match="cloudpickle"):
        store.put(1, pickler="dill")
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(errors.Unsupported, match="pip install cloudpickle"):
        store.put(1, pickler="cloudpickle")
