"""What repair will do about what verify found. Reads what it must, writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from mfstore._core.codec import DELTAS
from mfstore.errors import AccessDenied, BackendError, CorruptObject, MfstoreError
from mfstore.format import fragments
from mfstore.format.description import PATH as DESCRIPTION
from mfstore.format.packs import PackEntry, pack_path
from mfstore.format.recipes import Recipe, recipe_path
from mfstore.format.refs import ref_path
from mfstore.maintenance.report import RepairAction
from mfstore.maintenance.store.groups import by_place

if TYPE_CHECKING:
    from mfstore.maintenance.store.report import VerifyReport
    from mfstore.maintenance.store.verify import StorePass


class StoredChunk(NamedTuple):
    """A chunk in a pack."""

    pack: bytes
    entry: PackEntry


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What repair will do. Made without writing anything."""

    salvage: Mapping[bytes, Sequence[PackEntry]]
    """Damaged packs and the whole chunks in each."""
    copies: Mapping[bytes, StoredChunk]
    """For chunks and base chunks that are not whole where a recipe places them: where they are."""
    rewrite: Sequence[bytes]
    """Recipes that place chunks, or have base chunks, in what will move, or in what is gone and has a copy."""
    damaged_recipes: Sequence[bytes]
    lost: Sequence[bytes]
    """Recipes with chunks that are whole nowhere, or are deltas against what is whole nowhere."""
    rebuild: bool
    """Whether the index must be made anew."""
    fragments: Sequence[str]
    """The index fragments that the new index replaces."""
    missing: Sequence[bytes] = ()
    """Keys that refs name, or named before, and under which nothing is stored."""
    histories: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    """By ref: former values that name nothing that can be read whole, or will not after ``drop_lost``."""
    returns: Mapping[str, bytes | None] = field(default_factory=dict)
    """By ref whose present value cannot be read whole: its newest value that can; None: there is none."""
    describe: bool = False
    """Whether the store's description must be written anew."""

    def actions(self, drop_lost: bool, roll_back: bool = False) -> Iterator[RepairAction]:
        """The plan for people, in the order of doing."""
        if self.describe:
            yield RepairAction("describe", DESCRIPTION, "write it anew, by what packs and recipes say")
        for name, entries in self.salvage.items():
            if entries:
                yield RepairAction("salvage", pack_path(name.hex()), f"store its {len(entries)} whole chunks again")
        if self.rebuild:
            yield RepairAction("index", fragments.PREFIX, "rebuild it from the trailers of the packs")
        for key in self.rewritten_recipes(drop_lost):
            yield RepairAction("rewrite", recipe_path(key.hex()), "point it at whole chunks")
        for path in self._leaving(drop_lost):
            yield RepairAction("quarantine", path, "move it to quarantine/")
        for ref, keys in self.shortened(drop_lost, roll_back).items():
            yield RepairAction("rewrite", ref_path(ref), f"drop {len(keys)} lost values from its history")
        for ref, whole in self.returns.items() if roll_back else ():
            gone = "remove it: none of its values can be read whole"
            what = gone if whole is None else f"set it back to {whole.hex()}"
            yield RepairAction("rewrite", ref_path(ref), what)

    def shortened(self, drop_lost: bool, roll_back: bool) -> Mapping[str, Sequence[bytes]]:
        """The refs that lose former values only, and which."""
        going_back = self.returns if roll_back else {}
        return {ref: keys for ref, keys in self.histories.items() if drop_lost and ref not in going_back}

    def _leaving(self, drop_lost: bool) -> Iterator[str]:
        for key in self.leaving_recipes(drop_lost):
            yield recipe_path(key.hex())
        for name in self.salvage:
            yield pack_path(name.hex())
        yield from self.fragments

    def rewritten_recipes(self, drop_lost: bool) -> list[bytes]:
        """The recipes that are pointed elsewhere: those that go are left as they are, so that they can go."""
        leaving = set(self.leaving_recipes(drop_lost))
        return [key for key in self.rewrite if key not in leaving]

    def leaving_recipes(self, drop_lost: bool) -> list[bytes]:
        """The recipes that go to quarantine; with ``drop_lost`` also those whose data is nowhere."""
        return [*self.damaged_recipes, *(self.lost if drop_lost else ())]

    def lost_keys(self) -> set[str]:
        """Every key whose bytes are nowhere."""
        return {key.hex() for keys in (self.damaged_recipes, self.lost, self.missing) for key in keys}


NOTHING_TO_DO = RepairPlan({}, {}, (), (), (), False, ())


