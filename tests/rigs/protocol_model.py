"""The protocol of docs/protocol.md as a model: every interleaving of a few small actors, each state looked at once.

Two keys, A and B, place chunks in one pack, P; or, in a world with ``deltas``, B lies in its recipe and names P because
the bases of its deltas lie there, if whoever stored it could rely on P. Writers store keys, namers and unnamers set and remove a ref, collectors
condemn and delete. Time is two events: ``window`` passes, and ``grace`` passes. An actor that is never scheduled again
was killed; one that is scheduled after all others was paused. A deletion that was sent may be carried out at once, late,
twice, or never, and its answer may be lost.

A state is a ``World``; ``explore`` goes through all that can be reached and returns the shortest way to one in which
something is lost that was acknowledged.
"""

from __future__ import annotations

import functools
import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

A, B, P = 0, 1, 2
NAMES = "ABP"
NOTHING: frozenset[Any] = frozenset()


@dataclass(frozen=True)
class Rules:
    """What the actors keep to. The defaults are what docs/protocol.md says."""

    packs_last: bool = True
    """A pack goes only after every stored recipe that names it; 0.1.0: after every one that is not needed."""
    refs_check_packs: bool = True
    """Who sets a ref looks at the packs too; 0.1.0: at the recipe."""
    sent_once: bool = True
    """A deletion is sent within its window and not again without a new look; 0.1.0: repeated for minutes."""
    unanswered_waits: bool = True
    """While a deletion may still be carried out, the state says so; 0.1.0: it does not once the collector has failed,
    or has been answered at the second try, or was taken over."""
    marked: bool = True
    """A ref that names what is condemned is marked until it is confirmed, and names what it named before; 0.1.0: it is
    set, and taken back if it cannot be confirmed."""
    repair_waits: bool = True
    """What repair moves away without a condition is listed first, until writers know, and deleted as a collector
    deletes; before: looked at and deleted."""
    by_version: bool = True
    """What was stored again since it was condemned can be named; 0.1.0: not while a deletion goes on."""
    bases_named: bool = True
    """A recipe needs the packs of its base chunks too; else: only those in which it places chunks."""
    bases_relied: bool = True
    """A writer relies on base chunks as on chunks that it has found; else: it takes for a base what it has once read,
    whatever is condemned."""


@dataclass(frozen=True)
class Service:
    """What the storage can do."""

    conditional: bool = True
    """Deletions take a condition."""
    late: bool = True
    """A request may be carried out after its sender gave up; on a local disk it cannot."""
    cached: bool = True
    """Writers may go by a state that is old (by ``KNOWLEDGE_SECONDS``, which is far below a grace period)."""


RULES, RULES_0_1_0 = Rules(), Rules(False, False, False, False, False, False, False)
S3, PLAIN_S3, LOCAL = Service(), Service(conditional=False), Service(late=False, cached=False)


class State(NamedTuple):
    """``gc/state``."""

    epoch: int = 0
    deletions: int = 0
    deleting: bool = False
    owner: int = -1
    listed: frozenset[tuple[int, int]] = NOTHING
    """Names and versions of what is condemned."""
    ready: frozenset[tuple[int, int]] = NOTHING
    """Those of them that were listed a grace period ago."""

    def concerns(self, names: frozenset[int]) -> bool:
        return any(name in names for name, _ in self.listed)

    def means(self, stored: tuple[int, int, int], names: frozenset[int]) -> bool:
        """Whether one of them is condemned in the version that is stored, or is not stored."""
        return any(name in names and stored[name] in (0, version) for name, version in self.listed)


class Sent(NamedTuple):
    """A deletion that may still be carried out."""

    name: int
    version: int
    """0: whatever is there."""


