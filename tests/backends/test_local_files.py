"""How a directory's files are written: how many are opened, when they become visible, and that no link is followed."""

import os
import random
from pathlib import Path

import pytest

from mfstore._core.descriptor import OPENS_PLAINLY, Descriptor
from mfstore._core.writing import rename_each, write_fresh
from mfstore.backends import local
from mfstore.backends.local import FILES_TOGETHER, SMALL_FILE, TEMPORARY, LocalBackend
from mfstore.errors import BackendError, CorruptObject, NotFound, OutOfSpace
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
    """And the root once for each call."""
    assert int(python(COUNTED_READS, root)) == 1000 + -(-1000 // FILES_TOGETHER)


@pytest.mark.parametrize("kind", ["packs", "recipes"])
@pytest.mark.parametrize("size", [0, 1, SMALL_FILE - 1, SMALL_FILE, SMALL_FILE + 1, 5 * SMALL_FILE])
def test_files_read_together_are_what_each_is(tmp_path, size, kind):
    backend = LocalBackend(str(tmp_path))
    data = {f"{kind}/{n}": os.urandom(size + n % 2) for n in range(150)}
    for key, content in data.items():
        (tmp_path / key).parent.mkdir(exist_ok=True)
        (tmp_path / key).write_bytes(content)
    assert dict(backend.get_many(data)) == data


@pytest.mark.parametrize("below", ["", "recipes/"])
@pytest.mark.parametrize("times", [1, FILES_TOGETHER], ids=["few", "many"])
def test_what_cannot_be_read_is_told_in_its_place(tmp_path, below, times):
    backend = LocalBackend(str(tmp_path))
    place = tmp_path / below
    place.mkdir(exist_ok=True)
    (place / "file").write_bytes(b"data")
    (place / "link").symlink_to("file")
    (place / "directory").mkdir()
    os.mkfifo(place / "fifo")
    keys = [below + name for name in ["file", "none", "link", "directory", "fifo", "file"]]
    assert [key for key, _ in backend.get_many(keys * times)] == keys * times
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


@pytest.mark.parametrize("times", [1, FILES_TOGETHER], ids=["few", "many"])
def test_what_is_there_is_told(tmp_path, times):
    backend = LocalBackend(str(tmp_path / "store"))
    keys = ["index/file", "index/none", "none/file", "index/link", "index/\u00e9"]
    assert not any(backend.exists_many(keys * times))
    (tmp_path / "store" / "index").mkdir(parents=True)
    (tmp_path / "store" / "index" / "file").write_bytes(b"")
    (tmp_path / "store" / "index" / "\u00e9").write_bytes(b"")
    (tmp_path / "store" / "index" / "link").symlink_to("nowhere")
    assert backend.exists_many(keys * times) == [True, False, False, True, True] * times
    with pytest.raises(CorruptObject) as failed:
        backend.exists_many([*keys, "index/file/below"] * times)
    assert failed.value.key == "index/file/below"


@pytest.mark.parametrize("key", ["/etc/passwd", "recipes/../../file", "recipes/a\0b"])
@pytest.mark.parametrize("fill", [0, FILES_TOGETHER - 1], ids=["few", "many"])
def test_no_key_leaves_the_store(tmp_path, key, fill):
    backend = LocalBackend(str(tmp_path))
    keys = ["recipes/x..y"] * fill + [key]
    for ask in (backend.exists_many, lambda keys: list(backend.get_many(keys))):
        assert ask(keys[:-1]) is not None
        with pytest.raises(BackendError, match="leave the store"):
            ask(keys)


@pytest.mark.parametrize("key", ["../file", "/file", "recipes/../../below/file", "recipes/a\0b"])
@pytest.mark.parametrize("follow_links", [False, True], ids=["plain", "links"])
def test_no_key_that_is_written_or_deleted_leaves_the_store(tmp_path, key, follow_links):
    (tmp_path / "file").write_bytes(b"outside")
    backend = LocalBackend(str(tmp_path / "store"), follow_links=follow_links)
    for write in (
        lambda batch: batch.put(key, [b"new"]),
        lambda batch: batch.put_many([("recipes/ab", [b"new"]), (key, [b"new"])]),
    ):
        with pytest.raises(BackendError, match="leave the store"), backend.batch() as batch:
            write(batch)
    with pytest.raises(BackendError, match="leave the store"):
        (tmp_path / "store").mkdir(exist_ok=True)
        backend.delete(key)
    assert files(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"outside"


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


# ---- many at once -------------------------------------------------------------------------


def recipes_of(count, size=100):
    """Keys with the parts of their objects, in some directories."""
    return [(f"recipes/{n % 7:02x}/{n}", [b"x" * size, b"", bytes([n % 256])]) for n in range(count)]


@pytest.mark.parametrize("fsync", ["none", "batch", "always"])
def test_what_is_put_together_is_what_was_put(backend, fsync):
    backend.fsync = fsync
    objects = [
        ("index/a", [b"a"]),
        *recipes_of(FILES_TOGETHER + 9),
        ("recipes/00/empty", []),
        ("mfstore.json", [b"{}"]),
    ]
    with backend.batch() as batch:
        batch.put_many(iter(objects))
        assert fsync == "always" or list(backend.list("")) == []
        batch.commit()
    assert {info.key: backend.get(info.key) for info in backend.list("")} == {
        key: b"".join(parts) for key, parts in objects
    }
    assert not [name for name in files(Path(backend.root)) if name.startswith(TEMPORARY)]


def test_no_more_is_held_than_is_written_together(backend, monkeypatch):
    """Objects come as there is room for them: of what was there a MiB before, nothing is held."""
    monkeypatch.setattr(local, "BYTES_TOGETHER", 1000)
    alive, most = set(), 0

    class Part(bytearray):
        def __del__(self):
            alive.discard(id(self))

    def objects():
        nonlocal most
        for n in range(100):
            part = Part(400)
            alive.add(id(part))
            most = max(most, len(alive))
            yield f"recipes/ab/{n}", [part]
            del part

    with backend.batch() as batch:
        batch.put_many(objects())
    assert most <= 4


@pytest.mark.parametrize("link", ["recipes", "recipes/03"])
def test_no_link_is_followed_to_many_files(backend, outside, tmp_path, link):
    path = tmp_path / "store" / link
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)
    with pytest.raises(CorruptObject, match="links are refused"), backend.batch() as batch:
        batch.put_many(recipes_of(20))
    assert files(outside) == []


def test_links_are_followed_where_they_are_allowed(outside, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "recipes").symlink_to(outside)
    with LocalBackend(str(tmp_path / "store"), follow_links=True).batch() as batch:
        batch.put_many(recipes_of(20))
        batch.commit()
    assert len(files(outside)) == 20


LIMITED = """
import resource, signal, sys
from mfstore.backends.local import LocalBackend
from mfstore.errors import OutOfSpace
from tests.backends.test_local_files import files, recipes_of
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
backend = LocalBackend(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
objects = recipes_of(20)
objects[13][1].append(bytes(2000))
with backend.batch() as batch:
    batch.put_many([("recipes/before/one", [b"1"]), ("recipes/before/two", [b"2"])])
    try:
        batch.put_many(objects)
    except OutOfSpace as error:
        print(error.key)
    batch.commit()
print([info.key for info in backend.list("")])
"""


def test_what_cannot_all_be_written_is_not_there(root, python):
    """Of objects put together none is, and what was put before is."""
    named, there = python(LIMITED, root).splitlines()
    assert named == "recipes/06/13"
    assert sorted(eval(there)) == ["recipes/before/one", "recipes/before/two"]
    assert sorted(files(Path(root))) == ["one", "two"]


def test_why_no_directory_can_be_made_for_many(backend, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "recipes").write_bytes(b"")
    with pytest.raises(CorruptObject, match="plain directory"), backend.batch() as batch:
        batch.put_many(recipes_of(20))


def test_a_directory_that_went_meanwhile_is_told(tmp_path):
    with LocalBackend(str(tmp_path / "store")).batch() as batch:
        batch.put_many(recipes_of(20))
        for name in files(tmp_path / "store" / "recipes" / "03"):
            (tmp_path / "store" / "recipes" / "03" / name).unlink()
        (tmp_path / "store" / "recipes" / "03").rmdir()
        with pytest.raises(NotFound) as failed:
            batch.put_many(recipes_of(20))
        assert failed.value.key == "recipes/03/3"
        assert len(batch._staged) == 20


def test_the_first_that_cannot_be_renamed_is_told(tmp_path):
    for name in ("a", "b", "d"):
        (tmp_path / name).write_bytes(name.encode())
    with Descriptor(str(tmp_path), os.O_RDONLY) as fd:
        with pytest.raises(FileNotFoundError) as failed:
            rename_each(fd, ["a", "b", "c", "d"], ["A", "B", "C", "D"])
        with pytest.raises(ValueError, match="null"):
            rename_each(fd, ["d", "A"], ["D", "a\0"])
        with pytest.raises(ValueError, match="one new name"):
            rename_each(fd, ["d"], [])
    assert (failed.value.filename, failed.value.filename2) == ("c", "C")
    assert files(tmp_path) == ["A", "B", "d"]


def test_what_cannot_become_visible_is_told_and_nothing_is_left_over(tmp_path):
    keys = [key for key, _ in recipes_of(20)]
    (tmp_path / keys[7]).mkdir(parents=True)
    with pytest.raises(CorruptObject) as failed, LocalBackend(str(tmp_path)).batch() as batch:
        batch.put_many(recipes_of(20))
        batch.commit()
    assert failed.value.key == keys[7]
    assert not [*tmp_path.rglob(".tmp-*")]


def test_parts_of_any_number_and_length_are_written(tmp_path):
    rng = random.Random(1)
    contents = [
        [rng.randbytes(rng.choice([0, 1, 50])) for _ in range(count)] for count in (0, 1, 2, 511, 512, 513, 3000)
    ]
    names = [f"file-{n}" for n in range(len(contents))]
    with Descriptor(str(tmp_path), os.O_RDONLY) as fd:
        write_fresh(fd, names, contents, True)
        with pytest.raises(FileExistsError) as failed:
            write_fresh(fd, ["new", "file-1", "never"], [[b"1"], [b"2"], [b"3"]], False)
    assert failed.value.filename == "file-1"
    assert files(tmp_path) == [*names, "new"]
    for name, parts in zip(names, contents, strict=True):
        assert (tmp_path / name).read_bytes() == b"".join(parts)
