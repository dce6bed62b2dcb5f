"""What a collection of a Metaflow root did, and what people are told of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mfstore.display.amounts import count, size, time_of_day
from mfstore.display.cards import Card
from mfstore.display.shown import Shown
from mfstore.maintenance.metaflow.collecting.amounts import RootAmount
from mfstore.maintenance.metaflow.collecting.service_tags import REMOVED_TAG
from mfstore.maintenance.told import SHOWN

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.packed_store import GcResult
    from mfstore.maintenance.store.collecting.plan import StoreAmount


@dataclass(frozen=True, slots=True, repr=False)
class MetaflowGcResult(Shown):
    """What a collection of a Metaflow root did."""

    condemned: int
    """Number of runs."""
    removed: tuple[str, ...]
    """Runs, as flow/run."""
    deleted: RootAmount
    held: Mapping[str, str]
    """Flows of which nothing was removed after all, and why."""
    locked: Mapping[str, str] = field(default_factory=dict)
    """Runs, and objects that runs share, that the storage refused to delete because of its locks, and why."""
    set_aside: RootAmount = field(default_factory=RootAmount)
    """Among what was deleted, what is kept below ``mf.maintenance/set-aside/`` until a later collection: a task that
    ran meanwhile may have taken it for stored."""
    restored: tuple[str, ...] = ()
    """Objects that were put back because a task took them for stored."""
    store: GcResult | None = None
    """What the collection of the packed profile's store did; None when there is none, or it was left alone."""
    store_left: str = ""
    """Why that store was left alone."""
    tagged: int = 0
    """Runs that the metadata service goes on listing, and that got the tag ``mfstore:removed`` there."""
    tags_refused: str = ""
    """Why not all of them got it; the next collection tries again."""
    ready: float | None = None
    """From when on, in seconds since the epoch, what was condemned may be removed."""

    def _card(self) -> Card:
        return Card("collected", notes=tuple(result_notes(self)))


def result_notes(result: MetaflowGcResult, known: Collection[str] = ()) -> list[str]:
    """What was done. ``known``: flows of which it is known already that they are held."""
    notes = []
    if not (result.condemned or result.removed or result.deleted.objects or _worked(result.store)):
        notes.append("There was nothing to do.")
    if result.deleted.objects and not result.removed:
        notes.append(f"removed {result.deleted}")
    if result.removed:
        notes.append(f"removed {count(len(result.removed), 'run')}: {result.deleted}")
        notes += [f"  {name}" for name in result.removed[:SHOWN]]
        if len(result.removed) > SHOWN:
            notes.append(f"  and {len(result.removed) - SHOWN} more")
    notes += [f"locked: {name}: {why}" for name, why in list(result.locked.items())[:SHOWN]]
    if len(result.locked) > SHOWN:
        notes.append(f"and {len(result.locked) - SHOWN} more are locked")
    if result.tagged:
        notes.append(f"{count(result.tagged, 'run')} got the tag {REMOVED_TAG} in the metadata service")
    if result.tags_refused:
        notes.append(f"not all of them got the tag {REMOVED_TAG} in the metadata service: {result.tags_refused}")
    if result.set_aside.objects:
        notes.append(f"{result.set_aside} of that stay set aside for a later one: what began meanwhile may need them")
    notes += [f"put back, since a task took it for stored: {key}" for key in result.restored[:SHOWN]]
    if len(result.restored) > SHOWN:
        notes.append(f"and {len(result.restored) - SHOWN} more were put back")
    notes += [f"{flow} was left alone after all: {why}" for flow, why in result.held.items() if flow not in known]
    if result.store is not None and _worked(result.store):
        deleted, condemned = _keys_and_packs(result.store.deleted), _keys_and_packs(result.store.condemned)
        notes.append(f"mf.store: deleted {deleted}, condemned {condemned}")
    if result.store_left:
        notes.append(f"mf.store was left alone: {result.store_left}")
    if result.condemned:
        then = "" if result.ready is None else f" Run this again after {time_of_day(result.ready)} to remove them."
        notes.append(f"condemned {count(result.condemned, 'run')}.{then}")
    return notes


def _keys_and_packs(found: StoreAmount) -> str:
    return f"{count(found.recipes, 'key')} and {count(found.packs, 'pack')} ({size(found.bytes)})"


def _worked(result: GcResult | None) -> bool:
    return result is not None and bool(result.deleted or result.condemned or result.repacked)
