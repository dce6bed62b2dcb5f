"""Repair a store: store again what is whole, point recipes at it, rebuild the index, quarantine what is damaged.

The order is the writers' own: packs, index fragments, recipes; and only then do damaged objects go, which nothing needs
any more. A pack made of the whole chunks of a damaged one is named by its layout, so a repair that was stopped and runs
again makes the same one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from mfstore._core.codec import DELTAS, GROUP, NONE
from mfstore.backends.base import decode_read
from mfstore.errors import Conflict, NotFound
from mfstore.format import fragments, recipes
from mfstore.format.collection import seal_etag
from mfstore.format.digests import digest_function
from mfstore.format.packs import NO_PIECES, PAGE, PackBuilder, PackEntry, entry_of, fingerprint, pack_path, told_chunks
from mfstore.format.recipes import INLINE, BaseChunk, Placement, Recipe, recipe_path
from mfstore.format.refs import encode_ref, ref_path
from mfstore.maintenance.quarantine import quarantine
from mfstore.maintenance.report import PhaseProgress
from mfstore.maintenance.store.checking.pack_state import PlacedChunk, bases_in_packs, plan_spans
from mfstore.maintenance.store.checking.recipe_reads import bad_inline
from mfstore.maintenance.store.describing import write_description
from mfstore.maintenance.store.groups import by_place, move_group
from mfstore.maintenance.store.repair_plan import RepairPlan, StoredChunk, plan_repair, trailer_or_raise
from mfstore.maintenance.store.report import RepairReport
from mfstore.maintenance.store.setting_aside import set_aside
from mfstore.maintenance.store.verify import StorePass, look_over
from mfstore.maintenance.verification import VerifyOptions
from mfstore.ref_objects import read_ref, remove_ref
from mfstore.refs import SET_ATTEMPTS
from mfstore.saving.folding import settle
from mfstore.saving.guard import Names

if TYPE_CHECKING:
    from mfstore._core.codec import Codec
    from mfstore.backends.base import Backend
    from mfstore.format.digests import Digest
    from mfstore.format.packs import Pieces
    from mfstore.handle import StoreAccess
    from mfstore.maintenance.report import Level, PhaseCallback
    from mfstore.maintenance.store.checking.chunk_check import ChunkCheck
    from mfstore.saving.guard import Condemned

    Moves = Mapping[tuple[bytes, int], StoredChunk]
    """Where chunks are now, by the pack they were in and their fingerprint there."""

PACK_LIMIT = 64 << 20
"""Whole chunks of a damaged pack are stored in packs of about this size, as in ordinary writes, where they must be held
in memory; where they can be mapped, in one, so that what could be mapped still can."""
FRAGMENT_LIMIT = 1 << 18
"""Entries of one index fragment of a rebuild: 15 MB."""


@dataclass(frozen=True, slots=True)
class RepairOptions:
    """What to look for, and what to do about it."""

    level: Level = "full"
    """How closely to look for damage first."""
    dry_run: bool = False
    drop_lost: bool = False
    """Whether recipes whose chunks are nowhere go to quarantine too."""
    roll_back: bool = False
    """Whether refs whose present value is lost go back to their newest one that is whole."""

    def __post_init__(self) -> None:
        self.looking()

    def looking(self) -> VerifyOptions:
        """How to look for damage. InvalidKey for a level that is none."""
        return VerifyOptions(self.level)


def repair_store(access: StoreAccess, options: RepairOptions, progress: PhaseCallback | None = None) -> RepairReport:
    """What ``Store.repair`` does.

    Args:
        access: The store, in which this program may read, write and delete.
        options: What to look for, and what to do about it.
        progress: As of ``Store.repair``.

    Raises:
        AccessDenied: something may not be read (nothing was changed then) or not be written.
        BackendError: the storage failed. If it was at reading, nothing was changed.
        Conflict: garbage collection removed what this relied on: nothing was moved away. Do it again.
    """
    condemned = access.guard.read()
    before, found = look_over(access, options.looking(), progress)
    plan = plan_repair(found, before)
    for error in found.unread.unreadable.values():
        # Whole copies may lie in what was not read: to go on could cost them.
        error.hint = "Nothing was changed: repair needs to read everything"
        raise error
    url = access.backend.url
    actions = tuple(plan.actions(options.drop_lost, options.roll_back))
    if options.dry_run or not actions:
        return RepairReport(url, before, actions, None, tuple(sorted({*before.unreadable, *plan.lost_keys()})))
    if plan.describe:
        write_description(access.backend, access.description)
    written = _carry_out(access, found, plan, options, condemned)
    after, _ = look_over(access, VerifyOptions("headers"), progress, written)
    # What was moved away is not found missing afterwards, and is lost all the same.
    doubtful = sorted(plan.lost_keys() - set(after.unreadable))
    there = access.backend.exists_many([recipe_path(key) for key in doubtful])
    lost = {*after.unreadable, *(key for key, stored in zip(doubtful, there, strict=True) if not stored)}
    return RepairReport(url, before, actions, after, tuple(sorted(lost)))


def _carry_out(
    access: StoreAccess, found: StorePass, plan: RepairPlan, options: RepairOptions, condemned: Condemned
) -> list[bytes]:
    """Do everything; returns the names of the packs written."""
    backend, digest, drop_lost = access.backend, digest_function(access.algorithm), options.drop_lost
    salvage = PackSalvage(backend, access.algorithm, access.workers.thread.codec, digest, found.check)
    told: dict[bytes, Mapping[int, Pieces]] = {}
    for _ in found.packs.trailers(plan.salvage, told):
        pass
    for name, entries in plan.salvage.items():
        salvage.store_again(name, entries, told.get(name, NO_PIECES))
    fresh = _rebuild_index(access, found, plan, salvage.listed()) if plan.rebuild else set()
    rewriter = RecipeRewriter(access, found, plan.copies, salvage.moves)
    rewritten = plan.rewritten_recipes(drop_lost)
    for key in rewritten:
        rewriter.rewrite(key)
    wrote = Names(bytearray(b"".join(rewritten)), bytearray(b"".join(salvage.written)))
    relied = Names(packs=bytearray(b"".join(name for name, _ in plan.copies.values())))
    # Nothing goes before what stands in for it is out of a collector's reach.
    access.guard.confirm(condemned, wrote, relied)
    set_aside(
        backend, {key: found.inventory.recipes[key] for key in plan.leaving_recipes(drop_lost)},
        {name: seal_etag(found.inventory.packs[name].etag) for name in plan.salvage if name not in salvage.written},
        lambda done, total: found.tell(PhaseProgress("telling writers", done, total)),
    )  # fmt: skip
    for path in plan.fragments:
        if path not in fresh:
            quarantine(backend, path, seal_etag(found.index.listing[path].etag))
    if fresh:
        settle(backend, access.algorithm)
    for ref, keys in plan.shortened(drop_lost, options.roll_back).items():
        _drop_values(backend, ref, frozenset(keys))
    for ref in plan.returns if options.roll_back else ():
        lost = {found.refs.keys[ref], *plan.histories.get(ref, ())}
        _drop_values(backend, ref, frozenset(lost), roll_back=True)
    return list(salvage.written)


def _drop_values(backend: Backend, name: str, keys: frozenset[bytes], roll_back: bool = False) -> None:
    """Take these values out of a ref, but for its present one unless ``roll_back``; as it was it goes to quarantine.
    A ref of which nothing stays is removed."""
    path = ref_path(name)
    for _ in range(SET_ATTEMPTS):
        try:
            etag, stored = read_ref(backend, path)
            entries = stored.entries
            if not entries:
                return  # removed meanwhile, where that leaves an object
            kept = [
                entry
                for entry in entries
                if bytes.fromhex(entry.key) not in keys or (entry is entries[-1] and not roll_back)
            ]
            quarantine(backend, path, None, replaced=True)
            if kept:
                backend.put_if(path, encode_ref(kept), etag)
            else:
                remove_ref(backend, path, etag)
            return
        except NotFound:
            return  # removed meanwhile
        except Conflict:
            continue  # set meanwhile
    raise Conflict("the ref keeps changing", key=path, backend=backend.url, hint="Repair again")


class PackSalvage:
    """Stores the whole chunks of damaged packs again."""

    def __init__(self, backend: Backend, algorithm: int, codec: Codec, digest: Digest, check: ChunkCheck) -> None:
        self._backend = backend
        self._algorithm = algorithm
        self._codec = codec
        self._digest = digest
        self._check = check
        self.written: dict[bytes, list[PackEntry]] = {}
        """The packs written, with what is in them."""
        self._pieces: dict[bytes, Mapping[int, Pieces]] = {}
        self.moves: dict[tuple[bytes, int], StoredChunk] = {}
        """Where chunks are now, by the pack they were in and their fingerprint there."""

    def listed(self) -> list[tuple[bytes, list[PackEntry]]]:
        """What the index lists of the packs written."""
        return [(name, told_chunks(entries, self._pieces[name])) for name, entries in self.written.items()]

    def store_again(
        self, name: bytes, entries: Sequence[PackEntry], pieces: Mapping[int, Pieces] = NO_PIECES
    ) -> None:  # fmt: skip
        """Store these chunks of a pack in new ones, which list them in this order. ``pieces`` are those of its deltas,
        by where they lie."""
        path = pack_path(name.hex())
        maps = self._backend.capabilities.map
        builder = PackBuilder(self._algorithm)
        origins: list[PackEntry] = []
        listed = {entry: number for number, entry in enumerate(entries)}
        for span in plan_spans(entries, self._backend.capabilities.span):
            read = self._backend.map if maps else self._backend.get_range
            view = memoryview(read(path, span.start, span.end - span.start)).cast("B")
            for together in by_place(span.entries):
                first = together[0]
                if builder.held >= PACK_LIMIT and not maps:
                    self._close(name, builder, origins, listed)
                    builder, origins = PackBuilder(self._algorithm), []
                at = first.offset - span.start
                stored = self._whole(path, together, view[at : at + first.csize])
                if first.codec == GROUP:
                    move_group(builder, self._codec, stored, together)
                else:
                    # As it lay: what was aligned may be the first chunk of a run that can be mapped.
                    if first.codec == NONE and first.offset % PAGE == 0:
                        builder.align()
                    if first.codec in DELTAS and first.offset in pieces:
                        builder.pieces[builder.length] = pieces[first.offset]
                    builder.add(stored, [(first.id, first.csize, first.usize)], first.codec, first.width, True)
                origins += together
        self._close(name, builder, origins, listed)

    def _whole(self, path: str, together: Sequence[PackEntry], stored: memoryview) -> memoryview:
        """The bytes of chunks that lie together and were found whole, if they were read so this time too: what stands
        in for a damaged pack must not be made of a bad read."""
        first = together[0]
        if self._check.broken(together, stored):
            stored = memoryview(self._backend.read_again(path, first.offset, first.csize))
            if self._check.broken(together, stored):
                raise Conflict(
                    "a chunk that was whole is damaged now", key=path, backend=self._backend.url, offset=first.offset,
                    hint="Nothing was moved away. Look at the machine's memory, cables and controllers; repair again",
                )  # fmt: skip
        return stored

    def _close(
        self, name: bytes, builder: PackBuilder, origins: Sequence[PackEntry], listed: Mapping[PackEntry, int]
    ) -> None:
        if not origins:
            return
        moved = sorted(zip(origins, builder.entries, strict=True), key=lambda move: listed[move[0]])
        builder.entries = [entry for _, entry in moved]
        new, parts = builder.close(self._digest)
        if bytes.fromhex(new) == name:
            # Every chunk was whole and only the frame was damaged: the new pack takes the place of the old one.
            quarantine(self._backend, pack_path(new), None, replaced=True)
        self._backend.put(pack_path(new), parts)
        self.written[bytes.fromhex(new)] = builder.entries
        self._pieces[bytes.fromhex(new)] = builder.pieces
        for origin, entry in moved:
            self.moves[name, fingerprint(origin)] = StoredChunk(bytes.fromhex(new), entry)


def _rebuild_index(
    access: StoreAccess, found: StorePass, plan: RepairPlan, written: Iterable[tuple[bytes, Sequence[PackEntry]]]
) -> set[str]:
    """Store fragments that list every sound pack; returns their keys."""
    digest = digest_function(access.algorithm)
    gathered: list[tuple[bytes, Sequence[PackEntry]]] = [*written]
    count = sum(len(entries) for _, entries in gathered)
    fresh: set[str] = set()

    def store() -> None:
        if gathered:
            data = fragments.encode_fragment(gathered, access.algorithm, True)
            key = fragments.fragment_key(digest(data), time.time())
            access.backend.put(key, [data])
            fresh.add(key)

    for name, trailer in found.packs.told_chunks():
        entries = trailer_or_raise(trailer)  # an index without this pack would be worse than the one there is
        if entries is None or name in plan.salvage:
            continue
        gathered.append((name, entries))
        count += len(entries)
        if count >= FRAGMENT_LIMIT:
            store()
            gathered, count = [], 0
    store()
    return fresh


class ResolvedChunk(NamedTuple):
    """Where a chunk is."""

    stored: StoredChunk
    whole: bool
    """Whether it can be read there."""


class RepointedTables(NamedTuple):
    """What is new in a recipe that is pointed elsewhere."""

    packs: list[bytes]
    placements: list[Placement]
    bases: list[BaseChunk]
    inline: list[memoryview]


class RecipeRewriter:
    """Points recipes at whole chunks."""

    def __init__(
        self, access: StoreAccess, found: StorePass, copies: Mapping[bytes, StoredChunk], moves: Moves
    ) -> None:
        self._backend = access.backend
        self._workers = access.workers
        self._found = found
        self._copies = copies
        self._moves = moves

    def rewrite(self, key: bytes) -> None:
        """Replace a recipe by one of the same key, unless somebody stores it again meanwhile."""
        path = recipe_path(key.hex())
        try:
            data, etag = self._backend.get_tagged(path)
            decode = partial(recipes.decode, codec=self._workers.thread.codec, expected_key=key)
            recipe = decode_read(self._backend, path, data, decode)
            bad = bad_inline(self._found.check, recipe)
            if bad:
                recipe = decode(self._backend.read_again(path))
                bad = bad_inline(self._found.check, recipe)
        except NotFound:
            return  # collected meanwhile
        new = self.repointed(recipe, frozenset(bad) | self._found.deltas.undecodable.get(key, frozenset()))
        parts = recipes.encode(
            recipe.algorithm, recipe.content, recipe.about, new.packs, new.placements, new.inline,
            self._workers.thread.codec, new.bases,
        )  # fmt: skip
        with suppress(Conflict):  # stored again meanwhile: that relies on nothing that is damaged
            self._backend.put_if(path, b"".join(parts), etag)

    def repointed(self, recipe: Recipe, bad: frozenset[int]) -> RepointedTables:
        """Where everything of a recipe lies now. ``bad``: numbers of chunks that are not whole in it, or that their
        deltas do not give.

        A delta stays one, wherever it has moved, as long as its base can be read; else another copy of the chunk takes
        its place. What nothing can be done about is left as it was.
        """
        packs: dict[bytes, int] = {}
        here = {base.number: self.resolve_base(base) for base in bases_in_packs(recipe)}
        bases: dict[int, int] = {}
        inline: list[memoryview] = []
        inline_at = 0
        moved_inline: dict[tuple[int, int], int] = {}
        placements: list[Placement] = []
        for number, (chunk, placement) in enumerate(recipes.placed_chunks(recipe)):
            baseless = any(not here[piece.chunk].whole for piece in placement.pieces)
            stored = self.resolve(recipe, chunk, placement, number in bad or baseless)
            pieces = () if stored is not None and stored.entry.codec not in DELTAS else placement.pieces
            pieces = tuple(piece._replace(chunk=bases.setdefault(piece.chunk, len(bases))) for piece in pieces)
            if stored is None:
                place = placement.offset, placement.csize
                if place not in moved_inline:  # equal chunks may share a place, and those of a group do
                    moved_inline[place] = inline_at
                    inline.append(memoryview(recipe.inline)[placement.offset : placement.offset + placement.csize])
                    inline_at += placement.csize
                placements.append(placement._replace(offset=moved_inline[place], pieces=pieces))
            else:
                pack = packs.setdefault(stored.pack, len(packs))
                entry = stored.entry
                placements.append(Placement(pack, entry.offset, entry.csize, entry.codec, entry.width, pieces))
        table = []
        for number in bases:
            name, at = here[number].stored
            where = packs.setdefault(name, len(packs))
            table.append(BaseChunk(at.id, where, at.offset, at.csize, at.usize, at.codec, at.width))
        return RepointedTables(list(packs), placements, table, inline)

    def resolve(self, recipe: Recipe, chunk: recipes.ChunkRef, placement: Placement, bad: bool) -> StoredChunk | None:
        """Where a chunk of a recipe lies now; None: in the recipe itself. ``bad``: it lies there and is not whole, or
        is a delta that does not give it."""
        entry = entry_of(chunk, placement)
        if placement.pack == INLINE:
            return self._copy_of(chunk.id) if bad else None
        here = self.resolve_stored(StoredChunk(recipe.packs[placement.pack], entry))
        return (self._copy_of(chunk.id) or here.stored) if bad else here.stored

    def resolve_base(self, base: PlacedChunk) -> ResolvedChunk:
        """Where a base chunk lies now."""
        return self.resolve_stored(StoredChunk(base.pack, base.entry))

    def resolve_stored(self, stored: StoredChunk) -> ResolvedChunk:
        """Where a chunk is now that lay there."""
        moved = self._moves.get((stored.pack, fingerprint(stored.entry)))
        if moved is not None:
            return ResolvedChunk(moved, True)
        if self._found.state_of(stored.pack).holds(stored.entry):
            return ResolvedChunk(stored, True)
        copy = self._copy_of(stored.entry.id)
        return ResolvedChunk(stored, False) if copy is None else ResolvedChunk(copy, True)

    def _copy_of(self, chunk_id: bytes) -> StoredChunk | None:
        """Where another whole copy of a chunk is now, if there is one."""
        copy = self._copies.get(chunk_id)
        return None if copy is None else self._moves.get((copy.pack, fingerprint(copy.entry)), copy)
