"""From placements back to bytes: plan few large reads, decode into final memory, check every digest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mfstore._core.codec import NONE
from mfstore._core.memory import FreshBytes, distance
from mfstore._core.pickler import BUFFER, BYTEARRAY, TEXT
from mfstore.backends.base import RangeRead
from mfstore.errors import AccessDenied, BackendError, CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.packs import pack_path
from mfstore.format.recipes import INLINE, Artifact, ChunkRef, Placement, Recipe

if TYPE_CHECKING:
    from concurrent.futures import Future

    from typing_extensions import Buffer

    from mfstore.backends.base import Backend
    from mfstore.format.digests import Digest
    from mfstore.format.fragments import Location
    from mfstore.format.recipes import Segment
    from mfstore.host.workers import Workers
    from mfstore.loading.verified import VerifiedRanges

    FindCopies = Callable[[bytes, bool], Sequence[Location]]
    Wanted = tuple[int, ChunkRef, memoryview]

SPAN = 8 << 20
"""Bytes of a map checked by one task."""
READ_BACKLOG = 64 << 20
"""Bytes read from a remote backend that may wait to be decoded; then reading pauses."""
AT_ONCE = 128 << 10
"""Up to so many bytes the thread that reads decodes itself: handing over a task costs 30 us."""
PROBES = 64
"""Chunks checked at a time before a dedup hit is trusted; bounds the memory they are decoded into."""
MAP_FROM = 1 << 20
"""Raw segments of this size or more are mapped; a smaller one is copied faster than a map's page faults."""


class Piece(NamedTuple):
    """One chunk to fetch: where it lies, what it is, and where its bytes go."""

    pack: str
    placement: Placement
    chunk: ChunkRef
    target: memoryview
    """Exactly ``chunk.usize`` writable bytes."""


@dataclass(slots=True)
class Read:
    """One range of a pack and the pieces in it."""

    pack: str
    start: int
    end: int
    pieces: list[Piece] = field(default_factory=list)
    decoded: int = 0
    """Bytes of the pieces once decoded."""
    target: memoryview | None = None
    """Where the whole range belongs as it is, once ``in_place`` has found out."""

    def in_place(self) -> memoryview | None:
        """The memory that the range may be read straight into: when its pieces are raw and lie side by side, there and
        here."""
        at = self.start
        for piece in self.pieces:
            place = piece.placement
            if place.codec != NONE or place.width or place.csize != piece.chunk.usize or place.offset != at:
                return None
            at += place.csize
        self.target = _joined([piece.target for piece in self.pieces])
        return self.target


def _joined(views: Sequence[memoryview]) -> memoryview | None:
    """One view of what several views cover, when they follow each other in the same memory."""
    first = views[0]
    if len(views) == 1:
        return first
    memory: Any = first.obj
    whole = memoryview(memory).cast("B")
    start = at = distance(whole, first)
    for view in views:
        if view.obj is not memory or distance(whole, view) != at:
            return None
        at += len(view)
    return whole[start:at]


def plan_reads(pieces: Iterable[Piece], gap: int, span: int) -> list[Read]:
    """Coalesce pieces into reads. Pure; inline pieces are not for here."""
    reads: list[Read] = []
    current: Read | None = None
    for piece in sorted(pieces, key=lambda piece: (piece.pack, piece.placement.offset)):
        start, end = piece.placement.offset, piece.placement.offset + piece.placement.csize
        if (
            current is None
            or current.pack != piece.pack
            or start > current.end + gap
            or max(end, current.end) - current.start > span
            or current.decoded + piece.chunk.usize > span
        ):
            current = Read(piece.pack, start, end)
            reads.append(current)
        current.end = max(current.end, end)
        current.pieces.append(piece)
        current.decoded += piece.chunk.usize
    return reads


def raw_run(recipe: Recipe, first: int, count: int) -> tuple[str, int] | None:
    """Pack and offset of chunks ``first`` to ``first + count`` when they are raw and lie back to back, else None."""
    places = recipe.placements[first : first + count]
    if not places or places[0].pack == INLINE:
        return None
    at, pack = places[0].offset, places[0].pack
    for place in places:
        if place.codec != NONE or place.width or place.pack != pack or place.offset != at:
            return None
        at += place.csize
    return recipe.packs[pack].hex(), places[0].offset


