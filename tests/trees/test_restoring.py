"""Restoring: nothing outside of the destination is touched, nothing there is lost, and whatever ends it leaves whole files
or nothing."""

import errno
import os
import shutil
import stat

import pytest

import mfstore
from mfstore._core.descriptor import Descriptor
from mfstore.errors import CorruptObject, MfstoreError, OutOfSpace, Refused, Unsupported
from mfstore.format.manifest import TreeEntry, encode
from mfstore.format.recipes import ONE, TREE
from mfstore.trees import restoring

OLD, NEW = b"old" * 50, b"new" * 40_000


@pytest.fixture
def key(store, tmp_path):
    source = tmp_path / "source"
    (source / "d" / "e").mkdir(parents=True)
    for name in ("a", "d/b", "d/e/c"):
        (source / name).write_bytes(NEW + name.encode())
    (source / "d" / "again").write_bytes(NEW + b"a")
    (source / "link").symlink_to("a")
    (source / "d" / "e").chmod(0o500)
    return store.put_tree(source)


def names(top):
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


ALL = ["a", "d", "d/again", "d/b", "d/e", "d/e/c", "link"]


# ---- what is there --------------------------------------------------------------------


def test_what_is_there_stays_unless_it_is_to_be_replaced(store, key, tmp_path):
    to = tmp_path / "to"
    (to / "d").mkdir(parents=True, mode=0o711)
    (to / "d" / "b").write_bytes(OLD)
    (to / "other").write_bytes(OLD)
    to.chmod(0o711)
    with pytest.raises(Refused, match="existing='keep'"):
        store.get_tree(key, to)
    assert names(to) == ["d", "d/b", "other"]
    store.get_tree(key, to, existing="keep")
    assert names(to) == sorted([*ALL, "other"])
    assert (to / "d" / "b").read_bytes() == OLD and (to / "a").read_bytes() == NEW + b"a"
    assert stat.S_IMODE((to / "d").stat().st_mode) == stat.S_IMODE(to.stat().st_mode) == 0o711
    store.get_tree(key, to, existing="replace")
    assert (to / "d" / "b").read_bytes() == NEW + b"d/b" and (to / "other").read_bytes() == OLD
    assert stat.S_IMODE((to / "d").stat().st_mode) == stat.S_IMODE(to.stat().st_mode) == 0o755


@pytest.mark.parametrize("existing", ["refuse", "keep"])
@pytest.mark.parametrize("name", ["d/b", "link"])
def test_what_comes_there_meanwhile_stays(store, key, tmp_path, monkeypatch, existing, name):
    to = tmp_path / "to"
    to.mkdir()

    def write(fd, data):
        (to / name).write_bytes(OLD)
        os.write(fd, data)

    monkeypatch.setattr(restoring, "write", write)
    with pytest.raises(Refused, match="somebody else"):
        store.get_tree(key, to, existing=existing)
    assert (to / name).read_bytes() == OLD
    assert not [path for path in names(to) if ".mfstore" in path]


def test_a_directory_that_comes_there_meanwhile_stays(store, key, tmp_path, monkeypatch):
    to = tmp_path / "to"

    def write(fd, data):
        to.mkdir(exist_ok=True)
        (to / "other").write_bytes(OLD)
        os.write(fd, data)

    monkeypatch.setattr(restoring, "write", write)
    with pytest.raises(Refused, match="somebody else"):
        store.get_tree(key, to)
    assert names(to) == ["other"]
    assert sorted(os.listdir(tmp_path)) == ["source", "store", "to"]


