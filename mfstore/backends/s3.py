"""The S3 backend: ``s3://bucket/prefix``, with few, large and parallel requests.

Objects of a bulk operation are sent in parallel, and what refers to others only after those are stored. Mutable
objects (refs, the store's description) need conditional writes, which not every service that speaks S3 has: that is
tried once, on an object of our own, before the first of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from time import sleep
from typing import TYPE_CHECKING, Any, NoReturn

from mfstore._core.memory import FreshBytes
from mfstore.backends._s3_conditions import Conditions
from mfstore.backends.base import Backend, Batch, Capabilities, ObjectInfo, RangeRead
from mfstore.errors import BackendError, Conflict, CorruptObject, InvalidRange, MfstoreError, NotFound
from mfstore.s3.client import BulkClient
from mfstore.s3.items import PutItem, split_url

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.backends.base import Answers
    from mfstore.s3.outcomes import Outcome

GAP = 1 << 20
"""Reading 1 MiB that nobody wants costs 20 ms of one connection, another request 30 ms before its first byte (the
constants of concurrency.py) and its price; object_store's readers use the same."""
SPAN = 16 << 20
"""Per byte a request of 16 MiB costs half of one of 8 MiB, and 256 of them fill 75 Gbit/s (Durner, Leis, Neumann, VLDB
2023); longer ones only make the last one end later."""
INLINE = 256 << 10
"""So few bytes are sent while one request is being answered, and to keep them for a month costs half as much as two
more PUTs ($0.023 per GB and month, $0.005 per 1000 PUTs)."""
LARGE = 4 << 20
"""A bulk operation sends objects of this size at once, from the caller's memory; smaller ones are copied and sent
together."""
STAGED = 32 << 20
"""Bytes copied before they are sent."""
ORDER = ("packs/", "index/", "recipes/")
"""What is referred to comes before what refers to it."""
WHOLE = "mfstore-bytes"
"""Metadata of a pack: its length, as evidence that nobody but mfstore wrote the object."""
CONFLICT_TRIES = 5


