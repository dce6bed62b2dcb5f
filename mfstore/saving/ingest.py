"""From objects to stored packs and recipes: the writing half of one store operation.

Write order is packs, index fragment, recipes; a recipe is the only commit point of its artifact. What is small lies in
its recipe; the rest goes through the pipeline into packs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter, time
from types import MappingProxyType
from typing import TYPE_CHECKING

from mfstore._core.codec import GROUP
from mfstore.backends.base import decode_read
from mfstore.errors import Conflict, CorruptObject, InvalidNote, MfstoreError, NotFound, Unsupported
from mfstore.format import recipes
from mfstore.format.about import encode_note, with_note
from mfstore.format.digests import key_of
from mfstore.format.packs import place_of
from mfstore.format.recipes import NONCE, RAW, BaseChunk, Piece, Placement, new_placement, recipe_path
from mfstore.progress import METER
from mfstore.provenance import warn_of_own
from mfstore.records import NamedTuple
from mfstore.saving.codecs import LABELS, EncodedChunk
from mfstore.saving.context import SaveContext, SessionStats
from mfstore.saving.counterparts import Base, Counterparts
from mfstore.saving.dedup import StoredChunks
from mfstore.saving.deltas import Deltas
from mfstore.saving.describing import begin_description, remembered_description
from mfstore.saving.drafts import Draft, DraftSink, Run, draft_of
from mfstore.saving.guard import Names
from mfstore.saving.packing import PackWriter
from mfstore.saving.pipeline import WINDOW_SHARE, ChunkPipeline
from mfstore.saving.small_versions import BUILDS, SmallVersions

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore._core.codec import Codec
    from mfstore.format.digests import Key
    from mfstore.format.fragments import Location
    from mfstore.format.packs import PackEntry, Pieces
    from mfstore.format.recipes import Recipe
    from mfstore.saving.counterparts import BasePiece
    from mfstore.saving.deltas import EncodedDelta

    FindBase = Callable[[str], Recipe | None]

NO_DELTAS: Mapping[bytes, Sequence[BasePiece]] = MappingProxyType({})
NO_INLINE: Mapping[bytes, EncodedDelta] = MappingProxyType({})
INLINE_TRIAL = 1 << 20
"""Bytes of one recipe's chunks that are held back and encoded to see whether they fit into it, where the backend wants
that: what they take encoded is hardly ever less than a quarter."""
BODY_INLINE = 16 << 10
"""A body with segments that takes up to so many bytes encoded lies in the recipe though its segments do not, where
requests are expensive: who wants a column of a frame then asks for the recipe and the column. Bodies of frames of 10 to
1000 columns, of models and of state dicts take 1 to 11 KiB; each version of a longer one would be stored anew with each
recipe, which two requests for its first column would have to pay for."""
BODY_TRIAL = 128 << 10
"""Longest body that is encoded to see that: pickles of symbols take a tenth of their bytes, hardly ever an eighth less
than that."""
CHECKPOINT_RECIPES = 4096
"""Recipes written together; bounds what a bulk put holds."""
NOTE_ATTEMPTS = 20
"""How often the note of a stored recipe is replaced anew when others replace the recipe at the same moment."""
END_OF_TIME = b"%.3f}}".__mod__
"""``time_of``, without a call of Python's on the way of a small put."""


class SmallArtifact:
    """The runs of an artifact with a recipe of its own, where those of up to ``INLINE_LIMIT`` bytes lie in it: only the
    end shows whether it is so small."""

    __slots__ = ("_size", "_submit", "runs")

    def __init__(self, submit: Callable[[Run], None]) -> None:
        self.runs: list[Run] = []
        """Those that wait; at the end, those that lie in the recipe."""
        self._size = 0
        self._submit = submit

    def take(self, run: Run) -> None:
        """The next run of the artifact."""
        self._size += len(run.view)
        if self._size <= recipes.INLINE_LIMIT:
            self.runs.append(run)
            return
        while self.runs:
            self._submit(self.runs.pop(0))
        self._submit(run)


