"""The control group of this process, as Linux and containers have them: what it may use, and how often it was held
back. Of both versions: 2, and 1, which older clusters still have.

A group is a directory of small files. A limit of any group above holds too, so the least one counts; in a container
only its own group is shown, as the root. What the files say is public ("Control Group v2" and "CFS Bandwidth Control"
of the kernel's documentation).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mfstore.settings import GROUPS, OWN_GROUP, control_groups, cpu_quota

NO_LIMIT = 1 << 60
"""Version 1 writes no limit as the most pages that a number can tell."""


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """Since the group was made."""

    periods: int = 0
    """In which the group wanted CPUs at all: of 100 ms each, unless it was set up otherwise."""
    throttled: int = 0
    """Of them, those in which its quota was used up, and it was stopped to their end."""
    throttled_seconds: float = 0.0
    """For which it was stopped, summed up over CPUs."""
    memory_refused: int = 0
    """How often memory had to be won back before more could be had, as the group was at its limit."""

    def __add__(self, other: GroupCounts) -> GroupCounts:
        """Of both, one after the other."""
        return GroupCounts(
            self.periods + other.periods, self.throttled + other.throttled,
            self.throttled_seconds + other.throttled_seconds, self.memory_refused + other.memory_refused,
        )  # fmt: skip

    def __sub__(self, earlier: GroupCounts) -> GroupCounts:
        """What has come since an earlier reading."""
        return GroupCounts(
            self.periods - earlier.periods, self.throttled - earlier.throttled,
            self.throttled_seconds - earlier.throttled_seconds, self.memory_refused - earlier.memory_refused,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """What holds for this process."""

    cpus: float | None = None
    """As many as the quota lets it use; None without one."""
    memory: int | None = None
    """Bytes, page cache included; None without a limit."""
    _cpu: str | None = None
    _memory: str | None = None
    """The groups that have these limits."""

    def counts(self) -> GroupCounts:
        """How often it was held back until now by the limits that there are."""
        stat = _table(self._cpu, "cpu.stat")
        seconds = stat["throttled_usec"] / 1e6 if "throttled_usec" in stat else stat.get("throttled_time", 0) / 1e9
        events = _table(self._memory, "memory.events")
        refused = events.get("max", 0) + events.get("high", 0) + (_number(self._memory, "memory.failcnt") or 0)
        return GroupCounts(stat.get("nr_periods", 0), stat.get("nr_throttled", 0), seconds, refused)


def control_group(own: str = OWN_GROUP, groups: str = GROUPS) -> ControlGroup:
    """The limits of this process. What cannot be read is no limit: elsewhere than on Linux there is none."""
    memory: list[tuple[int, str]] = []
    for directory in control_groups(own, groups, "memory"):
        found = [_number(directory, name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
        memory += [(limit, directory) for limit in found if limit is not None and limit < NO_LIMIT]
    cpus, group = cpu_quota(own, groups)
    least = min(memory, default=(None, None))
    return ControlGroup(cpus, least[0], group, least[1])


def _number(directory: str | None, name: str) -> int | None:
    with suppress(OSError, ValueError):
        return int(Path(directory, name).read_text("ascii")) if directory is not None else None
    return None


def _table(directory: str | None, name: str) -> dict[str, int]:
    """A file of names and numbers."""
    found: dict[str, int] = {}
    with suppress(OSError, ValueError):
        for line in Path(directory, name).read_text("ascii").splitlines() if directory is not None else ():
            word, _, number = line.partition(" ")
            found[word] = int(number)
    return found
