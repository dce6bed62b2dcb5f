"""Which rights each operation of S3 needs, on what, and what mfstore does with them: by it a refusal names the right
that is missing, ``mfstore doctor`` tells what a user may, and policies are written. Pure.

Actions have the names of AWS (Service Authorization Reference). What a service that speaks S3 knows of them differs;
those that have policies at all take the same names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Literal

from mfstore.records import NamedTuple
from mfstore.s3.calls import Call

On = Literal["object", "bucket", "source", "key", "account"]
"""What a right is about: the object of the request; its bucket; the object that a copy is made of; a key of KMS; all
that an account has."""


class Action(NamedTuple):
    """A right, as policies name it."""

    name: str
    on: Literal["object", "bucket", "key", "account"]
    """What its statement has to name as ``Resource``: objects, the bucket, keys of KMS, or ``*``."""
    use: str
    """What mfstore needs it for."""


ACTIONS: Mapping[str, Action] = {
    one.name: one
    for one in (
        Action("s3:GetObject", "object", "to load, to verify, and to ask for an object's size"),
        Action("s3:GetObjectVersion", "object", "to read a version that is not the current one"),
        Action("s3:PutObject", "object", "to save, to set and remove refs, to condemn"),
        Action("s3:DeleteObject", "object", "to collect garbage, and to remove what a trial has put"),
        Action("s3:DeleteObjectVersion", "object", "to delete a version for good in a bucket that keeps versions"),
        Action("s3:ListBucket", "bucket", "to list, to deduplicate, and to tell an absent object from a refused one"),
        Action("s3:ListBucketVersions", "bucket", "to list versions of what was deleted"),
        Action("s3:AbortMultipartUpload", "object", "to give up an upload in parts that failed"),
        Action("s3:ListMultipartUploadParts", "object", "to list the parts of an upload that is open"),
        Action("s3:ListBucketMultipartUploads", "bucket", "to find uploads that were left open"),
        Action("s3:GetObjectTagging", "object", "to copy an object that has tags"),
        Action("s3:PutObjectTagging", "object", "to copy an object that has tags, or to put one with tags"),
        Action("s3:GetObjectRetention", "object", "to tell what is locked before a collection"),
        Action("s3:PutObjectRetention", "object", "to put an object with a retention"),
        Action("s3:GetObjectLegalHold", "object", "to tell what is locked before a collection"),
        Action("s3:PutObjectLegalHold", "object", "to put an object with a legal hold"),
        Action("s3:BypassGovernanceRetention", "object", "to delete what is under retention in governance mode"),
        Action("s3:PutObjectAcl", "object", "to put an object with an ACL"),
        Action("s3:GetBucketVersioning", "bucket", "to tell that what is deleted stays as a version"),
        Action("s3:GetLifecycleConfiguration", "bucket", "to warn of rules that take what is still needed"),
        Action("s3:GetBucketObjectLockConfiguration", "bucket", "to tell that what is stored cannot be deleted"),
        Action("s3:GetBucketLocation", "bucket", "to find the bucket's region"),
        Action("s3:GetEncryptionConfiguration", "bucket", "to show how objects are encrypted by default"),
        Action("s3:GetBucketPublicAccessBlock", "bucket", "to warn of a bucket that anybody may read"),
        Action("s3:GetBucketPolicyStatus", "bucket", "to warn of a bucket that anybody may read"),
        Action("s3:GetBucketAcl", "bucket", "to warn of a bucket that anybody may read"),
        Action("s3:CreateBucket", "bucket", "to make a bucket as a directory of a file system"),
        Action("s3:DeleteBucket", "bucket", "to remove an empty bucket as a directory of a file system"),
        Action("s3:ListAllMyBuckets", "account", "to list buckets as directories of a file system"),
        Action("s3express:CreateSession", "bucket", "to do anything in a directory bucket"),
        Action("kms:GenerateDataKey", "key", "to store with a key of KMS"),
        Action("kms:Decrypt", "key", "to read what is encrypted with a key of KMS, and to upload it in parts"),
    )
}
"""Every right that mfstore uses somewhere, by name."""


class Needs(NamedTuple):
    """A right that an operation needs."""

    action: str
    on: On
    given: str = ""
    """Only where the request has this parameter, by botocore's name; empty: always."""


