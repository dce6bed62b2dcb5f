"""Bulk transfers with S3: ``BulkClient``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mfstore.s3.bulk.client import BulkClient
    from mfstore.s3.bulk.items import PutItem
    from mfstore.s3.bulk.results import BulkResult
    from mfstore.s3.bulk.stats import BulkStats
    from mfstore.s3.transfers.outcomes import Outcome

__all__ = ["BulkClient", "BulkResult", "BulkStats", "Outcome", "PutItem"]

_ROOMS = {
    "BulkClient": "bulk.client",
    "BulkResult": "bulk.results",
    "BulkStats": "bulk.stats",
    "Outcome": "transfers.outcomes",
    "PutItem": "bulk.items",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from mfstore.host.forks import IMPORTING

    with IMPORTING:
        return getattr(import_module(f"mfstore.s3.{_ROOMS[name]}"), name)
