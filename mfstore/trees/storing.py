"""A directory into the store: its small files together, large ones by themselves, and the manifest behind them."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from mfstore.errors import Unreadable
from mfstore.format import manifest
from mfstore.format.digests import NAMES, digest_function, hasher
from mfstore.format.manifest import DIRECTORY, FILE, LINK, MODE, Omitted, TreeEntry, path_text
from mfstore.format.recipes import ONE, TREE
from mfstore.host.beneath import open_beneath
from mfstore.host.callers import warn_caller
from mfstore.host.file_systems import on_network
from mfstore.progress import METER
from mfstore.records import NamedTuple
from mfstore.trees.scanning import READ_DIRECTORY, Scan, reason_of, scan

if TYPE_CHECKING:
    from mfstore.format.digests import Key
    from mfstore.format.recipes import Recipe
    from mfstore.handle import Handle
    from mfstore.saving.drafts import DraftSink, SegmentStream
    from mfstore.trees.excluding import Excludes

OnUnreadable = Literal["raise", "omit"]

LARGE = 256 << 10
"""Bytes from which on a file is a segment of its own: as long as the longest chunk, so that where it is cut depends on
nothing beside it."""
TOGETHER = 4 << 20
"""Bytes of small files that are handed on together."""
BLOCK = 8 << 20
"""Bytes of a large file that are read at a time."""
READ_FILE = os.O_RDONLY | os.O_NONBLOCK
"""O_NONBLOCK: what has become a pipe meanwhile must not be waited for."""
FAR_READS = 16
"""Small files of a network file system that are read at once: each takes three round trips of some 0.5 ms."""
FAR_TOGETHER = 4 * FAR_READS
"""How many of them are read before the first is stored: 16 MiB at most."""
TRIES = 3
"""How often a file is read that changes meanwhile."""
GRAIN_NS = 20_000_000
"""A file system may give two changes within so long the same time: Linux takes that of its last tick, of 1 to 10 ms."""
TOLD = 5
"""Paths that a warning names."""
REASON_CHANGED = "kept changing"


class Whole(NamedTuple):
    """A file that was read whole."""

    status: os.stat_result
    digest: bytes


class _ChangedError(Exception):
    """A file is not what it was when reading it began."""


class _ReadError(Exception):
    """The system does not give a file's bytes. Apart from what storing them raises, which are OSErrors too."""

    def __init__(self, said: OSError) -> None:
        super().__init__(said)
        self.said = said


def content_order(path: bytes) -> tuple[bytes, bytes]:
    """Small files lie in this order: those of one kind together, as they resemble each other, and each at the same
    place in the next version."""
    name = path.rpartition(b"/")[2]
    return name.rpartition(b".")[2].lower() if b"." in name else b"", path


class TreeWriter:
    """One tree on its way into a store."""

    def __init__(self, root: int, algorithm: int, on_unreadable: OnUnreadable, far: bool = False) -> None:
        self.omitted: list[Omitted] = []
        self._root = root
        self._algorithm = algorithm
        self._on_unreadable = on_unreadable
        self._far = far
        """Whether the directory lies on a network file system."""
        self._files: list[TreeEntry] = []
        self._seen: set[tuple[bytes, int]] = set()

    def omit(self, path: bytes, reason: str, error: OSError | None) -> None:
        """Something cannot be read: raise Unreadable, or leave it out."""
        text = path_text(path)
        if self._on_unreadable == "omit":
            self.omitted.append(Omitted(text, reason))
            return
        said = f" ({error.strerror})" if error is not None and error.strerror else ""
        told = Unreadable(
            f"cannot store {text!r}: {reason}{said}",
            hint="on_error='omit' leaves out what cannot be read, and tells it",
        )
        told.path, told.reason = text, reason
        raise told from error

    def write(self, found: Scan, sink: DraftSink) -> None:
        """All of it: what files hold, then the manifest."""
        self._write_files(found, sink)
        gone = {left.path for left in self.omitted}
        entries = [
            *(_entry(path, DIRECTORY, status) for path, status in found.directories),
            *(_entry(path, LINK, status, path_text(target)) for path, status, target in found.links),
            *self._files,
        ]
        left = sorted({*found.special, *self.omitted})
        sink.body(manifest.encode([entry for entry in entries if entry.path not in gone], left))

    def _write_files(self, found: Scan, sink: DraftSink) -> None:
        small = sorted((file.path for file in found.files if file.size < LARGE), key=content_order)
        large = [file.path for file in found.files if file.size >= LARGE]
        together = sink.stream(sum(file.size for file in found.files if file.size < LARGE))
        held: list[bytes] = []
        size = 0
        for path, read in self._each_small(small):
            if read is None:
                continue
            whole, data = read
            if data is None:  # it has grown
                large.append(path)
                continue
            if not self._add(path, whole):
                continue
            held.append(data)
            size += len(data)
            if size >= TOGETHER:
                together.feed(*held)
                held, size = [], 0
        if held:
            together.feed(*held)
        together.finish()
        for path in large:
            streamed = self._tried(path, lambda fd: self._stream(fd, sink))
            if streamed is not None and self._add(path, streamed[0]):
                streamed[1].finish()

    def _each_small(self, paths: list[bytes]) -> Iterator[tuple[bytes, Any]]:
        """Each path with what ``_tried`` gives for it, in order. Where a file takes round trips, several at once."""
        if not self._far:
            for path in paths:
                yield path, self._tried(path, self._read_small)
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(FAR_READS, thread_name_prefix="mfstore-tree") as pool:
            for first in range(0, len(paths), FAR_TOGETHER):
                together = paths[first : first + FAR_TOGETHER]
                yield from zip(
                    together, pool.map(lambda path: self._tried(path, self._read_small), together), strict=True
                )

    def _add(self, path: bytes, whole: Whole) -> bool:
        """Note a file. Whether what it holds is to be stored: what another file holds too is, once, and no bytes are
        nothing."""
        entry = _entry(path, FILE, whole.status)._replace(size=whole.status.st_size, digest=whole.digest)
        self._files.append(entry)
        content = entry.digest, entry.size
        if content in self._seen:
            return False
        self._seen.add(content)
        return True

    def _tried(self, path: bytes, read: Callable[[int], Any]) -> Any:
        """What reading a file gives, once it did not change meanwhile; None if it is left out."""
        for _ in range(TRIES):
            try:
                opened = open_beneath(self._root, path, READ_FILE)
            except OSError as error:
                self.omit(path, reason_of(error), error)
                return None
            with opened as fd:
                try:
                    return read(fd)
                except _ChangedError:
                    continue
                except _ReadError as error:
                    self.omit(path, reason_of(error.said), error.said)
                    return None
        self.omit(path, REASON_CHANGED, None)
        return None

    def _read_small(self, fd: int) -> tuple[Whole, bytes | None]:
        before = _begin(fd)
        if before.st_size >= LARGE:
            return Whole(before, b""), None
        data = b"".join(_blocks(fd, before.st_size))
        _end(fd, before)
        return Whole(before, digest_function(self._algorithm)(data)), data

    def _stream(self, fd: int, sink: DraftSink) -> tuple[Whole, SegmentStream]:
        before = _begin(fd)
        digest = hasher(self._algorithm)
        segment = sink.stream(before.st_size)
        for block in _blocks(fd, before.st_size):
            digest.update(block)
            segment.feed(block)
        _end(fd, before)
        return Whole(before, digest.digest()), segment


