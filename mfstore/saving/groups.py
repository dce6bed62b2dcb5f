"""Groups: which chunks of opaque bytes are encoded together, since alone a chunk has too little context.

Text, files and pickled objects as chunks of 64 KiB take 1.06 to 1.15 times what zstd makes of the whole; a file of
which pages resemble each other 1.35 times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mfstore._core.codec import GROUP, GROUP_LIMIT, NONE, QUICK, ZSTD
from mfstore.records import NamedTuple
from mfstore.saving.codecs import EFFORTS, KEEP, EncodedChunk, Follower, encode_chunk, is_opaque

if TYPE_CHECKING:
    from mfstore._core.codec import Codec
    from mfstore.saving.codecs import Choice, Effort

LONGEST = 1536 << 10
"""Bytes that are one group at most, and a chunk more. Over whole zstd at level 3, groups of 512 KiB take 1.04 times as
much of text and 1.02 of boosters, of 1 MiB 1.02 and 1.01, of 1.5 MiB 1.01 and 1.01. Whoever wants one chunk reads and
decodes half of a group."""
JOINS = 0.97
"""Chunks with a codec of their own are tried in groups as long as groups take at most this much of what they take
alone. Trying costs what encoding text does."""

TASTE = 4
"""Chunks with a codec of their own of which a group is tried first, before one of all, and with the cheapest search: a
twelfth of its cost."""
TASTED = 1.05
"""A group of all is not tried where that takes more than this much of what they take alone. Of text that is not ASCII,
arrays in a pickle and columns of numbers in an Arrow file it took 1.08 to 30 times as much, and with the search of
level 3, in three times the time, 1.05 to 30; of what was stored in groups in the end 0.65 to 1.0, and 0.6 to 0.94."""

WORTH = 0.02
"""Chunks that take less alone are taken out of a group, and the rest of it is encoded anew, where that saves more than
this much of it at most. Of Arrow files it saves a tenth; of Parquet files 1 %, for a third of the time. A second round
saved nothing."""


class Stretch(NamedTuple):
    """The chunks from ``first`` to before ``last``."""

    first: int
    last: int


class Together(NamedTuple):
    """Chunks as one group."""

    members: Sequence[int]
    encoded: bytes
    total: int
    """Bytes of it and of the other chunks of the stretch, which are alone."""


def stretches(ends: Sequence[int]) -> Iterator[Stretch]:
    """Chunks that end at ``ends`` as groups: as few as possible, and about equally long."""
    if not ends:
        return
    count = -(-ends[-1] // LONGEST)
    first = done = 0
    for number, end in enumerate(ends, 1):
        if end >= ends[-1] * (done + 1) / count or number == len(ends):
            yield Stretch(first, number)
            first, done = number, done + 1


def encode_chunks(
    codec: Codec, data: memoryview, ends: Sequence[int], itemsize: int, choice: Choice, compress: str
) -> list[EncodedChunk] | None:
    """The chunks of ``data`` that end at ``ends``, or None when all of them are to lie raw. ``choice`` is how, until a
    chunk turns out to be something else: files held in memory, and blocks of a table, mix text and numbers of all
    widths. Those of one group have the same ``data`` object."""
    effort = EFFORTS.get(compress)
    follows = effort is not None and is_opaque(itemsize)
    if choice.codec == NONE and not follows:
        return None
    follower = Follower(codec, itemsize, choice, compress)
    if effort is None or not follows or not effort.plain or len(ends) < 2:
        made = follower.encode_all(data, ends)
    else:
        made = Grouping(codec, data, ends, follower, effort).encode()
    return None if all(encoded.codec == NONE for encoded in made) else made


class Grouping:
    """The chunks of one part of a run, on their way into groups."""

    def __init__(
        self, codec: Codec, data: memoryview, ends: Sequence[int], follower: Follower, effort: Effort
    ) -> None:  # fmt: skip
        self._codec = codec
        self._data = data
        self._starts = [0, *ends]
        self._follower = follower
        self._tasted: dict[int, EncodedChunk] = {}
        self._tasting = QUICK if effort.searched else effort.plain
        self._level = follower.choice.level if follower.is_plain else effort.plain
        if follower.is_plain and self._level == effort.plain and ends[-1] <= LONGEST:
            self._level = effort.short

    def encode(self) -> list[EncodedChunk]:
        """All of them, each as it takes least."""
        made: list[EncodedChunk] = []
        # What is raw is hardly ever less in a group; whether numbers are, the first group tells for the rest.
        together = self._follower.choice.codec != NONE
        for stretch in stretches(self._starts[1:]):
            numbers = range(*stretch)
            done = self._together(numbers) if together and len(numbers) > 1 and self._is_to_try(numbers) else None
            if done is None:
                done = self._apart(numbers)
            made += done[0]
            together = done[1]
        return made

    def _chunk(self, number: int) -> memoryview:
        return self._data[self._starts[number] : self._starts[number + 1]]

    def _group(self, numbers: Sequence[int], level: int | None = None) -> tuple[bytes, list[int]] | None:
        """These chunks as a group, and what each takes of it. None where that is too long, or does not shrink."""
        sizes = [self._starts[number + 1] - self._starts[number] for number in numbers]
        total = sum(sizes)
        if total > GROUP_LIMIT:
            return None
        first, last = numbers[0], numbers[-1]
        if last - first + 1 == len(numbers):
            data: memoryview | bytes = self._data[self._starts[first] : self._starts[last + 1]]
        else:
            data = b"".join(self._chunk(number) for number in numbers)
        ends, at = [], 0
        for size in sizes:
            at += size
            ends.append(at)
        encoded, taken = self._codec.encode_group(data, ends, self._level if level is None else level, KEEP)
        return (encoded, taken) if encoded else None

    def _is_to_try(self, numbers: Sequence[int]) -> bool:
        """Whether they may take less as a group, as far as the first few tell."""
        choice = self._follower.choice
        if self._follower.is_plain or len(numbers) <= TASTE:
            return True
        few = numbers[:TASTE]
        found = self._group(few, self._tasting)
        self._tasted = {number: encode_chunk(self._codec, self._chunk(number), choice) for number in few}
        alone = sum(len(one.data) for one in self._tasted.values())
        return found is not None and len(found[0]) <= TASTED * alone

    def _together(self, numbers: Sequence[int]) -> tuple[list[EncodedChunk], bool] | None:
        """All of them as one group, but those that take less alone; and whether to go on so."""
        found = self._group(numbers)
        if found is None:
            return None
        encoded, sizes = found
        alone: dict[int, EncodedChunk] = {}
        least = grouped = 0
        for number, size in zip(numbers, sizes, strict=True):
            chunk = self._chunk(number)
            if self._follower.is_plain:
                self._follower.saw(chunk, size)
            if not self._follower.is_plain:
                alone[number] = self._follower.encode(chunk, self._tasted.get(number))
                least += len(alone[number].data)
                grouped += min(size, len(alone[number].data))
        # What takes less alone may be what others resemble, so that they take more without it: the sums decide.
        best = Together(numbers, encoded, len(encoded))
        saved = {
            number: size - len(alone[number].data)
            for number, size in zip(numbers, sizes, strict=True)
            if number in alone and len(alone[number].data) <= size
        }
        stay = [number for number in numbers if number not in saved]
        if sum(saved.values()) > WORTH * len(encoded) and len(stay) > 1 and (found := self._group(stay)) is not None:
            total = len(found[0]) + sum(len(alone[number].data) for number in saved)
            best = min(best, Together(stay, found[0], total), key=lambda way: way.total)
        plain = [number for number in numbers if number not in alone]
        if len(plain) <= 1:
            alone.update((number, self._follower.encode_plain(self._chunk(number))) for number in plain)
            total = sum(len(one.data) for one in alone.values())
            best = min(best, Together((), b"", total), key=lambda way: way.total)
        start, made = 0, []
        inside = set(best.members)
        for number in numbers:
            if number in inside:
                made.append(EncodedChunk(best.encoded, GROUP, start))
                start += self._starts[number + 1] - self._starts[number]
            else:
                made.append(alone[number])
        return made, self._follower.is_plain or grouped <= JOINS * least

    def _apart(self, numbers: Sequence[int]) -> tuple[list[EncodedChunk], bool]:
        """Each by itself, but those that are plain zstd as one group; and whether others are worth trying in it."""
        made = [self._follower.encode(self._chunk(number), self._tasted.get(number)) for number in numbers]
        plain = [at for at, one in enumerate(made) if one.codec == ZSTD and not one.width]
        found = self._group([numbers[at] for at in plain]) if len(plain) > 1 else None
        if found is not None and len(found[0]) < sum(len(made[at].data) for at in plain):
            start = 0
            for at in plain:
                made[at] = EncodedChunk(found[0], GROUP, start)
                start += self._starts[numbers[at] + 1] - self._starts[numbers[at]]
        return made, self._follower.is_plain
