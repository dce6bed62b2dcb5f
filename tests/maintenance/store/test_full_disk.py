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


@pytest.fixture
def full(root, monkeypatch):
    """A store with garbage, in a directory that has no room but what is kept in reserve."""
    store = mfstore.open(root, fsync="none")
    store.refs["a"] = store.put(np.random.default_rng(0).random(60_000))
    store.put("garbage")
    store.plan_gc(grace=0).execute()
    for seed in range(1, 4):
        store.put(np.random.default_rng(seed).random(60_000))
    write_all, left = local._write_all, [0]

    def write(fd, parts):
        size = sum(memoryview(part).nbytes for part in parts)
        if not os.path.exists(os.path.join(root, RESERVE)) and not left[0]:
            left[0] = local.RESERVE_BYTES
        if size > left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= size
        write_all(fd, parts)

    monkeypatch.setattr(local, "_write_all", write)
    with pytest.raises(errors.OutOfSpace):
        store.put("no room")
    return store


def stored(store):
    return sum(info.size for info in store.backend.list("packs/"))


def test_a_full_store_is_collected(full):
    before = stored(full)
    assert os.path.getsize(os.path.join(full.backend.root, RESERVE)) == local.RESERVE_BYTES
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


def test_only_a_store_that_is_collected_keeps_a_reserve(root):
    store = mfstore.open(root, fsync="none")
    store.refs["a"] = store.put("x")
    assert not os.path.exists(os.path.join(root, RESERVE))
    store.plan_gc(grace=0)  # even if there is nothing to collect
    assert os.path.exists(os.path.join(root, RESERVE))
    assert {info.key.partition("/")[0] for info in store.backend.list("")} >= {"gc", "recipes"}
    assert RESERVE not in {info.key for info in store.backend.list("")}
