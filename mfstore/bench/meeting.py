"""Several machines begin at the same time. They meet in the scratch prefix, which all of them can reach: no machine
needs to reach another, and tasks of a scheduler, of which nobody knows when they begin, meet like machines over ssh."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep, time

from mfstore.backends.base import Backend
from mfstore.bench.plan import Step
from mfstore.errors import BackendError, Refused

LEAD = 2.0
"""Seconds from the last one's coming to the common start: all have seen by then that the last one has come."""
LOOK = 0.25
"""Seconds between looks for the others."""


class Meeting:
    """One of ``of`` machines. ``notes``: where they tell each other, empty at first."""

    def __init__(
        self, notes: Backend, number: int, of: int, patience: float, *, clock: Callable[[], float] = time,
        wait: Callable[[float], None] = sleep,
    ) -> None:  # fmt: skip
        self._notes = notes
        self._number, self._of, self._patience = number, of, patience
        self._clock, self._wait = clock, wait
        self._turn = 0

    def join(self) -> None:
        """Say that this machine takes part. Refused when somebody has said so of it: it was begun before, and was lost
        with what it had measured."""
        key = f"joined/{self._number}"
        if any(entry.key == key for entry in self._notes.list("joined/")):
            raise Refused(
                f"client {self._number} was begun before and was lost: what the others measured lacks it",
                hint="Measure again",
            )  # fmt: skip
        self._notes.put(key, [b"1"])

    def __call__(self, step: Step) -> None:
        """Wait until all are about to begin this step, and the time has come. BackendError when one does not come."""
        folder = f"step-{self._turn}/"
        self._turn += 1
        self._notes.put(f"{folder}{self._number}", [f"{self._clock():.6f}".encode()])
        deadline = self._clock() + self._patience
        while True:
            there = sorted(entry.key for entry in self._notes.list(folder))
            if len(there) == self._of:
                break
            if self._clock() > deadline:
                names = ", ".join(key.removeprefix(folder) for key in there)
                raise BackendError(
                    f"of {self._of} clients only {names} came to {step.operation} within {self._patience:.0f} s",
                    hint="The others were lost, or wait to be started: look at them",
                )  # fmt: skip
            self._wait(LOOK)
        start = max(float(bytes(self._notes.get(key))) for key in there) + LEAD
        self._wait(max(start - self._clock(), 0.0))
