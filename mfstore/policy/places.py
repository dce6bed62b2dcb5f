"""A place as policies name it: the bucket or container, and what lies below a store or a datastore root. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from mfstore.errors import InvalidKey, Unsupported
from mfstore.records import dataclass
from mfstore.s3.aws.rights import arn, literal
from mfstore.s3.urls import is_directory_bucket, split_url

Kind = Literal["store", "stock", "packed"]
"""A store, or a datastore root of Metaflow whose tasks write in this profile."""
ABFS = ("abfs", "abfss")
SCHEMES: Mapping[str, Literal["s3", "az", "gs"]] = {"s3": "s3", "az": "az", "abfs": "az", "abfss": "az", "gs": "gs"}
"""What URLs may begin with, and whose they are."""
_NAMES = {
    "s3": re.compile(r"[A-Za-z0-9._-]+|arn:[\w-]+:s3[\w-]*:[\w:/.-]+"),
    "az": re.compile(r"[a-z0-9$](?:[a-z0-9]|-(?!-)){1,61}[a-z0-9]"),
    "gs": re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"),
}
_NOT_ONE = {
    "s3": "a policy is of one bucket, by its name or by the ARN of an access point",
    "az": "a condition is of one container, by its name",
    "gs": "a condition is of one bucket, by its name",
}
_HINTS = {
    "s3": "Bucket names have letters, digits, '.', '-' and '_'; a pattern is of many, and URLs of S3 have no user or "
    "password",
    "az": "Names of containers have 3 to 63 lower-case letters, digits and single '-': az://container/prefix, or "
    "abfss://container@account.dfs.core.windows.net/prefix",
    "gs": "Names of buckets have 3 to 222 lower-case letters, digits, '.', '-' and '_'; name it as gs://bucket/prefix",
}
"""What is wrong with the name of a bucket or container, and what to do."""
PARTITIONS = ("aws", "aws-cn", "aws-us-gov")


@dataclass(frozen=True, slots=True)
class Place:
    """A store, or a datastore root of Metaflow, in S3, Azure or Google Cloud."""

    url: str
    kind: Kind
    name: str
    """Of the bucket or container; of an access point its ARN."""
    prefix: str
    """What the keys of all its objects begin with: nothing, or with ``/`` at its end. As it is, not as a pattern."""
    flows: tuple[str, ...] = ()
    """The flows whose tasks write; none: any."""
    partition: str = "aws"
    """Of AWS: what ARNs begin with behind ``arn:``."""
    scheme: Literal["s3", "az", "gs"] = "s3"
    account: str = ""
    """Of Azure: the storage account, where the URL names it."""

    @property
    def title(self) -> str:
        """What lies there, for names of roles."""
        return "store" if self.kind == "store" else f"{self.kind} root"

    @property
    def bucket(self) -> str:
        """In S3: the ARN of the bucket or access point."""
        return arn(self.name, None, self.partition)

    def objects(self, *patterns: str) -> tuple[str, ...]:
        """In S3: the resources that patterns of keys below the place name."""
        return tuple(arn(self.name, literal(self.prefix) + pattern, self.partition) for pattern in patterns)

    @property
    def listed(self) -> str:
        """In S3: the pattern of the prefixes that are listed there."""
        return f"{literal(self.prefix)}*"


def place(
    url: str, *, metaflow: bool = False, packed: bool = False, flows: Iterable[str] = (), partition: str = "aws"
) -> Place:
    """The place that a URL names.

    Args:
        url: ``s3://bucket/prefix``, ``az://container/prefix``, ``abfss://container@account.dfs.core.windows.net/…``
            or ``gs://bucket/prefix``.
        metaflow: It is a datastore root of Metaflow.
        packed: Its tasks write in the packed profile.
        flows: Only tasks of these flows write there.
        partition: Of AWS.

    Raises:
        InvalidKey: it is no URL of one bucket or container, or a flow has no name that Metaflow gives.
        Unsupported: it is a bucket of S3 Express.
    """
    scheme, separator, rest = url.partition("://")
    known = SCHEMES.get(scheme) if separator else None
    if known is None:
        raise InvalidKey(
            "policies are of places in S3, Azure and Google Cloud", found=repr(url),
            hint="Name it as s3://bucket/prefix, az://container/prefix or gs://bucket/prefix",
        )  # fmt: skip
    named, _, prefix = rest.partition("/")
    if rest.startswith("arn:"):  # an access point has a slash in its name
        named, prefix = split_url(url)
    account = ""
    if scheme in ABFS:
        named, _, host = named.partition("@")
        account = host.partition(".")[0]
    if not _NAMES[known].fullmatch(named):
        raise InvalidKey(_NOT_ONE[known], hint=_HINTS[known])
    if known == "s3" and is_directory_bucket(named):
        raise Unsupported(
            "a bucket of S3 Express knows one right for all that is done in it",
            backend=url,
            hint="Grant s3express:CreateSession on it; who may only read gets the condition s3express:SessionMode",
        )
    for flow in flows:
        if not flow.isidentifier():
            raise InvalidKey("not the name of a flow", found=repr(flow), hint="Name the flow's class")
    prefix = prefix.strip("/")
    return Place(
        url,
        "store" if not metaflow else "packed" if packed else "stock",
        named,
        f"{prefix}/" if prefix else "",
        tuple(flows),
        partition,
        known,
        account,
    )


def partition_of_region(region: str) -> str:
    """The part of AWS that a region lies in."""
    return "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
