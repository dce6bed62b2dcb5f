"""Safe loading by every way into a store."""

import asyncio
import os
import pickle
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mfstore
from mfstore.errors import InvalidKey, UnsafeObject, WrongArgument


class Attack:
    """Makes a directory where it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


LARGE = "a text that is long enough to lie elsewhere " * 5000
DATA = {"array": np.arange(100_000), "frame": pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), "table": pa.table({"a": [1]}),
        "text": LARGE, "bytes": LARGE.encode(), "list": [1, 2.5, None]}  # fmt: skip


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "store")


def ways(store, key, bundle, **how):
    yield lambda: store.get(key, **how)
    yield lambda: store.load(bundle, **how)
    yield lambda: store.load(bundle, "attack", **how)
    yield lambda: dict(store.get_many([key], **how))
    yield lambda: dict(store.load_many([bundle], "attack", **how))
    yield lambda: asyncio.run(store.aget(key, **how))
    yield lambda: store.view(key, **how).load()
    yield lambda: store.view(key, **how)[0]
    yield lambda: store.view(bundle, **how)["attack"].load()
    yield lambda: store.view(bundle, **how).load()
    yield lambda: store.diff(key, store.put([0]), **how)


@pytest.mark.parametrize("where", ["directory", "memory"])
def test_every_way_refuses(tmp_path, where, request):
    url = str(tmp_path / "store") if where == "directory" else f"memory://{request.node.name}-{os.getpid()}"
    store = mfstore.open(url)
    attack = Attack(tmp_path / "it-ran")
    for value in ([attack], [attack, LARGE], [LARGE, attack, np.arange(100_000)]):
        key, bundle = store.put(value, "attack"), store.save({"attack": value, "data": 1})
        for way in ways(store, key, bundle, safe=True):
            with pytest.raises(UnsafeObject, match="mkdir"):
                way()
        safe = mfstore.open(url, safe=True)
        for way in (*ways(safe, key, bundle), partial(safe.__getitem__, "attack")):
            with pytest.raises(UnsafeObject):
                way()
        assert safe.load(bundle, "data", safe=True) == 1
        ((_, error),) = safe.get_many([key], on_error="return")
        assert error.names == ("posix.mkdir",) and error.key == key
        assert isinstance(pickle.loads(pickle.dumps(error)), UnsafeObject)
        assert safe.get_bytes(key) == store.get_bytes(key)
    assert not os.path.exists(attack.path)
    store.get(key)
    assert os.path.exists(attack.path)


def test_data_by_every_way(place):
    store = mfstore.open(place, safe=True)
    key, bundle = store.put(DATA), store.save(DATA)
    for found in (store.get(key), store.load(bundle), dict(store.get_many([key]))[key], store.view(key).load()):
        assert found["array"].sum() == DATA["array"].sum() and found["text"] == LARGE and found["list"] == DATA["list"]
        assert (
            found["frame"].equals(DATA["frame"]) and found["table"] == DATA["table"] and found["bytes"] == DATA["bytes"]
        )
        found["array"][0] = 7  # it is whose it is
    assert store.view(key)["array"][10:12].tolist() == [10, 11]
    assert list(store.view(key)["frame"]["b"]) == ["x", "y"]
    assert not store.get(key, writable=False)["array"].flags.writeable
    other = store.put({**DATA, "frame": pd.DataFrame({"a": [1, 3], "b": ["x", "y"]})})
    assert [str(entry.path) for entry in store.diff(key, other).entries] == [
        str(entry.path) for entry in store.diff(key, other, safe=False).entries
    ]
    shared = np.arange(3)
    one, two = store.get(store.put([shared, shared]))
    assert one is two
    loop = []
    loop.append({"self": loop})
    found = store.get(store.put(loop))
    assert found[0]["self"] is found


def test_by_the_environment(place, monkeypatch, tmp_path):
    key = mfstore.open(place).put([Attack(tmp_path / "it-ran")])
    monkeypatch.setenv("MFSTORE_SAFE", "1")
    with pytest.raises(UnsafeObject):
        mfstore.open(place).get(key)
    monkeypatch.setenv("MFSTORE_SAFE", "0")
    with pytest.raises(UnsafeObject):
        mfstore.open(place, safe=True).get(key)
    monkeypatch.setenv("MFSTORE_SAFE", "string.Template, json.JSONDecoder")
    assert mfstore.open(place).knobs.safe == mfstore.Allow("string.Template", "json.JSONDecoder")
    monkeypatch.setenv("MFSTORE_SAFE", "posix.mkdir")
    with pytest.raises(InvalidKey, match="vouch"):
        mfstore.open(place)
    monkeypatch.delenv("MFSTORE_SAFE")
    with pytest.raises(WrongArgument):
        mfstore.open(place, safe="mypackage.Model")
    assert pickle.loads(pickle.dumps(mfstore.open(place, safe=True))).knobs.safe == mfstore.Allow()


def test_a_function_that_remembers_runs_again(place, tmp_path):
    store = mfstore.open(place, safe=True)

    @store.cache
    def make(path):
        return [Attack(path)]

    make(str(tmp_path / "it-ran"))
    with pytest.warns(mfstore.errors.MfstoreWarning, match="not on the list"):
        assert type(make(str(tmp_path / "it-ran"))[0]) is Attack
    assert not os.path.exists(tmp_path / "it-ran")
