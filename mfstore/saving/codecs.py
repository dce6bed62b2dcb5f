"""How chunks are encoded: decided by a trial on a sample, never by type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfstore._core.codec import (
    DIFFERENCE,
    FAR,
    FIVES,
    GROUP,
    LZ4,
    NONE,
    PCODEC,
    PLANES,
    PREFIX,
    QUICK,
    ZSTD,
    Codec,
)
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

SAMPLE = 64 << 10
"""Bytes of the trial. Over 12 real columns a 64 KiB trial never chose the wrong filter; it costs 0.2 to 0.5 ms."""
PROBE = 16 << 10
"""Bytes by which one of several widths is chosen, text is told from numbers, and of numbers what is not worth a longer
trial: 0.15 ms."""
SLICES = 4
"""A sample is this many slices, spread evenly: the head of an array often differs from the rest."""
SPLIT = 1.1
"""Opaque bytes whose planes take more than this much of what plain zstd takes hold no numbers worth splitting. Planes
of CSV, SQLite, pickled forests and boosters took 1.18 to 1.6 times as much, those of Arrow files 0.8 times."""
KEEP = 0.95
"""A chunk that does not shrink to this is stored raw, whatever its segment chose."""
CLOSE = 1.05
CLOSE_BYTES = 256
"""Of numbers, what takes more than these say of what takes least of a probe is not tried on a sample: of 60 columns and
trees of forests none took least of the sample then. The bytes are for what shrinks to next to nothing, of which headers
are much."""
SEARCHED = 1
"""Level of planes that are all searched for matches, without a look at samples of them: those of arrays in a pickle
have a header each 50 to 1000 bytes, in all planes, of which a glance at a plane sees noise."""
SEARCHED_PAYS = 0.99
"""That instead of planes whose samples decide, when it takes at most this much of a sample of opaque bytes."""
PCODEC_PAYS = 0.97
"""pcodec instead of what every reader has when it takes at most this much of its size. Of columns it takes 0.45 to 0.9,
of weights 0.99."""
PCODEC_KINDS = {2: (8, 9), 4: (3, 5), 8: (4, 6)}
"""The number types of pcodec that are tried for a width: signed and float. Unsigned ones gain nothing over signed."""
SHORT = 64
"""Fewer bytes than this are stored raw: a frame's header alone is a fifth of them."""
RETRIED = 4
"""Of this many chunks at most one is tried anew. A trial costs about as much as encoding one chunk or two of 64 KiB, so
this bounds it to a half of the rest where every chunk differs from the one before."""
OFF = 0.25
"""A chunk is tried anew when what is left differs from what the last trial left, by more than this share of that."""
LEFT = 0.02
"""And by more than this share of the chunk: of what shrinks to next to nothing a multiple is little."""
TOGETHER = 8
"""Chunks that are encoded in one call, which needs the interpreter only before and behind. Twice as many from call to
call, so that no more are encoded in vain where a chunk turns out to be something else than all before it."""
SEARCHES = ((QUICK, 1.005, 1.02), (FIVES, 0.985, 1.005))
"""Levels instead of 3 for long opaque bytes. Each with what it may take at most of what level 3 takes, of a sample and
of each slice of it: the first one that keeps to both. Of 57 series and 15 everyday objects the first then took at most
1.006 times as much, of dicts, dates and CSV 0.84 to 0.96; the second 0.94 to 0.98. By the sample alone the first would
be taken for files of Arrow and Parquet, whose pages are of many kinds, and take 1.05 and 1.18 times as much. A level
with two tables that nearest caches hold took 0.97 to 1.02 times as much for two thirds of the time, but 1.04 of Parquet
files, of which no sample told so: what they repeat lies far apart. Milliseconds for a MB are in codec/search.h."""
NUMBERS_SEARCH = 1.02
"""Of numbers and records that plain zstd makes shortest, level FIVES instead of 3 when it takes at most this much of a
sample: in chunks of 64 KiB 1.004 to 1.024 of all of it in two thirds of the time (1.6 ms for a MB of a forest's nodes
instead of 1.9, 3.5 of records instead of 5.7). Of prices it took 1.25 times as much, and 1.10 of the sample. Planes or
groups leave those series 0.65 to 1.01 of zstd-3 of the whole."""
SEARCH_SAMPLE = 128 << 10
"""Bytes of that trial: 1.1 ms. Of twice as many the same were chosen, but Arrow files."""
SEARCHED_FROM = 1 << 20
"""Bytes from which on it pays: a level that is found saves 2 to 3 ms of each MB. Of what none is found for, as text, it
costs 3 % of 4 MB."""
NUMBERS_SEARCHED_FROM = 128 << 10
"""Bytes of numbers from which on that is tried: 0.05 ms of a probe, 0.2 of a sample."""
GLANCE = 8 << 10
"""Bytes of an opaque chunk that are compressed to see whether it is raw as the chunk before it was: 10 us of noise."""
GLANCED = 0.9
"""The glance calls for a trial when they shrink to this."""


