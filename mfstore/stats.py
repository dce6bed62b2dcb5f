"""What the questions about a store and its keys are answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mfstore.format import recipes
from mfstore.format.about import Made
from mfstore.format.digests import Key
from mfstore.format.recipes import BUNDLE, Recipe, placed_chunks
from mfstore.format.refs import is_ref
from mfstore.records import dataclass, field
from mfstore.saving.codecs import LABELS
from mfstore.saving.context import SessionStats as SessionStats

if TYPE_CHECKING:
    from mfstore.backends.base import Backend


@dataclass(frozen=True, slots=True)
class ArtifactStat:
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


@dataclass(frozen=True, slots=True)
class StoreStats:
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
