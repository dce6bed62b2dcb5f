"""The storage's own clock, as the times of what it stores tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfstore.errors import NotFound

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

DAY = 86400.0
"""Seconds."""


def written(backend: Backend, key: str) -> float:
    """When an object was written, in seconds since the epoch. NotFound if it is not there.

    From a listing, as the ages of all other objects: S3 tells a single object's time in whole seconds, and what was
    written in the same second would seem to be from the future.
    """
    for info in backend.list(key):
        if info.key == key:
            return info.modified
    raise NotFound("an object just written is gone", key=key, backend=backend.url)
