"""Deltas decoded with their bases, recipe by recipe: whether they give the chunks that the recipes say.

A delta and its base lie in packs that are each read and compared by themselves: the delta by its seal, the base by its
digest. That the one fits the other only the recipe tells, which names the base.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from mfstore._core.codec import DELTAS, GROUP
from mfstore._core.memory import xxh3
from mfstore.backends.base import RangeRead
from mfstore.errors import CorruptObject, MfstoreError
from mfstore.format.packs import encode_entry, entry_of, fingerprint, pack_path
from mfstore.format.recipes import INLINE, PIECE, Recipe, placed_chunks
from mfstore.loading.deltas import together
from mfstore.maintenance.reading import read_each, scratch, spread
from mfstore.maintenance.store.checking.pack_state import PlacedChunk, bases_in_packs
from mfstore.maintenance.store.groups import by_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from mfstore.backends.base import Backend
    from mfstore.format.packs import PackEntry
    from mfstore.format.recipes import Piece
    from mfstore.host.workers import Workers
    from mfstore.maintenance.store.checking.chunk_check import ChunkCheck
    from mfstore.maintenance.store.checking.known_packs import KnownPacks
    from mfstore.maintenance.store.checking.recipe_reads import CheckedRecipe
    from mfstore.maintenance.store.checking.unread import Unread

    PackPlace = tuple[bytes, PackEntry]
    """A chunk in a pack."""

DECODED_TOGETHER = 64 << 20
"""Bytes of bases and deltas that are held at a time."""


class Delta(NamedTuple):
    """A delta as a recipe places it."""

    placed: PlacedChunk
    pieces: tuple[Piece, ...]
    bases: Mapping[int, PlacedChunk]
    """The base chunks that its pieces are of, by their numbers."""
    inline: memoryview | None
    """Its bytes, when it lies in the recipe."""

    def identity(self) -> int:
        """64 bits of the chunk, where the delta lies and what its base is, wherever else it is placed so."""
        parts = [self.placed.pack, encode_entry(self.placed.entry)]
        for number, start, length in self.pieces:
            base = self.bases[number]
            parts += (base.pack, encode_entry(base.entry), PIECE.pack(0, start, length))
        return xxh3(b"".join(parts))

    def places(self) -> Iterator[PackPlace]:
        """What must be read of packs for it."""
        for base in self.bases.values():
            yield base.pack, base.entry
        if self.inline is None:
            yield self.placed.pack, self.placed.entry


class RecipeDeltas(NamedTuple):
    """The deltas of a recipe, each place once: a few bytes can say that hundreds of thousands of chunks lie there, of
    16 MiB each."""

    deltas: list[Delta]
    twins: dict[int, list[int]]
    """Other chunks that are placed just as one of these, by the number of that."""
    misfits: set[int]
    """Chunks that are placed where another one is, or with another base: both cannot be."""


def deltas_of(recipe: Recipe) -> RecipeDeltas:
    """The deltas that a recipe places."""
    inline = memoryview(recipe.inline)
    bases = {base.number: base for base in bases_in_packs(recipe)}
    first: dict[tuple[int, int, int], Delta] = {}
    found = RecipeDeltas([], {}, set())
    for number, (chunk, at) in enumerate(placed_chunks(recipe)):
        if not at.pieces:
            continue
        here = at.pack == INLINE
        delta = Delta(
            PlacedChunk(number, b"" if here else recipe.packs[at.pack], entry_of(chunk, at)),
            at.pieces,
            {piece.chunk: bases[piece.chunk] for piece in at.pieces},
            inline[at.offset : at.offset + at.csize] if here else None,
        )
        other = first.setdefault((at.pack, at.offset, at.csize), delta)
        if other is delta:
            found.deltas.append(delta)
        elif (other.placed.entry, other.pieces) == (delta.placed.entry, delta.pieces):
            found.twins.setdefault(other.placed.number, []).append(number)
        else:
            found.misfits.add(number)
    return found


class DeltaReader:
    """Decodes deltas with their bases, and remembers which do not give their chunks."""

    def __init__(
        self, backend: Backend, workers: Workers, check: ChunkCheck, unread: Unread, packs: KnownPacks,
        holds: Callable[[bytes, PackEntry], bool],
    ) -> None:  # fmt: skip
        self._backend = backend
        self._workers = workers
        self._check = check
        self._unread = unread
        self._packs = packs
        self._holds = holds
        self._lock = threading.Lock()
        self._good: set[int] = set()
        self.undecodable: dict[bytes, frozenset[int]] = {}
        """By recipe: numbers of the chunks whose delta and bases are whole, and which these do not give."""

    def read(self, recipes: Iterable[CheckedRecipe]) -> bool:
        """Decode every delta of these recipes. Whether each gave its chunk."""
        all_well = True
        for key, recipe, bad_inline in recipes:
            if isinstance(recipe, CorruptObject):
                continue
            found = deltas_of(recipe)
            ready = [
                delta for delta in found.deltas
                if delta.placed.number not in bad_inline and all(self._holds(*place) for place in delta.places())
            ]  # fmt: skip
            all_well = all_well and len(ready) == len(found.deltas)
            misfits = set(found.misfits)
            for group in together(ready, _needs, DECODED_TOGETHER):
                all_well = self._decode(group, misfits) and all_well
            misfits.update(number for first in misfits & found.twins.keys() for number in found.twins[first])
            if misfits:
                self.undecodable[key] = frozenset(misfits)
                all_well = False
        return all_well

    def _decode(self, deltas: list[Delta], misfits: set[int]) -> bool:
        """Read what these need, and decode them. Whether everything could be read and was whole."""
        fresh = [delta for delta in deltas if delta.inline is not None or delta.identity() not in self._good]
        found = self._read({place: None for delta in fresh for place in delta.places()})
        ready = [delta for delta in fresh if all(place in found for place in delta.places())]

        def one(delta: Delta) -> None:
            if self._gives(delta, found):
                with self._lock:
                    self._good.add(delta.identity())
            else:
                with self._lock:
                    misfits.add(delta.placed.number)

        spread(self._workers, ready, one, lambda delta: delta.placed.entry.usize, 3 * self._workers.threads)
        return len(ready) == len(fresh)

    def _gives(self, delta: Delta, found: Mapping[PackPlace, bytes]) -> bool:
        """Whether a delta and its base, both found whole, are the chunk."""
        stored = delta.inline
        if stored is None:
            stored = memoryview(found[delta.placed.pack, delta.placed.entry])
        self._check.count_delta()
        return self._check.gives(delta.placed.entry, stored, _concatenated(delta, found))

    def _read(self, places: Iterable[PackPlace]) -> dict[PackPlace, bytes]:
        """Base chunks, decoded, and deltas as they are stored, of those that are whole. What is not is noted in the
        states of the packs."""
        found: dict[PackPlace, bytes] = {}
        by_read: dict[tuple[str, int, int], list[PackPlace]] = {}
        for place in places:
            pack, entry = place
            by_read.setdefault((pack_path(pack.hex()), entry.offset, entry.csize), []).append(place)

        def arrived(read: RangeRead, data: Buffer | MfstoreError) -> None:
            there = by_read[read.key, read.start, read.length]
            pack = there[0][0]
            for alike in by_place(entry for _, entry in there):
                contents = self._whole(pack, alike, data)
                with self._lock:
                    found.update(((pack, entry), content) for entry, content in contents.items())

        read_each(self._backend, self._workers, [RangeRead(*where) for where in by_read], arrived)
        return found

    def _whole(self, pack: bytes, together: list[PackEntry], data: Buffer | MfstoreError) -> dict[PackEntry, bytes]:
        """Of chunks that lie together in a pack, those that are whole, read again if need be."""
        path = pack_path(pack.hex())
        contents: dict[PackEntry, bytes] = {}
        broken = together
        try:
            if isinstance(data, MfstoreError) and not isinstance(data, CorruptObject):
                raise data
            if not isinstance(data, MfstoreError):
                contents = self._contents(together, memoryview(data).cast("B"))
                broken = [entry for entry in together if entry not in contents]
            if broken:
                first = broken[0]
                again = self._contents(broken, memoryview(self._backend.read_again(path, first.offset, first.csize)))
                if again:
                    self._unread.add_unsteady(path)
                contents |= again
                broken = [entry for entry in broken if entry not in again]
        except CorruptObject:
            pass  # cut short since it was listed
        except MfstoreError as error:
            kind = self._unread.kind_of(path, error)
            if kind in ("missing", "unreadable"):
                state = self._packs.states[pack]
                with self._lock:
                    state.kind, state.detail, state.prints = kind, error.message, None
                return {}
        if broken:
            with self._lock:
                self._packs.states[pack].bad.update((fingerprint(entry), entry) for entry in broken)
        return contents

    def _contents(self, together: list[PackEntry], stored: memoryview) -> dict[PackEntry, bytes]:
        """Base chunks decoded, deltas as they are; without those that are not whole."""
        if is_delta(together[0]):
            return {entry: bytes(stored) for entry in together if self._check.whole(entry, stored)}
        return self._check.contents(together, stored)


def is_delta(entry: PackEntry) -> bool:
    """Whether a chunk is stored as a delta."""
    return entry.codec in DELTAS


def _needs(delta: Delta) -> dict[Hashable, int]:
    """What is read of packs for it, with the most bytes that are held of it."""
    return {
        (pack, entry): entry.usize if entry.codec == GROUP else max(entry.usize, entry.csize)
        for pack, entry in delta.places()
    }


def _concatenated(delta: Delta, found: Mapping[PackPlace, bytes]) -> memoryview:
    """The base of a delta: its pieces one after the other. In memory of this thread, until the next one."""
    parts = []
    for number, start, length in delta.pieces:
        base = delta.bases[number]
        parts.append(memoryview(found[base.pack, base.entry])[start : start + length])
    if len(parts) == 1:
        return parts[0]
    joined = scratch("base", sum(len(part) for part in parts))
    at = 0
    for part in parts:
        joined[at : at + len(part)] = part
        at += len(part)
    return joined
