"""What came of trying operations in a place: handed from ``trial``, which tries, to ``rights``, which judges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mfstore.errors import AccessDenied, MfstoreError

SCRATCH = ".mfstore-probe-"
"""What the name of the object that is put begins with: hidden in stores, and what policies of folders let writers
put."""
Answer = Literal["allowed", "refused", "absent", "failed", "untried"]


@dataclass(slots=True)
class Tried:
    """What came of one operation."""

    name: str
    answer: Answer
    """``absent``: the service does not have it; ``failed``: for another reason than a missing right; ``untried``: it
    would have left something behind, or there was nothing to try it on."""
    error: MfstoreError | None = None
    seconds: float = 0.0
    note: str = ""

    @property
    def missing(self) -> tuple[tuple[str, str], ...]:
        """The rights for want of which it was refused, as pairs of action and resource; nothing where none is known."""
        return self.error.rights if isinstance(self.error, AccessDenied) else ()


@dataclass(slots=True)
class Trial:
    """All that was learned."""

    bucket: str
    """Its name, or the ARN of an access point."""
    prefix: str
    """What the keys of the place begin with."""
    tried: dict[str, Tried] = field(default_factory=dict)
    """By name; those of ``rights.TRIED``."""
    headers: dict[str, str] = field(default_factory=dict)
    """Of the answers about the object that was put, or that was there."""
    checksums: dict[str, Tried] = field(default_factory=dict)
    """By algorithm: whether an upload may carry one. ``wrong``: whether one that is wrong is refused."""
    kept: tuple[str, ...] = ()
    """The algorithms by which the service told the checksum of what was put."""
    left: list[str] = field(default_factory=list)
    """What could not be removed again: URLs, with versions."""
    unreachable: MfstoreError | None = None
    """Why nothing else was tried."""

    def allows(self, *names: str) -> bool:
        """Whether all of these were done."""
        return all(name in self.tried and self.tried[name].answer == "allowed" for name in names)
