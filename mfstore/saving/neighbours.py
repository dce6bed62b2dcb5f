"""Counterparts without a base: what lies in a pack between chunks that were found there. Pure planning.

A save lists chunks in the order in which they come. When the next save finds those around a new one in a pack, what
lies between them there is what the new one was before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mfstore._core.codec import DELTAS
from mfstore.format.fragments import Location
from mfstore.saving.counterparts import (
    Anchor,
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


class Gap(NamedTuple):
    """New chunks in a row, from ``first`` to before ``last`` of a window, and where those around them were found."""

    first: int
    last: int
    before: Location | None
    after: Location | None


def _place(at: PackEntry | Location) -> tuple[int, int]:
    """The chunks of a group have one offset."""
    return at.offset, at.width


class Layout:
    """What lies in a pack, in the order of its trailer, which is that in which it came."""

    def __init__(self, name: PackName, entries: Sequence[PackEntry]) -> None:
        self.name = name
        self.entries = entries
        self._numbers = {_place(entry): number for number, entry in enumerate(self.entries)}

    def number(self, at: Location | None) -> int | None:
        """Of the chunk that lies there."""
        return None if at is None or at.pack.value != self.name.value else self._numbers.get(_place(at))

    def stream(self, first: int, last: int) -> BaseStream:
        """The chunks from ``first`` to before ``last``, as if they were one stream."""
        entries = self.entries[max(first, 0) : last]
        stream = BaseStream(Shape(0, 0, 0, sum(entry.usize for entry in entries)))
        for entry in entries:
            at = Location(self.name, entry.offset, entry.csize, entry.usize, entry.codec, entry.width)
            # What a delta is against is known to recipes only.
            stream.add(entry.id, entry.usize, None if entry.codec in DELTAS else StoredAs(at))
        return stream


def gaps(window: Sequence[NewChunk], located: Mapping[bytes, Location], new: Container[bytes]) -> Iterator[Gap]:
    """Where something new lies beside what was found stored."""

    def found(number: int) -> Location | None:
        if not 0 <= number < len(window) or window[number].id in new:
            return None
        at = located.get(window[number].id)
        return at if at is not None and at.pack.value else None  # a pack that is still open is this save's own

    first = 0
    while first < len(window):
        if window[first].id not in new:
            first += 1
            continue
        last = first
        while last < len(window) and window[last].id in new:
            last += 1
        gap = Gap(first, last, found(first - 1), found(last))
        if gap.before is not None or gap.after is not None:
            yield gap
        first = last


def packs_of(found: Sequence[Gap]) -> list[PackName]:
    """The packs whose layouts tell most."""
    names: dict[bytes, PackName] = {}
    counts: Counter[bytes] = Counter()
    for gap in found:
        for at in (gap.before, gap.after):
            if at is not None:
                names[at.pack.value] = at.pack
                counts[at.pack.value] += 1
    return [names[name] for name, _ in counts.most_common(PACKS)]


def counterparts(
    window: Sequence[NewChunk], gap: Gap, layouts: Mapping[bytes, Layout]
) -> Iterator[tuple[int, Counterpart]]:
    """The counterparts of the chunks of a gap, each by its number in the window."""
    count = gap.last - gap.first
    layout = next((layouts[at.pack.value] for at in (gap.before, gap.after) if at and at.pack.value in layouts), None)
    if layout is None:
        return
    first, last = layout.number(gap.before), layout.number(gap.after)
    if first is not None and last is not None and not first < last <= first + count + 1 + FURTHER:
        last = None
    if first is not None:
        stream = layout.stream(first, last + 1 if last is not None else first + count + 1 + FURTHER)
    elif last is not None:
        stream = layout.stream(last - count - FURTHER, last + 1)
    else:
        return
    sizes = [chunk.end - chunk.start for chunk in window[gap.first : gap.last]]
    before = after = None
    start = 0
    if first is not None:
        start = stream.starts[1]
        before = Anchor(0, start, 0)
    total = start + sum(sizes)
    if last is not None:
        size = stream.starts[-1] - stream.starts[-2]
        after = Anchor(total, total + size, stream.starts[-2])
        total += size
    for number, size in enumerate(sizes, gap.first):
        found = counterpart_range(start, start + size, total, stream.starts[-1], before, after)
        start += size
        one = counterpart(stream, found, size) if found is not None else None
        if one is not None:
            yield number, one
