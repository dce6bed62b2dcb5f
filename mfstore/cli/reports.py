"""What verify, repair and garbage collection print for people."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from mfstore.cli.output import print_table, progress
from mfstore.display.amounts import size
from mfstore.display.words import printable
from mfstore.maintenance.metaflow.report import MetaflowFinding, MetaflowRepair, MetaflowReport
from mfstore.maintenance.report import PhaseProgress
from mfstore.maintenance.store.report import Finding, RepairReport, VerifyReport

SHOWN = 20
"""Findings and keys printed; ``--json`` has all, in full."""
NAMES_SHOWN = 3
"""Of what a finding touches."""


@contextmanager
def steps() -> Iterator[Callable[[PhaseProgress], None]]:
    """A progress bar for each phase."""
    with progress() as display:
        tasks: dict[str, int] = {}

        def tell(step: PhaseProgress) -> None:
            # Bytes are shown as MB: the display counts in whole numbers.
            unit = 1_000_000 if step.phase == "data" else 1
            label = "data (MB)" if step.phase == "data" else step.phase
            task = tasks.get(step.phase)
            if task is None:
                task = tasks[step.phase] = display.add_task(label, total=None)
            display.update(task, completed=step.done // unit, total=step.total // unit)  # type: ignore[arg-type]

        yield tell


def print_report(report: VerifyReport) -> None:
    """A report about a store."""
    counts = ", ".join(f"{count} {kind}" for kind, count in report.objects.items())
    click.echo(printable(f"{report.url}: {counts}; {size(report.stored)}"))
    click.echo(_looked_at(report))
    _print_findings(report.findings)
    if report.clean:
        click.echo("no damage found" if not report.findings else "no damage found; the above does no harm")
    else:
        lost = len(report.unreadable)
        click.echo(
            f"{count(len(report.damage), 'finding')}; "
            + (f"{count(lost, 'key')} cannot be read whole" if lost else "every artifact can still be read")
            + ". mfstore repair mends what can be"
        )
    _print_limits(report)


def print_metaflow(report: MetaflowReport) -> None:
    """A report about a root of Metaflow."""
    parts = [count(report.flows, "flow"), count(report.runs, "run"), count(report.tasks, "task")]
    click.echo(printable(f"{report.url}: {', '.join(parts)}, {count(report.blobs, 'blob')}; {size(report.stored)}"))
    if report.level == "list":
        click.echo(f"level list: names and sizes by listing, in {report.seconds:.1f} s")
    elif report.level == "headers":
        click.echo(f"level headers: what every task refers to, in {report.seconds:.1f} s; --level full reads the blobs")
    else:
        rate = size(report.checked / max(report.seconds, 1e-9))
        read = f"level full: {report.blobs_checked} of {count(report.blobs, 'blob')}, {size(report.checked)}"
        click.echo(f"{read} in {report.seconds:.1f} s ({rate}/s){_since(report.oldest, 'blob')}")
    if report.running:
        click.echo(f"{count(report.running, 'attempt')} began within a day and may still be running")
    _print_findings(report.findings)
    touched = report.runs_touched
    if report.clean:
        click.echo("no damage found" if not report.findings else "no damage found; the above does no harm")
    else:
        lost = (
            f"{count(len(touched), 'run')} with artifacts that cannot be loaded" if touched else "no artifact is lost"
        )
        click.echo(f"{count(len(report.damage), 'finding')}; {lost}. mfstore repair --metaflow mends what can be")
    _print_limits(report)


def _print_limits(report: VerifyReport | MetaflowReport) -> None:
    if not report.complete:
        click.echo("the time allowed ended before everything was read; --older-than continues")
    if not report.remembered:
        click.echo("mfstore: no right or no room to write there: what was read is not remembered", err=True)


def _since(oldest: float | None, what: str) -> str:
    if oldest is None:
        return ""
    return f"; every {what} was read since {time.strftime('%Y-%m-%d %H:%M', time.localtime(oldest))}"


def _looked_at(report: VerifyReport) -> str:
    if report.level == "list":
        return f"level list: sizes by listing, in {report.seconds:.1f} s; nothing was read but refs and index"
    if report.level == "headers":
        return (
            f"level headers: every recipe, header and trailer, in {report.seconds:.1f} s; --level full reads the data"
        )
    rate = report.checked / max(report.seconds, 1e-9)
    deltas = f"{count(report.deltas, 'delta')} with their bases, " if report.deltas else ""
    return (
        f"level full: {report.packs_checked} of {report.objects['packs']} packs, {report.chunks} chunks, {deltas}"
        f"{size(report.checked)} in {report.seconds:.1f} s ({size(rate)}/s){_since(report.oldest, 'pack')}"
    )


def _print_findings(findings: Sequence[Finding | MetaflowFinding]) -> None:
    if not findings:
        return
    rows = []
    for finding in findings[:SHOWN]:
        touched = finding.artifacts if isinstance(finding, MetaflowFinding) else (*finding.refs, *finding.keys)
        more = f" and {len(touched) - NAMES_SHOWN} more" if len(touched) > NAMES_SHOWN else ""
        names = short(", ".join(touched[:NAMES_SHOWN])) + more
        rows.append((finding.kind, short(finding.object), finding.detail, names))
    print_table(("what", "object", "why", "touches"), rows)
    if len(findings) > SHOWN:
        click.echo(f"and {len(findings) - SHOWN} more; --json lists all")


def print_repair(report: RepairReport | MetaflowRepair, dry_run: bool) -> None:
    """What was found, done and left."""
    if isinstance(report, MetaflowRepair):
        print_metaflow(report.before)
    else:
        print_report(report.before)
    if not report.actions:
        click.echo("nothing to repair" if report.before.clean else "nothing that repair can do")
    else:
        print_table(
            ("would do" if dry_run else "did", "object", "what"),
            [(action.kind, short(action.object), action.detail) for action in report.actions[:SHOWN]],
        )
        if len(report.actions) > SHOWN:
            click.echo(f"and {len(report.actions) - SHOWN} more; --json lists all")
    if report.after is not None:
        lost = isinstance(report, RepairReport) and report.lost
        well = "what is left is whole" if lost else "all is well"
        click.echo(
            "afterwards " + (well if report.after.clean else f"{count(len(report.after.damage), 'finding')} left")
        )
    if isinstance(report, RepairReport) and report.lost:
        click.echo(f"lost data: {count(len(report.lost), 'key')}; putting the same content again heals what it names:")
        for key in report.lost[:SHOWN]:
            click.echo(f"  {key}")


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def short(text: str) -> str:
    """Digests by their first digits, as a table has room for; ``--json`` has them in full."""
    return re.sub(r"\b([0-9a-f]{16})[0-9a-f]{24,48}\b", r"\1…", text)
