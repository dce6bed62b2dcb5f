"""Races among collectors, with programs of other versions, and over what is damaged (see test_gc_races.py)."""

import json

import pytest

from mfstore import description, errors
from mfstore.backends.memory import MemoryBackend
from mfstore.format import collection, recipes
from mfstore.format import description as description_format
from mfstore.maintenance.store import gc
from mfstore.maintenance.store.collecting import liveness as marks
from mfstore.maintenance.store.collecting import repack
from mfstore.saving import guard
from tests.rigs.gc import (
    Hooked,
    collect,
    condemned_store,
    forget_lists,
    informed,
    noise,
    objects,
    same,
    store_on,
    with_and_without,
)

# ---- R8, R9 -------------------------------------------------------------------------------------------------------------


def packs_first(self):
    """A collector that deletes from the bottom up."""
    recipes_, packs_ = dict(self._decision.deletes.recipes), dict(self._decision.deletes.packs)
    etags = self._look_again(recipes_, packs_)
    self._remove(self._plan.packs, packs_, etags["packs"])
    self._remove(self._plan.recipes, recipes_, etags["recipes"])


@with_and_without
def test_r8_a_collector_stops_half_way(protected, monkeypatch):
    inner = condemned_store()
    backend = Hooked(inner)
    if not protected:
        monkeypatch.setattr(gc._Collector, "_delete", packs_first)

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


# ---- R10 ----------------------------------------------------------------------------------------------------------------


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
            monkeypatch.setattr(gc._Collector, "_claim", lambda self: None)
            monkeypatch.setattr(gc._Collector, "_replace", lambda self, **changes: None)
            monkeypatch.setattr(gc._Collector, "_hold", lambda self: None)
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


# ---- R11 ----------------------------------------------------------------------------------------------------------------


@with_and_without
@pytest.mark.parametrize("what", ["recipe denied", "recipe damaged", "ref damaged", "pack missing", "pack short"])
def test_r11_something_that_is_needed_cannot_be_read(protected, what, monkeypatch):
    inner = MemoryBackend()
    store = store_on(inner)
    key = store.refs["kept"] = store.save({"a": noise(1), "b": noise(2)})
    store.refs["other"] = store.put(7)
    store.put(noise(3))
    saved = dict(inner._objects)
    recipe = recipes.recipe_path(key)
    pack = max(objects(inner, "packs"), key=lambda name: inner.head(name).size)
    if what == "recipe denied":
        real = MemoryBackend.get

        def get(self, name):
            if name == recipe:
                raise errors.AccessDenied("no", key=name)
            return real(self, name)

        monkeypatch.setattr(MemoryBackend, "get", get)
    elif what == "recipe damaged":
        inner.put(recipe, [inner.get(recipe)[:-1]])
    elif what == "ref damaged":
        inner.put("refs/kept", [b"{"])
    elif what == "pack missing":
        inner.delete(pack)
    else:
        inner.put(pack, [inner.get(pack)[:1000]])
    if protected:
        with pytest.raises(errors.MfstoreError, match="garbage collection stops"):
            store_on(inner).plan_gc(grace=0)
    else:
        # A collector that goes on with what it can read.
        monkeypatch.setattr(gc, "read_refs", lenient_refs)
        monkeypatch.setattr(gc, "mark", lenient_mark)
        collect(store_on(inner))
    # The trouble was passing: what was unreadable is as before.
    monkeypatch.undo()
    for name in (recipe, pack, "refs/kept"):
        if name == pack and what not in ("pack missing", "pack short"):
            continue
        if name == recipe and what == "recipe denied":
            continue
        inner._objects[name] = saved[name]
    harmless = what in ("pack missing", "pack short")  # its pack was all it needed
    assert same(store_on(inner), key, {"a": noise(1), "b": noise(2)}) is (protected or harmless)


def lenient_refs(backend):
    found = {}
    for info in backend.list("refs/"):
        try:
            found[info.key] = marks.RefVersion(info.etag, tuple(marks.decode_ref(backend.get(info.key), info.key)))
        except errors.MfstoreError:
            continue
    return found


