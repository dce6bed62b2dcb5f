"""Maintenance of stores whose index has a tree: what verify says of it, what repair and collections do to it."""

import json

import numpy as np
import pytest

from mfstore.backends.memory import MemoryBackend
from mfstore.description import load, tell_of_tree
from mfstore.format import tree
from mfstore.format.description import PATH
from mfstore.format.fragments import digest_in_key
from mfstore.maintenance.store.collecting import deletion
from mfstore.saving import folding, index
from tests.rigs.gc import Hooked, RemoteMemory, check_all, collect, noise, objects, store_on
from tests.rigs.small_trees import small_trees

COUNT = 16
MADE = {}
"""The store before the test, by its backend."""


@pytest.fixture
def small():
    with small_trees():
        yield


@pytest.fixture(params=[MemoryBackend, RemoteMemory])
def backend(small, request):
    """A store with two dozen arrays, each saved by a process of its own."""
    if request.param not in MADE:
        first = MADE[request.param] = request.param()
        for seed in range(COUNT):
            store = store_on(first)
            store.refs[f"a{seed}"] = store.put(noise(seed))
        assert {name.level for name in nodes(first)} == {0, 1, 2}
    backend = request.param()
    for info in MADE[request.param].list(""):
        backend.put(info.key, [MADE[request.param].get(info.key)])
    return backend


def nodes(backend):
    return {name: info.key for info in backend.list("index/") if (name := tree.node_name(info.key)) is not None}


def marks(backend):
    return {
        mark
        for name, key in nodes(backend).items()
        for bucket in tree.decode_node(backend.get(key), name).buckets
        for mark in bucket.split()
    }


def stored_again(backend):
    """Bytes of packs that a save of what is there adds, by processes that know nothing yet."""
    before = store_on(backend).stats().by_kind["packs"]
    for seed in range(COUNT):
        store_on(backend).put({"again": noise(seed), "seed": seed})
    return store_on(backend).stats().by_kind["packs"] - before


def test_what_is_in_the_tree_is_not_stored_again(backend):
    assert store_on(backend).verify("full").clean
    # The bodies are new, and lie in packs of their own.
    assert stored_again(backend) < COUNT * 1000
    for seed in range(COUNT):
        np.testing.assert_array_equal(store_on(backend).get(store_on(backend).refs[f"a{seed}"]), noise(seed))
    assert store_on(backend).verify("full").clean


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_damaged_node_is_told_and_made_anew(backend, level):
    name = max(name for name in nodes(backend) if name.level == level)
    data = bytearray(backend.get(name.key))
    data[tree.HEADER.size - 1] ^= 1
    backend.put(name.key, [data])
    report = store_on(backend).verify()
    assert [
        (finding.object, finding.kind, finding.harm) for finding in report.damage if finding.object == name.key
    ] == [(name.key, "damaged", "dedup")]
    assert not report.unreadable
    store_on(backend).repair()
    assert store_on(backend).verify("full").clean
    assert stored_again(backend) < COUNT * 1000


def test_a_node_that_is_gone_is_missed_and_made_anew(backend):
    name = max(name for name in nodes(backend) if name.level == 2)
    backend.delete(name.key)
    assert [finding.kind for finding in store_on(backend).verify().damage] == ["unlisted"]
    store_on(backend).repair()
    assert store_on(backend).verify("full").clean


def test_collections_take_out_the_marks_of_what_they_delete(backend):
    store = store_on(backend)
    before = marks(backend)
    for seed in range(0, COUNT, 2):
        del store.refs[f"a{seed}"]
    collect(store)
    gone = before - marks(backend)
    assert {mark[6:] for mark in gone}.isdisjoint(mark[6:] for mark in marks(backend))
    assert {mark[6:] for mark in marks(backend)} <= {bytes.fromhex(key[-64:])[:6] for key in objects(backend, "packs")}
    check_all(store)
    assert store_on(backend).verify("full").clean


def test_a_collection_reads_one_part_of_the_tree_and_the_next_collections_the_others(backend, monkeypatch):
    """Unless it deletes much. What the others left of what was deleted before is found in its turn."""
    monkeypatch.setattr(deletion, "shares_due", lambda deleted, stored: 1)
    monkeypatch.setattr(deletion, "SHARES", 3)
    store = store_on(backend)
    for seed in range(0, COUNT, 2):
        del store.refs[f"a{seed}"]
    store.plan_gc(grace=0, repack=0).execute(yes_really=True)
    gets = []
    get_tagged = backend.get_tagged
    monkeypatch.setattr(backend, "get_tagged", lambda key: gets.append(key) or get_tagged(key))
    store_on(backend).plan_gc(grace=0, repack=0).execute(yes_really=True)
    read = {name for name in map(tree.node_name, gets) if name is not None and name.level}
    assert len({name.bits % deletion.SHARES for name in read}) <= 1
    left = {mark for mark in marks(backend) if not stored_under(backend, mark)}
    assert left
    assert store_on(backend).verify("full").clean
    for number in range(1, COUNT, 2)[: deletion.SHARES + 1]:  # each but the first deletes a pack
        store = store_on(backend)
        del store.refs[f"a{number}"]
        store.plan_gc(grace=0, repack=0).execute(yes_really=True)
    assert left.isdisjoint(marks(backend))


