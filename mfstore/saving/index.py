"""The dedup index: which pack holds a chunk (docs/format.md, "Index fragment" and "Index tree").

Only deduplication reads it. Losing it, or reading an old one, costs bytes and never data: a hit is checked before
it is trusted, and recipes carry their own placements.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from mfstore._core import table
from mfstore._core.codec import DELTAS
from mfstore.backends.base import decode_read
from mfstore.errors import AccessDenied, CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.fragments import (
    ENTRY,
    MERGED,
    PREFIX,
    Fragment,
    Location,
    decode_fragment,
    digest_in_key,
    encode_fragment,
    fragment_key,
    merge_fragments,
)
from mfstore.format.packs import PackEntry
from mfstore.format.tree import ROOT, ROOT_KEY, Node, decode_node
from mfstore.host.cache import HostCache
from mfstore.host.forks import anew_in_children
from mfstore.records import dataclass
from mfstore.saving import folding
from mfstore.saving.folding import fold, fold_all
from mfstore.saving.tree import MarkedPacks, find, find_all

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.format.digests import Digest
    from mfstore.saving.tree import Trailers

BESIDE_A_TREE = f"{PREFIX}-"
"""With what names of fragments begin, but for those of mfstore 0.1.0, which were merged when the tree was made: a
listing of all would tell of a thousand nodes too, in 300 kB."""
PAGE = 1000
"""Objects of the index that are listed, newest fragments first: S3 lists so many with one request. Who may not delete
leaves more, and those behind have been merged."""
FAN_IN = 16
"""While there is no tree, fragments of one size class are merged when there are this many, so that there are O(log n)
of them."""
MAKES_LARGE_TREE = 16
"""One writer in so many makes the tree of a store that has more chunks in fragments than go into a root at once: after
a first save of 16 GB, or as mfstore 0.1.0 left it. It writes 64 nodes, 14 bytes for each chunk, of which it has read
56; where many begin together few are in each other's way."""
FRESH = 4
"""Fragments that are read beside a tree, the newest: the chunks of others that were stored at the same moment count as
new. More than these a writer puts into the tree."""
CARRIED = 1 << 8
"""Chunks of fragments that a new fragment takes over beside a tree, so that there is one: 14 kB at most. Then they go
into the tree: 430 kB are written for each 85 saves of three chunks."""
FOLDED = 16
"""Fragments that are put into the tree at once. Of 10^5 that were stored at one moment each later writer takes so
many."""
PUSHED = 1 << 8
"""Chunks of which each so many new ones let a writer push a bucket of the tree a level down, beside the first: a push
moves at least twice as many."""


