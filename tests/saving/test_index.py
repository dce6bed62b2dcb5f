"""The dedup index stays small, merges and survives what happens to its files."""

from pathlib import Path

import numpy as np

import mfstore
from mfstore.format import fragments
from mfstore.format.packs import PackEntry
from mfstore.saving import index


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
        handle = mfstore.Store("x", counting, store.knobs, create=True, compress=True, algorithm="blake3")
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
