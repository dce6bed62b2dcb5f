"""Objects of many keys: their recipes together, and far away their chunks too."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from mfstore.format import recipes
from mfstore.format.digests import Key
from mfstore.format.recipes import BUNDLE, Recipe, recipe_path
from mfstore.loading.artifacts import load_many
from mfstore.pickling.streams import load_literal
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.handle import Handle, Wishes

OnError = Literal["raise", "return", "omit"]

RECIPES_AHEAD = 64
"""Recipes asked for at a time. A remote backend is told of all of them and reads ahead as it has room."""
LOADED_TOGETHER = 32 << 20
"""Bytes of objects that are loaded together from a remote backend, so that their chunks share requests."""


class Failed(NamedTuple):
    """What became of a key that failed, among those that are loaded with others."""

    error: Exception


def get_many(
    handle: Handle, keys: Iterable[str], on_error: OnError, progress: Any, how: Wishes
) -> Iterator[tuple[Key, Any]]:
    """What ``Store.get_many`` yields."""
    get = _get_remote if handle.backend.capabilities.remote else _get_local
    for item in get(handle, keys, how):
        found = item[1]
        if not isinstance(found, Failed):
            yield item
        elif on_error == "raise":
            raise found.error
        elif on_error == "return":
            yield item[0], found.error
        if progress is not None:
            progress(1)


def _get_local(handle: Handle, keys: Iterable[str], how: Wishes) -> Iterator[tuple[Key, Any]]:
    """Each key with its object, or with how it failed."""
    source, writable = iter(keys), how.writable
    while window := list(islice(source, RECIPES_AHEAD)):
        handle.require_read()
        checked = [key if type(key) is Key else _checked(key) for key in window]
        found = handle.backend.get_many([recipe_path(key) for key in checked if isinstance(key, Key)])
        loaded = 0
        try:
            for given, key in zip(window, checked, strict=True):
                if isinstance(key, Failed):
                    yield given, key  # type: ignore[misc]
                    continue
                _, data = next(found)
                pickled = None
                try:
                    if writable and isinstance(data, bytes):
                        pickled = recipes.literal_of(data, key)
                    if pickled is not None:
                        value = load_literal(pickled)
                        loaded += len(pickled)
                    else:
                        recipe = handle.decode(key, data)
                        value = handle.load(key, recipe, recipe.artifacts, how, named=recipe.kind == BUNDLE)
                except Exception as error:
                    value = Failed(error if pickled is None else handle.located(error, key))
                yield key, value
        finally:
            if loaded:
                handle.count(loaded)


def _get_remote(handle: Handle, keys: Iterable[str], how: Wishes) -> Iterator[tuple[Key, Any]]:
    """As ``_get_local``, with all recipes asked for as one operation, and objects loaded together."""
    handle.require_read()
    asked: deque[Key | tuple[str, Failed]] = deque()

    def paths() -> Iterator[str]:
        for given in keys:
            key = _checked(given)
            asked.append((given, key) if isinstance(key, Failed) else key)
            if isinstance(key, Key):
                yield recipe_path(key)

    def window() -> Iterator[list[tuple[Key, Recipe | Failed]]]:
        ready: list[tuple[Key, Recipe | Failed]] = []
        size = 0
        for _, data in handle.backend.get_many(paths()):
            while isinstance(key := asked.popleft(), tuple):
                ready.append(key)  # type: ignore[arg-type]
            try:
                recipe = handle.decode(key, data)
            except Exception as error:
                ready.append((key, Failed(error)))
                continue
            more = sum(artifact.size for artifact in recipe.artifacts)
            if ready and size + more > LOADED_TOGETHER:
                yield ready
                ready, size = [], 0
            ready.append((key, recipe))
            size += more
        yield [*ready, *asked]  # type: ignore[list-item]

    for ready in window():
        loaded = load_many(handle.loading(*how), [recipe for _, recipe in ready if isinstance(recipe, Recipe)])
        for key, recipe in ready:
            if isinstance(recipe, Failed):
                yield key, recipe
                continue
            value: Any = next(loaded)
            try:
                if isinstance(value, Exception):
                    value = handle.load_again(value, key, recipe, recipe.artifacts, how)
                handle.count(sum(artifact.size for artifact in recipe.artifacts))
                names = [artifact.name for artifact in recipe.artifacts]
                value = dict(zip(names, value, strict=True)) if recipe.kind == BUNDLE else value[0]
            except Exception as error:
                value = Failed(error)
            yield key, value


def _checked(key: str) -> Key | Failed:
    try:
        return Key(key)
    except Exception as error:
        return Failed(error)
