"""What went wrong with a temporary file of a collection, said so that somebody can mend it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mfstore.errors import BackendError, MfstoreError, OutOfSpace
from mfstore.host.file_systems import NO_ROOM


@contextmanager
def told_errors() -> Iterator[None]:
    """Raise errors of a temporary file as ``temporary_file_error`` tells them."""
    try:
        yield
    except OSError as error:
        raise temporary_file_error(error) from error


def temporary_file_error(error: OSError) -> MfstoreError:
    """What to raise for this error of a file in the folder that TMPDIR names: it says which file system failed."""
    try:
        folder = tempfile.gettempdir()
    except OSError as none:  # without room no folder is usable at all
        return OutOfSpace(
            "nowhere is room for a temporary file", found=none.strerror, hint="Give a folder with room as TMPDIR"
        )
    place = f"{folder}, on the file system at {_mount(folder)}"
    if error.errno in NO_ROOM:
        return OutOfSpace(
            f"no room for a temporary file: {error.strerror}", found=place,
            hint="Make room there, or give another folder as TMPDIR: a collection takes some 50 bytes for each object. "
            "The next one goes on",
        )  # fmt: skip
    return BackendError(
        f"a temporary file failed: {error.strerror or error}", found=place,
        hint="See what is wrong there, or give a folder on another disk as TMPDIR. The next collection goes on",
    )  # fmt: skip


def _mount(folder: str) -> Path:
    at = Path(folder).resolve()
    return next(place for place in (at, *at.parents) if place.is_mount())
