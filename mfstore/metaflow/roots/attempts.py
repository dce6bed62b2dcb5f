"""Which attempt of a task is to be read: Metaflow's rules, on names found by listing.

``<N>.attempt.json`` tells that attempt N started, ``<N>.DONE.lock`` that it ended well. Only the latest attempt that
started is read, and only if it ended. ``<N>.task_begin`` tells that it ran: one that a resumed run took over did not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

STARTED = "attempt.json"
DONE = "DONE.lock"
DATA = "data.json"
BEGAN = "task_begin"
PARAMETERS = "_parameters"
RESUMED = ("_resume_done", "_resume_leader")
"""Files of a task, without an attempt, that only a resumed run has: of its parameters."""


class Attempts:
    """What a listing shows of one task."""

    __slots__ = ("data", "done", "ran", "resumed", "started")

    def __init__(self) -> None:
        self.started: set[int] = set()
        self.done: set[int] = set()
        self.data: dict[int, tuple[str, float]] = {}
        """ETag, and time in seconds since the epoch, of the data.json of each attempt that has one."""
        self.ran: set[int] = set()
        self.resumed = False

    def stored_its_own(self, task: str, attempt: int) -> bool:
        """Whether a finished attempt stored what its data.json refers to, rather than took it over from the task of
        another run: then nobody has looked at it for as long as that is old."""
        return not self.resumed if task.split("/")[2] == PARAMETERS else attempt in self.ran

    @property
    def latest(self) -> int | None:
        """The latest attempt that started."""
        return max(self.started, default=None)


def attempts_of(listing: Iterable[tuple[str, str, float]]) -> dict[str, Attempts]:
    """``(path, etag, time)`` of objects to the attempts of each task, by its path."""
    tasks: dict[str, Attempts] = {}
    for path, etag, modified in listing:
        task, _, name = path.rpartition("/")
        number, _, suffix = name.partition(".")
        if name in RESUMED:
            tasks.setdefault(task, Attempts()).resumed = True
        if suffix not in (STARTED, DONE, DATA, BEGAN) or not number.isdigit():
            continue
        found = tasks.setdefault(task, Attempts())
        if suffix == STARTED:
            found.started.add(int(number))
        elif suffix == DONE:
            found.done.add(int(number))
        elif suffix == BEGAN:
            found.ran.add(int(number))
        else:
            found.data[int(number)] = etag, modified
    return tasks


def readable(
    tasks: Mapping[str, Attempts], wanted: Mapping[str, range], allow_not_done: bool, include_prior: bool
) -> list[tuple[str, int]]:
    """The attempts to read of each wanted task, among the attempts in its range; as
    ``FlowDataStore.get_task_datastores``."""
    chosen: list[tuple[str, int]] = []
    for task, among in wanted.items():
        found = tasks.get(task, Attempts())
        started = found.started.intersection(among)
        done = found.done.intersection(among)
        latest = {max(started)} if started else set()
        if include_prior:
            numbers = done | latest if allow_not_done else done
        else:
            numbers = latest if allow_not_done else latest & done
        chosen += [(task, number) for number in sorted(numbers)]
    return chosen
