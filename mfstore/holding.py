"""Holds: set, released and read, also those of refs and keys. No policy of a collection lets go what is held."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from mfstore import provenance
from mfstore.description import enable
from mfstore.errors import AccessDenied, Conflict, InvalidKey, MfstoreError, NotFound, Refused
from mfstore.format.description import HOLDS_FEATURE
from mfstore.format.holds import (
    STORE_HOLDS,
    SUFFIX,
    Hold,
    decode_hold,
    encode_hold,
    held_name,
    hold_path,
)
from mfstore.format.refs import StoredRef, encode_ref, ref_path
from mfstore.names import is_key
from mfstore.ref_objects import read_ref
from mfstore.saving.guard import Names

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.format.digests import Key
    from mfstore.handle import Handle
    from mfstore.saving.guard import Condemned

HOLD_ATTEMPTS = 50
"""How often a hold, or what it is of, is looked at anew when others change it at the same moment."""


def new_hold(why: str = "", lasting: timedelta | float | None = None) -> Hold:
    """A hold of this user's from now on, for so many seconds; None: until it is released. InvalidKey for no time."""
    now = time.time()
    seconds = lasting.total_seconds() if isinstance(lasting, timedelta) else lasting
    if seconds is not None and not seconds > 0:
        raise InvalidKey("a hold lasts for some time", found=str(lasting), hint="Leave it out to hold until released")
    return Hold(provenance.user(), now, why, None if seconds is None else now + seconds)


def put_hold(backend: Backend, path: str, hold: Hold) -> Hold:
    """Store a hold in the place of the one there, and return it; one that lasts longer stays, and is returned: only
    releasing shortens. Conflict when others keep changing it."""
    for _ in range(HOLD_ATTEMPTS):
        etag, before = _read(backend, path)
        if before is not None and before.in_force(hold.when) and before.outlasts(hold):
            return before
        with suppress(Conflict):
            backend.put_if(path, encode_hold(hold), etag)
            return hold
    raise Conflict("a hold keeps changing", key=path, backend=backend.url, hint="Try again")


def drop_hold(backend: Backend, path: str) -> bool:
    """Remove the hold there, readable or not; whether there was one."""
    for _ in range(HOLD_ATTEMPTS):
        try:
            etag = backend.head(path).etag
        except NotFound:
            return False
        if backend.delete_unchanged({path: etag}) == [True]:
            return True
    raise Conflict("a hold keeps changing", key=path, backend=backend.url, hint="Try again")


def drop_ended(backend: Backend, folder: str, now: float) -> None:
    """Remove the holds below a folder that ended by themselves; who may not leaves them."""
    # Listed before they are read: one that is set anew in between is another version than is to go.
    etags = {info.key: info.etag for info in backend.list(folder)}
    holds = read_holds(backend, folder) if etags else {}
    ended = {path: etags[path] for path, hold in holds.items() if path in etags and not hold.in_force(now)}
    if ended:
        with suppress(AccessDenied):
            backend.delete_unchanged(ended)


def read_holds(backend: Backend, folder: str) -> dict[str, Hold]:
    """Every hold below a folder by its path, those that ended too. One that cannot be read is a hold.

    AccessDenied when they may not be listed: nobody knows then what is held.
    """
    paths = sorted(info.key for info in backend.list(folder) if info.key.endswith(SUFFIX))
    holds: dict[str, Hold] = {}
    for path, data in backend.get_many(paths) if paths else ():
        if not isinstance(data, NotFound):  # released since it was listed
            holds[path] = _unread(data) if isinstance(data, MfstoreError) else _decoded(data, path)
    return holds


def _read(backend: Backend, path: str) -> tuple[str | None, Hold | None]:
    try:
        data, etag = backend.get_tagged(path)
    except NotFound:
        return None, None
    return etag, _decoded(data, path)


def _decoded(data: bytes, path: str) -> Hold:
    try:
        return decode_hold(bytes(data), path)
    except MfstoreError as error:
        return _unread(error)


def _unread(error: MfstoreError) -> Hold:
    return Hold("", 0.0, unread=error.message)


# ---- of refs and keys -------------------------------------------------------------------


def hold_ref(handle: Handle, name: str, hold: Hold) -> Hold:
    """What ``Refs.hold`` does."""
    backend, path = handle.backend, hold_path(name)
    handle.require_write()
    etag, ref = _ref(backend, name)
    # Before anything is held: who does not know holds must not collect here any more.
    enable(backend, "delete", HOLDS_FEATURE)
    hold = put_hold(backend, path, hold)
    for _ in range(HOLD_ATTEMPTS):
        # Collections change refs as they were when these were planned: one that was planned before this has its
        # change refused, and one that is planned later sees the hold.
        with suppress(Conflict):
            backend.put_if(ref_path(name), encode_ref(ref.entries, ref.unconfirmed), etag)
            return hold
        try:
            etag, ref = _ref(backend, name)
        except NotFound:
            drop_hold(backend, path)
            raise
    raise Conflict(f"ref {name!r} keeps changing", key=ref_path(name), hint="Try again")


def _ref(backend: Backend, name: str) -> tuple[str, StoredRef]:
    """A ref that there is, with its etag."""
    try:
        etag, stored = read_ref(backend, ref_path(name))
    except NotFound:
        etag, stored = "", StoredRef()
    except MfstoreError as error:
        raise error.where(backend=backend.url) from None
    if stored == StoredRef():
        raise NotFound(f"no ref {name!r}", backend=backend.url)
    return etag, stored


def hold_key(handle: Handle, key: Key, hold: Hold, condemned: Condemned, relied: Names) -> Hold:
    """Hold a key that was found whole, with what it relies on, when this was condemned. Conflict when a collection
    removes it."""
    handle.require_write()
    enable(handle.backend, "delete", HOLDS_FEATURE)
    hold = put_hold(handle.backend, hold_path(key), hold)
    try:
        # As who names a key: a collection that deletes says so first, and looks for holds after that.
        handle.guard.confirm(condemned, Names(), relied)
    except MfstoreError:
        drop_hold(handle.backend, hold_path(key))
        raise
    return hold


def release(handle: Handle, name: str) -> None:
    """What ``Refs.release`` does."""
    if not drop_hold(handle.backend, hold_path(name)):
        raise NotFound(f"{name!r} is not held", backend=handle.backend.url)


def held_keys(holds: Iterable[str]) -> set[bytes]:
    """The keys among the names of what is held."""
    return {bytes.fromhex(name) for name in holds if is_key(name)}


def store_holds(backend: Backend, now: float) -> dict[str, Hold]:
    """The holds of refs and keys that are in force at this time, by name."""
    found = {held_name(path): hold for path, hold in read_holds(backend, STORE_HOLDS).items()}
    return {name: hold for name, hold in sorted(found.items()) if hold.in_force(now)}


def refuse_held(backend: Backend, name: str) -> None:
    """Refused while a ref is held: it is not to be removed."""
    _, hold = _read(backend, hold_path(name))
    if hold is not None and hold.in_force(time.time()):
        raise Refused(
            f"ref {name!r} is {hold}", backend=backend.url, hint=f"Release it first: mfstore hold --release {name}"
        )
