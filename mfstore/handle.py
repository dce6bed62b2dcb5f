"""One opened store in one process: what all its operations share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import product
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mfstore import description
from mfstore.errors import CorruptObject, MfstoreError, NotFound, NotLoadable
from mfstore.format import recipes
from mfstore.format.collection import FEATURE
from mfstore.format.description import PATH, PCODEC_FEATURE, Description
from mfstore.format.digests import NAMES, Key, digest_function, name_of
from mfstore.format.recipes import Artifact, Recipe, recipe_path
from mfstore.host.cache import HostCache, index_cache, open_cache
from mfstore.host.elapsed import moment, since
from mfstore.host.forks import IMPORTING, anew_in_children
from mfstore.host.workers import Workers
from mfstore.loading.artifacts import Loading, load_artifacts
from mfstore.loading.fetch import Fetcher
from mfstore.loading.pack_reader import PackReader
from mfstore.loading.reliance import Reliance
from mfstore.loading.segments import SegmentLoader
from mfstore.loading.verified import VerifiedRanges
from mfstore.progress import METER
from mfstore.records import NamedTuple
from mfstore.saving.context import SaveContext, SessionStats
from mfstore.saving.guard import KNOWLEDGE_SECONDS, Guard
from mfstore.saving.index import ChunkIndex
from mfstore.saving.ingest import Ingest

if TYPE_CHECKING:
    from mfstore.allow import Allow
    from mfstore.backends.base import Backend
    from mfstore.loading.cached import CachedReads
    from mfstore.loading.reads import PackRead
    from mfstore.metrics import ReadCounts, StoreMetrics
    from mfstore.settings import Knobs

DESCRIPTION_SECONDS = KNOWLEDGE_SECONDS / 3
"""How long a remote store's description is relied on. It tells whether anything may be condemned, so this is a third
of the time that such knowledge may be old: hosts keep it as long (Metaflow tasks), and what is condemned is kept as
long."""


class StoreOptions(NamedTuple):
    """How a store was opened."""

    url: str
    backend: Backend
    knobs: Knobs
    create: bool
    """Whether a save may create the store."""
    digest: str
    """Of a store that is created: "blake3" or "sha256"."""
    trusted: tuple[bytes, ...] = ()
    """Public keys, one of which must have signed what is loaded. None: it need not be signed."""


class StoreAccess(NamedTuple):
    """A store as maintenance works on it, below the front door: it exists, and this program may do what was asked."""

    url: str
    """As it was opened."""
    backend: Backend
    workers: Workers
    """The handle's own threads."""
    description: Description
    guard: Guard
    """What garbage collection is about to delete."""

    @property
    def algorithm(self) -> int:
        """Number of the store's digest."""
        return self.description.algorithm


class Wishes(NamedTuple):
    """How somebody wants artifacts to be loaded; None: as the store was opened."""

    verify: bool | None = None
    writable: bool = True
    map: bool | None = None
    safe: bool | Allow | None = None


class _Shared(NamedTuple):
    """What saves and loads use, as long as the store's digest stays."""

    saving: SaveContext
    cached: CachedReads | None
    """What this host has of the bytes of a store that is far away."""
    loading: dict[tuple[bool, bool, bool | None], Loading]
    """By ``verify``, ``writable`` and ``map``."""


Loaded = tuple[int, int, float]
"""What was loaded: operations, bytes of the artifacts, and seconds."""


