"""From what a pass over a store saw to what is wrong, and with which artifacts. Without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mfstore.errors import CorruptObject, MfstoreError, NotFound
from mfstore.format import fragments
from mfstore.format.description import PATH as DESCRIPTION
from mfstore.format.packs import pack_path
from mfstore.format.recipes import recipe_path
from mfstore.maintenance.store.checking.listed_index import least_sizes
from mfstore.maintenance.store.report import Finding, Harm

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo
    from mfstore.maintenance.store.checking.inventory import Inventory
    from mfstore.maintenance.store.checking.pack_state import PackState, PlacedChunk


NAMED = 3
"""Base chunks named in a sentence; a finding has all of them."""


@dataclass(slots=True)
class _Trouble:
    """What is wrong with one object."""

    kind: str
    detail: str
    keys: set[str] = field(default_factory=set)
    bases: set[str] = field(default_factory=set)
    """Base chunks that are lost with it."""


class DataTroubles:
    """What is wrong with packs and recipes, gathered one recipe after the other."""

    def __init__(self) -> None:
        self._by_path: dict[str, _Trouble] = {}

    def damaged_recipe(self, key: bytes, error: CorruptObject) -> None:
        """A recipe cannot be decoded."""
        self._add(recipe_path(key.hex()), "damaged", error.message, key.hex())

    def damaged_inline(self, key: bytes, count: int) -> None:
        """So many chunks that lie in a recipe are not whole."""
        self._add(recipe_path(key.hex()), "damaged", f"{count} chunks in it differ from their digests", key.hex())

    def absent_chunk(self, key: bytes, pack: bytes, state: PackState, lost: bool) -> None:
        """A recipe places a chunk in a pack that does not hold it. ``lost``: nor does any other, as far as is known."""
        touched = key.hex() if lost else None
        if state.prints is not None and not state.bad:
            self._add(recipe_path(key.hex()), "damaged", "it places a chunk where another lies, or none", touched)
        else:
            self._add(pack_path(pack.hex()), *_describe(state), touched)

    def undecodable_deltas(self, key: bytes, count: int, lost: bool) -> None:
        """So many deltas of a recipe do not give its chunks, though they and their bases are whole. ``lost``: nor is
        there another copy of each chunk."""
        detail = f"{count} deltas do not give their chunks with the bases that it names"
        self._add(recipe_path(key.hex()), "damaged", detail, key.hex() if lost else None)

    def absent_base(self, key: bytes, base: PlacedChunk, state: PackState, lost: bool) -> None:
        """A recipe has a base chunk in a pack that does not hold it. ``lost``: it costs a chunk, as far as is known."""
        if state.prints is not None and not state.bad:
            detail = "it has a base chunk where another lies, or none"
            trouble = self._add(recipe_path(key.hex()), "damaged", detail, key.hex() if lost else None)
        else:
            trouble = self._add(pack_path(base.pack.hex()), *_describe(state), key.hex() if lost else None)
        if lost:
            trouble.bases.add(base.entry.id.hex())

    def damaged_packs(self, packs: Mapping[bytes, PackState]) -> None:
        """These are all packs: those with damage are told, whether a recipe needs them or not."""
        for name, state in packs.items():
            if state.kind == "damaged" or state.bad:
                self._add(pack_path(name.hex()), *_describe(state), None)

    def _add(self, path: str, kind: str, detail: str, key: str | None) -> _Trouble:
        trouble = self._by_path.setdefault(path, _Trouble(kind, detail))
        if key is not None:
            trouble.keys.add(key)
        return trouble

    def findings(self) -> Iterator[Finding]:
        """What is wrong with each object, and which artifacts it costs."""
        for path, found in self._by_path.items():
            harm: Harm = "data" if found.keys else "dedup"
            detail = found.detail if found.keys else f"{found.detail}; every artifact can still be read"
            if found.bases:
                detail += f"; base chunks of deltas are lost: {_some(sorted(found.bases))}"
            yield Finding(found.kind, path, detail, tuple(sorted(found.keys)), (), harm, tuple(sorted(found.bases)))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _describe(state: PackState) -> tuple[str, str]:
    parts = [state.detail] if state.detail else []
    if state.bad:
        count = len(state.prints) if state.prints is not None else len(state.claimed)
        parts.append(f"{len(state.bad)} of {count} chunks differ from their digests")
    return state.kind or "damaged", "; ".join(parts) or "a chunk is not where it should be"


def by_listing(inventory: Inventory, index: Iterable[fragments.Fragment]) -> Iterator[Finding]:
    """What is too short, by itself or by what the index says of it."""
    for info in inventory.short:
        key = info.key.rpartition("/")[2]
        keys = (key,) if info.key.startswith("recipes/") else ()
        yield Finding("truncated", info.key, f"{info.size} bytes are too few for any", keys)
    known = {info.key for info in inventory.short}
    for name, size in least_sizes(index).items():
        found = inventory.packs.get(name)
        if found is not None and found.size < size and found.key not in known:
            yield Finding("truncated", found.key, f"{found.size} bytes, by the index at least {size}")


def of_description(error: MfstoreError | None) -> Iterator[Finding]:
    """The store's description, when something is wrong with it."""
    if error is not None:
        kind = "missing" if isinstance(error, NotFound) else "damaged"
        yield Finding(kind, DESCRIPTION, "without the store's description no program opens it; repair writes it anew")


