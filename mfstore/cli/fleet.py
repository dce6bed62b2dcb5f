"""``mfstore fleet``: maintenance by many machines. A flow of Metaflow is run, and what became of it printed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mfstore.cli.command import Command, CommandGroup
from mfstore.cli.exits import DAMAGE, FAILED
from mfstore.cli.gc_options import (
    Keeping,
    grace_option,
    inventory_option,
    keeping_options,
    metadata_option,
    pace_option,
    trust_option,
    wait_option,
)
from mfstore.cli.metaflow_gc import show_collection
from mfstore.cli.options import (
    Connection,
    connection_options,
    execute_option,
    json_option,
    metaflow_option,
    one_place,
    where_option,
)
from mfstore.cli.output import print_grid, print_json
from mfstore.cli.reports import show_verified
from mfstore.display.amounts import size
from mfstore.display.words import printable
from mfstore.errors import BackendError, Unsupported
from mfstore.fleet.measuring import Measured
from mfstore.fleet.request import MOST_SHARDS, SHARDS, Request, encode
from mfstore.fleet.usage import Usage, usage_grid
from mfstore.fleet.work import FLOW
from mfstore.maintenance.metaflow.collecting.planned import MetaflowGcPlan
from mfstore.maintenance.metaflow.report import MetaflowReport
from mfstore.maintenance.report import LEVELS
from mfstore.maintenance.store.report import VerifyReport

if TYPE_CHECKING:
    from mfstore.bench.clients import ClientReport, ClientRequest
    from mfstore.fleet.work import Outcome
    from mfstore.maintenance.report import Level


AS_OF_GC = "As of mfstore gc."


class _Fleet(Command):
    """What all commands of a fleet share: how its flow is run."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params += [
            click.Option(
                ["--shards"], type=click.IntRange(1, MOST_SHARDS), default=SHARDS, show_default=True, metavar="N",
                help="Parts of the work, at most, each a task of its own.",
            ),
            click.Option(
                ["--with", "decorators"], multiple=True, metavar="DECORATOR",
                help="Where tasks run, as Metaflow's own --with: batch, kubernetes:cpu=2,memory=8000.",
            ),
            click.Option(
                ["--max-workers"], type=click.IntRange(min=1), metavar="N",
                help="Tasks at a time, at most.  [default: 16]",
            ),
            click.Argument(["command"], nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]"),
        ]  # fmt: skip


@click.group(cls=CommandGroup)
def fleet() -> None:
    """Look after a large root or store with many machines.

    Runs a flow of Metaflow, MfstoreFleet, wherever Metaflow is configured to run flows: its tasks take a part each, and
    the last one puts them together. The machines need mfstore[metaflow] and the rights that the command needs.

    After -- another command of Metaflow may be given in place of run: -- argo-workflows create deploys the flow.
    """


@fleet.command(cls=_Fleet)
@metaflow_option
@json_option
@grace_option(AS_OF_GC)
@click.option("-l", "--long", is_flag=True, help="List every run.")
@execute_option
@click.option("--yes-really", is_flag=True, help="Also when it drops everything, or more than --max-drop.")
@pace_option(AS_OF_GC)
@keeping_options
@metadata_option(AS_OF_GC)
@inventory_option(AS_OF_GC)
@trust_option(AS_OF_GC)
@wait_option(AS_OF_GC)
@connection_options(writes=True)
def gc(
    metaflow: str | None, connection: Connection, as_json: bool, grace: float, long: bool, execute: bool,
    yes_really: bool, deletes_per_second: float | None, keeping: Keeping, metadata: str | None, inventory: str | None,
    trust_known: bool, wait: float, **how: Any,
) -> None:  # fmt: skip
    """Show which runs below a root of Metaflow nobody needs any more, and remove them: mfstore gc --metaflow, planned
    by many machines and carried out by one."""
    from mfstore.maintenance.metaflow.collecting.record_sources import default_metadata

    if metaflow is None:
        raise click.UsageError("Missing option '--metaflow'. A store is collected by mfstore gc -s")
    request = Request(
        "gc", metaflow, True, execute=execute, policy=keeping.run_policy((), grace), inventory=inventory,
        metadata=metadata or default_metadata(), trust_known=trust_known, yes_really=yes_really,
        reached=connection.options_for(metaflow),
        deletes_per_second=deletes_per_second, wait=wait, shards=how.pop("shards"),
    )  # fmt: skip

    def show(outcome: Outcome) -> bool:
        assert isinstance(outcome.found, MetaflowGcPlan)
        show_collection(outcome.found, outcome.result, as_json, long)
        return not outcome.found.unreadable

    _run(request, show, **how)