class Choice(NamedTuple):
    """How to encode chunks."""

    codec: int
    width: int
    level: int = 0
    """Of Zstandard, or of ``SEARCHES``."""
    left: float = 1.0
    """The share of the bytes that was left at the trial."""


RAW_CHOICE = Choice(NONE, 0)


class Effort(NamedTuple):
    """What a setting of ``compress`` tries, and what it takes."""

    pays: float
    """What does not shrink to this is stored raw."""
    plain: int
    """zstd level of bytes as they are; 0: lz4 only."""
    short: int
    """The same of chunks that are one group together, with nothing beside them."""
    shuffled: int
    """zstd level of shuffled bytes."""
    numbers: int = 0
    """Level of pcodec; 0: it is not tried."""
    searched: bool = False
    """Whether ``SEARCHES`` are tried instead of ``plain``."""
    faster: float = 1.0
    """Planes instead of what is smaller when they take at most this much of its size: they decode two to four times as
    fast as zstd."""


EFFORTS = {
    # Raw segments load by mmap, and lz4 finds nothing in noise.
    "fast": Effort(pays=0.80, plain=0, short=0, shuffled=0),
    # Level 3 of bytes as they are: on Arrow, npz and polars data level 1 takes 1.03 to 1.27 times as much and is no
    # faster. On shuffled columns level 3 gains under 2 % at three quarters of the speed.
    # Level 4 of what is short: a version of dataclasses (1.2 MB) takes 1.019 times zstd-3 of its ordinary pickle, and
    # 1.025 at level 3. zstd of it took 4.2 ms at level 3 and 7.0 at 4, of a save of 22.
    # Of longer ones no series needs it, and 3 decides their CPU.
    "balanced": Effort(pays=KEEP, plain=3, short=4, shuffled=1, searched=True, faster=1.02),
    # pcodec: its default, 85 MB/s; 12 gained 0.2 % at a quarter of that.
    # Level 9 leaves 0.88 to 0.97 of level 3 at a fifth of its speed; level 12 0.95 of that again at a third of it.
    "small": Effort(pays=KEEP, plain=9, short=9, shuffled=9, numbers=8),
}
"""By the setting ``compress``. "off" is none of them: everything is stored raw."""


class EncodedChunk(NamedTuple):
    """A chunk as it is stored. Of one in a group, ``data`` is the group, and ``width`` where the chunk starts in it."""

    data: bytes | memoryview
    codec: int
    width: int


LABELS = {
    (codec, shuffled): name + ("+shuffle" if shuffled and codec not in (PLANES, PCODEC, GROUP) else "")
    for codec, name in (
        (NONE, "raw"),
        (LZ4, "lz4"),
        (ZSTD, "zstd"),
        (PLANES, "planes"),
        (PCODEC, "pcodec"),
        (PREFIX, "delta"),
        (DIFFERENCE, "difference"),
        (GROUP, "group"),
    )
    for shuffled in (False, True)
}
"""Names for people of a codec, with and without shuffle."""


def is_opaque(itemsize: int) -> bool:
    """Whether elements of ``itemsize`` bytes (1: bytes, 0: unknown) may hold anything, each chunk something else."""
    return itemsize <= 1


def widths_of(itemsize: int) -> tuple[int, ...]:
    """Widths worth trying for elements of ``itemsize`` bytes."""
    if is_opaque(itemsize):
        # Arrow files, tensors in a file's bytes and the like: numbers of any width.
        return (2, 4, 8)
    if itemsize == 2:
        return (2,)
    if itemsize % 8 == 0:
        return (8,)
    return (4,) if itemsize % 4 == 0 else ()


