"""What is known of each run below a root: from its files, its local metadata, and the run that it resumed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mfstore.errors import CorruptObject, MfstoreError
from mfstore.maintenance.metaflow.collecting.policy import Run, RunFacts, RunPolicy
from mfstore.maintenance.metaflow.collecting.record_sources import records_of
from mfstore.maintenance.metaflow.collecting.records import RunRecord
from mfstore.maintenance.metaflow.references import read_small
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.attempts import RESUMED

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo
    from mfstore.maintenance.metaflow.holdings import Holdings
    from mfstore.maintenance.metaflow.root import Root


@dataclass(slots=True)
class _RunFiles:
    """The files of one run, being gathered."""

    own: list[ObjectInfo] = field(default_factory=list)
    """What tasks wrote besides blobs, local metadata, and cards."""
    tasks: int = 0
    began: float = float("inf")
    running: bool = False
    record: RunRecord | None = None
    """What Metaflow's metadata says of it; None: nothing."""

    @property
    def is_run(self) -> bool:
        """No attempt and no metadata makes it one: somebody else's files have such names."""
        return bool(self.tasks or (self.record is not None and not self.record.unread))


def read_run_facts(root: Root, holdings: Holdings, policy: RunPolicy, now: float, metadata: str) -> Iterator[RunFacts]:
    """What decides about each run. ``metadata`` says where their records are read (``records_of``)."""
    found: dict[Run, _RunFiles] = {}
    for name, task in holdings.tasks.items():
        files = found.setdefault(name[:2], _RunFiles())
        files.tasks += 1
        files.own.extend(task.files.values())
        files.began = min([files.began, *(info.modified for info in task.files.values())])
        files.running = files.running or bool(task.running(now, policy.running))
    for path, info in holdings.metadata:
        if path.run:
            found.setdefault((path.flow, path.run), _RunFiles()).own.append(info)
    for run, record in records_of(root, holdings, metadata).read(found).items():
        found[run].record = record
        if record.began is not None:
            found[run].began = min(found[run].began, record.began)
    for path, info in holdings.cards:
        if (path.flow, path.run) in found:
            found[path.flow, path.run].own.append(info)
    for run, files in found.items():
        if not files.is_run:
            continue
        record = files.record or RunRecord("files")
        yield RunFacts(
            flow=run[0],
            run=run[1],
            began=files.began if files.began != float("inf") else min(info.modified for info in files.own),
            touched=max(info.modified for info in files.own),
            running=files.running,
            tags=record.all_tags,  # where nothing tells them, a policy that asks for tags keeps it
            held=f"what is recorded of it cannot be read: {record.unread}" if record.unread else "",
            heartbeat=record.heartbeat,
            tasks=files.tasks,
            files=len(files.own),
            size=sum(info.size for info in files.own),
        )


@dataclass(frozen=True, slots=True)
class ResumedRuns:
    """Runs that resumed others: they show the cards of these."""

    runs: Collection[Run]
    origins: Mapping[Run, str]
    """The run that each resumed, where local metadata tells."""

    def keep_origins(self, kept: dict[Run, str], cards: Collection[Run]) -> set[str]:
        """Keep the runs with ``cards`` that a kept run shows because it resumed them. Returns the flows of kept runs
        that resumed others which cannot be told."""
        spared: set[str] = set()
        waiting = [run for run in kept if run in self.runs]
        while waiting:
            run = waiting.pop()
            if run not in self.origins:
                spared.add(run[0])
                continue
            origin = (run[0], self.origins[run])
            if origin in cards and origin not in kept:
                kept[origin] = f"{run[1]}, which resumed it, shows its cards"
                if origin in self.runs:
                    waiting.append(origin)
        return spared


def read_resumed_runs(root: Root, holdings: Holdings) -> ResumedRuns:
    """The runs that resumed others, by their files and by local metadata."""
    resumed = {
        name[:2] for name, task in holdings.tasks.items() if any((None, marker) in task.files for marker in RESUMED)
    }
    told: dict[Run, ObjectInfo] = {}
    for path, info in holdings.metadata:
        if (path.flow, path.run) in resumed and layout.ORIGIN.fullmatch(info.key):
            told[path.flow, path.run] = info
    origins: dict[Run, str] = {}
    for run, data in read_small(root, list(told.items())):
        with suppress(CorruptObject):
            origin = None if isinstance(data, MfstoreError) else layout.origin_run(data)
            if origin is not None:
                origins[run] = origin
    return ResumedRuns(resumed, origins)
