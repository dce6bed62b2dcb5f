"""The store of the packed profile below a datastore root: one handle per root and process to read, one to write."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from mfstore.metaflow.hooks.runtime import runtime
from mfstore.metaflow.packed.keys import FOLDER
from mfstore.store import Store, open_store


def packed_store(storage: Any, writing: bool = False) -> Store:
    """The store of a storage that has ``objects``."""
    root = storage.datastore_root.rstrip("/")
    if storage.objects.remote:
        return _in_bucket(root, writing, runtime())
    return _in_directory(os.path.abspath(root), runtime())  # noqa: PTH100


@cache
def _in_directory(root: str, _runtime: object) -> Store:
    return open_store(f"{root}/{FOLDER}", fsync=runtime().knobs.fsync)


@cache
def _in_bucket(root: str, writing: bool, _runtime: object) -> Store:
    from mfstore.metaflow.packed.bucket import store_in_bucket

    return store_in_bucket(f"{root}/{FOLDER}", writing)
