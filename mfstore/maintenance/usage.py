"""Who holds how many bytes, as it is told to people and programs."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mfstore.display.amounts import count, share, size
from mfstore.display.cards import Card, Cell, Grid, code_cell
from mfstore.display.shown import Shown
from mfstore.errors import InvalidKey, MfstoreError
from mfstore.maintenance.holders import Label, LabelTotal, Totals

Order = Literal["own", "shared", "all", "name"]
MONTH = "month"
CLASS = "class"
APART = (MONTH, CLASS)
"""What objects themselves say, so that each is of one group, and a listing suffices."""
GIB = 1 << 30
"""What a gigabyte is on a bill of S3."""
Price = float | Mapping[str, float]
"""What a GiB costs a month; or of each storage class, and of the others under no name."""
SHOWN_GROUPS = 50
"""Groups that a notebook lists."""


@dataclass(frozen=True, slots=True)
class UsageGroup:
    """What one flow, run, user, ref or the like holds. Sizes in bytes."""

    name: str | None
    """None: of what has none (runs without tags), or of which it is not known."""
    unknown: bool
    """With None: nothing tells it."""
    own: int
    """What only this group holds: it would go if only this did."""
    shared: int
    """What others hold as well: it would stay."""

    @property
    def all(self) -> int:
        """All that the group holds."""
        return self.own + self.shared


@dataclass(frozen=True, slots=True, repr=False)
class Usage(Shown):
    """Who holds what in a store, or below a root of Metaflow. Sizes in bytes. ``own``, ``shared`` and ``unheld`` are
    apart from each other, and together all that is stored."""

    url: str
    by: str
    """What groups are: ``ref``, ``user``, ``run`` and so on."""
    groups: tuple[UsageGroup, ...]
    """The largest first by what only they hold; months in their order."""
    own: int
    """What only one group holds. Where a holder is in several, as a run with several tags is, once."""
    shared: int
    """What several groups hold; once."""
    unheld: int
    """What none holds: packs' dead parts and descriptions, indexes, what waits to be collected."""
    notes: tuple[str, ...] = ()
    """What is not known, and why, in sentences."""

    @property
    def total(self) -> int:
        """All that is stored."""
        return self.own + self.shared + self.unheld

    def sorted(self, order: Order = "own") -> list[UsageGroup]:
        """The groups in another order: by name, or the largest first by what they hold alone, with others, in all."""
        if order == "name":
            return sorted(self.groups, key=lambda group: (group.name is None, group.name or "", group.unknown))
        return sorted(self.groups, key=lambda group: (-getattr(group, order), group.name is None, group.name or ""))

    def name_of(self, group: UsageGroup) -> str:
        """What people call a group."""
        if group.name is not None:
            return group.name
        return f"(unknown {self.by})" if group.unknown else f"(no {self.by})"

    def cost(self, price: Price) -> float:
        """What all of it costs a month."""
        if isinstance(price, Mapping):
            return sum(monthly(group.own, group, price) for group in self.groups)
        return self.total / GIB * price

    def csv(self, groups: Sequence[UsageGroup] | None = None, price: Price | None = None) -> str:
        """As CSV, these groups or all, a line each after the head. ``price``: what a GiB costs a month."""
        of_costs = () if price is None else ("own_cost", "shared_cost")
        rows: list[tuple[object, ...]] = [(self.by, "own", "shared", *of_costs)]
        for group in self.groups if groups is None else groups:
            name = self.name_of(group) if group.name is None else group.name
            costs = () if price is None else (monthly(group.own, group, price), monthly(group.shared, group, price))
            rows.append((name, group.own, group.shared, *costs))
        return "".join(map(_csv_line, rows))

    def grid(self, groups: Sequence[UsageGroup] | None = None, price: Price | None = None, more: int = 0) -> Grid:
        """As a table, these groups or all. ``price``: what a GiB costs a month. ``more``: how many are left out."""
        shown = self.groups if groups is None else groups
        if self.by == MONTH:
            return self._months(shown, price, more)
        columns = (self.by, "own", "of all", "shared", *(() if price is None else ("own, a month", "shared, a month")))
        rows: list[tuple[Cell | str, ...]] = []
        for group in shown:
            part = share(group.own / self.total) if self.total else ""
            costs = () if price is None else (_cost(group.own, group, price), _cost(group.shared, group, price))
            rows.append((code_cell(self.name_of(group)), _bytes(group.own), part, _bytes(group.shared), *costs))
        return Grid(columns, tuple(rows), tuple(range(1, len(columns))), more)

    def _months(self, shown: Sequence[UsageGroup], price: Price | None, more: int) -> Grid:
        columns = ("month", "stored then", "until then", *(() if price is None else ("until then, a month",)))
        until, total = {}, 0
        for group in self.groups:
            until[group] = total = total + group.own
        rows: list[tuple[Cell | str, ...]] = [
            (
                self.name_of(group), _bytes(group.own), _bytes(until[group]),
                *(() if price is None else (_cost(until[group], group, price),)),
            )
            for group in shown
        ]  # fmt: skip
        return Grid(columns, tuple(rows), tuple(range(1, len(columns))), more)

    def summary(self, price: Price | None = None) -> str:
        """What it comes to, in a line."""
        parts = [f"{size(self.own)} own"]
        if self.by not in APART:
            parts.append(f"{size(self.shared)} shared")
        if self.unheld:
            parts.append(f"{size(self.unheld)} held by nobody")
        cost = "" if price is None else f", {money(self.cost(price))} a month"
        return f"{size(self.total)} in all{cost}: {', '.join(parts)}"

    def _card(self) -> Card:
        shown = self.groups[:SHOWN_GROUPS]
        grid = self.grid(shown, more=len(self.groups) - len(shown))
        return Card("usage", self.url, (("in all", self.summary()),), (grid,) if shown else (), self.notes)


