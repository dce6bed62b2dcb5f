"""Repair while others write: what is stored again meanwhile stays."""

import threading

import numpy as np
import pytest

from mfstore import errors
from mfstore.backends.local import LocalBackend
from mfstore.backends.memory import MemoryBackend
from mfstore.maintenance.store import repair, setting_aside
from mfstore.maintenance.store.collecting import ownership
from mfstore.saving import guard
from tests.rigs.damage import NOISE, damage, unreadable, wrapped
from tests.rigs.gc import RemoteMemory, Unconditional, objects


@pytest.fixture
def memory():
    return MemoryBackend()


def test_a_recipe_that_is_stored_again_while_it_is_rewritten_stays(memory, monkeypatch):
    keys = wrapped(memory).put_many(NOISE[:2])
    for path in objects(memory, "packs"):
        damage(memory, path, lambda data: bytes(len(data)))
    original = repair.RecipeRewriter.resolve
    put = []

    def late(*arguments):
        if not put:
            put.append(wrapped(memory).put_many(NOISE[1::-1]))
        return original(*arguments)

    monkeypatch.setattr(repair.RecipeRewriter, "resolve", late)
    wrapped(memory).repair()
    assert unreadable(memory, dict(zip(keys, NOISE, strict=False))) == set()
    assert wrapped(memory).verify("full").clean


class Slow(RemoteMemory):
    """Deletions take no condition; before the first one of a kind is carried out, the same content is stored again."""

    delete_unchanged = Unconditional.delete_unchanged
    deletes_conditionally = Unconditional.deletes_conditionally
    kind = writer = None

    def delete(self, key):
        if self.kind is not None and key.startswith(self.kind):
            self.kind = None
            self.writer.start()
            assert self.stored.wait(30)
            self.writer.join(0.2)  # it cannot end, while a deletion goes on
        super().delete(key)

    def put(self, key, parts):
        super().put(key, parts)
        if threading.current_thread() is self.writer and key.startswith("recipes/"):
            self.stored.set()


@pytest.mark.parametrize("kind", ["recipes", "packs"])
def test_what_is_stored_again_as_repair_deletes_is_not_acknowledged_and_lost(kind, monkeypatch):
    """Where a deletion takes no condition it may take that: so writers wait for the end, and look."""
    backend, answers = Slow(), []
    keys = wrapped(backend).put_many(NOISE[:2])
    for path in objects(backend, kind):
        damage(backend, path, lambda data: bytes(len(data)))

    def write():
        try:
            answers.append(wrapped(backend).put(NOISE[0]))
        except errors.Conflict as error:
            answers.append(error)

    backend.writer, backend.stored, backend.kind = threading.Thread(target=write), threading.Event(), f"{kind}/"
    wrapped(backend).repair(drop_lost=True)
    backend.writer.join(60)
    if answers == keys[:1]:
        assert np.array_equal(wrapped(backend).get(keys[0]), NOISE[0])
    else:
        assert isinstance(answers[0], errors.Conflict)
    state = guard.read_state(backend)[0]
    assert (state.owner, state.deleting, state.lists) == ("", False, ())
    wrapped(backend).put(NOISE[0])
    assert np.array_equal(wrapped(backend).get(keys[0]), NOISE[0])


def test_repair_waits_until_every_writer_knows_what_goes_and_leaves_a_collector_alone(monkeypatch, clock):
    backend = Slow()
    key = wrapped(backend).put(NOISE[0])
    (path,) = objects(backend, "recipes")
    damage(backend, path, lambda data: bytes(len(data)))
    monkeypatch.setattr(setting_aside, "KNOWN_SECONDS", guard.KNOWLEDGE_SECONDS)
    passed = []

    def sleep(seconds):
        assert backend.exists_many([path]) == [True] and guard.read_state(backend)[0].lists
        passed.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr(setting_aside.time, "sleep", sleep)
    store = wrapped(backend)
    owned = ownership.Ownership(backend, guard.read_state(backend)[0])
    backend.put(ownership.CLOCK, [b""])
    owned.claim(False, False)
    with pytest.raises(errors.Conflict, match="another collector is at work"):
        store.repair()
    assert backend.exists_many([path]) == [True]
    owned.replace(owner="")
    assert store.repair().lost == (key,)
    assert 299 < sum(passed) < 310
    assert backend.exists_many([path]) == [False]


@pytest.mark.parametrize("kind", ["recipes", "packs"])
@pytest.mark.parametrize("place", ["memory", "root"])
def test_what_is_stored_again_while_repair_is_at_work_stays(request, monkeypatch, place, kind):
    """Putting the same content again repairs it, and is acknowledged: repair then must not set aside what was put."""
    found = request.getfixturevalue(place)
    backend = found if place == "memory" else LocalBackend(str(found), fsync="none")
    key = wrapped(backend).put(NOISE[0])
    for path in objects(backend, kind):
        damage(backend, path, lambda data: bytes(len(data)))
    original = repair.plan_repair

    def late(*arguments):
        plan = original(*arguments)
        assert wrapped(backend).put(NOISE[0]) == key
        return plan

    monkeypatch.setattr(repair, "plan_repair", late)
    wrapped(backend).repair(drop_lost=True)
    assert np.array_equal(wrapped(backend).get(key), NOISE[0])
    assert wrapped(backend).verify("full").clean
