"""What the tests of damage share: ways to damage stored bytes, stores that hold something, and what can still be
read."""

import numpy as np

from mfstore import errors
from mfstore.backends.memory import MemoryBackend
from mfstore.settings import resolve
from mfstore.store import Store
from tests.rigs.gc import objects

DAMAGE = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "half": lambda data: data[: len(data) // 2],
    "one short": lambda data: data[:-1],
    "one long": lambda data: data + b"x",
    "first byte": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "last byte": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "middle": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0x80]) + data[len(data) // 2 + 1 :],
    "zeros": lambda data: bytes(len(data)),
    "noise": lambda data: np.random.default_rng(1).bytes(len(data)),
}

RNG = np.random.default_rng(7)
NOISE = [RNG.random(40_000) for _ in range(4)]
VALUES = [
    {"n": 0, "array": NOISE[0], "zeros": np.zeros(90_000)},
    {"n": 1, "array": NOISE[0], "more": NOISE[1]},
    "small",
    list(range(2000)),
    {"big": np.arange(300_000) ** 2},
]


def wrapped(backend, threads=1):
    return Store(backend.url, backend, resolve(threads=threads, fsync="none"), create=True, algorithm="blake3")


def fill(store):
    """Keys and what they stand for."""
    found = dict(zip(store.put_many(VALUES), VALUES, strict=True))
    bundle = {"x": 1, "array": NOISE[2], "again": NOISE[0]}
    found[store.save(bundle)] = bundle
    found[store.put_bytes(b"raw" * 100_000)] = b"raw" * 100_000
    store.refs["models/churn"] = next(iter(found))
    store.refs["bundle"] = list(found)[-2]
    return found


def equal(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[name], right[name]) for name in left)
    return np.array_equal(left, right)


def unreadable(backend, found):
    """The keys that a fresh handle cannot read, right or not at all."""
    bad = set()
    for key, value in found.items():
        try:
            assert equal(wrapped(backend).get(key), value)
        except (errors.CorruptObject, errors.NotFound, errors.Unsupported):
            bad.add(key)
    return bad


def damage(backend, key, how):
    backend.put(key, [how(backend.get(key))])


def wound(backend, number):
    """Damage a store in several ways at once; returns what must stay readable."""
    store = wrapped(backend)
    found = fill(store)
    packs, fragments = objects(backend, "packs"), objects(backend, "index")
    rng = np.random.default_rng(number)
    ways = list(DAMAGE.values())
    for key in rng.permutation(packs)[:2]:
        damage(backend, key, ways[rng.integers(len(ways))])
    damage(backend, rng.choice(fragments), ways[rng.integers(len(ways))])
    damage(backend, rng.choice(objects(backend, "recipes")), ways[rng.integers(len(ways))])
    if number % 2:
        backend.delete(rng.choice(packs))
    bad = unreadable(backend, found)
    return {key: value for key, value in found.items() if key not in bad}, found


class BadReads(MemoryBackend):
    """One bit of what the n-th read gives is flipped; what is stored is whole, and so is every other read."""

    def __init__(self, url, nth=0):
        super().__init__(url)
        self.nth = nth
        self.reads = 0

    def _flip(self, data):
        self.reads += 1
        if self.reads != self.nth or not len(data):
            return data
        flipped = bytearray(data)
        flipped[len(flipped) * 2 // 3] ^= 4
        return bytes(flipped)

    def get(self, key):
        return self._flip(super().get(key))

    def get_range(self, key, start, length):
        return self._flip(super().get_range(key, start, length))
