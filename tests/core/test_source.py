"""The native core keeps the promises of src/README.md."""

import re
from graphlib import TopologicalSorter

import pytest

from tests import ROOT

SRC = ROOT / "src"
FILES = [path for path in SRC.rglob("*") if path.is_file()]
FUNCTION = re.compile(r"^(?!static)\w[\w *]*?\b(mf_\w+)\([^;{]*\) \{", re.MULTILINE)


def of(*suffixes):
    found = [path for path in FILES if path.suffix in suffixes]
    assert found
    return found


def test_every_file_has_a_room():
    of_all = {SRC / "README.md", SRC / "exports.map"}
    for path in {*FILES} - of_all:
        assert path.suffix in (".pyx", ".pyi", ".pxd", ".c", ".h"), path
        assert path.parent.parent == SRC, path


@pytest.mark.parametrize("room", sorted(path.name for path in SRC.iterdir() if path.is_dir()))
def test_the_readme_names_every_room_and_what_it_builds(room):
    (row,) = re.findall(rf"^\| `{room}/` \|.*$", (SRC / "README.md").read_text(), re.MULTILINE)
    built = row.split("|")[3]
    assert set(re.findall(r"`(\w+)`", built)) == {path.stem for path in (SRC / room).glob("*.pyx")}


def test_every_extension_has_a_stub():
    assert {path.with_suffix("") for path in of(".pyx")} == {path.with_suffix("") for path in of(".pyi")}
    assert (ROOT / "mfstore" / "py.typed").exists()


def test_no_kernel_is_named_like_a_driver():
    """Cython writes X.c for X.pyx, into the folder where the build puts the kernels of that room."""
    assert not {path.stem for path in of(".pyx")} & {path.stem for path in of(".c")}


def test_the_core_imports_nothing_of_mfstore():
    """But other extensions of the core; what it needs of Python's classes is handed in."""
    pattern = re.compile(
        r"^\s*(?:from|import|cimport)\s+(mfstore\b[\w.]*)|import_module|__import__\(.mfstore", re.MULTILINE
    )
    for path in of(".pyx", ".pxd", ".pyi"):
        for found in pattern.finditer(path.read_text()):
            assert found[1] and found[1].startswith("mfstore._core."), (path, found[0])


def test_no_file_is_included_as_text():
    for path in of(".pyx", ".pxd"):
        assert not re.search(r"^\s*include\b", path.read_text(), re.MULTILINE), path
    for path in of(".c", ".h"):
        assert not re.search(r'#include ".*(?<!\.h)"', path.read_text()), path


def test_kernels_know_nothing_of_python():
    for path in of(".c", ".h"):
        assert "Python.h" not in path.read_text(), path


def test_lengths_are_never_int_in_the_kernels():
    for path in of(".h"):
        assert not re.search(r"\bint (n|size|length|count|csize|usize)\b", path.read_text()), path


def test_kernels_call_one_way_only():
    texts = {path: path.read_text() for path in of(".c")}
    home = {name: path for path, text in texts.items() for name in FUNCTION.findall(text)}
    assert len(home) > 50
    calls = {
        path: {home[name] for name in set(re.findall(r"\bmf_\w+", text)) if home.get(name, path) != path}
        for path, text in texts.items()
    }
    assert any(calls.values())
    TopologicalSorter(calls).prepare()  # CycleError names the circle


def test_lines_are_short():
    for path in FILES:
        assert max(map(len, path.read_text().splitlines())) <= 120, path
