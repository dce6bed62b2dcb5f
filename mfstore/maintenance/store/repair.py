"""Repair a store: store again what is whole, point recipes at it, rebuild the index, quarantine what is damaged.

The order is the writers' own: packs, index fragments, recipes; and only then do damaged objects go, which nothing needs
any more. A pack made of the whole chunks of a damaged one is named by its layout, so a repair that was stopped and runs
again makes the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mfstore._core.codec import NONE
from mfstore.errors import AccessDenied, BackendError, Conflict, CorruptObject, MfstoreError, NotFound
from mfstore.format import fragments, recipes
from mfstore.format.collection import seal_etag
from mfstore.format.digests import digest_function
from mfstore.format.packs import PAGE, PackBuilder, PackEntry, pack_path
from mfstore.format.recipes import INLINE, Placement, Recipe, recipe_path
from mfstore.maintenance.quarantine import quarantine
from mfstore.maintenance.report import Action, RepairReport, VerifyReport
from mfstore.maintenance.store.checks import Placed, entry_of, fingerprint, placed_in_packs, plan_spans
from mfstore.maintenance.store.verify import Verifier, verify
from mfstore.saving.guard import Names

if TYPE_CHECKING:
    from mfstore.handle import StoreAccess
    from mfstore.maintenance.report import Level, Progress
    from mfstore.saving.guard import Condemned

    Where = tuple[bytes, PackEntry]
    Moves = dict[tuple[bytes, int], Where]

PACK_LIMIT = 64 << 20
"""Whole chunks of a damaged pack are stored in packs of about this size, as in ordinary writes, where they must be held
in memory; where they can be mapped, in one, so that what could be mapped still can."""
FRAGMENT_LIMIT = 1 << 18
"""Entries of one index fragment of a rebuild: 15 MB."""


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What repair will do. Made without writing anything."""

    salvage: Mapping[bytes, Sequence[PackEntry]]
    """Damaged packs and the whole chunks in each."""
    copies: Mapping[bytes, Where]
    """For chunks that are not whole where a recipe places them: where they are."""
    rewrite: Sequence[bytes]
    """Recipes that place chunks in what will move, or in what is gone and has a copy."""
    damaged_recipes: Sequence[bytes]
    lost: Sequence[bytes]
    """Recipes with chunks that are whole nowhere."""
    rebuild: bool
    """Whether the index must be made anew."""
    fragments: Sequence[str]
    """The index fragments that the new index replaces."""

    def actions(self, drop_lost: bool) -> Iterator[Action]:
        """The plan for people, in the order of doing."""
        for name, entries in self.salvage.items():
            if entries:
                yield Action("salvage", pack_path(name.hex()), f"store its {len(entries)} whole chunks again")
        if self.rebuild:
            yield Action("index", fragments.PREFIX, "rebuild it from the trailers of the packs")
        for key in self.rewrite:
            yield Action("rewrite", recipe_path(key.hex()), "point it at whole chunks")
        for path in self._leaving(drop_lost):
            yield Action("quarantine", path, "move it to quarantine/")

    def _leaving(self, drop_lost: bool) -> Iterator[str]:
        for key in [*self.damaged_recipes, *(self.lost if drop_lost else ())]:
            yield recipe_path(key.hex())
        for name in self.salvage:
            yield pack_path(name.hex())
        yield from self.fragments


def repair(place: StoreAccess, level: Level, dry_run: bool, drop_lost: bool, tell: Progress | None) -> RepairReport:
    """What ``Store.repair`` does."""
    condemned = place.guard.read()
    before, verifier = verify(place, level, tell=tell)
    plan = make_plan(verifier, before)
    for error in verifier.unreadable.values():
        # Whole copies may lie in what was not read: to go on could cost them.
        error.hint = "Nothing was changed: repair needs to read everything"
        raise error
    actions = tuple(plan.actions(drop_lost))
    if dry_run or not actions:
        return RepairReport(place.backend.url, before, actions, None, tuple(key.hex() for key in plan.lost))
    written = _Repair(place, verifier, plan, drop_lost).run(condemned)
    after, _ = verify(place, "headers", packs=written, tell=tell)
    return RepairReport(place.backend.url, before, actions, after, after.unreadable)


