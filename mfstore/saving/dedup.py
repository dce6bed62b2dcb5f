"""What is stored already: where chunks lie, and whether an acknowledgement may rely on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mfstore._core.codec import DELTAS, delta_seal_is_right
from mfstore.backends.base import decode_read
from mfstore.errors import CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format import recipes
from mfstore.format.packs import pack_path, place_of
from mfstore.format.recipes import BASE_LIMIT, Recipe, new_chunk, placed_chunks, recipe_path
from mfstore.loading.reads import BasePart, PlacedChunk, new_placed
from mfstore.loading.reliance import placed_in_packs
from mfstore.saving.counterparts import BasePiece
from mfstore.saving.deltas import EncodedDelta
from mfstore.saving.guard import Condemned, Names
from mfstore.saving.neighbours import Layout

if TYPE_CHECKING:
    from mfstore.backends.base import Batch
    from mfstore.format.fragments import Location
    from mfstore.format.packs import PackName, Pieces
    from mfstore.saving.context import SaveContext
    from mfstore.saving.counterparts import Base, StoredAs

DELTA_PACKS = 16
"""Packs whose trailers are read to know what deltas that the index lists are against, those with most of them first: a
request each where they are far away. What lies in others is stored again, and lies together then."""


class StoredChunks:
    """The chunks that one save need not store, because others did or it has itself.

    What others stored counts only when it is there, whole, and not condemned: an acknowledged save must read back.
    """

    def __init__(self, context: SaveContext, batch: Batch, condemned: Condemned) -> None:
        self.located: dict[bytes, Location] = {}
        """Where chunks lie, by id. A location's pack may still be open."""
        self.pieces: dict[bytes, tuple[BasePiece, ...]] = {}
        """Of those that are deltas, what they are deltas against."""
        self.inline: dict[bytes, EncodedDelta] = {}
        """Deltas that are to lie in the recipes that need them."""
        self.relied = Names()
        """What others stored and this save relies on."""
        self._context = context
        self._batch = batch
        self._condemned = condemned
        self._base: Base | None = None
        self._copies: dict[bytes, Location | None] = {}
        """Where base chunks lie by the index, once it was asked."""

    def build_on(self, base: Base) -> None:
        """From here on what this has is looked for in it first."""
        self._base = base

    def look_up(
        self, ids: Iterable[bytes], small: Container[bytes] = (), leading: Container[bytes] = ()
    ) -> None:  # fmt: skip
        """Locate those of the chunks that are stored and can be relied on. For the ``small`` ones nothing more is
        asked than what the others need. Where not all are looked for, the ``leading`` ones are first."""
        missing = {chunk_id for chunk_id in ids if chunk_id not in self.located}
        if self._base is not None:
            self._look_up_in_base(self._base, missing)
            missing -= self.located.keys()
        index = self._context.chunk_index
        found = index.find(list(missing), small, leading) if missing else {}
        deltas = {chunk_id: found.pop(chunk_id) for chunk_id, at in list(found.items()) if at.codec in DELTAS}
        if found and self._condemned:
            found = {chunk_id: other for chunk_id, at in found.items() if (other := self._lasting(chunk_id, at))}
        if found:
            for chunk_id in found.keys() - self._whole(found.items()):
                copies = [
                    (chunk_id, location)
                    for location in index.find_all(chunk_id, False)
                    if location != found[chunk_id] and not self._condemned.pack(location.pack.value)
                ]
                del found[chunk_id]
                for copy in copies:
                    if self._whole([copy]):
                        found[chunk_id] = copy[1]
        self.rely({location.pack.value for location in found.values()})
        self.located.update(found)
        if deltas and self._context.delta:
            self._look_up_deltas(deltas)

    def _look_up_deltas(self, found: Mapping[bytes, Location]) -> None:
        """Locate those of these that are whole, and whose base is, by what the trailers of their packs tell of it."""
        counts = Counter(at.pack.value for at in found.values() if not self._condemned.pack(at.pack.value))
        packs = {pack.hex() for pack, _ in counts.most_common(DELTA_PACKS)}
        reliance = self._context.reliance
        layouts = reliance.layouts(sorted(packs))
        told: dict[bytes, Pieces] = {}
        for chunk_id, at in found.items():
            pack = at.pack.value.hex()
            pieces = reliance.pieces(pack).get(at.offset) if pack in layouts else None
            if pieces:
                told[chunk_id] = pieces
        bases = self._whole_copies({piece.id for pieces in told.values() for piece in pieces})
        against = {chunk_id: _based(pieces, bases) for chunk_id, pieces in told.items()}
        placed = [_placed_delta(chunk_id, found[chunk_id], pieces) for chunk_id, pieces in against.items() if pieces]
        for chunk_id in reliance.reliable(placed):
            self._take(chunk_id, found[chunk_id], against[chunk_id])

    def _whole_copies(self, ids: Collection[bytes]) -> dict[bytes, Location]:
        """Where those of the chunks lie that are stored, and not as deltas."""
        missing = [chunk_id for chunk_id in ids if chunk_id not in self._copies]
        found = self._context.chunk_index.find(missing) if missing else {}
        for chunk_id in missing:
            at = found.get(chunk_id)
            is_usable = at is not None and at.codec not in DELTAS and not self._condemned.pack(at.pack.value)
            self._copies[chunk_id] = at if is_usable else None
        return {chunk_id: at for chunk_id in ids if (at := self._copies[chunk_id]) is not None}

    def _take(self, chunk_id: bytes, at: Location, pieces: tuple[BasePiece, ...]) -> None:
        self.located[chunk_id] = at
        if pieces:
            self.pieces[chunk_id] = pieces
        self.rely({at.pack.value, *(piece.at.pack.value for piece in pieces)})

    def _look_up_in_base(self, base: Base, ids: Iterable[bytes]) -> None:
        """Locate what the base has."""
        for chunk_id, (at, pieces, _) in self.in_base(base, ids).items():
            self._take(chunk_id, at, pieces)

    def in_base(self, base: Base, ids: Iterable[bytes]) -> dict[bytes, StoredAs]:
        """Which chunks the base has in packs that can be relied on: a delta only where what it is against is whole."""
        found = {chunk_id: base.chunks[chunk_id] for chunk_id in ids if chunk_id in base.chunks}
        if not found:
            return {}
        placed = {_identity(chunk_id, stored.at): (chunk_id, stored.at) for chunk_id, stored in found.items()}
        whole = self._whole([*placed.values(), *_bases_of(found.values())])
        return {
            chunk_id: stored for chunk_id, stored in found.items()
            if chunk_id in whole and all(piece.id in whole for piece in stored.pieces)
        }  # fmt: skip

    def deltas_in_base(self, base: Base, ids: Iterable[bytes]) -> dict[bytes, EncodedDelta]:
        """Which chunks are deltas in the recipe of the base, and can be stored as the same deltas again: their seals
        are right, and what they are against is whole. Who does so relies on the packs of that."""
        found = {
            chunk_id: base.deltas[chunk_id] for chunk_id in ids
            if chunk_id in base.deltas and delta_seal_is_right(base.deltas[chunk_id].data)
        }  # fmt: skip
        whole = self._whole(_bases_of(found.values())) if found else set()
        return {
            chunk_id: EncodedDelta(data, at.codec, at.width, pieces)
            for chunk_id, (at, pieces, data) in found.items() if all(piece.id in whole for piece in pieces)
        }  # fmt: skip

    def carry(self, ids: Iterable[bytes]) -> dict[bytes, EncodedDelta]:
        """``deltas_in_base`` of chunks that lie nowhere else so far. They are relied on."""
        if self._base is None or not self._base.deltas:
            return {}
        found = self.deltas_in_base(
            self._base, [one for one in ids if one not in self.located and one not in self._base.chunks]
        )
        self.rely({piece.at.pack.value for delta in found.values() for piece in delta.pieces})
        return found

    def contents(self, places: Mapping[bytes, Location]) -> dict[bytes, memoryview]:
        """The bytes of stored chunks that are whole there, for deltas against them."""
        return self._context.reliance.contents([_placed(chunk_id, at) for chunk_id, at in places.items()])

    def has_recipe(self, key: bytes, found: bytes | MfstoreError | bool) -> bool:
        """Whether the stored recipe of this key, and every chunk it places, can be relied on.

        ``found`` is the recipe as it was read, the error that met, or True when it has not been read yet.
        """
        path = recipe_path(key.hex())
        try:
            if isinstance(found, MfstoreError):
                raise found
            data = self._context.backend.get(path) if isinstance(found, bool) else found
            decode = partial(recipes.decode, codec=self._context.workers.thread.codec, expected_key=key)
            recipe = decode_read(self._context.backend, path, data, decode)
            if self._condemned and (
                self._condemned.recipe(key) or any(self._condemned.pack(name) for name in recipe.packs)
            ):
                return False
            if not self._chunks_are_whole(recipe):
                return False
        except (CorruptObject, NotFound, Unsupported):
            return False
        self.relied.recipes += key
        self._batch.ensure([path])
        self.rely(recipe.packs)
        return True

    def layouts(self, packs: Sequence[PackName]) -> dict[bytes, Layout]:
        """What lies in these packs, without those of which that cannot be told."""
        reliance = self._context.reliance
        found = reliance.layouts([pack.value.hex() for pack in packs])
        told = {name: reliance.pieces(name) for name in found}
        bases = self._whole_copies({piece.id for of in told.values() for pieces in of.values() for piece in pieces})
        layouts = {}
        for pack in packs:
            name = pack.value.hex()
            if name in found:
                against = {at: _based(pieces, bases) for at, pieces in told[name].items()}
                layouts[pack.value] = Layout(pack, found[name], against)
        return layouts

    def _lasting(self, chunk_id: bytes, location: Location) -> Location | None:
        """Where a chunk lies that is not about to be collected; None when nowhere: then it is stored again."""
        if not self._condemned.pack(location.pack.value):
            return location
        copies = self._context.chunk_index.find_all(chunk_id, False)
        return next((copy for copy in copies if not self._condemned.pack(copy.pack.value)), None)

    def rely(self, packs: Collection[bytes]) -> None:
        """From here on the save relies on these packs."""
        for name in packs:
            self.relied.packs += name
        self._batch.ensure([pack_path(name.hex()) for name in packs])

    def _whole(self, found: Iterable[tuple[bytes, Location]]) -> set[bytes]:
        return self._context.reliance.reliable([_placed(chunk_id, at) for chunk_id, at in found])

    def _chunks_are_whole(self, recipe: Recipe) -> bool:
        placed = placed_chunks(recipe)
        inline = [
            (number, chunk, memoryview(bytearray(chunk.usize)))
            for number, (chunk, placement) in enumerate(placed) if placement.pack == recipes.INLINE
        ]  # fmt: skip
        self._context.fetcher.fill(recipe, inline, verify=True)
        in_packs = placed_in_packs(recipe)
        return self._context.reliance.reliable(in_packs) == {one.chunk.id for one in in_packs}


