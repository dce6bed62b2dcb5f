"""Groups of chunks (docs/format.md, "Groups"), as maintenance handles them: what lies in the same bytes is read,
decoded and moved together."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from mfstore._core.codec import GROUP, GROUP_LIMIT, ZSTD, Codec
from mfstore.errors import CorruptObject
from mfstore.format.groups import group_length, have_one_place
from mfstore.saving.codecs import EFFORTS, KEEP, Choice, encode_chunk

if TYPE_CHECKING:
    from mfstore.format.packs import PackBuilder, PackEntry

ALONE = Choice(ZSTD, 0, EFFORTS["balanced"].plain)
"""How a chunk is stored that leaves its group."""


def start_of(codec: int, width: int) -> int:
    """Where in the uncompressed bytes of its group a chunk starts; 0 for what is in no group."""
    return width if codec == GROUP else 0


def by_place(entries: Iterable[PackEntry]) -> Iterator[list[PackEntry]]:
    """Chunks in the order in which they lie: those of a group together, any other alone."""
    together: list[PackEntry] = []
    for entry in sorted(entries, key=_order):
        if together and not have_one_place(together[0], entry):
            yield together
            together = []
        together.append(entry)
    if together:
        yield together


def _order(entry: PackEntry) -> tuple[int, int, int, int]:
    return entry.offset, entry.csize, entry.codec, entry.width


def decode_group(
    codec: Codec, stored: memoryview, together: Iterable[PackEntry], memory: Callable[[int], memoryview]
) -> tuple[memoryview, bool]:
    """The uncompressed bytes of a group up to the end of the last of these chunks that can be decoded, in ``memory`` of
    so many bytes; and whether all of them can.

    What can be decoded is what a load of the chunk alone can, which is told nothing of what comes after it.
    """
    claimed = [*together]
    ordered = sorted((entry for entry in claimed if _end(entry) <= GROUP_LIMIT), key=_end)
    content = memory(_end(ordered[-1]) if ordered else 0)

    def decodes(start: int, end: int) -> bool:
        try:
            codec.decode_group(stored, [(start, content[start:end])])
        except CorruptObject:
            return False
        return True

    if decodes(0, len(content)):
        return content, len(ordered) == len(claimed)
    count = bisect_left(ordered, True, key=lambda entry: not decodes(entry.width, _end(entry)))
    if not count:
        return content[:0], False
    last = ordered[count - 1]
    # A load of the whole group, unlike one of its last chunk, takes note of how its frame ends.
    if decodes(0, _end(last)) or (decodes(0, last.width) and decodes(last.width, _end(last))):
        return content[: _end(last)], False
    return content[:0], False


def _end(entry: PackEntry) -> int:
    """Of a chunk in its group."""
    return entry.width + entry.usize


def part_of(content: memoryview, entry: PackEntry) -> memoryview:
    """A chunk, in the uncompressed bytes of its group; too few bytes if it does not lie in them."""
    return content[entry.width : entry.width + entry.usize]


def move_group(
    builder: PackBuilder, codec: Codec, stored: memoryview, together: Sequence[PackEntry]
) -> list[PackEntry]:
    """Put chunks of a group, all of which are whole in these bytes, into another pack; what each is there, in order.

    The group as it is, with these chunks alone listed, if they are more than half of its bytes and there is no error in
    what they need of it; else a group of these alone, or each by itself where it is one or a group would not shrink. So
    at most half of a group are bytes that nobody needs.
    """
    content, sound = decode_group(codec, stored, together, lambda size: memoryview(bytearray(size)))
    before = len(builder.entries)
    total = sum(entry.usize for entry in together)
    if sound and 2 * total > group_length(stored):
        builder.add_group(stored, [(entry.id, entry.width, entry.usize) for entry in together])
        return builder.entries[before:]
    ends = [*accumulate(entry.usize for entry in together)]
    if len(together) > 1 and total <= GROUP_LIMIT:
        joined = b"".join(part_of(content, entry) for entry in together)
        encoded, _ = codec.encode_group(joined, ends, ALONE.level, KEEP)
        if encoded:
            builder.add_group(encoded, [(e.id, end - e.usize, e.usize) for e, end in zip(together, ends, strict=True)])
            return builder.entries[before:]
    for entry in together:
        chunk = encode_chunk(codec, part_of(content, entry), ALONE)
        builder.add(chunk.data, [(entry.id, len(chunk.data), entry.usize)], chunk.codec, chunk.width, True)
    return builder.entries[before:]
