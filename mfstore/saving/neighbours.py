"""Counterparts without a base: what lies in a pack between chunks that were found there. Pure planning.

A save lists chunks in the order in which they come. When the next save finds those around a new one in a pack, what
lies between them there is what the new one was before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from mfstore._core.codec import DELTAS
from mfstore.format.fragments import Location
from mfstore.records import NamedTuple
from mfstore.saving.counterparts import (
    Anchor,
    BasePiece,
    BaseStream,
    Counterpart,
    NewChunk,
    Shape,
    StoredAs,
    counterpart,
    counterpart_range,
)

if TYPE_CHECKING:
    from mfstore.format.packs import PackEntry, PackName

PACKS = 8
"""Packs of one window whose layouts are looked at, those with most chunks at the edge of something new first."""
FURTHER = 2
"""Chunks of a pack that are looked at beyond as many as are new: content-defined cuts may have been more."""


class Edge(NamedTuple):
    """Where something new begins or ends: in a stored chunk, so many bytes from its start."""

    at: Location
    offset: int


class Gap(NamedTuple):
    """New chunks in a row, from ``first`` to before ``last`` of a window, and where those around them were found. Of a
    delta, where what it is against lies comes first: what was there before lies beside that."""

    first: int
    last: int
    before: tuple[Edge, ...]
    after: tuple[Edge, ...]


def _place(at: PackEntry | Location) -> tuple[int, int]:
    """The chunks of a group have one offset."""
    return at.offset, at.width


class Layout:
    """What lies in a pack, in the order of its trailer, which is that in which it came."""

    def __init__(
        self, name: PackName, entries: Sequence[PackEntry],
        against: Mapping[int, tuple[BasePiece, ...]] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        """``against``: what deltas are against, as far as it is known, by where they lie."""
        self.name = name
        self._against = against
        self.entries = entries
        self._numbers = {_place(entry): number for number, entry in enumerate(self.entries)}

    def edge(self, edges: Sequence[Edge]) -> tuple[int | None, int]:
        """The number of the chunk that one of them lies in, and where; None when none does."""
        for at, offset in edges:
            if at.pack.value == self.name.value and (number := self._numbers.get(_place(at))) is not None:
                return number, offset
        return None, 0

    def stream(self, first: int, last: int) -> BaseStream:
        """The chunks from ``first`` to before ``last``, as if they were one stream."""
        entries = self.entries[max(first, 0) : last]
        stream = BaseStream(Shape(0, 0, 0, sum(entry.usize for entry in entries)))
        for entry in entries:
            at = Location(self.name, entry.offset, entry.csize, entry.usize, entry.codec, entry.width)
            against = self._against.get(entry.offset, ()) if entry.codec in DELTAS else ()
            known = against or entry.codec not in DELTAS
            stream.add(entry.id, entry.usize, StoredAs(at, against) if known else None)
        return stream


def gaps(
    window: Sequence[NewChunk], located: Mapping[bytes, Location], new: Container[bytes],
    pieces: Mapping[bytes, Sequence[BasePiece]] = MappingProxyType({}),
) -> Iterator[Gap]:  # fmt: skip
    """Where something new lies beside what was found stored. ``pieces`` are those of deltas."""

    def found(number: int, is_before: bool) -> Iterator[Edge]:
        if not 0 <= number < len(window) or window[number].id in new:
            return
        chunk_id = window[number].id
        if chunk_id in pieces:
            piece = pieces[chunk_id][-1 if is_before else 0]
            yield Edge(piece.at, piece.start + piece.length if is_before else piece.start)
        at = located.get(chunk_id)
        if at is not None and at.pack.value:  # a pack that is still open is this save's own
            yield Edge(at, at.usize if is_before else 0)

    first = 0
    while first < len(window):
        if window[first].id not in new:
            first += 1
            continue
        last = first
        while last < len(window) and window[last].id in new:
            last += 1
        gap = Gap(first, last, tuple(found(first - 1, True)), tuple(found(last, False)))
        if gap.before or gap.after:
            yield gap
        first = last


def packs_of(found: Sequence[Gap]) -> list[PackName]:
    """The packs whose layouts tell most."""
    names: dict[bytes, PackName] = {}
    counts: Counter[bytes] = Counter()
    for gap in found:
        for edge in (*gap.before, *gap.after):
            names[edge.at.pack.value] = edge.at.pack
            counts[edge.at.pack.value] += 1
    return [names[name] for name, _ in counts.most_common(PACKS)]


class _Found(NamedTuple):
    """A pack in which a gap has edges, and at which of its chunks."""

    layout: Layout
    first: int | None
    before: int
    """Bytes of the first chunk that are before the gap."""
    last: int | None
    after: int
    """Bytes of the last one that are not behind it."""


def _find(gap: Gap, layouts: Mapping[bytes, Layout]) -> _Found | None:
    """The pack that has both edges, not far from each other, or else one."""
    best: _Found | None = None
    for edge in (*gap.before, *gap.after):
        layout = layouts.get(edge.at.pack.value)
        if layout is None:
            continue
        first, before = layout.edge(gap.before)
        last, after = layout.edge(gap.after)
        if first is not None and last is not None:
            if first < last <= first + gap.last - gap.first + 1 + FURTHER:
                return _Found(layout, first, before, last, after)
            last = None
        if best is None and (first is not None or last is not None):
            best = _Found(layout, first, before, last, after)
    return best


def counterparts(
    window: Sequence[NewChunk], gap: Gap, layouts: Mapping[bytes, Layout]
) -> Iterator[tuple[int, Counterpart]]:
    """The counterparts of the chunks of a gap, each by its number in the window."""
    count = gap.last - gap.first
    found_in = _find(gap, layouts)
    if found_in is None:
        return
    layout, first, offset_before, last, offset_after = found_in
    if first is not None:
        stream = layout.stream(first, last + 1 if last is not None else first + count + 1 + FURTHER)
    else:
        assert last is not None
        stream = layout.stream(last - count - FURTHER, last + 1)
    sizes = [chunk.end - chunk.start for chunk in window[gap.first : gap.last]]
    before = after = None
    start = 0
    if first is not None:
        start = offset_before
        before = Anchor(0, start, 0)
    total = start + sum(sizes)
    if last is not None:
        old = stream.starts[-2] + offset_after
        size = stream.starts[-1] - old
        after = Anchor(total, total + size, old)
        total += size
    for number, size in enumerate(sizes, gap.first):
        found = counterpart_range(start, start + size, total, stream.starts[-1], before, after)
        start += size
        one = counterpart(stream, found, size) if found is not None else None
        if one is not None:
            yield number, one
