"""Directories as artifacts: what is stored is what is restored, and what lies in the store is a tree like any artifact."""

import asyncio
import os
import pickle
import random
import socket
import stat
import threading
import time
import warnings
from types import SimpleNamespace

import pytest

import mfstore
from mfstore.cli.artifacts import name_and_path
from mfstore.errors import (
    CorruptObject,
    InvalidRange,
    MfstoreWarning,
    NotFound,
    NotSigned,
    Refused,
    Unreadable,
    Unsupported,
)
from mfstore.trees import restoring, storing
from tests.rigs.command_line import mfstore as run

noise = random.Random(7).randbytes
BIG = noise(700_000)


@pytest.fixture
def source(tmp_path):
    """A directory with one of each."""
    top = tmp_path / "source"
    (top / "sub" / "empty").mkdir(parents=True)
    (top / "a.txt").write_bytes(b"hello\n" * 1000)
    (top / "sub" / "again.txt").write_bytes(b"hello\n" * 1000)
    (top / "sub" / "none").touch()
    (top / "sub" / "none too").touch()
    (top / "sub" / "big.bin").write_bytes(BIG)
    (top / "sub" / "big again.bin").write_bytes(BIG)
    (top / "run.sh").write_bytes(b"#!/bin/sh\n")
    (top / "run.sh").chmod(0o750)
    (top / "to a file").symlink_to("a.txt")
    (top / "nowhere").symlink_to("/etc/none such")
    (top / "out").symlink_to("../..")
    (top / os.fsdecode(b"not \xff utf8\n")).write_bytes(b"x")
    (top / "sub" / "empty").chmod(0o700)
    for number, path in enumerate([*top.rglob("*"), top]):
        moment = 1_600_000_000_123_456_789 + number * 10**9
        os.utime(path, ns=(moment, moment), follow_symlinks=False)
    return top


def state(top):
    """All that is to be the same, by path."""
    found = {}
    for path in [top, *top.rglob("*")]:
        status = path.lstat()
        held = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        mode = 0 if path.is_symlink() else stat.S_IMODE(status.st_mode)
        found[str(path.relative_to(top))] = (stat.S_IFMT(status.st_mode), mode, status.st_mtime_ns, held)
    return found


@pytest.mark.parametrize("block", [1 << 16, restoring.BLOCK])
def test_what_is_stored_is_what_is_restored(store, source, tmp_path, monkeypatch, block):
    monkeypatch.setattr(restoring, "BLOCK", block)  # files come in one part, or in several
    key = store.put_tree(source, "trees/one", note={"n": 1})
    store.get_tree("trees/one", tmp_path / "to")
    assert state(tmp_path / "to") == state(source)
    assert store.put_tree(tmp_path / "to") == key
    assert store.stat("trees/one").type == "tree"
    assert store.stat("trees/one").note == {"n": 1}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".mfstore-")]


def test_an_empty_directory_and_one_of_empty_files(store, tmp_path):
    for names in ((), ("one", "two")):
        top = tmp_path / f"source{len(names)}"
        top.mkdir()
        for name in names:
            (top / name).touch()
        store.get_tree(store.put_tree(top), tmp_path / f"to{len(names)}")
        assert state(tmp_path / f"to{len(names)}") == state(top)


def test_one_file_and_one_directory_are_restored_alone(store, source, tmp_path):
    key = store.put_tree(source)
    store.get_tree(key, tmp_path / "file", "sub/big.bin")
    assert (tmp_path / "file").read_bytes() == BIG
    store.get_tree(key, tmp_path / "part", "/sub/")
    assert state(tmp_path / "part") == state(source / "sub")
    store.get_tree(key, tmp_path / "link", "out")
    assert os.readlink(tmp_path / "link") == "../.."
    with pytest.raises(Refused):
        store.get_tree(key, tmp_path / "file", "a.txt")
    store.get_tree(key, tmp_path / "file", "a.txt", existing="keep")
    assert (tmp_path / "file").read_bytes() == BIG
    store.get_tree(key, tmp_path / "file", "a.txt", existing="replace")
    assert (tmp_path / "file").read_bytes() == b"hello\n" * 1000
    with pytest.raises(NotFound, match="'a.txt'"):
        store.get_tree(key, tmp_path / "none", "no such")


