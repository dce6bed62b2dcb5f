"""What Metaflow's metadata service tells of runs, asked through Metaflow's own provider: its address, headers, retries.

Metaflow is imported when something is asked. A service that does not answer is an error, and never "no tags".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mfstore.errors import AccessDenied, BackendError, InvalidKey, Unsupported
from mfstore.maintenance.metaflow.collecting.records import RunRecord

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.collecting.policy import Run

WITHOUT = (
    "Nothing was changed. Without it: --metadata none, and what it knows of tags, users and signs of life is not known"
)
OpenSteps = Mapping["Run", Collection[str]]
"""The steps of each run that have an attempt which began and did not end."""


class ServiceRecords:
    """Metaflow's metadata service. ``open_steps`` are those of whose tasks it is asked whether they give signs of
    life."""

    def __init__(self, open_steps: OpenSteps) -> None:
        self._open_steps = open_steps

    def read(self, runs: Collection[Run]) -> Mapping[Run, RunRecord]:
        """One request for each flow, and one for each step with open attempts."""
        service = MetadataService()
        wanted = frozenset(runs)
        records: dict[Run, RunRecord] = {}
        for flow in sorted({flow for flow, _ in wanted}):
            for document in service.children(flow):
                run = (flow, str(document.get("run_number")))
                if run in wanted:
                    records[run] = _record(document)
        for run in sorted(records.keys() & self._open_steps.keys()):
            tasks = [task for step in sorted(self._open_steps[run]) for task in service.children(*run, step)]
            records[run] = replace(records[run], heartbeat=_last_sign(records[run].heartbeat, tasks))
        return records


def _record(document: Mapping[str, Any]) -> RunRecord:
    moment, heartbeat = document.get("ts_epoch"), document.get("last_heartbeat_ts")
    return RunRecord(
        "service",
        float(moment) / 1000 if moment else None,
        tags=frozenset(map(str, document.get("tags") or ())),
        system_tags=frozenset(map(str, document.get("system_tags") or ())),
        user=str(document.get("user_name") or ""),
        heartbeat=float(heartbeat) if heartbeat else None,
    )


def _last_sign(of_run: float | None, tasks: Collection[Mapping[str, Any]]) -> float | None:
    """The last sign of life of a run or any of these tasks. None when one of the tasks never gave any: it may be of a
    Metaflow that gives none, and live."""
    signs = [task.get("last_heartbeat_ts") for task in tasks]
    if not all(signs):
        return None
    return max((float(sign) for sign in (of_run, *signs) if sign), default=None)


class MetadataService:
    """The service that Metaflow is configured for. Unsupported where Metaflow is not installed."""

    def __init__(self) -> None:
        try:
            from metaflow.plugins import METADATA_PROVIDERS
        except ImportError:
            raise Unsupported(
                "Metaflow is needed to ask a metadata service", hint="Install metaflow here, or give --metadata none"
            ) from None
        self._provider: Any = next(one for one in METADATA_PROVIDERS if one.TYPE == "service")
        if not self._provider.INFO:
            raise InvalidKey(
                "it is not said where the metadata service is",
                hint="Set METAFLOW_SERVICE_URL, or give --metadata local or none",
            )

    def children(self, *names: str) -> list[Mapping[str, Any]]:
        """The runs of a flow, or the tasks of a flow, run and step, as the service describes them; nothing where it
        does not know it."""
        kinds = ("flow", "run") if len(names) == 1 else ("step", "task")
        with _told_as_ours(self._provider.INFO, "did not answer", WITHOUT):
            found = self._provider.get_object(*kinds, {}, None, *names)
        return [one for one in found or () if isinstance(one, dict)]

    def add_tag(self, run: Run, tag: str) -> None:
        """Give a run a tag. AccessDenied or BackendError when the service does not."""
        with _told_as_ours(self._provider.INFO, "did not take a tag"):
            self._provider.mutate_user_tags_for_run(*run, tags_to_add=[tag])


@contextmanager
def _told_as_ours(service: str, what: str, hint: str | None = None) -> Iterator[None]:
    """What Metaflow raises when a service does not do what it is asked, as mfstore's errors."""
    import requests
    from metaflow.exception import MetaflowException

    try:
        yield
    except (MetaflowException, requests.RequestException) as error:
        status = getattr(error, "http_code", None)
        kind = AccessDenied if status in (401, 403) else BackendError
        raise kind(f"the metadata service {what}: {error}", backend=service, status=status, hint=hint) from error
