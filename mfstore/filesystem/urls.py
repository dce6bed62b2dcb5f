"""What ``mfstore:///path/of/store!/models/churn`` says: which store, and which path in it. Nobody is asked."""

from __future__ import annotations

import re

from mfstore.backends import file_path
from mfstore.records import NamedTuple
from mfstore.s3.urls import SCHEMES

IN_BUCKETS = {f"mfstore+{scheme}": f"{scheme}://" for scheme in SCHEMES}
"""What names a store in a bucket, and how its URL begins."""
PROTOCOLS = ("mfstore", *IN_BUCKETS)
"""The first names a store by its path or URL."""
_WITHIN = re.compile("(.*?)!(?:/+(.*))?")
"""A store, and behind ``!/`` what is in it. An exclamation mark elsewhere is one of a name."""


class Place(NamedTuple):
    """A path in a store."""

    store: str | None
    """Path or URL of the store; None: the URL does not say."""
    path: str
    """In the store, without slashes around it."""


def parse(url: str) -> Place:
    """What a URL says; of a path without a protocol, the path.

    ``mfstore+s3://bucket/prefix`` and ``mfstore:///path`` without ``!`` are a store itself, and ``mfstore://name`` is a
    path in the store that somebody else names.
    """
    scheme, has_scheme, rest = url.partition("://")
    if not has_scheme or scheme not in PROTOCOLS:
        return Place(None, url.strip("/"))
    if found := _WITHIN.fullmatch(rest):
        store, path = found[1], found[2] or ""
    elif scheme != "mfstore" or rest.startswith("/") or "://" in rest:
        store, path = rest, ""
    else:
        return Place(None, rest.strip("/"))
    return Place(IN_BUCKETS.get(scheme, "") + store, path.strip("/"))


def of_path(store: str, path: str) -> str:
    """The URL of a path in the store with this absolute path or URL."""
    before, separator, rest = store.partition("://")
    scheme = f"mfstore+{before}" if separator and before in SCHEMES else "mfstore"
    if scheme == "mfstore":
        rest = store
    if rest.startswith("file://"):
        rest = file_path(rest)
    return f"{scheme}://{rest.rstrip('/')}!/{path.strip('/')}"
