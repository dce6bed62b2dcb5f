"""What the run before saved in the same step, as what this one's bundle is compared with.

Which bundle that is says a hint in the store. Nothing depends on it: what it names may be damaged or gone, and then the
bundle is saved as any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mfstore.errors import CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.latest import decode_latest, encode_latest, latest_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mfstore.format.digests import Key
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
        """Whether something was saved that is worth comparing."""
        self._named: Key | None = None
        self._saved: str | None = None

    def recipe(self, store: Store) -> Recipe | None:
        """Its recipe, None where there is none to be had. Asked once, when the first long artifact is saved."""
        self.is_wanted = True
        try:
            self._named = decode_latest(store.handle.backend.get(self.path))
        except MfstoreError:
            return None  # whatever it is, what the save itself needs meets it too
        try:
            return store.handle.recipe(self._named) if self._named is not None else None
        except (NotFound, CorruptObject, Unsupported):
            return None

    def saved(self, bundle: str) -> None:
        """This task has saved its own."""
        self._saved = bundle

    def hint(self) -> bytes | None:
        """What the hint should say from now on; None where it may stay as it is."""
        if not self.is_wanted or self._saved is None or self._saved == self._named:
            return None
        return encode_latest(self._saved)


def finds_deltas(store: Store) -> bool:
    """Whether saves in this store build upon others."""
    return store.knobs.delta and store.knobs.compress != "off"


def is_first_split(foreach: Iterable[Any]) -> bool:
    """Whether the task with this foreach stack writes the hint for all splits of its step: one object that a thousand
    tasks write at a time would slow all of them down."""
    return not any(frame.index for frame in foreach)
