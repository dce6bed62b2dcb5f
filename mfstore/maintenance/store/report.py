"""What verifying and repairing a store found and did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mfstore.maintenance.report import Level, RepairAction

Harm = Literal["data", "dedup", "none"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One stored object that is not as it should be."""

    kind: str
    """A stable word: ``missing``, ``truncated``, ``damaged``, ``stale``, ``unlisted``, ``unreadable``, ``unknown``,
    ``unsteady``, ``foreign``. docs/verify.md says what each means."""
    object: str
    """Where the object is, or should be, in the store."""
    detail: str
    """A sentence for people."""
    keys: tuple[str, ...] = ()
    """Artifacts and bundles that cannot be read whole because of it."""
    refs: tuple[str, ...] = ()
    """Refs whose value cannot be read whole because of it."""
    harm: Harm = "data"
    """What is at stake: data; only deduplication (the index is a hint); nothing, when it is only strange."""
    bases: tuple[str, ...] = ()
    """Ids of base chunks that are lost with it: some of ``keys`` are stored as deltas against them."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What ``Store.verify`` looked at and found.

    It may be kept and pickled: it refers to nothing of the store. Damage is told here and never raised.
    """

    url: str
    level: Level
    """How closely it looked."""
    findings: tuple[Finding, ...]
    """What is not as it should be: what costs data first, then by object."""
    objects: dict[str, int]
    """Objects listed, by kind: ``recipes``, ``packs``, ``index`` and ``refs``."""
    stored: int
    """Bytes of these objects."""
    checked: int
    """Bytes of packs that were read, decoded and compared with their digests."""
    chunks: int
    """Chunks compared with their digests, in packs and in recipes; deltas there by their seals."""
    packs_checked: int
    """Packs whose every chunk was compared."""
    complete: bool
    """False when the time allowed ended before everything chosen was checked."""
    oldest: float | None
    """When the part of the packs was read that has waited longest, in seconds since the epoch; None: some never was."""
    remembered: bool
    """False when what was verified could not be noted in the store: it will be verified again."""
    seconds: float
    """How long it took."""
    deltas: int = 0
    """Deltas that were decoded with their bases and compared with the digests of their chunks."""

    @property
    def damage(self) -> tuple[Finding, ...]:
        """The findings that something must be done about."""
        return tuple(finding for finding in self.findings if finding.harm != "none")

    @property
    def clean(self) -> bool:
        """Whether there is no damage."""
        return not self.damage

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Every key that cannot be read whole, in order."""
        return tuple(sorted({key for finding in self.findings for key in finding.keys}))


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What ``Store.repair`` did, or with ``dry_run`` would do. It refers to nothing of the store."""

    url: str
    before: VerifyReport
    """What was found first."""
    actions: tuple[RepairAction, ...]
    """In the order of doing; none when there was nothing to do."""
    after: VerifyReport | None
    """The store verified again; None for a dry run, and when there was nothing to do."""
    lost: tuple[str, ...]
    """Keys that still cannot be read whole: nothing stored has their bytes. Putting the same content heals them."""
