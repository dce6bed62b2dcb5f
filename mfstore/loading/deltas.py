"""Deltas: what they are decoded from is fetched together with everything else, and held for as long as it is needed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from mfstore._core.codec import NONE
from mfstore._core.memory import FreshBytes
from mfstore.errors import AccessDenied, CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.packs import pack_path
from mfstore.format.recipes import INLINE, ChunkRef, Placement
from mfstore.loading.reads import BasePart, ChunkRead, PlacedChunk, Scratch, by_place, plan_reads
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.format.recipes import Recipe
    from mfstore.loading.pack_reader import PackReader
    from mfstore.loading.reads import PackRead
    from mfstore.loading.verified import VerifiedRanges

Item = TypeVar("Item")

DELTA_WINDOW = 64 << 20
"""Bytes of base chunks and encoded deltas held at a time. Far away each window is one round of requests, so that a load
of up to this much takes one, and a longer one a round for as much as takes 50 ms at 10 Gbit/s. The base chunks of one
delta take as much at most (``BASE_LIMIT``)."""
DECODED_TOGETHER = 1 << 20
"""Bytes of deltas that one task decodes: handing it over takes 30 us, decoding them 500."""


class Delta(NamedTuple):
    """One delta to load."""

    wanted: ChunkRead
    """The chunk that it is decoded to; its pack is empty when it lies in its recipe."""
    base: tuple[BasePart, ...]
    inline: memoryview | bytes
    """Its bytes when it lies in its recipe."""
    verify: bool
    source: tuple[Recipe, int] | None = None
    """The recipe that places it, and its number there."""


def placed_base(recipe: Recipe, number: int) -> PlacedChunk:
    """A base chunk of a recipe."""
    base = recipe.bases[number]
    at = Placement(0, base.offset, base.csize, base.codec, base.width)
    return PlacedChunk(ChunkRef(base.id, base.usize), recipe.packs[base.pack].hex(), at)


def base_parts(recipe: Recipe, number: int, bases: dict[int, PlacedChunk]) -> tuple[BasePart, ...]:
    """The base of the delta that a chunk of a recipe is. ``bases`` remembers base chunks, by their numbers."""
    parts = []
    for piece in recipe.placements[number].pieces:
        if (base := bases.get(piece.chunk)) is None:
            base = bases[piece.chunk] = placed_base(recipe, piece.chunk)
        parts.append(BasePart(base, piece.start, piece.length))
    return tuple(parts)


def delta_of(
    recipe: Recipe, number: int, chunk: ChunkRef, target: memoryview, verify: bool, bases: dict[int, PlacedChunk]
) -> Delta:
    """A chunk of a recipe that is a delta."""
    at, pack, inline = recipe.placements[number], "", memoryview(b"")
    if at.pack == INLINE:
        inline = memoryview(recipe.inline)[at.offset : at.offset + at.csize]
    else:
        pack = recipe.packs[at.pack].hex()
    return Delta(
        ChunkRead(pack, at, chunk, target), base_parts(recipe, number, bases), inline, verify, (recipe, number)
    )


def together(
    items: Iterable[Item], needs: Callable[[Item], Mapping[Hashable, int]], limit: int
) -> Iterator[list[Item]]:
    """``items`` in order, as many at a time as need up to ``limit`` bytes together, and at least one. ``needs`` tells
    of each what it needs, with its bytes; what several need counts once."""
    group: list[Item] = []
    held: set[Hashable] = set()
    size = 0
    for item in items:
        needed = needs(item)
        more = sum(length for what, length in needed.items() if what not in held)
        if group and size + more > limit:
            yield group
            group, held, size = [], set(), 0
            more = sum(needed.values())
        group.append(item)
        held.update(needed)
        size += more
    if group:
        yield group


def plan_windows(deltas: Iterable[Delta]) -> list[list[Delta]]:
    """Deltas to be decoded together, in an order in which those that share base chunks are neighbours."""
    ordered = sorted(deltas, key=lambda delta: (delta.base[0].of.pack, delta.base[0].of.placement.offset))
    return list(together(ordered, _needs, DELTA_WINDOW))


def _needs(delta: Delta) -> dict[Hashable, int]:
    """Base chunks, and the delta's own bytes, which are for it alone, unless they lie in its recipe."""
    needed: dict[Hashable, int] = {part.of: part.of.chunk.usize for part in delta.base}
    if delta.wanted.pack:
        needed[id(delta)] = delta.wanted.placement.csize
    return needed


