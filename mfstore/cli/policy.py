"""``mfstore policy``: what an administrator grants."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from mfstore.cli.command import Command, SectionOption
from mfstore.cli.options import Connection, connection_options
from mfstore.cli.output import print_table
from mfstore.display.words import printable

if TYPE_CHECKING:
    from mfstore.policy.places import Place

F = TypeVar("F", bound=Callable[..., Any])
ROLES = ("writer", "reader", "signer", "collector", "auditor", "benchmark")
PARTITIONS = ("aws", "aws-cn", "aws-us-gov")
"""Both as of ``mfstore.policy``, which is not imported for a help text."""


def _of(service: str, *names: str, **more: Any) -> Callable[[F], F]:
    """An option that is about one service."""
    return click.option(*names, cls=SectionOption, section=f"Of places in {service}", **more)


EXAMPLES = """\b
To give it to a role, a bucket or a key of AWS:
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
of several roles into one bucket policy by hand.
\b
In Azure a role holds under a condition, which is the place:
    mfstore policy writer az://container/prefix --scope "$(az group show -n GROUP --query id -o tsv)" > writer.json
    az role definition create --role-definition @writer.json
    mfstore policy writer az://container/prefix --binding > condition.txt
    az role assignment create --role "mfstore writer (store)" --assignee PRINCIPAL --condition-version 2.0
        --condition @condition.txt --scope ACCOUNT-ID/blobServices/default/containers/container
\b
In Google Cloud custom roles are bound in the policy of the bucket, which set-iam-policy replaces:
    mfstore policy writer gs://bucket/prefix > roles.json
    for role in $(jq -r 'keys[]' roles.json); do jq ".$role" roles.json > role.json
        gcloud iam roles create $role --project PROJECT --file role.json; done
    mfstore policy writer gs://bucket/prefix --binding --project PROJECT --principal serviceAccount:MAIL > policy.json
    gcloud storage buckets set-iam-policy gs://bucket policy.json"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("role", type=click.Choice(ROLES))
