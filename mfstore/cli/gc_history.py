"""``mfstore gc --log`` and ``--undo``: what collections did, and taking back what they condemned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from mfstore.cli.output import print_json, print_table
from mfstore.cli.places import opened, opened_root
from mfstore.display.amounts import count, date, duration, size
from mfstore.display.words import printable
from mfstore.format.audit import END, STORE_LOG
from mfstore.maintenance.audit import read_log
from mfstore.maintenance.told import SHOWN

if TYPE_CHECKING:
    from mfstore.cli.options import Connection
    from mfstore.format.audit import AuditRecord

SECONDS = ("age", "for", "grace", "keep_age", "running")
COUNTED = {"runs": "run", "keys": "key", "refs": "ref", "lost": "lost", "condemned": "condemned"}


def show_log(where: str, connection: Connection, metaflow: bool, names: Sequence[str], as_json: bool) -> None:
    """Print the last executions, the latest first; with ``names`` those that are about these runs, refs or keys."""
    if metaflow:
        from mfstore.metaflow.roots.layout import LOG_FOLDER

        root = opened_root(where, connection)
        backend, folder, close = root.backend, LOG_FOLDER, root.close
    else:
        store = opened(where, connection)
        backend, folder, close = store.handle.access("read").backend, STORE_LOG, store.close
    try:
        records = read_log(backend, folder)
        wanted = _about(records, names) if names else records
        shown = list(wanted if as_json else islice(wanted, 2 * SHOWN))
    finally:
        close()
    if as_json:
        for record in shown:
            print_json(asdict(record))
        return
    ended = {record.execution for record in shown if record.event == END}
    rows = [_row(record) for record in shown if record.event == END or record.execution not in ended]
    if rows:
        print_table(("when", "by", "what", "outcome", "policy"), rows[:SHOWN])
    else:
        click.echo("There is nothing in the log" + (f" about {printable(', '.join(names))}." if names else "."))


def _about(records: Iterable[AuditRecord], names: Sequence[str]) -> Iterator[AuditRecord]:
    """The executions that are about these names, whole: what is condemned is named at the beginning of one alone."""
    ends: dict[str, AuditRecord] = {}
    for record in records:
        if record.event == END:
            ends[record.execution] = record
            continue
        end = ends.pop(record.execution, None)
        both = [record] if end is None else [end, record]
        if any(_mentions(one, names) for one in both):
            yield from both
    yield from (end for end in ends.values() if _mentions(end, names))


def _mentions(record: AuditRecord, names: Sequence[str]) -> bool:
    return any(
        name in value if isinstance(value, list) else name == value
        for line in record.lines for value in line.values() for name in names
    )  # fmt: skip


def _row(record: AuditRecord) -> tuple[str, ...]:
    facts = record.facts
    if record.event == END:
        outcome = str(facts.get("outcome", "")) + (f": {facts['error']}" if facts.get("error") else "")
    else:
        outcome = "did not end"
    amounts = [
        count(_number(facts, name), noun) if noun != name else f"{_number(facts, name):,} {noun}"
        for name, noun in COUNTED.items() if _number(facts, name)
    ]  # fmt: skip
    if _number(facts, "bytes"):
        amounts.append(size(_number(facts, "bytes")))
    policy = ", ".join(f"{name} {_value(name, value)}".rstrip() for name, value in record.policy.items())
    return date(record.time), record.user, f"{record.action}: {', '.join(amounts) or 'nothing'}", outcome, policy


def _value(name: str, value: Any) -> str:
    if value is True:
        return ""
    if name in SECONDS and isinstance(value, int | float):
        return duration(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _number(facts: Any, name: str) -> int:
    found = facts.get(name)
    return found if isinstance(found, int) else 0


def undo(
    where: str, connection: Connection, metaflow: bool, names: Sequence[str], lasting: float | None, as_json: bool
) -> bool:
    """Take back what is condemned, all or these names, and print it. Whether all of it was still there."""
    return (_undo_root if metaflow else _undo_store)(where, connection, names, lasting, as_json)


def _undo_root(where: str, connection: Connection, names: Sequence[str], lasting: float | None, as_json: bool) -> bool:
    from mfstore.maintenance.metaflow.undo import undo_root

    root = opened_root(where, connection)
    try:
        done = undo_root(root, names, lasting)
    finally:
        root.close()
    if as_json:
        print_json({"held": {name: hold.until for name, hold in done.held.items()}, "lost": done.lost})
    elif not done.held and not done.lost:
        click.echo("No run is condemned.")
    else:
        for name, hold in islice(done.held.items(), SHOWN):
            click.echo(printable(f"{name} stays, {hold}"))
        if len(done.held) > SHOWN:
            click.echo(f"and {len(done.held) - SHOWN} more; mfstore holds lists all")
        for name, why in done.lost.items():
            click.echo(printable(f"{name}: {why}"), err=True)
    return not done.lost


def _undo_store(where: str, connection: Connection, names: Sequence[str], lasting: float | None, as_json: bool) -> bool:
    from mfstore.maintenance.store.undo import undo_store

    with opened(where, connection) as store:
        done = undo_store(store, names, lasting)
    if as_json:
        print_json(asdict(done))
    elif not (done.refs or done.keys or done.lost):
        click.echo("Nothing is condemned.")
    else:
        for name, number in islice(done.refs.items(), SHOWN):
            click.echo(printable(f"{name} has {count(number, 'value')} again, and is held"))
        if len(done.refs) > SHOWN:
            click.echo(f"and {len(done.refs) - SHOWN} more refs")
        if done.keys:
            click.echo(f"{count(len(done.keys), 'key')} without a ref {'is' if len(done.keys) == 1 else 'are'} held")
        if done.lost:
            click.echo(f"{count(len(done.lost), 'key')} cannot be had back: deleted, or being deleted", err=True)
    return not done.lost
