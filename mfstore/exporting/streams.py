"""The bytes of segments to a file, in order: few large reads, of which no more than a budget is held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from mfstore._core.pickler import BYTES
from mfstore.pickling.symbols import Slot
from mfstore.progress import METER
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.views.parts import ArtifactParts

HELD = 32 << 20
"""Bytes that are read together: two reads of the longest kind at once where the store is far away."""
PIECE = 8 << 20


class Content(NamedTuple):
    """Bytes that are to be written."""

    parts: ArtifactParts | None
    """Where a slot is read; None where ``source`` gives the bytes itself."""
    source: Slot | Callable[[], Buffer]


def write(contents: Iterable[Content], out: BinaryIO) -> int:
    """Write them one after the other; how many bytes that were."""
    written = 0
    for block in blocks(contents):
        out.write(block)
        written += memoryview(block).nbytes
    return written


def blocks(contents: Iterable[Content]) -> Iterator[Buffer]:
    """The bytes, in order. Slots that follow each other are read together, up to a budget."""
    waiting: list[tuple[ArtifactParts, Slot]] = []
    held = 0
    for content in contents:
        if content.parts is None:
            yield from _read(waiting)
            waiting, held = [], 0
            assert not isinstance(content.source, Slot)
            yield content.source()
            continue
        assert isinstance(content.source, Slot)
        for piece in pieces(content.parts, content.source):
            if waiting and (held + len(piece) > HELD or waiting[-1][0] is not content.parts):
                yield from _read(waiting)
                waiting, held = [], 0
            waiting.append((content.parts, piece))
            held += len(piece)
    yield from _read(waiting)


def _read(waiting: list[tuple[ArtifactParts, Slot]]) -> Iterator[Buffer]:
    if not waiting:
        return
    slots = [slot for _, slot in waiting]
    if (meter := METER.get()) is not None:
        meter.expect(sum(map(len, slots)))
    found = waiting[0][0].read(slots)
    for slot in slots:
        memory: Any = found.pop(id(slot))
        yield memory.encode("utf-8", "surrogatepass") if isinstance(memory, str) else memory


def pieces(parts: ArtifactParts, slot: Slot) -> Iterator[Slot]:
    """A slot in pieces that end where chunks do: none of these is read twice."""
    start = at = 0
    for length in parts.chunk_lengths(slot.number):
        at += length
        low, high = max(slot.start, start), min(slot.end, at)
        if low < high and (high == slot.end or at - start >= PIECE):
            yield Slot(slot.number, BYTES, low, high)
            start = at
        elif low >= high:
            start = at
