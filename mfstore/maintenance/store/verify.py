"""Verify a store: by listing, by headers and trailers, or by every byte."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from mfstore.errors import CorruptObject, MfstoreError, NotAStore, NotFound
from mfstore.format.description import PATH as DESCRIPTION
from mfstore.format.description import decode as decode_description
from mfstore.format.digests import digest_function
from mfstore.format.packs import pack_path
from mfstore.format.progress import PATH as PROGRESS_PATH
from mfstore.format.recipes import recipe_path
from mfstore.format.refs import decode_ref, is_sealed
from mfstore.maintenance.report import PhaseProgress, untold
from mfstore.maintenance.store.checking import findings
from mfstore.maintenance.store.checking.broken_parts import BrokenParts, base_is_lost, broken_parts
from mfstore.maintenance.store.checking.chunk_check import ChunkCheck
from mfstore.maintenance.store.checking.delta_reads import DeltaReader
from mfstore.maintenance.store.checking.inventory import Inventory, take_inventory
from mfstore.maintenance.store.checking.known_packs import KnownPacks, pack_windows
from mfstore.maintenance.store.checking.listed_index import ListedIndex
from mfstore.maintenance.store.checking.pack_reads import PackReader
from mfstore.maintenance.store.checking.pack_state import PackState, PlacedChunk
from mfstore.maintenance.store.checking.recipe_reads import CheckedRecipe, RecipeReader
from mfstore.maintenance.store.checking.unread import Unread
from mfstore.maintenance.store.report import Finding, VerifyReport
from mfstore.maintenance.verification import ShardPass, VerifyOptions, shard_of
from mfstore.ref_objects import read_ref

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.format.recipes import Recipe
    from mfstore.handle import StoreAccess
    from mfstore.maintenance.report import PhaseCallback


@dataclass(slots=True)
class RefKeys:
    """What the refs name."""

    keys: dict[str, bytes] = field(default_factory=dict)
    """The value of each ref that could be read."""
    former: dict[str, list[bytes]] = field(default_factory=dict)
    """The values that each had before, which collections keep too."""
    errors: dict[str, MfstoreError] = field(default_factory=dict)
    """What is wrong with the damaged ones."""


def read_ref_keys(backend: Backend, refs: dict[str, str], unread: Unread) -> RefKeys:
    """The newest value of each ref, given where each is stored."""
    found = RefKeys()
    for (name, path), (_, data) in zip(refs.items(), backend.get_many([*refs.values()]), strict=True):
        try:
            if isinstance(data, MfstoreError):
                raise data
            stored = unread.decode(backend, path, data, partial(decode_ref, path=path))
            if not is_sealed(data):
                stored = read_ref(backend, path)[1]  # nothing in it tells a bad read
            if stored.entries:  # else it was removed
                found.keys[name] = bytes.fromhex(stored.entries[-1].key)
                found.former[name] = [bytes.fromhex(entry.key) for entry in stored.entries[:-1]]
        except NotFound:
            continue  # deleted since it was listed
        except CorruptObject as error:
            found.errors[name] = error
        except MfstoreError as error:
            unread.add(path, error)
    return found


def read_description(backend: Backend, unread: Unread) -> MfstoreError | None:
    """What is wrong with the store's description: nothing, or that it is gone, damaged or of something else."""
    try:
        unread.decode(backend, DESCRIPTION, backend.get(DESCRIPTION), partial(decode_description, url=backend.url))
    except (NotFound, CorruptObject, NotAStore) as error:
        return error
    except MfstoreError as error:
        unread.add(DESCRIPTION, error)
    return None


