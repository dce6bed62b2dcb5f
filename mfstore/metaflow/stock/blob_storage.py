"""What the content-addressed store needs of a storage: whole blobs with their metadata, many at a time."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Buffer

METADATA_SUFFIX = "_meta"
"""Ends the name of the file that keeps a blob's metadata beside it in a directory."""

Metadata = Mapping[str, Any] | None

UNREADABLE: Metadata = MappingProxyType({})
"""Metadata that is there and is no JSON object: no reader can use the blob, and saving it again replaces it."""


class StoredBlob(NamedTuple):
    """A blob as it is stored, or its end: ``size`` is that of the whole."""

    data: bytes
    size: int
    metadata: Metadata
    """What Metaflow stored with it; None when it has none."""


class NewBlob(NamedTuple):
    """A blob to store."""

    path: str
    parts: Sequence[Buffer]
    metadata: Metadata
    replace: bool = True
    """Otherwise one that is there already is left alone."""


def parsed_metadata(text: str | bytes | None) -> Metadata:
    """Metadata as it is stored: a JSON object, None where there is none, UNREADABLE where it is anything else."""
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return UNREADABLE
    return found if isinstance(found, dict) else UNREADABLE


class BlobStorage(ABC):
    """Blobs, and other small files of flows, by their path below a datastore root. Failures are ``mfstore.errors``; a
    refusal is never "absent"."""

    remote: bool
    """A request takes milliseconds: small blobs are created without looking first, and remembered on this host."""

    @abstractmethod
    def read(self, paths: Sequence[str]) -> Iterator[tuple[str, StoredBlob | None]]:
        """Each blob, in any order; None where there is none."""

    @abstractmethod
    def tails(self, paths: Sequence[str]) -> list[StoredBlob | None]:
        """The last eight bytes of each, in order."""

    @abstractmethod
    def put(self, blobs: Iterable[NewBlob]) -> list[NewBlob]:
        """Store them, each whole or not at all and with its metadata. Returns those that were there and are not to be
        replaced. ``blobs`` is consumed as there is room."""
