"""Garbage collection of a root in parts: what goes is planned of some flows each, on as many machines as there are, and
carried out by one.

Planning is what takes long: it lists everything and reads what every new attempt refers to. It changes nothing, so a
part may be planned twice, or beside a machine that was taken for dead. What deletes is one collector, as ever: its pace
is that of the fleet, its log is one, and what protects running tasks need not know of others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mfstore.display.amounts import count
from mfstore.maintenance.clock import written
from mfstore.maintenance.metaflow.collecting.execution import Execution, execute, settle_before, tagged
from mfstore.maintenance.metaflow.collecting.merging import merged
from mfstore.maintenance.metaflow.collecting.plan import make_plan, own_files, stored
from mfstore.maintenance.metaflow.collecting.state import StateFile
from mfstore.maintenance.metaflow.holdings import Holdings, list_flows, refuse_links
from mfstore.maintenance.metaflow.references import remembering
from mfstore.maintenance.report import untold
from mfstore.maintenance.spill import Spill
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.layout import MAINTENANCE_FOLDER

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo
    from mfstore.maintenance.metaflow.collecting.planned import MetaflowGcPlan
    from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
    from mfstore.maintenance.metaflow.collecting.result import MetaflowGcResult
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.report import PhaseCallback


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """What goes of some flows."""

    plan: MetaflowGcPlan
    holdings: Callable[[], Holdings]
    """What was listed that removing needs to know, when it is wanted: of one part at a time."""


def plan_shard(
    root: Root,
    policy: RunPolicy,
    flows: Sequence[str],
    *,
    metadata: str = "local",
    inventory: str | None = None,
    trust_known: bool = False,
    execute: bool = False,
    tell: PhaseCallback = untold,
) -> tuple[MetaflowGcPlan, Holdings]:
    """The plan of these flows, and what was listed that removing needs to know. What was read is remembered, if it is
    to be executed; nothing else below the root is changed.

    The arguments and what is raised: as of ``collect_metaflow``; a flow that is gone is no error.
    """
    policy.check()
    only = replace(policy, flows=tuple(flows))
    holdings = list_flows(root, flows, tell, inventory, Spill())
    refuse_links(root, holdings)
    now = _storage_now(root) if execute else time.time()
    since = StateFile(root.backend).condemned_since()
    with remembering(root, holdings.find, writes=execute, trusted=trust_known):
        plan = make_plan(root, holdings, only, since, now, tell, metadata)
    return plan, needed(plan, holdings)


def _storage_now(root: Root) -> float:
    """The storage's time. Ages of what it stores are told by no other clock."""
    probe = f"{MAINTENANCE_FOLDER}/clock-{os.urandom(8).hex()}"
    root.backend.put(probe, [b""])
    try:
        return written(root.backend, probe)
    finally:
        root.backend.delete(probe)


def needed(plan: MetaflowGcPlan, holdings: Holdings) -> Holdings:
    """What was listed of the flows that something is to be removed of: files of all tasks, since new ones are told by
    them, and what goes itself."""
    found = Holdings(holdings.only, holdings.as_of)
    found.add_all(_needed(plan, holdings))
    found.settle()
    return found


def _needed(plan: MetaflowGcPlan, holdings: Holdings) -> Iterator[ObjectInfo]:
    doomed = {entry.flow for entry in plan.remove} | {flow for flow, _ in (*plan.blobs, *plan.includes)}
    for _, task in holdings.tasks.of_flows(doomed):
        yield from task.files.values()
    runs = {(entry.flow, entry.run) for entry in plan.remove}
    for infos in own_files(holdings, runs, plan.spared).values():
        yield from (info for info in infos if layout.parse(info.key).kind != "task")
    yield from stored(holdings, plan.blobs)
    yield from holdings.includes.some(plan.includes).values()


def merged_plan(policy: RunPolicy, shards: Sequence[PlannedShard], failed: Collection[str]) -> MetaflowGcPlan:
    """The plan of all these flows together. ``failed``: the flows that are in none of them."""
    return merged([shard.plan for shard in shards], policy, bool(policy.flows or failed))


def collect_shards(
    root: Root,
    policy: RunPolicy,
    shards: Sequence[PlannedShard],
    failed: Collection[str],
    *,
    running: Mapping[str, str] | None = None,
    metadata: str = "local",
    yes_really: bool = False,
    take_over: bool = False,
    wait: float = 0.0,
    deletes_per_second: float | None = None,
    tell: PhaseCallback = untold,
) -> tuple[MetaflowGcPlan, MetaflowGcResult]:
    """Condemn and remove what the parts of a plan say, which were made with ``execute`` and are of all flows that the
    policy judges but those that ``failed``. Those are left as they are, and so is ``mf.store`` then. Of flows that are
    known to be ``running``, with why, nothing is removed, and nobody waits for them.

    Returns the plan of all parts together, and what was done. Arguments and errors: as of ``collect_metaflow``.
    """
    file = StateFile(root.backend)
    state = file.begin(take_over, wait)
    try:
        settled = settle_before(root, file, state, policy.running)
        since = file.condemned_since()
        plans = [_still_due(_without(shard.plan, running or {}, file.now), since, file.now) for shard in shards]
        if any(plan.unreadable for plan in plans):  # what is not read may name IncludeFiles of any flow
            plans = [replace(plan, includes=frozenset()) for plan in plans]
        plan = merged(plans, policy, bool(policy.flows or failed))
        stays = {name for name in since if (flow := name.partition("/")[0]) in failed or not policy.judges(flow)}
        how = Execution(yes_really, take_over, wait, deletes_per_second, tell)
        done = execute(
            root, file, state, plan, [(part, shard.holdings) for part, shard in zip(plans, shards, strict=True)],
            since, settled, how, stays=stays, packed_stays=_packed_stays(plan, failed, file.now),
        )  # fmt: skip
    finally:
        file.end()
    return plan, tagged(root, plan, done, metadata)


def _still_due(plan: MetaflowGcPlan, since: Mapping[str, float], now: float) -> MetaflowGcPlan:
    """The plan without the flows of which a run is not condemned any more: a collection by another policy was there
    meanwhile."""
    due = {name for name, moment in since.items() if moment + plan.policy.grace <= now}
    late = {entry.flow for entry in plan.remove if entry.name not in due}
    return _without(plan, dict.fromkeys(sorted(late), "another collection kept runs of it since this was planned"), now)


def _without(plan: MetaflowGcPlan, flows: Mapping[str, str], now: float) -> MetaflowGcPlan:
    """The plan with nothing removed of these flows, for these reasons."""
    doomed = {entry.flow for entry in plan.remove} | {flow for flow, _ in (*plan.blobs, *plan.includes)}
    held = {flow: why for flow, why in flows.items() if flow in doomed}
    if not held:
        return plan
    return replace(
        plan,
        held={**plan.held, **held},
        remove=tuple(entry for entry in plan.remove if entry.flow not in held),
        waiting={**plan.waiting, **{(entry.flow, entry.run): now for entry in plan.remove if entry.flow in held}},
        blobs=frozenset(blob for blob in plan.blobs if blob[0] not in held),
        includes=frozenset(name for name in plan.includes if name[0] not in held),
    )


def _packed_stays(plan: MetaflowGcPlan, failed: Collection[str], now: float) -> str:
    """Why ``mf.store`` must be left alone, or nothing."""
    if failed:
        return f"what {count(len(failed), 'flow')} need of it could not be looked at"
    if now - plan.now >= plan.policy.grace:  # what is named within the grace period is what that protects
        return "what runs need of it was looked at longer than the grace period ago"
    return ""