def make_plan(verifier: Verifier, report: VerifyReport) -> RepairPlan:
    """What to do about what was found; reads what it must, writes nothing."""
    if report.clean:
        return RepairPlan({}, {}, (), (), (), False, ())
    doubtful = [name for name, state in verifier.packs.items() if state.kind == "damaged"]
    verifier.check_packs([name for name in doubtful if not verifier.packs[name].checked])
    damaged = {name for name in doubtful if verifier.packs[name].kind != "unreadable"}
    damaged |= {name for name, state in verifier.packs.items() if state.bad}
    wanted: set[bytes] = set()
    for _, recipe, bad_inline in verifier.doubtful_recipes():
        if isinstance(recipe, Recipe):
            wanted.update(placed.entry.id for placed in _not_whole(verifier, recipe, bad_inline))
    salvage: dict[bytes, list[PackEntry]] = {name: _whole_claims(verifier, name) for name in sorted(damaged)}
    copies = _find_copies(verifier, wanted, salvage)
    rewrite, broken, lost = [], [], []
    for key, recipe, bad_inline in verifier.doubtful_recipes():
        if isinstance(recipe, CorruptObject):
            broken.append(key)
            continue
        ids = {placed.entry.id for placed in _not_whole(verifier, recipe, bad_inline)}
        if ids - copies.keys():
            lost.append(key)
        if ids & copies.keys() or any(placed.pack in damaged for placed in placed_in_packs(recipe)):
            rewrite.append(key)
    rebuild = bool(damaged) or any(finding.object.startswith(fragments.PREFIX) for finding in report.damage)
    outdated = sorted(verifier.inventory.fragments) if rebuild else []
    return RepairPlan(salvage, copies, rewrite, broken, lost, rebuild, outdated)


def _whole_claims(verifier: Verifier, name: bytes) -> list[PackEntry]:
    """The whole chunks of a pack without a sound trailer; those of others are filled in by ``_find_copies``."""
    state = verifier.packs[name]
    return sorted(
        (entry for mark, entry in state.claimed.items() if mark not in state.bad), key=lambda entry: entry.offset
    )


def _not_whole(verifier: Verifier, recipe: Recipe, bad_inline: frozenset[int]) -> Iterator[Placed]:
    """The chunks of a recipe that are not whole where it places them."""
    for number, (chunk, place) in enumerate(recipes.placed_chunks(recipe)):
        if place.pack == INLINE:
            if number in bad_inline:
                yield Placed(number, b"", entry_of(chunk, place))
            continue
        placed = Placed(number, recipe.packs[place.pack], entry_of(chunk, place))
        if not verifier.state_of(placed.pack).holds(placed.entry):
            yield placed


def _find_copies(verifier: Verifier, wanted: set[bytes], salvage: dict[bytes, list[PackEntry]]) -> dict[bytes, Where]:
    """A whole copy of each wanted chunk that has one, from the trailers of all packs; fills in ``salvage`` too."""
    found: dict[bytes, list[Where]] = {}

    def got(name: bytes, entries: list[PackEntry] | MfstoreError) -> None:
        if isinstance(entries, (AccessDenied, BackendError)):
            raise entries
        if isinstance(entries, MfstoreError):
            entries = salvage.get(name, [])
        state = verifier.packs[name]
        if name in salvage:
            salvage[name] = sorted((entry for entry in entries if state.holds(entry)), key=lambda entry: entry.offset)
        for entry in entries:
            if entry.id in wanted and state.holds(entry):
                found.setdefault(entry.id, []).append((name, entry))

    verifier.scan_trailers(got)
    unchecked = {name for places in found.values() for name, _ in places if not verifier.packs[name].checked}
    verifier.check_packs(sorted(unchecked))
    copies: dict[bytes, Where] = {}
    for chunk_id, places in found.items():
        whole = sorted((name, entry) for name, entry in places if verifier.packs[name].holds(entry))
        if whole:
            copies[chunk_id] = whole[0]
    return copies


