"""What was loaded from far away is on this host, and whatever becomes of it there, loads give what is stored."""

import itertools
import os
import uuid

import numpy as np
import pytest

from mfstore.errors import InvalidKey, NotFound
from mfstore.host import ranges
from tests.rigs.far_stores import far_store

RNG = np.random.default_rng(0)
ARRAY = RNG.integers(1 << 63, size=600_000)
"""4.8 MB that nothing shrinks: raw, in more than one read."""
TEXTS = [f"{number} {number * number}" for number in range(200_000)]
"""Groups: 0.6 MB encoded."""


@pytest.fixture
def name():
    return uuid.uuid4().hex


@pytest.fixture
def cache(tmp_path):
    path = tmp_path / "cache"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def far(name, cache):
    """Open another handle, as another process would."""
    return lambda **more: far_store(name, more.pop("cache", cache), **more)


def entries(cache):
    return sorted(path for path in (cache / "packs").rglob("*") if path.is_file())


def same(found, expected):
    return np.array_equal(found, expected) if isinstance(expected, np.ndarray) else found == expected


@pytest.mark.parametrize("value", [ARRAY, TEXTS, {"a": ARRAY, "b": TEXTS}["a"].astype("f4")])
def test_a_second_load_asks_for_the_recipe_alone(far, value):
    key = far().put(value)
    assert same(far().get(key), value)
    second = far()
    assert same(second.get(key), value)
    assert second.backend.since() == {"recipes": 1}


def test_by_a_ref_it_asks_for_the_ref_alone(far):
    far().put(ARRAY, "models/one")
    assert same(far().get("models/one"), ARRAY)
    second = far()
    assert same(second.get("models/one"), ARRAY)
    assert second.backend.since() == {"refs": 1}


def test_a_large_raw_array_is_mapped_from_it(far, cache):
    key = far().put(ARRAY)
    far().get(key)
    store = far()
    found = store.get(key)
    with open("/proc/self/maps", encoding="utf-8") as maps:
        assert str(entries(cache)[0]) in maps.read()
    assert found.flags.aligned and found.flags.writeable
    found[:] = 0  # of its own
    assert same(store.get(key), ARRAY) and same(far().get(key), ARRAY)
    for path in entries(cache):
        path.unlink()
    found = store.get(key)
    assert same(found, ARRAY)
    assert same(far().get(key, map=False), ARRAY)
