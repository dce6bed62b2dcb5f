"""What can be said in the headers of a request, so that a service keeps it as it was given; and headers of answers, in
the words of S3."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
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


class TranslatedHeaders(Mapping[str, str]):
    """The headers of an answer of another service, as S3 would have sent them. Single names are looked up as they are
    asked for, since a small GET asks for few; the mapping is made when it is looked at as a whole."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[str, str] | None = None

    @abstractmethod
    def get(self, name: str, default: Any = None) -> Any:
        """As of a dict."""

    @abstractmethod
    def _all(self) -> dict[str, str]:
        """All of them."""

    def _whole(self) -> dict[str, str]:
        if self._made is None:
            self._made = self._all()
        return self._made

    def __getitem__(self, name: str) -> str:
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return str(found)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

    def __repr__(self) -> str:
        return repr(self._whole())

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self._whole(),)


def clock_ahead(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server's clock is ahead of ours, by an answer's headers; None where they do not say."""
    try:
        there = parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError):
        return None
    if there.tzinfo is None:
        there = there.replace(tzinfo=UTC)
    return (there - datetime.now(UTC)).total_seconds()
