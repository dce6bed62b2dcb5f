"""Cards for notebooks.

No script, nothing from elsewhere, and no colour of the page's own: the text has the colour of what is around it, and
lines and shades are grey with alpha, so that it reads in any theme, whatever the system prefers. JupyterLab's own rules
for tables are as strong as one class and two elements; the class that stands twice here wins against them.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from mfstore.display.cards import Cell
from mfstore.display.words import one_line, printable, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mfstore.display.cards import Card, Grid

_RULES = """
& { color: inherit; font-size: 13px; line-height: 1.45; max-width: 60em; margin: .25em 0; overflow-x: auto }
& .mfs-head { margin: 0 0 .35em; overflow-wrap: anywhere }
& .mfs-kind { opacity: .75; margin-right: .5em }
& table { table-layout: auto; border-collapse: collapse; border: 0; margin: .3em 0; font-size: inherit; color: inherit }
& tr:nth-child(n) { background: transparent }
& tbody tr:hover { background: rgba(128,128,128,.12) }
& th, & td { text-align: left; vertical-align: baseline; padding: .12em 1em .12em 0; border: 0; color: inherit }
& th, & td { font-weight: normal; white-space: normal; overflow-wrap: anywhere; max-width: 44em }
& td.mfs-long { min-width: 5em }
& th:last-child, & td:last-child { padding-right: 0 }
& thead th { border-bottom: 1px solid rgba(128,128,128,.4); opacity: .75; overflow-wrap: normal }
& tbody th { opacity: .75; white-space: nowrap }
& th.mfs-right, & td.mfs-right { text-align: right }
& .mfs-code, & .mfs-key { font-family: var(--jp-code-font-family, ui-monospace, Menlo, Consolas, monospace) }
& .mfs-code, & .mfs-key { font-size: .95em; background: none; color: inherit; padding: 0 }
& .mfs-key, & .mfs-number { white-space: nowrap; font-variant-numeric: tabular-nums }
& .mfs-bad { color: var(--jp-error-color1, #d9453d); font-weight: 600 }
& .mfs-good { color: var(--jp-success-color1, #2e9e55); font-weight: 600 }
& .mfs-quiet, & .mfs-note { opacity: .75 }
& .mfs-note { margin: .3em 0 0; overflow-wrap: anywhere }
"""
STYLE = _RULES.replace("&", ".mfstore-card.mfstore-card").replace("\n", "")
"""Said once in each output: a notebook shows them apart."""
LONGEST = 1000
"""Letters of a name, or of anything else that is told; what is longer ends with an ellipsis."""
UNBROKEN = 16
"""Letters of a cell that stay in one line, however narrow the page is."""
_LOOKS = ("key", "code", "number", "good", "bad", "quiet")
_ELEMENTS = {"key": "code", "code": "code"}


def html_of(card: Card) -> str:
    """A card as HTML. Everything in it is escaped."""
    name = f'<b class="mfs-code">{_text(card.name)}</b>' if card.name else ""
    parts = [f'<div class="mfs-head"><span class="mfs-kind">{_text(card.kind)}</span>{name}</div>']
    if card.facts:
        rows = (f'<tr><th scope="row">{_text(name)}</th>{_cell(value)}</tr>' for name, value in card.facts)
        parts.append(f"<table><tbody>{''.join(rows)}</tbody></table>")
    parts += [_grid(grid) for grid in card.grids]
    parts += [f'<div class="mfs-note">{_text(note)}</div>' for note in card.notes]
    return f'<div class="mfstore-card"><style>{STYLE}</style>{"".join(parts)}</div>'


def _grid(grid: Grid) -> str:
    head = ""
    if any(grid.columns):
        cells = (f'<th scope="col"{_side(grid, n)}>{_text(name)}</th>' for n, name in enumerate(grid.columns))
        head = f"<thead><tr>{''.join(cells)}</tr></thead>"
    rows = (f"<tr>{''.join(_cells(grid, row))}</tr>" for row in grid.rows)
    more = f'<div class="mfs-note">and {grid.more:,} more</div>' if grid.more else ""
    return f"<table>{head}<tbody>{''.join(rows)}</tbody></table>{more}"


def _cells(grid: Grid, row: Iterable[Cell | str]) -> Iterable[str]:
    return (_cell(cell, _side(grid, number)) for number, cell in enumerate(row))


def _side(grid: Grid, column: int) -> str:
    return ' class="mfs-right"' if column in grid.right else ""


def _cell(cell: Cell | str, side: str = "") -> str:
    if isinstance(cell, str):
        return _cell(Cell(cell), side)
    title = f' title="{escape(one_line(shortened(cell.title, LONGEST)), quote=True)}"' if cell.title else ""
    names = [f"mfs-{cell.look}"] if cell.look in _LOOKS else []
    if len(cell.text) <= UNBROKEN:
        names.append("mfs-number")
    elif not side:
        side = ' class="mfs-long"'
    look = f' class="{" ".join(names)}"' if names else ""
    if not (title or look):
        return f"<td{side}>{_text(cell.text)}</td>"
    element = _ELEMENTS.get(cell.look, "span")
    return f"<td{side}><{element}{look}{title}>{_text(cell.text)}</{element}></td>"


def _text(text: str) -> str:
    return escape(printable(shortened(text, LONGEST)), quote=True)