def _blocks(fd: int, size: int) -> Iterator[bytes]:
    """``size`` bytes of a file from its start. _ChangedError when there are fewer, or more; _ReadError."""
    left = size
    while left:
        block = _read(fd, min(left, BLOCK))
        if not block:
            raise _ChangedError
        left -= len(block)
        yield block
    if _read(fd, 1):
        raise _ChangedError


def _read(fd: int, size: int) -> bytes:
    try:
        return os.read(fd, size)
    except OSError as error:
        raise _ReadError(error) from error


def _begin(fd: int) -> os.stat_result:
    """The state of a file that is about to be read, from which on every change is told by its times."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise _ChangedError
    since = time.time_ns() - max(found.st_ctime_ns, found.st_mtime_ns)
    if 0 <= since < GRAIN_NS:
        time.sleep((GRAIN_NS - since) / 1e9)
        found = os.fstat(fd)
    return found


def _end(fd: int, before: os.stat_result) -> None:
    after = os.fstat(fd)
    if (after.st_size, after.st_mtime_ns, after.st_ctime_ns) != (
        before.st_size,
        before.st_mtime_ns,
        before.st_ctime_ns,
    ):
        raise _ChangedError


def _entry(path: bytes, kind: str, status: os.stat_result, target: str = "") -> TreeEntry:
    return TreeEntry(path_text(path), kind, status.st_mode & MODE, status.st_mtime_ns, target=target)


def store_tree(
    handle: Handle, directory: str | os.PathLike[str], excluded: Excludes, on_unreadable: OnUnreadable,
    find_base: Callable[[str], Recipe | None] | None, note: bytes | None,
) -> Key:  # fmt: skip
    """What ``Store.put_tree`` does, but for the ref."""
    keys: list[Key] = []
    root = os.open(os.fspath(directory), READ_DIRECTORY | os.O_CLOEXEC)
    try:
        with handle.saving(find_base) as ingest:
            writer = TreeWriter(root, NAMES[handle.algorithm_name], on_unreadable, on_network(os.fspath(directory)))
            found = scan(root, excluded, writer.omit, _place_of(handle))
            if (meter := METER.get()) is not None:
                meter.expect(sum(file.size for file in found.files))
            draft = ingest.draft_written(TREE, "tree", lambda sink: writer.write(found, sink))
            ingest.recipe(ONE, [draft], keys.append, note)
            handle.count(ingest.commit())
    finally:
        os.close(root)
    left = sorted({*found.special, *writer.omitted})
    if left:
        told = ", ".join(f"{one.path!r} ({one.reason})" for one in left[:TOLD])
        more = f" and {len(left) - TOLD:,} more" if len(left) > TOLD else ""
        warn_caller(f"left out of the tree: {told}{more}. store.tree(key).omitted lists them")
    return keys[0]


def _place_of(handle: Handle) -> tuple[int, int] | None:
    """Device and inode of the store's directory, if it is one."""
    try:
        status = os.stat(handle.backend.root)  # type: ignore[attr-defined]  # noqa: PTH116
    except (AttributeError, OSError):
        return None
    return status.st_dev, status.st_ino