@dataclass(frozen=True, slots=True)
class StorePass:
    """One pass over a store, in parts that each know one kind of object; repair goes on with what they know."""

    backend: Backend
    options: VerifyOptions
    tell: PhaseCallback
    inventory: Inventory
    unread: Unread
    check: ChunkCheck
    shards: ShardPass
    packs: KnownPacks
    refs: RefKeys
    index: ListedIndex
    recipes: RecipeReader
    data: PackReader
    deltas: DeltaReader
    description_error: MfstoreError | None
    """What is wrong with the store's description."""

    def run(self) -> None:
        """Look at everything the level asks for."""
        self.shards.load()
        if self.options.level == "list":
            return
        self.packs.read_all(self.index, self.tell)
        self.recipes.match(self.inventory.recipes, self.packs.states)
        if self.options.level == "full":
            self._read_data()

    def _read_data(self) -> None:
        states = self.packs.states
        by_shard: dict[str, list[bytes]] = {shard: [] for shard in self.shards.shards()}
        for name in states:
            if shard_of(name) in by_shard:
                by_shard[shard_of(name)].append(name)
        # Those without a sound trailer are read in any case: their chunks are in doubt.
        broken = [name for name, state in states.items() if state.claimed and shard_of(name) not in by_shard]
        tell = self._counted(sum(states[name].size for names in by_shard.values() for name in names))
        with self.shards.noting():
            self.data.read(broken)
            for shard, names in by_shard.items():
                begun = time.time()
                for window in pack_windows(names):
                    if self.shards.expired():
                        return
                    self.data.read(window, tell)
                # After the packs: what is damaged there need not be tried.
                whole = self._decode_deltas(shard)
                whole = whole and not any(states[name].kind or states[name].bad for name in names)
                self.shards.verified(shard, whole, begun)

    def _decode_deltas(self, shard: str) -> bool:
        """Decode the deltas of the recipes of a shard, wherever they and their bases lie. Whether all are well."""
        keys = [key for key in self.recipes.with_deltas if shard_of(key) == shard]
        well = not keys or self.deltas.read(self.recipes.read(keys, "deltas"))
        self.recipes.suspects.update(self.deltas.undecodable)
        return well

    def _counted(self, total: int) -> Callable[[int], None]:
        """Tells of bytes read, from any thread."""
        lock = threading.Lock()
        done = 0

        def tell(size: int) -> None:
            nonlocal done
            with lock:
                done += size
                self.tell(PhaseProgress("data", done, total))

        return tell

    # ---- what it means ------------------------------------------------------------------

    def state_of(self, pack: bytes) -> PackState:
        """What is known of a pack, looked at now if it was not listed."""
        return self.packs.state_of(pack, self.index)

    def doubtful_recipes(self) -> Iterator[CheckedRecipe]:
        """The recipes that may not be readable whole, read again: what changed meanwhile is not damage."""
        everything = any(state.bad or state.kind for state in self.packs.states.values())
        keys = self.inventory.recipes if everything else self.recipes.suspects
        return self.recipes.read(keys, "looking for what is touched") if keys else iter(())

    def findings(self) -> tuple[Finding, ...]:
        """Everything that is not as it should be, data first."""
        if self.options.level == "list":
            found = list(findings.by_listing(self.inventory, self.index.fragments))
        else:
            found = [finding for finding in self._of_data() if finding.object not in self.unread]
        found += findings.of_description(self.description_error)
        found += findings.of_refs(self.refs.errors, self.inventory.refs, self.dangling(), self.dangling_former())
        unlisted = self.packs.unlisted(self.index)
        found += findings.of_index(self.index.errors, self.index.misplaced(self.packs.states), self._gone(), unlisted)
        found += findings.of_unread(self.unread.unreadable, self.unread.unknown)
        found += findings.of_unsteady(sorted(self.unread.unsteady))
        found += findings.of_foreign(self.inventory.foreign)
        return findings.with_refs(found, self.refs.keys)

    def _of_data(self) -> Iterator[Finding]:
        troubles = findings.DataTroubles()
        for key, recipe, bad_inline in self.doubtful_recipes():
            if isinstance(recipe, CorruptObject):
                troubles.damaged_recipe(key, recipe)
                continue
            if bad_inline:
                troubles.damaged_inline(key, len(bad_inline))
            broken = self.broken_parts(key, recipe, bad_inline)
            for placed in broken.placed:
                troubles.absent_chunk(key, placed.pack, self.state_of(placed.pack), not self._has_copy(placed))
            if broken.undecodable:
                lost = not all(map(self._has_copy, broken.undecodable))
                troubles.undecodable_deltas(key, len(broken.undecodable), lost)
            for one in broken.bases:
                lost = base_is_lost(one, self._has_copy)
                troubles.absent_base(key, one.base, self.state_of(one.base.pack), lost)
        troubles.damaged_packs(self.packs.states)
        return troubles.findings()

    def broken_parts(self, key: bytes, recipe: Recipe, bad_inline: frozenset[int]) -> BrokenParts:
        """What of a recipe is not whole where it says."""
        undecodable = self.deltas.undecodable.get(key, frozenset())
        return broken_parts(recipe, bad_inline, undecodable, lambda pack, entry: self.state_of(pack).holds(entry))

    def _has_copy(self, placed: PlacedChunk) -> bool:
        return self.packs.readable_elsewhere(placed, self.index)

    def dangling(self) -> dict[str, bytes]:
        """What refs name that is not stored."""
        gone = self._not_stored(self.refs.keys.values())
        return {name: key for name, key in self.refs.keys.items() if key in gone}

    def dangling_former(self) -> dict[str, list[bytes]]:
        """What refs named before, by their histories, and is not stored."""
        gone = self._not_stored(key for keys in self.refs.former.values() for key in keys)
        found = {name: [key for key in dict.fromkeys(keys) if key in gone] for name, keys in self.refs.former.items()}
        return {name: keys for name, keys in found.items() if keys}

    def _not_stored(self, keys: Iterable[bytes]) -> set[bytes]:
        """Those keys under which nothing is stored. Asked again: a ref may have been set since the recipes were
        listed."""
        doubtful = sorted(set(keys) - self.inventory.recipes.keys())
        answers = self.backend.exists_many([recipe_path(key.hex()) for key in doubtful])
        return {key for key, there in zip(doubtful, answers, strict=True) if not there}

    def _gone(self) -> list[str]:
        """The packs that the index names and that are not stored."""
        paths = sorted(pack_path(name.hex()) for name in self.index.packs() - self.packs.states.keys())
        return [path for path, there in zip(paths, self.backend.exists_many(paths), strict=True) if not there]

    def report(self, begun: float) -> VerifyReport:
        """What was looked at and found, by a pass that began at this time of the monotonic clock."""
        found = self.findings()
        times = [self.shards.times.get(shard_of(name)) for name in self.packs.states]
        known = [moment for moment in times if moment is not None]
        return VerifyReport(
            url=self.backend.url,
            level=self.options.level,
            findings=found,
            objects=dict(self.inventory.counts),
            stored=self.inventory.stored,
            checked=self.check.bytes,
            chunks=self.check.chunks,
            packs_checked=self.data.packs_checked,
            complete=self.shards.complete,
            oldest=min(known) if len(known) == len(times) and known else None,
            remembered=self.shards.remembered,
            seconds=time.monotonic() - begun,
            deltas=self.check.deltas,
        )


