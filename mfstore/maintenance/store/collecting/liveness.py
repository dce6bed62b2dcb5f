"""What is live: the reading half of garbage collection, from refs over recipes to the bytes of packs.

A million chunks take about 100 MB here: objects are columns, and a chunk that is live is one number in a set.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from mfstore._core.codec import GROUP, GROUP_LIMIT, Codec
from mfstore.backends.base import decode_read
from mfstore.errors import CorruptObject, MfstoreError, NotFound
from mfstore.format import recipes
from mfstore.format.packs import pack_path
from mfstore.format.recipes import INLINE, ChunkRef, Placement, Recipe, placed_chunks, recipe_path
from mfstore.format.refs import PREFIX, StoredRef, ref_name
from mfstore.maintenance.store.collecting.retention import RefVersion
from mfstore.ref_objects import read_ref

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.maintenance.store.collecting.object_table import ObjectTable

RECIPES_TOGETHER = 256
"""Recipes asked for together: they are decoded while the next ones are on their way."""
OFFSET_BITS = 48
"""Of the number that a place is: a pack's row, and an offset there."""
START_BITS = 24
"""Of the number that a chunk is: its place, and where it starts in its group there, 0 if it is in none."""


def read_refs(backend: Backend) -> dict[str, RefVersion]:
    """Every ref. Raises for one that cannot be read: then nobody knows what is live."""
    found = {}
    for path, modified in [(info.key, info.modified) for info in backend.list(PREFIX)]:
        try:
            etag, stored = read_ref(backend, path)
            if stored != StoredRef():  # else it was removed
                found[ref_name(path)] = RefVersion(etag, stored.entries, stored.unconfirmed, modified)
        except NotFound:
            continue  # removed since it was listed
        except MfstoreError as error:
            raise collection_stops(error.where(backend=backend.url), "a ref cannot be read") from None
    return found


def collection_stops(error: MfstoreError, why: str) -> MfstoreError:
    """The same error, as the reason why nothing is collected."""
    error.message = f"garbage collection stops: {why}: {error.message}"
    error.hint = "Nothing was changed. Repair the store, or drop what cannot be read, and try again"
    return error


def read_recipes(
    backend: Backend, keys: Iterable[bytes], codec: Codec, missing_ok: bool = False
) -> Iterator[tuple[bytes, Recipe]]:
    """The recipe of each key. Raises for one that cannot be read or, unless ``missing_ok``, is missing."""
    wanted = iter(keys)
    while window := list(islice(wanted, RECIPES_TOGETHER)):
        found = backend.get_many([recipe_path(key.hex()) for key in window])
        for key, (path, data) in zip(window, found, strict=True):
            if missing_ok and isinstance(data, NotFound):
                continue
            try:
                if isinstance(data, MfstoreError):
                    raise data
                recipe = decode_read(backend, path, data, partial(recipes.decode, codec=codec, expected_key=key))
            except MfstoreError as error:
                raise collection_stops(
                    error.where(key=path, backend=backend.url), "a recipe that is needed cannot be read"
                ) from None
            yield key, recipe


class LiveGroup(NamedTuple):
    """A group of which something is live."""

    csize: int
    live: int
    """Bytes of its live chunks, uncompressed."""

    def dead(self, length: int) -> int:
        """Its share of encoded bytes that nobody needs, if it decodes to so many."""
        return self.csize * (length - self.live) // length if length > self.live else 0


