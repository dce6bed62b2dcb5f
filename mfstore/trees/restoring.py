"""A tree, or a part of one, back into directories.

Whoever restores may be somebody else than who stored, and others may write where it is restored to. So every step goes
by the descriptor of a directory that was opened without following a link, and what is there is replaced only if that
was asked for. Files appear whole: a tree under a name of its own until all of it is there, or, in a directory that
exists, each file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mfstore._core.descriptor import Descriptor
from mfstore.errors import MfstoreError, OutOfSpace, Refused
from mfstore.format.manifest import DIRECTORY, FILE, LINK, TreeEntry, path_bytes
from mfstore.host.beneath import open_beneath
from mfstore.host.file_systems import NO_ROOM, move_new
from mfstore.progress import METER
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.loading.artifacts import ArtifactReader
    from mfstore.trees.tree import Tree

Existing = Literal["refuse", "keep", "replace"]

BLOCK = 32 << 20
"""Bytes of contents that are held at a time."""
COPIED = 8 << 20
"""Bytes that are copied at a time from one file to another that holds the same."""
DIRECTORIES = 64
"""Directories that are kept open."""
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL
FILE_MODE = 0o777
"""What is restored of the mode of a file. That it runs as its owner was another owner's to say."""
DIRECTORY_MODE = 0o1777
BEGUN_MODE = 0o1700
"""Of a directory until all in it is written. Nobody else comes in; and by the sticky bit, which means nothing to its
owner alone, "keep" knows one that an interrupted restore has left."""
LOOK = "existing='keep' leaves what is there, existing='replace' replaces files of the same names"


class Placed(NamedTuple):
    """An entry, and where it goes below the destination."""

    path: bytes
    entry: TreeEntry


class Extent(NamedTuple):
    """What one or several files hold: bytes ``start`` to ``end`` of the tree's contents."""

    start: int
    end: int
    files: list[Placed]


# ---- planning ---------------------------------------------------------------------------


def placed(entries: Iterable[TreeEntry], top: str) -> list[Placed]:
    """Where entries go when the one of path ``top`` becomes the destination."""
    cut = len(path_bytes(top)) + 1 if top else 0
    return [Placed(path_bytes(entry.path)[cut:], entry) for entry in entries]


def extents(files: Iterable[Placed]) -> list[Extent]:
    """What files hold, each once, in the order in which it lies in the tree; not of those that are empty."""
    found: dict[int, Extent] = {}
    for file in files:
        if file.entry.size:
            start = file.entry.offset
            found.setdefault(start, Extent(start, start + file.entry.size, [])).files.append(file)
    return [found[start] for start in sorted(found)]


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for start, end in ranges:
        if found and found[-1][1] == start:
            found[-1] = found[-1][0], end
        else:
            found.append((start, end))
    return found


class _Part(NamedTuple):
    """Bytes of an extent, which begin ``at`` in it."""

    extent: Extent
    at: int
    data: memoryview


def contents(reader: ArtifactReader, tree: Tree, wanted: Sequence[Extent], block: int) -> Iterator[_Part]:
    """What the extents hold, in order, in parts; about ``block`` bytes of them are held at a time."""
    first = 0
    for start, end in reader.blocks(block):
        here: list[tuple[Extent, int, int]] = []
        while first < len(wanted) and wanted[first].start < end:
            extent = wanted[first]
            low, high = max(extent.start, start), min(extent.end, end)
            if low < high:
                here.append((extent, low, high))
            if extent.end > end:
                break
            first += 1
        if not here:
            if first == len(wanted):
                return
            continue
        ranges = joined((low, high) for _, low, high in here)
        datas = iter(zip(ranges, tree.read_ranges(ranges), strict=True))
        (begin, stop), data = next(datas)
        for extent, low, high in here:
            if low >= stop:
                (begin, stop), data = next(datas)
            yield _Part(extent, low - extent.start, memoryview(data)[low - begin : high - begin])


# ---- writing ----------------------------------------------------------------------------


class _NewFile(NamedTuple):
    """A file that is being written."""

    opened: Descriptor
    place: Placed
    temporary: bytes
    """Its name so far; empty where it is created under its own."""


