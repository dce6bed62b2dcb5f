"""Which values of refs stay: the policy of a store's owner. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mfstore.errors import InvalidKey
from mfstore.format.refs import RefEntry


@dataclass(frozen=True, slots=True)
class Retention:
    """What to keep besides each ref's newest value. Without ``keep_last`` and ``keep_age``: everything."""

    keep_last: int | None = None
    """Newest values kept of each ref, and newest refs kept of each series."""
    keep_age: float | None = None
    """Values that were current within so many seconds are kept; so are refs of a series that were set within them, and
    keys nobody names that were stored within them."""
    pinned: tuple[str, ...] = ()
    """Patterns (``prod/*``) of refs that are kept with their whole history."""
    series: tuple[str, ...] = ()
    """Patterns (``runs/*``) of refs that belong together: beyond ``keep_last`` and ``keep_age`` they are removed."""

    def __post_init__(self) -> None:
        if self.keep_last is not None and self.keep_last < 1:
            raise InvalidKey("keep_last must be at least 1", found=self.keep_last)
        if self.keep_age is not None and not self.keep_age >= 0:
            raise InvalidKey("keep_age must not be negative", found=self.keep_age)
        if self.series and self.keep_last is None and self.keep_age is None:
            raise InvalidKey("a series needs keep_last or keep_age", found=", ".join(self.series))


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
    removed = _removed(refs, retention, oldest)
    for name, ref in sorted(refs.items()):
        kept = () if name in removed else _kept(name, ref.entries, retention, oldest)
        if len(kept) < len(ref.entries):
            dropped = tuple(entry for entry in ref.entries if entry not in kept)
            changes.append(RefChange(name, ref.etag, kept, dropped))
    return changes


def _matches(name: str, patterns: Sequence[str]) -> str | None:
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def _removed(refs: Mapping[str, RefVersion], retention: Retention, oldest: float) -> set[str]:
    series: dict[str, list[tuple[float, str]]] = {}
    for name, ref in refs.items():
        pattern = _matches(name, retention.series)
        if pattern is not None and _matches(name, retention.pinned) is None:
            series.setdefault(pattern, []).append((ref.entries[-1].time, name))
    removed = set()
    for members in series.values():
        newest_first = sorted(members, reverse=True)
        for time, name in newest_first[retention.keep_last or 0 :]:
            if retention.keep_age is None or time < oldest:
                removed.add(name)
    return removed


def _kept(name: str, entries: tuple[RefEntry, ...], retention: Retention, oldest: float) -> tuple[RefEntry, ...]:
    if _matches(name, retention.pinned) is not None or (retention.keep_last is None and retention.keep_age is None):
        return entries
    last = len(entries) - max(1, retention.keep_last or 1)
    kept = []
    for number, entry in enumerate(entries):
        # A value was current until the next one was set. A time that is no number keeps it.
        current_until = entries[number + 1].time if number + 1 < len(entries) else float("inf")
        if number >= last or (retention.keep_age is not None and not current_until < oldest):
            kept.append(entry)
    return tuple(kept)
