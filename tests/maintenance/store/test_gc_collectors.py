"""Races of a collector with itself and with others: clocks, lost answers, collectors that stop, two at once. As in
test_gc_races.py each is one schedule, with the rule that makes it harmless and without."""

import pytest

from mfstore import errors
from mfstore.backends.memory import MemoryBackend
from mfstore.format import collection
from mfstore.maintenance.store.collecting import deletion, ownership
from mfstore.saving import guard
from tests.rigs.gc import (
    DAY,
    Hooked,
    condemned_store,
    noise,
    objects,
    same,
    store_on,
    with_and_without,
)

# ---- R3 --------------------------------------------------------------------------------------------------------------


@with_and_without
def test_r3_the_stores_clock_is_wrong(protected, monkeypatch):
    inner = MemoryBackend()
    store = store_on(inner)
    store.refs["anchor"] = store.put(1)
    key = store.put(noise(1))
    ahead = [0.0]
    real = MemoryBackend.list

    def listed(backend, prefix):
        for info in real(backend, prefix):
            when = info.modified + (ahead[0] if info.key == ownership.CLOCK else 0)
            yield type(info)(info.key, info.size, when, info.etag)

    monkeypatch.setattr(MemoryBackend, "list", listed)
    if not protected:
        monkeypatch.setattr(ownership, "CLOCK_SKEW", float("inf"))
    for days in (2, 4):
        ahead[0] = days * DAY
        if protected:
            with pytest.raises(errors.Refused, match="clock"):
                store.plan_gc()
        else:
            store.plan_gc().execute()
    assert same(store_on(inner), key, noise(1)) is protected


# ---- R5 --------------------------------------------------------------------------------------------------------------


@with_and_without
def test_r5_the_answer_to_a_conditional_write_is_lost_and_the_repetition_refused(protected, monkeypatch):
    inner = condemned_store()
    real, fired = MemoryBackend.put_if, []

    def put_if(self, key, data, etag):
        answer = real(self, key, data, etag)
        if key == collection.STATE and len(fired) < 3:
            fired.append(key)
            raise errors.Conflict("the object changed", key=key)
        return answer

    plan = store_on(inner).plan_gc(grace=0)
    monkeypatch.setattr(MemoryBackend, "put_if", put_if)
    if protected:
        assert plan.execute().deleted.packs == 1
    else:
        monkeypatch.setattr(ownership, "read_state", lambda backend: (collection.State(epoch=-1), None))
        with pytest.raises(errors.Conflict):
            plan.execute()
        assert len(objects(inner, "packs")) == 1


# ---- R8, R9 ----------------------------------------------------------------------------------------------------------


def packs_first(self):
    """A collector that deletes from the bottom up."""
    recipes_, packs_ = dict(self._decision.deletes.recipes), dict(self._decision.deletes.packs)
    recipe_etags, pack_etags = self.look_again(recipes_, packs_)
    self.remove(self._snapshot.packs, packs_, pack_etags)
    self.remove(self._snapshot.recipes, recipes_, recipe_etags)


@with_and_without
def test_r8_a_collector_stops_half_way(protected, monkeypatch):
    inner = condemned_store()
    backend = Hooked(inner)
    if not protected:
        monkeypatch.setattr(deletion.Deletion, "run", packs_first)

    def die():
        raise KeyboardInterrupt

    backend.on("delete_unchanged", "packs/" if protected else "recipes/", die)
    with pytest.raises(KeyboardInterrupt):
        store_on(backend).plan_gc(grace=0).execute()
    broken = [key for key in store_on(inner).keys() if not same(store_on(inner), key, store_on_get(inner, key))]
    assert (broken == []) is protected
    result = store_on(inner).plan_gc(grace=0).execute()
    assert result.deleted
    assert len(objects(inner, "recipes")) == 1
    assert objects(inner, "packs") == []


def store_on_get(inner, key):
    try:
        return store_on(inner).get(key)
    except errors.CorruptObject:
        return None


