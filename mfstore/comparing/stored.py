"""Two things that are stored, compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mfstore.comparing.report import ADDED, CHANGED, REMOVED, Diff, Difference, Side
from mfstore.comparing.sameness import Place
from mfstore.comparing.walk import Comparison, Path, Whole, Work
from mfstore.format.recipes import BUNDLE, Recipe
from mfstore.loading.artifacts import first_chunks
from mfstore.views.parts import ArtifactParts

if TYPE_CHECKING:
    from mfstore.allow import Allow
    from mfstore.format.digests import Key
    from mfstore.handle import Handle
    from mfstore.loading.artifacts import Loading

NOTE = "(note)"
"""What the note of what was stored is called in a path."""


def compare(
    handle: Handle, old: tuple[str, Key], new: tuple[str, Key], safe: bool | Allow | None = None
) -> Diff:  # fmt: skip
    """What differs between what is stored under two keys, each given with what it was asked for as. ``safe`` as of
    ``Store.view``."""
    keys = old[1], new[1]
    handle.require_signed(keys)
    recipes = [handle.recipe(key) for key in dict.fromkeys(keys)]
    if len(recipes) == 1:
        return Diff(old[0], new[0], *keys, (), len(recipes[0].artifacts))
    if any(recipe.is_tree for recipe in recipes):
        from mfstore.comparing.trees import compare_trees

        differences, same = compare_trees(handle, keys, recipes)
        return Diff(old[0], new[0], *keys, (*differences, *_notes(recipes[0], recipes[1])), same)
    comparison = Comparison(handle.count)
    try:
        entries = comparison.compare(_work(handle.loading(None, False, False, safe), recipes[0], recipes[1]))
    except Exception as error:
        # Which side it was, damage says itself: it names the pack, or the recipe.
        error.add_note(f"while comparing {keys[0]} and {keys[1]} in {handle.backend.url}")
        raise
    return Diff(old[0], new[0], *keys, (*entries, *_notes(recipes[0], recipes[1])), comparison.same)


def _work(how: Loading, left: Recipe, right: Recipe) -> list[Work]:
    sides = [_artifacts(how, recipe) for recipe in (left, right)]
    if left.kind != BUNDLE and right.kind != BUNDLE:
        return [(None, sides[0][""], sides[1][""])]
    named = [_named(side, recipe) for side, recipe in zip(sides, (left, right), strict=True)]
    if named[0] is None or named[1] is None:
        return _other(sides, named)
    names = [*named[0], *(name for name in named[1] if name not in named[0])]
    return [(Path(None, name), named[0].get(name), named[1].get(name)) for name in names]


def _artifacts(how: Loading, recipe: Recipe) -> dict[str, Whole]:
    types, first = recipe.described.types, first_chunks(recipe)
    return {
        artifact.name: Whole(ArtifactParts(how, recipe, number, first), types[number])
        for number, artifact in enumerate(recipe.artifacts)
    }


def _named(side: dict[str, Whole], recipe: Recipe) -> dict[str, Place | Whole] | None:
    """The artifacts of a bundle, or the entries of a dict, which a bundle is loaded as; None for anything else."""
    if recipe.kind == BUNDLE:
        return dict(side)
    (whole,) = side.values()
    root: Any = whole.parts.root
    if type(root) is not dict or not all(isinstance(name, str) for name in root):
        return None
    return {name: Place(whole.parts, node) for name, node in root.items()}


def _other(sides: list[dict[str, Whole]], named: list[dict[str, Place | Whole] | None]) -> list[Work]:
    """A bundle and something that has no such names: all of one has gone, and the other has come."""
    found: list[Work] = []
    for number, side in enumerate(sides):
        for name, whole in side.items():
            path = None if named[number] is None else Path(None, name)
            found.append((path, whole, None) if number == 0 else (path, None, whole))
    return found


def _notes(left: Recipe, right: Recipe) -> list[Difference]:
    """What differs between the notes of both, field by field."""
    ours, theirs = (_fields(recipe.described.note or {}, (NOTE,)) for recipe in (left, right))
    found = []
    for path in [*ours, *(path for path in theirs if path not in ours)]:
        old, new = ours.get(path), theirs.get(path)
        if old != new:
            change = ADDED if old is None else REMOVED if new is None else CHANGED
            found.append(Difference(path, change, old, new))
    return found


def _fields(note: dict[str, Any], above: tuple[str | int, ...]) -> dict[tuple[str | int, ...], Side]:
    """The values of a note that are no objects, by their paths."""
    found: dict[tuple[str | int, ...], Side] = {}
    for name, value in note.items():
        if isinstance(value, dict) and value:
            found |= _fields(value, (*above, name))
        else:
            found[*above, name] = Side(type(value).__name__, value=repr(value))
    return found
