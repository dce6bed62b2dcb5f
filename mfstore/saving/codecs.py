"""Which codec a segment gets: decided by a trial on a sample, never by type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mfstore._core.codec import LZ4, NONE, PLANES, ZSTD, Codec
from mfstore.format.recipes import PREFIX, XOR

if TYPE_CHECKING:
    from typing_extensions import Buffer

SAMPLE = 64 << 10
"""Bytes of the trial. Over 12 real columns a 64 KiB trial never chose the wrong filter; it costs 0.3 ms."""
SLICES = 4
"""The sample is this many slices, spread evenly: the head of an array often differs from the rest."""
PAYS = 0.80
"""A segment is stored raw unless the sample shrinks to this. float32 noise reaches 0.84 with zstd and shuffle at
a tenth of the speed of raw, and raw segments load by mmap; bfloat16 weights reach 0.68 and are worth it."""
ZSTD_PAYS = 0.90
"""zstd instead of lz4 when it needs at most this much of lz4's size: it decodes at a third of the speed."""
LEVEL = 1
"""zstd level. On shuffled columns level 3 gained under 2 % at half the speed."""
KEEP = 0.95
"""A chunk that does not shrink to this is stored raw, whatever its segment chose."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How to encode the chunks of a segment."""

    codec: int
    width: int


RAW_CHOICE = Choice(NONE, 0)


class EncodedChunk(NamedTuple):
    """A chunk as it is stored."""

    data: bytes | memoryview
    codec: int
    width: int


LABELS = {
    (codec, shuffled): name + ("+shuffle" if shuffled and codec != PLANES else "")
    for codec, name in (
        (NONE, "raw"),
        (LZ4, "lz4"),
        (ZSTD, "zstd"),
        (PLANES, "planes"),
        (PREFIX, "delta"),
        (XOR, "xor"),
    )
    for shuffled in (False, True)
}
"""Names for people of a codec, with and without shuffle."""


def shuffle_widths(itemsize: int) -> tuple[int, ...]:
    """Widths worth trying for elements of ``itemsize`` bytes (1: opaque bytes, 0: unknown)."""
    if itemsize == 0:
        return (2, 4, 8)
    if itemsize == 1:
        # Arrow offsets and the like reach us as bytes; four and eight find them.
        return (4, 8)
    if itemsize == 2:
        return (2,)
    if itemsize % 8 == 0:
        return (8,)
    return (4,) if itemsize % 4 == 0 else ()


def choose(codec: Codec, data: Buffer, itemsize: int, compress: bool = True) -> Choice:
    """The codec and shuffle width for ``data``, by trial."""
    view = memoryview(data)
    if not compress or len(view) < 64:
        return RAW_CHOICE
    results = codec.trial(_sample(view), shuffle_widths(itemsize), LEVEL)
    size = min(len(view), SAMPLE)
    lz4 = min((row for row in results if row[0] == LZ4), key=lambda row: row[2])
    zstd = min((row for row in results if row[0] == ZSTD), key=lambda row: row[2])
    best = zstd if zstd[2] <= ZSTD_PAYS * lz4[2] else lz4
    return Choice(best[0], best[1]) if best[2] <= PAYS * size else RAW_CHOICE


def encode_chunk(codec: Codec, data: memoryview, choice: Choice) -> EncodedChunk:
    """One chunk, raw when it does not shrink. What is raw refers to ``data``."""
    if choice.codec != NONE:
        arena, sizes = codec.encode(data, [len(data)], choice.codec, choice.width, LEVEL, KEEP)
        if sizes[0]:
            return EncodedChunk(arena, choice.codec, choice.width)
    return EncodedChunk(data, NONE, 0)


def _sample(view: memoryview) -> Buffer:
    if len(view) <= SAMPLE:
        return view
    size = SAMPLE // SLICES
    # Multiples of 8, so that every slice starts at an element.
    starts = [(len(view) - size) * number // (SLICES - 1) // 8 * 8 for number in range(SLICES)]
    return b"".join(view[start : start + size] for start in starts)