def test_a_tree_is_read_without_restoring_it(store, source):
    key = store.put_tree(source)
    tree = store.get(key)
    assert dict(store.get_many([key]))[key].key == tree.key == store.tree(key).key == key
    assert [entry.path for entry in store.ls_tree(key, "sub")] == [
        "sub/again.txt", "sub/big again.bin", "sub/big.bin", "sub/empty", "sub/none", "sub/none too",
    ]  # fmt: skip
    assert [entry.path for entry in tree] == [entry.path for entry in tree.entries(recursive=True)]
    assert len(tree) == len([*source.rglob("*")]) and "sub/empty" in tree and "sub/other" not in tree
    assert tree.entries("sub/empty") == [] and tree.entries("a.txt") == [tree.entry("a.txt")]
    assert tree.read("sub/big.bin", 1000, 300_000) == BIG[1000:300_000]
    assert tree.read("sub/big.bin", 699_999, 10**9) == BIG[-1:] and tree.read("sub/none") == b""
    with tree.open("sub/big again.bin") as file:
        assert (file.seek(-10, os.SEEK_END), file.read(), file.seek(5), file.read(5)) == (
            699_990, BIG[-10:], 5, BIG[5:10],
        )  # fmt: skip
    assert tree.size == sum(
        path.stat().st_size for path in source.rglob("*") if path.is_file() and not path.is_symlink()
    )
    for path, error in (("sub", Unsupported), ("to a file", Unsupported), ("none", NotFound), ("../a", NotFound)):
        with pytest.raises(error):
            tree.read(path)
    with pytest.raises(InvalidRange):
        tree.read("a.txt", 9, 3)
    assert "hello" not in repr(tree) and "a.txt" in repr(tree) and "a.txt" in tree._repr_html_()
    with pytest.raises(Unsupported):
        store.tree(store.put({"a": 1}))
    assert asyncio.run(store.als_tree(key)) == tree.entries()


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path, source):
    import hashlib

    with mfstore.open(tmp_path / "sha", hash="sha256") as store:
        entry = store.tree(store.put_tree(source)).entry("sub/big.bin")
    assert entry.digest == hashlib.sha256(BIG).digest()


def test_bytes_are_stored_once_and_versions_share_them(store, source):
    store.put_tree(source)
    stored = store.stats().stored
    assert stored < len(BIG) + 50_000
    (source / "more").mkdir()
    (source / "sub" / "big.bin").rename(source / "more" / "elsewhere.bin")
    (source / "sub" / "big again.bin").write_bytes(b"in front of it" + BIG)
    (source / "a.txt").write_bytes(b"other")
    store.put_tree(source)
    assert store.stats().stored < stored + 150_000


def test_excludes_and_special_files(store, source, monkeypatch):
    monkeypatch.chdir(source)  # names of sockets are short
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("sub/sock")
    os.mkfifo("fifo")
    with pytest.warns(MfstoreWarning, match=r"'fifo' \(fifo\), 'sub/sock' \(socket\)"):
        key = store.put_tree(".", exclude=["*.bin", "empty/"])
    listening.close()
    tree = store.tree(key)
    assert [(left.path, left.reason) for left in tree.omitted] == [("fifo", "fifo"), ("sub/sock", "socket")]
    assert [entry.path for entry in tree.entries("sub")] == ["sub/again.txt", "sub/none", "sub/none too"]


def test_a_store_inside_of_what_it_stores_is_left_out(source):
    with mfstore.open(source / "store") as store:
        store.put(1)
        with pytest.warns(MfstoreWarning, match="the store itself"):
            key = store.put_tree(source)
        assert "store" not in store.tree(key)
        with pytest.raises(Refused, match="its own directory"):
            store.put_tree(source / "store")


def test_a_path_longer_than_a_manifest_tells_is_named_or_left_out(store, tmp_path, monkeypatch):
    monkeypatch.setattr("mfstore.trees.scanning.LONGEST", 20)
    monkeypatch.setattr("mfstore.trees.scanning.CUT", 17)
    deep = tmp_path / "source" / "0123456789"
    deep.mkdir(parents=True)
    for name in ("ok", "more than fits", "more than fits in"):
        (deep / name).touch()
    with pytest.raises(Unreadable, match="path too long"):
        store.put_tree(tmp_path / "source")
    with pytest.warns(MfstoreWarning, match="path too long"):
        tree = store.tree(store.put_tree(tmp_path / "source", on_error="omit"))
    assert tree.omitted == (("0123456789/more t…", "path too long"),)
    assert [entry.path for entry in tree] == ["0123456789", "0123456789/ok"]


