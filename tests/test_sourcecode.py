"""The tree keeps the promises it makes about itself."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PUBLIC = list((ROOT / "mfstore").rglob("*.py"))


def names(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("path", PUBLIC, ids=names(PUBLIC))
def test_public_things_have_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module"
    inherited = {"get", "get_range", "put", "put_if", "delete", "list", "head", "get_many", "exists_many", "read_into"}
    inherited |= {"put_many", "map", "identity", "batch", "ensure", "commit", "abort", "close", "where", "main"}
    inherited |= {"begin", "on_reply", "announced", "again", "rescued", "cleanup", "forget", "abandon", "take", "fail"}
    inherited |= {
        "channel",
        "submit",
        "poll",
        "resume",
        "cancel",
        "fileno",
        "read_many",
        "get_tagged",
        "vouch",
        "delete_many",
        "delete_unchanged",
        "list_many",
        "deletes_conditionally",
        "lifecycle_rules",
        "versioning",
        "object_lock",
        "locks",
        "read_again",
        "read_ends",
        "maps_safely",
        "move_unchanged",
        "read",
        "tails",
        "copy",
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
            for item in node.body:
                if (
                    isinstance(item, ast.FunctionDef)
                    and not item.name.startswith(("_", "test_"))
                    and not overloads(item)
                ):
                    assert ast.get_docstring(item) or item.name in inherited or is_small(item), (
                        f"{node.name}.{item.name}"
                    )


def overloads(function):
    return any(isinstance(name, ast.Name) and name.id == "overload" for name in function.decorator_list)


def is_small(function):
    """An override whose contract stands on the class it implements."""
    return function.name in ("body", "payload", "readable", "readinto", "find_class", "backend", "codec")


def tracked():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def test_nothing_names_a_machine():
    # Written with character classes so that this file does not match itself.
    pattern = re.compile(r"(/hom[e]/\w|/roo[t]/|/User[s]/\w|pyp[i]\.org/simple|\b10\.\d+\.\d+\.\d+)")
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        assert not pattern.search(text), path


def test_free_threading_is_not_declared_before_it_is_shown():
    """docs/decisions/105-no-claim-without-a-run.md"""
    assert '"freethreading_compatible"' not in (ROOT / "setup.py").read_text()
