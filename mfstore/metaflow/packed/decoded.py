"""Recipes of bundles that were decoded a moment ago. Who asks for one artifact of a bundle after the other, or has read
ahead what many bundles say, would decode each again: of 500 artifacts that takes 4 ms.

What a recipe says may be moved by a collection. So it is known for a while, and who meets an error forgets all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfstore.format.digests import Key
from mfstore.format.recipes import Artifact, Recipe
from mfstore.host.elapsed import moment, since
from mfstore.loading.artifacts import first_chunks
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.handle import Handle


KEPT_BYTES = 8 << 20
"""Of all recipes that are kept."""
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


class DecodedBundles:
    """Those that were decoded last, up to ``KEPT_BYTES``. What two threads change at the same time may be lost."""

    def __init__(self) -> None:
        self._kept: dict[str, DecodedBundle] = {}
        self._size = 0

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
        made = DecodedBundle(handle, recipe, artifacts, first_chunks(recipe), moment())
        self._drop(bundle)
        if not self._kept:
            self._size = 0
        if recipe.stored <= KEPT_BYTES:
            self._kept[bundle] = made
            self._size += recipe.stored
            while self._size > KEPT_BYTES and self._kept:
                self._drop(next(iter(self._kept)))
        return made

    def _drop(self, bundle: str) -> None:
        dropped = self._kept.pop(bundle, None)
        if dropped is not None:
            self._size -= dropped.recipe.stored

    def forget(self) -> None:
        """Whatever is asked for next is read anew."""
        self._kept.clear()
        self._size = 0


DECODED = DecodedBundles()
"""Of this process."""
