"""What several measurements of the same say together. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from statistics import median

from mfstore.bench.intervals import METHOD, interval
from mfstore.bench.results import Cell, Repeats


def together(cells: Iterable[Cell]) -> list[Cell]:
    """One cell for all repetitions of one measurement: the one whose rate is the median (of two in the middle the
    slower), so that its figures belong together, with the rates of all and the interval of their mean. A measurement
    that was made once stays as it is."""
    found: dict[tuple[int, str, str], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.number, cell.operation, cell.engine), []).append(cell)
    return [_together(cells) if len(cells) > 1 else cells[0] for cells in found.values()]


def _together(cells: list[Cell]) -> Cell:
    rates = [cell.objects_per_second for cell in cells]
    middle = sorted(cells, key=lambda cell: cell.objects_per_second)[(len(cells) - 1) // 2]
    sure = interval(rates)
    repeats = Repeats(
        tuple(rates), median(rates), None if sure is None else sure.mean, None if sure is None else sure.low,
        None if sure is None else sure.high, METHOD, sum(cell.objects for cell in cells),
        sum(cell.failed for cell in cells), sum(cell.missed for cell in cells),
    )  # fmt: skip
    errors = tuple(dict.fromkeys(error for cell in cells for error in cell.errors))[:3]
    return replace(middle, repeats=repeats, errors=errors)
