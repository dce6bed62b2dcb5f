"""Which bytes of an older artifact a new chunk may be stored as a delta against: its counterpart. Pure planning.

The older artifact is the *base*: the one of the same name in the recipe that a save names. Segments are paired, and
within a pair what both have (chunks of equal id) says how far the rest has moved. A delta is never made against a
delta: of a chunk that is one, the bytes that it was made against are taken in its place.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from mfstore._core.chunk import LONG_ROW
from mfstore.format.fragments import Location
from mfstore.format.packs import PackName
from mfstore.format.recipes import INLINE
from mfstore.records import NamedTuple, dataclass, field

if TYPE_CHECKING:
    from mfstore.format.recipes import Artifact, Recipe
    from mfstore.saving.drafts import Stream

FURTHER = 256
"""Segments that are looked at beyond as many as are new in a row: of 8000 segments whose order has changed, each row
of new ones would look at all others, for 6 s instead of 0.4."""
LONGEST_BASE = 4
"""The bytes before a chunk that are taken for its counterpart are at most this many times its own length, or of AROUND
where that is more: what an encoder has to look through costs as much as what it encodes."""
AROUND = 1 << 10
"""Where a part of a delta comes from in its own base is told by their lengths, if what was inserted and removed before
it is no longer than this."""
SHIFT_LIMIT = 64 << 10
"""Without equal chunks to tell by, lengths that differ by up to this (a chunk) say how far the rest may have moved."""


IN_RECIPE = PackName()
"""In the place of a pack: of what lies in the recipe of the base."""


class BasePiece(NamedTuple):
    """Bytes of a chunk that is stored whole in a pack."""

    id: bytes
    at: Location
    start: int
    length: int


class StoredAs(NamedTuple):
    """How a chunk of the base is stored: where, and against which bytes if that is a delta."""

    at: Location
    pieces: tuple[BasePiece, ...] = ()
    data: memoryview | bytes = b""
    """The bytes of what lies in the recipe."""


class Counterpart(NamedTuple):
    """What a new chunk may be stored as a delta against."""

    pieces: tuple[BasePiece, ...]
    length: int
    """Bytes of all pieces."""
    aligned: bool
    """Whether each byte of the chunk has its counterpart at the same offset of the pieces."""
    spent: int
    """Bytes that the base takes for it in deltas against the same pieces; 0 when all of it is stored whole."""
    anchored: bool
    """Whether equal chunks say that it lies there."""


class Anchor(NamedTuple):
    """A chunk that a new stream and its base both have."""

    start: int
    end: int
    old: int
    """Where it begins in the base."""


class Range(NamedTuple):
    """Bytes of a stream of the base that are the counterpart of some new ones."""

    start: int
    end: int
    exact: bool
    """Whether each byte's counterpart is at the same distance, and none is missing."""
    anchored: bool


class Shape(NamedTuple):
    """What segments are paired by."""

    kind: int
    itemsize: int
    row: int
    length: int


@dataclass(slots=True)
class BaseStream:
    """The body or a segment of the base, with how each of its chunks is stored: None where nothing can be built on."""

    shape: Shape
    starts: list[int] = field(default_factory=lambda: [0])
    """Where each chunk begins, and at last the end."""
    ids: list[bytes] = field(default_factory=list)
    stored: list[StoredAs | None] = field(default_factory=list)
    _places: dict[bytes, int] | None = None

    def add(self, chunk_id: bytes, usize: int, stored: StoredAs | None) -> None:
        """Its next chunk."""
        self.starts.append(self.starts[-1] + usize)
        self.ids.append(chunk_id)
        self.stored.append(stored)

    def place(self, chunk_id: bytes) -> int | None:
        """Where a chunk begins that is in it exactly once."""
        if self._places is None:
            self._places = {}
            for chunk, start in zip(self.ids, self.starts, strict=False):
                self._places[chunk] = -1 if chunk in self._places else start
        found = self._places.get(chunk_id, -1)
        return None if found < 0 else found


class BaseArtifact(NamedTuple):
    """One artifact of the base."""

    body: BaseStream
    segments: list[BaseStream]


