"""The control group of this process, as Linux and containers have them: what it may use, and how often it was held
back. Of both versions: 2, and 1, which older clusters still have.

A group is a directory of small files. A limit of any group above holds too, so the least one counts; in a container
only its own group is shown, as the root. What the files say is public ("Control Group v2" and "CFS Bandwidth Control"
of the kernel's documentation).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

OWN, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
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
    _cpu: Path | None = None
    _memory: Path | None = None
    """The groups that have these limits."""

    def counts(self) -> GroupCounts:
        """How often it was held back until now by the limits that there are."""
        stat = _table(self._cpu, "cpu.stat")
        seconds = stat["throttled_usec"] / 1e6 if "throttled_usec" in stat else stat.get("throttled_time", 0) / 1e9
        events = _table(self._memory, "memory.events")
        refused = events.get("max", 0) + events.get("high", 0) + (_number(self._memory, "memory.failcnt") or 0)
        return GroupCounts(stat.get("nr_periods", 0), stat.get("nr_throttled", 0), seconds, refused)


def control_group(own: Path = OWN, groups: Path = GROUPS) -> ControlGroup:
    """The limits of this process. What cannot be read is no limit: elsewhere than on Linux there is none."""
    cpus: list[tuple[float, Path]] = []
    memory: list[tuple[int, Path]] = []
    for directory in _groups(own, groups, "cpu"):
        with suppress(OSError, ValueError, ZeroDivisionError):
            if (directory / "cpu.max").exists():
                quota, period = (directory / "cpu.max").read_text("ascii").split()  # "max" is no number
            else:
                quota, period = (
                    (directory / f"cpu.cfs_{name}_us").read_text("ascii") for name in ("quota", "period")
                )  # fmt: skip
            if int(quota) > 0:  # version 1 writes none as -1
                cpus.append((int(quota) / int(period), directory))
    for directory in _groups(own, groups, "memory"):
        found = [_number(directory, name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
        memory += [(limit, directory) for limit in found if limit is not None and limit < NO_LIMIT]
    least, most = min(cpus, default=(None, None)), min(memory, default=(None, None))
    return ControlGroup(least[0], most[0], least[1], most[1])


def _groups(own: Path, groups: Path, controller: str) -> Iterator[Path]:
    """The directories that have a controller's files: of the own group, of those above it, and the root."""
    places = {(groups, "/")}
    with suppress(OSError, UnicodeDecodeError):
        for line in own.read_text("utf-8").splitlines():
            number, _, rest = line.partition(":")
            names, _, path = rest.partition(":")
            if number == "0" and not names:
                places.add((groups, path))
            elif controller in names.split(","):
                places |= {(groups / names, path), (groups / names, "/"), (groups / controller, path)}
    seen: set[Path] = set()
    for top, path in sorted(places):
        while True:
            directory = top / path.strip("/")
            if directory not in seen and ".." not in path:
                seen.add(directory)
                yield directory
            if path in ("", "/"):
                break
            path = path.rpartition("/")[0]


def _number(directory: Path | None, name: str) -> int | None:
    with suppress(OSError, ValueError):
        return int((directory / name).read_text("ascii")) if directory is not None else None
    return None


def _table(directory: Path | None, name: str) -> dict[str, int]:
    """A file of names and numbers."""
    found: dict[str, int] = {}
    with suppress(OSError, ValueError):
        for line in (directory / name).read_text("ascii").splitlines() if directory is not None else ():
            word, _, number = line.partition(" ")
            found[word] = int(number)
    return found
