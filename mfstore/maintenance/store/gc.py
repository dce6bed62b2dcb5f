"""Garbage collection of a store: look, decide, and carry out in an order that a kill at any point cannot hurt.

The rules that make it safe, and why they do, are in docs/format.md, "Garbage collection".
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mfstore import errors
from mfstore._core.codec import Codec
from mfstore.description import enable, load
from mfstore.errors import AccessDenied, Conflict, CorruptObject, MfstoreError, NotFound, Refused
from mfstore.format.collection import (
    FEATURE,
    LISTS,
    STATE,
    CondemnedList,
    ListRef,
    State,
    decode_list,
    encode_list,
    encode_state,
    seal_etag,
)
from mfstore.format.description import OPERATIONS, Description
from mfstore.format.digests import Key, digest_function
from mfstore.format.fragments import PREFIX as INDEX
from mfstore.format.fragments import decode_fragment, without_packs
from mfstore.format.refs import encode_ref, ref_path
from mfstore.host.elapsed import moment, since
from mfstore.maintenance.clock import written
from mfstore.maintenance.store.collecting.lifecycle import findings
from mfstore.maintenance.store.collecting.liveness import (
    Objects,
    list_objects,
    mark,
    read_objects,
    read_recipes,
    read_refs,
)
from mfstore.maintenance.store.collecting.plan import YOUNG, Amount, Decision, decide, roots
from mfstore.maintenance.store.collecting.repack import Repacker
from mfstore.maintenance.store.collecting.retention import RefChange, Retention, plan_refs
from mfstore.saving.guard import COLLECTOR_SILENCE, KNOWLEDGE_SECONDS, read_state

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.handle import StoreAccess

CLOCK = "gc/clock"
SKEW = 300.0
"""Seconds by which the store's clock and this machine's may differ; more, and one of them is wrong."""
SAFE_GRACE = 2 * KNOWLEDGE_SECONDS
STALL = 5.0
BATCH = 1000
"""Objects deleted between two looks at whether this collector still is the one: one request of S3's."""
NOTHING = Amount()
Progress = Callable[[str, int], None]
"""Called with what is being done and how many objects more of it are done."""


def _silent(what: str, more: int) -> None:
    return