class Base:
    """Stored artifacts that a save builds upon. ``usable`` tells whether a pack may be relied on.

    No delta can name what lies whole in a recipe. With ``inline`` it counts all the same, as what could be built upon
    if it lay in a pack.
    """

    def __init__(self, usable: Callable[[bytes], bool], inline: bool = False) -> None:
        self.artifacts: dict[str, BaseArtifact] = {}
        """By the names of the new ones."""
        self.chunks: dict[bytes, StoredAs] = {}
        """How each chunk is stored that lies in a pack."""
        self.deltas: dict[bytes, StoredAs] = {}
        """The same of those that are deltas in the recipe."""
        self.inline: dict[bytes, StoredAs] = {}
        """The same of those that lie whole there, if they count."""
        self._usable = usable
        self._inline = inline
        self._recipes: list[tuple[Recipe, dict[str, BaseArtifact]]] = []

    def learn(self, name: str, recipe: Recipe) -> None:
        """The artifact of that name builds upon the one that this recipe has, if it has one."""
        known = next((artifacts for other, artifacts in self._recipes if other is recipe), None)
        if known is None:
            known = self._artifacts(recipe)
            self._recipes.append((recipe, known))
        if name in known:
            self.artifacts[name] = known[name]

    def _artifacts(self, recipe: Recipe) -> dict[str, BaseArtifact]:
        artifacts: dict[str, BaseArtifact] = {}
        names = [PackName(name) for name in recipe.packs]
        good = [self._usable(name) for name in recipe.packs]
        at = 0
        for artifact in recipe.artifacts:
            stored: list[StoredAs | None] = []
            placements = recipe.placements[at : at + len(artifact.chunks)]
            for (_, usize), placement in zip(artifact.chunks, placements, strict=True):
                number, offset, csize, codec, width, pieces = placement
                bases = [recipe.bases[piece.chunk] for piece in pieces]
                needed = [base.pack for base in bases]
                data: memoryview | bytes = b""
                if number == INLINE:
                    where = Location(IN_RECIPE, offset, csize, usize, codec, width)
                    data = memoryview(recipe.inline)[offset : offset + csize]
                else:
                    where = Location(names[number], offset, csize, usize, codec, width)
                    needed.append(number)
                counts = number != INLINE or pieces or self._inline
                if not counts or not all(good[one] for one in needed):
                    stored.append(None)
                    continue
                against = tuple(
                    BasePiece(
                        base.id,
                        Location(names[base.pack], base.offset, base.csize, base.usize, base.codec, base.width),
                        piece.start,
                        piece.length,
                    )
                    for piece, base in zip(pieces, bases, strict=True)
                )
                stored.append(StoredAs(where, against, data))
            at += len(artifact.chunks)
            artifacts[artifact.name] = self._streams(artifact, stored)
        return artifacts

    def _streams(self, artifact: Artifact, stored: Sequence[StoredAs | None]) -> BaseArtifact:
        body = BaseStream(Shape(0, 1, 0, artifact.body_length))
        segments = [BaseStream(Shape(s.kind, s.itemsize, s.row, s.length)) for s in artifact.segments]
        counts = [artifact.body_chunks, *(segment.chunks for segment in artifact.segments)]
        number = 0
        for stream, count in zip((body, *segments), counts, strict=True):
            for _ in range(count):
                chunk_id, usize = artifact.chunks[number]
                found = stored[number]
                if found is not None:
                    kind = self.chunks
                    if found.at.pack is IN_RECIPE:
                        kind = self.deltas if found.pieces else self.inline
                    kind.setdefault(chunk_id, found)
                stream.add(chunk_id, usize, found)
                number += 1
        return BaseArtifact(body, segments)


# ---- which segment ----------------------------------------------------------------------


