"""What differs between two trees: paths that were added, removed or changed. Told by their manifests alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mfstore.comparing.report import ADDED, CHANGED, REMOVED, Difference, Side
from mfstore.format.manifest import DIRECTORY, FILE, TreeEntry
from mfstore.trees.tree import open_tree

if TYPE_CHECKING:
    from mfstore.format.digests import Key
    from mfstore.format.recipes import Recipe
    from mfstore.handle import Handle

MODE = "mode"


def compare_trees(
    handle: Handle, keys: Sequence[Key], recipes: Sequence[Recipe]
) -> tuple[list[Difference], int]:  # fmt: skip
    """The differences in the order of the paths, and how many files, links and directories are the same. Where only one
    side is a tree, that has gone or come as a whole."""
    if not (recipes[0].is_tree and recipes[1].is_tree):
        old, new = (_whole(recipe) for recipe in recipes)
        return [Difference((), CHANGED, old, new)], 0
    sides = [
        {entry.path: entry for entry in open_tree(lambda: handle, key, recipe)}
        for key, recipe in zip(keys, recipes, strict=True)
    ]
    found: list[Difference] = []
    paths = sorted(sides[0].keys() | sides[1].keys(), key=lambda path: path.split("/"))
    for path in paths:
        difference = compare_entries(sides[0].get(path), sides[1].get(path))
        if difference is not None:
            found.append(difference)
    return found, len(paths) - len(found)


def compare_entries(old: TreeEntry | None, new: TreeEntry | None) -> Difference | None:
    """What differs between two entries of one path; None where nothing does but when they were changed."""
    either = new or old
    assert either is not None
    path = tuple(either.path.split("/"))
    if old is None or new is None:
        nbytes = either.size if either.kind == FILE else None
        side = _side(either)
        if old is None:
            return Difference(path, ADDED, None, side, nbytes=nbytes)
        return Difference(path, REMOVED, side, None, nbytes=nbytes)
    if _content(old) != _content(new):
        return Difference(path, CHANGED, _side(old), _side(new))
    if old.mode != new.mode:
        return Difference((*path, f"({MODE})"), CHANGED, _mode(old), _mode(new))
    return None


def _content(entry: TreeEntry) -> tuple[object, ...]:
    return entry.kind, entry.size, entry.digest, entry.target


def _side(entry: TreeEntry) -> Side:
    value = f"-> {entry.target}" if entry.target else DIRECTORY if entry.kind == DIRECTORY else ""
    if entry.kind == FILE and not entry.size:
        value = "an empty file"
    return Side(entry.kind, nbytes=entry.size, value=value)


def _mode(entry: TreeEntry) -> Side:
    return Side(MODE, value=f"{entry.mode:04o}")


def _whole(recipe: Recipe) -> Side:
    types = recipe.described.types
    kind = "bundle" if len(recipe.artifacts) != 1 else types[0]
    return Side(kind, nbytes=sum(artifact.size for artifact in recipe.artifacts))
