"""What kind of file system a directory lies on, what not every one can do, and directories of one user alone."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from mfstore._core.descriptor import elsewhere

NETWORK = frozenset(
    (
        "9p", "afs", "beegfs", "ceph", "cifs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2",
        "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs", "virtiofs", "vmhgfs",
    )
)  # fmt: skip
"""Types, as Linux names them, of file systems that other machines write to as well."""
MOUNTS = "/proc/self/mountinfo"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write fails with on a full disk, at a quota, and at the length that a file may have."""


def on_network(path: str) -> bool:
    """Whether a directory lies on a file system that other machines write to as well: any type of FUSE counts as one,
    as what is behind it is not known. False where it cannot be told, or there is no such directory.

    On macOS by the flags of the mount, where a FUSE file system may say that it is local. No test runs there.
    """
    told = elsewhere(path)
    if told is not None:
        return told
    kind = file_system(path) or ""
    return kind in NETWORK or kind.startswith("fuse")


def file_system(path: str) -> str | None:
    """The type of file system that a directory lies on, as Linux names it; None where it cannot be told."""
    try:
        device = Path(path).stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields, _, more = line.partition(" - ")
                if fields.split()[2] == number:
                    return more.split()[0]
    except (OSError, IndexError):
        pass
    return None


def make_private(path: str) -> None:
    """Make a directory, and what is missing above it, of this user alone; whatever is there stays as it is. OSError as
    of ``os.mkdir``. (``os.makedirs`` gives a mode to the last one only.)"""
    with suppress(FileExistsError):
        try:
            os.mkdir(path, 0o700)  # noqa: PTH102
        except FileNotFoundError:
            above = os.path.dirname(path)  # noqa: PTH120
            if not above:
                raise
            make_private(above)
            os.mkdir(path, 0o700)  # noqa: PTH102


# ---- renaming that replaces nothing -------------------------------------------------------

_AT_FDCWD, _NOREPLACE = -100, 1
_NOT_KNOWN = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
"""How systems and file systems say that they cannot rename without replacing."""


@cache
def _renameat2() -> Any:
    import ctypes  # here, since few processes rename this way

    return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def move_new(source: Path | bytes, target: Path | bytes, dir_fd: int | None = None) -> None:
    """Rename a file to a name that nobody has; both are below the directory ``dir_fd``, if that is given.
    FileExistsError if somebody was faster, OSError for what else went wrong.

    Where the system cannot rename without replacing, an empty file takes the name first: for a moment others see that.
    Links, which would do the same, are unknown to many file systems (FAT, most in user space).
    """
    rename, at = _renameat2(), _AT_FDCWD if dir_fd is None else dir_fd
    if rename is not None:
        if not rename(at, os.fsencode(source), at, os.fsencode(target), _NOREPLACE):
            return
        import ctypes

        code = ctypes.get_errno()
        if code not in _NOT_KNOWN:
            raise OSError(code, os.strerror(code), source, None, target)
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, dir_fd=dir_fd))
    try:
        os.replace(source, target, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(target, dir_fd=dir_fd)
        raise