class Destination:
    """An open directory into which a tree, or a file, is restored."""

    def __init__(self, root: int, existing: Existing, staged: bool, called: str) -> None:
        self._root = root
        self._existing = existing
        self._staged = staged
        """Whether nobody else sees the directory yet, so that files need no other name until they are whole."""
        self._called = called
        self._opened: OrderedDict[bytes, Descriptor] = OrderedDict()
        self._made: set[tuple[int, int]] = set()
        """Device and inode of all that is ours: what takes the place of such a thing has a name that the file system
        does not tell from its."""

    def close(self) -> None:
        """Forget the directories."""
        while self._opened:
            self._opened.popitem()[1].close()

    def _above(self, path: bytes) -> tuple[int, bytes]:
        """The directory in which a path lies, and its last name."""
        above, _, name = path.rpartition(b"/")
        if not above:
            return self._root, name
        found = self._opened.get(above)
        if found is None:
            try:
                found = open_beneath(self._root, above, OPEN_DIRECTORY)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EXDEV):
                    raise self._refused("what was a directory is none any more", above) from error
                raise
            self._opened[above] = found
            if len(self._opened) > DIRECTORIES:
                self._opened.popitem(last=False)[1].close()
        else:
            self._opened.move_to_end(above)
        return found.fd, name

    def _refused(self, message: str, path: bytes, hint: str | None = None) -> Refused:
        return Refused(message, found=repr(f"{self._called}/{os.fsdecode(path)}"), hint=hint)

    @contextmanager
    def named(self, path: bytes) -> Iterator[None]:
        """What the system says of a name in a directory, said of the whole path."""
        try:
            yield
        except MfstoreError:
            raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{self._called}/{os.fsdecode(path)}") from error

    def _there(self, path: bytes) -> os.stat_result | None:
        directory, name = self._above(path)
        try:
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _collides(self, status: os.stat_result, path: bytes) -> Refused | None:
        if (status.st_dev, status.st_ino) in self._made:
            return self._refused(
                "two names of the tree are one for this file system", path,
                "Restore to one that tells capital letters from small ones",
            )  # fmt: skip
        return None

    def make_directories(self, directories: Iterable[Placed]) -> list[Placed]:
        """Make them, readable for nobody else so far. Those that were made, or are to become as the tree says."""
        ours = []
        for place in directories:
            with self.named(place.path):
                if self._make_directory(place.path) or self._existing == "replace":
                    ours.append(place)
        return ours

    def _make_directory(self, path: bytes) -> bool:
        """Whether it was not there, or was left unfinished."""
        directory, name = self._above(path)
        try:
            os.mkdir(name, BEGUN_MODE, dir_fd=directory)
        except FileExistsError:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if (collision := self._collides(status, path)) is not None:
                raise collision from None
            if not stat.S_ISDIR(status.st_mode):
                raise self._refused("something else is where a directory is to be", path) from None
            return status.st_mode & DIRECTORY_MODE == BEGUN_MODE and status.st_uid == os.geteuid()
        self._note(os.stat(name, dir_fd=directory, follow_symlinks=False))
        return True

    def wanted(self, places: Iterable[Placed]) -> list[Placed]:
        """Those files and links that are to be written. Refused where what is there is in the way."""
        if self._staged:
            return list(places)
        found = []
        for place in places:
            status = self._there(place.path)
            if status is None:
                found.append(place)
            elif self._existing == "refuse":
                raise self._refused("there is something of this name already", place.path, LOOK)
            elif self._existing == "replace":
                if stat.S_ISDIR(status.st_mode):
                    raise self._refused("a directory is where a file is to be, and is not replaced", place.path)
                found.append(place)
        return found

    def make_link(self, place: Placed) -> None:
        """Make a symbolic link."""
        directory, name = self._above(place.path)
        temporary = self._temporary()
        new = temporary or name
        try:
            os.symlink(path_bytes(place.entry.target), new, dir_fd=directory)
        except FileExistsError as error:
            raise self._taken(place.path) from error
        try:
            times = place.entry.mtime_ns, place.entry.mtime_ns
            os.utime(new, ns=times, dir_fd=directory, follow_symlinks=False)
            self._publish(directory, temporary, place)
        except BaseException:
            with suppress(OSError):
                os.unlink(new, dir_fd=directory)
            raise

    def begin(self, place: Placed) -> _NewFile:
        """Create a file."""
        directory, name = self._above(place.path)
        temporary = self._temporary()
        try:
            return _NewFile(open_beneath(directory, temporary or name, NEW_FILE), place, temporary)
        except FileExistsError as error:
            raise self._taken(place.path) from error

    def finish(self, file: _NewFile) -> None:
        """It is whole: give it its mode, its time and its name."""
        entry, fd = file.place.entry, file.opened.fd
        os.fchmod(fd, entry.mode & FILE_MODE)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        status = os.fstat(fd)
        file.opened.close()
        directory, _ = self._above(file.place.path)
        self._publish(directory, file.temporary, file.place, status)

    def drop(self, file: _NewFile) -> None:
        """Forget a file that was not finished."""
        file.opened.close()
        directory, name = self._above(file.place.path)
        with suppress(OSError):
            os.unlink(file.temporary or name, dir_fd=directory)

    def _temporary(self) -> bytes:
        return b"" if self._staged else temporary_name()

    def _taken(self, path: bytes) -> MfstoreError:
        status = self._there(path)
        collision = None if status is None else self._collides(status, path)
        return collision or self._refused("somebody else has put something there", path, "Try again")

    def _publish(
        self, directory: int, temporary: bytes, place: Placed, status: os.stat_result | None = None
    ) -> None:  # fmt: skip
        name = place.path.rpartition(b"/")[2]
        if status is None:
            status = os.stat(temporary or name, dir_fd=directory, follow_symlinks=False)
        if temporary and self._existing == "replace":
            there = self._there(place.path)
            if there is not None and (collision := self._collides(there, place.path)) is not None:
                raise collision
            try:
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except IsADirectoryError as error:
                raise self._refused("a directory is where a file is to be, and is not replaced", place.path) from error
        elif temporary:
            try:
                move_new(temporary, name, directory)
            except FileExistsError as error:
                raise self._taken(place.path) from error
        self._note(status)

    def _note(self, status: os.stat_result) -> None:
        self._made.add((status.st_dev, status.st_ino))

    def finish_directories(self, directories: Iterable[Placed]) -> None:
        """Give them their modes and times, those below before those above."""
        self.close()
        for place in sorted(directories, key=lambda one: one.path, reverse=True):
            with self.named(place.path), open_beneath(self._root, place.path, OPEN_DIRECTORY) as fd:
                os.fchmod(fd, place.entry.mode & DIRECTORY_MODE)
                os.utime(fd, ns=(place.entry.mtime_ns, place.entry.mtime_ns))