class DeltaWindow:
    """Memory for what some deltas are decoded from, and their decoding. Base chunks that the window ``before`` had, and
    that are needed again, are not fetched again."""

    def __init__(
        self, reader: PackReader, verified: VerifiedRanges, deltas: Sequence[Delta], before: DeltaWindow | None = None
    ) -> None:
        self.deltas = deltas
        self.reads: list[ChunkRead] = []
        """What is to be fetched: base chunks, and deltas as they are stored."""
        self._reader = reader
        self._verified = verified
        self._bases: dict[PlacedChunk, ChunkRead] = {}
        self._encoded: dict[int, ChunkRead] = {}
        for number, delta in enumerate(deltas):
            for part in delta.base:
                if part.of not in self._bases:
                    had = before._bases.get(part.of) if before is not None else None
                    self._bases[part.of] = had or self._scratch(part.of)
            if delta.wanted.pack:
                at = delta.wanted.placement
                stored = PlacedChunk(
                    ChunkRef(b"", at.csize), delta.wanted.pack, Placement(0, at.offset, at.csize, NONE, 0)
                )
                self._encoded[number] = self._scratch(stored)

    def _scratch(self, placed: PlacedChunk) -> ChunkRead:
        memory = memoryview(FreshBytes(placed.chunk.usize))
        read = ChunkRead(placed.pack, placed.placement, placed.chunk, memory, Scratch())
        self.reads.append(read)
        return read

    def read_alone(self) -> None:
        """Fetch what is to be fetched, together with nothing else; what cannot be read is noted."""
        reader = self._reader
        reads = plan_reads(self.reads, reader.backend.capabilities.gap, reader.backend.capabilities.span)

        def work(read: PackRead, data: Buffer | MfstoreError | None = None) -> None:
            try:
                if isinstance(data, MfstoreError):
                    raise data
                if data is None:
                    reader.read(read.pack, read.start, read.end, read.chunks, False)
                elif read.target is None:
                    reader.decode(read.chunks, read.start, data)
            except (AccessDenied, CorruptObject, NotFound, Unsupported):
                for together in by_place(read.chunks):
                    for wanted, error in reader.read_each(together, False):
                        scratch_of(wanted).failure = error

        if reader.remote:
            reader.read_remote(reads, work)
        else:
            reader.workers.map(work, reads, sum(read.chunk.usize for read in self.reads))

    def bases(self, delta: Delta) -> list[ChunkRead]:
        """The base chunks of one of the deltas, each once."""
        return [self._bases[base] for base in dict.fromkeys(part.of for part in delta.base)]

    def decode_all(self) -> list[int]:
        """Decode the deltas, once everything was fetched. The numbers, in the window, of those that could not be."""
        tasks: list[list[int]] = []
        size = DECODED_TOGETHER
        for number, delta in enumerate(self.deltas):
            if size >= DECODED_TOGETHER:
                tasks.append([])
                size = 0
            tasks[-1].append(number)
            size += delta.wanted.chunk.usize

        def work(task: list[int]) -> list[int]:
            return [number for number in task if self.decode(number) is not None]

        total = sum(delta.wanted.chunk.usize for delta in self.deltas)
        return [number for failed in self._reader.workers.map(work, tasks, total) for number in failed]

    def decode(self, number: int, encoded: Buffer | None = None) -> MfstoreError | None:
        """Decode one delta into its place and compare it with its digest, as far as that is asked for: what is wrong
        with it. ``encoded`` are its bytes when it was read again."""
        delta = self.deltas[number]
        wanted, reader = delta.wanted, self._reader
        needed = self.bases(delta)
        if encoded is None:
            encoded = delta.inline
            if (stored := self._encoded.get(number)) is not None:
                needed.append(stored)
                encoded = stored.target
        for read in needed:
            if (failure := scratch_of(read).failure) is not None:
                return failure
        at = wanted.placement
        try:
            reader.workers.thread.codec.decode_delta(encoded, self._base(delta), at.codec, at.width, wanted.target)
            if delta.verify or self._is_doubtful(delta):
                reader.check(
                    wanted.chunk, wanted.target, pack_path(wanted.pack) if wanted.pack else "recipe", at.offset
                )
        except (CorruptObject, Unsupported) as error:
            return error
        return None

    def lost_base(self, delta: Delta) -> ChunkRead | None:
        """The first base chunk of one of the deltas that is not what its digest says, if any."""
        return next((base for base in self.bases(delta) if not self.is_whole(base)), None)

    def is_whole(self, base: ChunkRead) -> bool:
        """Whether a base chunk was read and is what its digest says."""
        state = scratch_of(base)
        if not state.whole:
            state.whole = state.failure is None and self._reader.digest(base.target) == base.chunk.id
        return state.whole

    def _base(self, delta: Delta) -> memoryview | bytes:
        parts = [self._bases[part.of].target[part.start : part.start + part.length] for part in delta.base]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _is_doubtful(self, delta: Delta) -> bool:
        """Whether something that it is decoded from is known to be damaged."""
        if not self._verified.met_damage:
            return False
        packs = {part.of.pack for part in delta.base} | ({delta.wanted.pack} if delta.wanted.pack else set())
        return any(self._verified.is_damaged(pack, pack_path(pack)) for pack in packs)


def scratch_of(read: ChunkRead) -> Scratch:
    """Of a read that is for a delta."""
    assert read.scratch is not None
    return read.scratch
