"""From runs to packs, a window of memory at a time and on all cores: hash, look up, choose a codec, encode, lay out."""

from __future__ import annotations

from bisect import bisect_left
from collections import ChainMap
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from mfstore.progress import METER
from mfstore.saving import codecs
from mfstore.saving.deltas import EncodedDelta
from mfstore.saving.drafts import NO_BYTES, Run, RunPart
from mfstore.saving.groups import encode_chunks

if TYPE_CHECKING:
    from mfstore.progress import Meter
    from mfstore.saving.codecs import EncodedChunk
    from mfstore.saving.context import SaveContext, SessionStats
    from mfstore.saving.dedup import StoredChunks
    from mfstore.saving.deltas import Deltas
    from mfstore.saving.packing import PackWriter

WORTH_A_REQUEST = 8 << 10
"""Bytes of the least chunk that is worth a request to find out whether it is stored. The last chunk of a body or a
segment is as short; others have 16 KiB at least."""
INLINE_DELTAS = 8 << 10
"""Bytes of deltas that lie in the recipe where that saves two requests to store them, which cost what keeping 430 KB
for a month does. Versions in which such chunks stay as they are have the same deltas again, each of a thousand tasks
that pass an artifact on: so not more than this, unless the chunks would lie there whole otherwise."""
INLINE_REST = 1 << 10
"""Bytes that lie in the recipe, of a save that finds everything else in packs: most often the body around arrays that
are stored. In a pack they would take 340 bytes more, two files or requests, and a part in merging the index. Whoever
saves them again does so in his recipe."""
NUMBER = 8
"""Bytes of the longest number: longer items are records."""
WINDOW_SHARE = 8
"""A window of memory / 8 bytes is hashed, looked up and encoded at a time: 32 MiB by default."""
TASK_BYTES = 4 << 20
"""Bytes per task: some 60 chunks, 0.7 ms of hashing, against 30 us to hand it over."""
TASK_MORE = 1 << 20
"""Bytes that a task may have more, rather than that a further one has few."""


