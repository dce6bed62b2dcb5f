"""Commands about the store itself: du, refs."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from mfstore.cli.options import json_option, metaflow_option, one_place, store_option, where_option
from mfstore.cli.output import opened, print_json, print_table, resolve_key
from mfstore.display.amounts import size


@click.command()
@where_option
@metaflow_option
@json_option
def du(url: str | None, metaflow: str | None, as_json: bool) -> None:
    """Show what the store holds, by kind of object; below a root of Metaflow what its flows hold."""
    where = one_place(url, metaflow)
    if metaflow is not None:
        _du_metaflow(where, as_json)
        return
    stats = opened(where).stats()
    if as_json:
        document = asdict(stats)
        del document["session"]
        print_json(document)
        return
    counts = {"recipes": stats.recipes, "packs": stats.packs, "index": stats.index_fragments, "refs": stats.refs}
    rows = [(kind, str(count), size(stats.by_kind[kind])) for kind, count in counts.items()]
    rows.append(("total", str(sum(counts.values())), size(stats.stored)))
    print_table(("kind", "objects", "bytes"), rows, right=(1, 2))


def _du_metaflow(url: str, as_json: bool) -> None:
    from mfstore.maintenance.metaflow.holdings import list_root
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.report import untold

    root = Root(url)
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


@click.group(invoke_without_command=True)
@click.pass_context
@click.option("-s", "--store", "url", envvar="MFSTORE_STORE", metavar="URL", help="Path or URL of the store.")
@json_option
def refs(context: click.Context, url: str | None, as_json: bool) -> None:
    """List the refs, or change them: set, rm, history."""
    if context.invoked_subcommand is not None:
        given = {"as_json": as_json} if url is None else {"as_json": as_json, "url": url}
        context.default_map = {context.invoked_subcommand: given}
        return
    if url is None:
        raise click.UsageError("Missing option '-s' / '--store'.")
    store = opened(url)
    names = list(store.refs)
    if as_json:
        for name in names:
            print_json({"name": name, "key": store.refs[name]})
    elif names:
        print_table(("ref", "key"), [(name, store.refs[name]) for name in names])


@refs.command("set")
@store_option
@json_option
@click.argument("name")
@click.argument("key")
def refs_set(url: str, as_json: bool, name: str, key: str) -> None:
    """Point the ref NAME at KEY (a key or another ref)."""
    store = opened(url)
    found = resolve_key(store, key)
    store.refs[name] = found
    if as_json:
        print_json({"name": name, "key": found})


@refs.command("rm")
@store_option
@json_option
@click.argument("name")
def refs_rm(url: str, as_json: bool, name: str) -> None:
    """Remove the ref NAME and its history."""
    del opened(url).refs[name]
    if as_json:
        print_json({"name": name, "removed": True})


@refs.command("history")
@store_option
@json_option
@click.argument("name")
def refs_history(url: str, as_json: bool, name: str) -> None:
    """Show every key NAME pointed at, newest first."""
    entries = opened(url).refs.history(name)
    if as_json:
        for entry in entries:
            print_json({"key": entry.key, "time": entry.time})
        return
    rows = [(time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time)), entry.key) for entry in entries]
    print_table(("set at", "key"), rows)
