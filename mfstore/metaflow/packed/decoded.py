"""Recipes of bundles that were decoded a moment ago. Who asks for one artifact of a bundle after the other, or has read
ahead what many bundles say, would decode each again: of 500 artifacts that takes 4 ms.

What a recipe says may be moved by a collection. So it is known for a while, and who meets an error forgets all."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from mfstore.format.digests import Key
from mfstore.format.recipes import Artifact, Recipe
from mfstore.host.elapsed import moment, since
from mfstore.host.forks import anew_in_children
from mfstore.loading.artifacts import first_chunks
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.handle import Handle


KEPT_BYTES = 32 << 20
"""Of memory, for all recipes that are kept: as stored, those of small artifacts take a fiftieth of it."""
RECIPE_BYTES, ARTIFACT_BYTES, CHUNK_BYTES = 1500, 450, 300
"""What the objects take that a recipe is made of, with what is kept beside it, about."""
KEPT_SECONDS = 300.0
"""For how long: collections move chunks, and rewrite the recipes that name them."""


class DecodedBundle(NamedTuple):
    """A recipe, what lies where in it, whose it is, and when it was read."""

    handle: Handle
    recipe: Recipe
    artifacts: dict[str, Artifact]
    first: dict[str, int]
    """As ``first_chunks``."""
    then: tuple[float, float]
    size: int
    """Bytes of memory that it takes, about."""


class DecodedBundles:
    """Those that were decoded last, up to ``KEPT_BYTES``, of all threads."""

    def __init__(self) -> None:
        self._kept: dict[str, DecodedBundle] = {}
        self._size = 0
        self.forked()
        anew_in_children(self)

    def forked(self) -> None:
        """A lock anew, and nothing kept: a thread may have been changing it."""
        self._lock = Lock()
        self._kept, self._size = {}, 0

    def find(self, handle: Handle, bundle: str) -> DecodedBundle | None:
        """What is known of a bundle of this store."""
        found = self._kept.get(bundle)
        return found if found is not None and found.handle is handle and since(found.then) < KEPT_SECONDS else None

    def get(self, handle: Handle, bundle: str) -> DecodedBundle:
        """What is known of it, or is read now. Errors as of ``Handle.recipe``."""
        return self.find(handle, bundle) or self.add(handle, bundle, handle.recipe(Key(bundle)))

    def add(self, handle: Handle, bundle: str, recipe: Recipe) -> DecodedBundle:
        """Keep what was decoded now; the oldest go."""
        artifacts = {artifact.name: artifact for artifact in recipe.artifacts}
        made = DecodedBundle(handle, recipe, artifacts, first_chunks(recipe), moment(), _memory(recipe))
        with self._lock:
            self._drop(bundle)
            if made.size <= KEPT_BYTES:
                self._kept[bundle] = made
                self._size += made.size
                while self._size > KEPT_BYTES:
                    self._drop(next(iter(self._kept)))
        return made

    def _drop(self, bundle: str) -> None:
        dropped = self._kept.pop(bundle, None)
        if dropped is not None:
            self._size -= dropped.size

    def forget(self) -> None:
        """Whatever is asked for next is read anew."""
        with self._lock:
            self._kept.clear()
            self._size = 0


def _memory(recipe: Recipe) -> int:
    small = sum(len(artifact.literal or b"") for artifact in recipe.artifacts)
    chunks = sum(len(artifact.chunks) for artifact in recipe.artifacts)
    objects = RECIPE_BYTES + ARTIFACT_BYTES * len(recipe.artifacts) + CHUNK_BYTES * chunks
    return recipe.stored + small + objects


DECODED = DecodedBundles()
"""Of this process."""