@with_and_without
@pytest.mark.filterwarnings("ignore:.*another copy was read")
def test_r9_a_collector_dies_between_the_steps_of_a_repack(protected, monkeypatch):
    inner = MemoryBackend()
    store = store_on(inner)
    store.save({str(seed): noise(seed) for seed in range(6)})
    key = store.refs["kept"] = store.save({"one": noise(3)})
    if not protected:
        # The recipes before the pack they name: what a kill loses is then what was not stored yet.
        real = MemoryBackend.put
        monkeypatch.setattr(
            MemoryBackend, "put", lambda self, name, parts: name.startswith("packs/") or real(self, name, parts)
        )
    backend = Hooked(inner)

    def die():
        raise KeyboardInterrupt

    backend.on("put_if", "recipes/", die, after=True)
    with pytest.raises(KeyboardInterrupt):
        store_on(backend).plan_gc(grace=0, repack=1).execute()
    monkeypatch.undo()
    readable = same(store_on(inner), key, {"one": noise(3)})
    # The index still knows the old place, so even then nothing is lost before the old pack is deleted.
    old = [name for name in objects(inner, "packs") if inner.head(name).size > 500_000]
    assert readable
    inner.delete(old[0])
    assert same(store_on(inner), key, {"one": noise(3)}) is protected


# ---- R10 -------------------------------------------------------------------------------------------------------------


@with_and_without
def test_r10_two_collectors_at_once(protected, monkeypatch):
    inner = condemned_store()
    key = next(key for key in store_on(inner).keys() if key != store_on(inner).refs["anchor"])
    backend = Hooked(inner)
    plan = store_on(inner).plan_gc(live=[key], grace=0)
    outcomes = []

    def other():
        if not protected:
            # It takes no notice of the state, and the first one does not look at it again.
            monkeypatch.setattr(ownership.Ownership, "claim", lambda self, *how: None)
            monkeypatch.setattr(ownership.Ownership, "replace", lambda self, **changes: None)
            monkeypatch.setattr(ownership.Ownership, "hold", lambda self: None)
        try:
            outcomes.append(plan.execute())
        except errors.Conflict as error:
            outcomes.append(error)

    backend.on("put_if", collection.STATE, other, after=True)
    store_on(backend).plan_gc(grace=0).execute()
    assert isinstance(outcomes[0], errors.Conflict) is protected
    if protected:
        assert "another collector is at work" in str(outcomes[0])


def test_r10_a_collector_that_was_taken_over_stops():
    inner = condemned_store()
    backend = Hooked(inner)
    outcomes = []

    def other():
        plan = store_on(inner).plan_gc(grace=0)
        assert any("a collector is at work" in warning for warning in plan.warnings)
        with pytest.raises(errors.Conflict, match="take over"):
            plan.execute()
        outcomes.append(plan.execute(take_over=True))

    backend.on("put_if", collection.STATE, other, after=True)
    with pytest.raises(errors.Conflict, match="taken over"):
        store_on(backend).plan_gc(grace=0).execute()
    assert outcomes[0].deleted.packs == 1
    assert guard.read_state(inner)[0].owner == ""


def test_r10_a_silent_collector_is_dead(clock):
    inner = condemned_store()
    backend = Hooked(inner)

    def die():
        raise errors.BackendError("gone")

    backend.on("delete_unchanged", "", die)
    backend.on("put_if", collection.STATE, lambda: backend.on("put_if", collection.STATE, die), after=True)
    with pytest.raises(errors.BackendError):
        store_on(backend).plan_gc(grace=0).execute()
    assert guard.read_state(inner)[0].owner
    with pytest.raises(errors.Conflict, match="sign of life"):
        store_on(inner).plan_gc(grace=0).execute()
    clock.advance(guard.COLLECTOR_SILENCE + 1)
    assert store_on(inner).plan_gc(grace=0).execute().deleted.packs == 1


def test_r10_a_plan_is_carried_out_once():
    inner = condemned_store()
    one, two = store_on(inner).plan_gc(grace=0), store_on(inner).plan_gc(grace=0)
    one.execute()
    with pytest.raises(errors.Conflict, match="since this plan was made"):
        two.execute()
