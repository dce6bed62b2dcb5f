"""What a backend is: bytes by key.

Keys are ``/``-separated ASCII words made by mfstore (``recipes/ab/<digest>``); a backend never sees user names. Objects
under ``packs/``, ``recipes/`` and ``index/`` are immutable: replaced only by equal content.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mfstore.errors import MfstoreError, NotFound, Unsupported

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    Answers = list[bool]  # inside Backend the name list is a method


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing or ``head`` tells about one stored object."""

    key: str
    size: int
    modified: float
    """Seconds since the epoch, on the storage's own clock."""
    etag: str
    """Changes whenever the bytes change; otherwise opaque."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do beyond the minimum."""

    map: bool = False
    """``map`` works: objects can be mapped into memory."""
    cheap_reads: bool = False
    """Reading back costs about as much as hashing, so dedup hits are verified before they are trusted."""


class Batch:
    """One bulk operation: everything put is durable and visible after ``commit``.

    MUST become visible in the order of the puts, or all at once. Leaving the ``with`` block by an exception, without
    ``commit``, MUST NOT leave partial objects visible; whole ones may stay. This default puts at once.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Store ``parts``, joined, under ``key``. The memory may be reused after it returns."""
        self.backend.put(key, parts)

    def ensure(self, keys: Iterable[str]) -> None:
        """What others stored and this operation relies on: ``commit`` MUST make it as durable as its own objects."""
        return

    def commit(self) -> None:
        """Return only when everything put is as durable as the backend's policy promises."""
        return

    def abort(self) -> None:
        """Forget what was put and not committed. Called when the block is left."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class Backend(ABC):
    """Seven abstract methods; the rest are correct defaults a backend may make faster.

    MUST hold for every method: it may be called from several threads at once; a failure raises an
    ``mfstore.errors`` class (AccessDenied for a refusal, never NotFound; OutOfSpace; BackendError for the rest)
    naming the key; caller's buffers are not retained after it returns; handles pickle and work after fork.
    """

    url: str
    """Where this is, for messages and for opening it again."""
    capabilities: Capabilities = Capabilities()

    @abstractmethod
    def get(self, key: str) -> bytes:
        """The whole object. MUST raise NotFound when there is none."""

    @abstractmethod
    def get_range(self, key: str, start: int, length: int) -> Buffer:
        """Exactly ``length`` bytes from ``start``. MUST raise CorruptObject when the object is shorter, never
        return fewer bytes."""

    @abstractmethod
    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Store ``parts``, joined, replacing what was there. MUST be atomic (readers see all or nothing) and, on
        return, durable under the backend's policy. MUST NOT leave anything visible on failure."""

    @abstractmethod
    def put_if(self, key: str, data: Buffer, etag: str | None) -> str:
        """Store ``data`` if the current object has that ``etag``, or, with None, if there is no object.

        Returns the new etag. MUST raise Conflict otherwise, MUST be atomic against every ``put_if`` of any process.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object. MUST succeed when there is none."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every visible object whose key starts with ``prefix``, in any order. MUST NOT show unfinished writes."""

    @abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """Size, time and etag. MUST raise NotFound when there is none, AccessDenied when it may not tell."""

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes | MfstoreError]]:
        """Each object, or the error it met, in the order of ``keys``."""
        for key in keys:
            try:
                yield key, self.get(key)
            except MfstoreError as error:
                yield key, error

    def exists_many(self, keys: Sequence[str]) -> Answers:
        """Whether each object exists, in order. MUST NOT report False for a refusal."""
        answers = []
        for key in keys:
            try:
                self.head(key)
                answers.append(True)
            except NotFound:
                answers.append(False)
        return answers

    def read_into(self, key: str, start: int, target: memoryview) -> None:
        """Fill writable ``target`` with the object's bytes from ``start``; as ``get_range``."""
        target[:] = memoryview(self.get_range(key, start, len(target))).cast("B")

    def map(self, key: str, start: int, length: int) -> Buffer:
        """A private, writable, copy-on-write map of part of an object, with the capability ``map``.

        MUST stay valid and unchanged while referenced, even when the object is replaced or deleted.
        """
        raise Unsupported("this backend cannot map objects", backend=self.url)

    def identity(self, key: str) -> Any:
        """A hashable that changes whenever the object's bytes do: what was verified under it need not be again.
        MUST raise NotFound when there is no object."""
        return self.head(key).etag

    def batch(self) -> Batch:
        """Start a bulk operation."""
        return Batch(self)

    def close(self) -> None:
        """Release connections and descriptors. The handle opens them again when it is used again."""
        return

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"
