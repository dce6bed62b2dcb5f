"""Deltas: which of a window's new chunks are stored as what differs from their counterparts, because that pays.

Trying costs time, so chunks of one sort are tried one after a while until one pays, and then all of them. What their
counterparts lie in is read in few large reads, is compared with its digests, and is then relied upon.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, TypeVar

from mfstore._core.codec import DIFFERENCE, NONE, PREFIX, likeness
from mfstore.loading.deltas import together
from mfstore.records import NamedTuple, dataclass
from mfstore.saving import codecs, neighbours
from mfstore.saving.counterparts import BasePiece, Counterpart, Counterparts, NewChunk, part_of

if TYPE_CHECKING:
    from mfstore._core.codec import Codec
    from mfstore.format.fragments import Location
    from mfstore.format.packs import PackName
    from mfstore.saving.context import SaveContext
    from mfstore.saving.drafts import Run, RunPart, Stream
    from mfstore.saving.neighbours import Layout

Result = TypeVar("Result")

PAYS = 0.90
"""A delta is kept when it takes at most this much of what the chunk takes otherwise: reading it reads its base too."""
SHRINKS = 0.80
"""And at most this much of the chunk itself: codec 4 takes noise in float32 to 0.88, at a tenth of the speed of raw."""
LEVEL = 3
"""zstd level. A table of 64 KiB in which 80 of 8192 cells are edited takes 702 bytes with a prefix at level 3, 2202 at
1 and 687 at 9, in 65, 50 and 230 us."""
SHUFFLED_LEVEL = 1
"""After shuffle: weights that all moved take a twentieth more at 3 than at 1, which is four times as fast."""
SAMPLE = 16 << 10
"""Bytes from the middle of a chunk that are tried: a quarter of the time of a chunk of 64 KiB."""
ALSO = 1.5
"""Forms that took up to so many times what the best one took are tried on every chunk: which is best depends on how
many bytes differ."""
RENEW = 0.60
"""A chunk is stored whole, for later versions to be deltas against, when its delta has a prefix and takes more than
this of that, and more than GROWN times what the version before took as a delta against the same: edits add up, and then
storing it whole pays in the end. Differences grow with the logarithm of the versions, where all numbers move: ten
checkpoints take 22.8 MB without and 24.5 MB with renewing them (float32, fine-tuning), 28.3 and 28.7 (training), 10.3
and 10.4 (bfloat16, training), 79.9 and 82.1 (with Adam's moments, fine-tuning). Of edits, over ten and thirty versions
of tables and texts: the mean of 14 series was least with 0.6; 0.5 took 1.5 to 4 % more, never 0.5 to 4 %."""
GROWN = 1.03
"""What leaves as much against any version is not renewed: storing it whole again gains nothing."""
FIRST_SKIP = 8
"""Chunks left alone after the first that did not pay; twice as many after each further one."""
LAST_SKIP = 64
"""Trying one chunk (read, compare, encode three times) costs about six times storing it: one in 64 is a tenth more."""
STILL_PAYS = 0.25
"""A sort of which fewer pay than this share is tried as at first again."""
TASK_CHUNKS = 16
"""Chunks per task of a thread: 1 MiB, as handing over a task costs 30 us and a delta of 64 KiB 100 to 200."""


class BaseBytes(Protocol):
    """What bases are read from: ``StoredChunks``, or what looks at them without relying on anything."""

    @property
    def located(self) -> Mapping[bytes, Location]:
        """Where chunks were found, beside which counterparts may lie."""

    @property
    def pieces(self) -> Mapping[bytes, Sequence[BasePiece]]:
        """Of those that are deltas, what they are deltas against."""

    def contents(self, places: Mapping[bytes, Location]) -> dict[bytes, memoryview]:
        """The bytes of chunks that are whole there."""

    def layouts(self, packs: Sequence[PackName]) -> dict[bytes, Layout]:
        """What lies in these packs, without those of which that cannot be told."""

    def rely(self, packs: Collection[bytes]) -> None:
        """Deltas against what lies in these packs are going to be stored."""


class EncodedDelta(NamedTuple):
    """A chunk as it is stored against its base."""

    data: bytes | memoryview
    codec: int
    width: int
    pieces: tuple[BasePiece, ...]


class Form(NamedTuple):
    """A way to encode a delta."""

    codec: int
    width: int

    @property
    def level(self) -> int:
        """zstd level."""
        return SHUFFLED_LEVEL if self.width else LEVEL


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


class Possible(NamedTuple):
    """A new chunk that has a counterpart, as far as is known."""

    run: Run
    number: int
    chunk: NewChunk
    sort: SortKey
    found: Counterpart | None
    """None: it has not been looked for yet, and ``sort`` is that of the chunk before."""


class Trial(NamedTuple):
    """What trying a part of a chunk told."""

    length: int
    """Bytes of the part."""
    sizes: tuple[int, ...]
    """Bytes as a delta in each form."""
    whole: int
    """Bytes stored whole."""


@dataclass(slots=True)
class Sort:
    """What is known of chunks of one sort."""

    paying: bool = False
    forms: tuple[Form, ...] = ()
    """Those worth trying, once that is known."""
    left: int = 0
    """Chunks to be left alone before the next is tried."""
    skip: int = FIRST_SKIP

    def some(self, possible: Iterable[Possible]) -> Iterator[Possible]:
        """Those to be tried as long as none has paid."""
        for one in possible:
            if self.left:
                self.left -= 1
                continue
            self.left, self.skip = self.skip, min(2 * self.skip, LAST_SKIP)
            yield one

    def learn(self, kept: int, tried: int) -> None:
        """Of so many that were tried, ``kept`` pay."""
        self.paying = kept > STILL_PAYS * tried if self.paying else kept > 0
        if self.paying:
            self.left, self.skip = 0, FIRST_SKIP


def pays(delta: int, length: int, whole: float) -> bool:
    """Whether a delta of so many bytes is worth it, of a chunk of ``length`` that takes about ``whole``."""
    return delta <= PAYS * whole and delta <= SHRINKS * length


def renews(codec: int, delta: int, whole: float, spent: int) -> bool:
    """Whether a chunk is stored whole though a delta pays. ``spent``: what the version before takes for it against the
    same base, 0 when that is the base. Differences are never renewed."""
    return codec == PREFIX and spent > 0 and delta > RENEW * whole and delta > GROWN * spent


def may_pay(data: memoryview, base: memoryview, width: int) -> bool:
    """Whether a delta of numbers of so many bytes can pay, by a look at both, which takes a tenth of encoding it.

    A prefix, when a quarter of what tells something is found in the base: of less the look does not know whether it is
    chance. Differences, when their codes take a tenth less and a sixty-fourth of the chunk: those of unrelated numbers
    are estimated within 0.03 of each other.
    """
    telling, _, found, plain, changed = likeness(data, base, width)
    if telling and found >= telling // 4:
        return True
    return len(data) == len(base) and changed + max(plain // 10, len(data) // 64) < plain


def forms_of(candidate: Candidate) -> tuple[Form, ...]:
    """The ways worth trying."""
    if not candidate.found.aligned:
        return (Form(PREFIX, 0),)
    itemsize = candidate.run.itemsize
    # Opaque bytes may be the weights of a file; 8 gains little over 4 there.
    widths = (2, 4) if codecs.is_opaque(itemsize) else codecs.widths_of(itemsize)
    # Without shuffle: where few items differ, what differs of one lies together.
    return (Form(PREFIX, 0), Form(DIFFERENCE, 0), *(Form(DIFFERENCE, width) for width in widths))


class Deltas:
    """The deltas of one save, a window at a time."""

    def __init__(self, context: SaveContext, stored: BaseBytes, limit: int) -> None:
        self._context = context
        self._counterparts: Counterparts | None = None
        self._stored = stored
        self._limit = limit
        """Bytes of counterparts that are held at a time."""
        self._sorts: dict[SortKey, Sort] = {}
        self._ratios: dict[Stream, float] = {}
        """Of each stream, how much smaller its chunks are when they are stored whole."""
        self._adrift: dict[Stream, SortKey] = {}
        """Of streams of which nothing was found in the base so far, the sort of a chunk. Most chunks of one that is
        unlike the base are left alone, and need no counterpart: finding one takes 10 us."""

    def concern(self, stores: Sequence[RunPart], duplicate: int) -> bool:
        """Whether a window is to be looked at, of which ``stores`` are new and so many bytes are not: without a base, a
        counterpart is only found by what lies beside it, and not in a bundle."""
        return self._counterparts is not None or bool(duplicate and any(map(_is_alone, stores)))

    def build_on(self, counterparts: Counterparts) -> None:
        """From the next window on counterparts are looked for here first."""
        self._counterparts = counterparts

    def encode(self, window: Sequence[RunPart], stores: Sequence[RunPart]) -> dict[ChunkOfRun, EncodedDelta]:
        """Those of the new chunks in ``stores`` that are to be stored as deltas. ``window`` is all that comes with
        them."""
        groups: dict[SortKey, list[Possible]] = {}
        for possible in self._possible(window, stores):
            groups.setdefault(possible.sort, []).append(possible)
        sorts = {key: self._sorts.setdefault(key, Sort()) for key in groups}
        doubtful = [
            _sampled(candidate) for key, group in groups.items() if not sorts[key].paying
            for one in sorts[key].some(group) if (candidate := self._candidate(one)) is not None
        ]  # fmt: skip
        held: dict[bytes, memoryview] = {}
        for batch in self._batches(doubtful):
            held = self._contents(batch)
            self._judge_trials(batch, self._map(partial(self._try, held), batch))
        certain = [
            candidate for key, group in groups.items() if sorts[key].paying
            for one in group if (candidate := self._candidate(one)) is not None
        ]  # fmt: skip
        kept: dict[ChunkOfRun, EncodedDelta] = {}
        for batch in self._batches(certain):
            held = self._contents(batch, held)
            kept |= self._judge(batch, self._map(partial(self._encode, held), batch))
        self._stored.rely({piece.at.pack.value for delta in kept.values() for piece in delta.pieces})
        return kept

    def _candidate(self, possible: Possible) -> Candidate | None:
        """The chunk with its counterpart, if it has one."""
        run, number, chunk, _, found = possible
        if found is None:
            assert self._counterparts is not None
            found = self._counterparts.find(chunk)
        if found is None:
            return None
        candidate = Candidate(run, number, chunk, found)
        self._sorts.setdefault(candidate.sort, Sort())
        return candidate

    def _possible(self, window: Iterable[RunPart], stores: Iterable[RunPart]) -> Iterator[Possible]:
        """The new chunks that have a counterpart: in the base, else between their neighbours.

        Not between neighbours in a bundle: those who save bundles again name the one before, and each of them would
        read trailers.
        """
        chunks = [chunk for part in window for _, chunk in new_chunks(part)]
        new = {chunk.id: (part.run, number, chunk) for part in stores for number, chunk in new_chunks(part)}
        found: dict[bytes, Counterpart | None] = {}
        if self._counterparts is not None:
            self._counterparts.learn(chunks)
            for run, number, chunk in new.values():
                if self._counterparts.is_adrift(chunk.stream):
                    if chunk.stream in self._adrift:
                        found[chunk.id] = None
                        continue
                else:
                    self._adrift.pop(chunk.stream, None)
                counterpart = self._counterparts.find(chunk)
                if counterpart is not None:
                    found[chunk.id] = counterpart
                    if not counterpart.anchored:
                        self._adrift[chunk.stream] = Candidate(run, number, chunk, counterpart).sort
        between = [
            gap for gap in neighbours.gaps(chunks, self._stored.located, new, self._stored.pieces)
            if any(chunk.id not in found and not chunk.stream.artifact for chunk in chunks[gap.first : gap.last])
        ]  # fmt: skip
        layouts = self._stored.layouts(neighbours.packs_of(between)) if between else {}
        for gap in between:
            for number, counterpart in neighbours.counterparts(chunks, gap, layouts):
                found.setdefault(chunks[number].id, counterpart)
        for chunk_id, one in found.items():
            run, number, chunk = new[chunk_id]
            sort = Candidate(run, number, chunk, one).sort if one is not None else self._adrift[chunk.stream]
            yield Possible(run, number, chunk, sort, one)

    def _batches(self, candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
        """Candidates whose bases fit into memory together."""
        return together(
            candidates, lambda candidate: {piece.id: piece.at.usize for piece in candidate.found.pieces}, self._limit
        )

    def _contents(
        self, batch: Iterable[Candidate], held: Mapping[bytes, memoryview] = MappingProxyType({})
    ) -> dict[bytes, memoryview]:
        """The chunks that bases are made of, read unless they are ``held``; without those that are not whole."""
        wanted = {piece.id: piece.at for candidate in batch for piece in candidate.found.pieces}
        found = {chunk_id: held[chunk_id] for chunk_id in wanted if chunk_id in held}
        missing = {chunk_id: at for chunk_id, at in wanted.items() if chunk_id not in found}
        return found | self._stored.contents(missing) if missing else found

    def _map(self, work: Callable[[Sequence[Candidate]], list[Result]], batch: Sequence[Candidate]) -> list[Result]:
        """``work`` of parts of a batch, on all cores."""
        tasks = [batch[at : at + TASK_CHUNKS] for at in range(0, len(batch), TASK_CHUNKS)]
        total = sum(candidate.length for candidate in batch)
        return [one for done in self._context.workers.map(work, tasks, total) for one in done]

    def _try(self, bases: Mapping[bytes, memoryview], candidates: Sequence[Candidate]) -> list[Trial | None]:
        """Encode a part of each in all forms, and whole. None where its base is not to be had, or no delta can pay."""
        codec = self._context.workers.thread.codec
        trials: list[Trial | None] = []
        for candidate in candidates:
            base = _base(bases, candidate)
            if base is None:
                trials.append(None)
                continue
            data = _sample(candidate.data())
            forms = forms_of(candidate)
            if not may_pay(data, base, forms[-1].width):
                trials.append(None)
                continue
            sizes = tuple(len(codec.encode_delta(data, base, form.codec, form.width, form.level)) for form in forms)
            trials.append(Trial(len(data), sizes, _whole_size(codec, data, candidate)))
        return trials

    def _judge_trials(self, candidates: Sequence[Candidate], trials: Sequence[Trial | None]) -> None:
        """Learn which sorts pay, and in which forms."""
        sizes: dict[SortKey, dict[Form, int]] = {}
        counts: dict[SortKey, list[int]] = {}
        for candidate, trial in zip(candidates, trials, strict=True):
            paid = trial is not None and pays(min(trial.sizes), trial.length, trial.whole)
            counts.setdefault(candidate.sort, []).append(paid)
            if trial is not None and paid:
                self._ratios[candidate.chunk.stream] = trial.whole / trial.length
                taken = sizes.setdefault(candidate.sort, {})
                for form, size in zip(forms_of(candidate), trial.sizes, strict=True):
                    taken[form] = taken.get(form, 0) + size
        for key, paid_each in counts.items():
            taken = sizes.get(key, {})
            most = ALSO * min(taken.values(), default=0)
            self._sorts[key].learn(sum(paid_each), len(paid_each))
            self._sorts[key].forms = tuple(form for form, size in taken.items() if size <= most)

    def _encode(self, bases: Mapping[bytes, memoryview], candidates: Sequence[Candidate]) -> list[EncodedDelta | None]:
        """Each as a delta, in the form that is smallest. None where its base is not to be had, or none pays."""
        codec = self._context.workers.thread.codec
        outcomes: list[EncodedDelta | None] = []
        for candidate in candidates:
            base = _base(bases, candidate)
            if base is None:
                outcomes.append(None)
                continue
            data = candidate.data()
            best: EncodedDelta | None = None
            most = int(SHRINKS * len(data))
            for form in self._sorts[candidate.sort].forms:
                encoded = codec.encode_delta(data, base, form.codec, form.width, form.level, most)
                if encoded:
                    best = EncodedDelta(encoded, form.codec, form.width, candidate.found.pieces)
                    most = len(encoded) - 1
            outcomes.append(best)
        return outcomes

    def _judge(
        self, candidates: Sequence[Candidate], outcomes: Sequence[EncodedDelta | None]
    ) -> dict[ChunkOfRun, EncodedDelta]:
        """Those that are to be stored so."""
        kept: dict[ChunkOfRun, EncodedDelta] = {}
        counts: dict[SortKey, list[int]] = {}
        for candidate, delta in zip(candidates, outcomes, strict=True):
            whole = self._ratio(candidate) * candidate.length
            paid = delta is not None and pays(len(delta.data), candidate.length, whole)
            counts.setdefault(candidate.sort, []).append(paid)
            if delta is not None and paid and not renews(delta.codec, len(delta.data), whole, candidate.found.spent):
                kept[candidate.place] = delta
        for key, paid_each in counts.items():
            self._sorts[key].learn(sum(paid_each), len(paid_each))
        return kept

    def _ratio(self, candidate: Candidate) -> float:
        """How much smaller the chunks of a stream are when they are stored whole."""
        stream, choice = candidate.chunk.stream, candidate.run.choice
        if choice is None or choice.codec == NONE:
            return 1.0
        if stream not in self._ratios:
            data = candidate.data()[:SAMPLE]
            self._ratios[stream] = _whole_size(self._context.workers.thread.codec, data, candidate) / len(data)
        return self._ratios[stream]


def _whole_size(codec: Codec, data: memoryview, candidate: Candidate) -> int:
    """Bytes that a part of a chunk takes without a base."""
    return len(codecs.encode_chunk(codec, data, candidate.run.choice or codecs.RAW_CHOICE).data)


def _base(bases: Mapping[bytes, memoryview], candidate: Candidate) -> memoryview | None:
    """The bytes that a chunk would be a delta against; None when some are not to be had."""
    pieces = candidate.found.pieces
    if any(piece.id not in bases for piece in pieces):
        return None
    parts = [bases[piece.id][piece.start : piece.start + piece.length] for piece in pieces]
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _sample_start(length: int) -> int:
    """Where in a chunk the part begins that is tried: a multiple of 8, where an element begins."""
    return 0 if length <= 2 * SAMPLE else (length - SAMPLE) // 16 * 8


def _sample(data: memoryview) -> memoryview:
    """A part of a chunk, from its middle; all of a short one."""
    start = _sample_start(len(data))
    return data[start : start + SAMPLE] if start else data


def _sampled(candidate: Candidate) -> Candidate:
    """The same with what ``_sample`` may be a delta against: of a counterpart of three chunks one or two are read."""
    length, found = candidate.length, candidate.found
    start = _sample_start(length)
    if not start:
        return candidate
    first, last = start, start + SAMPLE
    if not found.aligned:
        longer = found.length - length
        first, last = start + min(longer, 0) - SAMPLE // 2, last + max(longer, 0) + SAMPLE // 2
    return candidate._replace(found=found._replace(pieces=tuple(part_of(found.pieces, first, last))))


def _is_alone(part: RunPart) -> bool:
    """Whether it is of an artifact with a recipe of its own."""
    return part.run.stream is not None and not part.run.stream.artifact


def new_chunks(part: RunPart) -> Iterator[tuple[int, NewChunk]]:
    """The chunks of a part of a hashed run, each with its number in the run."""
    run = part.run
    if run.stream is None:
        return
    for number in range(part.first, part.last):
        start = run.at + (run.ends[number - 1] if number else 0)
        yield number, NewChunk(run.stream, start, run.at + run.ends[number], run.ids[number])
