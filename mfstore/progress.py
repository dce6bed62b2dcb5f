"""How far a long operation is: counted where bytes move, and shown ten times a second at most.

Who counts adds to a queue, without a lock, and where nobody asked for progress there is no meter. Another thread takes
what was counted and shows it, so that what is shown moves while one call of C does all the work.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mfstore.display.amounts import duration, size
from mfstore.records import NamedTuple

T = TypeVar("T")
Progress = bool | Callable[[int], None] | None
"""True shows a bar: in a terminal on stderr, in a notebook below the cell, and elsewhere nothing. A function is called
with what is done since its last call: items of a call that takes many, bytes of one that takes one."""

EVERY = 0.1
"""Seconds between two looks."""
METER: ContextVar[Meter | None] = ContextVar("meter", default=None)
"""What counts for the operation of this thread; None: nobody asked."""


class State(NamedTuple):
    """How far an operation is."""

    label: str
    """Empty: there is nothing to say any more."""
    items: int | None
    """None: it is one thing."""
    of_items: int | None
    """None: nobody knows."""
    moved: int | None
    """Bytes; None: it moves none."""
    of_bytes: int | None
    seconds: float
    """Since it began."""


NOTHING = State("", None, None, None, None, 0.0)


def fraction(state: State) -> float | None:
    """How much of it is done, 0 to 1, as far as anybody knows: by bytes, else by items."""
    for done, total in ((state.moved, state.of_bytes), (state.items, state.of_items)):
        if done is not None and total:
            return min(1.0, done / total)
    return None


def words(state: State) -> str:
    """The numbers beside the bar."""
    parts = []
    if state.items is not None:
        parts.append(f"{state.items:,}" if state.of_items is None else f"{state.items:,}/{state.of_items:,}")
    # What lies in recipes is not counted: "0 B" beside a thousand small objects would be wrong.
    if state.moved is not None and (state.moved or state.of_bytes is not None):
        parts.append(size(state.moved) if state.of_bytes is None else f"{size(state.moved)} of {size(state.of_bytes)}")
        if state.seconds >= EVERY and state.moved:
            parts.append(f"{size(state.moved / state.seconds)}/s")
    parts.append(duration(state.seconds))
    return " · ".join(parts)


class Meter:
    """Counts items and bytes. ``moved`` may be called from any thread, ``item`` from one."""

    def __init__(
        self, label: str, *, items: bool = False, of_items: int | None = None, of_bytes: int | None = None,
        source: Callable[[], int] | None = None, bytes_move: bool = True,
    ) -> None:  # fmt: skip
        self._label = label
        self._items = 0 if items else None
        self._of_items = of_items
        self._of_bytes = of_bytes
        self._source = source
        """What counts the bytes elsewhere."""
        self._bytes = 0 if bytes_move else None
        self._shown = 0
        self._begun = time.monotonic()
        self._waiting: deque[int] = deque()
        self.moved: Callable[[int], None] = self._waiting.append
        """Count bytes."""
        self._lock = threading.Lock()
        """Guards what travels."""
        self._travelling = 0
        self._encoded = 0
        self._sources: list[Callable[[], int]] = []

    def item(self, count: int = 1) -> None:
        """Count items that are done."""
        self._items = (self._items or 0) + count

    def expect(self, count: int) -> None:
        """So many bytes are going to move, beside those that were expected. Of many items nobody knows it of all."""
        if self._items is None:
            self._of_bytes = (self._of_bytes or 0) + count

    def carry(self, count: int, encoded: int) -> None:
        """So many bytes are about to be sent, or asked for, as so many encoded ones. They count as these flow."""
        with self._lock:
            self._travelling += count
            self._encoded += encoded

    def watch(self, flowed: Callable[[], int]) -> None:
        """Some of what ``carry`` told of is under way. ``flowed`` tells how many encoded bytes have flowed so far; the
        thread that looks calls it. A request that is made anew may take back what it had told."""
        with self._lock:
            self._sources.append(flowed)

    def settle(self) -> None:
        """All that ``carry`` told of is there."""
        with self._lock:
            self.moved(self._travelling)
            self._travelling = self._encoded = 0
            self._sources.clear()

    def state(self) -> State:
        """How far it is. From one thread at a time. Bytes never become fewer."""
        moved = None
        if self._bytes is not None:
            with self._lock:
                while self._waiting:
                    self._bytes += self._waiting.popleft()
                moved = self._bytes
                if self._encoded:
                    flowed = sum(source() for source in self._sources)
                    moved += self._travelling * min(flowed, self._encoded) // self._encoded
            if self._source is not None:
                moved = self._source()
            if self._of_bytes is not None:
                moved = min(moved, self._of_bytes)  # what deltas build upon is read too
            self._shown = moved = max(moved, self._shown)
        seconds = time.monotonic() - self._begun
        return State(self._label, self._items, self._of_items, moved, self._of_bytes, seconds)

    def finish(self) -> None:
        """All is done: what did not have to move, as it was stored already or is mapped, counts as if it had."""
        self.settle()
        if self._bytes is not None and self._of_bytes is not None:
            self._waiting.append(max(0, self._of_bytes - (self.state().moved or 0)))


class Display(Protocol):
    """Where it is shown."""

    def show(self, state: State) -> None:
        """Show this, and nothing of before."""

    def close(self, state: State, done: bool) -> None:
        """Show the last. Not ``done``: the operation failed, or was left."""


class Told:
    """A function that is told what is done since it was called last: of ``State.items``, or of ``State.moved``."""

    def __init__(self, function: Callable[[int], None]) -> None:
        self._function = function
        self._told = 0
        self._failed: Exception | None = None

    def show(self, state: State) -> None:
        """Tell it. After it has raised something, nothing is told any more."""
        done = (state.moved if state.items is None else state.items) or 0
        if done <= self._told or self._failed is not None:
            return
        try:
            self._function(done - self._told)
        except Exception as error:
            self._failed = error
        self._told = done

    def close(self, state: State, done: bool) -> None:
        """What it has raised is raised here, unless something else is on its way."""
        self.show(state)
        if done and self._failed is not None:
            raise self._failed


class Terminal:
    """A bar on stderr, by rich; nothing while something else of rich is shown, where that can show one thing only."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.errors import LiveError
        from rich.live import Live

        # What is printed meanwhile goes above the bar where both are seen, and else where stdout goes.
        above = sys.stdout is not None and sys.stdout.isatty()
        self._live: Live | None = Live(console=Console(stderr=True), auto_refresh=False, redirect_stdout=above)
        try:
            self._live.start()
        except LiveError:
            self._live = None

    def show(self, state: State) -> None:
        """Draw it."""
        from rich.progress_bar import ProgressBar

        part = fraction(state)
        self._draw(state, ProgressBar(total=1.0, completed=part or 0.0, width=30, pulse=part is None))

    def close(self, state: State, done: bool) -> None:
        """The last stays, if there is something to say; what has no end that is known has no bar any more."""
        if self._live is not None:
            self._live.transient = not state.label
            if not state.label:
                self._live.update("")
            elif done and fraction(state) is None:
                self._draw(state, "")
            else:
                self.show(state)
            self._live.stop()

    def _draw(self, state: State, bar: Any) -> None:
        from rich.table import Table
        from rich.text import Text

        if self._live is not None:
            row = Table.grid(padding=(0, 1))
            row.add_row(Text(state.label), bar, Text(words(state)))
            self._live.update(row, refresh=True)


