"""Objects of many parts are saved within the budget, whichever way they go."""

import pickle
import tracemalloc

import numpy as np
import pytest

import mfstore
from mfstore.metaflow.packed import bundles

BUDGET = 32 << 20
PART = 2 << 20


class Copied:
    """An array, pickled as a copy of it in bytes."""

    def __init__(self, array):
        self.array = array

    def __getstate__(self):
        return {"array": self.array.tobytes()}


class Called:
    """An array, loaded by a call that copies the buffer it gets."""

    def __init__(self, array):
        self.array = array

    def __reduce_ex__(self, protocol):
        return bytes, (pickle.PickleBuffer(self.array),)


def parts():
    """54 MiB that are copied to be pickled, and do not shrink."""
    noise = np.random.default_rng(0)
    for _ in range(9):
        strided, *copied = noise.integers(0, 1 << 62, (3, PART // 8))
        yield np.repeat(strided, 2)[::2]
        yield list(map(Copied, copied))


WAYS = {
    "put": lambda store, objs: store.put(objs),
    "put_many": lambda store, objs: store.put_many(objs),
    "packed": lambda store, objs: bundles.save(lambda: store, [(f"n{n}", obj) for n, obj in enumerate(objs)], {}),
    "key": lambda store, objs: bundles.key_of(objs),
}


@pytest.mark.parametrize("way", WAYS)
def test_copies_of_parts_stay_within_the_budget(root, way):
    with mfstore.open(root, memory=BUDGET, fsync="none", threads=2) as store:
        store.put(np.arange(100_000))
        objs = list(parts())
        tracemalloc.start()
        try:
            WAYS[way](store, objs)
            assert tracemalloc.get_traced_memory()[1] <= BUDGET
        finally:
            tracemalloc.stop()


def peak_of(call):
    """Bytes held at once while it runs, with its result."""
    tracemalloc.start()
    try:
        assert call() is not None
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_texts_are_loaded_one_after_the_other(store):
    """The UTF-8 of each, which takes twice as much here, is freed once the text is made of it."""
    texts = [chr(0xE0 + number) * (1 << 20) for number in range(16)]
    key = store.put(texts)
    assert peak_of(lambda: store.get(key)) <= 40 << 20


def test_what_artifacts_of_a_bundle_copy_is_freed_one_after_the_other(root):
    """The buffers are read together; the copies made of them take no more than these."""
    noise = np.random.default_rng(0)
    with mfstore.open(root, memory=BUDGET, fsync="none", threads=2) as store:
        key = store.save({f"n{number}": Called(np.frombuffer(noise.bytes(PART), np.uint8)) for number in range(16)})
        assert peak_of(lambda: store.load(key, map=False)) <= 16 * PART + (20 << 20)


class Noted:
    """Made of something large, of which it keeps nothing but how much was held then."""

    def __init__(self, large):
        self.held = tracemalloc.get_traced_memory()[0]

    @classmethod
    def of(cls, large):
        made = cls.__new__(cls)
        made.large = large
        return made

    def __reduce__(self):
        return Noted, (self.large,)


@pytest.mark.parametrize(("way", "form"), [("get", "bytes"), ("get", "texts that are not ASCII"), ("load", "texts")])
def test_no_more_is_read_ahead_of_who_copies_it_than_memory(root, way, form):
    letters = {
        "bytes": bytes,
        "texts": lambda one: chr(97 + one[0]),
        "texts that are not ASCII": lambda one: chr(one[0] + 224),
    }
    parts = [Noted.of(letters[form](bytes([number])) * (2 * PART)) for number in range(16)]
    with mfstore.open(root, memory=BUDGET, fsync="none", threads=2) as store:
        key = store.put(parts) if way == "get" else store.save({f"n{n}": part for n, part in enumerate(parts)})
        del parts
        tracemalloc.start()
        try:
            found = getattr(store, way)(key)
        finally:
            tracemalloc.stop()
    held = [one.held for one in (found if way == "get" else found.values())]
    assert len(held) == 16
    assert max(held) <= BUDGET + 6 * PART
