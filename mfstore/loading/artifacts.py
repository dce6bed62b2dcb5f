"""From recipes to artifacts: chunks fetched together, then unpickled; and byte ranges of an artifact's stream."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from mfstore._core.memory import FreshBytes
from mfstore._core.pickler import BYTES, TEXT
from mfstore.errors import Unsupported
from mfstore.format.groups import have_one_place
from mfstore.format.recipes import PICKLE, TREE
from mfstore.loading.fetch import targets
from mfstore.pickling.streams import load, load_literal
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.allow import Allow
    from mfstore.format.recipes import Artifact, ChunkRef, Recipe, Segment
    from mfstore.loading.fetch import Fetcher, WantedChunk
    from mfstore.loading.segments import SegmentLoader, SegmentMemory

BODIES_TOGETHER = 32 << 20
"""Bodies of up to this many bytes are held at a time while a bundle loads; they are freed once unpickled. A longer body
is read in blocks of this size while it is unpickled."""


class Loading(NamedTuple):
    """How artifacts are loaded."""

    fetcher: Fetcher
    segments: SegmentLoader
    verify: bool
    """Compare every chunk with its digest."""
    writable: bool
    """Whether arrays may be changed by who gets them."""
    map: bool | None
    """Whether large raw arrays are mapped; None: as the store was opened."""
    memory: int
    """Bytes of texts and bytes that are read before something is made of the first of them."""
    safe: Allow | None = None
    """Make data alone, and what is on this list; None: whatever was stored."""


def load_artifacts(
    how: Loading, recipe: Recipe, wanted: Sequence[Artifact], first: dict[str, int] | None = None
) -> Iterator[Any]:
    """The objects of ``wanted``, in order. Chunks of several artifacts are fetched together. ``first`` is
    ``first_chunks`` of the recipe, for who loads many of its artifacts one by one."""
    if (
        how.writable
        and how.safe is None
        and all(artifact.literal is not None and artifact.encoding == PICKLE for artifact in wanted)
    ):
        # The usual small bundle: nothing to fetch, nothing to place.
        for artifact in wanted:
            try:
                value = load_literal(artifact.literal)
            except Exception as error:
                raise _told(error, recipe, artifact)  # noqa: B904
            yield value
        return
    starts = first or first_chunks(recipe)
    together: list[Artifact] = []
    held = 0
    for artifact in wanted:
        together.append(artifact)
        if artifact.literal is None:
            held += artifact.body_length
        if held >= BODIES_TOGETHER:
            yield from _load_together(how, recipe, together, starts)
            together, held = [], 0
    yield from _load_together(how, recipe, together, starts)


def first_chunks(recipe: Recipe) -> dict[str, int]:
    """Number of each artifact's first chunk among all of the recipe's, by artifact name."""
    starts, at = {}, 0
    for artifact in recipe.artifacts:
        starts[artifact.name] = at
        at += len(artifact.chunks)
    return starts


def load_many(how: Loading, parts: Sequence[tuple[Recipe, Sequence[Artifact]]]) -> Iterator[list[Any] | Exception]:
    """The objects that are wanted of each recipe, or the error it met, of whatever class. Chunks of all of them are
    fetched together, so together they should be small."""
    try:
        prepared = [_prepare(how, recipe, artifacts, first_chunks(recipe)) for recipe, artifacts in parts]
        wanted_of_each = ((recipe, wanted) for (recipe, _), (_, wanted) in zip(parts, prepared, strict=True))
        how.fetcher.fill_all(wanted_of_each, how.verify)
    except Exception:
        prepared = []  # one of them, and only its own read can tell which
    for number, (recipe, artifacts) in enumerate(parts):
        found: list[Any] | Exception
        try:
            if prepared:
                (filled, wanted), prepared[number] = prepared[number], ([], [])
                wanted.clear()
                found = list(_assemble(how, recipe, filled, first_chunks(recipe)))
            else:
                found = list(load_artifacts(how, recipe, artifacts))
        except Exception as error:
            found = error
        yield found


def _told(error: Exception, recipe: Recipe, artifact: Artifact) -> Exception:
    """What unpickling an artifact has raised, as what it is to whoever loads it; with its cause."""
    # Not needed as long as all is well.
    from mfstore.loading.unloadable import unloadable

    return unloadable(error, recipe, artifact)


def _load_together(how: Loading, recipe: Recipe, together: Sequence[Artifact], starts: dict[str, int]) -> Iterator[Any]:
    prepared, wanted = _prepare(how, recipe, together, starts)
    if wanted:
        how.fetcher.fill(recipe, wanted, how.verify)
    wanted.clear()
    yield from _assemble(how, recipe, prepared, starts)


def _prepare(
    how: Loading, recipe: Recipe, together: Sequence[Artifact], starts: dict[str, int]
) -> tuple[list[tuple[Artifact, Any, _Ahead]], list[WantedChunk]]:
    """Memory for each artifact, and the chunks that belong there."""
    prepared: list[tuple[Artifact, Any, _Ahead]] = []
    wanted: list[WantedChunk] = []
    left = how.memory
    for artifact in together:
        if artifact.encoding == TREE:
            raise Unsupported(
                "this is a tree, and no object", hint="store.tree(key) opens it, store.get_tree restores it"
            )
        if artifact.literal is not None:
            prepared.append((artifact, None, _Ahead(how, recipe, iter(()))))
            continue
        first = starts[artifact.name]
        body: Any = None
        if artifact.encoding != PICKLE or artifact.body_length <= BODIES_TOGETHER:
            body = FreshBytes(artifact.body_length)
            wanted += targets(body, first, artifact.chunks[: artifact.body_chunks])
        segments = how.segments.prepare(recipe, artifact, first, how.verify, how.map) if artifact.segments else ()
        ahead = _Ahead(how, recipe, iter(segments))
        if artifact.segments:
            more, left = ahead.prepare(left)
            wanted += more
        prepared.append((artifact, body, ahead))
    return prepared, wanted


def _assemble(
    how: Loading, recipe: Recipe, prepared: Sequence[tuple[Artifact, Any, _Ahead]], starts: dict[str, int]
) -> Iterator[Any]:
    """The objects, from filled memory."""
    for artifact, memory, ahead in prepared:
        blocks: Iterable[bytes]
        if artifact.literal is not None:
            blocks = (artifact.literal,)
        elif memory is not None:
            blocks = (memory.value,)
        else:
            blocks = _body_blocks(how, recipe, artifact, starts[artifact.name])
        if artifact.encoding != PICKLE:
            (data,) = blocks
            yield data
            continue
        try:
            if how.safe is None:
                yield load(blocks, artifact.segments, ahead.take(), writable=how.writable)
            else:
                # Of no use to who loads whatever was stored.
                from mfstore.pickling.safe.loading import load as load_safely

                yield load_safely(how.safe, blocks, artifact.segments, ahead.take(), writable=how.writable)
        except Exception as error:
            raise _told(error, recipe, artifact)  # noqa: B904


def _body_blocks(how: Loading, recipe: Recipe, artifact: Artifact, first: int) -> Iterator[bytes]:
    """A long body, a block at a time."""
    chunks = artifact.chunks[: artifact.body_chunks]
    start = size = 0
    for number, chunk in enumerate(chunks, 1):
        size += chunk.usize
        if number == len(chunks) or (size >= BODIES_TOGETHER and not _goes_on(recipe, first + number, chunk.usize)):
            block = FreshBytes(size)
            how.fetcher.fill(recipe, targets(block, first + start, chunks[start:number]), how.verify)
            yield block.value
            start, size = number, 0


def _goes_on(recipe: Recipe, number: int, usize: int) -> bool:
    """Whether a chunk lies in the same group as the one before it, of ``usize`` bytes, and behind that: who reads both
    at once reads the group once. What comes again, like zeros, does not go on: that may be as long as anything."""
    one, other = recipe.placements[number - 1 : number + 1]
    return one.pack == other.pack and have_one_place(one, other) and one.width + usize <= other.width


class _Ahead:
    """The segments of one artifact, read some ahead of who takes them.

    What is a text in UTF-8, or bytes, is mostly there for a class to copy, so no more of these is held than ``memory``.
    Memory that is freed may be of no use to what the class allocates with: polars has an allocator of its own, and a
    frame of 1.1 GB took another 1.1 GB of the process while it was loaded.
    """

    __slots__ = ("_how", "_later", "_recipe", "_segments")

    def __init__(self, how: Loading, recipe: Recipe, segments: Iterator[SegmentMemory]) -> None:
        self._how = how
        self._recipe = recipe
        self._later = segments
        self._segments: list[SegmentMemory] = []

    def prepare(self, memory: int) -> tuple[list[WantedChunk], int]:
        """Make memory for the next ones. What is to be fetched into it, and how much of ``memory`` is left."""
        wanted: list[WantedChunk] = []
        while memory > 0 and (segment := next(self._later, None)) is not None:
            self._segments.append(segment)
            wanted += segment.wanted
            if segment.kind in (BYTES, TEXT):
                memory -= sum(chunk.usize for _, chunk, _ in segment.wanted)
        self._segments.reverse()
        return wanted, memory

    def take(self) -> Iterator[Any]:
        """What the unpickler takes for each, none of which is held any longer here: a text is made from memory that
        takes as much, and other objects copy what they are made from."""
        while True:
            while self._segments:
                yield self._segments.pop().value(self._how.writable)
            wanted, _ = self.prepare(self._how.memory)
            if not self._segments:
                return
            if wanted:
                self._how.fetcher.fill(self._recipe, wanted, self._how.verify)
            wanted.clear()


class _StreamPart(NamedTuple):
    """What the stream takes from one chunk at one place: its bytes ``low`` to ``high``, which begin at ``at``."""

    at: int
    number: int
    chunk: ChunkRef
    low: int
    high: int


class ArtifactReader:
    """Byte ranges of one artifact's stream: the body with its segments spliced in."""

    def __init__(self, how: Loading, recipe: Recipe, number: int) -> None:
        artifact = recipe.artifacts[number]
        self._how = how
        self._recipe = recipe
        self._literal = artifact.literal
        # Laid out once: a file is read in many ranges, and each then begins with a bisection.
        parts = _stream_parts(artifact, first_chunks(recipe)[artifact.name]) if self._literal is None else ()
        self._parts = list(parts)
        self.size = artifact.size

    def blocks(self, size: int) -> Iterator[tuple[int, int]]:
        """The stream as ranges for ``read``: of up to ``size`` bytes, or longer where one chunk or group is. None of
        these is read for two ranges, but a chunk of the body in which segments are spliced."""
        start = last = 0
        for at in self._beginnings():
            if at - start > size and last > start:
                yield start, last
                start = last
            last = at
        if last > start:
            yield start, last

    def _beginnings(self) -> Iterator[int]:
        """Where in the stream a chunk or a group begins, and its end."""
        before: _StreamPart | None = None
        for part in self._parts:
            goes_on = before is not None and (
                part.number == before.number
                or (part.number == before.number + 1 and _goes_on(self._recipe, part.number, before.chunk.usize))
            )
            if not goes_on:
                yield part.at
            before = part
        yield self.size

    def read(self, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end``; both must lie in the stream."""
        if self._literal is not None:
            return self._literal[start:end]
        return self.read_ranges([(start, end)])[0]

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """``read`` of several ranges, whose chunks are fetched together."""
        if self._literal is not None:
            return [self._literal[start:end] for start, end in ranges]
        results: list[FreshBytes] = []
        wanted: list[WantedChunk] = []
        partial: list[tuple[memoryview, bytearray, int]] = []
        wholes: dict[int, bytearray] = {}
        for start, end in ranges:
            results.append(FreshBytes(end - start))
            out = memoryview(results[-1])
            position = bisect_right(self._parts, start, key=lambda part: part.at) - 1
            for part in islice(self._parts, max(position, 0), None):
                if part.at >= end:
                    break
                low = part.low + max(start - part.at, 0)
                high = min(part.high, part.low + end - part.at)
                if low >= high:
                    continue
                at = part.at + low - part.low - start
                target = out[at : at + high - low]
                if high - low == part.chunk.usize:
                    wanted.append((part.number, part.chunk, target))
                    continue
                # Only some of this chunk is wanted; it is decoded and checked whole, once for all ranges.
                whole = wholes.get(part.number)
                if whole is None:
                    whole = wholes[part.number] = bytearray(part.chunk.usize)
                    wanted.append((part.number, part.chunk, memoryview(whole)))
                partial.append((target, whole, low))
        self._how.fetcher.fill(self._recipe, wanted, self._how.verify)
        for target, whole, low in partial:
            target[:] = memoryview(whole)[low : low + len(target)]
        return [result.value for result in results]


def _stream_parts(artifact: Artifact, first: int) -> Iterator[_StreamPart]:
    """The artifact's stream in order. A chunk of the body may appear in several parts: segments are spliced into the
    middle of it."""
    body, segment = 0, artifact.body_chunks  # numbers of the chunks each side is at, among the artifact's own
    body_at = position = 0  # where the body's chunk begins in the body; where the stream is
    for source, low, high in interleave(artifact.body_length, artifact.segments):
        if source >= 0:
            for _ in range(artifact.segments[source].chunks):
                chunk = artifact.chunks[segment]
                yield _StreamPart(position, first + segment, chunk, 0, chunk.usize)
                position += chunk.usize
                segment += 1
            continue
        while low < high:
            chunk = artifact.chunks[body]
            upto = min(high, body_at + chunk.usize)
            yield _StreamPart(position, first + body, chunk, low - body_at, upto - body_at)
            position += upto - low
            low = upto
            if low == body_at + chunk.usize:
                body_at = low
                body += 1


def interleave(body_length: int, segments: Sequence[Segment]) -> Iterator[tuple[int, int, int]]:
    """The artifact's byte stream as ``(source, start, end)``, in order.

    ``source`` is -1 for the body or the index of a segment; ``start`` and ``end`` are offsets in it.
    """
    last = 0
    for number, segment in enumerate(segments):
        if segment.at > last:
            yield -1, last, segment.at
            last = segment.at
        yield number, 0, segment.length
    if last < body_length:
        yield -1, last, body_length
