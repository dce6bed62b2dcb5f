"""Who holds what in a store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from mfstore.errors import CorruptObject, MfstoreError, NotFound
from mfstore.format.quarantine import PREFIX as QUARANTINE
from mfstore.format.recipes import BUNDLE, Recipe
from mfstore.format.refs import PREFIX, StoredRef, is_ref, ref_name
from mfstore.maintenance.holders import UNKNOWN, LabelSets, Tally, each_of
from mfstore.maintenance.months import month_of
from mfstore.maintenance.report import untold
from mfstore.maintenance.store.collecting.object_table import list_objects
from mfstore.maintenance.store.holders import HoldersOf, tally_recipes
from mfstore.maintenance.usage import CLASS, MONTH, Usage, check_by, damage_notes, usage_of
from mfstore.ref_objects import read_refs_at

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.handle import StoreAccess
    from mfstore.maintenance.report import PhaseCallback

BY = ("ref", "prefix", "user", "flow", "run", "step", "artifact", "type", MONTH, CLASS)
"""What usage of a store is told by."""
KINDS = ("recipes/", "packs/", "index/", PREFIX, QUARANTINE)
"""Where what is stored lies, and what repair set aside."""
_OF_TASKS = {"flow": 1, "run": 2}
"""How many names of a task's pathspec make one of these."""


def store_usage(access: StoreAccess, by: str, progress: PhaseCallback | None = None) -> Usage:
    """What ``Store.usage`` does.

    Raises:
        InvalidKey: there is no such ``by``.
        AccessDenied, BackendError: something may not be read, or is not handed out: what it holds is not known.
    """
    check_by(by, BY)
    sets = LabelSets()
    tally = Tally(sets)
    if by == MONTH:
        for kind in KINDS:
            for info in access.backend.list(kind):
                tally.add(info.size, sets.of(month_of(info.modified)))
        return usage_of(access.backend.url, by, tally.totals())
    if by == CLASS:
        for kind in KINDS:
            for size, name in access.backend.list_classes(kind):
                tally.add(size, sets.of(name))
        return usage_of(access.backend.url, by, tally.totals())
    named = by in ("ref", "prefix")
    damaged: list[tuple[str, CorruptObject]] = []
    holders_of = _by_ref(access, by, sets, tally, damaged) if named else _by_recipe(by, sets)
    backend = access.backend
    listed = ((name, size) for name, size, _, _ in list_objects(backend, "recipes"))
    damaged += (("recipe", error) for error in tally_recipes(access, listed, holders_of, tally, progress or untold))
    for kind in ("index/", QUARANTINE, *(() if named else (PREFIX,))):
        for info in backend.list(kind):
            tally.add(info.size, None)
    return usage_of(backend.url, by, tally.totals(), damage_notes(damaged))


def _by_ref(
    access: StoreAccess, by: str, sets: LabelSets, tally: Tally, damaged: list[tuple[str, CorruptObject]]
) -> HoldersOf:
    """Who needs a recipe by the refs that name it, now or in their history. Their own bytes are counted."""
    named: dict[bytes, int | set[int]] = {}
    for name, size, stored in _refs(access.backend, damaged):
        if not stored.entries and stored.unconfirmed is None:  # it was removed
            tally.add(size, None)
            continue
        number = sets.of(prefix_of(name) if by == "prefix" else name)
        tally.add(size, number)
        for entry in (*stored.entries, *(() if stored.unconfirmed is None else (stored.unconfirmed,))):
            key = bytes.fromhex(entry.key)
            before = named.setdefault(key, number)
            if isinstance(before, set):
                before.add(number)
            elif before != number:
                named[key] = {before, number}
    nobody = (frozenset((sets.of(None),)),)

    def holders_of(key: bytes, recipe: Recipe) -> Sequence[Collection[int]]:
        found = named.get(key)
        return nobody if found is None else (each_of(found),)

    return holders_of


def _refs(backend: Backend, damaged: list[tuple[str, CorruptObject]]) -> Iterator[tuple[str, int, StoredRef]]:
    """Every ref with its size; what was removed, or is damaged, has no entries."""
    sizes = {info.key: info.size for info in backend.list(PREFIX)}
    paths = [path for path, size in sizes.items() if is_ref(size)]
    for path, found in zip(paths, read_refs_at(backend, paths), strict=True):
        if isinstance(found, NotFound):
            continue  # removed since it was listed
        if isinstance(found, CorruptObject):
            damaged.append(("ref", found))
        elif isinstance(found, MfstoreError):
            raise found.where(key=path)
        yield ref_name(path), sizes[path], found if isinstance(found, StoredRef) else StoredRef()
    yield "", sum(size for size in sizes.values() if not is_ref(size)), StoredRef()


def prefix_of(ref: str) -> str:
    """What a ref begins with up to its first slash; of one without, itself."""
    return ref.partition("/")[0]


def _by_recipe(by: str, sets: LabelSets) -> HoldersOf:
    """Who needs a recipe by what it says of itself."""
    unknown = sets.number((UNKNOWN,))
    if by in ("artifact", "type"):
        numbers = _named_by(by)
        return lambda key, recipe: [(sets.of(name),) for name in numbers(recipe)]

    def holders_of(key: bytes, recipe: Recipe) -> Sequence[Collection[int]]:
        made = recipe.described.made
        if made is None or not made.by:
            return ((unknown,),)
        if by == "user":
            name = user_of(made.by)
            return ((unknown if name is None else sets.of(name),),)
        return ((sets.of(of_task(made.by, by)),),)

    return holders_of


def _named_by(by: str) -> Callable[[Recipe], Sequence[str | None]]:
    if by == "type":
        return lambda recipe: recipe.described.types
    return lambda recipe: [artifact.name if recipe.kind == BUNDLE else None for artifact in recipe.artifacts]


def user_of(creator: str) -> str | None:
    """The user in what is recorded of who stored something. None: a task did, of which no user is recorded."""
    name, at, _ = creator.rpartition("@")
    return name if at else None


def of_task(creator: str, by: str) -> str | None:
    """The flow, run or step of the task that stored something: the steps of all runs of a flow are one. None: no task
    did."""
    names = creator.split("/")
    if len(names) != 4:
        return None
    return f"{names[0]}/{names[2]}" if by == "step" else "/".join(names[: _OF_TASKS[by]])