def pair_segments(
    new: Sequence[Shape], old: Sequence[Shape], votes: Sequence[int | None], first: int = 0
) -> list[int | None]:
    """For each new segment the old one it comes from. ``votes`` names the old one with which it has a chunk in common;
    what lies between two such pairs is paired in order, equal shapes first. Before all is old segment ``first``."""
    pairs = list(votes)
    taken = {number for number in votes if number is not None}
    at = 0
    while at < len(new):
        if pairs[at] is not None:
            at += 1
            continue
        stop = at
        while stop < len(new) and pairs[stop] is None:
            stop += 1
        before, after = pairs[at - 1] if at else None, pairs[stop] if stop < len(new) else None
        low = first if before is None else before + 1
        high = len(old) if after is None or after < low else after
        # One more than there are new ones at least, so that as many as before are still told.
        free = list(islice((number for number in range(low, high) if number not in taken), stop - at + FURTHER))
        for number, found in zip(range(at, stop), _in_order(new[at:stop], old, free), strict=True):
            pairs[number] = found
            if found is not None:
                taken.add(found)
        at = stop
    return pairs


def _in_order(new: Sequence[Shape], old: Sequence[Shape], free: Sequence[int]) -> list[int | None]:
    """Pairs of neighbours whose order is the same: as many as there are with one shape, the rest where it fits."""
    if len(new) == len(free):
        return [number if _kind(shape) == _kind(old[number]) else None for shape, number in zip(new, free, strict=True)]
    pairs: list[int | None] = [None] * len(new)
    _take_in_order(pairs, new, [(number, old[number]) for number in free])
    taken = set(pairs)
    _take_in_order(
        pairs, [_kind(shape) for shape in new], [(number, _kind(old[number])) for number in free if number not in taken]
    )
    return pairs


def _take_in_order(
    pairs: list[int | None], new: Sequence[Hashable], free: Sequence[tuple[int, Hashable]]
) -> None:  # fmt: skip
    """Pair what has no pair yet with the next free one that equals it, each behind the one taken before."""
    places: dict[Hashable, list[int]] = {}
    for position, (_, what) in enumerate(free):
        places.setdefault(what, []).append(position)
    used = -1
    for at, what in enumerate(new):
        if pairs[at] is not None:
            continue
        where = places.get(what, [])
        found = bisect_right(where, used)
        if found < len(where):
            used = where[found]
            pairs[at] = free[used][0]


def _kind(shape: Shape) -> tuple[int, int]:
    """What segments have in common that may come from each other."""
    return shape.kind, shape.itemsize


# ---- which bytes ------------------------------------------------------------------------


def counterpart_range(
    start: int, end: int, length: int, old_length: int, before: Anchor | None, after: Anchor | None
) -> Range | None:
    """Where new bytes ``start`` to ``end`` of a stream of ``length`` come from in one of ``old_length``, by the nearest
    chunks that both have. None: nothing there."""
    if before is not None and after is not None and after.old < before.old + before.end - before.start:
        after = None  # what has changed places: by the one before
    low = before.old + before.end - before.start if before is not None else 0
    high = after.old if after is not None else old_length
    if before is not None or after is not None:
        moved = [anchor.old - anchor.start for anchor in (before, after) if anchor is not None]
    elif abs(old_length - length) <= SHIFT_LIMIT:
        moved = [0, old_length - length]
    else:
        moved = [0]
    first, last = max(low, start + min(moved)), min(high, end + max(moved))
    if first >= last:
        return None
    exact = min(moved) == max(moved) and last - first == end - start
    return Range(first, last, exact, before is not None or after is not None)


def row_range(
    start: int, end: int, new: Shape, old: Shape, before: Anchor | None, after: Anchor | None
) -> Range | None:
    """``counterpart_range`` of streams whose long rows have changed their length: row by row."""
    row = start // new.row
    base = row * new.row
    if end > base + new.row:
        end = base + new.row
    shift = 0
    inside: list[Anchor | None] = []
    for anchor in (after, before):
        if anchor is not None:
            shift = anchor.old // old.row - anchor.start // new.row
    at = row + shift
    for anchor in (before, after):
        same = anchor is not None and anchor.start // new.row == row and anchor.old // old.row == at
        inside.append(
            Anchor(anchor.start - base, anchor.end - base, anchor.old - at * old.row) if same and anchor else None
        )
    if not 0 <= at < old.length // old.row:
        return None
    found = counterpart_range(start - base, end - base, new.row, old.row, *inside)
    if found is None:
        return None
    return Range(
        found.start + at * old.row, found.end + at * old.row, found.exact, before is not None or after is not None
    )


