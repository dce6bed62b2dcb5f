"""The command page."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from mfstore.cli.command import Command
from mfstore.cli.options import Connection, connection_options, json_option, metaflow_option
from mfstore.cli.output import print_json
from mfstore.cli.places import opened, opened_root
from mfstore.cli.reports import steps
from mfstore.display.amounts import size
from mfstore.display.words import printable
from mfstore.settings import default_store


@click.command(cls=Command)
@click.argument("url", required=False)
@click.option("-s", "--store", metavar="URL", help="The same as URL. [env: MFSTORE_STORE; file: store]")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE",
    help="The file of HTML; one that is there is replaced, by a whole one.",
)  # fmt: skip
@metaflow_option
@click.option("--prefix", metavar="PREFIX", help="Only refs that begin so; with --metaflow steps, such as TrainFlow/.")
@click.option(
    "--history", type=click.IntRange(min=1), metavar="N",
    help="So many values of each ref, with --metaflow runs of each step; 10 by default.",
)  # fmt: skip
@click.option(
    "--diff/--no-diff", default=None,
    help="Compare the newest value of the refs set last inside with the one before it (the default), or read no data.",
)  # fmt: skip
@click.option("--title", metavar="TEXT", help="What the page is called; else as the place is.")
@json_option
@connection_options()
def page(
    url: str | None, store: str | None, metaflow: str | None, connection: Connection, output: Path, prefix: str | None,
    history: int | None, diff: bool | None, title: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Write one HTML file that shows the store at URL, or a datastore root of Metaflow: refs with history and notes, or
    runs, tasks and artifacts; what changed, where the bytes are and how they grew. It needs no server and no network.
    What cannot be read is told in it."""
    from mfstore.page.writing import write_page

    named = [place for place in (url, store, metaflow) if place]
    if len(named) > 1:
        raise click.UsageError("URL, -s / --store and --metaflow name several places: give one of them")
    if metaflow and diff:
        raise click.UsageError("--diff: only of a store; which artifacts of a task changed is told without")
    place = named[0] if named else default_store()
    if not place:
        raise click.UsageError("Missing argument 'URL', '-s' / '--store' (env var: 'MFSTORE_STORE') or '--metaflow'.")
    given = {"prefix": prefix, "history": history, "diff": diff, "title": title}
    options = {name: value for name, value in given.items() if value is not None}
    with closing(opened_root(place, connection) if metaflow else opened(place, connection)) as found, steps() as tell:
        write_page(found, output, progress=tell, **options)  # type: ignore[arg-type]
    written = output.stat().st_size
    if as_json:
        print_json({"output": str(output), "bytes": written})
    else:
        click.echo(printable(f"{output}: {size(written)}"))
