"""A tree that is stored: what is in it, and what its files hold, without restoring it."""

from __future__ import annotations

import io
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from mfstore.display.shown import Shown
from mfstore.errors import InvalidRange, MfstoreError, NotFound, Unsupported
from mfstore.format.manifest import DIRECTORY, FILE, Manifest, Omitted, TreeEntry, decode
from mfstore.format.recipes import Recipe, recipe_path
from mfstore.loading.artifacts import ArtifactReader

if TYPE_CHECKING:
    from mfstore.display.cards import Card
    from mfstore.format.digests import Key
    from mfstore.handle import Handle

SHOWN = 20
"""Entries that a notebook shows."""
BUFFER = 1 << 20
"""Bytes that a file that is read piece by piece reads ahead."""


class Tree(Shown):
    """A tree of directories, files and symbolic links as it was stored. Iterating gives all entries below its top in
    the order of their paths, ``len`` how many there are.

    What is in it is known when it is opened; what files hold is read when it is asked for, and nothing else of the
    tree. May be used from several threads.
    """

    def __init__(self, handle: Callable[[], Handle], key: Key, manifest: Manifest, reader: ArtifactReader) -> None:
        self.key = key
        """Its key."""
        self.omitted: tuple[Omitted, ...] = manifest.omitted
        """What was in the directory and is not in the tree, each with its ``path`` and ``reason``: "socket", "fifo",
        "device" or "the store itself"; and where unreadable things were to be left out, "not permitted", "vanished",
        "kept changing", "cannot be read" or "path too long". What ``exclude`` named is not told."""
        self.reader = reader
        """Byte ranges of what all files hold, by ``TreeEntry.offset``. For mfstore's own rooms."""
        self._handle = handle
        self._entries = {entry.path: entry for entry in sorted(manifest.entries, key=_by_path)}
        self._paths: list[str] | None = None
        self._children: dict[str, list[TreeEntry]] | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries) - 1

    def __iter__(self) -> Iterator[TreeEntry]:
        return iter([entry for entry in self._entries.values() if entry.path])

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and _plain(path) in self._entries

    def entry(self, path: str = "") -> TreeEntry:
        """What is at a path: of the top with "". Slashes around it do not matter, and a link is not followed.

        Raises:
            NotFound: nothing is there.
        """
        found = self._entries.get(_plain(path))
        if found is None:
            raise NotFound("the tree has nothing of this path", key=self.key, found=repr(path), hint=self._alike(path))
        return found

    def entries(self, path: str = "", *, recursive: bool = False) -> list[TreeEntry]:
        """What is in a directory, in the order of the paths; with ``recursive`` also what is in those below it. Of a
        file or a link that itself.

        Raises:
            NotFound: nothing is there.
        """
        top = self.entry(path)
        if top.kind != DIRECTORY:
            return [top]
        if recursive:
            return self.below(top.path)[1:]
        if self._children is None:
            children: dict[str, list[TreeEntry]] = {}
            for entry in self:
                children.setdefault(entry.path.rpartition("/")[0], []).append(entry)
            self._children = children
        return list(self._children.get(top.path, ()))

    def below(self, path: str) -> list[TreeEntry]:
        """The entry of a directory, and all that is below it."""
        if not path:
            return list(self._entries.values())
        if self._paths is None:
            self._paths = [*self._entries]
        # In the order of the parts of paths, all that lies below a directory follows it.
        first = bisect_left(self._paths, path.split("/"), key=lambda one: one.split("/"))
        found = []
        for number in range(first, len(self._paths)):
            one = self._paths[number]
            if one != path and not one.startswith(path + "/"):
                break
            found.append(self._entries[one])
        return found

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes ``start`` to ``stop`` of a file; beyond its end, or None, ``stop`` means its end. Only the chunks that
        hold them are read.

        Raises:
            NotFound: nothing is there.
            Unsupported: it is a directory or a link; links are not followed.
            InvalidRange: ``start`` is negative, beyond the end, or after ``stop``.
            CorruptObject: bytes differ from what was stored, and there is no whole copy.
        """
        entry = self.file(path)
        end = entry.size if stop is None else min(stop, entry.size)
        if not 0 <= start <= entry.size or (stop is not None and stop < start):
            raise InvalidRange(f"no bytes {start} to {stop} of {path}", key=self.key, expected=f"within {entry.size}")
        if start == end:
            return b""
        (found,) = self.read_ranges([(entry.offset + start, entry.offset + end)])
        return found

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Ranges of what all files hold, one after the other, which are read together. Errors as of ``read``."""
        try:
            found = self.reader.read_ranges(ranges)
            self._handle().count(sum(map(len, found)))
            return found
        except MfstoreError as error:
            raise error.where(key=self.key, backend=self._handle().backend.url) from error.__cause__

    def open(self, path: str) -> BinaryIO:
        """A file of the tree to read from, in any order, as ``open(path, "rb")`` gives one. Errors as of ``read``; they
        are OSErrors where what reads from it knows no others."""
        return io.BufferedReader(_TreeFile(self, self.file(path)), BUFFER)

    def file(self, path: str) -> TreeEntry:
        """The entry of a file. Errors as of ``read``."""
        entry = self.entry(path)
        if entry.kind != FILE:
            where = f" to {entry.target!r}, which is not followed" if entry.target else ""
            raise Unsupported(f"{path!r} is a {entry.kind}{where}, and no file", key=self.key)
        return entry

    def _alike(self, path: str) -> str | None:
        above = _plain(path).rpartition("/")[0]
        while above and above not in self._entries:
            above = above.rpartition("/")[0]
        names = [entry.name for entry in self.entries(above)[:SHOWN]]
        return f"{above or 'The top'} has {', '.join(map(repr, names))}" if names else None

    def _card(self) -> Card:
        from mfstore.display.amounts import count, size
        from mfstore.display.cards import Card, Cell, Grid, age_cell, code_cell, key_cell

        top = self.entries()
        files = [entry for entry in self._entries.values() if entry.kind == FILE]
        directories = sum(entry.kind == DIRECTORY for entry in self._entries.values()) - 1
        holds = f"{count(len(files), 'file')}, {size(self.size)}, and {directories:,} directories"
        facts: list[tuple[str, Cell | str]] = [("key", key_cell(self.key)), ("holds", holds)]
        rows = tuple(
            (code_cell(entry.name + "/" * (entry.kind == DIRECTORY)), self._told(entry), age_cell(entry.mtime))
            for entry in top[:SHOWN]
        )
        grids = (Grid(("name", "size", "changed"), rows, (1,), more=len(top) - len(rows)),) if rows else ()
        left = f"Left out when it was stored: {count(len(self.omitted), 'thing')}, see omitted."
        return Card("Tree", "", tuple(facts), grids, (left,) if self.omitted else ())

    def _told(self, entry: TreeEntry) -> str:
        from mfstore.display.amounts import size

        if entry.target:
            return f"→ {entry.target}"
        below = self.below(entry.path) if entry.kind == DIRECTORY else [entry]
        return size(sum(one.size for one in below))


