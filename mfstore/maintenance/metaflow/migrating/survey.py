"""What a migration finds below a root, and what it would do. Reads, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mfstore.errors import MfstoreError, NotFound
from mfstore.maintenance.metaflow.holdings import Holdings
from mfstore.maintenance.metaflow.known_files import FILES_TOGETHER
from mfstore.maintenance.metaflow.migrating.changes import (
    AttemptChanges,
    EndedAttempt,
    LeftAlone,
    MigrationOptions,
    changes_of,
    choose_attempts,
)
from mfstore.maintenance.metaflow.migrating.records import ArtifactRecords
from mfstore.maintenance.metaflow.migrating.report import FlowShare, MigrationPlan
from mfstore.maintenance.metaflow.packed_store import open_packed_store
from mfstore.maintenance.report import PhaseProgress
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.attempts import DATA

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.report import PhaseCallback


@dataclass(frozen=True, slots=True)
class MigrationSurvey:
    """A root as it was listed."""

    root: Root
    options: MigrationOptions
    holdings: Holdings
    attempts: list[EndedAttempt]
    """Those to look into, in the order they began, flow by flow."""
    left: list[LeftAlone]
    """What is left before that."""
    bundles: Collection[str]
    """What is there of the packed profile's store; known if artifacts are to leave it."""
    records: ArtifactRecords
    """Local metadata."""

    def documents(self) -> Iterator[tuple[EndedAttempt, dict[str, Any] | LeftAlone]]:
        """What each attempt's data.json says, or why that is not known."""
        for at in range(0, len(self.attempts), FILES_TOGETHER):
            window = self.attempts[at : at + FILES_TOGETHER]
            found = self.root.backend.get_many([attempt.path for attempt in window])
            for attempt, (_, data) in zip(window, found, strict=True):
                try:
                    if isinstance(data, MfstoreError):
                        raise data
                    layout.references(DATA, data)
                    yield attempt, json.loads(bytes(data))
                except MfstoreError as error:
                    yield attempt, LeftAlone("unreadable", attempt.name, error.message)

    def changes(self, attempt: EndedAttempt, document: Mapping[str, Any]) -> AttemptChanges:
        """What of an attempt is to be changed."""
        return changes_of(attempt, document, self.options.to, self.holdings.blobs, self.bundles)

    def plan(self, tell: PhaseCallback) -> MigrationPlan:
        """What there is to do."""
        left = list(self.left)
        by_flow: dict[str, _FlowTotals] = {}
        unrecorded = rekeyed = 0
        for done, (attempt, document) in enumerate(self.documents()):
            if done % FILES_TOGETHER == 0:
                tell(PhaseProgress("tasks", done, len(self.attempts)))
            totals = by_flow.setdefault(attempt.task[0], _FlowTotals())
            if isinstance(document, LeftAlone):
                left.append(document)
                continue
            found = self.changes(attempt, document)
            totals.add(attempt, found, self.holdings)
            left += found.left
            if found.change and not self.records.has(attempt):
                unrecorded += 1
                rekeyed += found.rekeyed
        tell(PhaseProgress("tasks", len(self.attempts), len(self.attempts)))
        for entry in left:
            kinds = by_flow.setdefault(entry.what.partition("/")[0], _FlowTotals()).left
            kinds[entry.kind] = kinds.get(entry.kind, 0) + 1
        flows = tuple(totals.share(flow) for flow, totals in sorted(by_flow.items()))
        return MigrationPlan(self.root.url, self.options.to, flows, tuple(left), rekeyed, unrecorded)


def survey(
    root: Root, holdings: Holdings, options: MigrationOptions, metadata: Root | None, removing: Collection[str],
    now: float,
) -> MigrationSurvey:  # fmt: skip
    """What is to be looked into of a root as it was listed. ``metadata`` is where the local metadata is, if not below
    it; ``removing`` are runs that garbage collection is about to remove, and ``now`` is the storage's time."""
    records = ArtifactRecords((metadata or root).backend)
    listed = [info for _, info in holdings.metadata] if metadata is None else metadata.backend.list("")
    records.find(info.key for info in listed)
    attempts, left = choose_attempts(holdings, options, removing, now)
    bundles = _stored_bundles(root) if options.to == "stock" else ()
    return MigrationSurvey(root, options, holdings, attempts, left, bundles, records)


def _stored_bundles(root: Root) -> Collection[str]:
    with open_packed_store(root) as store, suppress(NotFound):
        return {str(key) for key in store.keys()}  # noqa: SIM118
    return ()


@dataclass(slots=True)
class _FlowTotals:
    """What there is to do in a flow, being added up."""

    runs: set[str] = field(default_factory=set)
    attempts: int = 0
    artifacts: set[tuple[str, str]] = field(default_factory=set)
    bytes: int = 0
    already: int = 0
    left: dict[str, int] = field(default_factory=dict)

    def add(self, attempt: EndedAttempt, found: AttemptChanges, holdings: Holdings) -> None:
        """Count an attempt."""
        self.already += found.already
        if found.change:
            self.attempts += 1
            self.runs.add(attempt.task[1])
        for artifact, info in found.change.items():
            if (artifact.name, artifact.key) not in self.artifacts:
                self.artifacts.add((artifact.name, artifact.key))
                blob = holdings.blobs.get((attempt.task[0], artifact.key))
                self.bytes += info.get("size") or 0 if blob is None else blob.size

    def share(self, flow: str) -> FlowShare:
        """The sum."""
        return FlowShare(
            flow, len(self.runs), self.attempts, len(self.artifacts), self.bytes, self.already, dict(self.left)
        )
