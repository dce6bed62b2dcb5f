"""Which mode is missing where, told by a directory in which something may not be done."""

import errno
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

import mfstore
from mfstore.errors import AccessDenied
from mfstore.host.permissions import refused_because

NOBODY = 65534


@pytest.fixture
def tree():
    """A directory that everybody may reach, and that belongs to whom ``outsider`` makes of this process."""
    root = Path(tempfile.mkdtemp(prefix="modes-", dir="/tmp")).resolve()
    root.chmod(0o755)
    (root / "folder").mkdir()
    (root / "folder" / "file").write_bytes(b"1")
    yield root
    shutil.rmtree(root)


@contextmanager
def outsider(tree):
    """This process is one whom modes keep out; root becomes nobody, who owns the tree."""
    as_root = os.geteuid() == 0
    if as_root:
        for path in (tree, *tree.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if as_root:
            os.seteuid(0)
            os.setegid(0)
        tree.chmod(0o755)
        for path in tree.iterdir():
            path.chmod(0o755)


@pytest.mark.parametrize(
    ("place", "mode", "asked", "words", "fix"),
    [
        ("folder", 0o600, "folder/file", "search (x)", "o+x"),
        ("folder/file", 0o200, "folder/file", "read (r)", "o+r"),
        ("folder", 0o500, "folder/new", "write (w)", "o+w"),
        ("folder", 0o300, "folder", "read (r)", "o+r"),
        ("", 0o500, "new/deep/down", "write (w)", "o+w"),
        ("folder", 0o500, "folder/file", "write (w)", "o+w"),
    ],
)
def test_the_place_and_the_mode_are_named(tree, place, mode, asked, words, fix):
    found = tree / place
    found.chmod(mode)
    with outsider(tree):
        why, hint = refused_because(str(tree / asked), errno.EACCES)
        assert f"user {os.geteuid()}:" in why
    assert f"may not {words} {found}," in why and f"mode {mode:04o}" in why
    assert f"chmod {fix} {found}" in hint


def test_what_no_mode_says(tree):
    assert "read-only" in refused_because(str(tree / "folder"), errno.EROFS)[0]
    why, hint = refused_because(str(tree / "folder" / "file"), errno.EPERM)
    assert "though its mode allows it" in why and "immutable" in hint


@pytest.mark.parametrize(
    ("folder", "mode", "lacking"), [("refs", 0o500, "write (w)"), ("recipes", 0o200, "search (x)")]
)
def test_a_store_says_which_directory_may_not_be_used(tree, folder, mode, lacking):
    place = tree / "folder" / "store"
    with mfstore.open(str(place)) as store:
        key = store.put(b"1" * 1000)
        store.refs["name"] = key
        assert store.get(key)  # with it all modules are loaded that somebody else may not read
    (place / folder).chmod(mode)
    with mfstore.open(str(place)) as store, outsider(tree), pytest.raises(AccessDenied) as caught:
        store.refs["name"] = store.put(b"2" * 1000)
    assert f"may not {lacking} {place / folder}" in str(caught.value), caught.value
    (place / folder).chmod(0o755)
