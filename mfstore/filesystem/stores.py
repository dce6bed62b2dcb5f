"""The file system of fsspec whose files are what a store's refs name."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractFileSystem
from fsspec.utils import isfilelike

from mfstore.errors import (
    Conflict,
    MfstoreError,
    NotFound,
    PathExists,
    PathIsDirectory,
    PathIsReadOnly,
    PathNotFound,
    Unsupported,
)
from mfstore.filesystem import urls
from mfstore.filesystem.content import AnyContent, Range, read_ranges
from mfstore.filesystem.entries import DIRECTORY, FILE, LINK, Catalog, Entry, implied, parents
from mfstore.filesystem.files import WRITTEN_TOGETHER, StoreFile, StoreTransaction
from mfstore.filesystem.writing import ANY, Staged, set_ref, side_by_side, store_bytes
from mfstore.format.digests import Key
from mfstore.format.recipes import Recipe
from mfstore.host.elapsed import moment, since
from mfstore.host.pipes import read_blocks
from mfstore.host.written_files import TEXT, written_as
from mfstore.loading.deltas import together
from mfstore.loading.files import regular_target, write_file
from mfstore.names import is_key, parse_past
from mfstore.opening import open_store
from mfstore.settings import default_store
from mfstore.store import Store

if TYPE_CHECKING:
    from collections.abc import Hashable

    from typing_extensions import Buffer

OF_FSSPEC = frozenset(
    ("asynchronous", "loop", "batch_size", "use_listings_cache", "listings_expiry_time", "max_paths", "auto_mkdir")
)
"""Options by which callers tell any file system how they use it; here they mean nothing."""
SECRETS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
"""Options that are told nobody who asks for no passwords."""
READ_TOGETHER = 256 << 20
"""Bytes of several files that are asked for at once."""
PLAIN_SECONDS = 60.0
"""How long a path is known to be no bundle, so that what is written below it is not looked up each time: who makes it
one meanwhile has named a bundle and a file below it, and both can be read."""

Pairs = list[tuple[Any, Any]]
"""Files, each with what it is written to."""
Moved = list[tuple[str, str, Key]]
"""Refs, what they are called now, and what they named."""

_OPEN: WeakValueDictionary[Any, Store] = WeakValueDictionary()
_OPENING = threading.Lock()


class StoreFileSystem(AbstractFileSystem):
    """The refs of a store as files: ``fsspec.open("mfstore:///path/of/store!/models/churn")``.

    Args:
        store: Path or URL of the store, if the URL does not say; else ``MFSTORE_STORE``, or the configuration file.
        create: As of ``mfstore.open``.
        options: As of ``mfstore.open``: in S3 ``endpoint_url``, ``profile_name`` and the like.

    Nothing is asked before it is used. Raises what ``mfstore.open`` raises when it is, and besides what each method of
    fsspec is known to raise (FileNotFoundError, FileExistsError, IsADirectoryError, PermissionError) CorruptObject for
    what is damaged, Conflict, OutOfSpace and BackendError. All of them are MfstoreErrors.
    """

    protocol = urls.PROTOCOLS
    root_marker = ""
    cachable = True
    transaction_type = StoreTransaction

    def __init__(self, store: str | os.PathLike[str] | None = None, *, create: bool = True, **options: Any) -> None:
        if "fo" in options or "target_protocol" in options:
            raise Unsupported(
                "a store is no file of another file system", found=options.get("target_protocol"),
                hint="Name it before an exclamation mark: mfstore+s3://bucket/prefix!/name",
            )  # fmt: skip
        super().__init__()
        self._where = None if store is None else os.fspath(store)
        self._how = {"create": create} | {name: how for name, how in options.items() if name not in OF_FSSPEC}
        self._opened: Store | None = None
        self._catalog: Catalog | None = None
        self._plain: dict[str, Any] = {}

    # ---- which store --------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The store, open. Instances for the same store share it."""
        if self._opened is None:
            where = self._where or default_store()
            if where is None:
                raise Unsupported(
                    "the URL does not say which store",
                    hint="Write mfstore:///path/of/store!/name, or give storage_options={'store': ...}",
                )
            self._opened = _open(where, self._how)
        return self._opened

    @property
    def catalog(self) -> Catalog:
        """The paths of the store. For mfstore's own rooms."""
        if self._catalog is None:
            self._catalog = Catalog(partial(getattr, self.store, "handle"))
        return self._catalog

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return urls.parse(os.fspath(path)).path

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        store = urls.parse(path).store
        return {} if store is None else {"store": store}

    def unstrip_protocol(self, name: str) -> str:
        """The URL of a path, with its store."""
        return urls.of_path(self.store.backend.url, self._strip_protocol(name))

    def __repr__(self) -> str:
        where = self._where or default_store()
        return f"<StoreFileSystem of {where}>" if where else "<StoreFileSystem>"

    def to_dict(self, *, include_password: bool = True) -> dict[str, Any]:
        """What makes it again. Without ``include_password`` keys and tokens of S3 are not in it."""
        told = super().to_dict(include_password=include_password)
        return told if include_password else {name: one for name, one in told.items() if name not in SECRETS}

    @property
    def fsid(self) -> str:
        """Where the store is."""
        return f"mfstore_{self.store.backend.url}"

    # ---- what is there ------------------------------------------------------------------

    def _look(self, path: Any, *, directories: bool = True, kept: dict[Key, Recipe] | None = None) -> Entry:
        """What is at a path. PathNotFound, or CorruptObject. ``kept`` as of ``Catalog.facts``."""
        plain = self._strip_protocol(path)
        look = self.catalog.look
        (found,) = [self._root()] if plain == "" else look([plain], directories=directories, kept=kept)
        return self._there(plain, found)

    def _root(self) -> Entry | None:
        return Entry("", DIRECTORY) if self.catalog.is_implied("") else None

    def _there(self, path: str, found: Entry | MfstoreError | None) -> Entry:
        if found is None and not path:
            hint = "Its path ends before !: mfstore:///path/of/store!/name"
            raise PathNotFound("no store there", backend=self.store.backend.url, hint=hint)
        if found is None:
            place = "" if self.catalog.is_implied("") else ", and no store there yet"
            raise PathNotFound(f"no such file: {path!r}{place}", backend=self.store.backend.url)
        if isinstance(found, MfstoreError):
            raise found
        return found

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """What is at a path: ``name``, ``size``, ``type``; of a ref also ``mtime``, ``key``, ``ETag``, ``note`` and the
        ``python_type``. Nothing of its data is read."""
        return self._look(path).info()

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether there is something. A refusal is raised, and never "no"."""
        try:
            self._look(path)
        except PathNotFound:
            return False
        return True

    def isdir(self, path: str) -> bool:
        """Whether it is a directory. A refusal is raised."""
        return self._is(path, DIRECTORY)

    def isfile(self, path: str) -> bool:
        """Whether it is a file. A refusal is raised."""
        return self._is(path, FILE)

    def _is(self, path: str, kind: str) -> bool:
        try:
            return self._look(path).kind == kind
        except PathNotFound:
            return False

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """What is in a directory; of a file itself. ``name@`` has the values of a ref, newest first. Without
        ``detail`` a listing of refs is all that is asked for, a request for each thousand; else those that lie directly
        in it are read too, and no others."""
        plain = self._strip_protocol(path)
        below = self._listed(plain) if detail else [Entry(name, FILE) for name in self.catalog.names(plain)]
        found = _children(below, plain)
        if not found:
            entry = self._look(plain)
            if entry.kind == FILE:
                found = [entry]
            elif entry.key is not None:
                found = _children([*self.catalog.inside(entry).values()], plain)
            elif plain.endswith("@"):
                found = self.catalog.versions(plain[:-1])
        return [one.info() for one in found] if detail else [one.path for one in found]

    def _listed(self, path: str) -> list[Entry]:
        return [*self.catalog.below(path, inside=False, depth=1).values()]

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **kwargs: Any
    ) -> Any:
        """All files below a path, by one listing, one read of each ref and one of what it names; what was seen before,
        or lies deeper than ``maxdepth``, is not read. Names in order, or with ``detail`` the dict of what ``info``
        tells. Links, of trees, are not among them."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        plain = self._strip_protocol(path)
        found = self._below(plain, inside=kwargs.pop("inside", True), depth=maxdepth)
        if withdirs and plain and any(one != plain for one in found):
            found.setdefault(plain, Entry(plain, DIRECTORY))
        for name in implied(found, f"{plain}/" if plain else "") if withdirs else ():
            found.setdefault(name, Entry(name, DIRECTORY))
        deepest = None if maxdepth is None else maxdepth + (plain.count("/") + 1 if plain else 0)
        kinds = (FILE, DIRECTORY) if withdirs else (FILE,)
        names = [
            name for name in sorted(found)
            if found[name].kind in kinds and (deepest is None or name.count("/") < deepest)
        ]  # fmt: skip
        return {name: found[name].info() for name in names} if detail else names

    def _below(self, path: str, *, inside: bool = True, depth: int | None = None) -> dict[str, Entry]:
        """What is below a path, or only itself. ``depth`` as of ``Catalog.below``."""
        found = self.catalog.below(path, inside=inside, depth=depth)
        if path:
            (itself,) = self.catalog.look([path], directories=False)
            if isinstance(itself, MfstoreError) and not found:
                raise itself
            if isinstance(itself, Entry) and (itself.kind == FILE or itself.key is not None):
                found[path] = itself
                # What lies in a tree is no ref, and is looked into whatever becomes of refs.
                if (inside or itself.member) and itself.kind == DIRECTORY:
                    found |= self.catalog.inside(itself)
        return found

    def walk(
        self, path: str, maxdepth: int | None = None, topdown: bool = True, on_error: Any = "omit", **kwargs: Any
    ) -> Iterator[tuple[str, Any, Any]]:
        """As ``os.walk``, by one listing."""
        detail = kwargs.pop("detail", False)
        plain = self._strip_protocol(path)
        found = self.find(plain, maxdepth, withdirs=True, detail=True, **kwargs)
        itself = found.pop(plain, None)
        if itself is None and not found and plain:
            if on_error == "raise":
                self._look(plain)
            if callable(on_error):
                on_error(PathNotFound(f"no such file: {plain!r}"))
            return
        held: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {plain: ({}, {})}
        for name, info in found.items():
            parent, _, last = name.rpartition("/")
            directories, files = held.setdefault(parent, ({}, {}))
            (directories if info["type"] == DIRECTORY else files)[last] = info
        if itself is not None and itself["type"] == FILE:
            held[plain][1][""] = itself
        yield from _walk(held, plain, maxdepth, topdown, detail)

    def du(
        self, path: str, total: bool = True, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any
    ) -> Any:
        """Bytes of the files below a path, as they are read: what is stored is less, by ``store.stats()``."""
        found = self.find(path, maxdepth, withdirs, detail=True, **kwargs)
        sizes = {name: info["size"] or 0 for name, info in found.items()}
        return sum(sizes.values()) if total else sizes

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        """The size of each file, all asked for together."""
        plain = [self._strip_protocol(path) for path in paths]
        return [self._there(path, found).size for path, found in zip(plain, self.catalog.look(plain), strict=True)]

    def checksum(self, path: str) -> int:
        """A number that is another one when the file is another one."""
        return int.from_bytes(self.ukey(path).encode())

    def ukey(self, path: str) -> str:
        """The digest of what is at a path: of a ref the key that it stands for."""
        return self._look(path).digest

    def modified(self, path: str) -> datetime:
        """When the ref was set."""
        entry = self._look(path)
        if entry.time is None:
            raise Unsupported("it has no time of its own", key=entry.path)
        return datetime.fromtimestamp(entry.time, UTC)

    def created(self, path: str) -> datetime:
        """When what the ref names now was stored first, or, if that was not recorded, when the ref was set."""
        entry = self._look(path)
        stored = None if entry.key is None else self.store.stat(entry.key).created
        return self.modified(path) if stored is None else datetime.fromtimestamp(stored, UTC)

    # ---- reading ------------------------------------------------------------------------

    def opened(self, path: str) -> tuple[Entry, AnyContent]:
        """A file and its bytes. For mfstore's own rooms. PathIsDirectory of what is none."""
        kept: dict[Key, Recipe] = {}
        entry = self._look(path, directories=False, kept=kept)
        self._require_file(entry)
        return entry, self.catalog.content(entry, kept)

    def _require_file(self, entry: Entry) -> None:
        if entry.kind == LINK:
            raise PathNotFound(
                f"a link, which is not followed: {entry.path!r}", backend=self.store.backend.url,
                hint="store.get_tree restores it, as a link",
            )  # fmt: skip
        if not entry.path:
            raise self._root_is_no_file()
        if entry.kind != FILE:
            hint = f"store.get({entry.path!r}) gives what it is" if entry.key is not None and not entry.member else None
            raise PathIsDirectory(f"a directory is no file: {entry.path!r}", backend=self.store.backend.url, hint=hint)

    def _root_is_no_file(self) -> PathIsDirectory:
        hint = "Name a file behind !: mfstore:///path/of/store!/name"
        return PathIsDirectory("the root of a store is no file", backend=self.store.backend.url, hint=hint)

    def _open(
        self, path: str, mode: str = "rb", block_size: int | None = None, autocommit: bool = True,
        cache_options: dict[str, Any] | None = None, **kwargs: Any,
    ) -> StoreFile:  # fmt: skip
        return StoreFile(self, path, mode, block_size, autocommit, cache_options=cache_options, **kwargs)

    def start_transaction(self) -> StoreTransaction:
        """Begin a transaction that ``end_transaction`` ends."""
        transaction: StoreTransaction = self.transaction
        transaction.start()
        return transaction

    def open(
        self, path: str, mode: str = "rb", block_size: int | None = None, cache_options: dict[str, Any] | None = None,
        compression: str | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Open a file: ``rb``, ``wb``, ``xb`` or ``ab``, or the same as text.

        What is appended to is read and stored anew; of its bytes only those are stored that are not there already.

        Args:
            path: The file.
            mode: As of ``open``.
            block_size: Bytes that are read at a time.
            cache_options: As of fsspec.
            compression: As of fsspec.
            kwargs: ``note`` of what is written, as of ``store.put``; ``cache_type``, ``encoding`` and so on, as of
                fsspec.
        """
        if "r" in mode:
            return super().open(path, mode, block_size, cache_options, compression, **kwargs)
        text: dict[str, Any] = {name: kwargs.pop(name) for name in TEXT if name in kwargs}
        binary = mode.replace("t", "").replace("b", "") + "b"
        file = super().open(path, binary, block_size, cache_options, None, **kwargs)
        return written_as(file, path, compression, None if "b" in mode else text)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Bytes of a file, and no other bytes than those of the chunks that hold them are read."""
        _, content = self.opened(self._strip_protocol(path))
        return content.read(*content.clip(start, end))

    def cat_ranges(
        self, paths: list[str], starts: Any, ends: Any, max_gap: int | None = None, on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:  # fmt: skip
        """Ranges of files, all asked for together: refs, then what they name, then what is wanted of that, where what
        lies close by is one request."""
        if not isinstance(paths, list):
            raise TypeError("paths is a list")
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [ends] * len(paths)
        if len(starts) != len(paths) or len(ends) != len(paths):
            raise ValueError("as many starts and ends as paths")
        found = self._ranges([self._strip_protocol(path) for path in paths], [*zip(starts, ends, strict=True)])
        if on_error != "return":
            for one in found:
                if isinstance(one, Exception):
                    raise one
        return found

    def _ranges(self, paths: Sequence[str], ranges: Sequence[tuple[Any, Any]]) -> list[bytes | Exception]:
        """What each range has, or the error it met."""
        distinct = list(dict.fromkeys(paths))
        files: dict[str, AnyContent | MfstoreError] = {}
        entries: list[Entry] = []
        kept: dict[Key, Recipe] = {}
        looked = self.catalog.look(distinct, directories=False, kept=kept)
        for path, one in zip(distinct, looked, strict=True):
            try:
                entry = self._there(path, one)
                self._require_file(entry)
                entries.append(entry)
            except MfstoreError as error:
                files[path] = error
        files |= zip((entry.path for entry in entries), self.catalog.contents(entries, kept), strict=True)
        found: list[bytes | Exception] = []
        numbers: dict[str, list[int]] = {}
        clipped: list[Range] = []
        for number, (path, (start, end)) in enumerate(zip(paths, ranges, strict=True)):
            content = files[path]
            found.append(content if isinstance(content, MfstoreError) else b"")
            clipped.append((0, 0) if isinstance(content, MfstoreError) else content.clip(start, end))
            if not isinstance(content, MfstoreError):
                numbers.setdefault(path, []).append(number)

        def needs(path: str) -> dict[Hashable, int]:
            return {path: sum(clipped[number][1] - clipped[number][0] for number in numbers[path])}

        for batch in together(numbers, needs, READ_TOGETHER):
            wanted = [(files[path], [clipped[number] for number in numbers[path]]) for path in batch]
            try:
                read = read_ranges(wanted)  # type: ignore[arg-type]
            except MfstoreError:
                read = []
            for at, path in enumerate(batch):
                content = files[path]
                assert not isinstance(content, MfstoreError)
                for turn, number in enumerate(numbers[path]):
                    try:
                        found[number] = read[at][turn] if read else content.read(*clipped[number])
                    except MfstoreError as error:
                        found[number] = error
        return found

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        """The bytes of a file, or of many, which are asked for together. Directories that a pattern finds have none."""
        paths = self._files(path, recursive)
        if len(paths) == 1 and not isinstance(path, list) and paths[0] == self._strip_protocol(path):
            return self.cat_file(paths[0], **kwargs)
        start, end = kwargs.get("start"), kwargs.get("end")
        found: dict[str, Any] = {}
        for name, one in zip(paths, self._ranges(paths, [(start, end)] * len(paths)), strict=True):
            if isinstance(one, Exception) and on_error == "raise":
                raise one
            if not isinstance(one, Exception) or on_error == "return":
                found[name] = one
        return found

    def _files(self, path: Any, recursive: bool) -> list[str]:
        """The files that are meant by a path, a pattern, or a list of these."""
        found: list[str] = []
        for one in path if isinstance(path, list) else [path]:
            plain = self._strip_protocol(one)
            matched = self.glob(plain, detail=True) if has_magic(plain) else {plain: {"type": DIRECTORY}}
            for name, info in matched.items():
                if recursive and info["type"] == DIRECTORY:
                    found += self.find(name) or [name]
                elif info["type"] == FILE or not has_magic(plain):
                    found.append(name)
        if not found:
            raise PathNotFound(f"no such file: {path!r}", backend=self.store.backend.url)
        return sorted(set(found))

    def get(
        self, rpath: Any, lpath: Any, recursive: bool = False, callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Write files to local ones: into a directory if there is one, or the name ends with a slash. Of a store far
        away some at a time."""
        if isinstance(lpath, (str, os.PathLike)):
            target = os.fspath(lpath)
            lpath = self._within(rpath, target, lambda: target.endswith("/") or Path(target).is_dir())
        pairs: Pairs = []
        super().get(rpath, lpath, recursive, DEFAULT_CALLBACK, maxdepth, pairs=pairs, **kwargs)
        self._each(self.get_file, pairs, [], callback, kwargs)

    def put(
        self, lpath: Any, rpath: Any, recursive: bool = False, callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Write local files to paths: into a directory if there is one, or the path ends with a slash. To a store far
        away some at a time."""
        pairs: Pairs = []
        super().put(lpath, rpath, recursive, DEFAULT_CALLBACK, maxdepth, pairs=pairs, **kwargs)
        # Large ones are sent in parallel parts anyway, and each takes memory for these.
        large = [pair for pair in pairs if Path(pair[0]).stat().st_size > WRITTEN_TOGETHER]
        self._each(self.put_file, pairs, large, callback, kwargs)

    def _each(
        self, work: Callable[..., None], pairs: Pairs, large: Pairs, callback: Any, options: dict[str, Any]
    ) -> None:
        callback.set_size(len(pairs))
        counting = threading.Lock()

        def one(pair: tuple[Any, Any]) -> None:
            with callback.branched(*pair) as child:
                work(*pair, callback=child, **options)
            with counting:
                callback.relative_update()

        alone = dict.fromkeys(pairs if self._intrans else large)
        for pair in alone:
            one(pair)
        side_by_side(one, [pair for pair in pairs if pair not in alone], self.store.backend)

    def _within(self, source: Any, target: str, is_directory: Callable[[], bool]) -> str:
        """Where something directly in the root goes, if that is a directory. fsspec takes for the directory that a name
        lies in what stands before its last slash, and where there is none the name itself."""
        plain = self._strip_protocol(source) if isinstance(source, str) and not source.endswith("/") else ""
        if not plain or "/" in plain:
            return target
        if has_magic(plain):
            found = self.glob(plain, detail=True)
            if [info["type"] for info in found.values()] != [FILE]:
                return target
            (plain,) = found
        elif not is_directory():
            return target
        return f"{target.rstrip('/')}/{plain}"

    def get_file(
        self, rpath: str, lpath: Any = None, callback: Any = DEFAULT_CALLBACK, outfile: Any = None,
        pairs: Pairs | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Write a file to a local one, which is replaced when all of it was read. With ``pairs`` they are noted."""
        if pairs is not None:
            pairs.append((rpath, lpath))
            return
        if outfile is None and isfilelike(lpath):
            outfile = lpath
        kept: dict[Key, Recipe] = {}
        entry = self._look(rpath, kept=kept)
        if entry.kind == DIRECTORY and outfile is None:
            Path(lpath).mkdir(parents=True, exist_ok=True)
            return
        self._require_file(entry)
        content = self.catalog.content(entry, kept)
        callback.set_size(content.size)

        def blocks() -> Iterator[bytes]:
            for block in content.blocks():
                yield block
                callback.relative_update(len(block))

        if outfile is not None:
            for block in blocks():
                outfile.write(block)
            return
        Path(lpath).parent.mkdir(parents=True, exist_ok=True)
        write_file(regular_target(lpath), blocks(), str(entry.key))

    # ---- writing ------------------------------------------------------------------------

    def writable(self, path: str, *, look: bool = False, exclusive: bool = False) -> Entry | None:
        """What is at a path that is to be written, if somebody has to ``look``. For mfstore's own rooms.

        PathExists where ``exclusive`` finds something; PathIsReadOnly for what lies in a bundle, or is a key or a
        former value; PathIsDirectory for a bundle that is looked at; InvalidKey for what can be no name.
        """
        if not path:
            raise self._root_is_no_file()
        entry = None
        if look or is_key(path) or parse_past(path, 0.0) is not None:
            (found,) = self.catalog.look([path], directories=False)
            entry = None if found is None else self._there(path, found)
        if entry is not None and exclusive:
            raise PathExists("a file of this name is there already", key=path, backend=self.store.backend.url)
        if is_key(path) or (parse_past(path, 0.0) is not None and (entry is None or entry.ref != path)):
            raise PathIsReadOnly(
                "keys and former values of refs stay what they are", key=path, backend=self.store.backend.url
            )
        if entry is not None and look:
            self._require_file(entry)
        self.store.refs.settable(path)
        self._require_outside(path)
        return entry

    def _require_outside(self, path: str) -> None:
        above = parents(path)
        if not above or ((known := self._plain.get(above[0])) is not None and since(known) < PLAIN_SECONDS):
            return
        if (holder := self.catalog.holder(path)) is not None:
            raise PathIsReadOnly(
                f"{path!r} would lie in {holder!r}, which is stored as one", backend=self.store.backend.url,
                hint=f"Store it anew: store.save(..., ref={holder!r})",
            )  # fmt: skip
        if len(self._plain) > 1000:
            self._plain.clear()
        self._plain[above[0]] = moment()

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write bytes to a file. With ``mode="create"`` there must be none."""
        self._write(self._strip_protocol(path), [memoryview(value).cast("B")], mode, kwargs)

    def _write(self, path: str, blocks: Iterable[Buffer], mode: str, options: dict[str, Any]) -> None:
        """Write blocks to a file, within a transaction to one that appears at its end."""
        create = mode == "create"
        if self._intrans:
            with self.open(path, "xb" if create else "wb", **options) as file:
                for block in blocks:
                    file.write(block)
            return
        self.writable(path, look=create, exclusive=create)
        (key,) = store_bytes(self.store.handle, [blocks])
        set_ref(self.store.refs, Staged(path, key, options.get("note"), None if create else ANY))

    def pipe(self, path: Any, value: Any = None, **kwargs: Any) -> None:
        """Write bytes to a file, or of a dict each value to its path: they are stored as one operation, and then
        appear."""
        if not isinstance(path, dict) or self._intrans or kwargs.get("mode", "overwrite") != "overwrite":
            super().pipe(path, value, **kwargs)
            return
        blocks = {self._strip_protocol(name): [memoryview(data).cast("B")] for name, data in path.items()}
        for name in blocks:
            self.writable(name)
        keys = store_bytes(self.store.handle, blocks.values())
        staged = [Staged(*one, kwargs.get("note")) for one in zip(blocks, keys, strict=True)]
        side_by_side(partial(set_ref, self.store.refs), staged, self.store.backend)

    def put_file(
        self, lpath: Any, rpath: str, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite",
        pairs: Pairs | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Write a local file to a path. With ``pairs`` they are noted."""
        if pairs is not None:
            pairs.append((lpath, rpath))
            return
        plain = self._strip_protocol(rpath)
        if Path(lpath).is_dir():
            return

        def blocks() -> Iterator[bytes]:
            callback.set_size(Path(lpath).stat().st_size)
            for block in read_blocks(lpath, WRITTEN_TOGETHER):
                yield block
                callback.relative_update(len(block))

        self._write(plain, blocks(), mode, kwargs)

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Make an empty file; without ``truncate``, set what is there anew, so that it gets this time."""
        plain = self._strip_protocol(path)
        if truncate or not self.exists(plain):
            self.pipe_file(plain, b"", **kwargs)
        else:
            self.cp_file(plain, plain)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Nothing: directories are there as long as there are files in them."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing. PathExists where there is something, and it must not be."""
        if not exist_ok and self.exists(path):
            raise PathExists("there is something of this name already", key=self._strip_protocol(path))

    def rmdir(self, path: str) -> None:
        """Nothing: a directory goes with the last file in it."""

    def cp_file(self, path1: str, path2: str, moved: Moved | None = None, **kwargs: Any) -> None:
        """Have a second name for what is at a path: no bytes are copied. Of a file in a bundle they are read; what is
        stored of them already is not stored again. To ``moved`` goes what was copied."""
        entry, target = self._look(path1), self._strip_protocol(path2)
        if entry.key is None or (entry.kind == DIRECTORY and entry.member and moved is None):
            return
        if moved is not None:
            if entry.ref != entry.path:
                raise PathIsReadOnly(f"{entry.path!r} is no ref, and cannot be moved", key=entry.path)
            moved.append((entry.path, target, entry.key))
            if entry.path == target:
                return
        if entry.member:
            self._require_file(entry)
        self.writable(target)
        key = entry.key
        if entry.member:
            (key,) = store_bytes(self.store.handle, [self.catalog.content(entry).blocks()])
        self.store.refs.set(target, key, note=entry.note)

    def copy(
        self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None,
        on_error: str | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Have second names for files, as of ``cp_file``. A ref of a bundle is copied as a ref."""
        if isinstance(path1, str) and isinstance(path2, str):
            entry = self._ref_at(path1)
            if entry is not None and (entry.kind == FILE or recursive) and not self.catalog.names(entry.path):
                into = path2.endswith("/") or self.isdir(path2)
                last = entry.path.rpartition("/")[2]
                self.cp_file(entry.path, f"{self._strip_protocol(path2)}/{last}" if into else path2, **kwargs)
                return
        if isinstance(path2, str):
            target = path2
            path2 = self._within(path1, target, lambda: target.endswith("/") or self.isdir(target))
        super().copy(path1, path2, recursive, maxdepth, on_error, inside=False, **kwargs)

    def _ref_at(self, path: str) -> Entry | None:
        """What is at a path as one: a ref, a former value, a key, or a file in one."""
        plain = self._strip_protocol(path)
        (found,) = self.catalog.look([plain], directories=False) if plain else (None,)
        if not isinstance(found, Entry) or found.key is None:
            return None
        return None if found.kind == DIRECTORY and found.member else found

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> None:
        """Give files other names. No bytes are copied; former values stay with the old names, and go with them."""
        if isinstance(path1, str) and isinstance(path2, str):
            if self._strip_protocol(path1) == self._strip_protocol(path2):
                return
            entry = self._ref_at(path1)
            recursive = recursive or (entry is not None and entry.kind == DIRECTORY)
        moved: Moved = []
        self.copy(path1, path2, recursive=recursive, maxdepth=maxdepth, on_error="raise", moved=moved)
        # What was copied, and nothing else: what matches a pattern by now may be another one, what has been written
        # since is not in the copy, and where the copy is nothing was moved.
        targets = {target for _, target, _ in moved}
        old = [(ref, key) for ref, _, key in moved if ref not in targets]
        side_by_side(self._remove_moved, old, self.store.backend)

    def _remove_moved(self, one: tuple[str, Key]) -> None:
        ref, key = one
        if (found := self.store.refs.get(ref)) != key:
            raise Conflict(f"ref {ref!r} changed while it was moved, and stays", expected=key, found=found)
        self._remove(ref)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove refs, with their histories; with ``recursive`` all that are below a path. Bytes go when a collection
        finds that nobody needs them.

        Of the root it is refused: an empty variable is one. All that is in it can be named: ``fs.rm("*",
        recursive=True)``.
        """
        if recursive and any(self._strip_protocol(one) == "" for one in (path if isinstance(path, list) else [path])):
            raise PathIsReadOnly(
                "it would remove every ref of the store, with its history", backend=self.store.backend.url,
                hint="If that is meant: fs.rm('*', recursive=True)",
            )  # fmt: skip
        self._remove_all(self.expand_path(path, recursive=recursive, maxdepth=maxdepth, inside=False), recursive)

    def _remove_all(self, paths: Sequence[str], recursive: bool) -> None:
        looked = zip(paths, self.catalog.look(paths), strict=True)
        entries = [self._there(name, found) for name, found in looked]
        for entry in entries:
            if entry.kind == DIRECTORY and entry.key is None:
                if not recursive:
                    raise PathIsDirectory(f"a directory: {entry.path!r}", hint="Use recursive=True")
            elif entry.ref != entry.path:
                raise PathIsReadOnly(f"{entry.path!r} is no ref, and cannot be removed", key=entry.path)
        side_by_side(self._remove, [entry.ref for entry in entries if entry.ref is not None], self.store.backend)

    def rm_file(self, path: str) -> None:
        """Remove the ref that is called so, with its history."""
        self._remove_all([self._strip_protocol(path)], recursive=False)

    def _remove(self, ref: str) -> None:
        try:
            del self.store.refs[ref]
        except NotFound as error:
            raise PathNotFound(f"no such file: {ref!r}", backend=self.store.backend.url) from error


def _open(where: str, how: dict[str, Any]) -> Store:
    """A store, opened once for all who use it in the same way."""
    known = (where, tuple(sorted((name, repr(value)) for name, value in how.items())))
    with _OPENING:
        store = _OPEN.get(known)
        if store is None:
            store = _OPEN[known] = open_store(where, **how)
        return store


def _children(below: Sequence[Entry], path: str) -> list[Entry]:
    """What is directly in a directory, of what is anywhere below it, in order."""
    prefix = f"{path}/" if path else ""
    found: dict[tuple[str, str], Entry] = {}
    for entry in below:
        head, slash, _ = entry.path[len(prefix) :].partition("/")
        if slash:
            found.setdefault((prefix + head, DIRECTORY), Entry(prefix + head, DIRECTORY))
        elif entry.path != path:
            found[entry.path, entry.kind] = entry
    return [found[name] for name in sorted(found)]


def _walk(
    held: dict[str, tuple[dict[str, Any], dict[str, Any]]], path: str, depth: int | None, topdown: bool, detail: bool
) -> Iterator[tuple[str, Any, Any]]:
    inner, files = held.get(path, ({}, {}))
    directories: Any = inner if detail else list(inner)
    told = (path, directories, files if detail else list(files))
    if topdown:
        yield told
    if depth is None or depth > 1:
        for name in [*directories]:
            below = f"{path}/{name}" if path else name
            yield from _walk(held, below, None if depth is None else depth - 1, topdown, detail)
    if not topdown:
        yield told
