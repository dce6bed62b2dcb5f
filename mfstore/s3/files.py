"""Local files as destinations: under a directory, whole or not at all."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from mfstore.errors import BackendError, Conflict, InvalidKey, MfstoreError, OutOfSpace


def local_path(root: Path, key: str) -> Path:
    """Where ``key`` goes under ``root``. InvalidKey when the key names no file there: it would leave the directory
    (``..``, an absolute path), be a directory (trailing slash), or meet another key's file (``a//b``)."""
    segments = key.split("/")
    if any(segment in ("", ".", "..") for segment in segments) or "\0" in key or (os.sep != "/" and os.sep in key):
        raise InvalidKey(
            "this key is no safe file name",
            key=key,
            hint="Get it into memory, or give `dest` as a function from key to path",
        )
    if any(len(os.fsencode(segment)) > 255 for segment in segments):
        raise InvalidKey("part of this key is too long for a file name", key=key)
    return root.joinpath(*segments)


def disk_error(error: OSError, path: object) -> MfstoreError:
    """What a failure to write a local file means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace("the local disk is full", key=str(path), hint="Free space, or choose another `dest`")
    return BackendError(f"cannot write the local file: {error.strerror}", key=str(path))


class Destination:
    """One local file to be. Written under a temporary name beside it and renamed when it is whole."""

    __slots__ = ("_overwrite", "_temporary", "fd", "path")

    def __init__(self, path: Path, overwrite: bool) -> None:
        self.path = path
        self._overwrite = overwrite
        self._temporary: Path | None = None
        self.fd = -1

    def check(self) -> None:
        """Conflict when the file exists and must not be replaced: before anything is transferred."""
        if not self._overwrite and os.path.lexists(self.path):
            raise self._exists()

    def _exists(self) -> Conflict:
        return Conflict("the destination exists", key=str(self.path), hint="Pass overwrite=True to replace it")

    def create(self, length: int) -> None:
        """Make the temporary file and reserve ``length`` bytes of disk. OutOfSpace when there is no room."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = self.path.with_name(f".mfstore-{os.getpid()}-{os.urandom(8).hex()}")
            self.fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            if length and hasattr(os, "posix_fallocate"):
                # A full disk shows here, not after an hour of transfer.
                os.posix_fallocate(self.fd, 0, length)
        except OSError as error:
            self.discard()
            raise disk_error(error, self.path) from error

    def write(self, data: bytes) -> str:
        """The whole file at once."""
        self.create(0)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self.fd, view) :]
        except OSError as error:
            self.discard()
            raise disk_error(error, self.path) from error
        return self.finish()

    def finish(self) -> str:
        """Put the file in its place; its path."""
        assert self._temporary is not None
        try:
            os.close(self.fd)
            self.fd = -1
            if self._overwrite:
                self._temporary.replace(self.path)
            else:
                # A link, unlike a rename, fails if somebody was faster.
                os.link(self._temporary, self.path)
                self._temporary.unlink()
        except FileExistsError:
            self.discard()
            raise self._exists() from None
        except OSError as error:
            self.discard()
            raise disk_error(error, self.path) from error
        self._temporary = None
        return str(self.path)

    def discard(self) -> None:
        """Leave nothing behind."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self._temporary is not None:
            with suppress(OSError):
                self._temporary.unlink()
            self._temporary = None
