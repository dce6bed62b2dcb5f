"""Each race between a collector and those who read and write meanwhile as one schedule, with the rule that makes it
harmless and without.

Without the rule the schedule must do its harm: a test that could not tell would prove nothing. The numbers are those of
the list of races in docs/gc.md.
"""

import threading

import pytest

from mfstore import errors, handle
from mfstore.backends.memory import MemoryBackend
from mfstore.format import fragments
from mfstore.maintenance.store.collecting import deletion
from mfstore.saving import guard, index
from tests.rigs.gc import (
    DAY,
    HOUR,
    Hooked,
    RemoteMemory,
    Unconditional,
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

# ---- R1 --------------------------------------------------------------------------------------------------------------


@with_and_without
def test_r1_a_writer_finds_a_chunk_that_is_about_to_be_deleted(protected, monkeypatch):
    inner = condemned_store()
    backend = Hooked(inner)
    if not protected:
        forget_lists(monkeypatch)
    acknowledged = []
    writer = informed(inner)
    # After the collector's last look, before its first deletion of a pack.
    backend.on("delete_unchanged", "packs/", lambda: acknowledged.append(writer.save({"old": noise(1), "new": 2})))
    store_on(backend).plan_gc(grace=0).execute()
    assert not backend.waiting
    assert same(store_on(inner), acknowledged[0], {"old": noise(1), "new": 2}) is protected


@with_and_without
def test_r1_a_recipe_appears_between_the_plan_and_the_deletion(protected, monkeypatch):
    """A writer that knows no lists, or began before there were any: the collector looks again."""
    inner = condemned_store()
    plan = store_on(inner).plan_gc(grace=0)
    with monkeypatch.context() as context:
        forget_lists(context)
        key = store_on(inner).save({"old": noise(1), "new": 2})
    if not protected:
        monkeypatch.setattr(deletion.Deletion, "spare", lambda *names: None)
    result = plan.execute()
    assert (result.deleted.packs == 0) is protected
    assert same(store_on(inner), key, {"old": noise(1), "new": 2}) is protected


@with_and_without
def test_r1_a_whole_condemned_object_is_put_again(protected, monkeypatch):
    inner = condemned_store()
    plan = store_on(inner).plan_gc(grace=0)
    if not protected:
        forget_lists(monkeypatch)
    key = store_on(inner).put(noise(1))
    plan.execute()
    assert same(store_on(inner), key, noise(1)) is protected


@with_and_without
@pytest.mark.parametrize("when", ["between plan and deletion", "during the deletion"])
def test_r1_a_ref_is_set_to_a_condemned_key(protected, when, monkeypatch):
    inner = condemned_store()
    key = next(key for key in store_on(inner).keys() if key != store_on(inner).refs["anchor"])
    monkeypatch.setattr(guard, "DELETION_WAIT", 0.05)
    named = []

    def name_it():
        try:
            store_on(inner).refs["back"] = key
            named.append(key)
        except errors.MfstoreError:
            assert "back" not in store_on(inner).refs

    backend = Hooked(inner)
    plan = store_on(backend).plan_gc(grace=0)
    if when == "during the deletion":
        if not protected:
            monkeypatch.setattr(guard.Guard, "confirm", lambda *names: None)
        backend.on("delete_unchanged", "recipes/", name_it)
    else:
        if not protected:
            monkeypatch.setattr(deletion.Deletion, "spare", lambda *names: None)
        name_it()
    plan.execute()
    lost = bool(named) and not same(store_on(inner), key, noise(1))
    assert lost is not protected


# ---- R2 --------------------------------------------------------------------------------------------------------------


@with_and_without
@pytest.mark.parametrize("whose", ["another's pack", "its own pack"])
def test_r2_a_writer_stalls_for_longer_than_the_grace_period(protected, whose, monkeypatch, clock):
    inner = MemoryBackend()
    store = store_on(inner)
    store.refs["anchor"] = store.put(1)
    if whose == "another's pack":
        store.put(noise(1))
    clock.advance(2 * DAY)
    backend = Hooked(inner)

    def two_days_later():
        for _ in range(2):
            clock.advance(25 * HOUR)
            store_on(inner).plan_gc().execute()

    # Its packs are stored, or found; its recipe is not.
    backend.on("batch.put", "recipes/", two_days_later)
    if not protected:
        monkeypatch.setattr(guard.Guard, "confirm", lambda *names: None)
    writer = store_on(backend)
    if protected:
        with pytest.raises(errors.Conflict, match="do it again"):
            writer.save({"old": noise(1), "new": 2})
    else:
        key = writer.save({"old": noise(1), "new": 2})
        assert not same(store_on(inner), key, {"old": noise(1), "new": 2})
    assert not backend.waiting
    again = store_on(inner).save({"old": noise(1), "new": 2})
    assert same(store_on(inner), again, {"old": noise(1), "new": 2})


# ---- R4 --------------------------------------------------------------------------------------------------------------


@with_and_without
@pytest.mark.parametrize("kind", ["packs/", "recipes/"])
def test_r4_a_name_is_stored_again_while_it_is_being_deleted(protected, kind, monkeypatch):
    inner = condemned_store()
    backend = Hooked(inner)
    if not protected:
        monkeypatch.setattr(
            MemoryBackend, "delete_unchanged", lambda self, seen: [self.delete(key) is None for key in seen]
        )
    keys = []
    backend.on("delete_unchanged", kind, lambda: keys.append(store_on(inner).put(noise(1))))
    result = store_on(backend).plan_gc(grace=0).execute()
    assert same(store_on(inner), keys[0], noise(1)) is protected
    assert (result.changed > 0) is protected


@with_and_without
@pytest.mark.parametrize("kind", ["packs/", "recipes/"])
def test_r4_where_deletions_take_no_condition(protected, kind, monkeypatch):
    """The writer waits until a deletion under way must have happened, looks, and does not acknowledge what is gone."""
    inner = condemned_store(Unconditional)
    monkeypatch.setattr(guard, "DELETION_WINDOW", 0.3)
    if not protected:
        monkeypatch.setattr(guard.Guard, "confirm", lambda *names: None)
    answers = []

    def write():
        try:
            answers.append(store_on(inner).put(noise(1)))
        except errors.Conflict as error:
            answers.append(error)

    writer = threading.Thread(target=write)
    real = Unconditional.delete
    stored_again = threading.Event()

    def put(self, key, parts, real=MemoryBackend.put):
        real(self, key, parts)
        if key.startswith("recipes/") and threading.current_thread() is writer:
            stored_again.set()

    def delete(self, key):
        # Between the collector's look and its deletion.
        if key.startswith(kind) and not writer.ident:
            writer.start()
            assert stored_again.wait(30)
        real(self, key)

    monkeypatch.setattr(Unconditional, "put", put)
    monkeypatch.setattr(Unconditional, "delete", delete)
    store_on(inner).plan_gc(grace=0).execute()
    writer.join(60)
    if protected:
        assert isinstance(answers[0], errors.Conflict)
        assert same(store_on(inner), store_on(inner).put(noise(1)), noise(1))
    else:
        assert not same(store_on(inner), answers[0], noise(1))


# ---- R6 --------------------------------------------------------------------------------------------------------------


@with_and_without
def test_r6_a_writer_remembers_where_a_chunk_was(protected, monkeypatch, clock):
    if not protected:
        monkeypatch.setattr(handle.Handle, "forget_removed", lambda handle: None)
    inner = RemoteMemory()
    writer = store_on(inner)
    writer.refs["anchor"] = writer.put(1)
    writer.put(noise(1))
    writer.save({"old": noise(1)})  # found, vouched for, remembered
    for _ in range(2):
        clock.advance(25 * HOUR)
        store_on(inner).plan_gc().execute()
    assert objects(inner, "packs") == []
    key = writer.save({"old": noise(1), "more": 3})
    assert same(store_on(inner), key, {"old": noise(1), "more": 3}) is protected


@with_and_without
def test_r6_the_index_forgets_a_pack_before_the_first_deletion(protected, monkeypatch):
    inner = condemned_store()
    backend = Hooked(inner)
    found = []

    def look():
        for key in objects(inner, "index"):
            found.extend(fragments.decode_fragment(inner.get(key), key).packs)

    if not protected:
        monkeypatch.setattr(deletion.Deletion, "rewrite_index", lambda *names: None)
    backend.on("delete_unchanged", "", look)
    store_on(backend).plan_gc(grace=0).execute()
    assert (found == []) is protected


# ---- R7 --------------------------------------------------------------------------------------------------------------


@with_and_without
@pytest.mark.filterwarnings("ignore:.*another copy was read")
def test_r7_a_reader_has_the_recipe_of_before_a_repack(protected, monkeypatch):
    inner = MemoryBackend()
    store = store_on(inner)
    store.save({str(seed): noise(seed) for seed in range(6)})
    key = store.refs["kept"] = store.save({"one": noise(3)})
    backend = Hooked(inner)
    backend.on("get_range", "packs/", lambda: collect(store_on(inner), repack=1))
    backend.on("read_into", "packs/", lambda: collect(store_on(inner), repack=1))
    if not protected:
        monkeypatch.setattr(index.ChunkIndex, "find_all", lambda *names: [])
    before = objects(inner, "packs")
    assert same(store_on(backend), key, {"one": noise(3)}) is protected
    assert objects(inner, "packs") != before
    assert same(store_on(inner), key, {"one": noise(3)})
