"""From placements back to bytes: every chunk where it belongs, from another copy when one is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from mfstore.errors import CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.packs import pack_path
from mfstore.format.recipes import INLINE, Recipe, decode, recipe_path
from mfstore.loading.reads import ChunkRead, PackRead, plan_reads

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.format.fragments import Location
    from mfstore.format.recipes import ChunkRef
    from mfstore.loading.pack_reader import PackReader
    from mfstore.loading.verified import VerifiedRanges

    WantedChunk = tuple[int, ChunkRef, memoryview]
    """Number of a chunk in its recipe, what it is, and where its bytes go: a plain tuple, as there are millions."""
    Healed = tuple[str, bool]
    """An object in which something could not be read, and whether it is gone."""
    FindCopies = Callable[[bytes, bool], Sequence[Location]]


class Fetcher:
    """Reads the chunks of one store. ``find_copies(id, reload)`` tells every place of a chunk that the index knows,
    read anew or not; ``verified`` forgets the packs that are found damaged."""

    def __init__(self, reader: PackReader, find_copies: FindCopies, verified: VerifiedRanges) -> None:
        self._reader = reader
        self._find_copies = find_copies
        self._verified = verified
        self._gap = reader.backend.capabilities.gap
        self._span = reader.backend.capabilities.span

    def fill(self, recipe: Recipe, wanted: Iterable[WantedChunk], verify: bool) -> None:
        """Fetch chunks of one recipe into memory. CorruptObject when a chunk is not to be had whole; without ``verify``
        only its length is looked at."""
        reads: list[ChunkRead] = []
        healed: list[Healed] = []
        self._fetch(reads, self._collect(recipe, wanted, verify, reads, healed), verify, healed)

    def fill_all(self, parts: Iterable[tuple[Recipe, Iterable[WantedChunk]]], verify: bool) -> None:
        """``fill`` for several recipes, with common reads."""
        reads: list[ChunkRead] = []
        healed: list[Healed] = []
        total = sum(self._collect(recipe, wanted, verify, reads, healed) for recipe, wanted in parts)
        self._fetch(reads, total, verify, healed)

    def _collect(
        self, recipe: Recipe, wanted: Iterable[WantedChunk], verify: bool, reads: list[ChunkRead], healed: list[Healed]
    ) -> int:
        """Decode what lies in the recipe and list the rest, of so many bytes."""
        total = 0
        reader = self._reader
        if not verify and self._verified.met_damage:
            key = reader.digest(recipe.content).hex()
            verify = self._verified.is_damaged(key, recipe_path(key))
        for number, chunk, target in wanted:
            placement = recipe.placements[number]
            if placement.pack == INLINE:
                job = (placement.offset, placement.csize, placement.codec, placement.width, 0, chunk.usize)
                try:
                    reader.workers.thread.codec.decode(recipe.inline, target, [job])
                    if verify and reader.digest(target) != chunk.id:
                        reader.check(chunk, target, "recipe", placement.offset)
                except (CorruptObject, Unsupported) as error:
                    self._decode_again(recipe, number, chunk, target, error, healed)
                continue
            reads.append(ChunkRead(recipe.packs[placement.pack].hex(), placement, chunk, target))
            total += chunk.usize
        return total

    def _decode_again(
        self,
        recipe: Recipe,
        number: int,
        chunk: ChunkRef,
        target: memoryview,
        error: MfstoreError,
        healed: list[Healed],
    ) -> None:
        """A chunk that lies in the recipe and is not whole: from the recipe read again, else from another copy."""
        reader = self._reader
        key = reader.digest(recipe.content)
        path = recipe_path(key.hex())
        try:
            again = decode(reader.backend.read_again(path), reader.workers.thread.codec, key)
            at = again.placements[number]
            if at.pack == INLINE:
                job = (at.offset, at.csize, at.codec, at.width, 0, chunk.usize)
                reader.workers.thread.codec.decode(again.inline, target, [job])
                reader.check(chunk, target, path, at.offset)
                return
        except (CorruptObject, NotFound, Unsupported):
            pass
        self._verified.note_damage(key.hex(), path)
        if not self._read_copy(ChunkRead("", recipe.placements[number], chunk, target)):
            raise error.where(backend=reader.backend.url)
        healed.append((path, False))

    def _fetch(self, chunks: list[ChunkRead], total: int, verify: bool, healed: list[Healed]) -> None:
        """``healed`` are the objects in which damage was met so far that another copy made up for."""
        if chunks:
            reads = plan_reads(chunks, self._gap, self._span)
            if self._reader.remote:
                self._reader.read_remote(reads, lambda read, data: self._arrived(read, data, verify, healed))
            else:
                self._reader.workers.map(lambda read: self._read(read, verify, healed), reads, total)
        if healed:
            # What is damaged first: what is gone may just have been moved.
            path, gone = min(healed, key=itemgetter(1))
            self._verified.warn_healed(path, gone)

    def _must_verify(self, pack: str) -> bool:
        """Whether a pack is known to be damaged: then what is read there is compared, whatever was asked for."""
        return self._verified.met_damage and self._verified.is_damaged(pack, pack_path(pack))

    def _arrived(self, read: PackRead, data: Buffer | MfstoreError, verify: bool, healed: list[Healed]) -> None:
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

    def _read(self, read: PackRead, verify: bool, healed: list[Healed]) -> None:
        verify = verify or self._must_verify(read.pack)
        try:
            self._reader.read(read.pack, read.start, read.end, read.chunks, verify)
        except (CorruptObject, NotFound, Unsupported):
            self._read_one_by_one(read, verify, healed)

    def _read_one_by_one(self, read: PackRead, verify: bool, healed: list[Healed]) -> None:
        """So that a damaged or missing chunk is found elsewhere and the rest is still used."""
        for wanted in read.chunks:
            self._read_one(wanted, verify, healed)

    def _read_one(self, wanted: ChunkRead, verify: bool, healed: list[Healed]) -> None:
        reader, placement = self._reader, wanted.placement
        path, url = pack_path(wanted.pack), self._reader.backend.url
        try:
            reader.read(wanted.pack, placement.offset, placement.offset + placement.csize, [wanted], verify)
            return
        except NotFound as error:
            failure: MfstoreError = error
        except (CorruptObject, Unsupported) as error:
            failure = error
            if reader.read_again(wanted):
                return  # the reads before were bad, and not what is stored
        self._verified.forget(wanted.pack)
        if self._read_copy(wanted):
            healed.append((path, isinstance(failure, NotFound)))
            return
        if isinstance(failure, NotFound):
            failure = CorruptObject("a pack is missing", key=path, backend=url)
        failure.where(key=path, backend=url, offset=placement.offset, hint="Store the same content again to repair it")
        raise failure

    def _read_copy(self, wanted: ChunkRead) -> bool:
        """Whether a whole copy of a chunk was found elsewhere and read."""
        reader = self._reader
        tried = {(wanted.pack, wanted.placement.offset)}
        for reload in (False, True):
            for copy in self._find_copies(wanted.chunk.id, reload):
                name = copy.pack.value.hex()
                if (name, copy.offset) in tried or copy.usize != wanted.chunk.usize:
                    continue
                tried.add((name, copy.offset))
                try:
                    moved = wanted._replace(pack=name, placement=copy.placement())
                    # Always checked: an index entry is a hint.
                    reader.read(name, copy.offset, copy.offset + copy.csize, [moved], True)
                    return True
                except (CorruptObject, NotFound, Unsupported):
                    continue
        return False


def targets(memory: Any, number: int, chunks: Sequence[ChunkRef]) -> Iterator[WantedChunk]:
    """``chunks``, numbered from ``number``, each with its part of ``memory``."""
    view = memoryview(memory).cast("B")
    at = 0
    for offset, chunk in enumerate(chunks):
        yield number + offset, chunk, view[at : at + chunk.usize]
        at += chunk.usize