def test_what_cannot_be_read_is_named_or_left_out(store, source, monkeypatch):
    """Root may read everything: here the system says no in its place."""
    (source / "closed").mkdir()
    (source / "closed" / "in").touch()
    really = os.open

    def refuse(path, *arguments, **options):
        if os.fsencode(path).endswith((b"closed", b"run.sh")):
            raise PermissionError(13, "Permission denied", path)
        return really(path, *arguments, **options)

    monkeypatch.setattr("mfstore.host.beneath.OPENS_PLAINLY", False)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Unreadable, match=r"'closed': not permitted \(Permission denied\)") as caught:
        store.put_tree(source)
    assert (caught.value.path, caught.value.reason) == ("closed", "not permitted")
    assert not [*store.keys()]
    with pytest.warns(MfstoreWarning):
        tree = store.tree(store.put_tree(source, on_error="omit"))
    assert [left.path for left in tree.omitted] == ["closed", "run.sh"]
    assert "closed" not in tree and "run.sh" not in tree and "a.txt" in tree


@pytest.mark.parametrize("name", ["a.txt", "sub/big.bin"])
@pytest.mark.parametrize(
    "change",
    ["grows", "shrinks", "is written in", "is written in as if before", "vanishes", "becomes a fifo", "becomes a link"],
)
def test_no_file_is_stored_torn(store, source, monkeypatch, name, change):
    """Something happens to it at each attempt to read it: it is left out, and told."""
    path = source / name
    held = path.read_bytes()
    os.utime(path)  # just now
    really = os.read
    count = 0

    def read(fd, length):
        nonlocal count
        data = really(fd, length)
        if os.path.exists(f"/proc/self/fd/{fd}") and os.readlink(f"/proc/self/fd/{fd}").startswith(str(path)) and data:
            count += 1
            if change == "grows":
                with path.open("ab") as file:
                    file.write(b"more")
            elif change == "shrinks":
                os.truncate(path, len(held) - 100 - count)
            else:
                before = path.stat()
                with path.open("r+b") as file:
                    file.write(b"%09d" % count)
                if change.endswith("before"):
                    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return data

    if change in ("grows", "shrinks") or change.startswith("is written in"):
        monkeypatch.setattr(storing.os, "read", read)
        reason = "kept changing"
    else:
        found = storing.scan

        def scan(*arguments):
            scanned = found(*arguments)
            path.unlink()
            if change == "becomes a fifo":
                os.mkfifo(path)
            elif change == "becomes a link":
                path.symlink_to("/etc/passwd")
            return scanned

        monkeypatch.setattr(storing, "scan", scan)
        reason = "kept changing" if change == "becomes a fifo" else "vanished"
    with pytest.raises(Unreadable):
        store.put_tree(source)
    if not path.exists() or change.startswith("becomes"):
        path.unlink(missing_ok=True)
        path.write_bytes(held)
    with pytest.warns(MfstoreWarning, match=reason):
        tree = store.tree(store.put_tree(source, on_error="omit"))
    assert name not in tree
    assert [left.path for left in tree.omitted] == [name]


def test_what_is_longer_than_the_system_says_is_no_whole_file(tmp_path):
    """As files of /proc are, whose length is told as 0."""
    (tmp_path / "file").write_bytes(b"12345")
    with (tmp_path / "file").open("rb", buffering=0) as file:
        with pytest.raises(storing._ChangedError):
            list(storing._blocks(file.fileno(), 0))
        file.seek(0)
        assert b"".join(storing._blocks(file.fileno(), 5)) == b"12345"


