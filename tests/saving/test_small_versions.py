"""Versions that could lie whole in their recipes, where requests are expensive: like the one before them they are stored
as what differs, and what is like nothing lies in its recipe as ever."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore._core.codec import DELTAS
from mfstore.backends.base import Capabilities
from mfstore.errors import CorruptObject
from mfstore.format.packs import pack_path
from mfstore.format.recipes import INLINE, recipe_path
from mfstore.saving.pipeline import INLINE_DELTAS
from mfstore.saving.small_versions import BUILDS
from tests.rigs.damage import wrapped
from tests.rigs.gc import RemoteMemory, collect, objects
from tests.rigs.parts import KIB, noise

PUT_OF_A_RECIPE = {"recipes": 1}
PUT_OF_A_PACK = {"packs": 1, "index": 1, "recipes": 1}


class Far(RemoteMemory):
    """Remote memory whose recipes hold what takes up to 256 KiB. Counts what is put and which ranges are read."""

    capabilities = Capabilities(remote=True, gap=256 * KIB, inline=256 * KIB)

    def __init__(self):
        super().__init__()
        self.stored = Counter()
        self.read = []

    def put(self, key, parts):
        self.stored[key.split("/")[0]] += 1
        super().put(key, parts)

    def get(self, key):
        self.read.append(key)
        return super().get(key)

    def read_many(self, reads):
        return super().read_many(self.read.append(read.key) or read for read in reads)

    def read_ends(self, keys, length):
        return super().read_ends([self.read.append(key) or key for key in keys], length)


@pytest.fixture
def far():
    return Far()


def put(backend, value, base=None):
    """By a new process: the key, and the objects that were put."""
    store = wrapped(backend)
    backend.stored.clear()
    key = store.put(value, base=base)
    return key, dict(backend.stored)


def placements(backend, key):
    return wrapped(backend).handle.recipe(key).placements


def lies_whole_in_its_recipe(backend, key):
    return {at.pack for at in placements(backend, key)} == {INLINE} and not deltas(backend, key)


def deltas(backend, key):
    return [at for at in placements(backend, key) if at.codec in DELTAS]


def table(rows=25_000):
    return np.round(np.random.default_rng(1).normal(100, 10, rows), 2)


def edited(array, seed):
    chosen = np.random.default_rng(seed)
    changed = array.copy()
    changed[chosen.integers(0, len(array), 5)] = np.round(chosen.normal(100, 10, 5), 2)
    return changed


def series(backend, value, edit, count):
    """Keys of versions, each with the one before as its base, what they are, and what each put."""
    keys, values, puts = [], [], []
    for number in range(count):
        value = edit(value, number) if number else value
        key, stored = put(backend, value, keys[-1] if keys else None)
        keys.append(key)
        values.append(value)
        puts.append(stored)
    return keys, values, puts


def all_read(backend, keys, values):
    return all(np.array_equal(wrapped(backend).get(key), value) for key, value in zip(keys, values, strict=True))


# ---- what is stored -----------------------------------------------------------------


def test_the_second_version_lies_in_a_pack_and_later_ones_are_deltas_in_their_recipes(far):
    keys, values, puts = series(far, table(), edited, 10)
    assert puts == [PUT_OF_A_RECIPE, PUT_OF_A_PACK] + [PUT_OF_A_RECIPE] * 8
    assert lies_whole_in_its_recipe(far, keys[0])
    sizes = [len(far.get(recipe_path(key))) for key in keys]
    assert max(sizes[2:]) < sizes[0] / 30
    for key in keys[2:]:
        assert deltas(far, key) and {at.pack for at in deltas(far, key)} == {INLINE}
    assert all_read(far, keys, values)
    assert wrapped(far).verify("full").clean


def test_a_load_takes_one_request_more_for_the_base_and_none_without(far):
    keys, values, _ = series(far, table(), edited, 3)
    for key, value, expected in zip(keys, values, (1, 2, 2), strict=True):
        store = wrapped(far)
        far.read.clear()
        assert np.array_equal(store.get(key), value)
        assert len(far.read) - far.read.count("mfstore.json") == expected


def test_a_save_reads_the_base_and_its_chunks_in_one_round(far):
    """And the trailer, as the body is still the same."""
    keys, values, _ = series(far, table(), edited, 3)
    end = values[-1].copy()
    end[::2000] += 1  # in each chunk
    store = wrapped(far)
    far.read.clear()
    store.put(end, base=keys[-1])
    assert sum(path.startswith("recipes/") for path in far.read) == 2  # the base, and whether this is there
    assert sum(path.startswith("packs/") for path in far.read) == 2
    assert not any(path.startswith("index/") for path in far.read)


def test_what_is_unlike_its_base_lies_in_its_recipe(far):
    keys, values, puts = series(far, noise(0, 200 * KIB), lambda _, number: noise(number, 200 * KIB), 4)
    assert puts == [PUT_OF_A_RECIPE] * 4
    assert all(lies_whole_in_its_recipe(far, key) for key in keys)
    assert [wrapped(far).get(key) for key in keys] == values


def test_a_version_unlike_one_in_packs_lies_in_its_recipe(far):
    keys, _, _ = series(far, table(), edited, 3)
    other, stored = put(far, noise(3, 200 * KIB), keys[-1])
    assert stored == PUT_OF_A_RECIPE
    assert lies_whole_in_its_recipe(far, other)


def test_of_what_takes_little_no_base_is_looked_for(far):
    value = np.frombuffer(noise(1, BUILDS - KIB), "u1")
    base, _ = put(far, value)
    far.read.clear()
    _, stored = put(far, np.concatenate([value[1:], value[:1]]), base)
    assert stored == PUT_OF_A_RECIPE
    assert recipe_path(base) not in far.read


@pytest.mark.parametrize("length", [BUILDS - 2 * KIB, BUILDS + 2 * KIB])
def test_what_would_leave_out_little_lies_in_its_recipe(far, length):
    same = noise(1, length)
    base = wrapped(far).save({"same": same, "other": noise(2, 100 * KIB)})
    far.stored.clear()
    key = wrapped(far).save({"same": same, "other": noise(3, 100 * KIB)}, base=base)
    assert lies_whole_in_its_recipe(far, key) is (length < BUILDS)
    assert far.stored == (PUT_OF_A_RECIPE if length < BUILDS else PUT_OF_A_PACK)


def test_artifacts_of_a_bundle_are_told_apart(far):
    first, alike, base = noise(1, 60 * KIB), table(10_000), None
    for number in range(3):
        store = wrapped(far)
        far.stored.clear()
        value = {"alike": edited(alike, number), "own": noise(10 + number, 60 * KIB), "same": first}
        base = store.save(value, base=base)
        assert far.stored == ((PUT_OF_A_RECIPE, PUT_OF_A_PACK, PUT_OF_A_RECIPE)[number])
    recipe = store.handle.recipe(base)
    found = wrapped(far).load(base)
    assert found["own"] == value["own"] and found["same"] == first and np.array_equal(found["alike"], value["alike"])
    at = {artifact.name: number for number, artifact in enumerate(recipe.artifacts)}
    starts = np.cumsum([0, *(len(artifact.chunks) for artifact in recipe.artifacts)])
    of = {name: recipe.placements[starts[number] : starts[number + 1]] for name, number in at.items()}
    assert {place.pack for place in of["own"]} == {INLINE} and not any(place.pieces for place in of["own"])
    assert INLINE not in {place.pack for place in of["same"]}
    assert any(place.pieces and place.pack == INLINE for place in of["alike"])


# ---- deltas that lie in a recipe, in later versions ---------------------------------


def test_a_delta_of_the_base_is_carried_on_as_it_is(far):
    keys, values, _ = series(far, table(), edited, 3)
    end = values[-1].copy()
    end[-1] = -1
    key, stored = put(far, end, keys[-1])
    assert stored == PUT_OF_A_RECIPE
    older, newer = (wrapped(far).handle.recipe(one) for one in (keys[-1], key))
    bytes_of = [
        {bytes(recipe.inline[at.offset : at.offset + at.csize]) for at in recipe.placements if at.pieces}
        for recipe in (older, newer)
    ]
    assert len(bytes_of[0]) > 1 and len(bytes_of[0] & bytes_of[1]) == len(bytes_of[0]) - 1
    assert np.array_equal(wrapped(far).get(key), end)


def damage_inline(backend, key):
    """Every delta in a recipe is damaged; its tables are whole."""
    recipe = wrapped(backend).handle.recipe(key)
    data = bytearray(backend.get(recipe_path(key)))
    start = len(data) - len(recipe.inline)
    for at in recipe.placements:
        if at.pieces and at.pack == INLINE:
            data[start + at.offset + at.csize // 2] ^= 1
    backend.put(recipe_path(key), [bytes(data)])


def test_a_damaged_delta_is_not_carried_on(far):
    keys, values, _ = series(far, table(), edited, 3)
    damage_inline(far, keys[-1])
    end = values[-1].copy()
    end[-1] = -1
    key, _ = put(far, end, keys[-1])
    assert np.array_equal(wrapped(far).get(key), end)


def test_a_delta_whose_base_is_gone_is_not_carried_on(far):
    keys, values, _ = series(far, table(), edited, 3)
    (pack,) = objects(far, "packs")
    far.delete_many([pack])
    end = values[-1].copy()
    end[-1] = -1
    key, _ = put(far, end, keys[-1])
    assert lies_whole_in_its_recipe(far, key)
    assert np.array_equal(wrapped(far).get(key), end)
    with pytest.raises(CorruptObject):
        wrapped(far).get(keys[-1])


def test_a_collection_keeps_the_packs_of_deltas_in_recipes(far):
    keys, values, _ = series(far, table(), edited, 3)
    wrapped(far).refs["last"] = keys[2]
    collect(wrapped(far))
    assert objects(far, "recipes") == [recipe_path(keys[2])]
    assert np.array_equal(wrapped(far).get(keys[2]), values[2])
    assert wrapped(far).verify("full").clean


def test_what_is_condemned_is_not_built_upon(far):
    keys, values, _ = series(far, table(), edited, 3)
    wrapped(far).plan_gc(grace=0).execute(yes_really=True)
    end = edited(values[-1], 7)
    key, _ = put(far, end, keys[-1])
    wrapped(far).refs["end"] = key
    collect(wrapped(far))
    assert np.array_equal(wrapped(far).get(key), end)
    assert lies_whole_in_its_recipe(far, key)


def test_the_same_version_again_stores_nothing(far):
    keys, values, _ = series(far, table(), edited, 3)
    key, stored = put(far, values[-1], keys[-2])
    assert (key, stored) == (keys[-1], {})


EDITS = {
    "cells": edited,
    "appended": lambda array, seed: np.append(array, np.random.default_rng(seed).random(500)),
    "dropped": lambda array, seed: np.delete(array, np.s_[seed : seed + 300]),
    "moved": lambda array, seed: array + np.random.default_rng(seed).normal(size=len(array)) * 1e-9,
    "another": lambda array, seed: np.random.default_rng(seed).random(len(array)),
    "same": lambda array, seed: array,
}


@settings(max_examples=10)
@given(steps=st.lists(st.tuples(st.sampled_from([*EDITS]), st.integers(0, 9), st.booleans()), min_size=2, max_size=7))
def test_whatever_versions_build_upon_each_is_what_was_put_and_the_store_is_whole(steps):
    far = Far()
    values = [{"x": table(12_000), "y": noise(1, 40 * KIB)}]
    keys = [wrapped(far).save(values[0])]
    for seed, (edit, back, other) in enumerate(steps):
        number = len(keys) - 1 - back % len(keys)
        value = {"x": EDITS[edit](values[number]["x"], seed), "y": noise(seed, 40 * KIB) if other else values[0]["y"]}
        keys.append(wrapped(far).save(value, base=keys[number]))
        values.append(value)
    for key, value in zip(keys, values, strict=True):
        found = wrapped(far).load(key)
        assert np.array_equal(found["x"], value["x"]) and found["y"] == value["y"]
    assert wrapped(far).verify("full").clean


# ---- what is longer ---------------------------------------------------------------------


def long_table():
    return np.random.default_rng(2).random(200_000)


def test_few_deltas_of_something_longer_lie_in_its_recipe_too(far):
    def one_cell(array, number):
        changed = array.copy()
        changed[1000 * number] = number
        return changed

    keys, values, puts = series(far, long_table(), one_cell, 4)
    assert puts == [PUT_OF_A_PACK] + [PUT_OF_A_RECIPE] * 3
    assert {at.pack for at in deltas(far, keys[-1])} == {INLINE}
    assert all_read(far, keys, values)


def test_many_deltas_of_something_longer_lie_in_a_pack_where_later_versions_have_them(far):
    def a_tenth(array, number):
        changed = array.copy()
        changed[np.random.default_rng(number).integers(0, len(array), len(array) // 10)] += 1
        return changed

    (_, key), (_, value), puts = series(far, long_table(), a_tenth, 2)
    assert puts == [PUT_OF_A_PACK] * 2
    assert sum(at.csize for at in deltas(far, key)) > INLINE_DELTAS
    assert INLINE not in {at.pack for at in deltas(far, key)}
    end = value.copy()
    end[0] = -1
    later, stored = put(far, end, key)
    assert stored == PUT_OF_A_RECIPE
    names = [wrapped(far).handle.recipe(one).packs for one in (key, later)]
    assert {pack_path(name.hex()) for name in names[1]} == set(objects(far, "packs")) and set(names[0]) == set(names[1])
    assert np.array_equal(wrapped(far).get(later), end)
