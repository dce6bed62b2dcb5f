"""A store that seems to hold terabytes: what is asked of its index's tree is made when it is asked for."""

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mfstore.backends.base import Backend, ObjectEnd, ObjectInfo, RangeRead
from mfstore.description import tell_of_tree
from mfstore.errors import NotFound
from mfstore.format import tree
from mfstore.saving import folding

CHUNK = 65536
"""Bytes of a chunk, on average."""


@dataclass(frozen=True)
class Scale:
    """How many marks the nodes of each level of a store have, on average."""

    chunks: int
    root: int
    upper: int
    leaf: int

    @property
    def stored(self) -> int:
        """Bytes of the artifacts."""
        return self.chunks * CHUNK

    def share(self, level: int) -> float:
        """Of all chunks, those whose marks lie in that level."""
        marks = [self.root, self.upper * tree.FANOUT, self.leaf * tree.FANOUT * tree.FANOUT]
        return marks[level] / sum(marks)


def scale_of(stored: int) -> Scale:
    """A store of so many bytes."""
    chunks = stored // CHUNK
    root = min(chunks, folding.ROOT_MARKS)
    rest = chunks - root
    limit = folding.NODE_LEAST
    for _ in range(20):  # the limit follows the leaves, which follow it
        leaf = max(0, rest // tree.FANOUT - limit) // tree.FANOUT
        limit = min(folding.NODE_MOST, max(folding.NODE_LEAST, 2 * leaf))
    return Scale(chunks, root, min(rest // tree.FANOUT, limit), leaf)


def buckets_of(
    generator: np.random.Generator, name: tree.NodeName, count: int, planted: Sequence[bytes]
) -> list[list[bytes]]:
    """The buckets of a node with so many random marks, and those that are planted: of each all marks in one."""
    bits = 48 - tree.BITS * name.level
    ids = generator.integers(0, 1 << bits, count, np.uint64) | np.uint64(name.bits << bits)
    packs = generator.integers(0, 1 << 48, count, np.uint64)
    ids = np.concatenate([ids, np.array([int.from_bytes(one[: tree.HALF], "big") for one in planted], np.uint64)])
    packs = np.concatenate([packs, np.array([int.from_bytes(one[tree.HALF :], "big") for one in planted], np.uint64)])
    order = np.lexsort((packs, ids))
    table = np.empty((len(ids), tree.MARK), np.uint8)
    table[:, : tree.HALF] = ids[order].byteswap().view(np.uint8).reshape(-1, 8)[:, 2:]
    table[:, tree.HALF :] = packs[order].byteswap().view(np.uint8).reshape(-1, 8)[:, 2:]
    starts = np.uint64(name.bits << bits) + np.arange(tree.FANOUT, dtype=np.uint64) * np.uint64(1 << bits - tree.BITS)
    cuts = [*np.searchsorted(ids[order], starts), len(ids)]
    return [[table[first:last].tobytes()] for first, last in itertools.pairwise(cuts)]


@dataclass
class Costs:
    """What was asked of the storage."""

    reads: list[tuple[str, str, int]] = field(default_factory=list)
    """Operation, key and bytes of each request."""
    writes: list[tuple[str, str, int]] = field(default_factory=list)
    making: float = 0.0
    """Seconds of CPU that making nodes took."""

    def clear(self) -> None:
        """Begin anew."""
        self.reads.clear()
        self.writes.clear()
        self.making = 0.0


class SyntheticStore(Backend):
    """Another backend, whose ``index/`` has a tree of some scale around the marks of what is stored there. Counts
    requests as they are sent to S3; a listing of up to a thousand objects is one."""

    def __init__(self, inner: Backend, scale: Scale, algorithm: int, planted: Iterable[bytes]) -> None:
        self.inner = inner
        self.url = inner.url
        self.capabilities = inner.capabilities
        self.scale = scale
        self.costs = Costs()
        self._algorithm = algorithm
        self._generator = np.random.default_rng(1)
        self._planted: dict[tree.NodeName, list[bytes]] = {}
        self._made: set[str] = set()
        shares = [scale.share(level) for level in range(tree.LEAVES + 1)]
        for mark in planted:
            level = int(self._generator.choice(tree.LEAVES + 1, p=shares))
            self._planted.setdefault(tree.node_of(mark, level), []).append(mark)
        codes = {1: self._typical(1, scale.upper), 2: self._typical(2, scale.leaf)}
        sizes = bytes([codes[1]]) * tree.FANOUT + bytes([codes[2]]) * tree.FANOUT**2
        buckets = buckets_of(self._generator, tree.ROOT, scale.root, self._planted.get(tree.ROOT, []))
        inner.put(tree.ROOT_KEY, [tree.encode_node(tree.ROOT, buckets, algorithm, sizes)])
        self._codes = codes
        tell_of_tree(inner)

    def _typical(self, level: int, marks: int) -> int:
        """The code of the nodes of a level: with room for the fullest of all their buckets."""
        if not marks:
            return 0
        buckets = tree.FANOUT ** (level + 1)
        fullest = int(self._generator.poisson(marks / tree.FANOUT, buckets).max())
        return tree.code_of_size(tree.BUCKET.size + tree.MARK * fullest)

    def _need(self, key: str) -> None:
        """Make a node, when it is first asked for."""
        name = tree.node_name(key)
        if name is None or not name.level or key in self._made:
            return
        self._made.add(key)
        count = self.scale.upper if name.level == 1 else self.scale.leaf
        if not count:
            return
        begun = time.process_time()
        count = int(self._generator.poisson(count))
        buckets = buckets_of(self._generator, name, count, self._planted.get(name, []))
        self.inner.put(key, [tree.encode_node(name, buckets, self._algorithm, least=self._codes[name.level])])
        self.costs.making += time.process_time() - begun

    def _read(self, operation: str, key: str, size: int) -> None:
        self.costs.reads.append((operation, key, size))

    def _listed(self, prefix: str, infos: Iterable[ObjectInfo]) -> list[ObjectInfo]:
        found = list(infos)
        for _ in range(max(1, -(-len(found) // 1000))):
            self._read("list", prefix, 0)
        if found:  # what S3 sends for each object
            self._read("listed", prefix, 300 * len(found))
        return found

    # ---- reads -------------------------------------------------------------------------

    def get(self, key: str) -> bytes:
        self._need(key)
        self._read("get", key, 0)
        data = self.inner.get(key)
        self._read("got", key, len(data))
        return data

    def get_many(self, keys: Iterable[str]) -> Iterator[Any]:
        keys = list(keys)
        for key in keys:
            self._need(key)
            self._read("get", key, 0)
        for key, data in self.inner.get_many(keys):
            self._read("got", key, len(data) if isinstance(data, bytes) else 0)
            yield key, data

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        self._need(key)
        try:
            data, etag = self.inner.get_tagged(key)
        except NotFound:
            self._read("tagged", key, 0)
            raise
        self._read("tagged", key, len(data))
        return data, etag

    def get_range(self, key: str, start: int, length: int) -> Any:
        self._need(key)
        self._read("range", key, length)
        return self.inner.get_range(key, start, length)

    def read_into(self, key: str, start: int, target: memoryview) -> None:
        self._need(key)
        self._read("range", key, len(target))
        self.inner.read_into(key, start, target)

    def read_many(self, reads: Iterable[RangeRead]) -> Iterator[Any]:
        reads = list(reads)
        for read in reads:
            self._need(read.key)
            self._read("range", read.key, read.length)
        return self.inner.read_many(reads)

    def read_ends(self, keys: Sequence[str], length: int) -> Iterator[Any]:
        for number, end in self.inner.read_ends(keys, length):
            self._read("end", keys[number], memoryview(end.data).nbytes if isinstance(end, ObjectEnd) else 0)
            yield number, end

    def read_again(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._need(key)
        self._read("again", key, length or 0)
        return self.inner.read_again(key, start, length)

    def head(self, key: str) -> ObjectInfo:
        self._read("head", key, 0)
        return self.inner.head(key)

    def exists_many(self, keys: Sequence[str]) -> list[bool]:
        for key in keys:
            self._read("head", key, 0)
        return self.inner.exists_many(keys)

    def vouch(self, keys: Sequence[str]) -> dict[str, int]:
        for key in keys:
            self._read("head", key, 0)
        return self.inner.vouch(keys)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from self._listed(prefix, self.inner.list(prefix))

    def list_many(self, prefixes: Sequence[str]) -> Iterator[ObjectInfo]:
        for prefix in prefixes:
            yield from self.list(prefix)

    def list_first(self, prefix: str, count: int) -> Sequence[ObjectInfo]:
        return self._listed(prefix, self.inner.list_first(prefix, count))

    # ---- writes ------------------------------------------------------------------------

    def put(self, key: str, parts: Sequence[Any]) -> None:
        self.costs.writes.append(("put", key, sum(memoryview(part).nbytes for part in parts)))
        self.inner.put(key, parts)

    def put_if(self, key: str, data: Any, etag: str | None) -> str:
        self.costs.writes.append(("put", key, memoryview(data).nbytes))
        return self.inner.put_if(key, data, etag)

    def delete(self, key: str) -> None:
        self.costs.writes.append(("delete", key, 0))
        self.inner.delete(key)

    def delete_many(self, keys: Sequence[str]) -> None:
        self.costs.writes.append(("delete", " ".join(keys), 0))
        self.inner.delete_many(keys)

    def delete_unchanged(self, objects: Mapping[str, str]) -> Any:
        return self.inner.delete_unchanged(objects)

    def deletes_conditionally(self) -> bool:
        return self.inner.deletes_conditionally()

    def identity(self, pack: str) -> Any:
        """As of local packs: which file it is."""
        return self.inner.identity(pack)  # type: ignore[attr-defined]