# ---- which stored bytes -----------------------------------------------------------------


def counterpart(stream: BaseStream, found: Range, length: int) -> Counterpart | None:
    """The stored bytes of a range, for a chunk of ``length``. None where nothing can be built on."""
    pieces: list[BasePiece] = []
    aligned = found.exact and found.end - found.start == length
    spent = 0.0
    number = max(bisect_right(stream.starts, found.start) - 1, 0)
    while number < len(stream.ids) and stream.starts[number] < found.end:
        start, end = stream.starts[number], stream.starts[number + 1]
        low, high = max(found.start, start) - start, min(found.end, end) - start
        stored = stream.stored[number]
        if stored is None:
            aligned = False
        elif not stored.pieces:
            pieces.append(BasePiece(stream.ids[number], stored.at, low, high - low))
        else:
            spent += stored.at.csize * (high - low) / (end - start)
            longer = sum(piece.length for piece in stored.pieces) - (end - start)
            if longer:
                aligned = False
                low, high = low + min(longer, 0) - AROUND, high + max(longer, 0) + AROUND
            pieces += part_of(stored.pieces, low, high)
        number += 1
    joined = _joined(pieces) if aligned else _united(pieces, LONGEST_BASE * max(length, AROUND))
    total = sum(piece.length for piece in joined)
    if not total:
        return None
    return Counterpart(joined, total, aligned, round(spent), found.anchored)


def part_of(pieces: Iterable[BasePiece], low: int, high: int) -> list[BasePiece]:
    """Bytes ``low`` to ``high`` of what the pieces are together."""
    part = []
    at = 0
    for piece in pieces:
        first, last = max(low, at), min(high, at + piece.length)
        if first < last:
            part.append(piece._replace(start=piece.start + first - at, length=last - first))
        at += piece.length
    return part