def choose(codec: Codec, data: Buffer, itemsize: int, compress: str) -> Choice:
    """How to encode ``data``, which has elements of ``itemsize`` bytes, by trial."""
    view = memoryview(data)
    effort = EFFORTS.get(compress)
    if effort is None or len(view) < SHORT:
        return RAW_CHOICE
    tried = _fast_candidates(itemsize) if not effort.plain else _candidates(codec, view, itemsize, effort)
    long = effort.searched and is_opaque(itemsize) and len(view) >= SEARCHED_FROM
    if long and len(tried) == 1:
        return _searched(codec, view, effort)
    sample = _sample(view, SAMPLE)
    sizes: list[int] = []
    # Of "small" all are tried: who asks for it has the time. Of opaque bytes the candidates were probed already.
    if len(view) > PROBE and len(tried) > 1 and effort.plain and not effort.numbers and not is_opaque(itemsize):
        probe = _sample(view, PROBE)
        probed = codec.trial(probe, [choice[:3] for choice in tried])
        most = CLOSE * min(probed) + CLOSE_BYTES
        tried = [choice for choice, size in zip(tried, probed, strict=True) if size <= most]
        if len(tried) == 1:
            sample, sizes = probe, [min(probed)]
    sizes = sizes or codec.trial(sample, [choice[:3] for choice in tried])
    rows = list(zip(sizes, tried, strict=True))
    size, best = min((row for row in rows if row[1].codec != PCODEC), key=lambda row: row[0])
    if best.codec != PLANES and (planes := [row for row in rows if row[1].codec == PLANES]):
        other, choice = min(planes, key=lambda row: row[0])
        if other <= effort.faster * size:
            size, best = other, choice
    if best.codec == PLANES and is_opaque(itemsize):
        # Of numbers alone there is nothing to find.
        (found,) = codec.trial(sample, [(PLANES, best.width, SEARCHED)])
        if found <= SEARCHED_PAYS * size:
            size, best = found, best._replace(level=SEARCHED)
    for other, choice in rows:
        if choice.codec == PCODEC and other <= PCODEC_PAYS * size:
            size, best = other, choice
    left = size / len(memoryview(sample))
    if left > effort.pays:
        return RAW_CHOICE
    if best[:2] != (ZSTD, 0):
        return best._replace(left=left)
    if long:
        return _searched(codec, view, effort)
    level = best.level
    if effort.searched and not is_opaque(itemsize) and len(view) >= NUMBERS_SEARCHED_FROM:
        (found,) = codec.trial(sample, [(ZSTD, 0, FIVES)])
        level = FIVES if found <= NUMBERS_SEARCH * size else level
    return Choice(ZSTD, 0, level, left)


