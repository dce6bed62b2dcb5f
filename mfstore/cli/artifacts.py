"""Commands about artifacts: put, get, ls, stat, delete."""

from __future__ import annotations

import shutil
import stat as stat_words
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from mfstore.cli.command import Command
from mfstore.cli.options import (
    NOTE,
    Connection,
    cache_option,
    complete_ref,
    connection_options,
    execute_option,
    json_option,
    store_option,
)
from mfstore.cli.output import end_planned, print_json, print_table
from mfstore.cli.places import Compression, opened
from mfstore.display.amounts import size, time_of_day
from mfstore.display.words import note_text, one_line, printable, short_key
from mfstore.errors import InvalidKey, NotFound
from mfstore.progress import bytes_of_file, shown
from mfstore.settings import COMPRESSIONS

if TYPE_CHECKING:
    from mfstore.format.digests import Key
    from mfstore.stats import ArtifactStat
    from mfstore.store import Store

MODE_OF = {"directory": stat_words.S_IFDIR, "file": stat_words.S_IFREG, "link": stat_words.S_IFLNK}
"""The kind of an entry of a tree, as a mode says it."""


@click.command(cls=Command)
@store_option
@json_option
@click.option(
    "--ref", metavar="NAME", shell_complete=complete_ref, help="Point this ref at the file stored, if several the last."
)
@click.option(
    "--base", metavar="NAME", shell_complete=complete_ref,
    help="An older version: what has changed is stored as what differs from it.",
)  # fmt: skip
@click.option(
    "--note", "notes", metavar="FIELD=VALUE", type=NOTE, multiple=True,
    help="Attach a note, such as auc=0.93; may be given several times. A value is JSON, or else text.",
)  # fmt: skip
@click.option(
    "--compress", type=click.Choice(COMPRESSIONS),
    help="How hard to compress; off stores raw. [env: MFSTORE_COMPRESS; default: balanced]",
)  # fmt: skip
@click.option(
    "--exclude", metavar="PATTERN", multiple=True,
    help="Of a directory: leave out what is called so, such as '*.pyc' or 'cache/'; may be given several times.",
)  # fmt: skip
@click.option(
    "--omit-unreadable", is_flag=True, help="Of a directory: leave out what cannot be read, with a warning, and go on."
)
@click.option(
    "--safetensors", "by_tensor", is_flag=True,
    help="FILES are safetensors models, or indexes of such: store them tensor by tensor, which versions then share.",
)  # fmt: skip
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True))
@connection_options(writes=True)
def put(
    url: str, connection: Connection, as_json: bool, ref: str | None, base: str | None,
    notes: tuple[tuple[str, Any], ...], compress: Compression | None, exclude: tuple[str, ...], omit_unreadable: bool,
    by_tensor: bool, files: tuple[str, ...],
) -> None:  # fmt: skip
    """Store FILES as raw bytes (- is standard input), directories among them as trees, and print their keys."""
    if by_tensor and "-" in files:
        raise click.UsageError("--safetensors needs files, and no standard input")
    directories = {name for name in files if Path(name).is_dir()}
    if (exclude or omit_unreadable) and not directories:
        raise click.UsageError("--exclude and --omit-unreadable are of directories, and there is none")
    if by_tensor and directories:
        raise click.UsageError(f"--safetensors needs files, and {min(directories)} is a directory")
    store = opened(url, connection, create=True, compress=compress)
    if ref is not None:
        store.refs.settable(ref)  # a name that cannot be is told before anything is stored
    note = dict(notes) or None
    on_error: Literal["raise", "omit"] = "omit" if omit_unreadable else "raise"
    length = bytes_of_file(files[0]) if len(files) == 1 else None
    with shown(True, "put", length, items=len(files) > 1, of_items=len(files)) as tell:
        for name in files:
            # A pipe is read in blocks like a file, so that memory stays bounded.
            if name in directories:
                key = store.put_tree(name, base=base, exclude=exclude, on_error=on_error, note=note)
            elif by_tensor:
                key = store.put_safetensors(name, base=base, note=note)
            else:
                key = store.put_file("/dev/stdin" if name == "-" else name, base=base, note=note)
            if tell is not None and len(files) > 1:
                tell(1)
            if as_json:
                print_json({"file": name, "key": key, "size": store.stat(key).size})
            else:
                click.echo(f"{key}  {name}" if len(files) > 1 else key)
    if ref is not None:
        store.refs.set(ref, key, note=note)


