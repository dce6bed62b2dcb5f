"""A run by several machines: what each is asked for, what it does, and what comes back. All of it is JSON."""

from __future__ import annotations

import json
import os
import platform
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from mfstore.bench.measure import Row, Usage
from mfstore.bench.meeting import Meeting
from mfstore.bench.merging import Part
from mfstore.bench.mixes import Mix
from mfstore.bench.plan import plan
from mfstore.bench.run import RunSettings, execute
from mfstore.bench.scenarios import Scenario
from mfstore.bench.targets import open_target
from mfstore.bench.window import Lasting
from mfstore.errors import InvalidKey

if TYPE_CHECKING:
    from mfstore.bench.results import Cell

PATIENCE = 180.0
"""Seconds that machines wait for each other, beside the time of a step: schedulers take so long to start the last."""


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """What one of several machines is to measure."""

    url: str
    name: str
    """Of the scratch prefix, which whoever asks has made, and will remove."""
    scenarios: tuple[Scenario, ...]
    seed: int
    seconds: float
    number: int = 0
    clients: int = 1
    lasting: Lasting | None = None
    repeat: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the target."""


@dataclass(frozen=True, slots=True)
class ClientReport:
    """What it brought."""

    number: int
    host: str
    about: Mapping[str, Any]
    parts: list[dict[str, Any]]

    def named(self, name: str) -> list[Part]:
        """Its parts, under the name that it has in the results."""
        return [
            Part(
                **{
                    **part,
                    "client": name,
                    "usage": _usage(**part["usage"]),
                    "rows": [Row(*row) for row in part["rows"]],
                }
            )
            for part in self.parts
        ]


def encode(value: ClientRequest | ClientReport) -> str:
    """As one line of JSON."""
    # A report may have a million rows, which asdict would copy one by one.
    return json.dumps(asdict(value) if isinstance(value, ClientRequest) else _fields(value))


def decode_request(text: str) -> ClientRequest:
    """What was encoded. InvalidKey when it is none, or of another version."""
    try:
        document = json.loads(text)
        scenarios = tuple(_scenario(found) for found in document.pop("scenarios"))
        lasting = document.pop("lasting")
        return ClientRequest(**document, scenarios=scenarios, lasting=lasting and Lasting(**lasting))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidKey(
            "not a request to a client of a benchmark", found=f"{text!r:.80}",
            hint="mfstore bench --clients writes them; all machines need the same version of mfstore",
        ) from error  # fmt: skip


def decode_report(text: str) -> ClientReport:
    """Likewise."""
    try:
        return ClientReport(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise InvalidKey(
            "not a report of a client", found=f"{text!r:.80}", hint="All machines need the same version of mfstore"
        ) from error


def _usage(wall: float, cpu: float, rss: int, **_: Any) -> Usage:
    """What can be said of several machines together."""
    return Usage(wall, cpu, None, rss)


def _fields(value: ClientReport | Part) -> dict[str, Any]:
    return {one.name: getattr(value, one.name) for one in fields(value)}


def _scenario(found: dict[str, Any]) -> Scenario:
    mix = found.pop("mix")
    if mix is not None:
        mix = Mix(**{**mix, "shares": tuple((name, share) for name, share in mix["shares"])})
    sizes = tuple((size, count) for size, count in found.pop("sizes"))
    return Scenario(**{**found, "operations": tuple(found["operations"])}, sizes=sizes, mix=mix)


def take_part(request: ClientRequest, progress: Callable[[], None] = lambda: None) -> ClientReport:
    """Measure, together with the others. Raises what a run raises; the scratch prefix stays."""
    target = open_target(request.url, name=request.name, **request.options)
    notes = target.notes()
    try:
        longest = request.seconds if request.lasting is None else request.lasting.whole
        meeting = Meeting(notes, request.number, request.clients, PATIENCE + longest)
        meeting.join()
        settings = RunSettings(
            request.seed, request.seconds, request.lasting, request.number, request.clients, meeting
        )  # fmt: skip
        kept: list[tuple[list[Row], float]] = []

        def keep(cell: Cell, rows: list[Row], begin: float) -> None:
            kept.append((rows, begin))

        found = plan(request.scenarios, lasting=request.lasting is not None, repeat=request.repeat)
        cells = list(execute(target, found, settings, keep, lambda _, __: progress()))
    finally:
        notes.close()
    return ClientReport(request.number, socket.gethostname(), _about(), _parts(cells, kept))


def _parts(cells: list[Cell], kept: list[tuple[list[Row], float]]) -> list[dict[str, Any]]:
    """The rows of a mix are kept by its operations; the cell of the whole comes after theirs, and has none."""
    shift = time() - monotonic()
    turns: Counter[tuple[int, str]] = Counter()
    rows_of = iter(kept)
    begin = 0.0
    parts = []
    for cell in cells:
        rows: list[Row] = []
        if cell.scenario.mix is None or not cell.whole:
            rows, begin = next(rows_of)
        shifted = [
            row._replace(start=row.start + shift, scheduled=row.scheduled and row.scheduled + shift) for row in rows
        ]
        turn = turns[cell.number, cell.operation]
        turns[cell.number, cell.operation] += 1
        part = Part(
            "", turn, cell.number, cell.operation, cell.engine, begin + shift, cell.usage, shifted, cell.wanted,
            cell.verified, cell.retries, cell.throttled, cell.failures, dict(cell.requests), cell.stored,
        )  # fmt: skip
        parts.append({**_fields(part), "usage": asdict(part.usage)})
    return parts


def _about() -> dict[str, Any]:
    from mfstore import __version__

    return {
        "version": __version__, "python": platform.python_version(), "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }  # fmt: skip
