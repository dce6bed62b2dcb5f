"""From recipes to objects: which memory each segment lands in, and byte ranges of an artifact's stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mfstore._core.memory import FreshBytes
from mfstore.errors import MfstoreError
from mfstore.fetch import Fetcher, targets
from mfstore.segments import PICKLE, interleave
from mfstore.serialize import load, load_literal

if TYPE_CHECKING:
    from mfstore.fetch import Loaded
    from mfstore.recipes import Artifact, ChunkRef, Recipe

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


def _load_batch(
    fetcher: Fetcher, recipe: Recipe, batch: Sequence[Artifact], starts: dict[str, int], verify: bool, writable: bool
) -> Iterator[Any]:
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
    if wanted:
        fetcher.fill(recipe, wanted, verify)
    wanted.clear()
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


class ArtifactReader:
    """Byte ranges of one artifact's stream: the body with its segments spliced in."""

    def __init__(self, recipe: Recipe, number: int, fetcher: Fetcher) -> None:
        self._recipe = recipe
        self._fetcher = fetcher
        self._artifact = recipe.artifacts[number]
        self._first = sum(len(artifact.chunks) for artifact in recipe.artifacts[:number])
        self.size = self._artifact.size

    def read(self, start: int, end: int, verify: bool) -> bytes:
        """Bytes ``start`` to ``end``; both must lie in the stream."""
        artifact = self._artifact
        if artifact.literal is not None:
            return artifact.literal[start:end]
        result = FreshBytes(end - start)
        out = memoryview(result)
        wanted: list[tuple[int, ChunkRef, memoryview]] = []
        partial: list[tuple[memoryview, bytearray, int]] = []
        for number, chunk, at, low, high in self._overlaps(start, end):
            target = out[at - start + low : at - start + high]
            if high - low == chunk.usize:
                wanted.append((number, chunk, target))
            else:
                # Only part of this chunk is wanted; it is decoded and checked whole.
                whole = bytearray(chunk.usize)
                wanted.append((number, chunk, memoryview(whole)))
                partial.append((target, whole, low))
        self._fetcher.fill(self._recipe, wanted, verify)
        for target, whole, low in partial:
            target[:] = memoryview(whole)[low : low + len(target)]
        return result.value

    def _overlaps(self, start: int, end: int) -> Iterator[tuple[int, ChunkRef, int, int, int]]:
        """Chunks that overlap the range: ``(number, chunk, stream offset, low, high)``.

        ``low`` and ``high`` bound, within the chunk, what the stream takes from it at that place. A chunk of the body
        may appear several times: segments are spliced into the middle of it.
        """
        artifact = self._artifact
        starts = {-1: (0, artifact.body_chunks)}
        at_chunk = artifact.body_chunks
        for source, segment in enumerate(artifact.segments):
            starts[source] = (at_chunk, at_chunk + segment.chunks)
            at_chunk += segment.chunks
        position = 0
        for source, low, high in interleave(artifact.body_length, artifact.segments):
            length = high - low
            if position < end and position + length > start:
                take_low = low + max(start - position, 0)
                take_high = low + min(end - position, length)
                first, last = starts[source]
                offset = 0
                for number in range(first, last):
                    chunk = artifact.chunks[number]
                    inside_low = max(take_low - offset, 0)
                    inside_high = min(take_high - offset, chunk.usize)
                    if inside_low < inside_high:
                        yield self._first + number, chunk, position + offset - low, inside_low, inside_high
                    offset += chunk.usize
            position += length
