"""``mfstore gc``: see what garbage collection would do, and let it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

import click

from mfstore.cli.command import Command, SectionOption
from mfstore.cli.exits import DAMAGE
from mfstore.cli.gc_options import (
    HISTORY,
    KEPT,
    OF_STORES,
    Keeping,
    grace_option,
    inventory_option,
    keeping_options,
    metadata_option,
    pace_option,
    trust_option,
    wait_option,
)
from mfstore.cli.metrics_file import measured, metrics_option
from mfstore.cli.options import (
    DURATION,
    Connection,
    connection_options,
    execute_option,
    json_option,
    metaflow_option,
    one_place,
    where_option,
)
from mfstore.cli.output import print_grid, print_json
from mfstore.cli.places import opened
from mfstore.display.words import printable
from mfstore.maintenance.metaflow.collecting.policy import unmatched
from mfstore.maintenance.store.collecting.told import plan_grid, plan_notes, retention_text

if TYPE_CHECKING:
    from mfstore.maintenance.store.gc import GcPlan, GcResult


@click.command(cls=Command)
@where_option
@metaflow_option
@json_option
@grace_option("Nothing younger is touched, and what is condemned is deleted so much later at the earliest.")
@click.option("-l", "--long", is_flag=True, help="List every key that goes; of --metaflow: every run.")
@execute_option
@click.option(
    "--yes-really",
    is_flag=True,
    help="Also when it drops everything, or more than --max-drop, or when --grace is short and remote.",
)
@click.option("--take-over", is_flag=True, help="Go on where a collector died within the last minutes.")
@pace_option("Delete at most so many objects in a second; 0: as many as can be.  [default: 1000 in S3]")
@click.option(
    "--live",
    type=click.File(),
    metavar="FILE",
    cls=SectionOption,
    section=KEPT,
    help="The keys, or runs, in this file, one a line (-: stdin).",
)
@keeping_options
@metadata_option(
    "Where tags, users and signs of life of runs are read: service, local (below the root), local:PATH (below "
    "another) or none. [default: service where Metaflow is configured for one, else local]",
)
@inventory_option(
    "In S3: what is there is read from S3 Inventory, and not listed. The folder of the dated ones, or one "
    "manifest.json.",
)
@trust_option(
    "In S3: also believe what collections remember where ETags are no digests (SSE-KMS). Say so only where no "
    "task may write to mf.maintenance/.",
)
@wait_option("Wait so long at most until no task of a flow is running, and until another collector ends.")
@click.option(
    "--repack",
    type=click.FloatRange(0, 100),
    default=10.0,
    show_default=True,
    metavar="PERCENT",
    cls=SectionOption,
    section=OF_STORES,
    help="Rewrite mostly dead packs, up to this share of the stored bytes.",
)
@click.option(
    "--undo", is_flag=True, cls=SectionOption, section=HISTORY,
    help="Take back what is condemned, all of it or the NAMEs (runs, refs, keys), and hold it for a while.",
)  # fmt: skip
@click.option(
    "--for", "lasting", type=DURATION, default="30d", show_default=True, metavar="TIME", cls=SectionOption,
    section=HISTORY, help="Of --undo: hold it for so long.",
)  # fmt: skip
@click.option(
    "--log", "show_log", is_flag=True, cls=SectionOption, section=HISTORY,
    help="Show what collections did, or those that were about the NAMEs.",
)  # fmt: skip
@click.argument("names", nargs=-1, metavar="[NAME]...")
@connection_options(writes=True)
@metrics_option
def gc(
    url: str | None, metaflow: str | None, connection: Connection, as_json: bool, grace: float, keeping: Keeping,
    metadata: str | None, inventory: str | None, trust_known: bool, live: TextIO | None, repack: float,
    deletes_per_second: float | None, wait: float, long: bool, execute: bool, yes_really: bool, take_over: bool,
    undo: bool, lasting: float, show_log: bool, names: tuple[str, ...],
) -> None:  # fmt: skip
    """Show what nobody needs any more, and delete it in two steps.

    Kept is what refs name, what --live lists and what is younger than --grace. The rest is condemned by one --execute
    and deleted by another at least --grace later; run it daily.

    With --metaflow it is the runs below a datastore root of stock Metaflow that are kept or go, with all that no other
    run needs. Say what to keep: --keep-last 5, --keep-age 90d, --keep-daily 7 and so on. A run stays if any of them
    keeps it.

    A value of a ref that was stored with the note ttl=30d, and a run with the tag ttl:30d, stays for that long and goes
    after it.
    """
    where = one_place(url, metaflow)
    if undo + show_log + execute > 1:
        raise click.UsageError("--undo, --log and --execute are three things: give one of them")
    if undo or show_log:
        from mfstore.cli import gc_history

        if show_log:
            gc_history.show_log(where, connection, metaflow is not None, names, as_json)
        elif not gc_history.undo(where, connection, metaflow is not None, names, lasting, as_json):
            sys.exit(DAMAGE)
        return
    if names:
        raise click.UsageError("NAMEs are for --undo and --log; --pin and --live say what to keep")
    if metaflow is not None:
        from mfstore.cli import metaflow_gc

        policy = keeping.run_policy(() if live is None else tuple(_keys(live)), grace)
        metaflow_gc.run(
            where, connection, policy, metadata=metadata, inventory=inventory, trust_known=trust_known, execute=execute,
            yes_really=yes_really, take_over=take_over, wait=wait, deletes_per_second=deletes_per_second,
            as_json=as_json, long=long,
        )  # fmt: skip
        return
    if metadata or inventory or trust_known:
        raise click.UsageError("--metadata, --inventory and --trust-known: only for --metaflow")
    kept = keeping.retention()  # what makes no sense is told before the store is looked for
    store = opened(where, connection)
    plan = store.plan_gc(
        None if live is None else _keys(live), grace, keep_last=kept.keep_last, keep_age=kept.keep_age,
        keep_hourly=kept.keep_hourly, keep_daily=kept.keep_daily, keep_weekly=kept.keep_weekly,
        keep_monthly=kept.keep_monthly, keep_yearly=kept.keep_yearly, pinned=kept.pinned, series=kept.series,
        max_drop=keeping.max_drop, repack=repack / 100, progress=True,
    )  # fmt: skip
    result = None
    if not as_json:
        for pattern in unmatched(kept.pinned, set(store.refs)) if kept.pinned else ():
            click.echo(printable(f"no ref matches --pin {pattern}"))
        _show(plan, long)
    if execute:
        if plan.unsafe and not yes_really:
            raise click.UsageError(f"{plan.unsafe}. Confirm with --yes-really")
        result = plan.execute(
            yes_really=yes_really, take_over=take_over, deletes_per_second=deletes_per_second, progress=True
        )
    _measure(plan, result)
    if as_json:
        print_json(_document(plan, result, long))
    elif result is None:
        what = "--execute does this" if plan.decision.does_something else "there is nothing to do"
        click.echo(f"\nNothing was changed: {what}.")
        refusal = plan.decision.refusal(plan.options.max_drop)
        if refusal:
            click.echo(f"--execute refuses it without --yes-really: {refusal}.")
    else:
        _show_result(plan, result)
    if result is not None and result.locked:
        sys.exit(DAMAGE)


def _measure(plan: GcPlan, result: GcResult | None) -> None:
    found = plan.decision
    deleted = found.deletes.amount if result is None else result.deleted
    condemned = found.condemns.amount if result is None else result.condemned
    amounts = {"deleted": deleted, "condemned": condemned, "waiting": found.waiting, "stored": found.stored}
    measured(
        objects={what: amount.recipes + amount.packs for what, amount in amounts.items()},
        sizes={what: amount.bytes for what, amount in amounts.items()},
    )


def _keys(lines: Iterable[str]) -> list[str]:
    words = (line.partition("#")[0].strip() for line in lines)
    return [word for word in words if word]


def _show(plan: GcPlan, long: bool) -> None:
    found = plan.decision
    click.echo(printable(retention_text(plan.options.retention)))
    print_grid(plan_grid(found))
    for note in (*plan_notes(found), *plan.storage_notes):
        click.echo(printable(note))
    if plan.held:
        click.echo(f"held: {len(plan.held)} (mfstore holds lists them)")
    for warning in plan.warnings:
        click.echo(printable(f"warning: {warning}"), err=True)
    if long:
        for verb, doomed in (("condemn", found.condemns), ("delete", found.deletes)):
            for key in sorted(doomed.recipes):
                click.echo(f"{verb} {key.hex()}")
        for change in found.refs:
            what = "shorten" if change.kept else "remove"
            click.echo(printable(f"{what} ref {change.name} ({len(change.dropped)} values)"))


def _show_result(plan: GcPlan, result: GcResult) -> None:
    click.echo("")
    if not plan.decision.does_something:
        click.echo("There was nothing to do.")
        return
    for line in result.lines():
        click.echo(line)
    if result.condemned:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + plan.decision.grace))
        click.echo(f"Run this again after {when} to delete them.")


def _document(plan: GcPlan, result: GcResult | None, long: bool) -> dict[str, Any]:
    found = plan.decision
    document: dict[str, Any] = {
        "store": plan.access.backend.url, "now": found.now, "grace": found.grace,
        "policy": {
            **asdict(plan.options.retention), "max_drop": plan.options.max_drop, "repack": plan.options.repack,
            "text": retention_text(plan.options.retention),
        },
        "refusal": found.refusal(plan.options.max_drop), "stored": asdict(found.stored),
        "keep": {why: asdict(amount) for why, amount in found.kept.items()},
        "wait": asdict(found.waiting), "ready_at": found.ready_at,
        "condemn": asdict(found.condemns.amount), "delete": asdict(found.deletes.amount),
        "rescued": asdict(found.rescued), "chunks": plan.chunks,
        "refs": [{"name": c.name, "kept": len(c.kept), "dropped": len(c.dropped)} for c in found.refs],
        "repack": {"packs": len(found.repacks), "bytes": sum(entry.live for entry in found.repacks)},
        "held": {name: asdict(hold) for name, hold in plan.held.items()},
        "versions": {**asdict(plan.versions), "notes": plan.storage_notes},
        "warnings": list(plan.warnings), "executed": None if result is None else asdict(result),
    }  # fmt: skip
    if long:
        document["keys"] = {
            "condemn": sorted(key.hex() for key in found.condemns.recipes),
            "delete": sorted(key.hex() for key in found.deletes.recipes),
        }
    return document
