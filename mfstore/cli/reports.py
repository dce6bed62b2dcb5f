"""What verify, repair and garbage collection print for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mfstore.cli.output import print_grid, print_json
from mfstore.display.words import printable
from mfstore.maintenance.metaflow import report as of_root
from mfstore.maintenance.metaflow.report import MetaflowRepair, MetaflowReport
from mfstore.maintenance.report import PhaseCallback, untold
from mfstore.maintenance.store.report import RepairReport, VerifyReport, holds, looked_at, lost_data, verdict
from mfstore.maintenance.told import SHOWN, AnyFinding, actions_grid, afterwards, did_nothing, findings_grid
from mfstore.progress import phases

if TYPE_CHECKING:
    from mfstore.display.cards import Grid


@contextmanager
def steps() -> Iterator[PhaseCallback]:
    """What is told how far a command is; in a terminal it is shown."""
    with phases(True) as tell:
        yield tell or untold


def show_verified(report: VerifyReport | MetaflowReport, as_json: bool) -> None:
    """What verification found, for people or for programs."""
    if as_json:
        print_json({**asdict(report), "clean": report.clean})
    elif isinstance(report, MetaflowReport):
        print_metaflow(report)
    else:
        print_report(report)


def print_report(report: VerifyReport) -> None:
    """A report about a store."""
    click.echo(printable(f"{report.url}: {holds(report)}"))
    click.echo(looked_at(report))
    _print_findings([(finding, (*finding.refs, *finding.keys)) for finding in report.findings])
    click.echo(verdict(report))
    _print_limits(report)


def print_metaflow(report: MetaflowReport) -> None:
    """A report about a root of Metaflow."""
    click.echo(printable(f"{report.url}: {of_root.holds(report)}"))
    click.echo(of_root.looked_at(report))
    if told := of_root.running(report):
        click.echo(told)
    _print_findings([(finding, finding.artifacts) for finding in report.findings])
    click.echo(of_root.verdict(report))
    _print_limits(report)


def _print_limits(report: VerifyReport | MetaflowReport) -> None:
    if not report.complete:
        click.echo("the time allowed ended before everything was read; --older-than continues")
    if not report.remembered:
        click.echo("mfstore: no right or no room to write there: what was read is not remembered", err=True)


def _print_findings(findings: Sequence[tuple[AnyFinding, Sequence[str]]]) -> None:
    if findings:
        _print_some(findings_grid(findings))


def _print_some(grid: Grid) -> None:
    print_grid(grid)
    if grid.more:
        click.echo(f"and {grid.more:,} more; --json lists all")


def print_repair(report: RepairReport | MetaflowRepair, dry_run: bool) -> None:
    """What was found, done and left."""
    if isinstance(report, MetaflowRepair):
        print_metaflow(report.before)
    else:
        print_report(report.before)
    if not report.actions:
        click.echo(did_nothing(report.before.clean))
    else:
        _print_some(actions_grid(report.actions, "would do" if dry_run else "did"))
        if dry_run:
            click.echo("Nothing was changed: --execute does this.")
    if report.after is not None:
        click.echo(f"afterwards {afterwards(report.after, bool(isinstance(report, RepairReport) and report.lost))}")
    if isinstance(report, RepairReport) and report.lost:
        click.echo(f"{lost_data(report)}:")
        for key in report.lost[:SHOWN]:
            click.echo(f"  {key}")
