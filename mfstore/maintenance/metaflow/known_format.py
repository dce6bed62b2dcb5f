"""Small files of a Metaflow root, many to an object, as collections remember them (docs/format.md). Pure.

What is remembered is the files themselves, and it is believed only where the listing proves it: the ETag that S3 gives
an object is the MD5 of its bytes. So whoever may write here can make a collection read a file anew, and nothing else.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from mfstore.metaflow.roots.attempts import DATA, STARTED
from mfstore.metaflow.roots.layout import MAINTENANCE_FOLDER
from mfstore.metaflow.roots.outcome import END_STEP

if TYPE_CHECKING:
    from typing_extensions import Buffer

KNOWN = f"{MAINTENANCE_FOLDER}/known/"
MAGIC = b"mfkn\x01"
"""With the version of the format."""
FRAME_BYTES = 1 << 20
"""What is compressed together, before: each object of a thousand is a kilobyte of names like those of all others."""
LONGEST = 1 << 20
"""Files longer than this are not remembered."""
OBJECT_BYTES = 8 << 20
"""An object is full with so much, compressed: a quarter of a second to read, of tens of thousands of files."""
SMALL_BYTES = 1 << 20
"""Shorter ones are written together into one, once there are some."""
SMALL_OBJECTS = 4
TINY_BYTES = 256 << 10
"""Two and more that take no more than this together are written into one at once."""
_ENTRY = struct.Struct("<HBI")
_FRAME = struct.Struct("<I")
LEVEL = 6


class KnownFile(NamedTuple):
    """A small file as it was read."""

    path: str
    etag: str
    """What the listing said of it."""
    data: bytes

    @property
    def proved(self) -> bool:
        """Whether the ETag is the digest of these bytes: then they are what the storage has under it."""
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest() == self.etag


@dataclass(frozen=True, slots=True)
class KnownObject:
    """An object with remembered files."""

    key: str
    size: int

    @property
    def shard(self) -> str:
        """What its files have in common."""
        return self.key[len(KNOWN) :].rpartition("/")[0]


@lru_cache(maxsize=4096)
def shard_of_flow(flow: str) -> str:
    """What begins the shards of a flow's files: a digit, so that there are few objects where there are many flows."""
    return hashlib.sha1(flow.encode(), usedforsecurity=False).hexdigest()[0]


def shard_of(path: str) -> str:
    """Where a file is remembered: by its flow, so that a collection of one flow asks for little else, and apart those
    that tell when a run began and how it ended, which are read before the others and once more with them."""
    flow, _, rest = path.partition("/")
    step, _, name = rest.partition("/")[2].partition("/")
    of_run = name.endswith(f".{STARTED}") or (step == END_STEP and name.endswith(f".{DATA}"))
    return f"{shard_of_flow(flow)}/{'runs' if of_run else 'tasks'}"


def encode_frame(files: Iterable[KnownFile]) -> bytes:
    """Files that are compressed together."""
    parts: list[bytes] = []
    for file in files:
        path, etag = file.path.encode(), file.etag.encode()
        parts += [_ENTRY.pack(len(path), len(etag), len(file.data)), path, etag, file.data]
    packed = zlib.compress(b"".join(parts), LEVEL)
    return _FRAME.pack(len(packed)) + packed


def decode_frames(data: bytes) -> Iterator[list[KnownFile]]:
    """The files in an object, frame by frame. ValueError where it is damaged: what came before counts."""
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError("not an object with remembered files")
    at = len(MAGIC)
    while at < len(data):
        if at + _FRAME.size > len(data):
            raise ValueError("cut off")
        (length,) = _FRAME.unpack_from(data, at)
        yield decode_frame(memoryview(data)[at : at + _FRAME.size + length])
        at += _FRAME.size + length


def decode_frame(frame: Buffer) -> list[KnownFile]:
    """The files of ``encode_frame``. ValueError where it is damaged."""
    unpacking = zlib.decompressobj()
    # Never more than was ever written: anybody may have written this.
    most = FRAME_BYTES + LONGEST + (1 << 17)
    try:
        raw = unpacking.decompress(memoryview(frame)[_FRAME.size :], most)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpacking.eof:
        raise ValueError("a frame that is too long, or cut off")
    files: list[KnownFile] = []
    at = 0
    try:
        while at < len(raw):
            path, etag, length = _ENTRY.unpack_from(raw, at)
            at += _ENTRY.size
            if at + path + etag + length > len(raw):
                raise ValueError("an entry that is cut off")
            name = raw[at : at + path].decode()
            at += path
            tag = raw[at : at + etag].decode()
            at += etag
            files.append(KnownFile(name, tag, raw[at : at + length]))
            at += length
    except struct.error as error:
        raise ValueError(str(error)) from None
    return files


def to_merge(objects: Sequence[KnownObject]) -> set[str]:
    """The keys of a shard's objects that are written into one when something is written at all: so one that grows a
    little each day stays at a few objects, and writes each file a few times."""
    small = [found for found in objects if found.size < SMALL_BYTES]
    tiny = len(small) > 1 and sum(found.size for found in small) <= TINY_BYTES
    return {found.key for found in small} if tiny or len(small) > SMALL_OBJECTS else set()
