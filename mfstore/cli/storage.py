"""The command refs."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from mfstore.cli.command import Command, CommandGroup
from mfstore.cli.options import (
    NOTE,
    Connection,
    complete_ref,
    connection_options,
    execute_option,
    json_option,
    store_option,
    where_option,
)
from mfstore.cli.output import end_planned, print_json, print_table
from mfstore.cli.places import opened
from mfstore.display.amounts import count, time_of_day
from mfstore.display.words import note_text, printable, short_key
from mfstore.errors import CorruptObject


class _Refs(CommandGroup):
    """``mfstore refs NAME`` is its log: what is no command of the group is a name."""

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(context, args[0]) is None and not args[0].startswith("-"):
            return "log", refs_log, args
        return super().resolve_command(context, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = super().shell_complete(ctx, incomplete)
        return found + [CompletionItem(name) for name in complete_ref(ctx, ctx.command.params[0], incomplete)]


@click.group(cls=_Refs, invoke_without_command=True, subcommand_metavar="[NAME | log | set | rm]")
@click.pass_context
@where_option
@json_option
@connection_options(writes=True)
def refs(context: click.Context, url: str | None, connection: Connection, as_json: bool) -> None:
    """List the refs; show every value of the ref NAME; or change refs: set, rm."""
    if context.invoked_subcommand is not None:
        given = {name: value for name, value in context.params.items() if value is not None}
        context.default_map = {context.invoked_subcommand: given}
        return
    if not url:
        raise click.UsageError("Missing option '-s' / '--store' (env var: 'MFSTORE_STORE').")
    found = list(opened(url, connection).refs.latest())
    if as_json:
        for name, entry in found:
            print_json({"name": name, "key": entry.key, "time": entry.time})
    elif found:
        rows = [(name, short_key(entry.key), time_of_day(entry.time)) for name, entry in found]
        print_table(("ref", "key", "set at"), rows)


@refs.command("set")
@store_option
@json_option
@click.option("--note", "notes", metavar="FIELD=VALUE", type=NOTE, multiple=True, help="As of put.")
@click.argument("name", shell_complete=complete_ref)
@click.argument("key", shell_complete=complete_ref)
@connection_options(writes=True)
def refs_set(
    url: str, connection: Connection, as_json: bool, notes: tuple[tuple[str, Any], ...], name: str, key: str
) -> None:
    """Point the ref NAME at KEY, a key or another name."""
    store = opened(url, connection)
    found = store.resolve(key)
    store.refs.set(name, found, note=dict(notes) or None)
    if as_json:
        print_json({"name": name, "key": found})


@refs.command("rm")
@store_option
@json_option
@execute_option
@click.argument("name", shell_complete=complete_ref)
@connection_options(writes=True)
def refs_rm(url: str, connection: Connection, as_json: bool, execute: bool, name: str) -> None:
    """Remove the ref NAME and its history, also one that cannot be read. mfstore delete NAME tells also what becomes of
    the bytes."""
    refs = opened(url, connection).refs
    if execute:
        del refs[name]
        told = "is removed"
    else:
        try:
            told = f"would be removed, with its history of {count(len(refs.log(name)), 'value')}"
        except CorruptObject:
            told = "cannot be read, and would be removed"
    print_json({"name": name, "removed": execute}) if as_json else click.echo(printable(f"{name} {told}"))
    end_planned(not execute)


@refs.command("log")
@store_option
@json_option
@click.argument("name", shell_complete=complete_ref)
@connection_options()
def refs_log(url: str, connection: Connection, as_json: bool, name: str) -> None:
    """Show every value of the ref NAME, newest first, each with the name that it has now."""
    entries = opened(url, connection).refs.log(name)
    if as_json:
        for entry in entries:
            print_json({"key": entry.key, "time": entry.time, "note": entry.note})
        return
    rows = [
        (f"@{number}", time_of_day(time), short_key(key), "" if note is None else note_text(note))
        for number, (key, time, note) in enumerate(entries)
    ]
    columns = ("", "set at", "key", "note") if any(row[3] for row in rows) else ("", "set at", "key")
    print_table(columns, [row[: len(columns)] for row in rows])


refs.add_command(
    Command("history", callback=refs_log.callback, params=refs_log.params, help=refs_log.help, hidden=True)
)
