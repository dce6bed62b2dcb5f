"""A place in S3 as policies name it: the bucket, and patterns of what lies below a store or a datastore root. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from mfstore.errors import InvalidKey, Unsupported
from mfstore.records import dataclass
from mfstore.s3.aws.rights import arn, literal
from mfstore.s3.urls import is_directory_bucket, split_url

Kind = Literal["store", "stock", "packed"]
"""A store, or a datastore root of Metaflow whose tasks write in this profile."""
_BUCKET = re.compile(r"[A-Za-z0-9._-]+|arn:[\w-]+:s3[\w-]*:[\w:/.-]+")
PARTITIONS = ("aws", "aws-cn", "aws-us-gov")


@dataclass(frozen=True, slots=True)
class Place:
    """A store, or a datastore root of Metaflow, in S3."""

    url: str
    kind: Kind
    name: str
    """Of the bucket; of an access point its ARN."""
    prefix: str
    """What the keys of all its objects begin with: nothing, or with ``/`` at its end. As it is, not as a pattern."""
    flows: tuple[str, ...] = ()
    """The flows whose tasks write; none: any."""
    partition: str = "aws"
    """Of AWS: what ARNs begin with behind ``arn:``."""

    @property
    def bucket(self) -> str:
        """The ARN of the bucket or access point."""
        return arn(self.name, None, self.partition)

    def objects(self, *patterns: str) -> tuple[str, ...]:
        """The resources that patterns of keys below the place name."""
        return tuple(arn(self.name, literal(self.prefix) + pattern, self.partition) for pattern in patterns)

    @property
    def listed(self) -> str:
        """The pattern of the prefixes that are listed there."""
        return f"{literal(self.prefix)}*"


def place(
    url: str, *, metaflow: bool = False, packed: bool = False, flows: Iterable[str] = (), partition: str = "aws"
) -> Place:
    """The place that a URL names.

    Args:
        url: ``s3://bucket/prefix``.
        metaflow: It is a datastore root of Metaflow.
        packed: Its tasks write in the packed profile.
        flows: Only tasks of these flows write there.
        partition: Of AWS.

    Raises:
        InvalidKey: it is no URL of one bucket in S3, or a flow has no name that Metaflow gives.
        Unsupported: it is a bucket of S3 Express.
    """
    if not url.startswith("s3://"):
        raise InvalidKey("policies are of places in S3", found=repr(url), hint="Name it as s3://bucket/prefix")
    name, prefix = split_url(url)
    if not _BUCKET.fullmatch(name):
        raise InvalidKey(
            "a policy is of one bucket, by its name or by the ARN of an access point",
            hint="Bucket names have letters, digits, '.', '-' and '_'; a pattern is of many, and URLs of S3 have no "
            "user or password",
        )  # fmt: skip
    if is_directory_bucket(name):
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
        name,
        f"{prefix}/" if prefix else "",
        tuple(flows),
        partition,
    )


def partition_of_region(region: str) -> str:
    """The part of AWS that a region lies in."""
    return "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
