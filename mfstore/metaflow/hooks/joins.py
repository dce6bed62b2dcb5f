"""The inputs of a join, loaded together: when the second of them is asked for an artifact, the rest will be too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mfstore.metaflow.roots.packed_keys import bundle_of, is_packed

LOADED_AHEAD_BYTES = 64 << 20
"""What is loaded ahead and held for the inputs of one join. What is beyond is worth its own request."""
FEWEST_INPUTS = 5
"""Metaflow opens up to four inputs one by one."""


class JoinInputs:
    """Tasks opened together."""

    def __init__(self, tasks: Sequence[Any]) -> None:
        self._tasks = tasks
        self._first: dict[str, int] = {}
        self._loaded: set[str] = set()
        self._left = LOADED_AHEAD_BYTES

    def expect(self, task: Any, names: Iterable[str]) -> None:
        """``names`` are about to be loaded from ``task``. Load them from all, if another task was asked before."""
        for name in names:
            if self._first.setdefault(name, id(task)) == id(task) or name in self._loaded:
                continue
            self._loaded.add(name)
            members = [one for one in self._tasks if name in (one._objects or {})]
            size = sum(one._info.get(name, {}).get("size", 0) for one in members)
            if members and size <= self._left:
                self._left -= size
                _load_ahead(members, name)


def _load_ahead(members: Sequence[Any], name: str) -> None:
    task = members[0]
    bundles: set[str] = set()
    keys: set[str] = set()
    for one in members:
        key, info = one._objects[name], one._info.get(name, {})
        if not is_packed(info):
            keys.add(key)
        elif (bundle := bundle_of(info)) is not None:
            bundles.add(bundle)
    if keys:
        task._ca_store.load_ahead(keys)
    if bundles:
        # The packed profile takes as long to import as all the rest.
        from mfstore.metaflow.packed.store import load_bundles_ahead

        load_bundles_ahead(task._storage_impl.url, bundles)
