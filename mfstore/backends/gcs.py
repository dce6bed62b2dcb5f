"""The backend in Google Cloud Storage: ``gs://bucket/prefix``.

Writes and deletions take the generation that they are to replace or remove, so that nothing has to be tried first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mfstore.backends.base import ObjectLock
from mfstore.backends.buckets import BucketBackend
from mfstore.backends.s3.locks import default_retention
from mfstore.errors import MfstoreError
from mfstore.s3.transfers.jobs import jobs_of
from mfstore.s3.transfers.metadata import ConfigurationJob, RetentionJob

SECRETS = ("token", "credentials")


class GcsBackend(BucketBackend):
    """Objects under a prefix of a bucket of Google Cloud Storage. ``options`` are those of ``BulkClient``."""

    def bare_options(self) -> dict[str, Any]:
        """The client's options, without what is secret."""
        settings = self.client.options.connection.without_secrets()
        options = {name: value for name, value in self._options.items() if name not in SECRETS}
        for name in ("endpoint_url", "token", "withheld"):
            if value := getattr(settings, name):
                options[name] = value
        return options

    # ---- what the bucket is set to --------------------------------------------------

    def lifecycle_rules(self) -> Sequence[dict[str, Any]] | None:
        rules: list[dict[str, Any]] = self._configuration("GetBucketLifecycleConfiguration")["Rules"]
        return rules

    def versioning(self) -> str:
        return str(self._configuration("GetBucketVersioning").get("Status", ""))

    def object_lock(self) -> str:
        return default_retention(self._configuration("GetObjectLockConfiguration"))

    def _configuration(self, operation: str) -> Mapping[str, Any]:
        """What the bucket's configuration of a kind is."""
        try:
            found: Mapping[str, Any] = self._transfers.one(ConfigurationJob(0, operation, self.bucket, operation)).data
        except MfstoreError as error:
            self._relocate(error)
            raise
        return found

    def locks(self, keys: Sequence[str]) -> dict[str, ObjectLock]:
        jobs = jobs_of(keys, lambda index, key: RetentionJob(index, key, self.bucket, self._name(key)))
        outcomes = list(self._transfers.run(jobs, ordered=True))
        return self._locks_in(outcomes, lambda outcome: lock_in(outcome.data))


def lock_in(said: Mapping[str, Any]) -> ObjectLock:
    """What an object's description says of holds and retention: the bucket's, and its own. Pure."""
    own = said.get("retention") or {}
    until = [
        moment
        for text in (said.get("retentionExpirationTime"), own.get("retainUntilTime"))
        if (moment := _seconds(text))
    ]
    mode = ""
    if until:
        mode = "GOVERNANCE" if own.get("mode") == "Unlocked" and len(until) == 1 else "COMPLIANCE"
    return ObjectLock(mode, max(until, default=None), bool(said.get("temporaryHold") or said.get("eventBasedHold")))


def _seconds(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp() if text else None
    except ValueError:
        return None
