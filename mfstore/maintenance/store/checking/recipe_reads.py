"""Recipes read whole, with the chunks that lie in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from mfstore.errors import CorruptObject, MfstoreError, NotFound
from mfstore.format.packs import entry_of
from mfstore.format.recipes import INLINE, ChunkRef, Placement, Recipe, decode, placed_chunks, recipe_path
from mfstore.maintenance.report import PhaseProgress
from mfstore.maintenance.store.checking.pack_state import match_placements
from mfstore.maintenance.store.groups import by_place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mfstore._core.codec import Codec
    from mfstore.backends.base import Backend
    from mfstore.format.packs import PackEntry
    from mfstore.host.workers import Workers
    from mfstore.maintenance.report import PhaseCallback
    from mfstore.maintenance.store.checking.chunk_check import ChunkCheck
    from mfstore.maintenance.store.checking.pack_state import PackState
    from mfstore.maintenance.store.checking.unread import Unread

RECIPES_TOGETHER = 256
"""Recipes looked at together: bounds what is held of them."""


class CheckedRecipe(NamedTuple):
    """A recipe that was read, or what is wrong with it."""

    key: bytes
    recipe: Recipe | CorruptObject
    bad_inline: frozenset[int]
    """Numbers of the chunks in it that are not whole."""


class RecipeReader:
    """Reads recipes, and remembers which may not be readable whole."""

    def __init__(
        self, backend: Backend, workers: Workers, check: ChunkCheck, unread: Unread, tell: PhaseCallback
    ) -> None:
        self._backend = backend
        self._workers = workers
        self._check = check
        self._unread = unread
        self._tell = tell
        self.suspects: set[bytes] = set()
        """Recipes that may not be readable whole."""
        self.with_deltas: set[bytes] = set()
        """Recipes that place deltas."""

    def match(self, keys: Iterable[bytes], packs: Mapping[bytes, PackState]) -> None:
        """Compare what these recipes say with what is known of the packs; and note there what recipes say."""
        for key, recipe, bad_inline in self.read(keys, "recipes"):
            if isinstance(recipe, CorruptObject) or not match_placements(recipe, packs) or bad_inline:
                self.suspects.add(key)
            if isinstance(recipe, Recipe) and recipe.bases:
                self.with_deltas.add(key)

    def read(self, keys: Iterable[bytes], phase: str) -> Iterator[CheckedRecipe]:
        """Each of these recipes that is still stored."""
        names = sorted(keys)
        for done in range(0, len(names), RECIPES_TOGETHER):
            self._tell(PhaseProgress(phase, done, len(names)))
            window = names[done : done + RECIPES_TOGETHER]
            found = [data for _, data in self._backend.get_many([recipe_path(name.hex()) for name in window])]
            total = sum(len(data) for data in found if isinstance(data, bytes))
            decoded = self._workers.map(self._decode, list(zip(window, found, strict=True)), total)
            for name, data, (recipe, bad) in zip(window, found, decoded, strict=True):
                if isinstance(recipe, (Recipe, CorruptObject)):
                    yield CheckedRecipe(name, recipe, bad)
                elif not isinstance(data, NotFound):  # else it was collected since it was listed
                    self._unread.add(recipe_path(name.hex()), recipe)
        self._tell(PhaseProgress(phase, len(names), len(names)))

    def _decode(self, task: tuple[bytes, bytes | MfstoreError]) -> tuple[Recipe | MfstoreError, frozenset[int]]:
        name, data = task
        if isinstance(data, MfstoreError):
            return data, frozenset()
        path = recipe_path(name.hex())
        decode_it = partial(_decoded, codec=self._workers.thread.codec, expected_key=name)
        try:
            recipe = self._unread.decode(self._backend, path, data, decode_it)
            bad = self._bad_inline(recipe)
            if bad:
                again = decode_it(self._backend.read_again(path))
                still = self._bad_inline(again)
                if len(still) < len(bad):
                    self._unread.add_unsteady(path)
                recipe, bad = again, still
        except MfstoreError as error:
            return error, frozenset()
        return recipe, bad

    def _bad_inline(self, recipe: Recipe) -> frozenset[int]:
        """Numbers of the chunks that lie in a recipe and are not whole."""
        self._check.count(sum(placement.pack == INLINE for placement in recipe.placements), 0)
        return bad_inline(self._check, recipe)


def _decoded(data: bytes, codec: Codec, expected_key: bytes) -> Recipe:
    """The recipe, of which the description is looked at too, which no load does."""
    recipe = decode(data, codec, expected_key)
    recipe.described  # noqa: B018
    return recipe


def bad_inline(check: ChunkCheck, recipe: Recipe) -> frozenset[int]:
    """Numbers of the chunks that lie in a recipe and are not whole.

    Each place is decoded once, however many chunks are said to lie there: a few hundred bytes can say that of hundreds
    of thousands, of 16 MiB each.
    """
    inline = memoryview(recipe.inline)
    first: dict[Placement, ChunkRef] = {}
    numbers: dict[Placement, list[int]] = {}
    bad = []
    for number, (chunk, placement) in enumerate(placed_chunks(recipe)):
        if placement.pack != INLINE:
            continue
        at = placement._replace(pieces=())
        # Two chunks cannot both be what lies there.
        if first.setdefault(at, chunk) != chunk:
            bad.append(number)
        else:
            numbers.setdefault(at, []).append(number)
    places = {entry_of(chunk, at): at for at, chunk in first.items()}
    for together in by_place(places):
        stored = inline[together[0].offset : together[0].offset + together[0].csize]
        apart, misfits = _apart(together)
        for entry in chain(check.broken(apart, stored), misfits):
            bad += numbers[places[entry]]
    return frozenset(bad)


def _apart(together: Sequence[PackEntry]) -> tuple[list[PackEntry], list[PackEntry]]:
    """Of chunks that lie together, in the order in which they do: those that lie one after the other, and those that
    lie in the bytes of one before."""
    apart: list[PackEntry] = []
    misfits: list[PackEntry] = []
    for entry in together:
        fits = not apart or apart[-1].width + apart[-1].usize <= entry.width
        (apart if fits else misfits).append(entry)
    return apart, misfits
