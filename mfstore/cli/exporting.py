"""``mfstore export`` and ``mfstore presign``: for those who have no mfstore."""

from __future__ import annotations

import click

from mfstore.cli.command import Command
from mfstore.cli.options import Connection, complete_ref, connection_options, json_option, store_option
from mfstore.cli.output import print_json
from mfstore.cli.places import opened
from mfstore.exporting.formats import FORMATS


@click.command(cls=Command)
@store_option
@json_option
@click.option("--format", "called", type=click.Choice(FORMATS), help="Else as PATH ends; bytes and texts as they are.")
@click.option(
    "--part", "parts", metavar="NAME", multiple=True,
    help="Only this part: an artifact of a bundle, an entry of a dict, a number of a list. Again: a part of it.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace a file, or an object, that is there.")
@click.argument("name", shell_complete=complete_ref)
@click.argument("path")
@connection_options(writes=True)
def export(
    url: str, connection: Connection, as_json: bool, called: str | None, parts: tuple[str, ...], overwrite: bool,
    name: str, path: str,
) -> None:  # fmt: skip
    """Write what NAME, a key or a ref, stands for to PATH, a file or s3://bucket/key, which others read without
    mfstore: pickle (.pkl), npy, npz, parquet, safetensors, csv, json, text (.txt) or bytes (.bin). Prints where it is.
    For tables, csv and json it is unpickled: only from stores whose writers you trust, or with MFSTORE_SAFE=1."""
    if path == "-":
        raise click.UsageError("an export is a file: mfstore get writes to standard output")
    store = opened(url, connection)
    view = store.view(name)
    for part in parts:
        is_number = view.kind == "sequence" and part.removeprefix("-").isdecimal()
        found = view[int(part) if is_number else part]
        if not isinstance(found, type(view)):
            raise click.UsageError(f"{part} is data within {name}: export what it is in")
        view = found
    place = store.export(view, path, called, overwrite=overwrite, progress=True)
    print_json({"key": view.key, "path": place}) if as_json else click.echo(place)


@click.command(cls=Command)
@store_option
@json_option
@click.option(
    "--expires", default="1h", show_default=True, metavar="DURATION", help="How long it is to last, up to 7d."
)
@click.argument("place", metavar="S3URL")
@connection_options()
def presign(url: str, connection: Connection, as_json: bool, expires: str, place: str) -> None:
    """Print a URL by which anybody gets the object S3URL (s3://bucket/key) until it expires, without credentials: of
    what mfstore export has put there. Of a key or a ref it says how to export it."""
    found = opened(url, connection).presign(place, expires)
    print_json({"object": place, "url": found}) if as_json else click.echo(found)
