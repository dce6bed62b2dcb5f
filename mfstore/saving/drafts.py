"""Artifacts on their way in: their bytes as runs with cut points, not yet hashed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from operator import sub
from typing import TYPE_CHECKING

from mfstore._core.chunk import CUT_MIN, LONG_ROW, cut
from mfstore._core.codec import NONE
from mfstore._core.pickler import BUFFER, BYTES
from mfstore.format import recipes
from mfstore.format.cuts import ContentCutter, cut_in_windows
from mfstore.format.recipes import PICKLE, Artifact, Segment, new_chunk
from mfstore.pickling.arrays import Unread
from mfstore.pickling.streams import dump
from mfstore.records import NamedTuple, dataclass, field
from mfstore.saving import codecs
from mfstore.saving.codecs import EncodedChunk
from mfstore.saving.groups import encode_chunks

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore._core.codec import Codec
    from mfstore.format.digests import Digest
    from mfstore.format.recipes import ChunkRef
    from mfstore.saving.codecs import Choice

BODY_STREAM = 8 << 20
"""A body longer than this is cut while it is being pickled instead of being collected."""
BODY_PIECE = 4 << 20
"""Bytes of such a body that are cut and encoded together, and have one choice of a codec. The pickler gives 1 MiB at a
time: of that, half were groups of 0.5 MiB, and choices took 23 ms of 500 000 dicts (17 MB). Joining takes 0.2 ms for
each MiB."""
ROW_TRIALS = 64
"""Arrays of up to this many long rows choose a codec per row (a trial costs 0.3 ms); larger ones once."""

BUILT_IN: dict[type, str] = {
    kind: kind.__qualname__ for kind in (dict, list, tuple, set, str, bytes, int, float, bool, type(None))
}
"""What many small objects are: asking a class for its names takes an eighth of the time of a draft."""

NO_BYTES = memoryview(b"")


class Stream(NamedTuple):
    """The body or a segment of an artifact on its way."""

    artifact: str
    """Its name."""
    number: int
    """Of the segment; -1: the body."""
    kind: int = 0
    itemsize: int = 1
    row: int = 0
    length: int = 0
    """Bytes, 0 where that is not known yet (of a body)."""
    segments: int = 0
    """Of a body: how many segments belong to it."""


@dataclass(slots=True, eq=False)
class Run:
    """Contiguous bytes and their cuts, on their way: first hashed, then looked up, encoded and laid out."""

    view: memoryview
    ends: list[int]
    itemsize: int
    held: bool
    """Whether the pack keeps this memory alive only for itself."""
    choice: Choice | None = None
    """How its chunks are encoded, once that is decided."""
    ids: list[bytes] = field(default_factory=list)
    """Of its chunks, once they are hashed."""
    inline: list[EncodedChunk] | None = None
    """Its chunks when they are to lie in the recipe."""
    stream: Stream | None = None
    """What it is a part of."""
    at: int = 0
    """Where in it it begins."""

    @property
    def of_length(self) -> int:
        """Bytes of what it is a part of, as far as they are known."""
        return max(len(self.view), self.stream.length if self.stream is not None else 0)

    def own(self) -> None:
        """Copy memory that is not ours, because it may change before it is stored."""
        if not self.held:
            self.view = memoryview(bytes(self.view))
            self.held = True

    def hash(self, digest: Digest, first: int = 0, last: int | None = None) -> list[bytes]:
        """The ids of its chunks, or of those from ``first`` to before ``last``."""
        view, ends = self.view, self.ends[first:last]
        starts = [self.ends[first - 1] if first else 0, *ends]
        return [digest(view[start:end]) for start, end in zip(starts, ends, strict=False)]

    def encode_chunk(self, start: int, end: int, codec: Codec, compress: str) -> EncodedChunk:
        """One chunk by its bytes. Chooses how, for the whole run, unless that is decided."""
        if self.choice is None:
            self.choice = codecs.choose(codec, self.view, self.itemsize, compress)
        return codecs.encode_chunk(codec, self.view[start:end], self.choice)

    def encode(self, codec: Codec, compress: str) -> list[EncodedChunk]:
        """All chunks. Those of one group have the same ``data`` object."""
        if len(self.ends) == 1:
            return [self.encode_chunk(0, self.ends[0], codec, compress)]
        if self.choice is None:
            self.choice = codecs.choose(codec, self.view, self.itemsize, compress)
        made = encode_chunks(codec, self.view, self.ends, self.itemsize, self.choice, compress)
        if made is None:
            starts = [0, *self.ends]
            made = [EncodedChunk(self.view[start:end], NONE, 0) for start, end in zip(starts, self.ends, strict=False)]
        return made

    def chunks(self) -> Iterable[ChunkRef]:
        """The chunks as content, once hashed."""
        sizes = map(sub, self.ends, chain((0,), self.ends))
        return map(new_chunk, zip(self.ids, sizes, strict=True))


class RunPart(NamedTuple):
    """The chunks of a run from ``first`` to before ``last``."""

    run: Run
    first: int
    last: int


class DraftSegment(NamedTuple):
    """A segment and the runs it was cut into."""

    kind: int
    at: int
    length: int
    itemsize: int
    row: int
    runs: list[Run]


@dataclass(slots=True)
class Draft:
    """An artifact whose chunks may not be hashed yet."""

    name: str
    type: str
    encoding: int
    body_length: int = 0
    literal: bytes | None = None
    body: list[Run] = field(default_factory=list)
    segments: list[DraftSegment] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    """Of each class and function that its pickle needs, as ``dump`` gives them."""

    @property
    def size(self) -> int:
        """Bytes of the artifact's stream."""
        if not self.segments:
            return self.body_length
        return self.body_length + sum([segment.length for segment in self.segments])

    def runs(self) -> Iterable[Run]:
        """All runs, in the order of the artifact's chunks."""
        yield from self.body
        for segment in self.segments:
            yield from segment.runs

    def artifact(self) -> Artifact:
        """The finished artifact. Needs every run hashed."""
        if self.literal is not None:
            return Artifact(self.name, self.encoding, self.body_length, self.literal)
        segments = tuple(
            Segment(kind, at, length, itemsize, row, sum(len(run.ends) for run in runs))
            for kind, at, length, itemsize, row, runs in self.segments
        )
        chunks = list(chain.from_iterable(run.chunks() for run in self.runs()))
        return Artifact(self.name, self.encoding, self.body_length, None, segments, chunks)

    def key(self, digest: Digest, algorithm: int) -> str:
        """The key of the artifact on its own, whatever its name. Needs every run hashed."""
        return digest(recipes.encode_content(recipes.ONE, algorithm, [self.artifact()._replace(name="")])).hex()


