"""A store as those who maintain it need it: below the front door."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.host.workers import Workers
    from mfstore.saving.guard import Guard


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store's objects are and what works on them."""

    backend: Backend
    workers: Workers
    algorithm: int
    """Number of the store's digest."""
    guard: Guard
    """What garbage collection is about to delete."""
