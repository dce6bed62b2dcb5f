"""Two results side by side. Pure: documents in, lines out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SAME = 0.10
"""Differences below this are called none: on a quiet machine two runs of a second differ by as much."""


@dataclass(frozen=True, slots=True)
class Change:
    """One cell, before and after. Ratios are after / before; None when either is not known."""

    name: str
    engine: str
    before: float
    """Objects (bundles, entries) per second."""
    after: float
    p50: float | None
    p99: float | None
    cpu: float | None
    """CPU seconds per object."""

    @property
    def ratio(self) -> float:
        """Of objects per second: above 1 is faster."""
        return self.after / self.before

    @property
    def word(self) -> str:
        """``faster``, ``slower``, or ``same``."""
        if self.ratio > 1 + SAME:
            return "faster"
        return "slower" if self.ratio < 1 / (1 + SAME) else "same"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of two runs."""

    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    different: tuple[str, ...]
    """What else was not the same, and may explain a change: place, machine, seed, version."""


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """Cells with the same scenario, operation and engine are compared; the rest is named."""
    old, new = _cells(before), _cells(after)
    changes = tuple(
        _change(key, old[key], new[key])
        for key in old
        if key in new and old[key]["objects_per_second"] and new[key]["objects_per_second"]
    )
    different = tuple(
        f"{name}: {before['run'].get(name)} and {after['run'].get(name)}"
        for name in ("url", "kind", "endpoint", "version", "python", "cpus", "system", "seed", "seconds")
        if before["run"].get(name) != after["run"].get(name)
    )
    return Comparison(
        changes, tuple(_text(key) for key in old if key not in new), tuple(_text(key) for key in new if key not in old),
        different,
    )  # fmt: skip


Key = tuple[str, str]


def _cells(document: Mapping[str, Any]) -> dict[Key, Mapping[str, Any]]:
    return {(cell["name"], cell["engine"]): cell for cell in document["cells"]}


def _text(key: Key) -> str:
    return f"{key[0]} ({key[1]})"


def _change(key: Key, old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    return Change(
        *key, old["objects_per_second"], new["objects_per_second"],
        _ratio(old["latency"]["p50"], new["latency"]["p50"]), _ratio(old["latency"]["p99"], new["latency"]["p99"]),
        _ratio(old["usage"]["cpu"] / old["objects"], new["usage"]["cpu"] / new["objects"]),
    )  # fmt: skip


def _ratio(old: float | None, new: float | None) -> float | None:
    return new / old if old and new is not None else None
