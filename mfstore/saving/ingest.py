"""From objects to stored packs and recipes: the writing half of one store operation.

Write order is packs, index fragment, recipes; a recipe is the only commit point of its artifact. Everything after
the pickle sink runs on all cores: hash, look up, choose a codec, encode, lay out.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import TYPE_CHECKING

from mfstore._core.codec import NONE
from mfstore.errors import CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format import recipes
from mfstore.format.fragments import Location
from mfstore.format.packs import ALIGN_FROM, PackBuilder, PackEntry, pack_path
from mfstore.format.recipes import RAW, ChunkRef, Placement, Recipe, placed_chunks, recipe_path
from mfstore.saving import codecs
from mfstore.saving.drafts import NOTHING, Draft, DraftSink, Run, draft_of
from mfstore.saving.guard import Guard, Names
from mfstore.stats import SessionStats

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.backends.base import Backend, Batch
    from mfstore.format.digests import Digest
    from mfstore.host.workers import Workers
    from mfstore.loading.fetch import Fetcher
    from mfstore.loading.verified import VerifiedRanges
    from mfstore.saving.index import ChunkIndex

WINDOW_SHARE = 8
"""A window of memory / 8 bytes is hashed, looked up and encoded at a time: 32 MiB by default."""
PACK_SHARE = 4
"""A pack is closed at memory / 4 bytes: 64 MiB by default. A raw segment stays in one pack whatever its length, so
that it can be mapped. The extra memory of a save is a pack and two windows, half of the budget; codecs and the
allocator take some of the rest."""
TASK = 4 << 20
"""Bytes per task: 16 chunks, 0.7 ms of hashing, against 30 us to hand it over."""
INLINE_TRIAL = 1 << 20
"""Bytes of one recipe's chunks that are held back and encoded to see whether they fit into it, where the backend wants
that: what they take encoded is hardly ever less than a quarter."""
TAIL = 4 << 20
"""How far short runs may fill a pack beyond its limit where a further pack is two more requests: the body of a large
array comes after it."""
CHECKPOINT = 4096
"""Recipes written together; bounds what a bulk put holds."""


class Ingest:
    """One writing operation. Use as a context manager; call ``commit`` at the end."""

    def __init__(
        self, backend: Backend, workers: Workers, index: ChunkIndex, fetcher: Fetcher, verified: VerifiedRanges,
        digest: Digest, algorithm: int, compress: bool, memory: int, guard: Guard,
    ) -> None:  # fmt: skip
        self.written = SessionStats()
        self._guard = guard
        self._condemned = guard.condemned()
        self._wrote, self._relied = Names(), Names()
        self._backend = backend
        self._workers = workers
        self._index = index
        self._fetcher = fetcher
        self._verified = verified
        self._digest = digest
        self._algorithm = algorithm
        self._compress = compress
        self._remote = backend.capabilities.remote
        self._inline = backend.capabilities.inline
        self._held: list[Run] | None = [] if self._inline else None
        self._held_bytes = 0
        self._window = memory // WINDOW_SHARE
        self._pack_limit = memory // PACK_SHARE
        self._batch: Batch = backend.batch()
        self._pending: list[Run] = []
        self._pending_bytes = 0
        self._located: dict[bytes, Location] = {}
        self._pack = PackBuilder(algorithm)
        self._last_run: Run | None = None
        self._closed: list[tuple[bytes, list[PackEntry]]] = []
        self._sizes: dict[bytes, int] = {}
        self._waiting = 0
        self._committed: list[tuple[tuple[str, bytes], list[tuple[bytes, list[PackEntry]]]]] = []
        self._drafts: list[tuple[int, list[Draft], Callable[[str], None]]] = []

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, *exc: object) -> None:
        self._batch.abort()

    # ---- drafts -----------------------------------------------------------------------

    def draft(self, name: str, obj: object, named: bool, alone: bool) -> Draft:
        """Pickle one artifact. ``alone``: it gets its own recipe, and lies in it when it is small."""
        submit, waiting = self._submitter(alone)
        draft = draft_of(name, obj, submit, named)
        self.drafted(draft, waiting or ())
        return draft

    def draft_raw(self, blocks: Iterable[Buffer], type_name: str) -> Draft:
        """An artifact that is the given bytes."""
        draft = Draft("", type_name, RAW)
        submit, waiting = self._submitter(True)
        sink = DraftSink(draft, submit)
        for block in blocks:
            sink.body(block)  # type: ignore[arg-type]
        sink.finish()
        self.drafted(draft, waiting or ())
        return draft

    def _submitter(self, alone: bool) -> tuple[Callable[[Run], None], list[Run] | None]:
        """What takes the runs of a draft, and those it waits with."""
        if self._inline:
            return self._hold, None
        if not alone:
            return self._submit, None
        # A small artifact on its own lies in its recipe, and only the end shows that it is small.
        waiting: list[Run] = []
        total = 0

        def submit(run: Run) -> None:
            nonlocal total
            total += len(run.view)
            if total <= recipes.INLINE_LIMIT:
                waiting.append(run)
                return
            while waiting:
                self._submit(waiting.pop(0))
            self._submit(run)

        return submit, waiting

    def take(self, run: Run) -> None:
        """A run of a draft that was made elsewhere, for a bundle."""
        self._submitter(False)[0](run)

    def drafted(self, draft: Draft, waiting: Iterable[Run] = ()) -> None:
        """A draft is complete."""
        self.written.artifacts += 1
        self.written.logical += draft.size
        for run in waiting:
            run.own()
            run.ids = self._hash(run, 0, len(run.ends))

    def withdraw(self, drafts: list[Draft], known: Container[str]) -> list[Draft]:
        """Those that have to be stored: not the ones whose key is ``known``, unless part of them has been sent."""
        left = []
        held = {id(run) for run in self._held or ()}
        for draft in drafts:
            runs = list(draft.runs())
            if not all(id(run) in held for run in runs):
                left.append(draft)
                continue
            for run in runs:
                run.ids = run.ids or self._hash(run, 0, len(run.ends))
            if draft.key(self._digest, self._algorithm) not in known:
                left.append(draft)
                continue
            gone = set(map(id, runs))
            self._held = [run for run in self._held or () if id(run) not in gone]
            self._held_bytes -= sum(len(run.view) for run in runs)
            self.written.duplicate += draft.size
        return left

    def key_of(self, draft: Draft) -> str:
        """The key the draft's artifact would have on its own. Only after ``commit``."""
        return draft.key(self._digest, self._algorithm)

    def _hold(self, run: Run) -> None:
        """Keep the runs of the next recipe together until they are too many to lie in it."""
        if self._held is None:
            self._submit(run)
            return
        self._held.append(run)
        self._held_bytes += len(run.view)
        if self._held_bytes > INLINE_TRIAL:
            self._release()

    def _release(self) -> None:
        held, self._held = self._held, None
        for run in held or ():
            self._submit(run)

    def _place_held(self) -> None:
        """The recipe is complete: what was held back lies in it if that is small enough."""
        if self._held:
            size = 0
            for run in self._held:
                run.inline = self._encode_run(run)
                size += sum(len(data) for data, _, _ in run.inline)
                if size > self._inline:
                    break
            if size > self._inline:
                for run in self._held:
                    run.inline = None
                self._release()
            for run in self._held or ():
                run.own()
                run.inline = [(bytes(data), codec, width) for data, codec, width in run.inline or ()]
                run.ids = run.ids or self._hash(run, 0, len(run.ends))
        self._held, self._held_bytes = [], 0

    def _encode_run(self, run: Run) -> list[tuple[memoryview | bytes, int, int]]:
        starts = [0, *run.ends[:-1]]
        return [self._encode_inline(run, start, end) for start, end in zip(starts, run.ends, strict=True)]

    def _submit(self, run: Run) -> None:
        self._pending.append(run)
        self._pending_bytes += len(run.view)
        if self._pending_bytes >= self._window:
            self.flush()

    def copy_borrowed(self) -> None:
        """Stop relying on the memory of the objects drafted so far: their owner may reuse it for the next one."""
        borrowed = sum(len(run.view) for run in self._pending if not run.held)
        if borrowed >= TASK:
            self.flush()
        for run in self._pending:
            run.own()
        if self._pack.borrowed >= TASK:
            self._close_pack()
        self._pack.own()

    # ---- chunks -----------------------------------------------------------------------

    def flush(self) -> None:
        """Hash, look up, encode and lay out everything pending."""
        self._hash_pending()
        runs, self._pending, self._pending_bytes = self._pending, [], 0
        window: list[tuple[Run, int, int]] = []
        total = 0
        for run in runs:
            for first, last, size in _tasks(run):
                window.append((run, first, last))
                total += size
                if total >= self._window:
                    self._process(window, total)
                    window, total = [], 0
        if window:
            self._process(window, total)
        for run in runs:
            run.view = NOTHING  # what a raw chunk still needs of it, the open pack holds

    def _hash_pending(self) -> None:
        """Fill in the ids of what is pending."""
        unhashed = [run for run in self._pending if not run.ids]
        tasks = [(run, first, last) for run in unhashed for first, last, _ in _tasks(run)]
        total = sum(len(run.view) for run in unhashed)
        for (run, _, _), ids in zip(
            tasks, self._workers.map(lambda task: self._hash(*task), tasks, total), strict=True
        ):
            run.ids += ids

    def _hash(self, run: Run, first: int, last: int) -> list[bytes]:
        view, digest = run.view, self._digest
        start = run.ends[first - 1] if first else 0
        ids = []
        for end in run.ends[first:last]:
            ids.append(digest(view[start:end]))
            start = end
        return ids

    def _process(self, window: list[tuple[Run, int, int]], total: int) -> None:
        ids = {chunk_id for run, first, last in window for chunk_id in run.ids[first:last]}
        self._look_up({chunk_id for chunk_id in ids if chunk_id not in self._located})
        claimed: set[bytes] = set()
        encode: list[tuple[Run, int, int]] = []
        for run, first, last in window:
            start = None
            for number in range(first, last):
                chunk_id = run.ids[number]
                fresh = chunk_id not in self._located and chunk_id not in claimed
                if fresh:
                    claimed.add(chunk_id)
                    start = number if start is None else start
                else:
                    self.written.duplicate += run.ends[number] - (run.ends[number - 1] if number else 0)
                    if start is not None:
                        encode.append((run, start, number))
                        start = None
            if start is not None:
                encode.append((run, start, last))
        undecided = {id(run): run for run, _, _ in encode if run.choice is None}
        self._workers.map(self._choose, list(undecided.values()), total)
        for task, encoded in zip(encode, self._workers.map(self._encode, encode, total), strict=True):
            self._lay_out(*task, *encoded)

    def _look_up(self, ids: set[bytes]) -> None:
        found = self._index.find(list(ids)) if ids else {}
        if found and self._condemned:
            found = {chunk_id: other for chunk_id, place in found.items() if (other := self._lasting(chunk_id, place))}
        if found:
            # An acknowledged put must read back: a hit counts only when its bytes are there and whole.
            for chunk_id in found.keys() - self._whole(found.items()):
                others = [
                    (chunk_id, place)
                    for place in self._index.find_all(chunk_id, False)
                    if place != found[chunk_id] and not self._condemned.pack(place.pack.value)
                ]
                del found[chunk_id]
                for copy in others:
                    if self._whole([copy]):
                        found[chunk_id] = copy[1]
        self._rely({place.pack.value for place in found.values()})
        self._located.update(found)

    def _lasting(self, chunk_id: bytes, place: Location) -> Location | None:
        """A place of a chunk that is not about to be collected; None when there is none: then it is stored again."""
        if not self._condemned.pack(place.pack.value):
            return place
        others = self._index.find_all(chunk_id, False)
        return next((other for other in others if not self._condemned.pack(other.pack.value)), None)

    def _rely(self, packs: Iterable[bytes]) -> None:
        """The operation's acknowledgement depends on these packs, which others stored."""
        for name in packs:
            self._relied.packs += name
        self._batch.ensure([pack_path(name.hex()) for name in packs])

    def _whole(self, places: Iterable[tuple[bytes, Location]]) -> set[bytes]:
        return self._fetcher.reliable(
            [(ChunkRef(chunk_id, at.usize), at.pack.value.hex(), at.placement()) for chunk_id, at in places]
        )

    def _choose(self, run: Run) -> None:
        run.choice = codecs.choose(self._workers.codec, run.view, run.itemsize, self._compress)

    def _encode(self, task: tuple[Run, int, int]) -> tuple[memoryview, list[int]] | tuple[None, None]:
        run, first, last = task
        assert run.choice is not None
        if run.choice.codec == NONE:
            return None, None
        start = run.ends[first - 1] if first else 0
        ends = [end - start for end in run.ends[first:last]]
        return self._workers.codec.encode(
            run.view[start : run.ends[last - 1]], ends, run.choice.codec, run.choice.width, codecs.LEVEL, codecs.KEEP
        )

    def _lay_out(self, run: Run, first: int, last: int, arena: memoryview | None, sizes: list[int] | None) -> None:
        assert run.choice is not None
        pack = self._pack
        continues = self._last_run is run
        limit = self._pack_limit
        if self._remote and len(run.view) <= ALIGN_FROM:
            limit += TAIL
        if pack.held >= limit or (pack.length >= limit and not (continues and arena is None)):
            self._close_pack()
            pack = self._pack
            continues = False
        self._last_run = run
        start = run.ends[first - 1] if first else 0
        if arena is None or sizes is None:
            if not continues and len(run.view) >= ALIGN_FROM:
                pack.align()
            entries = []
            at = start
            for number in range(first, last):
                entries.append((run.ids[number], run.ends[number] - at, run.ends[number] - at))
                at = run.ends[number]
            self._add(pack, run.view[start:at], entries, NONE, 0, run.held)
            return
        taken = 0
        for number, size in zip(range(first, last), sizes, strict=True):
            end = run.ends[number]
            if size:
                entry = (run.ids[number], size, end - start)
                self._add(pack, arena[taken : taken + size], [entry], run.choice.codec, run.choice.width, True)
                taken += size
            else:
                entry = (run.ids[number], end - start, end - start)
                self._add(pack, run.view[start:end], [entry], NONE, 0, run.held)
            start = end

    def _add(
        self,
        pack: PackBuilder,
        data: memoryview,
        entries: list[tuple[bytes, int, int]],
        codec: int,
        width: int,
        held: bool,
    ) -> None:
        at = pack.length
        pack.add(data, entries, codec, width, held)
        fresh = 0
        for chunk_id, csize, usize in entries:
            self._located[chunk_id] = Location(pack.name, at, csize, usize, codec, width)
            at += csize
            fresh += usize
        self._count_codec(codec, width, fresh)

    def _count_codec(self, codec: int, width: int, size: int) -> None:
        name = codecs.label(codec, width)
        self.written.codecs[name] = self.written.codecs.get(name, 0) + size

    def _close_pack(self) -> None:
        pack = self._pack
        self._last_run = None
        if not pack.entries:
            return
        self._pack = PackBuilder(self._algorithm)
        name, parts = pack.close(self._digest)
        self._sizes[pack.name.value] = self._put(pack_path(name), parts)
        self._wrote.packs += pack.name.value
        self._closed.append((pack.name.value, pack.entries))

    def _put(self, key: str, parts: Sequence[Buffer]) -> int:
        self._batch.put(key, parts)
        size = sum(memoryview(part).nbytes for part in parts)
        self.written.stored += size
        self.written.objects += 1
        return size

    # ---- recipes ----------------------------------------------------------------------

    def recipe(self, kind: int, drafts: list[Draft], deliver: Callable[[str], None]) -> None:
        """Write a recipe for these artifacts; ``deliver`` gets the key once it is known."""
        if self._inline:
            self._place_held()
        self._drafts.append((kind, drafts, deliver))
        limit = INLINE_TRIAL if self._inline else recipes.INLINE_LIMIT
        self._waiting += sum(min(draft.size, limit) for draft in drafts)
        if len(self._drafts) >= CHECKPOINT or self._waiting >= self._window:
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Put everything a recipe needs, then the recipes. What is stored already is left alone."""
        self._hash_pending()
        waiting, self._drafts, self._waiting = self._drafts, [], 0
        finished = []
        for kind, drafts, deliver in waiting:
            artifacts = [draft.artifact() for draft in drafts]
            content = recipes.encode_content(kind, self._algorithm, artifacts)
            key = self._digest(content)
            finished.append((key, content, drafts))
            deliver(key.hex())
        exists = self._existing([key for key, _, _ in finished])
        seen: set[bytes] = set()
        unneeded: set[int] = set()
        new = []
        for (key, content, drafts), there in zip(finished, exists, strict=True):
            if key in seen or (there is not False and self._is_whole(key, there)):
                runs = [run for draft in drafts for run in draft.runs()]
                unneeded.update(map(id, runs))
                # What went through a window before has been counted there.
                self.written.duplicate += sum(len(run.view) for run in runs)
                self.written.duplicate += sum(len(draft.literal or b"") for draft in drafts)
                continue
            seen.add(key)
            new.append((key, content, drafts))
        self._pending = [run for run in self._pending if id(run) not in unneeded]
        self.flush()
        self._close_pack()
        if self._closed:
            fragment = self._index.make_fragment(self._closed)
            self._put(fragment[0], [fragment[1]])
            self._committed.append((fragment, self._closed))
            self._closed = []
        for key, content, drafts in new:
            self._put(recipe_path(key.hex()), self._encode_recipe(content, drafts))
            self._wrote.recipes += key

    def _existing(self, keys: Sequence[bytes]) -> Sequence[bytes | MfstoreError | bool]:
        """For each recipe whether there is one, or what reading it gave."""
        paths = [recipe_path(key.hex()) for key in keys]
        if not self._remote:
            return self._backend.exists_many(paths)
        # Asking whether it is there costs as much as asking for it.
        found = [data for _, data in self._backend.get_many(paths)]
        return [not isinstance(data, NotFound) and data for data in found]

    def _encode_recipe(self, content: bytes, drafts: list[Draft]) -> Sequence[Buffer]:
        packs: dict[bytes, int] = {}
        placements: list[Placement] = []
        inline: list[bytes | memoryview] = []
        inline_at = 0
        here: dict[bytes, Placement] = {}
        for draft in drafts:
            if draft.literal is not None:
                self._count_codec(0, 0, len(draft.literal))
            for run in draft.runs():
                start = 0
                for number, (chunk_id, end) in enumerate(zip(run.ids, run.ends, strict=True)):
                    at = self._located.get(chunk_id)
                    if at is not None:
                        placements.append(at.placement(packs.setdefault(at.pack.value, len(packs))))
                    elif chunk_id in here:
                        placements.append(here[chunk_id])
                        self.written.duplicate += end - start
                    else:
                        data, codec, width = run.inline[number] if run.inline else self._encode_inline(run, start, end)
                        here[chunk_id] = Placement(recipes.INLINE, inline_at, len(data), codec, width)
                        placements.append(here[chunk_id])
                        inline.append(data)
                        inline_at += len(data)
                        self._count_codec(codec, width, end - start)
                    start = end
        return recipes.encode(
            self._algorithm,
            content,
            [draft.type for draft in drafts],
            list(packs),
            placements,
            inline,
            self._workers.codec,
        )

    def _encode_inline(self, run: Run, start: int, end: int) -> tuple[memoryview | bytes, int, int]:
        if run.choice is None:
            self._choose(run)
        assert run.choice is not None
        if run.choice.codec != NONE:
            arena, sizes = self._workers.codec.encode(
                run.view[start:end], [end - start], run.choice.codec, run.choice.width, codecs.LEVEL, codecs.KEEP
            )
            if sizes[0]:
                return arena, run.choice.codec, run.choice.width
        return run.view[start:end], NONE, 0

    def _is_whole(self, key: bytes, found: bytes | MfstoreError | bool) -> bool:
        """Whether the stored recipe of this key, and every chunk it places, can be relied on."""
        path = recipe_path(key.hex())
        try:
            if isinstance(found, MfstoreError):
                raise found
            data = self._backend.get(path) if isinstance(found, bool) else found
            recipe = recipes.decode(data, self._workers.codec, key)
            if self._condemned and (
                self._condemned.recipe(key) or any(self._condemned.pack(name) for name in recipe.packs)
            ):
                return False
            if not self._chunks_are_whole(recipe):
                return False
        except (CorruptObject, NotFound, Unsupported):
            return False
        self._relied.recipes += key
        self._batch.ensure([path])
        self._rely(recipe.packs)
        return True

    def _chunks_are_whole(self, recipe: Recipe) -> bool:
        placed = placed_chunks(recipe)
        inline = [
            (number, chunk, memoryview(bytearray(chunk.usize)))
            for number, (chunk, place) in enumerate(placed) if place.pack == recipes.INLINE
        ]  # fmt: skip
        self._fetcher.fill(recipe, inline, verify=True)
        places = [
            (chunk, recipe.packs[place.pack].hex(), place) for chunk, place in placed if place.pack != recipes.INLINE
        ]
        return self._fetcher.reliable(places) == {chunk.id for chunk, _, _ in places}

    def commit(self) -> SessionStats:
        """Make everything durable and visible, in order; then other operations may use it."""
        self._checkpoint()
        self._batch.commit()
        self._guard.confirm(self._condemned, self._wrote, self._relied)
        for (key, data), packs in self._committed:
            self._index.add(key, data)
            for name, entries in packs:
                if self._remote:
                    self._verified.written(name.hex(), self._sizes[name])
                else:
                    self._verified.add(name.hex(), [(entry.offset, entry.csize, entry.id) for entry in entries])
        if self._committed:
            self._index.compact()
        return self.written


def _tasks(run: Run) -> Iterable[tuple[int, int, int]]:
    """``(first, last, bytes)`` of groups of a run's chunks of about TASK bytes."""
    first, start = 0, 0
    for number, end in enumerate(run.ends):
        if end - start >= TASK:
            yield first, number + 1, end - start
            first, start = number + 1, end
    if first < len(run.ends):
        yield first, len(run.ends), run.ends[-1] - start
