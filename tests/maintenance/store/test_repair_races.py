"""Repair while others write: what is stored again meanwhile stays."""

import numpy as np
import pytest

from mfstore.backends.local import LocalBackend
from mfstore.backends.memory import MemoryBackend
from mfstore.maintenance.store import repair
from tests.rigs.damage import NOISE, damage, unreadable, wrapped
from tests.rigs.gc import objects


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
