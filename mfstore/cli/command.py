"""What all commands are: their help lists options in sections and ends with the exit codes."""

from __future__ import annotations

from typing import Any

import click

from mfstore.cli.exits import exits_of, name_of


class SectionOption(click.Option):
    """An option in a section of the help text."""

    def __init__(self, *args: Any, section: str, **more: Any) -> None:
        super().__init__(*args, **more)
        self.section = section


class Command(click.Command):
    """A command whose help lists its options in sections, those of no section first, and then its exit codes."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options and the exit codes."""
        write_options(self, ctx, formatter)
        write_exits(ctx, formatter)


class CommandGroup(click.Group):
    """A group whose help does the same."""

    command_class = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, the commands and the exit codes."""
        write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)
        write_exits(ctx, formatter)


def sections_of(command: click.Command, context: click.Context) -> dict[str, list[tuple[str, str]]]:
    """The options of ``command`` and what their help says, by section."""
    sections: dict[str, list[tuple[str, str]]] = {"Options": []}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
    return sections


def write_options(command: click.Command, context: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the options of ``command``, in sections."""
    for name, records in sections_of(command, context).items():
        with formatter.section(name):
            formatter.write_dl(records)


def write_exits(context: click.Context, formatter: click.HelpFormatter) -> None:
    """The exit codes of the command that ``context`` is of."""
    with formatter.section("Exit codes"):
        formatter.write_dl([(str(code), text) for code, text in exits_of(name_of(context)).items()])
