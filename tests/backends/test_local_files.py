"""How a directory's files are written: how many are opened, when they become visible, and that no link is followed."""

import os

import pytest

from mfstore._core.descriptor import OPENS_PLAINLY, Descriptor
from mfstore.backends import local
from mfstore.backends.local import SMALL_FILE, TEMPORARY, LocalBackend
from mfstore.errors import CorruptObject, NotFound, OutOfSpace
from tests.rigs.descriptors import open_below

pytestmark = pytest.mark.skipif(not OPENS_PLAINLY, reason="needs openat2")

COUNTED = """
import sys, mfstore
store = mfstore.open(sys.argv[1], fsync=sys.argv[2])
store.put(None)
opened = 0
def count(event, args):
    global opened
    opened += event == "open"
sys.addaudithook(count)
store.put_many(range(1000))
print(opened)
"""
COUNTED_READS = """
import sys, mfstore
keys = mfstore.open(sys.argv[1], fsync="none").put_many(range(1000))
store = mfstore.open(sys.argv[1])
list(store.get_many(keys[:1]))
opened = 0
def count(event, args):
    global opened
    opened += event == "open"
sys.addaudithook(count)
assert [obj for _, obj in store.get_many(keys)] == list(range(1000))
print(opened)
"""


@pytest.mark.parametrize("fsync", ["none", "batch"])
def test_a_bulk_put_opens_each_file_once(root, python, fsync):
    """A budget on counts: 1000 files, their two directories, and little else."""
    assert 1000 <= int(python(COUNTED, root, fsync)) <= 1010


def test_a_bulk_get_opens_each_file_once(root, python):
    assert int(python(COUNTED_READS, root)) == 1000


@pytest.mark.parametrize("size", [0, 1, SMALL_FILE - 1, SMALL_FILE, SMALL_FILE + 1, 5 * SMALL_FILE])
def test_files_read_together_are_what_each_is(tmp_path, size):
    backend = LocalBackend(str(tmp_path))
    data = {f"packs/{n}": os.urandom(size + n % 2) for n in range(150)}
    for key, content in data.items():
        (tmp_path / key).parent.mkdir(exist_ok=True)
        (tmp_path / key).write_bytes(content)
    assert dict(backend.get_many(data)) == data


def test_what_cannot_be_read_is_told_in_its_place(tmp_path):
    backend = LocalBackend(str(tmp_path))
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    keys = ["file", "none", "link", "directory", "fifo", "file"]
    found = list(backend.get_many(iter(keys)))
    assert [key for key, _ in found] == keys
    assert [data if isinstance(data, bytes) else type(data) for _, data in found] == [
        b"data", NotFound, CorruptObject, CorruptObject, CorruptObject, b"data",
    ]  # fmt: skip
    assert [error.key for _, error in found[1:5]] == keys[1:5]
    for key, error in found[1:5]:
        with pytest.raises(type(error)) as alone:
            backend.get(key)
        assert str(alone.value) == str(error)


def test_files_that_are_read_leave_nothing_open(tmp_path):
    backend = LocalBackend(str(tmp_path))
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "directory").mkdir()
    list(backend.get_many(["file", "directory", "none"] * 100))
    assert open_below(str(tmp_path)) == []


@pytest.fixture(params=["by the system", "step by step"])
def backend(request, tmp_path, monkeypatch):
    """Both ways to hold that no step of a path is a link."""
    monkeypatch.setattr(local, "OPENS_PLAINLY", request.param == "by the system")
    return LocalBackend(str(tmp_path / "store"), fsync="none")


@pytest.fixture
def outside(tmp_path):
    """A directory that links lead to."""
    path = tmp_path / "outside"
    path.mkdir()
    return path


def files(path):
    return sorted(found.name for found in path.rglob("*") if found.is_file())


