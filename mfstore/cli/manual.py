"""``python -m mfstore.cli.manual DIR``: manual pages of the commands, made of their helps, for ``man`` and its kind.

They are made where mfstore is installed, not shipped: what a command has depends on its module, which needs the core.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from mfstore.cli import main as program
from mfstore.cli.command import Command, CommandGroup, sections_of
from mfstore.cli.exits import exits_of, name_of

PARAGRAPH = ".PP"


def pages() -> Iterator[tuple[str, str]]:
    """The name of each file, and what is in it."""
    context = click.Context(program, info_name="mfstore", help_option_names=["-h", "--help"])
    yield from _pages_of(program, context)


def _pages_of(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    below: list[str] = []
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, name
            if not found.hidden:
                below.append(name)
                yield from _pages_of(found, click.Context(found, info_name=name, parent=context))
    name = context.command_path.replace(" ", "-")
    yield f"{name}.1", "\n".join(_page(command, context, name, below)) + "\n"


def _page(command: click.Command, context: click.Context, name: str, below: list[str]) -> Iterator[str]:
    from mfstore import __version__

    paragraphs = [" ".join(part.split()) for part in (command.help or "").split("\n\n") if part.strip()]
    first = paragraphs[0].partition(". ")[0].rstrip(".")
    yield f'.TH "{name.upper()}" "1" "" "mfstore {__version__}" "mfstore"'
    yield from (".SH NAME", f"{escaped(name)} \\- {escaped(first)}")
    pieces = " ".join(command.collect_usage_pieces(context))
    yield from (".SH SYNOPSIS", f".B {escaped(context.command_path)}", escaped(pieces))
    yield ".SH DESCRIPTION"
    for number, paragraph in enumerate(paragraphs):
        yield from ([PARAGRAPH] if number else []) + [escaped(paragraph)]
    if isinstance(command, (Command, CommandGroup)):
        for title, records in sections_of(command, context).items():
            yield f'.SH "{escaped(title.upper())}"'
            for option, text in records:
                yield from (".TP", f"\\fB{escaped(option)}\\fR", escaped(text) or "\\&")
    if below:
        yield ".SH COMMANDS"
        for one in below:
            found = command.get_command(context, one) if isinstance(command, click.Group) else None
            text = found.get_short_help_str(1000) if found is not None else ""
            yield from (".TP", f"\\fB{escaped(f'{name}-{one}')}\\fR(1)", escaped(text))
    yield ".SH EXIT STATUS"
    for code, text in exits_of(name_of(context)).items():
        yield from (".TP", f"\\fB{code}\\fR", escaped(text))
    if context.parent is not None:
        above = context.parent.command_path.replace(" ", "-")
        yield from (".SH SEE ALSO", f"\\fB{escaped(above)}\\fR(1)")


def escaped(text: str) -> str:
    """``text`` on one line, as roff takes it for what it is."""
    line = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return f"\\&{line}" if line[:1] in (".", "'") else line


def write(folder: Path) -> int:
    """Write all pages to ``folder``; how many."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for number, (name, text) in enumerate(pages(), 1):  # noqa: B007
        (folder / name).write_text(text, "utf-8")
    return number


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m mfstore.cli.manual DIR, such as ~/.local/share/man/man1")
    where = Path(sys.argv[1]).expanduser()
    sys.stdout.write(f"{write(where)} pages in {where}\n")
