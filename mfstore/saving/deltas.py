"""Deltas: which of a window's new chunks are stored as what differs from their counterparts, because that pays.

Trying costs time, so chunks of one sort are tried one after a while until one pays, and then all of them. What their
counterparts lie in is read in few large reads, is compared with its digests, and is then relied upon.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from mfstore._core.codec import NONE
from mfstore.format.recipes import PREFIX, XOR
from mfstore.saving import codecs
from mfstore.saving.counterparts import BasePiece, Counterpart, Counterparts, NewChunk

if TYPE_CHECKING:
    from mfstore._core.codec import Codec
    from mfstore.saving.context import SaveContext
    from mfstore.saving.dedup import StoredChunks
    from mfstore.saving.drafts import Run, RunPart, Stream

PAYS = 0.90
"""A delta is kept when it takes at most this much of what the chunk takes otherwise: reading it reads its base too."""
RENEW = 0.50
"""A chunk is stored whole, for later versions to be deltas against, when its delta takes more than this of that and the
version before was a delta already: deltas against one old chunk grow with each version."""
FIRST_SKIP = 8
"""Chunks left alone after the first that did not pay; twice as many after each further one."""
LAST_SKIP = 64
"""Trying one chunk (read, compare, encode three times) costs about six times storing it: one in 64 is a tenth more."""
STILL_PAYS = 0.25
"""A sort of which fewer pay than this share is tried as at first again."""
TASK_CHUNKS = 16
"""Chunks per task of a thread: 1 MiB, as handing over a task costs 30 us and a delta of 64 KiB 100 to 200."""


class EncodedDelta(NamedTuple):
    """A chunk as it is stored against its base."""

    data: bytes
    codec: int
    width: int
    pieces: tuple[BasePiece, ...]


class Form(NamedTuple):
    """A way to encode a delta."""

    codec: int
    width: int


class SortKey(NamedTuple):
    """Of which artifact, of which item size, whether aligned and anchored."""

    artifact: str
    itemsize: int
    aligned: bool
    anchored: bool


class ChunkOfRun(NamedTuple):
    """A chunk by the ``id`` of its run and its number there."""

    run: int
    number: int


class Candidate(NamedTuple):
    """A new chunk with a counterpart."""

    run: Run
    number: int
    chunk: NewChunk
    found: Counterpart

    @property
    def length(self) -> int:
        """Bytes of the chunk."""
        return self.chunk.end - self.chunk.start

    @property
    def place(self) -> ChunkOfRun:
        """Which chunk it is."""
        return ChunkOfRun(id(self.run), self.number)

    @property
    def sort(self) -> SortKey:
        """What chunks that pay alike have in common."""
        return SortKey(self.chunk.stream.artifact, self.run.itemsize, self.found.aligned, self.found.anchored)

    def data(self) -> memoryview:
        """Its bytes."""
        start = self.run.ends[self.number - 1] if self.number else 0
        return self.run.view[start : self.run.ends[self.number]]


class Attempt(NamedTuple):
    """A candidate with the forms to try, and whether to find out what it takes whole."""

    candidate: Candidate
    forms: tuple[Form, ...]
    measure: bool


class Outcome(NamedTuple):
    """What an attempt gave."""

    delta: EncodedDelta
    whole: int | None
    """Bytes it takes whole, where that was asked for."""


@dataclass(slots=True)
class Sort:
    """What is known of chunks of one sort."""

    paying: bool = False
    form: Form | None = None
    """The one that was smallest."""
    left: int = 0
    """Chunks to be left alone before the next is tried."""
    skip: int = FIRST_SKIP

    def some(self, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Those to be tried as long as none has paid."""
        for candidate in candidates:
            if self.left:
                self.left -= 1
                continue
            self.left, self.skip = self.skip, min(2 * self.skip, LAST_SKIP)
            yield candidate

    def learn(self, kept: int, tried: int) -> None:
        """Of so many that were tried, ``kept`` pay."""
        self.paying = kept > STILL_PAYS * tried if self.paying else kept > 0
        if self.paying:
            self.left, self.skip = 0, FIRST_SKIP


def pays(delta: int, whole: float, spent: int) -> bool:
    """Whether a delta is stored, and not the chunk, which takes about ``whole`` bytes. ``spent``: what the version
    before takes for it against the same base, 0 when that is the base."""
    return delta <= (RENEW if spent else PAYS) * whole


def forms_of(candidate: Candidate) -> tuple[Form, ...]:
    """The ways worth trying."""
    if not candidate.found.aligned:
        return (Form(PREFIX, 0),)
    widths = [width for width in codecs.shuffle_widths(candidate.run.itemsize) if candidate.run.itemsize != 1]
    return (Form(PREFIX, 0), *(Form(XOR, width) for width in widths))