class Notebook:
    """A bar below a cell: HTML without a script, replaced as it goes on."""

    def __init__(self) -> None:
        from importlib import import_module

        shown: Any = import_module("IPython.display")  # which is there in a notebook
        self._html = shown.HTML
        self._handle = shown.display(self._html(""), display_id=True)

    def show(self, state: State) -> None:
        """Draw it."""
        part = fraction(state)
        self._draw(state, "<progress></progress>" if part is None else f'<progress value="{part:.4f}"></progress>')

    def close(self, state: State, done: bool) -> None:
        """The last stays, if there is something to say; what has no end that is known has no bar any more."""
        if not state.label:
            self._handle.update(self._html(""))
            return
        self._draw(state, "") if done and fraction(state) is None else self.show(state)

    def _draw(self, state: State, bar: str) -> None:
        from html import escape

        text = f"{escape(state.label)} {bar} {escape(words(state))}"
        self._handle.update(self._html(f'<div style="font-variant-numeric: tabular-nums">{text}</div>'))


HIDDEN: ContextVar[bool] = ContextVar("HIDDEN", default=False)
"""Whether progress that is asked for by True is not shown: of a command line that is to be quiet."""


def display_of(progress: Progress) -> Display | None:
    """Where progress is shown that was asked for so; None: nowhere. ValueError for what can be no answer."""
    if progress is None or progress is False:
        return None
    if callable(progress):
        return Told(progress)
    if progress is not True:
        raise ValueError(f"progress must be a bool or a function, not {progress!r}")
    if HIDDEN.get():
        return None
    if _in_notebook():
        return Notebook()
    return Terminal() if sys.stderr is not None and sys.stderr.isatty() else None


def _in_notebook() -> bool:
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


