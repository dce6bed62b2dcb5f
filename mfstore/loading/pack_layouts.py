"""What lies where in packs, as their trailers say: a pack's name is the digest of that, so it is asked for once."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from mfstore.backends.base import RangeRead
from mfstore.errors import BackendError, MfstoreError
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
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.format.digests import Digest
    from mfstore.format.packs import PackEntry, Pieces


READ_WITH = 256 << 10
"""Bytes at a pack's end that are read for its trailer where reading is cheap, and kept for the check of what is found
there: a file is opened once then, not once for each chunk and its trailer. To copy them takes 30 us, as much as opening
three files; the pack of an artifact of 160 kB is no longer."""
KEPT = 16
"""Ends that are kept: 4 MiB."""
KEPT_SECONDS = 5.0
"""So long what was read counts as seen just now: far less than may pass before what rests on it is acknowledged."""


class PackEnd(NamedTuple):
    """The last bytes of a pack."""

    start: int
    """Where in the pack they begin."""
    data: bytes
    identity: Any
    """Of the pack before they were read."""


class PackLayouts:
    """The layouts of packs that this process wrote or whose trailers it read, a chunk in 8 bytes."""

    LIMIT = 1 << 20
    """Chunks remembered."""

    RECENT = 1 << 14
    """Chunks of which all is remembered, not only whether they lie there: 200 bytes each."""

    def __init__(
        self, backend: Backend, digest: Digest, seen: Callable[[str, int], None] = lambda _pack, _size: None
    ) -> None:  # fmt: skip
        """``seen`` is told of packs that the backend vouches for, and how long each is."""
        self._backend = backend
        self._digest = digest
        self._seen = seen
        self._keeps = backend.capabilities.cheap_reads
        self._kept: dict[str, PackEnd] = {}
        self._kept_at = 0.0
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

    def read(self, packs: Iterable[str]) -> None:
        """Read the trailers of those packs that are not known yet. One that is damaged, or may not be read, stays
        unknown. BackendError when the storage failed."""
        self._read([pack for pack in packs if pack not in self._prints])

    def entries(self, packs: Sequence[str], keep: bool = False) -> dict[str, Sequence[PackEntry]]:
        """What lies in each of these packs; read unless it is remembered. Without those that are gone, damaged, or may
        not be read. ``keep``: what is read is about to be checked too, by ``take_ends``.

        Raises:
            BackendError: the storage failed.
        """
        self._read([pack for pack in packs if pack not in self._recent], keep and self._keeps)
        return {pack: self._recent[pack] for pack in packs if pack in self._recent}

    def pieces(self, pack: str) -> Mapping[int, Pieces]:
        """What the deltas of a pack are against whose ``entries`` were read, as far as its trailer tells."""
        return self._pieces.get(pack, NO_PIECES)

    def take_ends(self) -> Mapping[str, PackEnd]:
        """What was read with trailers since this was asked last, where reading is cheap: bytes that were seen just
        now need not be read again. Not of packs that are gone or replaced since."""
        taken, self._kept = self._kept, {}
        if monotonic() - self._kept_at >= KEPT_SECONDS:
            return {}
        return {
            pack: end for pack, end in taken.items()
            if end.identity is not None and end.identity == self._identity(pack)
        }  # fmt: skip

    def _identity(self, pack: str) -> Any:
        """None when that cannot be told."""
        try:
            return self._backend.identity(pack_path(pack))
        except MfstoreError:
            return None

    def _read(self, packs: Sequence[str], keep: bool = False) -> None:
        longer = {}
        if keep and packs:
            kept_at = monotonic()
            if kept_at - self._kept_at >= KEPT_SECONDS:
                self._kept, self._kept_at = {}, kept_at
        identities = list(map(self._identity, packs)) if keep else ()
        ends = self._backend.read_ends(list(map(pack_path, packs)), READ_WITH if keep else END_BYTES)
        for number, end in ends:
            pack = packs[number]
            if isinstance(end, BackendError):
                raise end
            if isinstance(end, MfstoreError):
                continue  # then what is said to lie there is read itself
            if end.vouched:
                self._seen(pack, end.size)
            data = bytes(memoryview(end.data).cast("B"))
            start = end.size - len(data)
            if identities and len(self._kept) < KEPT:
                self._kept[pack] = PackEnd(start, data, identities[number])
            try:
                at = decode_footer(data[-FOOTER.size :], end.size)[0]
                if at < start:
                    longer[pack] = at, end.size
                else:
                    self._learn(pack, data[at - start :], at)
            except MfstoreError:
                continue
        for pack, at, data in self._reads(longer):
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

    def _reads(self, places: Mapping[str, tuple[int, int]]) -> Iterator[tuple[str, int, bytes]]:
        """Each of these packs from an offset to its end."""
        names = list(places)
        reads = [RangeRead(pack_path(pack), at, size - at) for pack, (at, size) in places.items()]
        for number, data in self._backend.read_many(reads):
            if isinstance(data, BackendError):
                raise data
            if not isinstance(data, MfstoreError):
                yield names[number], reads[number].start, bytes(memoryview(data).cast("B"))

    def _learn(self, pack: str, data: bytes, at: int) -> None:
        trailer, footer = data[: -FOOTER.size], data[-FOOTER.size :]
        entries = entries_of(self._digest, bytes.fromhex(pack), trailer, footer, at)
        self.add(pack, entries, decode_pieces(trailer, footer))
