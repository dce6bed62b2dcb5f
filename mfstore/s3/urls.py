"""What an S3 URL says. A module of its own: it takes no time to import, and more needs it than sends anything."""

from __future__ import annotations

from mfstore.errors import InvalidKey


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``; the key may be empty. InvalidKey when there is no bucket."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if bucket.startswith("arn:"):
        # arn:aws:s3:region:account:accesspoint/name/key: the name belongs to the bucket
        name, _, rest = key.partition("/")
        bucket, key = f"{bucket}/{name}", rest
    if not bucket:
        raise InvalidKey("an S3 URL is s3://bucket/key", found=repr(url))
    return bucket, key
