"""What the Metaflow side keeps in one process: threads, settings, tiny blobs."""

from __future__ import annotations

import os
from functools import cache

from metaflow.metaflow_config_funcs import from_conf

from mfstore.host.cache import HostCache, host_cache
from mfstore.host.workers import Workers
from mfstore.settings import MetaflowKnobs, resolve_metaflow

TINY_BLOBS = 10_000


class Runtime:
    """Settings are read once: a flow's processes have one environment."""

    def __init__(self) -> None:
        self.knobs: MetaflowKnobs = resolve_metaflow(from_conf("MFSTORE_PROFILE"))
        self.workers = Workers(self.knobs.threads)
        self.host: HostCache = host_cache(self.knobs.cache)
        self.tiny = _Bounded()

    @property
    def verify(self) -> bool:
        """Whether blobs are checked against their keys."""
        return self.knobs.verify


class _Bounded(dict[str, bytes]):
    """Forgets everything when it is full."""

    def __setitem__(self, key: str, value: bytes) -> None:
        if len(self) >= TINY_BLOBS:
            self.clear()
        super().__setitem__(key, value)


@cache
def _runtime(_process: int) -> Runtime:
    return Runtime()


def runtime() -> Runtime:
    """This process's; a forked child makes its own."""
    return _runtime(os.getpid())
