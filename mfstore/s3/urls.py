"""What a URL of an object says. A module of its own: it takes no time to import, and more needs it than sends
anything."""

from __future__ import annotations

from collections.abc import Mapping

from mfstore.errors import InvalidKey


class Bucket(str):
    """The name of a bucket that is not S3's."""

    __slots__ = ()
    scheme = "s3"


class AzureContainer(Bucket):
    """A container of Azure's Blob Storage. One of the same name in another account is another."""

    scheme = "az"
    account = ""
    """That the URL names; empty where it does not."""

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) and (not isinstance(other, AzureContainer) or self.account == other.account)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


class GcsBucket(Bucket):
    """A bucket of Google Cloud Storage."""

    __slots__ = ()
    scheme = "gs"


SCHEMES: Mapping[str, type[str]] = {"s3": str, "az": AzureContainer, "abfss": AzureContainer, "gs": GcsBucket}
"""What URLs of objects begin with, and what their buckets are."""


def scheme_of(bucket: str) -> str:
    """What the URLs of a bucket's objects begin with."""
    return bucket.scheme if isinstance(bucket, Bucket) else "s3"


def bucket_url(bucket: str, key: str | None = None) -> str:
    """The URL of a bucket, or of an object in it."""
    return f"{scheme_of(bucket)}://{bucket}" if key is None else f"{scheme_of(bucket)}://{bucket}/{key}"


def is_url(text: str, bucket: str | None) -> bool:
    """Whether a client of ``bucket`` takes ``text`` for a URL, and not for a key."""
    if bucket is None or not isinstance(bucket, Bucket):
        return text.startswith("s3://")
    return names_object(text)


def bucket_of(place: str) -> str:
    """The bucket that its name or a URL means."""
    return split_url(place)[0] if names_object(place) else place


def names_object(text: str) -> bool:
    """Whether a path or URL is a URL of what lies in a bucket."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme in SCHEMES


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``, ``az://container/key``, ``abfss://container@account…/key`` or
    ``gs://bucket/key``; the key may be empty. InvalidKey when there is no bucket."""
    scheme, separator, rest = url.partition("://")
    if separator and scheme != "s3" and scheme in SCHEMES:
        bucket, _, key = rest.partition("/")
        bucket, _, host = bucket.partition("@") if scheme == "abfss" else (bucket, "", "")
        if not bucket:
            raise InvalidKey(
                "a URL of an object names its bucket: az://container/key, gs://bucket/key", found=repr(url)
            )
        found = SCHEMES[scheme](bucket)
        if isinstance(found, AzureContainer):
            found.account = host.partition(".")[0]
        return found, key
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if bucket.startswith("arn:"):
        bucket, key = _split_arn(url.removeprefix("s3://"))
    if not bucket:
        raise InvalidKey("an S3 URL is s3://bucket/key", found=repr(url))
    return bucket, key


def _split_arn(text: str) -> tuple[str, str]:
    """``arn:aws:s3:region:account:accesspoint/name/key`` and its kind: the name belongs to the bucket. Of an outpost
    that is ``outpost/id/accesspoint/name``, and each ``/`` of a name may be a ``:``."""
    import re

    found = re.match(r"((?:[^:/]*:){5}(?:outpost[:/][^:/]+[:/])?[^:/]+[:/][^:/]+)/?(.*)", text, re.DOTALL)
    if found is None:
        bucket, _, key = text.partition("/")
        return bucket, key
    return found[1], found[2]


def on_loopback(endpoint: str | None) -> bool:
    """Whether an endpoint is on this machine, by its name."""
    from urllib.parse import urlsplit

    host = urlsplit(endpoint or "").hostname or ""
    return host == "localhost" or host.startswith("127.") or host == "::1"


def is_directory_bucket(bucket: str) -> bool:
    """Whether it is one of S3 Express: it lists keys in no order, and knows no prefixes but those that end in ``/``. By
    its name, or that of an access point of it."""
    return bucket.endswith(("--x-s3", "--xa-s3"))
