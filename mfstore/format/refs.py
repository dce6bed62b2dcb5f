"""Refs as they are stored: where each lies, and its history (docs/format.md, "Ref")."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote

from mfstore._core.memory import xxh3
from mfstore.errors import CorruptObject, InvalidKey, Unsupported
from mfstore.format.digests import Key
from mfstore.records import NamedTuple

PREFIX = "refs/"
SEAL = b', "seal": "%016x"}'
"""How a ref ends: XXH3-64 of everything before."""
SEAL_LENGTH = len(SEAL % 0)
_SEALED = re.compile(rb', "seal": "[0-9a-f]{16}"\}')
HISTORY = 1000
"""Entries kept per ref: about 100 KB, rewritten with each change."""
NOTES = 256 << 10
"""Bytes of JSON of all notes in one ref: with each change all of them are rewritten. The newest stay."""
LONGEST = 1 << 20
"""Bytes that no ref has: what is longer is none, and is not read."""
LAST_SECOND = 253_370_764_800
"""Times of values are before the year 9999, so that every time zone can tell them."""
NAME_LIMIT = 240
"""Longest encoded name: file names end at 255 bytes."""


class RefEntry(NamedTuple):
    """One value a ref had."""

    key: Key
    time: float
    """Seconds since the epoch on the writer's clock; order is the order of the list, not of the times."""
    note: dict[str, Any] | None = None
    """The note that this value was set with. None: then it is the key's."""

    def __repr__(self) -> str:
        from mfstore.display.amounts import age, date
        from mfstore.display.words import note_text, printable

        note = "" if self.note is None else f": {printable(note_text(self.note))}"
        return f"<RefEntry {self.key} set {age(self.time)} ({date(self.time)}){note}>"


class StoredRef(NamedTuple):
    """What a stored ref says."""

    entries: tuple[RefEntry, ...] = ()
    """Its values, oldest first. None: there is no ref, or none yet."""
    unconfirmed: RefEntry | None = None
    """What it will name once whoever sets it has made sure that this stays. It may be gone already."""


def encode_ref(entries: Sequence[RefEntry], unconfirmed: RefEntry | None = None) -> bytes:
    """A ref as it is stored: the last ``HISTORY`` of its values, oldest first. Never the same twice: where the bytes
    are the etag, a ref that is put back as it was would meet the conditions of late requests from before."""
    # Last in the history too: what mfstore 0.1.0 collects there must stay as well.
    rows = _rows((*entries, *((unconfirmed,) if unconfirmed else ()))[-HISTORY:])
    mark = {"unconfirmed": True} if unconfirmed else {}
    sealed = json.dumps({"version": 1, "history": rows, **mark, "nonce": os.urandom(8).hex()})[:-1].encode()
    return sealed + SEAL % xxh3(sealed)


def _rows(entries: Sequence[RefEntry]) -> list[list[Any]]:
    """The entries as JSON has them, the newest with their notes as long as there is room for these."""
    rows: list[list[Any]] = []
    left = NOTES
    for key, time, note in reversed(entries):
        if note is not None:
            left -= len(json.dumps(note))
        rows.append([key, time] if note is None or left < 0 else [key, time, note])
    return rows[::-1]


def encode_removed() -> bytes:
    """What is stored in the place of a ref that was removed, where a request may be carried out late: an object, so
    that a late write which wants none there is refused; never the same twice, so that one which wants this is too."""
    sealed = b'{"version": 1, "removed": "%s"' % os.urandom(8).hex().encode()
    return sealed + SEAL % xxh3(sealed)


REMOVED_BYTES = len(encode_removed())


def is_ref(size: int) -> bool:
    """Whether what is stored in so many bytes under a ref's path is a ref, and not what is left of one: a ref has at
    least one key, which alone is almost as long."""
    return size != REMOVED_BYTES


def is_sealed(data: bytes) -> bool:
    """Whether a stored ref ends with a seal. Those of mfstore 0.1.0 do not."""
    return _SEALED.fullmatch(data, len(data) - SEAL_LENGTH) is not None if len(data) > SEAL_LENGTH else False


def decode_ref(data: bytes, path: str) -> StoredRef:
    """A stored ref; without any value when it was removed. CorruptObject when it is damaged, Unsupported for a newer
    version."""
    try:
        document = json.loads(data)
        if document["version"] != 1:
            raise Unsupported("ref version is unknown to this mfstore", key=path, found=document["version"])
        # Without a seal it has nothing else either: else damage to that one word would leave the rest unguarded.
        if document.keys() != {"version", "history"} and not (
            is_sealed(data) and data[-SEAL_LENGTH:] == SEAL % xxh3(data[:-SEAL_LENGTH])
        ):
            raise CorruptObject("ref differs from its seal", key=path)
        if "removed" in document:
            return StoredRef()
        entries = tuple(RefEntry(Key(row[0]), _time(row[1]), _note(row)) for row in document["history"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, OverflowError):
        raise CorruptObject("ref is not the JSON it should be", key=path) from None
    if not entries:
        raise CorruptObject("ref has no history", key=path)
    return StoredRef(entries[:-1], entries[-1]) if document.get("unconfirmed") else StoredRef(entries)


def _time(stored: Any) -> float:
    """When a value was set. ValueError for a time that no calendar has, as damage to a digit or a dot makes it."""
    seconds = float(stored)
    if not abs(seconds) < LAST_SECOND:
        raise ValueError
    return seconds


def _note(row: list[Any]) -> dict[str, Any] | None:
    """The note of a stored entry. ValueError for what is none."""
    note = row[2] if len(row) > 2 else None
    if not (note is None or isinstance(note, dict)):
        raise ValueError
    return note


def ref_name(path: str) -> str:
    """The name of the ref stored there."""
    return unquote(path.removeprefix(PREFIX))


def ref_path(name: str) -> str:
    """Where a ref is stored. InvalidKey for names that are not paths of plain words."""
    parts = name.split("/") if isinstance(name, str) else [""]
    if any(part in ("", ".", "..") for part in parts) or any(ord(letter) < 32 or letter in "\\\x7f" for letter in name):
        raise InvalidKey("not a ref name", found=f"{name!r:.80}", hint="Use words joined by '/', such as models/churn")
    path = encoded(name)
    if len(path) > NAME_LIMIT:
        raise InvalidKey("ref name is too long", expected=f"at most {NAME_LIMIT} encoded bytes", found=len(path))
    return PREFIX + path


def encoded(name: str) -> str:
    """A ref's name, or its beginning, as it is stored. InvalidKey for what is no Unicode."""
    try:
        # The dot is escaped so that no name looks like a hidden or temporary file.
        return quote(name, safe="").replace(".", "%2E")
    except UnicodeEncodeError:
        raise InvalidKey("ref name is not valid Unicode", found=repr(name)) from None
