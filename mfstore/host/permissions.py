"""What keeps this process from a file: which directory or file, and the mode that it lacks there."""

from __future__ import annotations

import errno
import os
import stat

_WORDS = {os.R_OK: "read (r)", os.W_OK: "write (w)", os.X_OK: "search (x)"}
_EFFECTIVE = os.access in os.supports_effective_ids


def refused_because(path: str, code: int) -> tuple[str, str]:
    """Why an operation on ``path`` was refused with the errno ``code``, and what to do about it: in words, by what is
    there now. It looks for the first directory that may not be searched, then for what may not be read or written."""
    if code == errno.EROFS:
        return f"the file system of {path} is mounted read-only", "Mount it for writing, or use another place"
    found = _in_the_way(path)
    if found is None:
        return (
            f"{path} may not be changed, though its mode allows it",
            "It may be immutable (lsattr), or kept by SELinux, AppArmor or the file server: ask who runs it",
        )
    place, lacking = found
    words = " and ".join(_WORDS[mode] for mode in lacking)
    letters = "".join("rwx"[(os.R_OK, os.W_OK, os.X_OK).index(mode)] for mode in lacking)
    try:
        info = os.stat(place)
        owned = f", which belongs to {info.st_uid}:{info.st_gid} with mode {stat.S_IMODE(info.st_mode):04o}"
    except OSError:
        owned = ""
    who = f"user {os.geteuid()}:{os.getegid()}"
    return f"{who} may not {words} {place}{owned}", f"Its owner lets you by: chmod o+{letters} {place} (or g+, or chown)"


def _in_the_way(path: str) -> tuple[str, tuple[int, ...]] | None:
    """The first place on the way to ``path`` that this process may not use, and the modes that it lacks there."""
    path = os.path.abspath(path)
    parts = path.split(os.sep)
    parents = [os.sep.join(parts[:depth]) or os.sep for depth in range(1, len(parts))]
    parent = os.sep
    for parent_of_next in parents:
        if not os.path.lexists(parent_of_next):
            break
        parent = parent_of_next
        if not _may(parent, os.X_OK):
            return parent, (os.X_OK,)
    if os.path.exists(path) and not _may(path, os.R_OK):
        return path, (os.R_OK,)
    if os.path.isdir(path):
        parent = path
        if not _may(path, os.X_OK):
            return path, (os.X_OK,)
    return None if _may(parent, os.W_OK) else (parent, (os.W_OK,))


def _may(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=_EFFECTIVE)