class _TreeFile(io.RawIOBase):
    """A file of a tree."""

    def __init__(self, tree: Tree, entry: TreeEntry) -> None:
        self._tree = tree
        self._entry = entry
        self._at = 0
        self.name = entry.path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._entry.size}[whence]
        if at < 0:
            raise ValueError(f"no place {at} in a file")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        at = min(self._at, self._entry.size)
        data = self._tree.read(self._entry.path, at, at + len(view))
        view[: len(data)] = data
        self._at = at + len(data) if data else self._at
        return len(data)


def _by_path(entry: TreeEntry) -> list[str]:
    return entry.path.split("/") if entry.path else []


def _plain(path: str) -> str:
    return path.strip("/")


def open_tree(handle: Callable[[], Handle], key: Key, recipe: Recipe, verify: bool | None = None) -> Tree:
    """The tree of a recipe. Unsupported when it is of something else, CorruptObject when its manifest is damaged,
    NotSigned as of ``Handle.require_signed``."""
    opened = handle()
    if not recipe.is_tree:
        raise Unsupported("this is no tree of a directory", key=key, hint="store.get(key) loads it")
    opened.require_signed([key])
    (artifact,) = recipe.artifacts
    reader = ArtifactReader(opened.loading(verify, True), recipe, 0)
    contents = sum(segment.length for segment in artifact.segments)
    try:
        manifest = decode(reader.read(contents, reader.size))
        if manifest.size != contents:
            raise Unsupported("a tree holds more or less than its files", expected=manifest.size, found=contents)
    except MfstoreError as error:
        raise error.where(key=recipe_path(key), backend=opened.backend.url) from error.__cause__
    return Tree(handle, key, manifest, reader)
