"""Recipes of bundles that were decoded lately."""

import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

import mfstore
from mfstore.errors import NotFound
from mfstore.handle import Handle
from mfstore.metaflow.packed import bundles, decoded
from mfstore.metaflow.packed.decoded import DecodedBundles
from mfstore.metaflow.roots.packed_keys import PackedArtifact


def test_they_are_kept_for_a_while(monkeypatch):
    read = []
    recipe = Handle.recipe
    monkeypatch.setattr(Handle, "recipe", lambda self, key: read.append(key) or recipe(self, key))
    store = mfstore.open("memory://")
    bundle = store.save({"a": 1, "b": Fails(), "c": [3]})
    other = store.save({"a": 2, "d": [4]})

    def load(*names, bundle=bundle):
        return dict(bundles.load(lambda: store, [PackedArtifact(name, "0" * 64, bundle) for name in names]))

    assert [load("a"), load("c"), load("a", "c")] == [{"a": 1}, {"c": [3]}, {"a": 1, "c": [3]}]
    assert load("d", bundle=other) == {"d": [4]}
    assert load("a") == {"a": 1}
    assert read == [bundle, other]
    with pytest.raises(ZeroDivisionError):
        load("b")
    assert load("a") == {"a": 1} and len(read) > 3  # read anew, once it failed
    with pytest.raises(NotFound, match="no artifact 'x'"):
        load("a", "x")
    load("a")
    del read[:]
    monkeypatch.setattr(decoded, "KEPT_SECONDS", 0.0)
    assert load("a") == load("a") == {"a": 1} and read == [bundle] * 2


def test_one_store_does_not_know_what_another_one_has():
    stores = [mfstore.open("memory://") for _ in range(2)]
    bundle = stores[0].save({"a": [1]})
    kept = DecodedBundles()
    assert kept.get(stores[0].handle, bundle).artifacts.keys() == {"a"}
    assert kept.find(stores[1].handle, bundle) is None
    with pytest.raises(NotFound):
        kept.get(stores[1].handle, bundle)


def test_the_oldest_go(monkeypatch):
    store = mfstore.open("memory://")
    keys = [store.save({"a": f"{number:1000}"}) for number in range(4)]
    kept = DecodedBundles()
    sizes = [kept.get(store.handle, key).size for key in keys]
    assert len({*sizes}) == 1
    kept.forget()
    monkeypatch.setattr(decoded, "KEPT_BYTES", 2 * sizes[0])

    def known():
        return [number for number, key in enumerate(keys) if kept.find(store.handle, key)]

    for key in keys[:2]:
        kept.get(store.handle, key)
    assert known() == [0, 1]
    kept.add(store.handle, keys[0], store.handle.recipe(keys[0]))  # again: newer, and counted once
    kept.get(store.handle, keys[2])
    assert known() == [0, 2]
    monkeypatch.setattr(decoded, "KEPT_BYTES", sizes[0] - 1)
    assert kept.get(store.handle, keys[3]).recipe.artifacts and known() == [0, 2]  # too large to be kept
    kept.forget()
    assert known() == []


def test_they_take_no_more_memory_than_they_may(monkeypatch):
    monkeypatch.setattr(decoded, "KEPT_BYTES", 1 << 20)
    store = mfstore.open("memory://")
    keys = [store.save({f"{name}": [number, name] for name in range(200)}) for number in range(40)]
    store.handle.recipe(keys[0])
    kept = DecodedBundles()
    tracemalloc.start()
    try:
        for key in keys:
            kept.get(store.handle, key)
        assert 1 << 18 < tracemalloc.get_traced_memory()[0] < 3 << 19
    finally:
        tracemalloc.stop()
    assert kept.find(store.handle, keys[-1]) and not kept.find(store.handle, keys[0])


def test_threads_share_them(monkeypatch):
    store = mfstore.open("memory://")
    recipes = [(key, store.handle.recipe(key)) for key in (store.save({"a": number}) for number in range(30))]
    kept = DecodedBundles()
    monkeypatch.setattr(decoded, "KEPT_BYTES", 4 * kept.add(store.handle, *recipes[0]).size)

    def add(_):
        for at in range(1000):
            kept.add(store.handle, *recipes[at * 7 % 30])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(add, range(4)))
    finally:
        sys.setswitchinterval(before)
    assert sum(kept.find(store.handle, key) is not None for key, _ in recipes) == 4


class Fails:
    def __reduce__(self):
        return divmod, (1, 0)
