"""What verifying and repairing a Metaflow root found and did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mfstore.maintenance.report import Level, RepairAction

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


@dataclass(frozen=True, slots=True)
class MetaflowReport:
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


@dataclass(frozen=True, slots=True)
class MetaflowRepair:
    """What repair did below a Metaflow root, or with ``dry_run`` would do."""

    url: str
    before: MetaflowReport
    """What was found first."""
    actions: tuple[RepairAction, ...]
    """In the order of doing; none when there was nothing to do."""
    after: MetaflowReport | None
    """The root verified again; None for a dry run, and when there was nothing to do."""
