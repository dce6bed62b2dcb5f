"""What a view shows to people: the names, types, shapes and sizes of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mfstore.display.amounts import size
from mfstore.display.cards import Card, Cell, Grid, code_cell

if TYPE_CHECKING:
    from mfstore.views.data import PartSummary

SHOWN = 20
"""Parts that are listed."""


def card_of(
    name: str, kind: str, shape: tuple[int | None, ...] | None, nbytes: int, parts: Sequence[PartSummary],
    notes: tuple[str, ...] = (), value: str = "", of: str = "part", more: int = 0,
) -> Card:  # fmt: skip
    """The card of a view, from what is known without reading anything. There are ``more`` parts than these."""
    facts: list[tuple[str, Cell | str]] = [("type", code_cell(kind))]
    if shape is not None:
        facts.append(("shape", Cell(shape_text(shape), look="number")))
    if value:
        facts.append(("value", value))
    if nbytes or not value:
        facts.append(("data", Cell(size(nbytes), f"{nbytes:,} bytes", "number")))
    grids: tuple[Grid, ...] = ()
    if parts:
        grids = (_grid(parts, of, more),)
    return Card("view", name, tuple(facts), grids, notes)


def _grid(parts: Sequence[PartSummary], of: str, more: int) -> Grid:
    """A row for each part; of what none of them has, no column."""
    rows = [_row(part) for part in parts[:SHOWN]]
    used = [at for at in range(4) if any(row[at] for row in rows)]
    told = tuple(tuple(row[at] for at in used) for row in rows)
    heads = (of, "type", "shape", "data")
    right = (used.index(3),) if 3 in used else ()
    return Grid(tuple(heads[at] for at in used), told, right, max(0, len(parts) - SHOWN) + more)


def _row(part: PartSummary) -> tuple[Cell | str, ...]:
    shape = shape_text(part.shape) if part.shape is not None else ""
    data = Cell(size(part.nbytes), f"{part.nbytes:,} bytes", "number") if part.nbytes else ""
    return code_cell(str(part.name)), code_cell(part.type) if part.type else "", part.value or shape, data


def shape_text(shape: tuple[int | None, ...]) -> str:
    """Lengths of axes as people write them; ``?`` for what is not known."""
    return " \N{MULTIPLICATION SIGN} ".join("?" if length is None else f"{length:,}" for length in shape) or "one value"
