"""The command copy."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mfstore.cli.command import Command, SectionOption
from mfstore.cli.exits import DAMAGE
from mfstore.cli.options import Connection, complete_ref, connection_options, json_option, one_service
from mfstore.cli.output import print_json, print_table
from mfstore.cli.places import opened
from mfstore.display.amounts import count, size
from mfstore.display.words import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from mfstore.copying.report import Copied

SHOWN = 50
"""Refs that are printed; --json has all."""
ANOTHER_WAY = "Of a source that is reached otherwise"


def _of_source(*names: str, **more: Any) -> Callable[[Any], Any]:
    return click.option(*names, cls=SectionOption, section=ANOTHER_WAY, **more)


def _complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """The refs of the source."""
    context.params["url"] = context.params.get("source")
    return complete_ref(context, parameter, begun)


@click.command(cls=Command)
@json_option
@click.option("--dry-run", is_flag=True, help="Only tell what would be copied.")
@click.option(
    "--on-conflict", type=click.Choice(["raise", "skip", "overwrite"]), default="raise", show_default=True,
    help="What becomes of a ref that DEST has set to what it never was in SRC: nothing is copied; it stays; or it gets "
    "the values of SRC behind its own.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="As --on-conflict overwrite.")
@click.option("--no-signatures", is_flag=True, help="Leave signatures of keys behind: of who may not sign in DEST.")
@_of_source("--from-endpoint-url", metavar="URL", help="Where the service of SRC is; else as of DEST.")
@_of_source("--from-region", metavar="NAME", help="Likewise.")
@_of_source("--from-profile", metavar="NAME", help="A profile of AWS's configuration; likewise.")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DEST")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=_complete)
@connection_options(writes=True)
def copy(
    connection: Connection, as_json: bool, dry_run: bool, on_conflict: Any, force: bool, no_signatures: bool,
    source: str, destination: str, names: tuple[str, ...], from_endpoint_url: str | None, from_region: str | None,
    from_profile: str | None,
) -> None:  # fmt: skip
    """Copy what the store SRC has and the store DEST lacks: each NAME, or everything.

    A NAME is a key or a ref, which goes with its history; a pattern of refs (runs/*), or what they begin with
    (models/). DEST is created if there is no store yet. Refs are set last, so that what was stopped can be run again:
    what is there by then is not sent again. --endpoint-url and its kind are of both places, as far as they are in the
    same cloud; else --endpoint-url is DEST's.
    """
    if force and on_conflict not in ("raise", "overwrite"):
        raise click.UsageError("--force overwrites, and --on-conflict says something else: give one of them")
    of_source = Connection(from_endpoint_url, from_region, from_profile)
    reached, other = reached_by(source, destination, connection, of_source)
    with opened(source, reached) as here, opened(destination, other, create=True) as there:
        done = here.copy_to(
            there, names or None, on_conflict="overwrite" if force else on_conflict, signatures=not no_signatures,
            dry_run=dry_run, progress=True,
        )  # fmt: skip
    print_json({**asdict(done), "kept": done.kept}) if as_json else _print(done)
    if done.kept:
        sys.exit(DAMAGE)


def reached_by(source: str, destination: str, both: Connection, of_source: Connection) -> tuple[Connection, Connection]:
    """How the two places are reached. Wrong usage for an option that is about neither, or about how things are stored
    where they are only read: who asked for encryption would believe that there is some."""
    if wrong := sorted(of_source.named() - of_source.part_for(source).named()):
        options = ", ".join(f"--from-{name.removeprefix('aws_').replace('_', '-')}" for name in wrong)
        where = "S3, Azure or Google Cloud" if "endpoint_url" in wrong else "S3"
        raise click.UsageError(f"{options}: only for places in {where}, and this is {source}")
    there = both.part_for(destination)
    here = both.part_for(source)._replace(encryption=None, kms_key=None)
    if there.endpoint_url is not None and not one_service(source, destination):
        here = here._replace(endpoint_url=None)  # an address is that of one service
    used = here.named() | there.named()
    both._replace(**dict.fromkeys(used)).options_for(destination)
    return here._replace(**{name: getattr(of_source, name) for name in of_source.named()}), there


def _print(done: Copied) -> None:
    rows = [
        (ref.name, ref.outcome, f"{ref.values:,}", f"{ref.keys:,}", size(ref.bytes))
        for ref in done.refs if ref.outcome != "same"
    ]  # fmt: skip
    if rows:
        print_table(("ref", "", "values", "keys", "bytes"), rows[:SHOWN], right=(2, 3, 4))
    if len(rows) > SHOWN:
        click.echo(f"and {len(rows) - SHOWN:,} more refs; --json has them all")
    same = len(done.refs) - len(rows)
    if same:
        click.echo(f"{count(same, 'ref')} {'has' if same == 1 else 'have'} all of it there")
    if done.keys:
        told = f"{count(done.keys, 'key')} {'copied' if done.done else 'would be copied'} to {done.destination}: "
        told += f"{size(done.sent)} in {'' if done.done else 'about '}{count(done.objects, 'object')}"
        if done.chunks:
            told += f", with {count(done.chunks, 'chunk')}"
    else:
        told = f"no key is missing in {done.destination}"
    if done.there:
        told += f"; {count(done.there, 'key')} {'was' if done.there == 1 else 'were'} there"
    click.echo(printable(told))
    if done.signatures or done.holds:
        click.echo(f"with {count(done.signatures, 'signature')} and {count(done.holds, 'hold')}")
    for name in done.kept[:SHOWN]:
        click.echo(printable(f"mfstore: {name} is set to something else there, and was left so"), err=True)
