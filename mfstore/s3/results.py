"""A bulk operation as its caller sees it: something to iterate over, wait for, or await."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from html import escape
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, overload

from mfstore.s3.outcomes import BulkStats, Outcome

if TYPE_CHECKING:
    from mfstore.s3.client import Running

OnError = Literal["raise", "return", "omit"]
Progress = bool | Callable[[int], None] | None
"""True for a bar (tqdm's, or rich's where there is no tqdm), or a function called with the number of items finished
since its last call."""


class BulkResult:
    """The outcomes of a bulk operation.

    Iterating (``for`` or ``async for``) runs the operation: what you have not asked for waits, within the memory
    budget. ``wait()``, or ``await``, runs it to the end and keeps the outcomes; then ``len``, indexing and iterating
    again work. Operations with an effect (put, delete, copy, get into files) come already waited for from the
    synchronous methods, unless called with ``stream=True``. ``stats`` is current at any time.
    """

    def __init__(
        self, start: Callable[[], Running], stats: BulkStats, *, ordered: bool, on_error: OnError, progress: Progress
    ) -> None:
        if on_error not in ("raise", "return", "omit"):
            raise ValueError(f"on_error must be raise, return or omit, not {on_error!r}")
        self.stats = stats
        self._start = start
        self._ordered = ordered
        self._on_error = on_error
        self._progress = progress
        self._outcomes: list[Outcome] | None = None
        self._started = False

    # ---- running ----------------------------------------------------------------------

    def __iter__(self) -> Iterator[Outcome]:
        if self._outcomes is not None:
            return iter(self._outcomes)
        return self._run()

    def __aiter__(self) -> AsyncIterator[Outcome]:
        return self._arun() if self._outcomes is None else _replay(self._outcomes)

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

    def _begin(self) -> tuple[Running, _Sorter, Any]:
        if self._started:
            raise RuntimeError("this bulk operation has been iterated over: call wait() first to iterate again")
        self._started = True
        bar = _bar(self._progress, self.stats.operation)
        return self._start(), _Sorter(self._ordered), bar

    def _run(self) -> Iterator[Outcome]:
        running, sorter, bar = self._begin()
        scheduler = running.scheduler
        try:
            while not scheduler.done:
                for outcome in sorter.sorted(scheduler.pump(60.0)):
                    scheduler.handed_out(outcome)
                    if self._account(outcome, bar):
                        yield outcome
        finally:
            running.close()
            if bar is not None:
                bar.close()

    async def _arun(self) -> AsyncIterator[Outcome]:
        import asyncio

        loop = asyncio.get_running_loop()
        running, sorter, bar = self._begin()
        scheduler = running.scheduler
        ready = asyncio.Event()
        loop.add_reader(running.fileno(), ready.set)
        try:
            # Looking for credentials may ask the network.
            await asyncio.to_thread(running.prepare)
            while not scheduler.done:
                ready.clear()
                found = scheduler.pump(0.0)
                for outcome in sorter.sorted(found):
                    scheduler.handed_out(outcome)
                    if self._account(outcome, bar):
                        yield outcome
                if not found and not scheduler.done:
                    # Not wait_for: before Python 3.12 it can lose a cancellation that meets the event.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(max(scheduler.due(monotonic()), 0.001)):
                            await ready.wait()
                elif found:
                    await asyncio.sleep(0)
        finally:
            loop.remove_reader(running.fileno())
            running.close()
            if bar is not None:
                bar.close()

    def _account(self, outcome: Outcome, bar: Any) -> bool:
        """Count an outcome; whether it is for the caller."""
        self.stats.add(outcome)
        if bar is not None:
            bar.update(1)
        if outcome.error is None:
            return True
        if self._on_error == "raise":
            done = self.stats.items - self.stats.failed
            outcome.error.add_note(f"{done} items had succeeded before; the rest was not finished")
            raise outcome.error
        return self._on_error == "return"

    # ---- afterwards -------------------------------------------------------------------

    @property
    def engine(self) -> str:
        """The engine that moves the bytes: "native" or "aiobotocore"."""
        return self.stats.engine

    def _kept(self) -> list[Outcome]:
        if self._outcomes is None:
            raise TypeError("the outcomes are not kept: call wait() (or await) first")
        return self._outcomes

    def __len__(self) -> int:
        return len(self._kept())

    @overload
    def __getitem__(self, index: int) -> Outcome: ...
    @overload
    def __getitem__(self, index: slice) -> list[Outcome]: ...
    def __getitem__(self, index: int | slice) -> Outcome | list[Outcome]:
        return self._kept()[index]

    def __bool__(self) -> bool:
        return True

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the statistics, and each kept outcome without its data."""
        outcomes = [outcome.to_dict() for outcome in self._outcomes or ()]
        return {"stats": self.stats.to_dict(), "outcomes": outcomes}

    def __repr__(self) -> str:
        stats = self.stats
        return (
            f"<BulkResult {stats.operation} by {stats.engine}: {stats.items} items, {stats.failed} failed, "
            f"{_size(stats.bytes)} in {stats.seconds:.2f} s, {_size(stats.speed)}/s, {stats.retries} retries>"
        )

    def _repr_html_(self) -> str:
        stats = self.stats
        rows = [
            ("items", f"{stats.items:,} ({stats.failed:,} failed)"),
            ("bytes", f"{_size(stats.bytes)} in {stats.seconds:.2f} s: <b>{_size(stats.speed)}/s</b>"),
            ("per item", " · ".join(f"p{n} {_time(stats.percentile(n / 100))}" for n in (50, 90, 99))),
            ("requests", f"{stats.requests:,}, at most {stats.concurrency} at once"),
            ("retries", f"{stats.retries:,} ({stats.throttled:,} slowed down, {stats.hedged:,} hedged)"),
            ("verified", f"{_size(stats.verified)} ({stats.verify_failures} differed)"),
            ("engine", escape(stats.engine)),
        ]
        slowest = "".join(
            f"<tr><td>{_time(seconds)}</td><td style='text-align:left'><code>{escape(key)}</code></td></tr>"
            for seconds, key in stats.slowest
        )
        body = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td style='text-align:left'>{value}</td></tr>"
            for name, value in rows
        )
        failed = "".join(
            f"<tr><td style='text-align:left'><code>{escape(outcome.key)}</code></td>"
            f"<td style='text-align:left'>{escape(str(outcome.error))}</td></tr>"
            for outcome in [outcome for outcome in self._outcomes or () if outcome.error is not None][:10]
        )
        return (
            f"<table><caption><b>{escape(stats.operation)}</b></caption>{body}</table>"
            + (f"<details><summary>slowest keys</summary><table>{slowest}</table></details>" if slowest else "")
            + (f"<details open><summary>failed (first 10)</summary><table>{failed}</table></details>" if failed else "")
        )


