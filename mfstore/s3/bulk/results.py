"""A bulk operation as its caller sees it: something to iterate over, wait for, or await, and to count."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from inspect import cleandoc, signature
from time import monotonic
from typing import Any, Generic, Literal, NamedTuple, ParamSpec, TypeVar, overload

from mfstore.display.amounts import count, duration, size
from mfstore.display.cards import Card
from mfstore.errors import Unsupported
from mfstore.progress import Display, Meter, Terminal, display_of, drawn
from mfstore.s3.bulk.stats import MOVING, BulkStats, result_card
from mfstore.s3.transfers.outcomes import Outcome, abandoning
from mfstore.s3.transfers.scheduler import Scheduler, Turns

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound="BulkResult | Listing[Any]")
F = TypeVar("F", bound=Callable[..., Any])
OnError = Literal["raise", "return", "omit"]
Progress = bool | Literal["tqdm", "rich"] | Callable[[int], None] | None
"""True for a bar with items and bytes, in a terminal on stderr or in a notebook, and nothing elsewhere; "tqdm" for that
one's, "rich" for ours wherever it is; or a function called with the number of items finished since its last call."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much work an operation is, so that an event loop can have it done in a thread."""

    large: bool = False
    """Files are read and written, or pages parsed."""
    calls_back: bool = False
    """Items are made by code of the caller's as they are needed, which is to run in his own thread."""


NO_EFFORT = Effort()
IDLE = "nothing asked for yet: iterate over it, wait() or await it"


