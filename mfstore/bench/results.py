"""What a run found, as a document that is kept: JSON with a schema version, and the raw rows beside it."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from mfstore.bench.measure import InFlight, Row, Slices, Spread, Steadiness, Tail, Usage
from mfstore.bench.mixes import MIXED
from mfstore.bench.pace import Pace
from mfstore.bench.scenarios import Scenario
from mfstore.errors import CorruptObject, MfstoreError, NotFound, Unsupported

SCHEMA = 1
"""Grows when a field changes its meaning or goes; new ones may come without."""
FORMAT = "mfstore-bench"
SHORT_RUN = 0.1
"""Seconds below which nobody knows what else the machine did: its clock of CPU time counts hundredths."""
ROW_COLUMNS = (
    "scenario", "operation", "number", "start", "seconds", "first_byte", "bytes", "attempts", "verified", "error",
    "scheduled", "repetition",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """A word to sort by, why, and what next."""

    bound: str
    """One of the words in docs/bench.md."""
    because: str
    advice: str


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a measurement that its rates are of."""

    seconds: float
    objects: float
    """That ended in it."""
    bytes: float
    """Those of an object are taken to be spread evenly over its time."""


@dataclass(frozen=True, slots=True)
class ClientShare:
    """What one of several clients did of a measurement, within its own time."""

    client: str
    seconds: float
    objects: int
    failed: int
    bytes: int
    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Repeats:
    """Of a measurement that was made more than once."""

    rates: tuple[float, ...]
    """Objects per second of each, in the order in which they were made."""
    median: float
    mean: float | None
    """The geometric one. None, as its interval, where one of them moved nothing."""
    low: float | None
    high: float | None
    """Between these the mean lies with 95 per cent."""
    method: str
    """How the interval was made."""
    objects: int
    failed: int
    """In all of them."""
    missed: int = 0
    """Of an open loop: those in which the rate was not reached."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One operation of one scenario, measured."""

    scenario: Scenario
    number: int
    """Of the scenario in the run."""
    operation: str
    engine: str
    """What moved the bytes."""
    objects: int
    """That succeeded: objects, artifacts' bundles, or entries of the listing."""
    failed: int
    wanted: int
    """As planned: more than there were when the time limit ended it."""
    bytes: int
    usage: Usage
    verified: int
    """Bytes compared with what they have to be: of a put those that were read back later."""
    retries: int
    throttled: int
    failures: int
    """Answers 5xx other than 503, and connections that broke."""
    requests: Mapping[str, int]
    """Without the warm-up. Empty where there are none."""
    stored: int | None
    """Artifacts: bytes written to store them."""
    latency: Spread
    first_byte: Spread
    slices: Slices
    tail: Tail
    errors: tuple[str, ...] = ()
    """The first few."""
    verdict: Verdict | None = None
    window: Window | None = None
    """None: the whole measurement."""
    pace: Pace | None = None
    """Of the whole of a mix in an open loop."""
    clients: tuple[ClientShare, ...] = ()
    """Of several machines."""
    in_flight: InFlight | None = None
    steadiness: Steadiness | None = None
    """With a duration alone."""
    repeats: Repeats | None = None
    """When it was measured more than once; all else is of the one whose rate is the median."""

    @property
    def name(self) -> str:
        """What it is, in one line: the same in every run of the same scenario."""
        return f"{self.operation} {self.scenario.name}"

    @property
    def missed(self) -> int:
        """Of an open loop, in how many rounds the rate was not reached."""
        return self.repeats.missed if self.repeats else int(self.pace is not None and not self.pace.reached)

    @property
    def whole(self) -> bool:
        """Not the part of a mix that one of its operations has: all of it is a cell of its own."""
        return self.scenario.mix is None or self.operation == MIXED

    @property
    def seconds(self) -> float:
        """From the first start to the last end."""
        return self.usage.wall

    @property
    def bytes_per_second(self) -> float:
        """Of the window, or of the whole time, from the first start to the last end."""
        if self.window is not None:
            return self.window.bytes / self.window.seconds if self.window.seconds else 0.0
        return self.bytes / self.seconds if self.seconds else 0.0

    @property
    def objects_per_second(self) -> float:
        """Likewise."""
        if self.window is not None:
            return self.window.objects / self.window.seconds if self.window.seconds else 0.0
        return self.objects / self.seconds if self.seconds else 0.0

    @property
    def cpu_share(self) -> float:
        """Cores this process kept busy: 1.41 is one and 41 per cent of another."""
        return self.usage.cpu / self.seconds if self.seconds else 0.0

    @property
    def machine_share(self) -> float | None:
        """Likewise of all programs on the machine; None where it is not known, or the time too short to tell."""
        if self.usage.machine is None or self.seconds < SHORT_RUN:
            return None
        return self.usage.machine / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "name": self.name,
            "whole": self.whole,
            "seconds": self.seconds,
            "bytes_per_second": self.bytes_per_second,
            "objects_per_second": self.objects_per_second,
            "cpu_share": self.cpu_share,
            "machine_share": self.machine_share,
            "tail": {**asdict(self.tail), "share": self.tail.share},
            "steadiness": (
                None if self.steadiness is None else {**asdict(self.steadiness), "steady": self.steadiness.steady}
            ),
        }