def _searched(codec: Codec, view: memoryview, effort: Effort) -> Choice:
    """zstd of long opaque bytes, with what takes least time of what finds enough."""
    sample = _sample(view, SEARCH_SAMPLE)
    ends = range(SEARCH_SAMPLE // SLICES, SEARCH_SAMPLE + 1, SEARCH_SAMPLE // SLICES)
    encoded, far = codec.encode_group(sample, ends, FAR, 1.0)
    left = len(encoded) / SEARCH_SAMPLE
    if not encoded or left > effort.pays:
        return RAW_CHOICE
    for search, share, most in SEARCHES:
        found, sizes = codec.encode_group(sample, ends, search, 1.0)
        if (
            found
            and len(found) <= share * len(encoded)
            and all(size <= most * told for size, told in zip(sizes, far, strict=True))
        ):
            return Choice(ZSTD, 0, search, left)
    return Choice(ZSTD, 0, effort.plain, left)


def _fast_candidates(itemsize: int) -> list[Choice]:
    return [Choice(LZ4, width) for width in (0, *widths_of(itemsize))]


def _candidates(codec: Codec, view: memoryview, itemsize: int, effort: Effort) -> list[Choice]:
    plain = Choice(ZSTD, 0, effort.plain)
    widths = widths_of(itemsize)
    if len(widths) > 1:
        probed = [plain[:3], *[(PLANES, width, 0) for width in widths]]
        first, *others = codec.trial(_sample(view, PROBE), probed, SPLIT)
        least = min(others)
        widths = (widths[others.index(least)],) if least <= SPLIT * first else ()
    tried = [plain]
    for width in widths:
        tried += [Choice(PLANES, width), Choice(ZSTD, width, effort.shuffled)]
        if effort.numbers:
            tried += [Choice(PCODEC, kind, effort.numbers) for kind in PCODEC_KINDS[width]]
    return tried


def encode_chunk(codec: Codec, data: memoryview, choice: Choice) -> EncodedChunk:
    """One chunk, raw when it does not shrink. What is raw refers to ``data``."""
    if choice.codec != NONE:
        arena, sizes = codec.encode(data, [len(data)], choice.codec, choice.width, choice.level, KEEP)
        if sizes[0]:
            return EncodedChunk(arena, choice.codec, choice.width)
    return EncodedChunk(data, NONE, 0)


def _in_order(
    arena: bytes, sizes: Sequence[int], choice: Choice, data: memoryview, starts: Sequence[int]
) -> Iterator[EncodedChunk]:
    """Chunks that lie in ``arena`` one after the other; of those that did not shrink, where they are in ``data``."""
    view, at = memoryview(arena), 0
    for size, start, end in zip(sizes, starts, starts[1:], strict=False):
        if size:
            yield EncodedChunk(view[at : at + size], choice.codec, choice.width)
        else:
            yield EncodedChunk(data[start:end], NONE, 0)
        at += size


class Follower:
    """How the chunks of a run are encoded one after the other: as chosen, until one turns out to be something else."""

    def __init__(self, codec: Codec, itemsize: int, choice: Choice, compress: str) -> None:
        self.choice = choice
        self._codec = codec
        self._itemsize = itemsize
        self._compress = compress
        self._credit = 1.0
        self._glance = (ZSTD, 0, 1) if compress in EFFORTS and EFFORTS[compress].plain else (LZ4, 0, 0)

    @property
    def is_plain(self) -> bool:
        """Whether the next chunk is to be zstd of bytes as they are."""
        return self.choice.codec == ZSTD and not self.choice.width

    def encode(self, chunk: memoryview, known: EncodedChunk | None = None) -> EncodedChunk:
        """The next chunk, alone. ``known`` is what it is by a choice that may still be the one to take."""
        if known is None or (known.codec, known.width) != self.choice[:2]:
            known = encode_chunk(self._codec, chunk, self.choice)
        encoded = known
        before = self.choice
        if self._tried(chunk, len(encoded.data)) and self.choice[:3] != before[:3]:
            other = encode_chunk(self._codec, chunk, self.choice)
            encoded = min(encoded, other, key=lambda chunk: len(chunk.data))
        return encoded

    def encode_all(self, data: memoryview, ends: Sequence[int]) -> list[EncodedChunk]:
        """The next chunks, each alone: those of ``data`` that end at ``ends``."""
        starts = [0, *ends]
        made: list[EncodedChunk] = []
        together = 1
        while len(made) < len(ends):
            first, choice = len(made), self.choice
            if choice.codec == NONE:
                made.append(self.encode(data[starts[first] : starts[first + 1]]))
                continue
            last = min(first + together, len(ends))
            start = starts[first]
            few = data[start : starts[last]]
            arena, sizes = self._codec.encode(few, [end - start for end in ends[first:last]], *choice[:3], KEEP)
            used = 0
            for number, size in enumerate(sizes, first + 1):
                used += size
                chunk = data[starts[number - 1] : starts[number]]
                if self._tried(chunk, size or len(chunk)) and self.choice[:3] != choice[:3]:
                    break
            made += _in_order(arena[:used], sizes[: number - first], choice, data, starts[first:])
            if self.choice[:3] == choice[:3]:
                together = min(2 * together, TOGETHER)
                continue
            # What came after it was encoded in vain.
            together = 1
            made.append(min(made.pop(), encode_chunk(self._codec, chunk, self.choice), key=lambda one: len(one.data)))
        return made

    def encode_plain(self, chunk: memoryview) -> EncodedChunk:
        """A chunk that went by, as bytes as they are."""
        return encode_chunk(self._codec, chunk, Choice(ZSTD, 0, EFFORTS[self._compress].plain))

    def saw(self, chunk: memoryview, size: int) -> None:
        """The next chunk was encoded as chosen, together with others, and takes ``size`` bytes of that."""
        if self._tried(chunk, size) and self.is_plain:
            # Beside others it takes less than a trial tells: that is what the next one is compared with.
            self.choice = self.choice._replace(left=size / len(chunk))

    def _tried(self, chunk: memoryview, size: int) -> bool:
        """Whether the chunk is something else than the last one tried, which makes a new choice."""
        self._credit += 1 / RETRIED
        if self._credit < 1 or not _is_off(self._codec, chunk, size, self.choice, self._glance):
            return False
        self._credit = 0
        self.choice = choose(self._codec, chunk, self._itemsize, self._compress)
        return True


def _is_off(codec: Codec, chunk: memoryview, size: int, choice: Choice, cheapest: tuple[int, int, int]) -> bool:
    if len(chunk) < SHORT:
        return False
    if choice.codec == NONE:
        glance = chunk[len(chunk) // 2 :][:GLANCE]
        return codec.trial(glance, [cheapest])[0] <= GLANCED * len(glance)
    difference = abs(size / len(chunk) - choice.left)
    return difference > LEFT and difference > OFF * choice.left


def _sample(view: memoryview, length: int) -> Buffer:
    if len(view) <= length:
        return view
    size = length // SLICES
    # Multiples of 8, so that every slice starts at an element.
    starts = [(len(view) - size) * number // (SLICES - 1) // 8 * 8 for number in range(SLICES)]
    return b"".join(view[start : start + size] for start in starts)
