"""What a comparison found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mfstore.display.amounts import count, size
from mfstore.display.cards import Card, Cell, Grid, code_cell
from mfstore.display.shown import Shown
from mfstore.display.words import one_line, short_keys
from mfstore.records import NamedTuple, dataclass

if TYPE_CHECKING:
    from mfstore.format.digests import Key

ADDED = "added"
REMOVED = "removed"
CHANGED = "changed"
MARKS = {ADDED: "+", REMOVED: "-", CHANGED: "~"}
OTHERWISE = "differs"
"""What is told of a side of which no more is known than of the other one, and not how much changed."""
LINES_TOLD = 50
"""Differences that the text of a report, and its table in a notebook, tell of."""


class Side(NamedTuple):
    """A part, on one of the two sides."""

    type: str
    """Name of its type, with the module."""
    dtype: str = ""
    """Of arrays and columns: the type of their elements; else ""."""
    shape: tuple[int | None, ...] | None = None
    """Lengths of its axes; None in it for one that is not known, and None for what has none."""
    nbytes: int = 0
    """Bytes of its data; 0 for values that lie among Python's objects."""
    value: str = ""
    """The value itself, as Python writes it, where that is short; else ""."""

    @property
    def short_type(self) -> str:
        """Name of its type without the module."""
        return self.type.rpartition(".")[2]

    @property
    def text(self) -> str:
        """In a few words: the value, or type, shape and size."""
        if self.value:
            return self.value
        kind = self.dtype or self.short_type
        if self.shape is not None:
            kind += f"[{' x '.join('?' if length is None else f'{length:,}' for length in self.shape)}]"
        return f"{kind} {size(self.nbytes)}" if self.nbytes else kind


@dataclass(frozen=True, slots=True)
class Difference:
    """One part that differs."""

    path: tuple[str | int, ...]
    """Where it is: names of artifacts, columns and attributes, keys of dicts, and positions in lists. Keys of other
    types than str and int are as Python writes them. Empty for all that was compared."""
    change: str
    """"added", "removed" or "changed"."""
    old: Side | None
    """What it was; None where it was added."""
    new: Side | None
    """What it is; None where it was removed."""
    rows: int | None = None
    """How many rows, or items, changed, compared position by position; those that only one side has are not counted.
    None where rows are not compared."""
    nbytes: int | None = None
    """Bytes that differ: of an array those of the elements that changed and of the rows that only one side has, of
    texts and bytes those between what begins and what ends alike, of what only one side has all. None where that is
    not known."""

    @property
    def where(self) -> str:
        """The path in one line."""
        return "/".join(one_line(str(part)).replace("/", "\\/") for part in self.path) or "."

    @property
    def texts(self) -> tuple[str, str]:
        """What it was and what it is, in a few words each. Where no more is known of the one than of the other, it is
        what changed."""
        old, new = (side.text if side else "" for side in (self.old, self.new))
        if self.old and self.new and old == new and self.old.type != self.new.type:
            return f"{self.old.short_type} of {old}", f"{self.new.short_type} of {new}"
        if old == new:
            return old, self.what or OTHERWISE
        return old, ", ".join(part for part in (new, self.what) if part)

    @property
    def what(self) -> str:
        """What has changed, in a few words."""
        old, new = self.old, self.new
        if old is None or new is None:
            return ""
        if (old.value and new.value) or (old.type, old.dtype) != (new.type, new.dtype):
            return ""  # two values, or two types, say it all
        told = []
        if self.rows:
            total = f" of {old.shape[0]:,}" if old.shape and old.shape[0] is not None else ""
            told.append(f"{self.rows:,}{total} {'items' if old.type in ('list', 'tuple') else 'rows'}")
        if self.nbytes:
            told.append(size(self.nbytes))
        return f"{', '.join(told)} changed" if told else ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it."""
        sides = {
            name: None if side is None else {**side._asdict(), "shape": list(side.shape) if side.shape else None}
            for name, side in (("old", self.old), ("new", self.new))
        }
        return {"path": list(self.path), "change": self.change, **sides, "rows": self.rows, "nbytes": self.nbytes}


@dataclass(frozen=True, slots=True, repr=False)
class Diff(Shown):
    """What differs between two things that are stored. True when there is something; iterating gives ``entries``.

    As text it says everything in a table; ``to_dict`` says it as JSON can.
    """

    old: str
    """What was compared, as it was asked for."""
    new: str
    """What it was compared with."""
    old_key: Key
    new_key: Key
    entries: tuple[Difference, ...]
    """What differs, in the order of the old side."""
    same: int
    """Parts that are the same: values, arrays and columns. Artifacts that are the same count as one each."""

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Difference]:
        return iter(self.entries)

    def of(self, change: str) -> tuple[Difference, ...]:
        """Those that are "added", "removed" or "changed"."""
        return tuple(entry for entry in self.entries if entry.change == change)

    @property
    def nbytes(self) -> int:
        """Bytes that differ, as far as they are known."""
        return sum(entry.nbytes or 0 for entry in self.entries)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it."""
        return {
            "old": {"name": self.old, "key": str(self.old_key)},
            "new": {"name": self.new, "key": str(self.new_key)},
            "same": self.same,
            "entries": [entry.to_dict() for entry in self.entries],
        }

    @property
    def summary(self) -> str:
        """How much differs, in one line."""
        if self.old_key == self.new_key:
            return "the same key"
        counts = [(len(self.of(change)), change) for change in (CHANGED, ADDED, REMOVED)]
        told = [f"{number:,} {change}" for number, change in counts if number]
        told.append(f"{count(self.same, 'part')} the same")
        return ", ".join(told if self.entries else ["nothing differs but how it is stored"])

    def lines(self) -> list[tuple[str, ...]]:
        """A line for each difference: its mark, where it is, what it was, and what it is."""
        return [(MARKS[entry.change], entry.where, *entry.texts) for entry in self.entries]

    def __str__(self) -> str:
        head = f"{one_line(self.old)} → {one_line(self.new)}: {self.summary}"
        rows = [tuple(map(one_line, line)) for line in self.lines()[:LINES_TOLD]]
        widths = [max(len(row[column]) for row in rows) for column in range(4)] if rows else []
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        if len(self.entries) > len(rows):
            lines.append(f"and {len(self.entries) - len(rows):,} more")
        return "\n".join([head, *(f"  {line}" for line in lines)])

    def _card(self) -> Card:
        lines = self.lines()
        rows = tuple(
            (Cell(mark, look={"+": "good", "-": "bad"}.get(mark, "quiet")), code_cell(where), old, new)
            for mark, where, old, new in lines[:LINES_TOLD]
        )
        grids = (Grid(("", "part", "was", "is"), rows, more=len(lines) - len(rows)),) if rows else ()
        return Card("Diff", short_keys(f"{self.old} → {self.new}"), grids=grids, notes=(self.summary,))