class S3Backend(Backend):
    """Objects under a prefix of a bucket. ``options`` are those of ``BulkClient``.

    With ``single_writer`` a service without conditional writes will do: they become "look, then write", which loses
    updates if two processes change one ref at the same time. Never use it with more than one writer.
    """

    capabilities = Capabilities(remote=True, gap=GAP, span=SPAN, inline=INLINE)

    def __init__(self, url: str, *, single_writer: bool = False, **options: Any) -> None:
        self.bucket, prefix = split_url(url)
        prefix = prefix.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self.url = f"s3://{self.bucket}/{prefix}".rstrip("/")
        self._single_writer = single_writer
        self._options = options
        self.client = BulkClient(self.bucket, **options)
        self._conditions = Conditions(self.client, options.get("endpoint_url"), self.bucket, self._prefix)

    def __reduce__(self) -> tuple[Any, ...]:
        self.client.__reduce__()  # refuses a session, which does not pickle
        return _reopen, (self.url, self._single_writer, self._options)

    # ---- reading --------------------------------------------------------------------

    def get(self, key: str) -> bytes:
        return self._whole(key).data  # type: ignore[no-any-return]

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        outcome = self._whole(key)
        return outcome.data, outcome.etag or self.head(key).etag

    def _whole(self, key: str) -> Outcome:
        return _one(self, key, self.client.get_many([self._name(key)], on_error="return"))

    def get_many(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes | MfstoreError]]:
        asked: deque[str] = deque()

        def names() -> Iterator[str]:
            for key in keys:
                asked.append(key)
                yield self._name(key)

        for outcome in self.client.get_many(names(), on_error="return"):
            key = asked.popleft()
            yield key, outcome.data if outcome.error is None else self._located(outcome.error, key)

    def get_range(self, key: str, start: int, length: int) -> Buffer:
        (found,) = list(self.read_many([RangeRead(key, start, length)]))
        if isinstance(found[1], MfstoreError):
            raise found[1]
        return found[1]

    def read_into(self, key: str, start: int, target: memoryview) -> None:
        (found,) = list(self.read_many([RangeRead(key, start, len(target), target)]))
        if isinstance(found[1], MfstoreError):
            raise found[1]

    def read_many(self, reads: Iterable[RangeRead]) -> Iterator[tuple[int, Buffer | MfstoreError]]:
        asked: list[tuple[int, str]] = []
        empty: list[tuple[int, RangeRead]] = []

        def items() -> Iterator[tuple[str, int, int, memoryview | None]]:
            for number, read in enumerate(reads):
                if read.length:
                    asked.append((number, read.key))
                    yield self._name(read.key), read.start, read.length, read.target
                else:
                    empty.append((number, read))

        for outcome in self.client.read_many(items(), on_error="return"):
            number, key = asked[outcome.index]
            yield number, outcome.data if outcome.error is None else self._unread(outcome.error, key)
        for number, read in empty:
            yield number, self._nothing(read)

    def _unread(self, error: MfstoreError, key: str) -> MfstoreError:
        if isinstance(error, InvalidRange):
            error = CorruptObject("object is shorter than expected", expected=error.expected, found=error.found)
        return self._located(error, key)

    def _nothing(self, read: RangeRead) -> Buffer | MfstoreError:
        """The answer to a range of no bytes, which S3 does not have."""
        try:
            info = self.head(read.key)
        except MfstoreError as error:
            return error
        if read.start > info.size:
            return CorruptObject(
                "object is shorter than expected", key=read.key, backend=self.url, expected=read.start, found=info.size
            )
        return FreshBytes(0).value

    def head(self, key: str) -> ObjectInfo:
        outcome = _one(self, key, self.client.head_many([self._name(key)], on_error="return"))
        return ObjectInfo(key, outcome.size, outcome.modified or 0.0, outcome.etag or "")

    def identity(self, key: str) -> Any:
        info = self.head(key)
        return info.etag, info.size

    def exists_many(self, keys: Sequence[str]) -> Answers:
        outcomes = self.client.head_many(map(self._name, keys), on_error="return").wait()
        answers = []
        for key, outcome in zip(keys, outcomes, strict=True):
            if outcome.error is not None and not isinstance(outcome.error, NotFound):
                raise self._located(outcome.error, key)
            answers.append(outcome.error is None)
        return answers

    def vouch(self, keys: Sequence[str]) -> dict[str, int]:
        outcomes = self.client.head_many(map(self._name, keys), on_error="return").wait()
        return {
            key: outcome.size
            for key, outcome in zip(keys, outcomes, strict=True)
            if outcome.error is None and outcome.metadata.get(WHOLE) == str(outcome.size)
        }

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        try:
            for found in self.client.list(self._prefix + prefix):
                key = found.key.removeprefix(self._prefix)
                if not key.rpartition("/")[2].startswith("."):
                    yield ObjectInfo(key, found.size, found.modified or 0.0, (found.etag or "").strip('"'))
        except MfstoreError as error:
            self._fail(error)

    # ---- writing --------------------------------------------------------------------

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        self.put_all([(key, parts)])

    def put_all(self, objects: Iterable[tuple[str, Sequence[Buffer]]]) -> None:
        """Store objects in parallel."""
        try:
            self.client.put_many(self._item(key, parts) for key, parts in objects)
        except MfstoreError as error:
            self._fail(error)

    def _item(self, key: str, parts: Sequence[Buffer]) -> PutItem:
        metadata = None
        if key.startswith(ORDER[0]):
            metadata = {WHOLE: str(sum(memoryview(part).nbytes for part in parts))}
        return PutItem(self._name(key), list(parts), metadata)

    def batch(self) -> Batch:
        return S3Batch(self)

    def put_if(self, key: str, data: Buffer, etag: str | None) -> str:
        if self._single_writer:
            return self._look_then_put(key, data, etag)
        try:
            form = self._conditions.of_match() if etag is not None else self._conditions.of_new()
            item = PutItem(
                self._name(key), [data], if_none_match=etag is None, if_match=None if etag is None else form(etag)
            )
            outcome = self._conditional(item)
        except NotFound as error:
            if etag is None or error.service_code == "NoSuchBucket":
                self._fail(error)
            raise Conflict("the object was deleted since it was read", key=key, backend=self.url) from None
        except MfstoreError as error:
            raise self._located(error, key) from None
        return outcome.etag or self.head(key).etag

    def _conditional(self, item: PutItem) -> Outcome:
        for attempt in range(1, CONFLICT_TRIES + 1):
            try:
                return self.client.put_many([item])[0]
            except Conflict as error:
                # Another write is still going on: only its end decides.
                if error.service_code != "ConditionalRequestConflict" or attempt == CONFLICT_TRIES:
                    raise
                sleep(0.02 * 2**attempt)
        raise AssertionError

    def _look_then_put(self, key: str, data: Buffer, etag: str | None) -> str:
        try:
            current: str | None = self.head(key).etag
        except NotFound:
            current = None
        if current != etag:
            raise Conflict("the object changed since it was read", key=key, backend=self.url)
        self.put(key, [data])
        return self.head(key).etag

    def delete(self, key: str) -> None:
        self.delete_many([key])

    def delete_many(self, keys: Sequence[str]) -> None:
        try:
            self.client.delete_many(map(self._name, keys))
        except MfstoreError as error:
            self._fail(error)

    def close(self) -> None:
        self.client.close()

    # ---- names and errors -------------------------------------------------------------

    def _name(self, key: str) -> str:
        # Keys are made by mfstore; the check keeps a mistake of ours from leaving the prefix.
        if key.startswith("/") or ".." in key.split("/"):
            raise BackendError("key would leave the store", key=key, backend=self.url)
        return self._prefix + key

    def _located(self, error: MfstoreError, key: str) -> MfstoreError:
        """The error of a request, as this store's."""
        error.key, error.backend = key, self.url
        return error

    def _fail(self, error: MfstoreError) -> NoReturn:
        key = (error.key or "").removeprefix(f"s3://{self.bucket}/").removeprefix(self._prefix)
        error.key, error.backend = key or None, self.url
        raise error