def test_directories_of_an_interrupted_restore_become_as_stored(store, key, tmp_path, monkeypatch):
    to = tmp_path / "to"
    to.mkdir()

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(restoring.Destination, "finish_directories", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.get_tree(key, to)
    (to / "d" / "e").chmod(0o700)  # somebody else's by now
    store.get_tree(key, to, existing="keep")
    assert stat.S_IMODE((to / "d").stat().st_mode) == 0o755
    assert (to / "d").stat().st_mtime_ns == store.tree(key).entry("d").mtime_ns
    assert stat.S_IMODE((to / "d" / "e").stat().st_mode) == 0o700


def test_a_path_longer_than_a_call_takes_needs_few_descriptors(store, tmp_path, monkeypatch):
    """In, out, and away again after an error."""
    levels, kept, most = 120, [], 0

    class Counted(Descriptor):
        def __init__(self, *arguments, **options):
            nonlocal most
            super().__init__(*arguments, **options)
            kept[:] = [*(one for one in kept if one.fd >= 0), self]
            most = max(most, len(kept))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mfstore.host.beneath.Descriptor", Counted)
    monkeypatch.setattr("mfstore.host.beneath.LONGEST", 20)
    deepest = tmp_path.joinpath("source", *"d" * levels)
    deepest.mkdir(parents=True)
    (deepest / "file").write_bytes(OLD)
    key = store.put_tree(tmp_path / "source")
    store.get_tree(key, tmp_path / "to")
    assert tmp_path.joinpath("to", *"d" * levels, "file").read_bytes() == OLD
    monkeypatch.setattr(restoring.Destination, "finish_directories", full)
    with pytest.raises(OutOfSpace):
        store.get_tree(key, tmp_path / "again")
    assert sorted(os.listdir(tmp_path)) == ["source", "store", "to"]
    assert most <= restoring.DIRECTORIES + 4


@pytest.mark.parametrize("existing", ["keep", "replace"])
def test_no_directory_is_replaced_and_no_file_by_one(store, key, tmp_path, existing):
    to = tmp_path / "to"
    (to / "a" / "in").mkdir(parents=True)
    if existing == "replace":
        with pytest.raises(Refused, match="directory"):
            store.get_tree(key, to, existing=existing)
    else:
        store.get_tree(key, to, existing=existing)
    assert (to / "a" / "in").is_dir()
    other = tmp_path / "other"
    other.mkdir()
    (other / "d").write_bytes(OLD)
    with pytest.raises(Refused, match="something else"):
        store.get_tree(key, other, existing=existing)
    assert (other / "d").read_bytes() == OLD
    for place in (other / "d", other / "dangling"):
        if place.name == "dangling":
            place.symlink_to("nothing")
        with pytest.raises(Refused):
            store.get_tree(key, place, existing=existing)


def test_the_directory_above_must_be_there(store, key, tmp_path):
    with pytest.raises(FileNotFoundError):
        store.get_tree(key, tmp_path / "none" / "to")
    with pytest.raises(ValueError, match="existing"):
        store.get_tree(key, tmp_path / "to", existing="all")


def test_no_file_runs_as_its_owner(store, tmp_path):
    source = tmp_path / "source"
    source.mkdir(mode=0o755)
    (source / "f").touch()
    (source / "f").chmod(0o6755)
    source.chmod(0o3777)
    store.get_tree(store.put_tree(source), tmp_path / "to")
    assert stat.S_IMODE((tmp_path / "to" / "f").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "to").stat().st_mode) == 0o1777


def stored_as(store, entries):
    """A tree of these, as whoever may write to a store can store it: with the right digests. It holds NEW."""

    def write(sink):
        contents = sink.stream(len(NEW))
        contents.feed(NEW)
        contents.finish()
        sink.body(encode(entries, []))

    keys = []
    with store.handle.saving() as ingest:
        ingest.recipe(ONE, [ingest.draft_written(TREE, "tree", write)], keys.append)
        ingest.commit()
    return keys[0]


