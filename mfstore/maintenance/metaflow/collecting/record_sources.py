"""Which source of records is asked, and what it and the files of runs tell together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mfstore.errors import InvalidKey
from mfstore.maintenance.metaflow.collecting.records import (
    FileRecords,
    LocalRecords,
    LocalRecordsElsewhere,
    RunRecord,
    RunRecords,
    merged,
)
from mfstore.maintenance.metaflow.collecting.service_records import ServiceRecords
from mfstore.s3.datatools.settings import setting

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.collecting.listed_runs import ListedRun, ListedRuns
    from mfstore.maintenance.metaflow.collecting.policy import Run
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
    return _source(root, holdings, listed, metadata).read(list(listed.runs))


def _source(root: Root, holdings: Holdings, listed: ListedRuns, metadata: str) -> RunRecords:
    kind, _, place = metadata.partition(":")
    if metadata == "local":
        return LocalRecords(root, holdings.metadata)
    if kind == "local" and place:
        return LocalRecordsElsewhere(place)
    if metadata == "service":
        return ServiceRecords(listed.open_steps)
    raise InvalidKey("not a source of metadata", found=repr(metadata), expected="local, local:PATH, service or none")


def read_records(
    root: Root, runs: Mapping[Run, ListedRun], told: Mapping[Run, RunRecord], running: Collection[Run]
) -> dict[Run, RunRecord]:
    """What is recorded of each of these runs, by what a source ``told`` and by the files of the run itself. Of the
    ``running`` ones nobody looks how they ended."""
    files = FileRecords(root, runs, running).read(runs)
    return {run: merged(told.get(run), files.get(run)) for run in runs}
