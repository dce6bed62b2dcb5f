"""Reading what may be a pipe: opening one that nobody writes to would wait for ever."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Iterator
from io import FileIO
from time import monotonic

from mfstore.errors import NotFound

WRITER_SECONDS = 10.0
"""How long a named pipe may be without a writer: one that is started together with us has opened it by then."""
LOOK_SECONDS = 0.02


def read_blocks(path: str | os.PathLike[str], size: int) -> Iterator[bytes]:
    """What a file holds, in blocks of at most ``size`` bytes: of a pipe what comes until its writers are done.

    OSError when it cannot be read, NotFound for a named pipe without a writer.
    """
    with FileIO(os.fspath(path), opener=_without_waiting) as file:
        fd = file.fileno()
        if stat.S_ISFIFO(os.fstat(fd).st_mode) and (begun := _begin(fd, path)):
            yield begun
        # What was opened in order not to wait is now read in order to.
        os.set_blocking(fd, True)
        while block := file.read(size):
            yield block


def _without_waiting(path: str, flags: int) -> int:
    # Elsewhere a pipe that nobody has written to looks like one whose writers are done.
    return os.open(path, flags | (os.O_NONBLOCK if sys.platform == "linux" else 0))


def _begin(fd: int, path: object) -> bytes:
    """Wait for a writer of a pipe; what it has sent already, perhaps nothing."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline = monotonic() + WRITER_SECONDS
    # An event: there are bytes, or there were writers and they are done. Linux tells of no others than those since it
    # was opened, and of those of a pipe without a name.
    while not poll.poll(LOOK_SECONDS * 1000):
        try:
            if begun := os.read(fd, 1):
                return begun
        except BlockingIOError:
            return b""  # a writer that has not written yet
        if monotonic() >= deadline:
            raise NotFound(
                "nobody writes to this pipe", found=str(path), expected=f"a writer within {WRITER_SECONDS:g} s",
                hint="Start what writes to it first, or beside this",
            )  # fmt: skip
    return b""
