"""Where the packed profile's store is, and what ``data.json`` says of an artifact in it.

Its key is one of

* ``m1.`` and base64: the pickle itself. Such values cost no object and no request.
* 64 hexadecimal digits: the key the artifact would have in an mfstore store on its own, so that equal content has equal
  keys, which ``merge_artifacts`` compares.

The encoding is ``mfstore-1``, which a Metaflow without mfstore refuses by name, and for such a key a slash and the
bundle it lies in. Key and encoding are what Metaflow's metadata tells the client of an artifact: with both it need not
ask for ``data.json``.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from mfstore.records import NamedTuple

STORE_FOLDER = "mf.store"
"""Of the packed profile's store. No flow has a dot in its name, so Metaflow looks at it as little as at
``mf.cards``."""
ENCODING = "mfstore-1"
ANY_VERSION = "mfstore-"
"""Begins the encoding of what this or a later version packs."""
INLINE_PREFIX = "m1."
INLINE_PICKLE_BYTES = 150
"""Longest pickle that is its own key. Metaflow's metadata service keeps 255 characters of a key."""


class PackedArtifact(NamedTuple):
    """An artifact of the packed profile."""

    name: str
    key: str
    bundle: str | None
    """None when it lies in its key."""


def is_packed(info: Mapping[str, Any] | None) -> bool:
    """Whether an artifact with this info is one of the packed profile, as this version writes it."""
    return bool(info) and _parts(info)[0] == ENCODING  # type: ignore[arg-type]


def is_packed_by_any_version(info: Mapping[str, Any]) -> bool:
    """Whether an artifact with this info is one of the packed profile, perhaps of a later version: no blob."""
    return str(info.get("encoding", "")).startswith(ANY_VERSION)


def encoding_in(bundle: str | None) -> str:
    """The encoding of an artifact that lies in a bundle, or in its key."""
    return ENCODING if bundle is None else f"{ENCODING}/{bundle}"


def bundle_of(info: Mapping[str, Any]) -> str | None:
    """The bundle an artifact lies in; None when it lies in its key."""
    return _parts(info)[1] or None


def _parts(info: Mapping[str, Any]) -> tuple[str, str]:
    encoding, _, bundle = str(info.get("encoding")).partition("/")
    return encoding, bundle


def is_inline(key: str) -> bool:
    """Whether the pickle lies in the key."""
    return key.startswith(INLINE_PREFIX)


def inline_key(pickled: bytes) -> str:
    """The key of a value whose pickle is its own key."""
    return INLINE_PREFIX + urlsafe_b64encode(pickled).decode().rstrip("=")


def inline_pickle(key: str) -> bytes:
    """The pickle that lies in a key. ValueError when none does."""
    if not is_inline(key):
        raise ValueError("no pickle lies in this key")
    text = key.removeprefix(INLINE_PREFIX)
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
