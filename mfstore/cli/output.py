"""What the commands show: tables or JSON, and progress on terminals only."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from mfstore.cli.exits import PLANNED
from mfstore.display.words import printable
from mfstore.progress import HIDDEN

if TYPE_CHECKING:
    from rich.progress import Progress

    from mfstore.display.cards import Grid


def print_json(document: Any) -> None:
    """One JSON document, a line each call."""
    click.echo(json.dumps(document))


def end_planned(whether: bool) -> None:
    """End a command that only showed what it would do, if it would do something."""
    if whether:
        click.echo("mfstore: nothing was changed; --execute does this", err=True)
        sys.exit(PLANNED)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> None:
    """A plain table, readable in a terminal and in a log."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def print_grid(grid: Grid) -> None:
    """The same of what notebooks show."""
    print_table(
        grid.columns, [[cell if isinstance(cell, str) else cell.text for cell in row] for row in grid.rows], grid.right
    )


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress display on stderr when that is a terminal, silent otherwise."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, transient=True, disable=HIDDEN.get() or not console.is_terminal,
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),  # else it would be printed to stderr
    ) as display:  # fmt: skip
        yield display
