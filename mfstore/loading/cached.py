"""Ranges of packs from the cache of this host, before they are asked of a backend that is far away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from mfstore.backends.base import Capabilities
from mfstore.errors import CorruptObject, Unsupported
from mfstore.format.packs import pack_path
from mfstore.format.recipes import INLINE, Recipe
from mfstore.loading.reads import plan_reads
from mfstore.progress import METER
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.format.recipes import Artifact
    from mfstore.host.ranges import KeptRange, NewRange, RangeCache, Turn
    from mfstore.loading.pack_reader import PackReader
    from mfstore.loading.reads import PackRead

SMALLEST = 64 << 10
"""Bytes of the smallest range that is kept: as a file it costs 0.14 ms of CPU to make, 0.03 to read, 0.02 whenever room
is made, and up to 8 KiB of disk more. What an artifact has in packs takes more than 256 KiB, unless it shares some."""


NEAR = Capabilities()
"""How files are read."""


class Run(NamedTuple):
    """Reads of one pack that follow each other without a gap: one entry."""

    pack: str
    start: int
    end: int
    reads: list[PackRead]


def plan_runs(reads: Sequence[PackRead], smallest: int = SMALLEST) -> list[Run]:
    """What is kept of these reads, which are in the order of their places. A raw array that was read in pieces is one
    run, so that it can be mapped."""
    runs: list[Run] = []
    for read in reads:
        last = runs[-1] if runs else None
        if last is not None and last.pack == read.pack and last.start <= read.start <= last.end:
            last.reads.append(read)
            runs[-1] = last._replace(end=max(last.end, read.end))
        else:
            runs.append(Run(read.pack, read.start, read.end, [read]))
    return [run for run in runs if run.end - run.start >= smallest]


class Adding:
    """What is kept of reads as they come."""

    def __init__(self, runs: Sequence[Run], entries: Sequence[NewRange | None], turn: Turn) -> None:
        self._entries = [entry for entry in entries if entry is not None]
        self._turn = turn
        self._of = {
            id(read): entry
            for run, entry in zip(runs, entries, strict=True) if entry is not None
            for read in run.reads
        }  # fmt: skip

    def add(self, read: PackRead, data: Buffer) -> None:
        """The bytes of a read, which were compared."""
        entry = self._of.get(id(read))
        if entry is not None:
            entry.write(read.start, data)
        self._turn.goes_on()

    def close(self) -> None:
        """What is not whole by now will not be."""
        for entry in self._entries:
            entry.abandon()


class CachedMap(NamedTuple):
    """A map of a run of raw chunks."""

    memory: Any
    kept: KeptRange
    """Closed: to be told from others, and to be dropped."""


class CachedReads:
    """Fills the targets of reads from the cache, and keeps there what had to be fetched.

    What comes from the cache is always compared with its digests, whatever a load asks for: an entry may be anything
    after a power loss.
    """

    def __init__(self, cache: RangeCache, reader: PackReader) -> None:
        self.cache = cache
        self._reader = reader
        self._whole: set[tuple[Any, int, int, bytes]] = set()
        """Ranges of files that this process has compared."""

    def has(self, read: PackRead) -> bool:
        """Whether it is there. It is not looked at."""
        return self.cache.covers(pack_path(read.pack), [(read.start, read.end)])

    def take(self, reads: Sequence[PackRead]) -> list[PackRead]:
        """Fill what is there and whole. Those that are left."""
        parts = [(number, part) for number, read in enumerate(reads) for part in _parts(read)]
        total = sum(read.decoded for read in reads)
        done = self._reader.workers.map(lambda part: self._take(part[1]), parts, total)
        missing = {number for (number, _), found in zip(parts, done, strict=True) if not found}
        served = [read for number, read in enumerate(reads) if number not in missing]
        if served:
            self.cache.count(len(served), 0, sum(read.end - read.start for read in served))
            meter = METER.get()
            if meter is not None:
                meter.moved(sum(read.decoded for read in served))
        return [reads[number] for number in sorted(missing)]

    def _take(self, read: PackRead) -> bool:
        path = pack_path(read.pack)
        kept = self.cache.find(path, read.start, read.end)
        if kept is None:
            return False
        with kept:
            try:
                target = read.in_place()
                if target is not None:
                    kept.read_into(read.start, target)
                else:
                    self._reader.decode(read.chunks, read.start, kept.read(read.start, read.end - read.start))
                self._reader.check_all(read.chunks, path)
            except (CorruptObject, Unsupported, OSError):
                kept.drop()
                return False
        return True

    @contextmanager
    def fetching(self, reads: Sequence[PackRead]) -> Iterator[tuple[list[PackRead], Adding]]:
        """Around fetching what is not there: which of it still is not, and what takes it as it comes. Of processes that
        fetch the same at once, one does, and the others find it."""
        with self.cache.alone(_token(reads)) as turn:
            left = self.take(reads)
            runs = plan_runs(left)
            self.cache.count(0, len(left), 0)
            entries = self.cache.add([(pack_path(run.pack), run.start, run.end, len(run.reads)) for run in runs])
            adding = Adding(runs, entries, turn)
            try:
                yield left, adding
            finally:
                adding.close()

    def drop(self, pack: str) -> None:
        """Something in that pack may be damaged, and it may be the cache that damaged it."""
        self.cache.drop(pack_path(pack))

    def find_recipe(self, key: str) -> bytes | None:
        """The recipe of a key as it was stored once. It may name places from which a collection has moved things."""
        return self.cache.whole(self._name_of(key))

    def keep_recipe(self, key: str, data: bytes) -> None:
        """In place of the one that was kept."""
        self.cache.keep(self._name_of(key), data)

    def drop_recipe(self, key: str) -> None:
        """It did not lead to what is stored."""
        self.cache.drop(self._name_of(key))

    def _name_of(self, key: str) -> str:
        # What one key leads to lies elsewhere in another store.
        return f"recipes/{sha256(self._reader.backend.url.encode()).hexdigest()[:16]}/{key}"

    def map(self, pack: str, start: int, length: int) -> CachedMap | None:
        """A private map of part of a pack. None: it is not there in one piece, or there are no more maps to have."""
        kept = self.cache.find(pack_path(pack), start, start + length)
        if kept is None:
            return None
        with kept:
            try:
                memory = kept.map(start, length)
            except OSError:
                return None
            return CachedMap(memory, kept)

    def was_compared(self, mapped: CachedMap, start: int, length: int, tag: bytes) -> bool:
        """Whether this process has found that part of a file whole, and it is the same file still."""
        return (mapped.kept.identity, start, length, tag) in self._whole

    def compared(self, mapped: CachedMap, start: int, length: int, tag: bytes) -> None:
        """It was found whole just now."""
        if len(self._whole) > 1 << 16:
            self._whole.clear()
        self._whole.add((mapped.kept.identity, start, length, tag))

    def covers(self, recipe: Recipe, wanted: Sequence[Artifact]) -> bool:
        """Whether the cache has all that these artifacts of a recipe have in packs, and they have something there. Not
        so where deltas are: what they are made against is not looked for; nor of a tree, which is read later."""
        if recipe.bases or recipe.is_tree:
            return False
        names = {artifact.name for artifact in wanted}
        ranges: dict[int, list[tuple[int, int]]] = {}
        number = 0
        for artifact in recipe.artifacts:
            if artifact.name in names:
                for at in recipe.placements[number : number + len(artifact.chunks)]:
                    if at.pack != INLINE:
                        ranges.setdefault(at.pack, []).append((at.offset, at.offset + at.csize))
            number += len(artifact.chunks)
        return bool(ranges) and all(
            self.cache.covers(pack_path(recipe.packs[pack].hex()), places) for pack, places in ranges.items()
        )


def _parts(read: PackRead) -> list[PackRead]:
    """The same as reads of files are planned, which are shorter than requests: for all threads, and within the caches
    of a processor."""
    return [read] if read.decoded <= NEAR.span else plan_reads(read.chunks, NEAR.gap, NEAR.span)


def _token(reads: Sequence[PackRead]) -> str:
    told = ";".join(f"{read.pack} {read.start} {read.end}" for read in reads)
    return sha256(told.encode()).hexdigest()[:32]
