"""Deleting by name: what goes at once, and what becomes of the bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mfstore.display.shown import Shown
from mfstore.errors import Conflict, MfstoreError, NotFound, Refused
from mfstore.format.digests import Key
from mfstore.format.recipes import recipe_path
from mfstore.format.refs import StoredRef, ref_path
from mfstore.holding import refuse_held
from mfstore.names import parse, resolve
from mfstore.records import dataclass
from mfstore.ref_objects import read_all_refs, read_ref, remove_ref
from mfstore.refs import SET_ATTEMPTS
from mfstore.stats import stat_of

if TYPE_CHECKING:
    from mfstore.display.cards import Card
    from mfstore.handle import Handle

TOLD = 5
"""Refs that a refusal names."""


@dataclass(frozen=True, slots=True, repr=False)
class Deletion(Shown):
    """What ``Store.delete`` did, or would do. As text it says what becomes of the bytes, and when."""

    refs: tuple[str, ...]
    """The refs that are removed: one, or none when a key was given."""
    values: int
    """Values that they had, with their history."""
    keys: tuple[Key, ...]
    """The keys that no ref names any more. They are there until a collection removes them."""
    size: int
    """Bytes that these take at most: chunks that other keys have too stay."""
    condemned: int
    """How many of these a collection has condemned already."""
    collected: bool
    """Whether a collection ever began in this store."""
    done: bool = True
    """Whether it was done."""

    def __str__(self) -> str:
        lines = []
        for ref in self.refs:
            values = "1 value" if self.values == 1 else f"{self.values} values"
            lines.append(f"{ref} {'is' if self.done else 'would be'} removed, with its history of {values}.")
        if not self.keys:
            lines.append("All that it named is gone already, or named by other refs too: no bytes go.")
        elif len(self.keys) == 1:
            lines.append(f"1 key is named by nothing else: {self.keys[0]}. {self._when('it', 'is')}")
        else:
            lines.append(f"{len(self.keys)} keys are named by nothing else. {self._when('them', 'are')}")
        return "\n".join(lines)

    def _card(self) -> Card:
        from mfstore.display.amounts import size
        from mfstore.display.cards import Card, Grid, key_cell

        rows = tuple((key_cell(key),) for key in self.keys[:TOLD] if len(self.keys) > 1)
        taken = (("takes", f"{size(self.size)} at most"),) if self.keys else ()
        grids = (Grid(("key",), rows, more=len(self.keys) - len(rows)),) if rows else ()
        kind = ("deleted" if self.done else "to delete") if self.refs else "left"
        return Card(kind, ", ".join(self.refs), taken, grids, tuple(str(self).split("\n")))

    def _when(self, it: str, is_: str) -> str:
        if self.condemned == len(self.keys):
            return f"A collection has condemned {it}, and a next one (mfstore gc --execute) removes {it}."
        they = "it" if it == "it" else "they"
        first = "" if self.collected else " None has run here yet."
        return (
            f"The next collections (mfstore gc --execute) remove {it} once {they} {is_} older than their grace period."
            + first
        )


def delete(handle: Handle, text: str, dry_run: bool) -> Deletion:
    """What ``Store.delete`` does."""
    name = parse(text, time.time())
    handle.require_read()
    if handle.description is None:
        raise handle.no_store()
    if name.key is None:
        etag, stored = _read(handle, text)
        if stored.entries:
            return _delete_ref(handle, text, etag, stored, dry_run)
    key = resolve(handle, text)
    if name.past is not None:
        raise Refused(
            f"{text!r} is a value in the history of {name.past.ref!r}, which is not changed", key=key,
            hint="Collections shorten histories: mfstore gc --keep-last or --keep-age",
        )  # fmt: skip
    if not handle.exists_many([key])[0]:
        raise NotFound("nothing is stored under this key", key=key, backend=handle.backend.url)
    named = [ref for ref, keys in _named(handle).items() if key in keys]
    if named:
        more = f" and {len(named) - TOLD} more" if len(named) > TOLD else ""
        raise Refused(
            f"refs name it, or did: {', '.join(named[:TOLD])}{more}", key=key,
            hint="Delete these first, each with its history: then nothing needs it",
        )  # fmt: skip
    return _told(handle, (), 0, [key])


def _read(handle: Handle, ref: str) -> tuple[str, StoredRef]:
    """A ref with its etag; without values where there is none."""
    try:
        return read_ref(handle.backend, ref_path(ref))
    except NotFound:
        return "", StoredRef()
    except MfstoreError as error:
        error.hint = f"del store.refs[{ref!r}] removes it, whatever it names"
        raise error.where(backend=handle.backend.url) from None


def _delete_ref(handle: Handle, ref: str, etag: str, stored: StoredRef, dry_run: bool) -> Deletion:
    """Remove a ref as it was found, so that what is told is what is removed."""
    others = set().union(*(named for name, named in _named(handle).items() if name != ref))
    if not dry_run:
        handle.require_write()
    for _ in range(SET_ATTEMPTS):
        refuse_held(handle.backend, ref)
        try:
            if not dry_run:
                remove_ref(handle.backend, ref_path(ref), etag)
        except Conflict:
            etag, stored = _read(handle, ref)
            if stored.entries:
                continue
            raise NotFound(f"no ref {ref!r}", backend=handle.backend.url) from None
        keys = dict.fromkeys(entry.key for entry in stored.entries)
        free = [key for key in keys if key not in others]
        return _told(handle, (ref,), len(stored.entries), free, done=not dry_run)
    raise Conflict(f"ref {ref!r} keeps changing", key=ref_path(ref), hint="Try again")


def _named(handle: Handle) -> dict[str, set[Key]]:
    """The keys that each ref names, or did. CorruptObject when one is damaged: nobody can tell what it names."""
    found = {}
    for ref, stored in read_all_refs(handle.backend):
        if isinstance(stored, MfstoreError):
            stored.message = f"nothing is deleted, since nobody can tell what else is named: {stored.message}"
            raise stored
        entries = (*stored.entries, *((stored.unconfirmed,) if stored.unconfirmed else ()))
        found[ref] = {entry.key for entry in entries}
    return found


def _told(handle: Handle, refs: tuple[str, ...], values: int, keys: Sequence[Key], done: bool = True) -> Deletion:
    """What is said of keys that nothing names any more."""
    there, size = [], 0
    for key, (_, data) in zip(keys, handle.backend.get_many([recipe_path(key) for key in keys]), strict=True):
        try:
            size += stat_of(key, handle.decode(key, data)).stored
        except NotFound:
            continue  # it went before its ref did
        except MfstoreError:
            pass  # damaged, and there
        there.append(key)
    view = handle.guard.read()
    condemned = sum(view.recipe(bytes.fromhex(key)) for key in there)
    return Deletion(refs, values, tuple(there), size, condemned, view.state.epoch > 0, done)
