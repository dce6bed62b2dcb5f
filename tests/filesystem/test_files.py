"""What is in a store, as files."""

import gc
import gzip
import os
import pickle
import threading
from contextlib import suppress

import fsspec
import numpy as np
import pytest

import mfstore
from mfstore.errors import (
    AccessDenied,
    Conflict,
    CorruptObject,
    InvalidKey,
    MfstoreError,
    MfstoreWarning,
    NotFound,
    NotSigned,
    OutOfSpace,
    PathExists,
    PathIsDirectory,
    PathIsReadOnly,
    PathNotFound,
    Refused,
    Unsupported,
)
from mfstore.filesystem import StoreFileSystem, stores
from mfstore.filesystem.content import read_ranges
from mfstore.filesystem.files import WRITTEN_TOGETHER, StoreFile
from mfstore.format.recipes import recipe_path

LONG = np.random.default_rng(0).bytes(300_000)


# ---- what is a file ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("data", [b"", b"short", LONG], ids=["empty", "short", "long"])
def test_bytes_are_files_of_these_bytes(fs, kind, data):
    fs.store.put(kind(data), "x")
    assert fs.info("x")["size"] == fs.size("x") == len(data) and fs.info("x")["python_type"] == kind.__name__
    assert fs.cat("x") == data and fs.cat_file("x", 2, -1) == data[2:-1] and fs.cat_file("x", -3) == data[-3:]
    with fs.open("x") as file:
        file.seek(1)
        assert file.read() == data[1:]


def test_raw_bytes_are_files(fs):
    key = fs.store.put_bytes(LONG, "x")
    assert fs.cat("x") == fs.cat(str(key)) == LONG
    assert fs.ukey("x") == key and fs.info("x")["key"] == key


def test_other_objects_are_files_of_their_pickle(fs):
    array = np.arange(100_000)
    fs.store.put({"slope": 1.0, "array": array}, "models/churn")
    assert fs.info("models/churn")["python_type"] == "dict"
    with fs.open("models/churn") as file:
        assert np.array_equal(pickle.load(file)["array"], array)
    assert fs.cat("models/churn") == fs.store.get_bytes("models/churn")
    assert fs.cat_file("models/churn", 1000, 1010) == fs.store.get_bytes("models/churn", 1000, 1010)


def test_a_bundle_is_a_directory_of_its_artifacts(fs):
    key = fs.store.save({"model": {"a": 1}, "notes": LONG, "odd/name": 1, "": 2, "n\0": 3}, ref="runs/1")
    assert fs.ls("runs/1", detail=False) == [
        "runs/1/%",
        "runs/1/model",
        "runs/1/n%00",
        "runs/1/notes",
        "runs/1/odd%2Fname",
    ]
    assert fs.isdir("runs/1") and fs.info("runs/1")["key"] == key
    assert fs.cat("runs/1/notes") == fs.cat(f"{key}/notes") == LONG and pickle.loads(fs.cat("runs/1/%")) == 2
    assert fs.find("") == fs.find("runs/1") == fs.ls("runs/1", detail=False)
    with pytest.raises(PathIsDirectory, match=r"store.get\('runs/1'\)"):
        fs.open("runs/1")
    with pytest.raises(PathNotFound):
        fs.cat("runs/1/none")


@pytest.fixture
def tree(tmp_path):
    """A directory with what trees have in them."""
    top = tmp_path / "tree"
    (top / "deep" / "er").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "a.bin").write_bytes(LONG)
    (top / "deep" / "b.txt").write_bytes(b"text")
    (top / "deep" / "er" / "c").write_bytes(LONG[:1000])
    (top / "link").symlink_to("a.bin")
    return top