def _joined(pieces: Iterable[BasePiece]) -> tuple[BasePiece, ...]:
    """The same bytes in as few pieces as they can be told."""
    joined: list[BasePiece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last is not None and last.id == piece.id and last.start + last.length == piece.start:
            joined[-1] = last._replace(length=last.length + piece.length)
        else:
            joined.append(piece)
    return tuple(joined)


def _united(pieces: Sequence[BasePiece], limit: int) -> tuple[BasePiece, ...]:
    """What the pieces cover, each byte once, chunk by chunk; of more than ``limit`` bytes the middle."""
    united = list(pieces) if len({piece.id for piece in pieces}) == len(pieces) else _merged(pieces)
    longer = sum([piece.length for piece in united]) - limit
    return tuple(united if longer <= 0 else part_of(united, longer // 2, longer // 2 + limit))


def _merged(pieces: Iterable[BasePiece]) -> list[BasePiece]:
    covers: dict[bytes, list[BasePiece]] = {}
    for piece in pieces:
        covers.setdefault(piece.id, []).append(piece)
    united: list[BasePiece] = []
    for parts in covers.values():
        first = len(united)
        for piece in sorted(parts, key=lambda piece: piece.start):
            last = united[-1] if len(united) > first else None
            if last is not None and piece.start <= last.start + last.length:
                end = max(last.start + last.length, piece.start + piece.length)
                united[-1] = last._replace(length=end - last.start)
            else:
                united.append(piece)
    return united


# ---- a save's windows -------------------------------------------------------------------


class NewChunk(NamedTuple):
    """A chunk of a draft: of which stream, where it lies in it, and its id."""

    stream: Stream
    start: int
    end: int
    id: bytes


@dataclass(slots=True)
class _Pair:
    """A new stream, and the one of the base it comes from."""

    old: BaseStream | None
    anchors: list[Anchor] = field(default_factory=list)
    """In order. Those of earlier windows but the last one are dropped."""


class Counterparts:
    """The counterparts of what one save stores, whose chunks come in windows and in order.

    A window is told with ``learn``, and then its new chunks may be asked for.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._pairs: dict[Stream, _Pair] = {}
        self._segments: dict[str, list[int | None]] = {}
        """Of each artifact: which segments of the base its own are paired with so far."""
        self._homes: dict[str, dict[bytes, int]] = {}
        """Of each artifact of the base: the segment of each chunk."""

    def learn(self, chunks: Iterable[NewChunk]) -> None:
        """The next window."""
        ids: dict[Stream, list[bytes]] = {}
        for pair in self._pairs.values():
            del pair.anchors[:-1]
        chunks = [chunk for chunk in chunks if chunk.stream.artifact in self._base.artifacts]
        for chunk in chunks:
            ids.setdefault(chunk.stream, []).append(chunk.id)
        fresh: dict[str, list[Stream]] = {}
        for stream in ids:
            if stream not in self._pairs:
                fresh.setdefault(stream.artifact, []).append(stream)
        for name, streams in fresh.items():
            self._pair(name, streams, ids)
        for chunk in chunks:
            pair = self._pairs[chunk.stream]
            old = pair.old.place(chunk.id) if pair.old is not None else None
            if old is not None:
                pair.anchors.append(Anchor(chunk.start, chunk.end, old))

    def _pair(self, name: str, streams: Sequence[Stream], ids: Mapping[Stream, Sequence[bytes]]) -> None:
        """Find out where streams of an artifact come from."""
        artifact = self._base.artifacts[name]
        paired = self._segments.setdefault(name, [])
        homes = self._homes.get(name)
        if homes is None:
            homes = self._homes[name] = {}
            for number, segment in enumerate(artifact.segments):
                homes.update(dict.fromkeys(segment.ids, number))
        taken = {number for number in paired if number is not None}
        segments = [stream for stream in streams if stream.number >= 0]
        votes: list[int | None] = []
        for stream in segments:
            found_in = (homes.get(chunk) for chunk in ids[stream])
            vote = next((home for home in found_in if home is not None and home not in taken), None)
            votes.append(vote)
            if vote is not None:
                taken.add(vote)
        for stream in streams:
            if stream.number < 0:
                self._pairs[stream] = _Pair(artifact.body)
        after = next((number + 1 for number in reversed(paired) if number is not None), 0)
        shapes = [Shape(stream.kind, stream.itemsize, stream.row, stream.length) for stream in segments]
        found = pair_segments(shapes, [segment.shape for segment in artifact.segments], votes, after)
        paired += found
        for stream, old in zip(segments, found, strict=True):
            self._pairs[stream] = _Pair(None if old is None else artifact.segments[old])

    def is_adrift(self, stream: Stream) -> bool:
        """Whether nothing of a stream was found in what it is paired with: its chunks lie alike to that."""
        pair = self._pairs.get(stream)
        return pair is not None and not pair.anchors

    def find(self, chunk: NewChunk) -> Counterpart | None:
        """The counterpart of a chunk that the base does not have."""
        pair = self._pairs.get(chunk.stream)
        if pair is None or pair.old is None or not pair.old.ids:
            return None
        at = bisect_left(pair.anchors, chunk.start, key=lambda anchor: anchor.start)
        before = pair.anchors[at - 1] if at else None
        after = pair.anchors[at] if at < len(pair.anchors) else None
        stream, old = chunk.stream, pair.old.shape
        # Rows that are cut one by one are paired so: a block of pandas has a column per row, and grows in each of them.
        # Shorter ones lie several to a chunk, and are paired by offset.
        if stream.row != old.row and min(stream.row, old.row) >= LONG_ROW:
            new = Shape(stream.kind, stream.itemsize, stream.row, stream.length)
            found = row_range(chunk.start, chunk.end, new, old, before, after)
        else:
            found = counterpart_range(chunk.start, chunk.end, stream.length, old.length, before, after)
        return counterpart(pair.old, found, chunk.end - chunk.start) if found is not None else None
