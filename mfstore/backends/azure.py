"""The Azure backend: ``az://container/prefix``, or ``abfss://container@account.dfs.core.windows.net/prefix``."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from mfstore.azure.settings import SECRETS
from mfstore.azure.urls import check_key, locate
from mfstore.backends.base import ObjectLock
from mfstore.backends.buckets import BucketBackend
from mfstore.errors import AccessDenied, Conflict, InvalidKey, MfstoreError, NotFound, Unsupported
from mfstore.s3.calls import NO_OPTIONS, Call
from mfstore.s3.service import AZURE
from mfstore.s3.transfers.uploads import WRITE_ID, SingleCallJob

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mfstore.backends.base import Answers, ObjectInfo
    from mfstore.backends.ranges import KeyRange

VERSIONING = "GetBucketVersioning"
ACCOUNT = "GetAccountInformation"
TARGET_IS_THERE = ("BlobAlreadyExists", "TargetConditionNotMet", "ConditionNotMet")
MODES = {"locked": "COMPLIANCE", "unlocked": "GOVERNANCE"}
"""Modes of an immutability policy, by S3's names: the first nobody can shorten, the second who may change policies."""


class AzureBackend(BucketBackend):
    """Blobs under a prefix of a container. ``options`` are those of ``BulkClient``.

    Conditions of writes and deletions are Azure's own (If-Match, If-None-Match), in all accounts.
    """

    def __init__(self, url: str, *, expire_days: float | None = None, **options: Any) -> None:
        where = locate(url)
        if where.account:
            # Our own URL names the container alone: what this one says besides becomes options.
            if options.setdefault("account_name", where.account) != where.account:
                raise InvalidKey(
                    "the URL names another account than account_name=", expected=options["account_name"],
                    found=where.account,
                )  # fmt: skip
            if where.endpoint and not options.get("endpoint_url"):
                options["endpoint_url"] = where.endpoint
        super().__init__(f"az://{where.container}/{where.key}", expire_days=expire_days, **options)
        self._flat: bool | None = None
        """Whether listings come in the order of keys; None: not asked yet."""

    def bare_options(self) -> dict[str, Any]:
        """See ``BucketBackend``."""
        bare = self.client.options.connection.without_secrets()
        options = {name: value for name, value in self._options.items() if name not in SECRETS}
        for name in ("account_name", "endpoint_url", "withheld"):
            if value := getattr(bare, name):
                options[name] = value
        return options

    def list_ranges(self, ranges: Sequence[KeyRange]) -> Iterator[ObjectInfo]:
        """See ``BucketBackend``; in accounts with a hierarchical namespace each prefix is listed whole."""
        if self._in_order():
            yield from super().list_ranges(ranges)
            return
        wanted: dict[str, list[KeyRange]] = {}
        for one in ranges:
            wanted.setdefault(one.prefix, []).append(one)
        for prefix, parts in wanted.items():
            for info in self.list(prefix):
                if any(part.holds(info.key) for part in parts):
                    yield info

    def _in_order(self) -> bool:
        """Whether listings come in the order of keys. In an account with a hierarchical namespace they come folder by
        folder, where ``a/b`` is before ``a-b``: a listing that was cut by keys would miss some."""
        if self._flat is None:
            try:
                found = self._transfers.one(SingleCallJob(Call(ACCOUNT, self.bucket))).data
                self._flat = found.get("HierarchicalNamespace") is False
            except (AccessDenied, NotFound, Unsupported):
                self._flat = False  # it may not be asked: then better not relied on
            except MfstoreError as error:
                self._relocate(error)
                raise
        return self._flat

    def move_unchanged(self, source: str, target: str, etag: str, *, replace: bool = True) -> bool:
        found = self._one(source, self._head(0, source))
        if found.etag != etag:
            return False
        if found.size > (AZURE.largest_copy or 0):
            return super().move_unchanged(source, target, etag, replace=replace)
        # One copy inside the service: of this version alone, and, if need be, only where there is nothing yet.
        said = {"CopySource": {"Bucket": self.bucket, "Key": self._name(source)}, "CopySourceIfMatch": etag}
        write = uuid.uuid4().hex
        if not replace:
            said |= {"MetadataDirective": "REPLACE", "Metadata": {**found.metadata, WRITE_ID: write}}
        call = Call("CopyObject", self.bucket, self._name(target), self._put_options, said, if_none_match=not replace)
        try:
            self._transfers.one(SingleCallJob(call))
        except Unsupported:
            return super().move_unchanged(source, target, etag, replace=replace)
        except Conflict as error:
            if replace or error.service_code not in TARGET_IS_THERE:
                return False
            # It may be our own copy, whose answer was lost.
            if self._one(target, self._head(0, target)).metadata.get(WRITE_ID) != write:
                raise self._located(error, target) from None
        except MfstoreError as error:
            raise self._located(error, source) from None
        if all(self.delete_unchanged({source: etag})):
            return True
        self.delete(target)
        return False

    def _name(self, key: str) -> str:
        name = super()._name(key)
        try:
            check_key(name)
        except InvalidKey as error:
            raise self._located(error, key) from None
        return name

    def delete_unchanged(self, objects: Mapping[str, str]) -> Answers:
        answers = super().delete_unchanged(objects)
        # A condition on what is not there may be answered like one that is not met.
        changed = [key for key, gone in zip(objects, answers, strict=True) if not gone]
        there = dict(zip(changed, self.exists_many(changed), strict=True)) if changed else {}
        return [not there.get(key, False) for key in objects]

    def versioning(self) -> str:
        # Of a blob of this store: a role may be limited to its prefix.
        call = Call(VERSIONING, self.bucket, None, NO_OPTIONS, {"Prefix": self._prefix})
        try:
            return str(self._transfers.one(SingleCallJob(call)).data.get("Status", ""))
        except (NotFound, Unsupported):
            return ""
        except MfstoreError as error:
            if error.status in (400, 409):
                return ""  # as of an account with a hierarchical namespace, which has no versions
            self._relocate(error)
            raise

    def _kept_by(self, error: AccessDenied) -> str:
        return error.reason

    def locks(self, keys: Sequence[str]) -> dict[str, ObjectLock]:
        return self._locks_in(self._heads(keys), lambda outcome: lock_in(outcome.headers))


def lock_in(headers: Mapping[str, str]) -> ObjectLock:
    """The lock that the properties of a blob tell. Pure."""
    mode = MODES.get(headers.get("x-ms-immutability-policy-mode", "").lower(), "")
    until = None
    try:
        moment = parsedate_to_datetime(headers.get("x-ms-immutability-policy-until-date", ""))
        until = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError):
        mode = ""
    return ObjectLock(mode, until, headers.get("x-ms-legal-hold", "").lower() == "true")
