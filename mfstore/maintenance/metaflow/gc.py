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

from typing import TYPE_CHECKING

from mfstore.maintenance.metaflow.collecting.execution import Execution, execute, settle_before, tagged
from mfstore.maintenance.metaflow.collecting.plan import make_plan
from mfstore.maintenance.metaflow.collecting.state import StateFile
from mfstore.maintenance.metaflow.holdings import list_root, refuse_links
from mfstore.maintenance.metaflow.references import remembering
from mfstore.maintenance.report import untold
from mfstore.maintenance.spill import Spill

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.collecting.planned import MetaflowGcPlan
    from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
    from mfstore.maintenance.metaflow.collecting.result import MetaflowGcResult
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
    # Before anything is written: what is no root is left as it is. What comes after the listing is looked for again.
    holdings = list_root(root, tell, policy.flows, inventory, Spill())
    refuse_links(root, holdings)
    file = StateFile(root.backend)
    state = file.begin(take_over, wait)
    try:
        settled = settle_before(root, file, state, policy.running)
        if file.waited or settled.restored:
            holdings = list_root(root, tell, policy.flows, inventory, Spill())
        since = file.condemned_since()
        with remembering(root, holdings.find, writes=True, trusted=trust_known):
            plan = make_plan(root, holdings, policy, since, file.now, tell, metadata)
        others = {name for name in since if not policy.judges(name.partition("/")[0])}
        how = Execution(yes_really, take_over, wait, deletes_per_second, tell)
        done = execute(root, file, state, plan, [(plan, lambda: holdings)], since, settled, how, stays=others)
    finally:
        file.end()
    return plan, tagged(root, plan, done, metadata)
