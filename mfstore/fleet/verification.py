"""``mfstore fleet verify``: what each part found, as one report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mfstore.maintenance.metaflow.report import MetaflowReport
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.verify import verify_metaflow
from mfstore.maintenance.store.report import VerifyReport
from mfstore.maintenance.verification import VerifyOptions
from mfstore.opening import open_store

if TYPE_CHECKING:
    from mfstore.fleet.request import Request
    from mfstore.fleet.shards import Shard


def verify_shard(request: Request, shard: Shard) -> MetaflowReport | VerifyReport:
    """Look at one part."""
    if not request.is_root:
        sample = (shard.number, shard.of) if request.level == "full" else None
        with open_store(request.url, create=False) as store:
            return store.verify(request.level, sample=sample)
    root = Root(request.url)
    try:
        return verify_metaflow(root, VerifyOptions(request.level), flows=shard.flows)[0]
    finally:
        root.close()


def merged_reports(reports: Sequence[MetaflowReport | VerifyReport], whole: bool) -> MetaflowReport | VerifyReport:
    """What all parts found. ``whole``: whether none is missing. Pure."""
    first = reports[0]
    complete = whole and all(report.complete for report in reports)
    remembered = all(report.remembered for report in reports)
    seconds = sum(report.seconds for report in reports)
    if isinstance(first, VerifyReport):
        stores = [report for report in reports if isinstance(report, VerifyReport)]
        return replace(
            first,
            findings=tuple(dict.fromkeys(finding for report in stores for finding in report.findings)),
            checked=sum(report.checked for report in stores),
            chunks=sum(report.chunks for report in stores),
            packs_checked=sum(report.packs_checked for report in stores),
            deltas=sum(report.deltas for report in stores),
            oldest=None, complete=complete, remembered=remembered, seconds=seconds,
        )  # fmt: skip
    roots = [report for report in reports if isinstance(report, MetaflowReport)]
    return replace(
        first,
        findings=tuple(dict.fromkeys(finding for report in roots for finding in report.findings)),
        flows=sum(report.flows for report in roots),
        runs=sum(report.runs for report in roots),
        tasks=sum(report.tasks for report in roots),
        blobs=sum(report.blobs for report in roots),
        stored=sum(report.stored for report in roots),
        blobs_checked=sum(report.blobs_checked for report in roots),
        checked=sum(report.checked for report in roots),
        running=sum(report.running for report in roots),
        oldest=None, complete=complete, remembered=remembered, seconds=seconds,
    )  # fmt: skip
