"""Keys from one store to another, a bounded number at a time: what the destination lacks of their chunks, and then
their recipes. To the destination a copy is a save: the order of its writes, and what it may rely on, are the same."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from mfstore._core.codec import DELTAS, PCODEC
from mfstore.copying.packing import CopiedPacks
from mfstore.copying.places import (
    BASE,
    WHOLE_FROM,
    Place,
    Use,
    bases_of,
    goes_whole,
    ids_of,
    loads,
    needs_of,
    placement_of,
    plan_fetches,
)
from mfstore.copying.presence import present
from mfstore.copying.reading import gone
from mfstore.copying.recipes import rewritten
from mfstore.copying.selection import RECIPES
from mfstore.errors import MfstoreError, NotFound
from mfstore.format.packs import PackPiece, pack_path, place_of, told_chunks
from mfstore.format.recipes import INLINE, ChunkRef, Placement, recipe_path
from mfstore.loading.reads import PlacedChunk
from mfstore.maintenance.store.groups import by_place
from mfstore.progress import METER
from mfstore.records import dataclass, field
from mfstore.saving.counterparts import BasePiece
from mfstore.saving.dedup import StoredChunks
from mfstore.saving.guard import Names
from mfstore.saving.ingest import WrittenFragment, remember
from mfstore.saving.packing import PACK_SHARE

if TYPE_CHECKING:
    from mfstore.backends.base import Batch
    from mfstore.copying.places import Needs, Wanted
    from mfstore.copying.reading import Source
    from mfstore.format.digests import Key
    from mfstore.format.fragments import Location
    from mfstore.format.packs import PackEntry
    from mfstore.format.recipes import Recipe
    from mfstore.handle import Handle
    from mfstore.saving.guard import Condemned

Item = TypeVar("Item")

ASKED_TOGETHER = 256
"""Recipes asked for at a time: one in S3 takes up to 256 KiB."""
WINDOW_RECIPES = 4096
"""Recipes that are copied together, so that what they share is looked for and read once."""
WINDOW_BYTES = 32 << 20
"""Bytes of these."""
WINDOW_CHUNKS = 1 << 16
"""Chunks that they place: some 4 GiB, of which 30 MiB are remembered meanwhile."""
CHECKPOINT = 256 << 20
"""Bytes of packs after which the index is told of them before their recipes are there: who is killed and runs it again
finds them, and sends no more than so many bytes twice."""
LAYOUTS_TOGETHER = 8
"""Trailers asked for at a time: what they tell is remembered of some packs only."""


@dataclass(slots=True)
class Tally:
    """What a copy has done so far."""

    keys: int = 0
    there: int = 0
    chunks: int = 0
    packs_whole: int = 0
    objects: int = 0
    sent: int = 0
    by_key: dict[Key, int] = field(default_factory=dict)
    """Bytes sent for each key that was copied."""
    packs: dict[Key, bytes] = field(default_factory=dict)
    """What each key relies on at the destination: names of packs, back to back."""


class Transfer:
    """Copies keys. ``target`` may be read, and unless it is a ``dry_run`` written to."""

    def __init__(self, source: Source, target: Handle, dry_run: bool) -> None:
        self.tally = Tally()
        self._source = source
        self._target = target
        self._dry_run = dry_run
        self._recipes: list[tuple[Key, Recipe]] = []
        self._there: list[tuple[Key, bytes]] = []
        self._bytes = 0
        self._chunks = 0
        self._may_go: Container[Key] = ()
        self._planned: set[bytes] = set()
        """Of a dry run: the chunks that would have been copied by now, by the first half of their ids."""

    def copy(self, keys: Sequence[Key], may_go: Container[Key] = ()) -> None:
        """Copy these, or tell what that would send. Those that ``may_go`` are left out if they have gone."""
        self._may_go = may_go
        is_there = self._target.description is not None
        paths = {key: recipe_path(key) for key in keys}
        listed = present(self._target.backend, RECIPES, paths.values()) if is_there else set()
        for some in _together(keys, ASKED_TOGETHER):
            found = [key for key in some if listed is None or paths[key] in listed]
            missing = [key for key in some if listed is not None and paths[key] not in listed]
            if found:
                read = self._target.backend.get_many([paths[key] for key in found])
                for key, (_, data) in zip(found, read, strict=True):
                    if isinstance(data, NotFound):
                        missing.append(key)
                    elif isinstance(data, MfstoreError):
                        raise data
                    else:
                        self._there.append((key, data))
                        self._bytes += len(data)
            for key, recipe in self._read(missing):
                self._recipes.append((key, recipe))
                self._bytes += recipe.stored
                self._chunks += len(recipe.placements)
                self._flush_if_full()
            self._flush_if_full()
        self._flush()
        if not self._dry_run and self.tally.objects:
            self._target.context.chunk_index.compact()

    def _read(self, keys: Iterable[Key]) -> Iterator[tuple[Key, Recipe]]:
        """The recipes of the source. NotFound for one that is not there, and may not go."""
        wanted = list(keys)
        if not wanted:
            return
        handle = self._source.handle
        handle.require_signed(wanted)
        paths = [recipe_path(key) for key in wanted]
        for key, (_, data) in zip(wanted, handle.backend.get_many(paths), strict=True):
            if isinstance(data, NotFound):
                if key in self._may_go:
                    continue
                raise gone(key, handle.backend.url)
            yield key, handle.decode(key, data)

    def _flush_if_full(self) -> None:
        full = len(self._recipes) + len(self._there) >= WINDOW_RECIPES
        if full or self._bytes >= WINDOW_BYTES or self._chunks >= WINDOW_CHUNKS:
            self._flush()

    def _flush(self) -> None:
        recipes, there = self._recipes, self._there
        self._recipes, self._there, self._bytes, self._chunks = [], [], 0, 0
        if not recipes and not there:
            return
        condemned = self._target.guard.condemned()
        with self._target.backend.batch() as batch:
            stored = StoredChunks(self._target.context, batch, condemned)
            recipes += self._read(self._unreliable(stored, there))
            chunks, bases = ids_of(recipes)
            stored.look_up(chunks | bases)
            wholes = {
                chunk_id: at for chunk_id in bases
                if (at := stored.located.get(chunk_id)) is not None and at.codec not in DELTAS
            }  # fmt: skip
            needs = needs_of(recipes, stored.located, wholes)
            if self._dry_run:
                self._count(recipes, needs)
                return
            Window(self._source, self._target, batch, stored, condemned, self.tally).copy(recipes, needs, wholes)

    def _unreliable(self, stored: StoredChunks, there: Iterable[tuple[Key, bytes]]) -> list[Key]:
        """Which keys cannot be relied on as they are stored at the destination: condemned, or damaged."""
        there = list(there)
        again = []
        if there and self._target.backend.capabilities.remote:
            self._read_trailers(there)
        for key, data in there:
            before = len(stored.relied.packs)
            if stored.has_recipe(bytes.fromhex(key), data):
                self.tally.there += 1
                self.tally.packs[key] = bytes(stored.relied.packs[before:])
            else:
                again.append(key)
        return again

    def _read_trailers(self, there: Iterable[tuple[Key, bytes]]) -> None:
        """Read together what is asked of each pack that recipes name: one after the other would take as many round
        trips."""
        packs: dict[bytes, None] = {}
        for key, data in there:
            with suppress(MfstoreError):  # it is copied again
                packs |= dict.fromkeys(self._target.decode(key, data).packs)
        self._target.context.reliance.layouts([pack.hex() for pack in packs])

    def _count(self, recipes: Sequence[tuple[Key, Recipe]], needs: Needs) -> None:
        """Of a dry run."""
        tally = self.tally
        sizes = dict.fromkeys((key for key, _ in recipes), 0)
        fresh = 0
        for pack, wanted in needs.packs.items():
            for together in by_place(wanted.entries.values()):
                new = [entry for entry in together if entry.id[:16] not in self._planned]
                if new:
                    self._planned.update(entry.id[:16] for entry in new)
                    at = place_of(new[0].offset, new[0].codec, new[0].width)
                    sizes[needs.uses[Place(pack, at)][0].key] += new[0].csize
                    tally.chunks += len(new)
                    fresh += new[0].csize
        limit = self._target.context.memory // PACK_SHARE
        tally.objects += len(recipes) + -(-fresh // limit)
        for key, recipe in recipes:
            sizes[key] += recipe.stored
            tally.keys += 1
        tally.by_key.update(sizes)
        tally.sent += sum(sizes.values())


class Window:
    """Some recipes, copied together and acknowledged together."""

    def __init__(
        self, source: Source, target: Handle, batch: Batch, stored: StoredChunks, condemned: Condemned, tally: Tally
    ) -> None:  # fmt: skip
        self._source = source
        self._target = target
        self._context = target.context
        self._batch = batch
        self._stored = stored
        self._condemned = condemned
        self._tally = tally
        self._packs = CopiedPacks(target.context, batch)
        self._fragments: list[WrittenFragment] = []
        self._noted = 0
        """Bytes of packs that the index was told of."""
        self._deltas: dict[bytes, Use] = {}
        """Deltas that lie in packs now, by id."""
        self._bytes: dict[Key, int] = {}
        self._meter = METER.get()

    def copy(self, recipes: Sequence[tuple[Key, Recipe]], needs: Needs, wholes: dict[bytes, Location]) -> None:
        """Store what the recipes need, and them. ``wholes`` learns where base chunks lie."""
        self._bytes = dict.fromkeys((key for key, _ in recipes), 0)
        located = self._stored.located
        if self._meter is not None:
            chunks = sum(wanted.csize for wanted in needs.packs.values())
            self._meter.expect(chunks + sum(recipe.stored for _, recipe in recipes))
        lost: dict[Key, set[int]] = {}
        failed: dict[bytes, Use] = {}
        for key, recipe in recipes:
            for number, chunk in self._source.bad_inline(recipe).items():
                lost.setdefault(key, set()).add(number)
                if chunk.id not in located:
                    failed[chunk.id] = Use(key, recipe, number, chunk)
        doubtful = self._source.bad_deltas(needs.deltas)
        for use in doubtful:
            if placement_of(use).pack != INLINE:
                needs.leave(use)
        failed |= self._move(needs, wholes)
        # Without its base a delta is nothing: the chunk goes whole.
        for use in [*doubtful, *(use for use in needs.deltas if not bases_of(use) <= wholes.keys())]:
            if placement_of(use).pack == INLINE:
                lost.setdefault(use.key, set()).add(use.number)
            failed[use.chunk.id] = use
        for chunk_id, use in failed.items():
            located[chunk_id] = self._packs.add_content(chunk_id, self._source.rescue(use))
            self._deltas.pop(chunk_id, None)
            self._bytes[use.key] += located[chunk_id].csize
        self._packs.close()
        for chunk_id, use in self._deltas.items():
            pieces = [(use.recipe.bases[piece.chunk].id, piece) for piece in placement_of(use).pieces]
            self._stored.pieces[chunk_id] = tuple(
                BasePiece(of, wholes[of], piece.start, piece.length) for of, piece in pieces
            )
        self._note_packs()
        self._commit(recipes, wholes, lost)

    # ---- chunks -----------------------------------------------------------------------

    def _move(self, needs: Needs, wholes: dict[bytes, Location]) -> dict[bytes, Use]:
        """Fetch what is needed of packs, and put it into packs here. What is not whole there, by id."""
        failed: dict[bytes, Use] = {}
        capabilities = self._source.backend.capabilities
        left = self._move_packs(needs, wholes)
        fetches = (
            fetch for pack, wanted in left.items()
            for fetch in plan_fetches(pack, wanted.entries.values(), capabilities.gap, capabilities.span)
        )  # fmt: skip
        for some in loads(fetches, self._packs.limit):
            for fetched in self._source.fetch(some):
                pack = fetched.fetch.pack
                pieces = {
                    together[0].offset: _told(needs.uses[_place(pack, together[0])][0])
                    for together in fetched.fetch.places if together[0].codec in DELTAS
                }  # fmt: skip
                self._take(needs, pack, self._packs.add(fetched, pieces), wholes)
                for number in fetched.bad:
                    for entry in fetched.fetch.places[number]:
                        for use in needs.uses[_place(pack, entry)]:
                            if use.number != BASE:
                                failed[entry.id] = use
            self._checkpoint()
        return failed

    def _move_packs(self, needs: Needs, wholes: dict[bytes, Location]) -> dict[bytes, Wanted]:
        """Copy those packs that go as they are; what is wanted of the others."""
        left = dict(needs.packs)
        large = [pack for pack, wanted in needs.packs.items() if wanted.csize >= WHOLE_FROM]
        for some in _together(large, LAYOUTS_TOGETHER):
            layouts = self._source.reliance.layouts([pack.hex() for pack in some])
            paths = [pack_path(pack.hex()) for pack in some]
            there = dict(zip(some, self._target.backend.exists_many(paths), strict=True))
            for pack in some:
                entries = layouts.get(pack.hex(), ())
                placed = self._copy_pack(pack, needs.packs[pack], entries, there[pack])
                if placed:
                    del left[pack]
                    self._take(needs, pack, placed, wholes)
                    self._checkpoint()
        return left

    def _copy_pack(
        self, pack: bytes, wanted: Wanted, entries: Sequence[PackEntry], there: bool
    ) -> list[tuple[PackEntry, Location]]:
        """Have a pack at the destination as it is, if it goes so; where its chunks lie then. Nothing when it does
        not."""
        if not entries or not goes_whole(wanted, entries):
            return []
        # Longer ones have an array that is to be mapped, which may take more memory than there is.
        if max(entry.offset for entry in entries) > self._packs.limit * 5 // 4:
            return []
        pieces = self._source.reliance.pieces(pack.hex())
        if there and not self._condemned.pack(pack):
            # Of a copy that was killed before the index was told.
            placed = [PlacedChunk(ChunkRef(e.id, e.usize), pack.hex(), _placed(e)) for e in wanted.entries.values()]
            if self._context.reliance.reliable(placed) >= {one.chunk.id for one in placed}:
                self._stored.rely({pack})
                return self._packs.learn_pack(pack, entries, pieces)
        body = self._source.fetch_pack(pack, entries)
        if body is None:
            return []
        self._tally.packs_whole += 1
        return self._packs.add_pack(body, entries, pieces)

    def _take(
        self, needs: Needs, pack: bytes, placed: Iterable[tuple[PackEntry, Location]], wholes: dict[bytes, Location]
    ) -> None:
        """Learn where chunks of a source's pack lie now."""
        located = self._stored.located
        counted: set[int] = set()
        moved = 0
        for old, at in placed:
            for use in needs.uses.get(_place(pack, old), ()):
                if use.number == BASE:
                    wholes[old.id] = at
                    located.setdefault(old.id, at)
                else:
                    located[old.id] = at
                    if at.codec in DELTAS:
                        self._deltas[old.id] = use
                    else:
                        wholes.setdefault(old.id, at)
                if old.offset not in counted:
                    counted.add(old.offset)
                    self._bytes[use.key] += old.csize
                    moved += old.csize
        if self._meter is not None:
            self._meter.moved(moved)

    # ---- what is written behind them --------------------------------------------------

    def _checkpoint(self) -> None:
        """After some bytes let who runs this again find what was stored."""
        if self._packs.written - self._noted >= CHECKPOINT:
            self._note_packs()
            self._batch.commit()

    def _note_packs(self) -> None:
        """Let the index learn the packs that were stored."""
        packs, self._packs.closed = self._packs.closed, []
        self._noted = self._packs.written
        if packs:
            told = [(name, told_chunks(entries, self._packs.pieces[name])) for name, entries in packs]
            key, data = self._context.chunk_index.make_fragment(told)
            self._batch.put(key, [data])
            self._tally.sent += len(data)
            self._fragments.append(WrittenFragment(key, data, told))

    def _commit(
        self, recipes: Sequence[tuple[Key, Recipe]], wholes: dict[bytes, Location], lost: dict[Key, set[int]]
    ) -> None:
        """Store the recipes, and make sure that all of it stays."""
        if any(map(_takes_pcodec, (recipe for _, recipe in recipes))):
            self._target.demand_pcodec()
        codec = self._context.workers.thread.codec
        keys = bytearray()
        names: dict[Key, bytes] = {}
        for key, recipe in recipes:
            parts, packs = rewritten(
                recipe, self._stored.located, self._stored.pieces, wholes, lost.get(key, ()), codec
            )
            size = sum(map(len, parts))
            self._batch.put(recipe_path(key), parts)
            if self._meter is not None:
                self._meter.moved(recipe.stored)
            keys += bytes.fromhex(key)
            names[key] = b"".join(packs)
            self._bytes[key] += size
            self._tally.sent += size
        self._batch.commit()
        wrote = Names(keys, self._packs.names)
        self._target.guard.confirm(self._condemned, wrote, self._stored.relied)
        for fragment in self._fragments:
            remember(self._context, fragment, self._packs.sizes, self._packs.pieces)
        tally = self._tally
        tally.keys += len(recipes)
        tally.objects += len(recipes) + len(self._fragments) + len(self._packs.sizes)
        tally.chunks += self._packs.chunks
        tally.sent += self._packs.written
        tally.by_key.update(self._bytes)
        tally.packs.update(names)


def _place(pack: bytes, entry: PackEntry) -> Place:
    return Place(pack, place_of(entry.offset, entry.codec, entry.width))


def _placed(entry: PackEntry) -> Placement:
    return Placement(0, entry.offset, entry.csize, entry.codec, entry.width)


def _takes_pcodec(recipe: Recipe) -> bool:
    """Whether a chunk of it, or one that a delta is against, was encoded so."""
    return any(at.codec == PCODEC for at in recipe.placements) or any(at.codec == PCODEC for at in recipe.bases)


def _told(use: Use) -> tuple[PackPiece, ...]:
    """What a delta is against, as the trailer of its pack tells it."""
    bases = use.recipe.bases
    return tuple(PackPiece(bases[piece.chunk].id, piece.start, piece.length) for piece in placement_of(use).pieces)


def _together(items: Sequence[Item], count: int) -> Iterator[Sequence[Item]]:
    """Items in order, so many at a time."""
    return (items[start : start + count] for start in range(0, len(items), count))