@dataclass(slots=True)
class Results:
    """A whole run."""

    run: Mapping[str, Any]
    """Where, when, with what: version, Python, machine, endpoint, seed, profile."""
    plan: Mapping[str, Any]
    ceilings: Mapping[str, Any]
    cells: list[Cell] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The document."""
        return {
            "format": FORMAT, "schema": SCHEMA, "run": dict(self.run), "plan": dict(self.plan),
            "ceilings": dict(self.ceilings), "cells": [cell.to_dict() for cell in self.cells],
        }  # fmt: skip


def read_results(path: Path) -> dict[str, Any]:
    """The document in a file. NotFound, CorruptObject when it is none, Unsupported for that of a newer version."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NotFound("no such results file", found=str(path)) from None
    except (ValueError, UnicodeDecodeError):
        raise CorruptObject("not a results file: it is not JSON", found=str(path)) from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CorruptObject("not a results file", found=str(path), hint="mfstore bench --output writes them")
    if document.get("schema", 0) > SCHEMA:
        raise Unsupported(
            "results of a newer mfstore", found=f"schema {document['schema']}", expected=f"up to {SCHEMA}",
            hint="Upgrade mfstore",
        )  # fmt: skip
    return document


@contextmanager
def results_of(*paths: Path) -> Iterator[None]:
    """CorruptObject, naming the files, where results lack what is asked of them: they may have been written by hand."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, MfstoreError):
            raise
        raise CorruptObject(
            f"results lack something: {type(error).__name__}: {error}", found=", ".join(map(str, paths)),
            hint="mfstore bench --output writes whole ones",
        ) from error  # fmt: skip


class RowWriter:
    """Raw rows as they come."""

    def __init__(self, file: IO[str]) -> None:
        self._times: Counter[tuple[int, str]] = Counter()
        self._csv = csv.writer(file, lineterminator="\n")
        self._csv.writerow(ROW_COLUMNS)

    def add(self, number: int, operation: str, rows: Sequence[Row], begin: float) -> None:
        """The rows of one cell; ``start`` counts from ``begin``. The same cell again is its next repetition."""
        repetition = self._times[number, operation]
        self._times[number, operation] += 1
        for row in rows:
            first = "" if row.first_byte is None else f"{row.first_byte:.6f}"
            self._csv.writerow(
                (number, operation, row.number, f"{row.start - begin:.6f}", f"{row.seconds:.6f}", first, row.size,
                 row.attempts, row.verified, row.error or "",
                 "" if row.scheduled is None else f"{row.scheduled - begin:.6f}", repetition)
            )  # fmt: skip


@contextmanager
def row_writer(path: Path) -> Iterator[RowWriter]:
    """Write rows to a gzipped CSV file. OSError when it cannot be written."""
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        yield RowWriter(file)
