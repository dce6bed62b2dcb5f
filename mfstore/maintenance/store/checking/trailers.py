"""The two ends of packs: header and trailer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mfstore.backends.base import RangeRead
from mfstore.errors import CorruptObject, MfstoreError, Unsupported
from mfstore.format.packs import (
    END_BYTES,
    FOOTER,
    HEADER,
    MAGIC,
    VERSION,
    PackEntry,
    decode_footer,
    decode_pieces,
    entries_of,
    pack_path,
)
from mfstore.maintenance.reading import read_each

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.backends.base import Backend
    from mfstore.format.digests import Digest
    from mfstore.format.packs import Pieces
    from mfstore.host.workers import Workers
    from mfstore.maintenance.store.checking.unread import Unread


def read_trailers(
    backend: Backend, workers: Workers, digest: Digest, sizes: Mapping[bytes, int], unread: Unread,
    told: dict[bytes, Mapping[int, Pieces]] | None = None,
) -> Iterator[tuple[bytes, list[PackEntry] | MfstoreError]]:  # fmt: skip
    """The chunks that each of these packs lists, or what is wrong with its header or trailer: by two reads. ``sizes``
    are the lengths of the packs as they were listed. ``told`` learns what deltas are against, by where they lie, of
    packs that tell it."""
    ends = _Ends(digest, sizes, {} if told is None else told)
    read_each(backend, workers, ends.reads(), ends.arrived)
    read_each(backend, workers, ends.longer, ends.rest_arrived)
    for name in sizes:
        error = ends.errors.get(name)
        if isinstance(error, (CorruptObject, Unsupported)):
            path = pack_path(name.hex())
            try:
                found = read_trailer_again(backend, digest, name, sizes[name], told)
            except MfstoreError as again:
                yield name, again
                continue
            unread.add_unsteady(path)
            yield name, found
        else:
            yield name, error or ends.trailers[name]


def read_trailer_again(
    backend: Backend, digest: Digest, name: bytes, size: int, told: dict[bytes, Mapping[int, Pieces]] | None = None
) -> list[PackEntry]:
    """The chunks that a pack of this length lists, by reads past what may be kept of it. Raises what is wrong.
    ``told`` as of ``read_trailers``."""
    if size < HEADER.size + FOOTER.size:
        raise CorruptObject("pack is too short", found=size)
    path = pack_path(name.hex())
    check_header(backend.read_again(path, 0, HEADER.size))
    footer = backend.read_again(path, size - FOOTER.size, FOOTER.size)
    at, _ = decode_footer(footer, size)
    trailer = backend.read_again(path, at, size - FOOTER.size - at)
    entries = entries_of(digest, name, trailer, footer, at)
    if told is not None and (pieces := decode_pieces(trailer, footer)):
        told[name] = pieces
    return entries


class _Ends:
    """What has arrived of some packs, on any thread."""

    def __init__(
        self, digest: Digest, sizes: Mapping[bytes, int], told: dict[bytes, Mapping[int, Pieces]]
    ) -> None:  # fmt: skip
        self._digest = digest
        self._told = told
        self._sizes = sizes
        self._by_path = {pack_path(name.hex()): name for name in sizes}
        self._footers: dict[bytes, bytes] = {}
        self.errors: dict[bytes, MfstoreError] = {}
        self.trailers: dict[bytes, list[PackEntry]] = {}
        self.longer: list[RangeRead] = []
        """Trailers that begin before what was read."""

    def reads(self) -> Iterator[RangeRead]:
        """The first reads: both ends of each pack, in one if it is short."""
        for path, name in self._by_path.items():
            size = self._sizes[name]
            if size < HEADER.size + FOOTER.size:
                self.errors[name] = CorruptObject("pack is too short", found=size)
                continue
            if size > END_BYTES:
                yield RangeRead(path, 0, HEADER.size)
            yield RangeRead(path, max(0, size - END_BYTES), min(size, END_BYTES))

    def arrived(self, read: RangeRead, data: Buffer | MfstoreError) -> None:
        """An end of a pack, or the error it met."""
        name = self._by_path[read.key]
        size = self._sizes[name]
        try:
            if isinstance(data, MfstoreError):
                raise data
            view = memoryview(data)
            if read.start == 0:
                check_header(bytes(view[: HEADER.size]))
            if read.start + read.length < size:
                return
            footer = bytes(view[-FOOTER.size :])
            at, _ = decode_footer(footer, size)
            self._footers[name] = footer
            if at < read.start:
                self.longer.append(RangeRead(read.key, at, size - FOOTER.size - at))
            else:
                self._decode(name, bytes(view[at - read.start : -FOOTER.size]), at)
        except MfstoreError as error:
            self.errors.setdefault(name, error)

    def rest_arrived(self, read: RangeRead, data: Buffer | MfstoreError) -> None:
        """A long trailer, or the error it met."""
        name = self._by_path[read.key]
        try:
            if isinstance(data, MfstoreError):
                raise data
            self._decode(name, bytes(data), read.start)
        except MfstoreError as error:
            self.errors.setdefault(name, error)

    def _decode(self, name: bytes, trailer: bytes, at: int) -> None:
        footer = self._footers[name]
        self.trailers[name] = entries_of(self._digest, name, trailer, footer, at)
        if pieces := decode_pieces(trailer, footer):
            self._told[name] = pieces


def check_header(header: bytes) -> None:
    """CorruptObject, or Unsupported, when these are not the first bytes of a pack."""
    magic, version, flags, _ = HEADER.unpack(header)
    if magic != MAGIC:
        raise CorruptObject("pack does not begin with a header", offset=0, expected=MAGIC, found=magic)
    if version != VERSION or flags:
        raise Unsupported("pack version is unknown to this mfstore", expected=VERSION, found=version)
