"""What is recorded of runs besides what a listing shows: by Metaflow's metadata, and by the files of their last task.

Where a source does not tell something it says so (None, ``unknown``), and nobody takes that for a no.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Literal, Protocol

from mfstore.errors import MfstoreError, NotFound
from mfstore.maintenance.metaflow.collecting.beginnings import time_of_attempt
from mfstore.maintenance.metaflow.collecting.policy import Run
from mfstore.maintenance.metaflow.references import read_small
from mfstore.maintenance.metaflow.root import Root
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.outcome import END_STEP, ended_well, leads_nowhere

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo
    from mfstore.maintenance.metaflow.collecting.listed_runs import ListedRun
    from mfstore.metaflow.roots.layout import ParsedPath

RunState = Literal["successful", "failed", "running", "unfinished", "unknown"]
"""``unfinished``: it has no end and nothing of it runs. ``unknown``: nobody tells; never to be taken for failed."""
Source = Literal["local", "service", "files"]
_MICROSECONDS = re.compile(r"1\d{15}")
"""The id of a run of local metadata: when it began, from 2001 to 2033."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What one source tells of a run. Times are in seconds since the epoch, and None where it does not tell them."""

    source: Source
    began: float | None = None
    ended: float | None = None
    """None as well where the run has not ended."""
    state: RunState = "unknown"
    tags: frozenset[str] | None = None
    """What people gave it; None: not told."""
    system_tags: frozenset[str] = frozenset()
    """What Metaflow gave it: ``user:``, ``project_branch:`` and the like."""
    user: str = ""
    heartbeat: float | None = None
    """The last sign of life; None: none is known."""
    unread: str = ""
    """Why there is a record and it is not known what it says. What may keep the run stands there, so it is kept."""

    @property
    def all_tags(self) -> frozenset[str] | None:
        """Both kinds of tags; None where they are not told."""
        return None if self.tags is None else self.tags | self.system_tags


class RunRecords(Protocol):
    """A source of records."""

    def read(self, runs: Collection[Run]) -> Mapping[Run, RunRecord]:
        """What it tells of these runs, as (flow, run); those of which it tells nothing are not among it."""


def time_in_id(run: str) -> float | None:
    """When a run began, if its id says so: local metadata takes the time in microseconds. What the other sources write
    down changes: local metadata says anew when a run is tagged, and a copy of a bucket has new times."""
    return int(run) / 1e6 if _MICROSECONDS.fullmatch(run) else None


class LocalRecords:
    """Local metadata as it lies below a root."""

    def __init__(self, root: Root, metadata: Iterable[tuple[ParsedPath, ObjectInfo]]) -> None:
        self._root = root
        self._listed = {
            (path.flow, path.run) for path, info in metadata if path.run and info.key == _document(path.flow, path.run)
        }

    def read(self, runs: Collection[Run]) -> Mapping[Run, RunRecord]:
        """One small file is read of each run that has one."""
        return _read_documents(self._root, [run for run in runs if run in self._listed])


class LocalRecordsElsewhere:
    """Local metadata below another root: of runs whose datastore is S3 it stays on the machine that started them."""

    def __init__(self, url: str) -> None:
        self._url = url

    def read(self, runs: Collection[Run]) -> Mapping[Run, RunRecord]:
        """One small file is read of each run. NotFound when there is none of any: it is another place then."""
        root = Root(self._url)
        try:
            records = _read_documents(root, runs)
        finally:
            root.close()
        if runs and not records:
            raise NotFound(
                "no run of this root is recorded there", backend=root.url,
                hint="Give the directory with the .metaflow in which these runs were started",
            )  # fmt: skip
        return records


def _document(flow: str, run: str) -> str:
    """Where local metadata says what it knows of a run."""
    return f"{flow}/{run}/_meta/_self.json"


def _read_documents(root: Root, runs: Collection[Run]) -> dict[Run, RunRecord]:
    records: dict[Run, RunRecord] = {}
    found = root.backend.get_many([_document(*run) for run in runs])
    for run, (_, data) in zip(runs, found, strict=True):
        try:
            if isinstance(data, MfstoreError):
                raise data
            document = layout.run_document(data)
        except NotFound:
            continue
        except MfstoreError as error:
            records[run] = RunRecord("local", time_in_id(run[1]), unread=error.message)
            continue
        if (document.flow, document.run) == run:  # else it is that of the flow of a root one level lower
            records[run] = RunRecord(
                "local", time_in_id(run[1]) or document.began, tags=document.tags,
                system_tags=document.system_tags, user=document.user,
            )  # fmt: skip
    return records


_TOLD: tuple[RunState, ...] = ("running", "unfinished", "failed", "unknown", "successful")
"""Of what several tasks of a run tell, the last of these holds."""


class FileRecords:
    """The files of attempts: whether, when and how a run ended is told by its last task."""

    def __init__(self, root: Root, listed: Mapping[Run, ListedRun], running: Collection[Run]) -> None:
        self._root = root
        self._listed = listed
        self._running = running

    def read(self, runs: Iterable[Run], undated: Iterable[Run]) -> tuple[Mapping[Run, RunRecord], Mapping[Run, float]]:
        """One small file is read of each run that ended, and of those without a step ``end`` one of each step. An
        ``end`` that cannot be read leaves the state unknown. And when the ``undated`` ones of them began, in seconds
        since the epoch, by what their first attempts wrote down, another small file of each, on the clock of the
        machines that ran these. Runs of which it cannot be read are not among that."""
        records: dict[Run, RunRecord] = {}
        ended: list[Run] = []
        for run in runs:
            listed = self._listed.get(run)
            if listed is None or not listed.tasks:
                continue
            running = run in self._running
            records[run] = RunRecord("files", time_in_id(run[1]), state="running" if running else "unfinished")
            if not running:
                ended.append(run)
        lasts = (((run, task), task.data) for run in ended for task in self._listed[run].last)
        firsts = ((run, self._listed[run].first) for run in undated)
        began: dict[Run, float] = {}
        # Together, since they are remembered together.
        wanted = chain(lasts, (((run, None), info) for run, info in firsts if info is not None))
        for (run, task), data in read_small(self._root, wanted):
            if task is None:
                moment = None if isinstance(data, MfstoreError) else time_of_attempt(data)
                if moment is not None:
                    began[run] = moment
                continue
            state = _state(task.step, data)
            if _TOLD.index(state) > _TOLD.index(records[run].state):
                records[run] = replace(records[run], ended=task.ended, state=state)
        return records, began


def _state(step: str, data: bytes | MfstoreError) -> RunState:
    """How a run ended by the ``data.json`` of a task that may be its last."""
    if isinstance(data, NotFound):  # of a run that was removed since it was listed: it is none of those to keep
        return "unfinished"
    try:
        if isinstance(data, MfstoreError):
            raise data
        if step != END_STEP and not leads_nowhere(data):
            return "unfinished"
        well = ended_well(data)
    except MfstoreError:
        # What may be any step says nothing of the end. While the storage does not hand it out, its run stays anyway.
        return "unknown" if step == END_STEP else "unfinished"
    return "unknown" if well is None else "successful" if well else "failed"


def merged(told: RunRecord | None, files: RunRecord | None) -> RunRecord:
    """What Metaflow's metadata tells of a run, and where it does not, what its files do."""
    if told is None or files is None:
        return told or files or RunRecord("files")
    return replace(
        told,
        began=files.began if told.began is None else told.began,
        ended=files.ended if told.ended is None else told.ended,
        state=files.state if told.state == "unknown" else told.state,
    )
