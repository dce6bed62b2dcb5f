"""From what a pass over a store saw to what is wrong, and with which artifacts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mfstore.errors import CorruptObject
from mfstore.format import fragments
from mfstore.format.packs import pack_path
from mfstore.format.recipes import recipe_path
from mfstore.maintenance.report import Finding, Harm, Level
from mfstore.maintenance.store.checks import placed_in_packs, shortest

if TYPE_CHECKING:
    from mfstore.maintenance.store.checks import PackState
    from mfstore.maintenance.store.verify import Verifier


@dataclass(slots=True)
class _Trouble:
    """What is wrong with one object."""

    kind: str
    detail: str
    keys: set[str] = field(default_factory=set)


def find(verifier: Verifier, level: Level) -> tuple[Finding, ...]:
    """Everything that is not as it should be, data first."""
    findings = list(_by_listing(verifier) if level == "list" else _of_data(verifier))
    findings += _of_refs(verifier)
    findings += _of_index(verifier)
    findings += [Finding("unreadable", path, str(error)) for path, error in verifier.unreadable.items()]
    findings += [
        Finding("unknown", path, error.message, (path[-64:],) if path.startswith("recipes/") else ())
        for path, error in verifier.unknown.items()
    ]
    findings += [
        Finding("foreign", info.key, "not an object of a store", harm="none") for info in verifier.inventory.foreign
    ]
    by_value: dict[str, list[str]] = {}
    for name, key in verifier.ref_keys.items():
        by_value.setdefault(key.hex(), []).append(name)
    order = {"data": 0, "dedup": 1, "none": 2}
    return tuple(
        replace(
            finding, refs=tuple(sorted({*finding.refs, *(n for key in finding.keys for n in by_value.get(key, ()))}))
        )
        for finding in sorted(findings, key=lambda finding: (order[finding.harm], finding.object))
    )


def _by_listing(verifier: Verifier) -> Iterator[Finding]:
    inventory = verifier.inventory
    for info in inventory.short:
        key = info.key.rpartition("/")[2]
        keys = (key,) if info.key.startswith("recipes/") else ()
        yield Finding("truncated", info.key, f"{info.size} bytes are too few for any", keys)
    known = {info.key for info in inventory.short}
    for name, size in shortest(verifier.fragments).items():
        found = inventory.packs.get(name)
        if found is not None and found.size < size and found.key not in known:
            yield Finding("truncated", found.key, f"{found.size} bytes, by the index at least {size}")


def _of_data(verifier: Verifier) -> Iterator[Finding]:
    troubles: dict[str, _Trouble] = {}

    def trouble(path: str, kind: str, detail: str, key: str | None) -> None:
        entry = troubles.setdefault(path, _Trouble(kind, detail))
        if key is not None:
            entry.keys.add(key)

    for name, recipe, inline in verifier.doubtful_recipes():
        key, path = name.hex(), recipe_path(name.hex())
        if isinstance(recipe, CorruptObject):
            trouble(path, "damaged", recipe.message, key)
            continue
        if inline:
            trouble(path, "damaged", f"{len(inline)} chunks in it differ from their digests", key)
        for placed in placed_in_packs(recipe):
            state = verifier.state_of(placed.pack)
            if state.holds(placed.entry):
                continue
            lost = None if verifier.readable_elsewhere(placed) else key
            if state.prints is not None and not state.bad:
                trouble(path, "damaged", "it places a chunk where another lies, or none", lost)
            else:
                trouble(pack_path(placed.pack.hex()), *_describe(state), lost)
    for name, state in verifier.packs.items():
        path = pack_path(name.hex())
        if state.kind == "damaged" or state.bad:
            trouble(path, *_describe(state), None)
    for path, found in troubles.items():
        if path not in verifier.unreadable and path not in verifier.unknown:
            harm: Harm = "data" if found.keys else "dedup"
            detail = found.detail if found.keys else f"{found.detail}; every artifact can still be read"
            yield Finding(found.kind, path, detail, tuple(sorted(found.keys)), harm=harm)


def _describe(state: PackState) -> tuple[str, str]:
    parts = [state.detail] if state.detail else []
    if state.bad:
        count = len(state.prints) if state.prints is not None else len(state.claimed)
        parts.append(f"{len(state.bad)} of {count} chunks differ from their digests")
    return state.kind or "damaged", "; ".join(parts) or "a chunk is not where it should be"


def _of_refs(verifier: Verifier) -> Iterator[Finding]:
    inventory = verifier.inventory
    for name, error in verifier.ref_errors.items():
        yield Finding("damaged", inventory.refs[name], f"{error.message}; set the ref again", refs=(name,))
    dangling = {name: key for name, key in verifier.ref_keys.items() if key not in inventory.recipes}
    paths = [recipe_path(key.hex()) for key in dangling.values()]
    # Asked again: a ref may have been set since the recipes were listed.
    for (name, key), path, there in zip(dangling.items(), paths, verifier.backend.exists_many(paths), strict=True):
        if not there:
            yield Finding("missing", path, "a ref names it", (key.hex(),), (name,))


def _of_index(verifier: Verifier) -> Iterator[Finding]:
    unlisted = verifier.unlisted()
    for path, error in verifier.fragment_errors.items():
        yield Finding("damaged", path, error.message, harm="dedup")
    named = {name.value for fragment in verifier.fragments for name in fragment.packs} - verifier.packs.keys()
    paths = sorted(pack_path(name.hex()) for name in named)
    gone = [path for path, there in zip(paths, verifier.backend.exists_many(paths), strict=True) if not there]
    if gone:
        detail = f"it lists packs that are not stored: {len(gone)}"
        yield Finding("stale", fragments.PREFIX, detail, harm="dedup")
    if unlisted:
        detail = f"it lacks chunks of packs, which would be stored again: {len(unlisted)}"
        yield Finding("unlisted", fragments.PREFIX, detail, harm="dedup")