def test_a_tree_is_a_directory(fs, tree, tmp_path):
    key = fs.store.put_tree(tree, "data/set")
    fs.pipe("data/other", b"1")
    files = ["data/set/a.bin", "data/set/deep/b.txt", "data/set/deep/er/c"]
    assert fs.find("data/set") == files and fs.find("") == ["data/other", *files]
    assert fs.ls("data/set", detail=False) == [f"data/set/{name}" for name in ("a.bin", "deep", "empty", "link")]
    assert fs.ls("data/set/deep", detail=False) == ["data/set/deep/b.txt", "data/set/deep/er"]
    assert fs.ls("data/set/empty") == [] and fs.isdir("data/set/empty") and fs.isdir(f"{key}/deep")
    assert fs.glob("data/set/**/c") == ["data/set/deep/er/c"] and fs.du("data/set") == len(LONG) + 1004
    info = fs.info("data/set/deep/b.txt")
    assert (info["size"], info["key"]) == (4, key) and info["mtime"] == pytest.approx(
        (tree / "deep/b.txt").stat().st_mtime
    )
    assert fs.cat("data/set/a.bin") == fs.cat(f"{key}/a.bin") == fs.cat("data/set@0/a.bin") == LONG
    assert fs.cat_file("data/set/a.bin", 200_000, 200_010) == LONG[200_000:200_010]
    with fs.open("data/set/a.bin", cache_type="none") as file:
        file.seek(-5, 2)
        assert file.read() == LONG[-5:]
    found = fs.cat_ranges([*files, "data/other"], [1, 0, -2, 0], [3, None, None, 9])
    assert found == [LONG[1:3], b"text", LONG[998:1000], b"1"]
    fs.get("data/set", str(tmp_path / "copy"), recursive=True)
    assert (tmp_path / "copy" / "deep" / "er" / "c").read_bytes() == LONG[:1000]


def test_what_is_in_a_tree_stays_what_it_is(fs, tree):
    fs.store.put_tree(tree, "set")
    for change in (
        lambda: fs.pipe("set/deep/new", b""), lambda: fs.rm("set/a.bin"), lambda: fs.rm("set/deep", recursive=True),
        lambda: fs.mv("set/a.bin", "out"), lambda: fs.open("set/a.bin", "ab"),
    ):  # fmt: skip
        with pytest.raises(PermissionError):
            change()
    info = fs.info("set/link")
    assert (info["type"], info["destination"]) == ("link", "a.bin")
    with pytest.raises(PathNotFound, match="not followed"):
        fs.cat("set/link")
    with pytest.raises(PathIsDirectory):
        fs.open("set/deep")
    fs.cp("set", "again", recursive=True)
    assert fs.store.refs["again"] == fs.store.refs["set"]
    fs.cp("set/deep", "part", recursive=True)
    assert fs.find("part") == ["part/b.txt", "part/er/c"] and fs.cat("part/er/c") == LONG[:1000]
    fs.mv("again", "moved")
    assert fs.cat("moved/deep/b.txt") == b"text" and not fs.exists("again")
    assert fs.ukey("moved/deep/b.txt") == fs.ukey("set/deep/b.txt")
    fs.rm("set", recursive=True)
    assert fs.store.refs.list() == ["moved", "part/b.txt", "part/er/c"]


def test_former_values(fs):
    for n in range(3):
        fs.pipe("x", b"%d" % n)
    assert [fs.cat(f"x@{n}") for n in range(3)] == [b"2", b"1", b"0"]
    assert fs.ls("x@", detail=False) == ["x@0", "x@1", "x@2"] and fs.isdir("x@") and not fs.exists("y@")
    assert [info["mtime"] for info in fs.ls("x@")] == [entry.time for entry in fs.store.refs.log("x")]
    assert fs.ls("", detail=False) == ["x"]
    for path in ("x@1", "x@2026-11-30", str(fs.store.refs["x"])):
        with pytest.raises(PathIsReadOnly):
            fs.pipe(path, b"")
    with pytest.raises(PathIsReadOnly):
        fs.rm("x@1")
    with pytest.raises(PathNotFound):
        fs.cat("x@7")


# ---- listing ----------------------------------------------------------------------------


def test_names_imply_directories(fs):
    fs.pipe({"a/b/c": b"1", "a/b/d": b"22", "a/e": b"333", "f": b"4444"})
    assert fs.ls("", detail=False) == ["a", "f"]
    assert [(info["name"], info["type"], info["size"]) for info in fs.ls("a")] == [
        ("a/b", "directory", 0), ("a/e", "file", 3),
    ]  # fmt: skip
    assert fs.ls("a/e", detail=False) == ["a/e"]
    assert fs.find("a") == ["a/b/c", "a/b/d", "a/e"] and fs.find("a", maxdepth=1) == ["a/e"]
    assert fs.find("a", withdirs=True) == ["a", "a/b", "a/b/c", "a/b/d", "a/e"]
    assert fs.glob("a/*") == ["a/b", "a/e"] and fs.glob("**/c") == ["a/b/c"]
    assert [*fs.walk("a")] == [("a", ["b"], ["e"]), ("a/b", [], ["c", "d"])]
    assert [*fs.walk("a", topdown=False)][-1][0] == "a" and [*fs.walk("a/e")] == [("a/e", [], [""])]
    assert fs.du("a") == 6 and fs.du("a/b", total=False) == {"a/b/c": 1, "a/b/d": 2}
    assert fs.sizes(["f", "a/e"]) == [4, 3]
    assert fs.isdir("a/b") and not fs.isfile("a/b") and not fs.exists("a/x") and not fs.exists("a//b")
    assert not list(fs.walk("none")) and [*fs.walk("a", maxdepth=1)] == [("a", ["b"], ["e"])]
    with pytest.raises(FileNotFoundError):
        fs.ls("none")


