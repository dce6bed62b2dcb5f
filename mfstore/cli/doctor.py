"""The command that looks at an installation."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from mfstore.cli.command import Command
from mfstore.cli.options import Connection, connection_options, json_option
from mfstore.cli.output import print_json
from mfstore.display.words import printable

if TYPE_CHECKING:
    from mfstore.doctor.findings import Finding, Section

MARKS = {"fine": " ", "doubtful": "?", "broken": "!"}
NAMES = 18
"""Letters that the names of findings have room for."""


@click.command(cls=Command)
@click.option(
    "--s3",
    "url",
    metavar="URL",
    help="Try s3://bucket/prefix as well: list, put, get and delete one small object there, with a name of its own.",
)
@json_option
@connection_options(writes=True)
def doctor(url: str | None, connection: Connection, as_json: bool) -> None:
    """Show what mfstore runs on, and what is wrong with it.

    Where mfstore comes from, Python, the C libraries that are in use, optional packages, Metaflow and its extension,
    settings, directories, and how S3 would be reached. No secret is shown. Nothing is asked over the network without
    --s3.
    """
    from mfstore.doctor import aws, environment, flows, libraries, packages, program, trial
    from mfstore.doctor.findings import document, examined, of_state

    sections = [
        examined("installation", program.program, program.interpreter, program.system, program.core),
        examined("libraries", libraries.libraries),
        examined("packages", packages.packages),
        examined("Metaflow", flows.flows),
        examined("environment", environment.variables, environment.temporary, environment.cache),
        examined("S3", aws.aws),
    ]
    if url is not None:
        sections.append(examined("trial", partial(trial.tried, url, **connection.options)))
    if as_json:
        print_json(document(sections))
    else:
        for line in _lines(sections):
            click.echo(printable(line))
    if of_state(sections, "broken"):
        sys.exit(1)


def _lines(sections: Sequence[Section]) -> Iterator[str]:
    from mfstore.doctor.findings import of_state

    for section in sections:
        if section.findings:
            yield section.title.upper()
            for finding in section.findings:
                yield from _finding(finding)
            yield ""
    broken, doubtful = of_state(sections, "broken"), of_state(sections, "doubtful")
    told = [f"{len(broken)} broken (!)"] * bool(broken) + [f"{len(doubtful)} doubtful (?)"] * bool(doubtful)
    yield ", ".join(told) if told else "Nothing is wrong that can be seen from here."


def _finding(finding: Finding) -> Iterator[str]:
    yield f"{MARKS[finding.state]} {finding.name:{NAMES}} {finding.text}"
    if finding.hint:
        yield f"  {'':{NAMES}} {finding.hint}"
