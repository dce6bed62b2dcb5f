"""A store's description that was damaged or lost, written anew by what is stored."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from mfstore import errors
from mfstore._core.codec import Codec
from mfstore.errors import Conflict, CorruptObject, MfstoreError, NotAStore, NotFound
from mfstore.format import recipes
from mfstore.format.collection import FEATURE
from mfstore.format.description import HOLDS_FEATURE, OPERATIONS, PATH, Description, encode, uuid_in
from mfstore.format.digests import NAMES, digest_function
from mfstore.format.holds import STORE_HOLDS
from mfstore.maintenance.quarantine import quarantine
from mfstore.maintenance.store.checking.trailers import read_trailer_again

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

WITNESSES = 20
"""Recipes and packs that are asked which digest the store uses: one that is whole proves it."""


def rebuild_description(backend: Backend) -> Description:
    """Write the description of a store anew whose own is damaged or lost, and return it. The damaged one goes to
    quarantine. The ``uuid`` stays if it can be read there; else the store gets a new one.

    Raises:
        NotAStore: nothing there proves that it is a store.
        AccessDenied: something may not be read or written.
        BackendError: the storage failed.
    """
    algorithm = _proven_digest(backend)
    if algorithm is None:
        raise NotAStore(
            "nothing there proves that it is a store", backend=backend.url,
            hint="No recipe and no pack is whole. Is it the right place?",
        )  # fmt: skip
    known = None
    with suppress(NotFound, CorruptObject):
        known = uuid_in(backend.get(PATH))
    features: dict[str, tuple[str, ...]] = dict.fromkeys(OPERATIONS, ())
    return write_description(backend, Description(known or str(uuid.uuid4()), algorithm, features))


def write_description(backend: Backend, description: Description) -> Description:
    """Store a description in the place of one that is damaged or lost, unless another process was faster; returns it.
    It demands what is needed by what lies there: who knew it may have read it before."""
    description = replace(description, features=_with_needed(backend, description.features))
    try:
        etag: str | None = backend.head(PATH).etag
        quarantine(backend, PATH, None, replaced=True)
    except NotFound:
        etag = None
    with suppress(Conflict):
        backend.put_if(PATH, encode(description), etag)
    return description


def _with_needed(backend: Backend, features: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    below = [info.key for info in backend.list("gc/")]
    held = any(key.startswith(STORE_HOLDS) for key in below)
    collected = not all(key.startswith(STORE_HOLDS) for key in below)
    needed = {"write": (FEATURE,) if collected else (), "delete": (HOLDS_FEATURE,) if held else ()}
    return {name: tuple(dict.fromkeys((*features[name], *needed.get(name, ())))) for name in OPERATIONS}


def _proven_digest(backend: Backend) -> int | None:
    """The digest by which recipes and packs have the names they have."""
    for algorithm in _tried(backend):
        return algorithm
    return None


def _tried(backend: Backend) -> Iterator[int]:
    for info in islice(backend.list("recipes/"), WITNESSES):
        try:
            data = backend.read_again(info.key)
            recipe = recipes.decode(data, Codec(errors), bytes.fromhex(info.key.rpartition("/")[2]))
        except (MfstoreError, ValueError):
            continue
        yield recipe.algorithm
    for info in islice(backend.list("packs/"), WITNESSES):
        for algorithm in NAMES.values():
            try:
                name = bytes.fromhex(info.key.rpartition("/")[2])
                read_trailer_again(backend, digest_function(algorithm), name, info.size)
            except (MfstoreError, ValueError):
                continue
            yield algorithm
