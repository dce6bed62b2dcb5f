"""What is in a directory that is to be stored: a walk that follows no link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from mfstore.errors import Refused, Unreadable
from mfstore.format.manifest import LONGEST, Omitted, path_text
from mfstore.host.beneath import open_beneath
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.trees.excluding import Excludes

    Omit = Callable[[bytes, str, OSError | None], None]
    """Is told of a path that cannot be read, why, and what the system said; it may raise."""

READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
CUT = LONGEST - len("…".encode())
"""Bytes that a manifest, which has no room for more, tells of the path of what is left out for its length."""
SPECIAL = {
    stat.S_IFSOCK: "socket", stat.S_IFIFO: "fifo", stat.S_IFCHR: "device", stat.S_IFBLK: "device",
}  # fmt: skip
VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENXIO)
"""What the system says of a path that is not there any more, or is another thing now."""


class FoundDirectory(NamedTuple):
    """A directory."""

    path: bytes
    status: os.stat_result


class FoundLink(NamedTuple):
    """A symbolic link."""

    path: bytes
    status: os.stat_result
    target: bytes


class FoundFile(NamedTuple):
    """A file, with its length as it was found."""

    path: bytes
    size: int


class Scan(NamedTuple):
    """All that is to be stored, each kind in the order of its paths."""

    directories: list[FoundDirectory]
    links: list[FoundLink]
    files: list[FoundFile]
    special: list[Omitted]
    """What is neither, or is not to be stored whatever was asked for."""


def reason_of(error: OSError) -> str:
    """Why something cannot be read."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return "not permitted"
    return "vanished" if error.errno in VANISHED else "cannot be read"


def scan(root: int, excluded: Excludes, omit: Omit, itself: tuple[int, int] | None) -> Scan:
    """Walk an open directory. ``itself``: device and inode of the store's own directory, which is never part of a
    tree in it."""
    top = os.fstat(root)
    if (top.st_dev, top.st_ino) == itself:
        raise Refused("a store does not store its own directory", hint="mfstore copy makes a copy of a store")
    found = Scan([FoundDirectory(b"", top)], [], [], [])
    waiting = [b""]
    while waiting:
        above = waiting.pop()
        try:
            with open_beneath(root, above, READ_DIRECTORY) as directory:
                for name, status in _entries(directory, above, omit):
                    path = above + b"/" + name if above else name
                    target = None
                    if stat.S_ISLNK(status.st_mode):
                        try:
                            target = os.readlink(name, dir_fd=directory)
                        except OSError as error:
                            omit(path, reason_of(error), error)
                            continue
                    if _take(found, path, status, target, excluded, omit, itself):
                        waiting.append(path)
        except Unreadable:
            raise  # what ``omit`` has told, which is an OSError too
        except OSError as error:
            if not above:
                raise
            found.directories[:] = [one for one in found.directories if one.path != above]
            omit(above, reason_of(error), error)
    for kind in found:
        kind.sort()
    return found


def _entries(directory: int, above: bytes, omit: Omit) -> list[tuple[bytes, os.stat_result]]:
    entries = []
    with os.scandir(directory) as listing:
        for entry in listing:
            name = os.fsencode(entry.name)
            try:
                entries.append((name, entry.stat(follow_symlinks=False)))
            except OSError as error:
                omit(above + b"/" + name if above else name, reason_of(error), error)
    return entries


def _take(
    found: Scan, path: bytes, status: os.stat_result, target: bytes | None, excluded: Excludes, omit: Omit,
    itself: tuple[int, int] | None,
) -> bool:  # fmt: skip
    """Whether it is a directory that is to be walked."""
    is_directory = stat.S_ISDIR(status.st_mode)
    if excluded(path_text(path), is_directory):
        return False
    if len(path) > LONGEST:
        omit(path[:CUT].rstrip(b"/") + "…".encode(), "path too long", None)
    elif is_directory and (status.st_dev, status.st_ino) == itself:
        found.special.append(Omitted(path_text(path), "the store itself"))
    elif is_directory:
        found.directories.append(FoundDirectory(path, status))
        return True
    elif target is not None:
        found.links.append(FoundLink(path, status, target))
    elif stat.S_ISREG(status.st_mode):
        found.files.append(FoundFile(path, status.st_size))
    else:
        found.special.append(Omitted(path_text(path), SPECIAL.get(stat.S_IFMT(status.st_mode), "device")))
    return False
