"""What a page tells of a store, read from it: refs by a listing, they and the recipes of their values in bulk, and of
packs only what the comparisons of a few values need."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import mfstore
from mfstore.backends.base import decode_read
from mfstore.comparing.stored import compare
from mfstore.display.amounts import count, size
from mfstore.errors import MfstoreError, NotFound
from mfstore.format import recipes
from mfstore.format.digests import Key
from mfstore.format.recipes import recipe_path
from mfstore.format.refs import PREFIX, RefEntry, StoredRef, encoded, is_ref, ref_name
from mfstore.maintenance.report import PhaseProgress, untold
from mfstore.maintenance.store.usage import KINDS, store_usage
from mfstore.page.contents import Chunks, by_day, chunks_of, content_of, fresh_bytes, note_json
from mfstore.page.facts import Compared, Content, Entry, Facts, Space, Value
from mfstore.page.read_once import read_once
from mfstore.page.troubles import Said, spaces_of
from mfstore.ref_objects import read_refs_at

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo
    from mfstore.format.recipes import Recipe
    from mfstore.handle import StoreAccess
    from mfstore.maintenance.report import PhaseCallback
    from mfstore.store import Store

REFS_TOGETHER = 256
"""Refs whose values are looked at together."""
SPACES = ("ref", "flow", "run", "artifact")
"""By what it is told who holds how much."""
NO_REF = "(no ref)"
"""What the group of keys is called that no ref names."""
COMPARED = 20
"""Refs whose newest value is compared inside with the one before it: those set last."""
COMPARED_BYTES = 64 << 20
"""New bytes of a value that is compared so: these, and as many of the one before it, are read."""
COMPARED_LINES = 60
"""Differences that are told of one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a page shall tell."""

    prefix: str
    """What the names of refs begin with."""
    history: int
    """Values of each ref."""
    diff: bool
    """Whether values are compared inside."""


class _Pair(NamedTuple):
    """A ref's newest value, and the one before it."""

    name: str
    time: float
    new: Key
    old: Key
    fresh: int


def store_facts(store: Store, place: str, title: str, wanted: Wanted, tell: PhaseCallback = untold) -> Facts:
    """What is in a store; ``place`` is what the caller calls it.

    Raises:
        NotFound: there is no store.
        AccessDenied, BackendError: it cannot be listed. Of a ref or a recipe that cannot be read it is told.
    """
    access = store.handle.access("read")
    backend = read_once(access.backend)
    said = Said(access.backend.url, place, f"mfstore verify -s {place}")
    listed = {kind: list(backend.list(kind)) for kind in KINDS}
    growth = by_day((info.size, info.modified) for infos in listed.values() for info in infos)
    whole = access._replace(backend=backend)
    found = _Reading(store, whole, said, wanted, tell)
    found.read(listed[PREFIX])
    spaces = spaces_of(SPACES, lambda by: store_usage(whole, by, tell), said)
    refs = sum(is_ref(info.size) for info in listed[PREFIX])
    amounts = [
        ("refs", refs, False),
        ("keys", len(listed["recipes/"]), False),
        ("packs", len(listed["packs/"]), False),
        ("bytes stored", sum(info.size for infos in listed.values() for info in infos), True),
    ]
    amounts += _held(spaces)
    return Facts(
        "store", place, title, time.time(), mfstore.__version__, tuple(amounts), tuple(found.entries),
        found.contents, spaces, growth, tuple(found.compare()), said.troubles,
        tuple(found.notes(len(listed["recipes/"]))),
    )  # fmt: skip


