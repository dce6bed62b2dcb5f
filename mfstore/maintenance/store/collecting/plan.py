"""What a collection will do, decided without touching the store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from mfstore.display.amounts import count, share
from mfstore.errors import Refused
from mfstore.format.collection import CondemnedList, ListRef, State
from mfstore.maintenance.store.collecting.liveness import Liveness
from mfstore.maintenance.store.collecting.object_table import ObjectTable
from mfstore.maintenance.store.collecting.retention import RefChange, Retention

DEAD_SHARE = 0.5
"""Packs of which more than this share is dead are repacked: below it, rewriting a byte frees less than a byte."""
SMALLEST_REPACKED = 64 << 10
"""Smaller packs are left alone: what they waste is worth less than the requests."""
REWRITTEN_AT_LEAST = 64 << 20
"""Bytes that may be rewritten in any case: a pack's, so that small stores are repacked at all."""

REF = "named by a ref"
HELD = "held"
CALLER = "named by the caller"
AGE = "within keep-age"
YOUNG = "younger than the grace period"
NEEDED = "needed by these keys"
LOCKED = "under retention or legal hold of the storage"


@dataclass(frozen=True, slots=True)
class GcOptions:
    """What to keep, and how much to do."""

    grace: float
    """Seconds for which nothing young is touched, and for which what is condemned stays."""
    retention: Retention
    """Which values of refs stay."""
    repack: float
    """Share of the stored bytes that may be rewritten, 0 to 1."""
    max_drop: float | None = None
    """Share of the keys, 0 to 1, that one collection may condemn; more is refused."""

    def __post_init__(self) -> None:
        if not self.grace >= 0:
            raise Refused("the grace period must not be negative", found=self.grace)
        if not 0 <= self.repack <= 1:
            raise Refused("the share to repack is between 0 and 1", found=self.repack)
        if self.max_drop is not None and not 0 <= self.max_drop <= 1:
            raise Refused("the share of keys that may be condemned is between 0 and 1", found=self.max_drop)


