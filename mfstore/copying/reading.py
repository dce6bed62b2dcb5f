"""Chunks out of the source as they are stored there, each checked before it goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from mfstore._core.codec import DELTAS, GROUP, NONE, delta_seal_is_right
from mfstore._core.memory import FreshBytes
from mfstore.backends.base import RangeRead
from mfstore.errors import BackendError, CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.packs import ALIGN_FROM, entry_of, pack_path
from mfstore.format.recipes import INLINE, placed_chunks
from mfstore.loading.deltas import DeltaWindow, delta_of, plan_windows
from mfstore.loading.pack_reader import PackReader
from mfstore.maintenance.store.groups import by_place, decode_group, part_of
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.copying.places import Fetch, Use
    from mfstore.format.digests import Key
    from mfstore.format.packs import PackEntry
    from mfstore.format.recipes import ChunkRef, Recipe
    from mfstore.handle import Handle
    from mfstore.loading.reads import PlacedChunk

CHECKED_TOGETHER = 1 << 20
"""Bytes that one task checks: handing it over takes 30 us, hashing a MiB 200."""
DELTAS_TOGETHER = 32 << 20
"""Bytes that the deltas decode to which are checked together."""
SPAN = 8 << 20
"""Longest read of a pack that goes as it is."""


class Fetched(NamedTuple):
    """A read that was made."""

    fetch: Fetch
    data: memoryview
    """Its bytes; none where it failed."""
    bad: set[int]
    """Which of its places are not whole there, by their numbers."""
    mapped: bool
    """Whether the bytes are the source's file, and no memory."""


class Check(NamedTuple):
    """Bytes of a pack in which some chunks are said to lie."""

    path: str
    data: memoryview
    start: int
    """Where in the pack they begin."""
    places: Sequence[Sequence[PackEntry]]

    def stored(self, number: int) -> memoryview:
        """The bytes of one place."""
        at = self.places[number][0].offset - self.start
        return self.data[at : at + self.places[number][0].csize]


