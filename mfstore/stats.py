"""What the questions about a store and its keys are answered with."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from mfstore.format import recipes
from mfstore.format.digests import Key
from mfstore.format.recipes import BUNDLE, Recipe, placed_chunks
from mfstore.saving.codecs import label


@dataclass(frozen=True, slots=True)
class ArtifactStat:
    """What a key stands for, from its recipe alone: no data is read."""

    key: Key
    size: int
    """Bytes of the artifact's stream (of a bundle: of all of its artifacts)."""
    stored: int
    """Bytes its chunks and its recipe take, whether or not other artifacts share them."""
    chunks: int
    type: str
    """Python type, ``bytes`` for raw bytes, ``bundle`` for a bundle."""
    segments: int
    codecs: dict[str, int]
    """Bytes by codec."""
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


@dataclass(slots=True)
class SessionStats:
    """What one operation did, or all operations of a handle since it was opened."""

    artifacts: int = 0
    logical: int = 0
    """Bytes of the artifacts saved."""
    duplicate: int = 0
    """Of those, bytes already stored."""
    stored: int = 0
    """Bytes written."""
    objects: int = 0
    """Objects written."""
    codecs: dict[str, int] = field(default_factory=dict)
    """Newly stored artifact bytes by codec."""
    loaded: int = 0
    """Bytes of the artifacts loaded."""

    def add(self, other: SessionStats) -> None:
        """Count another operation."""
        for item in fields(self):
            mine, its = getattr(self, item.name), getattr(other, item.name)
            if isinstance(its, dict):
                for name, size in its.items():
                    mine[name] = mine.get(name, 0) + size
            else:
                setattr(self, item.name, mine + its)


def stat_of(key: Key, recipe: Recipe) -> ArtifactStat:
    """Sum up a recipe."""
    by_codec: dict[str, int] = {}
    for chunk, place in placed_chunks(recipe):
        name = label(place.codec, place.width)
        by_codec[name] = by_codec.get(name, 0) + chunk.usize
    in_packs = sum(place.csize for place in recipe.placements if place.pack != recipes.INLINE)
    bundle = recipe.kind == BUNDLE
    return ArtifactStat(
        key=key,
        size=sum(artifact.size for artifact in recipe.artifacts),
        stored=recipe.stored + in_packs,
        chunks=len(recipe.placements),
        type="bundle" if bundle else recipe.types[0],
        segments=sum(len(artifact.segments) for artifact in recipe.artifacts),
        codecs=by_codec,
        artifacts=dict(zip((a.name for a in recipe.artifacts), recipe.types, strict=True)) if bundle else {},
    )