@click.command(cls=Command)
@store_option
@json_option
@click.option(
    "-o", "--output", type=click.Path(),
    help="Write to this file instead of standard output. Of a tree: the directory that it becomes.",
)  # fmt: skip
@click.option("--name", metavar="ARTIFACT", help="Of a bundle: which artifact (its pickle is written).")
@cache_option
@click.option(
    "--existing", type=click.Choice(("refuse", "keep", "replace")),
    help="Of a tree: what becomes of what is at --output already.  [default: refuse]",
)  # fmt: skip
@click.argument("key", metavar="NAME[:PATH]", shell_complete=complete_ref)
@connection_options()
def get(
    url: str, connection: Connection, as_json: bool, output: str | None, name: str | None,
    existing: Literal["refuse", "keep", "replace"] | None, cache: str | None, key: str,
) -> None:  # fmt: skip
    """Write the bytes of NAME, a key or a ref: raw bytes as stored, objects as their pickle. Nothing is unpickled.

    A tree is restored as the directory --output, and with PATH what is there in it: a directory, a link, or a file,
    whose bytes go to standard output without --output.
    """
    if as_json and output is None:
        raise click.UsageError("--json needs --output: standard output carries the bytes")
    if output is None and sys.stdout is None:
        raise click.UsageError("standard output is closed")
    store = opened(url, connection, cache=cache)
    found, path = name_and_path(store, key)
    if path is not None or store.handle.recipe(found).is_tree:
        if name is not None:
            raise click.UsageError("--name is of bundles: of a tree the path in it comes behind a colon")
        if output is None and existing is not None:
            raise click.UsageError("--existing needs --output")
        _get_of_tree(store, found, path or "", output, existing or "refuse")
        if as_json:
            print_json({"key": found, "path": path or "", "output": output})
        return
    if existing is not None:
        raise click.UsageError(f"--existing is of trees, and {key} is none: --output replaces a file")
    if output is not None:
        if Path(output).is_dir():
            raise click.UsageError(f"--output {output} is a directory, and {key} is no tree")
        store.get_file(found, output, name=name, progress=True)
    else:
        for block in store.iter_bytes(found, name=name):
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
    if as_json:
        print_json({"key": found, "file": output, "size": Path(str(output)).stat().st_size})


def name_and_path(store: Store, text: str) -> tuple[Key, str | None]:
    """What is named, and the path in it that comes behind a colon. Names of refs and times may have colons too: the
    longest beginning that names something is meant."""
    try:
        return store.resolve(text), None
    except (NotFound, InvalidKey):
        ends = [at for at, char in enumerate(text) if char == ":"]
        for end in reversed(ends):
            with suppress(NotFound, InvalidKey):
                return store.resolve(text[:end]), text[end + 1 :]
        raise


def _get_of_tree(
    store: Store, key: Key, path: str, output: str | None, existing: Literal["refuse", "keep", "replace"]
) -> None:  # fmt: skip
    if output is not None:
        store.get_tree(key, output, path, existing=existing, progress=True)
        return
    tree = store.tree(key)
    if tree.entry(path).kind == "directory":
        raise click.UsageError("a directory needs --output: the directory that it becomes")
    with tree.open(path) as file:
        shutil.copyfileobj(file, sys.stdout.buffer, 8 << 20)
    sys.stdout.buffer.flush()


@click.command(cls=Command)
@store_option
@json_option
@click.option("-r", "--recursive", is_flag=True, help="Also what is in the directories below.")
@click.option("-l", "--long", is_flag=True, help="Add modes, sizes and times.")
@click.argument("name", metavar="NAME[:PATH]", shell_complete=complete_ref)
@connection_options()
def tree(url: str, connection: Connection, as_json: bool, recursive: bool, long: bool, name: str) -> None:
    """List what is in the tree NAME, or in the directory PATH of it, without reading its files."""
    store = opened(url, connection)
    key, path = name_and_path(store, name)
    found = store.tree(key)
    entries = found.entries(path or "", recursive=recursive)
    if as_json:
        for entry in entries:
            print_json({**entry._asdict(), "digest": entry.digest.hex()})
    else:
        paths = [one_line(entry.path) + ("/" if entry.kind == "directory" else "") for entry in entries]
        told = [
            text + (f" -> {one_line(entry.target)}" if entry.target else "")
            for text, entry in zip(paths, entries, strict=True)
        ]
        if long:
            modes = [stat_words.filemode(MODE_OF[entry.kind] | entry.mode) for entry in entries]
            sizes = [size(entry.size) if entry.kind == "file" else "" for entry in entries]
            times = [time_of_day(entry.mtime) for entry in entries]
            print_table(
                ("mode", "size", "changed", "path"), list(zip(modes, sizes, times, told, strict=True)), right=(1,)
            )
        else:
            for line in told:
                click.echo(printable(line))
    for left in found.omitted:
        click.echo(printable(f"mfstore: left out when it was stored: {one_line(left.path)} ({left.reason})"), err=True)


