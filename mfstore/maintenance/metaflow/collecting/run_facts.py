"""What is known of each run below a root: from its files and its metadata."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mfstore.maintenance.metaflow.collecting import facts
from mfstore.maintenance.metaflow.collecting.facts import RunFacts
from mfstore.maintenance.metaflow.collecting.liveness import Liveness, heartbeats_in
from mfstore.maintenance.metaflow.collecting.policy import Run, RunPolicy
from mfstore.maintenance.metaflow.collecting.record_sources import read_records, records_of
from mfstore.maintenance.metaflow.collecting.records import RunRecord
from mfstore.maintenance.metaflow.holds import run_holds

if TYPE_CHECKING:
    from mfstore.format.holds import Hold
    from mfstore.maintenance.metaflow.collecting.listed_runs import ListedRun, ListedRuns
    from mfstore.maintenance.metaflow.holdings import Holdings
    from mfstore.maintenance.metaflow.root import Root


def read_run_facts(
    root: Root, holdings: Holdings, listed: ListedRuns, policy: RunPolicy, now: float, metadata: str
) -> Iterator[RunFacts]:
    """What decides about each run. ``metadata`` says where their records are read (``records_of``). Besides, the last
    task of each is read, which tells how it ended; and of those of which nothing else tells when they began, a small
    file more."""
    told = records_of(root, holdings, listed, metadata)
    liveness = Liveness(now, policy.running, listed.took, heartbeats_in(told))
    open_runs = listed.open.items()
    running = {run for run, found in open_runs if any(liveness.may_end(run, attempt) for attempt in found)}
    holds = run_holds(root, now)
    for runs in listed.parts():
        records = read_records(root, runs, told, running)
        for run, found in runs.items():
            record = records[run]
            # No attempt and no metadata makes it one: somebody else's files have such names.
            if found.tasks or (record.source != "files" and not record.unread):
                yield _facts(run, found, run in running, record, holds.get("/".join(run)))
        del runs, records  # before there are others


def _facts(run: Run, found: ListedRun, running: bool, record: RunRecord, hold: Hold | None) -> RunFacts:
    """What decides about one run."""
    # It began before its first file was written, whatever it says: none can pass for younger than it is.
    began = found.earliest if record.began is None else min(record.began, found.earliest)
    tags = record.all_tags  # where nothing tells them, a policy that asks for tags keeps it
    expires, unclear = (None, "") if tags is None else facts.expiry(tags, began)
    return RunFacts(
        flow=run[0],
        run=run[1],
        began=began,
        touched=found.touched,
        running=running,
        tags=tags,
        held=_why_held(hold, record),
        heartbeat=record.heartbeat,
        tasks=found.tasks,
        files=found.files,
        size=found.size,
        cards=found.cards,
        cards_size=found.cards_size,
        ended=record.ended,
        state="running" if running else record.state if found.tasks else "unfinished",
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
