"""``mfstore hold`` and ``holds``: what no policy of a collection lets go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from mfstore.cli.command import Command
from mfstore.cli.options import (
    DURATION,
    Connection,
    complete_ref,
    connection_options,
    json_option,
    metaflow_option,
    one_place,
    where_option,
)
from mfstore.cli.output import print_json, print_table
from mfstore.cli.places import opened, opened_root
from mfstore.display.amounts import date
from mfstore.display.words import printable
from mfstore.names import is_key

if TYPE_CHECKING:
    from mfstore.format.holds import Hold
    from mfstore.maintenance.metaflow.root import Root


@dataclass(frozen=True, slots=True)
class _Place:
    """Where things are held."""

    kind: str
    hold: Callable[[str, str, float | None], Hold]
    release: Callable[[str], None]
    holds: Callable[[], Mapping[str, Hold]]

    def kind_of(self, name: str) -> str:
        """What a name is of."""
        return "key" if is_key(name) else self.kind


@click.command(cls=Command)
@where_option
@metaflow_option
@json_option
@click.option("--why", default="", metavar="TEXT", help="What whoever finds the hold should know.")
@click.option(
    "--for", "lasting", type=DURATION, metavar="TIME", help="Hold for so long, as 30d; else until it is released."
)
@click.option("--release", is_flag=True, help="End the hold.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_ref)
@connection_options(writes=True)
def hold(
    url: str | None, metaflow: str | None, connection: Connection, as_json: bool, why: str, lasting: float | None,
    release: bool, names: tuple[str, ...],
) -> None:  # fmt: skip
    """Keep each NAME, a ref or a key, or with --metaflow a run (Flow/run), whatever the policy of a collection says.

    It is kept until it is released. mfstore holds lists what is held.
    """
    if release and (why or lasting is not None):
        raise click.UsageError("--release ends a hold: --why and --for say how one begins")
    with _place(url, metaflow, connection) as place:
        for name in names:
            found = None
            if release:
                place.release(name)
            else:
                found = place.hold(name, why, lasting)
            if as_json:
                print_json(
                    {place.kind_of(name): name, "held": found is not None} | ({} if found is None else _fields(found))
                )
            else:
                click.echo(printable(f"{name} is {'released' if found is None else found}"))


@click.command(cls=Command)
@where_option
@metaflow_option
@json_option
@connection_options()
def holds(url: str | None, metaflow: str | None, connection: Connection, as_json: bool) -> None:
    """List what is held: refs and keys, or with --metaflow runs."""
    with _place(url, metaflow, connection) as place:
        found = place.holds()
    if as_json:
        for name, one in found.items():
            print_json({place.kind_of(name): name, **_fields(one)})
    elif found:
        rows = [(name, one.who, _day(one.when), _day(one.until), _why(one)) for name, one in found.items()]
        rows.sort(key=lambda row: is_key(row[0]))
        print_table((place.kind, "held by", "since", "until", "why"), rows)
    else:
        click.echo("Nothing is held.")


@contextmanager
def _place(url: str | None, metaflow: str | None, connection: Connection) -> Iterator[_Place]:
    where = one_place(url, metaflow)
    if metaflow is None:
        refs = opened(where, connection).refs
        yield _Place("ref", lambda name, why, lasting: refs.hold(name, why, lasting=lasting), refs.release, refs.holds)
        return
    from mfstore.holding import new_hold
    from mfstore.maintenance.metaflow.holds import hold_run, release_run

    root = opened_root(where, connection)
    try:
        yield _Place(
            "run",
            lambda name, why, lasting: hold_run(root, name, new_hold(why, lasting)),
            lambda name: release_run(root, name),
            lambda: _holds_below(root),
        )
    finally:
        root.close()


def _holds_below(root: Root) -> Mapping[str, Hold]:
    from mfstore.errors import NotFound
    from mfstore.maintenance.metaflow.holds import run_holds

    found = run_holds(root, time.time())
    if not found and next(root.backend.list(""), None) is None:
        raise NotFound("nothing is there", backend=root.url)
    return found


def _day(moment: float | None) -> str:
    return date(moment) if moment else ""


def _why(one: Hold) -> str:
    return f"cannot be read: {one.unread}" if one.unread else one.why


def _fields(one: Hold) -> dict[str, Any]:
    fields = {"who": one.who, "when": one.when, "why": one.why, "until": one.until}
    return {**fields, "unread": one.unread} if one.unread else fields