def plan_tasks(run: Run) -> Iterable[tuple[RunPart, int]]:
    """A run in equal parts of about TASK_BYTES, each with its bytes: groups do not go beyond a part."""
    ends, first, start = run.ends, 0, 0
    left = -(-ends[-1] // (TASK_BYTES + TASK_MORE)) if ends else 0
    while first < len(ends):
        last = min(bisect_left(ends, start + (ends[-1] - start) // max(left, 1), first), len(ends) - 1)
        yield RunPart(run, first, last + 1), ends[last] - start
        first, start, left = last + 1, ends[last], left - 1


def plan_stores(parts: Iterable[RunPart], located: Container[bytes]) -> tuple[list[RunPart], int]:
    """The parts of hashed ``parts`` that have to be stored, each chunk once, and the bytes that need not be."""
    claimed: set[bytes] = set()
    stores: list[RunPart] = []
    duplicate = 0
    for run, first, last in parts:
        start = None
        for number in range(first, last):
            chunk_id = run.ids[number]
            if chunk_id not in located and chunk_id not in claimed:
                claimed.add(chunk_id)
                start = number if start is None else start
                continue
            duplicate += run.ends[number] - (run.ends[number - 1] if number else 0)
            if start is not None:
                stores.append(RunPart(run, start, number))
                start = None
        if start is not None:
            stores.append(RunPart(run, start, last))
    return stores, duplicate


def small_chunks(window: Iterable[RunPart]) -> Iterator[bytes]:
    """The ids of chunks that are too small to be looked for by a request. They are the last of their runs."""
    for run, first, last in window:
        start = run.ends[last - 2] if last > 1 else 0
        if last > first and run.ends[last - 1] - start < WORTH_A_REQUEST:
            yield run.ids[last - 1]


def leading_chunks(window: Iterable[RunPart], small: Container[bytes]) -> Iterator[bytes]:
    """Of each part one id that is not ``small``, by which it is looked for first: the least, so that another save of
    the same takes the same."""
    for run, first, last in window:
        ids = [chunk_id for chunk_id in run.ids[first:last] if chunk_id not in small]
        if ids:
            yield min(ids)


class ChunkPipeline:
    """The runs that wait, and their way into packs."""

    def __init__(
        self, context: SaveContext, stored: StoredChunks, packs: PackWriter, written: SessionStats,
        deltas: Deltas | None = None,
    ) -> None:  # fmt: skip
        self._context = context
        self._stored = stored
        self._packs = packs
        self._written = written
        self._deltas = deltas
        self._window = context.memory // WINDOW_SHARE
        self._pending: list[Run] = []
        self._pending_bytes = 0
        self._judged: set[int] = set()
        """Runs of which it is known which chunks are deltas, by ``id``."""
        self._ready: dict[bytes, EncodedDelta] = {}
        """Those deltas, by the ids of their chunks."""
        self._inline = 0
        """Bytes of deltas that are to lie in recipes."""

    def expect(self, runs: Iterable[Run], deltas: Mapping[bytes, EncodedDelta]) -> None:
        """Of hashed runs that are about to be submitted, and could lie in their recipe whole, these chunks are deltas,
        and no others."""
        self._judged.update(map(id, runs))
        self._ready.update(deltas)

    def submit(self, run: Run) -> None:
        """Take the next run. Its memory is read until ``flush``, unless ``copy_borrowed`` comes first."""
        self._pending.append(run)
        self._pending_bytes += len(run.view)
        if self._pending_bytes >= self._window:
            self.flush()

    def copy_borrowed(self) -> None:
        """Stop relying on the memory of what was submitted so far: its owner may reuse it for something else."""
        borrowed = sum(len(run.view) for run in self._pending if not run.held)
        if borrowed >= TASK_BYTES:
            self.flush()
        for run in self._pending:
            run.own()
        if self._packs.borrowed >= TASK_BYTES:
            self._packs.close()
        self._packs.copy_borrowed()

    def hash_pending(self) -> None:
        """Fill in the ids of what waits."""
        unhashed = [run for run in self._pending if not run.ids]
        tasks = [part for run in unhashed for part, _ in plan_tasks(run)]
        total = sum(len(run.view) for run in unhashed)
        for part, ids in zip(tasks, self._context.workers.map(self._hash, tasks, total), strict=True):
            part.run.ids += ids

    def drop(self, runs: Container[int]) -> None:
        """Forget what waits of these runs, given by ``id``: a stored recipe has their chunks."""
        self._forget([run for run in self._pending if id(run) in runs])
        self._pending = [run for run in self._pending if id(run) not in runs]

    def _forget(self, runs: Iterable[Run]) -> None:
        """What was expected of runs that wait no longer."""
        if self._judged:
            for run in runs:
                self._judged.discard(id(run))
                for chunk_id in run.ids:
                    self._ready.pop(chunk_id, None)

    def flush(self) -> None:
        """Bring everything that waits into packs. The last pack stays open."""
        self.hash_pending()
        runs, self._pending, self._pending_bytes = self._pending, [], 0
        window: list[RunPart] = []
        total = 0
        for run in runs:
            for part, size in plan_tasks(run):
                window.append(part)
                total += size
                if total >= self._window:
                    self._store_told(window, total)
                    window, total = [], 0
        if window:
            self._store_told(window, total)
        self._forget(runs)
        for run in runs:
            run.view = NO_BYTES  # what a raw chunk still needs of it, the open pack holds

    def _store_told(self, window: Sequence[RunPart], total: int) -> None:
        """``_store``, and whoever asked for progress is told."""
        meter = METER.get()
        told = self._store(window, total, meter)
        if meter is not None:
            meter.moved(total - told)

    def _store(self, window: Sequence[RunPart], total: int, meter: Meter | None) -> int:
        """How many bytes of it ``meter`` has been told."""
        stored = self._stored
        ids = {chunk_id for run, first, last in window for chunk_id in run.ids[first:last]} - stored.inline.keys()
        ready = {chunk_id: self._ready[chunk_id] for chunk_id in ids & self._ready.keys()}
        ready |= stored.carry(ids - ready.keys())
        small = set(small_chunks(window))
        stored.look_up(ids - ready.keys(), small, set(leading_chunks(window, small)))
        known: Mapping[bytes, object] = ChainMap(stored.located, stored.inline) if stored.inline else stored.located  # type: ignore[arg-type]
        stores, duplicate = plan_stores(window, known)
        self._written.duplicate += duplicate
        workers = self._context.workers
        self._choose_all(list({id(run): run for run, _, _ in stores if run.choice is None}.values()), total)
        deltas = ready | self._find_deltas(window, stores, duplicate, ready)
        if deltas:
            stores = self._store_deltas(stores, deltas)
        if self._is_rest(stores):
            self._leave_inline(stores)
            return 0
        # A pack that is full is written while what comes after it is encoded.
        with closing(workers.each(self._encode, stores, total)) as made:
            told = 0
            for part, encoded in zip(stores, made, strict=True):
                self._packs.add(*part, encoded)
                if meter is not None:
                    run, first, last = part
                    size = run.ends[last - 1] - (run.ends[first - 1] if first else 0)
                    told += size
                    self._packs.count(size, meter)
        return told

    def _find_deltas(
        self, window: Sequence[RunPart], stores: Sequence[RunPart], duplicate: int, ready: Container[bytes]
    ) -> dict[bytes, EncodedDelta]:
        """Which chunks of ``stores`` are to be deltas beside those that are ``ready``."""
        if ready or self._judged:
            window = [part for part in window if id(part.run) not in self._judged]
            stores, _ = plan_stores([part for part in stores if id(part.run) not in self._judged], ready)
        if self._deltas is None or not self._deltas.concern(stores, duplicate):
            return {}
        runs = {id(run): run for run, _, _ in stores}
        return {runs[run].ids[number]: delta for (run, number), delta in self._deltas.encode(window, stores).items()}

    def _store_deltas(self, stores: Sequence[RunPart], deltas: Mapping[bytes, EncodedDelta]) -> list[RunPart]:
        """Store what is to be a delta; what is left of ``stores``.

        Where it saves requests, and nothing else goes to packs, deltas are left to lie in the recipe.
        """
        places = [
            (run, number, delta) for run, first, last in stores for number in range(first, last)
            if (delta := deltas.get(run.ids[number])) is not None
        ]  # fmt: skip
        left, _ = plan_stores(stores, deltas)
        size = sum(len(delta.data) for _, _, delta in places)
        limit = self._context.backend.capabilities.inline
        if any(id(run) not in self._judged for run, _, _ in places):
            limit = min(limit, INLINE_DELTAS)
        if not left and self._packs.is_empty and self._inline + size <= limit:
            self._inline += size
            self._stored.inline.update((run.ids[number], delta) for run, number, delta in places)
            return []
        for run, number, delta in places:
            self._packs.add_delta(run, number, delta)
            self._stored.pieces[run.ids[number]] = delta.pieces
        return left

    def _is_rest(self, stores: Sequence[RunPart]) -> bool:
        """Whether so little is new that it lies in the recipe, and nothing of this save in packs."""
        size = sum(run.ends[last - 1] - (run.ends[first - 1] if first else 0) for run, first, last in stores)
        return size <= INLINE_REST and self._inline + size <= INLINE_DELTAS and self._packs.is_empty

    def _leave_inline(self, stores: Sequence[RunPart]) -> None:
        codec, compress = self._context.workers.thread.codec, self._context.compress
        for run, first, last in stores:
            for number in range(first, last):
                start, end = run.ends[number - 1] if number else 0, run.ends[number]
                chunk = run.encode_chunk(start, end, codec, compress)
                data = bytes(chunk.data)
                self._inline += len(data)
                self._stored.inline[run.ids[number]] = EncodedDelta(data, chunk.codec, chunk.width, ())

    def _hash(self, part: RunPart) -> list[bytes]:
        return part.run.hash(self._context.digest, part.first, part.last)

    def _choose_all(self, runs: Sequence[Run], total: int) -> None:
        """Decide how runs are encoded. Records as long as those of another run are taken to be like them, as the nodes
        of a forest's trees are: a trial for each of 60 trees took 11 ms of 92. What turns out to be otherwise is tried
        all the same (``codecs.Follower``)."""
        workers = self._context.workers
        longest: dict[int, Run] = {}
        for run in runs:
            if run.itemsize > NUMBER and len(run.view) > len(longest.setdefault(run.itemsize, run).view):
                longest[run.itemsize] = run
        workers.map(self._choose, [run for run in runs if longest.get(run.itemsize, run) is run], total)
        for run in runs:
            if run.choice is None and (choice := longest[run.itemsize].choice) != codecs.RAW_CHOICE:
                run.choice = choice
        workers.map(self._choose, [run for run in runs if run.choice is None], total)

    def _choose(self, run: Run) -> None:
        context = self._context
        run.choice = codecs.choose(context.workers.thread.codec, run.view, run.itemsize, context.compress)

    def _encode(self, part: RunPart) -> list[EncodedChunk] | None:
        """The chunks of a part; None when all of them lie raw."""
        run, first, last = part
        assert run.choice is not None
        start = run.ends[first - 1] if first else 0
        ends = [end - start for end in run.ends[first:last]]
        context = self._context
        return encode_chunks(
            context.workers.thread.codec, run.view[start : run.ends[last - 1]], ends, run.itemsize, run.choice,
            context.compress,
        )  # fmt: skip
