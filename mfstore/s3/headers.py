"""What can be said in the headers of a request, so that a service keeps it as it was given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mfstore.errors import InvalidKey

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A name (RFC 9110, 5.6.2)."""


def header_value(name: str, value: Any, secret: bool = False) -> str:
    """``value``, which a header shall have. InvalidKey for what is no text of printable ASCII, and for blanks at its
    ends, which services drop: it calls it ``name``, and shows it unless it is ``secret``."""
    if not isinstance(value, str):
        message, hint = f"{name} is a text", None
    elif not (value.isascii() and value.isprintable()):
        message = f"{name} goes in a header, which holds printable ASCII only"
        hint = "Encode it, for instance with urllib.parse.quote"
    elif value.strip(" ") != value:
        message, hint = f"{name} goes in a header, which loses the blanks at its ends", "Leave them out, or encode them"
    else:
        return value
    raise InvalidKey(message, found=None if secret else f"{value!a:.80}", hint=hint)


def checked_metadata(metadata: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """``metadata``, if it can be sent in headers. InvalidKey otherwise."""
    if not metadata and (metadata is None or isinstance(metadata, Mapping)):
        return metadata
    if not isinstance(metadata, Mapping):
        raise InvalidKey("metadata is a mapping of names to texts", found=f"{metadata!a:.80}")
    for name, value in metadata.items():
        if not (isinstance(name, str) and TOKEN.fullmatch(name)):
            raise InvalidKey(
                "no name of metadata: it is part of a header's name", found=f"{name!a:.80}",
                hint="Letters, digits and !#$%&'*+.^_`|~- may be in it",
            )  # fmt: skip
        header_value(f"metadata {name!r}", value)
    if len({name.lower() for name in metadata}) < len(metadata):
        raise InvalidKey("S3 keeps names of metadata in lower case, and two of these are then one", found=[*metadata])
    return metadata
