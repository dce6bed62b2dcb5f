"""The store of the packed profile below a Metaflow root, as maintenance opens it, and its collection.

This is where the maintenance of roots uses that of stores, and for nothing else than to collect.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from mfstore.errors import MfstoreError
from mfstore.format import description
from mfstore.maintenance.metaflow.root import Root, remote_backend
from mfstore.maintenance.store.collecting.plan import GcOptions
from mfstore.maintenance.store.collecting.retention import Retention
from mfstore.maintenance.store.gc import plan_gc
from mfstore.metaflow.roots.packed_keys import STORE_FOLDER
from mfstore.opening import open_store
from mfstore.settings import resolve
from mfstore.store import Store

if TYPE_CHECKING:
    from mfstore.maintenance.store.gc import GcResult as GcResult

REPACK = 0.1
"""Mostly dead packs are rewritten up to this share of the stored bytes, as ``Store.plan_gc`` does by default."""


def open_packed_store(root: Root, create: bool = False) -> Store:
    """The store of the packed profile below the root, there or not; its owner closes it."""
    if not root.remote:
        return open_store(f"{root.backend.root}/{STORE_FOLDER}", create=create)
    backend = remote_backend(f"{root.url}/{STORE_FOLDER}", root.reached)
    return Store(backend.url, backend, resolve(), create=create, algorithm="blake3")


def has_packed_store(root: Root) -> bool:
    """Whether there is such a store."""
    return bool(root.backend.exists_many([f"{STORE_FOLDER}/{description.PATH}"])[0])


class PackedCollection(NamedTuple):
    """What a collection of that store did."""

    result: GcResult | None = None
    """None when there is no such store, or it was left alone."""
    left_alone: str = ""
    """Why it was left alone."""


def collect_packed_store(
    root: Root, bundles: Collection[str], grace: float, *, yes_really: bool, take_over: bool,
    deletes_per_second: float | None,
) -> PackedCollection:  # fmt: skip
    """Collect that store, with these bundles as its live keys. Never raises for what the store says."""
    with open_packed_store(root) as store:
        try:
            # Not by the public method, which refuses such a store: only here all that is needed is known.
            access = store.handle.access("read", "write", "delete")
            plan = plan_gc(access, bundles, GcOptions(grace, Retention(), REPACK))
            if plan.unsafe and not yes_really:
                return PackedCollection(left_alone=f"{plan.unsafe} (--yes-really)")
            # That no run needs anything there is what a migration to the stock format is for.
            done = plan.execute(yes_really=True, take_over=take_over, deletes_per_second=deletes_per_second)
            return PackedCollection(done)
        except MfstoreError as error:
            return PackedCollection(left_alone=str(error))