class _Reading:
    """Refs and what they name."""

    def __init__(self, store: Store, access: StoreAccess, said: Said, wanted: Wanted, tell: PhaseCallback) -> None:
        self._store = store
        self._access = access
        self._said = said
        self._wanted = wanted
        self._tell = tell
        self._pairs: list[_Pair] = []
        self._left_out = 0
        self._named: set[Key] = set()
        self._not_compared = 0
        self.entries: list[Entry] = []
        self.contents: dict[str, Content] = {}

    def read(self, listed: Sequence[ObjectInfo]) -> None:
        """Every wanted ref that was listed, and the recipes of its values."""
        begins = PREFIX + encoded(self._wanted.prefix)
        paths = sorted(info.key for info in listed if is_ref(info.size) and info.key.startswith(begins))
        rest = iter(zip(paths, read_refs_at(self._access.backend, paths), strict=True))
        done = 0
        while some := list(islice(rest, REFS_TOGETHER)):
            shown = [(path, stored, self._shown(stored)) for path, stored in some]
            self._look_at(shown)
            done += len(some)
            self._tell(PhaseProgress("refs", done, len(paths)))

    def _shown(self, stored: StoredRef | MfstoreError) -> list[RefEntry]:
        """The values that the page shows, and one more, which the last is compared with."""
        if isinstance(stored, MfstoreError):
            return []
        return [*reversed(stored.entries)][: self._wanted.history + 1]

    def _look_at(self, refs: Sequence[tuple[str, StoredRef | MfstoreError, list[RefEntry]]]) -> None:
        keys = dict.fromkeys(entry.key for _, _, shown in refs for entry in shown)
        chunks = dict(self._recipes([*keys]))
        for path, stored, shown in refs:
            name = ref_name(path)
            if isinstance(stored, NotFound):
                continue  # removed since it was listed
            if isinstance(stored, MfstoreError):
                self.entries.append(Entry(name, trouble=self._said.add(f"ref {name}", stored)))
            elif stored.entries:
                self._named.update(entry.key for entry in stored.entries)
                self.entries.append(self._entry(name, len(stored.entries), shown, chunks))

    def _entry(self, name: str, total: int, shown: Sequence[RefEntry], chunks: dict[Key, Chunks]) -> Entry:
        values = []
        for number, entry in enumerate(shown[: self._wanted.history]):
            before = shown[number + 1] if number + 1 < len(shown) else None
            fresh = None
            if before is not None and entry.key in chunks and before.key in chunks:
                fresh = fresh_bytes(chunks[entry.key], chunks[before.key])
                if number == 0 and entry.key != before.key:
                    self._pairs.append(_Pair(name, entry.time, entry.key, before.key, fresh))
            values.append(Value(f"@{number}", entry.key, entry.time, note_json(entry.note), fresh))
        self._left_out += total - len(values)
        return Entry(name, tuple(values), total)

    def _recipes(self, keys: Sequence[Key]) -> Iterator[tuple[Key, Chunks]]:
        """What each recipe consists of; what else it says is noted down."""
        backend, codec = self._access.backend, self._access.workers.thread.codec
        for key, (path, data) in zip(keys, backend.get_many([recipe_path(key) for key in keys]), strict=True):
            try:
                if isinstance(data, MfstoreError):
                    raise data
                decode = partial(recipes.decode, codec=codec, expected_key=bytes.fromhex(key))
                recipe: Recipe = decode_read(backend, path, data, decode)
                if key not in self.contents:
                    self.contents[key] = content_of(recipe)
                yield key, chunks_of(recipe)
            except MfstoreError as error:
                if key not in self.contents:
                    self.contents[key] = Content("", trouble=self._said.add(f"key {key}", error))

    def compare(self) -> Iterator[Compared]:
        """How the newest value of the refs that were set last differs from the one before it. Nothing of it is
        unpickled but data: what a pickle would call is not."""
        if not self._wanted.diff:
            return
        pairs = sorted(self._pairs, key=lambda pair: -pair.time)
        chosen = [pair for pair in pairs if pair.fresh <= COMPARED_BYTES][:COMPARED]
        self._not_compared = len(pairs) - len(chosen)
        for number, pair in enumerate(chosen):
            self._tell(PhaseProgress("differences", number, len(chosen)))
            yield self._compared(pair)

    def _compared(self, pair: _Pair) -> Compared:
        names = f"{pair.name}@1", pair.name
        try:
            found = compare(self._store.handle, (names[0], pair.old), (names[1], pair.new), True)
        except Exception as error:  # whatever unpickling data of others may raise
            return Compared(pair.name, "@1", "@0", f"not compared: {self._said.text(error)}")
        lines = found.lines()
        shown = tuple(lines[:COMPARED_LINES])
        return Compared(pair.name, "@1", "@0", found.summary, shown, len(lines) - len(shown))

    def notes(self, keys: int) -> Iterator[str]:
        """What is left out of so many keys, and where it is told."""
        if not self._wanted.prefix and keys > len(self._named):
            nameless = count(keys - len(self._named), "key")
            yield f"{nameless} that no ref names: mfstore ls lists all keys, mfstore stat KEY tells what one is"
        if self._left_out:
            yield f"{count(self._left_out, 'older value')} left out: --history shows more, mfstore refs NAME all"
        if self._not_compared:
            told = f"of the {COMPARED} refs set last, with up to {size(COMPARED_BYTES)} of new chunks"
            yield f"Only values {told}, are compared inside: mfstore diff NAME@1 NAME compares the others"
        if self._wanted.prefix:
            yield f"Only refs that begin with {self._wanted.prefix} are listed; bytes are those of the whole store"


def _held(spaces: Sequence[Space]) -> Iterator[tuple[str, int, bool]]:
    """Of all bytes those that one ref holds, several, and none."""
    for space in spaces:
        if space.by == "ref":
            nameless = sum(own for name, own, _ in space.groups if name == NO_REF)
            yield "held by one ref", space.own - nameless, True
            yield "shared by refs", space.shared, True
            yield "held by no ref", space.unheld + nameless, True
