"""Bulk transfers with S3: ``BulkClient``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mfstore.s3.client import BulkClient
    from mfstore.s3.items import PutItem
    from mfstore.s3.outcomes import BulkStats, Outcome
    from mfstore.s3.results import BulkResult

__all__ = ["BulkClient", "BulkResult", "BulkStats", "Outcome", "PutItem"]

_ROOMS = {
    "BulkClient": "client",
    "BulkResult": "results",
    "BulkStats": "outcomes",
    "Outcome": "outcomes",
    "PutItem": "items",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"mfstore.s3.{_ROOMS[name]}"), name)