@pytest.mark.parametrize("fsync", ["none", "batch"])
def test_a_batch_becomes_visible_when_it_is_committed(tmp_path, fsync):
    backend = LocalBackend(str(tmp_path), fsync=fsync)
    with backend.batch() as batch:
        for name in ("packs/ab/one", "packs/cd/two", "index/three"):
            batch.put(name, [b"data"])
        assert list(backend.list("")) == []
        batch.commit()
        assert len(list(backend.list(""))) == 3
    with backend.batch() as batch:
        batch.put("packs/ab/four", [b"data"])
    assert files(tmp_path / "packs") == ["one", "two"]


@pytest.mark.parametrize("link", ["recipes", "recipes/ab"])
def test_no_link_is_followed_on_the_way_to_a_new_file(backend, outside, tmp_path, link):
    path = tmp_path / "store" / link
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)
    (outside / "ab").mkdir()
    with pytest.raises(CorruptObject, match="links are refused"):
        backend.put("recipes/ab/key", [b"data"])
    assert files(outside) == []
    assert [found.name for found in outside.iterdir()] == ["ab"]


def test_a_link_planted_before_the_commit_is_not_followed(backend, outside, tmp_path):
    with pytest.raises((NotFound, CorruptObject)), backend.batch() as batch:
        batch.put("recipes/ab/key", [b"data"])
        (tmp_path / "store" / "recipes" / "ab").rename(tmp_path / "away")
        (tmp_path / "store" / "recipes" / "ab").symlink_to(outside)
        batch._close_directories()
        batch.commit()
    assert files(outside) == []


def test_a_directory_that_cannot_be_made_is_the_error(backend, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "recipes").write_bytes(b"")
    with pytest.raises(CorruptObject, match="plain directory"):
        backend.put("recipes/ab/key", [b"data"])


def test_why_a_directory_is_missing_is_told(backend, monkeypatch):
    """Not that the file is not there, which says nothing."""
    backend.put("recipes/ab/key", [b"data"])
    monkeypatch.setattr(local.os, "mkdir", lambda *args, **named: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OutOfSpace, match="No space left"):
        backend.put("recipes/cd/key", [b"data"])


@pytest.mark.parametrize("path", ["link", "link/file", "real/back/file", "../store/real/file", "/etc/passwd"])
def test_what_is_opened_plainly_is_below(outside, tmp_path, path):
    (tmp_path / "store" / "real").mkdir(parents=True)
    (tmp_path / "store" / "link").symlink_to(outside)
    (tmp_path / "store" / "real" / "back").symlink_to("..")
    for place in (outside, tmp_path / "store", tmp_path / "store" / "real"):
        (place / "file").write_bytes(b"data")
    with Descriptor(str(tmp_path / "store"), os.O_RDONLY) as fd:
        with Descriptor.plain("real/file", os.O_RDONLY, dir_fd=fd) as file:
            assert os.read(file, 9) == b"data"
        with pytest.raises(OSError, match=path):
            Descriptor.plain(path, os.O_RDONLY, dir_fd=fd)


def test_what_is_made_plainly_has_the_mode_that_open_gives(tmp_path):
    with Descriptor(str(tmp_path), os.O_RDONLY) as fd:
        Descriptor("one", local.NEW_FILE, dir_fd=fd).close()
        Descriptor.plain("two", local.NEW_FILE, dir_fd=fd).close()
        with pytest.raises(FileExistsError):
            Descriptor.plain("two", local.NEW_FILE, dir_fd=fd)
        with pytest.raises(FileNotFoundError):
            Descriptor.plain("three/four", local.NEW_FILE, dir_fd=fd)
    assert (tmp_path / "one").stat().st_mode == (tmp_path / "two").stat().st_mode


def test_names_of_temporary_files_are_never_the_same(tmp_path):
    """Not in two batches, and not in one that a forked child goes on with."""
    backend = LocalBackend(str(tmp_path))
    with backend.batch() as one, backend.batch() as two:
        for batch in (one, one, two):
            batch.put("index/a", [b"data"])
        pid = os.fork()
        if pid == 0:
            one.put("index/a", [b"data"])
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        one.put("index/a", [b"data"])
        names = files(tmp_path / "index")
        assert len(names) == 5
        assert all(name.startswith(TEMPORARY) for name in names)
