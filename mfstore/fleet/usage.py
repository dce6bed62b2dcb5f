"""``mfstore fleet du``: how much each part holds, as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mfstore.backends import open_backend
from mfstore.display.amounts import size
from mfstore.display.cards import Card, Cell, Grid, code_cell
from mfstore.display.shown import Shown
from mfstore.format.refs import is_ref
from mfstore.maintenance.metaflow.holdings import list_flows
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.report import untold
from mfstore.settings import resolve

if TYPE_CHECKING:
    from mfstore.fleet.request import Request
    from mfstore.fleet.shards import Shard

Amount = tuple[int, int]
"""Number and bytes of objects."""


@dataclass(frozen=True, slots=True, repr=False)
class Usage(Shown):
    """What is stored, by kind of object: of a root in rows by flow, of a store in one without a name."""

    url: str
    rows: Mapping[str, Mapping[str, Amount]] = field(default_factory=dict)
    runs: Mapping[str, int] = field(default_factory=dict)
    """Of each flow of a root, how many."""

    @property
    def stored(self) -> int:
        """Bytes of all of it."""
        return sum(taken for kinds in self.rows.values() for _, taken in kinds.values())

    def _card(self) -> Card:
        return Card("holds", self.url, (("in all", size(self.stored)),), (usage_grid(self),))


def usage_grid(usage: Usage) -> Grid:
    """As a table: the largest flow first, and of a store each kind a row."""
    if not usage.runs:
        kinds = usage.rows.get("", {})
        of_kinds = tuple((kind, f"{number:,}", size(taken)) for kind, (number, taken) in kinds.items())
        return Grid(("kind", "objects", "bytes"), of_kinds, (1, 2))
    names = next(iter(usage.rows.values())).keys()
    totals = {flow: sum(taken for _, taken in kinds.values()) for flow, kinds in usage.rows.items()}
    rows: tuple[tuple[Cell | str, ...], ...] = tuple(
        (
            code_cell(flow),
            f"{usage.runs.get(flow, 0):,}",
            *(size(taken) for _, taken in usage.rows[flow].values()),
            size(totals[flow]),
        )
        for flow in sorted(totals, key=lambda flow: (-totals[flow], flow))
    )
    return Grid(("flow", "runs", *names, "total"), rows, tuple(range(1, len(names) + 3)))


def usage_of_shard(request: Request, shard: Shard) -> Usage:
    """What one part holds, by listing it."""
    return _of_flows(request, shard) if request.is_root else _of_digits(request, shard)


def _of_flows(request: Request, shard: Shard) -> Usage:
    root = Root(request.url, **request.reached)
    try:
        holdings = list_flows(root, shard.flows, untold, request.inventory)
    finally:
        root.close()
    runs: dict[str, int] = {}
    for flow, _ in holdings.runs:
        runs[flow] = runs.get(flow, 0) + 1
    return Usage(root.url, holdings.usage(), runs)


def _of_digits(request: Request, shard: Shard) -> Usage:
    kinds = dict.fromkeys(("recipes", "packs", "index", "refs"), (0, 0))
    prefixes = [f"{kind}/{digits}/" for kind in ("recipes", "packs") for digits in shard.digits]
    if shard.number == 1:
        prefixes += ["index/", "refs/"]
    backend = open_backend(request.url, resolve(), **request.reached)
    try:
        for info in backend.list_many(prefixes):
            kind = info.key.partition("/")[0]
            number, taken = kinds[kind]
            kinds[kind] = number + (kind != "refs" or is_ref(info.size)), taken + info.size
    finally:
        backend.close()
    return Usage(backend.url, {"": kinds})


def merged_usage(parts: Sequence[Usage]) -> Usage:
    """What all parts hold. Pure."""
    rows: dict[str, dict[str, Amount]] = {}
    for part in parts:
        for name, kinds in part.rows.items():
            row = rows.setdefault(name, {})
            for kind, (number, taken) in kinds.items():
                before = row.get(kind, (0, 0))
                row[kind] = before[0] + number, before[1] + taken
    runs = {flow: number for part in parts for flow, number in part.runs.items()}
    return Usage(parts[0].url, rows, runs)