HOSTILE = [
    b"../escaped",
    b"/escaped",
    b"d/../../escaped",
    b"link/escaped",
    b"d//escaped",
    b"d/./escaped",
    b"d\0escaped",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_tree_that_leads_out_is_damage_and_nothing_is_written(store, tmp_path, path):
    entries = [
        TreeEntry("", "directory", 0o755),
        TreeEntry("d", "directory", 0o755),
        TreeEntry("link", "link", 0o777, target=str(tmp_path)),
        TreeEntry(path.decode(), "file", 0o644, 0, len(NEW), b"d" * 32),
    ]
    key = stored_as(store, entries)
    before = names(tmp_path)
    for read in (store.get, store.tree, lambda key: store.get_tree(key, tmp_path / "to")):
        with pytest.raises(CorruptObject):
            read(key)
    assert names(tmp_path) == before
    assert not store.verify("full").findings  # bytes are what was stored


@pytest.mark.parametrize("size", [len(NEW) - 1, len(NEW) + 1])
def test_a_tree_holds_what_its_files_do(store, size):
    top = TreeEntry("", "directory", 0o755)
    with pytest.raises(Unsupported, match="than its files"):
        store.tree(stored_as(store, [top, TreeEntry("file", "file", 0o644, 0, size, b"d" * 32)]))


# ---- links that others plant ----------------------------------------------------------


@pytest.mark.parametrize("existing", ["keep", "replace"])
@pytest.mark.parametrize("plainly", [True, False])
def test_links_that_are_there_are_not_followed(store, key, tmp_path, monkeypatch, existing, plainly):
    if not plainly:
        monkeypatch.setattr("mfstore.host.beneath.OPENS_PLAINLY", False)
    outside, to = tmp_path / "outside", tmp_path / "to"
    outside.mkdir()
    (outside / "victim").write_bytes(OLD)
    to.mkdir()
    (to / "d").symlink_to(outside)
    (to / "a").symlink_to(outside / "victim")
    with pytest.raises(Refused):
        store.get_tree(key, to, existing=existing)
    (to / "d").unlink()
    store.get_tree(key, to, existing=existing)
    assert (to / "a").is_symlink() == (existing == "keep")
    assert names(outside) == ["victim"] and (outside / "victim").read_bytes() == OLD


@pytest.mark.parametrize("plainly", [True, False])
@pytest.mark.parametrize("when", ["before a file", "before its name", "before modes"])
def test_a_directory_that_becomes_a_link_meanwhile_is_not_followed(store, key, tmp_path, monkeypatch, when, plainly):
    """Somebody who may write there puts a link in the place of a directory, between any two steps."""
    if not plainly:
        monkeypatch.setattr("mfstore.host.beneath.OPENS_PLAINLY", False)
    outside, to = tmp_path / "outside", tmp_path / "to"
    (outside / "e").mkdir(parents=True)
    (outside / "e").chmod(0o711)
    to.mkdir()

    def swap():
        if not (to / "d").is_symlink():
            (to / "d").rename(tmp_path / "moved")
            (to / "d").symlink_to(outside)

    step = {"before a file": "begin", "before its name": "_publish", "before modes": "finish_directories"}[when]
    really = getattr(restoring.Destination, step)

    def swapped(self, *arguments):
        swap()
        return really(self, *arguments)

    monkeypatch.setattr(restoring.Destination, step, swapped)
    with pytest.raises((MfstoreError, OSError)):
        store.get_tree(key, to)
    assert names(outside) == ["e"]
    assert stat.S_IMODE((outside / "e").stat().st_mode) == 0o711


def test_names_that_are_one_for_the_file_system_are_refused(store, tmp_path, monkeypatch):
    """As where capital letters are not told from small ones: here each name goes to the system in small letters."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "Name").write_bytes(b"one")
    (source / "nAME").write_bytes(b"two")
    (source / "DIR").mkdir()
    (source / "dir").mkdir()
    key = store.put_tree(source)

    def lowered(function):
        def call(*arguments, **options):
            return function(*(one.lower() if isinstance(one, bytes) else one for one in arguments), **options)

        return call

    monkeypatch.setattr("mfstore.host.beneath.OPENS_PLAINLY", False)
    for name in ("open", "mkdir", "stat", "rename", "unlink", "symlink"):
        monkeypatch.setattr(os, name, lowered(getattr(os, name)))
    monkeypatch.setattr(restoring, "move_new", lowered(restoring.move_new))
    for existing in ("refuse", "replace"):
        to = tmp_path / existing
        if existing == "replace":
            to.mkdir()
            (to / "name").write_bytes(OLD)
        with pytest.raises(Refused, match="two names"):
            store.get_tree(key, to, existing=existing)
        assert existing == "replace" or not to.exists()


# ---- what ends it ---------------------------------------------------------------------


def test_a_full_disk_leaves_nothing(store, key, tmp_path, monkeypatch):
    count = 0

    def full(fd, data):
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)

    before = names(tmp_path)
    monkeypatch.setattr(restoring.os, "write", full)
    with pytest.raises(OutOfSpace):
        store.get_tree(key, tmp_path / "to")
    assert names(tmp_path) == before
    (tmp_path / "to").mkdir()
    count = 0
    with pytest.raises(OutOfSpace):
        store.get_tree(key, tmp_path / "to")
    assert not [name for name in names(tmp_path / "to") if ".mfstore" in name]


def test_what_cannot_be_written_is_named(store, key, tmp_path, monkeypatch):
    really = os.fchmod

    def refuse(fd, mode):
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/d"):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return really(fd, mode)

    monkeypatch.setattr(os, "fchmod", refuse)
    (tmp_path / "to").mkdir()
    for existing in ("refuse", "keep"):
        with pytest.raises(PermissionError) as caught:
            store.get_tree(key, tmp_path / "to" / "new", existing=existing)
        assert caught.value.filename == str(tmp_path / "to" / "new" / "d")
    assert names(tmp_path / "to") == []


KILLED = """
import os, shutil, signal, sys
import mfstore
from mfstore.trees import restoring

url, key, top, existing = sys.argv[1:]
STEPS = {"os.mkdir", "os.rename", "os.remove", "os.chmod", "os.utime", "os.symlink", "open", "ctypes.call_function"}
restoring.BLOCK = 1 << 16  # files are written in several parts
write = os.write
store = mfstore.open(url, threads=1)
restoring.restore(store.tree(key), os.path.join(top, "0"), "", "refuse", 0)  # what it takes is imported once
for at in range(1, 400, 2):
    to = os.path.join(top, str(at))
    if existing != "new":
        os.makedirs(os.path.join(to, "d"))
        with open(os.path.join(to, "d", "b"), "wb") as file:
            file.write(b"old" * 50)
    child = os.fork()
    if not child:
        tree = store.tree(key)
        left = at
        def step(event="os.rename", _=None):
            global left
            if event in STEPS:
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(step)
        os.write = lambda fd, data: (step(), write(fd, data))[1]
        restoring.restore(tree, to, "", "refuse" if existing == "new" else existing, 0)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        print(at)
        break
"""


@pytest.mark.parametrize("existing", ["new", "replace"])
def test_killed_at_any_step_there_are_whole_files_or_nothing(store, key, tmp_path, python, existing):
    top = tmp_path / "top"
    top.mkdir()
    steps = int(python(KILLED, store.url, key, top, existing))
    assert steps > 20
    held = {"a": NEW + b"a", "d/b": NEW + b"d/b", "d/again": NEW + b"a", "d/e/c": NEW + b"d/e/c"}
    for number in range(1, steps + 1, 2):
        to = top / str(number)
        if existing == "new":
            assert not to.exists() or names(to) == ALL
        for name in names(to) if to.exists() else ():
            path = to / name
            if path.is_symlink() or path.is_dir() or path.name.startswith(".mfstore-"):
                continue
            whole = {held[name], OLD} if name == "d/b" and existing != "new" else {held[name]}
            assert path.read_bytes() in whole, (number, name)
        if existing != "new":
            assert (to / "d" / "b").exists()
    assert names(top / str(steps)) == ALL
    if existing != "new":  # what was begun is gone on with
        store.get_tree(key, top / str(steps - 2), existing=existing)
        assert {name for name in names(top / str(steps - 2)) if ".mfstore-" not in name} == set(ALL)
    shutil.rmtree(top)


def test_a_tree_larger_than_what_may_be_held_is_streamed(tmp_path, python):
    """Two files of 64 MiB, with 32 MiB of memory for a save: both ways in less than one of them."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(2):
        with open(source / f"large{number}", "wb") as file:
            for part in range(64):
                file.write(bytes([number, part, 1, 7]) * (1 << 18))
    code = """
import resource, sys
import mfstore
from mfstore.trees import restoring
restoring.BLOCK = 8 << 20
source, root, to = sys.argv[1:]
store = mfstore.open(root, memory=32 << 20, threads=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
key = store.put_tree(source)
store.get_tree(key, to)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""
    assert int(python(code, source, tmp_path / "store", tmp_path / "to")) < 64
    for number in range(2):
        assert (tmp_path / "to" / f"large{number}").stat().st_size == 64 << 20


def test_memory_backends_and_other_processes(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_bytes(OLD)
    with mfstore.open("memory://trees") as store:
        store.get_tree(store.put_tree(source), tmp_path / "to")
    assert (tmp_path / "to" / "f").read_bytes() == OLD
