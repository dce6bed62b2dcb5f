"""The store's own description, ``mfstore.json``: written once, checked by every operation."""

from __future__ import annotations

import uuid
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from mfstore.backends.base import decode_read
from mfstore.errors import Conflict, MfstoreError, NotAStore, NotFound
from mfstore.format.description import PATH, Description, decode, encode, lost, with_feature, with_tree
from mfstore.format.digests import BLAKE3

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

ENABLE_ATTEMPTS = 10
"""How often a feature is demanded anew when another process changed the description at the same moment."""


def load(backend: Backend) -> Description | None:
    """The store's description, or None when there is no store there yet.

    NotAStore when the place holds something else, Unsupported for a newer format, CorruptObject when the description is
    damaged, or lost though there is a store.
    """
    try:
        data = backend.get(PATH)
    except NotFound:
        for info in backend.list(""):
            if info.key == PATH or backend.exists_many([PATH])[0]:
                return load(backend)  # another process created the store just now
            if any(True for prefix in ("recipes/", "packs/") for _ in backend.list(prefix)):
                raise lost(backend.url) from None
            raise NotAStore(
                "not an mfstore store: there are files, and mfstore.json is not among them",
                backend=backend.url, found=info.key, hint="Choose an empty or a new directory",
            ) from None  # fmt: skip
        return None
    return decode_read(backend, PATH, data, partial(decode, url=backend.url))


def create(backend: Backend, algorithm: int = BLAKE3) -> Description:
    """Write the description of a new store; if another process was faster, theirs is returned."""
    with suppress(Conflict):
        backend.put_if(PATH, encode(Description(str(uuid.uuid4()), algorithm, {})), None)
    found = load(backend)
    if found is None:
        raise NotFound("the description just written is not there", key=PATH, backend=backend.url)
    return found


def enable(backend: Backend, operation: str, feature: str) -> Description:
    """Demand of every program that it knows ``feature`` before it does ``operation``; returns the description then.

    Conflict when others keep changing it.
    """
    for _ in range(ENABLE_ATTEMPTS):
        data, etag = backend.get_tagged(PATH)
        try:
            found = decode(data, backend.url)
        except MfstoreError:
            data = backend.read_again(PATH)  # one bad read is no damage
            found = decode(data, backend.url)
        if feature in found.features[operation]:
            return found
        try:
            backend.put_if(PATH, with_feature(data, found, operation, feature), etag)
        except Conflict:
            continue
    raise Conflict("the store's description keeps changing", key=PATH, backend=backend.url, hint="Try again")


def tell_of_tree(backend: Backend) -> None:
    """Say that the index has a tree, so that nobody needs to list it first. Best effort: who may not say so, or was
    not the only one who changed the description, leaves it to others."""
    with suppress(MfstoreError):
        data, etag = backend.get_tagged(PATH)
        if not decode(data, backend.url).tree:
            backend.put_if(PATH, with_tree(data), etag)