def test_a_file_that_was_changed_just_now_is_waited_for(store, tmp_path, monkeypatch):
    """What is written in it within the same tick of the file system's clock would have the same time."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"x")
    changed = (tmp_path / "source" / "file").stat().st_ctime_ns
    waited = []
    for since in (5_000_000, storing.GRAIN_NS):
        clock = SimpleNamespace(sleep=waited.append, time_ns=lambda since=since: changed + since)
        monkeypatch.setattr(storing, "time", clock)
        store.put_tree(tmp_path / "source")
        assert waited == [0.015]


def test_a_file_that_changes_once_is_read_again(store, source, monkeypatch):
    really, changed = os.read, []

    def read(fd, length):
        data = really(fd, length)
        if data.startswith(b"hello") and not changed:
            changed.append(1)
            (source / "a.txt").write_bytes(b"other\n" * 1000)
        return data

    monkeypatch.setattr(storing.os, "read", read)
    key = store.put_tree(source)
    assert changed and store.tree(key).read("a.txt") == b"other\n" * 1000


def test_a_file_that_is_being_written_is_whole_as_of_one_moment(store, tmp_path):
    """A writer that fills a file with one byte after the other, over and over: what is stored is of one kind."""
    top = tmp_path / "source"
    top.mkdir()
    (top / "f").write_bytes(bytes(100_000))
    over = threading.Event()

    def write():
        number = 0
        with open(top / "f", "r+b", buffering=0) as file:
            while not over.is_set():
                number += 1
                for at in range(0, 100_000, 10_000):
                    file.seek(at)
                    file.write(bytes([number % 256]) * 10_000)
                time.sleep(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(4):
            try:
                key = store.put_tree(top)
            except Unreadable:
                continue
            assert len(set(store.tree(key).read("f"))) == 1
    finally:
        over.set()
        writer.join()


def test_small_files_of_a_network_file_system_are_read_together(store, source, monkeypatch):
    """Six, two at a time at least: none is read until another one is."""
    key = store.put_tree(source)
    both, really = threading.Barrier(2, timeout=120), storing.TreeWriter._read_small

    def read(self, fd):
        both.wait()
        return really(self, fd)

    monkeypatch.setattr(storing, "on_network", lambda path: True)
    monkeypatch.setattr(storing.TreeWriter, "_read_small", read)
    assert store.put_tree(source) == key


def test_small_files_lie_by_their_suffixes():
    """Then by their paths, so that each lies where it did in the version before."""
    paths = [b"a.txt", b"b.py", b"none", b"x/a.PY", b"x/b.txt"]
    assert sorted(paths, key=storing.content_order) == [b"none", b"b.py", b"x/a.PY", b"a.txt", b"x/b.txt"]


def test_a_base_makes_versions_small(tmp_path):
    top = tmp_path / "source"
    top.mkdir()
    for number in range(40):
        (top / f"{number}.bin").write_bytes(noise(20_000))
    with mfstore.open(tmp_path / "store") as store:
        store.put_tree(top, "t")
        before = store.stats().stored
        for number in range(0, 40, 4):
            with (top / f"{number}.bin").open("r+b") as file:
                file.write(b"changed")
        key = store.put_tree(top, "t", base="t")
        assert store.stats().stored - before < 40_000
        store.get_tree(key, tmp_path / "to")
        assert state(tmp_path / "to") == state(top)


# ---- as any artifact ------------------------------------------------------------------


def test_maintenance_works_on_trees(store, source, tmp_path):
    first = store.put_tree(source, "t", note={"n": 1})
    (source / "a.txt").write_bytes(b"second")
    second = store.put_tree(source, "t")
    assert not store.verify("full").findings
    assert {group.name for group in store.usage().groups} >= {"t"}
    assert "tree" in str(store.usage("type"))
    assert [entry.key for entry in store.refs.history("t")] == [second, first]
    assert [found.ref for found in store.find(where={"n": 1}, history=True)] == ["t@1"]
    store.plan_gc(grace=0, keep_last=1).execute()
    time.sleep(0.01)
    store.plan_gc(grace=0, keep_last=1).execute()
    assert [*store.keys()] == [second]
    store.get_tree("t", tmp_path / "to")
    assert state(tmp_path / "to") == state(source)


def test_trees_are_copied_to_other_stores(store, source, tmp_path):
    first = store.put_tree(source, "t", note={"n": 1})
    (source / "a.txt").write_bytes(b"second")
    second = store.put_tree(source, "t", base="t")
    with mfstore.open(tmp_path / "other") as other:
        store.copy_to(other, ["t"])
        assert [entry.key for entry in other.refs.history("t")] == [second, first]
        assert other.refs.history("t")[1].note == {"n": 1}
        assert not other.verify("full").findings
        other.get_tree("t", tmp_path / "to")
    assert state(tmp_path / "to") == state(source)


def test_damage_is_found_and_repaired_by_storing_it_again(store, source, tmp_path):
    key = store.put_tree(source)
    (pack,) = (path for path in (tmp_path / "store" / "packs").rglob("*") if path.is_file())
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 0xFF
    pack.chmod(0o644)
    pack.write_bytes(data)
    with mfstore.open(tmp_path / "store") as other:
        assert other.verify("full").findings
        with pytest.raises(CorruptObject):
            other.get_tree(key, tmp_path / "to")
        assert not (tmp_path / "to").exists()
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".mfstore-")]
        assert other.put_tree(source) == key
        other.repair()
        assert not other.verify("full").findings
        other.get_tree(key, tmp_path / "to")
    assert state(tmp_path / "to") == state(source)


def test_trees_are_compared_by_path(store, source):
    old = store.put_tree(source)
    (source / "a.txt").write_bytes(b"changed")
    (source / "run.sh").chmod(0o700)
    (source / "sub" / "none").unlink()
    (source / "sub" / "new").write_bytes(b"12345")
    new = store.put_tree(source)
    diff = store.diff(old, new)
    assert [(entry.change, entry.where) for entry in diff] == [
        ("changed", "a.txt"), ("changed", "run.sh/(mode)"), ("added", "sub/new"), ("removed", "sub/none"),
    ]  # fmt: skip
    assert not store.diff(old, old)
    assert len(store.diff(old, store.put({"a": 1}))) == 1


def test_only_signed_trees_are_opened(store, source, tmp_path):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    key = store.put_tree(source)
    with mfstore.open(store.url, trusted=[private.public_key()]) as trusting:
        for read in (trusting.get, trusting.tree, lambda key: trusting.get_tree(key, tmp_path / "to")):
            with pytest.raises(NotSigned):
                read(key)
        store.sign(key, key=private)
        assert trusting.get(key).read("a.txt") == b"hello\n" * 1000


def test_bulk_reads_and_errors_of_trees(store, source):
    keys = [store.put(1), store.put_tree(source), store.put(2)]
    found = dict(store.get_many(keys))
    assert (found[keys[0]], found[keys[1]].key, found[keys[2]]) == (1, keys[1], 2)
    for read in (store.load, store.view):
        with pytest.raises(Unsupported):
            read(keys[1])
    error = pickle.loads(pickle.dumps(Unreadable("cannot")))
    assert isinstance(error, OSError) and error.code == "unreadable"


def test_progress_counts_the_bytes(store, source, tmp_path):
    told = []
    key = store.put_tree(source, progress=told.append)
    size = store.tree(key).size
    assert sum(told) == size
    told.clear()
    store.get_tree(key, tmp_path / "to", progress=told.append)
    assert sum(told) == size


# ---- the command ----------------------------------------------------------------------


def test_the_longest_beginning_that_names_something_is_meant(store, source):
    """Refs and times have colons of their own: of a minute the hour is no name."""
    first = store.put_tree(source, "t")
    second = store.put_tree(source, "t:sub", exclude="*.bin")
    assert name_and_path(store, "t:sub") == (second, None)
    assert name_and_path(store, "t:sub:a.txt") == (second, "a.txt")
    assert name_and_path(store, "t:a:b") == (first, "a:b")
    assert name_and_path(store, "t@2999-01-01T10:30:sub") == (first, "sub")


def test_the_commands(source, tmp_path):
    place = ("--store", tmp_path / "store")
    key = run("put", *place, "--ref", "t", "--exclude", "*.bin", source).stdout.strip()
    assert run("get", *place, "t:a.txt").stdout == "hello\n" * 1000
    run("get", *place, f"{key}:sub", "-o", tmp_path / "sub")
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == ["again.txt", "empty", "none", "none too"]
    assert "not empty" in run("get", *place, "t:sub", "-o", tmp_path / "sub", code=1).stderr
    run("get", *place, "t:sub", "-o", tmp_path / "sub", "--existing", "replace")
    run("get", *place, "t@0", "-o", tmp_path / "all")
    assert (tmp_path / "all" / "nowhere").is_symlink()
    assert "--output" in run("get", *place, "t", code=2).stderr
    assert run("tree", *place, "t:sub").stdout.splitlines() == [
        "sub/again.txt",
        "sub/empty/",
        "sub/none",
        "sub/none too",
    ]
    assert "-rwxr-x---" in run("tree", *place, "-l", "-r", "t").stdout
    assert "not \\udcff utf8\\n" in run("tree", *place, "t").stdout.splitlines()
    assert '"target": "a.txt"' in run("tree", *place, "--json", "t").stdout
    assert "nothing" in run("get", *place, "t:none", code=1).stderr
    file = run("put", *place, source / "a.txt").stdout.strip()
    for command in (
        ("put", *place, "--exclude", "x", source / "a.txt"), ("put", *place, "--omit-unreadable", source / "a.txt"),
        ("put", *place, "--safetensors", source), ("get", *place, "--name", "a", "t:a.txt"),
        ("get", *place, "--existing", "keep", "t:a.txt"),
        ("get", *place, "--existing", "keep", file, "-o", tmp_path / "file"),
    ):  # fmt: skip
        assert "Error: --" in run(*command, code=2).stderr
    os.mkfifo(source / "pipe")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        told = run("put", *place, source / "sub", source).stderr
    assert told.startswith("mfstore: warning: left out of the tree: 'pipe' (fifo)") and len(told.splitlines()) == 1
