"""With which exit code each command ends, and what it says: one table, which help texts and pages show."""

from __future__ import annotations

from collections.abc import Mapping

import click

DONE = 0
FAILED = 1
USAGE = 2
DAMAGE = 3
"""What was asked for was done, and not all is well."""
PLANNED = 4
"""Only a plan was shown, of what is done with --execute. Of commands that once did it at once, so that what relies on
them learns of it."""
INTERRUPTED = 130

COMMON: Mapping[int, str] = {
    DONE: "done", FAILED: "it failed; standard error says why", USAGE: "wrong usage", INTERRUPTED: "interrupted",
}  # fmt: skip
"""What every command may end with."""

OWN: Mapping[str, Mapping[int, str]] = {
    "bench": {
        FAILED: "it, or some operation, failed; standard error says why",
        DAMAGE: "--compare: something is slower",
    },
    "copy": {DAMAGE: "--on-conflict skip: some refs of the destination were left as they are"},
    "delete": {PLANNED: "nothing was changed: --execute removes the ref"},
    "doctor": {DONE: "nothing is broken", FAILED: "something is broken"},
    "fleet gc": {DAMAGE: "some runs could not be read, and were kept"},
    "fleet verify": {DONE: "all is well", DAMAGE: "there is damage"},
    "gc": {DAMAGE: "another collector is at work, some runs could not be read, or --undo found something gone"},
    "migrate": {DAMAGE: "some artifacts could not be migrated, and stay as they were"},
    "quarantine": {PLANNED: "nothing was changed: --execute deletes what --empty names"},
    "refs rm": {PLANNED: "nothing was changed: --execute removes the ref"},
    "repair": {DONE: "all is well", DAMAGE: "some data is lost; or, without --execute, there is damage"},
    "verify": {DONE: "all is well", DAMAGE: "there is damage"},
}
"""What they say of some commands besides or instead, by the command's name."""


def exits_of(command: str) -> Mapping[int, str]:
    """The exit codes of a command, by its name (``refs rm``), in order."""
    return dict(sorted({**COMMON, **OWN.get(command, {})}.items()))


def name_of(context: click.Context) -> str:
    """The command's name, without that of the program."""
    names: list[str] = []
    place: click.Context | None = context
    while place is not None and place.parent is not None:
        names.insert(0, str(place.info_name))
        place = place.parent
    return " ".join(names)
