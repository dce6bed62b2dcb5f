"""``mfstore migrate``: artifacts of a Metaflow root to the packed profile, or back to the stock one."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mfstore.cli.command import Command
from mfstore.cli.exits import DAMAGE
from mfstore.cli.metrics_file import measured, metrics_option
from mfstore.cli.options import DURATION, Connection, connection_options, execute_option, json_option
from mfstore.cli.output import print_grid, print_json
from mfstore.cli.places import opened_root
from mfstore.cli.reports import steps
from mfstore.display.words import printable
from mfstore.maintenance.metaflow.migrating.report import (
    KEPT,
    STAYED,
    did,
    flows_grid,
    keys_notes,
    left_alone,
)
from mfstore.maintenance.told import SHOWN
from mfstore.settings import FORMER_PROFILES

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.migrating.report import MigrationPlan, MigrationResult


class _Profile(click.Choice):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.2
    """A profile, by the name it has or had."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(FORMER_PROFILES.get(value, value), param, ctx)


@click.command(cls=Command)
@click.option(
    "--metaflow", metavar="ROOT", required=True,
    help="A datastore root of Metaflow: the directory or prefix (s3://, …) the flows lie in.",
)  # fmt: skip
@click.option(
    "--to",
    type=_Profile(("packed", "stock")),
    required=True,
    help="The profile that artifacts are brought to; native is the former name of packed.",
)
@click.option("--flow", "flows", multiple=True, metavar="PATTERN", help="Only of such flows.")
@click.option("--run", "runs", multiple=True, metavar="PATTERN", help="Only of such runs, as Flow/run.")
@click.option(
    "--running", type=DURATION, default="7d", show_default=True, metavar="TIME",
    help="Attempts that began within this time and did not end are taken to be running; their runs are left alone.",
)  # fmt: skip
@click.option(
    "--idle", type=DURATION, default="1h", show_default=True, metavar="TIME",
    help="A run is left alone until nothing was stored for it for so long.",
)  # fmt: skip
@click.option(
    "--metadata", metavar="DIRECTORY",
    help="Where the local metadata is, if not below ROOT; its records of artifacts are brought up to date.",
)  # fmt: skip
@json_option
@execute_option
@click.option("--take-over", is_flag=True, help="Go on where a collection or migration died within the last hour.")
@connection_options(writes=True)
@metrics_option
def migrate(
    metaflow: str, to: str, flows: tuple[str, ...], runs: tuple[str, ...], running: float, idle: float,
    metadata: str | None, connection: Connection, as_json: bool, execute: bool, take_over: bool,
) -> None:  # fmt: skip
    """Bring the artifacts of runs that have ended to the packed profile, or back to the stock one. Nobody has to: every
    profile reads everything.

    Artifacts are loaded and saved anew, so run this where the flows' own modules can be imported. Nothing is deleted:
    what artifacts were before goes with a later mfstore gc --metaflow.
    """
    from mfstore.maintenance.metaflow.migrate import migrate_metaflow, plan_migration
    from mfstore.maintenance.metaflow.migrating.changes import MigrationOptions
    from mfstore.maintenance.metaflow.root import Root

    options = MigrationOptions(to, flows, runs, running, idle)
    options.check()
    result = None

    with ExitStack() as stack:
        tell = stack.enter_context(steps())
        root = stack.enter_context(closing(opened_root(metaflow, connection)))
        records = None if metadata is None else stack.enter_context(closing(Root(metadata)))
        if execute:
            plan, result = migrate_metaflow(root, options, metadata=records, take_over=take_over, tell=tell)
        else:
            plan = plan_migration(root, options, metadata=records, tell=tell)
    if result is not None:
        measured(
            objects={"attempts": result.attempts, "artifacts": result.artifacts, "failures": len(result.failures)},
            sizes={"artifacts": result.bytes},
        )
    if as_json:
        print_json(_document(plan, result))
    else:
        _show(plan)
        if result is None:
            click.echo("Nothing was changed." + (" --execute does this." if plan.changes else ""))
        else:
            _show_result(plan, result)
    sys.exit(DAMAGE if result is not None and result.failures else 0)


def _show(plan: MigrationPlan) -> None:
    click.echo(printable(f"{plan.url}: to the {plan.to} profile"))
    print_grid(flows_grid(plan))
    for kind, told in left_alone(plan).items():
        click.echo(told)
        entries = [entry for entry in plan.left if entry.kind == kind]
        for entry in entries[:SHOWN]:
            click.echo(printable(f"  {entry.what}: {entry.why}"))
        if len(entries) > SHOWN:
            click.echo(f"  and {len(entries) - SHOWN} more; --json lists all")
    for note in keys_notes(plan):
        click.echo(note)


def _show_result(plan: MigrationPlan, result: MigrationResult) -> None:
    click.echo(did(result))
    if result.attempts:
        click.echo(KEPT + (", but for tasks without local metadata here." if plan.unrecorded else "."))
    for failure in result.failures[:SHOWN]:
        what = " ".join(part for part in (failure.task, failure.artifact, failure.key) if part)
        click.echo(printable(f"{failure.kind}: {what}: {failure.why}"), err=True)
    if len(result.failures) > SHOWN:
        click.echo(f"and {len(result.failures) - SHOWN} more; --json lists all", err=True)
    if result.failures:
        click.echo(STAYED, err=True)


def _document(plan: MigrationPlan, result: MigrationResult | None) -> dict[str, Any]:
    return {
        "root": plan.url, "to": plan.to, "flows": [asdict(share) for share in plan.flows],
        "left": [entry._asdict() for entry in plan.left], "unrecorded": plan.unrecorded, "rekeyed": plan.rekeyed,
        "executed": None if result is None else {**asdict(result), "failed": dict(result.failed)},
    }  # fmt: skip