@dataclass(frozen=True, slots=True)
class GcResult:
    """What a collection did."""

    deleted: Amount = NOTHING
    condemned: Amount = NOTHING
    changed: int = 0
    """Objects not deleted because they were stored again since they were condemned."""
    refs: int = 0
    """Refs shortened or removed."""
    refs_changed: int = 0
    """Refs left alone because somebody set them since the plan was made."""
    repacked: int = 0
    """Packs given up for others, with what was still needed in them."""
    rewritten: int = 0
    """Bytes written for that."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GcPlan:
    """What a collection would do, and does when it is executed. Made by ``Store.plan_gc``."""

    store: StoreAccess
    decision: Decision
    retention: Retention
    state: State
    warnings: tuple[str, ...]
    unsafe: str
    """Why it is only safe while nobody writes; empty: it always is."""
    live: Mapping[bytes, str]
    """Keys that stay, and why."""
    recipes: Objects
    packs: Objects
    ref_etags: Mapping[str, str]
    chunks: int
    """Different chunks that live keys need in packs."""

    def execute(
        self, *, yes_really: bool = False, take_over: bool = False, progress: Progress | None = None
    ) -> GcResult:
        """Delete what earlier collections condemned long enough ago, then condemn what is garbage now.

        Refused when nothing would be left that somebody named, unless ``yes_really``. Conflict when another collector
        is at work, or has been since the plan was made; ``take_over`` is for one that died within the last minutes.
        AccessDenied without the right to delete. Whatever it raises, the store is consistent, and another plan goes on
        where this one ended.
        """
        if self.decision.drops_everything and not yes_really:
            raise Refused(
                "this would drop every key older than the grace period: no ref and no live key keeps one",
                backend=self.store.backend.url,
                hint="Name what to keep by refs or live=, or confirm with yes_really=True (--yes-really)",
            )
        return _Collector(self, take_over, progress or _silent).run()

    def __repr__(self) -> str:
        found = self.decision
        return f"<GcPlan of {self.store.url}: delete {found.deletes.amount}, condemn {found.condemns.amount}>"


def make_plan(
    store: StoreAccess, live: Iterable[str] | None, grace: float, retention: Retention, repack: float,
    progress: Progress | None,
) -> GcPlan:  # fmt: skip
    """See ``Store.plan_gc``."""
    if not grace >= 0:
        raise Refused("the grace period must not be negative", found=grace)
    if not 0 <= repack <= 1:
        raise Refused("the share to repack is between 0 and 1", found=repack)
    tell = progress or _silent
    backend = store.backend
    _description(store)
    warnings: list[str] = []
    try:
        now = _now(backend)
    except AccessDenied:
        warnings.append("nothing can be written there: ages are told by this machine's clock, and nothing can be done")
        now = time.time()
    unsafe = ""
    if grace < SAFE_GRACE and backend.capabilities.remote:
        unsafe = f"with a grace period below {SAFE_GRACE:.0f} s nobody may be writing to a remote store"
        warnings.append(unsafe)
    warnings += findings(backend)
    state, _ = read_state(backend)
    lists = [_list(backend, entry.key, warnings) for entry in state.lists]
    if state.owner:
        warnings.append(f"a collector is at work, or died at it: {state.owner}")
    refs = read_refs(backend)
    changes = plan_refs(refs, retention, now)
    dropped = {change.name: change for change in changes}
    named = {
        bytes.fromhex(entry.key)
        for name, ref in refs.items()
        for entry in (dropped[name].kept if name in dropped else ref.entries)
    }
    given = {bytes.fromhex(Key(key)) for key in live or ()}
    # Recipes before packs: what is visible of the former finds its packs among the latter.
    recipes = read_objects(backend, "recipes")
    packs = read_objects(backend, "packs")
    future = sum(1 for objects in (recipes, packs) for modified in objects.modified if modified > now + SKEW)
    if future:
        warnings.append(f"{future} objects are from the future by the store's clock: they are kept")
    tell("listed", len(recipes) + len(packs))
    keep = roots(recipes, named, given, now, grace, retention.keep_age)
    lasting = (key for key, why in keep.items() if why != YOUNG)
    young = (key for key, why in keep.items() if why == YOUNG)
    marks = mark(backend, lasting, young, packs, Codec(errors), lambda more: tell("read recipes", more))
    chunks = marks.chunks
    marks.forget_chunks()
    decision = decide(recipes, packs, keep, marks, state, lists, now, grace, changes, repack)
    return GcPlan(
        store=store, decision=decision, retention=retention, state=state, warnings=tuple(warnings), unsafe=unsafe,
        live=keep, recipes=recipes, packs=packs, chunks=chunks,
        ref_etags={name: ref.etag for name, ref in refs.items()},
    )  # fmt: skip


def _description(store: StoreAccess) -> Description:
    """The store's description, if this program may collect there."""
    found = load(store.backend)
    if found is None:
        raise NotFound("no store there", backend=store.backend.url)
    for operation in OPERATIONS:
        found.require(operation, store.url)
    return found


def _list(backend: Backend, key: str, warnings: list[str]) -> CondemnedList:
    """A published list; one that is lost lists nothing: then nothing is deleted because of it."""
    try:
        return decode_list(backend.get(key), key)
    except (NotFound, CorruptObject) as error:
        warnings.append(f"what was condemned before is not known any more and will be condemned anew: {error}")
        return CondemnedList()


def _now(backend: Backend) -> float:
    """The store's own time, by writing an object. Refused when it cannot be trusted."""
    backend.put(CLOCK, [os.urandom(8)])
    now = written(backend, CLOCK)
    skew = now - time.time()
    if abs(skew) > SKEW:
        raise Refused(
            f"the store's clock and this machine's differ by {abs(skew):.0f} s: no age can be trusted",
            backend=backend.url, expected=f"at most {SKEW:.0f} s",
            hint="Set the clock that is wrong; nothing was changed",
        )  # fmt: skip
    return now