class InlineTrial:
    """The runs of the next recipe, where all chunks of a recipe lie in it if they are small enough encoded: kept
    together until they are too many."""

    def __init__(
        self, context: SaveContext, submit: Callable[[Run], None],
        divide: Callable[[list[Run], int], list[Run]] = lambda runs, _: runs,
    ) -> None:  # fmt: skip
        self._context = context
        self._limit = context.backend.capabilities.inline
        self._submit = submit
        self._divide = divide
        """Of runs that take so many bytes encoded, those that are to lie in the recipe; others go on from there."""
        self._runs: list[Run] | None = []
        """None: too many of this recipe's."""
        self._bodies: list[Run] = []
        """Then, those of bodies that may lie in the recipe still."""
        self._bytes = 0

    def take(self, run: Run) -> None:
        """The next run of the recipe."""
        if self._runs is None:
            self._pass_on(run)
            return
        self._runs.append(run)
        self._bytes += len(run.view)
        if self._bytes > INLINE_TRIAL:
            self._release()

    def holds(self, runs: Iterable[Run]) -> bool:
        """Whether nothing of ``runs`` has been submitted."""
        held = {id(run) for run in self._runs or ()}
        return all(id(run) in held for run in runs)

    def drop(self, runs: Iterable[Run]) -> None:
        """These need not be stored."""
        gone = {id(run) for run in runs}
        self._bytes -= sum(len(run.view) for run in self._runs or () if id(run) in gone)
        self._runs = [run for run in self._runs or () if id(run) not in gone]

    def finish(self) -> None:
        """The recipe is complete: what was kept lies in it if that is small enough. Then the next one's runs come."""
        if self._runs:
            codec, compress = self._context.workers.thread.codec, self._context.compress
            size = 0
            for run in self._runs:
                run.inline = run.encode(codec, compress)
                size += sum(len(data) for data in {id(chunk.data): chunk.data for chunk in run.inline}.values())
                if size > self._limit:
                    break
            if size > self._limit:
                for run in self._runs:
                    run.inline = None
                self._release()
            for run in self._divide(self._runs, size) if self._runs else ():
                run.own()
                run.inline = [EncodedChunk(bytes(chunk.data), *chunk[1:]) for chunk in run.inline or ()]
                run.ids = run.ids or run.hash(self._context.digest)
        if self._bodies:
            self._place_bodies()
        self._runs, self._bytes = [], 0

    def _release(self) -> None:
        held, self._runs = self._runs, None
        for run in held or ():
            self._pass_on(run)

    def _pass_on(self, run: Run) -> None:
        stream = run.stream
        if stream is not None and stream.segments and len(run.view) == stream.length <= BODY_TRIAL:
            self._bodies.append(run)
        else:
            self._submit(run)

    def _place_bodies(self) -> None:
        """Bodies whose segments are in packs lie in the recipe, the first ones as far as there is room."""
        bodies, self._bodies = self._bodies, []
        codec, compress, room = self._context.workers.thread.codec, self._context.compress, self._limit
        for run in bodies:
            made = run.encode(codec, compress)
            size = sum(len(data) for data in {id(chunk.data): chunk.data for chunk in made}.values())
            if size > min(BODY_INLINE, room):
                self._submit(run)
                continue
            room -= size
            run.own()
            # Equal chunks of a group stay one object.
            held = {id(chunk.data): bytes(chunk.data) for chunk in made}
            run.inline = [EncodedChunk(held[id(chunk.data)], *chunk[1:]) for chunk in made]
            run.ids = run.ids or run.hash(self._context.digest)


class RecipeLayout(NamedTuple):
    """Where the chunks of one recipe lie."""

    packs: list[bytes]
    placements: list[Placement]
    inline: list[bytes | memoryview]
    bases: list[BaseChunk]


