"""Both ends of a body for engines written in Python: where it comes from, where it lands, and its checksum."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mfstore._core import crc
from mfstore.s3.calls import FileRange

if TYPE_CHECKING:
    from typing_extensions import Buffer

COPIED_BYTES = 256 << 10  # of a body at a time


class BodyDropped(Exception):
    """The call was given up: its buffers and descriptors are no longer ours."""


class FileShortened(OSError):
    """A file that is sent ends before what was to be sent of it. It has no errno."""


class Checksum:
    """A CRC of bytes as they pass."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self.value = 0

    def update(self, data: Buffer) -> None:
        """Add bytes."""
        self.value = crc.update(self.algorithm, data, self.value)

    def pair(self) -> tuple[str, int]:
        """For ``Reply.checksum``."""
        return self.algorithm, self.value

    def header(self) -> tuple[str, str]:
        """Algorithm and value as S3 has it in headers."""
        return self.algorithm, crc.encode(self.algorithm, self.value)


def checksum_of_whole(headers: Mapping[str, str]) -> str | None:
    """The algorithm of the checksum of the whole object that a response carries."""
    for algorithm in crc.NAMES:
        value = headers.get("x-amz-checksum-" + algorithm.lower())
        if value and "-" not in value:  # "…-5" is a checksum of checksums of parts
            return algorithm
    return None


class BodySource:
    """A body to send, readable and seekable. Hands out copies, so that nothing keeps the caller's memory."""

    def __init__(self, body: Sequence[Buffer] | FileRange | None, lock: threading.Lock) -> None:
        self._file = body if isinstance(body, FileRange) else None
        self._views = [] if body is None or self._file else [memoryview(part).cast("B") for part in body]  # type: ignore[union-attr]
        self.length = self._file.length if self._file else sum(len(view) for view in self._views)
        self._lock = lock
        self._at = 0
        self._open = True
        self.failure: OSError | None = None
        """Why the file could not be read."""

    def drop(self) -> None:
        """No read after this; called with the lock held."""
        self._open = False
        self._views = []

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go elsewhere."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """The next up to ``size`` bytes. Raises BodyDropped, and OSError when a file fails or became shorter."""
        left = max(0, self.length - self._at)
        want = left if size is None or size < 0 else min(size, left)
        if not want:
            return b""
        with self._lock:
            if not self._open:
                raise BodyDropped
            try:
                data = self._from_file(want) if self._file else self._from_memory(want)
            except OSError as error:
                self.failure = error
                raise
        self._at += len(data)
        return data

    def checksum(self, algorithm: str) -> Checksum:
        """That of all of it, which is read; the next read begins at its start. Raises as ``read``."""
        found = Checksum(algorithm)
        self.seek(0)
        while piece := self.read(COPIED_BYTES):
            found.update(piece)
        self.seek(0)
        return found

    def _from_file(self, want: int) -> bytes:
        assert self._file is not None
        data = os.pread(self._file.fd, want, self._file.offset + self._at)
        if not data:
            raise FileShortened("the file is shorter than it was")
        return data

    def _from_memory(self, want: int) -> bytes:
        pieces, skip = [], self._at
        for view in self._views:
            if skip < len(view):
                piece = bytes(view[skip : skip + want])
                pieces.append(piece)
                want -= len(piece)
                skip = 0
                if not want:
                    break
            else:
                skip -= len(view)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class BodySink:
    """Where a body lands: memory, part of a file, or a growing buffer without target."""

    def __init__(self, target: memoryview | FileRange | None, lock: threading.Lock) -> None:
        self._file = target if isinstance(target, FileRange) else None
        self._view = target.cast("B") if isinstance(target, memoryview) else None
        self._lock = lock
        self._open = True
        self.grown = bytearray()
        self.received = 0
        self.room: int | None = None if target is None else self._file.length if self._file else len(self._view or b"")

    def drop(self) -> None:
        """No write after this; called with the lock held."""
        self._open = False
        self._view = None

    def write(self, data: bytes) -> None:
        """Add bytes, at most ``room`` in all. Raises BodyDropped, and OSError when a file fails."""
        with self._lock:
            if not self._open:
                raise BodyDropped
            if self._file is not None:
                done = 0
                while done < len(data):
                    at = self._file.offset + self.received + done
                    done += os.pwrite(self._file.fd, memoryview(data)[done:], at)
            elif self._view is not None:
                self._view[self.received : self.received + len(data)] = data
            else:
                self.grown += data
            self.received += len(data)