@click.command(cls=Command)
@store_option
@json_option
@click.option(
    "-n", "--limit", default=1000, type=click.IntRange(min=0), show_default=True, help="List at most this many."
)
@click.option("-l", "--long", is_flag=True, help="Add size and type (reads every recipe).")
@click.argument("pattern", required=False, shell_complete=complete_ref)
@connection_options()
def ls(url: str, connection: Connection, as_json: bool, limit: int, long: bool, pattern: str | None) -> None:
    """List the keys in the store; or the refs of PATTERN, such as models/ or 'runs/*/model', with their keys."""
    store = opened(url, connection)
    if pattern is not None:
        _list_refs(store, pattern, as_json, limit, long)
        return
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
                [(short_key(r.key), size(r.size), size(r.stored), str(r.chunks), r.type) for r in rows],
                right=(1, 2, 3),
            )
    _tell_of_more(len(keys) > limit, limit, "keys")


def _list_refs(store: Store, pattern: str, as_json: bool, limit: int, long: bool) -> None:
    found = list(islice(store.refs.latest(pattern), limit + 1))
    stats = dict(_stats(store, [entry.key for _, entry in found[:limit]]))
    rows = []
    for ref, (key, time, note) in found[:limit]:
        stat = stats.get(key)
        if as_json:
            row = {"name": ref, "key": key, "time": time, "note": note if note or stat is None else stat.note}
            print_json(row | ({} if stat is None else {"size": stat.size, "stored": stat.stored, "type": stat.type}))
        elif stat is None:
            rows.append((ref, short_key(key), time_of_day(time), "gone", "", ""))
        else:
            rows.append((ref, short_key(key), time_of_day(time), size(stat.size), size(stat.stored), stat.type))
    if rows:
        columns = ("ref", "key", "set at", "size", "stored", "type")
        width = len(columns) if long else 4
        print_table(columns[:width], [row[:width] for row in rows], right=(3, 4))
    _tell_of_more(len(found) > limit, limit, "refs")


def _stats(store: Store, keys: list[Any]) -> Iterator[tuple[str, ArtifactStat]]:
    """What each key stands for, without those of which nothing is stored any more."""
    from mfstore.format.recipes import recipe_path
    from mfstore.stats import stat_of

    unique = list(dict.fromkeys(keys))
    for key, (_, data) in zip(unique, store.backend.get_many([recipe_path(key) for key in unique]), strict=True):
        try:
            yield key, stat_of(key, store.handle.decode(key, data))
        except NotFound:
            continue


def _tell_of_more(more: bool, limit: int, what: str) -> None:
    if more:
        click.echo(f"mfstore: more than {limit} {what}; --limit shows more", err=True)


@click.command(cls=Command)
@store_option
@json_option
@click.argument("keys", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_ref)
@connection_options()
def stat(url: str, connection: Connection, as_json: bool, keys: tuple[str, ...]) -> None:
    """Show what each NAME, a key or a ref, stands for, without reading its data."""
    store = opened(url, connection)
    for text in keys:
        found = store.stat(text)
        if as_json:
            print_json(asdict(found))
            continue
        libraries = ", ".join(f"{name} {version}" for name, version in found.libraries.items())
        rows = [
            ("key", found.key),
            ("type", found.type),
            ("size", f"{size(found.size)} ({found.size} bytes)"),
            ("stored", f"{size(found.stored)} ({found.stored} bytes)"),
            *([("bases", f"{size(found.bases)} of other chunks are read with it")] if found.bases else []),
            ("chunks", str(found.chunks)),
            ("segments", str(found.segments)),
            ("codecs", ", ".join(f"{name} {size(count)}" for name, count in found.codecs.items()) or "literal"),
            *([("created", time_of_day(found.created))] if found.created else []),
            *([("creator", found.creator)] if found.creator else []),
            *([("with", f"Python {found.python}, mfstore {found.mfstore}")] if found.python else []),
            *([("libraries", libraries)] if libraries else []),
            *([("note", note_text(found.note))] if found.note is not None else []),
        ]
        rows += [(f"  {name}", kind) for name, kind in found.artifacts.items()]
        width = min(max(len(name) for name, _ in rows), shutil.get_terminal_size().columns // 2)
        for name, value in rows:
            click.echo(printable(f"{name:<{width}}  {value}"))


@click.command(cls=Command)
@store_option
@json_option
@execute_option
@click.argument("name", shell_complete=complete_ref)
@connection_options(writes=True)
def delete(url: str, connection: Connection, as_json: bool, execute: bool, name: str) -> None:
    """Show what goes with the ref NAME and its history, and remove it; or tell what becomes of a key that no ref names.
    Bytes are removed by gc alone."""
    gone = opened(url, connection).delete(name, dry_run=not execute)
    print_json(asdict(gone)) if as_json else click.echo(printable(str(gone)))
    end_planned(bool(gone.refs) and not execute)
