"""``mfstore cache``: what this host keeps of what lies far away."""

from __future__ import annotations

import click

from mfstore.cli.command import Command
from mfstore.cli.options import json_option
from mfstore.cli.output import print_json
from mfstore.display.amounts import age, count, share, size
from mfstore.display.words import printable


@click.command(cls=Command)
@json_option
@click.option(
    "--cache", "directory", metavar="DIR", help="Its directory. [env: MFSTORE_CACHE; default: a temporary one]"
)
@click.option("--clear", is_flag=True, help="Remove all of it. Programs that use it go on, and fill it again.")
def cache(directory: str | None, clear: bool, as_json: bool) -> None:
    """Show what this host keeps of stores in S3, and how often that was used; or remove it.

    Nothing in it is needed: what is removed, or damaged, is read in S3 again. So nothing asks before --clear.
    """
    from mfstore.host.cache import open_cache
    from mfstore.settings import resolve

    knobs = resolve(cache=directory)
    found = open_cache(knobs.cache, knobs.cache_size if knobs.cache else 0)
    if found is None:
        where = "none, as MFSTORE_CACHE says" if knobs.cache == "" else "none: no directory is this user's alone"
        if knobs.cache:
            where = f"none: {printable(knobs.cache)} is no directory, and cannot be made"
        if as_json:
            print_json({"directory": None})
        else:
            click.echo(where)
        return
    if clear:
        found.clear()
    usage, (files, small) = found.ranges.usage(), found.small_objects()
    if as_json:
        print_json(
            {
                "directory": str(found.root), "limit": found.ranges.limit, **usage._asdict(),
                "small_objects": files, "small_size": small,
            }
        )  # fmt: skip
        return
    click.echo(printable(str(found.root)))
    if found.ranges.limit:
        line = f"{size(usage.size)} of {size(found.ranges.limit)} in {count(usage.entries, 'entry', 'entries')}"
        if usage.oldest is not None:
            line += f", the next to go was used {age(usage.oldest)}"
        click.echo(f"contents       {line}")
    else:
        why = "as MFSTORE_CACHE_SIZE says" if knobs.cache else "as nobody names a directory (--cache, MFSTORE_CACHE)"
        click.echo(f"contents       none are kept, {why}")
    if usage.unfinished:
        click.echo(f"unfinished     {count(usage.unfinished, 'file')}: being written, or left by what was killed")
    click.echo(f"small objects  {size(small)} in {count(files, 'file')}")
    reads = usage.hits + usage.misses
    if reads:
        click.echo(
            f"reads          {usage.hits:,} of {reads:,} answered ({share(usage.hits / reads)}), {size(usage.served)}"
        )