def test_a_name_may_be_a_file_and_a_directory(fs):
    fs.pipe({"a": b"1", "a/b": b"2"})
    assert fs.isfile("a") and fs.ls("a", detail=False) == ["a/b"] and fs.find("a") == ["a", "a/b"]


def test_listings_show_what_others_have_changed(fs):
    other = mfstore.open(fs.store.url)
    fs.pipe({"a": b"1", "b": b"2"})
    assert [info["size"] for info in fs.ls("")] == [1, 1]
    other.put_bytes(b"longer", "a")
    del other.refs["b"]
    assert [(info["name"], info["size"]) for info in fs.ls("")] == [("a", 6)]


def test_what_is_damaged_is_listed_and_does_not_open(fs, tmp_path):
    fs.pipe({"a": b"1", "b": b"2"})
    (tmp_path / "store" / "refs" / "a").write_bytes(b"damage")
    assert [(info["name"], info["size"]) for info in fs.ls("")] == [("a", None), ("b", 1)]
    assert fs.find("") == ["a", "b"] and fs.du("") == 1
    with pytest.raises(CorruptObject):
        fs.cat("a")
    found = fs.cat_ranges(["a", "b", "c"], 0, 1)
    assert isinstance(found[0], CorruptObject) and found[1] == b"2" and isinstance(found[2], FileNotFoundError)


def test_a_ref_of_what_is_not_stored_is_damaged(fs, tmp_path):
    key = fs.store.put_bytes(b"1", "a")
    (tmp_path / "store" / recipe_path(key)).unlink()
    assert fs.ls("")[0]["size"] is None and fs.ls("a@")[0]["size"] is None
    with pytest.raises(CorruptObject, match="not stored"):
        fs.cat("a")
    with pytest.raises(PathNotFound):
        fs.cat(str(key))


def test_only_what_is_signed_is_read(tmp_path):
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    private = ed25519.Ed25519PrivateKey.generate()
    store = mfstore.open(tmp_path / "store")
    store.put(b"signed", "signed")
    store.put(b"other", "other")
    store.sign("signed", key=private)
    fs = StoreFileSystem(tmp_path / "store", trusted=[private.public_key()], skip_instance_cache=True)
    assert [(info["name"], info["size"]) for info in fs.ls("")] == [("other", None), ("signed", 6)]
    assert fs.cat("signed") == b"signed"
    with pytest.raises(NotSigned):
        fs.cat("other")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(LONG)
    store.put_tree(tmp_path / "tree", "tree")
    assert fs.find("") == ["other", "signed", "tree"]
    unsigned, signed = fs.cat_ranges(["tree/file", "signed"], 0, 3)
    assert isinstance(unsigned, NotSigned) and signed == b"sig"
    for look in (fs.cat, fs.info, fs.find):
        with pytest.raises(NotSigned):
            look("tree/file")


def test_a_refusal_is_not_absence(fs, monkeypatch):
    fs.pipe("a", b"1")

    def refuse(*_):
        raise AccessDenied("no")

    monkeypatch.setattr(fs.store.backend, "get_many", refuse)
    for ask in (fs.exists, fs.isfile, fs.isdir, fs.cat):
        with pytest.raises(PermissionError):
            ask("a")


def test_there_is_no_store(tmp_path):
    fs = StoreFileSystem(tmp_path / "none", create=False, skip_instance_cache=True)
    assert not fs.exists("a") and not fs.exists("")
    with pytest.raises(FileNotFoundError):
        fs.ls("")
    with pytest.raises(NotFound):
        fs.pipe("a", b"")
    mfstore.open(tmp_path / "none").put_bytes(b"1", "a")
    assert fs.exists("") and fs.cat("a") == b"1"


