"""Which permissions each operation of Google Cloud Storage needs, and which predefined role has them: by it a refusal
names what is missing. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from mfstore.records import NamedTuple
from mfstore.s3.calls import Call

GET, CREATE, DELETE = "storage.objects.get", "storage.objects.create", "storage.objects.delete"
LIST, BUCKET = "storage.objects.list", "storage.buckets.get"
ROLES: Mapping[str, str] = {
    GET: "roles/storage.objectViewer",
    LIST: "roles/storage.objectViewer",
    CREATE: "roles/storage.objectUser",
    DELETE: "roles/storage.objectUser",
    BUCKET: "roles/storage.bucketViewer",
}
"""By permission: the least predefined role that has it and is of use. ``roles/storage.objectCreator`` may create, and
replaces nothing, which takes the permission to delete."""


class Needs(NamedTuple):
    """A permission that an operation needs."""

    permission: str
    on: Literal["object", "bucket", "source"]
    replaces: bool = False
    """Only where there is an object by that name already."""


_WRITE = (Needs(CREATE, "object"), Needs(DELETE, "object", True))
OPERATIONS: Mapping[str, tuple[Needs, ...]] = {
    "GetObject": (Needs(GET, "object"),),
    "HeadObject": (Needs(GET, "object"),),
    "GetObjectRetention": (Needs(GET, "object"),),
    "PutObject": _WRITE,
    "CreateMultipartUpload": _WRITE,
    "UploadPart": _WRITE,
    "CopyObject": (Needs(GET, "source"), *_WRITE),
    "DeleteObject": (Needs(DELETE, "object"),),
    "ListObjectsV2": (Needs(LIST, "bucket"),),
    "HeadBucket": (Needs(LIST, "bucket"),),
    "GetBucketLifecycleConfiguration": (Needs(BUCKET, "bucket"),),
    "GetBucketVersioning": (Needs(BUCKET, "bucket"),),
    "GetObjectLockConfiguration": (Needs(BUCKET, "bucket"),),
}
"""By operation, as S3 calls it."""
READS = ("GetObject", "HeadObject", "GetObjectRetention", "CopyObject")
"""Operations that are refused, and not told "absent", where the object is not there and may not be listed."""


class Right(NamedTuple):
    """A permission that a request needs, or lacks."""

    permission: str
    resource: str
    """The resource's name, as conditions of IAM have it."""

    def __str__(self) -> str:
        return f"{self.permission} on {self.resource}"


def resource(bucket: str, key: str | None = None) -> str:
    """The name of a bucket, or of an object in it."""
    return f"projects/_/buckets/{bucket}" + ("" if key is None else f"/objects/{key}")


def needed(call: Call) -> tuple[Right, ...]:
    """What whoever makes this request has to be allowed; what it takes to replace an object only where the request says
    that it replaces one."""
    found = []
    for needs in OPERATIONS.get(call.operation, ()):
        if needs.replaces and call.if_match is None:
            continue
        if needs.on == "source":
            source = (call.params or {}).get("CopySource") or {}
            found.append(Right(needs.permission, resource(str(source.get("Bucket", "")), str(source.get("Key", "")))))
        else:
            found.append(Right(needs.permission, resource(call.bucket, call.key if needs.on == "object" else None)))
    return tuple(found)


_NAMED = re.compile(r"does not have (storage\.[\w.]+) access|[Pp]ermission '([\w.]+)' denied")


class Refusal(NamedTuple):
    """What a refused request lacked."""

    rights: tuple[Right, ...]
    """The one that the service names, else all that the request needs."""
    named: bool
    """Whether the service has named it."""


def lacking(call: Call, text: str) -> Refusal:
    """What a refused request lacked, by what it was and by what the service says of it."""
    if found := _NAMED.search(text):
        permission = found[1] or found[2]
        of_bucket = permission == LIST or permission.startswith("storage.buckets.")
        return Refusal((Right(permission, resource(call.bucket, None if of_bucket else call.key)),), True)
    return Refusal(needed(call), False)


def roles(rights: tuple[Right, ...]) -> str:
    """The roles that have such permissions, for people."""
    found = list(dict.fromkeys(ROLES[right.permission] for right in rights if right.permission in ROLES))
    if "roles/storage.objectUser" in found:  # which may read and list too
        found = [role for role in found if role != "roles/storage.objectViewer"]
    return " and ".join(found)