class Source:
    """A store that is copied from."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        context = handle.context
        self.backend = context.backend
        self.digest = context.digest
        self.reliance = context.reliance
        self._context = context
        self._workers = context.workers
        self._maps = self.backend.capabilities.map and self.backend.maps_safely()
        self._reader = PackReader(context.backend, context.workers, context.digest)

    def fetch(self, fetches: Sequence[Fetch]) -> Iterator[Fetched]:
        """Make these reads together, and check every chunk; in order. AccessDenied and the like are raised."""
        maps = {number: self._mapped(one) for number, one in enumerate(fetches) if self._may_map(one)}
        found = {number: data for number, data in maps.items() if data is not None}
        mapped = set(found)
        left = [number for number in range(len(fetches)) if number not in found]
        ranges = [fetches[number] for number in left]
        reads = [RangeRead(pack_path(one.pack.hex()), one.start, one.end - one.start) for one in ranges]
        for number, data in self.backend.read_many(reads):
            found[left[number]] = self._taken(data)
        checks = [
            Check(pack_path(one.pack.hex()), found[number], one.start, one.places)
            for number, one in enumerate(fetches) if len(found[number]) == one.end - one.start
        ]  # fmt: skip
        bad = iter(self._check(checks))
        for number, one in enumerate(fetches):
            data = found.pop(number)
            is_there = len(data) == one.end - one.start
            yield Fetched(one, data, next(bad) if is_there else set(range(len(one.places))), number in mapped)

    def _may_map(self, fetch: Fetch) -> bool:
        """Whether bytes need not be read into memory: a long array can then stay in one pack, whatever its length, and
        be mapped at the destination too."""
        raw = all(together[0].codec == NONE for together in fetch.places)
        return self._maps and raw and fetch.end - fetch.start >= ALIGN_FROM

    def _mapped(self, fetch: Fetch) -> memoryview | None:
        """None when it cannot be had so: a process may have some 65,000 maps."""
        try:
            data = self.backend.map(pack_path(fetch.pack.hex()), fetch.start, fetch.end - fetch.start)
            return memoryview(data).cast("B")
        except (BackendError, CorruptObject, NotFound):
            return None

    def fetch_pack(self, pack: bytes, entries: Sequence[PackEntry]) -> memoryview | None:
        """All that lies in a pack before its trailer, which lists these chunks; None when one of them is not whole."""
        size = max(entry.offset + entry.csize for entry in entries)
        memory = memoryview(FreshBytes(size))
        path = pack_path(pack.hex())
        reads = [RangeRead(path, at, min(SPAN, size - at), memory[at : at + SPAN]) for at in range(0, size, SPAN)]
        for _, data in self.backend.read_many(reads):
            if not self._taken(data):
                return None
        (bad,) = self._check([Check(path, memory, 0, list(by_place(entries)))])
        return None if bad else memory

    @staticmethod
    def _taken(data: Buffer | MfstoreError) -> memoryview:
        if isinstance(data, MfstoreError):
            if isinstance(data, (CorruptObject, NotFound)):
                return memoryview(b"")  # it may lie elsewhere
            raise data
        return memoryview(data).cast("B")

    def _check(self, checks: Sequence[Check]) -> list[set[int]]:
        """Of each, the numbers of the places that are not whole. What seems damaged is read once more by itself."""
        tasks: list[list[tuple[int, int]]] = []
        size, total = CHECKED_TOGETHER, 0
        for check, one in enumerate(checks):
            for number, together in enumerate(one.places):
                if size >= CHECKED_TOGETHER:
                    tasks.append([])
                    total, size = total + size, 0
                tasks[-1].append((check, number))
                size += sum(entry.usize for entry in together)

        def work(task: list[tuple[int, int]]) -> list[tuple[int, int]]:
            return [
                (check, number) for check, number in task
                if not self.is_whole(checks[check].stored(number), checks[check].places[number])
            ]  # fmt: skip

        bad: list[set[int]] = [set() for _ in checks]
        for some in self._workers.map(work, tasks, total):
            for check, number in some:
                if not self._mended(checks[check], number):
                    bad[check].add(number)
        return bad

    def _mended(self, check: Check, number: int) -> bool:
        """Whether what seemed damaged was a bad read: now it is there."""
        stored, together = check.stored(number), check.places[number]
        try:
            again = self.backend.read_again(check.path, together[0].offset, len(stored))
        except (CorruptObject, NotFound):
            return False
        if stored.readonly or len(again) != len(stored) or not self.is_whole(memoryview(again), together):
            return False
        stored[:] = again
        return True

    def is_whole(self, stored: memoryview, together: Sequence[PackEntry]) -> bool:
        """Whether these bytes are the chunks that are said to lie in one place. Of a delta its seal tells that they are
        what was written; ``bad_deltas`` what they decode to."""
        codec = self._workers.thread.codec
        first = together[0]
        if first.codec in DELTAS:
            return bool(delta_seal_is_right(stored))
        try:
            if first.codec == GROUP:
                content, _ = decode_group(codec, stored, together, lambda size: memoryview(bytearray(size)))
                return all(self.digest(part_of(content, entry)) == entry.id for entry in together)
            if first.codec == NONE and not first.width:
                return first.csize == first.usize and self.digest(stored) == first.id
            out = memoryview(FreshBytes(first.usize))
            codec.decode(stored, out, [(0, first.csize, first.codec, first.width, 0, first.usize)])
        except (CorruptObject, Unsupported):
            return False
        return self.digest(out) == first.id

    def bad_inline(self, recipe: Recipe) -> dict[int, ChunkRef]:
        """The chunks, by number, that lie in a recipe and are not whole there. Deltas: as of ``is_whole``."""
        bad: dict[int, ChunkRef] = {}
        inline = memoryview(recipe.inline)
        for number, (chunk, at) in enumerate(placed_chunks(recipe)):
            if at.pack == INLINE:
                stored = inline[at.offset : at.offset + at.csize]
                if not self.is_whole(stored, [entry_of(chunk, at)]):
                    bad[number] = chunk
        return bad

    def bad_deltas(self, uses: Iterable[Use]) -> list[Use]:
        """Those deltas that do not decode to what their digest says: they, or what they are against, are damaged."""
        bad: list[Use] = []
        some: list[Use] = []
        size = 0
        for use in uses:
            some.append(use)
            size += use.chunk.usize
            if size >= DELTAS_TOGETHER:
                bad += self._bad_deltas(some)
                some, size = [], 0
        return bad + self._bad_deltas(some)

    def _bad_deltas(self, uses: Sequence[Use]) -> list[Use]:
        bad: list[Use] = []
        known: dict[int, dict[int, PlacedChunk]] = {}
        planned = []
        by_delta: dict[int, Use] = {}
        for use in uses:
            target = memoryview(FreshBytes(use.chunk.usize))
            bases = known.setdefault(id(use.recipe), {})
            delta = delta_of(use.recipe, use.number, use.chunk, target, True, bases)
            by_delta[id(delta)] = use
            planned.append(delta)
        before = None
        for deltas in plan_windows(planned):
            window = DeltaWindow(self._reader, self._context.verified, deltas, before)
            window.read_alone()
            failed = set(window.decode_all())
            bad += [
                by_delta[id(delta)] for number, delta in enumerate(deltas)
                if number in failed or window.lost_base(delta) is not None
            ]  # fmt: skip
            before = window
        return bad

    def rescue(self, use: Use) -> memoryview:
        """The bytes of a chunk that is not whole where its recipe says, from wherever they are to be had.

        NotFound when its key was removed meanwhile; CorruptObject, naming pack and key, when there is no whole copy.
        """
        memory = memoryview(FreshBytes(use.chunk.usize))
        wanted = [(use.number, use.chunk, memory)]
        with suppress(CorruptObject, NotFound):
            self._context.fetcher.fill(use.recipe, wanted, verify=True)
            return memory
        recipe = self.recipe_again(use.key)
        try:
            # A collection may have moved it since its recipe was read.
            self._context.fetcher.fill(recipe, wanted, verify=True)
            return memory
        except (CorruptObject, NotFound) as error:
            lost = error
        kind = NotFound if isinstance(lost, NotFound) else CorruptObject
        raise kind(
            f"{use.key} cannot be copied: {lost.message}", key=lost.key, backend=self.backend.url,
            offset=lost.offset, expected=lost.expected, found=lost.found,
            hint="mfstore verify tells what is damaged. Name what is to be copied to leave it out",
        )  # fmt: skip

    def recipe_again(self, key: Key) -> Recipe:
        """The recipe of a key that was there a moment ago."""
        try:
            return self.handle.recipe(key)
        except NotFound:
            raise gone(key, self.backend.url) from None


def gone(key: Key, url: str) -> NotFound:
    """What is said of a key that was to be copied and is not there any more."""
    return NotFound(
        "nothing is stored under this key any more: a collection removed it, or it was lost", key=key,
        backend=url, hint="What is acknowledged at the destination is whole. Run it again, without what names this key",
    )  # fmt: skip
