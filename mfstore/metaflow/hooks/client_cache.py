"""What is rebound of the files that Metaflow's Client keeps of what it was asked for: a file for each artifact.

Python's temporary files take six times the CPU of making, writing and renaming a file: of 500 artifacts a tenth of all
that the Client takes.
"""

from __future__ import annotations

import os
import time
from functools import wraps
from typing import Any

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def create_file(original: Any) -> Any:
    """``FileCache.create_file`` with fewer system calls. What it cannot do the original does, or says why not."""

    @wraps(original)
    def create_file(self: Any, path: str, value: bytes) -> None:
        try:
            if self._objects is None:
                self._index_objects()
            _write(path, value)
        except OSError:
            original(self, path, value)
            return
        self._total += len(value)
        self._objects.append((int(time.time()), len(value), path))
        self._garbage_collect()

    return create_file


def _write(path: str, value: bytes) -> None:
    """A file that is whole when it can be seen. OSError."""
    folder = path.rpartition("/")[0]
    temporary = f"{folder}/dlobj{os.getpid():x}-{os.urandom(8).hex()}"
    try:
        fd = os.open(temporary, NEW_FILE, 0o600)
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        fd = os.open(temporary, NEW_FILE, 0o600)
    try:
        try:
            if os.write(fd, value) != len(value):
                raise OSError("written in part")
        finally:
            os.close(fd)
        os.rename(temporary, path)  # noqa: PTH104
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108
        raise
