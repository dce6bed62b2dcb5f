"""Texts and bytes compared: how long the stretch is that differs, between what begins and what ends alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mfstore.comparing.jobs import BLOCK, Job
from mfstore.comparing.sameness import Place, Span, spans_of
from mfstore.pickling.symbols import Slot

if TYPE_CHECKING:
    from mfstore.views.arrow import Edges


class Stretch:
    """The stretches of two texts, or of bytes, that differ.

    What both begin and end with is told by chunks, and within the chunks that differ by reading them, if they fit into
    one batch. If they do not, chunks that only one side has count as a whole.
    """

    rows = None

    def __init__(self, left: Place, right: Place) -> None:
        self._sides = left, right
        self._data = [data_of(place.node) for place in (left, right)]
        ours, theirs = (
            spans_of(place.parts, data) for place, data in zip((left, right), self._data, strict=True)
        )  # fmt: skip
        first = _common(ours, theirs)
        last = _common(ours[first:][::-1], theirs[first:][::-1])
        self._spans = ours[first : len(ours) - last], theirs[first : len(theirs) - last]
        self._found: int | None = None

    def jobs(self) -> Iterator[Job]:
        """What lies in chunks that differ."""
        sizes = [sum(span.end - span.start for span in spans) for spans in self._spans]
        if not all(sizes):
            self._found = sum(sizes)
        elif sum(sizes) > BLOCK:
            self._found = max(_only(*self._spans), _only(*reversed(self._spans)))
        else:
            yield Job(self._sides[0].parts, self._sides[1].parts, self._plan, sum(sizes), self._take, self._fail)

    def more(self) -> Iterator[Job]:
        """Nothing."""
        return iter(())

    def _plan(self, edges: Edges, side: int) -> list[Any]:
        data, spans = self._data[side], self._spans[side]
        start, end = max(spans[0].start, 0), min(spans[-1].end, len(data))
        return [data.part(start, end) if isinstance(data, Slot) else data[start:end]]

    def _take(self, ours: list[Any], theirs: list[Any]) -> None:
        (a,), (b,) = map(_raw, ours), map(_raw, theirs)
        first = _alike(a, b)
        last = _alike(a[first:][::-1], b[first:][::-1])
        self._found = max(len(a), len(b)) - first - last

    def _fail(self) -> None:
        self._found = None

    @property
    def nbytes(self) -> int | None:
        """Bytes of the stretch, on the side where it is longer."""
        return self._found


def data_of(node: Any) -> Slot | bytes:
    """The bytes of a text, or of bytes."""
    return node if isinstance(node, Slot) else _raw(node)


def _raw(value: Any) -> bytes:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)


def _common(ours: list[Span], theirs: list[Span]) -> int:
    """How many spans in front are the same."""
    pairs = zip(ours, theirs, strict=False)
    return next((number for number, (a, b) in enumerate(pairs) if a.id != b.id), min(len(ours), len(theirs)))


def _only(ours: list[Span], theirs: list[Span]) -> int:
    """Bytes of spans that the others have none of."""
    known = {span.id for span in theirs}
    return sum(span.end - span.start for span in ours if span.id not in known)


def _alike(a: bytes, b: bytes) -> int:
    """How many bytes in front are the same."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