# ---- writing ----------------------------------------------------------------------------


def test_a_file_appears_when_it_is_closed(fs):
    data = np.random.default_rng(1).bytes(2 * WRITTEN_TOGETHER + 1000)
    with fs.open("x", "wb", note={"run": 7}) as file:
        file.write(data[:10])
        file.write(memoryview(data)[10:])
        assert not fs.exists("x") and file.tell() == len(data)
    assert fs.cat("x") == data and fs.info("x")["note"] == {"run": 7}
    assert fs.info("x")["key"] == fs.store.put_bytes(data)


@pytest.mark.parametrize("mode", ["wb", "w"])
@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("size", [10, WRITTEN_TOGETHER + 10])
def test_what_ends_by_an_exception_does_not_appear(fs, mode, compression, size):
    data = "x" * size if mode == "w" else np.random.default_rng(2).bytes(size)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), fs.open("x", mode, compression=compression) as file:
        file.write(data)
        raise ZeroDivisionError
    assert not fs.exists("x") and not [*fs.store.keys()] and threading.active_count() <= before + 8
    assert not [thread for thread in threading.enumerate() if thread.name == "mfstore-file"]


@pytest.mark.parametrize("mode", ["wb", "wt"])
def test_compression(fs, mode):
    with fs.open("x.gz", mode, compression="infer") as file:
        file.write("text" if mode == "wt" else b"text")
    assert gzip.decompress(fs.cat("x.gz")) == b"text"
    with fs.open("x.gz", "rt", compression="infer") as file:
        assert file.read() == "text"


def test_what_cannot_be_stored_is_told_by_who_writes(fs, monkeypatch):
    fs.pipe("y", b"")
    failing = OutOfSpace("full")

    def refuse(*_, **__):
        raise failing

    monkeypatch.setattr(fs.store.handle, "saving", refuse)
    with pytest.raises(OSError, match="full"), fs.open("x", "wb") as file:
        for _ in range(4):
            file.write(bytes(WRITTEN_TOGETHER))
    assert file.closed and not fs.exists("x")


def test_bytes_that_are_left_are_no_reason_to_fail_for_what_is_discarded(fs, monkeypatch):
    def refuse(*_):
        raise OutOfSpace("full")

    monkeypatch.setattr(StoreFile, "write", refuse)
    with pytest.raises(RuntimeError, match="mine"), fs.open("x", "w") as text:
        text.write("1")
        raise RuntimeError("mine")
    with pytest.raises(OutOfSpace):
        fs.open("x", "wb", compression="bz2").close()
    assert text.closed and not fs.exists("x")


