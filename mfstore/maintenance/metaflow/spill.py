"""What is too much for memory, in a temporary file without a name: nothing of it is left when the process ends, however
it does."""

from __future__ import annotations

import errno
import heapq
import marshal
import os
import tempfile
import weakref
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import itemgetter
from typing import IO, Any

from mfstore.errors import OutOfSpace

_LENGTH_BITS = 32
BLOCK_ROWS = 512
"""Rows that are read together: of each of some hundred sorted lists a block is in memory."""


class Spill:
    """Bytes by number, in the folder for temporary files (TMPDIR)."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._end = 0

    def put(self, data: bytes) -> int:
        """Keep this; by which number it is found. OutOfSpace when the disk is full."""
        try:
            file = self._opened()
            place = self._end
            rest = memoryview(data)
            while rest:
                written = os.pwrite(file.fileno(), rest, self._end)
                rest = rest[written:]
                self._end += written
        except OSError as error:
            # Without room no folder is usable at all.
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or self._file is None:
                raise OutOfSpace(
                    f"no room for what was listed: {error.strerror}", found=str(tempfile.tempdir or ""),
                    hint="Give a folder with more room as TMPDIR: some 50 bytes an object. The next collection goes on",
                ) from error  # fmt: skip
            raise
        return place << _LENGTH_BITS | len(data)

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        return self._file

    def get(self, number: int) -> bytes:
        """What was kept under this number."""
        assert self._file is not None
        place, length = number >> _LENGTH_BITS, number & (1 << _LENGTH_BITS) - 1
        data = os.pread(self._file.fileno(), length, place)
        if len(data) != length:
            raise OSError(errno.EIO, "a temporary file ends too early")
        return data


class SpilledRows:
    """Tuples that are sorted by their first value, a list of blocks for each time that some were kept."""

    def __init__(self, spill: Spill) -> None:
        self._spill = spill
        self._lists: dict[str, list[list[int]]] = {}

    def __contains__(self, flow: str) -> bool:
        return flow in self._lists

    @property
    def flows(self) -> set[str]:
        """Every flow that has any."""
        return set(self._lists)

    def add(self, flow: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Keep these rows of a flow, which are sorted."""
        rest = iter(rows)
        blocks = []
        while block := list(islice(rest, BLOCK_ROWS)):
            blocks.append(self._spill.put(zlib.compress(marshal.dumps(block), 1)))
        if blocks:
            self._lists.setdefault(flow, []).append(blocks)

    def in_order(self, flow: str, more: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """All rows of a flow, and ``more`` that are sorted, sorted; of equal ones those first that came first."""
        lists = [self._rows(blocks) for blocks in self._lists.get(flow, ())]
        return heapq.merge(*lists, more, key=itemgetter(0)) if lists else iter(more)

    def _rows(self, blocks: Iterable[int]) -> Iterator[tuple[Any, ...]]:
        for number in blocks:
            yield from marshal.loads(zlib.decompress(self._spill.get(number)))
