"""What is too much for memory, in a temporary file without a name: nothing of it is left when the process ends, however
it does."""

from __future__ import annotations

import errno
import marshal
import os
import tempfile
import weakref
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import itemgetter
from typing import IO, Any

from mfstore.maintenance.temporary_files import told_errors

_LENGTH_BITS = 32
_DIGEST_BYTES = 4
BLOCK_ROWS = 512
"""Rows that are read together: of each of some hundred sorted lists a block is in memory."""


Block = list[tuple[bytes, Any]]
"""Rows of a sorted list."""


class Spill:
    """Bytes by number, in the folder for temporary files (TMPDIR)."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._end = 0

    def put(self, data: bytes) -> int:
        """Keep this; by which number it is found. OutOfSpace when the disk is full, BackendError when it fails."""
        place = self._end
        with told_errors():
            file = self._opened()
            rest = memoryview(data + _digest(data))
            while rest:
                written = os.pwrite(file.fileno(), rest, self._end)
                rest = rest[written:]
                self._end += written
        return place << _LENGTH_BITS | len(data)

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        return self._file

    def get(self, number: int) -> bytes:
        """What was kept under this number. BackendError when the disk fails, or has other bytes now."""
        assert self._file is not None
        place, length = number >> _LENGTH_BITS, number & (1 << _LENGTH_BITS) - 1
        with told_errors():
            found = os.pread(self._file.fileno(), length + _DIGEST_BYTES, place)
            data = found[:length]
            if found[length:] != _digest(data):
                raise OSError(errno.EIO, "it has other bytes than were written")
        return data

    def put_rows(self, rows: list[Any]) -> int:
        """Keep these rows, of what ``marshal`` takes, as ``put``."""
        return self.put(zlib.compress(marshal.dumps(rows), 1))

    def rows(self, number: int) -> list[Any]:
        """The rows that were kept under this number, as ``get``."""
        found: list[Any] = marshal.loads(zlib.decompress(self.get(number)))
        return found


def _digest(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_DIGEST_BYTES, "little")


class KeyedRows:
    """Values of flows by keys, which are bytes: the last ones in memory, and those beyond some in a temporary file, a
    list sorted by key, in blocks, for each time that there were too many."""

    def __init__(self, spill: Spill | None, most: int, packed: Callable[[Any], bytes] | None = None) -> None:
        """``most`` are in memory; without ``spill`` all are. ``packed``: what is in memory is by other keys, and this
        makes each of them bytes."""
        self._spill = spill
        self._most = most
        self._packed = packed
        self._here: dict[str, dict[Any, Any]] = {}
        self.in_memory = 0
        """How many these are."""
        self._lists: dict[str, list[list[int]]] = {}

    @property
    def flows(self) -> set[str]:
        """Every flow that has any."""
        return {flow for flow, rows in self._here.items() if rows} | self._lists.keys()

    def here(self, flow: str) -> dict[Any, Any]:
        """Those of a flow that are in memory. Who adds some says so (``grew``)."""
        return self._here.setdefault(flow, {})

    def is_spilled(self, flow: str) -> bool:
        """Whether there are others of it."""
        return flow in self._lists

    def grew(self, by: int) -> None:
        """So many have come. OutOfSpace when the disk is full."""
        self.in_memory += by
        if self._spill is not None and self.in_memory > self._most:
            for flow in self._here:
                self._write(self._spill, flow)
            self._here = {}
            self.in_memory = 0

    def _write(self, spill: Spill, flow: str) -> None:
        blocks = list(map(spill.put_rows, in_blocks(self._sorted(flow))))
        if blocks:
            self._lists.setdefault(flow, []).append(blocks)

    def _sorted(self, flow: str) -> Iterator[tuple[bytes, Any]]:
        rows = self._here.get(flow, {})
        if self._packed is None:
            return ((key, rows[key]) for key in sorted(rows))
        return iter(sorted(zip(map(self._packed, rows), rows.values(), strict=True), key=itemgetter(0)))

    def in_order(self, flow: str) -> Iterator[tuple[bytes, Any]]:
        """All of a flow in the order of their keys; what came several times under one is there as often, in the order
        in which it came."""
        lists = self._lists.get(flow)
        return merged([*map(self._read, lists), in_blocks(self._sorted(flow))]) if lists else self._sorted(flow)

    def latest_in_order(self, flow: str) -> Iterator[tuple[bytes, Any]]:
        """As ``in_order``; of what came several times under one key the last."""
        last: tuple[bytes, Any] | None = None
        for row in self.in_order(flow):
            if last is not None and last[0] != row[0]:
                yield last
            last = row
        if last is not None:
            yield last

    def _read(self, blocks: Iterable[int]) -> Iterator[Block]:
        assert self._spill is not None
        return map(self._spill.rows, blocks)


def merged(lists: Iterable[Iterator[list[Any]]]) -> Iterator[Any]:
    """The rows of lists, each of which is sorted by keys and has each once, in the order of keys; of one key in the
    order of lists. Up to where the first block ends rows are put together and sorted, which takes a part of the time
    that ``heapq.merge`` does."""
    rest = [(block, 0, blocks) for blocks in lists if (block := next(blocks, None))]
    while rest:
        last = min([block[-1][0] for block, _, _ in rest])
        rows: list[Any] = []
        left = []
        for block, at, blocks in rest:
            end = bisect_right(block, last, at, key=itemgetter(0))
            rows += block[at:end]
            if end < len(block):
                left.append((block, end, blocks))
            elif following := next(blocks, None):
                left.append((following, 0, blocks))
        rest = left
        rows.sort(key=itemgetter(0))
        yield from rows


def in_blocks(rows: Iterator[Any]) -> Iterator[list[Any]]:
    """Rows, some together each time."""
    while block := list(islice(rows, BLOCK_ROWS)):
        yield block
