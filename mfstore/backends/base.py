"""What a backend is: bytes by key.

Keys are ``/``-separated ASCII words made by mfstore (``recipes/ab/<digest>``); a backend never sees user names. Objects
under ``packs/``, ``recipes/`` and ``index/`` are immutable: replaced only by equal content.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mfstore.errors import MfstoreError, NotFound, Unsupported
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from mfstore.s3.transfers.scheduler import Traffic

    # Inside Backend the name list is a method.
    Answers = list[bool]

Decoded = TypeVar("Decoded")


class ObjectInfo(NamedTuple):
    """What a listing or ``head`` tells about one stored object."""

    key: str
    """The whole key, as it was put."""
    size: int
    """Bytes."""
    modified: float
    """Seconds since the epoch, on the storage's own clock."""
    etag: str
    """Changes whenever the bytes change; otherwise opaque. ``put_if`` and ``delete_unchanged`` take it back."""


class ObjectLock(NamedTuple):
    """What keeps the storage from deleting an object."""

    mode: str = ""
    """``COMPLIANCE``, ``GOVERNANCE``, or nothing: no retention."""
    until: float | None = None
    """When the retention ends, in seconds since the epoch. None: not known, or there is none."""
    legal_hold: bool = False

    def holds(self, now: float) -> bool:
        """Whether it still locks at this time."""
        return self.legal_hold or bool(self.mode and (self.until is None or self.until > now))


class Capabilities(NamedTuple):
    """What a backend can do beyond the minimum."""

    map: bool = False
    """``map`` works: objects can be mapped into memory."""
    cheap_reads: bool = False
    """Reading back costs about as much as hashing, so dedup hits are read before they are relied on. Without it the
    backend is asked what it can ``vouch`` for, and only the rest is read."""
    remote: bool = False
    """A request takes milliseconds and has a price, and many at once take no longer than one. Callers then make few and
    large ones, many at a time (``read_many``, ``get_many``), and do not ask again what they asked minutes ago."""
    gap: int = 64 << 10
    """Ranges of one object this close are read as one. The default is a local disk's: reading 64 KiB costs less there
    than opening the file again."""
    span: int = 2 << 20
    """Longest read: the unit of parallel work, and of extra memory. What is read is decoded and then hashed, and stays
    in the caches of a processor meanwhile: 256 MiB of floats load in 0.18 s of CPU, as with 1 MiB, and in 0.22 with
    8."""
    inline: int = 0
    """Chunks of one recipe that take up to this many bytes encoded lie in it, instead of in a pack that costs two more
    requests to write (pack and index fragment) and one to read. They do not dedup, so what is like the base that a save
    names does not lie there."""
    told: bool = False
    """Whoever asked for progress hears of the bytes of packs while they flow (``Meter.watch`` in mfstore/progress.py).
    Without it they count when they are encoded, or have come."""


DELETION_WINDOW = 10.0
"""Seconds from the last look, at the right to delete and at the object, to the end of the one request that deletes."""
REQUEST_LIFE = 60.0
"""Seconds for which a request whose sender gave up may still be carried out, by a proxy or a service that held it. What
keeps connections for others gives up after a minute or less."""
REFRESH_AGE = 86400.0
"""Rules that remove objects by age count whole days: what was made young again within one lives as long as what relies
on it."""


def needs_refresh(age: float, life: float) -> bool:
    """Whether an object that is removed when it is ``life`` seconds old should be made young again at this ``age``, now
    that something new relies on it."""
    return age >= min(REFRESH_AGE, life / 4)


class RangeRead(NamedTuple):
    """A range to read: ``length`` bytes from ``start``, into ``target`` when there is one."""

    key: str
    start: int
    """The first byte, from 0."""
    length: int
    """Bytes."""
    target: memoryview | None = None
    """Exactly ``length`` writable bytes, the caller's. None: the backend makes the memory, and it becomes the
    caller's."""


