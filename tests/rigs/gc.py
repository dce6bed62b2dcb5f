"""What the tests of garbage collection share: a backend whose calls can be hooked, a clock that can be moved,
stores."""

import time

import numpy as np
import pytest

from mfstore import errors
from mfstore.backends.base import Backend, Capabilities
from mfstore.backends.memory import MemoryBackend
from mfstore.handle import Handle
from mfstore.saving import guard
from mfstore.settings import resolve
from mfstore.store import Store
from mfstore.testing import FaultyBackend

HOUR = 3600.0
DAY = 24 * HOUR


def noise(seed, size=20_000):
    """160 kB that neither shrink nor resemble another seed's."""
    return np.random.default_rng(seed).integers(1 << 63, size=size)


def store_on(backend):
    return Store(backend.url, backend, resolve(threads=1), create=True, algorithm="blake3")


class Clock:
    """Moves this machine's wall clock, and with it the memory backend's."""

    def __init__(self, monkeypatch):
        real = time.time
        self.offset = 0.0
        monkeypatch.setattr(time, "time", lambda: real() + self.offset)

    def advance(self, seconds):
        self.offset += seconds


class Hooked(FaultyBackend):
    """Runs a function once, before or after the first call that matches: that is how an interleaving is scheduled."""

    def __init__(self, inner):
        super().__init__(inner)
        self._hooks = []

    def on(self, operation, prefix, action, after=False):
        self._hooks.append((operation, prefix, action, after))

    @property
    def waiting(self):
        return len(self._hooks)

    def _run(self, operation, key, work):
        self._fire(operation, key, False)
        result = super()._run(operation, key, work)
        self._fire(operation, key, True)
        return result

    def _fire(self, operation, key, after):
        for hook in list(self._hooks):
            if (operation, after) == (hook[0], hook[3]) and key.startswith(hook[1]) and hook in self._hooks:
                self._hooks.remove(hook)
                hook[2]()


class Beside(FaultyBackend):
    """Lets somebody else do something right before the n-th call."""

    def __init__(self, inner, at, action):
        super().__init__(inner)
        self._at = at
        self._action = action

    def _run(self, operation, key, work):
        if self.calls + 1 == self._at:
            self._action()
        return super()._run(operation, key, work)


class RemoteMemory(MemoryBackend):
    """Memory that is used like a remote store: packs are vouched for and not read, and nothing is asked twice."""

    capabilities = Capabilities(remote=True)

    def vouch(self, keys):
        return {key: self.head(key).size for key, there in zip(keys, self.exists_many(keys), strict=True) if there}


class Unconditional(MemoryBackend):
    """Memory whose deletions take no condition, as on many services that speak S3."""

    def delete_unchanged(self, objects):
        return Backend.delete_unchanged(self, objects)

    def deletes_conditionally(self):
        return False


def collect(store, **policy):
    """Condemn, then delete, with no grace period unless the policy has one; nothing is needed in between."""
    policy.setdefault("grace", 0)
    policy.setdefault("repack", 0)
    first = store.plan_gc(**policy).execute(yes_really=True)
    second = store.plan_gc(**policy).execute(yes_really=True)
    return first, second


def objects(backend, kind):
    return sorted(info.key for info in backend.list(f"{kind}/"))


def check_all(store):
    """Everything visible is whole, and everything named is there."""
    for key in store.keys():
        store.get(key)
    for name in store.refs:
        for entry in store.refs.history(name):
            store.get(entry.key)


with_and_without = pytest.mark.parametrize("protected", [True, False], ids=["protected", "unprotected"])


def same(store, key, expected):
    """Whether the key reads back; a loss is reported by the store as what it is."""
    try:
        found = store.get(key)
    except (errors.CorruptObject, errors.NotFound):
        return False
    np.testing.assert_equal(found, expected)
    return True


def forget_lists(monkeypatch):
    """A writer that knows nothing of condemned lists."""
    monkeypatch.setattr(Handle, "forget_removed", lambda handle: None)
    monkeypatch.setattr(guard.Condemned, "__bool__", lambda view: False)
    monkeypatch.setattr(guard.Guard, "confirm", lambda *names: None)


def informed(backend):
    """A store handle that has read the index."""
    store = store_on(backend)
    store.handle.index.find([bytes(32)])
    return store


def condemned_store(kind=MemoryBackend):
    """A store with an anchor that is kept and an object whose pack is condemned and may be deleted now."""
    inner = kind()
    store = store_on(inner)
    store.refs["anchor"] = store.put(1)
    store.put(noise(1))
    store.plan_gc(grace=0).execute()
    return inner
