"""One copy from beginning to end: what is meant, what is in conflict, keys, signatures and holds, and refs last."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from mfstore.backends.local import LocalBackend
from mfstore.copying.presence import present
from mfstore.copying.reading import Source
from mfstore.copying.refs import RefPlan, conflict, plan_ref, write_ref
from mfstore.copying.report import Copied, CopiedRef
from mfstore.copying.selection import select
from mfstore.copying.signatures import copy_signatures
from mfstore.copying.transfer import Tally, Transfer
from mfstore.errors import Conflict, InvalidKey, MfstoreError, NotFound, Refused, Unsupported
from mfstore.format.description import PATH
from mfstore.format.digests import Key, name_of
from mfstore.format.refs import PREFIX, StoredRef, ref_path
from mfstore.holding import hold_key, hold_ref, store_holds
from mfstore.ref_objects import read_ref, read_refs
from mfstore.saving.guard import Names

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.copying.report import OnConflict
    from mfstore.copying.selection import Selection
    from mfstore.format.refs import RefEntry
    from mfstore.handle import Handle
    from mfstore.saving.guard import Condemned

ON_CONFLICT = ("raise", "skip", "overwrite")
WRITTEN_AT_ONCE = 16
"""Refs that are written at the same time where each is a request: a thread for each."""
WRITTEN_TOGETHER = 256
"""Refs that are written between two looks at what is condemned: a few seconds."""
ATTEMPTS = 20
"""How often a ref is planned anew when others set it at the same moment."""


def copy_store(
    source: Handle,
    target: Handle,
    names: str | Iterable[str] | None,
    on_conflict: OnConflict,
    signatures: bool,
    dry_run: bool,
) -> Copied:
    """What ``Store.copy_to`` does."""
    if on_conflict not in ON_CONFLICT:
        raise InvalidKey(f"on_conflict must be one of {', '.join(ON_CONFLICT)}", found=f"{on_conflict!r:.80}")
    _require_both(source, target)
    selection = select(source, names)
    # Before what its refs name is taken to be there.
    before = None if dry_run or target.description is None else target.guard.condemned()
    plans = _plan_refs(target, selection.refs, on_conflict)
    if not dry_run:
        target.require_write(source.context.algorithm)
        if before is None:
            before = target.guard.condemned()
    found = _Copy(Source(source), target, selection, plans, on_conflict, before)
    found.run(signatures)
    return found.report()


def _require_both(source: Handle, target: Handle) -> None:
    """Refuse what can be no copy."""
    source.require_read()
    target.require_read()
    if source.description is None:
        raise source.no_store()
    if target.description is None:
        if not target.options.create:
            raise NotFound("no store there", backend=target.backend.url, hint="Open it with create=True")
        if _place(target.backend).startswith(_place(source.backend).rstrip("/") + "/"):
            raise Refused(
                "the destination lies within the source, which would take it for its own", backend=target.backend.url,
                hint="Choose a place beside it",
            )  # fmt: skip
        return
    # A copy of all objects has the same uuid, and another inode or time.
    if source.description.uuid == target.description.uuid and source.backend.head(PATH) == target.backend.head(PATH):
        raise Refused("source and destination are one store: there is nothing to copy", backend=target.backend.url)
    if source.description.algorithm != target.description.algorithm:
        raise Unsupported(
            "the destination has other keys for the same content: its digest is another", backend=target.backend.url,
            expected=name_of(source.description.algorithm), found=name_of(target.description.algorithm),
            hint="Copy to a store of that digest, or to a place where there is none: it gets the source's",
        )  # fmt: skip


def _place(backend: Backend) -> str:
    """Where a store is, whatever links lead there."""
    return os.path.realpath(backend.root) if isinstance(backend, LocalBackend) else backend.url


def _plan_refs(
    target: Handle, refs: Mapping[str, Sequence[RefEntry]], on_conflict: OnConflict
) -> dict[str, RefPlan]:  # fmt: skip
    """What each ref is to be, before anything is written. Conflict, naming those that are in conflict."""
    if target.description is None:
        return {name: RefPlan(name, "new", (), entries) for name, entries in refs.items()}
    plans: dict[str, RefPlan] = {}
    refused = []
    now = time.time()
    listed = present(target.backend, PREFIX, [ref_path(name) for name in refs])
    asked = [name for name in refs if listed is None or ref_path(name) in listed]
    found = dict(zip(asked, read_refs(target.backend, asked), strict=True))
    for name, entries in refs.items():
        there = found.get(name, StoredRef())
        if isinstance(there, MfstoreError) and not isinstance(there, NotFound):
            raise there
        values: Sequence[RefEntry] = () if isinstance(there, MfstoreError) else there.entries
        plan = plan_ref(name, entries, values, on_conflict, now)
        if plan is None:
            refused.append(name)
        else:
            plans[name] = plan
    if refused:
        raise conflict(refused, target.backend.url)
    return plans


class _Copy:
    """One copy that is under way."""

    def __init__(
        self, source: Source, target: Handle, selection: Selection, plans: dict[str, RefPlan],
        on_conflict: OnConflict, before: Condemned | None,
    ) -> None:  # fmt: skip
        self._source = source
        self._target = target
        self._selection = selection
        self._plans = plans
        self._on_conflict = on_conflict
        self._before = before
        """What was condemned at the destination before its refs were read; None: of a dry run."""
        self._dry_run = before is None
        self._tally = Tally()
        self._first: dict[Key, str] = {}
        """For which ref a key is copied."""
        self._signatures = 0
        self._holds = 0
        self._promised: set[Key] = set()
        """Keys that need not be asked for, as refs of the destination name them."""

    def run(self, signatures: bool) -> None:
        """Do it: keys first, and refs last."""
        promised = {entry.key for plan in self._plans.values() for entry in plan.before}
        keys: dict[Key, None] = {}
        for name, plan in self._plans.items():
            for entry in plan.added:
                keys[entry.key] = None
                self._first.setdefault(entry.key, name)
        keys |= dict.fromkeys(self._selection.keys)
        wanted = [key for key in keys if key not in promised]
        self._promised = promised
        transfer = Transfer(self._source, self._target, self._dry_run)
        self._tally = transfer.tally
        transfer.copy(wanted, may_go=self._selection.listed)
        every = {*keys, *(entry.key for entries in self._selection.refs.values() for entry in entries)}
        every -= {entry.key for plan in self._plans.values() if plan.outcome == "kept" for entry in plan.before}
        if signatures:
            self._signatures = copy_signatures(self._source.backend, self._target.backend, every, self._dry_run)
        if self._before is not None:
            self._write_refs(self._before)
        self._copy_holds(every)

    # ---- refs ---------------------------------------------------------------------------

    def _write_refs(self, before: Condemned) -> None:
        """Set the refs. All that they are to name has been found or stored since ``before``."""
        every = Names()
        for key, packs in self._tally.packs.items():
            every.recipes += bytes.fromhex(key)
            every.packs += packs
        named = {entry.key for plan in self._plans.values() for entry in plan.added}
        # Whoever named them may have let go of them since.
        every.recipes += bytes.fromhex("".join(sorted(self._promised & named)))
        guard = self._target.guard
        writes = [plan for plan in self._plans.values() if plan.writes]
        threads = WRITTEN_AT_ONCE if self._target.backend.capabilities.remote else 1
        with ThreadPoolExecutor(threads, thread_name_prefix="mfstore-copy") as pool:
            for start in range(0, len(writes), WRITTEN_TOGETHER):
                view = guard.condemned()
                # All of it is there still, as of now: what is deleted from here on is told by what follows this view.
                guard.confirm(before, Names(), every)
                some = writes[start : start + WRITTEN_TOGETHER]
                for plan in pool.map(partial(self._write_ref, view=view), some):
                    self._plans[plan.name] = plan

    def _write_ref(self, plan: RefPlan, view: Condemned) -> RefPlan:
        """Set one ref; what was written, as somebody may have set it since it was planned."""
        backend, path = self._target.backend, ref_path(plan.name)
        etag = None
        for attempt in range(ATTEMPTS):
            if attempt or plan.before:
                etag, values = self._present_ref(path)
                if attempt or tuple(values) != tuple(plan.before):
                    entries = self._selection.refs[plan.name]
                    again = plan_ref(plan.name, entries, values, self._on_conflict, time.time())
                    if again is None:
                        raise conflict([plan.name], backend.url)
                    plan = again
            if not plan.writes:
                return plan
            if write_ref(self._target, plan, etag, self._relied([entry.key for entry in plan.added]), view):
                return plan
        raise Conflict(f"ref {plan.name!r} keeps changing", key=path, backend=backend.url, hint="Run it again")

    def _present_ref(self, path: str) -> tuple[str | None, Sequence[RefEntry]]:
        """What the destination has there now."""
        try:
            etag, there = read_ref(self._target.backend, path)
            return etag, there.entries
        except NotFound:
            return None, ()

    def _relied(self, keys: Iterable[Key]) -> Names:
        relied = Names()
        for key in dict.fromkeys(keys):
            relied.recipes += bytes.fromhex(key)
            relied.packs += self._tally.packs.get(key, b"")
        return relied

    # ---- holds --------------------------------------------------------------------------

    def _copy_holds(self, keys: set[Key]) -> None:
        """Holds of refs and keys that were copied. One that lasts longer there stays."""
        now = time.time()
        held = {
            name: hold for name, hold in store_holds(self._source.backend, now).items()
            if not hold.unread and (name in self._selection.refs or name in keys)
            and not (name in self._plans and self._plans[name].outcome == "kept")
        }  # fmt: skip
        if not held:
            return
        there = {} if self._target.description is None else store_holds(self._target.backend, now)
        for name, hold in held.items():
            if name in there and (there[name] == hold or there[name].outlasts(hold)):
                continue
            self._holds += 1
            if self._dry_run:
                continue
            if name in self._selection.refs:
                hold_ref(self._target, name, hold)
            else:
                hold_key(self._target, Key(name), hold, self._target.guard.condemned(), self._relied([Key(name)]))

    # ---- what is told -------------------------------------------------------------------

    def report(self) -> Copied:
        """What was done."""
        tally = self._tally
        by_ref: dict[str, list[int]] = {}
        for key, size in tally.by_key.items():
            if (name := self._first.get(key)) is not None:
                by_ref.setdefault(name, []).append(size)
        refs = tuple(
            CopiedRef(name, plan.outcome, len(plan.added), len(by_ref.get(name, ())), sum(by_ref.get(name, ())))
            for name, plan in self._plans.items()
        )
        return Copied(
            self._source.backend.url, self._target.backend.url, tally.keys, tally.there + len(self._promised),
            tally.chunks, tally.packs_whole, tally.objects, tally.sent, refs, self._signatures, self._holds,
            not self._dry_run,
        )  # fmt: skip
