"""``mfstore policy``: what an administrator grants."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mfstore.cli.command import Command
from mfstore.cli.options import Connection, connection_options
from mfstore.cli.output import print_table
from mfstore.display.words import printable

if TYPE_CHECKING:
    from mfstore.policy.places import Place
    from mfstore.policy.statements import Statement

ROLES = ("writer", "reader", "signer", "collector", "auditor", "benchmark")
PARTITIONS = ("aws", "aws-cn", "aws-us-gov")
"""Both as of ``mfstore.policy``, which is not imported for a help text."""

EXAMPLES = """\b
To give it to a role, a bucket or a key:
    mfstore policy writer s3://bucket/prefix > writer.json
    aws iam put-role-policy --role-name tasks --policy-name mfstore --policy-document file://writer.json
\b
    mfstore policy collector s3://bucket/prefix --bucket-policy --principal ARN > bucket.json
    aws s3api put-bucket-policy --bucket bucket --policy file://bucket.json
\b
    mfstore policy writer s3://bucket/prefix --lifecycle --merge > rules.json
    aws s3api put-bucket-lifecycle-configuration --bucket bucket --lifecycle-configuration file://rules.json
\b
The last two replace the policy and the rules that a bucket has: --merge keeps the rules that are there; put statements
of several roles into one bucket policy by hand."""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("role", type=click.Choice(ROLES))
@click.argument("url", required=False)
@click.option("--metaflow", metavar="ROOT", help="Instead of a store's URL, a datastore root of Metaflow.")
@click.option("--packed", is_flag=True, help="With --metaflow: tasks write in the packed profile.")
@click.option(
    "--flow", "flows", multiple=True, metavar="NAME", help="With --metaflow: tasks of these flows alone write."
)
@click.option("--bucket-policy", is_flag=True, help="The policy of the bucket, for each --principal.")
@click.option("--key-policy", is_flag=True, help="A statement for the policy of the KMS key, for each --principal.")
@click.option(
    "--principal", "principals", multiple=True, metavar="ARN", help="Who has the role: a role or a user of IAM."
)
@click.option("--kms-key", "key_arn", metavar="ARN", help="The key by which S3 encrypts what is stored there.")
@click.option(
    "--lifecycle", is_flag=True, help="The lifecycle rules that the bucket should have instead, for any role."
)
@click.option("--merge", is_flag=True, help="With --lifecycle: keep the rules that the bucket has. Asks S3 for them.")
@click.option(
    "--partition", type=click.Choice(PARTITIONS), help="The part of AWS.  [default: that of --region, else aws]"
)
@click.option("--radosgw", is_flag=True, help="For Ceph's gateway, which understands some rights in other ways.")
@click.option(
    "--explain", is_flag=True, help="A table instead: what each statement is for, and what breaks without it."
)
@click.option("--json", "as_json", is_flag=True, help="Of --explain: print JSON, as all else here is.")
@connection_options()
def policy(
    connection: Connection, role: Any, url: str | None, metaflow: str | None, packed: bool, flows: tuple[str, ...],
    bucket_policy: bool, key_policy: bool, principals: tuple[str, ...], key_arn: str | None, lifecycle: bool,
    merge: bool, partition: str | None, radosgw: bool, explain: bool, as_json: bool,
) -> None:  # fmt: skip
    """Print what a role needs at a place in S3, as a policy to give it: exactly that, and nothing beyond.

    \b
    writer     saves, loads and sets refs: a task
    reader     loads
    signer     signs what others stored
    collector  runs gc, repair, migrate and verify, and sets holds
    auditor    runs verify, du and doctor, and changes nothing
    benchmark  runs bench

    Nobody but the collector may write what collections decide by: that is denied, whatever other policies allow.
    """
    from mfstore.policy import documents
    from mfstore.policy.places import partition_of_region, place
    from mfstore.policy.statements import statements

    if (url is None) == (metaflow is None):
        raise click.UsageError("Give one place: the URL of a store, or --metaflow ROOT")
    if metaflow is None and (flows or packed):
        raise click.UsageError("--flow and --packed are about a root: give it with --metaflow ROOT")
    if sum((bucket_policy, key_policy, lifecycle, explain)) > 1:
        raise click.UsageError("Ask for one of --bucket-policy, --key-policy, --lifecycle and --explain")
    if (bucket_policy or key_policy) != bool(principals):
        raise click.UsageError("--principal says whose a --bucket-policy or --key-policy is: give both, or neither")
    if key_policy and key_arn is None:
        raise click.UsageError("--key-policy is of a key: give it with --kms-key ARN")
    if bucket_policy and key_arn is not None:
        raise click.UsageError(
            "A bucket's policy cannot grant the use of a key: ask for --key-policy, or for the policy of a role"
        )
    if merge and not lifecycle:
        raise click.UsageError("--merge is about the rules of --lifecycle")
    where = place(
        url or metaflow or "", metaflow=metaflow is not None, packed=packed, flows=flows,
        partition=partition or partition_of_region(connection.region or ""),
    )  # fmt: skip
    if lifecycle:
        _show(_rules(where, merge, connection))
    elif key_policy and key_arn is not None:
        _show(documents.key_policy(role, key_arn, principals))
    elif bucket_policy:
        _show(documents.bucket_policy(role, where, principals, radosgw=radosgw))
    else:
        found = statements(role, where, kms_key=key_arn, radosgw=radosgw)
        if explain:
            _explain(found, as_json)
        else:
            _show(documents.identity_policy(found))


def _show(document: Any) -> None:
    # Rules of a bucket may name dates.
    click.echo(json.dumps(document, indent=2, default=lambda value: value.isoformat()))


def _explain(found: Sequence[Statement], as_json: bool) -> None:
    if as_json:
        _show([{"sid": one.sid, "effect": one.effect, "for": one.purpose, "without": one.without} for one in found])
        return
    rows = [(one.sid, one.effect, one.purpose, one.without) for one in found]
    print_table(["statement", "", "what it is for", "without it"], rows)


def _rules(where: Place, merge: bool, connection: Connection) -> Any:
    from mfstore.policy.lifecycle import lifecycle

    if not merge:
        click.echo("mfstore: these replace all rules of the bucket; --merge keeps those that it has", err=True)
        return lifecycle(where.prefix)
    present = _present(where, connection)
    from mfstore.maintenance.lifecycle import PARTS, Part, endangered, root_parts

    parts = PARTS
    if where.kind != "store":  # which flows there are is not asked: without names of some, anything there may be one's
        flows = root_parts(where.flows, where.kind == "packed")
        parts = flows if where.flows else {"": Part("artifacts and records of flows", True)}
    for danger in endangered(present, where.prefix, parts):
        click.echo(printable(f"mfstore: {danger.text}"), err=True)
    return lifecycle(where.prefix, present)


def _present(where: Place, connection: Connection) -> Sequence[Any]:
    """The lifecycle rules that the bucket has."""
    from contextlib import closing

    from mfstore.cli.places import opened_root

    if where.kind != "store":
        with closing(opened_root(where.url, connection)) as root:
            return root.backend.lifecycle_rules() or ()
    from mfstore.backends import open_backend
    from mfstore.settings import resolve

    with closing(open_backend(where.url, resolve(), **connection.options_for(where.url))) as backend:
        return backend.lifecycle_rules() or ()
