"""What the reports of a store's maintenance and of a root's have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Level = Literal["list", "headers", "full"]
LEVELS: tuple[Level, ...] = ("list", "headers", "full")


@dataclass(frozen=True, slots=True)
class PhaseProgress:
    """How far a long operation is."""

    phase: str
    """What is being done, in a word or a few: ``listing``, ``headers``, ``recipes``, ``data`` and so on."""
    done: int
    """Objects, or bytes in the phase ``data``."""
    total: int
    """Of the same unit as ``done``."""


PhaseCallback = Callable[[PhaseProgress], None]
"""Called now and then, from any thread but never from two at once. What it raises ends the operation."""


def untold(progress: PhaseProgress) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class RepairAction:
    """One thing that repair did, or would do."""

    kind: str
    """``quarantine``, ``salvage``, ``rewrite``, ``index`` or ``describe``; of a Metaflow root ``quarantine`` or
    ``describe``."""
    object: str
    """Where the object is that it is about."""
    detail: str
    """A sentence for people."""
