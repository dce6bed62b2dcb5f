"""Looking chunks up in the index's tree (docs/format.md, "Index tree"): few buckets, and the packs that they name.

What is saved together is stored together, so that one chunk that is found brings its neighbours: the pack's trailer
lists them. So some chunks are looked up first, and others only where that is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mfstore._core.codec import DELTAS
from mfstore.backends.base import RangeRead
from mfstore.errors import CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.fragments import new_location
from mfstore.format.packs import PackName, pack_path
from mfstore.format.tree import (
    FANOUT,
    HALF,
    HEADER,
    LEAVES,
    ROOT,
    bucket_range,
    bytes_of,
    decode_bucket,
    decode_code,
    node_of,
)

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.format.fragments import Location
    from mfstore.format.packs import PackEntry
    from mfstore.format.tree import Bucket, Node, NodeName

    Trailers = Callable[[Sequence[str]], Mapping[str, Sequence[PackEntry]]]
    """What lies in packs, by their names."""

FEW = 4
"""Chunks of which each is looked up: what takes 160 kB has three or four, which cost five buckets at most. Of more it
is a sample, as long as that finds some: first one chunk of each array or body, so that none of few is passed over."""
SAMPLE = 16
"""One in so many is looked up at a time. Of an artifact that is stored as it is one find is enough; of 1000 chunks 64
that lie in one pack are found with a probability of 0.98, and cost 126 requests of some KiB at most."""
ROUNDS = 8
"""Samples that are taken while each finds something that the ones before did not."""
LITTLE = 0.05
"""Of the marks: a level with less is asked only about the first sample."""
PACKS = 16
"""Packs looked into for one sample, those first that most of it lie in."""
REMEMBERED = 1 << 14
"""Chunks of packs that were looked into last: 300 bytes each."""


class MarkedPacks:
    """The packs that marks name, looked into when they are needed. Shared by all lookups of a process."""

    def __init__(self, backend: Backend, trailers: Trailers) -> None:
        self._backend = backend
        self._trailers = trailers
        self._recent: dict[bytes, dict[bytes, Location]] = {}

    def known(self, chunk_ids: Iterable[bytes]) -> dict[bytes, Location]:
        """Those of the chunks that lie in packs which were looked into already, rather as no deltas."""
        recent = list(self._recent.values())
        found: dict[bytes, Location] = {}
        for chunk_id in chunk_ids:
            for pack in recent:
                if chunk_id in pack and (chunk_id not in found or found[chunk_id].codec in DELTAS):
                    found[chunk_id] = pack[chunk_id]
        return found

    def read(self, beginnings: Sequence[bytes]) -> None:
        """Look into the packs whose names begin so. One that is gone or damaged has nothing in it."""
        found = self._backend.list_many([_path_of(one) for one in beginnings if one not in self._recent])
        names = [info.key.rpartition("/")[2] for info in found]
        for name, entries in self._trailers(names).items():
            pack = PackName(bytes.fromhex(name))
            recent = list(self._recent.values())  # other threads add to it meanwhile
            if sum(map(len, recent)) + len(entries) > REMEMBERED:
                self._recent = {}
            self._recent[pack.value[:HALF]] = {
                chunk_id: new_location((pack, offset, csize, usize, codec, width))
                for chunk_id, offset, csize, usize, codec, width in entries
            }

    def forget(self) -> None:
        """Packs may have been removed."""
        self._recent = {}


def _path_of(beginning: bytes) -> str:
    return pack_path(beginning.hex())


def nothing_fresh(chunk_ids: Sequence[bytes]) -> Mapping[bytes, Location]:
    """Where there is nothing but the tree."""
    return {}


def find(
    root: Node, chunk_ids: Iterable[bytes], backend: Backend, packs: MarkedPacks, *, small: Container[bytes] = (),
    leading: Container[bytes] = (), fresh: Callable[[Sequence[bytes]], Mapping[bytes, Location]] = nothing_fresh,
) -> dict[bytes, Location]:  # fmt: skip
    """Where chunks lie, of those that some lookups find, none of them for a ``small`` chunk. By their ids, which are
    digests: a sample of them is one of the content, and another save of it takes the same. The ``leading`` ones first.

    Each is looked for among the leaves, which have nearly all; on the level above them only one that is not there.
    What is not found so is looked for in what is ``fresh``.
    """
    unknown = sorted(chunk_ids)
    order = [one for one in unknown if one in leading and one not in small]
    order += [one for one in unknown if one not in leading and one not in small]
    count = len(order)
    found = packs.known(unknown)
    looked: set[bytes] = set()

    def learn(hits: Mapping[bytes, Sequence[bytes]]) -> bool:
        counts = Counter(pack for names in hits.values() for pack in names)
        packs.read([pack for pack, _ in counts.most_common(PACKS)])
        more = packs.known(chunk_id for chunk_id in unknown if chunk_id not in found)
        found.update(more)
        return bool(more)

    def sample(size: int) -> list[bytes]:
        taken = [chunk_id for chunk_id in order if chunk_id not in found and chunk_id not in looked][:size]
        looked.update(taken)
        return taken

    at_hand = {chunk_id: list(_bucket_of(root, chunk_id)) for chunk_id in unknown if chunk_id not in found}
    learn({chunk_id: names for chunk_id, names in at_hand.items() if names})
    taken = sample(max(1, count // SAMPLE))
    for _ in range(ROUNDS):
        if not (taken and learn(read_buckets([_first_place(root, one) for one in taken], root, backend))):
            break
        taken = sample(1 + (count - len(found)) // SAMPLE)
    places = [(chunk_id, 1) for chunk_id in looked if chunk_id not in found and _first_place(root, chunk_id)[1] != 1]
    rest = sample(FEW if count <= FEW else 2 + count // SAMPLE)
    places += [(chunk_id, level) for level in levels_that_matter(root) for chunk_id in rest]
    more = learn(read_buckets(places, root, backend))
    for _ in range(ROUNDS):
        taken = sample(1 + (count - len(found)) // SAMPLE) if more else []
        if not taken:
            break
        more = learn(look_up(root, taken, range(1, LEAVES + 1), backend))
    if not (count and all(one in found for one in order)):
        found.update(fresh([chunk_id for chunk_id in unknown if chunk_id not in found]))
    return found


def _first_place(root: Node, chunk_id: bytes) -> tuple[bytes, int]:
    """Where a chunk is looked for first: among the leaves, which have nearly all, as far as there are any."""
    return chunk_id, LEAVES if root.sizes[node_of(chunk_id, LEAVES).size_number] else 1


def levels_that_matter(root: Node) -> Sequence[int]:
    """The levels that have more than a little of what the tree has."""
    upper, leaves = bytes_of(root.sizes[:FANOUT]), bytes_of(root.sizes[FANOUT:])
    return (LEAVES,) if upper < LITTLE * leaves else range(1, LEAVES + 1)


def find_all(root: Node, chunk_id: bytes, backend: Backend, packs: MarkedPacks) -> list[Location]:
    """Wherever the tree says that one chunk lies."""
    hits = [*_bucket_of(root, chunk_id)]
    hits += look_up(root, [chunk_id], range(1, LEAVES + 1), backend).get(chunk_id, [])
    found: list[Location] = []
    for pack in dict.fromkeys(hits):
        packs.forget()
        packs.read([pack])
        found += packs.known([chunk_id]).values()
    return found


def look_up(
    root: Node, chunk_ids: Sequence[bytes], levels: Iterable[int], backend: Backend
) -> dict[bytes, list[bytes]]:
    """``read_buckets`` of the nodes of some levels."""
    return read_buckets([(chunk_id, level) for level in levels for chunk_id in chunk_ids], root, backend)


def read_buckets(chunks: Iterable[tuple[bytes, int]], root: Node, backend: Backend) -> dict[bytes, list[bytes]]:
    """How the names of the packs begin in which chunks lie, by nodes of the level beside each: a request for each
    bucket."""
    wanted: dict[tuple[NodeName, int], list[bytes]] = {}
    for chunk_id, level in chunks:
        name = node_of(chunk_id, level)
        if root.sizes[name.size_number]:
            wanted.setdefault((name, name.bucket(chunk_id)), []).append(chunk_id)
    places = list(wanted)
    reads = [
        RangeRead(name.key, *bucket_range(number, root.sizes[name.size_number])) for name, number in places
    ]  # fmt: skip
    hits: dict[bytes, list[bytes]] = {}
    for at, data in backend.read_many(reads):
        name, number = places[at]
        try:
            if isinstance(data, MfstoreError):
                raise data
            bucket = decode_bucket(memoryview(data), name, number)
        except NotFound:
            continue
        except (CorruptObject, Unsupported):
            again = _read_anew(backend, name, number)
            if again is None:
                continue
            bucket = again
        for chunk_id in wanted[name, number]:
            hits.setdefault(chunk_id, []).extend(bucket.packs(chunk_id))
    return {chunk_id: names for chunk_id, names in hits.items() if names}


def _bucket_of(root: Node, chunk_id: bytes) -> Iterator[bytes]:
    return root.buckets[ROOT.bucket(chunk_id)].packs(chunk_id)


def _read_anew(backend: Backend, name: NodeName, number: int) -> Bucket | None:
    """A bucket of a node that has grown since the root was read; None when it is damaged."""
    try:
        code = decode_code(backend.read_again(name.key, 0, HEADER.size), name)
        start, length = bucket_range(number, code)
        return decode_bucket(backend.read_again(name.key, start, length), name, number)
    except (CorruptObject, NotFound, Unsupported):
        return None
