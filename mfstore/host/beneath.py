"""Opening what lies below a directory, without following a link anywhere on the way."""

from __future__ import annotations

import os

from mfstore._core.descriptor import OPENS_PLAINLY, Descriptor

LONGEST = 4000
"""Bytes of a path that the system opens in one call: Linux takes 4095."""
STEP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""A directory on the way, which need not be readable."""


def open_beneath(directory: int, path: bytes, flags: int, mode: int = 0o600) -> Descriptor:
    """``path`` below an open directory, which "" is itself. OSError as of ``os.open``; a link on the way, or at the
    end, is ELOOP or ENOTDIR. ``path`` has no "." or ".." in it."""
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC
    if not path:
        return Descriptor(b".", flags, mode, dir_fd=directory)
    if OPENS_PLAINLY and len(path) <= LONGEST:
        return Descriptor.plain(path, flags, mode, dir_fd=directory)
    *above, name = path.split(b"/")
    last: Descriptor | None = None
    try:
        for part in above:
            step = Descriptor(part, STEP, dir_fd=directory)
            if last is not None:  # a path has thousands of steps, a process a thousand descriptors
                last.close()
            last, directory = step, step.fd
        return Descriptor(name, flags, mode, dir_fd=directory)
    finally:
        if last is not None:
            last.close()