class _Collector:
    """Carries out one plan."""

    def __init__(self, plan: GcPlan, take_over: bool, progress: Progress) -> None:
        self._plan = plan
        self._decision = plan.decision
        self._backend = plan.store.backend
        self._codec = Codec(errors)
        self._name = f"{socket.gethostname()} process {os.getpid()}, {os.urandom(4).hex()}"
        self._take_over = take_over
        self._tell = progress
        self._state = plan.state
        self._etag: str | None = None
        self._alive = moment()
        self._deleted = Amount()
        self._changed = 0

    def run(self) -> GcResult:
        decision = self._decision
        if not decision.does_something:
            return GcResult()
        description = _description(self._plan.store)
        _now(self._backend)
        # Before anything is condemned: who does not know about that must not write any more.
        enable(self._backend, "write", FEATURE)
        try:
            self._claim()
            refs, refs_changed = self._change_refs(decision.refs)
            if decision.deletes.amount:
                self._delete()
            if decision.ready:
                self._retire()
            moved, written = self._repack(description)
            condemned = self._condemn(moved)
            self._sweep()
            self._replace(owner="")
        except BaseException as error:
            self._release(error)
            if isinstance(error, AccessDenied):
                error.where(hint="Collecting needs the right to put and delete; a plan can be made without")
            raise
        return GcResult(
            deleted=self._deleted, condemned=condemned, changed=self._changed, refs=refs, refs_changed=refs_changed,
            repacked=len(moved), rewritten=written,
        )  # fmt: skip

    # ---- the state --------------------------------------------------------------------

    def _claim(self) -> None:
        state, etag = read_state(self._backend)
        if state.owner and not self._take_over:
            silent = self._backend.head(CLOCK).modified - self._backend.head(STATE).modified
            if silent < COLLECTOR_SILENCE:
                raise Conflict(
                    "another collector is at work", backend=self._backend.url, found=state.owner,
                    hint=f"Its last sign of life is {max(silent, 0):.0f} s old. If it died, wait "
                    f"{COLLECTOR_SILENCE:.0f} s, or take over (take_over=True, --take-over)",
                )  # fmt: skip
        if state != self._plan.state:
            raise Conflict(
                "another collector has been at work since this plan was made", backend=self._backend.url,
                hint="Make a new plan",
            )  # fmt: skip
        deleting = bool(self._decision.deletes.amount)
        self._state, self._etag = state, etag
        self._replace(
            owner=self._name,
            deleting=deleting, deletions=state.deletions + deleting,
        )  # fmt: skip

    def _replace(self, **changes: object) -> None:
        """Write the next state. Conflict when somebody else has."""
        state = replace(self._state, epoch=self._state.epoch + 1, **changes)  # type: ignore[arg-type]
        try:
            self._etag = self._backend.put_if(STATE, encode_state(state), self._etag)
        except Conflict:
            # Perhaps with ourselves: a request that was carried out and not answered is sent again.
            found, self._etag = read_state(self._backend)
            if found != state:
                raise Conflict("another collector has taken over", backend=self._backend.url) from None
        self._state = state
        self._alive = moment()

    def _hold(self) -> None:
        """Go on only as long as nobody else has taken over; and show that this collector is alive."""
        if read_state(self._backend)[0] != self._state:
            raise Conflict("another collector has taken over", backend=self._backend.url)
        self._pulse()

    def _pulse(self) -> None:
        """Show that this collector is alive."""
        if since(self._alive) > COLLECTOR_SILENCE / 4:
            self._replace()

    def _release(self, error: BaseException) -> None:
        """Leave the work to the next collector. What was sent and not answered may still be carried out: unless
        deletions take conditions, writers then go on keeping out of the way for a while."""
        answered = isinstance(error, (AccessDenied, Conflict)) or not self._state.deleting
        with suppress(MfstoreError):
            self._state, self._etag = read_state(self._backend)
            if self._state.owner != self._name:
                return
            self._replace(
                owner="",
                deleting=self._state.deleting and not answered and not self._backend.deletes_conditionally(),
            )

    # ---- refs -------------------------------------------------------------------------

    def _change_refs(self, changes: Iterable[RefChange]) -> tuple[int, int]:
        done = conflicts = 0
        for change in changes:
            path = ref_path(change.name)
            try:
                if change.kept:
                    self._backend.put_if(path, encode_ref(change.kept), change.etag)
                    done += 1
                elif self._backend.delete_unchanged({path: change.etag}) == [True]:
                    done += 1
                else:
                    conflicts += 1
            except Conflict:
                conflicts += 1
            self._tell("changed refs", 1)
        return done, conflicts

    # ---- deleting ---------------------------------------------------------------------

    def _delete(self) -> None:
        """Recipes, then packs, each only in the version that was condemned, and not what somebody has needed since."""
        recipes, packs = dict(self._decision.deletes.recipes), dict(self._decision.deletes.packs)
        etags = self._look_again(recipes, packs)
        self._rewrite_index(set(packs))
        stored_again = self._remove(self._plan.recipes, recipes, etags["recipes"])
        self._spare(stored_again, recipes, packs)
        self._remove(self._plan.packs, packs, etags["packs"])

    def _look_again(self, recipes: dict[bytes, int], packs: dict[bytes, int]) -> dict[str, dict[bytes, str]]:
        """From now on writers know that objects are being deleted. Spare what became needed before they knew; returns
        the etags of the rest."""
        planned = {change.name: {entry.key for entry in change.kept} for change in self._decision.refs}
        named: set[bytes] = set()
        for name, ref in read_refs(self._backend).items():
            values = {entry.key for entry in ref.entries}
            if ref.etag != self._plan.ref_etags.get(name) and values != planned.get(name):
                named.update(map(bytes.fromhex, values))
        etags: dict[str, dict[bytes, str]] = {"recipes": {}, "packs": {}}
        fresh: set[bytes] = set()
        known = self._plan.recipes
        for key, _, _, etag in list_objects(self._backend, "recipes"):
            row = known.rows.get(key)
            if row is None or known.versions[row] != seal_etag(etag):
                fresh.add(key)
            elif key in recipes:
                etags["recipes"][key] = etag
        self._spare(fresh | (named - self._plan.live.keys()), recipes, packs)
        for pack, _, _, etag in list_objects(self._backend, "packs"):
            if packs.get(pack) == seal_etag(etag):
                etags["packs"][pack] = etag
        return etags

    def _spare(self, keys: Iterable[bytes], recipes: dict[bytes, int], packs: dict[bytes, int]) -> None:
        """These keys are needed, with their packs."""
        for key, recipe in read_recipes(self._backend, keys, self._codec, missing_ok=True):
            if recipes.pop(key, None) is not None:
                self._changed += 1
            for name in recipe.packs:
                packs.pop(name, None)

    def _remove(self, objects: Objects, doomed: Mapping[bytes, int], etags: Mapping[bytes, str]) -> list[bytes]:
        """Delete objects; returns the names of those that are another version by now."""
        names = [name for name in doomed if name in etags]
        kept = []
        for at in range(0, len(names), BATCH):
            self._hold()
            batch = names[at : at + BATCH]
            answers = self._backend.delete_unchanged({objects.path(name): etags[name] for name in batch})
            gone = [name for name, answer in zip(batch, answers, strict=True) if answer]
            kept += [name for name, answer in zip(batch, answers, strict=True) if not answer]
            size = sum(objects.sizes[objects.rows[name]] for name in gone)
            recipes = objects.kind == "recipes"
            self._deleted += Amount(len(gone) * recipes, len(gone) * (not recipes), size)
            self._tell(f"deleted {objects.kind}", len(gone))
        self._changed += len(kept)
        return kept

    def _rewrite_index(self, packs: set[bytes]) -> None:
        """Store each fragment that names one of ``packs`` without it, before the first of them is deleted."""
        if not packs:
            return
        algorithm = _description(self._plan.store).algorithm
        digest = digest_function(algorithm)
        for key in [info.key for info in self._backend.list(INDEX)]:
            try:
                fragment = decode_fragment(self._backend.get(key), key)
            except (NotFound, CorruptObject):
                continue  # merged away by a writer; or damaged, so that nobody goes by it
            if packs.isdisjoint(name.value for name in fragment.packs):
                continue
            self._hold()
            data = without_packs(fragment, packs, algorithm)
            if data is not None:
                self._backend.put(INDEX + digest(data).hex(), [data])
            self._backend.delete(key)
            self._tell("rewrote index", 1)

    def _retire(self) -> None:
        """The lists of what has been deleted, or is needed again, are done with."""
        done = {entry.key for entry in self._decision.ready}
        lists = tuple(entry for entry in self._state.lists if entry.key not in done)
        self._replace(deleting=False, lists=lists)

    # ---- repacking and condemning -----------------------------------------------------

    def _repack(self, description: Description) -> tuple[list[bytes], int]:
        if not self._decision.repacks:
            return [], 0
        digest = digest_function(description.algorithm)
        worker = Repacker(self._backend, self._codec, digest, description.algorithm, self._pulse)
        moved = worker.run(self._decision.repacks, self._plan.live)
        self._tell("repacked", len(moved))
        return moved, worker.written

    def _condemn(self, moved: Sequence[bytes]) -> Amount:
        """Publish the list of what is garbage now, and end."""
        recipes = self._decision.condemns.recipes
        packs = {**self._decision.condemns.packs}
        packs.update((name, self._plan.packs.versions[self._plan.packs.rows[name]]) for name in moved)
        if not recipes and not packs:
            return Amount()
        size = self._decision.condemns.bytes + sum(self._plan.packs.sizes[self._plan.packs.rows[n]] for n in moved)
        key = f"{LISTS}{self._state.epoch + 1}-{os.urandom(8).hex()}"
        self._backend.put(key, [encode_list(dict(recipes), packs)])
        entry = ListRef(key, _now(self._backend), len(recipes), len(packs), size)
        begun = moment()
        self._replace(lists=(*self._state.lists, entry))
        if since(begun) > STALL:
            # It counts from when writers can see it.
            self._replace(lists=(*self._state.lists[:-1], replace(entry, time=_now(self._backend))))
        return Amount(len(recipes), len(packs), size)

    def _sweep(self) -> None:
        """Remove lists that no state names: this collection's own past, and what collectors that died left."""
        named = {entry.key for entry in self._state.lists}
        with suppress(AccessDenied):
            for key in [info.key for info in self._backend.list(LISTS)]:
                if key not in named:
                    self._hold()
                    self._backend.delete(key)
