"""Refs from one store in another: which values a history gets, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from mfstore.errors import Conflict, MfstoreError
from mfstore.format.refs import RefEntry, encode_ref, ref_path
from mfstore.records import dataclass
from mfstore.ref_objects import remove_ref
from mfstore.saving.guard import Names

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.copying.report import OnConflict, Outcome
    from mfstore.handle import Handle
    from mfstore.saving.guard import Condemned

TOLD = 5
"""Refs that a refusal names."""


@dataclass(frozen=True, slots=True)
class RefPlan:
    """What a ref is to be at the destination."""

    name: str
    outcome: Outcome
    before: Sequence[RefEntry]
    """Its values there, oldest first."""
    added: Sequence[RefEntry]
    """The values that come behind these."""

    @property
    def writes(self) -> bool:
        """Whether anything is to be written."""
        return bool(self.added)


def plan_ref(
    name: str, source: Sequence[RefEntry], there: Sequence[RefEntry], on_conflict: OnConflict, now: float
) -> RefPlan | None:
    """What becomes of a ref with these values at the source and at the destination, oldest first each; None: it is in
    conflict, and that is to be an error.

    The destination's values stay whatever is done: what is written there only goes behind them.
    """
    places = {(entry.key, entry.time): number for number, entry in enumerate(source)}
    if not there:
        return RefPlan(name, "new", (), source)
    last = places.get((there[-1].key, there[-1].time))
    if last is not None:
        added = source[last + 1 :]
        return RefPlan(name, "updated" if added else "same", there, added)
    if on_conflict == "skip":
        return RefPlan(name, "kept", there, ())
    if on_conflict == "raise":
        return None
    known = {(entry.key, entry.time) for entry in there}
    added = [entry for entry in source if (entry.key, entry.time) not in known]
    if not added or added[-1] is not source[-1]:
        # It had that value once, and was set to another: as who sets it to an older value again.
        added.append(source[-1]._replace(time=now))
    return RefPlan(name, "overwritten", there, added)


def conflict(names: Sequence[str], destination: str) -> Conflict:
    """The destination has set these refs to something that the source does not know."""
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    told = ", ".join(repr(name) for name in names[:TOLD])
    return Conflict(
        f"the destination has set {told}{more} to what the source does not have", backend=destination,
        hint="None of them was changed. on_conflict='skip' (--on-conflict skip) leaves it, and 'overwrite' (--force) "
        "puts the source's values behind those that it has",
    )  # fmt: skip


def write_ref(handle: Handle, plan: RefPlan, found: str | None, relied: Names, condemned: Condemned) -> bool:
    """Set a ref to what is planned, if it still has the etag ``found`` (None: there is none); whether it had. Conflict
    when garbage collection removes what it is to name: then it is what it was.

    Steps and order are those of ``Refs.set`` (docs/protocol.md, "Refs"): what is condemned may go before it is
    confirmed, so the ref names what it named before until then.
    """
    backend, path = handle.backend, ref_path(plan.name)
    marked = condemned.concerns(relied)
    whole = encode_ref([*plan.before, *plan.added])
    etag = _put(backend, path, encode_ref(plan.before, plan.added[-1]) if marked else whole, found)
    if etag is None:
        return False
    try:
        handle.guard.confirm(condemned, Names(), relied)
    except MfstoreError:
        with suppress(MfstoreError):  # somebody else has set it since
            if plan.before:
                backend.put_if(path, encode_ref(plan.before), etag)
            else:
                remove_ref(backend, path, etag)
        raise
    return not marked or _put(backend, path, whole, etag) is not None


def _put(backend: Backend, path: str, data: bytes, etag: str | None) -> str | None:
    """The new etag; None when something else is there by now."""
    try:
        return backend.put_if(path, data, etag)
    except Conflict:
        return None