_KMS_WRITE = (Needs("kms:GenerateDataKey", "key", "SSEKMSKeyId"),)
_KMS_PARTS = (*_KMS_WRITE, Needs("kms:Decrypt", "key", "SSEKMSKeyId"))
_SAID = (
    Needs("s3:PutObjectTagging", "object", "Tagging"),
    Needs("s3:PutObjectRetention", "object", "ObjectLockMode"),
    Needs("s3:PutObjectLegalHold", "object", "ObjectLockLegalHoldStatus"),
    Needs("s3:PutObjectAcl", "object", "ACL"),
)
"""What an upload says of its object besides."""
_PUT = Needs("s3:PutObject", "object")
_GET = (Needs("s3:GetObject", "object"), Needs("s3:GetObjectVersion", "object", "VersionId"))
_DELETE = (
    Needs("s3:DeleteObject", "object"),
    Needs("s3:DeleteObjectVersion", "object", "VersionId"),
    Needs("s3:BypassGovernanceRetention", "object", "BypassGovernanceRetention"),
    Needs("s3:GetObject", "object", "IfMatch"),
)
OPERATIONS: Mapping[str, tuple[Needs, ...]] = {
    "GetObject": _GET,
    "HeadObject": _GET,
    "PutObject": (_PUT, Needs("s3:GetObject", "object", "IfMatch"), *_SAID, *_KMS_WRITE),
    "CreateMultipartUpload": (_PUT, *_SAID, *_KMS_PARTS),
    "UploadPart": (_PUT, *_KMS_PARTS),
    "UploadPartCopy": (_PUT, Needs("s3:GetObject", "source"), *_KMS_PARTS),
    "CompleteMultipartUpload": (_PUT, Needs("s3:GetObject", "object", "IfMatch"), *_KMS_PARTS),
    "AbortMultipartUpload": (Needs("s3:AbortMultipartUpload", "object"),),
    "ListParts": (Needs("s3:ListMultipartUploadParts", "object"),),
    "CopyObject": (Needs("s3:GetObject", "source"), _PUT, *_SAID, *_KMS_WRITE),
    "DeleteObject": _DELETE,
    "DeleteObjects": _DELETE,
    "GetObjectTagging": (Needs("s3:GetObjectTagging", "object"),),
    "GetObjectRetention": (Needs("s3:GetObjectRetention", "object"),),
    "HeadBucket": (Needs("s3:ListBucket", "bucket"),),
    "ListObjects": (Needs("s3:ListBucket", "bucket"),),
    "ListObjectsV2": (Needs("s3:ListBucket", "bucket"),),
    "ListObjectVersions": (Needs("s3:ListBucketVersions", "bucket"),),
    "ListMultipartUploads": (Needs("s3:ListBucketMultipartUploads", "bucket"),),
    "GetBucketVersioning": (Needs("s3:GetBucketVersioning", "bucket"),),
    "GetBucketLifecycleConfiguration": (Needs("s3:GetLifecycleConfiguration", "bucket"),),
    "GetObjectLockConfiguration": (Needs("s3:GetBucketObjectLockConfiguration", "bucket"),),
    "GetBucketLocation": (Needs("s3:GetBucketLocation", "bucket"),),
    "GetBucketEncryption": (Needs("s3:GetEncryptionConfiguration", "bucket"),),
    "GetPublicAccessBlock": (Needs("s3:GetBucketPublicAccessBlock", "bucket"),),
    "GetBucketPolicyStatus": (Needs("s3:GetBucketPolicyStatus", "bucket"),),
    "GetBucketAcl": (Needs("s3:GetBucketAcl", "bucket"),),
    "CreateBucket": (Needs("s3:CreateBucket", "bucket"),),
    "DeleteBucket": (Needs("s3:DeleteBucket", "bucket"),),
    "ListBuckets": (Needs("s3:ListAllMyBuckets", "account"),),
    "CreateSession": (Needs("s3express:CreateSession", "bucket"),),
}
"""By operation, as botocore names it: what whoever asks for it has to be allowed."""
LISTING = "s3:ListBucket"
READS = ("GetObject", "HeadObject", "GetObjectTagging", "GetObjectRetention", "CopyObject", "UploadPartCopy")
"""Operations that are refused, and not told "absent", where the object is not there and keys may not be listed."""


class Right(NamedTuple):
    """A right that a request needs, or lacks."""

    action: str
    resource: str
    """The ARN of what it is about; of a key of KMS that is not known, words."""

    def __str__(self) -> str:
        return f"{self.action} on {self.resource}"