def verify_store(access: StoreAccess, options: VerifyOptions, progress: PhaseCallback | None = None) -> VerifyReport:
    """What ``Store.verify`` does. Never raises for damage: it is told in the report.

    Args:
        access: The store, which this program may read.
        options: How closely to look.
        progress: As of ``Store.verify``.

    Raises:
        AccessDenied: the store may not be listed, or 100 objects in it may not be read.
        BackendError: the storage failed, at a listing or at 100 objects.
    """
    return look_over(access, options, progress)[0]


def look_over(
    access: StoreAccess, options: VerifyOptions, progress: PhaseCallback | None = None, packs: Sequence[bytes] = ()
) -> tuple[VerifyReport, StorePass]:
    """A pass over a store: its report, and what repair needs to know besides. ``packs`` are read whole at any level."""
    begun = time.monotonic()
    found = _list_store(access, options, progress or untold)
    found.run()
    found.data.read(packs)
    return found.report(begun), found


def _list_store(access: StoreAccess, options: VerifyOptions, tell: PhaseCallback) -> StorePass:
    """List the store, and read its refs and its index: that much every level does."""
    backend, workers, digest = access.backend, access.workers, digest_function(access.algorithm)
    shards = ShardPass(backend, PROGRESS_PATH, options)
    unread, check = Unread(), ChunkCheck(workers, digest)
    inventory = take_inventory(backend, tell)
    packs = KnownPacks(backend, workers, digest, unread, inventory.packs)
    refs = read_ref_keys(backend, inventory.refs, unread)
    index = ListedIndex(backend, digest, unread, inventory.fragments)
    index.read()
    return StorePass(
        backend=backend, options=options, tell=tell, inventory=inventory, unread=unread, check=check, shards=shards,
        packs=packs, refs=refs, index=index,
        recipes=RecipeReader(backend, workers, check, unread, tell),
        data=PackReader(backend, workers, check, unread, packs),
        deltas=DeltaReader(
            backend, workers, check, unread, packs, lambda pack, entry: packs.state_of(pack, index).holds(entry)
        ),
        description_error=read_description(backend, unread),
    )  # fmt: skip
