"""Packs of the destination: chunks go in as they were encoded, in the order in which they lay."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mfstore._core.codec import DELTAS, GROUP, NONE
from mfstore.format.fragments import Location, new_location
from mfstore.format.packs import (
    HEADER,
    MAGIC,
    NO_PIECES,
    PAGE,
    VERSION,
    PackBuilder,
    PackName,
    PackPiece,
    encode_footer,
    encode_trailer,
    pack_path,
)
from mfstore.maintenance.store.groups import ALONE, by_place, move_group
from mfstore.saving.codecs import encode_chunk
from mfstore.saving.packing import PACK_SHARE

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.backends.base import Batch
    from mfstore.copying.reading import Fetched
    from mfstore.format.packs import PackEntry, Pieces
    from mfstore.saving.context import SaveContext


class CopiedPacks:
    """The packs that one window of a copy writes."""

    def __init__(self, context: SaveContext, batch: Batch) -> None:
        self.names = bytearray()
        """Of those stored so far, back to back."""
        self.sizes: dict[bytes, int] = {}
        self.pieces: dict[bytes, Mapping[int, Pieces]] = {}
        self.closed: list[tuple[bytes, list[PackEntry]]] = []
        """Name and chunks of each: what the index has to learn."""
        self.chunks = 0
        self.written = 0
        """Bytes."""
        self._context = context
        self._batch = batch
        self.limit = context.memory // PACK_SHARE
        """Bytes at which a pack is closed, as those of a save. What is held besides is one load of reads, as much at
        most."""
        self._pack = PackBuilder(context.algorithm)
        self._last: PackEntry | None = None
        """What was added last, if what follows it at the source may follow it here."""
        self._last_pack = b""

    def add(self, fetched: Fetched, pieces: Mapping[int, tuple[PackPiece, ...]]) -> list[tuple[PackEntry, Location]]:
        """Take the chunks of a read that are whole. ``pieces`` are what its deltas are against, by where they lie.
        Each chunk, as it lay at the source, with where it lies now."""
        placed: list[tuple[PackEntry, Location]] = []
        if fetched.fetch.pack != self._last_pack:
            self._last, self._last_pack = None, fetched.fetch.pack
        for number, together in enumerate(fetched.fetch.places):
            if number in fetched.bad:
                self._last = None
                continue
            first = together[0]
            if self._pack.held >= self.limit or (self._pack.length >= self.limit and not self._follows(first)):
                self.close()
            at = first.offset - fetched.fetch.start
            stored = fetched.data[at : at + first.csize]
            before = len(self._pack.entries)
            if first.codec == GROUP:
                move_group(self._pack, self._context.workers.thread.codec, stored, together)
                self._last = None
            else:
                self._align(first)
                if first.codec in DELTAS:
                    self._pack.pieces[self._pack.length] = pieces[first.offset]
                entry = (first.id, first.csize, first.usize)
                self._pack.add(stored, [entry], first.codec, first.width, not fetched.mapped)
                self._last = first
            placed += [
                (old, self._located(now)) for old, now in zip(together, self._pack.entries[before:], strict=True)
            ]
        return placed

    def _align(self, entry: PackEntry) -> None:
        """What could be mapped at the source still can; what follows a raw chunk there does so here."""
        if entry.codec == NONE and entry.offset % PAGE == 0 and not self._follows(entry):
            self._pack.align()

    def _follows(self, entry: PackEntry) -> bool:
        """Whether a raw chunk lies behind the last one here as it does at the source."""
        last = self._last
        return last is not None and last.codec == NONE == entry.codec and last.offset + last.csize == entry.offset

    def add_content(self, chunk_id: bytes, content: memoryview) -> Location:
        """Take a chunk by its bytes, to be encoded anew."""
        if self._pack.length >= self.limit:
            self.close()
        self._last = None
        chunk = encode_chunk(self._context.workers.thread.codec, content, ALONE)
        self._pack.add(bytes(chunk.data), [(chunk_id, len(chunk.data), len(content))], chunk.codec, chunk.width, True)
        return self._located(self._pack.entries[-1])

    def add_pack(
        self, body: memoryview, entries: Sequence[PackEntry], pieces: Mapping[int, Pieces]
    ) -> list[tuple[PackEntry, Location]]:
        """Store a pack as it is, by all that lies before its trailer: of the same name, as that is the trailer's
        digest. Its nonce is its own: of two versions at the destination a collector knows which one it means."""
        trailer = encode_trailer(entries, pieces)
        name = PackName(self._context.digest(trailer))
        parts: list[Buffer] = [HEADER.pack(MAGIC, VERSION, 0, self._context.algorithm)]
        at = HEADER.size
        run = at
        for together in by_place(entries):
            start, end = together[0].offset, together[0].offset + together[0].csize
            if start > at:  # what fills a page is no chunk, and was not checked
                parts += (body[run:at], bytes(start - at))
                run = start
            at = end
        parts.append(body[run:at])
        count = sum(map(len, pieces.values()))
        footer = encode_footer(len(entries), self._context.algorithm, at, os.urandom(16), trailer, count)
        self._put(name.value, [*parts, trailer, footer], entries, pieces)
        return [(entry, new_location((name, *entry[1:]))) for entry in entries]

    def learn_pack(
        self, name: bytes, entries: Sequence[PackEntry], pieces: Mapping[int, Pieces]
    ) -> list[tuple[PackEntry, Location]]:
        """A pack that is there already, and that the index does not know."""
        self.closed.append((name, list(entries)))
        self.pieces[name] = pieces
        pack = PackName(name)
        return [(entry, new_location((pack, *entry[1:]))) for entry in entries]

    def _located(self, entry: PackEntry) -> Location:
        return new_location((self._pack.name, *entry[1:]))

    def close(self) -> None:
        """Store the open pack, if there is anything in it."""
        pack, self._last = self._pack, None
        if pack.entries:
            self._pack = PackBuilder(self._context.algorithm)
            _, parts = pack.close(self._context.digest)
            self._put(pack.name.value, parts, pack.entries, pack.pieces)

    def _put(
        self, name: bytes, parts: Sequence[Buffer], entries: Sequence[PackEntry], pieces: Mapping[int, Pieces]
    ) -> None:
        size = sum(memoryview(part).nbytes for part in parts)
        self._batch.put(pack_path(name.hex()), parts)
        self.names += name
        self.sizes[name] = size
        self.pieces[name] = pieces or NO_PIECES
        self.closed.append((name, list(entries)))
        self.chunks += len(entries)
        self.written += size