@pytest.mark.parametrize("mode", ["wb", "w"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_file_that_is_never_closed_does_not_appear(fs, mode, compression):
    with pytest.warns(MfstoreWarning, match="never closed"):
        fs.open("x", mode, compression=compression).write("1" if mode == "w" else b"1")
        gc.collect()
    assert not fs.exists("x")


def test_files_that_are_never_closed_are_read(fs):
    fs.pipe("x", b"text")
    assert fs.open("x", "r").read() == "text" and fs.open("x").read() == b"text"


def test_what_fsspec_opens_is_closed_whatever_happens(url):
    with pytest.raises(ZeroDivisionError), fsspec.open(f"{url}x", "wb") as file:
        file.write(b"half")
        raise ZeroDivisionError
    with fsspec.open(f"{url}x") as file:
        assert file.read() == b"half"


def test_appending(fs):
    fs.pipe("x", LONG)
    with fs.open("x", "ab") as file:
        assert file.tell() == len(LONG)
        file.write(b"more")
    assert fs.cat("x") == LONG + b"more"
    with fs.open("new", "ab") as file:
        file.write(b"1")
    assert fs.cat("new") == b"1"
    with pytest.raises(Conflict), fs.open("x", "ab") as file:
        file.write(b"lost")
        fs.pipe("x", b"another's")
    assert fs.cat("x") == b"another's"


def test_exclusive(fs):
    with pytest.raises(FileExistsError), fs.open("x", "xb") as file:
        file.write(b"1")
        fs.pipe("x", b"another's")
    assert fs.cat("x") == b"another's"
    with pytest.raises(PathExists):
        fs.put_file(__file__, "x", mode="create")


def test_what_lies_in_a_bundle_stays_what_it_is(fs):
    fs.store.save({"model": 1}, ref="runs/1")
    for write in (lambda path: fs.pipe(path, b""), lambda path: fs.open(path, "wb"), fs.touch):
        for path in ("runs/1/model", "runs/1/new", "runs/1/deep/new"):
            with pytest.raises(PathIsReadOnly):
                write(path)
    with pytest.raises(PathIsReadOnly):
        fs.rm("runs/1/model")
    assert fs.find("") == ["runs/1/model"]


def test_names_that_can_be_none(fs):
    for name in ("a//b", "a/../b", "a\nb", "x" * 300):
        with pytest.raises(InvalidKey):
            fs.pipe(name, b"")
        assert not fs.exists(name) and not fs.isdir(name)
    with pytest.raises(PathIsDirectory):
        fs.pipe("", b"")


def test_put_and_get(fs, tmp_path):
    (tmp_path / "from").write_bytes(LONG)
    fs.put(str(tmp_path / "from"), "a/b")
    fs.get("a/b", str(tmp_path / "deep" / "to"))
    assert (tmp_path / "deep" / "to").read_bytes() == LONG
    assert fs.info("a/b")["key"] == fs.store.put_file(tmp_path / "from")
    fs.store.save({"one": b"1", "two": b"2"}, ref="runs/1")
    fs.get("runs", str(tmp_path / "runs"), recursive=True)
    assert (tmp_path / "runs" / "1" / "two").read_bytes() == b"2"


def test_what_lies_in_the_root_goes_into_directories(fs, tmp_path):
    fs.pipe({"one": b"1", "top/two": b"2"})
    for turn in range(2):  # into a directory that is there, and a second time
        for source, more in (("one", {}), ("on*", {}), ("top", {"recursive": True})):
            (tmp_path / "to").mkdir(exist_ok=True)
            fs.get(source, str(tmp_path / "to"), **more)
            fs.pipe("to/there", b"")
            fs.cp(source, "to", **more)
        found = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "to").rglob("*") if path.is_file())
        assert found == ["to/one", "to/top/two"] and fs.find("to") == ["to/one", "to/there", "to/top/two"], turn
    fs.get("one", str(tmp_path / "single"))
    fs.get("top", str(tmp_path / "whole"), recursive=True)
    assert (tmp_path / "single").read_bytes() == b"1" and (tmp_path / "whole" / "two").read_bytes() == b"2"


# ---- names ------------------------------------------------------------------------------


def test_copies_and_moves_are_of_names(fs):
    fs.store.put({"a": 1}, "m/one", note={"auc": 0.9})
    fs.store.save({"a": 1}, ref="m/bundle")
    keys = sorted(fs.store.keys())
    fs.cp("m/one", "n/copy")
    fs.cp("m", "all", recursive=True)
    fs.mv("m/one", "n/")
    fs.mv("m/bundle", "n/bundle")
    assert sorted(fs.store.keys()) == keys
    assert fs.store.refs.list() == ["all/bundle", "all/one", "n/bundle", "n/copy", "n/one"]
    assert fs.info("n/one")["note"] == {"auc": 0.9} and fs.store.load("n/bundle") == {"a": 1}
    fs.cp("n/bundle/a", "single")
    assert pickle.loads(fs.cat("single")) == 1
    fs.mv("n", "o", recursive=True)
    assert fs.find("o") == ["o/bundle/a", "o/copy", "o/one"] and not fs.exists("n")
    fs.mv("single", "single")
    with pytest.raises(FileNotFoundError):
        fs.mv("none", "x")
    assert fs.exists("single") and not fs.exists("x")


MOVES = {
    "onto itself": ("d/x", "d/", ["d/x", "d/y"]),
    "onto themselves": ("d/*", "d/", ["d/x", "d/y"]),
    "lists": (["d/x"], ["d/x"], ["d/x", "d/y"]),
    "a name that could be a pattern": ("*", "z", ["d/x", "d/y", "e", "z"]),
    "into itself": ("d", "d/sub", ["d/sub/x", "d/sub/y"]),
    "the root into itself": ("", "sub", ["sub/*", "sub/d/x", "sub/d/y", "sub/e"]),
}


