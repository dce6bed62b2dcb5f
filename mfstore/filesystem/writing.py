"""What is written to files becomes artifacts, and then values of refs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from mfstore.errors import Conflict, CorruptObject, MfstoreError, NotFound, PathExists
from mfstore.format.digests import Key
from mfstore.format.recipes import ONE
from mfstore.format.refs import StoredRef
from mfstore.records import NamedTuple
from mfstore.ref_objects import read_refs

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.backends.base import Backend
    from mfstore.handle import Handle
    from mfstore.refs import Refs
    from mfstore.store import Store

T = TypeVar("T")

BLOCKS_AHEAD = 2
"""Blocks that wait for the thread that stores them: so many are held besides what it works on."""

AT_ONCE = 16
"""Refs that are set or removed at a time: each takes a few requests, one after the other."""

ANY = "any"
"""Whatever the ref names, the last writer wins."""


class Staged(NamedTuple):
    """What is stored, and is to be the value of a ref."""

    path: str
    key: Key
    note: dict[str, Any] | None = None
    current: str | None = ANY
    """What the ref has to be: a key, None (there is none), or whatever it is."""


def store_bytes(handle: Handle, files: Iterable[Iterable[Buffer]]) -> list[Key]:
    """Store each file's blocks as bytes, all as one operation."""
    found: list[Key] = []
    with handle.saving() as ingest:
        for blocks in files:
            ingest.recipe(ONE, [ingest.draft_raw(blocks, "bytes")], found.append)
        handle.count(ingest.commit())
    return [Key(key) for key in found]


def set_ref(refs: Refs, staged: Staged) -> None:
    """Set one ref. PathExists where there was to be none, Conflict when it has changed."""
    if staged.current == ANY:
        refs.set(staged.path, staged.key, note=staged.note)
        return
    try:
        refs.set_if(staged.path, staged.key, staged.current)
    except Conflict as error:
        if staged.current is None:
            raise PathExists("a file of this name is there already", key=staged.path) from error
        raise


def set_refs(store: Store, staged: Sequence[Staged]) -> None:
    """Set refs together. If one cannot be set, the others are what they were again, as far as nobody else has changed
    them and nothing is in the way; the error says which are not."""
    refs = store.refs
    stored = read_refs(store.backend, [one.path for one in staged])
    before = {one.path: _present(found) for one, found in zip(staged, stored, strict=True)}
    done: list[Staged] = []

    def set_one(one: Staged) -> None:
        set_ref(refs, one)
        done.append(one)

    try:
        side_by_side(set_one, staged, store.backend)
    except BaseException as error:
        left = [one.path for one in reversed(done) if not _undo(refs, one, before[one.path])]
        if left:
            error.add_note(f"set all the same: {', '.join(left)}")
        raise


def _present(found: StoredRef | MfstoreError) -> Key | None:
    """What a ref names. None where there is none; and where it is damaged, since nothing would be lost."""
    if isinstance(found, MfstoreError):
        if not isinstance(found, (NotFound, CorruptObject)):
            raise found
        return None
    return found.entries[-1].key if found.entries else None


def _undo(refs: Refs, staged: Staged, before: Key | None) -> bool:
    with suppress(MfstoreError):
        if before is not None:
            refs.set_if(staged.path, before, staged.key)
            return True
        if refs.get(staged.path) == staged.key:
            del refs[staged.path]
            return True
    return False


def side_by_side(work: Callable[[T], None], items: Sequence[T], backend: Backend) -> None:
    """Do something small with each item; far away, where each waits for its answers, some at a time. All that have
    begun end before an error is raised, and none begins after it."""
    if len(items) < 2 or not backend.capabilities.remote:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(min(AT_ONCE, len(items)), "mfstore-refs") as pool:
        waiting = [pool.submit(work, item) for item in items]
        _, rest = wait(waiting, return_when=FIRST_EXCEPTION)
        for future in rest:
            future.cancel()
    for future in waiting:
        if not future.cancelled():
            future.result()


class _Abandoned(Exception):
    """The writer does not want it any more."""


class StreamedBytes:
    """Bytes that come block by block, stored meanwhile by another thread: as much is held as a few blocks take."""

    def __init__(self, handle: Handle, first: Iterable[Buffer] = ()) -> None:
        self._blocks: queue.Queue[Buffer | BaseException | None] = queue.Queue(BLOCKS_AHEAD)
        self._key: Key | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._store, args=(handle, first), name="mfstore-file", daemon=True
        )  # fmt: skip
        self._thread.start()

    def write(self, block: Buffer) -> None:
        """The next block, which must not change any more. Raises what storing has raised."""
        self._hand_over(block)
        if self._error is not None:
            raise self._error

    def finish(self) -> Key:
        """The key of all of it, once that is durable."""
        self._hand_over(None)
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._key is not None
        return self._key

    def abandon(self) -> None:
        """Nothing of it is wanted."""
        self._hand_over(_Abandoned())
        self._thread.join()

    def _hand_over(self, item: Buffer | BaseException | None) -> None:
        while self._thread.is_alive():
            with suppress(queue.Full):
                self._blocks.put(item, timeout=1.0)
                return

    def _store(self, handle: Handle, first: Iterable[Buffer]) -> None:
        try:
            (self._key,) = store_bytes(handle, [self._each(first)])
        except BaseException as error:
            self._error = error

    def _each(self, first: Iterable[Buffer]) -> Iterator[Buffer]:
        yield from first
        while (item := self._blocks.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
