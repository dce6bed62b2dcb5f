"""The dedup index stays small, merges and survives what happens to its files."""

from pathlib import Path

import numpy as np
import pytest

import mfstore
from mfstore.errors import AccessDenied
from mfstore.format import fragments
from mfstore.format.packs import PackEntry
from mfstore.saving import index
from tests.rigs.parts import DIGEST, listed_pack, parts


def noise(seed, size=20_000):
    return np.random.default_rng(seed).random(size)


def stored_fragments(root):
    return list(Path(root, "index").iterdir())


def test_fragments_are_merged(root):
    store = mfstore.open(root, fsync="none")
    for seed in range(100):
        store.put({"a": noise(seed), "n": seed})
    assert len(stored_fragments(root)) < 2 * index.FAN_IN
    again = mfstore.open(root, fsync="none")
    before = again.stats().by_kind["packs"]
    for seed in range(0, 100, 7):
        again.put({"a": noise(seed), "n": -seed})
    # Only the bodies are new.
    assert again.stats().by_kind["packs"] - before < 15 * 1000


def test_merging_survives_another_process_merging_first(root):
    one = mfstore.open(root, fsync="none")
    for seed in range(index.FAN_IN - 1):
        one.put(noise(seed))
    two = mfstore.open(root, fsync="none")
    two.put(noise(100))  # merges, and deletes what `one` knows
    key = one.put(noise(0))
    np.testing.assert_array_equal(one.get(key), noise(0))
    for seed in range(200, 240):
        one.put(noise(seed))
    assert len(stored_fragments(root)) < 2 * index.FAN_IN + 4


def test_merge_keeps_the_last_of_duplicates():
    ids = [bytes([n]) * 32 for n in range(5)]
    old = fragments.encode_fragment([(b"p" * 32, [PackEntry(i, 64, 10, 10, 0, 0) for i in ids])], 1)
    new = fragments.encode_fragment([(b"q" * 32, [PackEntry(ids[2], 999, 10, 10, 0, 0)])], 1)
    merged = fragments.decode_fragment(
        fragments.merge_fragments([fragments.decode_fragment(old, "a"), fragments.decode_fragment(new, "b")], 1), "c"
    )
    assert [merged.location(n).offset for n in range(5)] == [64, 64, 999, 64, 64]
    assert merged.location(2).pack.value == b"q" * 32


@pytest.mark.slow
def test_saving_costs_the_same_requests_in_a_large_store(root):
    """A budget on storage calls per artifact: flat as the store grows."""
    from mfstore.testing import FaultyBackend

    store = mfstore.open(root, fsync="none")
    store.put_many(range(5000))
    for seed in range(40):
        store.put(noise(seed))
    costs = []
    for _ in range(2):
        counting = FaultyBackend(store.backend)
        handle = mfstore.Store("x", counting, store.knobs, create=True, algorithm="blake3")
        handle.put(0)
        before = counting.calls
        for n in range(100):
            handle.put(f"{len(costs)}-{n}")
        costs.append(counting.calls - before)
        store.put_many(range(5000, 15_000))
    assert costs[0] == costs[1]
    assert costs[0] <= 6 * 100


def fragment_of(number, chunks):
    entries = [PackEntry(bytes([number, n]) * 16, 64, 10, 10, 0, 0) for n in range(chunks)]
    return fragments.decode_fragment(fragments.encode_fragment([(bytes([number]) * 32, entries)], 1), str(number))


def test_the_smallest_class_that_is_full_is_merged_next():
    """A class is a factor of 16 in entries."""
    small = [fragment_of(number, 1) for number in range(index.FAN_IN)]
    large = [fragment_of(number, 100) for number in range(100, 100 + index.FAN_IN)]
    assert index.plan_compaction(small[1:] + large[1:]) == []
    assert index.plan_compaction(small + large) == small
    assert index.plan_compaction(small[1:] + large) == large
    assert index.plan_compaction([]) == []


# ---- the index of one process -----------------------------------------------------------

A, B = b"a" * 100, b"b" * 200


def names(locations):
    return [location.pack.value.hex() for location in locations]


def test_of_several_locations_the_newest_is_found_and_all_are_told():
    made = parts()
    old, _ = listed_pack(made, [A])
    new, located = listed_pack(made, [B, A])
    assert made.index.find([DIGEST(A), DIGEST(b"?")]) == {DIGEST(A): located[DIGEST(A)]}
    assert names(made.index.find_all(DIGEST(A), False)) == [new, old]
    assert made.index.find_all(DIGEST(b"?"), False) == []


def test_the_index_is_read_once_and_anew_when_that_is_asked_for():
    made = parts()
    old, _ = listed_pack(made, [A])
    assert made.index.find([DIGEST(A)])
    other = parts()
    other.backend.put = made.backend.put  # another process stores there
    new, _ = listed_pack(other, [B, A])
    assert made.index.find([DIGEST(B)]) == {}
    assert names(made.index.find_all(DIGEST(A), False)) == [old]
    assert names(made.index.find_all(DIGEST(A), True)) == [new, old]
    assert made.index.find([DIGEST(B)])


def test_a_fragment_just_stored_is_used_without_being_read():
    made = parts()
    assert made.index.find([DIGEST(A)]) == {}
    key, data = made.index.make_fragment([(b"p" * 32, [PackEntry(DIGEST(A), 64, 100, 100, 0, 0)])])
    for _ in range(2):  # twice the same is once
        made.index.add(key, data)
    assert [at.offset for at in made.index.find_all(DIGEST(A), False)] == [64]


def test_a_damaged_fragment_costs_deduplication_and_nothing_else():
    made = parts()
    listed_pack(made, [A])
    for info in list(made.backend.list("index/")):
        made.backend.put(info.key, [b"damaged"])
    name, _ = listed_pack(made, [B])
    assert made.index.find([DIGEST(A)]) == {}
    assert names(made.index.find_all(DIGEST(B), False)) == [name]


def test_who_may_not_store_does_not_merge():
    made = parts()
    for number in range(index.FAN_IN):
        listed_pack(made, [bytes([number]) * 10])

    def refuse(*_):
        raise AccessDenied("no")

    made.backend.put = refuse
    made.index.compact()
    assert len(list(made.backend.list("index/"))) == index.FAN_IN
    assert made.index.find([DIGEST(b"\0" * 10)])
    del made.backend.put
    made.index.compact()
    assert len(list(made.backend.list("index/"))) == 1
    found = made.index.find([DIGEST(bytes([number]) * 10) for number in range(index.FAN_IN)])
    assert len(found) == index.FAN_IN