def temporary_name() -> bytes:
    """A name that nothing else has."""
    return b".mfstore-" + os.urandom(8).hex().encode()


def write(fd: int, data: memoryview) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(fd, data) :]


def _fill(tree: Tree, destination: Destination, files: Sequence[Placed], block: int) -> None:
    """Write the files, in the order in which what they hold lies in the tree."""
    for file in files:
        if not file.entry.size:
            _finished(destination, file, ())
    current: _NewFile | None = None
    try:
        for part in contents(tree.reader, tree, extents(files), block):
            first, *more = part.extent.files
            with destination.named(first.path):
                current = destination.begin(first) if part.at == 0 else current
                assert current is not None
                write(current.opened.fd, part.data)
            if part.at + len(part.data) < part.extent.end - part.extent.start:
                continue
            if more and part.at:
                for file in more:
                    _finished(destination, file, _read_again(current.opened.fd))
            else:
                for file in more:
                    _finished(destination, file, (part.data,))
            with destination.named(first.path):
                destination.finish(current)
            current = None
    except BaseException:
        if current is not None:
            destination.drop(current)
        raise


def _finished(destination: Destination, file: Placed, blocks: Iterable[memoryview]) -> None:
    with destination.named(file.path):
        new = destination.begin(file)
        try:
            for block in blocks:
                write(new.opened.fd, block)
            destination.finish(new)
        except BaseException:
            destination.drop(new)
            raise


def _read_again(fd: int) -> Iterator[memoryview]:
    """What is in a file that we have just written."""
    at = 0
    while block := os.pread(fd, COPIED, at):
        at += len(block)
        yield memoryview(block)


