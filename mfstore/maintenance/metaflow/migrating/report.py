"""What a migration would do, and what it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from mfstore.display.cards import Card
from mfstore.display.shown import Shown
from mfstore.maintenance.metaflow.migrating.changes import HARMLESS, LeftAlone
from mfstore.maintenance.metaflow.migrating.told import plan_card, result_card


@dataclass(frozen=True, slots=True)
class FlowShare:
    """What there is to do in one flow."""

    flow: str
    runs: int = 0
    attempts: int = 0
    """Attempts of tasks whose data.json is to be replaced."""
    artifacts: int = 0
    """Different artifacts to be converted; tasks share them."""
    bytes: int = 0
    """What these take now: blobs as they are stored, packed artifacts as they were pickled."""
    already: int = 0
    """Artifacts in that profile already, each counted for every attempt that has it."""
    left: Mapping[str, int] = field(default_factory=dict)
    """Number of what is left, by kind."""


@dataclass(frozen=True, slots=True, repr=False)
class MigrationPlan(Shown):
    """What a migration would do."""

    url: str
    to: str
    flows: tuple[FlowShare, ...]
    left: tuple[LeftAlone, ...]
    """What is left as it is, and why."""
    rekeyed: int
    """Artifacts to become stock that were so before and whose blob is gone, in attempts without records: they may get
    another key than the one a metadata service has."""
    unrecorded: int
    """Attempts to change whose artifacts have no records in local metadata: a metadata service has them, or another
    machine."""

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return any(share.attempts for share in self.flows)

    @property
    def damage(self) -> tuple[LeftAlone, ...]:
        """What is left because it is not as it should be."""
        return tuple(left for left in self.left if left.kind not in HARMLESS)

    def _card(self) -> Card:
        return plan_card(self)


@dataclass(frozen=True, slots=True)
class MigrationFailure:
    """What could not be migrated, and stays readable as it was."""

    kind: str
    """A stable word: ``damaged``, ``missing``, ``unreadable``, ``unloadable``, ``extension``, ``changed``,
    ``storage``."""
    task: str
    """Flow/run/step/task/attempt."""
    artifact: str
    """Empty: all of the task."""
    key: str
    why: str


@dataclass(slots=True, repr=False)
class MigrationResult(Shown):
    """What a migration did."""

    attempts: int = 0
    """Attempts of tasks whose data.json was replaced."""
    artifacts: int = 0
    """Different artifacts that were converted."""
    bytes: int = 0
    """Of these as they are pickled."""
    records: int = 0
    """Records of local metadata that were rewritten."""
    failures: list[MigrationFailure] = field(default_factory=list)

    @property
    def failed(self) -> Mapping[str, int]:
        """Number of failures, by kind."""
        return Counter(failure.kind for failure in self.failures)

    def _card(self) -> Card:
        return result_card(self)
