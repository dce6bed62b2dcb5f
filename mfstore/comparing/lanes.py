"""Arrays compared where their chunks differ: which rows of them changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mfstore.comparing.elements import unequal
from mfstore.comparing.jobs import BLOCK, Job
from mfstore.comparing.sameness import spans_of
from mfstore.pickling.symbols import Slot
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.views.arrow import Edges
    from mfstore.views.parts import ArtifactParts


class Lane(NamedTuple):
    """Where the rows of an array, or of a column of one, lie in a part's data."""

    parts: ArtifactParts
    data: Slot | bytes
    base: int
    """Where the first row begins."""
    stride: int
    """Bytes from one row to the next."""
    at: int
    """Where in a row it lies."""
    width: int
    """Bytes of it in a row."""
    length: int
    """Rows."""

    def piece(self, low: int, high: int) -> Slot | bytes:
        """The bytes of these rows. The last one may end where it is used no more."""
        start, end = self.base + low * self.stride, min(self.base + high * self.stride, len(self.data))
        return self.data.part(start, end) if isinstance(self.data, Slot) else self.data[start:end]

    def last(self, count: int) -> Lane:
        """The last rows of it."""
        return self._replace(base=self.base + (self.length - count) * self.stride, length=count)

    def whole(self) -> tuple[int, int, int]:
        """What is the same of lanes that are read as one."""
        return id(self.data), self.base, self.stride


class Pair(NamedTuple):
    """An array on both sides."""

    left: Lane
    right: Lane

    def regions(self, count: int) -> list[tuple[int, int]]:
        """Of the first ``count`` rows those that may differ, by the ids of chunks: each from the first to before the
        last."""
        left, right = self
        if (left.stride, left.at) != (right.stride, right.at):
            return [(0, count)] if count else []
        ours = {(span.start - left.base, span.end - left.base): span.id for span in spans_of(left.parts, left.data)}
        found, done = [], 0
        total = count * left.stride
        for start, end, ident in spans_of(right.parts, right.data):
            low, high = start - right.base, end - right.base
            if ours.get((low, high)) == ident and high > done and low < total:
                if low > done:
                    found.append((done, low))
                done = high
        if done < total:
            found.append((done, total))
        rows = [(start // left.stride, -(-end // left.stride)) for start, end in found]
        return merged(rows)


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], high)
        else:
            found.append((low, high))
    return found


class _Edges:
    """The first and the last row that differ, of those that were compared."""

    def __init__(self, count: int) -> None:
        self.first = count
        self.last = -1

    def note(self, at: int, differ: Any) -> None:
        numbers = differ.nonzero()[0]
        if len(numbers):
            self.first = min(self.first, at + int(numbers[0]))
            self.last = max(self.last, at + int(numbers[-1]))


