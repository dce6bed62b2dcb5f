"""Objects of many keys: what they are called, their recipes and, far away, their chunks are asked for together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from mfstore.errors import MfstoreError, NotFound
from mfstore.format import recipes
from mfstore.format.digests import Key
from mfstore.format.recipes import BUNDLE, Recipe, recipe_path
from mfstore.loading.artifacts import load_many
from mfstore.names import resolve_many
from mfstore.pickling.streams import load_literal
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.handle import Handle, Wishes

OnError = Literal["raise", "return", "omit"]

RECIPES_AHEAD = 64
"""Recipes asked for at a time. A remote backend is told of all of them and reads ahead as it has room."""
NAMES_AHEAD = 1000
"""Names looked up together on a remote backend, since each round of requests there takes as long as one request."""
LOADED_TOGETHER = 32 << 20
"""Bytes of objects that are loaded together from a remote backend, so that their chunks share requests."""


class Failed(NamedTuple):
    """What became of a key that failed, among those that are loaded with others."""

    error: Exception


class _Asked(NamedTuple):
    """One of many keys."""

    given: str
    """As the caller has it."""
    key: Key | Failed
    recipe: Recipe | None = None


def get_many(
    handle: Handle, keys: Iterable[str], on_error: OnError, progress: Any, how: Wishes
) -> Iterator[tuple[str, Any]]:
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


def _get_local(handle: Handle, keys: Iterable[str], how: Wishes) -> Iterator[tuple[str, Any]]:
    """Each key with its object, or with how it failed."""
    source, writable = iter(keys), how.writable
    while window := list(islice(source, RECIPES_AHEAD)):
        handle.require_read()
        resolved = _resolved(handle, window)
        found = handle.backend.get_many([recipe_path(key) for key in resolved if isinstance(key, Key)])
        loaded = 0
        try:
            for given, key in zip(window, resolved, strict=True):
                if isinstance(key, Failed):
                    yield given, key
                    continue
                _, data = next(found)
                pickled = None
                try:
                    if writable and isinstance(data, bytes):
                        pickled = recipes.literal_of(data, key)
                    if pickled is not None:
                        try:
                            value = load_literal(pickled)
                            loaded += len(pickled)
                        except Exception:
                            pickled = None  # to be told with all that its recipe says
                    if pickled is None:
                        recipe = handle.decode(key, data)
                        value = handle.load(key, recipe, recipe.artifacts, how, named=recipe.kind == BUNDLE)
                except Exception as error:
                    value = Failed(error)
                yield given, value
        finally:
            if loaded:
                handle.count(loaded)


def _get_remote(handle: Handle, keys: Iterable[str], how: Wishes) -> Iterator[tuple[str, Any]]:
    """As ``_get_local``, with all recipes asked for as one operation, and objects loaded together."""
    handle.require_read()
    asked: deque[_Asked] = deque()

    def paths() -> Iterator[str]:
        for item in _each_resolved(handle, keys):
            asked.append(item)
            if isinstance(item.key, Key):
                yield recipe_path(item.key)

    def window() -> Iterator[list[_Asked]]:
        ready: list[_Asked] = []
        size = 0
        for _, data in handle.backend.get_many(paths()):
            while isinstance(key := (item := asked.popleft()).key, Failed):
                ready.append(item)
            try:
                recipe = handle.decode(key, data)
            except Exception as error:
                ready.append(item._replace(key=Failed(error)))
                continue
            more = sum(artifact.size for artifact in recipe.artifacts)
            if ready and size + more > LOADED_TOGETHER:
                yield ready
                ready, size = [], 0
            ready.append(item._replace(recipe=recipe))
            size += more
        yield [*ready, *asked]

    for ready in window():
        loaded = load_many(handle.loading(*how), [item.recipe for item in ready if item.recipe is not None])
        for given, key, recipe in ready:
            if isinstance(key, Failed) or recipe is None:
                yield given, key
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
            yield given, value


def _each_resolved(handle: Handle, keys: Iterable[str]) -> Iterator[_Asked]:
    """Each with the key that it stands for. Keys go on at once; where a name comes, more is taken from ``keys``, so
    that names are looked up together."""
    source = iter(keys)
    for given in source:
        if type(given) is Key:
            yield _Asked(given, given)
            continue
        window = [given, *islice(source, NAMES_AHEAD - 1)]
        for name, key in zip(window, _resolved(handle, window), strict=True):
            yield _Asked(name, key)


def _resolved(handle: Handle, names: Sequence[str]) -> list[Key | Failed]:
    """The key that each name stands for, or why there is none."""
    if all(type(name) is Key for name in names):
        return list(names)  # type: ignore[arg-type]
    return [key if isinstance(key, Key) else Failed(key) for key in resolve_many(handle, names)]


def exists_many(handle: Handle, names: Sequence[str]) -> list[bool]:
    """Whether something is stored under each name. InvalidKey for what can be no name; AccessDenied."""
    found = resolve_many(handle, names, hints=False)
    for error in found:
        if isinstance(error, MfstoreError) and not isinstance(error, NotFound):
            raise error
    there = iter(handle.exists_many([key for key in found if isinstance(key, Key)]))
    return [isinstance(key, Key) and next(there) for key in found]