class _Sorter:
    """Hands outcomes on as they come, or in the order of the items."""

    def __init__(self, ordered: bool) -> None:
        self._ordered = ordered
        self._next = 0
        self._waiting: dict[int, list[Outcome]] = {}

    def sorted(self, outcomes: list[Outcome]) -> Iterator[Outcome]:
        """What may be handed on now."""
        if not self._ordered:
            yield from outcomes
            return
        for outcome in outcomes:
            self._waiting.setdefault(outcome.index, []).append(outcome)
        while self._next in self._waiting:
            # A listing has several outcomes per item: what comes after them waits for the last.
            found = self._waiting.pop(self._next)
            yield from found
            if not found[-1].last:
                return
            self._next += 1


async def _replay(outcomes: list[Outcome]) -> AsyncIterator[Outcome]:
    for outcome in outcomes:
        yield outcome


def _bar(progress: Progress, operation: str) -> Any:
    """Something with ``update(n)`` and ``close()``, or None."""
    if not progress:
        return None
    if callable(progress):
        return _Callback(progress)
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _RichBar(operation)
    return tqdm(desc=operation, unit="obj")


class _Callback:
    def __init__(self, function: Callable[[int], None]) -> None:
        self.update = function

    def close(self) -> None:
        return


class _RichBar:
    def __init__(self, operation: str) -> None:
        from rich.progress import Progress as RichProgress

        self._progress = RichProgress()
        self._progress.start()
        self._task = self._progress.add_task(operation, total=None)

    def update(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def close(self) -> None:
        self._progress.stop()


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
