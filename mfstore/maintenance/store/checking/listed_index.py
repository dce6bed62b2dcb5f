"""The index as it is stored, every fragment and node of it: which chunks it says are where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mfstore._core import table
from mfstore._core.codec import DELTAS
from mfstore.errors import CorruptObject, MfstoreError, NotFound
from mfstore.format.fragments import ENTRY as INDEX_ENTRY
from mfstore.format.fragments import MERGED, PREFIX, Fragment, decode_fragment, decode_rows, digest_in_key
from mfstore.format.packs import ENTRY, FOOTER, PackEntry, entry_of, fingerprint
from mfstore.format.tree import LEAVES, Node, NodeName, decode_node, node_name, node_of
from mfstore.maintenance.store.checking.inventory import Inventory

if TYPE_CHECKING:
    from mfstore.backends.base import Backend, ObjectInfo
    from mfstore.format.digests import Digest
    from mfstore.format.recipes import ChunkRef
    from mfstore.maintenance.store.checking.pack_state import PackState
    from mfstore.maintenance.store.checking.unread import Unread


class ListedIndex:
    """The fragments and nodes of a listing that could be read."""

    def __init__(self, backend: Backend, digest: Digest, unread: Unread, listing: Mapping[str, ObjectInfo]) -> None:
        self._backend = backend
        self._digest = digest
        self._unread = unread
        self.listing = listing
        """They as they were listed last, by key."""
        self.fragments: list[Fragment] = []
        self.nodes: dict[NodeName, Node] = {}
        self.errors: dict[str, MfstoreError] = {}
        """What is wrong with the damaged ones, by key."""

    def read(self) -> None:
        """Read what is listed."""
        for key, data in self._backend.get_many(list(self.listing)):
            try:
                if isinstance(data, MfstoreError):
                    raise data
                name = node_name(key)
                if name is not None:
                    decode = partial(decode_node, name=name)
                    self.nodes[name] = self._unread.decode(self._backend, key, data, decode)
                    continue
                if data == MERGED:
                    continue
                self.fragments.append(self._unread.decode(self._backend, key, data, partial(self._decode, key)))
            except NotFound:
                continue  # merged with others since it was listed
            except CorruptObject as error:
                self.errors[key] = error
            except MfstoreError as error:
                self._unread.add(key, error)

    def _decode(self, key: str, data: bytes) -> Fragment:
        if self._digest(data) != digest_in_key(key):
            raise CorruptObject("index fragment is not the one its name says", key=key)
        return decode_fragment(data, key)

    def changed(self) -> bool:
        """List the index again; if it is another one by now, read that. Whether it was."""
        fresh = Inventory()
        fresh.add(self._backend.list(PREFIX))
        if fresh.fragments.keys() == self.listing.keys():
            return False
        self.listing = fresh.fragments
        self.fragments, self.nodes, self.errors = [], {}, {}
        self.read()
        return True

    def lists_all(self, ids: Sequence[bytes]) -> bool:
        """Whether each of these chunks is in the index."""
        missing = list(ids)
        for fragment in self.fragments:
            positions = table.find(fragment.entries, INDEX_ENTRY.size, b"".join(missing))
            missing = [chunk_id for chunk_id, at in zip(missing, positions, strict=True) if at < 0]
            if not missing:
                return True
        return all(any(True for _ in self.marked(chunk_id)) for chunk_id in missing)

    def marked(self, chunk_id: bytes) -> Iterator[bytes]:
        """How the names of the packs begin in which the tree says that a chunk lies."""
        for level in range(LEAVES + 1):
            name = node_of(chunk_id, level)
            if name in self.nodes:
                yield from self.nodes[name].buckets[name.bucket(chunk_id)].packs(chunk_id)

    def locations(self, chunk: ChunkRef) -> Iterator[tuple[bytes, PackEntry]]:
        """Wherever the index says that a chunk lies as no delta: pack and entry."""
        for fragment in self.fragments:
            at = table.find(fragment.entries, INDEX_ENTRY.size, chunk.id)[0]
            location = fragment.location(at) if at >= 0 else None
            if location is not None and location.usize == chunk.usize and location.codec not in DELTAS:
                yield location.pack.value, entry_of(chunk, location.placement())

    def chunks_in(self, packs: frozenset[bytes]) -> Iterator[tuple[bytes, PackEntry]]:
        """Every chunk that the index says lies in one of these packs."""
        for fragment in self.fragments:
            wanted = {number: name.value for number, name in enumerate(fragment.packs) if name.value in packs}
            if wanted:
                for chunk_id, pack, csize, offset, usize, codec, width in decode_rows(fragment.entries):
                    if pack in wanted:
                        yield wanted[pack], PackEntry(chunk_id, offset, csize, usize, codec, width)

    def misplaced(self, packs: Mapping[bytes, PackState]) -> dict[str, int]:
        """How many chunks each fragment places where the trailer of a pack lists another, or none."""
        found = {}
        for fragment in self.fragments:
            states = [packs.get(name.value) for name in fragment.packs]
            count = 0
            for chunk_id, pack, csize, offset, usize, codec, width in decode_rows(fragment.entries):
                state = states[pack] if pack < len(states) else None
                if state is not None and state.prints is not None:
                    fp = fingerprint(PackEntry(chunk_id, offset, csize, usize, codec, width))
                    count += not state.lists(fp)
            if count:
                found[fragment.key] = count
        return found

    def packs(self) -> set[bytes]:
        """Every pack that the index names."""
        return {name.value for fragment in self.fragments for name in fragment.packs}


def least_sizes(fragments: Iterable[Fragment]) -> dict[bytes, int]:
    """How long each pack must be at least, by what the index says of it."""
    sizes: dict[bytes, int] = {}
    for fragment in fragments:
        ends = [0] * len(fragment.packs)
        counts = [0] * len(fragment.packs)
        for _, pack, csize, offset, *_ in INDEX_ENTRY.iter_unpack(fragment.entries):
            if pack < len(ends):
                ends[pack] = max(ends[pack], offset + csize)
                counts[pack] += 1
        for name, end, count in zip(fragment.packs, ends, counts, strict=True):
            # Behind the last chunk come a line of the trailer for each, and the footer.
            sizes[name.value] = max(sizes.get(name.value, 0), end + count * ENTRY.size + FOOTER.size)
    return sizes