class Fetcher:
    """Reads the chunks of one store. ``find_copies(id, reload)`` tells every place of a chunk that the index knows,
    read anew or not; ``verified`` remembers what this process has verified or written."""

    def __init__(
        self, backend: Backend, workers: Workers, digest: Digest, find_copies: FindCopies, verified: VerifiedRanges
    ) -> None:
        self._backend = backend
        self._workers = workers
        self._digest = digest
        self._find_copies = find_copies
        self._verified = verified
        self._gap = backend.capabilities.gap
        self._span = backend.capabilities.span

    @property
    def remote(self) -> bool:
        """Whether reads are slow one by one and fast together."""
        return self._backend.capabilities.remote

    @property
    def span(self) -> int:
        """Longest read."""
        return self._span

    def fill(self, recipe: Recipe, wanted: Iterable[tuple[int, ChunkRef, memoryview]], verify: bool) -> None:
        """Fetch chunks into memory: ``(number in the recipe, chunk, target)`` each."""
        pieces: list[Piece] = []
        self._fetch(pieces, self._collect(recipe, wanted, verify, pieces), verify)

    def fill_all(self, parts: Iterable[tuple[Recipe, Iterable[Wanted]]], verify: bool) -> None:
        """``fill`` for several recipes, with common reads."""
        pieces: list[Piece] = []
        total = sum(self._collect(recipe, wanted, verify, pieces) for recipe, wanted in parts)
        self._fetch(pieces, total, verify)

    def _collect(self, recipe: Recipe, wanted: Iterable[Wanted], verify: bool, pieces: list[Piece]) -> int:
        """Decode what lies in the recipe and list the rest, of so many bytes."""
        total = 0
        for number, chunk, target in wanted:
            place = recipe.placements[number]
            if place.pack == INLINE:
                self._workers.thread.codec.decode(
                    recipe.inline, target, [(place.offset, place.csize, place.codec, place.width, 0, chunk.usize)]
                )
                if verify:
                    self._check(chunk, target, "recipe", place.offset)
                continue
            pieces.append(Piece(recipe.packs[place.pack].hex(), place, chunk, target))
            total += chunk.usize
        return total

    def _fetch(self, pieces: list[Piece], total: int, verify: bool) -> None:
        if not pieces:
            return
        reads = plan_reads(pieces, self._gap, self._span)
        if self.remote:
            self._read_remote(reads, lambda read, data: self._arrived(read, data, verify))
        else:
            self._workers.map(lambda read: self._read(read, verify), reads, total)

    # ---- remote reads -----------------------------------------------------------------

    def _read_remote(self, reads: Sequence[Read], work: Callable[[Read, Buffer | MfstoreError], None]) -> None:
        """All reads at once; ``work`` is done on each by the workers while others are on their way."""
        waiting: deque[tuple[Future[None], Read, Buffer | MfstoreError, int]] = deque()
        backlog = 0

        def finish_first() -> None:
            nonlocal backlog
            future, read, data, size = waiting.popleft()
            backlog -= size
            try:
                future.result()
            except CancelledError:  # no thread could be started
                work(read, data)

        # A target is known when its read is asked for: finding out costs as much as a few comparisons per chunk.
        arrivals = self._backend.read_many(
            RangeRead(pack_path(read.pack), read.start, read.end - read.start, read.in_place()) for read in reads
        )
        try:
            for number, data in arrivals:
                read = reads[number]
                if len(reads) == 1 or read.decoded <= AT_ONCE:
                    work(read, data)
                    continue
                size = 0 if read.target is not None else read.end - read.start
                waiting.append((self._workers.submit(work, read, data), read, data, size))
                backlog += size
                while waiting and (backlog > READ_BACKLOG or waiting[0][0].done()):
                    finish_first()
            while waiting:
                finish_first()
        finally:
            # Nobody may write to the caller's memory once this has returned or raised.
            if isinstance(arrivals, Generator):
                arrivals.close()
            futures = [entry[0] for entry in waiting]
            for future in futures:
                future.cancel()
            wait(futures)

    def _arrived(self, read: Read, data: Buffer | MfstoreError, verify: bool) -> None:
        try:
            if isinstance(data, MfstoreError):
                raise data
            if read.target is None:
                self._decode(read.pieces, read.start, data)
            if verify:
                self._check_all(read.pieces, pack_path(read.pack))
        except (CorruptObject, NotFound, Unsupported):
            # As in `_read`.
            for piece in read.pieces:
                self._read_one(piece, verify)

    def _sift(self, read: Read, data: Buffer | MfstoreError, good: list[bytes]) -> None:
        """Which pieces of a read are whole."""
        if isinstance(data, MfstoreError):
            return
        for piece in read.pieces:
            place = piece.placement
            try:
                if read.target is None:
                    self._decode([piece], read.start, data)
                self._check(piece.chunk, piece.target, pack_path(piece.pack), place.offset)
            except (CorruptObject, Unsupported):
                continue
            good.append(piece.chunk.id)
            self._verified.add(piece.pack, [(place.offset, place.csize, piece.chunk.id)])

    def _read(self, read: Read, verify: bool) -> None:
        try:
            self._read_all(read.pack, read.start, read.end, read.pieces, verify)
        except (CorruptObject, NotFound, Unsupported):
            # One by one, so that a damaged or missing chunk is found elsewhere and the rest is still used.
            for piece in read.pieces:
                self._read_one(piece, verify)

    def _read_all(self, pack: str, start: int, end: int, pieces: Sequence[Piece], verify: bool) -> None:
        path = pack_path(pack)
        first = pieces[0]
        if len(pieces) == 1 and first.placement.codec == NONE and not first.placement.width:
            if first.placement.csize != first.chunk.usize:
                raise CorruptObject(
                    "raw chunk has two lengths",
                    key=path,
                    offset=start,
                    expected=first.chunk.usize,
                    found=first.placement.csize,
                )
            self._backend.read_into(path, start, first.target)
        else:
            self._decode(pieces, start, self._backend.get_range(path, start, end - start))
        if verify:
            self._check_all(pieces, path)

    def _decode(self, pieces: Sequence[Piece], start: int, source: Buffer) -> None:
        codec = self._workers.thread.codec
        for piece in pieces:
            place = piece.placement
            job = (place.offset - start, place.csize, place.codec, place.width, 0, piece.chunk.usize)
            codec.decode(source, piece.target, [job])

    def _check_all(self, pieces: Sequence[Piece], path: str) -> None:
        for piece in pieces:
            self._check(piece.chunk, piece.target, path, piece.placement.offset)

    def _check(self, chunk: ChunkRef, data: memoryview, path: str, offset: int) -> None:
        found = self._digest(data)
        if found != chunk.id:
            raise CorruptObject(
                "chunk differs from its digest",
                key=path,
                backend=self._backend.url,
                offset=offset,
                expected=chunk.id.hex(),
                found=found.hex(),
            )

    def _read_one(self, piece: Piece, verify: bool) -> None:
        place = piece.placement
        path = pack_path(piece.pack)
        try:
            self._read_all(piece.pack, place.offset, place.offset + place.csize, [piece], verify)
            return
        except (CorruptObject, NotFound, Unsupported) as error:
            failure: MfstoreError = error
        self._verified.forget(piece.pack)
        tried = {(piece.pack, place.offset)}
        for reload in (False, True):
            for other in self._find_copies(piece.chunk.id, reload):
                name = other.pack.value.hex()
                if (name, other.offset) in tried or other.usize != piece.chunk.usize:
                    continue
                tried.add((name, other.offset))
                try:
                    moved = piece._replace(pack=name, placement=other.placement())
                    # Always checked: an index entry is a hint.
                    self._read_all(name, other.offset, other.offset + other.csize, [moved], True)
                    return
                except (CorruptObject, NotFound, Unsupported):
                    continue
        if isinstance(failure, NotFound):
            failure = CorruptObject("a pack is missing", key=path, backend=self._backend.url)
        failure.where(
            key=path, backend=self._backend.url, offset=place.offset, hint="Store the same content again to repair it"
        )
        raise failure

    # ---- artifacts --------------------------------------------------------------------

    def payloads(self, recipe: Recipe, artifact: Artifact, first: int, verify: bool) -> Iterator[Loaded]:
        """One ``Loaded`` per segment of an artifact whose chunks start at ``first``; fill them with ``fill``."""
        number = first + artifact.body_chunks
        position = artifact.body_chunks
        for segment in artifact.segments:
            chunks = artifact.chunks[position : position + segment.chunks]
            yield self._prepare(recipe, segment, number, chunks, verify)
            number += segment.chunks
            position += segment.chunks

    def _prepare(
        self, recipe: Recipe, segment: Segment, number: int, chunks: Sequence[ChunkRef], verify: bool
    ) -> Loaded:
        if segment.kind == BUFFER and segment.length >= MAP_FROM and self._backend.capabilities.map:
            run = raw_run(recipe, number, segment.chunks)
            if run is not None:
                mapped = self._map(run[0], run[1], segment.length, chunks, verify)
                if mapped is not None:
                    return Loaded(segment.kind, mapped, ())
        memory: Any = bytearray(segment.length) if segment.kind == BYTEARRAY else FreshBytes(segment.length)
        return Loaded(segment.kind, memory, tuple(targets(memory, number, chunks)))

    def _map(self, pack: str, start: int, length: int, chunks: Sequence[ChunkRef], verify: bool) -> Any:
        """A verified private map, or None when it does not hold what it should (reading will say why)."""
        path = pack_path(pack)
        try:
            mapped = self._backend.map(path, start, length)
            if not verify:
                return mapped
            tag = self._digest(b"".join(chunk.id for chunk in chunks))
            if self._verified.has(pack, start, length, tag):
                return mapped
            view = memoryview(mapped)
            pieces, at = [], 0
            for chunk in chunks:
                pieces.append((start + at, chunk, view[at : at + chunk.usize]))
                at += chunk.usize
            step = max(1, SPAN // chunks[0].usize)
            tasks = [pieces[number : number + step] for number in range(0, len(pieces), step)]

            def check(task: list[tuple[int, ChunkRef, memoryview]]) -> None:
                for offset, chunk, data in task:
                    self._check(chunk, data, path, offset)

            self._workers.map(check, tasks, length)
            self._verified.add(pack, [(start, length, tag)])
            return mapped
        except (CorruptObject, NotFound, BackendError):
            # Damaged, gone, or the kernel has no more maps to give: reading works or says why.
            return None

    def whole(self, places: Sequence[tuple[ChunkRef, str, Placement]]) -> set[bytes]:
        """Which chunks among ``(chunk, pack, placement)`` are readable and whole at that place.

        What this process wrote or verified there, in files that did not change since, is not read again.
        """
        good: set[bytes] = set()
        doubtful = []
        for chunk, pack, place in places:
            if self._verified.has(pack, place.offset, place.csize, chunk.id):
                good.add(chunk.id)
            else:
                doubtful.append((chunk, pack, place))
        for start in range(0, len(doubtful), PROBES):
            window = doubtful[start : start + PROBES]
            pieces = [Piece(pack, place, chunk, memoryview(FreshBytes(chunk.usize))) for chunk, pack, place in window]
            reads = plan_reads(pieces, self._gap, self._span)
            if self.remote:
                found: list[bytes] = []
                self._read_remote(reads, lambda read, data, found=found: self._sift(read, data, found))  # type: ignore[misc]
                good.update(found)
            else:
                good.update(*self._workers.map(self._probe, reads, SPAN))
        return good

    def reliable(self, places: Sequence[tuple[ChunkRef, str, Placement]]) -> set[bytes]:
        """Which chunks an acknowledgement may rely on: those in packs the backend vouches for, or that were read."""
        if self._backend.capabilities.cheap_reads:
            return self.whole(places)
        ends: dict[str, int] = {}
        for _, pack, place in places:
            ends[pack] = max(ends.get(pack, 0), place.offset + place.csize)
        vouched = self._verified.vouched(ends)
        good = {chunk.id for chunk, pack, _ in places if pack in vouched}
        return good | self.whole([entry for entry in places if entry[1] not in vouched])

    def _probe(self, read: Read) -> list[bytes]:
        good = []
        for piece in read.pieces:
            place = piece.placement
            try:
                self._read_all(piece.pack, place.offset, place.offset + place.csize, [piece], True)
                self._verified.add(piece.pack, [(place.offset, place.csize, piece.chunk.id)])
                good.append(piece.chunk.id)
            except (CorruptObject, NotFound, Unsupported, AccessDenied):
                continue
        return good


class Loaded(NamedTuple):
    """Memory of one segment and the chunks still to be fetched into it."""

    kind: int
    memory: Any
    wanted: Sequence[tuple[int, ChunkRef, memoryview]]

    def value(self, writable: bool) -> Any:
        """What the unpickler takes for it, once filled."""
        if self.kind == BUFFER:
            view = memoryview(self.memory)
            return view if writable else view.toreadonly()
        if self.kind == BYTEARRAY:
            return self.memory
        data: bytes = self.memory.value
        return data.decode("utf-8", "surrogatepass") if self.kind == TEXT else data


def targets(memory: Any, number: int, chunks: Sequence[ChunkRef]) -> Iterator[tuple[int, ChunkRef, memoryview]]:
    """``chunks``, numbered from ``number``, each with its part of ``memory``."""
    view = memoryview(memory).cast("B")
    at = 0
    for offset, chunk in enumerate(chunks):
        yield number + offset, chunk, view[at : at + chunk.usize]
        at += chunk.usize