class BulkResult:
    """The outcomes of a bulk operation.

    Iterating (``for`` or ``async for``) runs the operation: what you have not asked for waits, within the memory
    budget. ``wait()``, or ``await``, runs it to the end and remembers the outcomes; then ``len``, indexing and
    iterating again work. Operations with an effect (put, delete, copy, get into files) come already waited for from the
    synchronous methods, unless called with ``stream=True``.

    With ``on_error="raise"`` the first error is raised from the iteration, and the rest is abandoned. Leaving the loop,
    Ctrl-C and cancelling the task end the operation: no buffer is touched any more, temporary files are gone, and open
    uploads are given up, which may take two seconds. One thread, or one task, at a time may iterate.

    Attributes:
        stats: A ``BulkStats``, current at any time.
    """

    def __init__(
        self, start: Callable[[], Scheduler], stats: BulkStats, *, on_error: OnError, progress: Progress,
        total: int | None = None, effort: Effort = NO_EFFORT,
    ) -> None:  # fmt: skip
        if on_error not in ("raise", "return", "omit"):
            raise ValueError(f"on_error must be raise, return or omit, not {on_error!r}")
        if progress not in (None, True, False, "tqdm", "rich") and not callable(progress):
            raise ValueError(f'progress must be a bool, "tqdm", "rich" or a function, not {progress!r}')
        self.stats = stats
        self._total = total
        self._start = start
        self._on_error = on_error
        self._progress = progress
        self._outcomes: list[Outcome] | None = None
        self._started = False
        self._begun: tuple[Scheduler, Any] | None = None
        self._effort = effort

    # ---- running ----------------------------------------------------------------------

    def __iter__(self) -> Iterator[Outcome]:
        if self._outcomes is not None:
            return iter(self._outcomes)
        return self._run()

    def __aiter__(self) -> AsyncIterator[Outcome]:
        return self._arun() if self._outcomes is None else _replay(self._outcomes)

    def begin(self) -> BulkResult:
        """Send what can be sent now, without waiting for any answer; returns itself. ``wait`` (or iterating) goes on
        from there, which is when requests that failed are tried again."""
        if self._outcomes is None and not self._started:
            self._begun = self._begin()
            self._begun[0].send()
        return self

    def wait(self) -> BulkResult:
        """Run to the end; returns itself."""
        if self._outcomes is None:
            self._outcomes = list(self._run())
        return self

    def __await__(self) -> Generator[Any, None, BulkResult]:
        return self._await().__await__()

    async def _await(self) -> BulkResult:
        if self._outcomes is None:
            self._outcomes = [outcome async for outcome in self._arun()]
        return self

    def _begin(self) -> tuple[Scheduler, Any]:
        if self._begun is not None:
            begun, self._begun = self._begun, None
            return begun
        if self._started:
            raise RuntimeError("this bulk operation has been iterated over: call wait() first to iterate again")
        self._started = True
        scheduler = self._start()
        try:
            return scheduler, _bar(self._progress, self.stats.operation, self._total, scheduler)
        except Unsupported:
            scheduler.close()
            raise

    def _run(self) -> Iterator[Outcome]:
        scheduler, bar = self._begin()
        batches, count = scheduler.batches(), self.stats.add
        try:
            for found in batches:
                while found:
                    outcome = found.pop()
                    count(outcome)
                    if (bar is None and outcome.error is None) or self._show(outcome, bar):
                        yield outcome
                    del outcome  # its memory, which the caller may have let go, is for what comes next
        finally:
            batches.close()
            if bar is not None:
                bar.close()

    async def _arun(self) -> AsyncIterator[Outcome]:
        import asyncio

        loop = asyncio.get_running_loop()
        # Choosing the engine imports botocore, and looking for credentials may ask the network.
        beginning = loop.run_in_executor(None, self._begin_prepared)
        try:
            scheduler, bar = await asyncio.shield(beginning)
        except asyncio.CancelledError:
            beginning.add_done_callback(_let_go)
            raise
        turns = Turns() if scheduler.ordered else None
        ready = asyncio.Event()
        aside = True  # at first, when requests of a new kind are prepared
        loop.add_reader(scheduler.fileno(), ready.set)
        try:
            while not scheduler.done:
                ready.clear()
                renews = scheduler.renews()
                if not aside and not renews:
                    found = scheduler.pump(0.0)
                elif self._effort.calls_back:
                    if renews:
                        await _settled(loop, scheduler.renew)
                    scheduler.send()
                    found = await _settled(loop, scheduler.receive, 0.0)
                else:
                    found = await _settled(loop, scheduler.pump, 0.0)
                aside = self._effort.large
                idle = not found
                for outcome in found if turns is None else turns.come(found):
                    scheduler.handed_out(outcome)
                    self.stats.add(outcome)
                    if self._show(outcome, bar):
                        yield outcome
                    del outcome
                del found
                if idle and not scheduler.done:
                    # Not wait_for: before Python 3.12 it can lose a cancellation that meets the event.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(max(scheduler.due(monotonic()), 0.001)):
                            await ready.wait()
                elif not idle:
                    await asyncio.sleep(0)
        finally:
            loop.remove_reader(scheduler.fileno())
            if scheduler.done:
                scheduler.close()
            else:
                # Calls are cancelled and uploads given up while the loop goes on, also when the task is cancelled once
                # more: when this ends no buffer is touched any more.
                await _settled(loop, scheduler.close)
            if bar is not None:
                bar.close()

    def _begin_prepared(self) -> tuple[Scheduler, Any]:
        begun = self._begin()
        begun[0].prepare(self.stats.operation)
        return begun

    def _show(self, outcome: Outcome, bar: Any) -> bool:
        """Whether an outcome is for the caller."""
        if bar is not None:
            bar.update(1)
        if outcome.error is None:
            return True
        if self._on_error == "raise":
            raise abandoning(outcome.error, self.stats.items - self.stats.failed)
        return self._on_error == "return"

    # ---- afterwards -------------------------------------------------------------------

    @property
    def engine(self) -> str:
        """The engine that moves the bytes: "native" or "aiobotocore"."""
        return self.stats.engine

    def _waited_for(self) -> list[Outcome]:
        if self._outcomes is None:
            raise TypeError("the outcomes are not remembered: call wait() (or await) first")
        return self._outcomes

    def __len__(self) -> int:
        return len(self._waited_for())

    @overload
    def __getitem__(self, index: int) -> Outcome: ...
    @overload
    def __getitem__(self, index: slice) -> list[Outcome]: ...
    def __getitem__(self, index: int | slice) -> Outcome | list[Outcome]:
        return self._waited_for()[index]

    def __bool__(self) -> bool:
        return True

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the statistics, and each remembered outcome without its data."""
        outcomes = [outcome.to_dict() for outcome in self._outcomes or ()]
        return {"stats": self.stats.to_dict(), "outcomes": outcomes}

    def __repr__(self) -> str:
        stats = self.stats
        if not self._started:
            return f"<BulkResult {stats.operation} by {stats.engine}: {IDLE}>"
        moved = f", {size(stats.bytes)}, {size(stats.speed)}/s" if stats.operation in MOVING else ""
        return (
            f"<BulkResult {stats.operation} by {stats.engine}: {count(stats.items, 'item')}, {stats.failed:,} failed"
            f"{moved} in {duration(stats.seconds)}, {stats.retries:,} retries>"
        )

    def _repr_html_(self) -> str:
        from mfstore.display.html import html_of

        stats = self.stats
        card = result_card(stats, self._outcomes or ()) if self._started else Card(stats.operation, notes=(IDLE,))
        return html_of(card)


class Listing(Iterator[T], AsyncIterator[T]):
    """What is listed, read page by page as you iterate: with ``for`` or ``async for``, once."""

    def __init__(self, start: Callable[[], BulkResult], entries: Callable[[Outcome], Iterable[T]]) -> None:
        self._start = start
        self._entries = entries
        self._sync: Generator[T, None, None] | None = None
        self._async: AsyncGenerator[T, None] | None = None

    def __iter__(self) -> Iterator[T]:
        # The generator itself: an entry then costs no call.
        if self._sync is None:
            self._sync = self._each()
        return self._sync

    def __next__(self) -> T:
        return next(iter(self))

    def __aiter__(self) -> AsyncIterator[T]:
        if self._async is None:
            self._async = self._aeach()
        return self._async

    def __anext__(self) -> Awaitable[T]:
        return anext(aiter(self))

    def _each(self) -> Generator[T, None, None]:
        for outcome in self._start():
            yield from self._entries(outcome)

    async def _aeach(self) -> AsyncGenerator[T, None]:
        async for outcome in self._start():
            for entry in self._entries(outcome):
                yield entry

    def close(self) -> None:
        """Read no further page."""
        if self._sync is not None:
            self._sync.close()

    async def aclose(self) -> None:
        """Read no further page."""
        if self._async is not None:
            await self._async.aclose()


class Single(NamedTuple, Generic[T]):
    """What a method comes to that asks for one thing: an operation on one item, and what its outcome says."""

    result: BulkResult
    answer: Callable[[Outcome], T]


def single(method: Callable[P, Single[T]]) -> Callable[P, T]:
    """Have a method run the operation that it describes, and return the answer."""

    @wraps(method)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        result, answer = method(*args, **kwargs)
        (outcome,) = result
        return answer(outcome)

    described = signature(method)
    answered = str(described.return_annotation).removeprefix("Single[").removesuffix("]")
    run.__signature__ = described.replace(return_annotation=answered)  # type: ignore[attr-defined]
    return run


def asynchronous(method: Callable[P, R]) -> Callable[P, R]:
    """The twin of a method that returns a ``BulkResult`` or a ``Listing``, with the same parameters: what it returns is
    not waited for, but is for ``async for`` or ``await``."""
    waits = "stream" in signature(method).parameters  # unless it is true

    @wraps(method)
    def twin(*args: P.args, **kwargs: P.kwargs) -> R:
        if waits:
            kwargs["stream"] = True
        return method(*args, **kwargs)

    return _named(twin, method, "for ``async for`` or ``await``")


def asynchronous_single(method: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The twin of a ``single`` method, for ``await``."""
    described: Callable[P, Single[T]] = method.__wrapped__  # type: ignore[attr-defined]

    @wraps(method)
    async def twin(*args: P.args, **kwargs: P.kwargs) -> T:
        result, answer = described(*args, **kwargs)
        (outcome,) = await result
        return answer(outcome)

    return _named(twin, method, "for ``await``")


