"""Which values of refs stay: the policy of a store's owner. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mfstore.durations import ttl_of
from mfstore.errors import InvalidKey
from mfstore.format.refs import RefEntry
from mfstore.maintenance.periods import last_of_periods


@dataclass(frozen=True, slots=True)
class Retention:
    """What to keep besides each ref's newest value. Without ``keep_last``, ``keep_age`` and ``keep_hourly`` to
    ``keep_yearly``: everything whose own time is not over."""

    keep_last: int | None = None
    """Newest values kept of each ref, and newest refs kept of each series."""
    keep_age: float | None = None
    """Values that were current within so many seconds are kept; so are refs of a series that were set within them, and
    keys nobody names that were stored within them."""
    pinned: tuple[str, ...] = ()
    """Patterns (``prod/*``) of refs that are kept with their whole history."""
    series: tuple[str, ...] = ()
    """Patterns (``runs/*``) of refs that belong together: what no other rule keeps of them is removed."""
    keep_hourly: int | None = None
    """Of how many of the latest hours in which a ref was set the last value is kept; of each series the last ref."""
    keep_daily: int | None = None
    keep_weekly: int | None = None
    keep_monthly: int | None = None
    keep_yearly: int | None = None

    @property
    def periods(self) -> Mapping[str, int | None]:
        """The same of all periods."""
        return {
            "hourly": self.keep_hourly, "daily": self.keep_daily, "weekly": self.keep_weekly,
            "monthly": self.keep_monthly, "yearly": self.keep_yearly,
        }  # fmt: skip

    @property
    def keeps_all(self) -> bool:
        """Whether no rule lets go of old values."""
        return self.keep_last is None and self.keep_age is None and not any(self.periods.values())

    def __post_init__(self) -> None:
        numbers = {"keep_last": self.keep_last, **{f"keep_{kind}": number for kind, number in self.periods.items()}}
        for name, number in numbers.items():
            if number is not None and number < 1:
                raise InvalidKey(f"{name} must be at least 1", found=number)
        if self.keep_age is not None and not self.keep_age >= 0:
            raise InvalidKey("keep_age must not be negative", found=self.keep_age)
        if self.series and self.keeps_all:
            raise InvalidKey(
                "a series needs keep_last, keep_age, or keep_daily and its like", found=", ".join(self.series)
            )


@dataclass(frozen=True, slots=True)
class RefVersion:
    """A ref as it was read."""

    etag: str
    entries: tuple[RefEntry, ...]
    """Oldest first."""
    unconfirmed: RefEntry | None = None
    """What it will name once that is confirmed."""
    modified: float = 0.0
    """When it was stored, by the store's clock."""


@dataclass(frozen=True, slots=True)
class RefChange:
    """What is to happen to one ref."""

    name: str
    etag: str
    kept: tuple[RefEntry, ...]
    """Oldest first; nothing: the ref is removed."""
    dropped: tuple[RefEntry, ...]


def plan_refs(
    refs: Mapping[str, RefVersion], retention: Retention, now: float, abandoned: float = -float("inf")
) -> list[RefChange]:
    """The refs to shorten or remove. ``now`` is compared with the times at which writers set the refs.

    A ref that somebody is setting is left alone; one whose setting began before the time ``abandoned``, by the store's
    clock, and was not confirmed is put back as it was.
    """
    changes = [
        RefChange(name, ref.etag, ref.entries, (ref.unconfirmed,))
        for name, ref in sorted(refs.items())
        if ref.unconfirmed is not None and ref.modified < abandoned
    ]
    refs = {name: ref for name, ref in refs.items() if ref.unconfirmed is None}
    oldest = -float("inf") if retention.keep_age is None else now - retention.keep_age
    removed = _removed(refs, retention, oldest, now)
    for name, ref in sorted(refs.items()):
        kept = () if name in removed else _kept(name, ref.entries, retention, oldest, now)
        if len(kept) < len(ref.entries):
            dropped = tuple(entry for entry in ref.entries if entry not in kept)
            changes.append(RefChange(name, ref.etag, kept, dropped))
    return changes


def unclear_ttls(refs: Mapping[str, RefVersion]) -> list[str]:
    """The refs whose note says how long a value is meant to stay, in words that are not understood."""
    return sorted(name for name, ref in refs.items() if any(_expires(entry)[1] for entry in ref.entries))


def _expires(entry: RefEntry) -> tuple[float | None, bool]:
    """Until when a value is meant to stay, None when it does not say; and whether what it says is not understood."""
    try:
        ttl = ttl_of(entry.note)
    except InvalidKey:
        return None, True
    return None if ttl is None else entry.time + ttl, False


def _is_over(entry: RefEntry, now: float) -> bool:
    expires, _ = _expires(entry)
    return expires is not None and expires <= now


def _must_stay(entry: RefEntry, now: float) -> bool:
    """Whether a value is meant to stay for longer, or says something about that which is not understood. A time that
    is no number keeps it."""
    expires, unclear = _expires(entry)
    return unclear or (expires is not None and not expires <= now)


def _matches(name: str, patterns: Sequence[str]) -> str | None:
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def _removed(refs: Mapping[str, RefVersion], retention: Retention, oldest: float, now: float) -> set[str]:
    """The old refs of each series. Those whose own time is over count for nothing there."""
    removed = set()
    series: dict[str, list[tuple[float, str]]] = {}
    for name, ref in refs.items():
        pattern = _matches(name, retention.series)
        pinned = _matches(name, retention.pinned) is not None
        if pattern is not None and not pinned and not _is_over(ref.entries[-1], now):
            series.setdefault(pattern, []).append((ref.entries[-1].time, name))
    for members in series.values():
        newest_first = sorted(members, reverse=True)
        of_periods = last_of_periods((time for time, _ in newest_first), retention.periods)
        for number, (time, name) in enumerate(newest_first):
            young = retention.keep_age is not None and not time < oldest
            if number < (retention.keep_last or 0) or young or number in of_periods:
                continue
            if not _must_stay(refs[name].entries[-1], now):
                removed.add(name)
    return removed


def _kept(
    name: str, entries: tuple[RefEntry, ...], retention: Retention, oldest: float, now: float
) -> tuple[RefEntry, ...]:
    if _matches(name, retention.pinned) is not None:
        return entries
    if _is_over(entries[-1], now):  # with it goes the ref, but for what is meant to stay longer
        return tuple(entry for entry in entries if _must_stay(entry, now))
    alive = [entry for entry in entries if not _is_over(entry, now)]
    if retention.keeps_all:
        return tuple(alive)
    last = len(alive) - max(1, retention.keep_last or 1)
    of_periods = last_of_periods((entry.time for entry in reversed(alive)), retention.periods)
    kept = []
    for number, entry in enumerate(alive):
        # A value was current until the next one was set. A time that is no number keeps it.
        current_until = alive[number + 1].time if number + 1 < len(alive) else float("inf")
        if (
            number >= last
            or (retention.keep_age is not None and not current_until < oldest)
            or len(alive) - 1 - number in of_periods
            or _must_stay(entry, now)
        ):
            kept.append(entry)
    return tuple(kept)
