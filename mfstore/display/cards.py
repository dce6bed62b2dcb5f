"""What is shown of a value, before it becomes text or HTML: a heading, facts, tables and notes."""

from __future__ import annotations

from mfstore.display.amounts import age, date, exact_date
from mfstore.display.words import one_line, short_key
from mfstore.records import NamedTuple


class Cell(NamedTuple):
    """One value in a card. Whatever is in it is shown as it is: nothing in it is markup."""

    text: str
    title: str = ""
    """What is told when the pointer rests on it: a whole key, an exact date."""
    look: str = ""
    """``key`` and ``code``: as a program writes it; ``number``: never broken; ``good`` and ``bad``; ``quiet``."""
    alone: str = ""
    """What stands for it where there is no pointer and room for more: in the facts of a text."""


class Grid(NamedTuple):
    """A table."""

    columns: tuple[str, ...]
    """Headings; all empty: there is no head."""
    rows: tuple[tuple[Cell | str, ...], ...]
    right: tuple[int, ...] = ()
    """Columns of numbers."""
    more: int = 0
    """How many rows are left out."""


class Card(NamedTuple):
    """What is shown of one value."""

    kind: str
    """What it is, in a word or two."""
    name: str = ""
    """Which one: a URL, a key, a name."""
    facts: tuple[tuple[str, Cell | str], ...] = ()
    grids: tuple[Grid, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences."""


def key_cell(key: str) -> Cell:
    """A key by its first digits."""
    return Cell(short_key(key), key, "key", key)


def code_cell(text: str, title: str = "") -> Cell:
    """Something that a program reads: a name, a type, a version."""
    return Cell(one_line(text), title, "code")


def age_cell(moment: float, now: float | None = None) -> Cell:
    """How long ago a time was, with the date."""
    told = age(moment, now)
    return Cell(told, exact_date(moment), "number", f"{told} ({date(moment)})")