def stored_under(backend, mark):
    """Whether a pack is stored that a mark names."""
    name = mark[6:].hex()
    return any(backend.list(f"packs/{name[:2]}/{name}"))


@pytest.mark.parametrize(
    ("deleted", "stored", "shares"),
    [
        (1, 10**6, 1),
        (1950, 10**6, 1),
        (1954, 10**6, 2),
        (10**5, 10**6, 52),
        (125_000, 10**6, 64),
        (5, 5, 64),
        (1, 0, 64),
    ],
)
def test_what_is_read_of_the_tree_grows_with_what_is_deleted(deleted, stored, shares):
    assert deletion.shares_due(deleted, stored) == shares


def test_a_pack_that_is_stored_while_a_collection_looks_at_the_tree_keeps_its_marks(backend):
    """What is not listed yet is not gone."""
    hooked = Hooked(backend)
    store = store_on(hooked)
    for seed in range(0, COUNT, 2):
        del store.refs[f"a{seed}"]
    store.plan_gc(grace=0, repack=0).execute(yes_really=True)
    kept = []

    def save():
        writer = store_on(backend)
        kept.append(writer.put(noise(400)))
        writer.refs["new"] = kept[0]

    hooked.on("put_if", "index/", save)
    store.plan_gc(grace=0, repack=0).execute(yes_really=True)
    assert kept
    before = store_on(backend).stats().by_kind["packs"]
    store_on(backend).put({"again": noise(400)})
    assert store_on(backend).stats().by_kind["packs"] - before < 2000


@pytest.mark.parametrize("operation", ["get_range", "put_if", "delete"])
def test_a_writer_and_a_collection_at_the_same_moment_lose_nothing(backend, operation):
    """The writer saves what is being deleted, at the moment when the collector is at the index."""
    hooked = Hooked(backend)
    store = store_on(hooked)
    for seed in range(0, COUNT, 2):
        del store.refs[f"a{seed}"]
    store.plan_gc(grace=0, repack=0).execute(yes_really=True)
    kept = []

    def save():
        writer = store_on(backend)
        kept.append(writer.put(noise(4)))
        writer.refs["back"] = kept[0]

    hooked.on(operation, "index/" if operation != "get_range" else "packs/", save)
    store.plan_gc(grace=0, repack=0).execute(yes_really=True)
    if not kept:
        save()
    np.testing.assert_array_equal(store_on(backend).get(kept[0]), noise(4))
    check_all(store_on(backend))
    assert not store_on(backend).verify("full").unreadable


@pytest.mark.parametrize("who", ["a collection", "a writer whose turn it is"])
def test_the_fragments_of_a_large_store_are_put_into_a_tree(backend, monkeypatch, who):
    """As those of a store that had no tree, with more in them than goes into a root at once."""
    with monkeypatch.context() as patch:
        patch.setattr(folding, "TREE_FROM", 1 << 14)
        for key in nodes(backend).values():
            backend.delete(key)
        store_on(backend).repair()
        assert nodes(backend) == {}
    document = json.loads(backend.get(PATH))
    document.pop("tree", None)
    backend.put(PATH, [json.dumps({**document, "of later versions": 1}).encode()])
    monkeypatch.setattr(folding, "FOLDED_TOGETHER", 10)
    monkeypatch.setattr(index, "MAKES_LARGE_TREE", 1 << 10)
    for seed in range(1000, 1003):  # a number from 1 to 255 is nobody's turn, and is theirs
        store_on(backend).put(noise(seed))
    assert nodes(backend) == {}
    if who == "a collection":
        collect(store_on(backend))
    else:
        monkeypatch.setattr(index, "MAKES_LARGE_TREE", 1)
        store_on(backend).put(noise(1003))
        assert {name.level for name in nodes(backend)} == {0, 1}
    assert [key for key in objects(backend, "index") if digest_in_key(key)] == []
    assert stored_again(backend) < COUNT * 1000
    # Where a listing is a request, nobody has to make one to know of it.
    assert load(backend).tree == backend.capabilities.remote
    assert json.loads(backend.get(PATH))["of later versions"] == 1
    before = backend.get(PATH)
    tell_of_tree(backend)
    tell_of_tree(backend)
    assert (backend.get(PATH) == before) == backend.capabilities.remote
