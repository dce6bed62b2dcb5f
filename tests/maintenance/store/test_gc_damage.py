"""Collecting a store that is damaged, that cannot be read, or that other versions of mfstore use. As in
test_gc_races.py each is one schedule, with the rule that makes it harmless and without."""

import json

import pytest

from mfstore import description, errors
from mfstore.backends.memory import MemoryBackend
from mfstore.format import description as description_format
from mfstore.format import recipes, refs
from mfstore.loading.reliance import Reliance
from mfstore.maintenance.store import gc
from mfstore.maintenance.store.collecting import deletion, liveness, repack, retention
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

# ---- R11 -------------------------------------------------------------------------------------------------------------


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
        monkeypatch.setattr(deletion, "read_refs", lenient_refs)
        monkeypatch.setattr(gc, "trace", lenient_trace)
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
            found[info.key] = retention.RefVersion(info.etag, refs.decode_ref(backend.get(info.key), info.key).entries)
        except errors.MfstoreError:
            continue
    return found


def lenient_trace(backend, lasting, young, staying, packs, codec, progress):
    found = liveness.Liveness(packs, lambda path: True)
    for key in [*lasting, *young]:
        try:
            for name, recipe in liveness.read_recipes(backend, [key], codec):
                found.add(name, recipe)
        except errors.MfstoreError:
            continue
    return found


# ---- R12 -------------------------------------------------------------------------------------------------------------


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


# ---- R13 -------------------------------------------------------------------------------------------------------------


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
        monkeypatch.setattr(repack.Repacker, "read", unchecked_read)
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
        everything = lambda self, places: {chunk.id for chunk, *_ in places}  # noqa: E731
        monkeypatch.setattr(Reliance, "reliable", everything)
    key = writer.save({"old": noise(1)})
    assert same(store_on(inner), key, {"old": noise(1)}) is protected
