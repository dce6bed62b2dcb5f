"""The front door: objects in, keys out, and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import cache, partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from mfstore.backends import Backend
from mfstore.errors import (
    CorruptObject,
    InvalidKey,
    InvalidRange,
    MfstoreError,
    NotFound,
    NotSerializable,
    Unsupported,
    WrongArgument,
)
from mfstore.format.about import encode_note
from mfstore.format.digests import Key
from mfstore.format.recipes import BUNDLE, ONE, Recipe
from mfstore.getting import (
    EVERYTHING,
    OnError,
    Wanted,
    check_arguments,
    exists_many,
    get_many,
    in_bundle,
    number_of,
    stat_many,
)
from mfstore.handle import Handle, StoreOptions, Wishes
from mfstore.host.buffers import bytes_of
from mfstore.host.pipes import read_blocks
from mfstore.in_thread import each_in_thread, in_thread
from mfstore.loading.artifacts import ArtifactReader
from mfstore.loading.files import regular_target, write_file
from mfstore.many_or_one import refuse_no_mapping, refuse_one_key, refuse_one_thing, warn_of_path
from mfstore.names import base_of, resolve
from mfstore.progress import METER, Progress, bytes_of_file, counted, counts, length_of, phases, shown
from mfstore.refs import Refs, encode_ref_note
from mfstore.settings import Knobs
from mfstore.stats import ArtifactStat, SessionStats, StoreStats, stat_of, store_stats

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from pandas import DataFrame
    from typing_extensions import Buffer

    from mfstore.allow import Allow
    from mfstore.comparing.report import Diff
    from mfstore.copying.report import Copied, OnConflict
    from mfstore.deleting import Deletion
    from mfstore.finding import Found, Since
    from mfstore.format.manifest import TreeEntry
    from mfstore.maintenance.report import Level, PhaseCallback
    from mfstore.maintenance.store.gc import CountCallback, GcPlan
    from mfstore.maintenance.store.report import RepairReport, VerifyReport
    from mfstore.maintenance.store.signatures import SignatureReport
    from mfstore.maintenance.usage import Usage
    from mfstore.memoizing import Cached
    from mfstore.metrics import StoreMetrics
    from mfstore.signing import Signed
    from mfstore.trees.tree import Tree
    from mfstore.views.view import View


P = ParamSpec("P")
R = TypeVar("R")
UsageBy = Literal["ref", "prefix", "user", "flow", "run", "step", "artifact", "type", "month", "class"]
FILE_BLOCK = 8 << 20
DAY = 24 * 3600.0


class Store:
    """A store of artifacts. Open one with ``mfstore.open``; handles are thread-safe, pickle, and survive fork.

    Every method that reads or writes has an asynchronous one with the same parameters, result and errors, whose name
    begins with ``a``: ``await store.aput(obj)``, ``async for key, obj in store.aget_many(keys)``. It works in another
    thread. When its task is cancelled, what has begun goes on to its end: a put may be done all the same. ``with`` and
    ``async with`` close a store.

    Sizes are in bytes and durations in seconds. Besides what a method lists, each may raise what the storage answers
    (AccessDenied, BackendError), Unsupported when the store, or something in it, needs a newer mfstore, NotAStore
    when the place turns out to hold something else, and, where it takes keys, InvalidKey for what cannot be one.
    """

    def __init__(
        self, url: str, backend: Backend | None = None, knobs: Knobs | None = None, *, create: bool = True,
        algorithm: str = "blake3", trusted: tuple[bytes, ...] = (),
    ) -> None:  # fmt: skip
        if backend is None or knobs is None:
            raise WrongArgument("a store is opened, not made", hint=f"mfstore.open({str(url)!r})")
        self.url = url
        self.backend = backend
        self.knobs = knobs
        self.session = SessionStats()
        # Of this process, as the store itself; and it pickles.
        self.refs = Refs(backend, partial(getattr, self, "handle"))
        self._options = StoreOptions(url, backend, knobs, create, algorithm, trusted)
        self._handles: dict[int, Handle] = {}

    # ---- one artifact -----------------------------------------------------------------

    def put(
        self, obj: object, ref: str | None = None, *, base: str | None = None, note: Mapping[str, Any] | None = None,
        pickler: Literal["cloudpickle"] | None = None, progress: Progress = None,
    ) -> Key:  # fmt: skip
        """Store any picklable object; returns its key. Equal content gives an equal key, here and in any other store of
        the same ``hash``.

        Durable when it returns, under the store's ``fsync`` policy. Large buffers are not copied: do not change them
        from another thread meanwhile. They are yours again when it returns. Whatever it raises, everything stored
        before is intact.

        Args:
            obj: What pickle can describe. A ``pathlib.Path`` is stored as a path, with a warning if there is such a
                file: ``put_file`` stores that. Arrays, tables, tensors, texts and bytes of any size are fast. Of a
                slice of numpy or Arrow only what it shows is stored. Tensors share storages when they are loaded, as
                they did, so these are stored whole: save a ``clone()`` of a small part of a large tensor.
            ref: A ref that is to name it: set once it is stored, as by ``store.refs[ref] = key``.
            base: An older version of it, by any name. What has changed is then stored as what differs from it, where
                that pays. The key returned does not depend on it, and neither does what is loaded. A version that is
                not there, or is damaged, is passed over.
            note: What JSON can say, up to 16 KiB: tags, metrics. It is no part of the key. ``stat`` shows it, and
                ``find`` looks for it. Storing the same again with another note replaces that of the key; each value in
                the history of ``ref`` keeps the one that it was set with. Of two who store the same for the first
                time at once, the note of the key is that of the later one, and none if that has none.
            pickler: "cloudpickle" stores functions, lambdas and classes that this program defines itself as what they
                are, so that another program can load them, given cloudpickle and the same minor version of Python.
                Such a class gets another key in each process that defines it. None: they are stored as where they are
                found, which is warned of (MfstoreWarning) where no other program finds them.
            progress: True shows how many bytes are done, while they are: in a terminal on stderr, in a notebook below
                the cell, and elsewhere nothing. A function is called with the bytes done since its last call, ten times
                a second at most, in another thread; what it raises is raised at the end.

        Raises:
            NotSerializable: a part of the object cannot be pickled; the message names it.
            OutOfSpace: disk full, or quota reached.
            AccessDenied: nothing may be written there.
            NotFound: there is no store, and it was opened with ``create=False``.
            Conflict: garbage collection removed, or was about to remove, what this put relied on; or others keep
                changing ``ref``. Do it again.
            WrongArgument: ``ref`` is no text. It is a TypeError.
            InvalidKey: ``base`` can be no name, ``ref`` not the name of a ref, or ``pickler`` is another.
            InvalidNote: ``note`` is not what JSON can say, or too long, or with a ``ref`` its ``ttl``, after which
                collections let the value go, is no duration (``"30d"``). Nothing is stored then.
            Unsupported: cloudpickle is not installed.
        """
        if progress is not None:
            with shown(progress, "put"):
                return self.put(obj, ref, base=base, note=note, pickler=pickler)
        if pickler not in (None, "cloudpickle"):
            raise InvalidKey("pickler must be None or 'cloudpickle'", found=f"{pickler!r:.80}")
        if ref is not None:
            self._require_ref(ref)
        if hasattr(type(obj), "__fspath__"):
            warn_of_path(obj)
        attached = None if note is None else encode_note(note) if ref is None else encode_ref_note(note)
        (key,) = self._put_all([obj], None, "", base, attached, pickler is not None)
        return key if ref is None else self._named(key, ref, note)

    def get(
        self, key: str, *, verify: bool | None = None, writable: bool = True,
        map: bool | None = None,  # noqa: A002
        safe: bool | Allow | None = None, progress: Progress = None,
    ) -> Any:  # fmt: skip
        """The object stored under ``key``; of a bundle, the dict of its artifacts, and of a tree what ``tree`` gives.

        It is yours: changing it changes nothing stored. Unpickles, and so runs what whoever stored it wants: only for
        stores whose writers you trust, or with ``safe``.

        Args:
            key: A key, or another name: a ref, a former value of it (``models/churn@1``), or a shortened key. Names are
                told in ``resolve``.
            verify: Compare every byte with its digest. Without, large raw arrays are mapped and read when used. None:
                as the store was opened.
            writable: Whether arrays may be written to.
            map: Whether raw arrays of 1 MiB and more in a local directory are mapped. mfstore replaces files and never
                changes them; if another program truncates one in place, touching a mapped array ends the process
                (SIGBUS), and if it overwrites one, the array may change. False: they are read into memory of their
                own. None: as the store was opened.
            safe: True: it is made if it is data, and refused before anything runs if it takes anything else. Data are
                numbers, texts, times, paths, containers, and arrays and tables of numpy, pandas and Arrow
                (``docs/safe.md``). An ``Allow`` adds classes and functions to these. False: it is unpickled. None: as
                the store was opened.
            progress: As of ``put``. What is mapped is not read, and counts at the end.

        Raises:
            NotFound: there is nothing of this name. It is a KeyError.
            InvalidKey: it can be no name, or several keys begin so.
            CorruptObject: bytes differ from what was stored, and there is no whole copy.
            NotLoadable: unpickling raised something, mostly because a class or a library is missing here: it says
                which, and of what type the artifact is. ``get_bytes`` gives its bytes.
            UnsafeObject: with ``safe``, to make it takes what is not on the list; it names that. A NotLoadable.
            NotSigned: the store was opened with ``trusted``, and nobody of these has signed the key.
        """
        if progress is not None:
            with shown(progress, "get"):
                return self.get(key, verify=verify, writable=writable, map=map, safe=safe)
        found = key if type(key) is Key else self.resolve(key)
        recipe = self._recipe(found, key, EVERYTHING)
        if recipe.is_tree:
            return self._tree(found, recipe, verify)
        how = Wishes(verify, writable, map, safe)
        return self.handle.load(found, recipe, recipe.artifacts, how, named=recipe.kind == BUNDLE)

    def _recipe(self, key: Key, given: str, wanted: Wanted) -> Recipe:
        """The recipe of a key, that ``given`` stands for. Of a key nobody was asked, and a former value of a ref may be
        gone: what is stored says so."""
        if key == given or "@" in given:
            return self.handle.recipe(key)
        return self.handle.recipe_named(key, lambda recipe: wanted.artifacts(key, given, recipe))

    @overload
    def put_many(  # type: ignore[overload-overlap]
        self, objs: Mapping[str, object], progress: Progress = None
    ) -> dict[str, Key]: ...
    @overload
    def put_many(self, objs: Iterable[object], progress: Progress = None) -> list[Key]: ...
    def put_many(self, objs: Iterable[object], progress: Progress = None) -> list[Key] | dict[str, Key]:
        """Store objects in one bulk operation; returns their keys in order, and of a mapping the dict of them.

        All are durable and visible when it returns; if it raises, each of them may be there or absent.

        Args:
            objs: May be a generator, which may reuse the memory of an object for the next one. Of a list or tuple no
                object may change before it returns. Of a mapping the values are stored, each under a key of its own;
                ``save`` stores them under one.
            progress: True shows how many objects and bytes are done, as of ``put``. A function is called with 1 for
                each object that was taken, before it is durable; what it raises ends the put.

        Raises:
            WrongArgument: it is one thing: a text, bytes, an array, a table or a file, whose elements nobody wants to
                be stored alone. It is a TypeError.
            NotSerializable: a part of an object cannot be pickled; the message says of which one, and names the part.
            OutOfSpace: disk full, or quota reached.
            AccessDenied: nothing may be written there.
            NotFound: there is no store, and it was opened with ``create=False``.
            Conflict: garbage collection removed, or was about to remove, what this put relied on. Do it again.
        """
        refuse_one_thing(objs)
        with shown(progress, "put_many", items=True, of_items=length_of(objs)) as told:
            if isinstance(objs, Mapping):
                return dict(zip(objs, self._put_all(list(objs.values()), told, "objs"), strict=True))
            return self._put_all(objs, told, "objs")

    def _put_all(
        self, objs: Iterable[object], progress: Callable[[int], None] | None, called: str, base: str | None = None,
        note: bytes | None = None, by_value: bool = False,
    ) -> list[Key]:  # fmt: skip
        found: list[Key] = []
        held_by_caller = isinstance(objs, (list, tuple))
        with self.handle.saving(self._base(base)) as ingest:
            for count, obj in enumerate(objs):
                try:
                    draft = ingest.draft("", obj, False, True, by_value)
                except NotSerializable as error:
                    if called:
                        error.message = f"{called}[{count}]: {error.message}"
                    raise
                ingest.recipe(ONE, [draft], found.append, note)
                if not held_by_caller:
                    ingest.copy_borrowed()
                if progress is not None:
                    progress(1)
            self.handle.count(ingest.commit())
        return found

    def get_many(
        self, keys: Iterable[str], ordered: bool = True, on_error: OnError = "raise",
        progress: Progress = None, *, verify: bool | None = None, writable: bool = True,
        map: bool | None = None,  # noqa: A002
        safe: bool | Allow | None = None,
    ) -> Iterator[tuple[str, Any]]:  # fmt: skip
        """Yield ``(key, object)`` for each key, or name: with the name that was given, so that ``dict`` of it gives the
        objects by what they were asked for.

        Nothing is read before it is iterated. Recipes are fetched ahead in batches; at most one object is held besides
        yours, or 32 MiB of them when the store is remote. Unpickles, as ``get``.

        Args:
            keys: Or other names, as of ``get``. May be a generator, and hold duplicates.
            ordered: In the order of the keys; false allows any order.
            on_error: What becomes of a key that fails, by whatever exception, NotLoadable too: "raise" its error,
                "return" it as ``(key, error)``, or "omit" the key.
            progress: True shows how many keys and bytes are done, as of ``put``. A function is called with 1 for each
                key that is done, failed or not; what it raises ends the iteration.
            verify: As of ``get``.
            writable: As of ``get``.
            map: As of ``get``.
            safe: As of ``get``.

        Raises:
            ValueError: ``on_error`` is none of the three.
            NotFound: there is nothing of one of the names.
            CorruptObject: bytes differ from what was stored, and there is no whole copy.
            InvalidKey: one of ``keys`` can be no name, or several keys begin so.
        """
        check_arguments(keys, on_error)
        how = Wishes(verify, writable, map, safe)
        yield from counted(progress, "get_many", keys, lambda told: get_many(self.handle, keys, on_error, told, how))

    # ---- bundles ----------------------------------------------------------------------

    def save(
        self, artifacts: Mapping[str, object], ref: str | None = None, *, base: str | None = None,
        note: Mapping[str, Any] | None = None, progress: Progress = None,
    ) -> Key:  # fmt: skip
        """Store the named artifacts of one task as a bundle under one key: a recipe and at most one pack per 64 MiB.

        Args:
            artifacts: Objects by name, as for ``put``. Their order does not matter to the key.
            ref: As of ``put``.
            base: An older bundle, as of ``put``; each artifact is compared with the one of its name.
            note: As of ``put``.
            progress: As of ``put``.

        Raises:
            WrongArgument: ``artifacts`` is no mapping, or a table. It is a TypeError.
            InvalidKey: a name is not a string, or is longer than 65535 bytes; or ``base`` or ``ref`` as of ``put``.
            InvalidNote: as of ``put``.
            NotSerializable: a part of an artifact cannot be pickled; the message names the artifact and the part.
            OutOfSpace: disk full, or quota reached.
            AccessDenied: nothing may be written there.
            NotFound: there is no store, and it was opened with ``create=False``.
            Conflict: as of ``put``.
        """
        if progress is not None:
            with shown(progress, "save"):
                return self.save(artifacts, ref, base=base, note=note)
        if ref is not None:
            self._require_ref(ref)
        refuse_no_mapping(artifacts)
        attached = None if note is None else encode_note(note) if ref is None else encode_ref_note(note)
        found: list[str] = []
        for name in artifacts:
            if not isinstance(name, str) or len(name.encode("utf-8", "surrogatepass")) > 0xFFFF:
                raise InvalidKey("artifact names are strings of up to 65535 bytes", found=f"{name!r:.80}")
        with self.handle.saving(self._base(base)) as ingest:
            ordered = sorted(artifacts, key=lambda name: name.encode("utf-8", "surrogatepass"))
            drafts = [ingest.draft(name, artifacts[name], named=True, alone=False) for name in ordered]
            ingest.recipe(BUNDLE, drafts, found.append, attached)
            self.handle.count(ingest.commit())
        return self._named(Key(found[0]), ref, note)

    @overload
    def load(
        self, key: str, names: str, *, verify: bool | None = None, writable: bool = True,
        map: bool | None = None, safe: bool | Allow | None = None, progress: Progress = None,
    ) -> Any: ...  # fmt: skip
    @overload
    def load(
        self, key: str, names: Iterable[str] | None = None, *, verify: bool | None = None, writable: bool = True,
        map: bool | None = None, safe: bool | Allow | None = None, progress: Progress = None,
    ) -> dict[str, Any]: ...  # fmt: skip
    def load(
        self, key: str, names: str | Iterable[str] | None = None, *, verify: bool | None = None, writable: bool = True,
        map: bool | None = None,  # noqa: A002
        safe: bool | Allow | None = None, progress: Progress = None,
    ) -> Any:  # fmt: skip
        """The artifacts of a bundle, by name. They are yours, as what ``get`` returns. Unpickles, as ``get``.

        Args:
            key: Of the bundle; or another name, as of ``get``.
            names: Only these, and only their bytes are read. One name, as a str, gives that artifact itself; a list
                gives the dict of those, as does None of all.
            verify: As of ``get``.
            writable: As of ``get``.
            map: As of ``get``.
            safe: As of ``get``.
            progress: As of ``get``.

        Raises:
            NotFound: there is nothing of this name, or the bundle has no artifact of one of ``names``.
            Unsupported: it is a single artifact.
            CorruptObject: bytes differ from what was stored, and there is no whole copy.
        """
        if progress is not None:
            with shown(progress, "load"):
                return self.load(key, names, verify=verify, writable=writable, map=map, safe=safe)
        found = self.resolve(key)
        wanted = in_bundle(names)
        recipe = self._recipe(found, key, wanted)
        artifacts = wanted.artifacts(found, key, recipe)
        how = Wishes(verify, writable, map, safe)
        return self.handle.load(found, recipe, artifacts, how, named=wanted.named(recipe))

    @overload
    def load_many(
        self, keys: Iterable[str], names: str, *, on_error: OnError = "raise",
        progress: Progress = None, verify: bool | None = None, writable: bool = True,
        map: bool | None = None, safe: bool | Allow | None = None,
    ) -> Iterator[tuple[str, Any]]: ...  # fmt: skip
    @overload
    def load_many(
        self, keys: Iterable[str], names: Iterable[str] | None = None, *, on_error: OnError = "raise",
        progress: Progress = None, verify: bool | None = None, writable: bool = True,
        map: bool | None = None, safe: bool | Allow | None = None,
    ) -> Iterator[tuple[str, dict[str, Any]]]: ...  # fmt: skip
    def load_many(
        self, keys: Iterable[str], names: str | Iterable[str] | None = None, *, on_error: OnError = "raise",
        progress: Progress = None, verify: bool | None = None, writable: bool = True,
        map: bool | None = None,  # noqa: A002
        safe: bool | Allow | None = None,
    ) -> Iterator[tuple[str, Any]]:  # fmt: skip
        """Yield ``(key, artifacts)`` for each bundle, in the order of the keys, as ``get_many`` does: with the name
        that was given. Refs, recipes and, of a remote store, the artifacts' bytes are each asked for together.

        Nothing is read before it is iterated. At most the artifacts of one bundle are held besides yours, or 32 MiB of
        them when the store is remote. Unpickles, as ``get``.

        Args:
            keys: Of bundles; or other names, as of ``get``. May be a generator, and hold duplicates.
            names: As of ``load``: one name gives of each bundle that artifact itself, a list the dict of those, None
                the dict of all. What is not named is not read.
            on_error: As of ``get_many``: also for a bundle that has no such artifact, and for what is no bundle.
            progress: As of ``get_many``.
            verify: As of ``get``.
            writable: As of ``get``.
            map: As of ``get``.
            safe: As of ``get``.

        Raises:
            ValueError: ``on_error`` is none of the three.
            NotFound: there is nothing of one of the keys, or a bundle has no artifact of one of ``names``.
            Unsupported: one is a single artifact.
            CorruptObject: bytes differ from what was stored, and there is no whole copy.
            InvalidKey: one of ``keys`` can be no name, or several keys begin so.
        """
        check_arguments(keys, on_error)
        how, wanted = Wishes(verify, writable, map, safe), in_bundle(names)
        yield from counted(
            progress, "load_many", keys, lambda told: get_many(self.handle, keys, on_error, told, how, wanted)
        )

    # ---- bytes and files --------------------------------------------------------------

    def put_bytes(
        self, data: Buffer, ref: str | None = None, *, base: str | None = None,
        note: Mapping[str, Any] | None = None, progress: Progress = None,
    ) -> Key:  # fmt: skip
        """Store bytes as they are, without pickle. The same bytes as a file have the same key.

        Args:
            data: Contiguous memory. It must not change before this returns.
            ref: As of ``put``.
            base: As of ``put``.
            note: As of ``put``.
            progress: As of ``put``.

        Raises:
            NotSerializable: ``data`` is not memory in one piece, or holds addresses of objects (a TypeError).
            OutOfSpace: disk full, or quota reached.
            AccessDenied: nothing may be written there.
            NotFound: there is no store, and it was opened with ``create=False``.
            Conflict: as of ``put``.
            InvalidKey: ``base`` or ``ref`` as of ``put``.
            InvalidNote: as of ``put``.
        """
        block = bytes_of(data)
        if progress is None:  # of a small put the other way would be a tenth more
            return self._put_raw([block], base, ref, note)
        with shown(progress, "put_bytes", memoryview(block).nbytes):
            return self._put_raw([block], base, ref, note)

    def put_file(
        self, path: str | os.PathLike[str], ref: str | None = None, *, base: str | None = None,
        note: Mapping[str, Any] | None = None, progress: Progress = None,
    ) -> Key:  # fmt: skip
        """Store a file's bytes, read in blocks of 8 MiB. If it raises, no key stands for the file.

        Args:
            path: The file. It must not change before this returns. Of a pipe all is stored that comes until its
                writers are done, and a device is read to its end.
            ref: As of ``put``.
            base: As of ``put``.
            note: As of ``put``.
            progress: As of ``put``.

        Raises:
            OSError: the file cannot be read. Also OutOfSpace and AccessDenied are OSErrors, of the store.
            NotFound: there is no store, and it was opened with ``create=False``; or nobody writes to a named pipe
                within ten seconds.
            Conflict: as of ``put``.
            InvalidKey: ``base`` or ``ref`` as of ``put``.
            InvalidNote: as of ``put``.
        """
        with shown(progress, "put_file", None if progress is None else bytes_of_file(path)):
            return self._put_raw(read_blocks(path, FILE_BLOCK), base, ref, note)

    def _put_raw(
        self, blocks: Iterable[Buffer], base: str | None, ref: str | None, note: Mapping[str, Any] | None
    ) -> Key:
        if ref is not None:
            self._require_ref(ref)
        attached = None if note is None else encode_note(note) if ref is None else encode_ref_note(note)
        found: list[str] = []
        with self.handle.saving(self._base(base)) as ingest:
            ingest.recipe(ONE, [ingest.draft_raw(blocks, "bytes")], found.append, attached)
            self.handle.count(ingest.commit())
        return self._named(Key(found[0]), ref, note)

    def _require_ref(self, ref: str) -> None:
        """What cannot be named is told before anything is stored."""
        if not isinstance(ref, str):
            raise WrongArgument(
                "ref is the name of a ref, and this is an object", found=type(ref).__name__,
                hint="What is stored comes first: put(obj, 'models/churn')",
            )  # fmt: skip
        self.refs.settable(ref)

    def _named(self, key: Key, ref: str | None, note: Mapping[str, Any] | None) -> Key:
        if ref is not None:
            try:
                self.refs.set(ref, key, note=note)
            except MfstoreError as error:
                error.add_note(f"it is stored all the same, and store.refs[{ref!r}] = {str(key)!r} names it")
                raise
        return key

    def _base(self, base: str | None) -> Callable[[str], Recipe | None] | None:
        """How to read what a save names as an older version. InvalidKey when it can be no name, or is what is left of a
        key, with which no single one begins."""
        if base is None:
            return None
        key = base if type(base) is Key else base_of(self.handle, base)

        @cache
        def find() -> Recipe | None:
            # What it would save is bytes: whatever is wrong with it is for verify to tell.
            with suppress(NotFound, CorruptObject, Unsupported):
                return self.handle.recipe(self.resolve(key))
            return None

        return (lambda _name: find()) if self.knobs.builds else None

    def get_bytes(
        self, key: str, start: int = 0, end: int | None = None, *, name: str | None = None, verify: bool | None = None
    ) -> bytes:
        """Bytes ``start`` to ``end`` of an artifact: of raw bytes themselves, of any other its pickle.

        Only the chunks that hold the range are read. Nothing is unpickled.

        Args:
            key: A key, or another name, as of ``get``.
            start: The first byte, from 0.
            end: The byte after the last one; beyond the artifact, or None, it means its end.
            name: Which artifact of a bundle.
            verify: Compare the chunks with their digests. None: as the store was opened.

        Raises:
            NotFound: there is nothing of this name, or the bundle has no such artifact.
            Unsupported: it is a bundle, and ``name`` is None.
            InvalidRange: ``start`` is negative, beyond the artifact's end, or after ``end``.
            CorruptObject: bytes differ from what was stored, and there is no whole copy.
        """
        reader = self._reader(self.resolve(key), name, verify)
        stop = reader.size if end is None else min(end, reader.size)
        if not 0 <= start <= reader.size or (end is not None and end < start):
            raise InvalidRange(f"no bytes {start} to {end}", key=key, expected=f"within 0 to {reader.size}")
        began = perf_counter()
        found = reader.read(start, stop)
        self.handle.count((1, stop - start, perf_counter() - began))
        return found

    def iter_bytes(self, key: str, *, name: str | None = None, verify: bool | None = None) -> Iterator[bytes]:
        """An artifact's bytes (as ``get_bytes``) in blocks of a few MiB, so that memory stays bounded.

        Nothing is read before it is iterated. Parameters and errors as ``get_bytes``; each block is yours.
        """
        reader = self._reader(self.resolve(key), name, verify)
        if (meter := METER.get()) is not None:
            meter.expect(reader.size)
        capabilities = self.backend.capabilities
        # Of a remote store a few reads at once, of the longest kind.
        block = 2 * capabilities.span if capabilities.remote else FILE_BLOCK
        seconds = 0.0
        for start, end in reader.blocks(block):
            began = perf_counter()
            found = reader.read(start, end)
            seconds += perf_counter() - began
            yield found
            del found
        self.handle.count((1, reader.size, seconds))

    def get_file(
        self, key: str, path: str | os.PathLike[str], *, name: str | None = None, verify: bool | None = None,
        progress: Progress = None,
    ) -> None:  # fmt: skip
        """Write an artifact's bytes (as ``get_bytes``) to a file, replacing it when everything was read.

        Nothing is left behind on failure. The file is not synced to disk.

        Args:
            key: As of ``get_bytes``.
            path: The file. Its directory must exist.
            name: Which artifact of a bundle.
            verify: As of ``get_bytes``.
            progress: As of ``put``.

        Raises:
            OutOfSpace: there is no room for the file.
            OSError: it cannot be written for another reason.
            NotFound: there is nothing of this name, or the bundle has no such artifact.
            Unsupported: it is a bundle, and ``name`` is None; or the file is a device, a pipe or a socket, which
                would be replaced.
            CorruptObject: bytes differ from what was stored, and there is no whole copy.
        """
        with shown(progress, "get_file"):
            target = regular_target(path, "write what iter_bytes yields (mfstore get without --output)")
            write_file(target, self.iter_bytes(key, name=name, verify=verify), key)

    # ---- trees ------------------------------------------------------------------------

    def put_tree(
        self, directory: str | os.PathLike[str], ref: str | None = None, *, base: str | None = None,
        exclude: str | Iterable[str] = (), on_error: Literal["raise", "omit"] = "raise",
        note: Mapping[str, Any] | None = None, progress: Progress = None,
    ) -> Key:  # fmt: skip
        """Store a directory with all that is below it; returns its key. The same names, bytes, modes and times give the
        same key.

        Files, directories (also empty ones) and symbolic links, which are stored as links and never followed.
        Whatever chunks are stored already are not stored again. Files are read in blocks, so that they may be larger
        than memory; of each path some hundred bytes are held. Owners, extended attributes and hard links are not
        stored: names of one file become files of their own, whose bytes are stored once.

        A file that changes while it is read is read again; no file is ever stored of which a part is from before a
        change and a part from after it. Different files may be from different moments. Sockets, fifos, devices and the
        store itself are left out; a MfstoreWarning names them, and so does ``store.tree(key).omitted``.

        Args:
            directory: What to store. If it is a link, what it leads to.
            ref: As of ``put``.
            base: As of ``put``: an older version of the tree.
            exclude: Patterns of what is left out: ``"*.pyc"`` and ``".git"`` are compared with names wherever they are,
                ``"build/*.o"`` and ``"data/**/tmp"`` with the path from the top; with a slash at the end, as
                ``"cache/"``, only directories. With a directory goes all that is in it.
            on_error: What becomes of a path that may not be read, vanishes, or keeps changing: "raise" Unreadable, or
                "omit" it, which is told as of sockets.
            note: As of ``put``.
            progress: As of ``put``.

        Raises:
            Unreadable: something in it cannot be read whole; the message names it. Nothing is stored then.
            OSError: the directory itself cannot be read.
            ValueError: ``on_error`` is neither of the two.
            OutOfSpace: disk full, or quota reached.
            AccessDenied: nothing may be written to the store.
            NotFound: there is no store, and it was opened with ``create=False``.
            Conflict: as of ``put``.
            InvalidKey: ``base`` or ``ref`` as of ``put``, or one of ``exclude`` is no pattern.
            InvalidNote: as of ``put``.
        """
        from mfstore.trees.excluding import excludes
        from mfstore.trees.storing import store_tree

        if on_error not in ("raise", "omit"):
            raise ValueError(f"on_error must be raise or omit, not {on_error!r}")
        if ref is not None:
            self._require_ref(ref)
        attached = None if note is None else encode_note(note) if ref is None else encode_ref_note(note)
        with shown(progress, "put_tree"):
            key = store_tree(self.handle, directory, excludes(exclude), on_error, self._base(base), attached)
        return self._named(key, ref, note)

    def tree(self, key: str, *, verify: bool | None = None) -> Tree:
        """What is in a tree, and the bytes of its files without restoring them.

        Args:
            key: A key, or another name, as of ``get``.
            verify: Compare what is read with its digests. None: as the store was opened.

        Raises:
            NotFound: there is nothing of this name.
            Unsupported: it is no tree.
            CorruptObject: what says what is in it is damaged.
            NotSigned: the store was opened with ``trusted``, and nobody of these has signed the key.
        """
        found = self.resolve(key)
        return self._tree(found, self.handle.recipe(found), verify)

    def _tree(self, key: Key, recipe: Recipe, verify: bool | None) -> Tree:
        from mfstore.trees.tree import open_tree

        return open_tree(partial(getattr, self, "handle"), key, recipe, verify)

    def ls_tree(self, key: str, path: str = "", *, recursive: bool = False) -> list[TreeEntry]:
        """What is in a directory of a tree, in the order of the paths; of a file or a link that itself.

        Args:
            key: Of the tree; or another name, as of ``get``.
            path: Of the directory in the tree, from its top.
            recursive: Also what is in the directories below.

        Raises:
            NotFound: there is nothing of this name, or of this path.
            Unsupported: it is no tree.
            CorruptObject: as of ``tree``.
        """
        return self.tree(key).entries(path, recursive=recursive)

    def get_tree(
        self, key: str, to: str | os.PathLike[str], path: str = "", *,
        existing: Literal["refuse", "keep", "replace"] = "refuse", verify: bool | None = None,
        progress: Progress = None,
    ) -> None:  # fmt: skip
        """Restore a tree, or what is at a path of it: ``to`` becomes what that is.

        With modes and times; files become those of whoever restores, so that the bits by which they would run as
        another user are not set. Links become links, wherever they point to. Nothing is written outside of ``to``,
        whatever the tree says, and whatever others do there meanwhile.

        A ``to`` that is not there appears when all of it is: until then it has a name of its own beside that, which
        begins with ``.mfstore-``. In a directory that is there each file appears whole. Of what is interrupted nothing
        else is left; after a kill, such names are. Nothing is synced to disk.

        Args:
            key: Of the tree; or another name, as of ``get``.
            to: What is restored becomes this. The directory in which it lies must exist.
            path: Of a file, a link or a directory in the tree. "": all of it.
            existing: Where there is something: "refuse" a directory that is not empty, or a file in the place of
                another; "keep" what is there, and add what is not; "replace" files and links by those of the same path,
                and leave others. No directory is ever removed.
            verify: As of ``get_bytes``.
            progress: As of ``put``.

        Raises:
            Refused: something is there; it names that. Or two paths are one to the file system of ``to``.
            NotFound: there is nothing of this name, or of this path.
            Unsupported: it is no tree.
            ValueError: ``existing`` is none of the three.
            OutOfSpace: there is no room for it.
            OSError: it cannot be written for another reason.
            CorruptObject: bytes differ from what was stored, and there is no whole copy.
        """
        from mfstore.trees.restoring import restore

        if existing not in ("refuse", "keep", "replace"):
            raise ValueError(f"existing must be refuse, keep or replace, not {existing!r}")
        capabilities = self.backend.capabilities
        with shown(progress, "get_tree"):
            restore(
                self.tree(key, verify=verify), to, path, existing, 2 * capabilities.span if capabilities.remote else 0
            )

    def put_safetensors(
        self, source: str | os.PathLike[str] | Mapping[str, Any], ref: str | None = None, *,
        metadata: Mapping[str, str] | None = None, base: str | None = None, note: Mapping[str, Any] | None = None,
        progress: Progress = None,
    ) -> Key:  # fmt: skip
        """Store the tensors of a safetensors file, or of a dict, each in a segment of its own: versions of a model
        share those that are the same. ``get`` gives the dict of them, as arrays of numpy, with the attribute
        ``metadata``; ``view(key)[name]`` one of them, or rows of it; ``export`` the file again, to the byte.

        No code runs when they are loaded: ``safe`` takes them.

        Args:
            source: The file, which must not change before this returns, or the index of several
                (``model.safetensors.index.json``), which lie beside it; or arrays of numpy and tensors of torch by
                name, such as ``model.state_dict()``. A file is read a few MiB at a time.
            ref: As of ``put``.
            metadata: Texts by name, of a dict. A file has its own.
            base: As of ``put``.
            note: As of ``put``.
            progress: As of ``put``.

        Raises:
            CorruptObject: the file is no safetensors file, or no index of such; it says what is wrong with it.
            NotSerializable: safetensors has no such tensor; the message names it.
            Unsupported: a tensor is of a type that takes ml_dtypes (bfloat16, float8), which is not installed, or of
                one of which several elements lie in a byte; or it is a pipe or a device.
            WrongArgument: it is neither a file nor a dict, or a name or the metadata are no texts. It is a TypeError.
            OSError: the file cannot be read.
            OutOfSpace: disk full, or quota reached.
            AccessDenied: nothing may be written there.
            NotFound: there is no store, and it was opened with ``create=False``.
            Conflict: the file has changed while it was read; or as of ``put``.
            InvalidKey: ``base`` or ``ref`` as of ``put``.
            InvalidNote: as of ``put``.
        """
        from mfstore.safetensors.files import tensors_of

        return self.put(tensors_of(source, metadata), ref, base=base, note=note, progress=progress)

    def export(
        self, key: str | View, path: str | os.PathLike[str], format: str | None = None, *,  # noqa: A002
        overwrite: bool = False, metadata: Mapping[str, str] | None = None, verify: bool | None = None,
        safe: bool | Allow | None = None, progress: Progress = None,
    ) -> str:  # fmt: skip
        """Write what is stored as a file that others read without mfstore; returns where it is.

        It is there whole or not at all. Arrays and tensors go from their segments to the file, of which about 32 MiB
        are held at a time; tables, series and JSON are loaded first. Nothing is unpickled for ``pickle``, ``bytes``
        and ``text`` of a whole artifact. Nothing is synced to disk.

        Args:
            key: A key, or another name, as of ``get``; or the view of a part (``store.view(key)["weights"]``).
            path: The file, whose directory must exist; or an object (``s3://bucket/key``, …), which is reached as
                the store is, if that lies in S3. It is written to a temporary file first. Of a model that came in
                several files, ``….safetensors.index.json`` writes these again, the index last.
            format: "pickle", "npy", "npz", "parquet", "safetensors", "csv", "json", "text" or "bytes". None: as the
                path ends (``.pkl``, ``.npy`` and so on; ``.txt``, ``.bin``); bytes and texts as they are, whatever the
                path is called, unless that says pickle.
            overwrite: Whether a file or an object that is there is replaced.
            metadata: Of safetensors: texts by name, in place of those that were stored.
            verify: As of ``get``. A view has its own.
            safe: As of ``get``. A view has its own.
            progress: As of ``get``.

        Raises:
            NotSerializable: the format cannot hold it; the message says why, and what fits. It is a TypeError.
            WrongArgument: nothing says in which format; or ``verify`` or ``safe`` for a view. It is a TypeError.
            InvalidKey: there is no such format, or the path names neither a file nor an object.
            Refused: there is such a file, or object.
            NotFound: there is nothing of this name, or no such bucket.
            Unsupported: a library that writes the format is missing; or the file is a device, a pipe or a socket, or
                the service has no conditional writes, and ``overwrite`` is false.
            OutOfSpace: there is no room for the file.
            OSError: it cannot be written for another reason.
            NotLoadable: as of ``get``.
            CorruptObject: bytes differ from what was stored, and there is no whole copy.
        """
        from mfstore.exporting.exporting import export

        place = os.fspath(path)
        with shown(progress, "export"):
            view = self.view(key, verify=verify, safe=safe) if isinstance(key, str) else key
            if view is key and not (verify is None and safe is None):
                raise WrongArgument("a view has its own verify and safe", hint="Give them to view(key)")
            export(
                self.backend, view, place, format, overwrite=overwrite, metadata=metadata,
                stored=lambda whole: self.iter_bytes(whole.key, name=whole.artifact or None, verify=verify),
            )  # fmt: skip
        return place

    def presign(self, url: str, expires: float | str | timedelta = "1h") -> str:
        """A URL by which anybody gets an object of S3 for a while, without credentials: of what ``export`` has put
        there.

        What is stored under a key lies in packs, with other things, so no URL gives it alone; a key is Unsupported,
        and the error says how to export it. That the object is there is looked for. Who has the URL has the object:
        it cannot be taken back, but by deleting the object, or the access key that it was signed with.

        Args:
            url: ``s3://bucket/key``. It is reached as the store is, if that lies in S3.
            expires: Seconds, a timedelta or a text such as "2h", up to seven days. A URL that was signed with temporary
                credentials (of a role) ends with these; an MfstoreWarning says so where they tell when.

        Raises:
            Unsupported: it is a key; in another cloud; or in a bucket whose URLs last five minutes (S3 Express).
            NotFound: there is no such object, or nothing of this name.
            InvalidKey: it lasts longer than seven days, or the URL names no object.
            AccessDenied: the object may not be looked at, or there are no credentials.
        """
        from mfstore.exporting.presigning import no_object, presign
        from mfstore.s3.urls import names_object

        if not names_object(url):
            raise no_object(self.view(url), url)
        return presign(self.backend, url, expires)

    def view(self, key: str, *, verify: bool | None = None, safe: bool | Allow | None = None) -> View:
        """A handle of what is stored, of which parts are loaded alone: columns of a frame, rows of an array, entries of
        a dict, artifacts of a bundle, attributes of an object.

        Reads the recipe. What is in an artifact is read when it is first asked for, without its data.

        Args:
            key: A key, or another name (see ``docs/store.md``).
            verify: Compare what is read with its digests. None: as the store was opened.
            safe: As of ``get``: an artifact that takes what is not on the list cannot be looked into.

        Raises:
            NotFound: nothing is stored under the key.
            CorruptObject: its recipe is damaged.
            Unsupported: it is a tree.
        """
        from mfstore.views.view import open_view

        return open_view(partial(getattr, self, "handle"), self.resolve(key), key, verify, safe)

    def diff(
        self, old: str, new: str, *, safe: bool | Allow | None = None, progress: Progress = None
    ) -> Diff:  # fmt: skip
        """What differs between two things that are stored: artifacts, entries of dicts, columns, arrays and attributes
        that were added, removed or changed, with how many rows of them and how many bytes; and fields of the notes.

        It is planned from recipes and pickles. Chunks that both have are not read, nor is what only one side has. Of
        what is read about 16 MiB are held at a time, but for columns that cannot be divided, such as sparse ones, and
        of arrays in order "F" a byte for each row. Rows are compared by position; where one side has more, those at
        the end too, so that rows that were put in or taken out in one place are no changes of all that follow. Not a
        number equals itself. Types of numpy, pandas and Arrow are made for what is compared, as ``view`` does, and
        nothing else. Unpickles: only for stores whose writers you trust.

        Args:
            old: A key, or another name, as of ``get``.
            new: What it is compared with.
            safe: As of ``view``.
            progress: True shows how many bytes have been read, as of ``put``. A function is called with how many more
                have.

        Raises:
            NotFound: there is nothing of one of the names.
            InvalidKey: one of them can be no name, or several keys begin so.
            CorruptObject: bytes differ from what was stored, and there is no whole copy.
        """
        from mfstore.comparing.stored import compare

        with shown(progress, "diff"):
            return compare(self.handle, (old, self.resolve(old)), (new, self.resolve(new)), safe)

    def _reader(self, key: Key, name: str | None, verify: bool | None) -> ArtifactReader:
        recipe = self.handle.recipe(key)
        numbers = {artifact.name: number for number, artifact in enumerate(recipe.artifacts)}
        if recipe.kind == BUNDLE and name is None:
            raise Unsupported(
                "this key is a bundle: name one of its artifacts",
                key=key,
                hint=f"It has {', '.join(list(numbers)[:20])}",
            )
        number = 0 if name is None else number_of(numbers, key, name)
        if self.handle.trust is not None:
            self.handle.require_signed([key])
        return ArtifactReader(self.handle.loading(verify, True), recipe, number)

    # ---- functions --------------------------------------------------------------------

    @overload
    def cache(self, function: Callable[P, R], /) -> Cached[P, R]: ...
    @overload
    def cache(
        self, *, ignore: str | Iterable[str] = (), verbose: int = 0, max_age: float | timedelta | None = None
    ) -> Callable[[Callable[P, R]], Cached[P, R]]: ...
    def cache(
        self, function: Callable[..., Any] | None = None, *, ignore: str | Iterable[str] = (), verbose: int = 0,
        max_age: float | timedelta | None = None,
    ) -> Any:  # fmt: skip
        """Remember what a function returns: ``@store.cache``, or ``@store.cache(ignore=["verbose"])``.

        A call finds the result of an earlier one, of any process that uses the store, if these are the same: the
        function's code, its arguments with their defaults, what it takes from a function around it, and the versions
        of Python (3.12), of the library that it is of, and of those that its code takes from its module by name. What
        it calls in turn, globals, and what it imports inside do not count: ``clear()`` of the function forgets all. Of
        two programs that define it alike each has its own results, by the names of their files.

        Arguments are the same that have the same key. Functions among them count by their code; inside of lists and
        the like only those that the program defines itself do, others by their names. A bound method counts with the
        object that it is of, and keywords that a function takes as ``**`` count in their order. The result is what
        ``get`` loads; it lies under the ref ``cache/<module>.<function>/<digits>``, whose note tells the arguments in
        short and how long it took. So a collection keeps it, until it is forgotten, or goes as part of the series
        ``cache/*`` (``plan_gc``). Of two who compute the same at once both do, and what comes last is remembered.
        A result that cannot be stored, and one that is damaged, lead to a warning (``MfstoreWarning``). Exceptions
        are not remembered.

        Args:
            function: What is decorated: a function, a coroutine function, or a method.
            ignore: Parameters that do not matter to the result, and variables of the function around.
            verbose: 1 tells on stderr what is computed and what is loaded, and in which time.
            max_age: Seconds, or a timedelta: an older result is computed anew.

        Returns:
            The function, which remembers, with the methods ``call`` (run it all the same, and remember that),
            ``check_call_in_cache``, ``ref_of`` and ``clear``. A call raises NotSerializable when an argument cannot be
            hashed; the message names it.

        Raises:
            WrongArgument: it is no function, or a generator; or ``ignore`` names what it has not.
        """
        from mfstore.memoizing import Cached, rules_of

        rules = rules_of(ignore, verbose, max_age)
        return (lambda found: Cached(self, found, rules)) if function is None else Cached(self, function, rules)

    # ---- deleting ---------------------------------------------------------------------

    def delete(self, key: str, *, dry_run: bool = False) -> Deletion:
        """Remove a ref with its history, or learn what becomes of a key that no ref names. Bytes are removed by
        collections alone, ``mfstore gc``, and never at once: somebody may be reading them, or about to rely on them.

        All refs are read to tell what else names the keys.

        Args:
            key: A ref, which is removed; or a key, also a shortened one.
            dry_run: Change nothing, and tell what would be.

        Returns:
            What nothing names any more. As text it says when that goes.

        Raises:
            NotFound: there is nothing of this name.
            Refused: it is a key that refs name, or did, which are told; or a former value of a ref; or the store is
                that of a Metaflow root, whose runs name keys.
            CorruptObject: a ref is damaged, so that nobody can tell what it names. Nothing was removed.
            Conflict: others keep changing the ref.
        """
        from mfstore.deleting import delete
        from mfstore.maintenance.store.of_metaflow import refuse_store_of_metaflow

        refuse_store_of_metaflow(self.backend.url)
        return delete(self.handle, key, dry_run)

    # ---- as a mapping from refs to objects ----------------------------------------------

    def __getitem__(self, key: str) -> Any:
        """``get`` of a key or name."""
        return self.get(key)

    def __setitem__(self, ref: str, obj: object) -> None:
        """``put`` an object, and point a ref at it."""
        self.put(obj, ref=ref)

    def __delitem__(self, ref: str) -> None:
        """Remove a ref with its history, as ``delete`` does. What it named stays until a collection."""
        del self.refs[ref]

    def __contains__(self, key: object) -> bool:
        """Whether ``store[key]`` finds something: ``exists``."""
        return isinstance(key, str) and self.exists(key)

    def __iter__(self) -> Iterator[str]:
        """The names of the refs, in order."""
        return iter(self.refs)

    def __len__(self) -> int:
        """How many refs there are."""
        return len(self.refs)

    def __bool__(self) -> bool:
        # A store without refs is none the less a store.
        return True

    def _ipython_key_completions_(self) -> list[str]:
        return self.refs._ipython_key_completions_()

    # ---- questions --------------------------------------------------------------------

    def resolve(self, name: str) -> Key:
        """The key that a name stands for. Wherever a method takes a key, it takes any name.

        In this order, and what comes first and is there is meant:

        * 64 digits are a key, and nothing else: nobody is asked;
        * the name of a ref is its present value;
        * ``ref@1`` is its value before that, ``ref@2`` the one before, ``ref@0`` the present one;
          ``ref@2026-11-30`` and ``ref@2026-11-30T14:00`` are what it was at the end of that day, or minute, in local
          time unless it says another; ``ref@2h`` is what it was so long ago (``s``, ``min``, ``h``, ``d``, ``w``);
        * eight digits or more are the one key that begins so.

        Raises:
            NotFound: there is nothing of this name. It says what was looked for, and which refs are called alike. That
                a key is stored is not looked for: ``exists`` tells.
            InvalidKey: it can be no name, or more than one key begins so; these are told.
            CorruptObject: the ref is damaged.
        """
        return resolve(self.handle, name)

    def exists(self, key: str) -> bool:
        """Whether something is stored under a key or another name. Its bytes are not read: ``verify`` tells whether
        they are whole.

        Raises:
            AccessDenied: it cannot be told; a refusal is never "absent".
            InvalidKey: it can be no name, or more than one key begins so.
        """
        return self.exists_many([key])[0]

    def exists_many(self, keys: Iterable[str]) -> list[bool]:
        """``exists`` of each key or name, in order, all asked for together."""
        refuse_one_key(keys)
        return exists_many(self.handle, [*keys])

    def stat(self, key: str) -> ArtifactStat:
        """What a key, or another name, stands for, without reading its data.

        Raises:
            NotFound: there is nothing of this name.
            InvalidKey: it can be no name, or more than one key begins so.
            CorruptObject: its recipe is damaged, or the ref.
        """
        found = self.resolve(key)
        return stat_of(found, self.handle.recipe(found))

    def stat_many(
        self, keys: Iterable[str], on_error: OnError = "raise", progress: Progress = None
    ) -> Iterator[tuple[str, ArtifactStat]]:
        """Yield ``(key, stat)`` for each key or name, in order, as ``get_many`` does: refs are asked for together, and
        so are recipes. Nothing is read before it is iterated.

        Args:
            keys: Or other names. May be a generator, and hold duplicates.
            on_error: As of ``get_many``.
            progress: As of ``get_many``.

        Raises:
            ValueError: ``on_error`` is none of the three.
            NotFound: there is nothing of one of the names.
            InvalidKey: one of ``keys`` can be no name, or several keys begin so.
            CorruptObject: a recipe is damaged, or a ref.
        """
        check_arguments(keys, on_error)
        yield from counted(
            progress, "stat_many", keys, lambda told: stat_many(self.handle, keys, on_error, told), bytes_move=False
        )

    def find(
        self, prefix: str = "", *, where: Mapping[str, Any] | None = None, since: Since | None = None,
        history: bool = False,
    ) -> Iterator[Found]:  # fmt: skip
        """Yield the refs whose notes say so, in the order of their names, each with its key, time and note. Nothing is
        unpickled. Refs are read a thousand at a time, and so are the recipes of keys that were put without a note for
        their ref. Nothing is read before it is iterated.

        Args:
            prefix: What the names begin with, or a pattern, as of ``refs.list``.
            where: Conditions on fields of the note, which all have to hold: by name a value, as ``{"seed": 7}``, or an
                operator with a value, as ``{"auc": (">", 0.9)}``; or a list of such pairs. Operators are ``==``,
                ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in`` and ``not in`` (with a list), and ``contains`` (a list has
                the element, a text the part). Dots lead into dicts: ``"metrics.auc"``. A field that is not there does
                not match, nor one that cannot be compared: a text is not less than a number.
            since: Only what was set since then: ``"2h"`` or a timedelta ago, a date or time (``"2026-11-30"``, local
                time unless it says another), a datetime, or seconds since the epoch.
            history: Look at all values that the refs had, not only at the present ones. They are called ``ref@n``.

        Raises:
            InvalidKey: ``where`` or ``since`` makes no sense.
            CorruptObject: a ref or a recipe is damaged.
            NotFound: a ref names a key that is not there.
        """
        from mfstore.finding import find

        self.handle.require_read()
        yield from find(self.handle, self.refs.list(prefix), where, since, history)

    def table(
        self, refs: str | Iterable[str] = "", *, where: Mapping[str, Any] | None = None, since: Since | None = None,
        history: bool = False,
    ) -> DataFrame:  # fmt: skip
        """Refs as a DataFrame of pandas: a row for each, with the columns ref, key, time (when it was set, to the
        second, in UTC), size (bytes of the artifacts), creator, and one for each field of the notes, those inside of
        others with dots (``metrics.auc``). A field that is called as one of the first five is ``note.size`` and so on.
        Nothing is unpickled.

        Args:
            refs: The name of a ref; what names begin with; a pattern, as of ``refs.list``; or a list of names.
            where: As of ``find``.
            since: As of ``find``.
            history: A row for each value that the refs had, the newest first, called ``ref@n``.

        Raises:
            Unsupported: pandas is not installed.
            InvalidKey: as of ``find``.
            NotFound: a ref of the list is not there, or names a key that is not.
            CorruptObject: a ref or a recipe is damaged.
        """
        from mfstore.finding import table

        self.handle.require_read()
        return table(self.handle, self.refs.list, refs, where, since, history)

    def keys(self) -> Iterator[Key]:
        """Every key in the store, in any order, by listing it as it is iterated; names are in ``refs``, or come by
        iterating over the store itself. A key that is stored or removed meanwhile may be told or not."""
        self.handle.require_read()
        for info in self.backend.list("recipes/"):
            name = info.key.rpartition("/")[2]
            with suppress(InvalidKey):
                yield Key(name)

    def stats(self) -> StoreStats:
        """What the store holds, by listing it, and what this handle did. A store that is not there yet is empty."""
        self.handle.require_read()
        return store_stats(self.backend, self.session)

    def metrics(self) -> StoreMetrics:
        """What this handle has done in this process since it was opened: operations, bytes, seconds by stage, requests.
        Asks nobody. ``prometheus()`` of it is a text for Prometheus."""
        return self.handle.metrics()

    # ---- other stores -------------------------------------------------------------------

    def copy_to(
        self, other: Store, names: str | Iterable[str] | None = None, *, on_conflict: OnConflict = "raise",
        signatures: bool = True, dry_run: bool = False, progress: Progress = None,
    ) -> Copied:  # fmt: skip
        """Copy keys and refs to another store: what that lacks of them travels as it is stored, and is checked on its
        way. Returns what was copied.

        Keys stay what they are, with their notes, provenance and signatures. Refs get the whole history that they have
        here, with times and notes, and are set last, and holds go with them. When it returns, all of it is durable
        there, and whole. If it raises or is killed, what refs at the destination name is whole too; run again, it goes
        on from there.

        Args:
            other: Where to. If there is no store yet one is created, with the digest of this one.
            names: What: keys and other names as of ``get``, of which a ref goes with its history and ``models/churn@1``
                as a key; patterns (``runs/*``) and beginnings (``models/``) of refs. None: every ref and every key.
            on_conflict: What becomes of a ref that the destination has set to what it never was here. "raise": nothing
                is copied, and the error names it. "skip": it stays as it is there. "overwrite": it gets the values
                that it has here behind those that it has there, which stay in its history.
            signatures: Whether signatures of keys go along. Only who may sign at the destination may write them there.
            dry_run: Only tell what would be copied.
            progress: As of ``put``, of the bytes that travel.

        Raises:
            NotFound: there is nothing of a name here, or it went meanwhile; there is no store to copy, or none at the
                destination and that was opened with ``create=False``.
            Conflict: refs are in conflict. Or garbage collection at the destination removes what this relies on, or
                others keep changing a ref: do it again.
            CorruptObject: something is damaged here and nowhere whole; the error names its key and where it lies. It
                is not written.
            Refused: both are one store, or the new one would lie within this one.
            Unsupported: the destination's digest is another, so that it has other keys.
            NotSigned: this store was opened with ``trusted``, and nobody of these has signed a key.
            AccessDenied: something may not be read here, or not be written there.
            OutOfSpace: there is no room at the destination.
            InvalidKey: a name can be none, or ``on_conflict`` is another.
            WrongArgument: ``other`` is no store, or names are none. It is a TypeError.
        """
        from mfstore.copying.run import copy_store

        if not isinstance(other, Store):
            raise WrongArgument(
                "other is the store to copy to", found=type(other).__name__, hint="mfstore.open(url) gives it"
            )
        with shown(progress, "copy"):
            return copy_store(self.handle, other.handle, names, on_conflict, signatures, dry_run)

    # ---- maintenance --------------------------------------------------------------------

    def usage(self, by: UsageBy = "ref", *, progress: bool | PhaseCallback | None = None) -> Usage:
        """Who holds how many bytes: each ref, user, flow and so on, what only it holds and what others hold as well.

        Reads every recipe, and with ``ref`` and ``prefix`` every ref; no pack. With ``month`` and ``class`` it only
        lists. Memory is bounded: what is more than some hundred thousand chunks is kept in a temporary file.

        Args:
            by: What groups are. "ref": what its values, also the former ones, need. "prefix": refs by what they begin
                with, up to the first slash. "user": who stored it first. "flow", "run", "step": the task of Metaflow
                that did. "artifact": the name in a bundle. "type": the Python type. "month": when it was stored (UTC).
                "class": the storage class in S3.
            progress: As of ``verify``.

        Raises:
            InvalidKey: there is no such ``by``.
            NotFound: there is no store.
            CorruptObject: a ref is damaged. What damaged recipes hold is told as nobody's, with a note.
            AccessDenied: something may not be read: what it holds would not be known.
            OutOfSpace: the disk for temporary files is full.
        """
        from mfstore.maintenance.store.usage import store_usage

        with phases(progress) as tell:
            return store_usage(self.handle.access("read"), by, tell)

    def verify(
        self, level: Level = "headers", *, sample: str | tuple[int, int] | None = None,
        older_than: float | None = None, budget: float | None = None, progress: bool | PhaseCallback | None = None,
    ) -> VerifyReport:  # fmt: skip
        """Check what is stored; changes nothing but a note of what was checked. Never raises for damage: it reports it.

        ``list``: sizes, by listing, and what refs name. ``headers``: recipes whole, headers and trailers of packs,
        and that chunks lie where recipes say. ``full``: every chunk is read, decoded and compared with its digest; of
        the packs only a part, if that is asked for, those not read whole for longest first.

        Args:
            level: "list", "headers" or "full".
            sample: With "full": which part of the packs. "3/10" is the third tenth, as is ``(3, 10)``.
            older_than: With "full": only packs not read whole for so many seconds.
            budget: With "full": seconds after which no further packs are read.
            progress: True shows how far each step is, as of ``put``. A function is called now and then, from any thread
                but never from two at once; what it raises ends the pass.

        Raises:
            InvalidKey: options that are unknown or make no sense together.
            NotFound: there is no store.
            AccessDenied: the store may not be listed, or 100 objects in it may not be read.
            BackendError: the storage failed, at a listing or at 100 objects.
        """
        from mfstore.maintenance.store.verify import verify_store
        from mfstore.maintenance.verification import verify_options

        options = verify_options(level, sample, older_than, budget)
        with phases(progress) as tell:
            return verify_store(self.handle.access("read"), options, tell)

    def sign(self, name: str, *, key: str | os.PathLike[str] | Any) -> Signed:
        """Sign what a name stands for, for whoever opens the store with ``trusted=`` the public key. ``mfstore.sign``
        is the same.

        What is signed is the key, and so all that is loaded under it, in this store and in any other; not that the name
        stands for it, which may change. Who has signed it before signs it anew. A collection removes signatures
        together with what they are of.

        Args:
            name: A key, or another name, as of ``get``.
            key: A file with a private key in PEM (Ed25519; or ECDSA with P-256, or RSA), not encrypted; the ARN of a
                key of KMS that signs (``ECC_NIST_P256``, ``ECC_NIST_EDWARDS25519`` or RSA), which never leaves it; or a
                private key of the cryptography package.

        Raises:
            NotFound: there is nothing of this name, or no such file.
            InvalidKey: ``key`` is none that signs; or ``name`` can be no name.
            WrongArgument: ``key`` is nothing of these. It is a TypeError.
            Unsupported: the cryptography package, or for KMS boto3, is not installed.
            AccessDenied: nothing may be written there, or KMS refuses.
        """
        from mfstore.signing import sign

        return sign(self.handle, self.resolve(name), key)

    def verify_signatures(self, trusted: Iterable[Any] | str | os.PathLike[str]) -> SignatureReport:
        """Which keys are signed by one of those who are trusted, and which are not, with the refs that name them.

        Signatures and keys are listed, and all signatures read: one request for each thousand keys, and one for each
        signature. That what lies under a key is what the key says, ``verify`` tells.

        Args:
            trusted: Public keys, as of ``mfstore.open``.

        Raises:
            NotFound: there is no store, or no such file.
            InvalidKey: one is no public key.
            Unsupported: the cryptography package is not installed.
            AccessDenied: signatures may not be listed or read.
        """
        from mfstore.maintenance.store.signatures import verify_signatures
        from mfstore.trust import public_keys

        return verify_signatures(self.handle.access("read"), public_keys(trusted))

    def repair(
        self, level: Level = "full", *, dry_run: bool = False, drop_lost: bool = False, roll_back: bool = False,
        progress: bool | PhaseCallback | None = None,
    ) -> RepairReport:  # fmt: skip
        """Verify and mend: whole chunks of damaged packs are stored again, recipes pointed at whole copies, the index
        rebuilt; what is damaged moves to ``quarantine/``. Nothing is deleted. May be stopped and run again.

        Args:
            level: How closely to look for damage first: "list", "headers" or "full".
            dry_run: Only tell what would be done.
            drop_lost: Move recipes to quarantine too whose chunks are nowhere, so that ``exists`` tells the truth.
            roll_back: Set refs whose present value is lost back to their newest value that is whole, and remove those
                that have none.
            progress: As of ``verify``.

        Raises:
            InvalidKey: the level is unknown.
            NotFound: there is no store.
            AccessDenied: something may not be read (nothing was changed then) or not be written.
            BackendError: the storage failed. If it was at reading, nothing was changed.
            Conflict: garbage collection removed what this relied on: nothing was moved away. Do it again.
        """
        from mfstore.maintenance.store.repair import RepairOptions, repair_store

        options = RepairOptions(level, dry_run, drop_lost, roll_back)
        with phases(progress) as tell:
            return repair_store(self.handle.access("read", "write", "delete"), options, tell)

    def plan_gc(
        self, live: Iterable[str] | None = None, grace: float | timedelta = DAY, *, keep_last: int | None = None,
        keep_age: float | timedelta | None = None, keep_hourly: int | None = None, keep_daily: int | None = None,
        keep_weekly: int | None = None, keep_monthly: int | None = None, keep_yearly: int | None = None,
        pinned: Iterable[str] = (), series: Iterable[str] = (), max_drop: float | None = None,
        repack: float = 0.1, progress: bool | CountCallback | None = None,
    ) -> GcPlan:  # fmt: skip
        """What garbage collection would do; ``execute`` of the result does it. Nothing is condemned or deleted here.

        Kept are the keys that refs name, those in ``live``, and everything young. What is garbage is first condemned,
        and deleted by an execution at least ``grace`` later. By default refs keep their whole history.

        A value that was set with ``note={"ttl": "30d"}`` stays for that long, and goes after it, whatever else is said.
        With the newest value of a ref goes the ref, but for values whose own time is not over. Pinned refs stay.

        Args:
            live: Keys that are needed though no ref names them.
            grace: Seconds, or a timedelta: what is younger is kept, and what is condemned stays so long.
            keep_last: Newest values kept of each ref, and newest refs kept of each series.
            keep_age: Seconds, or a timedelta: values that were current within it are kept, as are refs of a series
                that were set, and keys nobody names that were stored.
            keep_hourly: Of how many of the latest hours in which a ref was set its last value is kept, and of each
                series the last ref. Hours, days and the others are those of UTC.
            keep_daily: The same of days.
            keep_weekly: The same of weeks, which begin on Monday.
            keep_monthly: The same of months.
            keep_yearly: The same of years.
            pinned: Patterns (``prod/*``) of refs that are kept with their whole history.
            series: Patterns (``runs/*``) of refs that belong together: those that none of these rules keeps are
                removed.
            max_drop: The share of the keys, 0 to 1, that may be condemned at once: ``execute`` refuses more.
            repack: Packs that are mostly dead are rewritten, up to this share of the stored bytes, 0 to 1.
            progress: True shows what is being done, as of ``put``. A function is called with that and how many objects
                more of it are done.

        Raises:
            InvalidKey: options of retention that make no sense, or one of ``live`` cannot be a key.
            Refused: the store's clock and this machine's differ too much to tell ages, ``grace``, ``repack`` or
                ``max_drop`` is out of range, or the store is that of a Metaflow root, which is collected with its root.
            NotFound: there is no store, or a key that is needed is not stored.
            CorruptObject: something that is needed is damaged or missing. Repair first.
            AccessDenied: something that is needed may not be read.
        """
        from mfstore.maintenance.store.collecting.plan import GcOptions
        from mfstore.maintenance.store.collecting.retention import Retention
        from mfstore.maintenance.store.gc import plan_gc
        from mfstore.maintenance.store.of_metaflow import refuse_store_of_metaflow

        refuse_store_of_metaflow(self.backend.url)
        retention = Retention(
            keep_last, None if keep_age is None else _seconds(keep_age), tuple(pinned), tuple(series), keep_hourly,
            keep_daily, keep_weekly, keep_monthly, keep_yearly,
        )  # fmt: skip
        options = GcOptions(_seconds(grace), retention, repack, max_drop)
        with counts(progress) as tell:
            return plan_gc(self.handle.access("read", "write", "delete"), live, options, tell)

    # ---- without blocking an event loop -------------------------------------------------

    aput = in_thread(put)
    aget = in_thread(get)
    aput_many = in_thread(put_many)
    aget_many = each_in_thread(get_many)
    asave = in_thread(save)
    aload = in_thread(load)
    aload_many = each_in_thread(load_many)
    aput_bytes = in_thread(put_bytes)
    aput_file = in_thread(put_file)
    aget_bytes = in_thread(get_bytes)
    aiter_bytes = each_in_thread(iter_bytes)
    aget_file = in_thread(get_file)
    aput_tree = in_thread(put_tree)
    atree = in_thread(tree)
    als_tree = in_thread(ls_tree)
    aget_tree = in_thread(get_tree)
    aput_safetensors = in_thread(put_safetensors)
    aexport = in_thread(export)
    apresign = in_thread(presign)
    aview = in_thread(view)
    adiff = in_thread(diff)
    adelete = in_thread(delete)
    acopy_to = in_thread(copy_to)
    aresolve = in_thread(resolve)
    aexists = in_thread(exists)
    aexists_many = in_thread(exists_many)
    astat = in_thread(stat)

    astat_many = each_in_thread(stat_many)

    afind = each_in_thread(find)
    atable = in_thread(table)
    akeys = each_in_thread(keys)
    astats = in_thread(stats)
    ausage = in_thread(usage)
    asign = in_thread(sign)
    averify = in_thread(verify)
    averify_signatures = in_thread(verify_signatures)
    arepair = in_thread(repair)
    aplan_gc = in_thread(plan_gc)

    # ---- the handle -------------------------------------------------------------------

    def close(self) -> None:
        """End this handle's threads and connections. Using it again starts new ones."""
        handle = self._handles.pop(os.getpid(), None)
        if handle is not None:
            handle.close()
        self.backend.close()

    aclose = in_thread(close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __reduce__(self) -> tuple[Any, ...]:
        how = self._options
        return _reopen, (how.url, how.backend, how.knobs, how.create, how.digest, type(self), how.trusted)

    def __repr__(self) -> str:
        return f"mfstore.open({self.backend.url!r})"

    def _repr_html_(self) -> str:
        from mfstore.display.html import html_of
        from mfstore.overview import store_card

        return html_of(store_card(self.handle))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        from mfstore.display.text import text_of
        from mfstore.overview import store_card

        printer.text(text_of(store_card(self.handle)))

    @property
    def handle(self) -> Handle:
        """What this process shares between operations. For mfstore's own rooms, not part of the public interface."""
        pid = os.getpid()
        handle = self._handles.get(pid)
        if handle is None:
            # setdefault is atomic: two threads get the same one.
            handle = self._handles.setdefault(pid, Handle(self._options, self.session))
        return handle


def _seconds(duration: float | timedelta) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


def _reopen(
    url: str, backend: Backend, knobs: Knobs, create: bool, algorithm: str, kind: type[Store] = Store,
    trusted: tuple[bytes, ...] = (),
) -> Store:  # fmt: skip
    return kind(url, backend, knobs, create=create, algorithm=algorithm, trusted=trusted)


sign = Store.sign
