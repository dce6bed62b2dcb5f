"""Carrying out a plan of a Metaflow root: what is dropped is condemned, and what was condemned long enough ago goes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mfstore.errors import Refused
from mfstore.holding import drop_ended
from mfstore.maintenance.audit import AuditLog
from mfstore.maintenance.metaflow.collecting.audit_lines import about, did, policy_of
from mfstore.maintenance.metaflow.collecting.liveness import Liveness
from mfstore.maintenance.metaflow.collecting.planned import MetaflowGcPlan
from mfstore.maintenance.metaflow.collecting.removal import Removal, Removed, prune
from mfstore.maintenance.metaflow.collecting.result import MetaflowGcResult
from mfstore.maintenance.metaflow.collecting.service_tags import tag_removed
from mfstore.maintenance.metaflow.collecting.set_aside import Settled, settle
from mfstore.maintenance.metaflow.collecting.state import RootGcState, StateFile
from mfstore.maintenance.metaflow.holds import FOLDER as HOLDS
from mfstore.maintenance.metaflow.packed_store import PackedCollection, collect_packed_store, has_packed_store
from mfstore.maintenance.pace import DeletionPace, pace_of
from mfstore.metaflow.roots.layout import LOG_FOLDER

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.collecting.policy import Run
    from mfstore.maintenance.metaflow.holdings import Holdings
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.report import PhaseCallback

Part = tuple[MetaflowGcPlan, "Callable[[], Holdings]"]
"""The plan of some flows, and what was listed of them."""


@dataclass(frozen=True, slots=True)
class Execution:
    """How a plan is carried out: as of ``collect_metaflow``."""

    yes_really: bool
    take_over: bool
    wait: float
    deletes_per_second: float | None
    tell: PhaseCallback


def settle_before(root: Root, file: StateFile, state: RootGcState, policy_running: float) -> Settled:
    """Settle what a collection left that was stopped, or that tasks ran beside."""
    settled = settle(root, Liveness(file.now, policy_running))
    prune(root, _runs(state.removing))
    return settled


def execute(
    root: Root, file: StateFile, state: RootGcState, plan: MetaflowGcPlan, parts: Sequence[Part],
    since: Mapping[str, float], settled: Settled, how: Execution, *, stays: Collection[str] = (),
    packed_stays: str = "",
) -> MetaflowGcResult:  # fmt: skip
    """Carry out a plan of which these are the parts, as the owner of the state.

    Args:
        root: The root.
        file: Where the state is.
        state: What it is.
        plan: All of it.
        parts: The same flow by flow, or several together; no flow in two of them. One at a time is listed.
        since: Since when runs have been condemned.
        settled: What was settled before.
        how: With what pace, and so on.
        stays: Runs that were condemned before and are not judged now: they stay so, or collections of one flow each
            would go on pardoning each other's.
        packed_stays: Why ``mf.store`` is left alone, if it is.

    Raises:
        Refused: no run would stay, or more would be condemned than the policy's ``max_drop``.
    """
    if plan.refusal and not how.yes_really:
        raise Refused(
            plan.refusal, backend=root.url,
            hint="Nothing was changed. The plan says what would go; keep more, or confirm with --yes-really",
        )  # fmt: skip
    dropped = _dropped(plan)
    now = file.now
    state = replace(
        state,
        condemned={name: since.get(name, now) for name in dropped},
        removing=tuple(name for name in state.removing if name in dropped),
    )
    # Before the list, which is named by the time of this: planning may have taken hours.
    file.save(state)
    if dropped or since:
        file.condemn(dropped.union(stays), plan.policy.grace)
    pace = DeletionPace(pace_of(how.deletes_per_second, root.remote))
    removed = Removed(held=dict(plan.held))
    if plan.does_something:
        log = AuditLog(root.backend, LOG_FOLDER, "gc", policy_of(plan))
        with log.execution(file.now, about(plan), lambda: did(removed, len(plan.condemn))):
            for part, holdings in parts:
                if part.remove or part.blobs or part.includes:
                    removal = Removal(root, file, state, part, holdings(), how.tell, pace, how.wait, removed)
                    removal.run()
                    state = removal.state
            again = settle(root, Liveness(file.now, plan.policy.running))
            settled = Settled(settled.restored + again.restored, again.left)
            prune(root, ())
    packed = PackedCollection(left_alone=packed_stays) if packed_stays else _collect_packed(root, plan, how)
    drop_ended(root.backend, HOLDS, plan.now)
    return MetaflowGcResult(
        condemned=len(plan.condemn), removed=tuple(removed.runs), deleted=removed.amount, held=removed.held,
        locked=removed.locked, set_aside=settled.left, restored=tuple(settled.restored), store=packed.result,
        store_left=packed.left_alone,
        ready=now + plan.policy.grace if plan.condemn else None,
    )  # fmt: skip


def tagged(root: Root, plan: MetaflowGcPlan, result: MetaflowGcResult, metadata: str) -> MetaflowGcResult:
    """Once all is done: give the runs a tag that a metadata service goes on listing."""
    if metadata != "service":
        return result
    gone = set(result.removed)
    there = {(entry.flow, entry.run) for entry in plan.runs if entry.name not in gone}
    found = tag_removed(root, there, plan.policy.judges, plan.now)
    return replace(result, tagged=found.runs, tags_refused=found.refused)


def _collect_packed(root: Root, plan: MetaflowGcPlan, how: Execution) -> PackedCollection:
    """Collect ``mf.store``: what was done, or why nothing was."""
    if not has_packed_store(root):
        return PackedCollection()
    if plan.as_of is not None:
        return PackedCollection(left_alone="what the newest runs need of it is in no inventory")
    if plan.others:
        return PackedCollection(left_alone="what other flows need of it was not looked at: it needs one without --flow")
    if plan.unknown or plan.unreadable:
        return PackedCollection(left_alone="not all of what runs refer to is known")
    # Runs to be removed count too: their bundles are condemned by the next collection.
    return collect_packed_store(
        root, plan.all_bundles, plan.policy.grace, yes_really=how.yes_really, take_over=how.take_over,
        deletes_per_second=how.deletes_per_second,
    )  # fmt: skip


def _runs(names: Iterable[str]) -> list[Run]:
    """The runs of these names; what is no name of one is left out: every task may write the state."""
    parts = [name.partition("/") for name in names]
    return [(flow, run) for flow, _, run in parts if flow.isidentifier() and "/" not in run and run.strip(".")]


def _dropped(plan: MetaflowGcPlan) -> set[str]:
    """The runs that nothing keeps: those that are condemned now, and those that stay so."""
    return {*map("/".join, plan.waiting), *(entry.name for entry in (*plan.condemn, *plan.remove))}
