"""The pack that is being filled: in which order chunks lie, and when a pack is full."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from operator import sub
from typing import TYPE_CHECKING

from mfstore._core.codec import GROUP, NONE
from mfstore.format.fragments import new_location
from mfstore.format.packs import ALIGN_FROM, PackBuilder, PackEntry, PackPiece, pack_path
from mfstore.progress import METER
from mfstore.saving.codecs import LABELS

if TYPE_CHECKING:
    from mfstore.backends.base import Batch
    from mfstore.format.fragments import Location
    from mfstore.format.packs import Pieces
    from mfstore.progress import Meter
    from mfstore.saving.codecs import EncodedChunk
    from mfstore.saving.context import SaveContext, SessionStats
    from mfstore.saving.deltas import EncodedDelta
    from mfstore.saving.drafts import Run

PACK_SHARE = 4
"""A pack is closed at memory / 4 bytes: 64 MiB by default. A raw segment stays in one pack whatever its length, so
that it can be mapped. The extra memory of a save is a pack and two windows, half of the budget; codecs and the
allocator take some of the rest."""
PACK_OVERRUN = 4 << 20
"""How far short runs may fill a pack beyond its limit where a further pack is two more requests: the body of a large
array comes after it."""


class PackWriter:
    """Lays out encoded chunks in packs and stores each pack when it is full.

    Where a chunk lies is noted in ``located``; its pack has a name once that is closed.
    """

    def __init__(
        self, context: SaveContext, batch: Batch, located: MutableMapping[bytes, Location], written: SessionStats
    ) -> None:
        self.names = bytearray()
        """Names of the packs stored so far, back to back."""
        self.sizes: dict[bytes, int] = {}
        """Stored bytes of each."""
        self.pieces: dict[bytes, Mapping[int, Pieces]] = {}
        """Of each, what its deltas are against, by where they lie."""
        self._digest = context.digest
        self._algorithm = context.algorithm
        self._limit = context.memory // PACK_SHARE
        self._overrun = PACK_OVERRUN if context.backend.capabilities.remote else 0
        self._told = context.backend.capabilities.told
        self._counted = 0
        self._batch = batch
        self._located = located
        self._written = written
        self._pack = PackBuilder(context.algorithm)
        self._last_run: Run | None = None
        self._closed: list[tuple[bytes, list[PackEntry]]] = []

    @property
    def is_empty(self) -> bool:
        """Whether this save has put nothing into packs so far."""
        return not self._pack.entries and not self.names

    @property
    def borrowed(self) -> int:
        """Bytes of the open pack that are the memory of who saves."""
        return self._pack.borrowed

    def copy_borrowed(self) -> None:
        """Copy what the open pack holds of others' memory, which is about to change."""
        self._pack.own()

    def add(self, run: Run, first: int, last: int, encoded: Sequence[EncodedChunk] | None) -> None:
        """The next chunks: those of ``run`` from ``first`` to before ``last``, as they are ``encoded``; None: all of
        them lie raw."""
        pack = self._pack
        continues = self._last_run is run
        limit = self._limit + (self._overrun if len(run.view) <= ALIGN_FROM else 0)
        if pack.held >= limit or (pack.length >= limit and not (continues and encoded is None)):
            self.close()
            pack = self._pack
            continues = False
        self._last_run = run
        start = run.ends[first - 1] if first else 0
        if encoded is None:
            if not continues and len(run.view) >= ALIGN_FROM:
                pack.align()
            ends = run.ends[first:last]
            sizes = list(map(sub, ends, [start, *ends]))
            entries = list(zip(run.ids[first:last], sizes, sizes, strict=True))
            self._append(pack, run.view[start : ends[-1]], entries, NONE, 0, run.held)
            return
        groups: dict[int, int] = {}
        """Where each group lies, by the ``id`` of its bytes."""
        for number, chunk in zip(range(first, last), encoded, strict=True):
            end = run.ends[number]
            if chunk.codec == GROUP:
                # Listed in the order in which they come, whatever lies between them: a later save finds what was there.
                before = len(pack.entries)
                if (at := groups.get(id(chunk.data))) is None:
                    at = groups[id(chunk.data)] = pack.add_group(bytes(chunk.data), ())
                pack.list_chunk(at, len(chunk.data), (run.ids[number], chunk.width, end - start))
                self._learn(pack, before)
                start = end
                continue
            entry = (run.ids[number], len(chunk.data), end - start)
            self._append(pack, chunk.data, [entry], chunk.codec, chunk.width, chunk.codec != NONE or run.held)
            start = end

    def count(self, size: int, meter: Meter) -> None:
        """So many bytes of what is saved have just been added. They count when their pack is sent, where its bytes are
        counted as they flow."""
        if self._told:
            self._counted += size
        else:
            meter.moved(size)

    def add_delta(self, run: Run, number: int, delta: EncodedDelta) -> None:
        """The next chunk, which is stored as a delta."""
        if self._pack.held >= self._limit or self._pack.length >= self._limit:
            self.close()
        self._last_run = None
        start = run.ends[number - 1] if number else 0
        entry = (run.ids[number], len(delta.data), run.ends[number] - start)
        self._pack.pieces[self._pack.length] = tuple(
            PackPiece(piece.id, piece.start, piece.length) for piece in delta.pieces
        )
        self._append(self._pack, memoryview(delta.data), [entry], delta.codec, delta.width, True)

    def _append(
        self, pack: PackBuilder, data: bytes | memoryview, entries: list[tuple[bytes, int, int]], codec: int,
        width: int, held: bool,
    ) -> None:  # fmt: skip
        before = len(pack.entries)
        pack.add(data, entries, codec, width, held)
        self._learn(pack, before)

    def _learn(self, pack: PackBuilder, before: int) -> None:
        """Where the chunks lie that the pack has beyond so many: they are encoded alike."""
        fresh = 0
        for chunk_id, at, csize, usize, codec, width in pack.entries[before:]:
            self._located[chunk_id] = new_location((pack.name, at, csize, usize, codec, width))
            fresh += usize
        name = LABELS[codec, bool(width)]
        self._written.codecs[name] = self._written.codecs.get(name, 0) + fresh

    def close(self) -> None:
        """Store the open pack, if there is anything in it. What is in it has a name then."""
        pack = self._pack
        self._last_run = None
        if not pack.entries:
            return
        self._pack = PackBuilder(self._algorithm)
        name, parts = pack.close(self._digest)
        size = sum(memoryview(part).nbytes for part in parts)
        if self._counted and (meter := METER.get()) is not None:
            meter.carry(self._counted, size)
            self._counted = 0
        self._batch.put(pack_path(name), parts)
        self._written.stored += size
        self._written.objects += 1
        self.sizes[pack.name.value] = size
        self.pieces[pack.name.value] = pack.pieces
        self.names += pack.name.value
        self._closed.append((pack.name.value, pack.entries))

    def take_closed(self) -> list[tuple[bytes, list[PackEntry]]]:
        """Name and chunks of each pack stored since this was asked last: what the index has to learn."""
        closed, self._closed = self._closed, []
        return closed