def lenient_mark(backend, lasting, young, packs, codec, progress):
    found = marks.Marks(packs, lambda path: True)
    for key in [*lasting, *young]:
        try:
            for name, recipe in marks.read_recipes(backend, [key], codec):
                found.add(name, recipe)
        except errors.MfstoreError:
            continue
    return found


# ---- R12 ----------------------------------------------------------------------------------------------------------------


@with_and_without
@pytest.mark.parametrize("operation", ["read", "write", "delete"])
def test_r12_the_store_is_of_a_newer_kind(protected, operation, monkeypatch):
    inner = condemned_store()
    document = json.loads(inner.get(description_format.PATH))
    document["features"][operation].append("locked-packs")
    inner.put(description_format.PATH, [json.dumps(document).encode()])
    if not protected:
        monkeypatch.setattr(description.Description, "require", lambda *names: None)
        assert store_on(inner).plan_gc(grace=0).execute().deleted.packs == 1
        return
    before = dict(inner._objects)
    with pytest.raises(errors.Unsupported, match=f"needs locked-packs to {operation}.*Upgrade"):
        store_on(inner).plan_gc(grace=0)
    assert inner._objects == before


@with_and_without
def test_r12_a_writer_from_before_there_were_lists(protected, monkeypatch):
    if not protected:
        monkeypatch.setattr("mfstore.maintenance.store.gc.enable", lambda *names: None)
    inner = condemned_store()
    backend = Hooked(inner)
    with monkeypatch.context() as context:
        forget_lists(context)
        writer = informed(inner)
    keys = []

    def old_program():
        with monkeypatch.context() as context:
            context.setattr(description_format, "KNOWN_FEATURES", frozenset())
            forget_lists(context)
            try:
                keys.append(writer.save({"old": noise(1), "new": 2}))
            except errors.Unsupported as error:
                assert "Upgrade" in str(error)
            # It still reads.
            assert store_on(inner).get(store_on(inner).refs["anchor"]) == 1

    backend.on("delete_unchanged", "packs/", old_program)
    plan = store_on(backend).plan_gc(grace=0)
    plan.execute()
    assert (keys == []) is protected
    assert protected or not same(store_on(inner), keys[0], {"old": noise(1), "new": 2})


# ---- R13 ----------------------------------------------------------------------------------------------------------------


@with_and_without
def test_r13_damage_is_not_moved(protected, monkeypatch):
    inner = MemoryBackend()
    store = store_on(inner)
    store.save({str(seed): noise(seed) for seed in range(6)})
    key = store.refs["kept"] = store.save({"one": noise(3)})
    pack = objects(inner, "packs")[0]
    good = inner._objects[pack]
    data = bytearray(inner.get(pack))
    at = bytes(data).index(noise(3).tobytes()[:64])
    data[at] ^= 1
    inner.put(pack, [bytes(data)])
    if not protected:
        monkeypatch.setattr(repack.Repacker, "_read", unchecked_read)
    result = store_on(inner).plan_gc(grace=0, repack=1).execute()
    store_on(inner).plan_gc(grace=0, repack=1).execute()
    assert (result.repacked == 0) is protected
    # The pack comes back from a copy of the store.
    inner._objects[pack] = good
    assert same(store_on(inner), key, {"one": noise(3)}) is protected


def unchecked_read(self, pack, run):
    path = f"packs/{pack.hex()[:2]}/{pack.hex()}"
    start, end = run[0].offset, run[-1].offset + run[-1].csize
    return memoryview(self._backend.get_range(path, start, end - start))


@with_and_without
def test_r13_a_hit_on_a_truncated_pack(protected, monkeypatch):
    inner = MemoryBackend()
    store = store_on(inner)
    store.put(noise(1))
    pack = objects(inner, "packs")[0]
    inner.put(pack, [inner.get(pack)[:5000]])
    writer = store_on(inner)
    if not protected:
        everything = lambda self, places: {chunk.id for chunk, _, _ in places}  # noqa: E731
        monkeypatch.setattr(type(writer.handle.fetcher), "reliable", everything)
    key = writer.save({"old": noise(1)})
    assert same(store_on(inner), key, {"old": noise(1)}) is protected
