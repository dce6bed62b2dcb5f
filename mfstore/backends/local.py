"""The local directory backend: crash-safe files, private maps, one fsync pass per bulk operation.

A write goes to a temporary file in the target directory, is checked for length, then renamed at the end of the bulk
operation. Durability is a policy (``fsync``):

* ``always``: file and directory are synced before each put returns;
* ``batch``: objects become visible at the end of the bulk operation, after one pass that syncs all its files, then
  all its directories. Metadata of a journaling file system reaches the disk in order, so a crash shows a prefix
  of the operation;
* ``none``: the kernel decides. After a power loss an object may be absent or damaged, which reads report.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from weakref import ref

from mfstore._core.descriptor import OPENS_PLAINLY, Descriptor
from mfstore._core.memory import FileMap, FreshBytes, sync_file_system
from mfstore._core.reading import look, read_whole
from mfstore._core.writing import WrongLengthError, rename_each, write_fresh
from mfstore.backends.base import Backend, Batch, Capabilities, ObjectEnd, ObjectInfo, needs_refresh
from mfstore.errors import (
    AccessDenied,
    BackendError,
    Conflict,
    CorruptObject,
    MfstoreError,
    NotAStore,
    NotFound,
    OutOfSpace,
)
from mfstore.format.refs import LONGEST as LONGEST_REF
from mfstore.host.file_systems import NO_ROOM, move_new
from mfstore.host.forks import anew_in_children
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.backends.base import Answers

RECORDS = ("recipes/", "index/", "refs/", "gc/", "signatures/", "mfstore.json")
"""What is read whole."""
SEALED = ("recipes/", "index/")
"""What whoever reads it can tell from anything else, and looks at again then: that it is a file, and its length, need
not be asked before."""
LARGEST_RECORD = 1 << 33
"""Bytes. The tables of a recipe take 2 GiB at most, an index fragment as many for every 10 TB."""
TEMPORARY = ".tmp-"
LOCK = ".lock"
SWEPT = ".swept"
COLLECTION = ("gc/", "mfstore.json")
"""What a collection must write before it can free any room: its records, and that others have to know of them. Not its
log, which is written where there is room."""
LOG = "gc/log/"
RESERVE = ".reserve"
RESERVE_BYTES = 256 << 10
"""Room held back for the collector: lists of 6000 condemned objects."""
COLLECTED = "gc/state"
"""There once a collector has been at work (docs/format.md)."""
SWEEP_AGE = 24 * 3600.0
"""Temporary files older than this are from a process that died: no single put takes a day."""
SYNC_FILES = 32
"""Up to this many files a pass syncs one by one; more cost more than one syncfs (1000 files here: 0.4 s against 4 ms),
which however also flushes what other programs wrote."""
DURABLE = 1 << 16
"""How many durable keys a handle remembers."""
READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""O_NONBLOCK: a planted FIFO must not hang the reader."""
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
PAGE = mmap.PAGESIZE
"""What is read past the page cache begins at a multiple of this."""
DIRECT_BYTES = 1 << 20
"""Bytes read past the page cache at a time."""
WRITE_PARTS = 512
"""Parts per writev; the kernel takes 1024."""
SMALL_FILE = 16 << 10
"""Bytes of a file that is read with others: a literal takes less than 2 KiB. Longer ones cost more than their calls."""
FILES_TOGETHER = 64
"""Files read ahead of their use, or written in one call: at most a MiB of them. The call costs a hundredth of them."""
FROM_ROOT = 8
"""Paths from which on they are walked from the root, which is opened for that: 2 us once, and 0.3 less for each."""
BYTES_TOGETHER = 1 << 20
"""Bytes after which no more files are written in one call: they are held until then, and Ctrl-C waits."""
RENAMED_TOGETHER = 256
"""Files renamed in one call: 1 to 3 ms, in which Ctrl-C waits."""
WRONG_LENGTH = "file has the wrong length after writing"
DIRECTORIES = 8
"""Directory descriptors a batch keeps open: with many threads more of them meet the limit of a process."""


