"""Which source of records is asked, and what it and the files of runs tell together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mfstore.errors import InvalidKey
from mfstore.maintenance.metaflow.collecting.beginnings import EARLIEST
from mfstore.maintenance.metaflow.collecting.records import (
    FileRecords,
    LocalRecords,
    LocalRecordsElsewhere,
    RunRecord,
    RunRecords,
    merged,
    time_in_id,
)
from mfstore.maintenance.metaflow.collecting.service_records import ServiceRecords
from mfstore.s3.datatools.settings import setting

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.collecting.listed_runs import ListedRun, ListedRuns
    from mfstore.maintenance.metaflow.collecting.policy import Run
    from mfstore.maintenance.metaflow.collecting.service_records import OpenSteps
    from mfstore.maintenance.metaflow.holdings import Holdings
    from mfstore.maintenance.metaflow.root import Root


def default_metadata() -> str:
    """``service`` where Metaflow's own configuration names one and Metaflow is there to ask it, else ``local``."""
    configured = setting("DEFAULT_METADATA") == "service" and setting("SERVICE_URL")
    return "service" if configured and find_spec("metaflow") else "local"


def records_of(root: Root, holdings: Holdings, listed: ListedRuns, metadata: str) -> Mapping[Run, RunRecord]:
    """What the source tells that ``metadata`` names: ``local`` (below the root), ``local:PATH`` (below another),
    ``service`` or ``none``. InvalidKey for any other."""
    if metadata == "none":
        return {}
    return source_of(root, holdings, listed.open_steps, metadata).read(list(listed.runs))


def source_of(root: Root, holdings: Holdings, open_steps: OpenSteps, metadata: str) -> RunRecords:
    """Where records of runs are read, as ``records_of`` has it. ``open_steps``: of whose tasks a service is asked for
    signs of life. InvalidKey when there is no such source."""
    kind, _, place = metadata.partition(":")
    if metadata == "local":
        return LocalRecords(root, holdings.metadata)
    if kind == "local" and place:
        return LocalRecordsElsewhere(place)
    if metadata == "service":
        return ServiceRecords(open_steps)
    raise InvalidKey("not a source of metadata", found=repr(metadata), expected="local, local:PATH, service or none")


def read_records(
    root: Root, runs: Mapping[Run, ListedRun], told: Mapping[Run, RunRecord], running: Collection[Run]
) -> dict[Run, RunRecord]:
    """What is recorded of each of these runs, by what a source ``told`` and by the files of the run itself. Of the
    ``running`` ones nobody looks how they ended; when a run began its first attempt tells where nothing else does."""
    undated = [run for run, listed in runs.items() if not _is_dated(run, listed, told.get(run))]
    files, began = FileRecords(root, runs, running).read(runs, undated)
    records = {run: merged(told.get(run), files.get(run)) for run in runs}
    records.update({run: replace(records[run], began=began.get(run)) for run in undated})
    return records


def _is_dated(run: Run, listed: ListedRun, told: RunRecord | None) -> bool:
    """Whether its metadata or its id says when a run began."""
    of_id = time_in_id(run[1]) if listed.tasks else None
    began = of_id if told is None or told.began is None else told.began
    return began is not None and began >= EARLIEST