def needed(call: Call, partition: str = "aws") -> tuple[Right, ...]:
    """What whoever makes this request has to be allowed; nothing for an operation that the table does not have.
    ``partition`` is the part of AWS that ARNs name."""
    said: dict[str, Any] = {**call.options, **(call.params or {})}
    if call.if_match is not None:
        said["IfMatch"] = call.if_match
    found = []
    for needs in OPERATIONS.get(call.operation, ()):
        if not needs.given or said.get(needs.given) or (needs.given == "SSEKMSKeyId" and _by_kms(said)):
            found.append(Right(needs.action, _resource(needs.on, call, said, partition)))
    return tuple(found)


def _by_kms(said: Mapping[str, Any]) -> bool:
    return str(said.get("ServerSideEncryption", "")).startswith("aws:kms")


def _resource(on: On, call: Call, said: Mapping[str, Any], partition: str) -> str:
    if on == "account":
        return "*"
    if on == "key":
        return said.get("SSEKMSKeyId") or "the bucket's key of KMS"
    if on == "source":
        source = said.get("CopySource")
        if isinstance(source, Mapping):
            return arn(str(source.get("Bucket", "")), str(source.get("Key", "")), partition)
        return "the object that is copied"
    return arn(call.bucket, None if on == "bucket" else call.key or _several(said), partition)


def _several(said: Mapping[str, Any]) -> str:
    """The keys of a request about many, as policies name them."""
    keys = [str(one["Key"]) for one in (said.get("Delete") or {}).get("Objects", ())]
    if len(keys) == 1:
        return keys[0]
    return f"{os.path.commonprefix(keys)}*"  # noqa: RUF071 (characters: keys are no paths)


def arn(bucket: str, key: str | None = None, partition: str = "aws") -> str:
    """The ARN of a bucket, or of an object in it, as policies name it; of an access point, which is an ARN already, and
    what is behind it."""
    if bucket.startswith("arn:"):
        return bucket if key is None else f"{bucket}/object/{key}"
    if bucket.endswith("--x-s3"):  # a directory bucket: its sessions are what is allowed, whatever the object
        return f"arn:{partition}:s3express:*:*:bucket/{bucket}"
    return f"arn:{partition}:s3:::{bucket}" + ("" if key is None else f"/{key}")


def literal(text: str) -> str:
    """A text as it stands, in a pattern of a policy."""
    return re.sub(r"[*?$]", lambda found: f"${{{found[0]}}}", text)


def partition_of(host: str) -> str:
    """Which part of AWS a host belongs to; ``aws`` also for a service of another kind."""
    if ".amazonaws.com.cn" in host:
        return "aws-cn"
    return "aws-us-gov" if "us-gov-" in host else "aws"


_NAMED = re.compile(r"not authorized to perform: ([\w-]+:\w+)(?: on resource: \"?([^\s\"]+))?")
_KMS = re.compile(r"\bkms:\w+|\bKMS\b|customer master key|\bciphertext\b", re.IGNORECASE)
_EMPTY = re.compile(r"(access[ _-]?denied|forbidden|unauthorized|none|null)?[.!]?", re.IGNORECASE)


class Refusal(NamedTuple):
    """What a refused request lacked."""

    rights: tuple[Right, ...]
    """The one that the service names, else all that the request needs."""
    words: str
    """The service's own, where they say more than that it is refused."""
    named: bool
    """Whether the service has named the right."""
    denied: bool
    """Whether the service says that a policy denies it, which nothing that allows it outweighs."""


def lacking(call: Call, text: str, code: str = "", partition: str = "aws") -> Refusal:
    """What a refused request lacked, by what it was and by what the service says of it."""
    words = "" if _EMPTY.fullmatch(text.strip()) else text.strip()
    denied = "explicit deny" in words
    if found := _NAMED.search(words):
        resource = found[2] or next((right.resource for right in needed(call, partition)), call.bucket)
        return Refusal((Right(found[1], resource.rstrip(".,")),), words, True, denied)
    rights = needed(call, partition)
    if _KMS.search(words) or code.upper().startswith("KMS"):
        writes = any(right.action == "s3:PutObject" for right in rights)
        said = {**call.options, **(call.params or {})}
        key = _resource("key", call, said, partition)
        actions = ("kms:GenerateDataKey", "kms:Decrypt") if writes else ("kms:Decrypt",)
        rights = tuple(Right(action, key) for action in actions)
    return Refusal(rights, words, False, denied)
