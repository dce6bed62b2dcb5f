"""Runs that resumed others: which these are is told by local metadata, or by what the tasks store that were taken over.

A task that was taken over has the ``data.json`` of its origin, so the origin is among the runs with an equal one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mfstore.errors import CorruptObject, MfstoreError
from mfstore.maintenance.metaflow.collecting.policy import Run
from mfstore.maintenance.metaflow.references import read_small
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.attempts import BEGAN, DATA, RESUMED
from mfstore.metaflow.roots.migration_record import earlier_forms

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo
    from mfstore.maintenance.metaflow.holdings import Holdings
    from mfstore.maintenance.metaflow.listed_tasks import TaskName
    from mfstore.maintenance.metaflow.root import Root

MIGRATED = b""
"""The content of what was migrated since: it may be that of any task."""


@dataclass(frozen=True, slots=True)
class ResumedRuns:
    """Runs that resumed others: they show the cards of these."""

    runs: Collection[Run]
    origins: Mapping[Run, Collection[str]]
    """The run that each resumed; where that is told by contents alone, all that have the same. Those of which it cannot
    be told are not among it."""

    def keep_origins(self, kept: MutableMapping[Run, str], cards: Collection[Run]) -> set[str]:
        """Keep the runs with ``cards`` that a kept run shows because it resumed them. Returns the flows of kept runs
        that resumed others which cannot be told."""
        spared: set[str] = set()
        waiting = [run for run in kept if run in self.runs]
        while waiting:
            run = waiting.pop()
            if run not in self.origins:
                spared.add(run[0])
                continue
            alike = " or one like it" if len(self.origins[run]) > 1 else ""
            for name in sorted(self.origins[run]):
                origin = (run[0], name)
                if origin in cards and origin not in kept:
                    kept[origin] = f"{run[1]}, which resumed it{alike}, shows its cards"
                    if origin in self.runs:
                        waiting.append(origin)
        return spared


def runs_that_resumed(holdings: Holdings, flow: str) -> set[Run]:
    """Those of a flow that resumed others, whichever."""
    tasks = holdings.tasks
    runs = [(flow, run) for run in tasks.runs_of(flow)]
    return {run for run in runs if any(row[3] in RESUMED for row in tasks.rows(run))}


def read_resumed_runs(root: Root, holdings: Holdings, resumed: set[Run]) -> ResumedRuns:
    """What runs that ``resumed`` others resumed. Where no metadata below the root tells which, as in S3, the
    ``data.json`` of tasks with cards are read, and of those that were taken over."""
    told = {run: info for run, info in holdings.metadata.of_runs(resumed) if layout.ORIGIN.fullmatch(info.key)}
    origins: dict[Run, Collection[str]] = {}
    for run, data in read_small(root, list(told.items())):
        with suppress(CorruptObject):
            origin = None if isinstance(data, MfstoreError) else layout.origin_run(data)
            if origin is not None:
                origins[run] = (origin,)
    return ResumedRuns(resumed, {**_alike(root, holdings, resumed - origins.keys()), **origins})


def _alike(root: Root, holdings: Holdings, resumed: Collection[Run]) -> dict[Run, set[str]]:
    """The runs that each of these may have resumed: those with a card of a task that stores just what a task does that
    was taken over."""
    flows = {flow for flow, _ in resumed}
    with_card: set[tuple[Run, str | None, str]] = set()
    for path, info in holdings.cards.of_flows(flows):
        task = layout.CARD_TASK.search(info.key)
        if task is not None:
            with_card.add(((path.flow, path.run), task["step"], task["task"]))
    taken_over: dict[TaskName, ObjectInfo] = {}
    shown: dict[TaskName, ObjectInfo] = {}
    for name, files in holdings.tasks.of_flows(flows):
        attempt = files.readable
        if attempt is None or (attempt, DATA) not in files.files:
            continue
        if name[:2] in resumed and (attempt, BEGAN) not in files.files:
            taken_over[name] = files.files[attempt, DATA]
        elif {(name[:2], name[2], name[3]), (name[:2], None, name[3])} & with_card:
            shown[name] = files.files[attempt, DATA]
    contents = dict(_contents(root, {**taken_over, **shown}))
    unknown = {name[0] for name, content in contents.items() if content is None}
    found: dict[Run, set[str]] = {run: set() for run in resumed if run[0] not in unknown}
    by_content: dict[tuple[str, str, bytes | None], set[str]] = {}
    for name in shown:
        by_content.setdefault((name[0], name[2], contents[name]), set()).add(name[1])
    for name in taken_over:
        flow, run, step, _ = name
        if (flow, run) not in found:
            continue
        if contents[name] == MIGRATED:
            found[flow, run] |= {other[1] for other in shown if other[0] == flow and other[2] == step}
            continue
        for content in (contents[name], MIGRATED):
            found[flow, run] |= by_content.get((flow, step, content), set())
    return found


def _contents(root: Root, files: Mapping[TaskName, ObjectInfo]) -> list[tuple[TaskName, bytes | None]]:
    """A digest of what each of these ``data.json`` refers to; None where it is not known."""
    contents: list[tuple[TaskName, bytes | None]] = []
    for name, data in read_small(root, list(files.items())):
        content: bytes | None = None
        if not isinstance(data, MfstoreError):
            with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                document = json.loads(data)
                text = json.dumps(document["objects"], sort_keys=True).encode()
                content = MIGRATED if earlier_forms(document) else hashlib.sha256(text).digest()
        contents.append((name, content))
    return contents