class Deltas:
    """The deltas of one save, a window at a time."""

    def __init__(self, context: SaveContext, counterparts: Counterparts, stored: StoredChunks, limit: int) -> None:
        self._context = context
        self._counterparts = counterparts
        self._stored = stored
        self._limit = limit
        """Bytes of counterparts that are held at a time."""
        self._sorts: dict[SortKey, Sort] = {}
        self._ratios: dict[Stream, float] = {}
        """Of each stream, how much smaller its chunks are when they are stored whole."""

    def encode(self, window: Iterable[RunPart], stores: Iterable[RunPart]) -> dict[ChunkOfRun, EncodedDelta]:
        """Those of the new chunks in ``stores`` that are to be stored as deltas. ``window`` is all that comes with
        them."""
        self._counterparts.learn([chunk for part in window for _, chunk in new_chunks(part)])
        candidates = [
            Candidate(part.run, number, chunk, found)
            for part in stores
            for number, chunk in new_chunks(part)
            if (found := self._counterparts.find(chunk)) is not None
        ]
        by_sort: dict[SortKey, list[Candidate]] = {}
        for candidate in candidates:
            by_sort.setdefault(candidate.sort, []).append(candidate)
        sorts = {key: self._sorts.setdefault(key, Sort()) for key in by_sort}
        first = {
            key: list(group) if sorts[key].paying else list(sorts[key].some(group)) for key, group in by_sort.items()
        }
        kept = self._round(first)
        second = {}
        for key, group in by_sort.items():
            tried = {one.place for one in first[key]}
            if sorts[key].paying and len(tried) < len(group):
                second[key] = [one for one in group if one.place not in tried]
        if second:
            kept |= self._round(second)
        return kept

    def _round(self, groups: Mapping[SortKey, Sequence[Candidate]]) -> dict[ChunkOfRun, EncodedDelta]:
        """Try all of these."""
        attempts = []
        measured = set(self._ratios)
        for key, group in groups.items():
            form = self._sorts[key].form
            for candidate in group:
                measure = candidate.chunk.stream not in measured
                measured.add(candidate.chunk.stream)
                attempts.append(Attempt(candidate, (form,) if form is not None else forms_of(candidate), measure))
        outcomes: list[Outcome | None] = []
        for together in self._batches(attempts):
            bases = self._stored.contents(
                {piece.id: piece.at for attempt in together for piece in attempt.candidate.found.pieces}
            )
            tasks = [together[at : at + TASK_CHUNKS] for at in range(0, len(together), TASK_CHUNKS)]
            total = sum(attempt.candidate.length for attempt in together)
            for done in self._context.workers.map(partial(self._attempt, bases), tasks, total):
                outcomes += done
        return self._judge(attempts, outcomes)

    def _batches(self, attempts: Iterable[Attempt]) -> Iterator[list[Attempt]]:
        """Attempts whose bases fit into memory together."""
        batch: list[Attempt] = []
        ids: set[bytes] = set()
        held = 0
        for attempt in attempts:
            fresh = {piece.id: piece.at.usize for piece in attempt.candidate.found.pieces if piece.id not in ids}
            if batch and held + sum(fresh.values()) > self._limit:
                yield batch
                batch, ids, held = [], set(), 0
                fresh = {piece.id: piece.at.usize for piece in attempt.candidate.found.pieces}
            batch.append(attempt)
            ids.update(fresh)
            held += sum(fresh.values())
        if batch:
            yield batch

    def _attempt(self, bases: Mapping[bytes, memoryview], attempts: Sequence[Attempt]) -> list[Outcome | None]:
        """What each gives; None where its base is not to be had."""
        codec = self._context.workers.thread.codec
        outcomes: list[Outcome | None] = []
        for candidate, forms, measure in attempts:
            pieces = candidate.found.pieces
            if any(piece.id not in bases for piece in pieces):
                outcomes.append(None)
                continue
            parts = [bases[piece.id][piece.start : piece.start + piece.length] for piece in pieces]
            base = parts[0] if len(parts) == 1 else b"".join(parts)
            data = candidate.data()
            best: EncodedDelta | None = None
            for form in forms:
                encoded = codec.encode_delta(data, base, form.codec, form.width, codecs.LEVEL)
                if best is None or len(encoded) < len(best.data):
                    best = EncodedDelta(encoded, form.codec, form.width, pieces)
            assert best is not None
            outcomes.append(Outcome(best, _whole(codec, candidate) if measure else None))
        return outcomes

    def _judge(self, attempts: Sequence[Attempt], outcomes: Sequence[Outcome | None]) -> dict[ChunkOfRun, EncodedDelta]:
        """Those that pay."""
        for attempt, outcome in zip(attempts, outcomes, strict=True):
            if outcome is not None and outcome.whole is not None:
                self._ratios[attempt.candidate.chunk.stream] = outcome.whole / attempt.candidate.length
        kept: dict[ChunkOfRun, EncodedDelta] = {}
        counts: dict[SortKey, list[int]] = {}
        forms: dict[SortKey, dict[Form, int]] = {}
        for (candidate, _, _), outcome in zip(attempts, outcomes, strict=True):
            count = counts.setdefault(candidate.sort, [0, 0])
            count[1] += 1
            if outcome is None:
                continue
            delta, size = outcome.delta, len(outcome.delta.data)
            whole = self._ratios.get(candidate.chunk.stream, 1.0) * candidate.length
            if size <= PAYS * whole:
                count[0] += 1
                chosen = forms.setdefault(candidate.sort, {})
                form = Form(delta.codec, delta.width)
                chosen[form] = chosen.get(form, 0) + candidate.length - size
            if pays(size, whole, candidate.found.spent):
                kept[candidate.place] = delta
        for key, (paid, tried) in counts.items():
            self._sorts[key].learn(paid, tried)
            if key in forms and self._sorts[key].form is None:
                self._sorts[key].form = max(forms[key], key=forms[key].__getitem__)
        self._stored.rely({piece.at.pack.value for delta in kept.values() for piece in delta.pieces})
        return kept


def new_chunks(part: RunPart) -> Iterator[tuple[int, NewChunk]]:
    """The chunks of a part of a hashed run, each with its number in the run."""
    run = part.run
    if run.stream is None:
        return
    for number in range(part.first, part.last):
        start = run.at + (run.ends[number - 1] if number else 0)
        yield number, NewChunk(run.stream, start, run.at + run.ends[number], run.ids[number])


def _whole(codec: Codec, candidate: Candidate) -> int:
    """Bytes that a chunk takes when it is stored whole."""
    choice = candidate.run.choice
    if choice is None or choice.codec == NONE:
        return candidate.length
    return len(codecs.encode_chunk(codec, candidate.data(), choice).data)
