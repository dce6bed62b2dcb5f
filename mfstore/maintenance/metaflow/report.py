"""What verifying and repairing a Metaflow root found and did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mfstore.display.amounts import count, duration, size
from mfstore.display.cards import Card
from mfstore.display.shown import Shown
from mfstore.maintenance.report import Level, RepairAction
from mfstore.maintenance.told import repaired_card, since, verified_card

MetaflowHarm = Literal["data", "later", "none"]


@dataclass(frozen=True, slots=True)
class MetaflowFinding:
    """One object of a Metaflow root that is not as it should be."""

    kind: str
    """A stable word: ``missing``, ``empty``, ``damaged``, ``wrong-hash``, ``meta-less``, ``wrong-metadata``,
    ``done-without-data``, ``half-written``, ``unreadable``, ``unknown``."""
    object: str
    """Where the object is, or should be, below the root."""
    detail: str
    """A sentence for people."""
    artifacts: tuple[str, ...] = ()
    """What readers of Metaflow cannot load because of it: flow/run/step/task/artifact; ``*`` for all of a task."""
    flow: str = ""
    """Of a blob."""
    key: str = ""
    """Of a blob."""
    harm: MetaflowHarm = "data"
    """What is at stake: artifacts that readers ask for; only those of tasks to come, which take the blob for stored; or
    nothing."""


@dataclass(frozen=True, slots=True, repr=False)
class MetaflowReport(Shown):
    """What verify looked at below a Metaflow root, and found. It refers to nothing of the root."""

    url: str
    level: Level
    """How closely it looked."""
    findings: tuple[MetaflowFinding, ...]
    """What is not as it should be: what costs artifacts first, then by object."""
    flows: int
    runs: int
    tasks: int
    blobs: int
    """In the content-addressed stores of all flows."""
    stored: int
    """Bytes of all objects listed."""
    blobs_checked: int
    """Blobs read, decoded and compared with their keys."""
    checked: int
    """Bytes of these as stored."""
    running: int
    """Attempts that began within a day and have not ended."""
    complete: bool
    """False when the time allowed ended before everything chosen was read."""
    oldest: float | None
    """When the part of the blobs was read that has waited longest, in seconds since the epoch; None: some never was."""
    remembered: bool
    """False when what was read could not be noted below the root: it will be read again."""
    seconds: float
    """How long it took."""

    @property
    def damage(self) -> tuple[MetaflowFinding, ...]:
        """The findings that something must be done about."""
        return tuple(finding for finding in self.findings if finding.harm != "none")

    @property
    def clean(self) -> bool:
        """Whether there is no damage."""
        return not self.damage

    @property
    def runs_touched(self) -> tuple[str, ...]:
        """The runs with artifacts that cannot be loaded, as flow/run."""
        return tuple(sorted({"/".join(name.split("/")[:2]) for finding in self.findings for name in finding.artifacts}))

    def _card(self) -> Card:
        return report_card(self)


@dataclass(frozen=True, slots=True, repr=False)
class MetaflowRepair(Shown):
    """What repair did below a Metaflow root, or with ``dry_run`` would do."""

    url: str
    before: MetaflowReport
    """What was found first."""
    actions: tuple[RepairAction, ...]
    """In the order of doing; none when there was nothing to do."""
    after: MetaflowReport | None
    """The root verified again; None for a dry run, and when there was nothing to do."""

    def _card(self) -> Card:
        return repair_card(self)


# ---- what people are told ---------------------------------------------------------------


def holds(report: MetaflowReport) -> str:
    """What was listed."""
    parts = [count(report.flows, "flow"), count(report.runs, "run"), count(report.tasks, "task")]
    return f"{', '.join(parts)}, {count(report.blobs, 'blob')}; {size(report.stored)}"


def looked_at(report: MetaflowReport) -> str:
    """What verification read, and how fast."""
    took = duration(report.seconds)
    if report.level == "list":
        return f"level list: names and sizes by listing, in {took}"
    if report.level == "headers":
        return f"level headers: what every task refers to, in {took}; --level full reads the blobs"
    rate = size(report.checked / max(report.seconds, 1e-9))
    return (
        f"level full: {report.blobs_checked} of {count(report.blobs, 'blob')}, {size(report.checked)} "
        f"in {took} ({rate}/s){since(report.oldest, 'blob')}"
    )


def verdict(report: MetaflowReport) -> str:
    """Whether there is damage, and what it costs."""
    if report.clean:
        return "no damage found" if not report.findings else "no damage found; the above does no harm"
    touched = len(report.runs_touched)
    lost = f"{count(touched, 'run')} with artifacts that cannot be loaded" if touched else "no artifact is lost"
    return f"{count(len(report.damage), 'finding')}; {lost}. mfstore repair --metaflow shows what can be mended"


def running(report: MetaflowReport) -> str:
    """How many attempts may go on; empty for none."""
    if not report.running:
        return ""
    return f"{count(report.running, 'attempt')} began within a day and may still be running"


def report_card(report: MetaflowReport) -> Card:
    """What verification found."""
    touching = [(finding, finding.artifacts) for finding in report.findings]
    told = running(report)
    notes = [f"{told}."] if told else []
    return verified_card(report, verdict(report), holds(report), looked_at(report), touching, "--older-than", notes)


def repair_card(report: MetaflowRepair) -> Card:
    """What was found, done and left."""
    return repaired_card(report, verdict(report.before), holds(report.before), False)
