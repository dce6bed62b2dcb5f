"""One opened store in one process: what all its operations share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mfstore import description
from mfstore.errors import MfstoreError, NotFound
from mfstore.format import recipes
from mfstore.format.collection import FEATURE
from mfstore.format.description import PATH, Description
from mfstore.format.digests import NAMES, Key, digest_function
from mfstore.format.recipes import Recipe, recipe_path
from mfstore.host.elapsed import moment, since
from mfstore.host.workers import Workers
from mfstore.loading.fetch import Fetcher
from mfstore.loading.verified import VerifiedRanges
from mfstore.saving.guard import KNOWLEDGE_SECONDS, Guard
from mfstore.saving.index import ChunkIndex
from mfstore.saving.ingest import Ingest

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.settings import Knobs
    from mfstore.stats import SessionStats

DESCRIPTION_SECONDS = KNOWLEDGE_SECONDS / 3
"""How long a remote store's description is relied on. It tells whether anything may be condemned, so this is a third
of the time that such knowledge may be old: hosts keep it as long (Metaflow tasks), and what is condemned is kept as
long."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store was opened."""

    url: str
    backend: Backend
    knobs: Knobs
    create: bool
    """Whether a save may create the store."""
    compress: bool
    digest: str
    """Of a store that is created: "blake3" or "sha256"."""


@dataclass(frozen=True, slots=True)
class StoreAccess:
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
        self._lock = threading.Lock()
        self._description: Description | None = None
        self._checked = False
        self._checked_at = moment()
        self._parts: tuple[ChunkIndex, Fetcher] | None = None

    def close(self) -> None:
        """End the threads."""
        self.workers.close()

    # ---- the store's description --------------------------------------------------------

    @property
    def description(self) -> Description | None:
        """The store's description as it was read last; None while there is no store."""
        return self._description

    def require_read(self) -> None:
        """Look whether there is a store, unless that is known. NotAStore when there is something else, Unsupported when
        this program may not read it."""
        if not self._checked:
            with self._lock:
                self._description = description.load(self.backend)
                self._checked = self._description is not None
                self._checked_at = moment()
        if self._description is not None:
            self._description.require("read", self.options.url)

    def require_write(self) -> Description:
        """As ``require_read``, for writing: a store that is not there is created, or is NotFound."""
        self.require_read()
        if self._description is None or not self._still_there():
            if not self.options.create:
                raise NotFound("no store there", backend=self.backend.url, hint="Open it with create=True")
            with self._lock:
                self._description = description.create(self.backend, NAMES[self.options.digest])
                self._checked = True
                self._parts = None
        assert self._description is not None
        self._description.require("write", self.options.url)
        return self._description

    def access(self, *operations: str) -> StoreAccess:
        """The store for maintenance. NotFound when there is none, Unsupported when this program may not do one of the
        ``operations``: "read", "write" or "delete"."""
        self.require_read()
        if self._description is None:
            raise NotFound("no store there", backend=self.backend.url)
        for operation in operations:
            self._description.require(operation, self.options.url)
        return StoreAccess(self.options.url, self.backend, self.workers, self._description, self.guard)

    def _still_there(self) -> bool:
        """Whether the store's description has not been removed meanwhile, as when somebody deletes the directory."""
        if not self.backend.capabilities.remote:
            return self.backend.exists_many([PATH])[0]
        if since(self._checked_at) >= DESCRIPTION_SECONDS:
            self._description = description.load(self.backend)
            self._checked_at = moment()
        return self._description is not None

    def was_collected(self) -> bool:
        """Whether a collector ever condemned anything in this store, as its description says."""
        self._still_there()
        return self._description is not None and FEATURE in self._description.features["write"]

    def forget_removed(self) -> None:
        """A collector has been at work: forget what it may have removed."""
        self._verified.clear()
        if self._parts is not None:
            self._parts[0].forget()

    # ---- saving and loading -------------------------------------------------------------

    def saving(self) -> Ingest:
        """One operation that stores something. NotFound and Unsupported as ``require_write``."""
        algorithm = self.require_write().algorithm
        index, fetcher = self._shared()
        return Ingest(
            self.backend, self.workers, index, fetcher, self._verified, digest_function(algorithm), algorithm,
            self.options.compress, self.options.knobs.memory, self.guard,
        )  # fmt: skip

    def count(self, written: SessionStats) -> None:
        """Count what an operation did."""
        with self._lock:
            self._session.add(written)

    @property
    def index(self) -> ChunkIndex:
        """The store's index."""
        return self._shared()[0]

    @property
    def fetcher(self) -> Fetcher:
        """What reads the store's chunks."""
        return self._shared()[1]

    def _shared(self) -> tuple[ChunkIndex, Fetcher]:
        with self._lock:
            if self._parts is None:
                algorithm = self._description.algorithm if self._description else NAMES[self.options.digest]
                digest = digest_function(algorithm)
                index = ChunkIndex(self.backend, digest, algorithm)
                self._parts = index, Fetcher(self.backend, self.workers, digest, index, self._verified)
            return self._parts

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

    def decode(self, key: Key, data: bytes | MfstoreError) -> Recipe:
        """As ``recipe``, from what the backend gave for it."""
        if isinstance(data, NotFound):
            raise NotFound("nothing is stored under this key", key=key, backend=self.backend.url) from None
        if isinstance(data, MfstoreError):
            raise data
        try:
            return recipes.decode(data, self.workers.codec, bytes.fromhex(key))
        except MfstoreError as error:
            raise error.where(key=recipe_path(key), backend=self.backend.url) from None
