"""The packed profile's store in a bucket: few requests for what the tasks of a flow read again and again.

A module of its own, because local flows need not import what a bucket takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

from mfstore.backends import bucket_backend
from mfstore.backends.base import RangeRead
from mfstore.backends.buckets import BucketBackend
from mfstore.errors import MfstoreError
from mfstore.format.description import PATH
from mfstore.format.digests import Key
from mfstore.format.packs import pack_path
from mfstore.format.recipes import INLINE, recipe_path
from mfstore.host.elapsed import moment, since
from mfstore.loading.reads import ChunkRead, plan_reads
from mfstore.metaflow.packed.decoded import DECODED, DecodedBundle
from mfstore.metaflow.process_state import process_state
from mfstore.records import NamedTuple
from mfstore.s3.datatools.places import arguments_at, lease_at
from mfstore.s3.urls import bucket_url
from mfstore.saving.guard import KNOWLEDGE_SECONDS
from mfstore.settings import resolve
from mfstore.store import Store

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.s3.bulk.client import BulkClient


HELD_BYTES = 64 << 20
"""Bytes of recipes and packs that are held for who was expected to ask for them. As much as is read ahead at most."""
HELD_SECONDS = KNOWLEDGE_SECONDS
"""For how long: collections move chunks, and rewrite the recipes that name them."""
NO_MEMORY = memoryview(b"")


class StoreInBucket:
    """The store at ``url``, and its backend. It is made when something is stored and it is not there."""

    def __init__(self, url: str, writing: bool) -> None:
        own = process_state().knobs
        knobs = resolve(safe=own.safe, cache=own.cache)
        options = {**arguments_at(url), "memory": knobs.memory // 4}
        self.backend = cached_backend(url, writing, options)
        self.store = Store(self.backend.url, self.backend, knobs, create=True, algorithm="blake3")

    def load_parts_ahead(self, artifacts: Mapping[str, Sequence[str]]) -> None:
        """Hold what artifacts of bundles take, by their names. What fails is met again by who needs it."""
        handle = self.store.handle
        decoded = {bundle: found for bundle in artifacts if (found := DECODED.find(handle, bundle)) is not None}
        for bundle, data in self.backend.hold_recipes([bundle for bundle in artifacts if bundle not in decoded]):
            with suppress(MfstoreError):
                decoded[bundle] = DECODED.add(handle, bundle, handle.decode(Key(bundle), data))
        chunks = (chunk for bundle, found in decoded.items() for chunk in _chunks_in_packs(found, artifacts[bundle]))
        capabilities = self.backend.capabilities
        reads = plan_reads(filter(self.backend.is_missing, chunks), capabilities.gap, capabilities.span)
        reads = [read for read in reads if not handle.has_cached(read)]
        self.backend.hold_ranges([RangeRead(pack_path(read.pack), read.start, read.end - read.start) for read in reads])


def _chunks_in_packs(bundle: DecodedBundle, names: Iterable[str]) -> Iterator[ChunkRead]:
    recipe = bundle.recipe
    for name in names:
        artifact = bundle.artifacts.get(name)
        for number, chunk in enumerate(artifact.chunks, bundle.first[name]) if artifact is not None else ():
            placement = recipe.placements[number]
            if placement.pack != INLINE:
                yield ChunkRead(recipe.packs[placement.pack].hex(), placement, chunk, NO_MEMORY)


class HeldRanges:
    """Parts of objects, for ``HELD_SECONDS`` and until they are more than ``HELD_BYTES``; then the oldest go."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[_HeldPart, ...]] = {}
        """By key. What two threads change at the same time may be lost."""
        self._order: deque[tuple[str, int, int]] = deque()
        """Key, beginning and length of each, the oldest first."""
        self._size = 0

    def add(self, key: str, start: int, data: Buffer) -> None:
        """Hold what lies in an object from ``start`` on."""
        view = memoryview(data).cast("B")
        self._parts[key] = (*self._parts.get(key, ()), _HeldPart(start, view, moment()))
        self._order.append((key, start, len(view)))
        self._size += len(view)
        while self._size > HELD_BYTES and self._order:
            oldest, at, size = self._order.popleft()
            self._size -= size
            left = tuple(part for part in self._parts.get(oldest, ()) if part.start != at)
            if left:
                self._parts[oldest] = left
            else:
                self._parts.pop(oldest, None)

    def __len__(self) -> int:
        return len(self._order)

    def find(self, key: str, start: int, length: int) -> memoryview | None:
        """So many bytes from ``start`` on. None: they are not held."""
        for at, view, then in self._parts.get(key, ()):
            if at <= start and start + length <= at + len(view) and since(then) < HELD_SECONDS:
                return view[start - at : start - at + length]
        return None

    def whole(self, key: str) -> bytes | None:
        """The object that was added as a whole, the newest one: the same object each time."""
        for _, view, then in reversed(self._parts.get(key, ())):
            return cast("bytes", view.obj) if since(then) < HELD_SECONDS else None
        return None


