"""Objects of many keys: what they are called, their recipes and, far away, their chunks are asked for together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from mfstore.errors import MfstoreError, NotFound, Unsupported
from mfstore.format import recipes
from mfstore.format.digests import Key
from mfstore.format.recipes import BUNDLE, Artifact, Recipe, recipe_path
from mfstore.loading.artifacts import load_many
from mfstore.many_or_one import refuse_one_key
from mfstore.names import is_key, resolve_many
from mfstore.pickling.streams import load_literal
from mfstore.records import NamedTuple
from mfstore.stats import ArtifactStat, stat_of

if TYPE_CHECKING:
    from mfstore.handle import Handle, Wishes
    from mfstore.trees.tree import Tree

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


class Wanted(NamedTuple):
    """What is wanted of each key."""

    bundles: bool = False
    """Whether each is a bundle."""
    names: tuple[str, ...] | None = None
    """Of a bundle only these artifacts."""
    alone: bool = False
    """Whether the one name stands for the artifact itself, not for a dict of it."""

    def artifacts(self, key: Key, given: str, recipe: Recipe) -> Sequence[Artifact]:
        """Which artifacts of a recipe, that ``given`` stands for. Unsupported when it should be a bundle and is none;
        NotFound for a name that is not in it."""
        if self.bundles and recipe.kind != BUNDLE:
            raise Unsupported("this is a single artifact, not a bundle", key=key, hint=f"Use get({str(given)!r})")
        if self.names is None:
            return recipe.artifacts
        numbers = {artifact.name: number for number, artifact in enumerate(recipe.artifacts)}
        return [recipe.artifacts[number_of(numbers, key, name)] for name in self.names]

    def named(self, recipe: Recipe) -> bool:
        """Whether the artifacts of a recipe come as a dict."""
        return recipe.kind == BUNDLE and not self.alone


EVERYTHING = Wanted()


def in_bundle(names: str | Iterable[str] | None) -> Wanted:
    """What ``Store.load`` is asked for."""
    if isinstance(names, str):
        return Wanted(True, (names,), True)
    return Wanted(True, None if names is None else tuple(dict.fromkeys(names)))


def number_of(numbers: Mapping[str, int], key: str, name: str) -> int:
    """Number of the artifact called ``name``, or NotFound with the names there are."""
    try:
        return numbers[name]
    except KeyError:
        hint = f"It has {', '.join(list(numbers)[:20]) or 'none'}"
        raise NotFound(f"the bundle has no artifact {name!r}", key=key, hint=hint) from None


class _Asked(NamedTuple):
    """One of many keys."""

    given: str
    """As the caller has it."""
    key: Key | Failed
    recipe: Recipe | None = None
    artifacts: Sequence[Artifact] = ()
    """Those that are wanted."""


def check_arguments(keys: object, on_error: str) -> None:
    """ValueError for what ``on_error`` cannot be, WrongArgument for one key in place of many."""
    refuse_one_key(keys)
    if on_error not in ("raise", "return", "omit"):
        raise ValueError(f"on_error must be raise, return or omit, not {on_error!r}")


def get_many(
    handle: Handle, keys: Iterable[str], on_error: OnError, progress: Any, how: Wishes, wanted: Wanted = EVERYTHING
) -> Iterator[tuple[str, Any]]:
    """What ``Store.get_many`` and, of what is ``wanted``, ``Store.load_many`` yield."""
    get = _get_remote if handle.backend.capabilities.remote else _get_local
    return _outcomes(get(handle, keys, how, wanted), on_error, progress)


def stat_many(
    handle: Handle, keys: Iterable[str], on_error: OnError, progress: Any
) -> Iterator[tuple[str, ArtifactStat]]:
    """What ``Store.stat_many`` yields."""
    return _outcomes(_stat_each(handle, keys), on_error, progress)


def _outcomes(items: Iterator[tuple[str, Any]], on_error: OnError, progress: Any) -> Iterator[tuple[str, Any]]:
    """Each item, as the caller wants those that failed."""
    for item in items:
        found = item[1]
        if not isinstance(found, Failed):
            yield item
        elif on_error == "raise":
            raise found.error
        elif on_error == "return":
            yield item[0], found.error
        if progress is not None:
            progress(1)


def _get_local(handle: Handle, keys: Iterable[str], how: Wishes, wanted: Wanted) -> Iterator[tuple[str, Any]]:
    """Each key with what is wanted of it, or with how it failed."""
    source = iter(keys)
    plain = how.writable and not wanted.bundles and handle.trust is None and handle.loading(*how).safe is None
    while window := list(islice(source, RECIPES_AHEAD)):
        handle.require_read()
        resolved = _resolved(handle, window)
        found = handle.backend.get_many([recipe_path(key) for key in resolved if isinstance(key, Key)])
        loaded = loads = 0
        try:
            for given, key in zip(window, resolved, strict=True):
                if isinstance(key, Failed):
                    yield given, key
                    continue
                _, data = next(found)
                pickled = None
                try:
                    if plain and isinstance(data, bytes):
                        pickled = recipes.literal_of(data, key)
                    if pickled is not None:
                        try:
                            value = load_literal(pickled)
                            loaded += len(pickled)
                            loads += 1
                        except Exception:
                            pickled = None  # to be told with all that its recipe says
                    if pickled is None:
                        recipe = handle.decode(key, data)
                        artifacts = wanted.artifacts(key, given, recipe)
                        if recipe.is_tree:
                            value = _tree(handle, key, recipe, how)
                        else:
                            value = handle.load(key, recipe, artifacts, how, named=wanted.named(recipe))
                except Exception as error:
                    value = Failed(error)
                yield given, value
        finally:
            if loads:
                handle.count((loads, loaded, 0.0))  # so fast that to ask for the time would tell


def _get_remote(handle: Handle, keys: Iterable[str], how: Wishes, wanted: Wanted) -> Iterator[tuple[str, Any]]:
    """As ``_get_local``, with all recipes asked for as one operation, and objects loaded together."""

    def window() -> Iterator[list[_Asked]]:
        ready: list[_Asked] = []
        size = more = 0
        for item in _read_recipes(handle, keys):
            if item.recipe is not None and isinstance(item.key, Key):
                try:
                    artifacts = wanted.artifacts(item.key, item.given, item.recipe)
                    item = item._replace(artifacts=() if item.recipe.is_tree else artifacts)
                except MfstoreError as error:
                    item = _Asked(item.given, Failed(error))
            more = sum(artifact.size for artifact in item.artifacts)
            if ready and size + more > LOADED_TOGETHER:
                yield ready
                ready, size = [], 0
            ready.append(item)
            size += more
        yield ready

    for ready in window():
        if handle.trust is not None:
            ready = _signed(handle, ready)
        loaded = load_many(
            handle.loading(*how), [(item.recipe, item.artifacts) for item in ready if item.recipe is not None]
        )
        for given, key, recipe, artifacts in ready:
            if isinstance(key, Failed) or recipe is None:
                yield given, key
                continue
            began = perf_counter()
            value: Any = next(loaded)
            try:
                if isinstance(value, Exception):
                    value = handle.load_again(value, key, recipe, artifacts, how)
                handle.count((1, sum(artifact.size for artifact in artifacts), perf_counter() - began))
                if recipe.is_tree:
                    value = _tree(handle, key, recipe, how)
                else:
                    names = [artifact.name for artifact in artifacts]
                    value = dict(zip(names, value, strict=True)) if wanted.named(recipe) else value[0]
            except Exception as error:
                value = Failed(error)
            yield given, value


def _tree(handle: Handle, key: Key, recipe: Recipe, how: Wishes) -> Tree:
    # Whoever has no trees need not load it.
    from mfstore.trees.tree import open_tree

    return open_tree(lambda: handle, key, recipe, how.verify)


def _signed(handle: Handle, ready: list[_Asked]) -> list[_Asked]:
    """Keys, or that they failed since nobody who is trusted has signed them. Signatures are asked for as one
    operation."""
    refused = handle.refusals([item.key for item in ready if isinstance(item.key, Key)])
    return [
        _Asked(item.given, Failed(refused[item.key])) if isinstance(item.key, Key) and item.key in refused else item
        for item in ready
    ]


def _stat_each(handle: Handle, keys: Iterable[str]) -> Iterator[tuple[str, ArtifactStat | Failed]]:
    for given, key, recipe, _ in _read_recipes(handle, keys):
        if isinstance(key, Failed) or recipe is None:
            yield given, key  # type: ignore[misc]
            continue
        found: ArtifactStat | Failed
        try:
            found = stat_of(key, recipe)
        except MfstoreError as error:  # a description is decoded when it is looked at
            found = Failed(error.where(key=key, backend=handle.backend.url))
        yield given, found


def _read_recipes(handle: Handle, keys: Iterable[str]) -> Iterator[_Asked]:
    """Each key or name with its recipe, or how it failed, in order. Recipes are asked for as one operation."""
    handle.require_read()
    asked: deque[_Asked] = deque()

    def paths() -> Iterator[str]:
        for item in _each_resolved(handle, keys):
            asked.append(item)
            if isinstance(item.key, Key):
                yield recipe_path(item.key)

    for _, data in handle.backend.get_many(paths()):
        while isinstance(key := (item := asked.popleft()).key, Failed):
            yield item
        try:
            item = item._replace(recipe=handle.decode(key, data))
        except Exception as error:
            item = item._replace(key=Failed(error))
        yield item
    yield from asked


def _each_resolved(handle: Handle, keys: Iterable[str]) -> Iterator[_Asked]:
    """Each with the key that it stands for. Keys go on at once; where a name comes, more is taken from ``keys``, so
    that names are looked up together."""
    source = iter(keys)
    for given in source:
        if is_key(given):
            yield _Asked(given, Key(given))
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
