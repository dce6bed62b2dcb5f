"""A store's own description, ``mfstore.json`` (docs/format.md, "Description")."""

from __future__ import annotations

import json
import re
from typing import Any

from mfstore.errors import CorruptObject, MfstoreError, NotAStore, Unsupported
from mfstore.format.collection import FEATURE
from mfstore.format.digests import NAMES, name_of
from mfstore.records import dataclass

PATH = "mfstore.json"
VERSION = 1
OPERATIONS = ("read", "write", "delete")
REPAIR = "Run: mfstore repair -s {} --execute. It writes the file anew, by what recipes and packs say"
PCODEC_FEATURE = "pcodec"
"""Of ``read``: chunks may be stored with pcodec."""
HOLDS_FEATURE = "holds"
"""Of ``delete``: refs may be held, and who does not know that would collect them."""
KNOWN_FEATURES = frozenset({FEATURE, PCODEC_FEATURE, HOLDS_FEATURE})
"""Features this version implements; a store may list ones it needs, per operation."""


@dataclass(frozen=True, slots=True)
class Description:
    """What every user of a store agrees on."""

    uuid: str
    algorithm: int
    features: dict[str, tuple[str, ...]]
    """Per operation (read, write, delete): features a program must know to do it."""
    tree: bool = False
    """Whether the index has a tree, as far as somebody said so: a hint that saves a listing."""

    def require(self, operation: str, url: str) -> None:
        """Unsupported when ``operation`` needs a feature this version does not know."""
        unknown = sorted(set(self.features.get(operation, ())) - KNOWN_FEATURES)
        if unknown:
            raise Unsupported(
                f"this store needs {', '.join(unknown)} to {operation}", backend=url, hint="Upgrade mfstore"
            )


def decode(data: bytes, url: str) -> Description:
    """The description in stored bytes; ``url`` is for errors. NotAStore when it is of something else, Unsupported for a
    newer format, CorruptObject when it is damaged."""
    try:
        document = json.loads(data)
        if document["format"] != "mfstore":
            raise NotAStore("mfstore.json is not ours", key=PATH, backend=url, found=document["format"])
        if document["version"] != VERSION:
            raise Unsupported(
                "the store has another format version",
                backend=url,
                expected=VERSION,
                found=document["version"],
                hint="Upgrade mfstore",
            )
        features = {name: tuple(map(str, document["features"].get(name, ()))) for name in OPERATIONS}
        algorithm = NAMES.get(document["hash"])
        if algorithm is None:
            raise Unsupported("the store uses a digest this version does not know", backend=url, found=document["hash"])
        return Description(str(document["uuid"]), algorithm, features, document.get("tree") is True)
    except MfstoreError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CorruptObject(
            "mfstore.json is damaged",
            key=PATH,
            backend=url,
            hint=REPAIR.format(url),
        ) from None


def uuid_in(data: bytes) -> str | None:
    """The uuid in a damaged description, if it can be read there. Nothing tells whether its digits are right, and
    nothing depends on them."""
    found = re.search(rb'"uuid": "([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"', data)
    return found[1].decode() if found else None


def encode(description: Description) -> bytes:
    """A description as it is stored."""
    features = {operation: list(description.features.get(operation, ())) for operation in OPERATIONS}
    name = name_of(description.algorithm)
    document = {"format": "mfstore", "version": VERSION, "uuid": description.uuid, "hash": name, "features": features}
    return _encode(document)


def lost(url: str) -> CorruptObject:
    """The error for a store without its description."""
    return CorruptObject(
        "mfstore.json is lost: there are recipes or packs of a store, and not its description", key=PATH, backend=url,
        hint=REPAIR.format(url),
    )  # fmt: skip


def with_feature(data: bytes, description: Description, operation: str, feature: str) -> bytes:
    """Stored bytes, of which ``description`` was decoded, that demand one feature more for ``operation``. What else a
    later version may have written there stays."""
    document = json.loads(data)
    document["features"][operation] = [*description.features[operation], feature]
    return _encode(document)


def with_tree(data: bytes) -> bytes:
    """Stored bytes that say that the index has a tree."""
    return _encode({**json.loads(data), "tree": True})


def _encode(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()