class Liveness:
    """How much of each pack is live."""

    def __init__(self, packs: ObjectTable, exists: Callable[[str], bool]) -> None:
        self._packs = packs
        self._exists = exists
        self.live_bytes = array("Q", bytes(8 * len(packs)))
        """Live bytes by row of ``packs``; each chunk once, also one that is but the base of a delta. A group counts
        whole, unless ``share_out`` is told how long it is."""
        self.reachable = bytearray(len(packs))
        """Whether a live recipe names the pack, by row."""
        self.lasting = bytes(len(packs))
        """The same for recipes that are live for another reason than their youth."""
        self.held = bytearray(len(packs))
        """Whether a recipe that nobody needs, and that stays all the same, names the pack, by row: a pack goes only
        after every stored recipe that places chunks in it, because any of them may still be named."""
        self.unread = ""
        """Why one of these could not be read, so that every pack stays; empty: all were."""
        self._seen: set[int] = set()
        self._groups: dict[int, LiveGroup] = {}
        """By place."""

    def add(self, key: bytes, recipe: Recipe) -> None:
        """A recipe is live. CorruptObject when a pack it needs is missing or too short."""
        packs = self._packs
        rows = []
        for name in recipe.packs:
            row = packs.rows.get(name, -1)
            # One stored since the packs were listed is no concern of this collection.
            if row < 0 and not self._exists(pack_path(name.hex())):
                raise collection_stops(
                    CorruptObject("a pack is missing", key=pack_path(name.hex())), f"the key {key.hex()} needs it"
                )
            rows.append(row)
            if row >= 0:
                self.reachable[row] = 1
        seen, live_bytes, sizes = self._seen, self.live_bytes, packs.sizes
        bases = (
            (ChunkRef(b.id, b.usize), Placement(b.pack, b.offset, b.csize, b.codec, b.width)) for b in recipe.bases
        )
        for chunk, (number, offset, csize, codec, width, _) in chain(placed_chunks(recipe), bases):
            if number == INLINE:
                continue
            row = rows[number]
            if row < 0:
                continue
            if offset + csize > sizes[row]:
                raise collection_stops(
                    CorruptObject(
                        "a pack is too short", key=pack_path(recipe.packs[number].hex()), expected=offset + csize,
                        found=sizes[row],
                    ), f"the key {key.hex()} needs it",
                )  # fmt: skip
            place = row << OFFSET_BITS | offset
            identity = place << START_BITS
            if codec == GROUP:
                identity |= width
            if identity in seen:
                continue
            seen.add(identity)
            if codec == GROUP:
                group = self._groups.get(place)
                self._groups[place] = LiveGroup(csize, chunk.usize + (group.live if group else 0))
                if group:
                    continue
            live_bytes[row] += csize

    def least_bytes(self) -> array[int]:
        """Live bytes by row if every group is as long as can be, so that the least part of it is live."""
        least = array("Q", self.live_bytes)
        for place, group in self._groups.items():
            least[place >> OFFSET_BITS] -= group.dead(GROUP_LIMIT)
        return least

    def share_out(self, name: bytes, lengths: Mapping[int, int]) -> None:
        """Groups of a pack decode to so many bytes, by their offsets: of each, as much is live as of these."""
        row = self._packs.rows[name]
        for offset, length in lengths.items():
            group = self._groups.get(row << OFFSET_BITS | offset)
            if group is not None:
                self.live_bytes[row] -= group.dead(length)

    def hold(self, recipe: Recipe) -> None:
        """A recipe that nobody needs stays: so do its packs, if they are there."""
        for name in recipe.packs:
            row = self._packs.rows.get(name, -1)
            if row >= 0:
                self.held[row] = 1

    @property
    def chunks(self) -> int:
        """Different chunks that are live."""
        return len(self._seen)

    def forget_chunks(self) -> None:
        """Free the memory that only further ``add`` would need."""
        self._seen.clear()
        self._groups.clear()


def trace(
    backend: Backend, lasting: Iterable[bytes], young: Iterable[bytes], staying: Iterable[bytes], packs: ObjectTable,
    codec: Codec, progress: Callable[[int], None],
) -> Liveness:  # fmt: skip
    """What the recipes of these keys need. Raises when one of them, or a pack, cannot be relied on. The recipes of
    ``staying`` are needed by nobody, but not deleted now: one that cannot be read only keeps every pack."""
    liveness = Liveness(packs, lambda path: backend.exists_many([path])[0])

    def add(keys: Iterable[bytes]) -> None:
        for key, recipe in read_recipes(backend, keys, codec):
            try:
                liveness.add(key, recipe)
            except CorruptObject as error:
                raise error.where(backend=backend.url) from None
            progress(1)

    add(lasting)
    liveness.lasting = bytes(liveness.reachable)
    add(young)
    wanted = iter(staying)
    while window := list(islice(wanted, RECIPES_TOGETHER)):
        found = backend.get_many([recipe_path(key.hex()) for key in window])
        for key, (path, data) in zip(window, found, strict=True):
            if isinstance(data, NotFound):
                continue
            try:
                if isinstance(data, MfstoreError):
                    raise data
                liveness.hold(decode_read(backend, path, data, partial(recipes.decode, codec=codec, expected_key=key)))
            except MfstoreError as error:
                liveness.unread = str(error.where(key=path, backend=backend.url))
            progress(1)
    return liveness
