"""What a migration of a Metaflow root changes, what it leaves, and why. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mfstore.errors import InvalidKey
from mfstore.maintenance.clock import DAY
from mfstore.maintenance.metaflow.collecting.policy import Run, matches
from mfstore.maintenance.metaflow.holdings import Holdings
from mfstore.maintenance.metaflow.listed_blobs import BlobName
from mfstore.maintenance.metaflow.listed_tasks import TaskName
from mfstore.metaflow.roots.attempts import DATA
from mfstore.metaflow.roots.migration_record import Form, earlier_forms
from mfstore.metaflow.roots.packed_keys import bundle_of, is_packed

PROFILES = ("packed", "stock")
PICKLES = frozenset(("pickle-v2", "pickle-v4", "gzip+pickle-v2", "gzip+pickle-v4"))
"""Encodings of Metaflow's own artifacts; others are those of another extension's serializer."""
OLDEST = "gzip+pickle-v2"
"""What an artifact is whose encoding is not told."""


@dataclass(frozen=True, slots=True)
class MigrationOptions:
    """What to bring where."""

    to: str
    """``packed`` or ``stock``."""
    flows: tuple[str, ...] = ()
    """Only of flows that match one of these patterns; none given: of any."""
    runs: tuple[str, ...] = ()
    """Only of runs, as flow/run, that match one of these patterns."""
    running: float = 7 * DAY
    """An attempt that began within so many seconds and has not ended is taken to be running."""
    idle: float = 3600.0
    """A run may go on until nothing was stored for it for so many seconds: also when its last step has ended, which may
    have failed and be tried again."""

    def check(self) -> None:
        """InvalidKey when this says nothing sensible."""
        if self.to not in PROFILES:
            raise InvalidKey("unknown profile", expected=" or ".join(PROFILES), found=repr(self.to))
        if min(self.running, self.idle) < 0:
            raise InvalidKey("times are not negative")
        for pattern in self.runs:
            if "/" not in pattern:
                raise InvalidKey("a run is flow/run", found=repr(pattern))

    def wants(self, run: Run) -> bool:
        """Whether a run is meant."""
        return (not self.flows or matches(run[0], self.flows)) and (not self.runs or matches("/".join(run), self.runs))


class LeftAlone(NamedTuple):
    """What is left as it is."""

    kind: str
    """A stable word: ``running``, ``removing`` (runs), ``unfinished`` (attempts), ``unreadable`` (their data.json),
    ``extension``, ``missing`` (artifacts)."""
    what: str
    """Flow/run, or flow/run/step/task/attempt, perhaps with an artifact."""
    why: str


HARMLESS = frozenset(("running", "removing", "unfinished", "extension"))
"""Kinds that are as they should be."""


class EndedAttempt(NamedTuple):
    """An attempt that ended, with the version of its data.json that was listed."""

    task: TaskName
    number: int
    etag: str

    @property
    def name(self) -> str:
        """As messages have it."""
        return f"{'/'.join(self.task)}/{self.number}"

    @property
    def path(self) -> str:
        """Of its data.json."""
        return f"{self.name}.{DATA}"

    @property
    def records(self) -> str:
        """What the paths of its artifacts' records in local metadata begin with."""
        return f"{'/'.join(self.task)}/_meta/{self.number}_artifact_"


class StoredArtifact(NamedTuple):
    """An artifact to be converted. Equal ones are converted once: a task inherits most of what it refers to."""

    name: str
    key: str
    earlier_blob: str | None = None
    """The key of the blob it was before, if that is still there."""


@dataclass(slots=True)
class AttemptChanges:
    """What of one attempt is to be changed, and what not."""

    change: dict[StoredArtifact, dict[str, Any]] = field(default_factory=dict)
    """Artifacts to convert, with their infos."""
    already: int = 0
    """Number of artifacts that are in that profile already."""
    left: list[LeftAlone] = field(default_factory=list)
    rekeyed: int = 0
    """Number of artifacts to become stock that were so before, and whose blob is gone: their key may become another."""