@click.argument("url", required=False)
@click.option("--metaflow", metavar="ROOT", help="Instead of a store's URL, a datastore root of Metaflow.")
@click.option("--packed", is_flag=True, help="With --metaflow: tasks write in the packed profile.")
@click.option(
    "--flow", "flows", multiple=True, metavar="NAME", help="With --metaflow: tasks of these flows alone write."
)
@click.option(
    "--principal",
    "principals",
    multiple=True,
    metavar="NAME",
    help="Who has the role: the ARN of a role or user of AWS, or a member of Google Cloud (serviceAccount:MAIL).",
)
@click.option(
    "--lifecycle", is_flag=True, help="The lifecycle rules that the bucket should have instead, for any role."
)
@click.option("--merge", is_flag=True, help="With --lifecycle: keep the rules that the bucket has. Asks S3 for them.")
@click.option(
    "--present",
    type=click.File("rb"),
    metavar="FILE",
    help="With --lifecycle: keep these rules, as the service's own tool prints them; - is standard input.",
)
@click.option(
    "--explain", is_flag=True, help="A table instead: what each statement is for, and what breaks without it."
)
@click.option("--json", "as_json", is_flag=True, help="Of --explain: print JSON, as all else here is.")
@_of("S3", "--bucket-policy", is_flag=True, help="The policy of the bucket, for each --principal.")
@_of("S3", "--key-policy", is_flag=True, help="A statement for the policy of the KMS key, for each --principal.")
@_of("S3", "--kms-key", "key_arn", metavar="ARN", help="The key by which S3 encrypts what is stored there.")
@_of("S3", "--partition", type=click.Choice(PARTITIONS), help="The part of AWS.  [default: that of --region, else aws]")
@_of("S3", "--radosgw", is_flag=True, help="For Ceph's gateway, which understands some rights in other ways.")
@_of(
    "Azure and Google Cloud",
    "--binding",
    is_flag=True,
    help="What binds the role to the place: the condition of its assignment, or the policy of the bucket.",
)
@_of("Azure and Google Cloud", "--scope", metavar="ID", help="Of Azure: the subscription or group that has the role.")
@_of("Azure and Google Cloud", "--project", metavar="ID", help="Of Google: the project that has the custom roles.")
@connection_options()
def policy(
    connection: Connection, role: Any, url: str | None, metaflow: str | None, packed: bool, flows: tuple[str, ...],
    principals: tuple[str, ...], lifecycle: bool, merge: bool, present: Any, explain: bool, as_json: bool,
    **of_service: Any,
) -> None:  # fmt: skip
    """Print what a role needs at a place in S3, Azure or Google Cloud, as a policy to give it: exactly that, and
    nothing beyond.

    \b
    writer     saves, loads and sets refs: a task
    reader     loads
    signer     signs what others stored
    collector  runs gc, repair, migrate and verify, and sets holds
    auditor    runs verify, du and doctor, and changes nothing
    benchmark  runs bench

    Nobody but the collector may write what collections decide by. In S3 that is denied, whatever other policies allow;
    Azure and Google Cloud have no such denials, so there it is not granted.
    """
    from mfstore.policy.places import partition_of_region, place

    if (url is None) == (metaflow is None):
        raise click.UsageError("Give one place: the URL of a store, or --metaflow ROOT")
    if metaflow is None and (flows or packed):
        raise click.UsageError("--flow and --packed are about a root: give it with --metaflow ROOT")
    given = Given(**of_service, lifecycle=lifecycle, explain=explain, principals=principals)
    if sum((given.bucket_policy, given.key_policy, given.binding, lifecycle, explain)) > 1:
        raise click.UsageError("Ask for one of --bucket-policy, --key-policy, --binding, --lifecycle and --explain")
    if (merge or present) and not lifecycle:
        raise click.UsageError("--merge and --present are about the rules of --lifecycle")
    if merge and present:
        raise click.UsageError("--merge asks for the rules that --present has: give one of them")
    where = place(
        url or metaflow or "", metaflow=metaflow is not None, packed=packed, flows=flows,
        partition=given.partition or partition_of_region(connection.region or ""),
    )  # fmt: skip
    _refuse(where, given)
    if lifecycle:
        if merge and where.scheme != "s3":
            from mfstore.policy.lifecycle import printed_by

            raise click.UsageError(f"--merge asks S3. Here: {printed_by(where)} > FILE, and --present FILE")
        _show(_rules(where, merge, present, connection))
    elif explain:
        _explain(_explained(role, where, given), as_json)
    else:
        {"s3": _of_s3, "az": _of_azure, "gs": _of_google}[where.scheme](role, where, given)


class Given(NamedTuple):
    """What the options ask for, of which each is about one service."""

    bucket_policy: bool
    key_policy: bool
    key_arn: str | None
    partition: str | None
    radosgw: bool
    binding: bool
    scope: str | None
    project: str | None
    lifecycle: bool
    explain: bool
    principals: tuple[str, ...]


OF_S3 = {
    "bucket_policy": ("--bucket-policy", "has no policies of buckets that take statements"),
    "key_policy": ("--key-policy", "has no policies of keys that S3's would be"),
    "key_arn": ("--kms-key", "encrypts with keys of its own, whose use no role here has to have"),
    "partition": ("--partition", "has no parts of AWS"),
    "radosgw": ("--radosgw", "is not Ceph's gateway"),
}
"""Options that are S3's alone, and why another service has nothing of it."""


def _refuse(where: Place, given: Given) -> None:
    """Wrong usage for an option that makes no sense for the service of the place."""
    if where.scheme == "s3":
        for name in ("binding", "scope", "project"):
            if getattr(given, name):
                raise click.UsageError(f"--{name} is for places in Azure and Google Cloud; AWS has --bucket-policy")
        if (given.bucket_policy or given.key_policy) != bool(given.principals):
            raise click.UsageError("--principal says whose a --bucket-policy or --key-policy is: give both, or neither")
        if given.key_policy and given.key_arn is None:
            raise click.UsageError("--key-policy is of a key: give it with --kms-key ARN")
        if given.bucket_policy and given.key_arn is not None:
            raise click.UsageError(
                "A bucket's policy cannot grant the use of a key: ask for --key-policy, or for the policy of a role"
            )
        return
    service = {"az": "Azure", "gs": "Google Cloud"}[where.scheme]
    for name, (option, why) in OF_S3.items():
        if getattr(given, name):
            raise click.UsageError(f"{option} is for places in S3: {service} {why}. It has --binding")
    alone = given.lifecycle or given.explain
    if where.scheme == "az":
        if given.project or given.principals:
            raise click.UsageError(
                "--project and --principal are of Google: az role assignment create takes --assignee"
            )
        if not given.scope and not (given.binding or alone):
            raise click.UsageError(
                "A role needs --scope, where it can be assigned: az group show --name GROUP --query id prints one. "
                "--binding needs none"
            )
        if given.scope and (given.binding or alone):
            raise click.UsageError("--scope is of the role itself: not with --binding, --lifecycle or --explain")
    else:
        if given.scope:
            raise click.UsageError("--scope is of Azure; in Google Cloud --project has the custom roles")
        if given.binding != bool(given.principals) or given.binding != bool(given.project):
            raise click.UsageError("--binding is of a --principal, to custom roles of a --project: give all, or none")


