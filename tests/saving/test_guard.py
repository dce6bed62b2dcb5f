"""What a writer knows of a collection, and when it may acknowledge what it wrote."""

import pytest

from mfstore.backends.memory import MemoryBackend
from mfstore.errors import Conflict, CorruptObject
from mfstore.format.collection import STATE, ListRef, State, decode_list, encode_list, encode_state, seal_etag
from mfstore.format.packs import pack_path
from mfstore.format.recipes import recipe_path
from mfstore.saving import guard
from mfstore.saving.guard import NEVER_COLLECTED, Condemned, Guard, Names

OLD, NEW = b"o" * 32, b"n" * 32


class Collected:
    """A backend with a collection state, and the guard of a writer."""

    def __init__(self):
        self.backend = MemoryBackend()
        self.changes = 0
        self.guard = Guard(self.backend, lambda: True, self._changed)

    def _changed(self):
        self.changes += 1

    def condemn(self, *packs, **state):
        """What a collector publishes: its list first, of the versions that are stored, then the state that names it."""
        key = f"gc/condemned/{len(list(self.backend.list('gc/')))}"
        stored = {info.key: seal_etag(info.etag) for info in self.backend.list("packs/")}
        self.backend.put(key, [encode_list({}, {name: stored.get(pack_path(name.hex()), 1) for name in packs})])
        self.publish(ListRef(key, 0.0, 0, len(packs), 0), **state)
        return key

    def publish(self, *lists, **state):
        self.backend.put(STATE, [encode_state(State(owner="collector", lists=lists, **state))])

    def store(self, *packs):
        for name in packs:
            self.backend.put(pack_path(name.hex()), [b"pack"])


@pytest.fixture
def collected():
    return Collected()


@pytest.fixture
def no_wait(monkeypatch):
    monkeypatch.setattr(guard, "DELETION_WAIT", 0.0)


def packs(*names):
    return Names(packs=bytearray(b"".join(names)))


# ---- values -------------------------------------------------------------------------


def test_names_say_where_they_are_stored():
    names = Names(bytearray(OLD + NEW), bytearray(OLD))
    assert list(names.paths()) == [recipe_path(OLD.hex()), recipe_path(NEW.hex()), pack_path(OLD.hex())]
    assert list(Names().paths()) == []


def test_condemned_tells_recipes_and_packs_apart():
    view = Condemned(NEVER_COLLECTED, (decode_list(encode_list({OLD: 1}, {NEW: 1}), "one"),))
    assert view.recipe(OLD)
    assert not view.recipe(NEW)
    assert view.pack(NEW)
    assert not view.pack(OLD)
    assert view.concerns(Names(recipes=bytearray(NEW + OLD)))
    assert not view.concerns(Names(recipes=bytearray(NEW), packs=bytearray(OLD)))
    assert not view.concerns(Names())
    assert view
    assert not Condemned()


# ---- what is known ------------------------------------------------------------------


def test_a_store_that_was_never_collected(collected):
    assert collected.guard.condemned() == Condemned()
    assert collected.changes == 0
    collected.guard.confirm(Condemned(), packs(NEW), Names())


def test_what_is_condemned_is_known_at_once_and_what_was_remembered_is_dropped(collected):
    assert not collected.guard.condemned().pack(OLD)
    collected.condemn(OLD, epoch=1)
    assert collected.guard.condemned().pack(OLD)
    assert collected.changes == 1
    assert collected.guard.condemned() is collected.guard.read()  # nothing new
    assert collected.changes == 1


def test_a_missing_list_is_damage(collected):
    collected.backend.delete(collected.condemn(OLD, epoch=1))
    with pytest.raises(CorruptObject, match="gc --execute"):
        collected.guard.condemned()


# ---- what may be acknowledged -------------------------------------------------------


def test_what_is_not_condemned_needs_no_look(collected):
    collected.condemn(OLD, epoch=1)
    before = collected.guard.condemned()
    collected.guard.confirm(before, packs(NEW), packs(NEW))  # it is not even stored


def test_what_was_condemned_meanwhile_is_kept_by_a_deletion_that_has_not_begun(collected):
    before = collected.guard.condemned()
    collected.condemn(OLD, epoch=1)
    collected.guard.confirm(before, Names(), packs(OLD))


@pytest.mark.parametrize("left", [OLD, NEW])
def test_what_a_deletion_took_is_not_acknowledged(collected, left):
    """Whether this operation wrote it or relied on it."""
    collected.store(left)
    collected.condemn(OLD, epoch=1)
    before = collected.guard.condemned()
    collected.publish(epoch=3, deletions=1)
    with pytest.raises(Conflict, match="removed what this operation relied on"):
        collected.guard.confirm(before, packs(NEW), packs(OLD))


def test_what_a_deletion_left_is_acknowledged(collected):
    collected.store(OLD, NEW)
    collected.condemn(OLD, epoch=1)
    before = collected.guard.condemned()
    collected.publish(epoch=3, deletions=1)
    collected.guard.confirm(before, packs(NEW), packs(OLD))


def test_a_deletion_at_work_is_waited_for_and_then_given_up(collected, no_wait):
    before = collected.guard.condemned()
    collected.store(OLD)
    collected.condemn(OLD, epoch=2, deletions=1, deleting=True)
    with pytest.raises(Conflict, match="is deleting what this operation relied on"):
        collected.guard.confirm(before, Names(), packs(OLD))


@pytest.mark.parametrize("conditional", [True, False])
def test_what_somebody_else_stored_again_is_relied_on_while_the_old_version_is_deleted(
    collected, no_wait, monkeypatch, conditional
):
    monkeypatch.setattr(MemoryBackend, "deletes_conditionally", lambda self: conditional)
    monkeypatch.setattr(guard.time, "sleep", lambda seconds: None)
    collected.store(OLD)
    collected.condemn(OLD, epoch=2, deletions=1, deleting=True)
    before = collected.guard.condemned()
    with pytest.raises(Conflict, match="Store the content again, or run mfstore gc"):
        collected.guard.confirm(before, Names(), packs(OLD))
    collected.store(OLD)
    collected.guard.confirm(before, Names(), packs(OLD))


def test_a_deletion_that_ends_is_waited_for(collected, monkeypatch):
    before = collected.guard.condemned()
    collected.store(OLD)
    collected.condemn(OLD, epoch=2, deletions=1, deleting=True)
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        collected.publish(epoch=3, deletions=1)

    monkeypatch.setattr(guard.time, "sleep", sleep)
    collected.guard.confirm(before, Names(), packs(OLD))
    assert pauses == [0.01]


def test_what_was_stored_again_is_safe_from_a_deletion_by_version(collected, no_wait):
    """The memory backend deletes only the version that was condemned."""
    collected.condemn(OLD, epoch=2, deletions=1, deleting=True)
    before = collected.guard.condemned()
    collected.guard.confirm(before, packs(OLD), Names())
