"""What paths are in a store: refs, what bundles and trees hold, former values, and directories that names imply.

Everything is asked for together: refs in one round of requests, recipes in a second one. What a key stands for never
changes, so it is remembered; what a ref names is remembered with the etag by which a listing tells whether it still
does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mfstore.errors import CorruptObject, InvalidKey, MfstoreError, NotFound, NotSigned, PathNotFound
from mfstore.filesystem.content import BYTES_TYPES, Content, TreeContent
from mfstore.format.digests import Key
from mfstore.format.recipes import BUNDLE, PICKLE, Recipe, recipe_path
from mfstore.format.refs import PREFIX, RefEntry, StoredRef, encoded, is_ref, ref_name, ref_path
from mfstore.names import Past, is_key, parse_past, value_of
from mfstore.records import NamedTuple
from mfstore.ref_objects import list_refs, read_refs
from mfstore.trees.tree import Tree, open_tree

if TYPE_CHECKING:
    from mfstore.format.manifest import TreeEntry
    from mfstore.handle import Handle

FILE, DIRECTORY, LINK = "file", "directory", "link"
REMEMBERED = 100_000
"""Refs, and keys, of which is remembered what they are: a few hundred bytes each."""
TREES_KEPT = 16
"""Trees of which is remembered what is in them."""
UNKNOWN = "?"
"""The type of what is damaged."""


class Member(NamedTuple):
    """A file, or a part of a bundle."""

    name: str
    """Within the bundle; empty of what is no bundle."""
    type: str
    """Of Python, as ``stat`` tells it."""
    size: int | None
    """Bytes of the file; None where it is damaged."""


class Facts(NamedTuple):
    """What a key stands for."""

    type: str
    members: tuple[Member, ...]
    """Of a bundle its artifacts; of a tree none: these are told by the tree."""
    is_directory: bool
    is_tree: bool = False


class Entry(NamedTuple):
    """What is at a path."""

    path: str
    kind: str
    type: str = ""
    size: int | None = 0
    key: Key | None = None
    member: str = ""
    """Of what is in a bundle its name there, in a tree its path there."""
    time: float | None = None
    """When the ref was set, or what is in a tree was changed, in seconds since the epoch."""
    note: dict[str, Any] | None = None
    ref: str | None = None
    """The ref that is called so, or that holds it; None of keys, former values, and directories that names imply."""
    of_tree: TreeEntry | None = None
    """What is in a tree, as that has it."""

    @property
    def digest(self) -> str:
        """What is another one when the file is another one."""
        if self.of_tree is not None and self.of_tree.digest:
            return self.of_tree.digest.hex()
        return f"{self.key}/{self.member}" if self.member else str(self.key)

    def info(self) -> dict[str, Any]:
        """As fsspec tells it."""
        told: dict[str, Any] = {"name": self.path, "size": self.size, "type": self.kind}
        if self.key is not None:
            told |= {"key": str(self.key), "ETag": self.digest, "python_type": self.type}
        if self.of_tree is not None and self.kind == LINK:
            told |= {"destination": self.of_tree.target, "islink": True}
        if self.time is not None:
            told["mtime"] = self.time
        if self.note is not None:
            told["note"] = self.note
        return told


class Named(NamedTuple):
    """What a name stands for."""

    entry: RefEntry
    ref: str | None
    """The ref that is called so; None: it is a key, or a former value."""


def inner_name(name: str) -> str:
    """What an artifact of a bundle is called as a part of a path."""
    quoted = name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return "%" + quoted if quoted in ("", ".", "..") else quoted


def parents(path: str) -> list[str]:
    """What a path lies in, the nearest one first."""
    return [path[:at] for at in range(len(path) - 1, 0, -1) if path[at] == "/"]


def implied(names: Iterable[str], prefix: str) -> list[str]:
    """The directories that names below ``prefix`` imply, in order."""
    found: set[str] = set()
    for name in names:
        at = name.find("/", len(prefix))
        while at >= 0:
            found.add(name[:at])
            at = name.find("/", at + 1)
    return sorted(found)


class Catalog:
    """The paths of one store. Errors of the storage are raised as they are; what is not there is left out."""

    def __init__(self, handle: Callable[[], Handle]) -> None:
        self._handle = handle
        self._latest: dict[str, tuple[str, RefEntry | None]] = {}
        self._facts: dict[Key, Facts] = {}
        self._trees: dict[Key, Tree] = {}

    # ---- names --------------------------------------------------------------------------

    def values(self, names: Sequence[str]) -> list[Named | CorruptObject | None]:
        """What each stands for: a ref, a former value of one (``name@1``), or a key. None: nothing is called so."""
        handle = self._handle()
        handle.require_read()
        if handle.description is None:
            return [None] * len(names)
        now = time.time()
        past = {name: one for name in names if (one := parse_past(name, now)) is not None}
        asked = [name for name in names if not is_key(name)] + [one.ref for one in past.values()]
        asked = [name for name in dict.fromkeys(asked) if _may_be_ref(name)]
        stored = dict(zip(asked, map(_entries, read_refs(handle.backend, asked)), strict=True))
        return [_named(name, past.get(name), stored) for name in names]

    def history(self, name: str) -> list[RefEntry]:
        """The values of a ref, newest first; none where there is no such ref."""
        if not _may_be_ref(name):
            return []
        handle = self._handle()
        handle.require_read()
        entries = _entries(next(read_refs(handle.backend, [name])))
        if isinstance(entries, CorruptObject):
            raise entries
        return list(entries[::-1])

    def names(self, path: str) -> list[str]:
        """The refs below a path, in order."""
        prefix = f"{path}/" if path else ""
        handle = self._handle()
        handle.require_read()
        try:
            return sorted(list_refs(handle.backend, prefix))
        except InvalidKey:
            return []

    def is_implied(self, path: str) -> bool:
        """Whether a name implies this directory; the root is there as soon as the store is."""
        handle = self._handle()
        handle.require_read()
        if not path:
            return handle.description is not None
        try:
            return any(True for _ in list_refs(handle.backend, path + "/"))
        except InvalidKey:
            return False

    def listed(self, path: str) -> dict[str, str]:
        """The refs below a path, each with its etag."""
        prefix = f"{path}/" if path else ""
        handle = self._handle()
        handle.require_read()
        try:
            return {
                ref_name(one.key): one.etag for one in handle.backend.list(PREFIX + encoded(prefix)) if is_ref(one.size)
            }
        except InvalidKey:
            return {}

    def latest(self, listed: Mapping[str, str]) -> dict[str, RefEntry | MfstoreError]:
        """The values of refs, in order of their names. One that a listing told of before is not read again."""
        if len(self._latest) > REMEMBERED:
            self._latest = {}  # another thread may be at the old one
        remembered = self._latest
        known: dict[str, RefEntry | MfstoreError | None] = {}
        for name, etag in listed.items():
            if (seen := remembered.get(name)) is not None and seen[0] == etag:
                known[name] = seen[1]
        unread = [name for name in listed if name not in known]
        for name, stored in zip(unread, read_refs(self._handle().backend, unread), strict=True):
            entries = _entries(stored)
            if isinstance(entries, CorruptObject):
                known[name] = entries
            else:
                known[name] = entry = entries[-1] if entries else None
                # What is read now is what was listed, or newer: then the next listing tells another etag.
                remembered[name] = listed[name], entry
        return {name: value for name in sorted(known) if (value := known[name]) is not None}

    # ---- what they stand for ------------------------------------------------------------

    def recipes(self, keys: Sequence[Key]) -> Iterator[Recipe | MfstoreError]:
        """The recipe of each key, or the error it met; all are asked for together."""
        handle = self._handle()
        for key, (_, data) in zip(keys, handle.backend.get_many([recipe_path(key) for key in keys]), strict=True):
            try:
                yield handle.decode(key, data)
            except MfstoreError as error:
                yield error

    def facts(self, keys: Iterable[Key], kept: dict[Key, Recipe] | None = None) -> Mapping[Key, Facts | MfstoreError]:
        """What each key stands for, or the error it met. Recipes that are read for it go to ``kept``."""
        wanted = list(dict.fromkeys(keys))
        if len(self._facts) > REMEMBERED:
            self._facts = {}  # another thread may be at the old one
        remembered = self._facts
        found: dict[Key, Facts | MfstoreError] = {}
        for key in wanted:
            if (seen := remembered.get(key)) is not None:
                found[key] = seen
        unread = [key for key in wanted if key not in found]
        for key, recipe in zip(unread, self.recipes(unread), strict=True):
            if isinstance(recipe, Recipe):
                if kept is not None:
                    kept[key] = recipe
                found[key] = told = facts_of(self._handle(), key, recipe)
                if all(member.size is not None for member in told.members):
                    remembered[key] = told
            elif isinstance(recipe, (NotFound, CorruptObject)):
                found[key] = recipe
            else:
                raise recipe
        return found

    # ---- paths --------------------------------------------------------------------------

    def look(
        self, paths: Sequence[str], *, directories: bool = True, kept: dict[Key, Recipe] | None = None
    ) -> list[Entry | MfstoreError | None]:
        """What is at each path. None: nothing; an error where it is damaged. Without ``directories`` nobody looks
        whether names imply one. ``kept`` as of ``facts``."""
        found: dict[str, Entry | MfstoreError | None] = {}
        wanted = list(dict.fromkeys(paths))
        named = dict(zip(wanted, self.values(wanted), strict=True))
        facts = self.facts((one.entry.key for one in named.values() if isinstance(one, Named)), kept)
        for path, one in named.items():
            if isinstance(one, CorruptObject):
                found[path] = one
            elif one is not None and one.ref is not None and isinstance(facts[one.entry.key], NotFound):
                found[path] = CorruptObject(f"what ref {path!r} names is not stored", key=one.entry.key)
            elif one is not None and not isinstance(told := facts[one.entry.key], NotFound):
                found[path] = told if isinstance(told, MfstoreError) else entry_of(path, one, told)
        missing = [path for path in wanted if path not in found]
        found |= self._look_inside(missing, kept)
        for path in missing:
            if found[path] is not None:
                continue
            if (path.endswith("@") and self.history(path[:-1])) or (directories and self.is_implied(path)):
                found[path] = Entry(path, DIRECTORY)
        return [found[path] for path in paths]

    def _look_inside(
        self, paths: Sequence[str], kept: dict[Key, Recipe] | None
    ) -> dict[str, Entry | MfstoreError | None]:
        """What bundles above each path hold there."""
        above = list(dict.fromkeys(parent for path in paths for parent in parents(path)))
        named = dict(zip(above, self.values(above), strict=True)) if above else {}
        facts = self.facts((one.entry.key for one in named.values() if isinstance(one, Named)), kept)
        found: dict[str, Entry | MfstoreError | None] = {}
        for path in paths:
            found[path] = None
            for parent in parents(path):
                if (one := named[parent]) is None:
                    continue
                told = one if isinstance(one, CorruptObject) else facts[one.entry.key]
                if isinstance(one, Named) and isinstance(told, Facts):
                    found[path] = self._part(parent, path, one, told, kept)
                elif isinstance(told, CorruptObject):
                    found[path] = told
                break
        return found

    def _part(
        self, holder: str, path: str, named: Named, facts: Facts, kept: dict[Key, Recipe] | None
    ) -> Entry | MfstoreError | None:
        """What a bundle or a tree has at a path that begins with its own."""
        if not facts.is_tree:
            return next((one for one in within(holder, named, facts) if one.path == path), None)
        try:
            tree = self.tree(named.entry.key, kept)
            return tree_part(holder, named, tree.entry(path[len(holder) + 1 :]))
        except (CorruptObject, NotSigned) as error:
            return error
        except NotFound:
            return None

    def tree(self, key: Key, kept: dict[Key, Recipe] | None = None) -> Tree:
        """The tree of a key."""
        tree = self._trees.get(key)
        if tree is None:
            recipe = (kept or {}).get(key) or next(self.recipes([key]))
            if isinstance(recipe, MfstoreError):
                raise recipe
            if len(self._trees) >= TREES_KEPT:
                self._trees = {}  # another thread may be at the old one
            tree = self._trees[key] = open_tree(self._handle, key, recipe)
        return tree

    def holder(self, path: str) -> str | None:
        """The ref of a bundle in which a path lies, or would lie."""
        above = parents(path)
        named = {name: one for name, one in zip(above, self.values(above), strict=True) if isinstance(one, Named)}
        facts = self.facts(one.entry.key for one in named.values())
        for name, one in named.items():
            told = facts[one.entry.key]
            if isinstance(told, Facts) and told.is_directory:
                return name
        return None

    def below(self, path: str, *, inside: bool = True, depth: int | None = None) -> dict[str, Entry]:
        """Every file below a path, by its path, and every directory that is a ref; with ``inside`` what
        bundles hold too. Directories that names imply are not among them. What lies deeper than ``depth`` below it is
        there by its name alone, for the directories that this implies, and is not read."""
        listed = self.listed(path)
        slashes = None if depth is None else depth + (path.count("/") + 1 if path else 0)
        unread = [] if slashes is None else [name for name in listed if name.count("/") >= slashes]
        for name in unread:
            del listed[name]
        latest = self.latest(listed)
        facts = self.facts(one.key for one in latest.values() if isinstance(one, RefEntry))
        found: dict[str, Entry] = {}
        for name, one in latest.items():
            told = facts[one.key] if isinstance(one, RefEntry) else one
            if isinstance(told, MfstoreError):
                # One that is damaged is no reason not to see the others.
                found[name] = Entry(name, FILE, UNKNOWN, None, ref=name)
                continue
            assert isinstance(one, RefEntry)
            named = Named(one, name)
            found[name] = entry_of(name, named, told)
            if inside and told.is_directory and (slashes is None or name.count("/") + 1 < slashes):
                try:
                    found |= self._parts(name, named, told)
                except (CorruptObject, NotSigned):
                    found[name] = Entry(name, FILE, UNKNOWN, None, ref=name)
        return found | {name: Entry(name, FILE, UNKNOWN, None, ref=name) for name in unread}

    def _parts(self, path: str, named: Named, facts: Facts, below: str = "") -> dict[str, Entry]:
        """All that a bundle, or a tree below one of its directories, holds."""
        if not facts.is_tree:
            return {one.path: one for one in within(path, named, facts)}
        entries = [one for one in self.tree(named.entry.key).below(below) if one.path not in ("", below)]
        return {found.path: found for found in (tree_part(path, named, one) for one in entries)}

    def inside(self, entry: Entry) -> dict[str, Entry]:
        """All that is in a bundle, in a tree, or in a directory of one."""
        assert entry.key is not None
        told = self.facts([entry.key])[entry.key]
        if isinstance(told, MfstoreError):
            raise told
        named = Named(RefEntry(entry.key, entry.time or 0.0), entry.ref)
        holder = entry.path.removesuffix(f"/{entry.member}") if entry.member else entry.path
        return self._parts(holder, named, told, below=entry.member)

    def versions(self, name: str) -> list[Entry]:
        """The values of a ref as paths, newest first."""
        values = self.history(name)
        facts = self.facts(one.key for one in values)
        found = []
        for number, one in enumerate(values):
            told, path = facts[one.key], f"{name}@{number}"
            if isinstance(told, Facts):
                found.append(entry_of(path, Named(one, None), told))
            else:
                found.append(Entry(path, FILE, UNKNOWN, None, one.key, "", one.time, one.note))
        return found

    def contents(self, entries: Sequence[Entry], kept: dict[Key, Recipe]) -> list[Content | TreeContent | MfstoreError]:
        """The bytes of each file, or the error it met. Recipes that are not ``kept`` are asked for together."""
        keys = [entry.key for entry in entries if entry.key is not None]
        unread = [key for key in dict.fromkeys(keys) if key not in kept and key not in self._trees]
        recipes = kept | dict(zip(unread, self.recipes(unread), strict=True))
        found: list[Content | TreeContent | MfstoreError] = []
        for entry, key in zip(entries, keys, strict=True):
            if entry.of_tree is not None:
                try:
                    found.append(TreeContent(self._handle(), self.tree(key, kept), entry.of_tree))
                except MfstoreError as error:
                    found.append(error)
                continue
            recipe = recipes[key]
            if isinstance(recipe, NotFound):
                # A former value, or a key, that was looked at before and has been collected since.
                recipe = PathNotFound(f"what was at {entry.path!r} is not stored any more", key=key)
            if isinstance(recipe, MfstoreError):
                found.append(recipe)
                continue
            numbers = {artifact.name: number for number, artifact in enumerate(recipe.artifacts)}
            number = numbers[entry.member] if recipe.kind == BUNDLE else 0
            try:
                found.append(Content(self._handle(), key, recipe, number))
            except MfstoreError as error:
                found.append(error)
        return found

    def content(self, entry: Entry, kept: dict[Key, Recipe] | None = None) -> Content | TreeContent:
        """The bytes of a file."""
        (found,) = self.contents([entry], kept or {})
        if isinstance(found, MfstoreError):
            raise found
        return found


def _may_be_ref(name: str) -> bool:
    try:
        ref_path(name)
    except InvalidKey:
        return False
    return True


def _entries(stored: StoredRef | MfstoreError) -> Sequence[RefEntry] | CorruptObject:
    """The values of a ref; none where there is no such ref. What says neither is raised."""
    if isinstance(stored, NotFound):
        return ()
    if isinstance(stored, MfstoreError) and not isinstance(stored, CorruptObject):
        raise stored
    return stored if isinstance(stored, CorruptObject) else stored.entries


def _named(
    name: str, past: Past | None, stored: Mapping[str, Sequence[RefEntry] | CorruptObject]
) -> Named | CorruptObject | None:
    """What a name stands for, by what refs say."""
    if is_key(name):
        return Named(RefEntry(Key(name), 0.0), None)
    if entries := stored.get(name, ()):
        return entries if isinstance(entries, CorruptObject) else Named(entries[-1], name)
    if past is None or not (entries := stored.get(past.ref, ())):
        return None
    if isinstance(entries, CorruptObject):
        return entries
    value = value_of(past, entries)
    return None if value is None else Named(value, None)


def facts_of(handle: Handle, key: Key, recipe: Recipe) -> Facts:
    """What a recipe says of its artifacts as files. Of short bytes in a pickle that lies elsewhere, they are read."""
    types = recipe.described.types
    if recipe.is_tree:
        return Facts(types[0], (), True, True)
    members = []
    for number, artifact in enumerate(recipe.artifacts):
        size: int | None = artifact.size
        if artifact.encoding == PICKLE and types[number] in BYTES_TYPES:
            try:
                size = Content(handle, key, recipe, number).size
            except (CorruptObject, NotSigned):
                size = None
        members.append(Member(artifact.name, types[number], size))
    is_bundle = recipe.kind == BUNDLE
    return Facts("bundle" if is_bundle else types[0], tuple(members), is_bundle)


def entry_of(path: str, named: Named, facts: Facts) -> Entry:
    """A ref, a former value or a key as a path."""
    one = named.entry
    kind, size = (DIRECTORY, 0) if facts.is_directory else (FILE, facts.members[0].size)
    return Entry(path, kind, facts.type, size, one.key, "", one.time or None, one.note, named.ref)


def tree_part(holder: str, named: Named, one: TreeEntry) -> Entry:
    """What is in a tree, as a path."""
    path = f"{holder}/{one.path}"
    return Entry(path, one.kind, "", one.size, named.entry.key, one.path, one.mtime, None, named.ref, one)


def within(path: str, named: Named, facts: Facts) -> Iterator[Entry]:
    """What a bundle holds, as paths."""
    if not facts.is_directory:
        return
    one = named.entry
    for member in facts.members:
        inner = f"{path}/{inner_name(member.name)}"
        yield Entry(inner, FILE, member.type, member.size, one.key, member.name, one.time or None, None, named.ref)