class DraftSink:
    """Receives one artifact's body and payloads and cuts them into runs."""

    def __init__(self, draft: Draft, submit: Callable[[Run], None]) -> None:
        self._draft = draft
        self._submit = submit
        self._blocks: list[bytes] = []
        self._waiting = 0
        """Bytes of the blocks."""
        self._cutter: ContentCutter | None = None
        self._length = 0
        self._body: Stream | None = None
        self._run_at = 0
        self._begun = 0
        """Segments that were begun as streams."""

    def body(self, block: bytes) -> None:
        self._length += len(block)
        self._waiting += len(block)
        self._blocks.append(block)
        if self._waiting > (BODY_STREAM if self._cutter is None else BODY_PIECE):
            if self._cutter is None:
                self._cutter = ContentCutter(self._body_run)
            self._cutter.feed(*self._blocks)
            self._blocks.clear()
            self._waiting = 0

    def _body_run(self, view: memoryview, ends: list[int]) -> None:
        run = Run(view, ends, 1, True)
        if self._body is None:
            self._body = Stream(
                self._draft.name, -1, length=self._draft.body_length, segments=len(self._draft.segments)
            )
        run.stream = self._body
        run.at = self._run_at
        self._run_at += len(view)
        self._draft.body.append(run)
        self._submit(run)

    def payload(self, kind: int, data: Buffer | Unread, itemsize: int, row: int, at: int) -> None:
        itemsize = itemsize if itemsize < 256 else 0
        runs: list[Run] = []
        length = data.nbytes if isinstance(data, Unread) else memoryview(data).nbytes
        stream = Stream(self._draft.name, len(self._draft.segments), kind, itemsize, row, length)
        self._draft.segments.append(DraftSegment(kind, at, length, itemsize, row, runs))
        done = 0

        def emit(part: memoryview, ends: list[int], held: bool = False) -> None:
            nonlocal done
            run = Run(part, ends, itemsize, held)
            run.stream, run.at = stream, done
            done += len(part)
            runs.append(run)
            self._submit(run)

        if isinstance(data, Unread):
            for part, ends in cut_in_windows(data.read, length, itemsize, row):
                emit(part, ends, True)
            return
        view = memoryview(data).cast("B")
        if kind != BUFFER:
            # What is in a file or a text changes on the way, and nobody maps it: each window chooses its codec.
            for part, ends in cut_in_windows(lambda start, end: view[start:end], length, itemsize, row):
                emit(part, ends)
            return
        ends = cut(view, itemsize, row, True)
        if LONG_ROW <= row < length and length // row <= ROW_TRIALS:
            for start, group in _groups(ends, row):
                emit(view[start : start + group[-1]], group)
            return
        emit(view, ends)

    def stream(self, length: int) -> SegmentStream:
        """A segment of opaque bytes before the body, which come in blocks; about ``length`` of them."""
        number, self._begun = self._begun, self._begun + 1
        return SegmentStream(self._draft, Stream(self._draft.name, number, BYTES, length=length), self._submit)

    def finish(self) -> None:
        """The artifact is complete: cut what is left of its body."""
        draft = self._draft
        draft.body_length = self._length
        if self._cutter is None:
            body = self._blocks[0] if len(self._blocks) == 1 else b"".join(self._blocks)
            if not draft.segments and len(body) <= recipes.LITERAL_LIMIT:
                draft.literal = body
                return
            if body:
                # In one run, so that its end has the rest beside it in a group.
                view = memoryview(bytes(body))
                self._body_run(view, [len(body)] if len(body) <= CUT_MIN else cut(view, 1, 0, True))
            return
        self._cutter.finish(*self._blocks)


