"""docs/architecture.md says which room may import which; the imports of every module are compared with it.

Imports inside functions and those for type checkers count like any others: what a module needs, it needs.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "architecture.md").read_text()


def rows(title):
    """The cells of the first table below a heading, without its head."""
    lines = TEXT.split(f"## {title}\n", 1)[1].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    found = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found[2:]


def paths(cell):
    return re.findall(r"`(mfstore/[\w./]*|src/)`", cell)


def modules():
    """Every module by its dotted name."""
    found = {}
    for path in (ROOT / "mfstore").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name):
    """The modules of mfstore that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{name}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES or node.module == "mfstore._core" else node.module)
    return {module for module in found if module.split(".")[0] == "mfstore"} - {name}


FLOORS = {path: number for number, row in enumerate(rows("The rooms")) for path in paths(row[0])}
UP = [(paths(row[0])[0], paths(row[1])[0]) for row in rows("Arrows up")]


def place(module):
    """The longest path of the table that a module lies below: its room."""
    path = "src/" if module.startswith("mfstore._core") else str(MODULES[module].relative_to(ROOT))
    return max((room for room in FLOORS if path.startswith(room)), key=len, default=None)


def test_every_module_has_a_room():
    front = {"mfstore", "mfstore.__main__", "mfstore.s3", "mfstore.s3.exceptions", "mfstore.s3.helper", "mfstore._core"}
    assert not [name for name in MODULES if place(name) is None and name not in front]


def lies_in(module, path):
    return str(MODULES[module].relative_to(ROOT)).startswith(path)


def test_rooms_import_only_rooms_below_them():
    up = {
        (name, other)
        for name in MODULES
        for other in imports(name)
        if (here := place(name)) is not None and (there := place(other)) is not None and FLOORS[there] < FLOORS[here]
    }
    justified = {arrow for arrow in up for above, below in UP if lies_in(arrow[0], above) and lies_in(arrow[1], below)}
    assert not up - justified
    for above, below in UP:
        assert any(lies_in(name, above) and lies_in(other, below) for name, other in up), f"no arrow: {above}, {below}"


def test_no_import_goes_in_a_circle():
    """But for the arrows up that are justified, and the names that packages offer later."""
    graph = {
        name: {
            other
            for other in imports(name) & MODULES.keys()
            if not any(lies_in(name, above) and lies_in(other, below) for above, below in UP)
        }
        for name in MODULES
    }
    for package in ("mfstore", "mfstore.s3"):
        graph[package] = set()
    circles, done = [], set()

    def walk(name, path):
        if name in path:
            circles.append([*path[path.index(name) :], name])
        elif name not in done:
            for other in sorted(graph[name]):
                walk(other, [*path, name])
            done.add(name)

    for name in sorted(graph):
        walk(name, [])
    assert not circles


OF_METAFLOW = ("mfstore.metaflow.hooks.", "mfstore.demo.")
"""What they touch is private to Metaflow's own classes, which they extend or drive: metaflow/hooks/rebinding.py."""


def test_private_parts_are_touched_only_where_they_are_defined():
    """``other._name`` outside the module that defines ``_name``: an internal interface is missing."""
    trees = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
    defined = {name: set(definitions(tree)) for name, tree in trees.items()}
    ours = set().union(*defined.values()) - {"_replace", "_asdict", "_fields"}
    touched = [
        f"{name}:{node.lineno} {ast.unparse(node)}"
        for name, tree in trees.items()
        if not name.startswith(OF_METAFLOW)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
        if node.attr in ours and node.attr not in defined[name]
    ]
    assert touched == []


def definitions(tree):
    """The names that a module gives to functions, classes, attributes and variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
