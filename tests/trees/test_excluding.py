"""Patterns of what is left out of a tree."""

from fnmatch import translate

import pytest

from mfstore.errors import InvalidKey
from mfstore.trees import excluding
from mfstore.trees.excluding import excludes


@pytest.mark.parametrize(
    ("pattern", "out", "stay"),
    [
        ("*.pyc", ["a.pyc", "x/y/b.pyc", ".pyc"], ["a.py", "a.pyc.txt", "a.pyc/b"]),
        (".git", [".git", "x/.git"], [".gitignore", "a.git", "x/.git/config"]),
        ("build/", ["build", "x/build"], []),
        ("data/*.csv", ["data/a.csv"], ["x/data/a.csv", "data/x/a.csv", "data"]),
        ("/top", ["top"], ["x/top"]),
        ("./a/b", ["a/b"], ["x/a/b"]),
        ("data/**/tmp", ["data/tmp", "data/x/tmp", "data/x/y/tmp"], ["tmp", "x/data/tmp"]),
        ("data/**", ["data/x", "data/x/y"], ["data", "xdata/x"]),
        ("a?c", ["abc", "x/a.c"], ["ac", "a/c"]),
        ("[ab].txt", ["a.txt", "b.txt"], ["c.txt"]),
        ("[!ab].txt", ["c.txt"], ["a.txt", "b.txt"]),
        ("[.]x", [".x"], ["ax"]),
        ("a[!b]c", ["axc"], ["a/c", "abc"]),
        ("x/a[!b]c", ["x/axc"], ["x/a/c"]),
        ("[].]x", [".x", "]x"], ["ax"]),
        ("[!].]x", ["ax"], [".x", "]x", "/x"]),
        ("[a[.]x", ["[x", ".x", "ax"], ["bx"]),
        ("a.b", ["a.b"], ["axb"]),
        ("*\n*", ["a\nb"], ["ab"]),
    ],
)
def test_patterns(pattern, out, stay):
    excluded = excludes(pattern)
    assert [path for path in out if not excluded(path, True)] == []
    assert [path for path in stay if excluded(path, True)] == []


def test_an_expression_ends_as_the_newest_python_ends_it(monkeypatch):
    monkeypatch.setattr(excluding, "translate", lambda pattern: translate(pattern)[:-1] + "z")
    excluded = excludes("*.pyc")
    assert excluded("x/a.pyc", False)
    assert not excluded("a.pyc.txt", False)


def test_a_slash_at_the_end_is_of_directories_alone():
    assert excludes(["cache/"])("cache", True)
    assert not excludes(["cache/"])("cache", False)


@pytest.mark.parametrize("pattern", ["", "/", "a\0b", 3])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(InvalidKey):
        excludes([pattern])
