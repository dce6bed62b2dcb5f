"""What the questions about a store and its keys are answered with."""

from __future__ import annotations

from mfstore.format import recipes
from mfstore.format.digests import Key
from mfstore.format.recipes import BUNDLE, Recipe, placed_chunks
from mfstore.records import dataclass
from mfstore.saving.codecs import LABELS
from mfstore.saving.context import SessionStats as SessionStats


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
    return ArtifactStat(
        key=key,
        size=sum(artifact.size for artifact in recipe.artifacts),
        stored=recipe.stored + sum(placed.values()),
        bases=sum(csize for place, csize in bases.items() if place not in placed),
        chunks=len(recipe.placements),
        type="bundle" if bundle else recipe.types[0],
        segments=sum(len(artifact.segments) for artifact in recipe.artifacts),
        codecs=by_codec,
        artifacts=dict(zip((a.name for a in recipe.artifacts), recipe.types, strict=True)) if bundle else {},
    )
