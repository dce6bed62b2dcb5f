"""URLs by which anybody gets an object of S3 for a while."""

from __future__ import annotations

import time
import warnings
from datetime import timedelta
from typing import TYPE_CHECKING

from mfstore import durations
from mfstore.errors import InvalidKey, MfstoreWarning, Unsupported
from mfstore.exporting.formats import SUFFIXES, fitting
from mfstore.exporting.targets import client_beside
from mfstore.s3.urls import Bucket, is_directory_bucket, split_url

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.views.view import View

LONGEST = 7 * 86400
"""Seconds that a signature of version 4 may last."""


def presign(backend: Backend, url: str, expires: float | str | timedelta) -> str:
    """The URL of an object, which is looked for first."""
    seconds = _seconds(expires)
    bucket, key = split_url(url)
    if isinstance(bucket, Bucket):
        raise Unsupported(
            "only objects of S3 are presigned", found=url,
            hint="az storage blob generate-sas and gcloud storage sign-url make such URLs",
        )  # fmt: skip
    if not key:
        raise InvalidKey("a URL is presigned of one object", found=url)
    if is_directory_bucket(bucket):
        raise Unsupported(
            "URLs of a directory bucket end with its session, after five minutes", found=url,
            hint="Export to a general purpose bucket",
        )  # fmt: skip
    from mfstore.s3.aws.presigning import presigned

    with client_beside(backend, bucket) as client:
        list(client.head_many([key]))  # whether there is such an object, and in which region
        found, ends = presigned(client.transfers.control, bucket, key, seconds)
    if ends is not None and ends < time.time() + seconds:
        warnings.warn(
            f"the URL ends with the credentials that it was signed with, in {(ends - time.time()) / 60:.0f} minutes "
            f"and not in {seconds / 60:.0f}: sign with an access key of a user for one that lasts",
            MfstoreWarning, stacklevel=3,
        )  # fmt: skip
    return found


def _seconds(expires: float | str | timedelta) -> int:
    if isinstance(expires, str):
        found = durations.seconds(expires)
    else:
        found = expires.total_seconds() if isinstance(expires, timedelta) else float(expires)
    if not 1 <= found <= LONGEST:
        raise InvalidKey("a URL lasts from one second to seven days", found=f"{expires!r:.40}")
    return int(found)


def no_object(view: View, name: str) -> Unsupported:
    """What is said of a key: no object of S3 holds these bytes and no others."""
    suffix = next(end for end, called in SUFFIXES.items() if called == fitting(view)[0])
    place = f"s3://BUCKET/exports/{name.rpartition('/')[2].partition('@')[0]}{suffix}"
    return Unsupported(
        "what is stored lies in packs, with other things, so that no URL gives it alone", key=view.key,
        hint=f"Export it (mfstore export), and presign that: store.presign(store.export({name!r}, {place!r}))",
    )  # fmt: skip
