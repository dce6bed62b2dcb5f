"""What lies where in packs, as their trailers say: a pack's name is the digest of that, so it is asked for once."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mfstore.backends.base import RangeRead
from mfstore.errors import AccessDenied, BackendError, MfstoreError
from mfstore.format.packs import (
    END_BYTES,
    FOOTER,
    NO_PIECES,
    decode_footer,
    decode_pieces,
    entries_of,
    fingerprint,
    pack_path,
)

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.format.digests import Digest
    from mfstore.format.packs import PackEntry, Pieces


class PackLayouts:
    """The layouts of packs that this process wrote or whose trailers it read, a chunk in 8 bytes."""

    LIMIT = 1 << 20
    """Chunks remembered."""

    RECENT = 1 << 14
    """Chunks of which all is remembered, not only whether they lie there: 200 bytes each."""

    def __init__(self, backend: Backend, digest: Digest) -> None:
        self._backend = backend
        self._digest = digest
        self._prints: dict[str, array[int]] = {}
        self._count = 0
        self._recent: dict[str, Sequence[PackEntry]] = {}
        self._pieces: dict[str, Mapping[int, Pieces]] = {}

    def add(self, pack: str, entries: Sequence[PackEntry], pieces: Mapping[int, Pieces] = NO_PIECES) -> None:
        """What lies in a pack, and what its deltas are against, by where they lie."""
        recent = list(self._recent.values())  # other threads add to it meanwhile
        if sum(map(len, recent)) + len(entries) > self.RECENT:
            self._recent, self._pieces = {}, {}
        self._recent[pack] = entries
        self._pieces[pack] = pieces
        prints = array("Q", sorted(map(fingerprint, entries)))
        if self._count + len(prints) > self.LIMIT:
            self._prints = {}
            self._count = 0
        self._prints[pack] = prints
        self._count += len(prints)

    def read(self, sizes: Mapping[str, int]) -> None:
        """Read the trailers of these packs, by their lengths, which are not known yet. One that is damaged stays
        unknown.

        Raises:
            AccessDenied: a pack may not be read.
            BackendError: the storage failed.
        """
        self._read({pack: size for pack, size in sizes.items() if pack not in self._prints and size > FOOTER.size})

    def entries(self, sizes: Mapping[str, int]) -> dict[str, Sequence[PackEntry]]:
        """What lies in each of these packs, by their lengths; read unless it is remembered. Without those that are
        damaged, or may not be read.

        Raises:
            BackendError: the storage failed.
        """
        missing = {pack: size for pack, size in sizes.items() if pack not in self._recent and size > FOOTER.size}
        self._read(missing, refusals=False)
        return {pack: self._recent[pack] for pack in sizes if pack in self._recent}

    def pieces(self, pack: str) -> Mapping[int, Pieces]:
        """What the deltas of a pack are against whose ``entries`` were read, as far as its trailer tells."""
        return self._pieces.get(pack, NO_PIECES)

    def recent(self, pack: str) -> bool:
        """Whether ``entries`` has it without reading."""
        return pack in self._recent

    def _read(self, sizes: Mapping[str, int], refusals: bool = True) -> None:
        """``refusals``: that a pack may not be read is raised."""
        longer = {}
        starts = {pack: max(0, size - END_BYTES) for pack, size in sizes.items()}
        for pack, start, data in self._reads(starts, sizes, refusals):
            try:
                at = decode_footer(data[-FOOTER.size :], sizes[pack])[0]
                if at < start:
                    longer[pack] = at
                else:
                    self._learn(pack, data[at - start :], at)
            except MfstoreError:
                continue  # then what is said to lie there is read itself
        for pack, at, data in self._reads(longer, sizes, refusals):
            try:
                self._learn(pack, data, at)
            except MfstoreError:
                continue

    def knows(self, pack: str) -> bool:
        """Whether it is known what lies in a pack."""
        return pack in self._prints

    def holds(self, pack: str, entry: PackEntry) -> bool:
        """Whether that chunk lies there; False when it is not known."""
        prints = self._prints.get(pack)
        if prints is None:
            return False
        print_ = fingerprint(entry)
        at = bisect_left(prints, print_)
        return at < len(prints) and prints[at] == print_

    def _reads(
        self, starts: Mapping[str, int], sizes: Mapping[str, int], refusals: bool
    ) -> Iterator[tuple[str, int, bytes]]:
        """Each of these packs from an offset to its end."""
        names = list(starts)
        reads = [RangeRead(pack_path(pack), at, sizes[pack] - at) for pack, at in starts.items()]
        for number, data in self._backend.read_many(reads):
            if isinstance(data, BackendError) or (refusals and isinstance(data, AccessDenied)):
                raise data
            if not isinstance(data, MfstoreError):
                yield names[number], reads[number].start, bytes(memoryview(data).cast("B"))

    def _learn(self, pack: str, data: bytes, at: int) -> None:
        trailer, footer = data[: -FOOTER.size], data[-FOOTER.size :]
        entries = entries_of(self._digest, bytes.fromhex(pack), trailer, footer, at)
        self.add(pack, entries, decode_pieces(trailer, footer))
