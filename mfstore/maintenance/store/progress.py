"""What verify remembers: when the packs of each shard were last read whole (docs/format.md, "Remembered progress")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mfstore.errors import AccessDenied, MfstoreError, NotFound
from mfstore.maintenance.store.inventory import SHARDS

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

PATH = "verify/progress"
VERSION = 1


def load(backend: Backend, path: str = PATH) -> dict[str, float]:
    """When each shard was verified, in seconds since the epoch. What cannot be understood counts as never."""
    try:
        document = json.loads(backend.get(path))
        if document["version"] != VERSION:
            return {}
        return {shard: float(time) for shard, time in document["packs"].items() if shard in SHARDS}
    except NotFound:
        return {}
    except MfstoreError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return {}


def save(backend: Backend, times: Mapping[str, float], path: str = PATH) -> bool:
    """Note these too; what others noted meanwhile stays. False when this place may not be written to.

    Two that save at once may lose one's notes: then those shards are verified again, which is all it costs.
    """
    try:
        merged = load(backend, path)
        for shard, time in times.items():
            merged[shard] = max(time, merged.get(shard, 0.0))
        backend.put(path, [json.dumps({"version": VERSION, "packs": dict(sorted(merged.items()))}).encode()])
        return True
    except AccessDenied:
        return False


def choose(
    times: Mapping[str, float], sample: tuple[int, int] | None, older_than: float | None, now: float
) -> list[str]:
    """The shards to verify, those that waited longest first. Pure.

    ``sample`` (n, t) chooses every t-th shard beginning with the n-th; ``older_than`` those not verified for so many
    seconds.
    """
    chosen = SHARDS if sample is None else SHARDS[sample[0] - 1 :: sample[1]]
    if older_than is not None:
        chosen = tuple(shard for shard in chosen if now - times.get(shard, 0.0) > older_than)
    return sorted(chosen, key=lambda shard: times.get(shard, 0.0))
