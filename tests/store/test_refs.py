"""Refs under bad reads and damage: a history is never lost to a read, and never learns what was not set."""

import json
import re
from itertools import count

import pytest

from mfstore import errors
from mfstore.backends.memory import MemoryBackend
from mfstore.format.digests import Key
from mfstore.format.refs import RefEntry, decode_ref, encode_ref, is_sealed
from tests.rigs.damage import BadReads, wrapped

PATH = "refs/r"
ENTRIES = tuple(RefEntry(Key(f"{number:064x}"), 1.5 * number) for number in range(3))


def without_seal(data):
    """A ref as mfstore 0.1.0 wrote it."""
    document = json.loads(data)
    return json.dumps({"version": 1, "history": document["history"]}).encode()


@pytest.fixture
def backend():
    return MemoryBackend()


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("at", [0.1, 0.25, 0.4, 0.55, 0.7, 0.85])
def test_one_bad_read_costs_no_value_and_invents_none(backend, sealed, bit, at):
    """Whichever read it is, and whichever bit."""
    store = wrapped(backend)
    keys = store.put_many(range(4))
    for key in keys[:3]:
        store.refs["r"] = key
    stored = backend.get(PATH) if sealed else without_seal(backend.get(PATH))

    class OneBadRead(MemoryBackend):
        reads = 0

        def get(self, key):
            data = super().get(key)
            if key != PATH:
                return data
            self.reads += 1
            if self.reads == nth:
                flipped = bytearray(data)
                flipped[int(len(flipped) * at)] ^= 1 << bit
                return bytes(flipped)
            return data

    for nth in count(1):
        backend.put(PATH, [stored])
        place = OneBadRead(backend.url)
        wrapped(place).refs["r"] = keys[3]
        assert [entry.key for entry in store.refs.history("r")] == keys[::-1]
        if place.reads < nth:
            break
        assert is_sealed(backend.get(PATH))
    assert nth == (2 if sealed else 3)


def test_a_damaged_ref_that_is_set_again_is_kept_in_quarantine(backend):
    store = wrapped(backend)
    keys = store.put_many(range(3))
    for key in keys[:2]:
        store.refs["r"] = key
    damaged = backend.get(PATH).replace(keys[0].encode(), keys[2].encode())
    backend.put(PATH, [damaged])
    with pytest.raises(errors.CorruptObject, match="seal"):
        store.refs["r"]
    with pytest.raises(errors.CorruptObject):
        store.refs.set_if("r", keys[2], keys[1])
    store.refs["r"] = keys[2]
    assert store.refs["r"] == keys[2] and len(store.refs.history("r")) == 1
    (kept,) = backend.list("quarantine/")
    assert backend.get(kept.key) == damaged


def test_every_damage_to_a_sealed_ref_is_seen():
    data = encode_ref(ENTRIES)
    assert is_sealed(data) and decode_ref(data, PATH).entries == ENTRIES
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            with pytest.raises((errors.CorruptObject, errors.Unsupported)):
                decode_ref(bytes(damaged), PATH)
        with pytest.raises(errors.CorruptObject):
            decode_ref(data[:at], PATH)


def test_refs_of_the_first_release_are_read_and_those_of_this_one_by_it():
    old = without_seal(encode_ref(ENTRIES))
    assert not is_sealed(old) and decode_ref(old, PATH).entries == ENTRIES
    document = json.loads(encode_ref(ENTRIES))  # as it read them: by these two names
    assert document["version"] == 1 and [key for key, _ in document["history"]] == [entry.key for entry in ENTRIES]
    assert re.fullmatch("[0-9a-f]{16}", document["seal"])


@pytest.mark.parametrize("time", ["NaN", "Infinity", "1764460000e123", "-1e300"])
def test_a_time_that_no_calendar_has_is_damage(time):
    data = b'{"version": 1, "history": [["%s", %s]]}' % (ENTRIES[0].key.encode(), time.encode())
    with pytest.raises(errors.CorruptObject):
        decode_ref(data, PATH)


def test_bad_reads_stop_no_collection(backend):
    store = wrapped(backend)
    keys = store.put_many([list(range(1000)), "kept"])
    store.refs["a"], store.refs["b"] = keys
    store.plan_gc(grace=0).execute()
    for nth in count(1):
        place = BadReads(backend.url, nth)
        plan = wrapped(place).plan_gc(grace=0)
        assert plan.decision.condemns.amount.recipes == 0
        if place.reads < nth:
            break
    assert nth > 5
    assert store.verify("full").clean
