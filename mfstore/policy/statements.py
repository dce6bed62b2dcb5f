"""What each role needs at a place in S3, and what it is denied there: one statement for each thing. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from mfstore.errors import InvalidKey
from mfstore.policy.needs import Need, Right, Role, needs
from mfstore.policy.needs import protection as protected
from mfstore.policy.places import Place

CHANGE = ("s3:PutObject*", "s3:DeleteObject*", "s3:AbortMultipartUpload")
"""Also of ACLs, tags, retention and legal holds, which open an object to others, have a lifecycle rule take it, or keep
it from being deleted. Patterns, since radosgw 16 refuses a policy that names an action that it does not know, and S3 is
given new ones."""
REMOVE = ("s3:DeleteObject", "s3:DeleteObjectVersion")
RETENTION = ("s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration", "s3:GetLifecycleConfiguration")
"""What tells how long a bucket keeps what is stored and what is deleted."""
EXPOSURE = (
    "s3:GetEncryptionConfiguration", "s3:GetBucketPublicAccessBlock", "s3:GetBucketPolicyStatus", "s3:GetBucketAcl",
)  # fmt: skip
"""What tells how a bucket encrypts, and who else may read it."""
_KEY = re.compile(r"arn:[\w-]+:kms:(?P<region>[\w-]+):\d+:key/[\w-]+")
"""One key: a pattern would be of many."""
ACTIONS: Mapping[Right, tuple[str, ...]] = {
    "list": ("s3:ListBucket",), "versions": ("s3:ListBucketVersions",), "read": ("s3:GetObject",),
    "write": ("s3:PutObject",), "parts": ("s3:AbortMultipartUpload",), "delete": ("s3:DeleteObject",),
    "delete-versions": ("s3:DeleteObjectVersion",), "settings": RETENTION,
    "versioning": ("s3:GetBucketVersioning",), "exposure": EXPOSURE,
    "locks": ("s3:GetObjectRetention", "s3:GetObjectLegalHold"), "uploads": ("s3:ListBucketMultipartUploads",),
    "protect": CHANGE, "keep": REMOVE,
}  # fmt: skip
"""What AWS calls it."""
OF_KEYS = ("read", "write", "parts", "delete", "delete-versions", "locks", "protect", "keep")
"""Rights of which the resource is an object. Of the others it is the bucket."""
UNKNOWN_TO_RADOSGW = ("s3:GetEncryptionConfiguration",)
"""Release 16 refuses a policy that names an action that it does not know."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a policy, and the reason for it."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    purpose: str
    """What it is for."""
    without: str
    """What becomes of it if the statement is left out."""
    effect: Literal["Allow", "Deny"] = "Allow"
    condition: Mapping[str, Mapping[str, str | tuple[str, ...]]] = field(default_factory=dict)


def statements(role: Role, place: Place, *, kms_key: str | None = None, radosgw: bool = False) -> list[Statement]:
    """What a role needs at a place.

    Args:
        role: Which.
        place: Where.
        kms_key: The ARN of the key by which S3 encrypts objects there.
        radosgw: Ceph's gateway is to understand it: some statements more, without which it refuses what S3 allows.

    Raises:
        InvalidKey: ``kms_key`` is not the ARN of a key.
    """
    found = [_statement(need, place) for need in needs(role, place)]
    if radosgw:
        found = [_known_to_radosgw(one) for one in found]
        found += _for_radosgw(role, place)
    if kms_key is not None:
        found.append(key_statement(role, kms_key))
    return found


def key_statement(role: Role, kms_key: str) -> Statement:
    """What a role needs of the key by which S3 encrypts. InvalidKey when this is not the ARN of one."""
    found = _KEY.fullmatch(kms_key)
    if found is None:
        raise InvalidKey(
            "not the ARN of a KMS key", found=repr(kms_key),
            hint="It is arn:aws:kms:REGION:ACCOUNT:key/ID, as aws kms describe-key prints it: a policy names keys, "
            "not their aliases",
        )  # fmt: skip
    writes = role not in ("reader", "auditor")
    return Statement(
        "UseKey",
        ("kms:Decrypt", *["kms:GenerateDataKey"] * writes),
        (kms_key,),
        "read and write what S3 encrypts with this key" if writes else "read what S3 encrypts with this key",
        "every read of an encrypted object is refused, and every upload" if writes else "every read is refused",
        # Of the service's own domain in each partition.
        condition={"StringLike": {"kms:ViaService": f"s3.{found['region']}.amazonaws.com*"}},
    )


def protection(place: Place) -> Statement:
    """What nobody but a collector may change at a place."""
    return _statement(protected(place), place)


def _statement(need: Need, place: Place) -> Statement:
    actions = tuple(action for right in need.rights for action in ACTIONS[right])
    resources = place.objects(*need.keys) if need.rights[0] in OF_KEYS else (place.bucket,)
    condition = _prefixes(place, need.keys[0]) if need.rights[0] == "list" else {}
    effect: Literal["Allow", "Deny"] = "Deny" if need.denies else "Allow"
    return Statement(need.name, actions, resources, need.purpose, need.without, effect, condition)


def _prefixes(place: Place, pattern: str) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """The condition that a listing is of nothing but this. S3 takes the key that is asked for as the prefix when
    something is absent. In the whole of a bucket there is none."""
    found = place.listed[:-1] + pattern
    return {} if found == "*" else {"StringLike": {"s3:prefix": (found,)}}


def _known_to_radosgw(statement: Statement) -> Statement:
    known = tuple(action for action in statement.actions if action not in UNKNOWN_TO_RADOSGW)
    return statement if known == statement.actions else replace(statement, actions=known)


def _for_radosgw(role: Role, place: Place) -> Iterator[Statement]:
    if place.prefix or role == "benchmark":
        yield Statement(
            "TellAbsentOnRadosgw",
            ("s3:ListBucket",),
            (place.bucket,),
            "be told of what is absent: radosgw does not take the key for the prefix, and names max-keys of listings",
            "radosgw answers 403 where nothing is: no store can be opened or created",
            condition={"Null": {"s3:prefix": "true", "s3:max-keys": "true"}},
        )
    if role in ("collector", "benchmark") or (role == "writer" and place.kind != "stock"):
        yield Statement(
            "DeleteTogetherOnRadosgw",
            ("s3:DeleteObject",),
            (place.bucket,),
            "delete by a request that lists objects, for which radosgw asks for the right on the bucket as well",
            "radosgw refuses every deletion",
        )
