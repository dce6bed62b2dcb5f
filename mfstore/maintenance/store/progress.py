"""What verify remembers, in the store itself, and what it therefore reads next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mfstore.errors import AccessDenied, NotFound
from mfstore.format.progress import PATH, SHARDS, decode_progress, encode_progress

if TYPE_CHECKING:
    from mfstore.backends.base import Backend


def load(backend: Backend, path: str = PATH) -> dict[str, float]:
    """When each shard was verified, in seconds since the epoch. What cannot be understood counts as never."""
    try:
        return decode_progress(backend.get(path))
    except NotFound:
        return {}


def save(backend: Backend, times: Mapping[str, float], path: str = PATH) -> bool:
    """Note these too; what others noted meanwhile stays. False when this place may not be written to.

    Two that save at once may lose one's notes: then those shards are verified again, which is all it costs.
    """
    try:
        merged = load(backend, path)
        for shard, time in times.items():
            merged[shard] = max(time, merged.get(shard, 0.0))
        backend.put(path, [encode_progress(merged)])
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
