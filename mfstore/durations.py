"""Durations as people write them, ``30d``; and how long something is meant to stay, which is one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mfstore.errors import InvalidKey, InvalidNote

UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
"""Seconds of the units of durations."""
TTL = "ttl"
"""The field of a note, and the beginning of a tag, that says how long a value of a ref, or a run, is meant to stay."""
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)")


def seconds(text: object) -> float:
    """How many seconds ``30d``, ``12h`` or ``90min`` are. InvalidKey for what is none: a number has a unit, because who
    means 90 days and gets 90 seconds loses what he wanted to keep."""
    found = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None or found[2] not in UNITS:
        raise InvalidKey("no duration", found=f"{text!r:.80}", hint="Write a number and its unit: 30d, 24h, 90min, 5s")
    return float(found[1]) * UNITS[found[2]]


def ttl_of(note: Mapping[str, Any] | None) -> float | None:
    """How many seconds the value of a ref with this note is meant to stay; None when it does not say. InvalidKey when
    what it says is no duration."""
    return None if note is None or TTL not in note else seconds(note[TTL])


def require_ttl(note: Mapping[str, Any]) -> None:
    """InvalidNote for the note of a ref that says how long its value is to stay, in words that nobody understands: it
    would stay for ever."""
    try:
        ttl_of(note)
    except InvalidKey as error:
        raise InvalidNote(
            f"the {TTL} of a ref is no duration",
            found=f"{note[TTL]!r:.80}",
            hint=f"{error.hint}, as in {{'ttl': '30d'}}",
        ) from None
