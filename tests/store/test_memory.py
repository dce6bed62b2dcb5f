"""Objects of many parts are saved within the budget, whichever way they go."""

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
