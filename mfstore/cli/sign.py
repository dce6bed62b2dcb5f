"""``mfstore sign``: vouch for what is stored."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mfstore.cli.command import Command
from mfstore.cli.options import Connection, complete_ref, connection_options, json_option, store_option
from mfstore.cli.output import print_json, print_table
from mfstore.cli.places import opened
from mfstore.display.amounts import count
from mfstore.display.words import printable

if TYPE_CHECKING:
    from mfstore.maintenance.store.signatures import SignatureReport

SHOWN = 50
"""Findings that are printed; --json has all."""
_TOLD = {
    "unsigned": "nobody has signed it",
    "unknown": "only others have signed it",
    "bad": "what lies there is no signature of it",
}


@click.command(cls=Command)
@store_option
@json_option
@click.option(
    "--key", "signing_key", required=True, metavar="KEY",
    help="A file with a private key in PEM, or the ARN of a key of KMS.",
)  # fmt: skip
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_ref)
@connection_options(writes=True)
def sign(url: str, connection: Connection, as_json: bool, signing_key: str, names: tuple[str, ...]) -> None:
    """Sign what each NAME stands for, for those who load with the public key in trusted=.

    What is signed is the key, and so all that is loaded under it; not that the name stands for it.
    """
    store = opened(url, connection)
    signed = {name: store.sign(name, key=signing_key) for name in names}
    if as_json:
        print_json({name: one._asdict() for name, one in signed.items()})
        return
    for name, one in signed.items():
        click.echo(printable(f"{one.key}  {name}  signed by {one.signer[:16]}"))


def show_signatures(report: SignatureReport, as_json: bool) -> None:
    """What verify --signatures has found."""
    if as_json:
        print_json({**asdict(report), "clean": report.clean})
        return
    click.echo(f"{report.signed:,} of {count(report.keys, 'key')} signed by one who is trusted")
    rows = [
        (one.kind, one.key[:16], ", ".join(one.refs[:3]), _TOLD[one.kind], ", ".join(name[:16] for name in one.signers))
        for one in report.findings[:SHOWN]
    ]
    if rows:
        print_table(("finding", "key", "refs", "what", "signers"), rows)
    if len(report.findings) > SHOWN:
        click.echo(f"and {len(report.findings) - SHOWN:,} more; --json has them all")
