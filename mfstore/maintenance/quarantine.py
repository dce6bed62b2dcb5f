"""Where damaged objects go instead of being deleted, and how they come back or go for good (docs/format.md,
"Quarantine")."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mfstore.backends.base import decode_read
from mfstore.errors import Conflict, CorruptObject, NotFound, Refused, Unsupported
from mfstore.format.collection import seal_etag
from mfstore.format.quarantine import PREFIX, quarantine_path, quarantined_key
from mfstore.format.refs import PREFIX as REFS
from mfstore.format.refs import decode_ref, encode_ref, is_ref

if TYPE_CHECKING:
    from mfstore.backends.base import Backend


def quarantine(
    backend: Backend, key: str, version: int | None, *, replaced: bool = False, folder: str = PREFIX
) -> str | None:
    """Move an object below ``folder``; returns where, or None when it is not there any more.

    Stopping in between loses nothing and doing it again ends the same. With ``replaced`` it is only copied: the caller
    puts another in its place. ``version``, by ``seal_etag``, is the one that was found damaged: another, which somebody
    has stored since, is left alone. None: whatever there is.
    """
    try:
        info = backend.head(key)
        if version is not None and seal_etag(info.etag) != version:
            return None
        target = quarantine_path(key, info.modified, folder)
        if replaced:
            backend.copy(key, target)
        elif not backend.move_unchanged(key, target, info.etag):
            return None
    except NotFound:
        return None
    return target


@dataclass(frozen=True, slots=True)
class QuarantinedObject:
    """An object that repair set aside."""

    path: str
    """Where it lies."""
    key: str
    """Where it lay."""
    size: int
    """Bytes."""
    since: float
    """When it was set aside, in seconds since the epoch on the storage's own clock."""


def list_quarantine(backend: Backend, folder: str = PREFIX) -> list[QuarantinedObject]:
    """What repair set aside, the longest ago first."""
    found = []
    for info in backend.list(folder):
        key = quarantined_key(info.key, folder)
        if key is not None:
            found.append(QuarantinedObject(info.key, key, info.size, info.modified))
    return sorted(found, key=lambda item: (item.since, item.path))


def restore_quarantined(backend: Backend, path: str, folder: str = PREFIX) -> str:
    """Put an object back where it lay; returns where that is.

    Raises:
        NotFound: there is no such object in quarantine.
        Refused: something is stored there by now, which is left as it is.
    """
    key = quarantined_key(path, folder)
    if key is None:
        raise NotFound("not an object in quarantine", key=path, backend=backend.url)
    info = backend.head(path)
    try:
        if folder == PREFIX and key.startswith(REFS):
            _restore_ref(backend, path, key)
            moved = all(backend.delete_unchanged({path: info.etag}))
        else:
            moved = backend.move_unchanged(path, key, info.etag, replace=False)
    except Conflict:
        raise Refused(
            "something is stored there by now", key=key, backend=backend.url,
            hint="If verify calls it damaged, repair sets it aside; then this one can come back",
        ) from None  # fmt: skip
    if not moved:
        raise NotFound("the object in quarantine is gone", key=path, backend=backend.url)
    return key


def _restore_ref(backend: Backend, path: str, key: str) -> None:
    """Store a ref again where there is none, or what is left of a removed one. Conflict when there is one."""
    try:
        there = backend.head(key)
        if is_ref(there.size):
            raise Conflict("it is there", key=key)
        etag: str | None = there.etag
    except NotFound:
        etag = None
    data = backend.get(path)
    with suppress(CorruptObject, Unsupported):  # whoever restores a damaged one wants it as it is
        stored = decode_read(backend, path, data, partial(decode_ref, path=path))
        data = encode_ref(stored.entries, stored.unconfirmed)  # with another nonce than when it was set aside
    backend.put_if(key, data, etag)


def empty_quarantine(backend: Backend, objects: Iterable[QuarantinedObject]) -> None:
    """Delete these for good."""
    backend.delete_many([item.path for item in objects])