def lay_out_recipe(
    drafts: Iterable[Draft], located: Mapping[bytes, Location], codec: Codec, compress: str, written: SessionStats,
    deltas: Mapping[bytes, Sequence[BasePiece]] = NO_DELTAS, inline: Mapping[bytes, EncodedDelta] = NO_INLINE,
) -> RecipeLayout:  # fmt: skip
    """Place every chunk of a recipe: where it is ``located``, else in the recipe itself, equal ones once. ``deltas``
    are the pieces that located ones are deltas against, ``inline`` what lies there as a delta."""
    packs: dict[bytes, int] = {}
    bases: dict[bytes, int] = {}
    layout = RecipeLayout([], [], [], [])
    inline_at = 0
    here: dict[bytes, Placement] = {}
    groups: dict[int, int] = {}
    last, pack = None, 0
    sizes: dict[str, int] = written.codecs
    for draft in drafts:
        if draft.literal is not None:
            sizes["raw"] = sizes.get("raw", 0) + len(draft.literal)
        for run in draft.runs():
            start = 0
            made = run.inline
            if not (made or any(one in located or one in here or one in inline for one in run.ids)):
                made = run.encode(codec, compress)
            for number, (chunk_id, end) in enumerate(zip(run.ids, run.ends, strict=True)):
                at = located.get(chunk_id)
                if at is not None:
                    name, offset, csize, _, form, width = at
                    if name is not last:
                        last, pack = name, packs.setdefault(name.value, len(packs))
                    pieces = _place_pieces(deltas[chunk_id], bases, packs, layout) if chunk_id in deltas else ()
                    layout.placements.append(new_placement((pack, offset, csize, form, width, pieces)))
                elif chunk_id in here:
                    layout.placements.append(here[chunk_id])
                    written.duplicate += end - start
                else:
                    chunk: EncodedChunk | EncodedDelta
                    pieces = ()
                    if made:
                        chunk = made[number]
                    elif (delta := inline.get(chunk_id)) is not None:
                        chunk, pieces = delta, _place_pieces(delta.pieces, bases, packs, layout)
                    else:
                        chunk = run.encode_chunk(start, end, codec, compress)
                    begin = inline_at
                    if chunk.codec == GROUP:
                        begin = groups.setdefault(id(chunk.data), inline_at)
                    placement = Placement(recipes.INLINE, begin, len(chunk.data), chunk.codec, chunk.width, pieces)
                    here[chunk_id] = placement
                    layout.placements.append(placement)
                    if begin == inline_at:
                        layout.inline.append(chunk.data)
                        inline_at += placement.csize
                    label = LABELS[chunk.codec, bool(chunk.width)]
                    sizes[label] = sizes.get(label, 0) + end - start
                start = end
    layout.packs.extend(packs)
    return layout


def _place_pieces(
    pieces: Iterable[BasePiece], bases: dict[bytes, int], packs: dict[bytes, int], layout: RecipeLayout
) -> tuple[Piece, ...]:
    """Pieces as the recipe states them, with what they are parts of."""
    placed = []
    for chunk_id, at, start, length in pieces:
        number = bases.setdefault(chunk_id, len(bases))
        if number == len(layout.bases):
            pack = packs.setdefault(at.pack.value, len(packs))
            layout.bases.append(BaseChunk(chunk_id, pack, at.offset, at.csize, at.usize, at.codec, at.width))
        placed.append(Piece(number, start, length))
    return tuple(placed)


class WaitingRecipe(NamedTuple):
    """A recipe to be written."""

    kind: int
    drafts: list[Draft]
    deliver: Callable[[Key], None]
    """Gets the key once it is known."""
    note: bytes | None
    """What a user attaches, as ``encode_note`` gives it."""


class FinishedRecipe(NamedTuple):
    """A recipe whose key is known."""

    key: bytes
    path: str
    """Where it is stored."""
    content: bytes
    """Its content section."""
    drafts: list[Draft]
    literal: bytes | None
    """What it consists of, if that is one literal without a name."""
    note: bytes | None


new_finished = partial(tuple.__new__, FinishedRecipe)
"""From one tuple, as ``recipes.new_chunk``."""


class WrittenFragment(NamedTuple):
    """An index fragment of this operation, to be used by the next one."""

    key: str
    data: bytes
    packs: list[tuple[bytes, list[PackEntry]]]


