"""Whether encoded bytes are the chunk that they should be."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from mfstore._core.codec import NONE
from mfstore.errors import CorruptObject, Unsupported
from mfstore.maintenance.reading import scratch

if TYPE_CHECKING:
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

    def whole(self, entry: PackEntry, stored: memoryview) -> bool:
        """Whether these encoded bytes are that chunk."""
        if entry.codec == NONE and not entry.width:
            return entry.csize == entry.usize and self._digest(stored) == entry.id
        target = scratch("chunk", entry.usize)
        try:
            self._workers.thread.codec.decode(
                stored, target, [(0, entry.csize, entry.codec, entry.width, 0, entry.usize)]
            )
        except (CorruptObject, Unsupported):
            return False
        return self._digest(target) == entry.id

    def count(self, chunks: int, of_packs: int) -> None:
        """So many chunks were compared, in so many bytes of packs."""
        with self._lock:
            self.chunks += chunks
            self.bytes += of_packs
