"""What a path names: ``bucket/key``, with or without a protocol before it. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from mfstore.errors import InvalidKey
from mfstore.s3.urls import split_url

PROTOCOLS = ("s3", "s3a", "mfs3")
"""What URLs of this filesystem begin with; the first is what it writes itself."""
VERSION = "?versionId="
"""Stands between a key and a version of it, where the filesystem knows versions."""
ELSEWHERE = (
    "Objects in Azure and Google Cloud: BulkClient, adlfs, gcsfs. Names of a store there: "
    "mfstore+az://container/prefix!/, mfstore+gs://bucket/prefix!/"
)
_STARTS = tuple(f"{one}://" for one in PROTOCOLS)


class Location(NamedTuple):
    """What a path names. Bucket and key may be empty: all buckets, or a bucket."""

    bucket: str
    key: str
    version: str | None = None

    @property
    def url(self) -> str:
        """``s3://bucket/key``."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def directory(self) -> str:
        """What the keys below it begin with."""
        return f"{self.key}/" if self.key else ""


def bare(path: Any) -> str:
    """A path without protocol and slashes around it. InvalidKey, a ValueError, for a URL of something else."""
    text = path if isinstance(path, str) else _text_of(path)
    if text.startswith(_STARTS):
        text = text.partition("://")[2]
    elif "://" in text and "/" not in (scheme := text.partition("://")[0]):
        # No bucket has a colon in its name: asked of S3, it would be refused or absent, and nobody would know why.
        raise InvalidKey("this filesystem is that of S3", found=f"{scheme}://", hint=ELSEWHERE)
    return text.strip("/")


def _text_of(path: Any) -> str:
    from fsspec.utils import stringify_path

    return str(stringify_path(path))


def parent(path: str) -> str:
    """The directory that a bare path lies in."""
    return path.rpartition("/")[0]


def locate(path: Any, versions: bool = False) -> Location:
    """Bucket, key and, where ``versions`` are known, version. A slash at the end is no part of the key."""
    return exact(bare(path), versions)


def exact(text: str, versions: bool = False) -> Location:
    """The same of a name without protocol, whose slashes behind the bucket all are part of the key."""
    if not text:
        return Location("", "")
    version: str | None = None
    if versions and VERSION in text:
        text, _, version = text.partition(VERSION)
    if text.startswith("arn:"):
        bucket, key = split_url(text)
    else:
        bucket, _, key = text.partition("/")
    return Location(bucket, key, version or None)