class LocalBackend(Backend):
    """A directory. Opens nothing and creates nothing until it is used; works on a read-only one.

    Symbolic links inside the store are refused: a write follows none on its way from the root, a read none in
    the last step (what it reads is checked by digest). ``sweep=False`` leaves temporary files of processes that died,
    for directories that are not a store, and ``follow_links`` follows links of directories there.
    """

    capabilities = Capabilities(map=True, cheap_reads=True)

    def __init__(
        self,
        path: str,
        *,
        fsync: str = "batch",
        sweep: bool = True,
        expire_days: float | None = None,
        follow_links: bool = False,
    ) -> None:
        self.root = os.path.abspath(path)
        self._below = os.path.join(self.root, "")
        self.url = f"file://{quote(self.root)}"
        self.fsync = fsync
        self.expire_days = expire_days
        self._held: dict[int, ref[_Hold]] = {}
        """By thread: what it holds of the lock file. A signal handler that runs in the middle finds it there. The
        operation alone keeps it: whatever interrupts that, the lock goes with it."""
        self.forked()
        anew_in_children(self)
        self._sweeps = sweep
        self._swept = not sweep
        self._maps_safely: bool | None = None
        self.refuses_links = not follow_links
        """Whether no step of a path below the root may be a link."""
        self._link_flag = 0 if follow_links else os.O_NOFOLLOW
        self.plain_below = OPENS_PLAINLY or follow_links
        """Whether ``open_below`` takes paths of several steps."""
        self.durable: set[str] = set()
        """Keys, and directories with a final slash, that this process made durable: relying on them costs nothing."""

    def forked(self) -> None:
        """A lock anew: a child must not wait for ever for a thread of its parent."""
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.root, self.fsync, self.expire_days, self._sweeps, not self._link_flag)

    # ---- reading --------------------------------------------------------------------

    def get(self, key: str) -> bytes:
        with self._reading(key) as (fd, size):
            if size > LONGEST_REF:
                _check_record(key, size)
            if size < 1 << 20:
                data = os.read(fd, size + 1)
                if len(data) == size:
                    return data
            fresh = _room(size)
            _read_exactly(fd, 0, memoryview(fresh))
            return fresh.value

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes | MfstoreError]]:
        source = iter(keys)
        while some := list(islice(source, FILES_TOGETHER)):
            sealed = all(key.startswith(SEALED) for key in some)
            found = read_whole(*_paths(self, some), READ_FILE, SMALL_FILE, sealed)
            for got in zip(some, found, strict=True):
                key, data = got
                if isinstance(data, bytes):
                    yield got  # type: ignore[misc]
                elif data > 0:
                    yield key, self._error(OSError(data, os.strerror(data)), key)
                else:
                    yield from super().get_many([key])

    def get_range(self, key: str, start: int, length: int) -> Buffer:
        with self._reading(key) as (fd, size):
            _check_end(start + length, size)
            fresh = _room(length)
            _read_exactly(fd, start, memoryview(fresh))
            return fresh.value

    def read_into(self, key: str, start: int, target: memoryview) -> None:
        with self._reading(key) as (fd, size):
            _check_end(start + len(target), size)
            _read_exactly(fd, start, target)

    def read_ends(self, keys: Sequence[str], length: int) -> Iterator[tuple[int, ObjectEnd | MfstoreError]]:
        for number, key in enumerate(keys):
            try:
                with self._reading(key) as (fd, size):
                    start = max(0, size - length)
                    fresh = _room(size - start)
                    _read_exactly(fd, start, memoryview(fresh))
                yield number, ObjectEnd(fresh.value, size, False)
            except MfstoreError as error:
                yield number, error

    def read_again(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self._reading(key) as (fd, size):
            if length is None:
                _check_record(key, size)
                length = max(0, size - start)
            _check_end(start + length, size)
            first = start - start % PAGE
            with suppress(OSError, AttributeError):  # the first: not on every file system; the second: nor system
                os.posix_fadvise(fd, first, start + length - first, os.POSIX_FADV_DONTNEED)
            data = self._read_device(key, fd, first, start + length)
            if data is None:
                fresh = _room(length)
                _read_exactly(fd, start, memoryview(fresh))
                return fresh.value
            return data[start - first :]

    def _read_device(self, key: str, fd: int, start: int, end: int) -> bytes | None:
        """Bytes of an open file from the device itself; None where that cannot be done."""
        if not hasattr(os, "O_DIRECT") or start == end:
            return None
        try:
            opened = Descriptor(self._path(key), READ_FILE | os.O_DIRECT)
        except OSError:
            return None
        try:
            direct = opened.fd
            if not os.path.sameopenfile(fd, direct):
                return None  # replaced just now
            blocks = []
            with mmap.mmap(-1, DIRECT_BYTES) as memory:  # in pages, as the device wants it
                while start < end:
                    count = os.preadv(direct, [memory], start)
                    if count == 0 or (count % PAGE and start + count < end):
                        return None
                    blocks.append(memory[: min(count, end - start)])
                    start += count
            return b"".join(blocks)
        except OSError:
            return None
        finally:
            opened.close()

    def map(self, key: str, start: int, length: int) -> Buffer:
        with self._reading(key) as (fd, size):
            _check_end(start + length, size)
            # Files are replaced by rename and never truncated by mfstore, so the map cannot fault. What another program
            # truncates in place does: SIGBUS.
            return FileMap(fd, start, length)

    def maps_safely(self) -> bool:
        if self._maps_safely is None:
            from mfstore.host.file_systems import on_network

            self._maps_safely = not on_network(self.root)
        return self._maps_safely

    def identity(self, key: str) -> Any:
        with self._translate(key):
            info = os.stat(self._path(key), follow_symlinks=False)
        # The change time too: unlike the others no program can set it back.
        return info.st_dev, info.st_ino, info.st_mtime_ns, info.st_ctime_ns, info.st_size

    def head(self, key: str) -> ObjectInfo:
        with self._translate(key):
            return _info(key, os.stat(self._path(key), follow_symlinks=False))

    def exists_many(self, keys: Sequence[str]) -> Answers:
        found = look(*_paths(self, keys))
        for key, code in zip(keys, found, strict=True):
            if code not in (0, errno.ENOENT):
                raise self._error(OSError(code, os.strerror(code)), key)
        return [code == 0 for code in found]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        start, _, name = prefix.rpartition("/")
        yield from self._walk(start, prefix, (), name)

    def _walk(
        self, directory: str, prefix: str, above: tuple[tuple[int, int], ...], begins: str = ""
    ) -> Iterator[ObjectInfo]:
        """What begins so in a directory. ``above`` are those that lead here by links, in which one may lead back."""
        try:
            if not self._link_flag:
                status = os.stat(self._path(directory) if directory else self.root)
                here = status.st_dev, status.st_ino
                if here in above:
                    return
                above = (*above, here)
            found = os.scandir(self._path(directory) if directory else self.root)
            entries = [entry for entry in found if entry.name.startswith(begins)]
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error(error, directory) from error
        for entry in entries:
            key = f"{directory}/{entry.name}" if directory else entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=not self._link_flag):
                if key.startswith(prefix) or prefix.startswith(key + "/"):
                    yield from self._walk(key, prefix, above)
            elif key.startswith(prefix) and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    yield _info(key, entry.stat(follow_symlinks=False))

    @contextmanager
    def _reading(self, key: str) -> Iterator[tuple[int, int]]:
        """Descriptor and size of a regular file."""
        with self._translate(key), Descriptor(self._path(key), READ_FILE) as fd:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise CorruptObject("not a regular file", expected="a regular file", found=stat.filemode(info.st_mode))
            yield fd, info.st_size

    # ---- writing --------------------------------------------------------------------

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        with self.batch() as batch:
            batch.put(key, parts)
            batch.commit()

    def batch(self) -> Batch:
        self._sweep()
        return LocalBatch(self)

    def put_if(self, key: str, data: Buffer, etag: str | None) -> str:
        with self._exclusive() as hold:
            while True:
                entries = hold.entries
                try:
                    current = self.head(key).etag
                except NotFound:
                    current = None
                if current != etag:
                    raise Conflict("the object changed since it was read", key=key, backend=self.url)
                with suppress(_InterruptedError), LocalBatch(self, (hold, entries)) as batch:
                    batch.put(key, [data])
                    batch.commit()
                    return self.head(key).etag

    def copy(self, source: str, target: str) -> None:
        # Mapped, so that memory stays bounded. Not a link: what changes the file in place would change both.
        with self._reading(source) as (fd, size), self.batch() as batch:
            batch.put(target, [FileMap(fd, 0, size)] if size else [])
            batch.commit()

    def delete(self, key: str) -> None:
        if not os.path.isdir(self.root):
            return
        self.check_keys([key])
        directory, _, name = key.rpartition("/")
        # Locked as put_if is: what that found must not go between its look and its rename, and come back by it.
        with suppress(NotFound), self._exclusive(), self._translate(key), self.open_directory(directory, False) as fd:
            os.unlink(name, dir_fd=fd)
            if self.fsync == "always":
                _fsync(fd)

    def open_directory(self, directory: str, create: bool, root: Descriptor | None = None) -> Descriptor:
        """A directory below the root, opened step by step so that no step follows a link; where links are
        followed, in one step if it exists. ``root``: the root, if it is open."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        if not self._link_flag:
            path = os.path.join(self.root, directory)
            try:
                return Descriptor(path, flags)
            except FileNotFoundError:
                if not create:
                    raise
            if not os.path.isdir(self.root):
                self._make_root(self.root)
            os.makedirs(path, exist_ok=True)
            return Descriptor(path, flags)
        if root is None and create and not os.path.isdir(self.root):
            self._make_root(self.root)
        reached = Descriptor(self.root, flags) if root is None else root
        for name in directory.split("/") if directory else ():
            with nullcontext(root.fd) if reached is root else reached as fd:
                try:
                    below = Descriptor(name, flags | self._link_flag, dir_fd=fd)
                except FileNotFoundError:
                    if not create:
                        raise
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=fd)
                    below = Descriptor(name, flags | self._link_flag, dir_fd=fd)
            reached = below
        return reached

    def open_below(self, directory: int, path: str, flags: int) -> Descriptor:
        """A file or directory below an open directory. ``path`` may have several steps only where ``plain_below``: then
        the system refuses it if one of them is a link, unless links are followed."""
        if self._link_flag and OPENS_PLAINLY:
            return Descriptor.plain(path, flags, dir_fd=directory)
        return Descriptor(path, flags, dir_fd=directory)

    def _make_root(self, path: str) -> None:
        """Create the store's directory and those above it, each named durably in its parent."""
        parent = os.path.dirname(path)
        if parent != path and not os.path.isdir(parent):
            self._make_root(parent)
        with suppress(FileExistsError):
            os.mkdir(path)
        if self.fsync != "none":
            with Descriptor(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as fd:
                _fsync(fd)

    def delete_unchanged(self, objects: Mapping[str, str]) -> Answers:
        answers = []
        for key, etag in objects.items():
            with self._exclusive() as hold:
                try:
                    answers.append(self._delete_if(key, etag, hold))
                except NotFound:
                    answers.append(True)
        return answers

    def _delete_if(self, key: str, etag: str, hold: _Hold) -> bool:
        directory, _, name = key.rpartition("/")
        while True:
            entries = hold.entries
            if self.head(key).etag != etag:
                return False
            with suppress(_InterruptedError), self._translate(key), self.open_directory(directory, False) as fd:
                (os.unlink if hold.entries == entries else _interrupted)(name, dir_fd=fd)
                if self.fsync == "always":
                    _fsync(fd)
                return True

    def move_unchanged(self, source: str, target: str, etag: str, *, replace: bool = True) -> bool:
        # Renamed: needs no room, which a full disk does not have, and no byte passes through memory.
        with self._exclusive() as hold, self._translate(source):
            entries = hold.entries
            if self.head(source).etag != etag:
                return False
            (old, _, old_name), (new, _, new_name) = source.rpartition("/"), target.rpartition("/")
            with self.open_directory(old, False) as from_fd, self.open_directory(new, True) as to_fd:
                if hold.entries != entries:
                    return self.move_unchanged(source, target, etag, replace=replace)
                if replace:
                    os.rename(old_name, new_name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
                else:
                    # Writers take no lock in a store that was never collected.
                    try:
                        move_new(Path(self._path(source)), Path(self._path(target)))
                    except FileExistsError:
                        raise Conflict("something is stored there", key=target, backend=self.url) from None
                os.utime(new_name, dir_fd=to_fd, follow_symlinks=False)
                if self.fsync != "none":
                    _fsync(to_fd)
                    _fsync(from_fd)
            return True

    def deletes_conditionally(self) -> bool:
        return True

    def refresh(self, keys: Iterable[str]) -> None:
        """Make files young again that something which removes files by age would take before what relies on them.
        Conflict when one is gone."""
        life = (self.expire_days or 0) * 86400.0
        for key in keys:
            try:
                if needs_refresh(time.time() - self.head(key).modified, life):
                    with self._translate(key), self.replacing():
                        os.utime(self._path(key), follow_symlinks=False)
            except NotFound:
                raise Conflict(
                    "a file was removed that this operation relied on", key=key, backend=self.url, hint="Do it again"
                ) from None

    @contextmanager
    def replacing(self) -> Iterator[None]:
        """Held while objects become visible, so that what ``delete_unchanged`` looked at is what it deletes. Only a
        store that has been collected needs it."""
        if not os.path.exists(os.path.join(self.root, COLLECTED)):
            yield
            return
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def _exclusive(self) -> Iterator[_Hold]:
        """A lock against every other process and thread that uses this store. Only a signal handler in this thread may
        get in between: whoever looks before acting asks the hold, in the same expression as the act, whether one did.
        """
        with self._lock, self._locked(fcntl.LOCK_EX) as hold:
            yield hold

    @contextmanager
    def _locked(self, kind: int) -> Iterator[_Hold]:
        me = threading.get_ident()
        outer = held() if (held := self._held.get(me)) is not None else None
        if outer is not None and outer.process == os.getpid() and outer.file.fd >= 0:
            # In a signal handler: the lock is this thread's already, or about to be, and would never be free.
            outer.entries += 1
            fcntl.flock(outer.file.fd, fcntl.LOCK_EX if fcntl.LOCK_EX in (kind, outer.kind) else kind)
            try:
                yield outer
            finally:
                fcntl.flock(outer.file.fd, outer.kind)
            return
        with self._translate(LOCK):
            with self.open_directory("", create=True) as root:
                file = Descriptor(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=root)
            with file as fd:
                try:
                    # The kind is noted before it is so, each time: a signal handler leaves the lock as it finds it.
                    hold = _Hold(file, kind, os.getpid())
                    self._held[me] = ref(hold)
                    fcntl.flock(fd, kind)
                    try:
                        yield hold
                    finally:
                        # Closing alone would leave it locked in a child forked meanwhile.
                        hold.kind = fcntl.LOCK_UN
                        fcntl.flock(fd, fcntl.LOCK_UN)
                finally:
                    self._held.pop(me, None)

    def remember_durable(self, keys: Iterable[str]) -> None:
        """These need no sync when another operation relies on them."""
        if len(self.durable) > DURABLE:
            self.durable.clear()
        self.durable.update(keys)

    def keep_reserve(self) -> None:
        """Hold some room back for the collector, which has to write a little before it can free any."""
        path = os.path.join(self.root, RESERVE)
        try:
            opened = Descriptor(path, NEW_FILE)
        except OSError:
            return  # it is there, or cannot be
        try:
            with opened as fd:
                _write_all(fd, [bytes(RESERVE_BYTES)])
        except (OSError, MfstoreError):
            with suppress(OSError):
                os.unlink(path)

    def release_reserve(self) -> bool:
        """Free the room held back for the collector. Whether there was any."""
        try:
            os.unlink(os.path.join(self.root, RESERVE))
        except OSError:
            return False
        return True

    def _sweep(self) -> None:
        """At most once a day per store, remove temporary files of processes that died, and see to it that there is room
        for a collection: once the disk is full, nothing can be held back any more."""
        if self._swept:
            return
        self._swept = True
        marker = os.path.join(self.root, SWEPT)
        now = time.time()
        try:
            if now - os.stat(marker, follow_symlinks=False).st_mtime < SWEEP_AGE:
                return
        except FileNotFoundError:
            if not os.path.isdir(self.root):
                return
        with suppress(OSError):
            self.sweep(SWEEP_AGE)
            Descriptor(marker, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW).close()
        self.keep_reserve()

    def sweep(self, age: float) -> int:
        """Remove temporary files last written more than ``age`` seconds ago; returns how many."""
        removed = 0
        limit = time.time() - age
        for directory, names, files in os.walk(self.root):
            names[:] = [name for name in names if not name.startswith(".")]
            for name in files:
                path = os.path.join(directory, name)
                with suppress(FileNotFoundError):
                    if name.startswith(TEMPORARY) and os.stat(path, follow_symlinks=False).st_mtime < limit:
                        os.unlink(path)
                        removed += 1
        return removed

    # ---- errors ---------------------------------------------------------------------

    def _path(self, key: str) -> str:
        # Keys are made by mfstore; the check keeps a mistake of ours from leaving the root.
        if key.startswith("/") or "\0" in key or (".." in key and ".." in key.split("/")):
            raise BackendError("key would leave the store", key=key, backend=self.url)
        return f"{self._below}{key}"

    def check_keys(self, keys: Sequence[str]) -> None:
        """BackendError for the first that would leave the root."""
        every = "\n".join(keys)
        if every.startswith("/") or "\n/" in every or "\0" in every or ".." in every:
            for key in keys:
                self._path(key)

    @contextmanager
    def _translate(self, key: str) -> Iterator[None]:
        try:
            yield
        except MfstoreError as error:
            error.where(key=key, backend=self.url)
            raise
        except OSError as error:
            raise self._error(error, key) from error

    def _error(self, error: OSError, key: str) -> MfstoreError:
        """The one table from errno to exception."""
        where: dict[str, Any] = {"key": key, "backend": self.url}
        code = error.errno
        if code in (errno.ENOENT, errno.ESTALE):
            return NotFound("no such object", **where)
        if code in (errno.EACCES, errno.EPERM, errno.EROFS):
            from mfstore.host.permissions import refused_because  # for who is refused

            why, hint = refused_because(self._path(key), code)
            return AccessDenied(f"permission denied: {why}", **where, hint=hint)
        if code in NO_ROOM:
            return OutOfSpace(
                f"cannot write: {error.strerror}",
                **where,
                hint="Nothing stored before is affected; free some space and put again",
            )
        if code in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR):
            if key.partition("/")[0] == key and not os.path.isdir(self.root):
                return NotAStore("the store's path is not a directory", **where)
            return CorruptObject("not a regular file in a plain directory; links are refused", **where)
        return BackendError(f"{type(error).__name__}: {error.strerror or error}", **where)


class _Hold:
    """What one thread holds of a store's lock file."""

    __slots__ = ("__weakref__", "entries", "file", "kind", "process")

    def __init__(self, file: Descriptor, kind: int, process: int) -> None:
        self.file = file
        """Closed once nothing is held, though a traceback may still keep this."""
        self.kind = kind
        self.process = process
        self.entries = 0
        """How often a signal handler got in meanwhile."""


class _InterruptedError(Exception):
    """A signal handler changed something between a look and the act that it was for."""


def _interrupted(*args: Any, **kwargs: Any) -> None:
    raise _InterruptedError


class _Staged(NamedTuple):
    """A file that was written under a temporary name."""

    directory: str
    temporary: str
    name: str


class LocalBatch(Batch):
    """Stages temporary files and makes them visible, in order, at ``commit``."""

    backend: LocalBackend

    def __init__(self, backend: LocalBackend, locked: tuple[_Hold, int] | None = None) -> None:
        self.backend = backend
        self._hold: _Hold | None
        self._hold, self._entries = locked if locked is not None else (None, 0)
        """The lock that this is done under, and how often a signal handler had got in when the caller looked."""
        self._replacing = backend.replacing if locked is None else nullcontext
        self._staged: list[_Staged] = []
        self._relied: set[str] = set()
        self._open: dict[str, Descriptor] = {}
        self._there: set[str] = set()
        """Directories that this has made, or found."""
        self._process = os.getpid()
        self._token = os.urandom(8).hex()
        self._count = 0

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        before = len(self._staged)
        try:
            self._put(key, parts)
        except OutOfSpace:
            self._unstage(before)
            if not key.startswith(COLLECTION) or key.startswith(LOG) or not self.backend.release_reserve():
                raise
            self._put(key, parts)
        if key.startswith(COLLECTION):
            self.backend.keep_reserve()

    def _put(self, key: str, parts: Sequence[Buffer]) -> None:
        backend = self.backend
        backend.check_keys([key])
        directory, _, name = key.rpartition("/")
        self._count += 1
        temporary = f"{TEMPORARY}{os.getpid()}-{self._token}{self._count:x}"
        try:
            target, below = self._reach(directory)
            missing = self._make(directory, target, below)
            # Listed before it exists, so that an interrupt in between leaves no file behind.
            self._staged.append(_Staged(directory, temporary, name))
            try:
                opened = backend.open_below(target, below + temporary, NEW_FILE)
            except FileNotFoundError:
                raise missing or NotFound("its directory was removed") from None
            with opened as fd:
                _write_all(fd, parts)
                if backend.fsync == "always":
                    _flush(fd)
            if backend.fsync == "always":
                with self._replacing():
                    self._rename(self._staged[-1])
                self._staged.clear()
                for above in _and_above(directory):
                    _fsync(self._directory(above))
        except MfstoreError as error:
            raise error.where(key=key, backend=backend.url) from None
        except OSError as error:
            raise backend._error(error, key) from error

    def put_many(self, items: Iterable[tuple[str, Sequence[Buffer]]]) -> None:
        if not self.backend.plain_below or self.backend.fsync == "always":
            super().put_many(items)
            return
        for above, some in _together(items):
            if above is None or len(some) == 1:
                super().put_many(some)
            else:
                self._put_together(above, some)

    def _put_together(self, above: str, items: list[tuple[str, Sequence[Buffer]]]) -> None:
        """As ``put`` of each. Their directories lie in ``above``."""
        backend = self.backend
        backend.check_keys([key for key, _ in items])
        before = len(self._staged)
        prefix = f"{TEMPORARY}{os.getpid()}-{self._token}"
        start = len(above) + 1 if above else 0
        paths: list[str] = []
        missing: dict[str, OSError | None] = {}
        key = items[0][0]
        try:
            target = self._directory(above)
            for key, _ in items:
                directory, _, name = key.rpartition("/")
                below = directory[start:] + "/"
                if directory not in self._there:
                    missing[directory] = self._make(directory, target, below)
                self._count += 1
                temporary = f"{prefix}{self._count:x}"
                paths.append(below + temporary)
                # Listed before it exists, as in ``_put``.
                self._staged.append(_new_staged((directory, temporary, name)))
            write_fresh(target, paths, [parts for _, parts in items], OPENS_PLAINLY and backend.refuses_links)
        except WrongLengthError as error:
            self._unstage(before)
            raise BackendError(
                WRONG_LENGTH, key=items[paths.index(error.path)][0], backend=backend.url, expected=error.expected,
                found=error.found,
            ) from None  # fmt: skip
        except OSError as error:
            self._unstage(before)
            if error.filename in paths:
                key = items[paths.index(error.filename)][0]
            if isinstance(error, FileNotFoundError):
                why = missing.get(key.rpartition("/")[0])
                if why is None:
                    raise NotFound("its directory was removed", key=key, backend=backend.url) from None
                error = why
            raise backend._error(error, key) from error

    def ensure(self, keys: Iterable[str]) -> None:
        if self.backend.expire_days is not None:
            keys = list(keys)
            self.backend.refresh(keys)
        self._relied.update(key for key in keys if key not in self.backend.durable)

    def commit(self) -> None:
        backend = self.backend
        syncs = backend.fsync != "none"
        if not (self._staged or (self._relied and syncs)):
            return
        with backend._translate(self._staged[0].directory if self._staged else ""):
            if syncs:
                files = [*self._relied, *(f"{staged.directory}/{staged.temporary}" for staged in self._staged)]
                self._sync(files, os.O_RDONLY)
            with self._replacing():
                if self._hold is None and len(self._staged) > 1:
                    self._rename_together()
                else:
                    for staged in self._staged:
                        self._rename(staged)
            if syncs:
                self._sync_directories()
        self._staged.clear()
        self._relied.clear()
        self._close_directories()

    def _sync_directories(self) -> None:
        """Those that name what was renamed or is relied on."""
        durable = self.backend.durable
        written = [*self._relied, *(f"{staged.directory}/{staged.name}" for staged in self._staged)]
        touched = [key.rpartition("/")[0] for key in written]
        # Directories above are synced once per handle: another process may have made them and not synced yet.
        above = {directory.rpartition("/")[0] for directory in touched} | {""}
        touched += [directory for directory in above if f"{directory}/" not in durable]
        self._sync(list(dict.fromkeys(touched)), os.O_RDONLY | os.O_DIRECTORY)
        self.backend.remember_durable([*written, *(f"{directory}/" for directory in above)])

    def _sync(self, paths: Sequence[str], flags: int) -> None:
        """Flush files or directories below the root, one by one or, when they are many, all at once."""
        if len(paths) > SYNC_FILES:
            try:
                sync_file_system(self._directory(""))
                return
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
        flags |= os.O_CLOEXEC | (self.backend._link_flag if flags & os.O_DIRECTORY else os.O_NOFOLLOW)
        for path in paths:
            directory, _, name = path.rpartition("/")
            target, below = self._reach(directory) if name else (self._directory(""), "")
            with self.backend.open_below(target, below + (name or "."), flags) as fd:
                _fsync(fd)

    def abort(self) -> None:
        self._unstage(0)
        self._close_directories()

    def _unstage(self, first: int) -> None:
        """Forget what was staged from this number on."""
        # What a forked child inherited is its parent's to commit.
        for directory, temporary, _ in self._staged[first:] if self._process == os.getpid() else ():
            with suppress(OSError):
                target, below = self._reach(directory)
                os.unlink(below + temporary, dir_fd=target)
        del self._staged[first:]

    def _rename(self, staged: _Staged) -> None:
        directory, temporary, name = staged
        fd, below = self._reach(directory)
        temporary, name = below + temporary, below + name
        # No call between the look and the act: signal handlers run after calls.
        act = os.rename if self._hold is None or self._hold.entries == self._entries else _interrupted
        act(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)

    def _rename_together(self) -> None:
        """Everything that is staged, in order. Only without a lock that signal handlers may get into."""
        plain = self.backend.plain_below
        for where, some in groupby(
            self._staged, lambda staged: _above(staged.directory) if plain else staged.directory
        ):
            start = len(where) + 1 if where else 0
            same = list(some)
            for first in range(0, len(same), RENAMED_TOGETHER):
                part = same[first : first + RENAMED_TOGETHER]
                olds = [_joined(staged.directory, staged.temporary)[start:] for staged in part]
                keys = [_joined(staged.directory, staged.name) for staged in part]
                target = self._directory(where)
                try:
                    rename_each(target, olds, [key[start:] for key in keys])
                except OSError as error:
                    if error.filename not in olds:
                        raise
                    raise self.backend._error(error, keys[olds.index(error.filename)]) from error

    def _reach(self, directory: str) -> tuple[int, str]:
        """An open directory, and how paths begin there that lead into ``directory``: the one above, where the system
        refuses links on the way by itself. So the 256 directories of recipes need not be opened each."""
        if not directory or not self.backend.plain_below:
            return self._directory(directory), ""
        above, _, last = directory.rpartition("/")
        return self._directory(above), last + "/"

    def _make(self, directory: str, target: int, below: str) -> OSError | None:
        """See to it that ``directory``, reached so, is there; why it cannot be made, if it is not. Made without a look:
        that would cost as much."""
        if not below or directory in self._there:
            return None
        try:
            os.mkdir(below[:-1], dir_fd=target)
        except FileExistsError:
            pass
        except OSError as error:
            return error
        self._there.add(directory)
        return None

    def _directory(self, directory: str) -> int:
        opened = self._open.get(directory)
        if opened is None:
            if len(self._open) >= DIRECTORIES:
                self._close_directories()
            if directory:
                self._directory("")  # where the way to it begins
            opened = self._open[directory] = self.backend.open_directory(directory, True, self._open.get(""))
        return opened.fd

    def _close_directories(self) -> None:
        while self._open:
            with suppress(OSError):  # read-only descriptors: closing them cannot lose anything
                self._open.popitem()[1].close()


def _reopen(
    root: str, fsync: str, expire_days: float | None, sweep: bool = True, follow_links: bool = False
) -> LocalBackend:
    return LocalBackend(root, fsync=fsync, expire_days=expire_days, sweep=sweep, follow_links=follow_links)


def _info(key: str, info: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, info.st_size, info.st_mtime, f"{info.st_ino}-{info.st_mtime_ns}-{info.st_size}")


def _paths(backend: LocalBackend, keys: Sequence[str]) -> tuple[str | None, list[str]]:
    """A directory and paths below it, which are the keys; of few keys none, and whole paths."""
    if len(keys) < FROM_ROOT:
        return None, list(map(backend._path, keys))
    backend.check_keys(keys)
    return backend.root, list(keys)


_new_staged = partial(tuple.__new__, _Staged)
"""From one tuple, in half of the time."""


def _joined(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _above(directory: str) -> str:
    """The directory in which one lies; of the root, the root."""
    return directory.rpartition("/")[0]


def _begins_at(directory: str) -> str | None:
    """The directory in which that of an object lies. None for those that are put by themselves: what lies in the root,
    and what the collector's room is for."""
    return None if not directory or f"{directory}/".startswith(COLLECTION) else _above(directory)


def _together(
    items: Iterable[tuple[str, Sequence[Buffer]]],
) -> Iterator[tuple[str | None, list[tuple[str, Sequence[Buffer]]]]]:
    """Objects in order, as many as are written in one call, with what ``_begins_at`` says of all of them. They are to
    be done with before the next ones are asked for."""
    some: list[tuple[str, Sequence[Buffer]]] = []
    above: str | None = None
    size = 0
    known: dict[str, str | None] = {}
    for item in items:
        directory = _above(item[0])
        if directory in known:
            begins = known[directory]
        else:
            begins = known[directory] = _begins_at(directory)
        if some and (begins != above or len(some) == FILES_TOGETHER or size >= BYTES_TOGETHER):
            yield above, some
            some.clear()
            size = 0
        above = begins
        some.append(item)
        for part in item[1]:
            size += len(part) if type(part) is bytes else memoryview(part).nbytes
    if some:
        yield above, some


def _and_above(directory: str) -> Iterator[str]:
    while directory:
        yield directory
        directory = directory.rpartition("/")[0]
    yield ""


def _check_record(key: str, size: int) -> None:
    """CorruptObject for what is longer than anything that is read whole under such a key."""
    most = LONGEST_REF if key.startswith("refs/") else LARGEST_RECORD if key.startswith(RECORDS) else size
    if size > most:
        raise CorruptObject("larger than any record", expected=f"at most {most} bytes", found=size)


def _room(size: int) -> FreshBytes:
    try:
        return FreshBytes(size)
    except (MemoryError, OverflowError):
        raise BackendError(f"there is no memory for {size} bytes at once") from None


def _check_end(end: int, size: int) -> None:
    """Before anything is allocated for a range: does the file have it?"""
    if end > size:
        raise CorruptObject("file is shorter than expected", expected=end, found=size)


def _read_exactly(fd: int, start: int, target: memoryview) -> None:
    while len(target):
        count = os.preadv(fd, [target], start)
        if count == 0:
            raise CorruptObject("file ended early", offset=start, expected=f"{len(target)} more bytes")
        start += count
        target = target[count:]


def _write_all(fd: int, parts: Sequence[Buffer]) -> None:
    views = list(filter(len, [memoryview(part).cast("B") for part in parts]))
    expected = sum(map(len, views))
    at = 0
    while at < len(views):
        count = os.writev(fd, views[at : at + WRITE_PARTS])
        while at < len(views) and count >= len(views[at]):
            count -= len(views[at])
            at += 1
        if count:
            views[at] = views[at][count:]
    found = os.fstat(fd).st_size
    if found != expected:
        raise BackendError(WRONG_LENGTH, expected=expected, found=found)


FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)


def _flush(fd: int) -> None:
    """To the disk itself: macOS's fsync ends at the cache of the drive, which a power cut empties."""
    if FULL_SYNC is not None:
        try:
            fcntl.fcntl(fd, FULL_SYNC)
            return
        except OSError as error:
            # A network file system has no such thing.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOTTY):
                raise
    os.fsync(fd)


def _fsync(fd: int) -> None:
    try:
        _flush(fd)
    except OSError as error:
        # Some network file systems have no fsync of directories.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
