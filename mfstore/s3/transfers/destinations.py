"""Local files as destinations: under a directory, whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from mfstore._core import crc
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
        return OutOfSpace("the local disk is full", found=str(path), hint="Free space, or choose another `dest`")
    return BackendError(
        f"cannot write the local file: {error.strerror}", found=str(path), hint="Check `dest` and its permissions"
    )


@dataclass(frozen=True, slots=True)
class Partial:
    """What an interrupted download left: of which object, and which bytes of it are there."""

    url: str
    etag: str
    length: int
    checksum: tuple[str, int] | None
    done: tuple[tuple[int, int], ...]


class Destination:
    """One local file to be. Written under a temporary name beside it and renamed when it is whole.

    With ``resume`` what an interrupted download has written stays, with a note of what it is (``save``), for the next
    one (``reopen``).
    """

    __slots__ = ("_note", "_overwrite", "_resume", "_temporary", "fd", "path")

    def __init__(self, path: Path, overwrite: bool, resume: bool = False) -> None:
        self.path = path
        self._overwrite = overwrite
        self._resume = resume
        self._temporary: Path | None = None
        self._note = path.with_name(f".mfstore-{sha256(os.fsencode(path.name)).hexdigest()[:16]}.json")
        self.fd = -1

    def check(self) -> None:
        """Conflict when the file exists and must not be replaced: before anything is transferred."""
        if not self._overwrite and os.path.lexists(self.path):
            raise self._exists()

    def _exists(self) -> Conflict:
        return Conflict("the destination exists", found=str(self.path), hint="Pass overwrite=True to replace it")

    def create(self, length: int) -> None:
        """Make the temporary file and reserve ``length`` bytes of disk. OutOfSpace when there is no room."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._resume and self._claim(os.O_CREAT):
                self._note.unlink(missing_ok=True)
                os.ftruncate(self.fd, 0)
            else:
                self._resume = False
                self._temporary = self.path.with_name(f".mfstore-{os.getpid()}-{os.urandom(8).hex()}")
                self.fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            if length and hasattr(os, "posix_fallocate"):
                # A full disk shows here, not after an hour of transfer.
                os.posix_fallocate(self.fd, 0, length)
        except OSError as error:
            self.discard()
            raise disk_error(error, self.path) from error

    # ---- resuming -----------------------------------------------------------------------

    def reopen(self) -> Partial | None:
        """What an earlier download left, if anything usable; its file is then open to be continued."""
        if not self._resume:
            return None
        try:
            note = json.loads(self._note.read_text("utf-8"))
            checksum = None if note["checksum"] is None else (str(note["checksum"][0]), int(note["checksum"][1]))
            done = tuple((int(start), int(stop)) for start, stop in note["done"])
            partial = Partial(str(note["url"]), str(note["etag"]), int(note["length"]), checksum, done)
            if not self._claim(0):
                return None
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None
        whole = os.fstat(self.fd).st_size == partial.length
        if not whole or any(not 0 <= start < stop <= partial.length for start, stop in done):
            self.discard(keep=False)
            return None
        return partial

    def _claim(self, flags: int) -> bool:
        """Open what a resumable download writes to, and lock it: False when another download is using it."""
        partial = self._note.with_suffix(".part")
        fd = os.open(partial, os.O_RDWR | os.O_CLOEXEC | flags, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another may have finished, and moved the file to its place, between the two calls.
            mine = os.path.samestat(os.fstat(fd), partial.stat())
        except OSError:
            mine = False
        if not mine:
            os.close(fd)
            return False
        self.fd, self._temporary = fd, partial
        return True

    def save(self, partial: Partial) -> None:
        """Note what is there. Best effort: without the note the next download begins anew."""
        if not self._resume:
            return
        new = self._note.with_suffix(".new")
        with suppress(OSError):
            new.write_text(json.dumps(asdict(partial)), "utf-8")
            new.replace(self._note)

    def forget(self) -> None:
        """Remove what an earlier download left."""
        for leftover in (self._note, self._note.with_suffix(".part")):
            leftover.unlink(missing_ok=True)

    def checksum(self, name: str) -> int:
        """CRC of what is written so far, read back."""
        value, at = 0, 0
        while block := os.pread(self.fd, 4 << 20, at):
            value = crc.update(name, block, value)
            at += len(block)
        return value

    # ---- the end ------------------------------------------------------------------------

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
        if self._resume:
            self.forget()
        return str(self.path)

    def discard(self, keep: bool = False) -> None:
        """Leave nothing behind; or, with ``keep``, what the next download can resume."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self._temporary is not None and not (keep and self._resume):
            with suppress(OSError):
                self._temporary.unlink()
            with suppress(OSError):
                if self._resume:
                    self.forget()
        self._temporary = None
