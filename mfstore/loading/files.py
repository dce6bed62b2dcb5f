"""An artifact's bytes written to a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mfstore.errors import OutOfSpace, Unsupported
from mfstore.host.file_systems import NO_ROOM

_DEVICES, _PROCESSES = Path("/dev"), Path("/proc")


def regular_target(path: str | os.PathLike[str], instead: str = "choose another file") -> Path:
    """The file that may be written. Unsupported for a device, a pipe or a socket, which would be replaced, and for any
    name among those of devices and of open files; OSError for a directory, and in one that is not there, before
    anything is read for it. ``instead``: what to do where it is no regular file."""
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such directory", str(target.parent))
    # /dev/stdout is a link to what may be a regular file: the link would be replaced, for everybody.
    of_system = target.parent.resolve()
    if (
        (target.exists() and not target.is_file())
        or of_system == _DEVICES
        or _PROCESSES in (*of_system.parents, of_system)
    ):
        raise Unsupported(
            "no regular file to write to", found=str(target), hint=f"It would be replaced by one: {instead}"
        )
    return target


def write_file(target: Path, blocks: Iterable[bytes], key: str) -> None:
    """Replace the file when all of ``blocks``, which are what ``key`` names, were read. Nothing is left behind on
    failure. OutOfSpace when there is no room, OSError when it cannot be written for another reason."""
    temporary = target.with_name(f".mfstore-{os.getpid()}-{os.urandom(8).hex()}")
    try:
        with open(temporary, "xb", buffering=0) as file:
            for data in blocks:
                block = memoryview(data)
                while block:
                    block = block[file.write(block) :]
        temporary.replace(target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            hint = "Free space, or choose another file"
            raise OutOfSpace("no room for the file", key=key, found=str(target), hint=hint) from error
        raise
