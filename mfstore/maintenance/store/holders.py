"""What the recipes of a store hold: themselves, and the places of their chunks in packs."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from mfstore.backends.base import decode_read
from mfstore.errors import CorruptObject, MfstoreError, NotFound
from mfstore.format import recipes
from mfstore.format.recipes import INLINE, Recipe, recipe_path
from mfstore.maintenance.holders import Claims, Holders, Tally
from mfstore.maintenance.report import PhaseProgress
from mfstore.maintenance.spill import Spill
from mfstore.maintenance.store.collecting.object_table import list_objects

if TYPE_CHECKING:
    from mfstore._core.codec import Codec
    from mfstore.backends.base import Backend
    from mfstore.handle import StoreAccess
    from mfstore.maintenance.report import PhaseCallback

TOGETHER = 256
"""Recipes asked for together: they are decoded while the next ones are on their way."""
_PLACE = struct.Struct(">QQ")
"""Offset and length: the key of a claim of a part of a pack, in the order in which parts lie."""
HoldersOf = Callable[[bytes, Recipe], Sequence[Collection[int]]]
"""Who needs the artifacts of a recipe, given its key: for each artifact sets of labels, or once, for all of them. None
at all: nobody."""


class PackParts:
    """Parts of packs that recipes place chunks in, claimed by who needs these."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims

    def claim(self, recipe: Recipe, holders: Sequence[Collection[int]]) -> set[int]:
        """Claim what a recipe places its chunks in, and what these are deltas against. Everybody who needs any of
        it."""
        packs = [name.hex() for name in recipe.packs]
        everybody: set[int] = set()
        number = 0
        for index, artifact in enumerate(recipe.artifacts):
            needed_by = holders[index] if len(holders) > 1 else holders[0]
            everybody.update(needed_by)
            parts: dict[int, set[bytes]] = {}
            for place in recipe.placements[number : number + len(artifact.chunks)]:
                if place.pack != INLINE:
                    parts.setdefault(place.pack, set()).add(_PLACE.pack(place.offset, place.csize))
                for piece in place.pieces:
                    base = recipe.bases[piece.chunk]
                    parts.setdefault(base.pack, set()).add(_PLACE.pack(base.offset, base.csize))
            number += len(artifact.chunks)
            for pack, items in parts.items():
                for holder in needed_by:
                    self._claims.claim(packs[pack], items, holder)
        return everybody

    def tally(self, tally: Tally, packs: Iterable[tuple[bytes, int]]) -> None:
        """Count these packs, by name and size. What nobody needs of them is nobody's."""
        for name, size in packs:
            live = 0
            for item, holders in self._claims.in_order(name.hex()):
                length = _PLACE.unpack(item)[1]
                live += length
                tally.add(length, holders)
            tally.add(max(size - live, 0), None)


def tally_recipes(
    access: StoreAccess, listed: Iterable[tuple[bytes, int]], holders_of: HoldersOf, tally: Tally, tell: PhaseCallback
) -> list[CorruptObject]:
    """Read these recipes, listed with their sizes, and count them and all packs of the store, of which they need parts.
    What is wrong with those that are damaged: they count as nobody's, and so does what only they need.

    Raises:
        AccessDenied, BackendError: one is not handed out. What it holds would be told as nobody's.
    """
    backend, codec = access.backend, access.workers.thread.codec
    damaged: list[CorruptObject] = []
    parts = PackParts(Claims(Spill()))
    rows, done = iter(listed), 0
    while window := list(islice(rows, TOGETHER)):
        for (key, size), recipe in zip(window, _read(backend, codec, [key for key, _ in window]), strict=True):
            if isinstance(recipe, NotFound):
                continue  # removed since it was listed
            if isinstance(recipe, CorruptObject):
                damaged.append(recipe)
                tally.add(size, None)
                continue
            holders = holders_of(key, recipe)
            everybody = parts.claim(recipe, holders) if holders else set()
            tally.add(size, alone(everybody))
        done += len(window)
        tell(PhaseProgress("recipes", done, 0))
    # After the recipes: what is visible of these finds its packs.
    parts.tally(tally, ((name, size) for name, size, _, _ in list_objects(backend, "packs")))
    return damaged


def alone(holders: set[int]) -> Holders | None:
    """These, as they are counted."""
    return holders if len(holders) > 1 else next(iter(holders), None)


def _read(backend: Backend, codec: Codec, keys: Sequence[bytes]) -> Iterator[Recipe | NotFound | CorruptObject]:
    found = backend.get_many([recipe_path(key.hex()) for key in keys])
    for key, (path, data) in zip(keys, found, strict=True):
        try:
            if isinstance(data, MfstoreError):
                raise data
            yield decode_read(backend, path, data, partial(recipes.decode, codec=codec, expected_key=key))
        except (NotFound, CorruptObject) as error:
            yield error
        except MfstoreError as error:
            raise error.where(key=path, backend=backend.url) from None
