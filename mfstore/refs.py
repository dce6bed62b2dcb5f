"""Refs: mutable names for keys, with their history (docs/format.md, "Ref")."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from mfstore.condemned import Guard, Names, View
from mfstore.errors import Conflict, CorruptObject, InvalidKey, MfstoreError, NotFound, Unsupported
from mfstore.keys import Key

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

PREFIX = "refs/"
HISTORY = 1000
"""Entries kept per ref: about 100 KB, rewritten with each change."""
NAME_LIMIT = 240
"""Longest encoded name: file names end at 255 bytes."""
ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class RefEntry:
    """One value a ref had."""

    key: Key
    time: float
    """Seconds since the epoch on the writer's clock; order is the order of the list, not of the times."""


class Refs(MutableMapping[str, Key]):
    """``store.refs``: a mapping from names to keys, shared by everyone who uses the store.

    Setting a name keeps what it was in its history. Names are paths of words such as ``models/churn``.
    """

    def __init__(
        self, backend: Backend, exists: Callable[[str], bool], prepare: Callable[[], None], guard: Callable[[], Guard]
    ) -> None:
        self._backend = backend
        self._exists = exists
        self._prepare = prepare
        self._guard = guard

    def __getitem__(self, name: str) -> Key:
        return self._read(name)[1][-1].key

    def __setitem__(self, name: str, key: str) -> None:
        """Point ``name`` at ``key``; the last writer wins. NotFound when nothing is stored under the key."""
        path = ref_path(name)
        condemned = self._guard().view()
        entry = self._entry(key)
        for attempt in range(ATTEMPTS):
            try:
                etag, entries = self._read(name)
            except NotFound:
                etag, entries = None, []
            except CorruptObject:
                # What it was is lost already; setting it again is the repair.
                etag, entries = self._backend.head(path).etag, []
            try:
                etag = self._write(path, [*entries, entry], etag)
                break
            except Conflict:
                time.sleep(random.random() * 0.002 * min(attempt + 1, 20))
        else:
            raise Conflict(f"ref {name!r} keeps changing", key=path, hint="Try again")
        self._settle(condemned, path, etag, entries, entry)

    def set_if(self, name: str, key: str, current: str | None) -> None:
        """Point ``name`` at ``key`` only if it still is ``current`` (None: does not exist). Conflict otherwise."""
        path = ref_path(name)
        condemned = self._guard().view()
        entry = self._entry(key)
        try:
            etag, entries = self._read(name)
        except NotFound:
            etag, entries = None, []
        found = entries[-1].key if entries else None
        if found != current:
            raise Conflict(f"ref {name!r} is not what it was", expected=current, found=found)
        etag = self._write(path, [*entries, entry], etag)
        self._settle(condemned, path, etag, entries, entry)

    def _settle(self, condemned: View, path: str, etag: str, before: list[RefEntry], entry: RefEntry) -> None:
        """Make sure that what the ref now names stays; else put the ref back as it was, and raise: Conflict when it
        does not."""
        try:
            self._guard().settle(condemned, Names(), Names(recipes=bytearray.fromhex(entry.key)))
        except MfstoreError:
            with suppress(MfstoreError):  # Conflict: somebody else has set it since
                if before:
                    self._write(path, before, etag)
                else:
                    self._backend.delete_unchanged({path: etag})
            raise

    def __delitem__(self, name: str) -> None:
        """Remove a ref with its history. What it pointed at stays until garbage collection."""
        if name not in self:
            raise NotFound(f"no ref {name!r}", backend=self._backend.url)
        self._backend.delete(ref_path(name))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(ref_name(info.key) for info in self._backend.list(PREFIX)))

    def __len__(self) -> int:
        return sum(1 for _ in self._backend.list(PREFIX))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._backend.exists_many([ref_path(name)])[0]

    def history(self, name: str) -> list[RefEntry]:
        """Every value of ``name``, newest first, up to 1000."""
        return self._read(name)[1][::-1]

    def __repr__(self) -> str:
        return f"<Refs of {self._backend.url}>"

    def _entry(self, key: str) -> RefEntry:
        checked = Key(key)
        if not self._exists(checked):
            raise NotFound("a ref can only name what is stored", key=checked, backend=self._backend.url)
        return RefEntry(checked, time.time())

    def _read(self, name: str) -> tuple[str | None, list[RefEntry]]:
        path = ref_path(name)
        try:
            data, etag = self._backend.get_tagged(path)
        except NotFound:
            raise NotFound(f"no ref {name!r}", backend=self._backend.url) from None
        try:
            return etag, decode_ref(data, path)
        except (CorruptObject, Unsupported) as error:
            raise error.where(backend=self._backend.url) from None

    def _write(self, path: str, entries: Sequence[RefEntry], etag: str | None) -> str:
        self._prepare()
        return self._backend.put_if(path, encode_ref(entries), etag)


def encode_ref(entries: Sequence[RefEntry]) -> bytes:
    """A ref as it is stored: the last ``HISTORY`` of its values, oldest first."""
    rows = [[entry.key, entry.time] for entry in entries[-HISTORY:]]
    return json.dumps({"version": 1, "history": rows}).encode()


def decode_ref(data: bytes, path: str) -> list[RefEntry]:
    """The values of a stored ref, oldest first. CorruptObject when it is damaged, Unsupported for a newer version."""
    try:
        document = json.loads(data)
        if document["version"] != 1:
            raise Unsupported("ref version is unknown to this mfstore", key=path, found=document["version"])
        entries = [RefEntry(Key(row[0]), float(row[1])) for row in document["history"]]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, OverflowError):
        raise CorruptObject("ref is not the JSON it should be", key=path) from None
    if not entries:
        raise CorruptObject("ref has no history", key=path)
    return entries


def ref_name(path: str) -> str:
    """The name of the ref stored there."""
    return unquote(path.removeprefix(PREFIX))


def ref_path(name: str) -> str:
    """Where a ref is stored. InvalidKey for names that are not paths of plain words."""
    parts = name.split("/") if isinstance(name, str) else [""]
    if any(part in ("", ".", "..") for part in parts) or any(ord(letter) < 32 or letter in "\\\x7f" for letter in name):
        raise InvalidKey("not a ref name", found=repr(name), hint="Use words joined by '/', such as models/churn")
    try:
        # The dot is escaped so that no name looks like a hidden or temporary file.
        path = quote(name, safe="").replace(".", "%2E")
    except UnicodeEncodeError:
        raise InvalidKey("ref name is not valid Unicode", found=repr(name)) from None
    if len(path) > NAME_LIMIT:
        raise InvalidKey("ref name is too long", expected=f"at most {NAME_LIMIT} encoded bytes", found=len(path))
    return PREFIX + path
