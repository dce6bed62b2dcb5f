"""Recipes that could hold all their chunks, and build upon a base: whether little of them is new.

What lies whole in a recipe is found by no later version. So where a version is like the one that it builds upon, its
chunks go to packs, and versions after it are deltas against those.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from mfstore.errors import CorruptObject, NotFound, Unsupported
from mfstore.format.recipes import placed_chunks
from mfstore.records import NamedTuple
from mfstore.saving.counterparts import IN_RECIPE, Base, Counterparts
from mfstore.saving.deltas import Deltas, EncodedDelta
from mfstore.saving.drafts import Run, RunPart
from mfstore.saving.pipeline import plan_stores

if TYPE_CHECKING:
    from collections.abc import Callable

    from mfstore.format.fragments import Location
    from mfstore.format.packs import PackName
    from mfstore.format.recipes import Recipe
    from mfstore.saving.context import SaveContext
    from mfstore.saving.counterparts import BasePiece
    from mfstore.saving.dedup import StoredChunks
    from mfstore.saving.neighbours import Layout

BUILDS = 32 << 10
"""A recipe builds upon its base when that leaves out so many bytes of it. Each load takes one more request then, for
the base, which costs what keeping 17 KB for a month does; and the first version of many that is like the one before
takes two more to be stored in a pack, which cost what 430 KB do."""
LEAVES = 0.90
"""And an artifact of it, when that leaves at most this much of what it takes: as a delta must (``deltas.PAYS``)."""
READ_TOGETHER = 1 << 20
"""Bytes of chunks that are read with the first one that is compared: a round of requests less, for no more than as much
again as the new version could have (``ingest.INLINE_TRIAL``)."""


class ArtifactPlan(NamedTuple):
    """How an artifact of a small recipe is stored if it builds upon its base."""

    runs: Sequence[Run]
    deltas: Mapping[bytes, EncodedDelta]
    """Its deltas, by the ids of their chunks."""
    inline: bool
    """Whether the base has in its recipe what this would build upon, so that no delta can name it."""
    whole: int
    """Bytes that it takes in its recipe."""
    left: int
    """About so many it would take otherwise."""


class SmallVersions:
    """The small recipes of one save that build upon others. ``usable`` as of ``Base``."""

    def __init__(self, context: SaveContext, stored: StoredChunks, usable: Callable[[bytes], bool], limit: int) -> None:
        self._stored = stored
        self._base = Base(usable, inline=True)
        self._bytes = _BaseBytes(context, stored)
        self._deltas = Deltas(context, self._bytes, limit)
        self._deltas.build_on(Counterparts(self._base))

    def learn(self, name: str, recipe: Recipe) -> None:
        """The artifact of that name builds upon the one that this recipe has, if it has one."""
        self._base.learn(name, recipe)
        self._bytes.recipes.append(recipe)

    def plan(self, runs: Sequence[Run]) -> list[ArtifactPlan]:
        """The artifacts of a recipe that are not to lie in it, of its hashed runs, which all could. Nothing is relied
        on yet."""
        artifacts: dict[str, list[Run]] = {}
        for run in runs:
            if run.stream is not None and run.stream.artifact in self._base.artifacts:
                artifacts.setdefault(run.stream.artifact, []).append(run)
        parts = [RunPart(run, 0, len(run.ends)) for own in artifacts.values() for run in own]
        ids = {chunk_id for part in parts for chunk_id in part.run.ids}
        known: set[bytes] = {*self._stored.in_base(self._base, ids), *(ids & self._base.inline.keys())}
        deltas = self._stored.deltas_in_base(self._base, ids - known)
        stores, _ = plan_stores(parts, known | deltas.keys())
        self._bytes.read_with(self._counterparts(artifacts, ids))
        encoded = self._deltas.encode(parts, stores)
        found = {id(run): run for run, _, _ in stores}
        deltas |= {found[run].ids[number]: delta for (run, number), delta in encoded.items()}
        plans = [self._plan(own, known, deltas) for own in artifacts.values()]
        plans = [plan for plan in plans if plan.left <= LEAVES * plan.whole]
        return plans if sum(plan.whole - plan.left for plan in plans) >= BUILDS else []

    def _counterparts(self, artifacts: Iterable[str], without: Collection[bytes]) -> dict[bytes, Location]:
        """Where in packs lies what these artifacts may be built upon, but for chunks that they still have."""
        found: dict[bytes, Location] = {}
        for name in artifacts:
            body, segments = self._base.artifacts[name]
            for stream in (body, *segments):
                for chunk_id, stored in zip(stream.ids, stream.stored, strict=True):
                    if stored is None or chunk_id in without:
                        continue
                    found.update((piece.id, piece.at) for piece in stored.pieces if piece.id not in without)
                    if not stored.pieces and stored.at.pack is not IN_RECIPE:
                        found[chunk_id] = stored.at
        return found

    def _plan(
        self, runs: Sequence[Run], known: Collection[bytes], deltas: Mapping[bytes, EncodedDelta]
    ) -> ArtifactPlan:
        own = {chunk_id: deltas[chunk_id] for run in runs for chunk_id in run.ids if chunk_id in deltas}
        inline = any(piece.at.pack is IN_RECIPE for delta in own.values() for piece in delta.pieces)
        inline = inline or any(chunk_id in self._base.inline for run in runs for chunk_id in run.ids)
        whole = 0
        left = float(sum(len(delta.data) for delta in own.values()))
        for run in runs:
            size = sum(len(data) for data in {id(chunk.data): chunk.data for chunk in run.inline or ()}.values())
            whole += size
            left += size * _share(run, {*known, *own})
        return ArtifactPlan(runs, own, inline, whole, round(left))


class _BaseBytes:
    """What bases are read from: packs, and recipes at hand. Nothing is relied on."""

    def __init__(self, context: SaveContext, stored: StoredChunks) -> None:
        self.recipes: list[Recipe] = []
        self.located: Mapping[bytes, Location] = {}
        self.pieces: Mapping[bytes, Sequence[BasePiece]] = {}
        self._fetcher = context.fetcher
        self._stored = stored
        self._more: Mapping[bytes, Location] = {}
        self._held: dict[bytes, memoryview] = {}

    def read_with(self, more: Mapping[bytes, Location]) -> None:
        """What is read of packs the next time is read with these chunks, unless they are long."""
        self._held = {}
        self._more = more if sum(at.usize for at in more.values()) <= READ_TOGETHER else {}

    def contents(self, places: Mapping[bytes, Location]) -> dict[bytes, memoryview]:
        """As of ``StoredChunks``."""
        here = {chunk_id for chunk_id, at in places.items() if at.pack is IN_RECIPE}
        missing = {chunk_id: at for chunk_id, at in places.items() if chunk_id not in here | self._held.keys()}
        if missing:
            self._held |= self._stored.contents({**self._more, **missing})
            self._more = {}
        found = {chunk_id: self._held[chunk_id] for chunk_id in places if chunk_id in self._held}
        for recipe in self.recipes:
            wanted = [
                (number, chunk, memoryview(bytearray(chunk.usize)))
                for number, (chunk, _) in enumerate(placed_chunks(recipe)) if chunk.id in here - found.keys()
            ]  # fmt: skip
            with suppress(CorruptObject, NotFound, Unsupported):
                self._fetcher.fill(recipe, wanted, True)
                found.update((chunk.id, data) for _, chunk, data in wanted)
        return found

    def layouts(self, packs: Sequence[PackName]) -> dict[bytes, Layout]:
        """None: nothing is located, so there are no neighbours."""
        return {}

    def rely(self, packs: Collection[bytes]) -> None:
        """Not before it is decided that the recipe builds upon this."""


def _share(run: Run, without: Collection[bytes]) -> float:
    """How much of a run the chunks are that are not among these."""
    return sum(chunk.usize for chunk in run.chunks() if chunk.id not in without) / len(run.view)
