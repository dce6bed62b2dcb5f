"""The notebooks in examples/ run, each in a namespace of its own, and everything that they show can be shown."""

import ast
import json
import linecache

import pytest

import mfstore
from tests import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def sources(path, kind):
    cells = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def run(source, names, where):
    """Run a cell; returns what a notebook would show of its last expression."""
    linecache.cache[where] = len(source), None, source.splitlines(keepends=True), where  # as IPython has it
    body = ast.parse(source).body
    last = ast.Expression(body.pop().value) if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), where, "exec"), names)
    shown = None if last is None else eval(compile(last, where, "eval"), names)
    if shown is None:
        return ""
    as_html = getattr(shown, "_repr_html_", None)
    return (as_html and as_html()) or repr(shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
@pytest.mark.second
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MFSTORE_STORE", raising=False)
    names = {"__name__": "__main__"}
    shown = [run(source, names, f"{path.name}[{number}]") for number, source in enumerate(sources(path, "code"))]
    assert sum(map(bool, shown)) > len(shown) / 2
    for handle in names.values():
        if isinstance(handle, mfstore.Store):
            handle.close()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_has_a_title_and_short_cells_without_outputs(path):
    assert sources(path, "markdown")[0].startswith("# ")
    cells = json.loads(path.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    lines = [line for source in sources(path, "code") for line in source.splitlines()]
    assert len(lines) <= 100
    assert max(map(len, lines)) <= 88  # wider cells have to be scrolled
