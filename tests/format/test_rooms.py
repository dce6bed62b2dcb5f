"""format/ is docs/format.md in code: a module for each part, pure, and named there."""

import ast
import re

import pytest

from tests import ROOT

TEXT = (ROOT / "docs" / "format.md").read_text()
MODULES = sorted(path for path in (ROOT / "mfstore" / "format").glob("*.py") if path.name != "__init__.py")
SECTIONS = dict(re.findall(r"^##+ (.+)\n((?:(?!^##+ ).*\n)*)", TEXT, re.MULTILINE))
ELSEWHERE = {
    "Objects": "the paths are in the modules of what lies there",
    "Codecs": "the compiled core",
    "Equal content": "what picklers do",
    "Invariants": "rules for all of them",
    "Maintenance of Metaflow roots": "no part of a store",
    "A reader": "reads by the other parts, without mfstore",
    "Compatibility": "rules for all of them",
    "Trust": "rules for all of them",
}
"""Parts of the page that are no record of a store, and why."""
PURE = ("mfstore.display", "mfstore.errors", "mfstore.format", "mfstore.records", "mfstore._core")


def imported(path):
    """Every module that a module of mfstore's imports, also under TYPE_CHECKING and in functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, path
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_record_knows_nothing_of_mfstore_but_errors_and_the_core(path):
    ours = [name for name in imported(path) if name.partition(".")[0] == "mfstore"]
    assert all(f"{name}.".startswith(tuple(f"{room}." for room in PURE)) for name in ours), ours
    assert not {"os.path", "pathlib", "io", "time", "threading", "socket"} & set(imported(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_each_module_names_its_headings_and_they_name_it(path):
    text = " ".join(ast.get_docstring(ast.parse(path.read_text())).split())
    headings = re.findall(r'"([^"]+)"', text[text.index("docs/format.md") :])
    assert headings
    for heading in headings:
        assert f"*`mfstore/format/{path.name}`*" in SECTIONS[heading]


def test_each_part_of_the_page_has_its_module():
    named = {
        title for title, body in SECTIONS.items() if re.search(r"^\*`mfstore/format/\w+\.py`\*$", body, re.MULTILINE)
    }
    assert SECTIONS.keys() - named == ELSEWHERE.keys()
