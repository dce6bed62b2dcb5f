"""No descriptor stays open, wherever an operation in a directory is interrupted, or a descriptor fails to close."""

import contextlib
import errno
import fcntl
import gc
import itertools
import os

import pytest

from mfstore.backends import local
from mfstore.errors import MfstoreError
from tests.rigs.descriptors import open_below
from tests.rigs.interrupts import Interrupt

STEPS = {local.__file__, contextlib.__file__}
"""The backend, and what drives its context managers."""


def set_ref(backend):
    backend.put_if("refs/a", b"new", backend.head("refs/a").etag)


def commit(backend):
    with backend.batch() as batch:
        batch.put("packs/ab/c", [b"1", b"2"])
        batch.ensure(["packs/ab/a"])
        batch.commit()


OPERATIONS = {
    "put": commit,
    "get": lambda backend: backend.get("packs/ab/a"),
    "read_again": lambda backend: backend.read_again("packs/ab/a"),
    "map": lambda backend: backend.map("packs/ab/a", 0, 1),
    "list": lambda backend: list(backend.list("")),
    "put_if": set_ref,
    "copy": lambda backend: backend.copy("packs/ab/a", "packs/ab/b"),
    "delete": lambda backend: backend.delete("packs/ab/a"),
    "delete_unchanged": lambda backend: backend.delete_unchanged({"packs/ab/a": backend.head("packs/ab/a").etag}),
    "move_unchanged": lambda backend: backend.move_unchanged(
        "refs/a", "quarantine/refs/a", backend.head("refs/a").etag
    ),
    "keep_reserve": lambda backend: backend.keep_reserve(),
    "sweep": lambda backend: local.LocalBackend(backend.root)._sweep(),
}


def fill(root):
    """What the operations need, anew."""
    for key in ("packs/ab/a", "refs/a", local.COLLECTED):
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
    for name in (local.RESERVE, local.SWEPT):
        (root / name).unlink(missing_ok=True)


def left(backend):
    """What is open below the store, and whether its lock is held."""
    gc.collect(0)
    if found := open_below(backend.root):
        return found
    with open(os.path.join(backend.root, local.LOCK), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return []


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """Of a store. Nothing waits for the disk."""
    monkeypatch.setattr(local, "_flush", lambda fd: None)
    return tmp_path / "store"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", [*OPERATIONS, "put, following links", "put, step by step"])
def test_ctrl_c_anywhere_leaves_nothing_open(directory, name, monkeypatch):
    name, _, how = name.partition(", ")
    if how == "step by step":
        monkeypatch.setattr(local, "OPENS_PLAINLY", False)
    backend = local.LocalBackend(str(directory), fsync="always", follow_links=how == "following links")
    for n in itertools.count(1):
        fill(directory)
        interrupt = Interrupt(n, STEPS)
        with interrupt:
            OPERATIONS[name](backend)
        if not interrupt.came:
            break
        assert left(backend) == [], interrupt.at
    assert n > 5


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_descriptor_that_fails_to_close_leaves_no_other_open(directory, name, monkeypatch):
    backend = local.LocalBackend(str(directory), fsync="always")
    close = os.close

    def failing(fd):
        nonlocal to_come
        close(fd)
        to_come -= 1
        if to_come == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    for n in itertools.count(1):
        fill(directory)
        to_come = n
        with monkeypatch.context() as patch, contextlib.suppress(MfstoreError):
            patch.setattr(os, "close", failing)
            OPERATIONS[name](backend)
        assert left(backend) == [], n
        if to_come > 0:
            break
