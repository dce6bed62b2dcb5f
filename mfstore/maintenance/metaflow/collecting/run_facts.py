"""What is known of each run below a root: from its files and its metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mfstore.maintenance.metaflow.collecting import facts
from mfstore.maintenance.metaflow.collecting.beginnings import EARLIEST, read_beginnings
from mfstore.maintenance.metaflow.collecting.facts import RunFacts
from mfstore.maintenance.metaflow.collecting.liveness import Liveness, heartbeats_in, longest_attempts
from mfstore.maintenance.metaflow.collecting.policy import Run, RunPolicy
from mfstore.maintenance.metaflow.collecting.record_sources import read_records, records_of
from mfstore.maintenance.metaflow.collecting.records import RunRecord
from mfstore.maintenance.metaflow.holds import run_holds

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo
    from mfstore.format.holds import Hold
    from mfstore.maintenance.metaflow.holdings import Holdings
    from mfstore.maintenance.metaflow.root import Root


@dataclass(slots=True)
class _RunFiles:
    """The files of one run, being counted: what tasks wrote besides blobs, local metadata, and cards."""

    tasks: int = 0
    files: int = 0
    size: int = 0
    """Bytes of them."""
    earliest: float = float("inf")
    """The time of the earliest one of its tasks; where it has no tasks, of any."""
    touched: float = 0.0
    """The time of the latest."""
    running: bool = False

    def add(self, info: ObjectInfo, of_task: bool) -> None:
        """Count one."""
        self.files += 1
        self.size += info.size
        self.touched = max(self.touched, info.modified)
        if of_task or not self.tasks:
            self.earliest = min(self.earliest, info.modified)


def read_run_facts(root: Root, holdings: Holdings, policy: RunPolicy, now: float, metadata: str) -> Iterator[RunFacts]:
    """What decides about each run. ``metadata`` says where their records are read (``records_of``). Besides, the last
    task of each is read, which tells how it ended; and of those of which nothing else tells when they began, a small
    file more."""
    found: dict[Run, _RunFiles] = {}
    for name, task in holdings.tasks.items():
        files = found.setdefault(name[:2], _RunFiles())
        files.tasks += 1
        for info in task.files.values():
            files.add(info, of_task=True)
    for path, info in holdings.metadata:
        if path.run:
            found.setdefault((path.flow, path.run), _RunFiles()).add(info, of_task=False)
    for path, info in holdings.cards:
        if (path.flow, path.run) in found:
            found[path.flow, path.run].add(info, of_task=False)
    told = records_of(root, holdings, metadata).read(found)
    liveness = Liveness(now, policy.running, longest_attempts(holdings), heartbeats_in(told))
    for name, task in holdings.tasks.items():
        found[name[:2]].running |= liveness.running(name, task) is not None
    records = read_records(root, holdings, told, found, {run for run, files in found.items() if files.running})
    began = {run: record.began for run, record in records.items() if (record.began or 0) >= EARLIEST}
    began.update(read_beginnings(root, holdings, records.keys() - began.keys()))
    holds = run_holds(root, now)
    for run, files in found.items():
        record = records[run]
        # No attempt and no metadata makes it one: somebody else's files have such names.
        if files.tasks or (record.source != "files" and not record.unread):
            yield _facts(run, files, record, began.get(run), holds.get("/".join(run)))


def _facts(run: Run, files: _RunFiles, record: RunRecord, told: float | None, hold: Hold | None) -> RunFacts:
    """What decides about one run. ``told``: when it began, by what it says itself."""
    # It began before its first file was written, whatever it says: none can pass for younger than it is.
    began = files.earliest if told is None else min(told, files.earliest)
    tags = record.all_tags  # where nothing tells them, a policy that asks for tags keeps it
    expires, unclear = (None, "") if tags is None else facts.expiry(tags, began)
    return RunFacts(
        flow=run[0],
        run=run[1],
        began=began,
        touched=files.touched,
        running=files.running,
        tags=tags,
        held=_why_held(hold, record),
        heartbeat=record.heartbeat,
        tasks=files.tasks,
        files=files.files,
        size=files.size,
        ended=record.ended,
        state="running" if files.running else record.state if files.tasks else "unfinished",
        user=record.user or facts.user(tags or ()),
        branch=facts.branch(*run, tags),
        deployment=facts.deployment(run[1], tags or ()),
        expires=expires,
        unclear=unclear,
        recorded=record.source,
    )


def _why_held(hold: Hold | None, record: RunRecord) -> str:
    if hold is not None:
        return str(hold)
    return f"what is recorded of it cannot be read: {record.unread}" if record.unread else ""
