"""What became of each item, and of a bulk operation as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from mfstore.errors import MfstoreError

_NOTHING: Mapping[str, str] = {}


class ListingEntry(NamedTuple):
    """One line of a listing."""

    bucket: str
    key: str
    """Of a prefix: the prefix, with its trailing slash."""
    size: int
    modified: float | None
    """Seconds since the epoch, on the service's clock."""
    etag: str | None
    storage_class: str | None
    is_prefix: bool
    """A common prefix of a listing that is not recursive, not an object."""

    @property
    def url(self) -> str:
        """``s3://bucket/key``."""
        return f"s3://{self.bucket}/{self.key}"


class Outcome:
    """One item's result. Fields that do not apply are None.

    ``data`` is ``bytes`` of a get into memory; ``path`` the file of a get into files; ``error`` is set if and only if
    the item failed. ``size`` counts the bytes that were moved, or of a head the object's.
    """

    __slots__ = (
        "attempts", "bucket", "data", "error", "etag", "first_byte", "headers", "index", "item", "key", "last", "path",
        "seconds", "size",
    )  # fmt: skip

    def __init__(
        self, index: int, item: Any, bucket: str, key: str, *, data: Any = None, path: str | None = None, size: int = 0,
        etag: str | None = None, error: MfstoreError | None = None, headers: Mapping[str, str] = _NOTHING,
        attempts: int = 1,
        seconds: float = 0.0, first_byte: float = 0.0, last: bool = True,
    ) -> None:  # fmt: skip
        self.index = index
        """Position among the items given."""
        self.item = item
        """The item as it was given."""
        self.bucket = bucket
        self.key = key
        self.data = data
        self.path = path
        self.size = size
        self.etag = etag
        """Without quotes; None where the service did not say."""
        self.error = error
        self.headers = headers
        """Of the (first) response, names in lower case."""
        self.attempts = attempts
        self.last = last
        """False when more outcomes of the same item follow: pages of a listing."""
        self.seconds = seconds
        """From the first try to the end."""
        self.first_byte = first_byte
        """Seconds from the last try to its first byte."""

    @property
    def ok(self) -> bool:
        """Whether the item succeeded."""
        return self.error is None

    @property
    def url(self) -> str:
        """``s3://bucket/key``."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def request_id(self) -> str | None:
        """What support asks for."""
        return self.headers.get("x-amz-request-id") or getattr(self.error, "request_id", None)

    @property
    def metadata(self) -> dict[str, str]:
        """The user metadata, names in lower case and without ``x-amz-meta-``."""
        start = len("x-amz-meta-")
        return {name[start:]: value for name, value in self.headers.items() if name.startswith("x-amz-meta-")}

    @property
    def content_type(self) -> str | None:
        """The Content-Type the object was stored with."""
        return self.headers.get("content-type")

    @property
    def encryption(self) -> str | None:
        """The server-side encryption: ``AES256``, ``aws:kms``, …"""
        return self.headers.get("x-amz-server-side-encryption")

    @property
    def modified(self) -> float | None:
        """Last-Modified, seconds since the epoch."""
        text = self.headers.get("last-modified")
        if text is None:
            return None
        try:
            return parsedate_to_datetime(text).timestamp()
        except (ValueError, TypeError):
            return None

    @property
    def object_size(self) -> int | None:
        """Bytes of the whole object, also when only a range of it was fetched."""
        whole = self.headers.get("content-range", "").rpartition("/")[2]
        text = whole if whole.isdigit() else self.headers.get("content-length", "")
        return int(text) if text.isdigit() else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: everything but the data."""
        return {
            "key": self.key, "bucket": self.bucket, "size": self.size, "etag": self.etag, "path": self.path,
            "attempts": self.attempts, "seconds": round(self.seconds, 6), "first_byte": round(self.first_byte, 6),
            "request_id": self.request_id, "error": None if self.error is None else str(self.error),
            "error_code": None if self.error is None else self.error.code,
        }  # fmt: skip

    def __repr__(self) -> str:
        state = f"{self.size} bytes" if self.error is None else f"{type(self.error).__name__}: {self.error}"
        return f"<Outcome {self.url}: {state}>"


@dataclass(slots=True)
class BulkStats:
    """What a bulk operation did, so far."""

    engine: str
    operation: str
    items: int = 0
    failed: int = 0
    bytes: int = 0
    requests: int = 0
    retries: int = 0
    throttled: int = 0
    hedged: int = 0
    verified: int = 0
    """Bytes whose checksum the service gave and we compared."""
    verify_failures: int = 0
    seconds: float = 0.0
    concurrency: int = 0
    """Most calls in flight at once."""
    memory: int = 0
    """Most bytes reserved for results at once."""
    latencies: list[float] = field(default_factory=list)
    """Seconds per successful item: all of them up to ``SAMPLE``, then every ``stride``-th."""
    slowest: list[tuple[float, str]] = field(default_factory=list)
    stride: int = 1

    SAMPLE = 4096

    def add(self, outcome: Outcome) -> None:
        """Count one item."""
        self.items += 1
        if outcome.error is not None:
            self.failed += 1
            return
        self.bytes += outcome.size
        seconds = outcome.seconds
        if self.items % self.stride == 0:
            self.latencies.append(seconds)
            if len(self.latencies) >= 2 * self.SAMPLE:
                del self.latencies[::2]
                self.stride *= 2
        if len(self.slowest) < 5 or seconds > self.slowest[-1][0]:
            self.slowest.append((seconds, outcome.key))
            self.slowest.sort(reverse=True)
            del self.slowest[5:]

    @property
    def speed(self) -> float:
        """Bytes per second."""
        return self.bytes / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float:
        """Seconds within which ``share`` (0 to 1) of the successful items ended; 0.0 without any."""
        if not self.latencies:
            return 0.0
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = (
            "engine", "operation", "items", "failed", "bytes", "requests", "retries", "throttled", "hedged", "verified",
            "verify_failures", "seconds", "concurrency", "memory",
        )  # fmt: skip
        return {
            **{name: getattr(self, name) for name in names},
            "bytes_per_second": self.speed,
            "p50": self.percentile(0.5),
            "p90": self.percentile(0.9),
            "p99": self.percentile(0.99),
            "slowest": [{"key": key, "seconds": seconds} for seconds, key in self.slowest],
        }
