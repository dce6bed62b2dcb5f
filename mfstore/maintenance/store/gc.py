"""Garbage collection of a store: look, decide, and carry out in an order that a kill at any point cannot hurt.

The rules that make it safe, and why they do, are in docs/format.md, "Garbage collection".
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from mfstore.backends.base import decode_read
from mfstore.description import enable, load, tell_of_tree
from mfstore.display.amounts import count, size
from mfstore.display.cards import Card
from mfstore.display.shown import Shown
from mfstore.errors import AccessDenied, BackendError, Conflict, CorruptObject, NotFound, OutOfSpace, Refused
from mfstore.format.audit import STORE_LOG
from mfstore.format.collection import FEATURE, LISTS, CondemnedList, ListRef, State, decode_list, encode_list
from mfstore.format.description import OPERATIONS
from mfstore.format.digests import Key, digest_function
from mfstore.format.holds import STORE_HOLDS
from mfstore.format.refs import PREFIX as REFS
from mfstore.format.refs import encode_ref, is_ref, ref_path
from mfstore.format.tree import ROOT_KEY
from mfstore.holding import drop_ended, held_keys, store_holds
from mfstore.host.elapsed import moment, since
from mfstore.maintenance.audit import Account, AuditLog
from mfstore.maintenance.lifecycle import lifecycle_warnings
from mfstore.maintenance.pace import DeletionPace, pace_of
from mfstore.maintenance.store.collecting.audit_lines import about, policy_of
from mfstore.maintenance.store.collecting.deletion import Deletion
from mfstore.maintenance.store.collecting.liveness import read_refs, trace
from mfstore.maintenance.store.collecting.object_table import read_table
from mfstore.maintenance.store.collecting.ownership import CLOCK_SKEW, Ownership, store_time
from mfstore.maintenance.store.collecting.plan import (
    LOCKED,
    YOUNG,
    GcDecision,
    GcOptions,
    GcSnapshot,
    StoreAmount,
    decide,
    depend_on_groups,
    doomed_recipes,
    live_keys,
)
from mfstore.maintenance.store.collecting.repack import Repacker
from mfstore.maintenance.store.collecting.retention import RefChange, plan_refs, unclear_ttls
from mfstore.maintenance.store.collecting.told import keys_and_packs, plan_card
from mfstore.maintenance.store.group_lengths import share_out_groups
from mfstore.maintenance.versions import VersionsKept, read_versions
from mfstore.progress import counts
from mfstore.ref_objects import remove_ref
from mfstore.saving.folding import settle
from mfstore.saving.guard import KNOWLEDGE_SECONDS, read_state

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.format.holds import Hold
    from mfstore.handle import StoreAccess
    from mfstore.maintenance.store.collecting.object_table import ObjectTable

SAFE_GRACE = 2 * KNOWLEDGE_SECONDS
"""Seconds. With a shorter grace period a remote writer may rely on what it does not know to be condemned."""
PUBLISHING_SECONDS = 5.0
"""If a list of what is condemned takes longer to be published, its time is told anew."""
NO_AMOUNT = StoreAmount()
CountCallback = Callable[[str, int], None]
"""Called with what is being done and how many objects more of it are done."""


def _uncounted(what: str, more: int) -> None:
    """Counts nothing."""


@dataclass(frozen=True, slots=True, repr=False)
class GcResult(Shown):
    """What a collection did."""

    deleted: StoreAmount = NO_AMOUNT
    condemned: StoreAmount = NO_AMOUNT
    """What a collection at least a grace period later may delete."""
    changed: int = 0
    """Objects not deleted because they were stored again since they were condemned."""
    locked: int = 0
    """Objects that the storage refused to delete because a lock of its own keeps them."""
    refs: int = 0
    """Refs shortened or removed."""
    refs_changed: int = 0
    """Refs left alone because somebody set them since the plan was made, or the disk is full."""
    repacked: int = 0
    """Packs given up for others, with what was still needed in them."""
    rewritten: int = 0
    """Bytes written for that."""

    def lines(self) -> list[str]:
        """What it did, in a few words each."""
        lines = [f"deleted {keys_and_packs(self.deleted)} ({size(self.deleted.bytes)})"]
        if self.changed:
            lines.append(
                f"left alone {count(self.changed, 'object')} that were stored or needed again since they were condemned"
            )
        if self.locked:
            lines.append(f"left alone {count(self.locked, 'object')} that the storage keeps by retention or legal hold")
        if self.refs or self.refs_changed:
            lines.append(
                f"changed {count(self.refs, 'ref')}; left alone {self.refs_changed} that somebody set meanwhile"
            )
        if self.repacked:
            moved = f"moved what is needed out of {count(self.repacked, 'pack')}"
            lines.append(f"{moved} ({size(self.rewritten)} written)")
        lines.append(f"condemned {keys_and_packs(self.condemned)} ({size(self.condemned.bytes)})")
        return lines

    def _card(self) -> Card:
        return Card("collected", notes=tuple(self.lines()))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GcPlan(Shown):
    """What a collection would do, and does when it is executed. Made by ``Store.plan_gc``.

    It holds what it read of the store, about 100 bytes for each object, and can be executed once.
    """

    access: StoreAccess
    """The store."""
    options: GcOptions
    decision: GcDecision
    """What becomes of everything stored, and why: amounts, keys and refs."""
    snapshot: GcSnapshot
    warnings: tuple[str, ...]
    """What an administrator should know, in sentences: of the clock, of lifecycle rules, of another collector."""
    unsafe: str
    """Why it is only safe while nobody writes; empty: it always is."""
    live: Mapping[bytes, str]
    """Keys that stay, as bytes, and why."""
    chunks: int
    """Different chunks that live keys need in packs."""
    held: Mapping[str, Hold]
    """The refs and keys that are held, which stay whatever the policy says."""
    versions: VersionsKept = field(default_factory=VersionsKept)
    """What the bucket does with what is deleted."""

    @property
    def storage_notes(self) -> list[str]:
        """What stays in the bucket of what goes, in sentences."""
        found = self.decision
        does = found.deletes.amount or found.condemns.amount or found.waiting
        return self.versions.notes(found.deletes.bytes) if does else []

    def execute(
        self, *, yes_really: bool = False, take_over: bool = False, deletes_per_second: float | None = None,
        progress: bool | CountCallback | None = None,
    ) -> GcResult:  # fmt: skip
        """Delete what earlier collections condemned long enough ago, then condemn what is garbage now.

        Whatever it raises, the store is consistent, and another plan goes on where this one ended.

        Args:
            yes_really: Also when nothing would be left that somebody named, or more would be condemned than
                ``max_drop``.
            take_over: Also when another collector is at work by the look of it: it died within the last minutes.
            deletes_per_second: Objects that are deleted in a second, at most; 0: as many as can be. None: 1000 in S3,
                a third of what S3 takes, and as many as can be in a directory.
            progress: As of ``Store.plan_gc``.

        Raises:
            InvalidKey: ``deletes_per_second`` is negative.
            Refused: nothing would be left that somebody named, more would be condemned than ``max_drop``, or the clocks
                differ too much by now.
            Conflict: another collector is at work, or has been since the plan was made.
            AccessDenied: there is no right to put or to delete.
        """
        refusal = self.decision.refusal(self.options.max_drop)
        if refusal and not yes_really:
            raise Refused(
                refusal, backend=self.access.backend.url,
                hint="Name what to keep by refs or live=, or confirm with yes_really=True (--yes-really)",
            )  # fmt: skip
        pace = DeletionPace(pace_of(deletes_per_second, self.access.backend.capabilities.remote))
        if not self.decision.does_something:
            return GcResult()
        with counts(progress) as tell:
            return _Collection(self, pace, tell or _uncounted).run(take_over)

    def _card(self) -> Card:
        return plan_card(self.access.backend.url, self.decision, self.warnings, self.storage_notes)


def plan_gc(
    access: StoreAccess, live: Iterable[str] | None, options: GcOptions, progress: CountCallback | None = None
) -> GcPlan:
    """What ``Store.plan_gc`` does. Reads; writes nothing but an object that tells the store's time.

    Args:
        access: The store.
        live: Keys that are needed though no ref names them.
        options: What to keep, and how much to do.
        progress: Called with what is being done and how many objects more of it are done.

    Raises:
        Refused: the store's clock and this machine's differ too much to tell ages.
        Unsupported: this program may not read, write or delete there.
        NotFound: there is no store, or a key that is live is not stored.
        CorruptObject: something that is live is damaged or missing.
        AccessDenied: something that is live may not be read.
        InvalidKey: one of ``live`` cannot be a key.
    """
    tell = progress or _uncounted
    access = _described_now(access)
    backend = access.backend
    warnings: list[str] = []
    try:
        now = store_time(backend)
    except (AccessDenied, OutOfSpace):
        warnings.append("nothing can be written there: ages are told by this machine's clock, and nothing can be done")
        now = time.time()
    unsafe = ""
    if options.grace < SAFE_GRACE and backend.capabilities.remote:
        unsafe = f"with a grace period below {SAFE_GRACE:.0f} s nobody may be writing to a remote store"
        warnings.append(unsafe)
    warnings += lifecycle_warnings(backend)
    stored, _ = read_state(backend)
    state, lists = _read_lists(backend, stored, warnings)
    if state.owner:
        warnings.append(f"a collector is at work, or died at it: {state.owner}")
    refs = read_refs(backend)
    # Whoever holds a ref touches it afterwards: a change that was planned before meets another version.
    held = store_holds(backend, now)
    abandoned = now - max(options.grace, SAFE_GRACE)
    changes = [change for change in plan_refs(refs, options.retention, now, abandoned) if change.name not in held]
    warnings += [f"the ttl in the note of ref {name} is no duration: the value stays" for name in unclear_ttls(refs)]
    shortened = {change.name: change.kept for change in changes}
    named = {bytes.fromhex(entry.key) for name, ref in refs.items() for entry in shortened.get(name, ref.entries)}
    given = {bytes.fromhex(Key(key)) for key in live or ()}
    # Recipes before packs: what is visible of the former finds its packs among the latter.
    recipes = read_table(backend, "recipes")
    packs = read_table(backend, "packs")
    # What somebody is about to name stays too. If it is gone already that is his concern: he looks before he is done.
    marked = {bytes.fromhex(ref.unconfirmed.key) for ref in refs.values() if ref.unconfirmed is not None}
    named |= {key for key in marked if key in recipes.rows}
    future = sum(1 for table in (recipes, packs) for modified in table.modified if modified > now + CLOCK_SKEW)
    if future:
        warnings.append(f"{future} objects are from the future by the store's clock: they are kept")
    tell("listed", len(recipes) + len(packs))
    keys = live_keys(recipes, named, held_keys(held), given, now, options)
    going = doomed_recipes(recipes, state, lists, keys, now, options.grace)
    versions = read_versions(backend)
    if versions.locks_objects and going:
        keys.update(_locked(backend, recipes, going, warnings))
        going = {key: version for key, version in going.items() if key not in keys}
    lasting = (key for key, why in keys.items() if why != YOUNG)
    young = (key for key, why in keys.items() if why == YOUNG)
    staying = (key for key in recipes.rows if key not in keys and key not in going)
    liveness = trace(
        backend, lasting, young, staying, packs, access.workers.thread.codec, lambda more: tell("read recipes", more)
    )
    if liveness.unread:
        warnings.append(f"a recipe that nobody needs cannot be read, so that no pack is deleted now: {liveness.unread}")
    chunks = liveness.chunks
    doubtful = depend_on_groups(packs, liveness, now, options)
    share_out_groups(access, digest_function(access.algorithm), packs, doubtful, liveness)
    liveness.forget_chunks()
    snapshot = GcSnapshot(now, stored, state, recipes, packs, {name: ref.etag for name, ref in refs.items()})
    return GcPlan(
        access=access, options=options, decision=decide(snapshot, lists, keys, liveness, options, changes),
        snapshot=snapshot, warnings=tuple(warnings), unsafe=unsafe, live=keys, chunks=chunks, held=held,
        versions=versions,
    )  # fmt: skip


def _locked(backend: Backend, recipes: ObjectTable, going: Iterable[bytes], warnings: list[str]) -> Mapping[bytes, str]:
    """Those of the keys whose recipe the storage's locks keep."""
    paths = {recipes.path(key): key for key in going}
    try:
        return {paths[path]: LOCKED for path in backend.locks([*paths])}
    except AccessDenied as error:
        rights = ", ".join(dict(error.rights)) or "s3:GetObjectRetention, s3:GetObjectLegalHold"
        warnings.append(
            f"which objects are locked may not be asked ({rights}): keys that are go as well, and stay as versions"
        )
        return {}