class S3Batch(Batch):
    """Collects small objects and sends them together, class by class; large ones go at once, after those they need."""

    backend: S3Backend

    def __init__(self, backend: S3Backend) -> None:
        super().__init__(backend)
        self._staged: list[list[tuple[str, Sequence[Buffer]]]] = [[] for _ in range(len(ORDER) + 1)]
        self._bytes = 0

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        rank = next((number for number, start in enumerate(ORDER) if key.startswith(start)), len(ORDER))
        size = sum(memoryview(part).nbytes for part in parts)
        if size >= LARGE:
            self._send(rank)
            self.backend.put(key, parts)
            return
        self._staged[rank].append((key, [b"".join(parts)]))
        self._bytes += size
        if self._bytes >= STAGED:
            self.commit()

    def commit(self) -> None:
        self._send(len(self._staged))
        self._bytes = 0

    def _send(self, below: int) -> None:
        """Store what is staged of the first ``below`` classes, each before the next."""
        for staged in self._staged[:below]:
            if staged:
                self.backend.put_all(staged)
                self._bytes -= sum(memoryview(part).nbytes for _, parts in staged for part in parts)
                staged.clear()

    def abort(self) -> None:
        for staged in self._staged:
            staged.clear()
        self._bytes = 0


def _one(backend: S3Backend, key: str, result: Iterable[Outcome]) -> Outcome:
    (outcome,) = list(result)
    if outcome.error is not None:
        raise backend._located(outcome.error, key)
    return outcome


def _reopen(url: str, single_writer: bool, options: dict[str, Any]) -> S3Backend:
    return S3Backend(url, single_writer=single_writer, **options)
