"""Local files as destinations: under a directory, whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from io import FileIO
from pathlib import Path

from mfstore._core import crc
from mfstore.errors import BackendError, Conflict, InvalidKey, MfstoreError, OutOfSpace, Unsupported
from mfstore.host.file_systems import NO_ROOM, move_new
from mfstore.records import dataclass

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


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


def disk_error(error: OSError | OverflowError, path: object) -> MfstoreError:
    """What a failure to write a local file means."""
    if isinstance(error, OverflowError):
        return OutOfSpace("no local file can be as long as this object is said to be", found=str(path))
    if error.errno in NO_ROOM:
        return OutOfSpace("the local disk is full", found=str(path), hint="Free space, or choose another `dest`")
    return BackendError(
        f"cannot write the local file: {error.strerror}", found=str(path), hint="Check `dest` and its permissions"
    )


def boot_id() -> str:
    """What tells this run of the machine from the one before; empty where nothing does."""
    with suppress(OSError):
        return BOOT_ID.read_text("ascii").strip()
    return ""


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
    one (``reopen``). Without ``overwrite`` a file that exists stays, unless the same operation has put it there for the
    same ``origin``: ``placed`` are the files that it has put in their places, with their origins.
    """

    __slots__ = ("_file", "_note", "_origin", "_overwrite", "_placed", "_resume", "_temporary", "path")

    def __init__(
        self, path: Path, overwrite: bool, resume: bool = False, placed: dict[Path, object] | None = None,
        origin: object = None,
    ) -> None:  # fmt: skip
        self.path = path
        self._overwrite = overwrite
        self._resume = resume
        self._placed = placed
        self._origin = origin
        self._temporary: Path | None = None
        self._note = path.with_name(f".mfstore-{sha256(os.fsencode(path.name)).hexdigest()[:16]}.json")
        # A file object, which closes itself when Ctrl-C comes between its opening and whoever would close it.
        self._file: FileIO | None = None

    @property
    def fd(self) -> int:
        """The descriptor of the file that is written; -1 for none."""
        return self._file.fileno() if self._file is not None else -1

    def check(self) -> None:
        """Conflict when the file exists and must not be replaced, Unsupported when it is a device, a pipe or a socket,
        in whose place a file would come: before anything is transferred."""
        if not self._overwrite:
            if os.path.lexists(self.path) and not self._mine():
                raise self._exists()
            return
        with suppress(OSError):
            mode = os.stat(self.path).st_mode  # noqa: PTH116
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise Unsupported(
                    "the destination is no regular file", found=str(self.path),
                    hint="It would be replaced by one: get the object into memory, or give another path",
                )  # fmt: skip

    def _mine(self) -> bool:
        return self._placed is not None and self.path in self._placed and self._placed[self.path] == self._origin

    def _exists(self) -> Conflict:
        return Conflict("the destination exists", found=str(self.path), hint="Pass overwrite=True to replace it")

    def create(self, length: int) -> None:
        """Make the temporary file and reserve ``length`` bytes of disk. OutOfSpace when there is no room."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._resume and self._claim(new=True):
                self._note.unlink(missing_ok=True)
                os.ftruncate(self.fd, 0)
            else:
                self._resume = False
                self._temporary = self.path.with_name(f".mfstore-{os.getpid()}-{os.urandom(8).hex()}")
                self._file = FileIO(self._temporary, "xb+")
            if length and hasattr(os, "posix_fallocate"):
                # A full disk shows here, not after an hour of transfer.
                os.posix_fallocate(self.fd, 0, length)
        except (OSError, OverflowError) as error:
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
            # What was written, and not synced, is lost when the machine goes down. Where no checksum of the whole would
            # tell, nothing is believed that an earlier run of it wrote.
            boot = boot_id()
            if checksum is None and (not boot or note.get("boot") != boot):
                return None
            if not self._claim(new=False):
                return None
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None
        whole = os.fstat(self.fd).st_size == partial.length
        if not whole or any(not 0 <= start < stop <= partial.length for start, stop in done):
            self.discard(keep=False)
            return None
        return partial

    def _claim(self, new: bool) -> bool:
        """Open what a resumable download writes to, and lock it: False when another download is using it. ``new``: make
        it if there is none."""
        partial = self._note.with_suffix(".part")
        try:
            self._file = FileIO(partial, "xb+" if new else "rb+")
        except FileExistsError:
            self._file = FileIO(partial, "rb+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another may have finished, and moved the file to its place, between the two calls.
            mine = os.path.samestat(os.fstat(self._file.fileno()), partial.stat())
        except OSError:
            mine = False
        if not mine:
            self._close()
            return False
        self._temporary = partial
        return True

    def save(self, partial: Partial) -> None:
        """Note what is there. Best effort: without the note the next download begins anew."""
        if not self._resume:
            return
        new = self._note.with_suffix(".new")
        with suppress(OSError):
            new.write_text(json.dumps({**asdict(partial), "boot": boot_id()}), "utf-8")
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
        assert self._file is not None
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            self.discard()
            raise disk_error(error, self.path) from error
        return self.finish()

    def finish(self) -> str:
        """Put the file in its place; its path."""
        assert self._temporary is not None
        try:
            self._close()  # which may say that what was written could not be
            if self._overwrite or self._mine():
                self._temporary.replace(self.path)
            else:
                move_new(self._temporary, self.path)
        except FileExistsError:
            self.discard()
            raise self._exists() from None
        except OSError as error:
            self.discard()
            raise disk_error(error, self.path) from error
        self._temporary = None
        if self._placed is not None:
            self._placed[self.path] = self._origin
        if self._resume:
            self.forget()
        return str(self.path)

    def _close(self) -> None:
        """Close the file. OSError from the file system, after which it is closed as well."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def discard(self, keep: bool = False) -> None:
        """Leave nothing behind; or, with ``keep``, what the next download can resume."""
        with suppress(OSError):
            self._close()
        if self._temporary is not None and not (keep and self._resume):
            with suppress(OSError):
                self._temporary.unlink()
            with suppress(OSError):
                if self._resume:
                    self.forget()
        self._temporary = None


class FolderDestination(Destination):
    """A directory to be: of an object of no bytes whose key ends in a slash, as consoles make them to show folders."""

    __slots__ = ()

    def __init__(self, path: Path, key: str) -> None:
        super().__init__(path, overwrite=True, origin=key)

    def check(self) -> None:
        """A directory may exist."""

    def create(self, length: int) -> None:
        """InvalidKey: there is data, and no file for it."""
        raise InvalidKey(
            "this key names a directory, and the object holds data", key=str(self._origin), found=f"{length} bytes",
            hint="Get it into memory, or give `dest` as a function from key to path",
        )  # fmt: skip

    def write(self, data: bytes) -> str:
        """Make the directory; its path."""
        if data:
            self.create(len(data))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, self.path) from error
        return str(self.path)
