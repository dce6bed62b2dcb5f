"""``mfstore bench``: measure a place, compare two measurements, write a report."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from mfstore.cli.command import Command
from mfstore.cli.exits import DAMAGE
from mfstore.cli.options import DURATION, Connection, connection_options, json_option
from mfstore.cli.output import print_json, progress
from mfstore.display.words import printable
from mfstore.errors import BackendError, InvalidKey, MfstoreError

if TYPE_CHECKING:
    from typing import TypeAlias

    from rich.progress import Progress

    from mfstore.bench.clients import ClientReport, ClientRequest
    from mfstore.bench.measure import Row
    from mfstore.bench.mixes import Mix
    from mfstore.bench.plan import BenchPlan, Prices, Step
    from mfstore.bench.results import Cell, Results, RowWriter
    from mfstore.bench.run import Keep, RunSettings
    from mfstore.bench.targets import Target
    from mfstore.bench.verdict import Site
    from mfstore.bench.window import Lasting

    Together: TypeAlias = Callable[[dict[str, Any], Keep], Iterator[Cell]]
    """Has several machines measure: gets what is known of the run, and what keeps rows."""

PEERS = "boto3, aiobotocore-client, s3fs, obstore, obstore-async, metaflow"
"""Of ``mfstore.bench.peers``, which is not imported for a help text."""
CLOUD_PEERS = "azure-storage-blob, adlfs; google-cloud-storage, gcsfs"
"""Of ``mfstore.bench.cloud_peers``, besides obstore."""


class _Listed(click.ParamType):  # type: ignore[type-arg]
    """Values with commas between them."""

    def __init__(self, kind: str, low: int = 0, high: int = 1 << 40) -> None:
        self.name = kind
        self._low, self._high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from mfstore.bench.scenarios import parse_size

        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in value.split(",") if word.strip()]
        if not words:
            self.fail("names nothing", param, ctx)
        if self.name == "names":
            return tuple(words)
        try:
            numbers = tuple(parse_size(word) if self.name == "sizes" else int(word) for word in words)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not all(self._low <= number <= self._high for number in numbers):
            self.fail(f"{value} is not within {self._low} to {self._high}", param, ctx)
        return numbers


_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(cls=Command)
@click.argument("url", required=False)
@json_option
@click.option(
    "--profile",
    type=click.Choice(["quick", "admin", "metaflow"]),
    default="quick",
    show_default=True,
    help="What is measured: a look; sizes by concurrency; the grid of Metaflow's own S3 benchmarks.",
)
@click.option(
    "--operation", "operations", type=_Listed("names"), help="Only these: put,get,head,list,delete,save,load."
)
@click.option(
    "--size", "sizes", type=_Listed("sizes"), help="Object or artifact sizes instead of the profile's: 4KiB,1MiB."
)
@click.option("--count", type=click.IntRange(1, 10_000_000), help="Objects of each size.")
@click.option("--concurrency", type=_Listed("numbers", 1, 4096), help="Requests (clouds) or threads at once: 1,16,64.")
@click.option("--compressible", type=_Listed("numbers", 0, 100), help="Per cent a compressor can remove: 0,50,90.")
@click.option(
    "--duplicate", type=_Listed("numbers", 0, 100), help="Per cent of an artifact bundle stored before: 0,90."
)
@click.option("--engine", "engines", type=_Listed("names"), help="S3: native,aiobotocore.")
@click.option("--failure", type=_Listed("numbers", 0, 90), help="Clouds: per cent of first tries that fail: 0,10.")
@click.option("--large", type=_Listed("sizes", 1), help="The large object of the metaflow profile.  [default: 256MiB]")
@click.option(
    "--peers",
    type=_Listed("names"),
    help=f"Also measure any of: S3 {PEERS}; Azure and Google Cloud obstore, obstore-async, {CLOUD_PEERS}.",
)
@click.option("--match", metavar="TEXT", help="Only scenarios with this text in their name (--plan shows names).")
@click.option(
    "--mix",
    "shares",
    metavar="SHARES",
    help="Operations of several kinds at once on objects that exist: get=45,put=15,delete=10,stat=30.",
)
@click.option(
    "--rate",
    metavar="N/s",
    help="Of a mix: begin so many operations per second, whatever became of earlier ones (an open loop).",
)
@click.option(
    "--arrivals",
    type=click.Choice(["poisson", "constant"]),
    default="poisson",
    show_default=True,
    help="Of --rate: as of many clients that know nothing of each other, or at equal distances.",
)
@click.option(
    "--total",
    type=click.IntRange(1, 10_000_000),
    help="Operations of a mix, at most.  [default: 100,000; with --rate, as many as --seconds has]",
)
@click.option(
    "--seconds", type=click.FloatRange(0.1), help="Longest time of each measurement, instead of the profile's."
)
@click.option(
    "--duration",
    type=DURATION,
    help="Each operation goes on for so long (60s), with new objects or the same ones again, once it is warm.",
)
@click.option("--warm-up", type=DURATION, help="With --duration: so long before it.  [default: a fifth, up to 10s]")
@click.option(
    "--repeat",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Measure everything so often: means with intervals, which --compare uses.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the data and of injected failures.")
@click.option("--price-put", type=click.FloatRange(0), help="Of 1000 PUT, POST and LIST requests.")
@click.option("--price-get", type=click.FloatRange(0), help="Of 1000 GET and HEAD requests.")
@click.option("--price-gb", type=click.FloatRange(0), help="Of 10^9 bytes read.")
@click.option(
    "--clients", type=_Listed("names"), metavar="HOSTS", help="Measure from these machines at once, over ssh: a,b,c."
)
@click.option("--ssh", default="ssh", show_default=True, metavar="COMMAND", help="Of --clients: how they are reached.")
@click.option(
    "--program", default="mfstore", show_default=True, metavar="COMMAND", help="Of --clients: mfstore on them."
)
@click.option("--tasks", type=click.IntRange(2, 256), help="Measure from so many tasks of Metaflow at once.")
@click.option(
    "--with",
    "decorators",
    multiple=True,
    metavar="DECORATOR",
    help="Of --tasks: where they run, as Metaflow's own --with: batch, kubernetes:cpu=2,memory=8000.",
)
@click.option("--worker", is_flag=True, hidden=True)
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before it starts.")
@click.option("-o", "--output", type=_FILE, help="Write the results to this file, as JSON.")
@click.option("--rows", type=_FILE, help="Write one row per object to this file, as gzipped CSV.")
@click.option("--html", type=_FILE, help="Write a report with plots to this file.")
@click.option("--from", "source", type=_FILE, help="Show results of --output again instead of measuring.")
@click.option(
    "--compare", nargs=2, type=_FILE, metavar="A B", help="Compare two results of --output, before and after."
)
@connection_options(writes=True, profile=False)
def bench(
    url: str | None,
    connection: Connection,
    as_json: bool,
    compare: tuple[Path, Path] | None,
    source: Path | None,
    html: Path | None,
    worker: bool,
    **options: Any,
) -> None:
    """Measure what the directory, bucket or prefix at URL brings, and what bounds it.

    Everything happens in a new scratch prefix below URL, which is removed at the end, also after Ctrl-C. What is there
    already is not touched. Credentials, region and endpoint are found as by each cloud's own tools.
    """
    if worker:
        from mfstore.bench.ssh import serve

        sys.exit(serve())
    if (url is not None) + (source is not None) + (compare is not None) != 1:
        raise click.UsageError("give a URL to measure, or --from FILE, or --compare A B")
    if compare is not None:
        _compare(*compare, as_json)
        return
    _check_files(html, options["output"], options["rows"])
    from mfstore.bench.results import read_results, results_of

    if source is not None:
        with results_of(source):
            _show(read_results(source), as_json, html)
        return
    assert url is not None
    measured = _measure(url, connection, as_json, **options)
    if measured is None:
        return
    results, ended = measured
    if results.cells:
        _show(results.to_dict(), as_json, html)
    if ended is not None:
        raise ended
    # Of repetitions the cell is of one; that all went well is asked of all.
    failed = sum((cell.repeats or cell).failed for cell in results.cells if cell.whole)
    if failed:
        raise BackendError(f"{failed} operations failed", backend=results.run["url"])
    if missed := [cell for cell in results.cells if cell.missed]:
        raise BackendError(f"the rate was not reached: {missed[0].name}", backend=results.run["url"])


def _measure(
    url: str,
    connection: Connection,
    as_json: bool,
    *,
    only_plan: bool,
    yes: bool,
    seed: int,
    seconds: float | None,
    duration: float | None,
    warm_up: float | None,
    repeat: int,
    match: str | None,
    output: Path | None,
    rows: Path | None,
    profile: str,
    large: tuple[int, ...] | None,
    peers: tuple[str, ...] | None,
    price_put: float | None,
    price_get: float | None,
    price_gb: float | None,
    shares: str | None,
    rate: str | None,
    arrivals: str,
    total: int | None,
    clients: tuple[str, ...] | None,
    ssh: str,
    program: str,
    tasks: int | None,
    decorators: tuple[str, ...],
    **axes: Any,
) -> tuple[Results, BaseException | None] | None:
    from mfstore.bench import plan as plans
    from mfstore.bench import scenarios
    from mfstore.bench.cloud_peers import require
    from mfstore.bench.run import RunSettings
    from mfstore.bench.targets import open_target
    from mfstore.s3.urls import SCHEMES

    scheme = url.partition("://")[0]
    require(peers or (), {"abfss": "az"}.get(scheme, scheme))
    if peers and (connection.encryption or connection.kms_key):
        raise click.UsageError("--encryption, --kms-key: the peers are not told of it; leave one of the two out")
    options = connection.options_for(url)
    target = open_target(url, checksum=not peers, **options)
    wished = scenarios.profile(profile, large[0] if large else scenarios.METAFLOW_LARGE)
    if axes["engines"] and target.kind in SCHEMES and target.kind != "s3":
        raise InvalidKey("engines exist for S3 only", hint="Leave out --engine")
    wished = scenarios.adapted(wished, scenarios.Overrides(**axes, peers=peers or ()), cloud=target.kind in SCHEMES)
    lasting = _lasting(duration, warm_up, seconds)
    if lasting is not None and (shares is not None or rate is not None):
        raise click.UsageError("--mix and --rate last for --seconds: leave out --duration")
    seconds = wished.seconds if seconds is None else seconds
    mix = _mix(shares, rate, arrivals, total, seconds)
    if mix is not None and (peers or axes["operations"]):
        raise click.UsageError("--mix and --rate go neither with --peers nor with --operation")
    everything = wished.scenarios() if mix is None else scenarios.mixed(wished.scenarios(), mix)
    found = [scenario for scenario in everything if match is None or match in scenario.name]
    if clients or tasks:
        if peers or (clients and tasks) or target.kind == "memory":
            raise click.UsageError("several machines measure one place they all reach, without --peers, and in one way")
        found = [scenario for scenario in found if scenario.layer == scenarios.OBJECTS]
    if not found:
        raise InvalidKey(
            "no scenario is left to measure", found=match and repr(match), hint="Loosen --match, --operation"
        )
    plan = plans.plan(found, lasting=duration is not None, repeat=repeat, clients=len(clients or ()) or tasks or 1)
    settings = RunSettings(seed, seconds, lasting)
    prices = plans.Prices(price_put, price_get, price_gb)
    _announce(target, plan, prices, settings, as_json, names=only_plan)
    if only_plan:
        return None
    for caution in target.cautions(plan.forecast.sent):
        click.echo(printable(f"warning   {caution}"), err=True)
    _confirm(yes)
    by_machines: Together | None = None
    if clients or tasks:
        from mfstore.bench.clients import ClientRequest

        request = ClientRequest(
            url, target.name, tuple(found), seed, seconds, 0, plan.clients, lasting, repeat, options
        )  # fmt: skip
        by_machines = partial(_by_machines, request, plan, clients, ssh, program, decorators)
    results, ended = _run(
        target, plan, prices, settings, rows, by_machines, {"profile": profile, "url": url, "kind": target.kind}
    )
    if output is not None and results.cells:
        output.write_text(json.dumps(results.to_dict()) + "\n", "utf-8")
    return results, ended


def _mix(shares: str | None, rate: str | None, arrivals: str, total: int | None, seconds: float) -> Mix | None:
    """What --mix, --rate and --total ask for; None without them."""
    from mfstore.bench.mixes import MOST, SHARES, Mix, parse_rate, parse_shares

    if shares is None and rate is None:
        if total is not None:
            raise click.UsageError("--total is for --mix and --rate")
        return None
    drawn = parse_shares(SHARES if shares is None else shares)
    if rate is None:
        return Mix(drawn, total or MOST)
    pace = parse_rate(rate)
    return Mix(drawn, total or max(1, round(pace * seconds)), pace, arrivals)


def _lasting(duration: float | None, warm_up: float | None, seconds: float | None) -> Lasting | None:
    from mfstore.bench.window import LONGEST_WARM_UP, WARM_UP_SHARE, Lasting

    if duration is None:
        if warm_up is not None:
            raise click.UsageError("--warm-up is of --duration")
        return None
    if seconds is not None:
        raise click.UsageError("--duration says how long it takes: leave out --seconds")
    if duration <= 0:
        raise click.UsageError("--duration is more than nothing")
    return Lasting(duration, min(duration * WARM_UP_SHARE, LONGEST_WARM_UP) if warm_up is None else warm_up)


def _announce(
    target: Target, plan: BenchPlan, prices: Prices, settings: RunSettings, as_json: bool, *, names: bool
) -> None:
    from mfstore.bench.report import plan_lines
    from mfstore.s3.urls import SCHEMES

    lines = [f"scratch   {target.scratch}", *plan_lines(plan, prices, settings, cloud=target.kind in SCHEMES)]
    for line in lines:
        click.echo(printable(line), err=True)
    if names and as_json:
        print_json(_plan_document(plan, prices))
    elif names:
        for name in dict.fromkeys(step.scenario.name for step in plan.steps):
            click.echo(printable(name))


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to confirm this: add --yes")
    click.confirm("Start?", abort=True, default=True, err=True)


def _plan_document(plan: BenchPlan, prices: Prices) -> dict[str, Any]:
    forecast = plan.forecast
    return {
        "requests_fewest": dict(forecast.fewest), "requests_most": dict(forecast.most), "bytes_sent": forecast.sent,
        "bytes_received": forecast.received, "bytes_stored": plan.peak, "cost": prices.cost(forecast),
        "prices": asdict(prices),
    }  # fmt: skip


def _by_machines(
    request: ClientRequest, plan: BenchPlan, clients: tuple[str, ...] | None, ssh: str, program: str,
    decorators: tuple[str, ...], run: dict[str, Any], keep: Keep,
) -> Iterator[Cell]:  # fmt: skip
    """What several machines bring together; ``run`` gets to know of them."""
    from mfstore.bench.merging import merged

    if clients:
        from mfstore.bench.ssh import over_ssh

        reports: Sequence[ClientReport] = over_ssh(clients, request, ssh, program)
    else:
        from mfstore.cli.fleet import measured_by_tasks

        reports = measured_by_tasks(request, decorators)
    names = [f"{report.number}: {clients[report.number] if clients else report.host}" for report in reports]
    run["clients"] = [
        {"client": name, "host": report.host, **report.about} for name, report in zip(names, reports, strict=True)
    ]
    parts = [part for name, report in zip(names, reports, strict=True) for part in report.named(name)]
    for cell, rows, begin in merged(plan.steps, parts, names):
        if cell.scenario.mix is None or not cell.whole:
            keep(cell, rows, begin)
        yield cell


def _run(
    target: Target,
    plan: BenchPlan,
    prices: Prices,
    settings: RunSettings,
    rows: Path | None,
    together_by: Together | None,
    about: dict[str, Any],
) -> tuple[Results, BaseException | None]:
    """What was measured, and what ended it early, if something did. The scratch prefix is gone in any case."""
    from mfstore import __version__
    from mfstore.bench.ceilings import measure_ceilings
    from mfstore.bench.host import host
    from mfstore.bench.repetitions import together
    from mfstore.bench.results import Results, row_writer
    from mfstore.bench.run import execute, removed_at_the_end
    from mfstore.bench.verdict import judge

    def say(text: str) -> None:
        click.echo(printable(f"mfstore: {text}"), err=True)

    started = datetime.now(UTC).isoformat(timespec="seconds")
    measured: Results | None = None
    ended: BaseException | None = None
    try:
        with ExitStack() as stack:
            writer = stack.enter_context(row_writer(rows)) if rows is not None else None
            stack.enter_context(removed_at_the_end(target, say))
            about_target = target.check()
            ceilings = measure_ceilings(target.directory)
            run = {
                **about, **about_target, "version": __version__, "python": platform.python_version(),
                "host": host(target.directory),
                "cpus": ceilings.cpus, "system": f"{platform.system()} {platform.machine()}", "started": started,
                "seed": settings.seed, "seconds": settings.seconds, "scratch": target.scratch, "repeat": plan.repeat,
                "duration": settings.lasting and settings.lasting.duration,
                "warm_up": settings.lasting and settings.lasting.warm_up,
            }  # fmt: skip
            results = Results(run, _plan_document(plan, prices), asdict(ceilings))
            under_way = _Display(plan, stack.enter_context(progress()))
            keep = _drop if writer is None else partial(_write, writer)
            measured = results
            cells = together_by(run, keep) if together_by else execute(target, plan, settings, keep, under_way)
            for cell in cells:
                results.cells.append(cell)
            measured = None
    except (KeyboardInterrupt, MfstoreError) as error:
        # It went through the removal, which then waits for what was sent and not answered.
        if measured is None:
            raise
        # What has been measured until then is worth showing.
        ended = error
        results.run = {**run, "ended": str(error) or "interrupted"}
    if target.remains:
        say(target.remains)
    here = _site(target.kind, about_target)
    results.cells = together(results.cells)
    results.cells = [
        replace(cell, verdict=judge(cell, ceilings, here, results.cells)) if cell.whole and not cell.clients else cell
        for cell in results.cells
    ]
    return results, ended


def _site(kind: str, about: Mapping[str, Any]) -> Site:
    from mfstore.bench.link import Link
    from mfstore.bench.verdict import Site
    from mfstore.host.control_group import control_group
    from mfstore.s3.urls import on_loopback

    group = control_group()
    link = Link(**about["link"]) if about.get("link") else None
    return Site(kind, on_loopback(about.get("endpoint")), link, group.cpus, group.memory, os.cpu_count())


def _write(writer: RowWriter, cell: Cell, found: Sequence[Row], begin: float) -> None:
    writer.add(cell.number, cell.operation, found, begin)


def _drop(*_: object) -> None:
    return


class _Display:
    """Which measurement is under way."""

    def __init__(self, plan: BenchPlan, display: Progress) -> None:
        self._display = display
        self._lasting = plan.lasting
        self._done, self._next = 0, 0.0
        self._all = display.add_task("measurements", total=len(plan.steps) * plan.repeat)
        self._one = display.add_task("", total=None)
        self._step: Step | None = None

    def __call__(self, step: Step, done: int) -> None:
        if step is not self._step:
            if self._step is not None:
                self._display.advance(self._all)
            self._step = step
            total = step.scenario.count if step.scenario.layer == "objects" else step.scenario.bundles
            if step.scenario.mix is not None and step.measured:
                total = step.scenario.mix.total
            name = f"{step.operation} {step.scenario.name}"
            known = not self._lasting and step.operation != "list"
            self._display.reset(self._one, total=total if known else None, description=name)
            self._done = 0
        self._done += done
        # Telling the display of every object would cost as much as a small object does.
        if (now := monotonic()) > self._next:
            self._next = now + 0.1
            self._display.update(self._one, completed=self._done)


def _show(document: dict[str, Any], as_json: bool, html: Path | None) -> None:
    if html is not None:
        from mfstore.bench.html import write_report

        write_report(document, html)
    if as_json:
        print_json(document)
        return
    from mfstore.bench.report import head_lines, summary_lines, tables, verdict_lines

    for line in head_lines(document):
        click.echo(printable(line))
    for title, columns, rows in tables(document):
        click.echo()
        _print_wide(title.upper(), columns, rows)
    click.echo()
    for line in [*summary_lines(document), *verdict_lines(document["cells"])]:
        click.echo(printable(line))


def _print_wide(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """One table, or two with the same first column where one does not fit the terminal."""
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    wide = Console(width=1000, highlight=False)
    room = Console().width if sys.stdout.isatty() else 200

    def made(chosen: Sequence[int]) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        table.add_column(title, overflow="fold", min_width=24)
        for number in chosen:
            name = columns[number]
            table.add_column(name, justify="left" if name == "engine" else "right", no_wrap=True)
        for row in rows:
            table.add_row(Text(printable(row[0])), *(Text(printable(row[number])) for number in chosen))
        return table

    def needed(table: Table) -> int:
        # The first column may fold.
        names = max(len(row[0]) for row in rows) if rows else 0
        return Measurement.get(wide, wide.options, table).maximum - max(names - 24, 0)

    everything = range(1, len(columns))
    times = [number for number in everything if "\np" in columns[number] or columns[number].endswith("\nmax")]
    parts: list[Sequence[int]] = [everything]
    if times and needed(made(everything)) > room:
        parts = [[number for number in everything if number not in times], [1, *times]]
    for part in parts:
        table = made(part)
        # A terminal that is too narrow even so may break the lines: nothing is cut off.
        Console(width=max(room, needed(table)), highlight=False).print(table)


def _compare(before: Path, after: Path, as_json: bool) -> None:
    from mfstore.bench.compare import compare
    from mfstore.bench.report import comparison
    from mfstore.bench.results import read_results, results_of

    documents = read_results(before), read_results(after)
    with results_of(before, after):
        found = compare(*documents)
        (title, columns, rows), lines = comparison(found)
    for warning in found.warnings:
        click.echo(printable(f"warning   not the same, so figures may differ for that alone: {warning}"), err=True)
    if as_json:
        words = [{**asdict(change), "ratio": change.ratio, "word": change.word} for change in found.changes]
        print_json({**asdict(found), "changes": words, "slower": found.slower})
    else:
        _print_wide(title.upper(), columns, rows)
        for line in lines:
            click.echo(printable(line))
    if found.slower:
        sys.exit(DAMAGE)


def _check_files(html: Path | None, *more: Path | None) -> None:
    """Before minutes are spent on what could not be written."""
    from importlib.util import find_spec

    if html is not None and find_spec("matplotlib") is None:
        raise click.UsageError("--html needs matplotlib: pip install 'mfstore[report]'")
    for path in (html, *more):
        if path is not None and not os.access(path if path.exists() else path.parent, os.W_OK):
            raise click.UsageError(f"cannot write {path}")