class _HeldPart(NamedTuple):
    start: int
    view: memoryview
    then: tuple[float, float]
    """When it was read."""


def cached_backend(url: str, writing: bool, options: Mapping[str, Any]) -> CachedBackend:
    """What caches, of the kind that ``url`` needs."""
    return _cached(bucket_backend(url))(url, writing, **options)


@cache
def _cached(kind: type[BucketBackend]) -> type[CachedBackend]:
    return type(f"Cached{kind.__name__}", (CachedBackend, kind), {})


class CachedBackend(BucketBackend):
    """Small recipes are remembered on this host, and for a while the store's description: the tasks of a flow read the
    same few. A recipe is checked against its key by whoever reads it; who writes does not take the description from
    the cache, as the store may have been removed meanwhile."""

    def __init__(self, url: str, writing: bool, **options: Any) -> None:
        super().__init__(url, **options)
        self._writing = writing
        self._ahead: dict[str, bytes] = {}
        self._held = HeldRanges()

    def make_client(self, options: Mapping[str, Any]) -> BulkClient:
        """That of the storage beside it, for as long as the process lives: its connections are open, what it had to
        find out is known."""
        self._lease = lease_at(bucket_url(self.bucket))
        return self._lease.client.beside(self.bucket, options["memory"])

    def load_ahead(self, bundles: Iterable[str]) -> None:
        """Fetch the recipes of ``bundles`` at once, and keep them. What fails is met again by who needs it."""
        paths = [recipe_path(bundle) for bundle in bundles]
        found = self.get_many([path for path in paths if path not in self._ahead])
        self._ahead.update((path, data) for path, data in found if isinstance(data, bytes))

    def hold_recipes(self, bundles: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """The recipes of ``bundles``, as far as they are there; held for a while."""
        paths = {recipe_path(bundle): bundle for bundle in bundles}
        missing = []
        for path, bundle in paths.items():
            data = self._known(path)
            if data is None:
                missing.append(path)
            else:
                yield bundle, data
        for path, found in self.get_many(missing) if missing else ():
            if isinstance(found, bytes):
                self._held.add(path, 0, found)
                yield paths[path], found

    def is_missing(self, chunk: ChunkRead) -> bool:
        """Whether a chunk in a pack is not held. One between others may be: they are read with what lies there."""
        at = chunk.placement
        return self._held.find(pack_path(chunk.pack), at.offset, at.csize) is None

    def hold_ranges(self, reads: Sequence[RangeRead]) -> None:
        """Read, and hold for a while."""
        for number, data in super().read_many(reads) if reads else ():
            if not isinstance(data, MfstoreError):
                self._held.add(reads[number].key, reads[number].start, data)

    def _known(self, path: str) -> bytes | None:
        """A recipe that was read ahead."""
        held = self._ahead.get(path)
        return self._held.whole(path) if held is None else held

    def read_many(self, reads: Iterable[RangeRead]) -> Iterator[tuple[int, Buffer | MfstoreError]]:
        if not self._held:
            yield from super().read_many(reads)
            return
        left: list[tuple[int, RangeRead]] = []
        for number, read in enumerate(reads):
            held = self._held.find(read.key, read.start, read.length)
            if held is None:
                left.append((number, read))
            elif read.target is None:
                yield number, held
            else:
                read.target[:] = held
                yield number, read.target
        for at, data in super().read_many([read for _, read in left]) if left else ():
            yield left[at][0], data

    def get(self, key: str) -> bytes:
        if (held := self._known(key)) is not None:
            return held
        name = f"{self.url}/{key}"
        cache = process_state().host_cache
        if key.startswith("recipes/"):
            # The tasks of a foreach begin together, and each reads the bundle of the task before them.
            data = cache.get_or_read(name, partial(super().get, key))
            if not self._writing:
                self._held.add(key, 0, data)  # who asks for one artifact after the other asks for it again
            return data
        if key != PATH:
            return super().get(key)
        cached = cache.get(name)
        if cached is not None:
            written, _, data = cached.partition(b"\n")
            if not self._writing and 0 <= time.time() - float(written) < KNOWLEDGE_SECONDS:
                return data
        data = super().get(key)
        cache.put(name, b"%f\n%b" % (time.time(), data))
        return data

    def read_again(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if length is not None:
            return super().read_again(key, start, length)
        # What is held here may be what was read badly, or a recipe that names other places by now.
        data = super().get(key)
        self._ahead.pop(key, None)
        if key.startswith("recipes/"):
            self._held.add(key, 0, data)  # the newest is what is found
            process_state().host_cache.put(f"{self.url}/{key}", data)
        return data[start:]

    def put_all(self, objects: Iterable[tuple[str, Sequence[Buffer]]], told: bool = False) -> None:
        """Store objects in parallel, and remember the small recipes among them."""
        sent = list(objects)
        super().put_all(sent, told)
        for key, parts in sent:
            if key.startswith("recipes/"):
                process_state().host_cache.put(f"{self.url}/{key}", b"".join(parts))