def plan_compaction(fragments: Sequence[Fragment]) -> list[Fragment]:
    """The fragments to merge now: those of the smallest size class that has FAN_IN, or none."""
    classes: dict[int, list[Fragment]] = {}
    for fragment in fragments:
        classes.setdefault(max(len(fragment), 1).bit_length() // 4, []).append(fragment)
    full = [number for number in sorted(classes) if len(classes[number]) >= FAN_IN]
    return classes[full[0]] if full else []


def is_folders_turn(fragments: int, lot: int) -> bool:
    """Whether one of many writers that all see so many fragments puts some into the tree: some sixteen of them do.
    ``lot`` is its own number, 0 to 255."""
    return lot * fragments <= 256 * FOLDED


@dataclass(frozen=True, slots=True)
class View:
    """The index as it was listed and read."""

    fragments: tuple[Fragment, ...] = ()
    """Those that were read, the newest last."""
    unread: tuple[str, ...] | None = ()
    """Keys of older ones that were not; None: they have not been listed."""
    root: Node | None = None
    """Of the tree, if there is one."""
    whole: bool = True
    """Whether the newest fragments have been read. Beside a tree that waits until it is of use."""

    def __len__(self) -> int:
        return sum(map(len, self.fragments))

    def having(self, fragments: tuple[Fragment, ...]) -> View:
        """The same with other fragments."""
        return View(fragments, self.unread, self.root, self.whole)


class ChunkIndex:
    """The index of one store, read when first needed."""

    def __init__(
        self, backend: Backend, digest: Digest, algorithm: int, trailers: Trailers,
        open_cache: Callable[[], HostCache] = lambda: HostCache(None), has_tree: Callable[[], bool] = lambda: False,
        tell_of_tree: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """``has_tree`` tells whether it is known that there is a tree; ``tell_of_tree`` is called by who makes it."""
        self._backend = backend
        self._digest = digest
        self._algorithm = algorithm
        self._packs = MarkedPacks(backend, trailers)
        self._open_cache = open_cache
        self._has_tree = has_tree
        self._tell_of_tree = tell_of_tree
        self._view: View | None = None
        self._carried: dict[str, list[str]] = {}
        """Keys of the fragments that a new one takes over, by its key."""
        self._may_delete = True
        self._may_fold = True
        """Whether there was no refusal so far. To try again would read the root for each save."""
        self.forked()
        anew_in_children(self)

    def forked(self) -> None:
        """A lock anew, in a new child too. Reentrant, as all that a save passes: a signal handler may save while its
        own thread does, and finds each of them in a state in which it may be used."""
        self._lock = threading.RLock()

    def find(
        self, ids: Sequence[bytes], small: Container[bytes] = (), leading: Container[bytes] = ()
    ) -> dict[bytes, Location]:
        """Where chunks lie, of those that are known. Newer fragments win, and of any whoever lists a chunk as no delta.
        Beside a tree some may not be found that are there, the ``small`` ones among them unless they lie with
        others; the ``leading`` ones are looked for first."""
        view = self._load()
        found = _listed(view.fragments, ids)
        missing = [chunk_id for chunk_id in ids if chunk_id not in found]
        if missing and view.root is not None:

            def fresh(unknown: Sequence[bytes]) -> Mapping[bytes, Location]:
                return {} if view.whole else _listed(self._load_whole().fragments, unknown)

            found.update(
                find(
                    view.root, missing, self._backend, self._packs, small=small, leading=leading, fresh=fresh
                )
            )  # fmt: skip
        return found

    def find_all(self, chunk_id: bytes, reload: bool) -> list[Location]:
        """Every location a chunk is listed at as no delta, for when one of them failed; ``reload`` reads the index
        anew."""
        if reload:
            self.forget()
        view = self._load_whole()
        locations = []
        for fragment in reversed(view.fragments):
            position = table.find(fragment.entries, ENTRY.size, chunk_id)[0]
            location = fragment.location(position) if position >= 0 else None
            if location is not None:
                locations.append(location)
        if view.root is not None:
            locations += find_all(view.root, chunk_id, self._backend, self._packs)
        return [location for location in locations if location.codec not in DELTAS]

    def forget(self) -> None:
        """Read the index anew when it is next needed."""
        with self._lock:
            self._view = None
            self._packs.forget()

    def make_fragment(self, packs: Sequence[tuple[bytes, Sequence[PackEntry]]]) -> tuple[str, bytes]:
        """Key and bytes of the fragment for newly written packs, whose trailers tell what deltas are against. Beside a
        tree it takes over those that it fits into one with."""
        data = encode_fragment(packs, self._algorithm, True)
        with self._lock:
            # What was found without them has not read the newest fragments.
            view = self._load_whole() if self._view is not None else None
            if view is None or view.root is None:
                return fragment_key(self._digest(data), time.time()), data
            made = decode_fragment(data, "")
            taken = [of for of in view.fragments if len(of) + len(made) <= CARRIED]
            if taken and sum(map(len, taken)) + len(made) <= CARRIED:
                data = merge_fragments([*taken, made], self._algorithm)
            else:
                taken = []
            key = fragment_key(self._digest(data), time.time())
            self._carried[key] = [of.key for of in taken if of.key != key]
            return key, data

    def add(self, key: str, data: bytes) -> None:
        """Use a fragment that was just stored."""
        fragment = decode_fragment(data, key)
        with self._lock:
            if self._view is not None:
                gone = {key, *self._carried.get(key, ())}
                rest = (of for of in self._view.fragments if of.key not in gone)
                self._view = self._view.having((*rest, fragment))

    def compact(self) -> None:
        """Merge fragments when there are many, or put them into the tree: what takes them over is stored before they
        are removed.

        Best effort: without the right to write, or when another process was faster, nothing is lost.
        """
        with self._lock:
            carried, self._carried = self._carried, {}
        self._retire([key for keys in carried.values() for key in keys])
        view = self._load_whole()
        try:
            if view.root is not None or len(view) > folding.TREE_FROM:
                self._fold(view)
            else:
                self._merge(plan_compaction(view.fragments))
        except MfstoreError:
            return

    def _merge(self, small: Sequence[Fragment]) -> None:
        if not small:
            return
        data = merge_fragments(small, self._algorithm)
        key = fragment_key(self._digest(data), time.time())
        self._backend.put(key, [data])
        gone = {fragment.key for fragment in small} - {key}
        self._retire(sorted(gone))
        with self._lock:
            if self._view is not None:
                rest = [of for of in self._view.fragments if of.key not in gone and of.key != key]
                self._view = self._view.having((decode_fragment(data, key), *rest))

    def _fold(self, view: View) -> None:
        """Put fragments into the tree, if there are so many that it is worth it."""
        unread = view.unread or ()
        count = len(view.fragments) + len(unread)
        if not self._may_fold or (view.root is not None and count < FRESH and len(view) <= CARRIED):
            return
        own = view.fragments[-1].key if view.fragments else ""
        lot = int(own[-2:], 16) if own else 0
        if not is_folders_turn(count, lot):
            return
        folded = list(view.fragments)
        more = max(0, FOLDED - len(folded))
        folded += self._read(unread[max(0, len(unread) - more) :])
        is_large = sum(map(len, folded)) > folding.FOLDED_TOGETHER
        if is_large and view.root is None and lot % MAKES_LARGE_TREE:
            return
        try:
            if is_large:
                root = fold_all(self._backend, self._algorithm, folded, PUSHED if view.root is not None else None)
            else:
                marks = {mark for fragment in folded for mark in fragment.marks()}
                root = fold(self._backend, self._algorithm, marks, 1 + len(marks) // PUSHED)
        except AccessDenied:
            self._may_fold = False
            return
        if root is None:
            return
        if view.root is None:
            self._tell_of_tree()
        gone = {fragment.key for fragment in folded}
        self._retire(sorted(gone))
        with self._lock:
            if self._view is not None:
                rest = (of for of in self._view.fragments if of.key not in gone)
                left = (key for key in self._view.unread or () if key not in gone)
                self._view = View(tuple(rest), tuple(left), root)

    def _retire(self, keys: Sequence[str]) -> None:
        """Remove fragments whose chunks are listed elsewhere. Who may not says so in their place, so that nobody reads
        them nor merges them again."""
        if not keys:
            return
        try:
            if self._may_delete:
                self._backend.delete_many(keys)
                return
        except AccessDenied:
            self._may_delete = False
        except MfstoreError:
            return
        try:
            for key in keys:
                self._backend.put(key, [MERGED])
        except MfstoreError:
            return

    def _load(self) -> View:
        """The index as far as it has to be read to look for something in it."""
        with self._lock:
            if self._view is None:
                self._view = self._begin()
            return self._view

    def _load_whole(self) -> View:
        """The same with the newest fragments beside the tree."""
        with self._lock:
            view = self._load()
            if not view.whole:
                unread = self._list(BESIDE_A_TREE)[0] if view.unread is None else view.unread
                fragments = self._read_fresh(unread[-FRESH:])
                view = self._view = View(tuple(fragments), unread[:-FRESH], view.root)
            return view

    def _begin(self) -> View:
        cache = self._open_cache()
        # A file that is not there costs less than a directory that is read. Far away a listing costs less than a root
        # that this host has, and is a request that a root which it has not can do without.
        alone = not self._backend.capabilities.remote or (self._has_tree() and cache.get(self._name(ROOT_KEY)) is None)
        root = self._read_root(cache) if alone else None
        if root is not None:
            return View((), None, root, False)
        keys, etag = self._list(PREFIX)
        if etag is None:
            return View(tuple(self._read(keys)))
        root = self._read_listed_root(cache, etag)
        if root is None:
            return View(tuple(self._read_fresh(keys[-FRESH:])), keys[:-FRESH])
        return View((), keys, root, False)

    def _list(self, prefix: str) -> tuple[tuple[str, ...], str | None]:
        """Keys of the fragments, the newest last, and the etag of the root, if there is a tree."""
        infos = sorted(self._backend.list_first(prefix, PAGE), key=lambda info: info.modified)
        keys = [info.key for info in infos if info.size > len(MERGED) and digest_in_key(info.key) is not None]
        return tuple(keys), next((info.etag for info in infos if info.key == ROOT_KEY), None)

    def _read_root(self, cache: HostCache) -> Node | None:
        """The root, read before anything is listed. What other processes of this host find of it is its etag, and by
        that itself."""
        read: list[bytes] = []

        def tagged() -> bytes:
            data, etag = self._backend.get_tagged(ROOT_KEY)
            cache.put(f"{self._name(ROOT_KEY)} {etag}", data)
            read.append(data)
            return etag.encode()

        try:
            etag = cache.get_or_read(self._name(ROOT_KEY), tagged).decode()
            return self._decode_root(read[0]) if read else self._read_listed_root(cache, etag)
        except NotFound:
            return None

    def _decode_root(self, data: bytes) -> Node | None:
        try:
            return decode_read(self._backend, ROOT_KEY, data, partial(decode_node, name=ROOT))
        except (CorruptObject, NotFound, Unsupported):
            return None

    def _read_listed_root(self, cache: HostCache, etag: str) -> Node | None:
        """What another process of this host has read is not asked for again."""
        name = self._name(ROOT_KEY)
        try:
            data = cache.get_or_read(f"{name} {etag}", lambda: self._backend.get(ROOT_KEY))
        except NotFound:
            return None
        cache.put(name, etag.encode())
        return self._decode_root(data)

    def _read_fresh(self, keys: Sequence[str]) -> Iterable[Fragment]:
        """Fragments beside a tree. Of processes of this host that begin together one reads them."""
        cache = self._open_cache()
        found: dict[str, bytes | MfstoreError] = {}

        def look() -> list[str]:
            for key in keys:
                if key not in found and (kept := cache.get(self._name(key))) is not None:
                    found[key] = kept
            return [key for key in keys if key not in found]

        missing = look()
        if missing:
            last = missing[-1]

            def read() -> bytes:
                for key, data in self._backend.get_many(missing):
                    found[key] = data
                    if isinstance(data, bytes) and key != last:
                        cache.put(self._name(key), data)
                if isinstance(data := found[last], MfstoreError):
                    raise data
                return data

            with suppress(MfstoreError):  # it is among what was found
                found[last] = cache.get_or_read(self._name(last), read)
            found.update(self._backend.get_many(look()))
        return self._decode((key, found[key]) for key in keys)

    def _name(self, key: str) -> str:
        """Of an object, in the host's cache."""
        return f"{self._backend.url}/{key}"

    def _read(self, keys: Iterable[str]) -> Iterable[Fragment]:
        return self._decode(self._backend.get_many(keys))

    def _decode(self, read: Iterable[tuple[str, bytes | MfstoreError]]) -> Iterable[Fragment]:
        for key, data in read:
            try:
                if isinstance(data, NotFound):
                    continue  # merged away by another process since it was listed
                if isinstance(data, MfstoreError):
                    raise data
                yield decode_fragment(data, key)
            except (CorruptObject, Unsupported):
                continue  # costs dedup only; verify reports it


def _listed(fragments: Sequence[Fragment], ids: Sequence[bytes]) -> dict[bytes, Location]:
    """Where chunks lie by fragments, of which the newest is the last."""
    found: dict[bytes, Location] = {}
    deltas: dict[bytes, Location] = {}
    missing = list(ids)
    for fragment in reversed(fragments):
        if not missing:
            break
        positions = table.find(fragment.entries, ENTRY.size, b"".join(missing))
        for chunk_id, position in zip(missing, positions, strict=True):
            location = fragment.location(position) if position >= 0 else None
            if location is not None:
                (deltas if location.codec in DELTAS else found).setdefault(chunk_id, location)
        missing = [chunk_id for chunk_id in missing if chunk_id not in found]
    return {**deltas, **found} if deltas else found
