"""Names: what a caller gives for a key. A key, a ref, ``ref@n``, ``ref@time``, or the first digits of a key.

``parse`` says what a text may mean, and asks nobody. ``resolve`` asks the store which of that there is, for many names
in two rounds of requests: the refs, then a listing of the keys that begin so. Only for a name that nothing is called a
third one looks for refs that are called alike.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

from mfstore.durations import UNITS
from mfstore.errors import AccessDenied, InvalidKey, MfstoreError, NotFound
from mfstore.format.digests import Key
from mfstore.format.recipes import recipe_path
from mfstore.format.refs import RefEntry, StoredRef, ref_path
from mfstore.records import dataclass
from mfstore.ref_objects import list_refs, read_refs

if TYPE_CHECKING:
    from mfstore.handle import Handle

SHORTEST = 8
"""Digits of a shortened key: among a million keys one in 4000 shares its first eight with another."""
TOLD = 5
"""Keys that a refusal of an ambiguous name tells."""
LOOKED_THROUGH = 1000
"""Refs among which one that is called alike is looked for: one page of a listing."""

_DIGITS = frozenset("0123456789abcdef")
_SHORTENED = re.compile(f"[0-9a-f]{{{SHORTEST},63}}")
_BACK = re.compile("[0-9]+")
_AGO = re.compile(f"([0-9]+(?:\\.[0-9]+)?)({'|'.join(UNITS)})")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d)(?:(:\d\d)(?:(:\d\d)(\.\d{1,6})?)?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII)
_CUT = re.compile("[0-9a-fA-F]{4,}")
"""What was meant for the digits of a key."""
AFTER_AT = "After @ goes a number (@1 is the value before), a time (@2026-11-30T14:00) or how long ago (@2h)"


@dataclass(frozen=True, slots=True)
class Past:
    """A value that a ref had."""

    ref: str
    back: int | None
    """How many values before the present one; or None."""
    before: float | None
    """The last value set before this time, in seconds since the epoch; or None."""


@dataclass(frozen=True, slots=True)
class Name:
    """What a text may mean. What comes first and is there is meant."""

    text: str
    key: Key | None = None
    """A key; then it is nothing else."""
    ref: bool = False
    """The ref that is called so."""
    past: Past | None = None
    """A former value of a ref."""
    begins: str | None = None
    """What a key begins with."""


def parse(text: str, now: float) -> Name:
    """What a text may mean, at the time ``now`` in seconds since the epoch. InvalidKey for what can be no name."""
    if is_key(text):
        return Name(text, Key(text))
    try:
        ref_path(text)
    except InvalidKey as error:
        hint = error.hint if isinstance(text, str) else "A name is text; of many, ask the method that takes many"
        raise InvalidKey("neither a key nor the name of a ref", found=f"{text!r:.80}", hint=hint) from None
    return Name(text, None, True, parse_past(text, now), text if _SHORTENED.fullmatch(text) else None)


def is_key(text: str) -> bool:
    """Whether a text is a key, so that nothing else may be called so."""
    return isinstance(text, str) and len(text) == 64 and _DIGITS.issuperset(text)


def parse_past(text: str, now: float) -> Past | None:
    """A former value of a ref, if a text may mean one."""
    ref, at, when = text.rpartition("@")
    if not at or not ref or ref.endswith("/"):
        return None
    if _BACK.fullmatch(when):
        return Past(ref, int(when), None)
    if (ago := duration_of(when)) is not None:
        return Past(ref, None, now - ago)
    end = end_of(when)
    return None if end is None else Past(ref, None, end)


def duration_of(text: str) -> float | None:
    """Seconds of a duration such as ``2h``; None when it is none."""
    found = _AGO.fullmatch(text)
    return None if found is None else float(found[1]) * UNITS[found[2]]


def end_of(text: str) -> float | None:
    """The end of the day, hour, minute or second that a text tells, in seconds since the epoch: what was set within it
    counts. In local time unless it says another. None when it tells none."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    _, hour, minute, second, fraction, _ = found.groups()
    length = timedelta(hours=1) if hour else timedelta(days=1)
    if minute:
        length = timedelta(minutes=1)
    if second:
        length = timedelta(seconds=1)
    if fraction:
        length = timedelta(microseconds=10 ** (7 - len(fraction)))
    try:
        return (datetime.fromisoformat(text) + length).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def value_of(name: Past, entries: Sequence[RefEntry]) -> RefEntry | None:
    """Which of a ref's values, oldest first, is meant."""
    if name.back is not None:
        return entries[-1 - name.back] if name.back < len(entries) else None
    assert name.before is not None
    return next((entry for entry in reversed(entries) if entry.time < name.before), None)


