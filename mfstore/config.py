"""The store's own description, ``mfstore.json``: written once, checked by every operation."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mfstore.condemned import FEATURE
from mfstore.errors import Conflict, CorruptObject, MfstoreError, NotAStore, NotFound, Unsupported
from mfstore.hashing import BLAKE3, NAMES

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

PATH = "mfstore.json"
VERSION = 1
ATTEMPTS = 10
OPERATIONS = ("read", "write", "delete")
KNOWN_FEATURES = frozenset({FEATURE})
"""Features this version implements; a store may list ones it needs, per operation."""


@dataclass(frozen=True, slots=True)
class Config:
    """What every user of a store agrees on."""

    uuid: str
    algorithm: int
    features: dict[str, tuple[str, ...]]
    """Per operation (read, write, delete): features a program must know to do it."""

    def require(self, operation: str, url: str) -> None:
        """Unsupported when ``operation`` needs a feature this version does not know."""
        unknown = sorted(set(self.features.get(operation, ())) - KNOWN_FEATURES)
        if unknown:
            raise Unsupported(
                f"this store needs {', '.join(unknown)} to {operation}", backend=url, hint="Upgrade mfstore"
            )


def load(backend: Backend) -> Config | None:
    """The store's configuration, or None when there is no store there yet.

    NotAStore when the place holds something else, Unsupported for a newer format.
    """
    try:
        data = backend.get(PATH)
    except NotFound:
        for info in backend.list(""):
            if info.key == PATH or backend.exists_many([PATH])[0]:
                return load(backend)  # another process created the store just now
            raise NotAStore(
                "not an mfstore store: there are files, and mfstore.json is not among them",
                backend=backend.url, found=info.key, hint="Choose an empty or a new directory",
            ) from None  # fmt: skip
        return None
    return _decode(data, backend)


def _decode(data: bytes, backend: Backend) -> Config:
    try:
        document = json.loads(data)
        if document["format"] != "mfstore":
            raise NotAStore("mfstore.json is not ours", backend=backend.url, found=document["format"])
        if document["version"] != VERSION:
            raise Unsupported(
                "the store has another format version",
                backend=backend.url,
                expected=VERSION,
                found=document["version"],
                hint="Upgrade mfstore",
            )
        features = {name: tuple(map(str, document["features"].get(name, ()))) for name in OPERATIONS}
        algorithm = NAMES.get(document["hash"])
        if algorithm is None:
            raise Unsupported(
                "the store uses a digest this version does not know", backend=backend.url, found=document["hash"]
            )
        return Config(str(document["uuid"]), algorithm, features)
    except MfstoreError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CorruptObject(
            "mfstore.json is damaged",
            key=PATH,
            backend=backend.url,
            hint="Restore the file from another copy of the store",
        ) from None


def create(backend: Backend, algorithm: int = BLAKE3) -> Config:
    """Write the configuration of a new store; if another process was faster, theirs is returned."""
    name = next(name for name, number in NAMES.items() if number == algorithm)
    document = {
        "format": "mfstore",
        "version": VERSION,
        "uuid": str(uuid.uuid4()),
        "hash": name,
        "features": {operation: [] for operation in OPERATIONS},
    }
    try:
        backend.put_if(PATH, _encode(document), None)
    except Conflict:
        pass
    found = load(backend)
    if found is None:
        raise NotFound("the configuration just written is not there", key=PATH, backend=backend.url)
    return found


def enable(backend: Backend, operation: str, feature: str) -> Config:
    """Demand of every program that it knows ``feature`` before it does ``operation``; returns the configuration then.

    Conflict when others keep changing it.
    """
    for _ in range(ATTEMPTS):
        data, etag = backend.get_tagged(PATH)
        found = _decode(data, backend)
        if feature in found.features[operation]:
            return found
        document = json.loads(data)
        document["features"][operation] = [*found.features[operation], feature]
        try:
            backend.put_if(PATH, _encode(document), etag)
        except Conflict:
            continue
    raise Conflict("the store's configuration keeps changing", key=PATH, backend=backend.url, hint="Try again")


def _encode(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()