def monthly(number: int, group: UsageGroup, price: Price) -> float:
    """What so many bytes of a group cost a month at a price for a GiB."""
    if isinstance(price, Mapping):
        price = price.get(group.name or "", price.get("", 0.0))
    return number / GIB * price


def money(amount: float) -> str:
    """An amount of money, to the cent, and what is less to two digits."""
    return f"{amount:,.2f}" if amount >= 0.1 or not amount else f"{amount:.2g}"


def usage_of(url: str, by: str, totals: Totals, notes: Sequence[str] = ()) -> Usage:
    """What was added up, in order."""
    groups = map(_group, totals.labels)
    found = Usage(url, by, tuple(groups), totals.own, totals.shared, totals.unheld, tuple(notes))
    in_order = found.sorted("name" if by == MONTH else "own")
    return Usage(url, by, tuple(in_order), totals.own, totals.shared, totals.unheld, tuple(notes))


def _group(found: LabelTotal) -> UsageGroup:
    label: Label = found.label
    return UsageGroup(label.name, label.unknown, found.own, found.shared)


def check_by(by: str, known: Sequence[str]) -> None:
    """InvalidKey for what nothing is put together by."""
    if by not in known:
        raise InvalidKey("not what usage is told by", found=repr(by), expected=", ".join(known))


def damage_notes(damaged: Sequence[tuple[str, MfstoreError]]) -> list[str]:
    """What is told of damaged things, each with what it is, that would say who holds what: the first of each kind."""
    first: dict[str, MfstoreError] = {}
    for what, error in damaged:
        first.setdefault(what, error)
    numbers = Counter(what for what, _ in damaged)
    return [
        f"DAMAGED: {count(numbers[what], what)}: what only that holds is told as nobody's. {error}"
        for what, error in first.items()
    ]


def _csv_line(row: Sequence[object]) -> str:
    # CPython's writer quotes the characters of its own line end: one that ends lines with \n alone leaves \r bare.
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(row)
    return f"{text.getvalue()[:-2]}\n"


def _bytes(number: int) -> Cell:
    return Cell(size(number), f"{number:,} bytes", "number")


def _cost(number: int, group: UsageGroup, price: Price) -> Cell:
    return Cell(money(monthly(number, group, price)), look="number")
