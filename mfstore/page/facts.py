"""What a page tells, as it was read: values alone, of which ``document`` makes what the page holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Kind = Literal["store", "root", "task"]


class Part(NamedTuple):
    """One artifact of what is stored under a key."""

    name: str
    """Empty where it is the only one, and has no name."""
    type: str
    """Its Python type."""
    size: int | None
    """Bytes of it as a stream, in a root those that its blob takes. None: not known."""
    mark: str | bytes
    """Equal for equal content."""


class Content(NamedTuple):
    """What is stored under a key; below a root, what a task stored."""

    kind: str
    """``artifact``, ``bundle`` or ``task``."""
    size: int | None = None
    """Bytes of all of its artifacts."""
    stored: int | None = None
    """Bytes that its chunks and its recipe take, whether or not others share them."""
    created: float | None = None
    creator: str = ""
    note: str = ""
    """As JSON; empty: none."""
    parts: tuple[Part, ...] = ()
    trouble: str = ""
    """Why nothing is known of it."""


class Value(NamedTuple):
    """A value that a ref has or had; below a root, a task of a step."""

    label: str
    """``@2`` of the ref; of a task ``run/task``."""
    key: str
    """By which its content is found in ``Facts.contents``."""
    time: float | None
    """When it was set, in seconds since the epoch."""
    note: str = ""
    """As JSON; empty: none."""
    fresh: int | None = None
    """Bytes of chunks that the value before it does not have. None: not known, or it is the first."""


class Entry(NamedTuple):
    """A ref; below a root, a step of a flow."""

    name: str
    values: tuple[Value, ...] = ()
    """The newest first."""
    total: int = 0
    """How many values there are, also those that are left out."""
    trouble: str = ""
    """Why none are known."""


class Space(NamedTuple):
    """Who holds how many bytes, as ``du --by`` says."""

    by: str
    groups: tuple[tuple[str, int, int], ...]
    """Name, own and shared bytes; the largest first."""
    own: int
    shared: int
    unheld: int


class Compared(NamedTuple):
    """How a value differs inside from the one before it."""

    name: str
    old: str
    """Labels of the two."""
    new: str
    summary: str
    lines: tuple[tuple[str, ...], ...] = ()
    """Mark, part, what it was, what it is."""
    more: int = 0
    """Lines that are left out."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a page tells."""

    kind: Kind
    place: str
    """As the caller called it."""
    title: str
    made: float
    """When it was read, in seconds since the epoch."""
    version: str
    """Of mfstore."""
    amounts: tuple[tuple[str, int, bool], ...] = ()
    """Numbers of the whole: what is counted, how many, and whether these are bytes."""
    entries: tuple[Entry, ...] = ()
    contents: dict[str, Content] = field(default_factory=dict)
    spaces: tuple[Space, ...] = ()
    growth: tuple[tuple[str, int, int], ...] = ()
    """Day (UTC), and bytes and objects that were stored on it and are there, in order."""
    compared: tuple[Compared, ...] = ()
    troubles: tuple[str, ...] = ()
    """What could not be read."""
    notes: tuple[str, ...] = ()
    """What is left out, and which command shows it."""