@contextmanager
def drawn(meter: Meter | Steps, display: Display) -> Iterator[None]:
    """Show what a meter counts, or how far steps are, until this is left."""
    over = threading.Event()

    def draw() -> None:
        while not over.wait(EVERY):
            display.show(meter.state())

    # In the context of who calls: a kernel finds by it below which cell something is shown.
    thread = threading.Thread(target=copy_context().run, args=(draw,), name="mfstore-progress", daemon=True)
    thread.start()
    done = False
    try:
        yield
        done = True
    finally:
        over.set()
        thread.join()
        if done:
            meter.finish()
        display.close(meter.state(), done)


@contextmanager
def shown(
    progress: Progress, label: str, of_bytes: int | None = None, *, items: bool = False, of_items: int | None = None
) -> Iterator[Callable[[int], None] | None]:  # fmt: skip
    """Show how many bytes an operation moves, in this thread and those that it has at work. With ``items`` also how
    many items are done, which it tells to what this gives: a function that was given, in its own thread."""
    display = None if items and callable(progress) else display_of(progress)
    if display is None:
        yield progress if callable(progress) else None
        return
    meter = Meter(label, items=items, of_items=of_items, of_bytes=of_bytes)
    with drawn(meter, display):
        before = METER.set(meter)
        try:
            yield meter.item
        finally:
            METER.reset(before)


def counted(
    progress: Progress, label: str, things: object, each: Callable[[Callable[[int], None] | None], Iterator[T]],
    bytes_move: bool = True,
) -> Iterator[T]:  # fmt: skip
    """What ``each`` gives, an operation on many ``things`` that takes what it tells of each item. True: shown with its
    bytes. A function is told in the thread that iterates, and what it raises ends the iteration."""
    display = None if callable(progress) else display_of(progress)
    if display is None:
        yield from each(progress if callable(progress) else None)
        return
    meter = Meter(label, items=True, of_items=length_of(things), bytes_move=bytes_move)
    found = each(meter.item)
    end: Any = object()
    with drawn(meter, display), ExitStack() as closing:
        closing.callback(getattr(found, "close", int))
        while True:
            # Set only while the operation runs: between two items this is its user's thread.
            before = METER.set(meter)
            try:
                item = next(found, end)
            finally:
                METER.reset(before)
            if item is end:
                return
            yield item


class Step(Protocol):
    """How far verify or repair is."""

    @property
    def phase(self) -> str:
        """What is being done."""

    @property
    def done(self) -> int:
        """Objects, or bytes in the phase ``data``."""

    @property
    def total(self) -> int:
        """Of the same unit."""


class Steps:
    """How far an operation is that goes in steps: who does them says so now and then. Its report says what there was:
    nothing of this stays to be seen."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._last = NOTHING
        self._done: dict[str, int] = {}

    def reach(self, step: Step) -> None:
        """It is there. Not from two threads at once."""
        if step.phase == "data":
            self._last = State(step.phase, None, None, step.done, step.total, 0.0)
        else:
            self._last = State(step.phase, step.done, step.total or None, None, None, 0.0)

    def count(self, what: str, more: int) -> None:
        """So many objects more are done of it. Not from two threads at once."""
        self._done[what] = done = self._done.get(what, 0) + more
        self._last = State(what, done, None, None, None, 0.0)

    def state(self) -> State:
        """How far it is."""
        return self._last._replace(seconds=time.monotonic() - self._begun)

    def finish(self) -> None:
        """All is done."""
        self._last = NOTHING


@contextmanager
def phases(progress: bool | Callable[[Any], None] | None) -> Iterator[Callable[[Any], None] | None]:
    """What is to be told of the phases of an operation, each a ``Step``; None: nothing. True: each is shown."""
    steps = Steps()
    with _told_or_drawn(progress, steps, steps.reach) as tell:
        yield tell


@contextmanager
def counts(progress: bool | Callable[[str, int], None] | None) -> Iterator[Callable[[str, int], None] | None]:
    """As ``phases``, of an operation that tells what is being done and how many objects more of it are."""
    steps = Steps()
    with _told_or_drawn(progress, steps, steps.count) as tell:
        yield tell


@contextmanager
def _told_or_drawn(
    progress: bool | Callable[..., None] | None, steps: Steps, shown: Callable[..., None]
) -> Iterator[Callable[..., None] | None]:
    """Whom to tell: the caller's function, or what is ``shown`` by ``steps``, or None: nobody."""
    if callable(progress):
        yield progress
        return
    display = display_of(progress)
    if display is None:
        yield None
        return
    with drawn(steps, display):
        yield shown


def length_of(things: object) -> int | None:
    """How many things there are; None: only who iterates over them will know."""
    return len(things) if hasattr(type(things), "__len__") else None  # type: ignore[arg-type]


def bytes_of_file(path: str | os.PathLike[str]) -> int | None:
    """How long a file is; None: it is no ordinary one, or is not there."""
    with suppress(OSError):
        found = Path(path).stat()
        if stat.S_ISREG(found.st_mode):
            return found.st_size
    return None
