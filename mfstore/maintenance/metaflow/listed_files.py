"""The files of runs that are of no task: cards, local metadata, what ``S3(run=self)`` stored. Beyond some they lie in a
temporary file, in the order of runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from mfstore.backends.base import ObjectInfo
from mfstore.maintenance.metaflow.listed_digests import restored, shortened
from mfstore.maintenance.spill import KeyedRows, Spill
from mfstore.metaflow.roots.layout import ParsedPath

OPEN_FILES = 30_000
"""Files of each kind that are kept in memory, 0.4 kB each, where there is a temporary file for the others."""
OfRun = tuple[str, list[ObjectInfo]]
"""A run and its files."""


def run_order(run: str) -> bytes:
    """What the order of the runs of a flow goes by. None begins another."""
    return run.encode("utf-8", "surrogatepass").replace(b"\0", b"\0\xff") + b"\0"


class RunFiles:
    """Files of one kind by flow and run."""

    __slots__ = ("_kind", "_rows")

    def __init__(self, kind: str, spill: Spill | None = None) -> None:
        self._kind = kind
        self._rows = KeyedRows(spill, OPEN_FILES)

    def add(self, path: ParsedPath, info: ObjectInfo) -> None:
        """Count one file."""
        rows = self._rows.here(path.flow)
        before = len(rows)
        place = run_order(path.run) + info.key.encode("utf-8", "surrogatepass")
        rows[place] = path.run, info.key, info.size, info.modified, shortened(info.etag)
        self._rows.grew(len(rows) - before)

    @property
    def flows(self) -> set[str]:
        """Every flow that has any."""
        return self._rows.flows

    def of_flow(self, flow: str) -> Iterator[OfRun]:
        """The files of each run of a flow that has any, in the order of ``run_order``."""
        rows = (_restored(row) for _, row in self._rows.latest_in_order(flow))
        return ((run, [info for _, info in found]) for run, found in groupby(rows, itemgetter(0)))

    def of_flows(self, flows: Iterable[str]) -> Iterator[tuple[ParsedPath, ObjectInfo]]:
        """Every file of some flows, with the kind, flow and run that it is of."""
        for flow in sorted({*flows} & self.flows):
            for run, infos in self.of_flow(flow):
                path = ParsedPath(self._kind, flow, run)
                yield from ((path, info) for info in infos)

    def of_runs(self, runs: Collection[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], ObjectInfo]]:
        """Every file of some runs, with its flow and run."""
        for path, info in self.of_flows(flow for flow, _ in runs):
            if (path.flow, path.run) in runs:
                yield (path.flow, path.run), info

    def __iter__(self) -> Iterator[tuple[ParsedPath, ObjectInfo]]:
        return self.of_flows(self.flows)

    def __bool__(self) -> bool:
        return bool(self.flows)


def _restored(row: tuple[str, str, int, float, Any]) -> tuple[str, ObjectInfo]:
    run, key, size, modified, etag = row
    return run, ObjectInfo(key, size, modified, restored(etag))
