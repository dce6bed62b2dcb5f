"""Refs by what their notes say, and tables of them.

Everything is asked for in bulk: a listing of the refs, then all refs together, then the recipes of those whose notes
are their keys'. Nothing is unpickled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from mfstore.conditions import Condition, conditions
from mfstore.errors import InvalidKey, MfstoreError, NotFound, Unsupported, WrongArgument
from mfstore.format.digests import Key
from mfstore.format.recipes import Recipe, recipe_path
from mfstore.names import duration_of
from mfstore.records import dataclass
from mfstore.ref_objects import read_refs
from mfstore.stats import stat_of

if TYPE_CHECKING:
    from mfstore.format.refs import RefEntry
    from mfstore.handle import Handle

    Since = float | str | datetime | date | timedelta

TOGETHER = 1000
"""Refs, and recipes, that are held at a time: a recipe of a task takes some kilobytes."""
COLUMNS = ("ref", "key", "time", "size", "creator")


@dataclass(frozen=True, slots=True)
class Found:
    """A value of a ref."""

    ref: str
    """The name: of a former value ``ref@n``."""
    key: Key
    time: float
    """When the ref was set to it, in seconds since the epoch, on the clock of who did."""
    note: dict[str, Any] | None
    """The note that it was set with; where there was none, the key's."""

    def __repr__(self) -> str:
        from mfstore.display.amounts import age
        from mfstore.display.words import note_text, one_line, short_key

        note = "" if self.note is None else f": {one_line(note_text(self.note))}"
        return f"<Found {one_line(self.ref)}, {short_key(self.key)}, set {age(self.time)}{note}>"


def find(
    handle: Handle, names: Sequence[str], where: Mapping[str, Any] | None, since: Since | None, history: bool = False
) -> Iterator[Found]:
    """The values of these refs whose notes meet the conditions, and that were set since then."""
    wanted = conditions(where)
    return (found for found, _ in _matching(handle, names, wanted, _begin(since), history, False))


def _matching(
    handle: Handle, names: Sequence[str], wanted: Sequence[Condition], begin: float, history: bool, recipes: bool
) -> Iterator[tuple[Found, Recipe | None]]:
    """What matches; with ``recipes`` each with its recipe."""
    source = iter(names)
    while window := list(islice(source, TOGETHER)):
        values = [value for value in _values(handle, window, history) if value[1].time >= begin]
        keys = [entry.key for _, entry in values if recipes or entry.note is None]
        read = _recipes(handle, keys)
        for name, entry in values:
            recipe = read.get(entry.key)
            note = entry.note
            if note is None and recipe is not None:
                note = recipe.described.note
            if all(condition.holds(note or {}) for condition in wanted):
                yield Found(name, entry.key, entry.time, note), recipe


def _values(handle: Handle, names: Sequence[str], history: bool) -> Iterator[tuple[str, RefEntry]]:
    """The present value of each ref, or all of them, the newest first. What was removed meanwhile is passed over."""
    for name, stored in zip(names, read_refs(handle.backend, names), strict=True):
        if isinstance(stored, NotFound):
            continue
        if isinstance(stored, MfstoreError):
            raise stored
        if not history:
            yield from ((name, entry) for entry in stored.entries[-1:])
            continue
        for back, entry in enumerate(reversed(stored.entries)):
            yield f"{name}@{back}", entry


def _recipes(handle: Handle, keys: Iterable[Key]) -> dict[Key, Recipe]:
    """The recipe of each key. NotFound and CorruptObject name the key."""
    unique = list(dict.fromkeys(keys))
    found = handle.backend.get_many([recipe_path(key) for key in unique]) if unique else ()
    return {key: handle.decode(key, data) for key, (_, data) in zip(unique, found, strict=True)}


def _begin(since: Since | None) -> float:
    """Seconds since the epoch. InvalidKey for what is no time."""
    if since is None:
        return float("-inf")
    if isinstance(since, timedelta):
        return time.time() - since.total_seconds()
    if isinstance(since, datetime):
        return since.timestamp()
    if isinstance(since, date):
        return datetime(since.year, since.month, since.day).timestamp()
    if isinstance(since, (int, float)):
        return float(since)
    ago = duration_of(since) if isinstance(since, str) else None
    if ago is not None:
        return time.time() - ago
    try:
        return datetime.fromisoformat(since).timestamp()
    except (TypeError, ValueError):
        raise InvalidKey(
            "since is no time", found=f"{since!r:.80}",
            hint="Write '2026-11-30', '2h', a datetime, a timedelta or seconds since the epoch",
        ) from None  # fmt: skip


def table(
    handle: Handle, named: Callable[[str], list[str]], refs: str | Iterable[str], where: Mapping[str, Any] | None,
    since: Since | None, history: bool,
) -> Any:  # fmt: skip
    """What ``Store.table`` returns. ``named`` gives the names of the refs of a prefix or pattern."""
    pandas = _pandas()
    wanted, begin = conditions(where), _begin(since)
    if isinstance(refs, str):
        names = named(refs)
        names = [refs] if refs in names else names
    else:
        names = list(dict.fromkeys(refs))
        for name in names:
            if not isinstance(name, str):
                raise WrongArgument("refs are names", found=f"{name!r:.80}")
        there = dict(zip(names, read_refs(handle.backend, names), strict=True))
        missing = [name for name in names if isinstance(there[name], NotFound)]
        if missing:
            raise NotFound(f"no ref {missing[0]!r}", backend=handle.backend.url)
    rows = []
    fields: dict[str, None] = {}
    for found, recipe in _matching(handle, names, wanted, begin, history, True):
        assert recipe is not None
        stat = stat_of(found.key, recipe)
        row = {"ref": found.ref, "key": str(found.key), "time": found.time, "size": stat.size, "creator": stat.creator}
        for name, value in flat(found.note or {}):
            column = f"note.{name}" if name in COLUMNS else name
            row[column] = value
            fields[column] = None
        rows.append(row)
    frame = pandas.DataFrame(rows, columns=[*COLUMNS, *fields])
    # For people: fractions of a second, which the history of a ref has, would make the table wide.
    frame["time"] = pandas.to_datetime(frame["time"].astype("float64"), unit="s", utc=True).dt.floor("s")
    return frame


def flat(note: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a note, those of dicts in it by dotted names."""
    for name, value in note.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise Unsupported(
            "a table is a DataFrame of pandas, which is not installed", hint="pip install pandas"
        ) from error
    return pandas
