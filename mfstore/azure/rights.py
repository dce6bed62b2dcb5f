"""Which roles and permissions each operation needs in Azure, and what mfstore does with them: by it a refusal names the
role that is missing. Pure.

Roles are those of Azure's role-based access control for data; permissions are the letters of shared access signatures.
"""

from __future__ import annotations

from collections.abc import Mapping

from mfstore.records import NamedTuple
from mfstore.s3.aws.rights import Right
from mfstore.s3.calls import Call

READER = "Storage Blob Data Reader"
CONTRIBUTOR = "Storage Blob Data Contributor"
BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/"
CONTAINERS = "Microsoft.Storage/storageAccounts/blobServices/containers/"
PERMISSIONS = {
    "r": "read", "w": "write", "c": "create", "a": "add", "d": "delete", "l": "list",
}  # fmt: skip
"""By their letter in a shared access signature (``sp=``): those that are used."""


class Needs(NamedTuple):
    """What whoever makes a request has to be allowed."""

    role: str
    """The least of the built-in roles that allows it."""
    action: str
    """The data action that a role of one's own needs."""
    letters: str
    """What a shared access signature must have in its ``sp``."""
    use: str
    """What mfstore needs it for."""


_READ = Needs(READER, BLOBS + "read", "r", "to load, to verify, and to ask for a blob's size")
_LIST = Needs(READER, BLOBS + "read", "l", "to list")
_WRITE = Needs(CONTRIBUTOR, BLOBS + "write", "cw", "to save, to set refs, to condemn")
_DELETE = Needs(CONTRIBUTOR, BLOBS + "delete", "d", "to collect garbage, and to remove refs")
_CONTAINER = Needs(READER, CONTAINERS + "read", "r", "to find out whether the container is there")
OPERATIONS: Mapping[str, Needs] = {
    "GetObject": _READ,
    "HeadObject": _READ,
    "ListObjectsV2": _LIST,
    "GetBucketVersioning": _LIST,
    "HeadBucket": _CONTAINER,
    "GetAccountInformation": _CONTAINER,
    "PutObject": _WRITE,
    "CreateMultipartUpload": _WRITE,
    "UploadPart": _WRITE,
    "UploadPartCopy": _WRITE,
    "CompleteMultipartUpload": _WRITE,
    "AbortMultipartUpload": _READ,
    "CopyObject": _WRITE,
    "DeleteObject": _DELETE,
}
"""By operation, as S3 calls it."""


def needed(call: Call, account: str) -> tuple[Right, ...]:
    """The data actions that a request needs, on the container, as ids of resources name it."""
    found = OPERATIONS.get(call.operation)
    if found is None:
        return ()
    resource = f"/blobServices/default/containers/{call.bucket}"
    return (Right(found.action, f"storageAccounts/{account}{resource}" if account else resource),)


def role_hint(call: Call, account: str) -> str:
    """What to do for a request that no role allows."""
    needs = OPERATIONS.get(call.operation, _READ)
    return (
        f"Assign the role {needs.role} on the container {call.bucket} of the account {account} to whoever asks (after "
        "that it takes up to ten minutes); Owner and Contributor allow nothing of data"
    )  # fmt: skip


def permission_hint(call: Call) -> str:
    """What to do for a request that a shared access signature does not allow."""
    letters = OPERATIONS.get(call.operation, _READ).letters
    words = " and ".join(f"{PERMISSIONS[letter]} ({letter})" for letter in letters)
    return f"The shared access signature (sp=) must allow {words}, for blobs of the container"