@fleet.command(cls=_Fleet)
@where_option
@metaflow_option
@json_option
@click.option(
    "-l", "--level", type=click.Choice(LEVELS), default="full", show_default=True,
    help="How closely to look: sizes by listing; recipes, headers and trailers; or every byte.",
)  # fmt: skip
@connection_options(writes=True)
def verify(
    url: str | None, metaflow: str | None, connection: Connection, as_json: bool, level: Level, **how: Any
) -> None:
    """Check that what is stored is whole: mfstore verify by many machines."""
    where = one_place(url, metaflow)
    request = Request(
        "verify",
        where,
        metaflow is not None,
        level=level,
        reached=connection.options_for(where),
        shards=how.pop("shards"),
    )

    def show(outcome: Outcome) -> bool:
        report = outcome.found
        assert isinstance(report, MetaflowReport | VerifyReport)
        show_verified(report, as_json)
        return report.clean

    _run(request, show, **how)


@fleet.command(cls=_Fleet)
@where_option
@metaflow_option
@json_option
@inventory_option(AS_OF_GC)
@connection_options()
def du(
    url: str | None, metaflow: str | None, connection: Connection, as_json: bool, inventory: str | None, **how: Any
) -> None:
    """Show what is stored: mfstore du by many machines."""
    where = one_place(url, metaflow)
    if inventory and metaflow is None:
        raise click.UsageError("--inventory: only for --metaflow")
    request = Request(
        "du",
        where,
        metaflow is not None,
        inventory=inventory,
        reached=connection.options_for(where),
        shards=how.pop("shards"),
    )

    def show(outcome: Outcome) -> bool:
        usage = outcome.found
        assert isinstance(usage, Usage)
        if as_json:
            print_json(asdict(usage))
        else:
            print_grid(usage_grid(usage))
            click.echo(f"{size(usage.stored)} in all")
        return True

    _run(request, show, **how)


def _run(
    request: Request, show: Callable[[Outcome], bool], *, decorators: Sequence[str], max_workers: int | None,
    command: Sequence[str],
) -> None:  # fmt: skip
    """Run the flow, show what became of it, and end with the code that says so: ``FAILED`` where a part failed,
    ``DAMAGE`` where ``show`` says that not all is well."""
    request.check()
    _need_metaflow()
    if command:
        sys.exit(_metaflow(request, [*_for_all(decorators), *command]).returncode)
    run, code = _to_the_end(request, decorators, max_workers)
    if code:
        click.echo(printable(f"mfstore: {run} failed; what it printed says why"), err=True)
        sys.exit(FAILED)
    outcome = _outcome(run)
    well = show(outcome)
    for part, why in outcome.failed.items():
        click.echo(printable(f"mfstore: {part} failed, and was left alone: {why}"), err=True)
    sys.exit(FAILED if outcome.failed else 0 if well else DAMAGE)


def measured_by_tasks(request: ClientRequest, decorators: Sequence[str]) -> Sequence[ClientReport]:
    """What so many tasks of Metaflow measured, all at the same time. BackendError when one of them was lost."""
    from mfstore.bench.clients import encode as encode_client

    _need_metaflow()
    asked = Request("bench", request.url, False, shards=request.clients, measurement=encode_client(request))
    # Each waits for all others: they have to run at the same time.
    run, code = _to_the_end(asked, decorators, request.clients)
    if code:
        raise BackendError(f"{run} failed", hint="What it printed says why")
    outcome = _outcome(run)
    if outcome.failed:
        raise BackendError(f"a client was lost: {'; '.join(f'{part}: {why}' for part, why in outcome.failed.items())}")
    assert isinstance(outcome.found, Measured)
    return outcome.found.reports


def _need_metaflow() -> None:
    if find_spec("metaflow") is None:
        raise Unsupported("a fleet is a flow of Metaflow, which is not there", hint="pip install 'mfstore[metaflow]'")


def _for_all(decorators: Sequence[str]) -> list[str]:
    return [part for name in decorators for part in ("--with", name)]


def _to_the_end(request: Request, decorators: Sequence[str], max_workers: int | None) -> tuple[str, int]:
    """The run that was made, and the exit code of the flow."""
    with tempfile.TemporaryDirectory() as folder:
        noted = Path(folder, "run")
        workers = () if max_workers is None else ("--max-workers", str(max_workers))
        words = [*_for_all(decorators), "run", "--run-id-file", str(noted), *workers]
        # What people and programs read is what became of it: what Metaflow says goes to the other stream.
        done = _metaflow(request, words, stdout=sys.stderr)
        return f"{FLOW}/{noted.read_text().strip()}" if noted.exists() else FLOW, done.returncode


def _metaflow(request: Request, arguments: Sequence[str], **more: Any) -> subprocess.CompletedProcess[bytes]:
    from mfstore import fleet as room

    program = str(Path(room.__file__).with_name("flow.py"))
    variables = {**os.environ, "MFSTORE_FLEET_REQUEST": encode(request)}
    return subprocess.run([sys.executable, program, "--no-pylint", *arguments], env=variables, check=False, **more)


def _outcome(run: str) -> Outcome:
    """What the flow made of it, as Metaflow's Client reads it."""
    from metaflow import Run, namespace

    namespace(None)
    found: Outcome = Run(run)["end"].task["outcome"].data
    return found
