"""Views of stores that are opened with safe=True: parts are made as safely as the whole, and no less of them."""

import copyreg
import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mfstore
from mfstore.errors import UnsafeObject
from mfstore.saving import drafts


class Stored:
    """Stands for a pickle that is stored as it is."""

    def __init__(self, pickled):
        self.pickled = pickled


@pytest.fixture
def store(tmp_path, monkeypatch):
    dump = drafts.dump

    def dumped(obj, sink, *args, **keywords):
        if type(obj) is not Stored:
            return dump(obj, sink, *args, **keywords)
        sink.body(obj.pickled)
        return len(obj.pickled)

    monkeypatch.setattr(drafts, "dump", dumped)
    return mfstore.open(tmp_path / "store", safe=True)


class Making:
    """Pickles as a call of what makes instances."""

    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return MAKER, self.args


def MAKER():  # noqa: N802
    pass


def test_views_call_nothing_that_the_whole_would_not(store, tmp_path):
    """Views call functions that have no rules; a pickle that names these makes none of its own of them."""
    canary = tmp_path / "it-ran"
    # numpy.memmap is on the list as a class that arrays have. With these arguments it makes a file.
    making = Making(np.memmap, str(canary), "u1", "w+", 0, (10,))

    def pickled(value, module="copyreg", name="__newobj__"):
        return Stored(pickle.dumps(value, 2).replace(f"{__name__}\nMAKER".encode(), f"{module}\n{name}".encode()))

    for key in (
        store.put(pickled({"x": making})),
        store.put(pickled([making])),
        store.put(pickled({"x": making}, "operator", "getitem")),
        store.put(pickled({"x": making}, "numpy", "array")),
    ):
        for act in (
            lambda view: view.load(), lambda view: view["x"].load(), lambda view: view[0].load(), lambda view: view[:1],
            lambda view: view["x"].dtype, repr, lambda view: view.summary(), lambda view: view.keys(),
        ):  # fmt: skip
            try:
                act(store.view(key))
            except (UnsafeObject, TypeError, KeyError):
                pass
            assert not canary.exists()
    assert copyreg.__newobj__(np.memmap, str(canary), "u1", "w+", 0, (10,)).shape == (10,)
    assert canary.exists()


def test_parts_load_as_without(store):
    frame = pd.DataFrame({"a": np.arange(5000.0), "b": np.arange(5000), "c": list(map(str, range(5000)))})
    matrix = np.arange(1_000_000).reshape(1000, 1000)
    value = {"frame": frame, "matrix": matrix, "table": pa.table(frame)}
    view, plain = store.view(key := store.put(value)), store.view(key, safe=False)
    for name, index in [
        ("frame", ["a", "c"]),
        ("frame", "c"),
        ("frame", slice(10, 20)),
        ("matrix", slice(3, 5)),
        ("matrix", 7),
    ]:
        found, expected = view[name][index], plain[name][index]
        assert type(found) is type(expected)
        assert found.equals(expected) if name == "frame" else (found == expected).all()
    assert view["table"][5:7].equals(value["table"][5:7])
    assert view["table"]["c"].equals(value["table"]["c"])
    changed = store.put(value | {"matrix": matrix + 1, "frame": frame.assign(b=3)})
    assert str(store.diff(key, changed)) == str(store.diff(key, changed, safe=False))
