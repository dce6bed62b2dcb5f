"""The lifecycle rules that a bucket should have for a place. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mfstore.maintenance.lifecycle import merged
from mfstore.maintenance.versions import VersionsKept


def lifecycle(prefix: str, present: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The rules of a bucket, for PutBucketLifecycleConfiguration, which replaces all there are.

    The one of the place aborts uploads that nobody ends, and removes versions that are not current. It expires nothing
    that is current: that somebody may need.

    Args:
        prefix: What the keys of all objects of the place begin with.
        present: The rules that the bucket has. They mean what they did, but for one with the ID of ours.
    """
    return {"Rules": merged(present, VersionsKept(prefix=prefix).rule)}
