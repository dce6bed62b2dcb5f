"""Taking back what collections of a store condemned: refs get back the values that a policy dropped, and keys are held
for a while, so that neither the next collection deletes them nor the one after condemns them again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from mfstore.backends.base import decode_read
from mfstore.errors import Conflict, CorruptObject, InvalidKey, MfstoreError, NotFound
from mfstore.format.audit import STORE_LOG
from mfstore.format.collection import decode_list
from mfstore.format.digests import Key
from mfstore.format.recipes import recipe_path
from mfstore.format.refs import RefEntry, StoredRef, encode_ref, ref_path
from mfstore.maintenance.audit import Account, AuditLog, read_log
from mfstore.maintenance.store.collecting.ownership import store_time
from mfstore.names import is_key
from mfstore.ref_objects import read_ref
from mfstore.saving.guard import read_state

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.format.audit import AuditRecord, Line
    from mfstore.store import Store

WHY = "a collection condemned it, and that was undone"
TRIES = 20
"""How often a ref is read again that others set at the same moment."""
LOGGED_BEFORE = 3600.0
"""Seconds before its list is published in which a collection may have changed refs."""


@dataclass(slots=True)
class StoreUndone:
    """What was taken back."""

    refs: dict[str, int] = field(default_factory=dict)
    """Refs that have values again which a policy dropped, and how many."""
    keys: list[Key] = field(default_factory=list)
    """Keys that no ref names, and that are held."""
    lost: list[Key] = field(default_factory=list)
    """Keys that are gone already."""


def undo_store(store: Store, names: Sequence[str] = (), lasting: float | None = None) -> StoreUndone:
    """Give refs back what a policy dropped of them, as far as it is still stored, and hold them and all other keys that
    are condemned now.

    Args:
        store: The store.
        names: Only these refs and keys.
        lasting: For so many seconds they are held; None: until the holds are released.

    Raises:
        NotFound: one of ``names`` is a key that is not condemned, or a ref of which nothing was dropped. Nothing was
            changed then.
        Conflict: others keep changing a ref.
        AccessDenied: there is no right to read or to write.
    """
    backend = store.handle.access("read", "write").backend
    condemned, since = _condemned(backend)
    dropped = dropped_values(read_log(backend, STORE_LOG, since - LOGGED_BEFORE)) if condemned else {}
    chosen_refs, chosen_keys = _chosen(backend, names, condemned, dropped)
    done = StoreUndone()
    if chosen_refs or chosen_keys:
        lines: list[Line] = [*({"undo": name} for name in chosen_refs), *({"undo": key} for key in chosen_keys)]
        log = AuditLog(backend, STORE_LOG, "undo", {} if lasting is None else {"for": lasting})
        facts = {"refs": len(chosen_refs), "keys": len(chosen_keys)}
        with log.execution(store_time(backend), Account(facts, lines), lambda: _account(done)):
            for name in chosen_refs:
                _restore(store, name, dropped[name].entries, lasting, done)
            for key in chosen_keys:
                if _hold(store, key, lasting):
                    done.keys.append(key)
                else:
                    done.lost.append(key)
    return done


def _condemned(backend: Backend) -> tuple[set[Key], float]:
    """The keys that are condemned and stored, and since when the first of these is."""
    state, _ = read_state(backend)
    names: set[bytes] = set()
    for entry in state.lists:
        with suppress(NotFound, CorruptObject):  # it lists nothing: what it named is condemned anew
            data = backend.get(entry.key)
            found = decode_read(backend, entry.key, data, partial(decode_list, key=entry.key))
            names.update(found.versions("recipes"))
    keys = [Key(name.hex()) for name in sorted(names)]
    there = backend.exists_many([recipe_path(key) for key in keys]) if keys else []
    since = min((entry.time for entry in state.lists), default=0.0)
    return {key for key, is_there in zip(keys, there, strict=True) if is_there}, since


@dataclass(frozen=True, slots=True)
class DroppedValues:
    """What collections dropped of one ref."""

    entries: tuple[RefEntry, ...]
    """The oldest first."""
    removed: bool
    """Whether the last of them removed the ref. If not, and it is not there, somebody else removed it since."""


def dropped_values(records: Iterable[AuditRecord]) -> dict[str, DroppedValues]:
    """What collections dropped of each ref, by their log, which tells the latest first. Pure."""
    found: dict[str, dict[tuple[str, float], RefEntry]] = {}
    removed: dict[str, bool] = {}
    for record in records:
        for line in record.lines if record.action == "gc" and record.event == "begin" else ():
            name = line.get("ref")
            if isinstance(name, str):
                removed.setdefault(name, line.get("kept") == 0)
                for entry in _entries(line.get("dropped")):
                    found.setdefault(name, {})[entry.key, entry.time] = entry
    return {
        name: DroppedValues(tuple(sorted(entries.values(), key=lambda entry: entry.time)), removed[name])
        for name, entries in found.items()
    }


def _entries(rows: Any) -> Iterable[RefEntry]:
    """What of the log can be values of a ref. Whoever may write there may have written anything."""
    for row in rows if isinstance(rows, list) else ():
        with suppress(MfstoreError, ValueError, TypeError, IndexError, KeyError):
            note = row[2] if len(row) > 2 and isinstance(row[2], dict) else None
            yield RefEntry(Key(row[0]), float(row[1]), note)


def _chosen(
    backend: Backend, names: Sequence[str], condemned: set[Key], dropped: Mapping[str, DroppedValues]
) -> tuple[list[str], list[Key]]:  # fmt: skip
    """The refs and the keys that are meant. What a ref has back needs no hold of its own."""
    restorable = {
        name for name, values in dropped.items()
        if any(entry.key in condemned for entry in values.entries) and (values.removed or _is_there(backend, name))
    }  # fmt: skip
    refs = [name for name in sorted(restorable) if not names or name in names]
    for name in names:
        if name not in restorable and name not in condemned:
            what = "is not condemned" if is_key(name) else "has lost no value that is still stored"
            raise NotFound(f"{name} {what}", backend=backend.url, hint="mfstore hold keeps any ref or key from now on")
    back = {entry.key for name in refs for entry in dropped[name].entries}
    return refs, [key for key in sorted(condemned - back) if not names or key in names]


def _is_there(backend: Backend, name: str) -> bool:
    try:
        return bool(read_ref(backend, ref_path(name))[1].entries)
    except (NotFound, InvalidKey):
        return False


def _restore(
    store: Store, name: str, dropped: Sequence[RefEntry], lasting: float | None, done: StoreUndone
) -> None:  # fmt: skip
    """Put the values back before those that the ref has. Each is held until the ref is, as whoever names a key first
    makes sure that it stays."""
    whole = [entry for entry in dropped if _hold(store, entry.key, lasting)]
    done.lost += [entry.key for entry in dropped if entry not in whole]
    if not whole:
        return
    done.refs[name] = _put_back(store.backend, name, whole)
    store.refs.hold(name, WHY, lasting=lasting)
    for key in {entry.key for entry in whole}:
        with suppress(NotFound):
            store.refs.release(key)


def _put_back(backend: Backend, name: str, dropped: Sequence[RefEntry]) -> int:
    path = ref_path(name)
    for _ in range(TRIES):
        try:
            etag, stored = read_ref(backend, path)
        except NotFound:
            etag, stored = None, StoredRef()
        entries = merged(stored.entries, dropped)
        with suppress(Conflict):
            backend.put_if(path, encode_ref(entries, stored.unconfirmed), etag)
            return len(entries) - len(stored.entries)
    raise Conflict(f"ref {name!r} keeps changing", key=path, backend=backend.url, hint="Try again")


def merged(present: Sequence[RefEntry], dropped: Sequence[RefEntry]) -> tuple[RefEntry, ...]:
    """The history of a ref with what was dropped of it; its present value stays the present one. Pure."""
    known = {(entry.key, entry.time) for entry in present}
    older = [entry for entry in dropped if (entry.key, entry.time) not in known]
    if not present:
        return tuple(older)
    found: list[RefEntry] = []
    for entry in present[:-1]:  # in the order in which they were set, whatever the clocks of those who set them said
        while older and older[0].time <= entry.time:
            found.append(older.pop(0))
        found.append(entry)
    return (*found, *older, present[-1])


def _hold(store: Store, key: Key, lasting: float | None) -> bool:
    """Hold a key. Whether it is still there."""
    try:
        store.refs.hold(key, WHY, lasting=lasting)
    except (NotFound, Conflict):
        return False
    return True


def _account(done: StoreUndone) -> Account:
    lines: list[Line] = [
        *({"ref": name, "restored": number} for name, number in done.refs.items()),
        *({"hold": key} for key in done.keys), *({"lost": key} for key in done.lost),
    ]  # fmt: skip
    return Account({"refs": len(done.refs), "keys": len(done.keys), "lost": len(done.lost)}, lines)
