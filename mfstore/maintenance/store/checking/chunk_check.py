"""Whether encoded bytes are the chunk that they should be."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from mfstore._core.codec import DELTAS, NONE, delta_seal_is_right
from mfstore.errors import CorruptObject, Unsupported
from mfstore.maintenance.reading import scratch

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.format.digests import Digest
    from mfstore.format.packs import PackEntry
    from mfstore.host.workers import Workers


class ChunkCheck:
    """Compares chunks with their digests, on any thread, and counts them."""

    def __init__(self, workers: Workers, digest: Digest) -> None:
        self._workers = workers
        self._digest = digest
        self._lock = threading.Lock()
        self.chunks = 0
        """Chunks compared."""
        self.bytes = 0
        """Bytes of packs that these took."""
        self.deltas = 0
        """Deltas that were decoded with their bases, and compared."""

    def whole(self, entry: PackEntry, stored: memoryview) -> bool:
        """Whether these encoded bytes are that chunk. Of a delta, whether they are what was stored: that it gives the
        chunk with its base is told by ``DeltaReader``, and that needs the recipe."""
        if entry.codec in DELTAS:
            return len(stored) == entry.csize and delta_seal_is_right(stored)
        if entry.codec == NONE and not entry.width:
            return entry.csize == entry.usize and self._digest(stored) == entry.id
        return self.decoded(entry, stored, scratch("chunk", entry.usize))

    def decoded(self, entry: PackEntry, stored: memoryview, target: memoryview | bytearray) -> bool:
        """Whether these encoded bytes, which are no delta, are that chunk; then it is in ``target``."""
        job = (0, entry.csize, entry.codec, entry.width, 0, entry.usize)
        try:
            self._workers.thread.codec.decode(stored, target, [job])
        except (CorruptObject, Unsupported):
            return False
        return self._digest(target) == entry.id

    def gives(self, entry: PackEntry, stored: memoryview, base: Buffer) -> bool:
        """Whether a delta, as it is stored, and its base are that chunk."""
        target = scratch("chunk", entry.usize)
        try:
            self._workers.thread.codec.decode_delta(stored, base, entry.codec, entry.width, target)
        except (CorruptObject, Unsupported):
            return False
        return self._digest(target) == entry.id

    def count(self, chunks: int, of_packs: int) -> None:
        """So many chunks were compared, in so many bytes of packs."""
        with self._lock:
            self.chunks += chunks
            self.bytes += of_packs

    def count_delta(self) -> None:
        """A delta was decoded and compared."""
        with self._lock:
            self.deltas += 1