class _Repair:
    """Carries out a plan."""

    def __init__(self, place: StoreAccess, verifier: Verifier, plan: RepairPlan, drop_lost: bool) -> None:
        self._backend = place.backend
        self._workers = place.workers
        self._algorithm = place.algorithm
        self._guard = place.guard
        self._digest = digest_function(place.algorithm)
        self._verifier = verifier
        self._plan = plan
        self._drop_lost = drop_lost
        self._written: dict[bytes, list[PackEntry]] = {}

    def run(self, condemned: Condemned) -> list[bytes]:
        """Do everything; returns the names of the packs written."""
        moves: Moves = {}
        for name, entries in self._plan.salvage.items():
            self._store_again(name, entries, moves)
        fresh = self._rebuild_index() if self._plan.rebuild else set()
        for key in self._plan.rewrite:
            self._rewrite(key, moves)
        wrote = Names(bytearray(b"".join(self._plan.rewrite)), bytearray(b"".join(self._written)))
        relied = Names(packs=bytearray(b"".join(name for name, _ in self._plan.copies.values())))
        # Nothing goes before what stands in for it is out of a collector's reach.
        self._guard.confirm(condemned, wrote, relied)
        there = self._verifier.inventory
        for key in [*self._plan.damaged_recipes, *(self._plan.lost if self._drop_lost else ())]:
            quarantine(self._backend, recipe_path(key.hex()), there.recipes[key])
        for name in self._plan.salvage:
            if name not in self._written:
                quarantine(self._backend, pack_path(name.hex()), seal_etag(there.packs[name].etag))
        for path in self._plan.fragments:
            if path not in fresh:
                quarantine(self._backend, path, seal_etag(there.fragments[path].etag))
        return list(self._written)

    # ---- packs --------------------------------------------------------------------------

    def _store_again(self, name: bytes, entries: Sequence[PackEntry], moves: Moves) -> None:
        path = pack_path(name.hex())
        maps = self._backend.capabilities.map
        builder = PackBuilder(self._algorithm)
        origins: list[PackEntry] = []
        for span in plan_spans(entries, self._backend.capabilities.span):
            read = self._backend.map if maps else self._backend.get_range
            view = memoryview(read(path, span.start, span.end - span.start)).cast("B")
            for entry in span.entries:
                if builder.held >= PACK_LIMIT and not maps:
                    self._close(name, builder, origins, moves)
                    builder, origins = PackBuilder(self._algorithm), []
                # As it lay: what was aligned may be the first chunk of a run that can be mapped.
                if entry.codec == NONE and entry.offset % PAGE == 0:
                    builder.align()
                at = entry.offset - span.start
                builder.add(
                    view[at : at + entry.csize], [(entry.id, entry.csize, entry.usize)], entry.codec, entry.width, True
                )
                origins.append(entry)
        self._close(name, builder, origins, moves)

    def _close(self, name: bytes, builder: PackBuilder, origins: Sequence[PackEntry], moves: Moves) -> None:
        if not origins:
            return
        new, parts = builder.close(self._digest)
        if bytes.fromhex(new) == name:
            # Every chunk was whole and only the frame was damaged: the new pack takes the place of the old one.
            quarantine(self._backend, pack_path(new), None, replaced=True)
        self._backend.put(pack_path(new), parts)
        self._written[bytes.fromhex(new)] = list(builder.entries)
        for origin, entry in zip(origins, builder.entries, strict=True):
            moves[name, fingerprint(origin)] = bytes.fromhex(new), entry

    # ---- index --------------------------------------------------------------------------

    def _rebuild_index(self) -> set[str]:
        """Store fragments that list every sound pack; returns their keys."""
        gathered: list[tuple[bytes, Sequence[PackEntry]]] = [*self._written.items()]
        count = sum(len(entries) for _, entries in gathered)
        fresh: set[str] = set()

        def store() -> None:
            nonlocal count
            if gathered:
                data = fragments.encode_fragment(gathered, self._algorithm)
                key = fragments.PREFIX + self._digest(data).hex()
                self._backend.put(key, [data])
                fresh.add(key)
            gathered.clear()
            count = 0

        def got(name: bytes, entries: list[PackEntry] | MfstoreError) -> None:
            nonlocal count
            if isinstance(entries, (AccessDenied, BackendError)):
                raise entries  # an index without this pack would be worse than the one there is
            if isinstance(entries, MfstoreError) or name in self._plan.salvage:
                return
            gathered.append((name, entries))
            count += len(entries)
            if count >= FRAGMENT_LIMIT:
                store()

        self._verifier.scan_trailers(got)
        store()
        return fresh

    # ---- recipes ------------------------------------------------------------------------

    def _rewrite(self, key: bytes, moves: Moves) -> None:
        path = recipe_path(key.hex())
        try:
            data, etag = self._backend.get_tagged(path)
            recipe = recipes.decode(data, self._workers.codec, key)
        except NotFound:
            return  # collected meanwhile
        packs: dict[bytes, int] = {}
        inline: list[memoryview] = []
        inline_at = 0
        placements: list[Placement] = []
        for chunk, place in recipes.placed_chunks(recipe):
            where = self._resolve(recipe, chunk, place, moves)
            if where is None:
                inline.append(memoryview(recipe.inline)[place.offset : place.offset + place.csize])
                placements.append(place._replace(offset=inline_at))
                inline_at += place.csize
            else:
                number = packs.setdefault(where[0], len(packs))
                placements.append(Placement(number, where[1].offset, where[1].csize, where[1].codec, where[1].width))
        parts = recipes.encode(
            recipe.algorithm, recipe.content, recipe.types, list(packs), placements, inline, self._workers.codec
        )
        with suppress(Conflict):  # stored again meanwhile: that relies on nothing that is damaged
            self._backend.put_if(path, b"".join(parts), etag)

    def _resolve(self, recipe: Recipe, chunk: recipes.ChunkRef, place: Placement, moves: Moves) -> Where | None:
        """Where a chunk of a recipe lies now; None: in the recipe itself."""
        entry = entry_of(chunk, place)
        if place.pack == INLINE:
            here: Where | None = None
            whole = self._verifier.whole(entry, memoryview(recipe.inline)[place.offset : place.offset + place.csize])
        else:
            here = recipe.packs[place.pack], entry
            moved = moves.get((here[0], fingerprint(entry)))
            if moved is not None:
                return moved
            whole = self._verifier.state_of(here[0]).holds(entry)
        copy = None if whole else self._plan.copies.get(chunk.id)
        if copy is None:
            return here
        return moves.get((copy[0], fingerprint(copy[1])), copy)
