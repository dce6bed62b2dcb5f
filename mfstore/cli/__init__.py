"""The ``mfstore`` command."""

from __future__ import annotations

import json
import sys
from importlib import import_module

import click

from mfstore.cli.command import CommandGroup
from mfstore.cli.exits import FAILED, INTERRUPTED
from mfstore.cli.logs import FORMATS, logging_as
from mfstore.display.words import printable
from mfstore.errors import MfstoreError

COMMANDS = {
    "bench": "bench", "cache": "cache", "copy": "copying", "delete": "artifacts", "demo": "demo", "diff": "diff",
    "doctor": "doctor", "du": "du", "export": "exporting", "fleet": "fleet", "gc": "gc", "get": "artifacts",
    "hold": "holds", "holds": "holds", "ls": "artifacts", "migrate": "migrate", "page": "page", "policy": "policy",
    "presign": "exporting", "put": "artifacts", "quarantine": "maintenance", "refs": "storage",
    "repair": "maintenance", "sign": "sign", "stat": "artifacts", "tree": "artifacts", "verify": "maintenance",
}  # fmt: skip
"""Each command, and the module of ``mfstore.cli`` that has it. It is imported when the command is used: most of them
need the compiled core, and the doctor is for where that does not load."""


class _Group(CommandGroup):
    """Turns every error into one line on stderr and an exit code: 1 for a failure, 2 for wrong usage."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"mfstore.cli.{COMMANDS[cmd_name]}"), cmd_name)
        return found

    def main(self, *args: object, **kwargs: object) -> None:  # type: ignore[override]
        try:
            super().main(*args, **{**kwargs, "standalone_mode": False})  # type: ignore[call-overload]
        except click.exceptions.Abort:
            click.echo("mfstore: interrupted", err=True)
            sys.exit(INTERRUPTED)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(FAILED)
        except (MfstoreError, OSError) as error:
            if "--json" in sys.argv:
                code = error.code if isinstance(error, MfstoreError) else "os"
                click.echo(json.dumps({"error": code, "message": str(error)}), err=True)
            else:
                click.echo(printable(f"mfstore: {error}"), err=True)
            sys.exit(FAILED)


COMPLETION = """\b
Commands, options and refs are completed with the Tab key after, in bash,
    eval "$(_MFSTORE_COMPLETE=bash_source mfstore)"
and with zsh_source or fish_source in these shells."""


@click.group(cls=_Group, epilog=COMPLETION, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", count=True, help="Log what is tried again and what was done; -vv: what was found out.")
@click.option("-q", "--quiet", is_flag=True, help="Only results and errors: no warnings, no progress.")
@click.option(
    "--log-format", type=click.Choice(FORMATS), default="text", show_default=True, help="Of what is logged, on stderr."
)
@click.version_option(package_name="mfstore")
@click.pass_context
def main(context: click.Context, verbose: int, quiet: bool, log_format: str) -> None:
    """Store, inspect and share a workflow's artifacts.

    Every command that uses a store takes it from --store or MFSTORE_STORE, and prints JSON with --json. A NAME is a
    key, a ref (models/churn), a value it had (models/churn@1, models/churn@2026-11-30, models/churn@2h), or the first
    digits of a key, eight or more.
    """
    if verbose and quiet:
        raise click.UsageError("-v says more and -q less: give one of them")
    context.with_resource(logging_as(verbose, quiet, log_format))
