"""The store of the packed profile below a datastore root: one handle per root and process to read, one to write."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from mfstore.metaflow.process_state import ProcessState, process_state
from mfstore.metaflow.roots.packed_keys import STORE_FOLDER
from mfstore.opening import open_store
from mfstore.s3.urls import names_object
from mfstore.store import Store

if TYPE_CHECKING:
    from mfstore.metaflow.packed.bucket import StoreInBucket


def packed_store(root: str, writing: bool = False) -> Store:
    """The store below a datastore root, by its URL or directory."""
    root = root.rstrip("/")
    if names_object(root):
        return _in_bucket(root, writing, process_state()).store
    return _in_directory(os.path.abspath(root), process_state())  # noqa: PTH100


def load_bundles_ahead(root: str, bundles: Iterable[str]) -> None:
    """Fetch the recipes of ``bundles`` at once, for who is about to load from them. What fails is met again then. Does
    nothing in a directory, where they are read as fast one by one."""
    root = root.rstrip("/")
    if names_object(root):
        _in_bucket(root, False, process_state()).backend.load_ahead(bundles)


def load_parts_ahead(root: str, artifacts: Mapping[str, Sequence[str]]) -> None:
    """Fetch of bundles what some of their artifacts take, by their names, for who is about to load them. It is held for
    a while. What fails is met again then. In a directory nothing is done."""
    root = root.rstrip("/")
    if names_object(root):
        _in_bucket(root, False, process_state()).load_parts_ahead(artifacts)


@cache
def _in_directory(root: str, state: ProcessState) -> Store:
    return open_store(f"{root}/{STORE_FOLDER}", fsync=state.knobs.fsync, safe=state.knobs.safe)


@cache
def _in_bucket(root: str, writing: bool, _state: ProcessState) -> StoreInBucket:
    # Local flows need not import what a bucket takes.
    from mfstore.metaflow.packed.bucket import StoreInBucket

    return StoreInBucket(f"{root}/{STORE_FOLDER}", writing)
