"""Runs that a metadata service goes on listing once they are removed: each gets a tag there, if the service allows it.

Which runs these are is told by the log of collections, not by this collection alone: one that was killed between a
removal and the tag leaves it to the next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mfstore.errors import MfstoreError
from mfstore.maintenance.audit import read_log
from mfstore.maintenance.clock import DAY
from mfstore.maintenance.metaflow.collecting.service_records import MetadataService
from mfstore.metaflow.roots.layout import LOG_FOLDER

if TYPE_CHECKING:
    from mfstore.format.audit import AuditRecord
    from mfstore.maintenance.metaflow.collecting.policy import Run
    from mfstore.maintenance.metaflow.root import Root

REMOVED_TAG = "mfstore:removed"
LOOKED_BACK = 7 * DAY
"""Seconds for which removals are tagged later that were not at once."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """What became of the tags."""

    runs: int = 0
    """Runs that got one."""
    refused: str = ""
    """Why not all did."""


def removed_runs(records: Iterable[AuditRecord], there: Collection[Run]) -> dict[str, set[str]]:
    """The runs of each flow that these collections were about to remove, and that are not there any more."""
    found: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for line in record.lines:
            flow, slash, run = str(line.get("remove", "")).partition("/")
            if slash and (flow, run) not in there:
                found[flow].add(run)
    return found


def tag_removed(root: Root, there: Collection[Run], judged: Callable[[str], bool], now: float) -> Tagged:
    """Tag the runs that collections of the last days removed. ``there`` are those that there are at this time, of the
    flows that are ``judged``.

    One request for each flow with such runs, and one for each run. It ends at the first that the service refuses, and
    raises nothing: the runs are removed.
    """
    done = 0
    try:
        removed = removed_runs(read_log(root.backend, LOG_FOLDER, now - LOOKED_BACK), there)
        for flow, runs in sorted((flow, runs) for flow, runs in removed.items() if judged(flow)):
            service = MetadataService()
            tags = {str(found.get("run_number")): found.get("tags") or () for found in service.children(flow)}
            for run in sorted(run for run in runs & tags.keys() if REMOVED_TAG not in tags[run]):
                service.add_tag((flow, run), REMOVED_TAG)
                done += 1
    except MfstoreError as error:
        return Tagged(done, str(error))
    return Tagged(done)