@pytest.mark.parametrize("case", MOVES)
def test_a_move_loses_nothing(fs, case):
    source, target, left = MOVES[case]
    fs.pipe({"d/x": b"x", "d/y": b"y"})
    if "*" in "".join(left) or source == "*":
        fs.pipe({"*": b"*", "e": b"e"})
    before = sorted(fs.cat(["d/x", "d/y"]).values())
    fs.mv(source, target, recursive=source in ("d", ""))
    assert fs.find("") == left
    assert sorted(fs.cat_file(name) for name in left if name[-2:] in ("/x", "/y")) == before


def test_what_is_written_during_a_move_stays(fs, monkeypatch):
    fs.pipe("a", b"old")
    copy = fs.copy

    def copied(*args, **options):
        copy(*args, **options)
        fs.pipe("a", b"new")

    monkeypatch.setattr(fs, "copy", copied)
    with pytest.raises(Conflict):
        fs.mv("a", "b")
    assert fs.cat(["a", "b"]) == {"a": b"new", "b": b"old"}
    with pytest.raises(PathIsReadOnly):
        fs.mv(["a@1"], ["c"])
    assert fs.find("") == ["a", "b"]


def test_names_that_could_be_patterns_are_removed_alone(fs):
    fs.pipe({"a*": b"", "ab": b"", "c": b""})
    fs.rm_file("a*")
    assert fs.find("") == ["ab", "c"]
    for root in ("", "/", ["c", ""]):
        with pytest.raises(PathIsReadOnly, match="every ref"):
            fs.rm(root, recursive=True)
    assert fs.find("") == ["ab", "c"]
    fs.rm("*", recursive=True)
    assert fs.find("") == []


def test_removing(fs):
    fs.pipe({"a/b": b"1", "a/c": b"2", "d": b"3"})
    fs.store.save({"x": 1}, ref="a/bundle")
    for path in ("a", "none", "a/bundle/x"):
        with pytest.raises(MfstoreError) as told:
            fs.rm(path)
        assert isinstance(told.value, OSError)
    fs.rm("a/b")
    fs.rm("a", recursive=True)
    assert fs.find("") == ["d"] and len([*fs.store.keys()]) == 4
    fs.rm_file("d")
    fs.store.put(1, "held")
    fs.store.refs.hold("held")
    with pytest.raises(Refused):
        fs.rm("held")


def test_times(fs):
    key = fs.store.put_bytes(b"1", "x")
    fs.touch("x", truncate=False)
    first, second = fs.store.refs.log("x")[::-1]
    assert fs.modified("x").timestamp() == pytest.approx(second.time) and second.key == first.key == key
    assert fs.created("x").timestamp() == pytest.approx(fs.store.stat(key).created)


# ---- transactions -----------------------------------------------------------------------


def test_files_of_a_transaction_appear_together(fs):
    with fs.transaction:
        with fs.open("a", "wb") as file:
            file.write(b"1")
        fs.pipe({"b": b"2", "c": b"3"})
        assert not fs.exists("a") and not fs.exists("b")
    assert fs.cat(["a", "b", "c"]) == {"a": b"1", "b": b"2", "c": b"3"}
    with pytest.raises(ZeroDivisionError), fs.transaction:
        fs.pipe("d", b"4")
        raise ZeroDivisionError
    assert fs.find("") == ["a", "b", "c"]
    fs.pipe("d", b"after")
    assert fs.cat("d") == b"after"


def test_names_change_at_once_in_a_transaction(fs):
    fs.pipe({"a": b"1", "b": b"2", "c": b"3"})
    with pytest.raises(ZeroDivisionError), fs.transaction:
        fs.cp("a", "copy")
        fs.mv("b", "moved")
        fs.rm("c")
        assert fs.find("") == ["a", "copy", "moved"]
        raise ZeroDivisionError
    assert fs.find("") == ["a", "copy", "moved"]


def test_a_transaction_that_fails_leaves_names_as_they_were(fs):
    fs.pipe("a", b"before")
    with pytest.raises(PathExists), fs.transaction:
        fs.pipe({"a": b"1", "b": b"2"})
        with fs.open("c", "xb") as file:
            file.write(b"3")
        fs.store.put_bytes(b"another's", "c")
    assert fs.cat("", recursive=True) == {"a": b"before", "c": b"another's"}