def choose_attempts(
    holdings: Holdings, wanted: MigrationOptions, removing: Collection[str], now: float
) -> tuple[list[EndedAttempt], list[LeftAlone]]:
    """The attempts to look into, in the order they began, flow by flow; and what is left before that.

    All that ended, also those that were tried again: the client reads them, and what they refer to stays.
    """
    runs: dict[Run, str] = {}
    for name in holdings.tasks:
        run = name[:2]
        if run not in runs and wanted.wants(run):
            runs[run] = "removing" if "/".join(run) in removing else ""
    touched: dict[Run, float] = {}
    for name, task in holdings.tasks.items():
        run = name[:2]
        if runs.get(run) != "":
            continue
        if task.running(now, wanted.running):
            runs[run] = "running"
        for (_, kind), info in task.files.items():
            if kind != DATA:  # which a migration that was stopped has written
                touched[run] = max(info.modified, touched.get(run, info.modified))
    for run, why in runs.items():
        if why == "" and now - touched.get(run, 0.0) < wanted.idle:
            runs[run] = "idle"
    left = [
        LeftAlone("running" if why == "idle" else why, "/".join(run), _WHY[why])
        for run, why in sorted(runs.items())
        if why
    ]
    found: list[tuple[float, EndedAttempt]] = []
    for name, task in holdings.tasks.items():
        if runs.get(name[:2]) != "":
            continue
        for number in sorted({*task.started, *task.done}):
            attempt = f"{'/'.join(name)}/{number}"
            data = task.files.get((number, DATA))
            if number not in task.done:
                left.append(LeftAlone("unfinished", attempt, "it began and never ended"))
            elif data is None:
                left.append(LeftAlone("unreadable", attempt, "it is marked done and has no data.json"))
            else:
                began = task.started.get(number, data.modified)
                found.append((began, EndedAttempt(name, number, data.etag)))
    found.sort(key=lambda item: (item[1].task[0], item[0], item[1]))
    return [attempt for _, attempt in found], left


_WHY = {
    "removing": "garbage collection is removing it",
    "running": "one of its tasks is running",
    "idle": "something of it was written a short while ago",
}


def changes_of(
    attempt: EndedAttempt, document: Mapping[str, Any], to: str, blobs: Collection[BlobName],
    bundles: Collection[str],
) -> AttemptChanges:  # fmt: skip
    """What of a ``data.json`` is to be changed. ``blobs`` and ``bundles`` are those that are there."""
    found = AttemptChanges()
    earlier = earlier_forms(document) if to == "stock" else {}
    infos = document.get("info") or {}
    for name, key in document["objects"].items():
        info = infos.get(name) or {}
        where = f"{attempt.name} {name}"
        packed = is_packed(info)
        if not packed and info.get("encoding", OLDEST) not in PICKLES:
            found.left.append(LeftAlone("extension", where, f"its encoding is {info['encoding']}"))
        elif packed == (to == "packed"):
            found.already += 1
        elif packed:
            bundle = bundle_of(info)
            if bundle is not None and bundle not in bundles:
                found.left.append(LeftAlone("missing", where, f"bundle {bundle} is not there"))
            else:
                forms = earlier.get(name, ())
                blob = _earlier_blob(attempt, forms, blobs)
                found.rekeyed += blob is None and any(not is_packed(was) for _, was in forms)
                found.change[StoredArtifact(name, key, blob)] = info
        elif (attempt.task[0], key) not in blobs:
            found.left.append(LeftAlone("missing", where, f"blob {key} is not there"))
        elif infos:
            found.change[StoredArtifact(name, key)] = info
        else:
            found.left.append(LeftAlone("extension", where, "nothing tells how it is stored"))
    return found


def _earlier_blob(attempt: EndedAttempt, forms: Collection[Form], blobs: Collection[BlobName]) -> str | None:
    """The latest blob among what an artifact was, if it is there."""
    for key, info in reversed([*forms]):
        if not is_packed(info) and (attempt.task[0], key) in blobs:
            return key
    return None


def known_forms(document: Mapping[str, Any], to: str) -> Iterator[tuple[StoredArtifact, Form]]:
    """What an attempt that was migrated before tells of artifacts that others share with it."""
    for name, before in earlier_forms(document).items():
        info = document["info"].get(name)
        if info is None or is_packed(info) != (to == "packed"):
            continue
        for key, was in before:
            if is_packed(was) != is_packed(info):
                yield StoredArtifact(name, key), (document["objects"][name], info)