class SegmentStream:
    """A segment whose bytes come in blocks. It belongs to the artifact once it is finished; what is left without that
    has been stored for nobody."""

    def __init__(self, draft: Draft, stream: Stream, submit: Callable[[Run], None]) -> None:
        self._draft = draft
        self._stream = stream
        self._submit = submit
        self._runs: list[Run] = []
        self._length = 0
        self._cutter = ContentCutter(self._emit)

    def feed(self, *blocks: bytes) -> None:
        """The next bytes, which must not change."""
        self._cutter.feed(*blocks)

    def finish(self) -> None:
        """These were all; of no bytes there is no segment."""
        self._cutter.finish()
        if self._length:
            self._draft.segments.append(DraftSegment(BYTES, 0, self._length, 1, 0, self._runs))

    def _emit(self, view: memoryview, ends: list[int]) -> None:
        run = Run(view, ends, 1, True)
        run.stream, run.at = self._stream, self._length
        self._length += len(view)
        self._runs.append(run)
        self._submit(run)


def draft_of(
    name: str, obj: object, submit: Callable[[Run], None], named: bool = True, by_value: bool = False
) -> Draft:  # fmt: skip
    """Pickle one artifact; its runs go to ``submit`` as they are cut. NotSerializable names the part that cannot be
    pickled, and with ``named`` the artifact. ``by_value`` as of ``dump``."""
    kind = type(obj)
    type_name = BUILT_IN.get(kind) or f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    draft = Draft(name, type_name, PICKLE)
    sink = DraftSink(draft, submit)
    dump(obj, sink, name if named else None, draft.modules, by_value)
    sink.finish()
    return draft


def hashed_draft(obj: object, digest: Digest) -> Draft:
    """An artifact that is only hashed: nothing of it is stored or kept. NotSerializable as ``draft_of``, without a
    name."""

    def hash_run(run: Run) -> None:
        run.ids = run.hash(digest)
        run.view = NO_BYTES  # a copy, where an array does not lie in one piece

    return draft_of("", obj, hash_run, named=False)


def _groups(ends: list[int], size: int) -> Iterator[tuple[int, list[int]]]:
    """Consecutive cuts in groups of at least ``size`` bytes: where each starts, and its ends from there."""
    start, group = 0, []
    for end in ends:
        group.append(end - start)
        if end - start >= size:
            yield start, group
            start, group = end, []
    if group:
        yield start, group
