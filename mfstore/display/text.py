"""Cards as text, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfstore.display.words import one_line, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mfstore.display.cards import Card, Cell, Grid

LINES = 10
"""Lines that a card takes at most."""
LONGEST_LINE = 100
"""Letters; what is longer ends with an ellipsis."""


def text_of(card: Card) -> str:
    """A card in at most ``LINES`` lines: its heading, its facts, its tables as far as there is room, its notes."""
    heading = " ".join(one_line(part) for part in (card.kind, card.name) if part)
    facts = _aligned([(cell_text(name), cell_text(value)) for name, value in card.facts])
    notes = [one_line(note) for note in card.notes]
    room = LINES - 1 - len(notes[: LINES // 2])
    lines = _cut(facts, room)
    for grid in card.grids:
        left = room - len(lines)
        if left > 1:
            lines += _grid_lines(grid, left)
    lines += _cut(notes, LINES // 2)
    return "\n".join([heading, *(f"  {shortened(line, LONGEST_LINE)}".rstrip() for line in lines)])


def cell_text(cell: Cell | str) -> str:
    """A cell as text. Of what has a longer form in text alone, that."""
    return one_line(cell if isinstance(cell, str) else cell.alone or cell.text)


def _grid_lines(grid: Grid, room: int) -> list[str]:
    """Its head, its rows, and a line on what is left out."""
    head = [[one_line(name) for name in grid.columns]] if any(grid.columns) else []
    rows: list[Sequence[str]] = [[one_line(c if isinstance(c, str) else c.text) for c in row] for row in grid.rows]
    shown = rows[: room - len(head)]
    left_out = len(rows) - len(shown) + grid.more
    if left_out and len(head) + len(shown) == room:
        shown.pop()
        left_out += 1
    lines = _aligned([*head, *shown], grid.right)
    return [*lines, f"and {left_out:,} more"] if left_out else lines


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cut(lines: Sequence[str], room: int) -> list[str]:
    if len(lines) <= room:
        return [*lines]
    return [*lines[: room - 1], f"and {len(lines) - room + 1:,} more"]
