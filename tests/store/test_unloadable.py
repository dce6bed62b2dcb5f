"""What is whole and cannot become an object here."""

import pickle
import sys
import types

import numpy as np
import pytest

import mfstore
from mfstore import provenance
from mfstore.errors import MfstoreError, MfstoreWarning, NotLoadable
from mfstore.metaflow.packed import bundles
from mfstore.metaflow.roots.packed_keys import PackedArtifact, bundle_of
from mfstore.settings import resolve
from mfstore.store import Store
from tests.store.test_store import FarAway


@pytest.fixture
def gone(monkeypatch):
    """A module that is there while something is stored."""
    module = types.ModuleType("library_of_yesterday")
    module.__version__ = "1.2.3"
    exec("class Model:\n    pass\nclass Other:\n    pass", module.__dict__)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        yield module


@pytest.fixture(params=["near", "far"])
def store(request, tmp_path):
    if request.param == "near":
        return mfstore.open(tmp_path / "store", fsync="none")
    return Store("far", FarAway(), resolve(), create=True, algorithm="blake3")


def model(module, size):
    made = module.Model()
    made.weights = np.arange(float(size))
    return made


@pytest.mark.parametrize("size", [3, 20_000], ids=["literal", "segment"])
def test_a_library_that_is_missing_is_named(store, gone, size):
    one = store.put(model(gone, size))
    bundle = store.save({"fine": [1], "model": model(gone, size)})
    del sys.modules[gone.__name__]
    for load in (store.get, lambda key: dict(store.get_many([key]))[key]):
        with pytest.raises(NotLoadable, match="library_of_yesterday.Model, cannot be loaded here") as caught:
            load(one)
        error = caught.value
        assert (error.key, error.artifact, error.type) == (one, None, "library_of_yesterday.Model")
        assert error.missing == "library_of_yesterday" and error.code == "not-loadable"
        assert type(error.__cause__) is ModuleNotFoundError
        assert "Install library_of_yesterday, of which it was 1.2.3" in str(error)
        assert not isinstance(error, ModuleNotFoundError)
    for load in (store.get, store.load, lambda key: store.load(key, ["model"], verify=False)):
        with pytest.raises(NotLoadable, match="get_bytes.key, name='model'.") as caught:
            load(bundle)
        assert (caught.value.key, caught.value.artifact) == (bundle, "model")
    assert store.load(bundle, ["fine"]) == {"fine": [1]}
    assert len(store.get_bytes(bundle, name="model")) >= 8 * size


def test_each_of_many_is_told_by_itself(store, gone):
    keys = store.put_many([1, model(gone, 3), "two", model(gone, 20_000), gone.Other()])
    keys.append(store.save({"a": model(gone, 1)}))
    del gone.Model
    got = dict(store.get_many(keys, on_error="return"))
    assert got[keys[0]] == 1 and got[keys[2]] == "two" and type(got[keys[4]]) is gone.Other
    for key in (keys[1], keys[3], keys[5]):
        assert isinstance(got[key], NotLoadable)
        assert (got[key].key, got[key].missing) == (key, "library_of_yesterday.Model")
        again = pickle.loads(pickle.dumps(got[key]))
        assert (again.type, again.missing, str(again)) == (got[key].type, got[key].missing, str(got[key]))


def test_what_a_program_defined_itself_is_told_so(store, monkeypatch):
    main = sys.modules["__main__"]
    kind = type("Mine", (), {"__module__": "__main__"})
    monkeypatch.setattr(main, "Mine", kind, raising=False)
    monkeypatch.setattr(provenance, "_told", set())
    with pytest.warns(MfstoreWarning, match="Mine from __main__") as warned:
        key = store.put(kind())
    assert [warning.filename for warning in warned] == [__file__]
    store.put([kind(), 2])  # once for each class: a warning would be an error here
    monkeypatch.delattr(main, "Mine")
    with pytest.raises(NotLoadable, match="defined Mine itself") as caught:
        store.get(key)
    assert caught.value.missing == "__main__.Mine"


class Nested:
    """Has a pickle in its state."""

    def __init__(self, inner):
        self.inner = inner

    def __setstate__(self, state):
        self.inner = pickle.loads(state["inner"])


@pytest.mark.parametrize("inner", [b"", b"garbage"])
def test_what_a_class_could_not_unpickle_is_no_damage(store, inner):
    for value in (Nested(inner), [Nested(inner), np.arange(20_000.0)]):
        key = store.put(value)
        for load in (store.get, lambda key: store.view(key).load()):
            with pytest.raises(NotLoadable, match="cannot be loaded here: (EOFError|UnpicklingError)"):
                load(key)


def test_an_error_of_the_store_stays_one(store):
    with pytest.raises(MfstoreError) as caught:
        store.get("0" * 64)
    assert not isinstance(caught.value, NotLoadable)


def test_a_flow_gets_what_was_raised(store, gone):
    """As from Metaflow's own datastore; and what comes before it."""
    saved = bundles.save(lambda: store, [("a", "text" * 300), ("model", model(gone, 300))], {})
    wanted = [PackedArtifact(name, saved[name].key, bundle_of(saved[name].info)) for name in ("a", "model")]
    del sys.modules[gone.__name__]
    loaded = bundles.load(lambda: store, wanted)
    assert next(loaded) == ("a", "text" * 300)
    with pytest.raises(ModuleNotFoundError, match="library_of_yesterday") as caught:
        next(loaded)
    assert caught.value.__notes__[0] == "in artifact 'model'"
