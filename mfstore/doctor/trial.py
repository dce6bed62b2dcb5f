"""Whether a place in S3 can be used: what a store does, done there once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mfstore.doctor.findings import Finding
from mfstore.errors import AccessDenied, MfstoreError

if TYPE_CHECKING:
    from mfstore.s3.bulk.client import BulkClient

BODY = b"mfstore doctor was here; this object may be deleted\n"
PERMISSIONS = {
    "list": "s3:ListBucket on the bucket",
    "put": "s3:PutObject, and kms:GenerateDataKey where the bucket has a key of KMS",
    "get": "s3:GetObject, and kms:Decrypt where the bucket has a key of KMS",
    "delete": "s3:DeleteObject",
}
"""What AWS calls the right to do it."""


def tried(url: str, **reached: Any) -> Iterator[Finding]:
    """List, put, get, read a range and delete, below ``url``, with a name that nobody has. Nothing stays, unless
    deletion is refused. ``reached`` are arguments of ``BulkClient``."""
    from mfstore.s3.bulk.client import BulkClient
    from mfstore.s3.urls import split_url

    bucket, prefix = split_url(url)
    key = f"{prefix.rstrip('/')}/mfstore-doctor-{os.urandom(8).hex()}".lstrip("/")
    with BulkClient(bucket, attempts=3, **reached) as client:
        yield _step("list", url, lambda: _list(client, key))
        put = _step("put", key, lambda: client.put_many({key: BODY}).wait())
        yield put
        if put.state != "fine":
            return
        yield _step("get", key, lambda: _get(client, key))
        delete = _step("delete", key, lambda: client.delete_many([key]).wait())
        yield delete if delete.state == "fine" else delete._replace(text=f"{delete.text}; {key} stays")


def _list(client: BulkClient, key: str) -> None:
    for _ in client.list(key):
        break


def _get(client: BulkClient, key: str) -> None:
    for outcome in client.get_many([key, (key, 8, 6)]):
        expected = BODY if outcome.index == 0 else BODY[8:14]
        if bytes(outcome.data) != expected:
            raise MfstoreError("other bytes came back than were put", found=f"{bytes(outcome.data)[:80]!r}")


def _step(name: str, what: str, run: Callable[[], object]) -> Finding:
    begin = perf_counter()
    try:
        run()
    except MfstoreError as error:
        hint = error.hint or ""
        if isinstance(error, AccessDenied):
            hint = f"The credentials need {PERMISSIONS[name]}. {hint}".rstrip()
        error.hint = None  # which has a line of its own
        return Finding(f"S3 {name}", str(error), "broken", hint)
    return Finding(f"S3 {name}", f"{what}, {1000 * (perf_counter() - begin):.0f} ms")