class ObjectEnd(NamedTuple):
    """The last bytes of an object, and what was learnt with them."""

    data: Buffer
    """As many as were asked for; all, of a shorter object. They are the caller's."""
    size: int
    """Bytes of the whole object."""
    vouched: bool
    """Whether the storage tells that the object is whole, as ``vouch`` does."""


class Batch:
    """One bulk operation: everything put is durable and visible after ``commit``.

    MUST become visible in the order of the puts, or all at once, or all under ``packs/`` before all under ``index/``,
    these before all under ``recipes/``, and these before the rest: what refers follows what it refers to. Leaving the
    ``with`` block by an exception, without ``commit``, MUST NOT leave partial objects visible; whole ones may stay.
    Used by one thread at a time. ``put`` and ``commit`` raise what ``Backend.put`` raises. This default puts at once.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Store ``parts``, joined, under ``key``. The memory MUST NOT be read after it returns: its owner reuses it.

        Args:
            key: Where.
            parts: Contiguous buffers, which together are the object.
        """
        self.backend.put(key, parts)

    def put_many(self, items: Iterable[tuple[str, Sequence[Buffer]]]) -> None:
        """``put`` of each key with its parts, in order. ``items`` is consumed as there is room for more; parts MAY be
        read until the next item but a hundred is asked for, and a MiB at most."""
        for key, parts in items:
            self.put(key, parts)

    def ensure(self, keys: Iterable[str]) -> None:
        """What others stored and this operation relies on: ``commit`` MUST make it as durable as its own objects, and,
        where something removes objects by age, as young. ``keys`` were there when they were looked up."""
        return

    def commit(self) -> None:
        """Return only when everything put is visible, and as durable as the backend's policy promises."""
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

    Keys are whole keys, below the place that ``url`` names. Offsets and lengths are bytes, and ranges always lie at 0
    or later. Buffers that a method takes are contiguous. Those that it returns are the caller's: they MUST NOT change
    any more.
    """

    url: str
    """Where this is, for messages and for opening it again."""
    capabilities: Capabilities = Capabilities()

    @abstractmethod
    def get(self, key: str) -> bytes:
        """The whole object.

        Raises:
            NotFound: MUST be raised when there is none.
        """

    @abstractmethod
    def get_range(self, key: str, start: int, length: int) -> Buffer:
        """Exactly ``length`` bytes from ``start``, never fewer. A ``length`` of 0 is allowed.

        Raises:
            CorruptObject: MUST be raised when the object ends before.
            NotFound: MUST be raised when there is no object.
        """

    @abstractmethod
    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Store ``parts``, joined, replacing what was there. MUST be atomic (readers see all or nothing) and, on
        return, durable under the backend's policy. MUST NOT leave anything visible on failure.

        Args:
            key: Where.
            parts: Buffers, which together are the object; none of them: an empty one.

        Raises:
            OutOfSpace: there is no room. What was there before MUST still be there.
        """

    @abstractmethod
    def put_if(self, key: str, data: Buffer, etag: str | None) -> str:
        """Store ``data`` if the object is still the one that the caller knows; returns the new etag. MUST be atomic
        against every ``put_if`` of any process, and durable on return.

        Args:
            key: Where.
            data: The whole object.
            etag: That of the object that is to be replaced; None: there must be none.

        Raises:
            Conflict: MUST be raised when there is another object, or none.
            OutOfSpace: there is no room.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object. MUST succeed when there is none."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every visible object whose key starts with ``prefix``, in any order. MUST NOT show unfinished writes. What is
        put or deleted meanwhile may be shown or not. A place that does not exist is empty."""

    @property
    def traffic(self) -> Traffic | None:
        """What its requests come to; None where there are none, or nobody counts them."""
        return None

    @abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """Size, time and etag.

        Raises:
            NotFound: MUST be raised when there is no object.
            AccessDenied: MUST be raised when that cannot be told.
        """

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes | MfstoreError]]:
        """Each object, or the error it met, in the order of ``keys``, which is consumed as there is room for more."""
        for key in keys:
            try:
                yield key, self.get(key)
            except MfstoreError as error:
                yield key, error

    def list_classes(self, prefix: str) -> Iterator[tuple[int, str | None]]:
        """The size of each object that ``list`` shows, and its storage class; None where there are none."""
        for info in self.list(prefix):
            yield info.size, None

    def list_many(self, prefixes: Sequence[str]) -> Iterator[ObjectInfo]:
        """What ``list`` shows under each of several prefixes, none of which begins another."""
        for prefix in prefixes:
            yield from self.list(prefix)

    def list_first(self, prefix: str, count: int) -> Sequence[ObjectInfo]:
        """Of what ``list`` shows the first ``count``, by their keys, in any order."""
        return sorted(self.list(prefix), key=lambda info: info.key)[:count]

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

    def delete_many(self, keys: Sequence[str]) -> None:
        """``delete`` each of them. Locked: the storage's locks keep some, and the others are gone."""
        for key in keys:
            self.delete(key)

    def copy(self, source: str, target: str) -> None:
        """Store the object ``source`` as ``target`` too, replacing what was there; as durable and as atomic as ``put``.

        Raises:
            NotFound: MUST be raised when there is no ``source``.
        """
        self.put(target, [self.get(source)])

    def move_unchanged(self, source: str, target: str, etag: str, *, replace: bool = True) -> bool:
        """Store the object ``source`` as ``target`` and remove it there, if its etag still is the given one; False, and
        nothing done, when it has changed. If it is interrupted, both MAY be there, and never none.

        The time of ``target`` MUST be that of the move. With ``replace=False`` an object that is stored as ``target``
        by then MUST stay.

        Raises:
            NotFound: MUST be raised when there is no ``source``.
            Conflict: MUST be raised when it may not ``replace`` what is there.
        """
        if self.head(source).etag != etag:
            return False
        if replace:
            self.copy(source, target)
        else:
            self.put_if(target, self.get(source), None)
        if all(self.delete_unchanged({source: etag})):
            return True
        self.delete(target)
        return False

    def delete_unchanged(self, objects: Mapping[str, str]) -> Answers:
        """Remove each object whose etag still is the given one; True for each that is gone now, False for one that has
        changed, in order. MUST be atomic if ``deletes_conditionally``; otherwise MUST look at each. MUST NOT send a
        deletion twice, nor later than ``DELETION_WINDOW`` seconds after it was called or looked: what is unanswered is
        a BackendError, and the caller decides. Locked: the storage's locks keep some; what became of the others it
        says.

        Args:
            objects: Etags by key, as ``list`` or ``head`` told them.
        """
        answers = []
        for key, etag in objects.items():
            try:
                if self.head(key).etag == etag:
                    self.delete(key)
                    answers.append(True)
                else:
                    answers.append(False)
            except NotFound:
                answers.append(True)
        return answers

    def deletes_conditionally(self) -> bool:
        """Whether ``delete_unchanged`` can never remove a version that was put after the given one."""
        return False

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        """The whole object and its etag, for a ``put_if`` that follows. If it changes in between, the etag MUST be the
        older one, so that the write conflicts.

        Raises:
            NotFound: MUST be raised when there is no object.
        """
        etag = self.head(key).etag
        return self.get(key), etag

    def read_again(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """What was read and seemed damaged, once more: by a request of its own, into other memory, and past what this
        machine may keep of the object, where that can be done. As ``get``, or with a ``length`` as ``get_range``.

        Args:
            key: Which object.
            start: The first byte.
            length: Bytes; None: all that follow.
        """
        if length is None:
            return self.get(key)[start:]
        return bytes(memoryview(self.get_range(key, start, length)).cast("B"))

    def read_many(self, reads: Iterable[RangeRead]) -> Iterator[tuple[int, Buffer | MfstoreError]]:
        """Many ranges at once: ``(number of the read, its bytes or target, or the error it met)``, as they come.

        As ``get_range`` and ``read_into`` otherwise. ``reads`` is consumed as there is room for more. Once the
        iterator was closed, a target MUST NOT be written to.
        """
        for number, read in enumerate(reads):
            try:
                if read.target is None:
                    yield number, self.get_range(read.key, read.start, read.length)
                else:
                    self.read_into(read.key, read.start, read.target)
                    yield number, read.target
            except MfstoreError as error:
                yield number, error

    def read_ends(self, keys: Sequence[str], length: int) -> Iterator[tuple[int, ObjectEnd | MfstoreError]]:
        """The last ``length`` bytes of each object: ``(number of the key, what was found or the error it met)``, as
        they come. What the storage vouches for is told with them."""
        for number, key in enumerate(keys):
            try:
                size = self.head(key).size
                start = max(0, size - length)
                data = self.get_range(key, start, size - start)
                vouched = not self.capabilities.cheap_reads and self.vouch([key]).get(key) == size
                yield number, ObjectEnd(data, size, vouched)
            except MfstoreError as error:
                yield number, error

    def vouch(self, keys: Sequence[str]) -> dict[str, int]:
        """Sizes of those among ``keys`` that are stored whole and as they were put, as far as the storage can tell
        without sending them. Those it cannot vouch for are left out; the caller reads what it needs of them."""
        return {}

    def lifecycle_rules(self) -> Sequence[dict[str, Any]] | None:
        """The rules by which the storage itself removes or moves objects, as S3's API words them; None where there is
        no such thing.

        Raises:
            AccessDenied: they may not be read.
        """
        return None

    def versioning(self) -> str:
        """Whether the storage keeps versions of what is deleted: ``Enabled``, ``Suspended`` (of what was stored before
        that) or nothing.

        Raises:
            AccessDenied: that may not be asked.
        """
        return ""

    def object_lock(self) -> str:
        """Whether single objects may be locked against deletion by the storage: ``Enabled``, with the retention that
        each new object gets, if any, as ``COMPLIANCE for 30 days``; or nothing.

        Raises:
            AccessDenied: that may not be asked.
        """
        return ""

    def locks(self, keys: Sequence[str]) -> dict[str, ObjectLock]:
        """The locks of those among the objects that are locked now.

        Raises:
            AccessDenied: that may not be asked.
        """
        return {}

    @property
    def prefix(self) -> str:
        """What the names begin with, for these rules, of all objects of this store."""
        return ""

    def read_into(self, key: str, start: int, target: memoryview) -> None:
        """Fill ``target`` with the object's bytes from ``start``. Errors as ``get_range``; what is in ``target`` after
        one means nothing.

        Args:
            key: Which object.
            start: The first byte.
            target: Writable bytes, the caller's. They MUST NOT be written to after this has returned or raised.
        """
        target[:] = memoryview(self.get_range(key, start, len(target))).cast("B")

    def map(self, key: str, start: int, length: int) -> Buffer:
        """A private, writable, copy-on-write map of part of an object, with the capability ``map``.

        MUST stay valid and unchanged while referenced, even when the object is replaced or deleted by a backend; what
        truncates or overwrites a file in place may end the process or change the map. It is the caller's:
        what is written to it is not stored. Errors as ``get_range``, BackendError when there are no more maps to have,
        and Unsupported without the capability.
        """
        raise Unsupported("this backend cannot map objects", backend=self.url)

    def maps_safely(self) -> bool:
        """Whether a map stays as it is whatever other machines do, so that arrays are mapped unless somebody says
        otherwise."""
        return True

    def identity(self, key: str) -> Any:
        """A hashable that changes whenever the object's bytes do: what was verified under it need not be again.

        Raises:
            NotFound: MUST be raised when there is no object.
        """
        return self.head(key).etag

    def batch(self) -> Batch:
        """Start a bulk operation."""
        return Batch(self)

    def close(self) -> None:
        """Release connections and descriptors. The handle opens them again when it is used again."""
        return

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"


def decode_read(backend: Backend, key: str, data: bytes, decode: Callable[[bytes], Decoded]) -> Decoded:
    """``decode(data)``, what was read of an object; if that fails, of the same object read again. One bad read (memory,
    a cable, a proxy) is not damage: what only the first read shows is not called so. The second error is raised."""
    try:
        return decode(data)
    except MfstoreError:
        return decode(backend.read_again(key))
