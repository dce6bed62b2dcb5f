"""Garbage collection of stock Metaflow's datastore roots.

A run that the policy drops is first condemned, and removed by a later collection at least the grace period after. What
goes with it: its own files, its cards, and the blobs and IncludeFiles that no other run refers to, whatever became of
that run's attempts: a resumed run refers to the blobs of its origin, so they stay. Nothing of a flow goes while one of
its attempts is running, because a task about to end may take any blob of its flow for stored.

Blobs that no run ever referred to are left alone: the code package of a deployment that did not run yet is one. What
runs referred to before they were migrated goes, the grace period after that.

The store of the packed profile is collected by its own rules, with every bundle that a run refers to as its roots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mfstore.errors import Refused
from mfstore.holding import drop_ended
from mfstore.maintenance.audit import AuditLog
from mfstore.maintenance.metaflow.collecting.audit_lines import (
    about,
    did,
    policy_of,
)
from mfstore.maintenance.metaflow.collecting.liveness import Liveness
from mfstore.maintenance.metaflow.collecting.plan import make_plan
from mfstore.maintenance.metaflow.collecting.planned import MetaflowGcPlan
from mfstore.maintenance.metaflow.collecting.policy import Run, RunPolicy
from mfstore.maintenance.metaflow.collecting.removal import Removal, prune
from mfstore.maintenance.metaflow.collecting.result import MetaflowGcResult
from mfstore.maintenance.metaflow.collecting.service_tags import Tagged, tag_removed
from mfstore.maintenance.metaflow.collecting.set_aside import Settled, settle
from mfstore.maintenance.metaflow.collecting.state import StateFile
from mfstore.maintenance.metaflow.holdings import list_root, refuse_links
from mfstore.maintenance.metaflow.holds import FOLDER as HOLDS
from mfstore.maintenance.metaflow.packed_store import PackedCollection, collect_packed_store, has_packed_store
from mfstore.maintenance.metaflow.references import remembering
from mfstore.maintenance.pace import DeletionPace, pace_of
from mfstore.maintenance.report import untold
from mfstore.metaflow.roots.layout import LOG_FOLDER

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.report import PhaseCallback


def collect_metaflow(
    root: Root,
    policy: RunPolicy,
    *,
    metadata: str = "local",
    inventory: str | None = None,
    trust_known: bool = False,
    yes_really: bool = False,
    take_over: bool = False,
    wait: float = 0.0,
    deletes_per_second: float | None = None,
    tell: PhaseCallback = untold,
) -> tuple[MetaflowGcPlan, MetaflowGcResult]:
    """Condemn the runs that the policy drops, and remove those condemned at least the grace period ago.

    May be stopped at any time and run again.

    Args:
        root: The datastore root.
        policy: Which runs are dropped, and when.
        metadata: Where tags, users and signs of life of runs are read: ``local`` (below the root), ``local:PATH``
            (below another), ``service`` (Metaflow's metadata service, through Metaflow) or ``none``.
        inventory: The URL of an S3 Inventory, of its ``manifest.json`` or of the folder of the dated ones: what is
            there is read from it, and of flows that something is removed of, their runs are listed. The packed
            profile's store is left alone then.
        trust_known: What collections remember of files is believed where ETags are no digests, too: no task may write
            to ``mf.maintenance/``.
        yes_really: Also when no run would stay, or more would be condemned than the policy's ``max_drop``.
        take_over: Also when another collector is at work by the look of it: it died within the last minutes.
        wait: How many seconds to wait at most until another collector has ended or counts as dead, and until a flow has
            no running task.
        deletes_per_second: Objects that are deleted in a second, at most; 0: as many as can be. None: 1000 in S3.
        tell: Called now and then with how far it is.

    Raises:
        InvalidKey: the policy makes no sense.
        NotAStore: there is no root. Nothing is written then.
        Refused: no run would stay, more would be condemned than the policy's ``max_drop``, a symbolic link hides runs,
            or the inventory is too old or of another bucket.
        Conflict: another collector is at work, or has taken over.
        CorruptObject: the state of collection is damaged.
        AccessDenied: there is no right to read, to write or to delete.
        BackendError: the metadata service does not answer, or the storage does not.
    """
    policy.check()
    pace = DeletionPace(pace_of(deletes_per_second, root.remote))
    # Before anything is written: what is no root is left as it is. What comes after the listing is looked for again.
    holdings = list_root(root, tell, policy.flows, inventory)
    refuse_links(root, holdings)
    file = StateFile(root.backend)
    state = file.begin(take_over, wait)
    try:
        # What a collection left that was stopped, or that tasks ran beside.
        settled = settle(root, Liveness(file.now, policy.running))
        prune(root, _runs(state.removing))
        if file.waited or settled.restored:
            holdings = list_root(root, tell, policy.flows, inventory)
        now = file.now
        since = file.condemned_since()
        with remembering(root, holdings.find, writes=True, trusted=trust_known):
            plan = make_plan(root, holdings, policy, since, now, tell, metadata)
        if plan.refusal and not yes_really:
            raise Refused(
                plan.refusal, backend=root.url,
                hint="Nothing was changed. The plan says what would go; keep more, or confirm with --yes-really",
            )  # fmt: skip
        dropped = _dropped(plan)
        state = replace(
            state,
            condemned={name: since.get(name, now) for name in dropped},
            removing=tuple(name for name in state.removing if name in dropped),
        )
        # Before the list, which is named by the time of this: planning may have taken hours.
        file.save(state)
        if dropped or since:
            file.condemn(dropped | _of_other_flows(plan, since), policy.grace)
        removal = Removal(root, file, state, plan, holdings, tell, pace, wait)
        if plan.does_something:
            log = AuditLog(root.backend, LOG_FOLDER, "gc", policy_of(plan))
            with log.execution(file.now, about(plan), lambda: did(removal.removed, len(plan.condemn))):
                removal.run()
                again = settle(root, Liveness(file.now, policy.running))
                settled = Settled(settled.restored + again.restored, again.left)
                prune(root, ())
        packed = _collect_packed(root, plan, yes_really, take_over, deletes_per_second)
        drop_ended(root.backend, HOLDS, plan.now)
    finally:
        file.end()
    removed = removal.removed
    tagged = Tagged()
    if metadata == "service":
        gone = set(removed.runs)
        there = {(entry.flow, entry.run) for entry in plan.runs if entry.name not in gone}
        tagged = tag_removed(root, there, policy.judges, plan.now)
    return plan, MetaflowGcResult(
        condemned=len(plan.condemn), removed=tuple(removed.runs), deleted=removed.amount, held=removed.held,
        set_aside=settled.left, restored=tuple(settled.restored), store=packed.result, store_left=packed.left_alone,
        tagged=tagged.runs, tags_refused=tagged.refused, ready=now + policy.grace if plan.condemn else None,
    )  # fmt: skip


def _collect_packed(
    root: Root, plan: MetaflowGcPlan, yes_really: bool, take_over: bool, deletes_per_second: float | None
) -> PackedCollection:
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
    grace = plan.policy.grace
    return collect_packed_store(
        root, plan.all_bundles, grace, yes_really=yes_really, take_over=take_over,
        deletes_per_second=deletes_per_second,
    )  # fmt: skip


def _of_other_flows(plan: MetaflowGcPlan, since: Mapping[str, float]) -> set[str]:
    """The condemned runs that this policy does not judge: they stay so, or collections of one flow each would go on
    pardoning each other's."""
    return {name for name in since if not plan.policy.judges(name.partition("/")[0])}


def _runs(names: Iterable[str]) -> list[Run]:
    """The runs of these names; what is no name of one is left out: every task may write the state."""
    parts = [name.partition("/") for name in names]
    return [(flow, run) for flow, _, run in parts if flow.isidentifier() and "/" not in run and run.strip(".")]


def _dropped(plan: MetaflowGcPlan) -> set[str]:
    """The runs that nothing keeps: those that are condemned now, and those that stay so."""
    return {*map("/".join, plan.waiting), *(entry.name for entry in (*plan.condemn, *plan.remove))}
