"""What verify remembers: since when the packs of each shard are known whole (docs/format.md, "Remembered progress")."""

from __future__ import annotations

import json
from collections.abc import Mapping

PATH = "verify/progress"
VERSION = 1
SHARDS = tuple(f"{number:02x}" for number in range(256))
"""The second words of the keys of packs and recipes. A shard is what is verified, and remembered, as one."""


def encode_progress(times: Mapping[str, float]) -> bytes:
    """As it is stored: by shard, since when, in seconds since the epoch, every pack in it is known to have been
    whole."""
    return json.dumps({"version": VERSION, "packs": dict(sorted(times.items()))}).encode()


def decode_progress(data: bytes) -> dict[str, float]:
    """What ``encode_progress`` was given. It is a hint: what cannot be understood counts as never verified."""
    try:
        document = json.loads(data)
        if document["version"] != VERSION:
            return {}
        return {shard: float(time) for shard, time in document["packs"].items() if shard in SHARDS}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return {}
