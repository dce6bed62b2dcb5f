"""What the run before saved in the same step, as what this one's bundle is compared with.

Which bundle that is says a hint in the store. Nothing depends on it: what it names may be damaged or gone, and then the
bundle is saved as any other.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mfstore.errors import CorruptObject, InvalidKey, MfstoreError, NotFound, Unsupported
from mfstore.format.digests import Key
from mfstore.format.latest import decode_latest, encode_latest, latest_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mfstore.format.recipes import Recipe
    from mfstore.store import Store

WORTH = 64 << 10
"""A task that saves no artifact longer than this neither reads nor writes the hint: two requests, for what takes a
chunk, or lies in the recipe."""


class PreviousBundle:
    """The bundle that a step of a flow saved last, as one task sees it."""

    def __init__(self, flow: str, step: str) -> None:
        self.path = latest_path(flow, step)
        """Of the hint, in the store."""
        self.is_wanted = False
        """Whether something was saved that is worth comparing with it."""
        self._named: Key | None = None
        self._recipes: dict[str, Recipe | None] = {}
        self._read: dict[str, str] = {}
        self._saved: str | None = None

    def was_read(self, name: str, bundle: str) -> None:
        """This artifact is the object that the task read from an input, whose bundle is the better base: mostly it is
        the same, and its chunks are found there without the index, deltas too."""
        self._read[name] = bundle

    def recipe(self, store: Store, name: str) -> Recipe | None:
        """That of the bundle an artifact is compared with, None where there is none to be had."""
        found = self._load(store, self._read[name]) if name in self._read else None
        if found is not None:
            return found
        if not self.is_wanted:
            self.is_wanted = True
            # Whatever the error is, what the save itself needs meets it too.
            with suppress(MfstoreError):
                self._named = decode_latest(store.handle.backend.get(self.path))
        return self._load(store, self._named) if self._named is not None else None

    def _load(self, store: Store, bundle: str) -> Recipe | None:
        if bundle not in self._recipes:
            self._recipes[bundle] = None
            with suppress(NotFound, CorruptObject, Unsupported, InvalidKey):
                self._recipes[bundle] = store.handle.recipe(Key(bundle))
        return self._recipes[bundle]

    def saved(self, bundle: str) -> None:
        """This task has saved its own."""
        self._saved = bundle

    def hint(self) -> bytes | None:
        """What the hint should say from now on; None where it may stay as it is."""
        if not self.is_wanted or self._saved is None or self._saved == self._named:
            return None
        return encode_latest(self._saved)


def is_first_split(foreach: Iterable[Any]) -> bool:
    """Whether the task with this foreach stack writes the hint for all splits of its step: one object that a thousand
    tasks write at a time would slow all of them down."""
    return not any(frame.index for frame in foreach)
