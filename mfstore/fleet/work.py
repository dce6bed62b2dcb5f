"""What the steps of the flow do: cut the work, do one part of it, and put together what became of the parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from mfstore.errors import NotFound, Refused
from mfstore.fleet.measuring import Measured, measure_shard
from mfstore.fleet.shards import Shard, cut_root, cut_store
from mfstore.fleet.usage import Usage, merged_usage, usage_of_shard
from mfstore.fleet.verification import merged_reports, verify_shard
from mfstore.maintenance.metaflow.collecting.planned import MetaflowGcPlan
from mfstore.maintenance.metaflow.collecting.result import MetaflowGcResult
from mfstore.maintenance.metaflow.holdings import list_root, top_folders
from mfstore.maintenance.metaflow.report import MetaflowReport
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.sharded_gc import PlannedShard, collect_shards, merged_plan, plan_shard
from mfstore.maintenance.report import untold
from mfstore.maintenance.store.report import VerifyReport
from mfstore.metaflow.roots import layout
from mfstore.opening import open_store

if TYPE_CHECKING:
    from mfstore.fleet.request import Request
    from mfstore.maintenance.metaflow.holdings import Holdings

FLOW = "MfstoreFleet"
"""The flow that does this: it cannot wait for its own end."""
Found: TypeAlias = MetaflowGcPlan | MetaflowReport | VerifyReport | Usage | Measured
"""What one part of the work found."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one part."""

    shard: Shard
    found: Found | None
    """None when it failed."""
    why: str = ""
    """Why it failed."""
    holdings: Callable[[], Any] = tuple
    """Of ``gc``: as of ``PlannedShard``."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of all of it."""

    found: Found
    """What all parts found together."""
    result: MetaflowGcResult | None = None
    """Of ``gc``: what was done; None: nothing was."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Parts that could not be looked at, though they were tried several times, and why."""


def cut(request: Request) -> list[Shard]:
    """The parts of the work. As ``list_root``, or the opening of a store, for a place where neither is."""
    request.check()
    if request.action == "bench":
        return cut_store(request)
    if not request.is_root:
        with open_store(request.url, create=False, **request.reached) as store:
            store.handle.access("read")
        return cut_store(request)
    root = Root(request.url, **request.reached)
    try:
        policy = request.policy
        flows = [flow for flow in top_folders(root) if layout.is_flow(flow)]
        if policy is not None:
            flows = [flow for flow in flows if policy.judges(flow)]
        if not flows:
            list_root(root, untold)  # says what is there instead
            raise NotFound("no flow is there that the policy judges", backend=root.url)
        return cut_root(flows, request.shards)
    finally:
        root.close()


def work(request: Request, shard: Shard) -> tuple[Found, Holdings | None]:
    """Do one part: what it found, and of ``gc`` what was listed that removing needs to know. May be done twice, and
    beside one that was taken for dead: it changes nothing but what is remembered."""
    if request.action == "bench":
        return measure_shard(request, shard), None
    if request.action == "verify":
        return verify_shard(request, shard), None
    if request.action == "du":
        return usage_of_shard(request, shard), None
    assert request.policy is not None, "Request.check was called"
    root = Root(request.url, **request.reached)
    try:
        return plan_shard(
            root, request.policy, shard.flows, metadata=request.metadata, inventory=request.inventory,
            trust_known=request.trust_known, execute=request.execute,
        )  # fmt: skip
    finally:
        root.close()


def finish(request: Request, done: Sequence[Done]) -> Outcome:
    """Put together what the parts found; of ``gc``, carry it out. Refused when every part failed."""
    failed = {str(part.shard): part.why for part in done if part.found is None}
    found: list[Any] = [part.found for part in done if part.found is not None]
    if not found:
        raise Refused(f"no part could be looked at: {next(iter(failed.values()), '')}", backend=request.url)
    if request.action == "bench":
        reports = tuple(report for part in found for report in part.reports)
        return Outcome(Measured(tuple(sorted(reports, key=lambda report: report.number))), failed=failed)
    if request.action == "verify":
        return Outcome(merged_reports(found, not failed), failed=failed)
    if request.action == "du":
        return Outcome(merged_usage(found), failed=failed)
    assert request.policy is not None, "Request.check was called"
    shards = [PlannedShard(part.found, part.holdings) for part in done if isinstance(part.found, MetaflowGcPlan)]
    unseen = {flow for part in done if part.found is None for flow in part.shard.flows}
    if not request.execute:
        return Outcome(merged_plan(request.policy, shards, unseen), failed=failed)
    root = Root(request.url, **request.reached)
    try:
        plan, result = collect_shards(
            root, request.policy, shards, unseen, running={FLOW: "this is its run"}, metadata=request.metadata,
            yes_really=request.yes_really, wait=request.wait, deletes_per_second=request.deletes_per_second,
        )  # fmt: skip
        return Outcome(plan, result, failed)
    finally:
        root.close()