class Handle:
    """What one process shares between the operations of one opened store: threads, the store's description, what is
    known to be whole or condemned, the index. A forked child makes its own.

    The rooms of mfstore above the store use it as ``store.handle``; it is no part of the public interface.
    """

    def __init__(self, options: StoreOptions, session: SessionStats) -> None:
        self.options = options
        self.backend = options.backend
        self.workers = Workers(options.knobs.threads)
        self.guard = Guard(options.backend, self.was_collected, self.forget_removed)
        self._verified = VerifiedRanges(options.backend)
        self._session = session
        self._uncounted: deque[SessionStats | Loaded | int] = deque()
        """What has been done and is to be counted."""
        self.forked()
        anew_in_children(self)
        self._known: tuple[Description | None, set[str]] = None, set()
        """The description, and the operations that this program may do by it: replaced together."""
        self._looked = False
        self._read_at = moment()
        self._made: _Shared | None = None
        self.trust: Trust | None = None
        """Whose signatures are demanded of what is loaded."""
        if options.trusted:
            from mfstore.trust import Trust

            self.trust = Trust(options.trusted)
        self._host_cache: HostCache | None = None

    def forked(self) -> None:
        """A lock anew, in a new child too, whose iterators may have been begun in the parent. Reentrant: see
        ``ChunkIndex.forked``."""
        self._lock = threading.RLock()
        self._counting = threading.Lock()

    def close(self) -> None:
        """End the threads."""
        self.workers.close()

    # ---- the store's description --------------------------------------------------------

    @property
    def description(self) -> Description | None:
        """The store's description as it was read last; None while there is no store."""
        return self._known[0]

    def require_read(self) -> None:
        """Look whether there is a store, unless that is known. NotAStore when there is something else, Unsupported when
        this program may not read it."""
        if not self._looked:
            with self._lock:
                self._learn(description.load(self.backend))
        self._require("read")

    def no_store(self) -> NotFound:
        """What a read says where there is no store."""
        hint = "Is this the place? The first put makes one" if self.options.create else None
        return NotFound("no store there yet", backend=self.backend.url, hint=hint)

    def require_write(self, algorithm: int | None = None) -> None:
        """As ``require_read``, for writing: a store that is not there is created, with this digest or the one that it
        was opened with, or is NotFound."""
        self.require_read()
        if self._known[0] is None or not self._still_there():
            if not self.options.create:
                raise NotFound("no store there", backend=self.backend.url, hint="Open it with create=True")
            with self._lock:
                # One that was known may have lost its description alone: then another must not be invented.
                found = None if self._known[0] is None else description.load(self.backend)
                self._learn(found or description.create(self.backend, algorithm or NAMES[self.options.digest]))
                self._made = None
        self._require("write")

    def demand_pcodec(self) -> None:
        """Say in the store's description that readers need pcodec. Unsupported when it is not installed here."""
        self.workers.thread.codec.pcodec()
        found = self._known[0]
        if found is not None and PCODEC_FEATURE not in found.features["read"]:
            with self._lock:
                self._learn(description.enable(self.backend, "read", PCODEC_FEATURE))
            self._require("write")

    def _learn(self, found: Description | None) -> None:
        self._known = found, set()
        if self._made is not None and found is not None and self._made.saving.algorithm != found.algorithm:
            self._made = None
        self._looked = self._looked or found is not None
        self._read_at = moment()

    def _require(self, operation: str) -> None:
        """Unsupported when this program may not do that in this store. Told once for each description: what an
        operation on something small passes through each time is kept short."""
        found, permitted = self._known
        if found is not None and operation not in permitted:
            found.require(operation, self.options.url)
            permitted.add(operation)

    def access(self, *operations: str) -> StoreAccess:
        """The store for maintenance. NotFound when there is none, Unsupported when this program may not do one of the
        ``operations``: "read", "write" or "delete"."""
        self.require_read()
        found = self._known[0]
        if found is None:
            raise NotFound("no store there", backend=self.backend.url)
        for operation in operations:
            self._require(operation)
        return StoreAccess(self.options.url, self.backend, self.workers, found, self.guard)

    def _still_there(self) -> bool:
        """Whether the store's description has not been removed meanwhile, as when somebody deletes the directory."""
        if not self.backend.capabilities.remote:
            return self.backend.exists_many([PATH])[0]
        if since(self._read_at) >= DESCRIPTION_SECONDS:
            self._learn(description.load(self.backend))
        return self._known[0] is not None

    def was_collected(self) -> bool:
        """Whether a collector ever condemned anything in this store, as its description says."""
        self.require_read()  # who sets a ref asks before anything else
        self._still_there()
        found = self._known[0]
        return found is not None and FEATURE in found.features["write"]

    def forget_removed(self) -> None:
        """A collector has been at work: forget what it may have removed."""
        self._verified.clear()
        if self._made is not None:
            self._made.saving.chunk_index.forget()

    # ---- saving and loading -------------------------------------------------------------

    def saving(self, find_base: Callable[[str], Recipe | None] | None = None, worth: int = 0) -> Ingest:
        """One operation that stores something. NotFound and Unsupported as ``require_write``. ``find_base`` gives
        the recipe that an artifact builds upon, if there is one, by its name: asked once for each, before what is
        longer than ``worth`` bytes goes to packs."""
        self.require_write()
        if self.options.knobs.compress == "small":
            self.demand_pcodec()
        return Ingest(self._shared().saving, find_base, worth)

    def count(self, done: SessionStats | Loaded | int) -> None:
        """Count what an operation stored or loaded; or bytes that are parts of artifacts.

        Nothing is lost when another thread, or a signal handler in this one, counts at the same time: who finds
        somebody counting leaves it to them.
        """
        self._uncounted.append(done)
        while self._uncounted and self._counting.acquire(blocking=False):
            try:
                self._count(self._uncounted.popleft())
            except IndexError:  # somebody else has counted it
                pass
            finally:
                self._counting.release()

    def _count(self, done: SessionStats | Loaded | int) -> None:
        session = self._session
        if isinstance(done, tuple):
            loads, loaded, seconds = done
            session.loads += loads
            session.loaded += loaded
            session.loading += seconds
            return
        if isinstance(done, int):
            session.loaded += done
            return
        for item in fields(done):
            mine, its = getattr(session, item.name), getattr(done, item.name)
            if isinstance(its, dict):
                for name, size in its.items():
                    mine[name] = mine.get(name, 0) + size
            elif its:
                setattr(session, item.name, mine + its)

    def loading(
        self, verify: bool | None, writable: bool, map: bool | None = None,  # noqa: A002
        safe: bool | Allow | None = None,
    ) -> Loading:  # fmt: skip
        """How artifacts are loaded; with ``verify``, ``map`` or ``safe`` None as the store was opened."""
        verify = self.options.knobs.verify if verify is None else bool(verify)
        # A signature says what the bytes are only if these are compared.
        verify = verify or self.trust is not None
        found = self._shared().loading[verify, bool(writable), None if map is None else bool(map)]
        if safe is None:
            return found
        from mfstore.allow import allowed

        return found._replace(safe=allowed(safe))

    @property
    def context(self) -> SaveContext:
        """What saves work with."""
        return self._shared().saving

    @property
    def index(self) -> ChunkIndex:
        """The store's index."""
        return self._shared().saving.chunk_index

    def _shared(self) -> _Shared:
        with self._lock:
            if self._made is None:
                found = self._known[0]
                self._made = self._make(found.algorithm if found is not None else NAMES[self.options.digest])
            return self._made

    def _make(self, algorithm: int) -> _Shared:
        digest = digest_function(algorithm)
        reader = PackReader(self.backend, self.workers, digest)
        reliance = Reliance(reader, self._verified)
        index = ChunkIndex(
            self.backend, digest, algorithm, reliance.trailers, self._index_cache, self._has_tree,
            self._tell_of_tree,
        )  # fmt: skip
        cached = self._cached_reads(reader)
        fetcher = Fetcher(reader, index.find_all, self._verified, cached)
        segments = SegmentLoader(reader, self._verified, self.options.knobs.map, cached)
        saving = SaveContext(
            # That something is on this host says nothing of what is stored, which is what saves rely on.
            backend=self.backend, workers=self.workers, chunk_index=index,
            fetcher=fetcher if cached is None else Fetcher(reader, index.find_all, self._verified),
            reliance=reliance, verified=self._verified, guard=self.guard, digest=digest,
            algorithm=algorithm, compress=self.options.knobs.compress, memory=self.options.knobs.memory,
            delta=self.options.knobs.builds, record=self.options.knobs.record,
        )  # fmt: skip
        knobs = self.options.knobs
        ways = product((False, True), (False, True), (None, False, True))
        return _Shared(
            saving, cached, {way: Loading(fetcher, segments, *way, knobs.memory, knobs.safe) for way in ways}
        )

    def _cached_reads(self, reader: PackReader) -> CachedReads | None:
        knobs = self.options.knobs
        if not knobs.cache or not knobs.cache_size or not self.backend.capabilities.remote:
            return None
        with IMPORTING:
            from mfstore.loading.cached import CachedReads

        cache = open_cache(knobs.cache, knobs.cache_size)
        return None if cache is None else CachedReads(cache.ranges, reader)

    def has_cached(self, read: PackRead) -> bool:
        """Whether the cache of this host has that range of a pack."""
        cached = self._shared().cached
        return cached is not None and cached.has(read)

    def _has_tree(self) -> bool:
        found = self._known[0]
        return found is not None and found.tree

    def _tell_of_tree(self) -> None:
        if self.backend.capabilities.remote:
            description.tell_of_tree(self.backend)

    def _index_cache(self) -> HostCache:
        """Where what processes of this host read of the index is shared: on a local store the page cache is that."""
        found = index_cache(self.options.knobs.cache) if self.backend.capabilities.remote else HostCache(None)
        self._host_cache = found
        return found

    def metrics(self) -> StoreMetrics:
        """What ``Store.metrics`` returns."""
        from mfstore.metrics import store_metrics

        return store_metrics(self.backend.url, self._session, self.backend.traffic, self.read_counts)

    @property
    def read_counts(self) -> ReadCounts:
        """What was read so far."""
        from mfstore.metrics import ReadCounts

        made, index = self._made, self._host_cache
        found = ReadCounts()
        if index is not None:
            found = found._replace(cache_hits=index.hits, cache_misses=index.misses)
        if made is not None:
            found = found._replace(verify_failures=made.saving.fetcher.differed)
            if made.cached is not None:
                kept = made.cached.cache
                found = found._replace(cached_reads=kept.hits, fetched_reads=kept.misses, cached_bytes=kept.served)
        return found

    def exists_many(self, keys: Sequence[Key]) -> list[bool]:
        """Whether something is stored under each key, in order."""
        self.require_read()
        return self.backend.exists_many([recipe_path(key) for key in keys])

    def recipe(self, key: Key) -> Recipe:
        """The recipe of a key. NotFound when nothing is stored under it, CorruptObject when it is not whole."""
        self.require_read()
        data: bytes | MfstoreError
        try:
            data = self.backend.get(recipe_path(key))
        except NotFound as error:
            data = error
        return self.decode(key, data)

    def recipe_named(self, key: Key, wanted: Callable[[Recipe], Sequence[Artifact]]) -> Recipe:
        """``recipe(key)``, for who loads what is ``wanted`` of it and has just found that a ref has this key. Then it
        is stored, and its recipe may come from this host, if all that it leads to does as well."""
        self.require_read()
        cached = self._shared().cached
        if cached is None:
            return self.recipe(key)
        data = cached.find_recipe(key)
        if data is not None:
            try:
                recipe = recipes.decode(data, self.workers.thread.codec, bytes.fromhex(key))
                if cached.covers(recipe, wanted(recipe)):
                    return recipe
            except MfstoreError:
                pass  # to be told of what is stored
        try:
            data = self.backend.get(recipe_path(key))
        except NotFound as error:
            return self.decode(key, error)
        recipe = self.decode(key, data)
        if recipe.packs:
            cached.keep_recipe(key, data)
        return recipe

    def decode(self, key: Key, data: bytes | MfstoreError) -> Recipe:
        """As ``recipe``, from what the backend gave for it."""
        if isinstance(data, NotFound):
            if self.description is None:
                raise self.no_store() from None
            raise NotFound("nothing is stored under this key", key=key, backend=self.backend.url) from None
        if isinstance(data, MfstoreError):
            raise data
        try:
            return recipes.decode(data, self.workers.thread.codec, bytes.fromhex(key))
        except MfstoreError:
            pass  # one bad read is no damage
        try:
            return recipes.decode(
                self.backend.read_again(recipe_path(key)), self.workers.thread.codec, bytes.fromhex(key)
            )
        except MfstoreError as error:
            raise error.where(key=recipe_path(key), backend=self.backend.url) from None

    def load(
        self, key: Key, recipe: Recipe, wanted: Sequence[Artifact], how: Wishes, *, named: bool,
        first: dict[str, int] | None = None,
    ) -> Any:  # fmt: skip
        """The objects of ``wanted``: ``named`` as a dict, else the one there is. ``first`` as of ``load_artifacts``.
        NotLoadable for what unpickling raises, NotSigned before anything is read."""
        began = perf_counter()
        meter = METER.get()
        if meter is not None:
            meter.expect(sum(artifact.size for artifact in wanted))
        if self.trust is not None:
            self.require_signed([key])
        try:
            values = list(load_artifacts(self.loading(*how), recipe, wanted, first))
        except Exception as error:
            values = self.load_again(error, key, recipe, wanted, how)
        self.count((1, sum(artifact.size for artifact in wanted), perf_counter() - began))
        if named:
            return dict(zip((artifact.name for artifact in wanted), values, strict=True))
        return values[0]

    def require_signed(self, keys: Iterable[Key]) -> None:
        """NotSigned for the first of the keys that must be signed and is not by one who is trusted; AccessDenied and
        the like where that cannot be told."""
        for error in self.refusals(keys).values():
            raise error

    def refusals(self, keys: Iterable[Key]) -> Mapping[Key, MfstoreError]:
        """What ``require_signed`` raises for each of the keys, without those for which it raises nothing."""
        if self.trust is None:
            return {}
        self.require_read()
        return self.trust.refusals(self.backend, self.algorithm_name, keys)

    @property
    def algorithm_name(self) -> str:
        """The digest of the store, or of the one that would be created."""
        known = self._known[0]
        return self.options.digest if known is None else name_of(known.algorithm)

    def load_again(
        self, error: Exception, key: Key, recipe: Recipe, wanted: Sequence[Artifact], how: Wishes
    ) -> list[Any]:
        """What could not be loaded: read once more and verified, if it was not, as damage may be the reason; or by the
        recipe as it is stored by now. Else its error, which says what could not be loaded from where."""
        if not (self.options.knobs.verify if how.verify is None else how.verify):
            try:
                return list(load_artifacts(self.loading(*how._replace(verify=True)), recipe, wanted))
            except Exception as verified:
                error = verified
        if isinstance(error, CorruptObject) and (stored := self._rewritten(key, recipe)) is not None:
            try:
                return list(load_artifacts(self.loading(*how._replace(verify=True)), stored, wanted))
            except Exception as again:
                error = again
        try:
            raise self.located(error, key) from error.__cause__
        finally:
            del error  # whose traceback has this frame, and with it what was loaded

    def _rewritten(self, key: Key, recipe: Recipe) -> Recipe | None:
        """The recipe that is stored, if one is kept on this host and that is not what leads to the same places: a
        collection may have moved them since."""
        cached = self._shared().cached
        if cached is None or cached.find_recipe(key) is None:
            return None
        try:
            stored = self.recipe(key)
        except MfstoreError:
            return None
        cached.drop_recipe(key)
        same = (stored.packs, stored.placements) == (recipe.packs, recipe.placements)
        return None if same else stored

    def located(self, error: Exception, key: Key) -> Exception:
        """The error, saying what could not be loaded from where."""
        if isinstance(error, MfstoreError):
            error.where(key=key, backend=self.backend.url)
        # Metaflow's users get what a class has raised itself.
        told = error.__cause__ if isinstance(error, NotLoadable) and error.__cause__ is not None else error
        told.add_note(f"while loading {key} from {self.backend.url}")
        return error
