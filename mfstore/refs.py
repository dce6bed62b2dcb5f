"""Refs: mutable names for keys, with their history (docs/format.md, "Ref")."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    Sequence,
    ValuesView,
)
from contextlib import suppress
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from mfstore.display.shown import Shown
from mfstore.errors import (
    Conflict,
    CorruptObject,
    InvalidKey,
    MfstoreError,
    NotFound,
    Refused,
    Unsupported,
    WrongArgument,
)
from mfstore.format.about import encode_note
from mfstore.format.digests import Key
from mfstore.format.packs import pack_path
from mfstore.format.quarantine import quarantine_path
from mfstore.format.refs import (
    LONGEST,
    RefEntry,
    decode_ref,
    encode_ref,
    is_ref,
    ref_path,
)
from mfstore.host.elapsed import moment, since
from mfstore.names import is_key, parse_past, resolve
from mfstore.records import dataclass
from mfstore.ref_objects import list_refs, read_all_refs, read_ref, remove_ref
from mfstore.saving.guard import KNOWLEDGE_SECONDS, Condemned
from mfstore.saving.guard import Names as Relied

if TYPE_CHECKING:
    from datetime import timedelta

    from mfstore.backends.base import Backend
    from mfstore.display.cards import Card
    from mfstore.format.holds import Hold
    from mfstore.handle import Handle

SET_ATTEMPTS = 50
"""How often a ref is set anew when others set it at the same moment; with the pauses between, about a second."""


COMPLETED = 1000
"""Names that a notebook offers: one page of a listing."""
Names: TypeAlias = list[str]
HISTORY_SHOWN = 50
"""Values of a history that a notebook lists."""


class History(Shown, list[RefEntry]):
    """The values of one ref, newest first: a list."""

    __slots__ = ("name",)

    def __init__(self, name: str, entries: Iterable[RefEntry]) -> None:
        super().__init__(entries)
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return History, (self.name, [*self])

    def _card(self) -> Card:
        from mfstore.display.amounts import count
        from mfstore.display.cards import Card, Cell, Grid, age_cell, code_cell, key_cell
        from mfstore.display.words import note_text

        noted = any(entry.note is not None for entry in self)
        rows: list[tuple[Cell | str, ...]] = []
        for number, entry in enumerate(self[:HISTORY_SHOWN]):
            note = Cell("" if entry.note is None else note_text(entry.note), look="code")
            name = code_cell(f"@{number}", f"{self.name}@{number}")
            rows.append((name, key_cell(entry.key), age_cell(entry.time), *([note] if noted else [])))
        columns = ("", "key", "set", *(["note"] if noted else []))
        grid = Grid(columns, tuple(rows), more=len(self) - len(rows))
        return Card(f"{count(len(self), 'value')} of", self.name, grids=(grid,))


class _ChangedError(Exception):
    """Somebody else has changed the ref since it was read."""


@dataclass(frozen=True, slots=True)
class _Value:
    """What a ref is to name."""

    entry: RefEntry
    relied: Relied
    condemned: Condemned
    """What was condemned before anything was looked up."""
    looked: tuple[float, float]
    """When that was."""


class Refs(MutableMapping[str, Key]):
    """``store.refs``: a mapping from names to keys, shared by everyone who uses the store.

    Setting a name keeps what it was in its history, and is durable when it returns. Names are paths of words such as
    ``models/churn``. Nothing is remembered here: each question asks the store.

    ``refs[name]`` raises NotFound (a KeyError) when there is no such ref, CorruptObject when it is damaged; setting it
    anew repairs that. ``refs[name] = key`` lets the last writer win. It raises NotFound when nothing is stored under
    the key, and Conflict when others keep changing the ref, or garbage collection removes what the key stands for.
    ``del refs[name]`` removes the ref with its history, and raises NotFound when there is none. Iteration is by name,
    in order.

    Each may raise InvalidKey for what cannot be a name or a key (``in`` too), Unsupported when the ref or the store
    needs a newer mfstore, AccessDenied, and BackendError.
    """

    def __init__(self, backend: Backend, handle: Callable[[], Handle]) -> None:
        self._backend = backend
        self._handle = handle

    def __getitem__(self, name: str) -> Key:
        return self._read(name)[1][-1].key

    def __setitem__(self, name: str, key: str) -> None:
        """Point ``name`` at ``key``; the last writer wins. NotFound when nothing is stored under the key."""
        self.set(name, key)

    def set(self, name: str, key: str, *, note: Mapping[str, Any] | None = None) -> None:
        """Point ``name`` at ``key``, as ``refs[name] = key`` does.

        Args:
            name: The ref.
            key: What it is to be, or another name of that.
            note: What JSON can say, up to 16 KiB: it belongs to this value of the ref, and stays in its history,
                whatever is attached to the key itself. Of all notes of a ref the newest 256 KiB are kept.

        Raises:
            NotFound: nothing is stored under the key.
            InvalidNote: ``note`` is not what JSON can say, or is too long, or its ``ttl`` is no duration (``"30d"``),
                after which collections let the value go.
            Conflict: others keep changing the ref, or garbage collection removes what the key stands for.
        """
        self.settable(name)
        path = ref_path(name)
        kept = None if note is None else json.loads(encode_ref_note(note))
        value = self._look(self._key(name, key), kept)
        for attempt in range(SET_ATTEMPTS):
            with suppress(_ChangedError):
                try:
                    found, entries = self._found(name)
                except CorruptObject:
                    # What it was is lost already; setting it again is the repair.
                    found, entries = self._keep_damaged(path), ()
                self._set(path, entries, value, found)
                return
            time.sleep(random.random() * 0.002 * min(attempt + 1, 20))
        raise Conflict(f"ref {name!r} keeps changing", key=path, hint="Try again")

    def set_if(self, name: str, key: str, current: str | None) -> None:
        """Point ``name`` at ``key`` only if it still is ``current``.

        Args:
            name: The ref.
            key: What it is to be.
            current: What it is; None: there is none.

        Raises:
            Conflict: it is something else, or changed just now; or garbage collection removes what ``key`` stands for.
            NotFound: nothing is stored under ``key``.
            CorruptObject: the ref is damaged.
        """
        self.settable(name)
        path = ref_path(name)
        value = self._look(self._key(name, key))
        if current is not None:
            current = self._key(name, current)
        etag, entries = self._found(name)
        found = entries[-1].key if entries else None
        if found != current:
            raise Conflict(f"ref {name!r} is not what it was", expected=current, found=found)
        try:
            self._set(path, entries, value, etag)
        except _ChangedError as error:
            raise Conflict(f"ref {name!r} changed just now", key=path, backend=self._backend.url) from error

    def _set(self, path: str, before: Sequence[RefEntry], value: _Value, found: str | None) -> None:
        """Set a ref that is as it was found. ``_ChangedError`` when it is not any more; Conflict when garbage
        collection removes what it is to name: then it is what it was.

        What is condemned may go before it is confirmed, and this process with it. So the ref names what it named
        before until then.
        """
        if since(value.looked) >= KNOWLEDGE_SECONDS / 3:
            # What was known then was up to two thirds old already: it may have been condemned and deleted since.
            value = self._look(value.entry.key, value.entry.note)
        marked = value.condemned.concerns(value.relied)
        if marked:
            etag = self._write(path, found, before, value.entry)
        else:
            etag = self._write(path, found, [*before, value.entry])
        try:
            self._handle().guard.confirm(value.condemned, Relied(), value.relied)
        except MfstoreError:
            with suppress(MfstoreError, _ChangedError):  # somebody else has set it since
                if before:
                    self._write(path, etag, before)
                else:
                    remove_ref(self._backend, path, etag)
            raise
        if marked:
            self._write(path, etag, [*before, value.entry])

    def __delitem__(self, name: str) -> None:
        """Remove a ref with its history. What it pointed at stays until garbage collection. Refused while held."""
        from mfstore.holding import refuse_held

        path = ref_path(name)
        for attempt in range(SET_ATTEMPTS):
            try:
                info = self._backend.head(path)
                if not is_ref(info.size):
                    raise NotFound("removed", key=path)
            except NotFound:
                raise NotFound(f"no ref {name!r}", backend=self._backend.url) from None
            refuse_held(self._backend, name)
            try:
                self._handle().require_write()
                remove_ref(self._backend, path, info.etag)
                return
            except Conflict:
                time.sleep(random.random() * 0.002 * min(attempt + 1, 20))
        raise Conflict(f"ref {name!r} keeps changing", key=path, hint="Try again")

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(list_refs(self._backend)))

    def __len__(self) -> int:
        return sum(1 for _ in list_refs(self._backend))

    def __bool__(self) -> bool:
        return any(True for _ in list_refs(self._backend))

    def list(self, pattern: str = "") -> Names:
        """The names that begin so, in order; of "" all. What has ``*``, ``?`` or ``[`` in it is a pattern for the whole
        name, as in a shell, but ``*`` stands for "/" too: ``runs/*/model``."""
        if not isinstance(pattern, str):
            raise WrongArgument("names of refs are asked for by a text", found=f"{pattern!r:.80}")
        literal = literal_of(pattern)
        found = sorted(list_refs(self._backend, literal))
        return found if literal == pattern else [name for name in found if fnmatchcase(name, pattern)]

    def keys(self) -> KeysView[str]:
        """The names that have a value. Iterating asks for all refs together: a ref that is being set for the first time
        may be listed before it names anything, and ``dict(refs)`` asks for each of these names."""
        return _Keys(self)

    def items(self) -> ItemsView[str, Key]:
        """Names with their keys. Iterating asks for all refs together, in the order of their names."""
        return _Items(self)

    def values(self) -> ValuesView[Key]:
        """Keys, in the order of their names. Iterating asks for all refs together."""
        return _Values(self)

    def latest(self, pattern: str = "") -> Iterator[tuple[str, RefEntry]]:
        """The present value of each ref of ``list(pattern)``: its key, when it was set, and with which note. All are
        asked for together.

        Raises:
            CorruptObject: a ref is damaged.
        """
        literal = literal_of(pattern)
        for name, stored in read_all_refs(self._backend, literal):
            if literal != pattern and not fnmatchcase(name, pattern):
                continue
            if isinstance(stored, MfstoreError):
                raise stored
            if stored.entries:
                yield name, stored.entries[-1]

    def clear(self) -> None:
        """Refused: it would remove the history of everything."""
        raise Refused(
            "clear() would remove every ref of the store, with its history", backend=self._backend.url,
            hint="If that is meant: for name in list(store.refs): del store.refs[name]",
        )  # fmt: skip

    def popitem(self) -> NoReturn:
        """Refused: it would remove a ref with its history, whichever."""
        raise Refused(
            "popitem() would remove a ref with its history, whichever", backend=self._backend.url,
            hint="Remove one by its name: del store.refs[name]",
        )  # fmt: skip

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        path = ref_path(name)
        if not self._backend.capabilities.remote:
            return self._backend.exists_many([path])[0]
        try:
            return is_ref(self._backend.head(path).size)
        except NotFound:
            return False

    def log(self, name: str) -> History:
        """Every value of ``name``, newest first, up to 1000, each with the time it was set. ``name@0`` is the first of
        them, ``name@1`` the second.

        Raises:
            NotFound: there is no such ref.
            CorruptObject: it is damaged.
        """
        return History(name, reversed(self._read(name)[1]))

    def history(self, name: str) -> History:
        """As ``log``."""
        return self.log(name)

    def hold(self, name: str, why: str = "", *, lasting: timedelta | float | None = None) -> Hold:
        """Keep a ref with its whole history, or a key, whatever the policy of a collection says, until
        ``release(name)``. A held ref can be set, and not be removed.

        Args:
            name: The ref or the key.
            why: What whoever finds the hold should know.
            lasting: For how long (seconds or a timedelta); None: until it is released. A hold that lasts longer stays.

        Returns:
            The hold that is in force now.

        Raises:
            NotFound: there is no such ref, or nothing is stored under the key.
            CorruptObject: it is damaged.
            Conflict: others keep changing the ref, or garbage collection removes what the key stands for.
        """
        from mfstore.holding import hold_key, hold_ref, new_hold

        if is_key(name):
            value = self._look(name)
            return hold_key(self._handle(), value.entry.key, new_hold(why, lasting), value.condemned, value.relied)
        return hold_ref(self._handle(), name, new_hold(why, lasting))

    def release(self, name: str) -> None:
        """End the hold of a ref or a key. NotFound when it is not held."""
        from mfstore.holding import release

        release(self._handle(), name)

    def holds(self) -> dict[str, Hold]:
        """The refs and keys that are held, each with ``who`` holds it, since ``when`` and ``until`` when (seconds since
        the epoch; None: until it is released), and ``why``. A hold that cannot be read is one (``unread`` says why)."""
        from mfstore.holding import store_holds

        return store_holds(self._backend, time.time())

    def settable(self, name: str) -> None:
        """InvalidKey for what cannot be a name, and for a new one that means something else already: a key, or a value
        in the history of a ref (``models/churn@1``)."""
        ref_path(name)
        meant = "a key" if is_key(name) else "a value in the history of a ref" if parse_past(name, 0.0) else None
        if meant is not None and name not in self:
            raise InvalidKey(f"a new ref cannot be called as {meant} is", found=repr(name))

    def _key(self, name: str, key: str) -> Key:
        """What a ref is to name. TypeError for what is no text: then the object itself was given."""
        if not isinstance(key, str):
            raise WrongArgument(
                "a ref names a key, and this is an object", found=type(key).__name__,
                hint=f"Put it first: store.put(obj, ref={name!r})",
            )  # fmt: skip
        return resolve(self._handle(), key)

    def _ipython_key_completions_(self) -> Names:
        """What is offered inside the brackets."""
        return sorted(islice(list_refs(self._backend), COMPLETED))

    def __repr__(self) -> str:
        return f"<Refs of {self._backend.url}>"

    def _repr_html_(self) -> str:
        from mfstore.display.html import html_of
        from mfstore.overview import refs_card

        return html_of(refs_card(self._backend))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        from mfstore.display.text import text_of
        from mfstore.overview import refs_card

        printer.text(text_of(refs_card(self._backend)))

    def _look(self, key: str, note: dict[str, Any] | None = None) -> _Value:
        """The new value, and what it relies on: the recipe and the packs in which it places chunks. All of them are
        there; of a key that this handle has just stored that is known."""
        checked, handle, looked = Key(key), self._handle(), moment()
        condemned = handle.guard.condemned()
        relied = Relied(recipes=bytearray.fromhex(checked))
        if handle.guard.just_confirmed(bytes(relied.recipes)):
            there = handle.exists_many([checked])[0]
        else:
            try:
                relied.packs += b"".join(handle.recipe(checked).packs)
                there = True
            except NotFound:
                there = False
        if not there:
            raise NotFound("a ref can only name what is stored", key=checked, backend=self._backend.url)
        paths = [pack_path(relied.packs[at : at + 32].hex()) for at in range(0, len(relied.packs), 32)]
        for path, found in zip(paths, self._backend.exists_many(paths) if paths else (), strict=True):
            if not found:
                raise CorruptObject(
                    "what the key stands for is not whole: a pack is missing", key=path, backend=self._backend.url,
                    hint=f"Store the content of {checked} again, then set the ref",
                )  # fmt: skip
        return _Value(RefEntry(checked, time.time(), note), relied, condemned, looked)

    def _keep_damaged(self, path: str) -> str:
        """The etag of a damaged ref that is about to be replaced, and of which there is a copy in quarantine now.
        ``_ChangedError`` when it is whole by now."""
        info = self._backend.head(path)
        with suppress(CorruptObject):
            decode_ref(self._backend.read_again(path), path)
            raise _ChangedError
        kept = quarantine_path(path, info.modified)
        if info.size > LONGEST:
            # A hole in a file may claim more than the disk has, and no ref is behind its beginning.
            self._backend.put(kept, [self._backend.get_range(path, 0, LONGEST)])
        else:
            self._backend.copy(path, kept)
        return info.etag

    def _read(self, name: str) -> tuple[str | None, Sequence[RefEntry]]:
        etag, entries = self._found(name)
        if not entries:
            hint = "refs has refs alone: store.resolve gives former values" if parse_past(name, 0.0) else None
            raise NotFound(f"no ref {name!r}", backend=self._backend.url, hint=hint)
        return etag, entries

    def _found(self, name: str) -> tuple[str | None, Sequence[RefEntry]]:
        """What is stored there, and its etag, on which a write depends; no values where there is no ref."""
        try:
            etag, stored = read_ref(self._backend, ref_path(name))
            return etag, stored.entries
        except NotFound:
            return None, ()
        except (CorruptObject, Unsupported) as error:
            raise error.where(backend=self._backend.url) from None

    def _write(
        self, path: str, etag: str | None, entries: Sequence[RefEntry], unconfirmed: RefEntry | None = None
    ) -> str:
        self._handle().require_write()
        try:
            return self._backend.put_if(path, encode_ref(entries, unconfirmed), etag)
        except Conflict as error:
            raise _ChangedError from error


def encode_ref_note(note: Mapping[str, Any]) -> bytes:
    """The note of a value of a ref as JSON. InvalidNote as of ``encode_note``, and where its ``ttl`` is no duration."""
    encoded = encode_note(note)
    if "ttl" in note:
        from mfstore.durations import require_ttl

        require_ttl(note)
    return encoded


def literal_of(pattern: str) -> str:
    """What every name begins with that a pattern is about; all of it, if it is a beginning and no pattern."""
    return re.split(r"[*?[]", pattern, maxsplit=1)[0]


class _Keys(KeysView[str]):
    _mapping: Refs

    def __iter__(self) -> Iterator[str]:
        for name, stored in read_all_refs(self._mapping._backend):
            if isinstance(stored, MfstoreError) or stored.entries:
                yield name


class _Items(ItemsView[str, Key]):
    _mapping: Refs

    def __iter__(self) -> Iterator[tuple[str, Key]]:
        return ((name, entry.key) for name, entry in self._mapping.latest())


class _Values(ValuesView[Key]):
    _mapping: Refs

    def __iter__(self) -> Iterator[Key]:
        return (entry.key for _, entry in self._mapping.latest())
