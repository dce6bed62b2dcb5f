"""Commands about artifacts: put, get, ls, stat."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import click

from mfstore.cli.options import json_option, store_option
from mfstore.cli.output import Compression, opened, print_json, print_table, progress, resolve_key
from mfstore.display.amounts import size
from mfstore.display.words import printable
from mfstore.format.refs import ref_path
from mfstore.settings import COMPRESSIONS


@click.command()
@store_option
@json_option
@click.option("--ref", metavar="NAME", help="Point this ref at the (last) file stored.")
@click.option(
    "--base", metavar="KEY_OR_REF", help="An older version: what has changed is stored as what differs from it."
)
@click.option(
    "--compress", type=click.Choice(COMPRESSIONS),
    help="How hard to compress; off stores raw. [env: MFSTORE_COMPRESS; default: balanced]",
)  # fmt: skip
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, allow_dash=True))
def put(
    url: str, as_json: bool, ref: str | None, base: str | None, compress: Compression | None, files: tuple[str, ...]
) -> None:
    """Store FILES as raw bytes (- is standard input) and print their keys."""
    if ref is not None:
        ref_path(ref)  # a name that cannot be is told before anything is stored
    store = opened(url, create=True, compress=compress)
    with progress() as display:
        task = display.add_task("putting", total=len(files))
        for name in files:
            # A pipe is read in blocks like a file, so that memory stays bounded.
            key = store.put_file("/dev/stdin" if name == "-" else name, base)
            display.advance(task)
            if as_json:
                print_json({"file": name, "key": key, "size": store.stat(key).size})
            else:
                click.echo(f"{key}  {name}" if len(files) > 1 else key)
    if ref is not None:
        store.refs[ref] = key


@click.command()
@store_option
@json_option
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write to this file instead of standard output.")
@click.option("--name", metavar="ARTIFACT", help="Of a bundle: which artifact (its pickle is written).")
@click.argument("key")
def get(url: str, as_json: bool, output: str | None, name: str | None, key: str) -> None:
    """Write the bytes of KEY (a key or a ref): raw bytes as stored, objects as their pickle. Nothing is unpickled."""
    if as_json and output is None:
        raise click.UsageError("--json needs --output: standard output carries the bytes")
    if output is None and sys.stdout is None:
        raise click.UsageError("standard output is closed")
    store = opened(url)
    found = resolve_key(store, key)
    if output is not None:
        store.get_file(found, output, name=name)
    else:
        for block in store.iter_bytes(found, name=name):
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
    if as_json:
        print_json({"key": found, "file": output, "size": Path(str(output)).stat().st_size})


@click.command()
@store_option
@json_option
@click.option(
    "-n", "--limit", default=1000, type=click.IntRange(min=0), show_default=True, help="List at most this many keys."
)
@click.option("-l", "--long", is_flag=True, help="Add size and type (reads every recipe).")
def ls(url: str, as_json: bool, limit: int, long: bool) -> None:
    """List the keys in the store."""
    store = opened(url)
    keys = list(islice(store.keys(), limit + 1))
    if not long:
        for key in keys[:limit]:
            print_json({"key": key}) if as_json else click.echo(key)
    else:
        rows = [store.stat(key) for key in keys[:limit]]
        if as_json:
            for row in rows:
                print_json(asdict(row))
        else:
            print_table(
                ("key", "size", "stored", "chunks", "type"),
                [(r.key, size(r.size), size(r.stored), str(r.chunks), r.type) for r in rows],
                right=(1, 2, 3),
            )
    if len(keys) > limit:
        click.echo(f"mfstore: more than {limit} keys; --limit shows more", err=True)


@click.command()
@store_option
@json_option
@click.argument("keys", nargs=-1, required=True)
def stat(url: str, as_json: bool, keys: tuple[str, ...]) -> None:
    """Show what KEYS (keys or refs) stand for, without reading their data."""
    store = opened(url)
    for text in keys:
        found = store.stat(resolve_key(store, text))
        if as_json:
            print_json(asdict(found))
            continue
        rows = [
            ("key", found.key),
            ("type", found.type),
            ("size", f"{size(found.size)} ({found.size} bytes)"),
            ("stored", f"{size(found.stored)} ({found.stored} bytes)"),
            *([("bases", f"{size(found.bases)} of other chunks are read with it")] if found.bases else []),
            ("chunks", str(found.chunks)),
            ("segments", str(found.segments)),
            ("codecs", ", ".join(f"{name} {size(count)}" for name, count in found.codecs.items()) or "literal"),
        ]
        rows += [(f"  {name}", kind) for name, kind in found.artifacts.items()]
        width = min(max(len(name) for name, _ in rows), shutil.get_terminal_size().columns // 2)
        for name, value in rows:
            click.echo(printable(f"{name:<{width}}  {value}"))
