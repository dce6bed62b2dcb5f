"""Moving what is needed out of packs that are mostly dead.

Order: new pack, index fragment, recipes one by one, each only if it still is what was read. The old pack is condemned
afterwards like anything else nobody needs, so readers of older recipes find it for a grace period more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mfstore._core.codec import DELTAS, GROUP, NONE, Codec, delta_seal_is_right
from mfstore.backends.base import RangeRead, decode_read
from mfstore.errors import Conflict, CorruptObject, MfstoreError, NotFound
from mfstore.format import recipes
from mfstore.format.fragments import encode_fragment, fragment_key
from mfstore.format.packs import (
    NO_PIECES,
    PAGE,
    PackBuilder,
    PackEntry,
    entry_of,
    entry_of_base,
    pack_path,
    told_chunks,
)
from mfstore.format.recipes import INLINE, BaseChunk, Placement, Recipe, placed_chunks, recipe_path
from mfstore.maintenance.store.checking.trailers import read_trailers
from mfstore.maintenance.store.checking.unread import Unread
from mfstore.maintenance.store.collecting.liveness import read_recipes
from mfstore.maintenance.store.collecting.plan import PackToRewrite
from mfstore.maintenance.store.groups import by_place, decode_group, move_group, part_of, start_of

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.format.digests import Digest
    from mfstore.format.packs import Pieces
    from mfstore.host.workers import Workers

PlaceT = TypeVar("PlaceT", Placement, BaseChunk)

PACK_BYTES = 64 << 20
"""A new pack is closed at this length; as large as a save makes them by default."""


class OldPlace(NamedTuple):
    """Where a chunk began."""

    pack: bytes
    offset: int
    start: int
    """In its group; 0 if it was in none."""


class NewPlace(NamedTuple):
    """Where a chunk is now."""

    pack: bytes
    entry: PackEntry


class OldLayout(NamedTuple):
    """What the trailers of old packs tell."""

    order: Mapping[OldPlace, int]
    """In which order they list their chunks: those of a group lie together, and come with others between them."""
    pieces: Mapping[bytes, Mapping[int, Pieces]]
    """What their deltas are against, by pack and where they lie."""


@dataclass(frozen=True, slots=True)
class MovedChunks:
    """Where chunks are now."""

    targets: Mapping[OldPlace, NewPlace]
    """By where they were."""
    packs: Sequence[bytes]
    """The packs they were in, of which all chunks that were asked for have moved."""


class Repacker:
    """Rewrites the packs of one plan. ``hold`` is called before each step and raises when this collector must stop."""

    def __init__(
        self, backend: Backend, workers: Workers, digest: Digest, algorithm: int, hold: Callable[[], None]
    ) -> None:
        self._backend = backend
        self._workers = workers
        self._codec = workers.thread.codec
        self._digest = digest
        self._algorithm = algorithm
        self._hold = hold
        self.written = 0
        """Bytes of the packs written."""

    def run(self, plan: Sequence[PackToRewrite], keys: Iterable[bytes]) -> list[bytes]:
        """Rewrite the packs of ``plan`` for the recipes among ``keys``; returns the packs that none of these names any
        more. One whose chunks are damaged is left as it is."""
        wanted = {entry.pack for entry in plan}
        chunks: dict[bytes, dict[tuple[int, int], PackEntry]] = {name: {} for name in wanted}
        users: list[bytes] = []
        for key, recipe in read_recipes(self._backend, keys, self._codec):
            if wanted.isdisjoint(recipe.packs):
                continue
            users.append(key)
            needed = [(at.pack, entry_of(chunk, at)) for chunk, at in placed_chunks(recipe) if at.pack != INLINE]
            for number, entry in [*needed, *((base.pack, entry_of_base(base)) for base in recipe.bases)]:
                if recipe.packs[number] in wanted:
                    chunks[recipe.packs[number]][entry.offset, start_of(entry.codec, entry.width)] = entry
        sizes = {entry.pack: entry.size for entry in plan}
        left = [entry.pack for entry in plan]
        still_named: set[bytes] = set()
        while left:
            some: list[bytes] = []
            size = 0
            while left and (not some or size < PACK_BYTES):
                some.append(left.pop(0))
                size += sum(together[0].csize for together in by_place(chunks[some[-1]].values()))
            moved = self._move(
                {name: chunks[name] for name in some}, self._layout({name: sizes[name] for name in some})
            )
            still_named |= set(some) - set(moved.packs)
            still_named |= self._point(users, moved)
        return [entry.pack for entry in plan if entry.pack not in still_named]

    def _layout(self, sizes: Mapping[bytes, int]) -> OldLayout:
        """What the trailers of these packs, of so many bytes, tell, as far as they can be read."""
        order: dict[OldPlace, int] = {}
        pieces: dict[bytes, Mapping[int, Pieces]] = {}
        for name, found in read_trailers(self._backend, self._workers, self._digest, sizes, Unread(), pieces):
            if not isinstance(found, MfstoreError):
                for entry in found:
                    order[OldPlace(name, entry.offset, start_of(entry.codec, entry.width))] = len(order)
        return OldLayout(order, pieces)

    def _move(self, chunks: Mapping[bytes, Mapping[tuple[int, int], PackEntry]], layout: OldLayout) -> MovedChunks:
        """Store the chunks of these packs again, in one or more packs, and list them in the index. New packs list them
        in the order of old ones, in which later saves look for what lay beside what, and tell of deltas what they did:
        a base is named by what it is, wherever it lies."""
        order = layout.order
        builder = PackBuilder(self._algorithm)
        unclosed: dict[OldPlace, PackEntry] = {}
        targets: dict[OldPlace, NewPlace] = {}
        done: list[tuple[bytes, list[PackEntry]]] = []
        good: list[bytes] = []

        def close() -> None:
            nonlocal builder
            if builder.entries:
                self._hold()
                places = sorted(unclosed, key=lambda place: order.get(place, len(order)))
                builder.entries = [unclosed[place] for place in places]
                name, parts = builder.close(self._digest)
                self._backend.put(pack_path(name), parts)
                self.written += sum(memoryview(part).nbytes for part in parts)
                done.append((builder.name.value, told_chunks(builder.entries, builder.pieces)))
                new = builder.name.value
                targets.update({origin: NewPlace(new, entry) for origin, entry in unclosed.items()})
            unclosed.clear()
            builder = PackBuilder(self._algorithm)

        for name, wanted in chunks.items():
            try:
                for run in _runs(by_place(wanted.values())):
                    held = self.read(name, run)
                    if builder.length >= PACK_BYTES:
                        close()
                    before = len(builder.entries)
                    if run[0].codec == GROUP:
                        move_group(builder, self._codec, held, run)
                    else:
                        # A raw run that could be mapped still can.
                        if run[0].codec == NONE and run[0].offset % PAGE == 0:
                            builder.align()
                        builder.add(held, [(e.id, e.csize, e.usize) for e in run], run[0].codec, run[0].width, True)
                    pieces = layout.pieces.get(name, NO_PIECES)
                    for old, entry in zip(run, builder.entries[before:], strict=True):
                        if old.codec in DELTAS and old.offset in pieces:
                            builder.pieces[entry.offset] = pieces[old.offset]
                        unclosed[OldPlace(name, old.offset, start_of(old.codec, old.width))] = entry
            except (CorruptObject, NotFound):
                continue  # verify reports it
            good.append(name)
        close()
        if done:
            self._hold()
            fragment = encode_fragment(done, self._algorithm, True)
            self._backend.put(fragment_key(self._digest(fragment), time.time()), [fragment])
        return MovedChunks(targets, good)

    def read(self, pack: bytes, run: Sequence[PackEntry]) -> memoryview:
        """The encoded bytes of a run, each chunk checked: what is moved must not be damage."""
        start, end = run[0].offset, run[-1].offset + run[-1].csize
        path = pack_path(pack.hex())
        ((_, data),) = self._backend.read_many([RangeRead(path, start, end - start)])
        if isinstance(data, MfstoreError):
            raise data
        view = memoryview(data).cast("B")
        content = memoryview(b"")
        if run[0].codec == GROUP:
            content, _ = decode_group(self._codec, view, run, lambda size: memoryview(bytearray(size)))
        for entry in run:
            at = entry.offset - start
            if entry.codec in DELTAS:
                # As it lay: it is told to be what was stored by its seal, and goes on with the base it had.
                if not delta_seal_is_right(view[at : at + entry.csize]):
                    raise CorruptObject("delta is damaged", key=path, offset=entry.offset)
                continue
            if entry.codec == GROUP:
                out: bytearray | memoryview = part_of(content, entry)
            else:
                out = bytearray(entry.usize)
                self._codec.decode(view, out, [(at, entry.csize, entry.codec, entry.width, 0, entry.usize)])
            if self._digest(out) != entry.id:
                raise CorruptObject("chunk differs from its digest", key=path, offset=entry.offset)
        return view

    def _point(self, keys: Sequence[bytes], moved: MovedChunks) -> set[bytes]:
        """Let the recipes name where their chunks are now. Returns the old packs that some recipe goes on naming."""
        still_named: set[bytes] = set()
        old = set(moved.packs)
        for key in keys:
            path = recipe_path(key.hex())
            self._hold()
            data, etag = self._backend.get_tagged(path)
            recipe = decode_read(
                self._backend, path, data, partial(recipes.decode, codec=self._codec, expected_key=key)
            )
            mine = old.intersection(recipe.packs)
            if not mine:
                continue
            parts = repoint(recipe, moved, self._codec)
            if parts is None:
                still_named |= mine
                continue
            try:
                self._backend.put_if(path, b"".join(parts), etag)
            except Conflict:
                still_named |= mine  # somebody stored it again meanwhile
        return still_named


def repoint(recipe: Recipe, moved: MovedChunks, codec: Codec) -> list[bytes | memoryview] | None:
    """The recipe with where its chunks and base chunks are now; None when it needs something from an old pack that was
    not moved."""
    packs: dict[bytes, int] = {}
    old = set(moved.packs)

    def now(place: PlaceT) -> PlaceT | None:
        """Where a chunk of the recipe is that it places there."""
        name = recipe.packs[place.pack]
        if name not in old:
            return place._replace(pack=packs.setdefault(name, len(packs)))
        target = moved.targets.get(OldPlace(name, place.offset, start_of(place.codec, place.width)))
        if target is None:
            return None
        number, entry = packs.setdefault(target.pack, len(packs)), target.entry
        return place._replace(
            pack=number, offset=entry.offset, csize=entry.csize, codec=entry.codec, width=entry.width
        )  # fmt: skip

    placements = []
    for placement in recipe.placements:
        moved_to = placement if placement.pack == INLINE else now(placement)
        if moved_to is None:
            return None
        placements.append(moved_to)
    bases = []
    for base in recipe.bases:
        base_now = now(base)
        if base_now is None:
            return None
        bases.append(base_now)
    return recipes.encode(
        recipe.algorithm, recipe.content, recipe.about, list(packs), placements, [recipe.inline], codec, bases
    )


def _runs(places: Iterable[Sequence[PackEntry]]) -> Iterator[list[PackEntry]]:
    """Chunks that lie back to back and are encoded alike, or in one group."""
    run: list[PackEntry] = []
    for together in places:
        entry = together[0]
        if run and (
            entry.offset != run[-1].offset + run[-1].csize
            or (entry.codec, entry.width) != (run[0].codec, run[0].width)
            or entry.offset + entry.csize - run[0].offset > PACK_BYTES
            or GROUP in (entry.codec, run[0].codec)
        ):
            yield run
            run = []
        run += together
    if run:
        yield run
