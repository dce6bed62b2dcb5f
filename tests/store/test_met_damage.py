"""A handle that has met damage says so once, remembers it, and never returns what it knows to be damaged."""

import pickle
from pathlib import Path

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore.backends.local import LocalBackend
from mfstore.backends.memory import MemoryBackend
from mfstore.loading.artifacts import load_artifacts
from tests.rigs.damage import damage, wrapped
from tests.rigs.gc import objects

SMALL, LARGE = (np.random.default_rng(seed).random(size) for seed, size in ((1, 9_000), (2, 300_000)))


def flip(data):
    """In the first chunk."""
    return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]


def same(found, value):
    return all(np.array_equal(found[name], value[name]) for name in value)


class Place:
    """Two packs hold one array, and two keys name it; one pack is damaged."""

    def __init__(self, backend, array):
        self.backend = backend
        self.values = {"one": array, "n": 1}, {"two": array, "n": 2}
        self.keys = [wrapped(backend).put(self.values[0])]
        (self.pack,) = objects(backend, "packs")
        other = MemoryBackend()
        self.keys.append(wrapped(other).put(self.values[1]))
        for info in other.list(""):
            if info.key != "mfstore.json":
                backend.put(info.key, [other.get(info.key)])
        damage(backend, self.pack, flip)


@pytest.fixture(params=["memory", "directory"])
def backend(request, tmp_path):
    return MemoryBackend() if request.param == "memory" else LocalBackend(str(tmp_path / "s"), fsync="none")


@pytest.mark.parametrize("array", [SMALL, LARGE], ids=["read", "mapped"])
def test_what_is_known_to_be_damaged_is_never_returned_and_told_once(backend, array):
    place = Place(backend, array)
    store = wrapped(backend)
    with pytest.warns(RuntimeWarning, match=rf"{place.pack} in .* Run: mfstore repair -s {backend.url}") as told:
        assert same(store.get(place.keys[0]), place.values[0])
    assert len(told) == 1
    for verify in (False, True, False):
        for key, value in zip(place.keys, place.values, strict=True):
            assert same(store.get(key, verify=verify), value)
    assert store.repair().after.clean
    # What was stored again is another pack, and is read as it was asked for.
    assert same(store.get(place.keys[0], verify=False), place.values[0])


def test_what_was_met_while_saving_is_remembered_too(backend):
    place = Place(backend, SMALL)
    store = wrapped(backend)
    before = wrapped(backend).handle.recipe(place.keys[0])
    store.put(place.values[0])  # stored again: the recipe names a whole copy now
    assert same(store.get(place.keys[0], verify=False), place.values[0])
    with pytest.warns(RuntimeWarning):
        (found,) = load_artifacts(store.handle.loading(False, True), before, before.artifacts)
    assert same(found, place.values[0])


def test_a_damaged_pickle_read_without_verifying_is_damage(root):
    value = [f"number {number}" for number in range(30_000)]
    store = mfstore.open(root, fsync="none")
    key = store.put(value)
    (pack,) = (path for path in Path(root, "packs").rglob("*") if path.is_file())
    data = pack.read_bytes()
    outcomes = set()
    for at in range(64, len(data) - 200, len(data) // 25):
        pack.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        try:
            found = mfstore.open(root).get(key, verify=False)
            outcomes.add(type(found))
        except errors.MfstoreError as error:
            assert isinstance(error, errors.CorruptObject)
            outcomes.add(type(error))
    assert errors.CorruptObject in outcomes


class Refuses:
    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise ZeroDivisionError("as it was pickled")


def test_what_cannot_be_unpickled_is_told_as_it_is(store):
    key = store.put(["x" * 3000, Refuses()])
    for verify in (True, False):
        with pytest.raises(errors.NotLoadable, match="ZeroDivisionError: as it was pickled") as caught:
            store.get(key, verify=verify)
        assert type(caught.value.__cause__) is ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        pickle.loads(store.get_bytes(key))
