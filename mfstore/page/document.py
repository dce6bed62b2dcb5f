"""What a page holds: JSON in columns, each text once, within a budget of bytes. Without I/O.

A table of ten thousand refs as dicts would be five times as long, and a browser would take as much longer to read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from mfstore.display.words import shortened
from mfstore.page.facts import Content, Entry, Facts, Part, Space

BUDGET = 18_000_000
"""Bytes of JSON in a page: with what shows it 20 MB are a page that a browser opens in two seconds."""
LONGEST_TEXT = 4000
"""Letters of a note, of a type, of an error; of what is longer that is told."""
LONGEST_NAME = 1000
LONGEST_CELL = 400
"""Letters of a side of a comparison."""
LARGEST = (1 << 53) - 1
"""What a number in a browser counts up to."""
GROUPS = 2000
"""Groups of bytes that are told by name, the largest; the others by what their names begin with."""


class Cut(NamedTuple):
    """How much of what was read goes into the page."""

    values: int
    """Of each ref, the newest."""
    parts: int
    """Artifacts of what is stored under one key."""
    entries: int
    """Refs, those set last."""


_ALL = 1 << 40
CUTS = (
    Cut(_ALL, _ALL, _ALL),
    Cut(5, 200, _ALL),
    Cut(2, 50, _ALL),
    Cut(1, 20, _ALL),
    Cut(1, 5, _ALL),
    *(Cut(1, 5, 1 << bits) for bits in range(18, 0, -1)),
    Cut(0, 0, 0),
)
"""From all to nothing: the first that fits is used."""


def document(facts: Facts, budget: int = BUDGET) -> str:
    """The page's data as JSON that can stand in HTML, at most ``budget`` bytes of it: nothing in it ends an element or
    begins a comment."""
    tried: Cut | None = None
    for cut in CUTS:
        if tried is not None and not _cuts_more(facts, cut, tried):
            continue
        encoded = in_html(json.dumps(_columns(facts, cut), separators=(",", ":")))
        if len(encoded) <= budget:
            break
        tried = cut
    return encoded


def in_html(encoded: str) -> str:
    """JSON, in which these letters are only within texts, without any that HTML takes for markup."""
    return encoded.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _cuts_more(facts: Facts, cut: Cut, tried: Cut) -> bool:
    entries = facts.entries
    if cut.entries < min(len(entries), tried.entries):
        return True
    values = max((len(entry.values) for entry in entries), default=0)
    parts = max((len(content.parts) for content in facts.contents.values()), default=0)
    return cut.values < min(values, tried.values) or cut.parts < min(parts, tried.parts)


class _Texts:
    """Texts by number, each once; 0 is the empty one."""

    def __init__(self) -> None:
        self.all = [""]
        self._numbers = {"": 0}

    def of(self, text: str, letters: int = LONGEST_TEXT) -> int:
        found = self._numbers.get(text)
        if found is None:
            found = self._numbers[text] = len(self.all)
            self.all.append(cut_text(text, letters))
        return found


def cut_text(text: str, letters: int) -> str:
    """A text of at most so many letters, and of a longer one how long it was."""
    return text if len(text) <= letters else f"{text[:letters]}… ({len(text):,} letters in all)"


def _columns(facts: Facts, cut: Cut) -> dict[str, Any]:
    entries = _entries(facts.entries, cut)
    texts = _Texts()
    numbers: dict[str, int] = {}
    shown = [(value, numbers.setdefault(value.key, len(numbers))) for entry in entries for value in entry.values]
    contents = [(key, facts.contents.get(key, Content(""))) for key in numbers]
    kept = [content.parts[: cut.parts] for _, content in contents]
    named = {entry.name: number for number, entry in enumerate(entries)}
    notes = [*facts.notes, *_left_out(facts, entries, contents, cut)]
    return {
        "kind": facts.kind, "place": cut_text(facts.place, LONGEST_NAME), "title": cut_text(facts.title, LONGEST_NAME),
        "made": round(facts.made), "version": facts.version, "amounts": facts.amounts,
        "entries": {
            "name": [cut_text(entry.name, LONGEST_NAME) for entry in entries],
            "n": [len(entry.values) for entry in entries],
            "total": [entry.total for entry in entries],
            "trouble": [texts.of(entry.trouble) for entry in entries],
        },
        "values": {
            **({} if facts.kind == "store" else {"label": [texts.of(value.label) for value, _ in shown]}),
            "content": [number for _, number in shown],
            "time": [_whole(value.time) for value, _ in shown],
            "note": [texts.of(value.note) for value, _ in shown],
            "fresh": [_whole(value.fresh) for value, _ in shown],
        },
        "contents": {
            "key": [key for key, _ in contents],
            "kind": [texts.of(content.kind) for _, content in contents],
            "size": [_whole(content.size) for _, content in contents],
            "stored": [_whole(content.stored) for _, content in contents],
            "created": [_whole(content.created) for _, content in contents],
            "creator": [texts.of(content.creator) for _, content in contents],
            "note": [texts.of(content.note) for _, content in contents],
            "trouble": [texts.of(content.trouble) for _, content in contents],
            "n": [len(parts) for parts in kept],
            "total": [len(content.parts) for _, content in contents],
        },
        "parts": _parts([part for parts in kept for part in parts], texts),
        "spaces": [_space(space) for space in facts.spaces],
        "growth": facts.growth,
        "compared": [
            {
                "entry": named[found.name], "old": found.old, "new": found.new,
                "summary": cut_text(found.summary, LONGEST_TEXT), "more": found.more,
                "lines": [[shortened(cell, LONGEST_CELL) for cell in line] for line in found.lines],
            }
            for found in facts.compared
            if found.name in named
        ],
        "troubles": [cut_text(trouble, LONGEST_TEXT) for trouble in facts.troubles],
        "notes": [cut_text(note, LONGEST_TEXT) for note in notes],
        "text": texts.all,
    }  # fmt: skip


def _entries(entries: Sequence[Entry], cut: Cut) -> list[Entry]:
    """Those that stay, in their order, with the values that stay."""
    chosen = range(len(entries))
    if len(entries) > cut.entries:
        newest = sorted(chosen, key=lambda number: -_last_set(entries[number]))[: cut.entries]
        return [_with_values(entries[number], cut.values) for number in sorted(newest)]
    return [_with_values(entry, cut.values) for entry in entries]


def _with_values(entry: Entry, values: int) -> Entry:
    """The same with so many of its values at most."""
    return entry if len(entry.values) <= values else entry._replace(values=entry.values[:values])


def _last_set(entry: Entry) -> float:
    """Of what cannot be read it is not known: it is told first."""
    return (entry.values[0].time or 0.0) if entry.values else float("inf")


def _left_out(
    facts: Facts, entries: Sequence[Entry], contents: Sequence[tuple[str, Content]], cut: Cut
) -> Iterator[str]:
    what = "refs" if facts.kind == "store" else "steps"
    where = "mfstore refs" if facts.kind == "store" else "mfstore du --metaflow ROOT --by step"
    if len(entries) < len(facts.entries):
        told = f"{len(facts.entries) - len(entries):,} of {len(facts.entries):,} {what}"
        yield f"{told}, those set longest ago, are left out to keep the page small: {where} lists all"
    elif sum(len(entry.values) for entry in entries) < sum(len(entry.values) for entry in facts.entries):
        yield f"Of each of the {what} only the last {cut.values:,} values are here, to keep the page small"
    if any(len(content.parts) > cut.parts for _, content in contents):
        yield f"Of what holds many artifacts only the first {cut.parts:,} are here: mfstore stat KEY lists all"


def _parts(parts: Sequence[Part], texts: _Texts) -> dict[str, list[int]]:
    marks: dict[str | bytes, int] = {}
    return {
        "name": [texts.of(part.name, LONGEST_NAME) for part in parts],
        "type": [texts.of(part.type) for part in parts],
        "size": [_whole(part.size) for part in parts],
        "mark": [marks.setdefault(part.mark, len(marks)) for part in parts],
    }


def _space(space: Space) -> dict[str, Any]:
    shown = space.groups[:GROUPS]
    rest = _rest(space.groups[GROUPS:])
    return {
        "by": space.by, "own": space.own, "shared": space.shared, "unheld": space.unheld,
        "name": [cut_text(name, LONGEST_NAME) for name, _, _ in shown],
        "owns": [own for _, own, _ in shown],
        "shares": [shared for _, _, shared in shown],
        "rest": [[cut_text(name, LONGEST_NAME), number, own] for name, number, own in rest],
    }  # fmt: skip


def _rest(groups: Iterable[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Number and own bytes of groups by what stands before the last slash of their names; of the smallest that are too
    many, by nothing."""
    found: dict[str, tuple[int, int]] = {}
    for name, own, _ in groups:
        before = "" if name.startswith("(") else name.rpartition("/")[0]
        number, sum_ = found.get(before, (0, 0))
        found[before] = number + 1, sum_ + own
    rows = sorted(((name, *sums) for name, sums in found.items()), key=lambda row: -row[2])
    many = rows[GROUPS:]
    told = [("", sum(number for _, number, _ in many), sum(own for _, _, own in many))] if many else []
    return rows[:GROUPS] + told


def _whole(number: float | None) -> int:
    """-1: not known. What no program counts exactly is as much as one does: it may be what somebody has made up."""
    return -1 if number is None else round(max(-LARGEST, min(LARGEST, number)))
