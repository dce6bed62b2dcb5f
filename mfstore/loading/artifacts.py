"""From recipes to objects: which memory each segment lands in, and byte ranges of an artifact's stream."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from mfstore._core.memory import FreshBytes
from mfstore.errors import MfstoreError
from mfstore.format.recipes import PICKLE
from mfstore.loading.fetch import Fetcher, targets
from mfstore.pickling.streams import load, load_literal

if TYPE_CHECKING:
    from mfstore.format.recipes import Artifact, ChunkRef, Recipe, Segment
    from mfstore.loading.fetch import Loaded

BATCH = 32 << 20
"""Bodies of up to this many bytes are held at a time while a bundle loads; they are freed once unpickled. A longer body
is read in blocks of this size while it is unpickled."""


def load_artifacts(
    fetcher: Fetcher, recipe: Recipe, wanted: Sequence[Artifact], verify: bool, writable: bool
) -> Iterator[Any]:
    """The objects of ``wanted``, in order. Chunks of several artifacts are fetched together."""
    if writable and all(artifact.literal is not None and artifact.encoding == PICKLE for artifact in wanted):
        # The usual small bundle: nothing to fetch, nothing to place.
        yield from (load_literal(artifact.literal) for artifact in wanted)
        return
    starts = first_chunks(recipe)
    batch: list[Artifact] = []
    held = 0
    for artifact in wanted:
        batch.append(artifact)
        if artifact.literal is None:
            held += artifact.body_length
        if held >= BATCH:
            yield from _load_batch(fetcher, recipe, batch, starts, verify, writable)
            batch, held = [], 0
    yield from _load_batch(fetcher, recipe, batch, starts, verify, writable)


def first_chunks(recipe: Recipe) -> dict[str, int]:
    """Number of each artifact's first chunk among all of the recipe's, by artifact name."""
    starts, at = {}, 0
    for artifact in recipe.artifacts:
        starts[artifact.name] = at
        at += len(artifact.chunks)
    return starts


def load_many(
    fetcher: Fetcher, recipes: Sequence[Recipe], verify: bool, writable: bool
) -> Iterator[list[Any] | MfstoreError]:
    """All objects of each recipe, or the error it met. Chunks of all of them are fetched together, so together they
    should be small."""
    prepared = [_prepare(fetcher, recipe, recipe.artifacts, first_chunks(recipe), verify) for recipe in recipes]
    try:
        fetcher.fill_all(((recipe, wanted) for recipe, (_, wanted) in zip(recipes, prepared, strict=True)), verify)
        together = True
    except MfstoreError:
        together = False  # one of them, and only its own read can tell which
    for number, recipe in enumerate(recipes):
        parts, wanted = prepared[number]
        prepared[number] = ([], [])
        try:
            if not together:
                fetcher.fill(recipe, wanted, verify)
            wanted.clear()
            yield list(_assemble(fetcher, recipe, parts, first_chunks(recipe), verify, writable))
        except MfstoreError as error:
            yield error


def _load_batch(
    fetcher: Fetcher, recipe: Recipe, batch: Sequence[Artifact], starts: dict[str, int], verify: bool, writable: bool
) -> Iterator[Any]:
    prepared, wanted = _prepare(fetcher, recipe, batch, starts, verify)
    if wanted:
        fetcher.fill(recipe, wanted, verify)
    wanted.clear()
    yield from _assemble(fetcher, recipe, prepared, starts, verify, writable)


def _prepare(
    fetcher: Fetcher, recipe: Recipe, batch: Sequence[Artifact], starts: dict[str, int], verify: bool
) -> tuple[list[tuple[Artifact, Any, list[Loaded]]], list[tuple[int, ChunkRef, memoryview]]]:
    """Memory for each artifact, and the chunks that belong there."""
    prepared: list[tuple[Artifact, Any, list[Loaded]]] = []
    wanted: list[tuple[int, ChunkRef, memoryview]] = []
    for artifact in batch:
        if artifact.literal is not None:
            prepared.append((artifact, None, []))
            continue
        first = starts[artifact.name]
        body: Any = None
        if artifact.encoding != PICKLE or artifact.body_length <= BATCH:
            body = FreshBytes(artifact.body_length)
            wanted += targets(body, first, artifact.chunks[: artifact.body_chunks])
        loaded = list(fetcher.payloads(recipe, artifact, first, verify))
        for part in loaded:
            wanted += part.wanted
        prepared.append((artifact, body, loaded))
    return prepared, wanted


def _assemble(
    fetcher: Fetcher, recipe: Recipe, prepared: Sequence[tuple[Artifact, Any, list[Loaded]]], starts: dict[str, int],
    verify: bool, writable: bool,
) -> Iterator[Any]:  # fmt: skip
    """The objects, from filled memory."""
    for artifact, memory, loaded in prepared:
        blocks: Iterable[bytes]
        if artifact.literal is not None:
            blocks = (artifact.literal,)
        elif memory is not None:
            blocks = (memory.value,)
        else:
            blocks = _body_blocks(fetcher, recipe, artifact, starts[artifact.name], verify)
        if artifact.encoding != PICKLE:
            (data,) = blocks
            yield data
            continue
        try:
            yield load(blocks, artifact.segments, [part.value(writable) for part in loaded], writable=writable)
        except MfstoreError as error:
            raise error.where(key=artifact.name or None) from None


def _body_blocks(fetcher: Fetcher, recipe: Recipe, artifact: Artifact, first: int, verify: bool) -> Iterator[bytes]:
    """A long body, a block at a time."""
    chunks = artifact.chunks[: artifact.body_chunks]
    start = size = 0
    for number, chunk in enumerate(chunks, 1):
        size += chunk.usize
        if size >= BATCH or number == len(chunks):
            block = FreshBytes(size)
            fetcher.fill(recipe, targets(block, first + start, chunks[start:number]), verify)
            yield block.value
            start, size = number, 0


class _Part(NamedTuple):
    """What the stream takes from one chunk at one place: its bytes ``low`` to ``high``, which begin at ``at``."""

    at: int
    number: int
    chunk: ChunkRef
    low: int
    high: int


class ArtifactReader:
    """Byte ranges of one artifact's stream: the body with its segments spliced in."""

    def __init__(self, recipe: Recipe, number: int, fetcher: Fetcher) -> None:
        artifact = recipe.artifacts[number]
        self._recipe = recipe
        self._fetcher = fetcher
        self._literal = artifact.literal
        # Laid out once: a file is read in many ranges, and each then begins with a bisection.
        parts = _stream_parts(artifact, first_chunks(recipe)[artifact.name]) if self._literal is None else ()
        self._parts = list(parts)
        self.size = artifact.size

    def read(self, start: int, end: int, verify: bool) -> bytes:
        """Bytes ``start`` to ``end``; both must lie in the stream."""
        if self._literal is not None:
            return self._literal[start:end]
        result = FreshBytes(end - start)
        out = memoryview(result)
        wanted: list[tuple[int, ChunkRef, memoryview]] = []
        partial: list[tuple[memoryview, bytearray, int]] = []
        position = bisect_right(self._parts, start, key=lambda part: part.at) - 1
        for part in islice(self._parts, max(position, 0), None):
            if part.at >= end:
                break
            low = part.low + max(start - part.at, 0)
            high = min(part.high, part.low + end - part.at)
            at = part.at + low - part.low - start
            target = out[at : at + high - low]
            if high - low == part.chunk.usize:
                wanted.append((part.number, part.chunk, target))
            else:
                # Only some of this chunk is wanted; it is decoded and checked whole.
                whole = bytearray(part.chunk.usize)
                wanted.append((part.number, part.chunk, memoryview(whole)))
                partial.append((target, whole, low))
        self._fetcher.fill(self._recipe, wanted, verify)
        for target, whole, low in partial:
            target[:] = memoryview(whole)[low : low + len(target)]
        return result.value


def _stream_parts(artifact: Artifact, first: int) -> Iterator[_Part]:
    """The artifact's stream in order. A chunk of the body may appear in several parts: segments are spliced into the
    middle of it."""
    body, segment = 0, artifact.body_chunks  # numbers of the chunks each side is at, among the artifact's own
    body_at = position = 0  # where the body's chunk begins in the body; where the stream is
    for source, low, high in interleave(artifact.body_length, artifact.segments):
        if source >= 0:
            for _ in range(artifact.segments[source].chunks):
                chunk = artifact.chunks[segment]
                yield _Part(position, first + segment, chunk, 0, chunk.usize)
                position += chunk.usize
                segment += 1
            continue
        while low < high:
            chunk = artifact.chunks[body]
            upto = min(high, body_at + chunk.usize)
            yield _Part(position, first + body, chunk, low - body_at, upto - body_at)
            position += upto - low
            low = upto
            if low == body_at + chunk.usize:
                body_at = low
                body += 1


def interleave(body_length: int, segments: Sequence[Segment]) -> Iterator[tuple[int, int, int]]:
    """The artifact's byte stream as ``(source, start, end)`` pieces, in order.

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
