"""The command that looks at an installation."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from mfstore.cli.command import Command
from mfstore.cli.exits import FAILED
from mfstore.cli.options import Connection, connection_options, json_option
from mfstore.cli.output import print_json
from mfstore.display.words import printable

if TYPE_CHECKING:
    from mfstore.doctor.findings import Finding, Section

MARKS = {"fine": " ", "doubtful": "?", "broken": "!", "refused": "-", "absent": "~"}
NAMES = 22
"""Letters that the names of findings have room for."""


@click.command(cls=Command)
@click.argument("place", metavar="[URL]", required=False)
@click.option("--s3", "url", metavar="URL", hidden=True)
@json_option
@connection_options(writes=True)
def doctor(place: str | None, url: str | None, connection: Connection, as_json: bool) -> None:
    """Show what mfstore runs on, and what is wrong with it; with URL also a place.

    Where mfstore comes from, Python, the C libraries that are in use, optional packages, Metaflow and its extension,
    settings, directories, and how S3, Azure and Google Cloud would be reached. No secret is shown. Nothing is asked
    over the network without URL.

    URL is a store, a datastore root of Metaflow, or where one is to be: s3://bucket/prefix, az://container/prefix,
    gs://bucket/prefix or a directory. It is asked who you are there, what you may do (each operation is tried for real,
    on one object of its own that is removed again), how the bucket is set up and whether a lifecycle rule endangers
    what is stored, how garbage collection stands, and what the container allows. What is wrong comes with what to do
    about it, to be copied.

    That a right is missing is no fault: you are told what you can do without it.
    """
    from mfstore.doctor.findings import document, of_state

    place = place or url
    found = _installation()
    if place is not None:
        found = chain(found, _of_place(place, connection.options_for(place)))
    sections: list[Section] = []
    if as_json:
        sections += found
        print_json(document(sections))
    else:
        for line in _lines(found, sections):
            click.echo(printable(line))
    if of_state(sections, "broken"):
        sys.exit(FAILED)


def _installation() -> Iterator[Section]:
    from mfstore.doctor import aws, azure, environment, flows, google, libraries, packages, program
    from mfstore.doctor.findings import examined

    yield examined("installation", program.program, program.interpreter, program.system, program.core)
    yield examined("libraries", libraries.libraries)
    yield examined("packages", packages.packages)
    yield examined("Metaflow", flows.flows)
    yield examined(
        "environment", environment.variables, environment.configuration, environment.temporary, environment.cache
    )
    yield examined("S3", aws.aws)
    yield examined("Azure", azure.azure)
    yield examined("Google Cloud", google.google)


def _of_place(url: str, options: Mapping[str, Any]) -> Iterator[Section]:
    from mfstore.doctor.findings import Finding, Section

    try:
        from mfstore.doctor.place import sections
    except ImportError as error:  # the compiled core, or botocore
        finding = Finding("place", f"could not be looked at: {error}", "broken", "What is above says why")
        return iter((Section("place", (finding,)),))
    return sections(url, options)


AGAIN = "(by the same command)"


def _lines(found: Iterable[Section], sections: list[Section]) -> Iterator[str]:
    """What is found, as it comes, which is added to ``sections``."""
    from mfstore.doctor.findings import of_state

    shown: set[str] = set()
    for section in found:
        sections.append(section)
        if section.findings:
            yield section.title.upper()
            for finding in section.findings:
                yield from _finding(finding, AGAIN if finding.fix and finding.fix in shown else finding.fix)
                shown.add(finding.fix)
            yield ""
    broken, doubtful = of_state(sections, "broken"), of_state(sections, "doubtful")
    told = [f"{len(broken)} broken (!)"] * bool(broken) + [f"{len(doubtful)} doubtful (?)"] * bool(doubtful)
    yield ", ".join(told) if told else "Nothing is wrong that can be seen from here."


def _finding(finding: Finding, fix: str) -> Iterator[str]:
    yield f"{MARKS[finding.state]} {finding.name:{NAMES}} {finding.text}"
    if finding.hint:
        yield f"  {'':{NAMES}} {finding.hint}"
    for line in fix.splitlines():
        yield f"  {'':{NAMES}}   {line}"
