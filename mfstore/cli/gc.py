"""``mfstore gc``: see what garbage collection would do, and let it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

import click

from mfstore.cli.maintenance import DAMAGE
from mfstore.cli.options import DURATION, json_option, metaflow_option, one_place, where_option
from mfstore.cli.output import opened, print_grid, print_json
from mfstore.display.words import printable
from mfstore.maintenance.metaflow.collecting.policy import unmatched
from mfstore.maintenance.store.collecting.retention import Retention
from mfstore.maintenance.store.collecting.told import plan_grid, plan_notes

if TYPE_CHECKING:
    from mfstore.maintenance.store.gc import GcPlan, GcResult


@click.command()
@where_option
@metaflow_option
@json_option
@click.option(
    "--grace",
    type=DURATION,
    default="24h",
    show_default=True,
    metavar="TIME",
    help="Nothing younger is touched, and what is condemned is deleted so much later at the earliest.",
)
@click.option(
    "--keep-last",
    type=click.IntRange(min=1),
    metavar="N",
    help="Keep the newest N values of each ref (of --metaflow: runs of each flow).",
)
@click.option(
    "--keep-age",
    type=DURATION,
    metavar="TIME",
    help="Keep values of refs that were current, and unnamed keys that were stored (of --metaflow: runs that began), "
    "within this time.",
)
@click.option(
    "--pin",
    "pinned",
    multiple=True,
    metavar="PATTERN",
    help="Keep these refs with all their history (of --metaflow: these runs, as Flow/run).",
)
@click.option("--tag", "tags", multiple=True, metavar="PATTERN", help="Of --metaflow: keep runs with such a tag.")
@click.option(
    "--flow", "flows", multiple=True, metavar="PATTERN", help="Of --metaflow: only runs of such flows may go."
)
@click.option(
    "--running",
    type=DURATION,
    default="7d",
    show_default=True,
    metavar="TIME",
    help="Of --metaflow: an attempt without a heartbeat that did not end is taken to be running for as long as its "
    "step takes, for an hour at least, and never longer than this.",
)
@click.option(
    "--metadata",
    metavar="SOURCE",
    help="Of --metaflow: where tags, users and signs of life of runs are read: service, local (below the root), "
    "local:PATH (below another) or none. [default: service where Metaflow is configured for one, else local]",
)
@click.option(
    "--inventory",
    metavar="URL",
    help="Of --metaflow in S3: what is there is read from S3 Inventory, and not listed. The folder of the dated ones, "
    "or one manifest.json.",
)
@click.option(
    "--trust-known",
    is_flag=True,
    help="Of --metaflow in S3: also believe what collections remember where ETags are no digests (SSE-KMS). Say so "
    "only where no task may write to mf.maintenance/.",
)
@click.option(
    "--series",
    multiple=True,
    metavar="PATTERN",
    help="Refs that belong together, as runs/*: --keep-last and --keep-age remove old ones.",
)
@click.option(
    "--live",
    type=click.File(),
    metavar="FILE",
    help="Keep the keys (of --metaflow: runs) in this file too, one a line (-: stdin).",
)
@click.option(
    "--repack",
    type=click.FloatRange(0, 100),
    default=10.0,
    show_default=True,
    metavar="PERCENT",
    help="Rewrite mostly dead packs, up to this share of the stored bytes.",
)
@click.option(
    "--max-deletes-per-second",
    "deletes_per_second",
    type=click.FloatRange(min=0),
    metavar="N",
    help="Delete at most so many objects in a second; 0: as many as can be.  [default: 1000 in S3]",
)
@click.option("-l", "--long", is_flag=True, help="List every key that goes.")
@click.option("--execute", is_flag=True, help="Do it. Without this nothing is changed.")
@click.option("--yes-really", is_flag=True, help="Also when it drops everything, or when --grace is short and remote.")
@click.option("--take-over", is_flag=True, help="Go on where a collector died within the last minutes.")
def gc(
    url: str | None, metaflow: str | None, as_json: bool, grace: float, keep_last: int | None, keep_age: float | None,
    pinned: tuple[str, ...], tags: tuple[str, ...], flows: tuple[str, ...], running: float, metadata: str | None,
    inventory: str | None, trust_known: bool, series: tuple[str, ...], live: TextIO | None, repack: float,
    deletes_per_second: float | None, long: bool, execute: bool, yes_really: bool, take_over: bool,
) -> None:  # fmt: skip
    """Show what nobody needs any more, and delete it in two steps.

    Kept is what refs name, what --live lists and what is younger than --grace. The rest is condemned by one --execute
    and deleted by another at least --grace later; run it daily.

    With --metaflow it is the runs below a datastore root of stock Metaflow that are kept or go, with all that no other
    run needs; say what to keep with --keep-last, --keep-age or both.
    """
    where = one_place(url, metaflow)
    if metaflow is not None:
        from mfstore.cli import metaflow_gc
        from mfstore.maintenance.metaflow.collecting.policy import RunPolicy

        if series:
            raise click.UsageError("--series is for stores; of --metaflow the runs of a flow are a series")
        runs = [*pinned, *(() if live is None else _keys(live))]
        policy = RunPolicy(keep_last, keep_age, tags, tuple(runs), flows, grace, running)
        policy.check()
        metaflow_gc.run(
            where, policy, metadata=metadata, inventory=inventory, trust_known=trust_known, execute=execute,
            yes_really=yes_really, take_over=take_over, deletes_per_second=deletes_per_second, as_json=as_json,
            long=long,
        )  # fmt: skip
        return
    if tags or flows or metadata or inventory or trust_known:
        raise click.UsageError("--tag, --flow, --metadata, --inventory and --trust-known are for --metaflow")
    Retention(keep_last, keep_age, pinned, series)  # what makes no sense is told before the store is looked for
    store = opened(where)
    plan = store.plan_gc(
        None if live is None else _keys(live), grace, keep_last=keep_last, keep_age=keep_age, pinned=pinned,
        series=series, repack=repack / 100, progress=True,
    )  # fmt: skip
    result = None
    if not as_json:
        for pattern in unmatched(pinned, set(store.refs)) if pinned else ():
            click.echo(printable(f"no ref matches --pin {pattern}"))
        _show(plan, long)
    if execute:
        if plan.unsafe and not yes_really:
            raise click.UsageError(f"{plan.unsafe}. Confirm with --yes-really")
        result = plan.execute(
            yes_really=yes_really, take_over=take_over, deletes_per_second=deletes_per_second, progress=True
        )
    if as_json:
        print_json(_document(plan, result, long))
    elif result is None:
        what = "--execute does this" if plan.decision.does_something else "there is nothing to do"
        click.echo(f"\nNothing was changed: {what}.")
    else:
        _show_result(plan, result)
    if result is not None and result.locked:
        sys.exit(DAMAGE)


def _keys(lines: Iterable[str]) -> list[str]:
    words = (line.partition("#")[0].strip() for line in lines)
    return [word for word in words if word]


def _show(plan: GcPlan, long: bool) -> None:
    found = plan.decision
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
        "store": plan.access.backend.url, "now": found.now, "grace": found.grace, "stored": asdict(found.stored),
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
