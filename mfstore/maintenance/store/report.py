"""What verifying and repairing a store found and did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mfstore.display.amounts import count, duration, size
from mfstore.display.cards import Card
from mfstore.display.shown import Shown
from mfstore.display.words import short_keys
from mfstore.maintenance.report import Level, RepairAction
from mfstore.maintenance.told import NAMES_SHOWN, repaired_card, since, verified_card

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


@dataclass(frozen=True, slots=True, repr=False)
class VerifyReport(Shown):
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

    def _card(self) -> Card:
        return report_card(self)


@dataclass(frozen=True, slots=True, repr=False)
class RepairReport(Shown):
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

    def _card(self) -> Card:
        return repair_card(self)


# ---- what people are told ---------------------------------------------------------------


def looked_at(report: VerifyReport) -> str:
    """What verification read, and how fast."""
    if report.level == "list":
        return f"level list: sizes by listing, in {duration(report.seconds)}; nothing was read but refs and index"
    if report.level == "headers":
        took = duration(report.seconds)
        return f"level headers: every recipe, header and trailer, in {took}; --level full reads the data"
    rate = report.checked / max(report.seconds, 1e-9)
    deltas = f"{count(report.deltas, 'delta')} with their bases, " if report.deltas else ""
    return (
        f"level full: {report.packs_checked} of {report.objects['packs']} packs, {report.chunks} chunks, {deltas}"
        f"{size(report.checked)} in {duration(report.seconds)} ({size(rate)}/s){since(report.oldest, 'pack')}"
    )


def verdict(report: VerifyReport) -> str:
    """Whether there is damage, and what it costs."""
    if report.clean:
        return "no damage found" if not report.findings else "no damage found; the above does no harm"
    lost = len(report.unreadable)
    return (
        f"{count(len(report.damage), 'finding')}; "
        + (f"{count(lost, 'key')} cannot be read whole" if lost else "every artifact can still be read")
        + ". mfstore repair shows what can be mended"
    )


def holds(report: VerifyReport) -> str:
    """What was listed."""
    return f"{', '.join(f'{number} {kind}' for kind, number in report.objects.items())}; {size(report.stored)}"


def report_card(report: VerifyReport) -> Card:
    """What verification found."""
    touching = [(finding, (*finding.refs, *finding.keys)) for finding in report.findings]
    return verified_card(report, verdict(report), holds(report), looked_at(report), touching, "older_than=")


def repair_card(report: RepairReport) -> Card:
    """What was found, done and left."""
    notes = []
    if report.lost:
        listed = ", ".join(short_keys(key) for key in report.lost[:NAMES_SHOWN])
        more = f" and {len(report.lost) - NAMES_SHOWN} more" if len(report.lost) > NAMES_SHOWN else ""
        notes.append(f"{lost_data(report)}: {listed}{more}")
    return repaired_card(report, verdict(report.before), holds(report.before), bool(report.lost), notes)


def lost_data(report: RepairReport) -> str:
    """What is lost, and how it comes back."""
    return f"lost data: {count(len(report.lost), 'key')}; putting the same content again heals what it names"
