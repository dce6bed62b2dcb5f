"""What a collection will do, decided without touching the store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from mfstore.format.collection import CondemnedList, ListRef, State
from mfstore.maintenance.store.collecting.liveness import Marks, Objects
from mfstore.maintenance.store.collecting.retention import RefChange

DEAD = 0.5
"""Packs of which more than this share is dead are repacked: below it, rewriting a byte frees less than a byte."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How much."""

    recipes: int = 0
    packs: int = 0
    bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.recipes or self.packs)

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.recipes + other.recipes, self.packs + other.packs, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class Doomed:
    """Objects by name, each with the version that is meant."""

    recipes: Mapping[bytes, int] = field(default_factory=dict, repr=False)
    packs: Mapping[bytes, int] = field(default_factory=dict, repr=False)
    bytes: int = 0

    @property
    def amount(self) -> Amount:
        """How much it is."""
        return Amount(len(self.recipes), len(self.packs), self.bytes)


@dataclass(frozen=True, slots=True)
class Repack:
    """A pack whose needed chunks move to another one."""

    pack: bytes
    size: int
    live: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to happen to everything stored. All times are the store's."""

    now: float
    grace: float
    stored: Amount
    kept: Mapping[str, Amount]
    """Why what is kept is kept. Recipes and packs are counted once each."""
    deletes: Doomed
    condemns: Doomed
    waiting: Amount
    """Condemned before, not yet a grace period ago."""
    ready_at: float | None
    """When the first of these may be deleted."""
    rescued: Amount
    """Condemned before, needed again."""
    ready: tuple[ListRef, ...]
    """Lists that this collection deals with."""
    refs: tuple[RefChange, ...]
    repacks: tuple[Repack, ...]

    @property
    def does_something(self) -> bool:
        """Whether carrying it out changes the store."""
        return bool(self.deletes.amount or self.condemns.amount or self.ready or self.refs or self.repacks)

    @property
    def drops_everything(self) -> bool:
        """Whether no recipe is kept for a better reason than its youth, though some are dropped."""
        wanted = sum(amount.recipes for why, amount in self.kept.items() if why != YOUNG)
        return not wanted and bool(self.deletes.recipes or self.condemns.recipes)


REF = "named by a ref"
CALLER = "named by the caller"
AGE = "within keep-age"
YOUNG = "younger than the grace period"
NEEDED = "needed by these keys"


def roots(
    recipes: Objects, named: Collection[bytes], live: Collection[bytes], now: float, grace: float, age: float | None
) -> dict[bytes, str]:
    """Every key that is needed and why: the first reason that holds. Keys that are named may be missing here."""
    found = dict.fromkeys(named, REF)
    for key in live:
        found.setdefault(key, CALLER)
    for key, row in recipes.rows.items():
        if key not in found:
            old = now - recipes.modified[row]
            if age is not None and old < age:
                found[key] = AGE
            elif old < grace:
                found[key] = YOUNG
    return found


def decide(
    recipes: Objects, packs: Objects, live: Mapping[bytes, str], marks: Marks, state: State,
    lists: Sequence[CondemnedList], now: float, grace: float, refs: Sequence[RefChange], repack: float,
) -> Decision:  # fmt: skip
    """What to delete, what to condemn and what to keep. ``repack`` is the share of the stored bytes that may be
    rewritten."""
    ready = {entry.key for entry in state.lists if entry.time + grace <= now}
    kept: dict[str, Amount] = {}
    deletes: dict[str, dict[bytes, int]] = {"recipes": {}, "packs": {}}
    condemns: dict[str, dict[bytes, int]] = {"recipes": {}, "packs": {}}
    sizes = {"delete": 0, "condemn": 0}
    waiting, rescued, stored = Amount(), Amount(), Amount()
    for objects in (recipes, packs):
        kind = objects.kind
        before: dict[bytes, tuple[int, bool]] = {}
        for entry, listed in zip(state.lists, lists, strict=True):
            for name, version in listed.versions(kind).items():
                before[name] = version, entry.key in ready
        for name, row in objects.rows.items():
            size = objects.sizes[row]
            one = Amount(kind == "recipes", kind == "packs", size)
            stored += one
            version, is_ready = before.get(name, (-1, False))
            condemned = version == objects.versions[row]
            if kind == "recipes":
                why = live.get(name)
            elif marks.needed[row]:
                why = NEEDED
            else:
                why = YOUNG if now - objects.modified[row] < grace and not condemned else None
            if why is not None:
                kept[why] = kept.get(why, Amount()) + one
                if condemned and why != YOUNG:
                    rescued += one
            elif not condemned:
                condemns[kind][name] = objects.versions[row]
                sizes["condemn"] += size
            elif is_ready:
                deletes[kind][name] = objects.versions[row]
                sizes["delete"] += size
            else:
                waiting += one
    times = [entry.time + grace for entry in state.lists if entry.key not in ready]
    return Decision(
        now=now, grace=grace, stored=stored, kept=kept,
        deletes=Doomed(deletes["recipes"], deletes["packs"], sizes["delete"]),
        condemns=Doomed(condemns["recipes"], condemns["packs"], sizes["condemn"]),
        waiting=waiting, ready_at=min(times, default=None), rescued=rescued,
        ready=tuple(entry for entry in state.lists if entry.key in ready), refs=tuple(refs),
        repacks=tuple(plan_repacks(packs, marks, now, grace, repack)),
    )  # fmt: skip


def plan_repacks(packs: Objects, marks: Marks, now: float, grace: float, share: float) -> list[Repack]:
    """The packs worth rewriting: mostly dead, the most dead first, up to ``share`` of the stored bytes. Not those that
    only young keys need: they may die by themselves, and a recipe that is rewritten is young again."""
    if not share:
        return []
    found = [
        Repack(name, packs.sizes[row], marks.live[row])
        for name, row in packs.rows.items()
        if marks.live[row] < (1 - DEAD) * packs.sizes[row] and marks.lasting[row]
        and now - packs.modified[row] >= grace and packs.sizes[row] >= WORTH
    ]  # fmt: skip
    found.sort(key=lambda entry: (entry.live / entry.size, entry.pack))
    budget = max(share * sum(packs.sizes), AT_LEAST)
    chosen = []
    for entry in found:
        if entry.live <= budget:
            chosen.append(entry)
            budget -= entry.live
    return chosen


WORTH = 64 << 10
"""Smaller packs are left alone: what they waste is worth less than the requests."""
AT_LEAST = 64 << 20
"""Bytes that may be rewritten in any case: a pack's, so that small stores are repacked at all."""
