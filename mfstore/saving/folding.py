"""How the index's tree grows (docs/format.md, "Index tree"): marks go into the root, and what is too much there a level
down, a bucket at a time. Each of these is one conditional write after one read, so that a writer does few of them and
many writers share the work."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mfstore.backends.base import decode_read
from mfstore.errors import Conflict, CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.fragments import ENTRY, MERGED, PREFIX, decode_fragment, digest_in_key
from mfstore.format.tree import (
    FANOUT,
    HALF,
    LEAVES,
    MARK,
    ROOT,
    ROOT_KEY,
    bytes_of,
    decode_code,
    decode_node,
    divided,
    empty_node,
    encode_node,
)

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.format.fragments import Fragment
    from mfstore.format.tree import Node, NodeName

ROOT_MARKS = 1 << 15
"""Marks that the root holds, which every process reads: 400 kB. With half of them each push from it would move half as
many marks for as many bytes."""
NODE_LEAST, NODE_MOST = 1 << 11, 1 << 16
"""Marks that a node of level 1 holds: twice as many as one of its leaves, within these. Then leaves have 97 % of all
(from 170 GB on, when the least is not more), and a push to one of them rewrites 260 bytes for each mark. With the most,
which leaves of 10 TB call for, a push from the root rewrites 800 bytes for each."""
TREE_FROM = 1 << 14
"""Chunks from which on a store has a tree, some 1 GB: as fragments they take 0.9 MB, which every process reads."""
FOLDED_TOGETHER = 1 << 18
"""Marks that go into the tree by way of its root: 30 MB as they are held. More, as a save of 16 GB and more leaves, are
put into its 64 children one after the other."""
SETTLED = 64
"""Marks for each of which a child of the root passes on a bucket where there is time for it: of 2^18 in a fragment each
child takes 4096, and passes on all 64 buckets."""
TRIES = 4
"""Times that a root which others write too is written, before its marks are left where they are."""


class _Growing:
    """A node and what is added to it."""

    def __init__(self, node: Node, more: Iterable[bytes], without: Collection[bytes] = ()) -> None:
        self.name = node.name
        self._node = node
        self._more = divided(node.name, more)
        self._without = without
        self._gone: set[int] = set()

    def __len__(self) -> int:
        return sum(map(self._length, range(len(self._more))))

    def _length(self, number: int) -> int:
        if number in self._gone:
            return 0
        if self._without:
            return len(self.marks(number))
        return len(self._node.buckets[number]) + len(self._more[number])

    def fullest(self) -> int:
        """Number of the bucket with most marks."""
        return max(range(len(self._more)), key=self._length)

    def marks(self, number: int) -> set[bytes]:
        """Those of a bucket."""
        if number in self._gone:
            return set()
        return self._more[number].union(self._node.buckets[number].split()).difference(self._without)

    def drop(self, number: int) -> None:
        """The marks of a bucket lie a level down."""
        self._gone.add(number)

    def encode(self, algorithm: int, sizes: bytes = b"") -> bytes:
        """One bucket after the other, so that a large node is not held mark by mark. Buckets get no shorter: the root
        tells how long they are, and would be wrong if this is stopped before it is written."""
        least = self._node.code if self.name.level else 1
        return encode_node(self.name, map(self.marks, range(len(self._more))), algorithm, sizes, least)


def limit_of(sizes: bytes, bucket: int) -> int:
    """How many marks the root's child of that number holds, by what the root tells of the leaves."""
    first = FANOUT * (1 + bucket)
    return min(NODE_MOST, max(NODE_LEAST, 2 * bytes_of(sizes[first : first + FANOUT]) // FANOUT // MARK))


def fold(backend: Backend, algorithm: int, marks: Collection[bytes], pushes: int) -> Node | None:
    """Put ``marks`` into the tree, and at most so many buckets a level down where nodes have too many; the root then.
    None when others were at it all the time, and some marks may lie nowhere. A mark that lies twice does no harm."""
    moved: set[bytes] = set()
    sizes: dict[int, int] = {}
    for _ in range(TRIES):
        root, etag = _read(backend, ROOT)
        grown = _Growing(root, marks, moved)
        while len(grown) > ROOT_MARKS and pushes > 0:
            number = grown.fullest()
            taken = grown.marks(number)
            limit = limit_of(root.sizes, number)
            used = _push(backend, algorithm, ROOT.child(number), taken, limit, pushes, sizes)
            pushes = pushes - used if used else 0
            if used:
                grown.drop(number)
                moved |= taken
        made = _replace_root(backend, algorithm, grown, _told(root.sizes, sizes), etag)
        if made is not None:
            return made
    return None


def fold_all(backend: Backend, algorithm: int, fragments: Sequence[Fragment], each: int | None) -> Node | None:
    """Put all that fragments list below the root, child by child, of which each passes on one bucket for so many marks
    that it takes, and none without a number; the root then. None when others were at it all the time, and some marks
    may lie nowhere."""
    sizes: dict[int, int] = {}
    root, _ = _read(backend, ROOT)
    for number in range(FANOUT):
        marks = {mark for fragment in fragments for mark in fragment.marks_in(number)}
        pushes = len(marks) // each if each else 0
        limit = limit_of(root.sizes, number)
        if marks and not any(
            _push(backend, algorithm, ROOT.child(number), marks, limit, pushes, sizes) for _ in range(TRIES)
        ):
            return None
    for _ in range(TRIES):
        root, etag = _read(backend, ROOT)
        made = _replace_root(backend, algorithm, _Growing(root, ()), _told(root.sizes, sizes), etag)
        if made is not None:
            return made
    return None


def _replace_root(backend: Backend, algorithm: int, grown: _Growing, sizes: bytes, etag: str | None) -> Node | None:
    """The root that lies there now; None when another writer was faster."""
    data = grown.encode(algorithm, sizes)
    try:
        backend.put_if(ROOT.key, data, etag)
    except Conflict:
        return None
    return decode_node(data, ROOT)


def _told(sizes: bytes, learnt: Mapping[int, int]) -> bytes:
    """What the root tells of its nodes, with what was learnt of some. Buckets get no shorter: of a node that the root
    says has longer ones, another writer has told what it became since."""
    told = bytearray(sizes)
    for at, code in learnt.items():
        told[at] = max(told[at], code)
    return bytes(told)


def _push(
    backend: Backend, algorithm: int, name: NodeName, marks: Collection[bytes], limit: int, pushes: int,
    sizes: dict[int, int],
) -> int:  # fmt: skip
    """Put marks into a node below the root, and pass on what it then has above ``limit``. How many pushes that took; 0
    when another writer was faster. ``sizes`` learns the codes of what was written."""
    node, etag = _read(backend, name)
    grown = _Growing(node, marks)
    used = 1
    while name.level < LEAVES and len(grown) > limit and used < pushes + 1:
        number = grown.fullest()
        if not _push(backend, algorithm, name.child(number), grown.marks(number), 0, 1, sizes):
            break
        grown.drop(number)
        used += 1
    data = grown.encode(algorithm)
    try:
        backend.put_if(name.key, data, etag)
    except Conflict:
        return 0
    sizes[name.size_number] = decode_code(data, name)
    return used


def _read(backend: Backend, name: NodeName) -> tuple[Node, str | None]:
    """A node and its etag; an empty one in the place of one that is damaged, or not there."""
    try:
        data, etag = backend.get_tagged(name.key)
    except NotFound:
        return empty_node(name), None
    try:
        return decode_read(backend, name.key, data, partial(decode_node, name=name)), etag
    except CorruptObject:
        return empty_node(name), etag  # what it said is lost, and costs dedup only


def packs_in(backend: Backend, names: Iterable[NodeName]) -> Iterator[bytes]:
    """How the names of the packs begin that nodes have marks of, once for each mark."""
    for name in names:
        node, _ = _read(backend, name)
        for bucket in node.buckets:
            yield from (mark[HALF:] for mark in bucket.split())


def without(backend: Backend, algorithm: int, names: Iterable[NodeName], is_gone: Callable[[bytes], bool]) -> int:
    """Take the marks of packs out of nodes of which ``is_gone`` says so, by how their names begin; how many nodes were
    written."""
    written = 0
    for name in names:
        node, etag = _read(backend, name)
        if etag is None:
            continue
        kept: Sequence[list[bytes]] = [
            [mark for mark in bucket.split() if not is_gone(mark[HALF:])] for bucket in node.buckets
        ]
        if sum(map(len, kept)) == len(node):
            continue
        try:
            backend.put_if(name.key, encode_node(name, kept, algorithm, node.sizes, node.code), etag)
            written += 1
        except Conflict:
            continue  # somebody added to it: the next collection finds them
    return written


def settle(backend: Backend, algorithm: int) -> int:
    """Put all fragments of a large store into the tree, whatever that takes, and remove those that were merged; how
    many were removed. For who may delete and has the time: repair and collections."""
    infos = [info for info in backend.list(PREFIX) if digest_in_key(info.key) is not None]
    merged = [info.key for info in infos if info.size == len(MERGED)]
    stored = sum(info.size for info in infos) // ENTRY.size
    rooted = bool(backend.exists_many([ROOT_KEY])[0])
    done: list[str] = []
    if stored > TREE_FROM or (rooted and stored):
        for key, data in backend.get_many([info.key for info in infos if info.size != len(MERGED)]):
            if isinstance(data, NotFound):
                continue
            if isinstance(data, MfstoreError):
                raise data
            try:
                fragment = decode_fragment(data, key)
            except (CorruptObject, Unsupported):
                continue  # verify reports it
            if len(fragment) > FOLDED_TOGETHER:
                root = fold_all(backend, algorithm, [fragment], SETTLED)
            else:
                root = fold(backend, algorithm, set(fragment.marks()), FANOUT + FANOUT * FANOUT)
            if root is not None:
                done.append(key)
    backend.delete_many([*merged, *done])
    return len(merged) + len(done)
