"""What verifying and repairing a Metaflow root found and did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mfstore.maintenance.report import Level, RepairAction


@dataclass(frozen=True, slots=True)
class MetaflowFinding:
    """One object of a Metaflow root that is not as it should be."""

    kind: str
    """A stable word: ``missing``, ``empty``, ``damaged``, ``wrong-hash``, ``meta-less``, ``wrong-metadata``,
    ``done-without-data``, ``half-written``, ``unreadable``, ``unknown``."""
    object: str
    """Where the object is, or should be, below the root."""
    detail: str
    artifacts: tuple[str, ...] = ()
    """What readers of Metaflow cannot load because of it: flow/run/step/task/artifact."""
    flow: str = ""
    key: str = ""
    """Of a blob."""
    harm: Literal["data", "later", "none"] = "data"
    """What is at stake: artifacts that readers ask for; only those of tasks to come, which take the blob for stored; or
    nothing."""


@dataclass(frozen=True, slots=True)
class MetaflowReport:
    """What verify looked at below a Metaflow root, and found."""

    url: str
    level: Level
    findings: tuple[MetaflowFinding, ...]
    flows: int
    runs: int
    tasks: int
    blobs: int
    """In the content-addressed stores of all flows."""
    stored: int
    """Bytes of all objects listed."""
    blobs_checked: int
    """Read, decoded and compared with their keys."""
    checked: int
    """Bytes of these as stored."""
    running: int
    """Attempts that began lately and have not ended."""
    complete: bool
    oldest: float | None
    remembered: bool
    seconds: float

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
    """What repair did below a Metaflow root."""

    url: str
    before: MetaflowReport
    actions: tuple[RepairAction, ...]
    after: MetaflowReport | None
