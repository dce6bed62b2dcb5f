"""Deltas whose packs tell their bases: whoever moves them, or writes the index anew, keeps that."""

import numpy as np
import pytest

from mfstore._core.codec import DELTAS
from mfstore.backends.memory import MemoryBackend
from mfstore.format.fragments import ENTRY, decode_fragment
from mfstore.maintenance.store.collecting import plan
from tests.rigs.damage import wrapped
from tests.rigs.deltas import recipe_of
from tests.rigs.gc import DAY, objects
from tests.rigs.stored import entries_of_pack, part_of, pieces_of_pack

OLD = np.random.default_rng(1).random(200_000)
NEW = OLD.copy()
NEW[::9000] = -1


@pytest.fixture
def memory():
    """A store of two versions."""
    backend = MemoryBackend()
    with wrapped(backend) as store:
        store.refs["old"] = store.put(OLD)
        store.refs["new"] = store.put(NEW, base="old")
    assert told(backend)
    return backend


def told(backend):
    """All that packs tell of deltas."""
    return {
        chunk: pieces for path in objects(backend, "packs") for chunk, pieces in pieces_of_pack(backend, path).items()
    }


def listed(backend):
    """Chunks that the index lists, and as what."""
    rows = [
        row
        for key in objects(backend, "index")
        for row in ENTRY.iter_unpack(decode_fragment(backend.get(key), key).entries)
    ]
    return {row[0]: row[5] & 0xFF for row in rows}


def added(backend):
    """Bytes that the new version takes beside something else, by who names no base."""
    store = wrapped(backend)
    before = store.stats().stored
    store.put({"again": NEW, "number": len(objects(backend, "recipes"))})
    return store.stats().stored - before


def test_an_index_that_is_rebuilt_lists_deltas_whose_packs_tell_their_bases(memory):
    before = listed(memory)
    for key in objects(memory, "index"):
        memory.delete(key)
    assert wrapped(memory).repair().after.clean
    assert listed(memory) == before
    assert set(DELTAS) & set(listed(memory).values())
    assert added(memory) < 10_000


def test_deltas_that_are_repacked_go_on_telling_their_bases(memory, clock, monkeypatch):
    monkeypatch.setattr(plan, "SMALLEST_REPACKED", 1)
    recipe = recipe_of(memory, wrapped(memory).refs["new"])
    numbers = [number for number, at in enumerate(recipe.placements) if at.pieces]
    key = part_of(memory, recipe, numbers[-3:])
    before, packs = told(memory), objects(memory, "packs")
    with wrapped(memory) as store:
        del store.refs["new"], store.refs["old"]
        store.refs["part"] = key
    for _ in range(3):
        clock.advance(2 * DAY)
        wrapped(memory).plan_gc(repack=1).execute()
    assert set(packs).isdisjoint(objects(memory, "packs"))
    ids = set(told(memory))
    assert len(ids) == 3
    assert told(memory) == {chunk: before[chunk] for chunk in ids}
    assert {chunk for chunk, codec in listed(memory).items() if codec in DELTAS} == ids
    assert wrapped(memory).verify("full").clean


def test_deltas_of_a_damaged_pack_go_on_telling_their_bases(memory):
    path = next(path for path in objects(memory, "packs") if pieces_of_pack(memory, path))
    before = told(memory)
    lost, *rest = [entry for entry in entries_of_pack(memory, path) if entry.codec in DELTAS]
    data = bytearray(memory.get(path))
    data[lost.offset + 1] ^= 1
    memory.put(path, [bytes(data)])
    wrapped(memory).repair()
    assert path not in objects(memory, "packs")
    assert told(memory) == {entry.id: before[entry.id] for entry in rest}
    assert {entry.id for entry in rest} <= listed(memory).keys()
