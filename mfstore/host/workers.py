"""The threads of one store handle: started when first needed, forgotten in a forked child."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import get_ident
from typing import TypeVar

from mfstore import errors
from mfstore._core.codec import Codec
from mfstore.host.forks import anew_in_children

Task = TypeVar("Task")
Result = TypeVar("Result")

PARALLEL_FROM = 1 << 20
"""Bytes below which work stays in the calling thread: handing over a task costs 30 us, hashing 256 KiB 45 us."""


_busy_with_pools: set[int] = set()
"""Threads that hand over tasks, or wait for some. A signal handler that interrupted one of them there does its work
itself: locks of the pool and of its futures, and one of all pools, may be held, which are not reentrant, and for which
the pool's threads wait."""
os.register_at_fork(after_in_child=lambda: _busy_with_pools.intersection_update({get_ident()}))


@contextmanager
def _busy() -> Iterator[None]:
    me = get_ident()
    _busy_with_pools.add(me)
    try:
        yield
    finally:
        _busy_with_pools.discard(me)


class ThreadOwn(threading.local):
    """What each thread has of its own."""

    def __init__(self) -> None:
        self.codec = Codec(errors)


class Workers:
    """A thread pool and one codec context per thread."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.thread = ThreadOwn()
        """The calling thread's own things."""
        self._lock = threading.RLock()
        self._pool: ThreadPoolExecutor | None = None
        anew_in_children(self)

    def forked(self) -> None:
        """A child has none of the threads."""
        self._lock = threading.RLock()
        self._pool = None

    def map(self, work: Callable[[Task], Result], tasks: Sequence[Task], total: int) -> list[Result]:
        """``work`` of each task, in order; in parallel when ``total`` bytes are worth it. The first error is raised
        after every task ended, so no thread still touches the caller's memory."""
        return list(self.each(work, tasks, total))

    def each(self, work: Callable[[Task], Result], tasks: Sequence[Task], total: int) -> Generator[Result, None, None]:
        """As ``map``, but each result as soon as it is there, while later ones are being made. Closed before its end,
        it waits for the tasks that have begun; others are never done."""
        if self.threads == 1 or len(tasks) < 2 or total < PARALLEL_FROM or get_ident() in _busy_with_pools:
            yield from map(work, tasks)
            return
        results: dict[int, Result] = {}

        def run(number: int) -> None:
            results[number] = work(tasks[number])

        futures: list[Future[None]] = []
        try:
            with _busy():
                try:
                    for number in range(len(tasks)):
                        futures.append(self._executor().submit(run, number))
                except RuntimeError:
                    # No thread could be started, or the interpreter takes no more tasks. A task may have been queued
                    # all the same: once the pool has ended, what has no result has not run and will not.
                    self._abandon()
            for number, task in enumerate(tasks):
                try:
                    with _busy():
                        for future in futures[number : number + 1]:
                            future.result()
                except CancelledError:
                    if not futures[number].cancelled():
                        raise
                yield results.pop(number) if number in results else work(task)
        finally:
            with _busy():
                # Not for those that are cancelled: where the pool has ended, nobody tells that they are.
                wait([future for future in futures if not future.cancel()])

    def submit(self, work: Callable[..., Result], *arguments: object) -> Future[Result]:
        """``work`` in another thread; at once in this one when there is none."""
        if self.threads > 1 and get_ident() not in _busy_with_pools:
            try:
                return self._submitted(work, *arguments)
            except RuntimeError:
                self._abandon()
        done: Future[Result] = Future()
        try:
            done.set_result(work(*arguments))
        except BaseException as error:
            done.set_exception(error)
        return done

    def _submitted(self, work: Callable[..., Result], *arguments: object) -> Future[Result]:
        """``work`` handed over. RuntimeError when there is no thread for it."""
        with _busy():
            return self._executor().submit(work, *arguments)

    def _abandon(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="mfstore")
            return self._pool

    def close(self) -> None:
        """End the threads, when they have done what they were given."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