def plan_repair(found: StorePass, report: VerifyReport) -> RepairPlan:
    """What to do about what a pass found."""
    if report.clean:
        return NOTHING_TO_DO
    damaged = _damaged_packs(found)
    wanted: set[bytes] = set()
    for key, recipe, bad_inline in found.doubtful_recipes():
        if isinstance(recipe, Recipe):
            wanted |= found.broken_parts(key, recipe, bad_inline).ids()
    salvage, copies = _whole_chunks(found, wanted, damaged)
    rewrite, broken, lost = [], [], []
    for key, recipe, bad_inline in found.doubtful_recipes():
        if isinstance(recipe, CorruptObject):
            broken.append(key)
            continue
        parts = found.broken_parts(key, recipe, bad_inline)
        if parts.lost(lambda placed: placed.entry.id in copies):
            lost.append(key)
        if parts.ids() & copies.keys() or not damaged.isdisjoint(recipe.packs):
            rewrite.append(key)
    dangling, former = found.dangling(), found.dangling_former()
    unusable = {*broken, *lost}
    returns = {
        name: _newest_whole(found.refs.former[name], {*unusable, *former.get(name, ())})
        for name, key in sorted(found.refs.keys.items())
        if key in unusable or name in dangling
    }
    rebuild = bool(damaged) or any(finding.object.startswith(fragments.PREFIX) for finding in report.damage)
    outdated = sorted(found.index.listing) if rebuild else []
    histories = {
        name: [key for key in dict.fromkeys(keys) if key in unusable or key in former.get(name, ())]
        for name, keys in sorted(found.refs.former.items())
    }
    return RepairPlan(
        salvage, copies, rewrite, broken, lost, rebuild, outdated,
        missing=sorted({*dangling.values(), *(key for keys in former.values() for key in keys)}),
        histories={name: keys for name, keys in histories.items() if keys},
        returns=returns,
        describe=found.description_error is not None,
    )  # fmt: skip


def _newest_whole(former: Sequence[bytes], unusable: set[bytes]) -> bytes | None:
    """The last one, of a ref's former values, that can be read whole."""
    return next((key for key in reversed(former) if key not in unusable), None)


def _damaged_packs(found: StorePass) -> set[bytes]:
    """The packs with a damaged frame or chunk. Those with a damaged frame are read whole, if they were not yet."""
    states = found.packs.states
    # One that was not listed is no regular file (a link, a directory): it is told, and left to who put it there.
    doubtful = [name for name, state in states.items() if state.kind == "damaged" and name in found.inventory.packs]
    found.data.read([name for name in doubtful if not states[name].checked])
    damaged = {name for name in doubtful if states[name].kind != "unreadable"}
    return damaged | {name for name, state in states.items() if state.bad and name in found.inventory.packs}


def _whole_chunks(
    found: StorePass, wanted: set[bytes], damaged: Iterable[bytes]
) -> tuple[dict[bytes, list[PackEntry]], dict[bytes, StoredChunk]]:
    """The whole chunks of each damaged pack, in the order in which its trailer lists them, and a whole copy of each
    wanted chunk that has one; by the trailers of all packs, and for packs without a sound one by what others say is
    there. A delta is no copy: its base is known only to the recipes that place it."""
    states = found.packs.states
    salvage = {name: _whole_claims(found, name) for name in sorted(damaged)}
    candidates: dict[bytes, list[StoredChunk]] = {}
    for name, trailer in found.packs.all_trailers():
        entries = trailer_or_raise(trailer)
        if entries is None:
            entries = salvage.get(name, [])
        state = states[name]
        if name in salvage:
            salvage[name] = [entry for entry in entries if state.holds(entry)]
        for entry in entries:
            if entry.id in wanted and entry.codec not in DELTAS and state.holds(entry):
                candidates.setdefault(entry.id, []).append(StoredChunk(name, entry))
    found.data.read(sorted({name for stored in candidates.values() for name, _ in stored if not states[name].checked}))
    whole = {
        chunk_id: min((chunk for chunk in stored if states[chunk.pack].holds(chunk.entry)), default=None)
        for chunk_id, stored in candidates.items()
    }
    return salvage, {chunk_id: chunk for chunk_id, chunk in whole.items() if chunk is not None}


def _whole_claims(found: StorePass, name: bytes) -> list[PackEntry]:
    state = found.packs.states[name]
    whole = (entry for fp, entry in state.claimed.items() if fp not in state.bad)
    return [entry for together in by_place(whole) for entry in together]


def trailer_or_raise(trailer: list[PackEntry] | MfstoreError) -> list[PackEntry] | None:
    """The chunks of a trailer; None when it is damaged or gone. Raises when the storage did not give it: what it lists
    must be known."""
    if isinstance(trailer, (AccessDenied, BackendError)):
        raise trailer
    return None if isinstance(trailer, MfstoreError) else trailer