def resolve(handle: Handle, name: str) -> Key:
    """The key that a name stands for; of a key itself nothing is asked.

    Raises:
        NotFound: nothing is called so. The message says what was looked for, and which refs are called alike.
        InvalidKey: it can be no name, or more than one key begins so.
        CorruptObject: the ref is damaged.
    """
    if type(name) is Key or is_key(name):
        return Key(name)
    (found,) = resolve_many(handle, [name])
    if isinstance(found, MfstoreError):
        raise found
    return found


def base_of(handle: Handle, base: str) -> str:
    """What a save names as an older version, which may be absent: a key or a ref. InvalidKey when it can be no name, or
    looks like a shortened key and names nothing: that is no version that went, but a slip."""
    try:
        name = parse(base, time.time())
    except InvalidKey as error:
        error.message = f"base is {error.message}"
        raise
    if name.key is not None or len(base) < SHORTEST or not _CUT.fullmatch(base):
        return base
    try:
        return resolve(handle, base)
    except NotFound as error:
        raise InvalidKey(f"base names nothing: {error.message}", hint=error.hint) from None


def resolve_many(handle: Handle, names: Sequence[str], *, hints: bool = True) -> list[Key | MfstoreError]:
    """As ``resolve`` of each, together; the error where it is one. Without ``hints`` nobody looks for what is called
    alike."""
    now = time.time()
    found: list[Key | Name | MfstoreError] = []
    for text in names:
        try:
            found.append(Key(text) if is_key(text) else parse(text, now))
        except InvalidKey as error:
            found.append(error)
    wanted = {name.text: name for name in found if isinstance(name, Name)}
    meant = _look(handle, wanted, hints) if wanted else {}
    return [meant[name.text] if isinstance(name, Name) else name for name in found]


def _look(handle: Handle, wanted: dict[str, Name], hints: bool) -> dict[str, Key | MfstoreError]:
    """What each name, none of which is a key, stands for."""
    backend = handle.backend
    handle.require_read()
    if handle.description is None:
        return dict.fromkeys(wanted, handle.no_store())
    refs = [*wanted, *(name.past.ref for name in wanted.values() if name.past is not None)]
    refs = list(dict.fromkeys(refs))
    stored = dict(zip(refs, read_refs(backend, refs), strict=True))
    meant: dict[str, Key | MfstoreError] = {}
    missing: list[Name] = []
    for text, name in wanted.items():
        if (value := _of_ref(name, stored)) is not None:
            meant[text] = value
        else:
            missing.append(name)
    beginnings = {name.begins for name in missing if name.begins is not None}
    try:
        begun = keys_that_begin(handle, beginnings)
        called_nothing = hints and not all(begun.get(name.begins or "") for name in missing)
        others = list(islice(list_refs(backend), LOOKED_THROUGH)) if called_nothing else []
    except MfstoreError as error:
        return meant | dict.fromkeys((name.text for name in missing), error)
    for name in missing:
        keys = begun.get(name.begins or "", [])
        if len(keys) == 1:
            meant[name.text] = keys[0]
        else:
            meant[name.text] = _ambiguous(name, keys) if keys else no_such(handle, name, others)
    return meant