class Columns:
    """Arrays whose rows are read together, each compared with the same one of the other side: the columns of a block,
    or of an array in order "F", or one array by itself."""

    def __init__(
        self, pairs: Sequence[Pair], dtype: Any, joined: bool = False, numbers: Callable[[Any], Any] | None = None
    ) -> None:
        self.pairs = pairs
        self.dtype = dtype
        self._numbers = numbers
        """Makes of elements what is compared, where that is not the elements themselves."""
        self._ours, self._theirs = pairs[0].left.length, pairs[0].right.length
        self._count = min(self._ours, self._theirs)
        self._front, self._back = _Edges(self._count), _Edges(self._count)
        self._changed = [0] * len(pairs)
        self._items = [0] * len(pairs)
        self._joined: Any = None
        self._is_joined = joined
        """Whether rows count once that changed in several columns: one byte for each row is held for that."""
        self.failed = False

    @property
    def strides(self) -> tuple[Any, ...] | None:
        """What is the same of columns that are best read together, since they lie in between each other on a side;
        None of one that lies by itself on both."""
        found = tuple(lane.whole() if lane.stride != lane.width else None for lane in self.pairs[0])
        return found if any(found) else None

    def jobs(self) -> Iterator[Job]:
        """All rows that both have, where chunks differ."""
        return self._jobs(self.pairs, False)

    def more(self) -> Iterator[Job]:
        """Where one has more rows: the last ones of both, to find out whether only what lies between has changed."""
        if self._ours == self._theirs or self.failed or not any(self._changed):
            return iter(())
        count = self._count
        return self._jobs([Pair(pair.left.last(count), pair.right.last(count)) for pair in self.pairs], True)

    def _jobs(self, pairs: Sequence[Pair], is_back: bool) -> Iterator[Job]:
        lanes = {lane.whole(): lane.stride for pair in pairs for lane in pair}
        step = max(BLOCK // max(sum(lanes.values()), 1), 1)
        for low, high in merged(rows for pair in pairs for rows in pair.regions(self._count)):
            for start in range(low, high, step):
                end = min(start + step, high, self._count)
                if start < end:
                    yield self._job(pairs, start, end, is_back, sum(lanes.values()))

    def _job(self, pairs: Sequence[Pair], start: int, end: int, is_back: bool, row: int) -> Job:
        def plan(edges: Edges, side: int) -> list[Any]:
            pieces: dict[tuple[int, int, int], Slot | bytes] = {}
            for pair in pairs:
                lane = pair[side]
                if lane.whole() not in pieces:
                    pieces[lane.whole()] = lane.piece(start, end)
            # Where columns lie is a part of what they are.
            return [[list(pieces.values()), [pair[side].at for pair in pairs]]]

        def take(ours: list[Any], theirs: list[Any]) -> None:
            self._take(pairs, start, end, is_back, ours[0][0], theirs[0][0])

        return Job(pairs[0].left.parts, pairs[0].right.parts, plan, (end - start) * row, take, self._fail)

    def _take(
        self, pairs: Sequence[Pair], start: int, end: int, is_back: bool, ours: list[Any], theirs: list[Any]
    ) -> None:
        import numpy as np

        sides = []
        for side, memories in enumerate((ours, theirs)):
            names = dict.fromkeys(pair[side].whole() for pair in pairs)
            sides.append(dict(zip(names, memories, strict=True)))
        for number, pair in enumerate(pairs):
            views = [
                np.ndarray(
                    (end - start, lane.width // self.dtype.itemsize), self.dtype, sides[side][lane.whole()], lane.at,
                    (lane.stride, self.dtype.itemsize),
                )
                for side, lane in enumerate(pair)
            ]  # fmt: skip
            differ = unequal(*(views if self._numbers is None else map(self._numbers, views)))
            rows = differ.any(axis=1)
            (self._back if is_back else self._front).note(start, rows)
            if is_back:
                continue
            self._changed[number] += int(rows.sum())
            self._items[number] += int(differ.sum())
            if self._is_joined:
                if self._joined is None:
                    self._joined = np.zeros(self._count, bool)
                self._joined[start:end] |= rows

    def _fail(self) -> None:
        self.failed = True

    @property
    def _is_insertion(self) -> bool:
        """Whether all rows of the shorter side are there in the longer one, around what that has more."""
        if self._ours == self._theirs or not any(self._changed):
            return False
        return self._front.first + self._count - 1 - self._back.last >= self._count

    def rows_of(self, number: int) -> int | None:
        """Rows that changed in one of the arrays."""
        return None if self.failed else 0 if self._is_insertion else self._changed[number]

    def bytes_of(self, number: int) -> int | None:
        """Bytes of what changed in one of the arrays."""
        if self.failed:
            return None
        return 0 if self._is_insertion else self._items[number] * self.dtype.itemsize

    @property
    def rows(self) -> int | None:
        """Rows that changed in any of them."""
        if self.failed or self._is_insertion:
            return None if self.failed else 0
        return self._changed[0] if not self._is_joined else 0 if self._joined is None else int(self._joined.sum())

    @property
    def nbytes(self) -> int | None:
        """Bytes of what changed, and of the rows that one side has more."""
        if self.failed:
            return None
        more = sum(abs(pair.left.length - pair.right.length) * pair.left.width for pair in self.pairs)
        return more + sum(self.bytes_of(number) or 0 for number in range(len(self.pairs)))