def of_refs(
    errors: Mapping[str, MfstoreError], paths: Mapping[str, str], dangling: Mapping[str, bytes],
    former: Mapping[str, Sequence[bytes]],
) -> Iterator[Finding]:  # fmt: skip
    """Refs that are damaged (by name, and where they are stored), and those that name, or named before, what is not
    there."""
    for name, error in errors.items():
        yield Finding("damaged", paths[name], f"{error.message}; set the ref again", refs=(name,))
    for name, key in dangling.items():
        yield Finding(
            "missing",
            recipe_path(key.hex()),
            "a ref names it; repair --roll-back sets the ref back",
            (key.hex(),),
            (name,),
        )
    by_key: dict[bytes, list[str]] = {}
    for name, keys in former.items():
        for key in keys:
            by_key.setdefault(key, []).append(name)
    for key, names in by_key.items():
        if key not in dangling.values():
            detail = "the history of a ref names it; repair --drop-lost drops it there"
            yield Finding("missing", recipe_path(key.hex()), detail, (key.hex(),), tuple(sorted(names)))


def of_index(
    errors: Mapping[str, MfstoreError], misplaced: Mapping[str, int], gone: Sequence[str], unlisted: Sequence[bytes]
) -> Iterator[Finding]:
    """Fragments that are damaged or wrong, packs that the index names and that are gone, packs that it does not list
    whole."""
    for path, count in misplaced.items():
        yield Finding("damaged", path, f"it places {count} chunks where others lie, or none", harm="dedup")
    for path, error in errors.items():
        yield Finding("damaged", path, error.message, harm="dedup")
    if gone:
        detail = f"it lists packs that are not stored: {len(gone)}"
        yield Finding("stale", fragments.PREFIX, detail, harm="dedup")
    if unlisted:
        detail = f"it lacks chunks of packs, which would be stored again: {len(unlisted)}"
        yield Finding("unlisted", fragments.PREFIX, detail, harm="dedup")


def of_unread(unreadable: Mapping[str, MfstoreError], unknown: Mapping[str, MfstoreError]) -> Iterator[Finding]:
    """What the storage did not give, and what this mfstore does not know."""
    for path, error in unreadable.items():
        yield Finding("unreadable", path, str(error))
    for path, error in unknown.items():
        yield Finding("unknown", path, error.message, (path[-64:],) if path.startswith("recipes/") else ())


def of_unsteady(paths: Iterable[str]) -> Iterator[Finding]:
    """What was damaged at the first read and whole at the second."""
    for path in paths:
        detail = "damaged when it was read and whole when it was read again: suspect memory, cable or controller"
        yield Finding("unsteady", path, detail, harm="none")


def of_foreign(infos: Iterable[ObjectInfo]) -> Iterator[Finding]:
    """What no mfstore put there."""
    for info in infos:
        yield Finding("foreign", info.key, "not an object of a store", harm="none")


def with_refs(findings: Iterable[Finding], ref_keys: Mapping[str, bytes]) -> tuple[Finding, ...]:
    """The findings with the refs that they touch, data first."""
    by_value: dict[str, list[str]] = {}
    for name, key in ref_keys.items():
        by_value.setdefault(key.hex(), []).append(name)
    order = {"data": 0, "dedup": 1, "none": 2}
    return tuple(
        replace(
            finding, refs=tuple(sorted({*finding.refs, *(n for key in finding.keys for n in by_value.get(key, ()))}))
        )
        for finding in sorted(findings, key=lambda finding: (order[finding.harm], finding.object))
    )
