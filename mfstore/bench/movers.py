"""What moves the objects of a scenario: a bulk client, or threads on a backend. Every object gives a row.

``items`` are consumed as there is room for more and may end early, at a time limit. Verification is part of what is
timed, for everybody alike.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from mfstore.backends.base import Backend
from mfstore.bench.measure import Row
from mfstore.errors import AccessDenied, MfstoreError, OutOfSpace

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.s3.bulk.client import BulkClient
    from mfstore.s3.bulk.results import BulkResult

Rows = Generator[Row, None, None]
"""To be closed by whoever leaves it early: then nothing moves any more."""
Item = TypeVar("Item")
Check = Callable[[int, "Buffer"], bool]
"""Whether the bytes of object number n are what was stored."""
FATAL = (AccessDenied, OutOfSpace)
"""What ends the run instead of being a row: the next object would meet it too."""
DIFFERS = "the bytes differ from what was stored"


class Mover(ABC):
    """Moves objects by key. A failed object is a row with an error."""

    engine: str
    """What it is called in the results."""
    essential = True
    """When nothing at all succeeds the run ends. Not for a peer: that is a result."""

    @abstractmethod
    def put(self, items: Iterable[tuple[str, bytes]]) -> Rows:
        """Store objects."""

    @abstractmethod
    def get(self, keys: Iterable[str], check: Check) -> Rows:
        """Read objects, each whole into memory."""

    def head(self, keys: Iterable[str]) -> Rows:
        """Ask for the sizes of objects."""
        raise NotImplementedError

    def list(self, prefix: str) -> Rows:
        """List the objects under a prefix: one row, whose index is the number of the last one."""
        raise NotImplementedError

    def delete(self, keys: Iterable[str]) -> Rows:
        """Delete objects."""
        raise NotImplementedError

    def one(self, operation: str, key: str, data: bytes = b"", check: Check | None = None) -> Row:
        """Put, get, head or delete one object, in the calling thread. Safe from several threads. Its row has no
        seconds where nobody but the caller knows them."""
        with closing(self._ask(operation, key, data, check or _any)) as rows:
            return next(rows)

    def _ask(self, operation: str, key: str, data: bytes, check: Check) -> Rows:
        if operation == "put":
            return self.put([(key, data)])
        if operation == "get":
            return self.get([key], check)
        return self.head([key]) if operation == "head" else self.delete([key])

    @abstractmethod
    def close(self) -> None:
        """Let go of connections."""


def _any(_: int, found: Buffer) -> bool:
    return True


class BulkMover(Mover):
    """A bulk client."""

    def __init__(self, client: BulkClient) -> None:
        self.client = client
        self.engine = client.engine.name

    def put(self, items: Iterable[tuple[str, bytes]]) -> Rows:
        return self._rows(self.client.put_many(items, on_error="return", ordered=False, stream=True))

    def get(self, keys: Iterable[str], check: Check) -> Rows:
        return self._rows(self.client.get_many(keys, on_error="return", ordered=False), check)

    def head(self, keys: Iterable[str]) -> Rows:
        """As Mover's."""
        return self._rows(self.client.head_many(keys, on_error="return", ordered=False), size=0)

    def list(self, prefix: str) -> Rows:
        begin = monotonic()
        count = sum(1 for _ in self.client.list(prefix))
        yield Row(count - 1, begin, monotonic() - begin, None, 0, 1, 0, None)

    def delete(self, keys: Iterable[str]) -> Rows:
        return self._rows(self.client.delete_many(keys, on_error="return", ordered=False, stream=True), size=0)

    def close(self) -> None:
        self.client.close()

    def _rows(self, result: BulkResult, check: Check | None = None, size: int | None = None) -> Rows:
        for outcome in result:
            end = monotonic()
            if isinstance(outcome.error, FATAL):
                raise outcome.error
            error = None if outcome.error is None else str(outcome.error)
            moved = 0 if error else outcome.size if size is None else size
            verified = 0
            if check is not None and error is None:
                if check(outcome.index, outcome.data):
                    verified = moved
                else:
                    error = DIFFERS
            yield Row(
                outcome.index, end - outcome.seconds, outcome.seconds, outcome.first_byte or None, moved,
                outcome.attempts, verified, error,
            )  # fmt: skip


