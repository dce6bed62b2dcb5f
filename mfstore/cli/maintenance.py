"""Commands that look after a store: verify, repair, quarantine."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mfstore.backends import open_backend
from mfstore.cli.command import Command
from mfstore.cli.exits import DAMAGE
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
from mfstore.cli.output import end_planned, print_json, print_table
from mfstore.cli.places import opened, opened_root
from mfstore.cli.reports import print_repair, show_verified, steps
from mfstore.display.amounts import count, size
from mfstore.errors import CorruptObject, NotAStore
from mfstore.format.description import PATH as DESCRIPTION
from mfstore.maintenance.metaflow.report import MetaflowRepair, MetaflowReport
from mfstore.maintenance.report import LEVELS
from mfstore.maintenance.told import SHOWN
from mfstore.maintenance.verification import verify_options
from mfstore.settings import resolve

if TYPE_CHECKING:
    from mfstore.maintenance.report import Level
    from mfstore.maintenance.store.report import RepairReport, VerifyReport
    from mfstore.store import Store


@click.command(cls=Command)
@where_option
@metaflow_option
@json_option
@click.option(
    "-l", "--level", type=click.Choice(LEVELS), default="headers", show_default=True,
    help="How closely to look: sizes by listing; recipes, headers and trailers; or every byte.",
)  # fmt: skip
@click.option("--sample", metavar="N/T", help="At the level full: read the N-th of T parts of the data, such as 3/10.")
@click.option(
    "--older-than", type=DURATION, metavar="TIME",
    help="At the level full: only parts not read whole for so long, the longest ago first. Resumes what was stopped.",
)  # fmt: skip
@click.option("--for", "budget", type=DURATION, metavar="TIME", help="At the level full: stop after so long.")
@click.option("--signatures", is_flag=True, help="Tell which keys nobody who is trusted has signed, and nothing else.")
@click.option("--trust", multiple=True, metavar="FILE", help="A public key in PEM, whose signatures count; repeatable.")
@connection_options(writes=True)
@metrics_option
def verify(
    url: str | None,
    metaflow: str | None,
    connection: Connection,
    as_json: bool,
    level: Level,
    sample: str | None,
    older_than: float | None,
    budget: float | None,
    signatures: bool,
    trust: tuple[str, ...],
) -> None:
    """Check that what is stored is whole. Changes nothing but a note of what was read."""
    report: VerifyReport | MetaflowReport
    where = one_place(url, metaflow)
    if signatures:
        if metaflow is not None or not trust:
            raise click.UsageError("--signatures is of stores, and needs --trust FILE")
        from mfstore.cli.sign import show_signatures

        told = opened(where, connection).verify_signatures(trust)
        show_signatures(told, as_json)
        sys.exit(0 if told.clean else DAMAGE)
    if trust:
        raise click.UsageError("--trust is of --signatures")
    options = verify_options(level, sample, older_than, budget)
    with steps() as tell:
        if metaflow is None:
            store = opened(where, connection)
            report = store.verify(level, sample=options.sample, older_than=older_than, budget=budget, progress=tell)
        else:
            from mfstore.maintenance.metaflow.verify import verify_metaflow

            report, _ = verify_metaflow(opened_root(where, connection), options, tell)
    _measure(report)
    show_verified(report, as_json)
    sys.exit(0 if report.clean else DAMAGE)


def _measure(report: VerifyReport | MetaflowReport) -> None:
    objects = {"findings": len(report.findings), "damage": len(report.damage)}
    if isinstance(report, MetaflowReport):
        objects |= {"runs": report.runs, "tasks": report.tasks, "blobs": report.blobs, "read": report.blobs_checked}
    else:
        objects |= {**report.objects, "read": report.packs_checked}
    measured(
        objects=objects, sizes={"stored": report.stored, "read": report.checked}, times={"oldest_read": report.oldest}
    )


@click.command(cls=Command)
@where_option
@metaflow_option
@json_option
@click.option(
    "-l", "--level", type=click.Choice(LEVELS[1:]), default="full", show_default=True,
    help="How closely to look for damage first.",
)  # fmt: skip
@execute_option
@click.option("-n", "--dry-run", is_flag=True, hidden=True)
@click.option(
    "--drop-lost", is_flag=True,
    help="Move recipes to quarantine too whose data is nowhere, so that their keys count as absent.",
)  # fmt: skip
@click.option(
    "--roll-back", is_flag=True,
    help="Set refs whose present value is lost back to their newest value that is whole; remove those without one.",
)  # fmt: skip
@connection_options(writes=True)
@metrics_option
def repair(
    url: str | None, metaflow: str | None, connection: Connection, as_json: bool, level: Level, execute: bool,
    dry_run: bool, drop_lost: bool, roll_back: bool,
) -> None:  # fmt: skip
    """Show what can be mended of what verify finds, and mend it: store whole chunks again, rebuild the index, move
    damaged objects to quarantine.

    Below a root of Metaflow: move damaged blobs to quarantine, so that the next task with the same content stores it
    again, and write missing metadata anew where the content proves itself.

    Nothing is deleted. May be stopped at any time and run again.
    """
    report: RepairReport | MetaflowRepair
    where = one_place(url, metaflow)
    if execute and dry_run:
        raise click.UsageError("--dry-run is what happens without --execute: give one of them")
    for given, option in ((drop_lost, "--drop-lost"), (roll_back, "--roll-back")):
        if metaflow is not None and given:
            raise click.UsageError(f"{option} is for stores; Metaflow has nothing like it")
    with steps() as tell:
        if metaflow is None:
            report = _opened_for_repair(where, connection, execute).repair(
                level, dry_run=not execute, drop_lost=drop_lost, roll_back=roll_back, progress=tell
            )
        else:
            from mfstore.maintenance.metaflow.repair import repair_metaflow

            report = repair_metaflow(opened_root(where, connection), level, not execute, tell)
    well = report.before.clean if report.after is None else report.after.clean
    if not isinstance(report, MetaflowRepair):
        well = well and not report.lost
    _measure(report.before if report.after is None else report.after)
    measured(objects={"actions": len(report.actions)})
    if not isinstance(report, MetaflowRepair):
        measured(objects={"lost": len(report.lost)})
    if as_json:
        print_json({**asdict(report), "clean": well})
    else:
        print_repair(report, not execute)
    sys.exit(0 if well else DAMAGE)


def _opened_for_repair(url: str, connection: Connection, execute: bool) -> Store:
    """The store, whose description is written anew if it is damaged or lost."""
    try:
        return opened(url, connection)
    except (CorruptObject, NotAStore) as error:
        if error.key != DESCRIPTION:
            raise
        if not execute:
            error.hint = "mfstore repair --execute writes it anew, by what recipes and packs say"
            raise
    from mfstore.maintenance.store.describing import rebuild_description

    backend = open_backend(url, resolve(), **connection.options_for(url))
    rebuild_description(backend)
    click.echo(f"{DESCRIPTION} was damaged or lost, and is written anew", err=True)
    return opened(url, connection)


@click.command(cls=Command)
@where_option
@metaflow_option
@json_option
@click.option(
    "--restore", "names", multiple=True, metavar="NAME",
    help="Put this back where it lay. NAME is what the list shows. May be given several times.",
)  # fmt: skip
@click.option("--older-than", type=DURATION, metavar="TIME", help="Only what was set aside so long ago, such as 30d.")
@click.option("--empty", is_flag=True, help="With --execute: delete what would be listed, for good.")
@execute_option
@connection_options(writes=True)
def quarantine(
    url: str | None, metaflow: str | None, connection: Connection, as_json: bool, names: tuple[str, ...],
    older_than: float | None, empty: bool, execute: bool,
) -> None:  # fmt: skip
    """List what repair set aside, put it back, or delete it for good."""
    from mfstore.format.quarantine import PREFIX
    from mfstore.maintenance import quarantine as room

    if names and (empty or older_than is not None):
        raise click.UsageError("--restore names what it is about: it goes without --empty and --older-than")
    if execute and not empty:
        raise click.UsageError("--execute goes with --empty")
    where = one_place(url, metaflow)
    planned, empty = empty and not execute, empty and execute
    if metaflow is None:
        backend = (
            opened(where, connection).handle.access("read", *(("write", "delete") if names or empty else ())).backend
        )
        folder = PREFIX
    else:
        from mfstore.maintenance.metaflow.repair import QUARANTINE

        backend, folder = opened_root(where, connection).backend, QUARANTINE
    for name in names:
        path = name if name.startswith(folder) else folder + name
        key = room.restore_quarantined(backend, path, folder)
        print_json({"restored": key, "from": path}) if as_json else click.echo(f"{key} is back; verify tells if whole")
    if names:
        return
    found = room.list_quarantine(backend, folder)
    if older_than is not None:
        found = [item for item in found if time.time() - item.since > older_than]
    if empty:
        room.empty_quarantine(backend, found)
    if as_json:
        for item in found:
            print_json({**asdict(item), "deleted": empty})
        end_planned(planned and bool(found))
        return
    if found and not empty:
        shown = found[-SHOWN:]
        moments = [time.strftime("%Y-%m-%d %H:%M", time.localtime(item.since)) for item in shown]
        rows = [(item.path.removeprefix(folder), size(item.size), at) for item, at in zip(shown, moments, strict=True)]
        print_table(("name", "size", "set aside"), rows, right=(1,))
    total = size(sum(item.size for item in found))
    click.echo(f"{count(len(found), 'object')} in quarantine{' deleted' if empty else ''}, {total}")
    end_planned(planned and bool(found))
