"""Which reads bring chunks from packs to memory: few and large ones, straight to where the bytes belong. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mfstore._core.codec import NONE
from mfstore._core.memory import distance
from mfstore.format.groups import have_one_place
from mfstore.format.recipes import INLINE, ChunkRef, Placement, Recipe
from mfstore.records import NamedTuple, dataclass, field

if TYPE_CHECKING:
    from mfstore.errors import MfstoreError


class PlacedChunk(NamedTuple):
    """A chunk and where it is said to lie."""

    chunk: ChunkRef
    pack: str
    placement: Placement
    base: tuple[BasePart, ...] = ()
    """Of a delta."""


new_placed = partial(tuple.__new__, PlacedChunk)
"""From one tuple of all fields: a save makes one per chunk, in half of the time of calling the class."""


class BasePart(NamedTuple):
    """A piece of a base: so many bytes of a chunk, from ``start`` on."""

    of: PlacedChunk
    start: int
    length: int


@dataclass(slots=True, eq=False)
class Scratch:
    """Of bytes that are fetched only because a delta needs them: what became of them."""

    failure: MfstoreError | None = None
    """Why they could not be read."""
    whole: bool = False
    """Whether they are known to be what their digest says."""
    lost: MfstoreError | None = None
    """Why they are not to be had at all."""


class ChunkRead(NamedTuple):
    """One chunk to fetch: where it lies, what it is, and where its bytes go."""

    pack: str
    placement: Placement
    chunk: ChunkRef
    target: memoryview
    """Exactly ``chunk.usize`` writable bytes."""
    scratch: Scratch | None = None
    """Set for base chunks, and for deltas as they are stored: what is decoded from them is compared instead."""


@dataclass(slots=True)
class PackRead:
    """One range of a pack and the chunks in it."""

    pack: str
    start: int
    end: int
    chunks: list[ChunkRead] = field(default_factory=list)
    decoded: int = 0
    """Bytes of the chunks once decoded."""
    target: memoryview | None = None
    """Where the whole range belongs as it is, once ``in_place`` has found out."""

    def in_place(self) -> memoryview | None:
        """The memory that the range may be read straight into: when its chunks are raw and lie side by side, there and
        here."""
        at = self.start
        for wanted in self.chunks:
            placement = wanted.placement
            raw = placement.codec == NONE and not placement.width and placement.csize == wanted.chunk.usize
            if not raw or placement.offset != at:
                return None
            at += placement.csize
        self.target = _joined([wanted.target for wanted in self.chunks])
        return self.target


def _joined(views: Sequence[memoryview]) -> memoryview | None:
    """One view of what several views cover, when they follow each other in the same memory."""
    first = views[0]
    if len(views) == 1:
        return first
    memory: Any = first.obj
    whole = memoryview(memory).cast("B")
    start = at = distance(whole, first)
    for view in views:
        if view.obj is not memory or distance(whole, view) != at:
            return None
        at += len(view)
    return whole[start:at]


def plan_reads(chunks: Iterable[ChunkRead], gap: int, span: int) -> list[PackRead]:
    """Coalesce chunks into reads: those of one pack with up to ``gap`` bytes between them, as long as neither what is
    read nor what it decodes to is longer than ``span``. Those of one group are in one read, in the order of the group,
    whatever it decodes to: it is read and decoded once. But one that comes again, as zeros do, may be gigabytes."""
    reads: list[PackRead] = []
    current: PackRead | None = None
    for wanted in in_order(chunks):
        start, end = wanted.placement.offset, wanted.placement.offset + wanted.placement.csize
        if current is None or (
            not _goes_on(current.chunks[-1], wanted)
            and (
                current.pack != wanted.pack
                or start > current.end + gap
                or max(end, current.end) - current.start > span
                or current.decoded + wanted.chunk.usize > span
            )
        ):
            current = PackRead(wanted.pack, start, end)
            reads.append(current)
        current.end = max(current.end, end)
        current.chunks.append(wanted)
        current.decoded += wanted.chunk.usize
    return reads


def in_order(chunks: Iterable[ChunkRead]) -> list[ChunkRead]:
    """Chunks in the order of their places."""
    return sorted(chunks, key=lambda wanted: (wanted.pack, wanted.placement.offset, wanted.placement.width))


def _goes_on(one: ChunkRead, other: ChunkRead) -> bool:
    """Whether a chunk lies in the same group as the one before it, and behind that."""
    return in_one_group(one, other) and one.placement.width < other.placement.width


def in_one_group(one: ChunkRead, other: ChunkRead) -> bool:
    """Whether two chunks are said to lie in the same group."""
    return one.pack == other.pack and have_one_place(one.placement, other.placement)


def by_place(chunks: Sequence[ChunkRead]) -> Iterator[Sequence[ChunkRead]]:
    """Chunks in the order of their places: those of one group together, each other by itself."""
    first = 0
    while first < len(chunks):
        last = first + 1
        while last < len(chunks) and in_one_group(chunks[first], chunks[last]):
            last += 1
        yield chunks[first:last]
        first = last


def raw_run(recipe: Recipe, first: int, count: int) -> tuple[str, int] | None:
    """Pack and offset of chunks ``first`` to ``first + count`` when they are raw and lie back to back, else None."""
    placements = recipe.placements[first : first + count]
    if not placements or placements[0].pack == INLINE:
        return None
    at, pack = placements[0].offset, placements[0].pack
    for placement in placements:
        if placement.codec != NONE or placement.width or placement.pack != pack or placement.offset != at:
            return None
        at += placement.csize
    return recipe.packs[pack].hex(), placements[0].offset
