"""What frees space works without space; what only looks loses nothing that it found."""

import errno
import os

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore.backends import local
from mfstore.maintenance.quarantine import list_quarantine, quarantine

RESERVE = ".reserve"
BLOCK = 512
write_all = local._write_all


@pytest.fixture(params=["collected before", "never planned"])
def full(request, root, monkeypatch):
    """A store with garbage, in a directory that has no room but what is kept in reserve."""
    store = mfstore.open(root, fsync="none")
    kept, _ = store.put_many([np.random.default_rng(seed).random(60_000) for seed in (0, 4)])
    store.refs["a"] = kept
    store.put("garbage")
    if request.param == "collected before":
        store.plan_gc(grace=0).execute()
    for seed in range(1, 4):
        store.put(np.random.default_rng(seed).random(60_000))
    for seed in range(100):
        store.put(f"garbage {seed}")
    room = blocks(root)

    def write(fd, parts):
        if blocks(root) + -(-sum(memoryview(part).nbytes for part in parts) // BLOCK) > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(fd, parts)

    monkeypatch.setattr(local, "_write_all", write)
    with pytest.raises(errors.OutOfSpace):
        store.put("no room")
    return store


def blocks(root):
    """How many are taken below a directory."""
    return sum(
        -(-os.lstat(os.path.join(at, name)).st_size // BLOCK) for at, _, names in os.walk(root) for name in names
    )


def stored(store):
    return sum(info.size for info in store.backend.list("packs/"))


def test_a_full_store_is_collected(full):
    before = stored(full)
    assert os.path.getsize(os.path.join(full.backend.root, RESERVE)) == local.RESERVE_BYTES
    condemned = full.plan_gc(grace=0).execute()
    assert not condemned.repacked and condemned.condemned.packs == 3  # no room for another pack yet
    full.plan_gc(grace=0).execute()
    full.plan_gc(grace=0).execute()
    assert stored(full) < before / 2
    assert len(full.get(full.refs["a"])) == 60_000
    assert full.verify().unreadable == ()


def test_a_pass_over_a_full_store_tells_what_it_found(full):
    pack = next(info.key for info in full.backend.list("packs/"))
    path = os.path.join(full.backend.root, pack)
    with open(path, "r+b") as file:
        file.seek(100_000)
        file.write(b"damage")
    report = full.verify("full")
    assert [finding.object for finding in report.damage] == [pack] and not report.remembered


def test_quarantine_needs_no_room(full):
    pack = next(info.key for info in full.backend.list("packs/"))
    quarantine(full.backend, pack, None)
    assert [item.key for item in list_quarantine(full.backend)] == [pack]


@pytest.mark.parametrize("full", ["never planned"], indirect=True)
def test_more_garbage_than_can_be_listed_goes_in_parts(full, monkeypatch):
    for name, size in ((RESERVE, 5 * BLOCK), (".others", local.RESERVE_BYTES - 5 * BLOCK)):
        with open(os.path.join(full.backend.root, name), "ab") as file:
            file.truncate(size)
    monkeypatch.setattr(local, "RESERVE_BYTES", 5 * BLOCK)
    first = full.plan_gc(grace=0).execute().condemned
    assert 0 < first.recipes + first.packs < 5 * BLOCK // 48
    before = stored(full)
    while full.plan_gc(grace=0).execute().deleted:
        pass
    assert stored(full) < before / 2
    assert full.verify().unreadable == ()
    assert [info.key for info in full.backend.list("recipes/")] == [f"recipes/{full.refs['a'][:2]}/{full.refs['a']}"]


def test_a_history_that_cannot_be_shortened_now_is_left_for_later(root, monkeypatch):
    store = mfstore.open(root, fsync="none")
    for number in range(3):
        store.refs["a"] = store.put(number)
    put_if = local.LocalBackend.put_if

    def no_room_for_refs(self, key, data, etag):
        if key.startswith("refs/"):
            raise errors.OutOfSpace("no room", key=key)
        return put_if(self, key, data, etag)

    with monkeypatch.context() as patch:
        patch.setattr(local.LocalBackend, "put_if", no_room_for_refs)
        result = store.plan_gc(grace=0, keep_last=1).execute()
    assert (result.refs, result.refs_changed, result.condemned.recipes) == (0, 1, 2)
    assert [store.get(entry.key) for entry in store.refs.history("a")] == [2, 1, 0]
    assert store.plan_gc(grace=0, keep_last=1).execute().refs == 1


def test_a_store_keeps_a_reserve_from_its_first_save_on(root):
    store = mfstore.open(root, fsync="none")
    store.put("x")
    assert os.path.getsize(os.path.join(root, RESERVE)) == local.RESERVE_BYTES
    assert RESERVE not in {info.key for info in store.backend.list("")}
    os.unlink(os.path.join(root, RESERVE))  # as earlier versions left it
    os.utime(os.path.join(root, local.SWEPT), (0, 0))
    mfstore.open(root, fsync="none").put("y")
    assert os.path.exists(os.path.join(root, RESERVE))
