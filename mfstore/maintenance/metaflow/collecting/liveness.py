"""Which attempts are running, by the last sign of life of each and by how long its flow takes. Pure.

Nothing tells that an attempt was killed: it began, and has no end. For how long it may yet end is told by its heartbeat
where there is one, and else by what attempts of the same step took.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mfstore.metaflow.roots.attempts import DATA

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.collecting.policy import Run
    from mfstore.maintenance.metaflow.listed_tasks import TaskName
    from mfstore.metaflow.roots.layout import Task

SILENCE = 3600.0
"""Seconds without a sign of life after which an attempt counts as killed at the earliest. Heartbeats come every ten
seconds; this leaves room for a metadata service that is down and for a machine that sleeps."""
SLACK = 2.0
"""An attempt may take so many times as long as any of its step did."""

Step = tuple[str, str]
"""Flow and step."""


@dataclass(frozen=True, slots=True)
class Liveness:
    """What tells running attempts from killed ones, at one time."""

    now: float = field(compare=False)
    """Seconds since the epoch, on the storage's clock."""
    longest: float
    """Without a heartbeat, an attempt that showed no sign of life for so many seconds is never taken to be running."""
    took: Mapping[Step, float] = field(default_factory=dict)
    """Seconds that the longest attempt of each step took, of those that ended."""
    heartbeats: Mapping[Run, float] = field(default_factory=dict)
    """The last heartbeat of each run that has one."""

    def patience(self, flow: str, step: str) -> float:
        """For how many seconds after its last sign of life an attempt without a heartbeat is taken to be running. Of a
        step that never ended nothing tells how long it takes."""
        took = self.took.get((flow, step))
        return self.longest if took is None else min(self.longest, max(SILENCE, SLACK * took))

    def running(self, name: TaskName, task: Task) -> int | None:
        """The attempt of a task that is running, or None."""
        found = open_attempt(*name[2:], task)
        return None if found is None or not self.may_end(name[:2], found) else found.attempt

    def may_end(self, run: Run, open_one: OpenAttempt) -> bool:
        """Whether an attempt that did not end is running."""
        sign = open_one.sign
        heartbeat = self.heartbeats.get(run)
        patience = self.patience(run[0], open_one.step)
        if heartbeat is not None:
            sign, patience = max(sign, heartbeat), SILENCE
        return self.now - sign <= patience


class OpenAttempt(NamedTuple):
    """The latest attempt of a task, of which nothing says that it ended. Nobody reads an earlier one any more, should
    it still end."""

    step: str
    task: str
    attempt: int
    sign: float
    """When it wrote its last file."""


def open_attempt(step: str, name: str, task: Task) -> OpenAttempt | None:
    """The attempt of a task that may be running; None where there is none."""
    attempt = unfinished(task)
    if attempt is None:
        return None
    sign = max(info.modified for (number, _), info in task.files.items() if number == attempt)
    return OpenAttempt(step, name, attempt, sign)


def unfinished(task: Task) -> int | None:
    """The latest attempt of a task, if nothing says that it ended; else None. A terminal's scheduler notes when one
    failed. The mark of the end may be seen before what is stored with it."""
    attempt = task.latest
    if attempt is None or (attempt, "runtime") in task.files:
        return None
    return None if attempt in task.done and (attempt, DATA) in task.files else attempt


class Heart(Protocol):
    """What may be known of a run."""

    @property
    def heartbeat(self) -> float | None:
        """The last sign of life; None: none is known."""


def heartbeats_in(records: Mapping[Run, Heart]) -> dict[Run, float]:
    """The last heartbeat of each of these runs that has one."""
    found = ((run, record.heartbeat) for run, record in records.items())
    return {run: heartbeat for run, heartbeat in found if heartbeat is not None}