@dataclass(frozen=True, slots=True)
class StoreAmount:
    """How much of a store."""

    recipes: int = 0
    packs: int = 0
    bytes: int = 0
    """Of these recipes and packs, as they are stored."""

    def __bool__(self) -> bool:
        return bool(self.recipes or self.packs)

    def __add__(self, other: StoreAmount) -> StoreAmount:
        return StoreAmount(self.recipes + other.recipes, self.packs + other.packs, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class GcSelection:
    """Recipes and packs by name, each with the version that is meant (``seal_etag``)."""

    recipes: Mapping[bytes, int] = field(default_factory=dict, repr=False)
    packs: Mapping[bytes, int] = field(default_factory=dict, repr=False)
    bytes: int = 0
    """Of all of them."""

    @property
    def amount(self) -> StoreAmount:
        """How much it is."""
        return StoreAmount(len(self.recipes), len(self.packs), self.bytes)


@dataclass(frozen=True, slots=True)
class PackToRewrite:
    """A pack whose live chunks move to another one."""

    pack: bytes
    size: int
    """Its bytes."""
    live: int
    """Those of its live chunks."""


@dataclass(frozen=True, slots=True, eq=False)
class GcSnapshot:
    """What was stored when a plan was made."""

    now: float
    """The store's time."""
    found: State
    """The collection state, as it is stored."""
    state: State
    """The same, as it is acted upon: no list counts from before it was stored."""
    recipes: ObjectTable
    packs: ObjectTable
    ref_etags: Mapping[str, str]
    """Which version of each ref was read, by name."""


@dataclass(frozen=True, slots=True)
class GcDecision:
    """What is to happen to everything stored. All times are the store's, in seconds since the epoch."""

    now: float
    grace: float
    stored: StoreAmount
    """Everything there is."""
    kept: Mapping[str, StoreAmount]
    """Why what is kept is kept. Recipes and packs are counted once each."""
    deletes: GcSelection
    """Condemned at least a grace period ago, and needed by nobody."""
    condemns: GcSelection
    """Garbage that no list has named so far."""
    waiting: StoreAmount
    """Condemned before, not yet a grace period ago."""
    ready_at: float | None
    """When the first of these may be deleted."""
    rescued: StoreAmount
    """Condemned before, needed again."""
    ready: tuple[ListRef, ...]
    """Lists that this collection deals with."""
    refs: tuple[RefChange, ...]
    """Refs that are shortened or removed."""
    repacks: tuple[PackToRewrite, ...]
    """Packs that are mostly dead, the most dead first."""

    @property
    def does_something(self) -> bool:
        """Whether carrying it out changes the store."""
        return bool(self.deletes.amount or self.condemns.amount or self.ready or self.refs or self.repacks)

    @property
    def drops_everything(self) -> bool:
        """Whether no recipe is kept for a better reason than its youth, though some are dropped."""
        wanted = sum(amount.recipes for why, amount in self.kept.items() if why != YOUNG)
        return not wanted and bool(self.deletes.recipes or self.condemns.recipes)

    def refusal(self, max_drop: float | None) -> str:
        """Why it is not carried out unless somebody says that it is meant; empty: it is."""
        if self.drops_everything:
            return "this would drop every key older than the grace period: no ref and no live key keeps one"
        condemned = len(self.condemns.recipes)
        part = condemned / self.stored.recipes if condemned else 0.0
        if max_drop is not None and part > max_drop:
            many = f"{count(condemned, 'key')} would be condemned at once, {share(part)} of all"
            return f"{many}: more than {share(max_drop)}"
        return ""


def live_keys(
    recipes: ObjectTable, named: Collection[bytes], held: Collection[bytes], given: Collection[bytes], now: float,
    options: GcOptions,
) -> dict[bytes, str]:  # fmt: skip
    """Every key that is live and why: the first reason that holds. ``named`` are those of refs, ``given`` those of the
    caller; they may be missing here."""
    found = dict.fromkeys(named, REF)
    for key in held:
        if key in recipes.rows:  # else it went before it was held
            found.setdefault(key, HELD)
    for key in given:
        found.setdefault(key, CALLER)
    keep_age = options.retention.keep_age
    for key, row in recipes.rows.items():
        if key not in found:
            age = now - recipes.modified[row]
            if keep_age is not None and age < keep_age:
                found[key] = AGE
            elif age < options.grace:
                found[key] = YOUNG
    return found


def doomed_recipes(
    recipes: ObjectTable, state: State, lists: Sequence[CondemnedList], live: Collection[bytes], now: float,
    grace: float,
) -> dict[bytes, int]:  # fmt: skip
    """The recipes that go now, each with its version: nobody needs them, and they were condemned, as they are, at least
    a grace period ago."""
    found = {}
    for entry, listed in zip(state.lists, lists, strict=True):
        if entry.time + grace <= now:
            for name, version in listed.versions("recipes").items():
                row = recipes.rows.get(name)
                if row is not None and recipes.versions[row] == version and name not in live:
                    found[name] = version
    return found


def decide(
    snapshot: GcSnapshot, lists: Sequence[CondemnedList], live: Mapping[bytes, str], liveness: Liveness,
    options: GcOptions, refs: Sequence[RefChange],
) -> GcDecision:  # fmt: skip
    """What to delete, what to condemn and what to keep. ``lists`` are those that the state names, in its order.

    A pack is condemned once nobody needs it; it is deleted only if no recipe that stays places chunks in it
    (``Liveness.held``). If one does, it is condemned anew, to go with the last of them.
    """
    now, grace, state = snapshot.now, options.grace, snapshot.state
    ready = {entry.key for entry in state.lists if entry.time + grace <= now}
    kept: dict[str, StoreAmount] = {}
    deletes: dict[str, dict[bytes, int]] = {"recipes": {}, "packs": {}}
    condemns: dict[str, dict[bytes, int]] = {"recipes": {}, "packs": {}}
    deleted_bytes = condemned_bytes = 0
    waiting, rescued, stored = StoreAmount(), StoreAmount(), StoreAmount()
    for table in (snapshot.recipes, snapshot.packs):
        kind = table.kind
        before: dict[bytes, tuple[int, bool]] = {}
        for entry, listed in zip(state.lists, lists, strict=True):
            for name, version in listed.versions(kind).items():
                before[name] = version, entry.key in ready
        for name, row in table.rows.items():
            size = table.sizes[row]
            one = StoreAmount(kind == "recipes", kind == "packs", size)
            stored += one
            version, is_ready = before.get(name, (-1, False))
            condemned = version == table.versions[row]
            held = kind == "packs" and (liveness.held[row] or bool(liveness.unread))
            if kind == "recipes":
                why = live.get(name)
            elif liveness.reachable[row]:
                why = NEEDED
            else:
                why = YOUNG if now - table.modified[row] < grace else None
            if why is not None:
                kept[why] = kept.get(why, StoreAmount()) + one
                if condemned and why != YOUNG:
                    rescued += one
            elif not condemned or (is_ready and held):
                condemns[kind][name] = table.versions[row]
                condemned_bytes += size
            elif is_ready:
                deletes[kind][name] = version
                deleted_bytes += size
            else:
                waiting += one
    times = [entry.time + grace for entry in state.lists if entry.key not in ready]
    return GcDecision(
        now=now, grace=grace, stored=stored, kept=kept,
        deletes=GcSelection(deletes["recipes"], deletes["packs"], deleted_bytes),
        condemns=GcSelection(condemns["recipes"], condemns["packs"], condemned_bytes),
        waiting=waiting, ready_at=min(times, default=None), rescued=rescued,
        ready=tuple(entry for entry in state.lists if entry.key in ready), refs=tuple(refs),
        repacks=tuple(plan_repacks(snapshot.packs, liveness, now, options)),
    )  # fmt: skip


def plan_repacks(packs: ObjectTable, liveness: Liveness, now: float, options: GcOptions) -> list[PackToRewrite]:
    """The packs worth rewriting: mostly dead, the most dead first, up to the share of the stored bytes. Not those that
    only young keys need: they may die by themselves, and a recipe that is rewritten is young again."""
    found = _mostly_dead(packs, liveness, liveness.live_bytes, now, options)
    found.sort(key=lambda entry: (entry.live / entry.size, entry.pack))
    budget = max(options.repack * sum(packs.sizes), REWRITTEN_AT_LEAST)
    chosen = []
    for entry in found:
        if entry.live <= budget:
            chosen.append(entry)
            budget -= entry.live
    return chosen


def depend_on_groups(packs: ObjectTable, liveness: Liveness, now: float, options: GcOptions) -> list[bytes]:
    """The packs of which the lengths of their groups decide whether they are worth rewriting."""
    counted = {entry.pack for entry in _mostly_dead(packs, liveness, liveness.live_bytes, now, options)}
    possible = _mostly_dead(packs, liveness, liveness.least_bytes(), now, options)
    return [entry.pack for entry in possible if entry.pack not in counted]


def _mostly_dead(
    packs: ObjectTable, liveness: Liveness, live: Sequence[int], now: float, options: GcOptions
) -> list[PackToRewrite]:
    """The packs that may be rewritten, if so many bytes of each, by row, are live."""
    if not options.repack:
        return []
    return [
        PackToRewrite(name, packs.sizes[row], live[row])
        for name, row in packs.rows.items()
        if live[row] < (1 - DEAD_SHARE) * packs.sizes[row] and liveness.lasting[row]
        and now - packs.modified[row] >= options.grace and packs.sizes[row] >= SMALLEST_REPACKED
    ]  # fmt: skip
