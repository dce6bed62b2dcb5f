"""Manifests: what is in a tree of directories, files and links (docs/format.md, "Manifest of a tree").

The manifest is the body of a tree's artifact. What its files hold lies before it in the artifact's stream, in the order
in which the manifest lists them. Whoever may write to a store may write any manifest: what ``decode`` returns has no
path that leads anywhere but into the tree.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from mfstore.errors import CorruptObject, Unsupported
from mfstore.records import NamedTuple

MAGIC = b"MFST"
VERSION = 1
HEADER = struct.Struct("<4sBBHIIQ")
ENTRY = struct.Struct("<BBHHIqQ")
OMITTED = struct.Struct("<BBH")
DIGEST = 32
"""Bytes of the digest of a file."""

DIRECTORY = "directory"
FILE = "file"
LINK = "link"
KINDS = {1: DIRECTORY, 2: FILE, 3: LINK}
NUMBERS = {kind: number for number, kind in KINDS.items()}
REPEATED = 1
"""Flag of a file: it holds what an earlier one of the same digest and length does."""
REASONS = {
    1: "socket", 2: "fifo", 3: "device", 4: "not permitted", 5: "vanished", 6: "kept changing", 7: "cannot be read",
    8: "path too long", 9: "the store itself",
}  # fmt: skip
"""Why something was left out."""
REASON_NUMBERS = {reason: number for number, reason in REASONS.items()}
MODE = 0o7777
SECOND = 1_000_000_000
LONGEST = 0xFFFF
"""Bytes of the longest path."""


class TreeEntry(NamedTuple):
    """A directory, a file or a symbolic link of a tree."""

    path: str
    """From the top of the tree, with ``/`` between names; "" is the top itself. Names are UTF-8; of other ones each
    byte that is not stands as Python's ``surrogateescape`` writes it, as in ``os.listdir``."""
    kind: str
    """"directory", "file" or "link"."""
    mode: int = 0
    """Permissions, without the kind."""
    mtime_ns: int = 0
    """When it was changed last, in nanoseconds since the epoch."""
    size: int = 0
    """Bytes of a file; else 0."""
    digest: bytes = b""
    """Of what a file holds, by the store's ``hash``: for BLAKE3 what ``b3sum`` prints. Else empty."""
    target: str = ""
    """What a link points to, as it was; else ""."""
    offset: int = 0
    """Where in the tree's stream of bytes a file begins."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def mtime(self) -> float:
        """When it was changed last, in seconds since the epoch."""
        return self.mtime_ns / SECOND


class Omitted(NamedTuple):
    """Something that was not stored with its tree."""

    path: str
    reason: str
    """One of ``REASONS``."""


class Manifest(NamedTuple):
    """What is in a tree."""

    entries: tuple[TreeEntry, ...]
    """The top first, every directory before what is in it, files in the order of what they hold."""
    omitted: tuple[Omitted, ...]
    size: int
    """Bytes of what all files hold, equal ones once."""


def path_text(path: bytes) -> str:
    """A path as text."""
    return path.decode("utf-8", "surrogateescape")


def path_bytes(path: str) -> bytes:
    """A path as the system has it. ValueError for what is no text of a path."""
    return path.encode("utf-8", "surrogateescape")


def encode(entries: Sequence[TreeEntry], omitted: Sequence[Omitted]) -> bytes:
    """The manifest of entries in the order that ``Manifest.entries`` tells. Where files begin follows from it."""
    parts: list[bytes] = []
    size = 0
    held: set[tuple[bytes, int]] = set()
    for entry in entries:
        path, target = path_bytes(entry.path), path_bytes(entry.target)
        seconds, nanoseconds = divmod(entry.mtime_ns, SECOND)
        flags = 0
        if entry.kind == FILE:
            content = entry.digest, entry.size
            flags = REPEATED if content in held else 0
            if not flags:
                held.add(content)
                size += entry.size
        parts += (
            ENTRY.pack(
                NUMBERS[entry.kind], flags, entry.mode, len(path), nanoseconds, seconds, len(target) or entry.size
            ),
            path,
            entry.digest,
            target,
        )
    for left in omitted:
        path = path_bytes(left.path)
        parts += (OMITTED.pack(REASON_NUMBERS[left.reason], 0, len(path)), path)
    return b"".join((HEADER.pack(MAGIC, VERSION, 0, 0, len(entries), len(omitted), size), *parts))


def decode(data: bytes) -> Manifest:
    """Parse and check a manifest. CorruptObject says what was expected and found at which offset, Unsupported that it
    is of a newer version."""
    if len(data) < HEADER.size:
        raise CorruptObject("manifest is too short", offset=0, expected=f"at least {HEADER.size}", found=len(data))
    magic, version, flags, _, count, left, size = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise CorruptObject("not a manifest of a tree", offset=0, expected=MAGIC, found=magic)
    if version != VERSION or flags:
        raise Unsupported(
            "the manifest of this tree is unknown to this mfstore", expected=VERSION, found=(version, flags),
            hint="Upgrade mfstore to read it",
        )  # fmt: skip
    if HEADER.size + count * ENTRY.size + left * OMITTED.size > len(data):
        raise CorruptObject("manifest is cut short", offset=8, found=len(data))
    entries: list[TreeEntry] = []
    kinds: dict[bytes, str] = {}
    begins: dict[tuple[bytes, int], int] = {}
    at, total = HEADER.size, 0
    try:
        for _ in range(count):
            entry, path, end = _decode_entry(data, at)
            if path in kinds or (path and kinds.get(path.rpartition(b"/")[0]) != DIRECTORY):
                raise CorruptObject("a path comes twice, or not behind its directory", offset=at, found=entry.path)
            if not path and entry.kind != DIRECTORY:
                raise CorruptObject("the top of a tree is no directory", offset=at, found=entry.kind)
            kinds[path] = entry.kind
            if entry.kind == FILE:
                content = entry.digest, entry.size
                repeated = bool(data[at + 1])
                if repeated != (content in begins):
                    raise CorruptObject("a file is not said to repeat another one rightly", offset=at, found=repeated)
                if not repeated:
                    begins[content] = total
                    total += entry.size
                entry = entry._replace(offset=begins[content])
            entries.append(entry)
            at = end
        omitted: list[Omitted] = []
        for _ in range(left):
            reason, _, length = OMITTED.unpack_from(data, at)
            path, start = _path(data, at + OMITTED.size, length), at
            at += OMITTED.size + length
            if not path:
                raise CorruptObject("the top of a tree is said to be left out", offset=start)
            omitted.append(Omitted(path_text(path), REASONS.get(reason, REASONS[7])))
    except struct.error as error:
        raise CorruptObject(f"manifest is cut short: {error}", offset=at) from None
    if at != len(data) or total != size or b"" not in kinds:
        raise CorruptObject("manifest does not add up", offset=at, expected=(len(data), size), found=(at, total))
    return Manifest(tuple(entries), tuple(omitted), size)


def _decode_entry(data: bytes, at: int) -> tuple[TreeEntry, bytes, int]:
    number, flags, mode, length, nanoseconds, seconds, size = ENTRY.unpack_from(data, at)
    kind = KINDS.get(number)
    if kind is None or flags & ~REPEATED or mode & ~MODE or nanoseconds >= SECOND or (flags and kind != FILE):
        raise CorruptObject("an entry of a tree is no such one", offset=at, found=(number, flags, mode, nanoseconds))
    start = at + ENTRY.size
    path, start = _path(data, start, length), start + length
    digest, target = b"", ""
    if kind == FILE:
        digest, end = data[start : start + DIGEST], start + DIGEST
    elif kind == LINK:
        pointed, end = data[start : start + size], start + size
        if not pointed or b"\0" in pointed:
            raise CorruptObject("a link points to what can be no path", offset=start, found=pointed[:80])
        target, size = path_text(pointed), 0
    else:
        end = start
        if size:
            raise CorruptObject("a directory has bytes of its own", offset=at, found=size)
    if end > len(data):
        raise CorruptObject("manifest is cut short", offset=start, expected=end, found=len(data))
    mtime_ns = seconds * SECOND + nanoseconds
    return TreeEntry(path_text(path), kind, mode, mtime_ns, size, digest, target), path, end


def _path(data: bytes, at: int, length: int) -> bytes:
    """A path that leads into the tree, or is empty."""
    path = data[at : at + length]
    if len(path) != length or b"\0" in path or (path and not {b"", b".", b".."}.isdisjoint(path.split(b"/"))):
        raise CorruptObject("a path leads out of its tree, or can be none", offset=at, found=path[:80])
    return path