class World(NamedTuple):
    stored: tuple[int, int, int]
    """Versions of A, B and P; 0: not stored."""
    young: frozenset[int]
    ref: int = -1
    ref_version: int = 0
    marked: int = -1
    """The key that the ref will name once that is confirmed."""
    damaged: int = 0
    """The version of A that is damaged; 0: none is."""
    state: State = State()
    sent: frozenset[Sent] = NOTHING
    acknowledged: frozenset[int] = NOTHING
    """Keys that a writer was told are stored, less than a grace period ago."""
    named: int = -1
    """The key that an acknowledged ref names."""
    actors: tuple[Any, ...] = ()
    deltas: bool = False
    """B lies in its recipe, and is stored as deltas against chunks in P where that can be."""
    based: bool = True
    """It is stored so now."""
    graces: int = 2
    """How many grace periods may still pass."""
    windows: int = 2

    def put(self, name: int) -> World:
        stored = list(self.stored)
        stored[name] = 1 + max(self.stored[name], 1 if name in (A, B, P) else 0)
        return self._replace(stored=tuple(stored), young=self.young | {name})

    def without(self, name: int) -> World:
        stored = list(self.stored)
        stored[name] = 0
        return self._replace(stored=tuple(stored), young=self.young - {name})

    def packs(self, key: int) -> frozenset[int]:
        """The packs that the recipe of a key names."""
        return NOTHING if key == B and self.deltas and not self.based else frozenset((P,))

    def packs_stored(self, key: int) -> bool:
        """Whether they are there."""
        return all(self.stored[pack] for pack in self.packs(key))

    def lost(self) -> bool:
        """Whether something acknowledged cannot be read any more."""
        needed = self.acknowledged | ({self.named} if self.named >= 0 else NOTHING)
        return any(not (self.whole(key) and self.packs_stored(key)) for key in needed)

    def whole(self, name: int) -> bool:
        """Whether it is stored, and not damaged."""
        return self.stored[name] != 0 and not (name == A and self.stored[A] == self.damaged)

    def dangles(self) -> bool:
        """Whether the ref names what cannot be read, acknowledged or not."""
        return self.ref >= 0 and not (self.stored[self.ref] and self.packs_stored(self.ref))


Step = tuple[str, World]
OVER = "over"


class Guarded(NamedTuple):
    """Who looks before and after: a writer, or who sets a ref."""

    kind: str
    key: int
    at: str = "begin"
    view: State = State()
    fresh: bool = True
    """No grace period has passed since the view was read."""
    cached: bool = True
    """It may go by what it knew before."""
    wrote: frozenset[int] = NOTHING
    relied: frozenset[int] = NOTHING
    based: bool = True
    """Of B, in a world with deltas: it stores deltas, and not whole chunks."""
    put: int = 0
    """The version of the ref that it stored."""
    relies: bool = False
    """When it began to wait, what it relies on was the very version that is condemned."""
    waited: int = 0
    """Windows that have passed while it waited."""


class Collector(NamedTuple):
    number: int
    runs: int = 1
    at: str = "begin"
    state: State = State()
    ref: int = -1
    marked: int = -1
    recipes: tuple[int, int] = (0, 0)
    young: frozenset[int] = NOTHING
    doomed: frozenset[tuple[int, int]] = NOTHING
    condemns: frozenset[tuple[int, int]] = NOTHING
    held: bool = False
    """It has made sure, within this window, that it still owns the state (and looked at what it deletes)."""
    unanswered: bool = False
    """Something it, or who was at it before, has sent may still be carried out."""


class Repairer(NamedTuple):
    """Moves a damaged A to quarantine: that is a deletion."""

    at: str = "begin"
    state: State = State()
    held: bool = False
    unanswered: bool = False


REPAIRER = 99
"""It as an owner of the state."""


