"""The index's tree: where the chunks of a large store lie, a few bytes each, to be read bucket by bucket
(docs/format.md, "Index tree").

A **mark** says that a chunk lies in a pack, by the first bytes of both names. Marks lie in 64 **buckets** of a
**node**, by six bits of the chunk's id. What a node holds too many of goes to its children, of which each takes one
bucket: the root has 64 children, and these 64 each.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from mfstore._core.memory import xxh3
from mfstore.errors import CorruptObject, Unsupported
from mfstore.records import NamedTuple, dataclass

VERSION = 1
MAGIC = b"MFSN"
HEADER = struct.Struct("<4sBBBxIIH38xQ")
BUCKET = struct.Struct("<I4xQ")
_PLACE = struct.Struct("<BHBI")
ROOT_KEY = "index/--root"
"""Sorts before every fragment, so that the first page of a listing tells of it."""
NODE_PREFIX = "index/~"

BITS = 6
FANOUT = 1 << BITS
"""Buckets of a node, and children."""
LEAVES = 2
"""Level of the nodes without children. 4096 of them: at 10^9 chunks each takes 3 MiB, and a bucket 46 KiB."""
MARK = 12
"""Bytes of a mark: six of a chunk's id and six of a pack's name. Of 10^9 chunks one in 280 000 that are new seems to
be known, and costs the look into a pack that shows it is not."""
HALF = MARK // 2
SIZES = FANOUT + FANOUT * FANOUT
"""The root tells of each node, by a byte, how long its buckets are: those of level 1, then the leaves."""


class NodeName(NamedTuple):
    """Which node: the level, and the bits of ids that lead to it."""

    level: int
    bits: int

    @property
    def key(self) -> str:
        """Of the object."""
        return f"{NODE_PREFIX}{self.bits:0{2 * self.level}o}" if self.level else ROOT_KEY

    def child(self, bucket: int) -> NodeName:
        """The node that takes what its bucket has too much of."""
        return NodeName(self.level + 1, self.bits << BITS | bucket)

    def bucket(self, mark: bytes) -> int:
        """Of this node, by an id or a mark."""
        return int.from_bytes(mark[:3], "big") >> 24 - BITS * (self.level + 1) & FANOUT - 1

    @property
    def size_number(self) -> int:
        """Of the byte in the root that tells its length. Not of the root."""
        return self.bits if self.level == 1 else FANOUT + self.bits


ROOT = NodeName(0, 0)


def node_of(chunk_id: bytes, level: int) -> NodeName:
    """The node of a level that may have a mark of that chunk."""
    return NodeName(level, int.from_bytes(chunk_id[:3], "big") >> 24 - BITS * level)


def node_name(key: str) -> NodeName | None:
    """The node of an object below ``index/``, None for what is none."""
    if key == ROOT_KEY:
        return ROOT
    digits = key.removeprefix(NODE_PREFIX)
    if digits == key or len(digits) not in (2, 4) or not all(digit in "01234567" for digit in digits):
        return None
    return NodeName(len(digits) // 2, int(digits, 8))


def size_of_code(code: int) -> int:
    """Bytes of a bucket, by the byte that tells it: eight steps to each doubling, so that it hardly ever changes."""
    step, part = divmod(code - 1, 8)
    return (8 + part) << step + 4


def code_of_size(size: int) -> int:
    """The least code whose buckets take ``size`` bytes."""
    code = 1
    while size_of_code(code) < size:
        code += 1
    return code


def bytes_of(codes: bytes) -> int:
    """What all buckets of nodes of these codes take; 0 is the code of none."""
    return FANOUT * sum(map(_SIZES.__getitem__, codes))


_SIZES = [0, *map(size_of_code, range(1, 256))]


def bucket_range(number: int, code: int, root: bool = False) -> tuple[int, int]:
    """Where in a node of that code a bucket lies: start and length."""
    size = size_of_code(code)
    return HEADER.size + (SIZES if root else 0) + number * size, size


@dataclass(frozen=True, slots=True)
class Bucket:
    """The marks of one bucket, ascending."""

    marks: memoryview

    def __len__(self) -> int:
        return len(self.marks) // MARK

    def packs(self, chunk_id: bytes) -> Iterator[bytes]:
        """How the names of the packs begin in which that chunk lies."""
        wanted, marks = chunk_id[:HALF], self.marks
        at = bisect_left(range(len(marks) // MARK), wanted, key=lambda n: bytes(marks[n * MARK : n * MARK + HALF]))
        while marks[at * MARK : at * MARK + HALF] == wanted:
            yield bytes(marks[at * MARK + HALF : (at + 1) * MARK])
            at += 1

    def split(self) -> list[bytes]:
        """The marks one by one."""
        data = bytes(self.marks)
        return [data[at : at + MARK] for at in range(0, len(data), MARK)]


EMPTY = Bucket(memoryview(b""))


@dataclass(frozen=True, slots=True)
class Node:
    """A node as it was read."""

    name: NodeName
    code: int
    """Of the length of its buckets."""
    buckets: Sequence[Bucket]
    sizes: bytes
    """Of the root: the code of each other node, 0 where there is none."""

    def __len__(self) -> int:
        return sum(map(len, self.buckets))


def empty_node(name: NodeName) -> Node:
    """One without marks."""
    return Node(name, 0, [EMPTY] * FANOUT, bytes(SIZES) if name == ROOT else b"")


def mark(chunk_id: bytes, pack: bytes) -> bytes:
    """That a chunk lies in a pack."""
    return chunk_id[:HALF] + pack[:HALF]


def divided(name: NodeName, marks: Iterable[bytes]) -> list[set[bytes]]:
    """Marks by the buckets of a node."""
    found: list[set[bytes]] = [set() for _ in range(FANOUT)]
    shift = 24 - BITS * (name.level + 1)
    for one in marks:
        found[int.from_bytes(one[:3], "big") >> shift & FANOUT - 1].add(one)
    return found


def encode_node(
    name: NodeName, buckets: Iterable[Iterable[bytes]], algorithm: int, sizes: bytes = b"", least: int = 1
) -> bytes:
    """A node of these marks, with buckets of the code ``least`` or a longer one; ``sizes`` of the root only."""
    sorted_ = [b"".join(sorted(marks)) for marks in buckets]
    code = max(least, code_of_size(BUCKET.size + max(map(len, sorted_))))
    size = size_of_code(code)
    fields = MAGIC, VERSION, name.level, algorithm, sum(map(len, sorted_)) // MARK, size, name.bits
    parts = [HEADER.pack(*fields, _seal_of_header(HEADER.pack(*fields, 0), sizes)), sizes]
    for number, marks in enumerate(sorted_):
        head = BUCKET.pack(len(marks) // MARK, _seal_of_bucket(name, number, marks))
        parts += [head, marks, bytes(size - len(head) - len(marks))]
    return b"".join(parts)


def decode_bucket(data: memoryview | bytes, name: NodeName, number: int) -> Bucket:
    """The bucket of that number, by its bytes, which may be followed by others."""
    view = memoryview(data).cast("B")
    if len(view) < BUCKET.size:
        raise CorruptObject("bucket of the index is too short", key=name.key, expected=BUCKET.size, found=len(view))
    count, seal = BUCKET.unpack_from(view)
    marks = view[BUCKET.size : BUCKET.size + count * MARK]
    if len(marks) != count * MARK or seal != _seal_of_bucket(name, number, marks):
        raise CorruptObject("bucket of the index is damaged: checksum differs", key=name.key, found=number)
    return Bucket(marks)


def decode_code(data: memoryview | bytes, name: NodeName) -> int:
    """The code of a node's buckets, by the beginning of its object. The root's is told without its sizes, and not
    checked by its seal."""
    if len(data) < HEADER.size:
        raise CorruptObject("node of the index is too short", key=name.key, expected=HEADER.size, found=len(data))
    magic, version, level, _, _, size, bits, seal = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise CorruptObject("not a node of the index", key=name.key, expected=MAGIC, found=magic)
    if version != VERSION:
        raise Unsupported("index version is unknown to this mfstore", key=name.key, found=version)
    if NodeName(level, bits) != name:
        raise CorruptObject("node of the index is another one", key=name.key, found=(level, bits))
    if level and seal != _seal_of_header(bytes(data[: HEADER.size]), b""):
        raise CorruptObject("node of the index is damaged: checksum differs", key=name.key, offset=0)
    code = code_of_size(size) if 0 < size <= size_of_code(255) else 0
    if not code or size_of_code(code) != size:
        raise CorruptObject("node of the index has buckets of no known length", key=name.key, found=size)
    return code


def decode_node(data: bytes, name: NodeName) -> Node:
    """Parse and check a whole node."""
    code = decode_code(data, name)
    size = size_of_code(code)
    root = name == ROOT
    expected = HEADER.size + (SIZES if root else 0) + FANOUT * size
    if len(data) != expected:
        raise CorruptObject("node of the index has the wrong length", key=name.key, expected=expected, found=len(data))
    view = memoryview(data)
    sizes = bytes(view[HEADER.size : HEADER.size + SIZES]) if root else b""
    if root and HEADER.unpack_from(data)[-1] != _seal_of_header(data[: HEADER.size], sizes):
        raise CorruptObject("node of the index is damaged: checksum differs", key=name.key, offset=0)
    buckets = []
    for number in range(FANOUT):
        start, length = bucket_range(number, code, root)
        buckets.append(decode_bucket(view[start : start + length], name, number))
    return Node(name, code, buckets, sizes)


def _seal_of_header(header: bytes, sizes: bytes) -> int:
    return xxh3(header[: HEADER.size - 8] + sizes)


def _seal_of_bucket(name: NodeName, number: int, marks: bytes | memoryview) -> int:
    """Of the marks and of whose they are: a range of a node that has become another one is told so."""
    return xxh3(_PLACE.pack(*name, number, len(marks)) + xxh3(marks).to_bytes(8, "little"))
