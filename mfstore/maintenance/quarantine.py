"""Where damaged objects go instead of being deleted (docs/format.md, "Quarantine")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfstore.errors import NotFound
from mfstore.format.collection import seal_etag
from mfstore.format.quarantine import PREFIX, quarantine_path

if TYPE_CHECKING:
    from mfstore.backends.base import Backend


def quarantine(
    backend: Backend, key: str, version: int | None, *, replaced: bool = False, folder: str = PREFIX
) -> str | None:
    """Move an object below ``folder``; returns where, or None when it is not there any more.

    Copied first and removed then, so that stopping in between loses nothing and doing it again ends the same. With
    ``replaced`` it is only copied: the caller puts another in its place. ``version``, by ``seal_etag``, is the one that
    was found damaged: another, which somebody has stored since, is left alone. None: whatever there is.
    """
    try:
        info = backend.head(key)
        if version is not None and seal_etag(info.etag) != version:
            return None
        target = quarantine_path(key, info.modified, folder)
        backend.copy(key, target)
        if not replaced and not all(backend.delete_unchanged({key: info.etag})):
            backend.delete(target)
            return None
    except NotFound:
        return None
    return target