def remember(
    context: SaveContext,
    fragment: WrittenFragment,
    sizes: Mapping[bytes, int],
    pieces: Mapping[bytes, Mapping[int, Pieces]],
) -> None:
    """Let later operations of this process use what was stored and acknowledged: packs of so many ``sizes``, whose
    deltas are against ``pieces``."""
    context.chunk_index.add(fragment.key, fragment.data)
    for name, entries in fragment.packs:
        if name not in sizes:
            continue  # others stored it
        if context.backend.capabilities.remote:
            context.reliance.written(name.hex(), sizes[name], entries, pieces[name])
        else:
            context.verified.add(
                name.hex(),
                [(place_of(at, codec, width), csize, chunk_id) for chunk_id, at, csize, _, codec, width in entries],
            )


class Ingest:
    """One writing operation. Use as a context manager; call ``commit`` at the end.

    It owns the recipes that wait and the commit; chunks that do not lie in a recipe are the pipeline's.
    """

    def __init__(self, context: SaveContext, find_base: FindBase | None = None, worth: int = 0) -> None:
        self.written = SessionStats()
        self._begun = perf_counter()
        self._context = context
        self._condemned = context.guard.condemned()
        self._find_base = find_base
        self._worth = worth
        self._base: Base | None = None
        self._looked: set[str] = set()
        """Artifacts for which a base was looked for."""
        self._batch = context.backend.batch()
        self._trial = InlineTrial(context, self._submit, self._divide) if context.backend.capabilities.inline else None
        # Most operations on small artifacts need none of these.
        self._pipeline: ChunkPipeline | None = None
        self._packs: PackWriter | None = None
        self._deltas: Deltas | None = None
        self._stored: StoredChunks | None = None
        self._versions: SmallVersions | None = None
        self._recipes: list[WaitingRecipe] = []
        self._recipe_bytes = 0
        self._recipe_keys = bytearray()
        self._fragments: list[WrittenFragment] = []

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, *exc: object) -> None:
        self._batch.abort()

    # ---- artifacts --------------------------------------------------------------------

    def draft(self, name: str, obj: object, named: bool, alone: bool, by_value: bool = False) -> Draft:
        """Pickle one artifact. ``alone``: it gets its own recipe, and lies in it when it is small. ``by_value`` as of
        ``dump``."""
        small = SmallArtifact(self._submit) if alone and self._trial is None else None
        draft = draft_of(name, obj, self.take if small is None else small.take, named, by_value)
        if ":" in "".join(draft.modules):
            warn_of_own(draft.modules)
        if (meter := METER.get()) is not None:
            meter.expect(draft.size)
        self.drafted(draft, small)
        return draft

    def draft_raw(self, blocks: Iterable[Buffer], type_name: str) -> Draft:
        """An artifact that is the given bytes, with a recipe of its own."""

        def write(sink: DraftSink) -> None:
            for block in blocks:
                sink.body(block)  # type: ignore[arg-type]

        return self.draft_written(RAW, type_name, write)

    def draft_written(self, encoding: int, type_name: str, write: Callable[[DraftSink], None]) -> Draft:
        """An artifact whose body and segments ``write`` gives, with a recipe of its own."""
        draft = Draft("", type_name, encoding)
        small = SmallArtifact(self._submit) if self._trial is None else None
        sink = DraftSink(draft, self.take if small is None else small.take)
        write(sink)
        sink.finish()
        self.drafted(draft, small)
        return draft

    def take(self, run: Run) -> None:
        """The next run of an artifact that does not lie alone in its recipe. Where the backend wants that, runs wait
        until their recipe is complete."""
        if self._trial is not None:
            self._trial.take(run)
        else:
            self._submit(run)

    def drafted(self, draft: Draft, small: SmallArtifact | None = None) -> None:
        """An artifact is complete: all its runs have been taken, or wait in ``small``."""
        self.written.artifacts += 1
        self.written.logical += draft.size
        for run in small.runs if small is not None else ():
            run.own()
            run.ids = run.hash(self._context.digest)

    def withdraw(self, drafts: list[Draft], known: Container[str]) -> list[Draft]:
        """Those that have to be stored: not the ones whose key is ``known``, unless part of them has been sent."""
        left = []
        for draft in drafts:
            runs = list(draft.runs())
            if not (self._trial.holds(runs) if self._trial is not None else not runs):
                left.append(draft)
                continue
            for run in runs:
                run.ids = run.ids or run.hash(self._context.digest)
            if self.key_of(draft) not in known:
                left.append(draft)
                continue
            if self._trial is not None:
                self._trial.drop(runs)
            self.written.duplicate += draft.size
        return left

    def key_of(self, draft: Draft) -> str:
        """The key the draft's artifact would have on its own. Only after ``commit``."""
        return draft.key(self._context.digest, self._context.algorithm)

    def copy_borrowed(self) -> None:
        """Stop relying on the memory of the objects drafted so far: their owner may reuse it for the next one."""
        if self._pipeline is not None:
            self._pipeline.copy_borrowed()

    def _submit(self, run: Run) -> None:
        pipeline = self._pipes()
        if self._find_base is not None:
            self._look_for_base(self._find_base, run)
        pipeline.submit(run)

    def _pipes(self) -> ChunkPipeline:
        """The way to packs."""
        if self._pipeline is None:
            stored = self._dedup()
            self._packs = PackWriter(self._context, self._batch, stored.located, self.written)
            if self._context.delta:
                self._deltas = Deltas(self._context, stored, self._context.memory // WINDOW_SHARE)
            self._pipeline = ChunkPipeline(self._context, stored, self._packs, self.written, self._deltas)
        return self._pipeline

    def _divide(self, runs: list[Run], size: int) -> list[Run]:
        """Of runs that could lie in their recipe, where they take so many bytes, those that will. The others build upon
        a base, of which they are mostly made."""
        if self._find_base is None or not self._context.delta or size < BUILDS:
            return runs
        pipeline, stored = self._pipes(), self._dedup()
        if self._versions is None:
            limit = self._context.memory // WINDOW_SHARE
            self._versions = SmallVersions(self._context, stored, self._usable, limit)
        for run in runs:
            self._look_for_base(self._find_base, run)
        if self._base is None:
            return runs
        for run in runs:
            run.ids = run.ids or run.hash(self._context.digest)
        gone: set[int] = set()
        for plan in self._versions.plan(runs):
            if not plan.inline:
                stored.rely({piece.at.pack.value for delta in plan.deltas.values() for piece in delta.pieces})
                pipeline.expect(plan.runs, plan.deltas)
            for run in plan.runs:
                gone.add(id(run))
                run.inline = None
                pipeline.submit(run)
        return [run for run in runs if id(run) not in gone]

    def _usable(self, pack: bytes) -> bool:
        return not self._condemned.pack(pack)

    def _look_for_base(self, find_base: FindBase, run: Run) -> None:
        """Learn what an artifact builds upon before its first long run goes to packs, or would go into a recipe that
        is long enough. It is read after what is condemned was: what goes on from there is told at the end."""
        name = run.stream.artifact if run.stream is not None else ""
        if name in self._looked or run.of_length <= self._worth:
            return
        self._looked.add(name)
        recipe = find_base(name)
        if recipe is None:
            return
        if self._base is None:
            self._base = Base(self._usable)
            self._dedup().build_on(self._base)
            if self._deltas is not None:
                self._deltas.build_on(Counterparts(self._base))
        self._base.learn(name, recipe)
        if self._versions is not None:
            self._versions.learn(name, recipe)

    def _dedup(self) -> StoredChunks:
        if self._stored is None:
            self._stored = StoredChunks(self._context, self._batch, self._condemned)
        return self._stored

    # ---- recipes ----------------------------------------------------------------------

    def recipe(
        self, kind: int, drafts: list[Draft], deliver: Callable[[Key], None], note: bytes | None = None
    ) -> None:  # fmt: skip
        """Write a recipe for these artifacts; ``deliver`` gets the key once it is known. ``note``: what a user attaches
        to it, as ``encode_note`` gives it."""
        if self._trial is not None:
            self._trial.finish()
        self._recipes.append(WaitingRecipe(kind, drafts, deliver, note))
        limit = recipes.INLINE_LIMIT if self._trial is None else INLINE_TRIAL
        for draft in drafts:
            self._recipe_bytes += min(draft.size, limit)
        if len(self._recipes) >= CHECKPOINT_RECIPES or self._recipe_bytes >= self._context.memory // WINDOW_SHARE:
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Put everything a recipe needs, then the recipes. What is stored already is left alone."""
        if self._pipeline is not None:
            self._pipeline.hash_pending()
        waiting, self._recipes, self._recipe_bytes = self._recipes, [], 0
        digest, algorithm = self._context.digest, self._context.algorithm
        finished = []
        for waits in waiting:
            drafts = waits.drafts
            literal = drafts[0].literal if waits.kind == recipes.ONE and not drafts[0].name else None
            if literal is not None:
                content = recipes.literal_content(algorithm, drafts[0].encoding, literal)
            else:
                content = recipes.encode_content(waits.kind, algorithm, [draft.artifact() for draft in drafts])
            digested = digest(content)
            key = key_of(digested)
            finished.append(new_finished((digested, recipe_path(key), content, drafts, literal, waits.note)))
            waits.deliver(key)
        exists = self._existing([recipe.path for recipe in finished])
        seen: set[bytes] = set()
        unneeded: set[int] = set()
        new = []
        for recipe, there in zip(finished, exists, strict=True):
            if recipe.key in seen or (
                there is not False
                and (
                    self._dedup().has_recipe(recipe.key, there)
                    if recipe.note is None
                    else self._annotated(recipe.key, recipe.path, recipe.note)
                )
            ):
                runs = [run for draft in recipe.drafts for run in draft.runs()]
                unneeded.update(map(id, runs))
                # What went through a window before has been counted there.
                self.written.duplicate += sum(len(run.view) for run in runs)
                self.written.duplicate += sum(len(draft.literal or b"") for draft in recipe.drafts)
                continue
            seen.add(recipe.key)
            if there is not False and recipe.note is None:
                recipe = recipe._replace(note=self._note_of(recipe.key, recipe.path))
            new.append(recipe)
        if self._pipeline is not None:
            self._pipeline.drop(unneeded)
            self._pipeline.flush()
        self._close_packs()
        encoded = self._all_encoded(new)
        if len(new) == 1:  # a small put passes one file less
            for path, data in encoded:
                self._batch.put(path, data)
        else:
            self._batch.put_many(encoded)
        self._recipe_keys += b"".join([recipe.key for recipe in new])

    def _annotated(self, key: bytes, path: str, note: bytes) -> bool:
        """As ``has_recipe``, after which the recipe has this note. Conflict when others keep replacing it.

        What is replaced is the version that was found to be whole and that no list names, and nothing else of it
        changes. So to collectors it is a recipe that is stored again and relies on packs that *find* has found
        (docs/protocol.md): one that looks sees it, and one that has listed the version before deletes that version
        alone. A repack or a repair replaces only what it has read, and keeps the packs that this one names.
        """
        backend, codec = self._context.backend, self._context.workers.thread.codec
        for _ in range(NOTE_ATTEMPTS):
            try:
                data, etag = backend.get_tagged(path)
            except NotFound:
                return False
            if not self._dedup().has_recipe(key, data):
                return False
            found = decode_read(backend, path, data, partial(recipes.decode, codec=codec, expected_key=key))
            try:
                about = with_note(found.about, note)
            except CorruptObject:
                return False
            if about == found.about:
                return True
            parts = recipes.encode(
                found.algorithm, found.content, about, found.packs, found.placements, [found.inline], codec, found.bases
            )
            try:
                backend.put_if(path, b"".join(self._counted(parts)), etag)
            except Conflict:
                continue
            return True
        raise Conflict("the note of a recipe keeps changing", key=path, backend=backend.url, hint="Try again")

    def _note_of(self, key: bytes, path: str) -> bytes | None:
        """The note of a stored recipe that cannot be relied on, and is stored anew: that its chunks are damaged, or
        condemned, is no reason to lose it."""
        codec = self._context.workers.thread.codec
        with suppress(NotFound, CorruptObject, Unsupported, InvalidNote):
            note = recipes.decode(self._context.backend.get(path), codec, key).described.note
            return None if note is None else encode_note(note)
        return None

    def _existing(self, paths: Sequence[str]) -> Sequence[bytes | MfstoreError | bool]:
        """For each recipe whether there is one, or what reading it gave."""
        backend = self._context.backend
        if not backend.capabilities.remote:
            return backend.exists_many(paths)
        # Asking whether it is there costs as much as asking for it.
        return [not isinstance(data, NotFound) and data for _, data in backend.get_many(paths)]

    def _close_packs(self) -> None:
        """Store the pack that is being filled, and what the index has to learn."""
        if self._packs is None:
            return
        self._packs.close()
        closed = self._packs.take_closed()
        if closed:
            key, data = self._context.chunk_index.make_fragment(closed)
            self._put(key, [data])
            self._fragments.append(WrittenFragment(key, data, closed))

    def _all_encoded(self, finished: Sequence[FinishedRecipe]) -> Iterator[tuple[str, Sequence[Buffer]]]:
        """Where each recipe is stored, with the parts of what is, made when it is asked for, and counted: should it not
        be stored, nobody is told the numbers."""
        nonces = os.urandom(NONCE * len(finished))  # of all at once: a call of the system costs as much as a recipe
        algorithm, written, record = self._context.algorithm, self.written, self._context.record
        by, end = None, b"}"
        if record:
            end = END_OF_TIME(time())
            # As ``provenance.task``, without a call of Python's on the way of a small put.
            by = getattr(getattr(sys.modules.get("metaflow.metaflow_current"), "current", None), "pathspec", None)
        raw = 0
        for number, (_, path, content, drafts, literal, note) in enumerate(finished):
            if len(drafts) == 1:
                about = remembered_description(record, drafts[0].type, tuple(drafts[0].modules), note, by) + end
            else:
                modules = tuple({module for draft in drafts for module in draft.modules})
                about = begin_description(record, tuple([draft.type for draft in drafts]), modules, note, by) + end
            data = None
            if literal is not None:
                nonce = nonces[number * NONCE : number * NONCE + NONCE]
                data = recipes.encode_literal(algorithm, content, about, nonce)
            if literal is None or data is None:
                yield path, self._counted(self._encoded(content, about, drafts))
                continue
            raw += len(literal)
            written.stored += len(data)
            written.objects += 1
            yield path, [data]
        if raw:
            sizes: dict[str, int] = written.codecs
            sizes["raw"] = sizes.get("raw", 0) + raw

    def _encoded(self, content: bytes, about: bytes, drafts: list[Draft]) -> Sequence[Buffer]:
        codec = self._context.workers.thread.codec
        located = self._stored.located if self._stored is not None else {}
        pieces = self._stored.pieces if self._stored is not None else NO_DELTAS
        inline = self._stored.inline if self._stored is not None else NO_INLINE
        layout = lay_out_recipe(drafts, located, codec, self._context.compress, self.written, pieces, inline)
        return recipes.encode(
            self._context.algorithm, content, about, layout.packs, layout.placements, layout.inline, codec,
            layout.bases,
        )  # fmt: skip

    def _put(self, key: str, parts: Sequence[Buffer]) -> None:
        self._batch.put(key, self._counted(parts))

    def _counted(self, parts: Sequence[Buffer]) -> Sequence[Buffer]:
        """The parts of an object that is being stored, counted."""
        self.written.stored += sum([len(part) if type(part) is bytes else memoryview(part).nbytes for part in parts])
        self.written.objects += 1
        return parts

    def commit(self) -> SessionStats:
        """Make everything durable and visible, in order; then other operations may use it."""
        self._checkpoint()
        committing = perf_counter()
        self._batch.commit()
        self.written.committing = perf_counter() - committing
        wrote = Names(self._recipe_keys, self._packs.names if self._packs is not None else bytearray())
        relied = self._stored.relied if self._stored is not None else Names()
        context = self._context
        context.guard.confirm(self._condemned, wrote, relied)
        for fragment in self._fragments:
            assert self._packs is not None
            remember(context, fragment, self._packs.sizes, self._packs.pieces)
        if self._fragments:
            context.chunk_index.compact()
        self.written.saves = 1
        self.written.saving = perf_counter() - self._begun
        return self.written
