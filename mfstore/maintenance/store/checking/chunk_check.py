"""Whether encoded bytes are the chunk that they should be."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from mfstore._core.codec import DELTAS, GROUP, NONE, delta_seal_is_right
from mfstore.errors import CorruptObject, Unsupported
from mfstore.maintenance.reading import scratch
from mfstore.maintenance.store.groups import decode_group, part_of

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    def broken(self, together: Sequence[PackEntry], stored: memoryview) -> list[PackEntry]:
        """Those chunks that are not whole, of such as lie together: in a group, which these encoded bytes are, or one
        that is in none. A group is decoded once; what comes before the damage in it may be whole."""
        if together[0].codec != GROUP:
            return [entry for entry in together if not self.whole(entry, stored)]
        whole = self._parts(together, stored)
        return [entry for entry in together if entry not in whole]

    def contents(self, together: Sequence[PackEntry], stored: memoryview) -> dict[PackEntry, bytes]:
        """The bytes of those that are whole, of chunks that lie together as for ``broken`` and are no deltas."""
        if together[0].codec == GROUP:
            return {entry: bytes(part) for entry, part in self._parts(together, stored).items()}
        found = {}
        for entry in together:
            target = scratch("chunk", entry.usize)
            if self.decoded(entry, stored, target):
                found[entry] = bytes(target)
        return found

    def _parts(self, together: Sequence[PackEntry], stored: memoryview) -> dict[PackEntry, memoryview]:
        """The whole chunks of a group, in memory of this thread, until the next ones."""
        content, _ = decode_group(self._workers.thread.codec, stored, together, partial(scratch, "group"))
        parts = {entry: part_of(content, entry) for entry in together}
        return {entry: part for entry, part in parts.items() if self._digest(part) == entry.id}

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
