"""What the questions about a store and its keys are answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mfstore.display.shown import Shown
from mfstore.format import recipes
from mfstore.format.about import Made
from mfstore.format.digests import Key
from mfstore.format.recipes import BUNDLE, Recipe, placed_chunks
from mfstore.format.refs import is_ref
from mfstore.records import dataclass, field
from mfstore.saving.codecs import LABELS
from mfstore.saving.context import SessionStats as SessionStats

SHOWN = 20
"""Artifacts of a bundle that a notebook lists."""

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.display.cards import Card


@dataclass(frozen=True, slots=True, repr=False)
class ArtifactStat(Shown):
    """What a key stands for, from its recipe alone: no data is read."""

    key: Key
    size: int
    """Bytes of the artifact's stream (of a bundle: of all of its artifacts)."""
    stored: int
    """Bytes its chunks and its recipe take, whether or not other artifacts share them."""
    bases: int
    """Bytes of other chunks that are read with it, because chunks are stored as deltas against them."""
    chunks: int
    type: str
    """Python type, ``bytes`` for raw bytes, ``bundle`` for a bundle."""
    segments: int
    codecs: dict[str, int]
    """Bytes by codec; ``delta`` and ``difference`` are those stored as deltas, ``group`` those that several chunks
    together were encoded with."""
    artifacts: dict[str, str]
    """Of a bundle: the type of each artifact by name."""
    note: dict[str, Any] | None = None
    """What was attached with ``note=``; of a key that was stored again with another note, that one."""
    created: float | None = None
    """When it was stored first, in seconds since the epoch on the clock of who did. This and what follows is empty
    where nothing was recorded: of what mfstore 0.1 stored, and under ``record=False``."""
    creator: str = ""
    """Who: ``user@host``, or the pathspec of a task of Metaflow."""
    python: str = ""
    """Version of the Python that stored it."""
    mfstore: str = ""
    """Version of the mfstore that did."""
    libraries: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries whose classes or functions are inside, by top-level module."""

    def _card(self) -> Card:
        from mfstore.display.amounts import count, size
        from mfstore.display.cards import Card, Cell, Grid, age_cell, code_cell
        from mfstore.display.words import note_text

        facts: list[tuple[str, Cell | str]] = []
        if not self.artifacts:
            facts.append(("type", code_cell(self.type)))
        stored = f"{size(self.size)}, stored in {size(self.stored)}"
        if self.bases:
            stored += f"; {size(self.bases)} of other chunks are read with it"
        facts.append(("size", Cell(stored, f"{count(self.size, 'byte')}, stored in {self.stored:,}", "number")))
        if self.codecs:
            codecs = ", ".join(f"{name} {size(taken)}" for name, taken in self.codecs.items())
            facts.append(("chunks", f"{self.chunks:,}: {codecs}"))
        if self.created is not None:
            facts.append(("created", age_cell(self.created)))
        if self.creator:
            facts.append(("by", code_cell(self.creator)))
        versions = {"Python": self.python, "mfstore": self.mfstore, **self.libraries}
        told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        if told:
            facts.append(("with", told))
        if self.note is not None:
            facts.append(("note", Cell(note_text(self.note), look="code")))
        rows = tuple((code_cell(name), code_cell(kind)) for name, kind in [*self.artifacts.items()][:SHOWN])
        more = len(self.artifacts) - len(rows)
        grids = (Grid(("artifact", "type"), rows, more=more),) if rows else ()
        return Card("bundle" if self.artifacts else "artifact", self.key, tuple(facts), grids)


@dataclass(frozen=True, slots=True, repr=False)
class StoreStats(Shown):
    """What a store holds. Sizes in bytes."""

    url: str
    recipes: int
    packs: int
    index_fragments: int
    refs: int
    stored: int
    by_kind: dict[str, int]
    """Stored bytes of recipes, packs, index fragments and refs."""
    session: SessionStats

    def _card(self) -> Card:
        from mfstore.display.amounts import size
        from mfstore.display.cards import Card, Cell, Grid

        counts = {"recipes": self.recipes, "packs": self.packs, "index": self.index_fragments, "refs": self.refs}
        rows: list[tuple[Cell | str, ...]] = [
            (kind, Cell(f"{number:,}", look="number"), Cell(size(self.by_kind.get(kind, 0)), look="number"))
            for kind, number in counts.items()
        ]
        total = Cell(f"{sum(counts.values()):,}", look="number")
        rows.append(("in all", total, Cell(size(self.stored), f"{self.stored:,} bytes", "number")))
        grid = Grid(("", "objects", "size"), tuple(rows), (1, 2))
        return Card("store", self.url, self.session._card().facts, (grid,))


def store_stats(backend: Backend, session: SessionStats) -> StoreStats:
    """What is stored there, by listing it."""
    counts = dict.fromkeys(("recipes", "packs", "index", "refs"), 0)
    sizes = dict.fromkeys(counts, 0)
    for kind in counts:
        for info in backend.list(kind + "/"):
            counts[kind] += kind != "refs" or is_ref(info.size)
            sizes[kind] += info.size
    return StoreStats(
        url=backend.url, recipes=counts["recipes"], packs=counts["packs"], index_fragments=counts["index"],
        refs=counts["refs"], stored=sum(sizes.values()), by_kind=sizes, session=session,
    )  # fmt: skip


def stat_of(key: Key, recipe: Recipe) -> ArtifactStat:
    """Sum up a recipe."""
    by_codec: dict[str, int] = {}
    for chunk, placement in placed_chunks(recipe):
        name = LABELS[placement.codec, bool(placement.width)]
        by_codec[name] = by_codec.get(name, 0) + chunk.usize
    # Chunks of a group lie in one place, and so do equal ones.
    placed = {(at.pack, at.offset): at.csize for at in recipe.placements if at.pack != recipes.INLINE}
    bases = {(base.pack, base.offset): base.csize for base in recipe.bases}
    bundle = recipe.kind == BUNDLE
    about = recipe.described
    made = about.made or Made("", "", "", {}, 0.0)
    return ArtifactStat(
        key=key,
        size=sum(artifact.size for artifact in recipe.artifacts),
        stored=recipe.stored + sum(placed.values()),
        bases=sum(csize for place, csize in bases.items() if place not in placed),
        chunks=len(recipe.placements),
        type="bundle" if bundle else about.types[0],
        segments=sum(len(artifact.segments) for artifact in recipe.artifacts),
        codecs=by_codec,
        artifacts=dict(zip((a.name for a in recipe.artifacts), about.types, strict=True)) if bundle else {},
        note=about.note,
        created=made.time or None,
        creator=made.by,
        python=made.python,
        mfstore=made.mfstore,
        libraries=dict(made.libraries),
    )
