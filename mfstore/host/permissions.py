"""What keeps this process from a file: which directory or file, and the mode that it lacks there."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_MODES = {os.R_OK: ("read (r)", "r"), os.W_OK: ("write (w)", "w"), os.X_OK: ("search (x)", "x")}
_EFFECTIVE = os.access in os.supports_effective_ids


def refused_because(path: str, code: int) -> tuple[str, str]:
    """Why an operation on ``path`` was refused with the errno ``code``, and what to do about it: in words, by what is
    there now. It looks for the first directory that may not be searched, then for what may not be read or written."""
    if code == errno.EROFS:
        return f"the file system of {path} is mounted read-only", "Mount it for writing, or use another place"
    found = _in_the_way(Path(path).absolute())
    if found is None:
        return (
            f"{path} may not be changed, though its mode allows it",
            "It may be immutable (lsattr), or kept by SELinux, AppArmor or the file server: ask who runs it",
        )
    place, lacking = found
    words, letter = _MODES[lacking]
    try:
        info = place.stat()
        owned = f", which belongs to {info.st_uid}:{info.st_gid} with mode {stat.S_IMODE(info.st_mode):04o}"
    except OSError:
        owned = ""
    who = f"user {os.geteuid()}:{os.getegid()}"
    hint = f"Its owner lets you by: chmod o+{letter} {place} (or g+{letter}, or chown)"
    return f"{who} may not {words} {place}{owned}", hint


def _in_the_way(path: Path) -> tuple[Path, int] | None:
    """The first place on the way to ``path`` that this process may not use, and the mode that it lacks there."""
    directory = Path(path.anchor)
    for place in reversed(path.parents):
        if not os.path.lexists(place):
            break
        directory = place
        if not _may(place, os.X_OK):
            return place, os.X_OK
    if os.path.lexists(path):
        if not _may(path, os.R_OK):
            return path, os.R_OK
        if path.is_dir():
            directory = path
            if not _may(path, os.X_OK):
                return path, os.X_OK
    return None if _may(directory, os.W_OK) else (directory, os.W_OK)


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=_EFFECTIVE)
