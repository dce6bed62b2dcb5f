"""The command du."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

import click

from mfstore.cli.command import Command
from mfstore.cli.gc_options import inventory_option, metadata_option
from mfstore.cli.metrics_file import measured, metrics_option
from mfstore.cli.options import (
    Connection,
    connection_options,
    json_option,
    metaflow_option,
    one_place,
    where_option,
)
from mfstore.cli.output import print_grid, print_json, print_table
from mfstore.cli.places import opened, opened_root
from mfstore.cli.reports import steps
from mfstore.display.amounts import size
from mfstore.display.words import printable
from mfstore.store import UsageBy

if TYPE_CHECKING:
    from mfstore.maintenance.usage import Order, Price, Usage, UsageGroup

OF_STORES = get_args(UsageBy)
OF_ROOTS = ("flow", "run", "user", "tag", "branch", "step", "artifact", "month", "class")


class _Price(click.ParamType):  # type: ignore[type-arg]
    name = "PRICE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        name, _, text = str(value).rpartition("=")
        try:
            price = float(text)
        except ValueError:
            price = -1.0
        if not 0 <= price < float("inf"):
            self.fail(f"{value!r} is no price. Write 0.023, or GLACIER_IR=0.004", param, ctx)
        return name, price


PRICE = _Price()
TOP = 50
"""Groups that a terminal is shown."""


@click.command(cls=Command)
@where_option
@metaflow_option
@click.option(
    "--by",
    type=click.Choice([*dict.fromkeys((*OF_STORES, *OF_ROOTS))]),
    metavar="GROUP",
    help="Who holds what: of a store by ref, prefix (of refs), user, flow, run, step, artifact, type, month or class "
    "(of storage); below a root of Metaflow by flow, run, user, tag, branch, step, artifact, month or class.",
)
@click.option("--flow", "flows", multiple=True, metavar="PATTERN", help="With --metaflow: only these flows.")
@metadata_option("Where tags and users of runs are read: local, local:PATH, service or none. As of gc.")
@inventory_option("Read what is there from an S3 Inventory, by the URL of its manifest.json or its folder.")
@click.option(
    "--sort",
    "order",
    type=click.Choice(["own", "shared", "all", "name"]),
    help="Own bytes first (the default), and so on.",
)
@click.option("--top", type=click.IntRange(min=1), metavar="N", help=f"So many groups at most; a table has {TOP}.")
@click.option(
    "--price-gb-month",
    "prices",
    type=PRICE,
    multiple=True,
    metavar="[CLASS=]PRICE",
    help="What a GB costs a month; as on a bill of S3 it has 2**30 bytes. 0.023 is S3 Standard in us-east-1. With "
    "--by class one for each: GLACIER_IR=0.004.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, in bytes.")
@json_option
@connection_options()
@metrics_option
def du(
    url: str | None, metaflow: str | None, connection: Connection, by: str | None, flows: tuple[str, ...],
    metadata: str | None, inventory: str | None, order: Order | None, top: int | None,
    prices: tuple[tuple[str, float], ...],
    as_csv: bool, as_json: bool,
) -> None:  # fmt: skip
    """Show what the store holds, by kind of object; below a root of Metaflow what its flows hold. With --by, who holds
    how much of it.

    A group's own bytes would go if only this group did. Shared bytes are held by others as well. What nobody holds are
    indexes, what collections will take, and below a root what is not Metaflow's.
    """
    where = one_place(url, metaflow)
    if by is None:
        only = {"--flow": flows, "--sort": order, "--top": top, "--price-gb-month": prices, "--csv": as_csv,
                "--inventory": inventory, "--metadata": metadata}  # fmt: skip
        if given := [name for name, value in only.items() if value]:
            raise click.UsageError(f"{', '.join(given)}: only with --by")
        if metaflow is None:
            _kinds(where, connection, as_json)
        else:
            _flows(where, connection, as_json)
        return
    price = _price(prices, by)
    if as_csv and as_json:
        raise click.UsageError("--csv and --json are two forms: give one of them")
    if metaflow is None:
        if by not in OF_STORES:
            raise click.UsageError(f"--by {by}: only for --metaflow")
        if flows or metadata or inventory:
            raise click.UsageError("--flow, --metadata, --inventory: only for --metaflow")
        with steps() as tell:
            found = opened(where, connection).usage(by, progress=tell)  # type: ignore[arg-type]
    else:
        if by not in OF_ROOTS:
            raise click.UsageError(f"--by {by}: not for --metaflow")
        found = _usage_of_root(where, connection, by, flows, metadata, inventory)
    measured(
        objects={"groups": len(found.groups)},
        sizes={"stored": found.total, "own": found.own, "shared": found.shared, "unheld": found.unheld},
    )
    groups = found.groups if order is None else found.sorted(order)
    if as_json:
        print_json(_document(found, groups[:top], price))
    elif as_csv:
        click.echo(found.csv(groups[:top], price), nl=False)
    else:
        _print(found, groups, top or TOP, price)


def _price(prices: tuple[tuple[str, float], ...], by: str) -> Price | None:
    found = dict(prices)
    if by == "class":
        return found or None
    if [*found] not in ([], [""]):
        raise click.UsageError("--price-gb-month: prices of classes are for --by class")
    return found.get("")


def _usage_of_root(
    url: str, connection: Connection, by: str, flows: tuple[str, ...], metadata: str | None, inventory: str | None
) -> Usage:
    from mfstore.maintenance.metaflow.collecting.record_sources import default_metadata
    from mfstore.maintenance.metaflow.usage import root_usage

    root = opened_root(url, connection)
    try:
        with steps() as tell:
            source = metadata or default_metadata()
            return root_usage(root, by, flows=flows, metadata=source, inventory=inventory, tell=tell)
    finally:
        root.close()


def _document(found: Usage, groups: Sequence[UsageGroup], price: Price | None) -> dict[str, object]:
    from mfstore.maintenance.usage import monthly

    def costs(group: UsageGroup) -> dict[str, float]:
        amounts = {"own": group.own, "shared": group.shared}
        if price is None:
            return {}
        return {f"{name}_cost": monthly(number, group, price) for name, number in amounts.items()}

    return {
        "url": found.url, "by": found.by, "total": found.total, "own": found.own, "shared": found.shared,
        "unheld": found.unheld, **({} if price is None else {"total_cost": found.cost(price)}), "notes": found.notes,
        "groups": [{**asdict(group), **costs(group)} for group in groups],
    }  # fmt: skip


def _print(found: Usage, groups: Sequence[UsageGroup], top: int, price: Price | None) -> None:
    shown = groups[:top]
    # Of months the last ones.
    if found.by == "month" and groups == found.groups:
        shown = groups[-top:]
    print_grid(found.grid(shown, price))
    if len(groups) > len(shown):
        click.echo(f"and {len(groups) - len(shown):,} more; --top, --csv and --json list more")
    click.echo(found.summary(price))
    for note in found.notes:
        click.echo(printable(note), err=True)


def _kinds(url: str, connection: Connection, as_json: bool) -> None:
    stats = opened(url, connection).stats()
    if as_json:
        document = asdict(stats)
        del document["session"]
        print_json(document)
        return
    counts = {"recipes": stats.recipes, "packs": stats.packs, "index": stats.index_fragments, "refs": stats.refs}
    rows = [(kind, str(count), size(stats.by_kind[kind])) for kind, count in counts.items()]
    rows.append(("total", str(sum(counts.values())), size(stats.stored)))
    print_table(("kind", "objects", "bytes"), rows, right=(1, 2))


def _flows(url: str, connection: Connection, as_json: bool) -> None:
    from mfstore.maintenance.metaflow.holdings import list_root
    from mfstore.maintenance.report import untold

    root = opened_root(url, connection)
    try:
        holdings = list_root(root, untold)
    finally:
        root.close()
    flows = holdings.usage()
    if as_json:
        for flow, parts in flows.items():
            print_json({"flow": flow, **{kind: {"objects": n, "bytes": count} for kind, (n, count) in parts.items()}})
        if holdings.packed[0]:
            print_json({"flow": None, "packed": {"objects": holdings.packed[0], "bytes": holdings.packed[1]}})
        return
    rows = []
    for flow, parts in flows.items():
        runs = str(sum(1 for name, _ in holdings.runs if name == flow))
        sizes = [size(count) for _, count in parts.values()]
        rows.append((flow, runs, *sizes, size(sum(count for _, count in parts.values()))))
    kinds = next(iter(flows.values()))
    print_table(("flow", "runs", *kinds, "total"), rows, right=tuple(range(1, len(kinds) + 3)))
    if holdings.packed[0]:
        click.echo(f"the packed profile's store, for all flows: {size(holdings.packed[1])}")
