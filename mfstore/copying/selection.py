"""What is to be copied: keys, and refs with their values, by the names that somebody gives."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mfstore.errors import MfstoreError, NotFound, WrongArgument
from mfstore.format.digests import Key
from mfstore.format.refs import RefEntry, StoredRef
from mfstore.names import is_key, parse, resolve_many
from mfstore.records import dataclass
from mfstore.ref_objects import read_all_refs, read_refs
from mfstore.refs import literal_of

if TYPE_CHECKING:
    from mfstore.handle import Handle

RECIPES = "recipes/"


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be copied."""

    refs: dict[str, Sequence[RefEntry]]
    """Refs with their values, oldest first."""
    keys: list[Key]
    """Keys that were asked for by themselves."""
    listed: frozenset[Key] = frozenset()
    """Those of them that nobody has named, nor does a ref: they were there when everything was listed."""


def select(handle: Handle, names: str | Iterable[str] | None) -> Selection:
    """What the names stand for; None: everything.

    Raises:
        NotFound: there is nothing of a name; no ref begins so, or matches.
        WrongArgument: they are no names. It is a TypeError.
        CorruptObject: a ref is damaged.
    """
    if names is None:
        refs = _matching(handle, "")
        listed = (info.key.rpartition("/")[2] for info in handle.backend.list(RECIPES))
        keys = sorted(Key(name) for name in listed if is_key(name))
        named = {entry.key for entries in refs.values() for entry in entries}
        return Selection(refs, keys, frozenset(keys) - named)
    if not isinstance(names, Iterable):
        raise WrongArgument("what is to be copied is said by names", found=type(names).__name__)
    given = [names] if isinstance(names, str) else list(names)
    for name in given:
        if not isinstance(name, str):
            raise WrongArgument("what is to be copied is said by names", found=type(name).__name__)
    refs = {}
    single: list[str] = []
    for name in dict.fromkeys(given):
        if not is_pattern(name):
            single.append(name)
            continue
        found = _matching(handle, name)
        if not found:
            raise NotFound(f"no ref is called {name!r}", backend=handle.backend.url)
        refs.update(found)
    rest = _exact(handle, single, refs)
    keys = []
    for key in resolve_many(handle, rest) if rest else ():
        if isinstance(key, MfstoreError):
            raise key
        keys.append(key)
    return Selection(refs, list(dict.fromkeys(keys)))


def is_pattern(name: str) -> bool:
    """Whether a name stands for refs that are called so: a beginning that ends with a slash, or a pattern."""
    return name.endswith("/") or any(letter in name for letter in "*?[")


def _matching(handle: Handle, pattern: str) -> dict[str, Sequence[RefEntry]]:
    """Every ref that a pattern or a beginning is about."""
    literal = literal_of(pattern)
    found: dict[str, Sequence[RefEntry]] = {}
    for name, stored in read_all_refs(handle.backend, literal):
        if literal != pattern and name != pattern and not fnmatchcase(name, pattern):
            continue  # a ref may be called [1], which the pattern of these letters does not match
        if isinstance(stored, MfstoreError):
            raise stored
        if stored.entries:
            found[name] = stored.entries
    return found


def _exact(handle: Handle, names: Sequence[str], refs: dict[str, Sequence[RefEntry]]) -> list[str]:
    """Add those of the names that are refs; the others."""
    now = time.time()
    candidates = [name for name in names if not is_key(name) and parse(name, now).ref]
    there = dict(zip(candidates, read_refs(handle.backend, candidates), strict=True))
    rest = []
    for name in names:
        stored = there.get(name)
        if isinstance(stored, StoredRef) and stored.entries:
            refs[name] = stored.entries
        elif isinstance(stored, MfstoreError) and not isinstance(stored, NotFound):
            raise stored
        else:
            rest.append(name)
    return rest