def _named(twin: F, method: Callable[..., Any], use: str) -> F:
    twin.__name__ = f"a{method.__name__}"
    twin.__qualname__ = f"{method.__qualname__.rpartition('.')[0]}.{twin.__name__}"
    twin.__doc__ = f"As ``{method.__name__}``, {use}.\n\n{cleandoc(method.__doc__ or '')}"
    return twin


async def _settled(loop: Any, function: Callable[..., T], *arguments: Any) -> T:
    """What a function returns that runs in a thread. A task that is cancelled meanwhile goes on when it has ended."""
    import asyncio

    running: asyncio.Future[T] = loop.run_in_executor(None, function, *arguments)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        running.exception()  # seen, and second to the cancellation
        raise


def _let_go(beginning: Any) -> None:
    """End what began for a task that was cancelled meanwhile."""
    if not beginning.cancelled() and beginning.exception() is None:
        scheduler, bar = beginning.result()
        scheduler.close()
        if bar is not None:
            bar.close()


async def _replay(outcomes: list[Outcome]) -> AsyncIterator[Outcome]:
    for outcome in outcomes:
        yield outcome


def _bar(progress: Progress, operation: str, total: int | None, scheduler: Scheduler) -> Any:
    """Something with ``update(n)`` and ``close()``, or None."""
    if not progress:
        return None
    if callable(progress):
        return _Callback(progress)
    if progress == "tqdm":
        try:
            from tqdm.auto import tqdm
        except ImportError:
            raise Unsupported("there is no tqdm", hint="pip install tqdm, or progress=True") from None
        return tqdm(desc=operation, unit="obj", total=total)
    display = Terminal() if progress == "rich" else display_of(True)
    return None if display is None else _Shown(display, operation, total, scheduler)


class _Callback:
    def __init__(self, function: Callable[[int], None]) -> None:
        self.update = function

    def close(self) -> None:
        return


class _Shown:
    """Items, and the bytes that move meanwhile, in a terminal or a notebook."""

    def __init__(self, display: Display, operation: str, total: int | None, scheduler: Scheduler) -> None:
        meter = Meter(
            operation, items=True, of_items=total, source=scheduler.flowed,
            bytes_move=operation in MOVING and operation != "copy",  # those move at the service
        )  # fmt: skip
        self._drawn = drawn(meter, display)
        self._drawn.__enter__()
        self.update = meter.item

    def close(self) -> None:
        self._drawn.__exit__(None, None, None)
