"""What the Metaflow side has in one process: settings, threads, and small objects it has seen."""

from __future__ import annotations

import os
from functools import cache, cached_property
from typing import TYPE_CHECKING

from metaflow.metaflow_config_funcs import from_conf

from mfstore.settings import MetaflowKnobs, resolve_metaflow, usable_cpus

if TYPE_CHECKING:
    from mfstore.host.cache import HostCache
    from mfstore.host.workers import Workers

MOST_TINY_BLOBS = 10_000


class TinyBlobs:
    """Blobs of a few KiB by their keys. Forgets all of them when it is full."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._blobs

    def get(self, key: str) -> bytes | None:
        """The blob, None when it is not known."""
        return self._blobs.get(key)

    def add(self, key: str, blob: bytes) -> None:
        """Remember a blob."""
        if len(self._blobs) >= MOST_TINY_BLOBS:
            self._blobs.clear()
        self._blobs[key] = blob

    def clear(self) -> None:
        """Forget all."""
        self._blobs.clear()


def _root() -> str | None:
    """Of the datastore that is configured, of several the first of these."""
    for kind in ("s3", "azure", "gs"):
        if root := from_conf(f"DATASTORE_SYSROOT_{kind.upper()}"):
            from mfstore.s3.datatools.places import root_url

            return root_url(kind, root)
    local: str | None = from_conf("DATASTORE_SYSROOT_LOCAL")
    return local


class ProcessState:
    """Settings are read once: a flow's processes have one environment."""

    def __init__(self) -> None:
        self.knobs: MetaflowKnobs = resolve_metaflow(
            from_conf("MFSTORE_PROFILE"), from_conf("MFSTORE_SAFE"),
            _root(), from_conf("MFSTORE_CACHE"),
        )  # fmt: skip
        self.tiny_blobs = TinyBlobs()
        self.packed_read: dict[tuple[str, str], int] = {}
        """Artifacts of the packed profile that were read, by name and key: the identity of the object last given."""

    # Imported at their first use: tasks of few small artifacts in a directory need neither.

    @cached_property
    def workers(self) -> Workers:
        """Threads, for what is large."""
        from mfstore.host.workers import Workers

        return Workers(self.knobs.threads or usable_cpus())

    @cached_property
    def host_cache(self) -> HostCache:
        """Small objects from S3 that processes of this host have seen. InvalidKey as ``host_cache``."""
        from mfstore.host.cache import host_cache

        return host_cache(self.knobs.cache)


@cache
def _state_of(_process: int) -> ProcessState:
    return ProcessState()


def process_state() -> ProcessState:
    """This process's; a forked child makes its own."""
    return _state_of(os.getpid())


def forget_process_state() -> None:
    """From now on a new one, by the settings of now. What was opened under the old one goes on."""
    _state_of.cache_clear()
