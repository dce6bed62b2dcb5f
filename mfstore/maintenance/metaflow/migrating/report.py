"""What a migration would do, and what it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from mfstore.display.amounts import count, size
from mfstore.display.cards import Card, Cell, Grid, code_cell
from mfstore.display.shown import Shown
from mfstore.display.words import short_keys
from mfstore.maintenance.metaflow.migrating.changes import HARMLESS, LeftAlone
from mfstore.maintenance.told import SHOWN

LEFT = {
    "running": ("run", "that may be going on"),
    "removing": ("run", "that garbage collection is removing"),
    "unfinished": ("attempt", "that never ended"),
    "unreadable": ("attempt", "whose data.json cannot be read"),
    "extension": ("artifact", "in another extension's format"),
    "missing": ("artifact", "whose data is missing"),
}
"""What is left, by kind."""
STAYED = "These stay as they were; all else was done."
KEPT = "What artifacts were before stays until mfstore gc --metaflow takes it, its grace period from now"


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


# ---- what people are told ---------------------------------------------------------------


def flows_grid(plan: MigrationPlan) -> Grid:
    """What there is to do, flow by flow."""
    rows = tuple(
        (
            code_cell(share.flow),
            f"{share.runs:,}",
            f"{share.attempts:,}",
            f"{share.artifacts:,}",
            size(share.bytes),
            f"{share.already:,}",
        )
        for share in plan.flows
    )
    return Grid(("flow", "runs", "tasks", "artifacts", "bytes now", "already so"), rows, (1, 2, 3, 4, 5))


def left_alone(plan: MigrationPlan) -> dict[str, str]:
    """What is left as it is, in a sentence for each kind of it."""
    kinds = Counter(entry.kind for entry in plan.left)
    return {
        kind: f"left alone: {count(number, LEFT[kind][0])} {LEFT[kind][1]}" for kind, number in sorted(kinds.items())
    }


def keys_notes(plan: MigrationPlan) -> list[str]:
    """What becomes of keys that others have, in sentences."""
    notes = []
    if plan.unrecorded:
        notes.append(
            f"{count(plan.unrecorded, 'task')} of these have no local metadata here. Where a metadata service has it, "
            "its records keep the former keys: "
            + (
                "clients with mfstore find the artifacts all the same, clients without it what they were before, "
                "which garbage collection leaves alone for them."
                if plan.to == "packed"
                else "clients with mfstore find the artifacts all the same, clients without it cannot load what was "
                "registered as packed; flows and resume can."
            )
        )
    if plan.rekeyed:
        notes.append(
            f"{count(plan.rekeyed, 'artifact')} of them were stock before and their blobs are gone: what is pickled "
            "otherwise today gets another key, and a client without mfstore cannot load it by the service's records."
        )
    return notes


def did(result: MigrationResult) -> str:
    """What was done."""
    if not (result.attempts or result.records or result.failures):
        return "There was nothing to do."
    records = f"; {count(result.records, 'record')} of local metadata brought up to date" if result.records else ""
    return (
        f"migrated {count(result.attempts, 'task')}: {count(result.artifacts, 'artifact')}, "
        f"{size(result.bytes)} pickled{records}"
    )


def plan_card(plan: MigrationPlan) -> Card:
    """What a migration would do."""
    facts = (("to", f"the {plan.to} profile"),)
    does = "migrate_metaflow() does this." if plan.changes else "There is nothing to do."
    return Card(
        "migration of", plan.url, facts, (flows_grid(plan),), (*left_alone(plan).values(), *keys_notes(plan), does)
    )


def result_card(result: MigrationResult) -> Card:
    """What a migration did."""
    failed = result.failures
    grids: tuple[Grid, ...] = ()
    if failed:
        rows = tuple(
            (
                Cell(failure.kind, look="bad"),
                code_cell(failure.task),
                code_cell(failure.artifact),
                short_keys(failure.why),
            )
            for failure in failed[:SHOWN]
        )
        grids = (Grid(("failed", "task", "artifact", "why"), rows, more=len(failed) - len(rows)),)
    notes = (*([STAYED] if failed else []), *([KEPT + "."] if result.attempts else []))
    facts: tuple[tuple[str, Cell | str], ...] = (("done", did(result)),)
    if failed:
        facts = (*facts, ("failed", Cell(f"{len(failed):,}", look="bad")))
    return Card("migrated", "", facts, grids, notes)
