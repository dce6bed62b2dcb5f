"""What an administrator wants to keep of the runs of a Metaflow root. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mfstore.errors import InvalidKey
from mfstore.maintenance.clock import DAY

Run = tuple[str, str]
"""Flow and run."""
GROUPS = ("flow", "branch", "user", "origin")
"""What a group of runs may have in common."""


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """What to keep. A run goes only if nothing keeps it; times are in seconds."""

    last: int | None = None
    """Of each group: the newest run down to so many that count, which are those that did not fail; so many of any kind
    at least."""
    age: float | None = None
    """Runs that began within this time."""
    tags: tuple[str, ...] = ()
    """Runs with a tag that matches one of these patterns."""
    pinned: tuple[str, ...] = ()
    """Runs, as flow/run, that match one of these patterns."""
    flows: tuple[str, ...] = ()
    """Only runs of flows that match one of these patterns may go; none given: of any."""
    grace: float = DAY
    """Nothing is removed before it was condemned for so long, and no run with a file younger than this."""
    running: float = 7 * DAY
    """An attempt that has not ended is never taken to be running when it has neither a heartbeat nor shown a sign of
    life for so long."""
    last_successful: int | None = None
    """Of each group: the newest so many that count, and no others among them."""
    hourly: int | None = None
    """Of each group, and of those that count: the last one of each of the latest so many hours that have one."""
    daily: int | None = None
    weekly: int | None = None
    monthly: int | None = None
    yearly: int | None = None
    group_by: tuple[str, ...] = ("flow", "branch")
    """What the runs of a group have in common: some of ``GROUPS``."""
    deployed: bool = True
    """Whether the last successful run of each deployment is kept."""
    ttl: bool = True
    """Whether runs go when the time that their tag ``ttl:30d`` says is over. Until then they stay in any case."""
    max_drop: float | None = None
    """The share of the runs, 0 to 1, that one collection may condemn; more is refused."""

    @property
    def periods(self) -> Mapping[str, int | None]:
        """Of how many hours, days, weeks, months and years the last run is kept."""
        return {
            "hourly": self.hourly, "daily": self.daily, "weekly": self.weekly, "monthly": self.monthly,
            "yearly": self.yearly,
        }  # fmt: skip

    def check(self) -> None:
        """InvalidKey when the policy does not say what may go."""
        numbers = [number for number in (self.last, self.last_successful, *self.periods.values()) if number is not None]
        if not numbers and self.age is None:
            raise InvalidKey(
                "say how much to keep",
                hint="Give --keep-last, --keep-last-successful, --keep-age, or --keep-daily and its like",
            )
        if min([*numbers, self.grace, self.running, self.age or 0]) < 0:
            raise InvalidKey("a policy has no negative numbers")
        if self.max_drop is not None and not 0 <= self.max_drop <= 1:
            raise InvalidKey("the share of runs that may go is between 0 and 1", found=self.max_drop)
        for name in self.group_by:
            if name not in GROUPS:
                raise InvalidKey("runs are not grouped by that", found=repr(name), hint=f"One of {', '.join(GROUPS)}")
        for pattern in self.pinned:
            if "/" not in pattern:
                raise InvalidKey("a pinned run is flow/run", found=repr(pattern))

    def judges(self, flow: str) -> bool:
        """Whether runs of this flow may go."""
        return not self.flows or matches(flow, self.flows)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the shell patterns matches."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def unmatched(patterns: Iterable[str], names: Collection[str]) -> tuple[str, ...]:
    """The patterns that none of these names matches. Most are a name, which costs no look at all others."""
    return tuple(
        pattern
        for pattern in patterns
        if pattern not in names and not ({*"*?["} & {*pattern} and any(fnmatchcase(name, pattern) for name in names))
    )
