"""What many coroutines ask for at once, as one bulk operation: libraries on fsspec ask for each file alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from mfstore.errors import MfstoreError
from mfstore.s3.filesystem.errors import file_error

if TYPE_CHECKING:
    from mfstore.s3.bulk.results import BulkResult
    from mfstore.s3.transfers.outcomes import Outcome


class Gathering:
    """Items that are asked for in one turn of an event loop. ``start`` makes of them an operation whose outcomes have
    errors."""

    def __init__(self, start: Callable[[list[Any]], BulkResult]) -> None:
        self._start = start
        self._waiting: WeakKeyDictionary[Any, list[tuple[Any, asyncio.Future[Outcome]]]] = WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    async def outcome(self, item: Any) -> Outcome:
        """What becomes of one item. Raises its error, as callers of files expect it."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting.get(loop)
        if waiting is None:
            waiting = self._waiting[loop] = []
            loop.call_soon(self._send, loop)
        future: asyncio.Future[Outcome] = loop.create_future()
        waiting.append((item, future))
        try:
            found = await future
            if found.error is not None:
                raise found.error
        except MfstoreError as error:
            raise file_error(error) from error.__cause__
        return found

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(self._run(self._waiting.pop(loop)))
        self._tasks.add(task)  # a loop knows its tasks by weak references only
        task.add_done_callback(self._tasks.discard)

    async def _run(self, waiting: list[tuple[Any, asyncio.Future[Outcome]]]) -> None:
        try:
            async for outcome in self._start([item for item, _ in waiting]):
                future = waiting[outcome.index][1]
                if not future.done():  # its coroutine may have been cancelled
                    future.set_result(outcome)
        except BaseException as error:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
