"""Ranges of objects that never change, as files on this host, for all processes of one user.

Nothing that is found is believed: whoever reads an entry compares it with digests that it has from elsewhere, and drops
it if it differs. So entries are not synced: what a power loss leaves of one is as good as damaged.

A file is written under a name of its own and gets that of the entry when it is whole. From then on it is neither
written to nor truncated, only removed: who reads or maps it has its bytes to the end. That a map cannot fault rests on
this, and on a directory that only its user may write to.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mfstore._core.memory import FileMap, FreshBytes
from mfstore.host.file_systems import make_private, on_network
from mfstore.host.forks import anew_in_children
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable

    from typing_extensions import Buffer

PAGE = 4096
"""A range begins in its file as far into a page as in its object: what is aligned there is aligned in a map."""
TOUCH_SECONDS = 3600.0
"""How exactly the time of the last use is known: a file that is used gets a new time at most so often."""
LEFTOVER_SECONDS = 3600.0
"""A file that nobody has written to for so long, and that is not whole, is of a process that was killed."""
PATIENCE = 30.0
"""Seconds without a byte from the process that fetches the same, after which one that waits fetches it as well."""
LOOK = 0.02
"""Seconds between two looks at whether another process is done."""
ROOM_SECONDS = 2.0
"""Seconds that a process waits for another one that makes room. It takes milliseconds."""
FREE_SHARE = 20
"""One of so many bytes of the file system stays free, whatever the limit says."""
UNSEEN_SHARE = 8
"""One of so many bytes of what is left may be added before the directory is looked through again: others add too."""
KINDS = ("packs", "recipes")
"""Directories of entries. What else lies beside them is not this module's."""
LOCKS, ROOM_LOCK, COUNTS = "locks", ".room", ".counts"
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LOCK = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_OURS = re.compile(r"[0-9]+-[0-9]+|\.[0-9]+-[0-9a-f]{16}")
"""Names of entries, and of files that become one. Nothing else is ever removed."""
_COUNTS = struct.Struct("<QQQ")


class Usage(NamedTuple):
    """What lies in the directory, and how it was used since it was made or cleared."""

    entries: int = 0
    size: int = 0
    """Bytes of all files, unfinished ones too."""
    oldest: float | None = None
    """When the entry that goes next was used, in seconds since the epoch."""
    unfinished: int = 0
    """Files that are being written, or were left by processes that were killed."""
    hits: int = 0
    """Reads that an entry answered."""
    misses: int = 0
    """Reads that none did."""
    served: int = 0
    """Bytes that came from entries."""


class _Found(NamedTuple):
    """A file, as a scan sees it."""

    used: float
    size: int
    path: str
    whole: bool