class ThreadMover(Mover):
    """``threads`` threads that each take the next object when they are done with one."""

    def __init__(self, engine: str, threads: int) -> None:
        self.engine = engine
        self.threads = threads

    def run(self, items: Iterable[Item], work: Callable[[int, Item], tuple[int, int]]) -> Rows:
        """Rows of ``work(number, item)``, which returns the bytes moved and those verified, in the order of their
        ends. A work that raises is a row with an error; KeyboardInterrupt here ends the threads before it goes on."""
        source = enumerate(items)
        lock = threading.Lock()
        rows: SimpleQueue[Row | BaseException | None] = SimpleQueue()
        stopped = threading.Event()

        def serve() -> None:
            try:
                while not stopped.is_set():
                    with lock:
                        found = next(source, None)
                    if found is None:
                        return
                    rows.put(self._one(*found, work))
            except BaseException as error:
                rows.put(error)
            finally:
                rows.put(None)

        threads = [threading.Thread(target=serve, daemon=True) for _ in range(self.threads)]
        left = len(threads)
        try:
            for thread in threads:
                thread.start()
            while left:
                row = rows.get()
                if row is None:
                    left -= 1
                elif isinstance(row, BaseException):
                    raise row
                else:
                    yield row
        finally:
            stopped.set()
            for thread in threads:
                if thread.is_alive():  # one that has not begun finds that it is to stop
                    thread.join()

    def _one(self, number: int, item: Item, work: Callable[[int, Item], tuple[int, int]]) -> Row:
        begin = monotonic()
        error, size, verified = None, 0, 0
        try:
            size, verified = work(number, item)
        except FATAL:
            raise
        except Exception as caught:
            error = str(caught) if isinstance(caught, MfstoreError) else f"{type(caught).__name__}: {caught}"
        return Row(number, begin, monotonic() - begin, None, size, 1, verified, error)


class Different(Exception):
    """What was read is not what was stored."""

    def __str__(self) -> str:
        return DIFFERS


class BackendMover(ThreadMover):
    """Any backend."""

    def __init__(self, backend: Backend, engine: str, threads: int) -> None:
        super().__init__(engine, threads)
        self.backend = backend

    def one(self, operation: str, key: str, data: bytes = b"", check: Check | None = None) -> Row:
        """As Mover's."""
        if operation == "put":
            return self._one(0, (key, data), self._put)
        if operation == "get":
            return self._one(0, key, self._getter(check or _any))
        return self._one(0, key, self._head if operation == "head" else self._delete)

    def put(self, items: Iterable[tuple[str, bytes]]) -> Rows:
        return self.run(items, self._put)

    def get(self, keys: Iterable[str], check: Check) -> Rows:
        return self.run(keys, self._getter(check))

    def head(self, keys: Iterable[str]) -> Rows:
        """As Mover's."""
        return self.run(keys, self._head)

    def list(self, prefix: str) -> Rows:
        begin = monotonic()
        count = sum(1 for _ in self.backend.list(prefix))
        yield Row(count - 1, begin, monotonic() - begin, None, 0, 1, 0, None)

    def delete(self, keys: Iterable[str]) -> Rows:
        return self.run(keys, self._delete)

    def close(self) -> None:
        self.backend.close()

    def _put(self, _: int, item: tuple[str, bytes]) -> tuple[int, int]:
        key, data = item
        self.backend.put(key, [data])
        return len(data), 0

    def _getter(self, check: Check) -> Callable[[int, str], tuple[int, int]]:
        def work(number: int, key: str) -> tuple[int, int]:
            data = self.backend.get(key)
            if not check(number, data):
                raise Different
            return len(data), len(data)

        return work

    def _head(self, _: int, key: str) -> tuple[int, int]:
        self.backend.head(key)
        return 0, 0

    def _delete(self, _: int, key: str) -> tuple[int, int]:
        self.backend.delete(key)
        return 0, 0
