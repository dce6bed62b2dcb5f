"""What ``mfstore:///path/of/store!/models/churn`` says: which store, and which path in it. Nobody is asked."""

from __future__ import annotations

import re

from mfstore.backends import file_path
from mfstore.records import NamedTuple

PROTOCOLS = ("mfstore", "mfstore+s3")
"""The first names a store by its path or URL, the second one in a bucket."""
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
    return Place(f"s3://{store}" if scheme == "mfstore+s3" else store, path.strip("/"))


def of_path(store: str, path: str) -> str:
    """The URL of a path in the store with this absolute path or URL."""
    scheme, rest = ("mfstore+s3", store[5:]) if store.startswith("s3://") else ("mfstore", store)
    if rest.startswith("file://"):
        rest = file_path(rest)
    return f"{scheme}://{rest.rstrip('/')}!/{path.strip('/')}"