class KeptRange:
    """An entry that is open: bytes ``start`` to ``end`` of an object. OSError when it cannot be read."""

    __slots__ = ("_descriptor", "_origin", "end", "identity", "path", "start")

    def __init__(self, path: str, start: int, end: int) -> None:
        self._descriptor = descriptor = os.open(path, _READ)
        self.path = path
        self.start, self.end = start, end
        self._origin = start - start % PAGE
        try:
            found = os.fstat(descriptor)
            whole = stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()
            if not whole or found.st_size != end - self._origin:
                raise OSError(f"{path} is not what was kept there")
            if abs(time.time() - found.st_mtime) > TOUCH_SECONDS:
                with suppress(OSError):
                    os.utime(descriptor)
                    found = os.fstat(descriptor)
            self.identity: Hashable = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
            """Stays as long as the file does, but for an hour at most."""
        except BaseException:
            os.close(descriptor)
            raise

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill ``target`` with the object's bytes from ``start`` on."""
        at = start - self._origin
        while target:
            count = os.preadv(self._descriptor, [target], at)
            if not count:
                raise OSError(f"{self.path} ends too early")
            target, at = target[count:], at + count

    def read(self, start: int, length: int) -> bytes:
        """So many bytes from ``start`` on."""
        fresh = FreshBytes(length)
        self.read_into(start, memoryview(fresh))
        return fresh.value

    def map(self, start: int, length: int) -> Buffer:
        """The same as a private map, which stays when the entry is removed."""
        return FileMap(self._descriptor, start - self._origin, length)

    def drop(self) -> None:
        """Remove it: it is not what it should be."""
        with suppress(OSError):
            os.unlink(self.path)  # noqa: PTH108

    def close(self) -> None:
        """What is mapped stays."""
        os.close(self._descriptor)

    def __enter__(self) -> KeptRange:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NewRange:
    """An entry that is being written, by several threads, in pieces."""

    def __init__(self, directory: str, start: int, end: int, pieces: int) -> None:
        self._start, self._end = start, end
        self._origin = start - start % PAGE
        self._directory = directory
        self._left = pieces
        self._lock = threading.Lock()
        self._path: str | None = f"{directory}/.{os.getpid()}-{os.urandom(8).hex()}"
        descriptor = _create(directory, self._path)
        try:
            # Others see at once how much it will take.
            os.truncate(descriptor, end - self._origin)
        except OSError:
            self.abandon()
            raise
        finally:
            os.close(descriptor)

    def write(self, at: int, data: Buffer) -> None:
        """One of the pieces, which lies at ``at`` of the object. The last one makes the entry whole. Where it cannot be
        written, there will be none."""
        path = self._path
        if path is None:
            return
        try:
            # Not held open, as there may be hundreds; and never made anew: what was removed meanwhile had pieces.
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                rest, at = memoryview(data).cast("B"), at - self._origin
                while rest:
                    count = os.pwrite(descriptor, rest, at)
                    rest, at = rest[count:], at + count
            finally:
                os.close(descriptor)
        except OSError:
            self.abandon()
            return
        with self._lock:
            self._left -= 1
            if not self._left:
                self._finish()

    def _finish(self) -> None:
        path, self._path = self._path, None
        if path is None:
            return
        try:
            os.rename(path, f"{self._directory}/{self._start}-{self._end}")  # noqa: PTH104
        except OSError:
            with suppress(OSError):
                os.unlink(path)  # noqa: PTH108
            return
        for start, end, name in _entries(self._directory):
            if self._start <= start and end <= self._end and (start, end) != (self._start, self._end):
                with suppress(OSError):
                    os.unlink(f"{self._directory}/{name}")  # noqa: PTH108

    def abandon(self) -> None:
        """What is not whole by now will not be."""
        path, self._path = self._path, None
        if path is not None:
            with suppress(OSError):
                os.unlink(path)  # noqa: PTH108