class Model:
    """The steps of all actors, under some rules, on some service."""

    def __init__(self, rules: Rules, service: Service) -> None:
        self.rules = rules
        self.service = service

    def steps(self, world: World) -> Iterator[Step]:
        """Whatever may happen next."""
        for number, actor in enumerate(world.actors):
            if actor.at == OVER:
                continue
            moves = self._collector if isinstance(actor, Collector) else self._guarded
            if isinstance(actor, Repairer):
                moves = self._repairer
            if isinstance(actor, Guarded) and actor.kind == "unname":
                moves = self._unnamer
            for label, after, following in moves(world, actor):
                actors = (*after.actors[:number], following, *after.actors[number + 1 :])
                yield f"{number}.{label}", after._replace(actors=actors)
        yield from self._events(world)

    # ---- the service, and time ------------------------------------------------------------------

    def _events(self, world: World) -> Iterator[Step]:
        for request in world.sent:
            if world.stored[request.name] and request.version in (0, world.stored[request.name]):
                # It stays: it may arrive again.
                yield f"late.{NAMES[request.name]}", world.without(request.name)
        if world.windows and (world.sent or any(actor.at in ("wait", "quiet") for actor in world.actors)):
            yield "window", self._passed(world._replace(windows=world.windows - 1))
        if world.graces:
            state = world.state._replace(ready=world.state.listed)
            aged = world._replace(young=NOTHING, graces=world.graces - 1, acknowledged=NOTHING, state=state)
            actors = tuple(a._replace(fresh=False) if isinstance(a, Guarded) else a for a in aged.actors)
            yield "grace", self._passed(aged._replace(actors=actors))

    def _passed(self, world: World) -> World:
        """A window has passed: what was sent before is carried out by now, or never."""
        actors = []
        for actor in world.actors:
            if isinstance(actor, Guarded) and actor.at == "wait":
                actor = actor._replace(waited=1)
            elif isinstance(actor, (Collector, Repairer)) and self.rules.sent_once:
                actor = actor._replace(held=False, unanswered=False if actor.at == "quiet" else actor.unanswered)
            actors.append(actor)
        sent = NOTHING if self.rules.sent_once else world.sent
        return world._replace(actors=tuple(actors), sent=sent)

    # ---- writers, and who sets refs ---------------------------------------------------------------

    def _guarded(self, world: World, actor: Guarded) -> Iterator[tuple[str, World, Guarded]]:
        at, key = actor.at, actor.key
        if at == "begin":
            yield "look", world, actor._replace(at="find", view=world.state)
        elif at == "find" and actor.kind == "write":
            listed = {name for name, _ in actor.view.listed}
            there = {name for name in (key, P) if world.whole(name) and name not in listed}
            if world.packs(key) | {key} <= there:
                yield "find", world, actor._replace(at="confirm", relied=world.packs(key) | {key})
            elif world.deltas and key == B:
                blind = not self.rules.bases_relied
                based = world.stored[P] != 0 if blind else P in there
                relied = frozenset((P,)) if based and not blind else NOTHING
                yield "find", world, actor._replace(at="recipe", based=based, relied=relied)
            elif P in there:
                yield "find", world, actor._replace(at="recipe", relied=frozenset((P,)))
            else:
                yield "find", world, actor._replace(at="pack")
        elif at == "find":
            found = world.whole(key) and (world.packs_stored(key) or not self.rules.refs_check_packs)
            relied = world.packs(key) | {key} if self.rules.refs_check_packs else frozenset((key,))
            yield "find", world, actor._replace(at="ref" if found else OVER, relied=relied)
        elif at == "pack":
            yield "put P", world.put(P), actor._replace(at="recipe", wrote=actor.wrote | {P})
        elif at == "recipe":
            after = world.put(key)._replace(based=actor.based if key == B else world.based)
            yield f"put {NAMES[key]}", after, actor._replace(at="confirm", wrote=actor.wrote | {key})
        elif at == "ref" and self.rules.marked and not (actor.fresh and actor.cached):
            yield "look", world, actor._replace(at="find", view=world.state, fresh=True, cached=True)
        elif at == "ref" and self.rules.marked and actor.view.concerns(actor.relied):
            after = world._replace(marked=key, ref_version=world.ref_version + 1)
            yield "put mark", after, actor._replace(at="confirm", put=after.ref_version)
        elif at == "ref":
            after = world._replace(ref=key, ref_version=world.ref_version + 1, marked=-1, named=-1)
            yield "put ref", after, actor._replace(at="confirm", put=after.ref_version)
        elif at == "marked":
            if world.ref_version == actor.put:
                after = world._replace(ref=key, ref_version=world.ref_version + 1, marked=-1, named=key)
                yield "put ref", after, Guarded(actor.kind, key, OVER)
            else:
                yield "put ref", world, Guarded(actor.kind, key, OVER)  # somebody else has set it
        elif at == "confirm":
            yield from self._confirm(world, actor)
        elif at == "wait":
            if not world.state.deleting or (actor.waited and not actor.relies):
                yield "waited", world, actor._replace(at="check")
            yield "give up", *self._failed(world, actor)
        elif at == "check":
            if all(world.whole(name) for name in actor.wrote | actor.relied):
                yield "checked", *self._done(world, actor)
            else:
                yield "refused", *self._failed(world, actor)

    def _confirm(self, world: World, actor: Guarded) -> Iterator[tuple[str, World, Guarded]]:
        before, both = actor.view, actor.wrote | actor.relied
        knowledge = [world.state]
        if self.service.cached and actor.fresh and actor.cached:
            knowledge.append(before)
        for after in knowledge:
            if after.deletions == before.deletions and not (before.concerns(both) or after.concerns(both)):
                yield "confirm", *self._done(world, actor)
                return
        after = world.state
        same = after.deletions == before.deletions
        quiet = not before.deleting and not after.deleting
        relies = after.concerns(actor.relied)
        if self.rules.by_version:
            relies = after.means(world.stored, actor.relied)
        older = after.deleting and not relies  # versions that were replaced
        if same and (quiet or (older and self.service.conditional)):
            yield "confirm", *self._done(world, actor)
        elif after.deleting and after.concerns(both):
            old = not self.rules.sent_once and same and not after.concerns(actor.relied)
            # 0.1.0 slept for a window, whatever was on its way.
            yield "confirm", world, actor._replace(at="check" if old else "wait", waited=0, relies=relies)
        else:
            yield "confirm", world, actor._replace(at="check")

    def _done(self, world: World, actor: Guarded) -> tuple[World, Guarded]:
        if actor.kind == "write":
            if actor.fresh:  # a key stays for a grace period after it was looked up, however long the save took
                world = world._replace(acknowledged=world.acknowledged | {actor.key})
        elif actor.put == world.ref_version and world.marked == actor.key:
            return world, Guarded(actor.kind, actor.key, "marked", put=actor.put)
        elif world.ref == actor.key:
            world = world._replace(named=actor.key)
        return world, Guarded(actor.kind, actor.key, OVER)

    def _failed(self, world: World, actor: Guarded) -> tuple[World, Guarded]:
        if actor.kind == "name" and world.marked == actor.key:
            world = world._replace(marked=-1, ref_version=world.ref_version + 1)
        elif actor.kind == "name" and world.ref == actor.key:
            world = world._replace(ref=-1, ref_version=world.ref_version + 1)
        return world, Guarded(actor.kind, actor.key, OVER)

    def _unnamer(self, world: World, actor: Guarded) -> Iterator[tuple[str, World, Guarded]]:
        if world.ref >= 0:
            after = world._replace(ref=-1, ref_version=world.ref_version + 1, marked=-1, named=-1)
            yield "put no ref", after, actor._replace(at=OVER)

    # ---- repair ---------------------------------------------------------------------------------

    def _repairer(self, world: World, actor: Repairer) -> Iterator[tuple[str, World, Repairer]]:
        at, state = actor.at, world.state
        told = self.rules.repair_waits and not self.service.conditional
        mine = not told or state._replace(ready=NOTHING) == actor.state._replace(ready=NOTHING)
        if at == "begin":
            following = ("list" if told else "hold") if world.stored[A] == world.damaged else OVER
            yield "find damage", world, actor._replace(at=following)
        elif at == "list":
            if state.owner >= 0 or state.deleting:
                yield "list", world, actor._replace(at=OVER)  # a collector is at work
                return
            listed = state.listed | {(A, world.damaged)}
            new = state._replace(epoch=state.epoch + 1, owner=REPAIRER, listed=listed)
            yield "list", world._replace(state=new), actor._replace(at="known", state=new)
        elif at == "known":
            known = tuple(a._replace(cached=False) if isinstance(a, Guarded) else a for a in world.actors)
            yield "known", world._replace(actors=known), actor._replace(at="claim")
        elif not mine:
            yield "hold", world, actor._replace(at=OVER)
        elif at == "claim":
            new = state._replace(epoch=state.epoch + 1, deleting=True, deletions=state.deletions + 1)
            yield "claim", world._replace(state=new), actor._replace(at="hold", state=new)
        elif at == "hold" and not actor.held:
            held = world.stored[A] == world.damaged
            yield "hold", world, actor._replace(at="hold" if held else "retire", held=held)
        elif at == "hold":
            request = Sent(A, world.damaged if self.service.conditional else 0)
            done = world.without(A) if request.version in (0, world.stored[A]) else world
            yield "delete A", done, actor._replace(at="retire")
            if self.service.late:
                flying = world._replace(sent=world.sent | {request})
                yield "send A", flying, actor._replace(at="quiet", unanswered=True)
        elif not told:
            yield "end", world, actor._replace(at=OVER)
        elif at == "retire" or not actor.unanswered:
            listed = state.listed - {(A, world.damaged)}
            new = state._replace(epoch=state.epoch + 1, owner=-1, deleting=False, listed=listed)
            yield "retire", world._replace(state=new), actor._replace(at=OVER)

    # ---- collectors -----------------------------------------------------------------------------

    def _collector(self, world: World, actor: Collector) -> Iterator[tuple[str, World, Collector]]:
        at = actor.at
        if at == "begin":
            yield "plan refs", world, actor._replace(at="plan", state=world.state, ref=world.ref, marked=world.marked)
        elif at == "plan":
            planned = self._decide(world, actor._replace(recipes=world.stored[:2], young=world.young))
            yield "plan", world, planned
        elif at == "claim":
            if world.state != actor.state:
                yield "claim", world, actor._replace(at=OVER)
                return
            # Of a collector that is silent, or because somebody said so, at any time.
            found = world.state
            deleting = bool(actor.doomed) or (found.deleting and self.rules.unanswered_waits)
            new = found._replace(
                epoch=found.epoch + 1, owner=actor.number, deleting=deleting,
                deletions=found.deletions + bool(actor.doomed),
            )  # fmt: skip
            following = actor._replace(at="look" if actor.doomed else "retire", state=new, unanswered=found.deleting)
            yield "claim", world._replace(state=new), following
        elif at == "look":
            yield "look", world, self._look_again(world, actor)
        elif at == "delete":
            yield from self._delete(world, actor)
        elif at == "retire" and actor.unanswered and self.rules.unanswered_waits:
            yield "wait", world, actor._replace(at="quiet")
        elif at in ("retire", "quiet"):
            if not (actor.unanswered and self.rules.unanswered_waits):
                yield from self._owned(world, actor, "retire")
        elif at == "condemn":
            yield from self._owned(world, actor, "condemn")

    def _decide(self, world: World, actor: Collector) -> Collector:
        live = {
            key for key in (A, B) if actor.recipes[key] and (key in (actor.ref, actor.marked) or key in actor.young)
        }
        if actor.ref >= 0 and not (actor.recipes[actor.ref] and world.packs_stored(actor.ref)):
            return actor._replace(at=OVER)  # something needed is missing: nothing is deleted
        listed, ready = actor.state.listed, actor.state.ready
        dead = {(key, version) for key, version in enumerate(actor.recipes) if version and key not in live}
        doomed = dead & ready
        condemns = dead - listed
        pack = (P, world.stored[P])
        needed = self._names(world, live)
        held = needed or (self.rules.packs_last and self._names(world, {key for key, _ in dead - doomed}))
        if pack[1] and not needed and P not in actor.young:
            if pack in ready and not held:
                doomed |= {pack}
            elif pack not in listed or pack in ready:
                condemns |= {pack}
        doomed, condemns = frozenset(doomed), frozenset(condemns)
        at = "claim" if doomed or condemns or ready else OVER
        return actor._replace(at=at, doomed=doomed, condemns=condemns)

    def _names(self, world: World, keys: Iterable[int]) -> bool:
        """Whether one of these recipes names the pack, as collectors see it."""
        seen = keys if self.rules.bases_named or not world.deltas else set(keys) - {B}
        return any(P in world.packs(key) for key in seen)

    def _look_again(self, world: World, actor: Collector) -> Collector:
        spared = {key for key in (A, B) if world.stored[key] and world.stored[key] != actor.recipes[key]}
        spared.update({world.ref, world.marked} - {-1, actor.ref, actor.marked})
        doomed = frozenset(
            (name, version) for name, version in actor.doomed
            if world.stored[name] == version and name not in spared
            and not (name == P and self._names(world, spared))
        )  # fmt: skip
        return actor._replace(at="delete" if doomed else "retire", doomed=doomed)

    def _delete(self, world: World, actor: Collector) -> Iterator[tuple[str, World, Collector]]:
        name, version = min(actor.doomed)
        if not actor.held:
            if world.state != actor.state:
                yield "hold", world, actor._replace(at=OVER)
            elif world.stored[name] != version:
                # Stored again (or gone): it is left alone, and so are its packs if it is a recipe.
                yield "hold", world, self._next(actor, name, bool(world.stored[name]))
            else:
                yield "hold", world, actor._replace(held=True)
            return
        request = Sent(name, version if self.service.conditional else 0)
        hit = bool(world.stored[name]) and request.version in (0, world.stored[name])
        done = world.without(name) if hit else world
        following = self._next(actor, name, not hit and bool(world.stored[name]))
        yield f"delete {NAMES[name]}", done, following
        if self.service.late:
            flying = world._replace(sent=world.sent | {request})
            # Carried out and answered at the second try; the first is still on its way.
            twice = done._replace(sent=world.sent | {request})
            yield f"delete {NAMES[name]} twice", twice, following._replace(unanswered=True)
            # Neither answered nor, so far, carried out: the collector ends with an error.
            failed = actor._replace(at="failed", unanswered=True)
            if self.rules.unanswered_waits:
                yield f"send {NAMES[name]}", flying, failed._replace(at="quiet", doomed=NOTHING, condemns=NOTHING)
            elif world.state == actor.state:
                state = actor.state
                deleting = not self.service.conditional
                new = state._replace(epoch=state.epoch + 1, owner=-1, deleting=deleting)
                yield f"send {NAMES[name]}", flying._replace(state=new), failed._replace(at=OVER)

    def _next(self, actor: Collector, name: int, changed: bool) -> Collector:
        left = frozenset(entry for entry in actor.doomed if entry[0] != name)
        if changed and name != P:
            left = frozenset(entry for entry in left if entry[0] != P)
        return actor._replace(doomed=left, held=False, at="delete" if left else "retire")

    def _owned(self, world: World, actor: Collector, what: str) -> Iterator[tuple[str, World, Collector]]:
        """Replace the state, if it still is this collector's."""
        state = world.state
        if state._replace(ready=NOTHING) != actor.state._replace(ready=NOTHING):
            yield what, world, actor._replace(at=OVER)
        elif what == "retire":
            listed = state.listed - actor.state.ready
            new = state._replace(epoch=state.epoch + 1, deleting=False, listed=listed, ready=state.ready & listed)
            yield what, world._replace(state=new), actor._replace(at="condemn", state=new)
        else:
            listed = state.listed | actor.condemns
            new = state._replace(epoch=state.epoch + 1, owner=-1, listed=listed)
            following = Collector(actor.number, actor.runs - 1, "begin" if actor.runs > 1 else OVER)
            yield what, world._replace(state=new), following


