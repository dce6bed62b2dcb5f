"""Packs read whole: every chunk compared with its digest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from mfstore.backends.base import RangeRead
from mfstore.errors import CorruptObject, MfstoreError
from mfstore.format.packs import fingerprint, pack_path
from mfstore.maintenance.reading import read_each
from mfstore.maintenance.store.checking.pack_state import Span, plan_spans
from mfstore.maintenance.store.groups import by_place

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.backends.base import Backend
    from mfstore.format.packs import PackEntry
    from mfstore.host.workers import Workers
    from mfstore.maintenance.store.checking.chunk_check import ChunkCheck
    from mfstore.maintenance.store.checking.known_packs import KnownPacks
    from mfstore.maintenance.store.checking.unread import Unread

LOCAL_READ = 2 << 20
"""Bytes read at a time where a request costs little: what was read is then still in the processor's cache when it is
hashed. Against 8 MiB a sixth less CPU time."""


class PackReader:
    """Reads packs whole, and notes in their states which chunks are not whole."""

    def __init__(
        self, backend: Backend, workers: Workers, check: ChunkCheck, unread: Unread, packs: KnownPacks
    ) -> None:
        self._backend = backend
        self._workers = workers
        self._check = check
        self._unread = unread
        self._packs = packs
        self._lock = threading.Lock()
        self.packs_checked = 0
        """Packs whose every chunk was compared."""

    def read(self, names: Sequence[bytes], tell: Callable[[int], None] = lambda size: None) -> None:
        """Compare every chunk of these packs with its digest. ``tell`` is called with the bytes read, on any thread."""
        spans = self._plan(names)

        def check(read: RangeRead, data: Buffer | MfstoreError) -> None:
            name, span = spans[read.key, read.start]
            self._check_span(name, span, data)
            tell(read.length)

        reads = [RangeRead(path, span.start, span.end - span.start) for (path, _), (_, span) in spans.items()]
        read_each(self._backend, self._workers, reads, check)
        for name in names:
            state = self._packs.states[name]
            state.checked = True
            self.packs_checked += not state.absent

    def _plan(self, names: Sequence[bytes]) -> dict[tuple[str, int], tuple[bytes, Span]]:
        """What to read, by path and offset: the chunks that the trailer lists, or without a sound one those that others
        say are there."""
        states = self._packs.states
        spans: dict[tuple[str, int], tuple[bytes, Span]] = {}
        limit = self._backend.capabilities.span if self._backend.capabilities.remote else LOCAL_READ

        def plan(name: bytes, entries: Iterable[PackEntry]) -> None:
            state = states[name]
            within = []
            for entry in entries:
                if entry.offset + entry.csize <= state.size:
                    within.append(entry)
                else:
                    state.bad[fingerprint(entry)] = entry
            for span in plan_spans(within, limit):
                spans[pack_path(name.hex()), span.start] = name, span

        for name, found in self._packs.chunks_of(name for name in names if not states[name].claimed):
            if isinstance(found, MfstoreError):
                self._packs.failed(name, found)  # damaged or gone since its trailer was read
            else:
                plan(name, found)
        for name in names:
            if states[name].claimed:
                plan(name, list(states[name].claimed.values()))
        return spans

    def _check_span(self, name: bytes, span: Span, data: Buffer | MfstoreError) -> None:
        state = self._packs.states[name]
        try:
            if isinstance(data, MfstoreError) and not isinstance(data, CorruptObject):
                raise data
            bad: Sequence[PackEntry] = span.entries
            if not isinstance(data, MfstoreError):
                view = memoryview(data).cast("B")
                bad = [
                    entry
                    for together in by_place(span.entries)
                    for entry in self._check.broken(together, _stored(together[0], view, span.start))
                ]
                self._check.count(len(span.entries), len(view))
            bad = [entry for together in by_place(bad) for entry in self._broken_again(name, together)]
        except MfstoreError as error:
            kind = self._unread.kind_of(pack_path(name.hex()), error)
            with self._lock:
                if kind in ("missing", "unreadable"):
                    state.kind, state.detail, state.prints = kind, error.message, None
                else:
                    state.bad.update((fingerprint(entry), entry) for entry in span.entries)
            return
        if bad:
            with self._lock:
                state.bad.update((fingerprint(entry), entry) for entry in bad)

    def _broken_again(self, name: bytes, together: list[PackEntry]) -> list[PackEntry]:
        """Which of the chunks that lie together and seemed damaged are so when they are read again. Raises when the
        storage does not give them."""
        path = pack_path(name.hex())
        try:
            stored = self._backend.read_again(path, together[0].offset, together[0].csize)
        except CorruptObject:
            return together
        broken = self._check.broken(together, memoryview(stored))
        if len(broken) < len(together):
            self._unread.add_unsteady(path)
        return broken


def _stored(entry: PackEntry, view: memoryview, start: int) -> memoryview:
    """The encoded bytes of a chunk, in what was read from ``start`` on."""
    return view[entry.offset - start : entry.offset - start + entry.csize]
