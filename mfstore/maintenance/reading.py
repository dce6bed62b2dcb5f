"""Many reads at once, each worked on by the store's threads while others are on their way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, wait
from typing import TYPE_CHECKING, TypeVar

from mfstore.errors import MfstoreError
from mfstore.loading.pack_reader import READ_BACKLOG

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.backends.base import Backend, RangeRead
    from mfstore.host.workers import Workers

    Work = Callable[[RangeRead, Buffer | MfstoreError], None]

Item = TypeVar("Item")
_local = threading.local()


def scratch(name: str, size: int) -> memoryview:
    """``size`` bytes of memory of the calling thread, the same again each time: fresh memory costs a page fault per
    4 KiB, which is more than hashing it."""
    memory: bytearray = getattr(_local, name, bytearray())
    if len(memory) < size:
        memory = bytearray(size)
        setattr(_local, name, memory)
    return memoryview(memory)[:size]


def spread(
    workers: Workers, items: Iterable[Item], work: Callable[[Item], None], weight: Callable[[Item], int], depth: int
) -> None:
    """``work`` of each item on the workers' threads, in any order, while more items arrive.

    No more than ``depth`` items, or READ_BACKLOG bytes by their ``weight``, wait at a time. An error of ``work`` is
    raised when no thread works any more. ``work`` must not hand work to the same workers: all threads could wait for
    one.
    """
    waiting: deque[tuple[Future[None], Item]] = deque()
    backlog = 0

    def finish_one() -> None:
        nonlocal backlog
        future, item = waiting.popleft()
        backlog -= weight(item)
        try:
            future.result()
        except CancelledError:  # no thread could be started
            work(item)

    try:
        for item in items:
            waiting.append((workers.submit(work, item), item))
            backlog += weight(item)
            while waiting and (backlog > READ_BACKLOG or len(waiting) > depth or waiting[0][0].done()):
                finish_one()
        while waiting:
            finish_one()
    finally:
        for future, _ in waiting:
            future.cancel()
        wait([future for future, _ in waiting])


def read_each(backend: Backend, workers: Workers, reads: Iterable[RangeRead], work: Work) -> None:
    """``work(read, bytes or the error it met)`` for each of many ranges, as ``spread`` does it. The bytes are only
    valid during the call."""

    def items() -> Iterator[tuple[RangeRead, Buffer | MfstoreError | None]]:
        if not backend.capabilities.remote:
            yield from ((read, None) for read in reads)
            return
        asked: list[RangeRead] = []

        def noted() -> Iterator[RangeRead]:
            for read in reads:
                asked.append(read)
                yield read

        for number, data in backend.read_many(noted()):
            yield asked[number], data

    def one(item: tuple[RangeRead, Buffer | MfstoreError | None]) -> None:
        read, data = item
        if data is None:
            data = scratch("read", read.length)
            try:
                backend.read_into(read.key, read.start, data)
            except MfstoreError as error:
                data = error
        work(read, data)

    # A few reads per thread: enough that none waits for the next, few enough to end soon when there is an error.
    spread(workers, items(), one, lambda item: item[0].length, 3 * workers.threads)
