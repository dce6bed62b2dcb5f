"""Stores that hold one of everything: what the tests of copies share."""

import numpy as np

from mfstore.backends.memory import MemoryBackend
from mfstore.settings import resolve
from mfstore.store import Store
from tests.rigs.damage import wrapped
from tests.rigs.delta_stores import store_as_deltas
from tests.rigs.group_stores import lines, store_in_groups, text

RNG = np.random.default_rng(5)
LONG = RNG.random(60_000)
"""480 kB that do not shrink."""


def noise(seed, size=12_000):
    return np.random.default_rng(seed).random(size)


def fill(store):
    """Keys by what they are."""
    backend, found = store.backend, {}
    plain = Store(backend.url, backend, resolve(threads=1, fsync="none", delta=False))
    found["literal"] = store.put({"a": 1}, ref="small/literal", note={"team": "risk"})
    found["inline"] = store.put(list(range(5000)), ref="small/list")
    found["array"] = store.put(LONG, ref="models/churn", note={"auc": 0.9})
    found["version"] = store.put(
        np.concatenate([LONG[:30_000], [1.0], LONG[30_001:]]), ref="models/churn", base="models/churn"
    )
    found["bundle"] = store.save(
        {"x": 1, "array": noise(2), "again": LONG, "words": "ab" * 40_000}, ref="models/bundle"
    )
    found["bytes"] = store.put_bytes(text(3, 150_000))
    for name, inline in (("group", False), ("inline group", True)):
        found[name] = store.put_bytes(lines(11 + inline))
        store_in_groups(backend, found[name], inline=inline)
    older = found["base"] = plain.put_bytes(text(21, 300_000))
    for name, inline in (("delta", False), ("inline delta", True)):
        value = bytearray(text(21, 300_000))
        value[1000 : 1010 + inline] = bytes(10 + inline)
        found[name] = plain.put_bytes(bytes(value))
        store_as_deltas(backend, found[name], older, inline=inline)
    return found


def filled():
    store = wrapped(MemoryBackend())
    return store, fill(store)


def empty():
    return wrapped(MemoryBackend())