def test_what_failed_within_a_transaction_is_none_of_it(fs, monkeypatch):
    with fs.transaction:
        fs.pipe("a", b"1")
        with suppress(ZeroDivisionError), fs.open("b", "wb") as file:
            file.write(b"2")
            raise ZeroDivisionError
    assert fs.find("") == ["a"]

    def fails(*args):
        raise OutOfSpace("full")

    with pytest.raises(Refused, match="'b'"), fs.transaction:
        fs.pipe("c", b"1")
        file = fs.open("b", "wb")
        file.write(b"2")
        with monkeypatch.context() as full, suppress(OutOfSpace):
            full.setattr("mfstore.filesystem.files.store_bytes", fails)
            file.close()
    assert fs.find("") == ["a"]


def test_a_transaction_within_a_transaction_is_refused(fs):
    for begin in (fs.transaction.__enter__, fs.start_transaction):
        with pytest.raises(Unsupported), fs.transaction:
            fs.pipe("a", b"1")
            begin()
        assert fs.find("") == []
    with fs.transaction:
        fs.pipe("a", b"1")
    fs.start_transaction()
    fs.pipe("b", b"2")
    fs.end_transaction()
    assert fs.find("") == ["a", "b"]


# ---- ranges -----------------------------------------------------------------------------


@pytest.mark.parametrize(("at_once", "reads"), [(None, 1), (100_000, 3)])
def test_ranges_of_many_files(fs, at_once, reads, monkeypatch):
    fs.pipe({"a": LONG, "b": b"short"})
    fs.store.put(bytearray(LONG), "c")
    fs.store.put({"x": 1}, "d")
    read = []
    monkeypatch.setattr(stores, "READ_TOGETHER", at_once or stores.READ_TOGETHER)
    monkeypatch.setattr(stores, "read_ranges", lambda wanted: read.append(wanted) or read_ranges(wanted))
    found = fs.cat_ranges(["a", "b", "c", "a", "d", "b"], [5, 0, 100_000, -4, 0, 10], [10, 99, 200_000, None, None, 12])
    assert found == [LONG[5:10], b"short", LONG[100_000:200_000], LONG[-4:], fs.store.get_bytes("d"), b""]
    assert len(read) == reads
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(["none"], [0], [1], on_error="raise")
    with pytest.raises(ValueError, match="as many"):
        fs.cat_ranges(["a"], [0, 1], [1])


@pytest.mark.parametrize("cache", ["none", "readahead", "bytes", "blockcache", "all", "first"])
def test_caches_of_fsspec(fs, cache):
    fs.pipe("x", LONG)
    with fs.open("x", cache_type=cache, block_size=50_000) as file:
        for at in (250_000, 10, 299_990, 49_999):
            file.seek(at)
            assert file.read(20) == LONG[at : at + 20]


# ---- elsewhere --------------------------------------------------------------------------


def test_it_is_handed_on(url):
    fs, _ = fsspec.url_to_fs(url)
    fs.pipe("x", LONG)
    for other in (pickle.loads(pickle.dumps(fs)), fsspec.AbstractFileSystem.from_json(fs.to_json())):
        assert other == fs and other.cat("x") == LONG
    with fs.open("x") as file:
        file.seek(3)
        again = pickle.loads(pickle.dumps(file))
        assert again.read(4) == LONG[3:7]


def test_keys_are_told_nobody_who_asks_for_no_passwords():
    keys = {"aws_access_key_id": "AKIA", "aws_secret_access_key": "hidden-1"}
    fs = StoreFileSystem("s3://bucket/x", skip_instance_cache=True, **keys)
    told = fs.to_json(include_password=False)
    assert "hidden-1" in fs.to_json() and "hidden-1" not in told + repr(fs) and '"s3://bucket/x"' in told


def test_in_a_child_that_was_forked(fs):
    fs.pipe("x", LONG)
    child = os.fork()
    if not child:
        try:
            fs.pipe("y", fs.cat_file("x", 10, 20))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert fs.cat("y") == LONG[10:20]


def test_many_threads(fs):
    failed = []

    def work(number):
        try:
            for turn in range(10):
                fs.pipe(f"t/{number}/{turn}", b"%d" % turn)
                assert fs.cat(f"t/{number}/{turn}") == b"%d" % turn
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(fs.find("t")) == 40


def test_a_mapper(fs):
    mapper = fs.get_mapper("map")
    mapper["a/b"] = b"1"
    assert dict(mapper) == {"a/b": b"1"} and "c" not in mapper
    with pytest.raises(KeyError):
        mapper["c"]
