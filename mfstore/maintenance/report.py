"""What verify and repair found and did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Level = Literal["list", "headers", "full"]
Harm = Literal["data", "dedup", "none"]
LEVELS: tuple[Level, ...] = ("list", "headers", "full")


@dataclass(frozen=True, slots=True)
class Step:
    """How far a long operation is."""

    phase: str
    done: int
    total: int
    """Of the same unit as ``done``: objects, or bytes in the phase "data"."""


Progress = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """One stored object that is not as it should be."""

    kind: str
    """A stable word: ``missing``, ``truncated``, ``damaged``, ``stale``, ``unlisted``, ``unreadable``, ``unknown``,
    ``foreign``."""
    object: str
    """Where the object is, or should be, in the store."""
    detail: str
    keys: tuple[str, ...] = ()
    """Artifacts and bundles that cannot be read whole because of it."""
    refs: tuple[str, ...] = ()
    """Refs whose value cannot be read whole because of it."""
    harm: Harm = "data"
    """What is at stake: data; only deduplication (the index is a hint); nothing, when it is only strange."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What ``Store.verify`` looked at and found."""

    url: str
    level: Level
    findings: tuple[Finding, ...]
    objects: dict[str, int]
    """Objects listed, by kind."""
    stored: int
    """Bytes of these objects."""
    checked: int
    """Bytes of packs that were read, decoded and compared with their digests."""
    chunks: int
    """Chunks compared with their digests, in packs and in recipes."""
    packs_checked: int
    """Packs whose every chunk was compared."""
    complete: bool
    """False when the time allowed ended before everything chosen was checked."""
    oldest: float | None
    """When the part of the packs was read that has waited longest, in seconds since the epoch; None: some never was."""
    remembered: bool
    """False when what was verified could not be noted in the store: it will be verified again."""
    seconds: float

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
class Action:
    """One thing repair did, or would do."""

    kind: str
    """``quarantine``, ``salvage``, ``rewrite`` or ``index``."""
    object: str
    detail: str


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What ``Store.repair`` did."""

    url: str
    before: VerifyReport
    actions: tuple[Action, ...]
    after: VerifyReport | None
    """The store verified again; None for a dry run, and when there was nothing to do."""
    lost: tuple[str, ...]
    """Keys that still cannot be read whole: nothing stored has their bytes. Putting the same content heals them."""


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
    actions: tuple[Action, ...]
    after: MetaflowReport | None
