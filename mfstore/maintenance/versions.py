"""What stays in a bucket of what a collection deletes: versions, and what locks them; and the lifecycle rule that
removes them in time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mfstore.display.amounts import count, size
from mfstore.errors import AccessDenied, MfstoreError

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

ON = "Enabled"
SUSPENDED = "Suspended"
UNKNOWN = "unknown"
OF_BUCKETS = {
    "gs": "storage.buckets.get", "az": "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
}  # fmt: skip
"""By scheme, the right to see what a bucket keeps, where it is one: on Azure it is seen in listings."""
RULE_DAYS = 7
"""Of the rule that is proposed: for so long what was deleted by mistake can be brought back."""


@dataclass(frozen=True, slots=True)
class VersionsKept:
    """What a bucket does with what is deleted in it."""

    state: str = ""
    """``Enabled`` or ``Suspended`` versioning, ``unknown`` where that may not be asked, or nothing: it is gone."""
    lock: str = ""
    """Of Object Lock: ``Enabled``, the default retention as ``COMPLIANCE for 30 days``, ``unknown``, or nothing."""
    removed_after: int | None = None
    """Days after which a lifecycle rule removes versions that are not current. None: no rule does, or the rules may not
    be read."""
    rules: str = ""
    """``unknown`` where the lifecycle rules may not be read."""
    prefix: str = ""
    """Where in the bucket this is."""
    scheme: str = "s3"
    """What URLs of the service begin with."""

    @property
    def locks_objects(self) -> bool:
        """Whether objects may be locked there, as far as is known."""
        return self.lock not in ("", UNKNOWN)

    @property
    def rule(self) -> Mapping[str, Any]:
        """The lifecycle rule that removes what stays, in the words of S3's PutBucketLifecycleConfiguration."""
        return {
            "ID": rule_id("versions-of", self.prefix),
            "Status": "Enabled",
            "Filter": {"Prefix": self.prefix},
            "NoncurrentVersionExpiration": {"NoncurrentDays": RULE_DAYS},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": RULE_DAYS},
        }

    def notes(self, deleted: int) -> list[str]:
        """What a person is told where so many bytes are deleted, in sentences; nothing where nothing stays."""
        if self.state == UNKNOWN:
            asked = "whether the bucket keeps versions of what is deleted may not be asked"
            return [f"{asked} ({self._right('s3:GetBucketVersioning')}): if it does, the bytes stay"]
        if not self.state:
            return []
        if self.state == SUSPENDED:
            first = "versioning is suspended: what was stored before that stays as noncurrent versions"
        else:
            first = f"the bucket keeps versions: {size(deleted)} at least of what goes stay as noncurrent versions"
        found = [first + self._until()]
        if self.lock == UNKNOWN:
            right = self._right("s3:GetBucketObjectLockConfiguration")
            found.append(f"whether Object Lock is on may not be asked ({right})")
        elif self.lock:
            default = "" if self.lock == ON else f" (by default {self.lock})"
            found.append(f"Object Lock is on{default}: a version that is locked stays until its lock ends")
        if self.removed_after is None and self.scheme != "s3":
            found.append("mfstore policy with --lifecycle prints a rule that removes them")
        elif self.removed_after is None:
            found.append(
                "this rule removes them; add it to the rules there are, since aws s3api "
                f"put-bucket-lifecycle-configuration replaces all: {json.dumps(self.rule)}"
            )
        return found

    def _until(self) -> str:
        if self.removed_after is not None:
            return f", which a lifecycle rule removes {count(self.removed_after, 'day')} later"
        if self.rules == UNKNOWN:
            return f", and the lifecycle rules may not be read ({self._right('s3:GetLifecycleConfiguration')})"
        return ", and no lifecycle rule removes them"

    def _right(self, of_s3: str) -> str:
        """The right that is missing, as its service calls it."""
        return OF_BUCKETS.get(self.scheme, of_s3)


def rule_id(purpose: str, prefix: str) -> str:
    """The name of a rule that is proposed for what lies below a prefix: S3 takes 255 characters."""
    return f"{purpose}-{prefix.strip('/').replace('/', '-') or 'the-bucket'}"[:255]


def read_versions(backend: Backend) -> VersionsKept:
    """What the bucket of a backend does with what is deleted there: by one request, or three where it keeps versions.
    What may not be asked is told as unknown."""
    scheme = backend.url.partition("://")[0]
    state = _asked(backend.versioning)
    if not state:
        return VersionsKept(prefix=backend.prefix, scheme=scheme)
    lock = _asked(backend.object_lock)
    try:
        rules: Sequence[Mapping[str, Any]] | None = backend.lifecycle_rules()
    except MfstoreError as error:
        unknown = UNKNOWN if isinstance(error, AccessDenied) else ""
        return VersionsKept(state, lock, rules=unknown, prefix=backend.prefix, scheme=scheme)
    return VersionsKept(state, lock, removed_after(rules or (), backend.prefix), prefix=backend.prefix, scheme=scheme)


def _asked(ask: Any) -> str:
    try:
        return str(ask())
    except AccessDenied:
        return UNKNOWN
    except MfstoreError:
        return ""  # a service without it says so in many ways


def removed_after(rules: Sequence[Mapping[str, Any]], prefix: str) -> int | None:
    """Days after which one of these lifecycle rules removes every version below a prefix that is not current; None when
    none does. Pure."""
    found: list[int] = []
    for rule in rules:
        where = rule.get("Filter") or {}
        narrowed = {*where} - {"Prefix"}
        scope = rule.get("Prefix") or where.get("Prefix") or ""
        expiration = rule.get("NoncurrentVersionExpiration") or {}
        days = expiration.get("NoncurrentDays")
        covers = rule.get("Status") == "Enabled" and not narrowed and prefix.startswith(scope)
        # Versions that it keeps by number stay.
        if covers and days is not None and not expiration.get("NewerNoncurrentVersions"):
            found.append(int(days))
    return min(found, default=None)
