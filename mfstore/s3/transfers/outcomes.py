"""What became of each item of a bulk operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from mfstore.errors import MfstoreError
from mfstore.s3.urls import bucket_url


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
        return bucket_url(self.bucket, self.key)


def abandoning(error: MfstoreError, done: int) -> MfstoreError:
    """The error that ends an operation, with a note on what was done of it."""
    error.add_note(f"{done} items had succeeded before; the rest was not finished")
    return error


@dataclass(slots=True, eq=False, repr=False)
class Outcome:
    """One item's result. Fields that do not apply are None."""

    index: int
    """Position among the items given."""
    item: Any
    """The item as it was given."""
    bucket: str
    key: str
    _: KW_ONLY
    data: Any = None
    """Of a get into memory: the bytes, ``bytes`` or a memoryview, which are the caller's from now on."""
    path: str | None = None
    """Of a get into files: the file."""
    size: int = 0
    """Bytes that were moved; of a head the object's."""
    etag: str | None = None
    """Without quotes; None where the service did not say."""
    error: MfstoreError | None = None
    """Set if and only if the item failed."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the (first) response, names in lower case."""
    attempts: int = 1
    """Tries of the request that needed most of them."""
    seconds: float = 0.0
    """From the first try to the end."""
    first_byte: float = 0.0
    """Seconds from the last try to its first byte."""
    last: bool = True
    """False when more outcomes of the same item follow: pages of a listing."""
    memory: int = 0
    """Internal: bytes it counts for while it waits to be handed out."""

    @property
    def ok(self) -> bool:
        """Whether the item succeeded."""
        return self.error is None

    @property
    def url(self) -> str:
        """``s3://bucket/key``."""
        return bucket_url(self.bucket, self.key)

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
