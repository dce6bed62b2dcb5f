"""The store's own description, ``mfstore.json``: written once, checked by every operation."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from mfstore.errors import Conflict, NotAStore, NotFound
from mfstore.format.description import OPERATIONS, PATH, VERSION, Description, decode, encode
from mfstore.format.digests import BLAKE3, NAMES

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

ATTEMPTS = 10


def load(backend: Backend) -> Description | None:
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
    return decode(data, backend.url)


def create(backend: Backend, algorithm: int = BLAKE3) -> Description:
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
        backend.put_if(PATH, encode(document), None)
    except Conflict:
        pass
    found = load(backend)
    if found is None:
        raise NotFound("the configuration just written is not there", key=PATH, backend=backend.url)
    return found


def enable(backend: Backend, operation: str, feature: str) -> Description:
    """Demand of every program that it knows ``feature`` before it does ``operation``; returns the configuration then.

    Conflict when others keep changing it.
    """
    for _ in range(ATTEMPTS):
        data, etag = backend.get_tagged(PATH)
        found = decode(data, backend.url)
        if feature in found.features[operation]:
            return found
        document = json.loads(data)
        document["features"][operation] = [*found.features[operation], feature]
        try:
            backend.put_if(PATH, encode(document), etag)
        except Conflict:
            continue
    raise Conflict("the store's configuration keeps changing", key=PATH, backend=backend.url, hint="Try again")
