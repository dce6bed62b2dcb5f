"""From placements back to bytes: every chunk where it belongs, from another copy when one is damaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from mfstore._core.codec import GROUP
from mfstore.errors import CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.packs import pack_path
from mfstore.format.recipes import INLINE, Recipe, decode, recipe_path
from mfstore.loading.deltas import DeltaWindow, delta_of, plan_windows, scratch_of
from mfstore.loading.elsewhere import Elsewhere
from mfstore.loading.reads import ChunkRead, PackRead, PlacedChunk, by_place, in_order, plan_reads
from mfstore.progress import METER

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.format.recipes import ChunkRef
    from mfstore.loading.cached import Adding, CachedReads
    from mfstore.loading.deltas import Delta
    from mfstore.loading.elsewhere import FindCopies, Healed
    from mfstore.loading.pack_reader import PackReader
    from mfstore.loading.verified import VerifiedRanges
    from mfstore.progress import Meter

    NumberedFailure = tuple[int, ChunkRead, MfstoreError]
    """Number of a chunk in its recipe, the chunk, and what is wrong with it."""
    WantedChunk = tuple[int, ChunkRef, memoryview]
    """Number of a chunk in its recipe, what it is, and where its bytes go: a plain tuple, as there are millions."""


class Fetcher:
    """Reads the chunks of one store. ``find_copies(id, reload)`` tells every place of a chunk that the index knows,
    read anew or not; ``verified`` forgets the packs that are found damaged; ``cached`` has some of the bytes on this
    host."""

    def __init__(
        self, reader: PackReader, find_copies: FindCopies, verified: VerifiedRanges, cached: CachedReads | None = None
    ) -> None:
        self._reader = reader
        self._cached = cached
        self._elsewhere = Elsewhere(reader, find_copies, verified)
        self._verified = verified
        self._gap = reader.backend.capabilities.gap
        self._span = reader.backend.capabilities.span
        self._told = reader.backend.capabilities.told

    @property
    def differed(self) -> int:
        """Chunks that were read and are not what their digest says."""
        return self._reader.differed

    def fill(self, recipe: Recipe, wanted: Iterable[WantedChunk], verify: bool) -> None:
        """Fetch chunks of one recipe into memory. CorruptObject when a chunk is not to be had whole; without ``verify``
        only its length is looked at."""
        reads: list[ChunkRead] = []
        deltas: list[Delta] = []
        healed: list[Healed] = []
        self._fetch(reads, deltas, self._collect(recipe, wanted, verify, reads, deltas, healed), verify, healed)

    def fill_all(self, parts: Iterable[tuple[Recipe, Iterable[WantedChunk]]], verify: bool) -> None:
        """``fill`` for several recipes, with common reads."""
        reads: list[ChunkRead] = []
        deltas: list[Delta] = []
        healed: list[Healed] = []
        total = sum(self._collect(recipe, wanted, verify, reads, deltas, healed) for recipe, wanted in parts)
        self._fetch(reads, deltas, total, verify, healed)

    def _collect(
        self, recipe: Recipe, wanted: Iterable[WantedChunk], verify: bool, reads: list[ChunkRead], deltas: list[Delta],
        healed: list[Healed],
    ) -> int:  # fmt: skip
        """Decode what lies in the recipe and list the rest, of so many bytes; deltas apart."""
        total = 0
        reader = self._reader
        if not verify and self._verified.met_damage:
            key = reader.digest(recipe.content).hex()
            verify = self._verified.is_damaged(key, recipe_path(key))
        bases: dict[int, PlacedChunk] | None = {} if recipe.bases else None
        grouped: list[tuple[int, ChunkRead]] = []
        failed: list[NumberedFailure] = []
        for number, chunk, target in wanted:
            placement = recipe.placements[number]
            if bases is not None and placement.pieces:
                deltas.append(delta_of(recipe, number, chunk, target, verify, bases))
                continue
            if placement.pack == INLINE and placement.codec == GROUP:
                grouped.append((number, ChunkRead("", placement, chunk, target)))
                continue
            if placement.pack == INLINE:
                job = (placement.offset, placement.csize, placement.codec, placement.width, 0, chunk.usize)
                try:
                    reader.workers.thread.codec.decode(recipe.inline, target, [job])
                    if verify and reader.digest(target) != chunk.id:
                        reader.check(chunk, target, "recipe", placement.offset)
                except (CorruptObject, Unsupported) as error:
                    failed.append((number, ChunkRead("", placement, chunk, target), error))
                continue
            reads.append(ChunkRead(recipe.packs[placement.pack].hex(), placement, chunk, target))
            total += chunk.usize
        if grouped:
            failed += self._decode_groups(recipe, grouped, verify)
        if failed:
            self._decode_again(recipe, failed, healed)
        return total

    def _decode_groups(
        self, recipe: Recipe, grouped: list[tuple[int, ChunkRead]], verify: bool
    ) -> list[NumberedFailure]:
        """Chunks of groups that lie in the recipe, by their numbers there: each group is decoded once. Those that are
        not whole."""
        failed: list[NumberedFailure] = []
        reader = self._reader
        grouped.sort(key=lambda one: (one[1].placement.offset, one[1].placement.width))
        numbers = iter(grouped)
        for together in by_place([wanted for _, wanted in grouped]):
            at = together[0].placement
            failure: MfstoreError | None = None
            try:
                encoded = memoryview(recipe.inline)[at.offset : at.offset + at.csize]
                parts = [(wanted.placement.width, wanted.target) for wanted in together]
                reader.workers.thread.codec.decode_group(encoded, parts, at.offset)
            except (CorruptObject, Unsupported) as error:
                failure = error
            for wanted in together:
                number, _ = next(numbers)
                try:
                    if failure is not None:
                        raise failure
                    if verify:
                        reader.check(wanted.chunk, wanted.target, "recipe", at.offset)
                except (CorruptObject, Unsupported) as error:
                    failed.append((number, wanted, error))
        return failed

    def _decode_again(self, recipe: Recipe, failed: Sequence[NumberedFailure], healed: list[Healed]) -> None:
        """Chunks that lie in the recipe and are not whole: from the recipe read again, else from other copies."""
        reader = self._reader
        key = reader.digest(recipe.content)
        path = recipe_path(key.hex())
        left = failed
        try:
            again = decode(reader.backend.read_again(path), reader.workers.thread.codec, key)
            left = [one for one in failed if not self._decode_inline(again, one[0], one[1], path)]
        except (CorruptObject, NotFound, Unsupported):
            pass
        if not left:
            return
        self._verified.note_damage(key.hex(), path)
        lost = {id(wanted) for wanted in self._elsewhere.read_copies([wanted for _, wanted, _ in left])}
        for _, wanted, error in left:
            if id(wanted) in lost:
                raise error.where(backend=reader.backend.url)
        healed.append((path, False))

    def _decode_inline(self, recipe: Recipe, number: int, wanted: ChunkRead, path: str) -> bool:
        """Whether a chunk that lies in the recipe is whole."""
        at, reader = recipe.placements[number], self._reader
        if at.pack != INLINE or at.pieces:
            return False
        job = (at.offset, at.csize, at.codec, at.width, 0, wanted.chunk.usize)
        try:
            reader.workers.thread.codec.decode(recipe.inline, wanted.target, [job])
            reader.check(wanted.chunk, wanted.target, path, at.offset)
        except (CorruptObject, Unsupported):
            return False
        return True

    def _fetch(
        self, chunks: list[ChunkRead], deltas: list[Delta], total: int, verify: bool, healed: list[Healed]
    ) -> None:
        """``healed`` are the objects in which damage was met so far that another copy made up for."""
        if deltas:
            self._fetch_deltas(chunks, deltas, total, verify, healed)
        elif chunks:
            self._read_all(chunks, total, verify, healed)
        if healed:
            # What is damaged first: what is gone may just have been moved.
            path, gone = min(healed, key=itemgetter(1))
            self._verified.warn_healed(path, gone)

    def _read_all(self, chunks: list[ChunkRead], total: int, verify: bool, healed: list[Healed]) -> None:
        reads = plan_reads(chunks, self._gap, self._span)
        if self._cached is None:
            self._read_stored(reads, total, verify, healed)
        elif left := self._cached.take(reads):
            with self._cached.fetching(left) as (left, adding):
                self._read_stored(left, total, verify, healed, adding)

    def _read_stored(
        self, reads: list[PackRead], total: int, verify: bool, healed: list[Healed], adding: Adding | None = None
    ) -> None:
        """Read what the backend has. What ``adding`` takes is kept on this host."""
        flows = meter = METER.get()
        if meter is not None and self._told:
            meter.carry(sum(read.decoded for read in reads), sum(read.end - read.start for read in reads))
            meter = None
        if self._reader.remote:
            self._reader.read_remote(reads, lambda read, data: self._arrived(read, data, verify, healed, meter, adding))
        else:
            self._reader.workers.map(lambda read: self._read(read, verify, healed, meter), reads, total)
        if flows is not None:
            flows.settle()

    def _fetch_deltas(
        self, chunks: list[ChunkRead], deltas: list[Delta], total: int, verify: bool, healed: list[Healed]
    ) -> None:
        """A window at a time; with the first one all chunks that are no deltas, so that these take no round of their
        own."""
        window: DeltaWindow | None = None
        for planned in plan_windows(deltas):
            window = DeltaWindow(self._reader, self._verified, planned, window)
            total += sum(read.chunk.usize for read in window.reads)
            self._read_all([*chunks, *window.reads], total, verify, healed)
            chunks, total = [], 0
            failed = window.decode_all()
            if failed:
                if self._cached is not None:
                    for pack in {read.pack for read in window.reads}:
                        self._cached.drop(pack)
                self._find_bases(window, failed, healed)
            for number in failed:
                self._heal(window, number, healed)

    def _find_bases(self, window: DeltaWindow, failed: Sequence[int], healed: list[Healed]) -> None:
        """Put the base chunks of these deltas right that are not what their digests say."""
        bases = {id(base): base for number in failed for base in window.bases(window.deltas[number])}
        broken = [base for base in bases.values() if not window.is_whole(base)]
        for together in by_place(in_order(broken)):
            for base in together:
                scratch_of(base).failure = None
            again = [base._replace(scratch=None) for base in together]
            lost = {id(one): error for one, error in self._elsewhere.find(again, True, healed)}
            for base, one in zip(together, again, strict=True):
                scratch_of(base).lost = lost.get(id(one))

    def _heal(self, window: DeltaWindow, number: int, healed: list[Healed]) -> None:
        """A delta that could not be decoded, or not to what its digest says; its base chunks have been looked for. It
        is read again, or its chunk is found whole."""
        delta = window.deltas[number]
        wanted = delta.wanted
        lost = next((base for base in window.bases(delta) if scratch_of(base).lost is not None), None)
        failure = window.decode(number) if lost is None else scratch_of(lost).lost
        if failure is None or (lost is None and self._read_delta_again(window, number)):
            return
        if self._read_by_recipe(delta, lost is not None):
            return
        if lost is not None:
            path, offset = pack_path(lost.pack), lost.placement.offset
        else:
            path, offset = self._note_damaged_delta(delta), wanted.placement.offset
        if not self._elsewhere.read_copies([wanted]):
            healed.append((path, isinstance(failure, NotFound)))
            return
        state = "missing" if isinstance(failure, NotFound) else "damaged"
        chunk = f"chunk {wanted.chunk.id.hex()}"
        raise CorruptObject(
            f"a delta is {state}" if lost is None else f"a base of a delta is {state}", key=path,
            backend=self._reader.backend.url, offset=offset,
            expected=chunk if lost is None else f"base chunk {lost.chunk.id.hex()} of {chunk}",
            hint="Store the same content again to repair it",
        ) from failure  # fmt: skip

    def _note_damaged_delta(self, delta: Delta) -> str:
        """Where it lies."""
        if delta.wanted.pack:
            self._verified.forget(delta.wanted.pack)
            return pack_path(delta.wanted.pack)
        key = self._reader.digest(_source(delta)[0].content).hex()
        self._verified.note_damage(key, recipe_path(key))
        return recipe_path(key)

    def _read_delta_again(self, window: DeltaWindow, number: int) -> bool:
        """Whether a delta in a pack, whose base is whole, is whole when it is read by another way."""
        wanted = window.deltas[number].wanted
        if not wanted.pack:
            return False
        try:
            at = wanted.placement
            data = self._reader.backend.read_again(pack_path(wanted.pack), at.offset, at.csize)
        except (CorruptObject, NotFound):
            return False
        return window.decode(number, data) is None

    def _read_by_recipe(self, delta: Delta, base_is_lost: bool) -> bool:
        """Whether a delta is had by its recipe read again: that may have been read badly, or say another place by now.
        The index would not tell where a delta was moved to."""
        reader = self._reader
        recipe, number = _source(delta)
        key = reader.digest(recipe.content)
        try:
            again = decode(reader.backend.read_again(recipe_path(key.hex())), reader.workers.thread.codec, key)
        except (CorruptObject, NotFound, Unsupported):
            return False
        wanted = delta.wanted
        if not again.placements[number].pieces:
            return False  # the index tells of it
        moved = delta_of(again, number, wanted.chunk, wanted.target, True, {})
        places = [(one.wanted.pack, one.wanted.placement[:5], one.base) for one in (moved, delta)]
        same = places[0] == places[1]
        if same and (wanted.pack or base_is_lost):
            return False
        window = DeltaWindow(reader, self._verified, [moved])
        window.read_alone()
        return window.decode(0) is None

    def _must_verify(self, pack: str) -> bool:
        """Whether a pack is known to be damaged: then what is read there is compared, whatever was asked for."""
        return self._verified.met_damage and self._verified.is_damaged(pack, pack_path(pack))

    def _arrived(
        self, read: PackRead, data: Buffer | MfstoreError, verify: bool, healed: list[Healed], meter: Meter | None,
        adding: Adding | None,
    ) -> None:  # fmt: skip
        verify = verify or self._must_verify(read.pack)
        try:
            if isinstance(data, MfstoreError):
                raise data
            if read.target is None:
                self._reader.decode(read.chunks, read.start, data)
            if verify:
                self._reader.check_all(read.chunks, pack_path(read.pack))
        except (CorruptObject, NotFound, Unsupported):
            self._read_one_by_one(read, verify, healed)
        else:
            if adding is not None:
                adding.add(read, data)
        if meter is not None:
            meter.moved(read.decoded)

    def _read(self, read: PackRead, verify: bool, healed: list[Healed], meter: Meter | None) -> None:
        verify = verify or self._must_verify(read.pack)
        try:
            if read.in_place() is not None:
                self._reader.read_in_place(read, verify)
            else:
                self._reader.read(read.pack, read.start, read.end, read.chunks, verify)
        except (CorruptObject, NotFound, Unsupported):
            self._read_one_by_one(read, verify, healed)
        if meter is not None:
            meter.moved(read.decoded)

    def _read_one_by_one(self, read: PackRead, verify: bool, healed: list[Healed]) -> None:
        """So that a damaged or missing chunk is found elsewhere and the rest is still used."""
        for together in by_place(read.chunks):
            for wanted, failure in self._elsewhere.find(together, verify, healed):
                path, url = pack_path(wanted.pack), self._reader.backend.url
                if isinstance(failure, NotFound):
                    failure = CorruptObject("a pack is missing", key=path, backend=url)
                raise failure.where(
                    key=path, backend=url, offset=wanted.placement.offset,
                    hint="Store the same content again to repair it",
                )  # fmt: skip


def _source(delta: Delta) -> tuple[Recipe, int]:
    assert delta.source is not None
    return delta.source


def targets(memory: Any, number: int, chunks: Sequence[ChunkRef]) -> Iterator[WantedChunk]:
    """``chunks``, numbered from ``number``, each with its part of ``memory``."""
    view = memoryview(memory).cast("B")
    at = 0
    for offset, chunk in enumerate(chunks):
        yield number + offset, chunk, view[at : at + chunk.usize]
        at += chunk.usize
