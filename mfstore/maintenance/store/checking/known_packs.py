"""What is known of each pack of a store: from the listing, from its header and trailer, from the index."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

from mfstore._core.codec import DELTAS
from mfstore.errors import MfstoreError
from mfstore.format.packs import NO_PIECES, fingerprint, pack_path, told_chunks
from mfstore.format.recipes import ChunkRef
from mfstore.format.tree import HALF
from mfstore.maintenance.report import PhaseProgress
from mfstore.maintenance.store.checking.pack_state import PackState
from mfstore.maintenance.store.checking.trailers import read_trailers

if TYPE_CHECKING:
    from mfstore.backends.base import Backend, ObjectInfo
    from mfstore.format.digests import Digest
    from mfstore.format.packs import PackEntry, Pieces
    from mfstore.host.workers import Workers
    from mfstore.maintenance.report import PhaseCallback
    from mfstore.maintenance.store.checking.listed_index import ListedIndex
    from mfstore.maintenance.store.checking.pack_state import PlacedChunk
    from mfstore.maintenance.store.checking.unread import Unread

PACKS_TOGETHER = 256
"""Packs looked at together: bounds what is held of them."""
CACHED_CHUNKS = 1 << 17
"""Chunks of trailers that are held from the first reading for the second: 20 MB. Beyond that they are read twice."""
RELISTINGS = 5
"""How often the index is listed anew when it seems to lack something."""


class KnownPacks:
    """The packs by name, each with its state."""

    def __init__(
        self, backend: Backend, workers: Workers, digest: Digest, unread: Unread, listing: Mapping[bytes, ObjectInfo]
    ) -> None:
        self._backend = backend
        self._workers = workers
        self._digest = digest
        self._unread = unread
        self.states = {name: PackState(info.size, info.modified) for name, info in listing.items()}
        self._cached: dict[bytes, list[PackEntry]] = {}
        self._room = CACHED_CHUNKS

    def read_all(self, index: ListedIndex, tell: PhaseCallback) -> None:
        """Learn from the header and trailer of every pack; of those without, from the index."""
        done = 0
        for window in pack_windows(self.states):
            tell(PhaseProgress("headers", done, len(self.states)))
            for name, found in self.trailers(window):
                self.learn(name, found, index)
            done += len(window)
        tell(PhaseProgress("headers", done, len(self.states)))
        broken = frozenset(name for name, state in self.states.items() if state.kind == "damaged")
        if broken:
            for name, entry in index.chunks_in(broken):
                self.states[name].claimed[fingerprint(entry)] = entry

    def trailers(
        self, names: Iterable[bytes], told: dict[bytes, Mapping[int, Pieces]] | None = None
    ) -> Iterator[tuple[bytes, list[PackEntry] | MfstoreError]]:
        """The chunks that each of these packs lists, or what is wrong with its header or trailer; read now. ``told``
        learns what deltas are against."""
        sizes = {name: self.states[name].size for name in names}
        return read_trailers(self._backend, self._workers, self._digest, sizes, self._unread, told)

    def all_trailers(self) -> Iterator[tuple[bytes, list[PackEntry] | MfstoreError]]:
        """The same of every pack that the storage gives."""
        for window in pack_windows(self.states):
            yield from self.trailers(name for name in window if not self.states[name].absent)

    def told_chunks(self) -> Iterator[tuple[bytes, list[PackEntry] | MfstoreError]]:
        """The same without deltas whose base is known to recipes alone: what the index lists."""
        for window in pack_windows(self.states):
            told: dict[bytes, Mapping[int, Pieces]] = {}
            for name, found in self.trailers([name for name in window if not self.states[name].absent], told):
                yield name, found if isinstance(found, MfstoreError) else told_chunks(found, told.get(name, NO_PIECES))

    def chunks_of(self, names: Iterable[bytes]) -> Iterator[tuple[bytes, list[PackEntry] | MfstoreError]]:
        """The same of these packs, without reading it again where that is at hand."""
        wanted = list(names)
        for name in wanted:
            if name in self._cached:
                yield name, self._cached[name]
        yield from self.trailers(name for name in wanted if name not in self._cached)

    def learn(self, name: bytes, found: list[PackEntry] | MfstoreError, index: ListedIndex) -> None:
        """Note what the trailer of a pack says, or what is wrong with it."""
        if isinstance(found, MfstoreError):
            self.failed(name, found)
            return
        state = self.states[name]
        state.prints = array("Q", sorted(map(fingerprint, found)))
        if len(found) <= self._room:
            self._room -= len(found)
            self._cached[name] = found
        state.listed = index.lists_all([entry.id for entry in found if entry.codec not in DELTAS])

    def failed(self, name: bytes, error: MfstoreError) -> None:
        """Note why a pack, or its trailer, could not be read."""
        state = self.states[name]
        state.detail = error.message
        state.kind = self._unread.kind_of(pack_path(name.hex()), error)

    def state_of(self, name: bytes, index: ListedIndex) -> PackState:
        """What is known of a pack, looked at now if it was not listed: it may have been stored since."""
        state = self.states.get(name)
        if state is None:
            state = self.states[name] = PackState(0)
            try:
                info = self._backend.head(pack_path(name.hex()))
                state.size, state.modified = info.size, info.modified
                for _, found in self.trailers([name]):
                    self.learn(name, found, index)
            except MfstoreError as error:
                self.failed(name, error)
            if state.kind == "damaged":
                # Not listed and there: no regular file, and nothing can be read of it.
                state.size = 0
        return state

    def readable_elsewhere(self, placed: PlacedChunk, index: ListedIndex) -> bool:
        """Whether the index knows another place of a chunk that holds it, as far as is known."""
        chunk = ChunkRef(placed.entry.id, placed.entry.usize)
        return any(
            self.state_of(pack, index).holds(entry)
            for pack, entry in chain(index.locations(chunk), self._marked(chunk, index))
            if (pack, entry) != (placed.pack, placed.entry)
        )

    def _marked(self, chunk: ChunkRef, index: ListedIndex) -> Iterator[tuple[bytes, PackEntry]]:
        """Wherever the index's tree says that a chunk lies, as the trailers there say, and no delta."""
        beginnings = set(index.marked(chunk.id))
        if not beginnings:
            return
        for pack, found in self.chunks_of([name for name in self.states if name[:HALF] in beginnings]):
            if not isinstance(found, MfstoreError):
                yield from (
                    (pack, entry) for entry in found
                    if (entry.id, entry.usize) == chunk and entry.codec not in DELTAS
                )  # fmt: skip

    def unlisted(self, index: ListedIndex) -> list[bytes]:
        """The packs of which some chunk is placed by a recipe and not in the index, as it is now."""
        names = [name for name, state in self.states.items() if state.used and not state.listed]
        # Fragments may have been merged, and the merged one missed, while they were listed and read.
        for _ in range(RELISTINGS):
            if not names or not index.changed():
                break
            for name, found in self.trailers(names):
                self.learn(name, found, index)
            names = [name for name in names if not self.states[name].listed]
        return names


def pack_windows(names: Iterable[bytes]) -> Iterator[Sequence[bytes]]:
    """The names, ``PACKS_TOGETHER`` at a time."""
    rest = iter(list(names))
    while window := list(islice(rest, PACKS_TOGETHER)):
        yield window