def _of_ref(name: Name, stored: dict[str, StoredRef | MfstoreError]) -> Key | MfstoreError | None:
    """What a name stands for if it is the name of a ref, or of a former value; None: it is not."""
    exact = stored[name.text]
    if isinstance(exact, StoredRef) and exact.entries:
        return exact.entries[-1].key
    refused = exact if isinstance(exact, MfstoreError) and not isinstance(exact, NotFound) else None
    # Who may not list is told "denied" of what is not there: then another meaning that can be read is the one.
    if refused is not None and not isinstance(refused, AccessDenied):
        return refused
    if name.past is not None:
        former = stored[name.past.ref]
        if isinstance(former, StoredRef) and former.entries:
            entry = value_of(name.past, former.entries)
            return _no_such_value(name.past, former.entries) if entry is None else entry.key
        if isinstance(former, MfstoreError) and not isinstance(former, NotFound):
            return former
    return refused


def keys_that_begin(handle: Handle, beginnings: Iterable[str]) -> dict[str, list[Key]]:
    """The keys that begin with each of the texts, in order."""
    ordered = sorted(beginnings)
    prefixes: list[str] = []
    for text in ordered:  # what another one begins is listed with it
        if not prefixes or not text.startswith(prefixes[-1]):
            prefixes.append(text)
    names = sorted(
        info.key.rpartition("/")[2] for info in handle.backend.list_many([recipe_path(text) for text in prefixes])
    )
    keys = [Key(name) for name in names if is_key(name)]
    return {text: [key for key in keys if key.startswith(text)] for text in ordered}


def _ambiguous(name: Name, keys: Sequence[Key]) -> InvalidKey:
    more = f" and {len(keys) - TOLD} more" if len(keys) > TOLD else ""
    return InvalidKey(
        f"{len(keys)} keys begin with {name.text!r}", hint=f"Give more digits: {', '.join(keys[:TOLD])}{more}"
    )


def _no_such_value(past: Past, entries: Sequence[RefEntry]) -> NotFound:
    if past.back is not None:
        have = f"{len(entries)} values: {past.ref}@0 to @{len(entries) - 1}" if len(entries) > 1 else "one value"
        return NotFound(f"ref {past.ref!r} has no value @{past.back}", hint=f"It has {have}")
    first = datetime.fromtimestamp(entries[0].time).isoformat(" ", "seconds")
    return NotFound(f"ref {past.ref!r} had no value at that time", hint=f"Its first one is of {first}")


def no_such(handle: Handle, name: Name, refs: Sequence[str]) -> NotFound:
    """Nothing is called so, though some ``refs`` may be called alike."""
    text = name.text if name.past is None else name.past.ref
    message = f"no ref {name.text!r}"
    if name.past is not None:
        message += f", and none {text!r}"
    if name.begins is not None:
        message += ", and no key begins so"
    hint = None
    if "@" in text and text.rpartition("@")[0] in refs:
        hint = AFTER_AT
    elif near := alike(text, refs):
        hint = f"There is {', '.join(near)}"
    elif name.begins is None and _CUT.fullmatch(text):
        hint = f"A key is shortened to {SHORTEST} of its digits at least, in lower case"
    return NotFound(message, backend=handle.backend.url, hint=hint)


def alike(text: str, refs: Sequence[str]) -> list[str]:
    """Up to three of the refs that are called like ``text``, those first whose last word is the same; small and capital
    letters are alike."""
    import difflib

    folded = {ref: ref.casefold() for ref in refs}
    text = text.casefold()
    word = text.rpartition("/")[2]
    same = [ref for ref, other in folded.items() if other.rpartition("/")[2] == word]
    near = [ref for match in difflib.get_close_matches(text, folded.values()) for ref in refs if folded[ref] == match]
    return list(dict.fromkeys([*same, *near]))[:3]
