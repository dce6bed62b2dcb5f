"""Finds, while Metaflow is imported, whether this process has what it will need of mfstore, so that all of it is used
or nothing: what is missing should not be found out in the middle of a run.

It is looked for and not imported, as every process with Metaflow would pay for that, also one that stores nothing. Only
where artifacts go to a bucket by default, as in the containers of a scheduler, the libraries are loaded at once: an
image may lack one of those that they are linked with.

It is imported while Metaflow itself is, and so must not need Metaflow. As of ``extension`` its name stays.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

from mfstore.s3.datatools.s3 import S3

__all__ = ["NEEDED", "S3"]

NEEDED = ("mfstore._core.codec", "mfstore._core.crc", "mfstore._core.transfer", "blake3", "isal")


def check(now: bool) -> None:
    """ImportError for what is needed and cannot be found, or, with ``now``, not be imported."""
    for name in NEEDED:
        if now:
            import_module(name)
        elif find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _stores_in_bucket() -> bool:
    config = sys.modules.get("metaflow.metaflow_config")
    return getattr(config, "DEFAULT_DATASTORE", None) in ("s3", "azure", "gs")


check(_stores_in_bucket())
