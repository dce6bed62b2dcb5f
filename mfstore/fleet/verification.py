"""``mfstore fleet verify``: what each part found, as one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mfstore.maintenance.metaflow.report import MetaflowReport
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.verify import verify_metaflow
from mfstore.maintenance.store.report import VerifyReport
from mfstore.maintenance.verification import VerifyOptions
from mfstore.opening import open_store

if TYPE_CHECKING:
    from mfstore.fleet.request import Request
    from mfstore.fleet.shards import Shard


SUMMED: Mapping[type[MetaflowReport | VerifyReport], Sequence[str]] = {
    VerifyReport: ("chunks", "packs_checked", "deltas"),
    MetaflowReport: ("flows", "runs", "tasks", "blobs", "stored", "blobs_checked", "running"),
}
"""Fields of a report that are of its part alone. Of a store, what is listed each part lists whole."""


def verify_shard(request: Request, shard: Shard) -> MetaflowReport | VerifyReport:
    """Look at one part."""
    if not request.is_root:
        sample = (shard.number, shard.of) if request.level == "full" else None
        with open_store(request.url, create=False, **request.reached) as store:
            return store.verify(request.level, sample=sample)
    root = Root(request.url, **request.reached)
    try:
        return verify_metaflow(root, VerifyOptions(request.level), flows=shard.flows)[0]
    finally:
        root.close()


def merged_reports(reports: Sequence[MetaflowReport | VerifyReport], whole: bool) -> MetaflowReport | VerifyReport:
    """What all parts found. ``whole``: whether none is missing. Pure."""
    first = reports[0]
    found: dict[str, Any] = {
        name: sum(getattr(report, name) for report in reports) for name in (*SUMMED[type(first)], "checked", "seconds")
    }
    found["findings"] = tuple(dict.fromkeys(finding for report in reports for finding in report.findings))
    return replace(
        first,
        **found,
        oldest=None,
        complete=whole and all(report.complete for report in reports),
        remembered=all(report.remembered for report in reports),
    )