class RangeCache:
    """Entries below ``root``, a directory of this user alone, which together take up to ``limit`` bytes: those that
    were used longest ago go first. None of its methods fails: a cache that cannot be used holds nothing."""

    def __init__(self, root: Path, limit: int) -> None:
        self.root = root
        self.limit = limit
        self.hits = self.misses = self.served = 0
        """Of this handle, as of ``Usage``."""
        self._left = 0
        self._busy_until = 0.0
        self._maps_safely: bool | None = None
        self.forked()
        anew_in_children(self)

    def forked(self) -> None:
        """A lock anew."""
        # Reentrant: a signal handler may load something, while its own thread is in here.
        self._lock = threading.RLock()

    def find(self, name: str, start: int, end: int) -> KeptRange | None:
        """The entry that has these bytes of an object, to be closed; None: there is none."""
        directory = f"{self.root}/{name}"
        for low, high, file in _entries(directory):
            if low <= start and end <= high:
                path = f"{directory}/{file}"
                try:
                    return KeptRange(path, low, high)
                except FileNotFoundError:
                    pass  # removed just now
                except OSError:
                    with suppress(OSError):
                        os.unlink(path)  # noqa: PTH108
        return None

    def covers(self, name: str, ranges: Iterable[tuple[int, int]]) -> bool:
        """Whether there is an entry for each of these ranges of an object. It is not looked at."""
        entries = [(low, high) for low, high, _ in _entries(f"{self.root}/{name}")]
        return all(any(low <= start and end <= high for low, high in entries) for start, end in ranges)

    def maps_safely(self) -> bool:
        """Whether no other machine changes files under a map."""
        if self._maps_safely is None:
            if not os.path.exists(self.root):  # noqa: PTH110
                return False  # nothing to map, and no telling
            self._maps_safely = not on_network(str(self.root))
        return self._maps_safely

    def add(self, ranges: Sequence[tuple[str, int, int, int]]) -> list[NewRange | None]:
        """Make room, and begin an entry for each range: name of the object, start, end, and in how many pieces it
        comes. None for those that there is no room for. Each is written, or abandoned."""
        found: list[NewRange | None] = []
        with self._lock:
            for name, start, end, pieces in ranges:
                size = end - start + PAGE
                made = None
                if size <= self.limit and (size <= self._left or self._make_room(size)):
                    with suppress(OSError):
                        made = NewRange(f"{self.root}/{name}", start, end, pieces)
                        self._left -= size
                found.append(made)
        return found

    def keep(self, name: str, data: bytes) -> None:
        """Keep a whole object, in place of what was kept of it."""
        directory = f"{self.root}/{name}"
        for start, end, file in _entries(directory):
            if (start, end) != (0, len(data)):
                with suppress(OSError):
                    os.unlink(f"{directory}/{file}")  # noqa: PTH108
        (made,) = self.add([(name, 0, len(data), 1)])
        if made is not None:
            made.write(0, data)

    def whole(self, name: str) -> bytes | None:
        """A whole object."""
        directory = f"{self.root}/{name}"
        for start, end, file in _entries(directory):
            with suppress(OSError), KeptRange(f"{directory}/{file}", start, end) as kept:
                return kept.read(start, end - start)
        return None

    def drop(self, name: str) -> None:
        """Remove all entries of an object: it was found damaged."""
        for _, _, file in _entries(f"{self.root}/{name}"):
            with suppress(OSError):
                os.unlink(f"{self.root}/{name}/{file}")  # noqa: PTH108

    # ---- room ---------------------------------------------------------------------------

    def _make_room(self, size: int) -> bool:
        """Remove what was used longest ago until so many bytes more fit. False: they do not."""
        if time.monotonic() < self._busy_until:
            return False
        with suppress(OSError), _locked(f"{self.root}/{ROOM_LOCK}", ROOM_SECONDS) as alone:
            if not alone:
                # A slow disk, or a process that was stopped: to wait for each range would take minutes.
                self._busy_until = time.monotonic() + PATIENCE
                return False
            files = self._remove_leftovers(self._scan())
            used = sum(file.size for file in files)
            disk = os.statvfs(self.root)
            free = (disk.f_bavail - disk.f_blocks // FREE_SHARE) * disk.f_frsize
            room = min(self.limit, used + free)
            if used + size > room:
                files.sort()
                for file in files:
                    if not file.whole:
                        continue
                    if _removed(file.path):
                        used -= file.size
                    if used + size <= room - room // 16:  # not a file at a time
                        break
            if used + size > room:
                return False
            self._left = max(size, (room - used) // UNSEEN_SHARE)
            return True
        return False

    def _scan(self) -> list[_Found]:
        found: list[_Found] = []
        for kind in KINDS:
            _scan(f"{self.root}/{kind}", found)
        return found

    def _remove_leftovers(self, files: list[_Found]) -> list[_Found]:
        kept = []
        now = time.time()
        for file in files:
            if file.whole or abs(now - file.used) <= LEFTOVER_SECONDS or not _removed(file.path):
                kept.append(file)
        with suppress(OSError), os.scandir(f"{self.root}/{LOCKS}") as locks:
            for lock in locks:
                with suppress(OSError):
                    if abs(now - lock.stat(follow_symlinks=False).st_mtime) > LEFTOVER_SECONDS:
                        os.unlink(lock.path)  # noqa: PTH108
        return kept

    # ---- for people ---------------------------------------------------------------------

    def usage(self) -> Usage:
        """What is there."""
        files = self._scan()
        whole = [file for file in files if file.whole]
        oldest = min((file.used for file in whole), default=None)
        size = sum(file.size for file in files)
        return Usage(len(whole), size, oldest, len(files) - len(whole), *self._counts())

    def clear(self) -> None:
        """Remove all entries. Who reads one has it to the end."""
        for file in self._scan():
            _removed(file.path)
        with suppress(OSError):
            (self.root / COUNTS).unlink()
        self._left = 0

    def count(self, hits: int, misses: int, served: int) -> None:
        """Count reads, of this handle and of all processes. What cannot be counted is not."""
        with self._lock:
            self.hits += hits
            self.misses += misses
            self.served += served
        with suppress(OSError):
            path = self.root / COUNTS
            descriptor = os.open(path, _LOCK, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                before = _counts_of(os.pread(descriptor, _COUNTS.size, 0))
                more = zip(before, (hits, misses, served), strict=True)
                os.pwrite(descriptor, _COUNTS.pack(*((one + other) % (1 << 64) for one, other in more)), 0)
            finally:
                os.close(descriptor)

    def _counts(self) -> tuple[int, int, int]:
        try:
            return _counts_of((self.root / COUNTS).read_bytes())
        except OSError:
            return 0, 0, 0

    # ---- of processes that fetch the same -----------------------------------------------

    @contextmanager
    def alone(self, token: str) -> Iterator[Turn]:
        """Of processes that are in here with one token at once, the first goes on and the others wait until it is done,
        or dead, or late."""
        path = f"{self.root}/{LOCKS}/{token}"
        try:
            descriptor = _create(f"{self.root}/{LOCKS}", path, _LOCK)
        except OSError:
            yield Turn(None)
            return
        waited = mine = False
        try:
            came = since = 0.0
            while not (mine := _try_lock(descriptor)):
                # By the clock, for who comes to one that is late already; by what changes, as a clock may be set back,
                # or be the one of a file server.
                now, last = time.monotonic(), os.fstat(descriptor).st_mtime
                if not waited or last != came:
                    came, since = last, now
                if now - since >= PATIENCE or time.time() - last >= PATIENCE:
                    break
                waited = True
                time.sleep(LOOK)
            if mine and waited:
                # If there is nothing even now, those who wait need not wait for this one as well.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                mine = False
            turn = Turn(descriptor if mine else None)
            turn.goes_on()
            yield turn
        finally:
            if mine:
                with suppress(OSError):
                    os.unlink(path)  # noqa: PTH108
                with suppress(OSError):
                    # Not by closing it alone: a child that was forked meanwhile has it open too.
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


class Turn(NamedTuple):
    """Whose turn it is to fetch."""

    descriptor: int | None
    """Of the lock. None: nobody waits."""

    def goes_on(self) -> None:
        """Those who wait see that something comes."""
        if self.descriptor is not None:
            with suppress(OSError):
                os.utime(self.descriptor)


def _create(directory: str, path: str, flags: int = _NEW) -> int:
    """The descriptor of a file, in a directory that is made, and that another process may remove when it is empty."""
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        make_private(directory)
        return os.open(path, flags, 0o600)


def _entries(directory: str) -> list[tuple[int, int, str]]:
    """Start, end and name of each whole entry of an object."""
    try:
        names = os.listdir(directory)  # noqa: PTH208
    except OSError:
        return []
    found = []
    for name in names:
        start, dash, end = name.partition("-")
        if dash and start.isdecimal() and end.isdecimal():
            found.append((int(start), int(end), name))
    return found


def _scan(directory: str, found: list[_Found]) -> None:
    """Every file below a directory that has a name as entries have. What else is there is left alone."""
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        _scan(entry.path, found)
                    elif _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        info = entry.stat(follow_symlinks=False)
                        found.append(_Found(info.st_mtime, info.st_size, entry.path, not entry.name.startswith(".")))
    except OSError:
        return


def _removed(path: str) -> bool:
    """Whether a file is gone; with it its directory, if that is empty now."""
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return True
    except OSError:
        return False
    with suppress(OSError):
        os.rmdir(os.path.dirname(path))  # noqa: PTH106, PTH120
    return True


def _try_lock(descriptor: int) -> bool:
    """Whether this process has the lock of a file now. True where files cannot be locked: nobody waits there."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def _locked(path: str, patience: float) -> Iterator[bool]:
    """Whether nobody else is in here. OSError where nothing may be written."""
    descriptor = _create(os.path.dirname(path), path, _LOCK)  # noqa: PTH120
    try:
        end = time.monotonic() + patience
        while not (mine := _try_lock(descriptor)) and time.monotonic() < end:
            time.sleep(LOOK)
        yield mine
        if mine:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _counts_of(data: bytes) -> tuple[int, int, int]:
    if len(data) != _COUNTS.size:
        return 0, 0, 0
    hits, misses, served = _COUNTS.unpack(data)
    return hits, misses, served