# ---- from the outside in ----------------------------------------------------------------


def restore(tree: Tree, to: str | os.PathLike[str], path: str, existing: Existing, remote_block: int) -> None:
    """What ``Store.get_tree`` does."""
    entry = tree.entry(path)
    target = Path(os.path.abspath(os.fspath(to)))  # noqa: PTH100
    places = placed(tree.below(entry.path) if entry.kind == DIRECTORY else [entry], entry.path)
    if (meter := METER.get()) is not None:
        meter.expect(sum(place.entry.size for place in places))
    block = max(BLOCK, remote_block)
    try:
        if entry.kind == DIRECTORY:
            _restore_directory(tree, target, places, existing, block)
        else:
            with _opened(target.parent) as parent:
                place = Placed(os.fsencode(target.name), entry)
                _restore_into(tree, parent, [place], existing, False, str(target.parent), block)
    except OSError as error:
        if error.errno in NO_ROOM and not isinstance(error, MfstoreError):
            raise OutOfSpace(
                "no room to restore the tree", found=str(target), hint="Free space, or restore elsewhere"
            ) from error
        raise


def _opened(directory: Path) -> Descriptor:
    return Descriptor(str(directory), OPEN_DIRECTORY)


def _restore_directory(tree: Tree, target: Path, places: Sequence[Placed], existing: Existing, block: int) -> None:
    try:
        root = _opened(target)
    except FileNotFoundError:
        if target.is_symlink():
            raise Refused("a link that leads nowhere is where the tree is to be", found=str(target)) from None
        _restore_new(tree, target, places, block)
        return
    except NotADirectoryError as error:
        raise Refused("something else is where the tree is to be", found=str(target)) from error
    with root as fd:
        if existing == "refuse" and os.listdir(fd):  # noqa: PTH208
            raise Refused("the directory is there and not empty", found=str(target), hint=LOOK)
        _restore_into(tree, fd, places, existing, False, str(target), block)


def _restore_new(tree: Tree, target: Path, places: Sequence[Placed], block: int) -> None:
    """Under another name beside it, until all is there."""
    with _opened(target.parent) as parent:
        name = temporary_name()
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(target)) from error
        try:
            with open_beneath(parent, name, OPEN_DIRECTORY) as root:
                _restore_into(tree, root, places, "refuse", True, str(target), block)
            try:
                # An empty directory may have come there meanwhile, which is replaced; nothing else is.
                os.rename(name, os.fsencode(target.name), src_dir_fd=parent, dst_dir_fd=parent)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise Refused("somebody else has put something there", found=str(target)) from error
                raise
        except BaseException:
            with suppress(OSError):
                _remove(parent, name)
            raise


def _remove(parent: int, name: bytes) -> None:
    """A directory with all that is in it, however deep: shutil.rmtree keeps a descriptor and a frame for each level."""
    found = [name]
    for path in found:
        with open_beneath(parent, path, OPEN_DIRECTORY) as fd:
            with suppress(OSError):
                os.fchmod(fd, 0o700)
            with os.scandir(fd) as listing:
                entries = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in listing]
            for one, is_directory in entries:
                if is_directory:
                    found.append(path + b"/" + one)
                else:
                    os.unlink(one, dir_fd=fd)
    for path in reversed(found):
        above, _, one = path.rpartition(b"/")
        with open_beneath(parent, above, OPEN_DIRECTORY) as fd:
            os.rmdir(one, dir_fd=fd)


def _restore_into(
    tree: Tree, root: int, places: Sequence[Placed], existing: Existing, staged: bool, called: str, block: int
) -> None:  # fmt: skip
    destination = Destination(root, existing, staged, called)
    try:
        tops = [place for place in places if not place.path]
        made = destination.make_directories(
            place for place in places if place.entry.kind == DIRECTORY and place.path
        )  # fmt: skip
        others = destination.wanted(place for place in places if place.entry.kind != DIRECTORY)
        _fill(tree, destination, [place for place in others if place.entry.kind == FILE], block)
        for place in others:
            if place.entry.kind == LINK:
                with destination.named(place.path):
                    destination.make_link(place)
        destination.finish_directories([*made, *(tops if staged or existing != "keep" else ())])
    finally:
        destination.close()