class Found(NamedTuple):
    """What an exploration found."""

    trace: tuple[str, ...] | None
    """The shortest way to a loss; None: there is none."""
    states: int


def explore(model: Any, start: Any, bad: Callable[[Any], bool], limit: int = 2_000_000) -> Found:
    """Go through every state that can be reached, nearest first, until one is ``bad``."""
    # States refer to no other: all that Python's collector could do here is take a quarter of the time.
    enabled = gc.isenabled()
    gc.disable()
    try:
        return _explore(model, start, bad, limit)
    finally:
        if enabled:
            gc.enable()


def _explore(model: Any, start: Any, bad: Callable[[Any], bool], limit: int) -> Found:
    cause: dict[Any, tuple[Any, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        world = queue.popleft()
        if bad(world):
            trace = []
            at: Any = world
            while (step := cause[at]) is not None:
                at, label = step
                trace.append(label)
            return Found(tuple(reversed(trace)), len(cause))
        for label, after in model.steps(world):
            if after not in cause:
                cause[after] = world, label
                queue.append(after)
        assert len(cause) <= limit, "more states than expected"
    return Found(None, len(cause))


def garbage() -> World:
    """A and P are stored, old, and nobody names A."""
    return World(stored=(1, 0, 1), young=NOTHING)


def condemned() -> World:
    """The same, listed a grace period ago."""
    listed = frozenset(((A, 1), (P, 1)))
    return World(stored=(1, 0, 1), young=NOTHING, state=State(epoch=1, listed=listed, ready=listed), graces=1)


@dataclass(frozen=True)
class Case:
    """Who does what at once."""

    name: str
    start: World
    actors: tuple[Any, ...]

    def explore(self, rules: Rules, service: Service, bad: Callable[[World], bool] = World.lost) -> Found:
        return _explored(self, rules, service, bad)


@functools.cache
def _explored(case: Case, rules: Rules, service: Service, bad: Callable[[World], bool]) -> Found:
    return explore(Model(rules, service), case.start._replace(actors=case.actors), bad)


WRITE_A, WRITE_B = Guarded("write", A), Guarded("write", B)
NAME_A, NAME_B, UNNAME = Guarded("name", A), Guarded("name", B), Guarded("unname", A)
PACK = Case(
    "a pack and a new recipe", garbage()._replace(windows=0), (WRITE_B, NAME_B, Collector(0, 2))
)  # fmt: skip
WRITTEN = Case("stored again while it is deleted", condemned(), (WRITE_A, Collector(0)))
SHARED = Case(
    "two writers store again what is deleted",
    condemned()._replace(windows=1, graces=0),
    (WRITE_A, WRITE_B, Collector(0)),
)
NAMED = Case("named and unnamed while it is deleted", condemned(), (NAME_A, UNNAME, Collector(0)))
TWO = Case(
    "two collectors, and one who names", condemned()._replace(windows=1, graces=0), (NAME_A, Collector(0), Collector(1))
)
WRITTEN_TWO = Case(
    "two collectors and a writer", condemned()._replace(windows=1, graces=0), (WRITE_A, Collector(0), Collector(1))
)
AGAIN = Case("stored again, and named", condemned()._replace(windows=1, graces=0), (WRITE_A, NAME_A, Collector(0)))
DAMAGED = Case(
    "stored again while repair sets it aside", garbage()._replace(damaged=1, graces=0), (WRITE_A, NAME_A, Repairer())
)
BASE = Case(
    "a delta whose base nobody else needs", garbage()._replace(deltas=True, windows=0), (WRITE_B, NAME_B, Collector(0, 2))
)  # fmt: skip
BASE_GOES = Case(
    "a delta while its base is deleted",
    condemned()._replace(deltas=True, windows=1, graces=0),
    (WRITE_B, NAME_B, Collector(0)),
)
CASES = (PACK, WRITTEN, SHARED, NAMED, TWO, WRITTEN_TWO, AGAIN, DAMAGED, BASE, BASE_GOES)


# ---- one ref ---------------------------------------------------------------------------------------------------------


class RefRequest(NamedTuple):
    """A request about the ref that may be carried out, again or late."""

    needs: int
    """The version that must be there; 0: none may be; -1: whatever there is."""
    leaves: int
    """The version that it stores; 0: it deletes."""


class RefWorld(NamedTuple):
    """A ref that one client sets and removes by turns, or sets and takes back, while a collector trims its history."""

    stored: int = 0
    """Its version; 0: there is no object."""
    removed: frozenset[int] = NOTHING
    """The versions that only say that it was removed."""
    versions: int = 0
    sent: frozenset[RefRequest] = NOTHING
    turns: int = 4
    set: bool = False
    """What was acknowledged last: whether it is set."""
    others: frozenset[int] = NOTHING
    """The versions that say what was never acknowledged."""
    before: int = -1
    """The version that a set which cannot be confirmed has replaced, and puts back; -1: there is none."""
    trimming: int = -1
    """The version that the collector has looked at and is about to replace; -1: it is not at work."""
    trims: int = 1

    def lost(self) -> bool:
        if self.before >= 0:
            return False  # it is being set
        there = self.stored != 0 and self.stored not in self.removed
        return there != self.set or self.stored in self.others


@dataclass(frozen=True)
class RefModel:
    """How a ref is removed, and taken back."""

    replaced: bool = True
    """By a conditional write of an object that says so; 0.1.0: by a deletion without a condition."""
    locked: bool = True
    """A deletion takes the lock that conditional writes take; 0.1.0: it does not."""
    nonces: bool = True
    """A ref that is put back as it was has another ETag than before; 0.1.0: the same, where it is a digest."""
    late: bool = True
    """Requests may be late, and be carried out twice. On a local disk they are not, but a conditional write is a look
    and a rename."""

    def steps(self, world: RefWorld) -> Iterator[tuple[str, RefWorld]]:
        new = world.versions + 1
        if world.before >= 0:
            back = world._replace(before=-1, versions=new)
            yield from self._carry_out(
                "take back", back, RefRequest(world.stored, new if self.nonces else world.before)
            )
            return
        if world.turns and world.set and self.late:
            turn = world._replace(turns=world.turns - 1, versions=new, before=world.stored, others=world.others | {new})
            yield from self._carry_out("put other ref", turn, RefRequest(world.stored, new))
        if world.turns and (world.trimming < 0 or not self.locked or self.late):
            turn = world._replace(turns=world.turns - 1, set=not world.set)
            if world.set and not self.replaced:
                yield from self._carry_out("del ref", turn, RefRequest(-1, 0))
            else:
                after = turn._replace(versions=new, removed=turn.removed | {new} if world.set else turn.removed)
                yield from self._carry_out("del ref" if world.set else "put ref", after, RefRequest(world.stored, new))
        if world.trims and world.stored and world.stored not in world.removed:
            trimmed = world._replace(trims=world.trims - 1)
            if self.late:  # the service does look and write at once
                yield from self._carry_out("trim", trimmed._replace(versions=new), RefRequest(world.stored, new))
            else:
                yield "trim: look", trimmed._replace(trimming=world.stored)
        if world.trimming >= 0:
            yield "trim: rename", world._replace(stored=new, versions=new, trimming=-1)
        for request in world.sent:
            if request.needs in (-1, world.stored):
                yield "late", world._replace(stored=request.leaves)

    def _carry_out(self, label: str, world: RefWorld, request: RefRequest) -> Iterator[tuple[str, RefWorld]]:
        done = world._replace(stored=request.leaves)
        yield label, done
        if self.late:
            yield f"{label} twice", done._replace(sent=world.sent | {request})