def _described_now(access: StoreAccess) -> StoreAccess:
    """The store with its description as it is now, if this program may collect there."""
    description = load(access.backend)
    if description is None:
        raise NotFound("no store there", backend=access.backend.url)
    for operation in OPERATIONS:
        description.require(operation, access.url)
    return access._replace(description=description)


def _read_lists(backend: Backend, state: State, warnings: list[str]) -> tuple[State, list[CondemnedList]]:
    """The state as it is acted upon, and its lists. A list that is lost lists nothing: then nothing is deleted because
    of it. One counts from when it was stored at the earliest, by the store's clock, whatever the state says: who can
    write to the store cannot shorten the grace period."""
    entries: list[ListRef] = []
    lists = []
    for entry in state.lists:
        try:
            data = backend.get(entry.key)
            lists.append(decode_read(backend, entry.key, data, partial(decode_list, key=entry.key)))
            entries.append(replace(entry, time=max(entry.time, backend.head(entry.key).modified)))
        except (NotFound, CorruptObject) as error:
            warnings.append(f"what was condemned before is not known any more and will be condemned anew: {error}")
            lists.append(CondemnedList())
            entries.append(entry)
    return replace(state, lists=tuple(entries)), lists


class _Collection:
    """Carries out one plan."""

    def __init__(self, plan: GcPlan, pace: DeletionPace, tell: CountCallback) -> None:
        self._access = plan.access
        self._backend = plan.access.backend
        self._decision = plan.decision
        self._snapshot = plan.snapshot
        self._live = plan.live
        self._pace = pace
        self._tell = tell
        self._ownership = Ownership(plan.access.backend, plan.snapshot.found)
        self._options = plan.options
        self._deletion: Deletion | None = None
        self._condemned = NO_AMOUNT
        self._refs = self._refs_changed = self._repacked = self._rewritten = 0

    def run(self, take_over: bool) -> GcResult:
        decision, ownership = self._decision, self._ownership
        self._access = _described_now(self._access)
        store_time(self._backend)
        # Before anything is condemned: who does not know about that must not write any more.
        enable(self._backend, "write", FEATURE)
        log = AuditLog(self._backend, STORE_LOG, "gc", policy_of(self._options))
        try:
            ownership.claim(bool(decision.deletes.amount), take_over)
            with log.execution(self._snapshot.now, about(decision), self._did):
                self._collect()
                ownership.replace(owner="")
        except BaseException as error:
            ownership.release(error)
            if isinstance(error, AccessDenied):
                error.where(hint="Collecting needs the right to put and delete; a plan can be made without")
            raise
        return self._result()

    def _collect(self) -> None:
        decision, ownership = self._decision, self._ownership
        self._change_refs(decision.refs)
        if decision.deletes.amount:
            self._deletion = Deletion(
                self._access, ownership, self._snapshot, decision, self._live, self._pace, self._tell
            )
            self._deletion.run()
        if decision.ready or ownership.state.deleting:
            self._retire()
        self._condemned = self._condemn(self._repack())
        self._sweep()
        with suppress(OutOfSpace, Conflict):
            self._tell("merged index", settle(self._backend, self._access.algorithm))
            if self._backend.capabilities.remote and self._backend.exists_many([ROOT_KEY])[0]:
                tell_of_tree(self._backend)

    def _did(self) -> Account:
        """How much went so far, for the log."""
        done = self._result()
        return Account({
            "keys": done.deleted.recipes, "packs": done.deleted.packs, "bytes": done.deleted.bytes,
            "condemned": done.condemned.recipes, "changed": done.changed, "locked": done.locked, "refs": done.refs,
            "repacked": done.repacked, "rewritten": done.rewritten,
        })  # fmt: skip

    def _result(self) -> GcResult:
        """What was done so far."""
        deletion = self._deletion
        deleted, changed, locked = NO_AMOUNT, 0, 0
        if deletion is not None:
            deleted, changed, locked = deletion.deleted, deletion.changed, deletion.locked
        return GcResult(
            deleted=deleted, condemned=self._condemned, changed=changed, locked=locked, refs=self._refs,
            refs_changed=self._refs_changed, repacked=self._repacked, rewritten=self._rewritten,
        )  # fmt: skip

    def _change_refs(self, changes: Iterable[RefChange]) -> None:
        """Shorten or remove refs."""
        for change in changes:
            path = ref_path(change.name)
            try:
                if change.kept:
                    self._backend.put_if(path, encode_ref(change.kept), change.etag)
                else:
                    remove_ref(self._backend, path, change.etag)
                self._refs += 1
            except (Conflict, OutOfSpace):  # the next collection does it, with the room that this one makes
                self._refs_changed += 1
            self._tell("changed refs", 1)

    def _retire(self) -> None:
        """The lists of what has been deleted, or is needed again, are done with."""
        done = {entry.key for entry in self._decision.ready}
        self._ownership.wait_for_quiet()
        lists = tuple(entry for entry in self._ownership.state.lists if entry.key not in done)
        self._ownership.replace(deleting=False, lists=lists)

    def _repack(self) -> list[bytes]:
        """Rewrite the packs that are mostly dead: those given up."""
        if not self._decision.repacks:
            return []
        algorithm = self._access.algorithm
        worker = Repacker(
            self._backend,
            self._access.workers,
            digest_function(algorithm),
            algorithm,
            self._ownership.pulse,
        )
        try:
            moved = worker.run(self._decision.repacks, self._live)
        except OutOfSpace:
            # What was written is whole or garbage. What is garbage already must be condemned first.
            moved = []
        self._tell("repacked", len(moved))
        self._repacked, self._rewritten = len(moved), worker.written
        return moved

    def _condemn(self, moved: Sequence[bytes]) -> StoreAmount:
        """Publish the list of what is garbage now."""
        table, ownership = self._snapshot.packs, self._ownership
        recipes = dict(self._decision.condemns.recipes)
        packs = {**self._decision.condemns.packs, **{name: table.version(name) for name in moved}}
        if not recipes and not packs:
            return NO_AMOUNT
        key = f"{LISTS}{ownership.state.epoch + 1}-{os.urandom(8).hex()}"
        while True:
            size = sum(map(self._snapshot.recipes.size, recipes)) + sum(map(table.size, packs))
            try:
                self._backend.put(key, [encode_list(recipes, packs)])
                entry = ListRef(key, store_time(self._backend), len(recipes), len(packs), size)
                begun = moment()
                ownership.replace(lists=(*ownership.state.lists, entry))
                break
            except OutOfSpace:
                if len(recipes) + len(packs) < 2:
                    raise
                # As much as fits: what that frees is room for the rest.
                self._backend.delete(key)
                recipes = dict(islice(recipes.items(), (len(recipes) + 1) // 2))
                packs = dict(islice(packs.items(), len(packs) // 2))
        if since(begun) > PUBLISHING_SECONDS:
            # It counts from when writers can see it.
            entry = replace(entry, time=store_time(self._backend))
            ownership.replace(lists=(*ownership.state.lists[:-1], entry))
        return StoreAmount(len(recipes), len(packs), size)

    def _forget_removed_refs(self) -> None:
        """Delete what was left of refs that were removed a grace period ago: no write from before is on its way. Only
        where that takes a condition; elsewhere a late deletion could take a ref that was set since."""
        limit = self._decision.now - max(self._decision.grace, SAFE_GRACE)
        left = {
            info.key: info.etag for info in self._backend.list(REFS)
            if not is_ref(info.size) and info.modified < limit
        } if self._backend.capabilities.remote else {}  # fmt: skip
        if left and self._backend.deletes_conditionally():
            self._ownership.hold()
            with suppress(BackendError):  # the next collection goes on
                self._backend.delete_unchanged(left)

    def _sweep(self) -> None:
        """Remove lists that no state names: this collection's own past, and what collectors that died left."""
        named = {entry.key for entry in self._ownership.state.lists}
        with suppress(AccessDenied):
            for key in [info.key for info in self._backend.list(LISTS)]:
                if key not in named:
                    self._ownership.hold()
                    self._backend.delete(key)
        with suppress(AccessDenied):
            self._forget_removed_refs()
        drop_ended(self._backend, STORE_HOLDS, self._decision.now)
