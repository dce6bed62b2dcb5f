"""The S3 backend: ``s3://bucket/prefix``.

Not every service that speaks S3 has conditional writes: that is tried once, on an object of our own, before the first
of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mfstore.backends.base import Backend, ObjectLock
from mfstore.backends.buckets import BucketBackend
from mfstore.backends.s3.conditions import Conditions
from mfstore.backends.s3.locks import default_retention, lock_in
from mfstore.errors import AccessDenied, Conflict, NotFound, Unsupported
from mfstore.s3.aws.settings import KEY_OPTIONS
from mfstore.s3.calls import Options, shared_options
from mfstore.s3.encryption import parameters_of
from mfstore.s3.transfers.metadata import ConfigurationJob, RetentionJob
from mfstore.s3.urls import is_directory_bucket
from mfstore.settings import EncryptionKnobs, resolve_encryption

if TYPE_CHECKING:
    from typing_extensions import Buffer

LIFECYCLE = "GetBucketLifecycleConfiguration"
VERSIONING = "GetBucketVersioning"
OBJECT_LOCK = "GetObjectLockConfiguration"


class S3Backend(BucketBackend):
    """Objects under a prefix of a bucket of S3. ``options`` are those of ``BulkClient``.

    With ``single_writer`` a service without conditional writes will do: they become "look, then write", which loses
    updates if two processes change one ref at the same time. Never use it with more than one writer.
    """

    def __init__(
        self, url: str, *, single_writer: bool = False, expire_days: float | None = None, **options: Any
    ) -> None:
        super().__init__(url, expire_days=expire_days, **options)
        self._in_directories = is_directory_bucket(self.bucket)
        self._single_writer = single_writer
        # Its own, as the client may be another's.
        encryption = resolve_encryption(*map(options.get, EncryptionKnobs._fields))
        self._put_options: Options = shared_options(parameters_of(encryption), self._transfers.options)
        self._conditions = Conditions(
            self._transfers, self._checksum, self._put_options, options.get("endpoint_url"), self.bucket, self._prefix
        )

    def _kept(self) -> dict[str, Any]:
        return {**super()._kept(), "single_writer": self._single_writer}

    def bare_options(self) -> dict[str, Any]:
        """The client's options without keys, and without passwords in URLs; ``withheld`` says what stayed behind."""
        connection = self.client.options.connection.without_secrets()
        options = {name: value for name, value in self._options.items() if name not in KEY_OPTIONS}
        for name in ("endpoint_url", "config"):
            if name in options:
                options[name] = getattr(connection, name)
        if connection.withheld:
            options["withheld"] = connection.withheld
        return options

    # ---- conditions -----------------------------------------------------------------

    def of_new(self) -> None:
        """Tries it once."""
        self._conditions.of_new()

    def of_match(self) -> Callable[[str], str]:
        """Tries it once."""
        return self._conditions.of_match()

    def of_delete(self) -> Callable[[str], str]:
        """Tries it once."""
        return self._conditions.of_delete()

    def put_if(self, key: str, data: Buffer, etag: str | None) -> str:
        if self._single_writer:
            return self._look_then_put(key, data, etag)
        return super().put_if(key, data, etag)

    def _look_then_put(self, key: str, data: Buffer, etag: str | None) -> str:
        try:
            current: str | None = self.head(key).etag
        except NotFound:
            current = None
        if current != etag:
            raise Conflict("the object changed since it was read", key=key, backend=self.url)
        self.put(key, [data])
        return self.head(key).etag

    def move_unchanged(self, source: str, target: str, etag: str, *, replace: bool = True) -> bool:
        kind = Backend if self._single_writer else BucketBackend  # one writer looks, and then writes
        return kind.move_unchanged(self, source, target, etag, replace=replace)

    # ---- what the bucket is set to --------------------------------------------------

    def lifecycle_rules(self) -> Sequence[dict[str, Any]] | None:
        try:
            job = ConfigurationJob(0, LIFECYCLE, self.bucket, LIFECYCLE)
            rules: list[dict[str, Any]] = self._transfers.one(job).data.get("Rules", [])
        except NotFound:
            return []
        return rules

    def versioning(self) -> str:
        return str(self._configuration(VERSIONING).get("Status", ""))

    def object_lock(self) -> str:
        return default_retention(self._configuration(OBJECT_LOCK))

    def _configuration(self, operation: str) -> Mapping[str, Any]:
        """What the bucket's configuration of a kind is; nothing where it has none, or the service no such kind."""
        try:
            found: Mapping[str, Any] = self._transfers.one(ConfigurationJob(0, operation, self.bucket, operation)).data
        except AccessDenied as error:
            self._relocate(error)
            raise
        except (NotFound, Unsupported):
            return {}
        return found

    def locks(self, keys: Sequence[str]) -> dict[str, ObjectLock]:
        found = self._locks_in(self._heads(keys), lambda outcome: lock_in(outcome.headers))
        if keys and not found:
            # Who may not see locks is shown none: only who asks for one is told that he may not.
            (outcome,) = self._transfers.run(iter((RetentionJob(0, keys[0], self.bucket, self._name(keys[0])),)))
            if isinstance(outcome.error, AccessDenied):
                raise self._located(outcome.error, keys[0])
        return found

    @property
    def conditions(self) -> Conditions:
        """What the bucket's service does about conditions."""
        return self._conditions
