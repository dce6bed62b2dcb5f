"""The command that compares."""

from __future__ import annotations

import click

from mfstore.cli.command import Command
from mfstore.cli.options import (
    Connection,
    cache_option,
    complete_ref,
    connection_options,
    json_option,
    store_option,
)
from mfstore.cli.output import print_json, print_table
from mfstore.cli.places import opened
from mfstore.display.words import printable


@click.command(cls=Command)
@store_option
@json_option
@cache_option
@click.argument("old", shell_complete=complete_ref)
@click.argument("new", shell_complete=complete_ref)
@connection_options()
def diff(url: str, connection: Connection, as_json: bool, cache: str | None, old: str, new: str) -> None:
    """Compare what the names OLD and NEW stand for: which artifacts, columns, arrays and entries were added, removed
    and changed, with how many rows and bytes. What it compares is made of pickles: only for stores whose writers you
    trust."""
    found = opened(url, connection, cache=cache).diff(old, new, progress=True)
    if as_json:
        print_json(found.to_dict())
        return
    click.echo(printable(f"{old} -> {new}: {found.summary}"))
    if found:
        print_table(("", "part", "was", "is"), found.lines())