def _of_s3(role: Any, where: Place, given: Given) -> None:
    from mfstore.policy import documents
    from mfstore.policy.statements import statements

    if given.key_policy and given.key_arn is not None:
        _show(documents.key_policy(role, given.key_arn, given.principals))
    elif given.bucket_policy:
        _show(documents.bucket_policy(role, where, given.principals, radosgw=given.radosgw))
    else:
        _show(documents.identity_policy(statements(role, where, kms_key=given.key_arn, radosgw=given.radosgw)))


def _of_azure(role: Any, where: Place, given: Given) -> None:
    from mfstore.policy import azure

    if given.binding:
        click.echo(azure.condition(role, where))
    else:
        _show(azure.role_definition(role, where, given.scope or ""))


def _of_google(role: Any, where: Place, given: Given) -> None:
    from mfstore.policy import google

    if given.binding:
        click.echo("mfstore: set-iam-policy replaces all bindings of the bucket: add those that it has", err=True)
        _show(google.bindings(role, where, given.project or "", given.principals))
    else:
        _show(google.custom_roles(role, where))


def _explained(role: Any, where: Place, given: Given) -> list[tuple[str, str, str, str]]:
    if where.scheme == "s3":
        from mfstore.policy.statements import statements

        found = statements(role, where, kms_key=given.key_arn, radosgw=given.radosgw)
        return [(one.sid, one.effect, one.purpose, one.without) for one in found]
    from mfstore.policy import azure, google

    return azure.explained(role, where) if where.scheme == "az" else google.explained(role, where)


def _show(document: Any) -> None:
    # Rules of a bucket may name dates.
    click.echo(json.dumps(document, indent=2, default=lambda value: value.isoformat()))


def _explain(rows: Sequence[tuple[str, str, str, str]], as_json: bool) -> None:
    if as_json:
        _show([dict(zip(("sid", "effect", "for", "without"), row, strict=True)) for row in rows])
        return
    print_table(["statement", "", "what it is for", "without it"], rows)


def _rules(where: Place, merge: bool, file: Any, connection: Connection) -> Any:
    from mfstore.policy.lifecycle import azure_lifecycle, google_lifecycle, in_words_of_s3, lifecycle, rules_of

    present: Sequence[Any] = ()
    if file is not None:
        try:
            present = rules_of(where, json.loads(file.read() or b"{}"))
        except ValueError as error:
            raise click.UsageError(f"{file.name} is no JSON: {error}") from None
    elif merge:
        present = _present(where, connection)
    else:
        what = "account" if where.scheme == "az" else "bucket"
        more = "--merge or --present keeps" if where.scheme == "s3" else "--present keeps"
        click.echo(f"mfstore: these replace all rules of the {what}; {more} those that it has", err=True)
    _warn(where, in_words_of_s3(where, present))
    if where.scheme == "s3":
        return lifecycle(where.prefix, present)
    return (azure_lifecycle if where.scheme == "az" else google_lifecycle)(where, present)


def _warn(where: Place, present: Sequence[Any]) -> None:
    from mfstore.maintenance.lifecycle import PARTS, Part, endangered, root_parts

    parts = PARTS
    if where.kind != "store":  # which flows there are is not asked: without names of some, anything there may be one's
        flows = root_parts(where.flows, where.kind == "packed")
        parts = flows if where.flows else {"": Part("artifacts and records of flows", True)}
    for danger in endangered(present, where.prefix, parts):
        click.echo(printable(f"mfstore: {danger.text}"), err=True)


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
