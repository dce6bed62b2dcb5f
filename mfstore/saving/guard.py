"""What garbage collection is about to delete, and how writers keep out of its way (docs/format.md).

A collector first *condemns*: it publishes a list. Writers do not rely on what is listed. It deletes in a later run,
and between telling so (``deleting``) and its first deletion it looks again at everything that appeared meanwhile. A
writer that finds, after its own objects became visible, that no deletion began since before it looked anything up, is
therefore safe; one that finds otherwise looks again at all it wrote and relied on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from mfstore._core import table
from mfstore.backends.base import DELETION_WINDOW, REQUEST_LIFE, decode_read
from mfstore.errors import Conflict, CorruptObject, NotFound, Unsupported
from mfstore.format.collection import ENTRY, STATE, CondemnedList, State, decode_list, decode_state, seal_etag
from mfstore.format.packs import pack_path
from mfstore.format.recipes import recipe_path
from mfstore.host.elapsed import moment, since
from mfstore.host.forks import anew_in_children
from mfstore.records import dataclass, field

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

KNOWLEDGE_SECONDS = 300.0
"""Seconds a writer may rely on what it knows to be condemned where asking is a request. A list is acted upon after
twice that at the earliest, unless nobody writes."""
DELETION_WAIT = DELETION_WINDOW + REQUEST_LIFE
"""Seconds a writer waits for the end of a deletion that may concern it. Then a deletion that was decided before it
stored something again has been carried out, or never will be; an operation that relies on what is being deleted fails,
unacknowledged."""
CONFIRMED_BYTES = 32 * 1024
"""Of the names of recipes that are known to be whole because they have just been stored."""
COLLECTOR_SILENCE = 300.0
"""A collector that gave no sign of life for so long is dead."""


NEVER_COLLECTED = State()


@dataclass(slots=True)
class Names:
    """Recipes and packs an operation concerns: names of 32 bytes, back to back, because there may be millions."""

    recipes: bytearray = field(default_factory=bytearray)
    packs: bytearray = field(default_factory=bytearray)

    def paths(self) -> Iterable[str]:
        """Where they are stored."""
        for names, path in ((self.recipes, recipe_path), (self.packs, pack_path)):
            for at in range(0, len(names), 32):
                yield path(names[at : at + 32].hex())


@dataclass(frozen=True, slots=True)
class Condemned:
    """What was condemned at one moment."""

    state: State = NEVER_COLLECTED
    lists: tuple[CondemnedList, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.lists)

    def recipe(self, key: bytes) -> bool:
        """Whether the recipe of a key is condemned."""
        return any(table.find(entry.recipes, ENTRY.size, key)[0] >= 0 for entry in self.lists)

    def pack(self, name: bytes) -> bool:
        """Whether a pack is condemned."""
        return any(table.find(entry.packs, ENTRY.size, name)[0] >= 0 for entry in self.lists)

    def versions(self, names: Names) -> Iterator[tuple[str, int]]:
        """Where those of them that are condemned are stored, and in which version each is meant."""
        for entry in self.lists:
            for entries, wanted, path in (
                (entry.recipes, names.recipes, recipe_path),
                (entry.packs, names.packs, pack_path),
            ):
                for number, row in enumerate(table.find(entries, ENTRY.size, wanted)):
                    if row >= 0:
                        yield (
                            path(wanted[32 * number : 32 * number + 32].hex()),
                            ENTRY.unpack_from(entries, row * ENTRY.size)[1],
                        )

    def concerns(self, names: Names) -> bool:
        """Whether any of them is condemned."""
        return any(
            max(table.find(entries, ENTRY.size, wanted), default=-1) >= 0
            for entry in self.lists
            for entries, wanted in ((entry.recipes, names.recipes), (entry.packs, names.packs))
        )


def read_state(backend: Backend) -> tuple[State, str | None]:
    """The state and its etag, which is None while there is none."""
    try:
        data, etag = backend.get_tagged(STATE)
    except NotFound:
        return State(), None
    try:
        return decode_read(backend, STATE, data, decode_state), etag
    except (CorruptObject, Unsupported) as error:
        raise error.where(backend=backend.url) from None


class Guard:
    """One process's knowledge of what is condemned in one store.

    ``enabled`` tells whether the store was ever collected as far as its description says, and is asked only where it
    is cheaper than looking. ``changed`` is called when a collector has been at work: what was remembered about objects
    may be out of date.
    """

    def __init__(self, backend: Backend, enabled: Callable[[], bool], changed: Callable[[], None]) -> None:
        self._backend = backend
        self._enabled = enabled
        self._changed = changed
        # A third: whether the store was ever collected may be known for as long already, twice.
        self._valid = KNOWLEDGE_SECONDS / 3 if backend.capabilities.remote else 0.0
        self.forked()
        anew_in_children(self)
        self._view = Condemned()
        self._read_at: tuple[float, float] | None = None
        self._mark: object = None
        self._lists: dict[str, CondemnedList] = {}
        self._confirmed: tuple[bytes, tuple[float, float]] | None = None
        """Recipes of the last operation that was acknowledged, and when."""

    def forked(self) -> None:
        """A lock anew, in a new child too. Reentrant: see ``ChunkIndex.forked``."""
        self._lock = threading.RLock()

    def condemned(self) -> Condemned:
        """What is condemned, as of at most ``KNOWLEDGE_SECONDS`` ago where reading is a request, else as of now."""
        with self._lock:
            if self._read_at is not None and self._valid and since(self._read_at) < self._valid:
                return self._view
            return self._read()

    def read(self) -> Condemned:
        """What is condemned now."""
        with self._lock:
            return self._read()

    def _read(self) -> Condemned:
        # Where knowledge is not kept, when it was read does not matter.
        begun = moment() if self._valid else None
        mark = self._mark
        if not self._backend.capabilities.remote:
            # A look at the file, or at its absence, costs less than reading it or an exception.
            mark = self._backend.identity(STATE) if self._backend.exists_many([STATE])[0] else None
        if mark == self._mark and not (self._backend.capabilities.remote and self._enabled()):
            self._read_at = begun
            return self._view
        while True:
            state, _ = read_state(self._backend)
            if state == self._view.state:
                break
            try:
                lists = {entry.key: self._list(entry.key) for entry in state.lists}
            except NotFound as error:
                if read_state(self._backend)[0] != state:
                    continue  # dealt with since the state was read
                raise CorruptObject(
                    "a list of what is condemned is missing", key=error.key, backend=self._backend.url,
                    hint="Run mfstore gc --execute: it does without",
                ) from None  # fmt: skip
            self._lists = lists
            self._view = Condemned(state, tuple(lists.values()))
            self._changed()
            break
        self._mark, self._read_at = mark, begun
        return self._view

    def _list(self, key: str) -> CondemnedList:
        found = self._lists.get(key)
        if found is None:
            found = decode_read(self._backend, key, self._backend.get(key), partial(decode_list, key=key))
        return found

    def confirm(self, before: Condemned, wrote: Names, relied: Names) -> None:
        """Return once everything that an operation wrote and relied on is out of a collector's reach.

        ``before`` is the view from before the operation looked anything up; now its own objects are visible. Conflict
        when something is gone, or may be soon: then nothing must be acknowledged.
        """
        self._confirm(before, wrote, relied)
        if self._valid:
            self._confirmed = bytes((wrote.recipes + relied.recipes)[-CONFIRMED_BYTES:]), moment()

    def just_confirmed(self, recipe: bytes) -> bool:
        """Whether this handle has just made sure that all that a recipe relies on is there, where asking again is a
        request."""
        if self._confirmed is None or since(self._confirmed[1]) >= self._valid:
            return False
        names = self._confirmed[0]
        at = names.find(recipe)
        while at % 32 and at >= 0:
            at = names.find(recipe, at + 1)
        return at >= 0

    def _confirm(self, before: Condemned, wrote: Names, relied: Names) -> None:
        after = self.condemned()
        same = after.state.deletions == before.state.deletions
        if same and not (before.lists or after.lists):
            return
        if same and not any(view.concerns(names) for view in (before, after) for names in (wrote, relied)):
            return
        after = self.read()
        same = after.state.deletions == before.state.deletions
        if same and not before.state.deleting and not after.state.deleting:
            return  # a deletion that begins now looks first at what is visible
        if after.state.deleting:
            # Before the wait: what is stored again during it may be hit by a deletion that was decided before.
            relies = self._means(after, relied)
            if same and not relies and self._backend.deletes_conditionally():
                return  # it is deleting older versions of what was stored again
            if after.concerns(relied) or after.concerns(wrote):
                self._wait(after, relies)
        self._check(wrote)
        self._check(relied)

    def _means(self, view: Condemned, names: Names) -> bool:
        """Whether one of them is condemned in the version that is stored now, or is gone."""
        for path, version in view.versions(names):
            try:
                if seal_etag(self._backend.head(path).etag) == version:
                    return True
            except NotFound:
                return True
        return False

    def _wait(self, view: Condemned, relies: bool) -> None:
        """Wait for the end of a deletion; where it is about what the operation ``relies`` on, for that alone."""
        begun = moment()
        pause = 0.01
        while view.state.deleting:
            if since(begun) > DELETION_WAIT:
                if not relies:
                    return  # a deletion under way by now has seen what was stored again
                raise Conflict(
                    "garbage collection is deleting what this operation relied on, or was killed at it",
                    backend=self._backend.url,
                    hint="Nothing was acknowledged. Store the content again, or run mfstore gc --execute if none is "
                    "running; then do it again",
                )  # fmt: skip
            time.sleep(pause)
            pause = min(1.0, pause * 2)
            view = self.read()

    def _check(self, names: Names) -> None:
        paths = list(names.paths())
        for path, there in zip(paths, self._backend.exists_many(paths), strict=True):
            if not there:
                raise Conflict(
                    "garbage collection removed what this operation relied on", key=path, backend=self._backend.url,
                    hint="Nothing was acknowledged; do it again",
                )  # fmt: skip
