"""What an S3 URL says. A module of its own: it takes no time to import, and more needs it than sends anything."""

from __future__ import annotations

from mfstore.errors import InvalidKey


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``; the key may be empty. InvalidKey when there is no bucket."""
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