def _identity(chunk_id: bytes, at: Location) -> tuple[bytes, bytes, int]:
    """A chunk and where it lies."""
    return chunk_id, at.pack.value, place_of(at.offset, at.codec, at.width)


def _bases_of(stored: Iterable[StoredAs]) -> list[tuple[bytes, Location]]:
    """What deltas are against, each place once."""
    pieces = {_identity(piece.id, piece.at): (piece.id, piece.at) for one in stored for piece in one.pieces}
    return list(pieces.values())


def _based(pieces: Pieces, bases: Mapping[bytes, Location]) -> tuple[BasePiece, ...]:
    """Pieces with where the chunks lie that they are parts of; none when one is not to be had, or they are parts of so
    much that no recipe could say so."""
    if not all(piece.id in bases and piece.start + piece.length <= bases[piece.id].usize for piece in pieces):
        return ()
    if sum(bases[chunk_id].usize for chunk_id in {piece.id for piece in pieces}) <= BASE_LIMIT:
        return tuple(BasePiece(of, bases[of], start, length) for of, start, length in pieces)
    return ()


def _placed_delta(chunk_id: bytes, at: Location, pieces: Iterable[BasePiece]) -> PlacedChunk:
    parts = tuple(BasePart(_placed(piece.id, piece.at), piece.start, piece.length) for piece in pieces)
    return _placed(chunk_id, at)._replace(base=parts)


def _placed(chunk_id: bytes, at: Location) -> PlacedChunk:
    return new_placed((new_chunk((chunk_id, at.usize)), at.pack.value.hex(), at.placement(), ()))
