"""``mfstore gc --metaflow``: the plan for people, and its execution."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mfstore.cli.exits import DAMAGE
from mfstore.cli.metrics_file import measured
from mfstore.cli.output import print_grid, print_json
from mfstore.cli.places import opened_root
from mfstore.cli.reports import steps
from mfstore.display.amounts import count
from mfstore.display.words import printable
from mfstore.maintenance.metaflow.collecting.document import gc_document
from mfstore.maintenance.metaflow.collecting.plan import plan_metaflow_gc
from mfstore.maintenance.metaflow.collecting.planned import flows_grid, plan_notes, policy_text, runs_grid
from mfstore.maintenance.metaflow.collecting.record_sources import default_metadata
from mfstore.maintenance.metaflow.collecting.result import result_notes
from mfstore.maintenance.metaflow.gc import collect_metaflow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mfstore.cli.options import Connection
    from mfstore.maintenance.metaflow.collecting.planned import MetaflowGcPlan
    from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
    from mfstore.maintenance.metaflow.collecting.result import MetaflowGcResult


def run(
    url: str, connection: Connection, policy: RunPolicy, *, metadata: str | None, inventory: str | None,
    trust_known: bool, execute: bool, yes_really: bool, take_over: bool, wait: float, deletes_per_second: float | None,
    as_json: bool, long: bool,
) -> None:  # fmt: skip
    """Plan, and with ``execute`` carry out; print what would be done or was."""
    root = opened_root(url, connection)
    source = metadata or default_metadata()
    result = None
    try:
        with steps() as tell:
            if execute:
                plan, result = collect_metaflow(
                    root, policy, metadata=source, inventory=inventory, trust_known=trust_known,
                    yes_really=yes_really, take_over=take_over, wait=wait, deletes_per_second=deletes_per_second,
                    tell=tell,
                )  # fmt: skip
            else:
                plan = plan_metaflow_gc(
                    root, policy, tell, metadata=source, trust_known=trust_known, inventory=inventory
                )
    finally:
        root.close()
    _measure(plan, result)
    show_collection(plan, result, as_json, long)
    if plan.unreadable or (result is not None and result.locked):  # so that what runs this from cron tells of it
        sys.exit(DAMAGE)


def _measure(plan: MetaflowGcPlan, result: MetaflowGcResult | None) -> None:
    deleted = plan.freed if result is None else result.deleted
    removed = len(plan.remove) if result is None else len(result.removed)
    condemned = len(plan.condemn) if result is None else result.condemned
    measured(
        objects={
            "deleted": deleted.objects, "runs": len(plan.runs), "runs_removed": removed, "runs_condemned": condemned,
            "runs_waiting": len(plan.waiting), "flows_held": len(plan.held),
        },
        sizes={"deleted": deleted.bytes, "later": plan.later.bytes, "unreferred": plan.unreferred.bytes},
    )  # fmt: skip


def show_collection(plan: MetaflowGcPlan, result: MetaflowGcResult | None, as_json: bool, long: bool) -> None:
    """Print what would be done, or with a ``result`` was."""
    if as_json:
        print_json(gc_document(plan, result))
        return
    _show(plan, long)
    _say(_undone(plan) if result is None else result_notes(result, plan.held))


def _show(plan: MetaflowGcPlan, long: bool) -> None:
    flows = count(len({entry.flow for entry in plan.runs}), "flow")
    _say([f"{plan.url}: {count(len(plan.runs), 'run')} of {flows}", policy_text(plan.policy)])
    print_grid(flows_grid(plan))
    if long:
        print_grid(runs_grid(plan))
    _say(plan_notes(plan))


def _undone(plan: MetaflowGcPlan) -> list[str]:
    lines = ["Nothing was changed." + (" --execute does this." if plan.does_something else "")]
    if plan.refusal:
        lines.append(f"--execute refuses it without --yes-really: {plan.refusal}.")
    return lines


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(printable(line))
